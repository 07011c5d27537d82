"""Model files: what goes in comes out, what is damaged is refused, and what an identity is."""

import dataclasses
import io
import json
import random
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import cwic
from cwic import model_file
from cwic.errors import ModelError, UnknownModelError
from cwic.model_file import EXTENSION, ModelFile


def graph(producer: bytes) -> bytes:
    """An ONNX model without any operator, from a producer of this name (under 16 kB)."""
    length = bytes([len(producer) & 127 | 128, len(producer) >> 7])
    return b"\x12" + length + producer + b"\x3a\x00"


PARTS: dict[str, Any] = {
    "decoding": {"code_channels": 8, "levels": 4, "first_kept": 2},
    "encoding": {"min_q": -192, "max_q": 96},
    "graphs": {"analysis": graph(b"analysis graph" * 9), "synthesis": graph(bytes(range(256)))},
    "arrays": {
        "bit_table": np.arange(1, 100, dtype=np.uint16),
        "weights": np.arange(-6, 6, dtype=np.int32).reshape(3, 4),
    },
}


def model_of(name: str = "small", family: str = "cvpr2018", **changes: Any) -> ModelFile:
    return model_file.build(name, family, **(PARTS | changes))


def graphs_of(**changes: bytes) -> dict[str, bytes]:
    return PARTS["graphs"] | changes


def assert_same_model(one: ModelFile, other: ModelFile) -> None:
    for field in dataclasses.fields(ModelFile):
        if field.name not in ("arrays", "path"):
            assert getattr(one, field.name) == getattr(other, field.name)
    assert one.arrays.keys() == other.arrays.keys()
    for name, array in one.arrays.items():
        assert array.dtype == other.arrays[name].dtype
        np.testing.assert_array_equal(array, other.arrays[name])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of a sound model file."""
    target = tmp_path / "small.cwicmodel"
    model_file.save(model_of(), target)
    return target


def entries_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def write_entries(path: Path, entries: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in entries.items():
            file.writestr(name, data)


def refusal(path: Path, *, also_info: bool = False) -> str:
    """The message of the error: one line, not long, beginning with the file's name."""
    with pytest.raises(ModelError) as caught:
        model_file.load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert len(message) < len(str(path)) + 300
    if also_info:
        with pytest.raises(ModelError, match="expected"):
            model_file.read_info(path)
    return message


# --- there and back -------------------------------------------------------------------------------


def test_load_is_the_inverse_of_save(path: Path) -> None:
    assert_same_model(model_file.load(path), model_of())
    info = model_file.read_info(path)
    assert (info.name, info.family, info.identity) == ("small", "cvpr2018", model_of().identity)
    assert info.size_bytes == path.stat().st_size
    assert info.path == path
    assert not info.is_default


numbers = st.dictionaries(st.text(), st.integers() | st.floats(allow_nan=False) | st.text())
integer_arrays = hnp.arrays(
    st.sampled_from([np.uint8, np.int8, np.uint16, np.int32, np.int64, ">u2", "<i8"]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
)


@settings(max_examples=50, deadline=None)
@given(
    name=st.text(),
    decoding=numbers,
    encoding=numbers,
    synthesis=st.binary(),
    arrays=st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), integer_arrays),
)
def test_any_model_survives_its_file(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    decoding: dict[str, Any],
    encoding: dict[str, Any],
    synthesis: bytes,
    arrays: dict[str, Any],
) -> None:
    model = model_of(
        name,
        decoding=decoding,
        encoding=encoding,
        graphs=graphs_of(synthesis=graph(synthesis)),
        arrays=arrays,
    )
    target = tmp_path_factory.getbasetemp() / "any.cwicmodel"
    model_file.save(model, target)
    assert_same_model(model_file.load(target), model)


def test_the_same_model_gives_the_same_bytes(path: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    model_file.save(model_of(arrays=dict(reversed(PARTS["arrays"].items()))), again)
    assert again.read_bytes() == path.read_bytes()
    model_file.save(model_file.load(path), again)
    assert again.read_bytes() == path.read_bytes()


def test_the_archive_holds_no_pickle_and_no_time(path: Path) -> None:
    with zipfile.ZipFile(path) as file:
        assert {info.date_time for info in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    names = "manifest.json analysis.onnx synthesis.onnx bit_table.npy weights.npy"
    assert list(entries_of(path)) == names.split()


# --- identity -------------------------------------------------------------------------------------


def test_the_identity_is_pinned() -> None:
    """It stands in every file: a change of how it is computed orphans them all."""
    graphs = {"analysis": b"not looked at", "synthesis": bytes(range(256))}
    assert model_of(graphs=graphs).identity.hex() == "0c217da302f8cc67"


@pytest.mark.parametrize(
    "changes",
    [
        {"family": "other"},
        {"decoding": PARTS["decoding"] | {"levels": 8}},
        {"decoding": PARTS["decoding"] | {"more": 0}},
        {"graphs": graphs_of(synthesis=graph(b"changed"))},
        {"arrays": {}},
        {"arrays": {"weights": PARTS["arrays"]["weights"]}},
        {"arrays": PARTS["arrays"] | {"more": np.zeros(0, np.uint8)}},
        {"arrays": PARTS["arrays"] | {"bit_table": PARTS["arrays"]["bit_table"] + np.uint16(1)}},
        {"arrays": PARTS["arrays"] | {"bit_table": PARTS["arrays"]["bit_table"].astype(np.int16)}},
        {"arrays": PARTS["arrays"] | {"weights": PARTS["arrays"]["weights"].reshape(4, 3)}},
        {
            "arrays": {
                "table_bit": PARTS["arrays"]["bit_table"],
                "weights": PARTS["arrays"]["weights"],
            }
        },
    ],
)
def test_whatever_decoding_depends_on_changes_the_identity(changes: dict[str, Any]) -> None:
    assert model_of(**changes).identity != model_of().identity


def test_what_only_the_encoder_uses_leaves_the_identity_alone() -> None:
    changed = model_of(
        "another name", graphs=graphs_of(analysis=graph(b"a better one")), encoding={"min_q": 0}
    )
    assert changed.identity == model_of().identity


def test_memory_order_and_byte_order_leave_the_identity_alone() -> None:
    arrays = {
        "weights": np.asfortranarray(PARTS["arrays"]["weights"]).astype(">i4"),
        "bit_table": PARTS["arrays"]["bit_table"],
    }
    assert model_of(arrays=arrays).identity == model_of().identity


# --- damage ---------------------------------------------------------------------------------------


def test_flipped_bytes_give_a_model_error_or_the_same_model(path: Path) -> None:
    """What may change unnoticed is what nobody reads, such as the archive's time stamps."""
    whole = path.read_bytes()
    chance = random.Random(8)
    refusals = []
    for _ in range(400):
        damaged = bytearray(whole)
        for _ in range(chance.choice((1, 1, 3))):
            damaged[chance.randrange(len(damaged))] ^= chance.randrange(1, 256)
        path.write_bytes(damaged)
        try:
            assert_same_model(model_file.load(path), model_of())
        except ModelError as error:
            refusals.append(str(error))
    assert len(refusals) > 250
    for message in refusals:
        assert message.startswith(f"{path}: ")
        assert "\n" not in message


def test_a_cut_file_gives_a_model_error(path: Path) -> None:
    whole = path.read_bytes()
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        refusal(path, also_info=True)


@pytest.mark.parametrize("content", [b"", b"a text file\n", b"PK\x03\x04", b"\0" * 5000])
def test_a_foreign_file_gives_a_model_error(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    assert "expected a model file, found " in refusal(path, also_info=True)


def test_a_missing_file_and_a_folder_give_a_model_error(tmp_path: Path) -> None:
    assert refusal(tmp_path / "absent") == f"{tmp_path / 'absent'}: no such model file"
    assert "expected a model file" in refusal(tmp_path, also_info=True)


@pytest.mark.parametrize("name", ["manifest.json", "analysis.onnx", "synthesis.onnx"])
def test_a_missing_entry_is_named(name: str, path: Path) -> None:
    entries = entries_of(path)
    del entries[name]
    write_entries(path, entries)
    assert f"expected an entry {name}, found none" in refusal(path)


def test_a_missing_array_and_a_renamed_one_do_not_match_the_identity(path: Path) -> None:
    entries = entries_of(path)
    weights = entries.pop("weights.npy")
    write_entries(path, entries)
    assert "damaged: expected identity " in refusal(path)
    write_entries(path, entries | {"../weights.npy": weights})
    assert "damaged: expected identity " in refusal(path)
    write_entries(path, entries | {"weights.npy": weights})
    assert_same_model(model_file.load(path), model_of())


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("format", "cwic-model-2", "expected a model of format cwic-model-1, found 'cwic-model-2'"),
        ("format", 1, "expected a model of format"),
        ("name", None, "expected name to be a str"),
        ("name", ["a"] * 10_000, "expected name to be a str, found a list"),
        ("family", 3, "expected family to be a str"),
        ("decoding", [], "expected decoding to be a dict"),
        ("decoding", "{}", "expected decoding to be a dict"),
        ("encoding", None, "expected encoding to be a dict"),
        ("identity", 5, "expected identity to be a str"),
        ("identity", "0011", "expected an identity of 16 hexadecimal digits"),
        ("identity", "no hexadecimal", "expected an identity of 16 hexadecimal digits"),
        ("identity", "00" * 10_000, "expected an identity of 16 hexadecimal digits"),
    ],
)
def test_a_manifest_of_wrong_types_is_refused(key: str, value: Any, named: str, path: Path) -> None:
    entries = entries_of(path)
    manifest = json.loads(entries["manifest.json"]) | {key: value}
    write_entries(path, entries | {"manifest.json": json.dumps(manifest).encode()})
    assert named in refusal(path, also_info=True)


@pytest.mark.parametrize("key", ["format", "name", "family", "identity", "decoding", "encoding"])
def test_a_manifest_without_a_key_is_refused(key: str, path: Path) -> None:
    entries = entries_of(path)
    manifest = json.loads(entries["manifest.json"])
    del manifest[key]
    write_entries(path, entries | {"manifest.json": json.dumps(manifest).encode()})
    assert key in refusal(path, also_info=True)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"[]", b"3", b"null", b"[" * 100_000])
def test_a_manifest_that_is_no_json_object_is_refused(text: bytes, path: Path) -> None:
    write_entries(path, entries_of(path) | {"manifest.json": text})
    refusal(path, also_info=True)


@pytest.mark.parametrize(
    ("key", "value"), [("levels", 8), ("code_channels", 16), ("new", 1), ("levels", 4.5)]
)
def test_changed_numbers_of_decoding_do_not_match_the_identity(
    key: str, value: Any, path: Path
) -> None:
    entries = entries_of(path)
    manifest = json.loads(entries["manifest.json"])
    manifest["decoding"][key] = value
    write_entries(path, entries | {"manifest.json": json.dumps(manifest).encode()})
    assert "damaged: expected identity" in refusal(path)


# --- arrays ---------------------------------------------------------------------------------------


def npy(header: str, body: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    """An array file with a header of our making."""
    return b"\x93NUMPY" + version + len(header).to_bytes(2, "little") + header.encode() + body


def header_of(descr: str, shape: str) -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n"


def saved(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(saved(np.array([{"a": 1}], dtype=object)), id="pickled"),
        pytest.param(saved(np.array([1.5])), id="float"),
        pytest.param(saved(np.array(["text"])), id="text"),
        pytest.param(saved(np.array([True])), id="bool"),
        pytest.param(saved(np.zeros(3, [("a", "u1")])), id="record"),
        pytest.param(saved(np.array([1, 2]).astype("m8[s]")), id="times"),
        pytest.param(b"", id="empty"),
        pytest.param(b"PK\x03\x04", id="zip"),
        pytest.param(b"\x80\x04\x95 pickle", id="bare pickle"),
        pytest.param(saved(np.arange(9))[:-1], id="one byte short"),
        pytest.param(saved(np.arange(9))[:40], id="cut header"),
        pytest.param(npy(header_of("'<u2'", "(1000000,)"), bytes(20)), id="more than there is"),
        pytest.param(npy(header_of("'<u2'", "(1000000, 1000000)")), id="terabytes"),
        pytest.param(npy(header_of("'<u2'", "(99999999999999999999,)")), id="beyond 64 bits"),
        pytest.param(npy(header_of("'<u2'", "(0, 9223372036854775808)")), id="nothing, but wide"),
        pytest.param(npy(header_of("'<u2'", "(-1,)"), bytes(20)), id="negative"),
        pytest.param(npy(header_of("'<u2'", "(-2, -3)"), bytes(20)), id="twice negative"),
        pytest.param(npy(header_of("'<u2'", "(2.0,)"), bytes(20)), id="real size"),
        pytest.param(npy(header_of("'<u2'", "(2L,)"), bytes(20)), id="python 2"),
        pytest.param(npy(header_of("'|O'", "(1,)"), bytes(20)), id="objects"),
        pytest.param(npy(header_of("('<u2', (3,))", "(1,)"), bytes(20)), id="arrays of arrays"),
        pytest.param(npy("{'descr': '<u2', ("), id="open bracket"),
        pytest.param(npy("  {'a': 1}\n {"), id="indentation"),
        pytest.param(npy("(" * 9000), id="nested"),
        pytest.param(npy("-" * 5000 + "1\n"), id="deep"),
        pytest.param(npy("__import__('os').getcwd()\n"), id="code"),
        pytest.param(npy("{}\n"), id="no keys"),
        pytest.param(npy(header_of("'<u2'", "(1,)"), bytes(2), b"\x02\x00"), id="version 2"),
    ],
)
def test_what_is_not_an_array_of_numbers_is_refused(data: bytes, path: Path) -> None:
    write_entries(path, entries_of(path) | {"weights.npy": data})
    assert "weights.npy: expected an array of numbers, found " in refusal(path)


def test_a_bomb_is_refused_before_it_is_unpacked(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each entry is within the limit, all of them together are not."""
    monkeypatch.setattr(model_file, "_MAX_BYTES", 1_000_000)
    bombs = {f"bomb{number}.npy": bytes(400_000) for number in range(3)}
    write_entries(path, entries_of(path) | bombs)
    assert path.stat().st_size < 10_000
    assert "expected at most 1000000 B unpacked, found " in refusal(path, also_info=True)


def test_a_small_file_is_read_without_asking_for_the_limit(path: Path) -> None:
    tracemalloc.start()
    try:
        model_file.load(path)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert path.stat().st_size < 100_000
    assert peak_bytes < 2**23


def test_bundled_models_are_small_enough_to_ship() -> None:
    """At most 18 MB each and 38 MB together."""
    sizes = [path.stat().st_size for path in Path(model_file.__file__).parent.glob("models/*")]
    assert len(sizes) == 3
    assert max(sizes) <= 18e6
    assert sum(sizes) <= 38e6


def test_an_entry_that_hides_its_size_is_refused(path: Path) -> None:
    write_entries(path, entries_of(path) | {"weights.npy": bytes(300_000)})
    content = path.read_bytes()
    assert content.count((300_000).to_bytes(4, "little")) == 2
    path.write_bytes(content.replace((300_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    refusal(path)


# --- what only an encoder needs ------------------------------------------------------------------


def test_for_decoding_a_graph_outside_the_identity_is_checked_when_it_is_asked_for(
    path: Path,
) -> None:
    whole = model_file.load(path)
    lazy = model_file.load(path, for_decoding=True)
    entries = entries_of(path)
    write_entries(path, entries | {"analysis.onnx": b"junk"})
    damaged = model_file.load(path, for_decoding=True)
    assert damaged.graphs["synthesis"] == whole.graphs["synthesis"]
    with pytest.raises(ModelError, match=r"analysis\.onnx: "):
        damaged.graphs["analysis"]
    # The file that was loaded counts, not what stands there now.
    assert dict(lazy.graphs) == dict(whole.graphs)
    assert "absent" not in lazy.graphs


# --- which models there are -----------------------------------------------------------------------


def test_bundled_models_are_those_of_the_folder() -> None:
    folder = Path(cwic.__file__).parent / "models"
    found = model_file.bundled_models()
    assert sorted(info.path for info in found) == sorted(folder.glob("*" + EXTENSION))
    assert len({info.name for info in found}) == len({info.identity for info in found})
    for info in found:
        assert model_file.find(info.name) == info.path
        assert model_file.find_identity(info.identity) == info.path


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in the place of the bundled models."""
    monkeypatch.setattr(model_file, "_BUNDLED", tmp_path / "models")
    (tmp_path / "models").mkdir()
    model_file.bundled_models.cache_clear()
    yield tmp_path / "models"
    model_file.bundled_models.cache_clear()


def test_the_default_model_comes_first(shelf: Path) -> None:
    for number, name in enumerate(("alpha", model_file.DEFAULT_MODEL, "zeta")):
        model_file.save(
            model_of(name, graphs=graphs_of(synthesis=graph(bytes([number])))),
            shelf / (name + EXTENSION),
        )
    (shelf / "notes.txt").touch()
    found = model_file.bundled_models()
    assert [info.name for info in found] == [model_file.DEFAULT_MODEL, "alpha", "zeta"]
    assert [info.is_default for info in found] == [True, False, False]
    assert model_file.find(None) == found[0].path
    assert model_file.find("zeta") == found[2].path
    assert model_file.find_identity(found[1].identity) == found[1].path


def test_a_model_is_found_by_its_path_too(shelf: Path, path: Path) -> None:
    assert model_file.find(path) == path
    assert model_file.find(str(path)) == path


def test_a_model_that_is_not_there_is_named_with_those_that_are(shelf: Path) -> None:
    with pytest.raises(ModelError, match=r"nosuch: expected .* bundled model \(none\)"):
        model_file.find("nosuch")
    model_file.save(model_of("alpha"), shelf / ("alpha" + EXTENSION))
    model_file.bundled_models.cache_clear()
    with pytest.raises(ModelError, match=r"nosuch: expected .* bundled model \(alpha\)"):
        model_file.find("nosuch")
    identity = model_of().identity.hex()
    with pytest.raises(UnknownModelError, match=rf"0000000000000000.*alpha {identity}"):
        model_file.find_identity(bytes(8))
