"""Folders in, folders out: trees, resuming, interruption, and everything that can be wrong."""

import csv
import errno
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
import types
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import cwic
from cwic import batch, folder
from cwic.batch import Decoding, Encoding, Summary, Workers
from cwic.errors import CodecError, CodecWarning, NotBuiltError
from cwic.request import Request

from conftest import seeded_picture  # isort: skip

LOW = Encoding(Request(quality=20))
# Ray takes seconds to begin where it is alone, and minutes beside busy programs.
RAY_LIMIT_S = 1800


def save_picture(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(seeded_picture(seed)[:24, :32]).save(path)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three pictures in two folders, and a text."""
    source = tmp_path / "pictures"
    for number, name in enumerate(["a.png", "deep/er/b.png", "deep/c.JPG"]):
        save_picture(source / name, number)
    (source / "notes.txt").write_text("no picture")
    return source


def encode(
    source: Path | str,
    target: Path | str,
    task: Encoding = LOW,
    *,
    ray_address: str | None = None,
    **more: Any,
) -> Summary:
    return batch.run(str(source), str(target), task, Workers(1, ray_address), **more)


def contents(target: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    paths = sorted(path for path in target.rglob("*") if path.is_file())
    return {path.relative_to(target).as_posix(): path.read_bytes() for path in paths}


def rows(target: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((target / "batch.csv").read_text().splitlines()))


def errors(summary: Summary) -> dict[str, str]:
    return {outcome.source: outcome.error for outcome in summary.failed}


# --- what comes out -------------------------------------------------------------------------------


def test_a_tree_of_pictures_becomes_the_same_tree_of_files(pictures: Path, tmp_path: Path) -> None:
    target = tmp_path / "new" / "files"
    summary = encode(pictures, target)
    assert (summary.num_done, summary.num_skipped, summary.failed) == (3, 0, [])
    files = contents(target)
    assert list(files) == ["a.cwic", "batch.csv", "deep/c.cwic", "deep/er/b.cwic"]
    assert files["a.cwic"] == cwic.Codec.load(threads=1).encode(pictures / "a.png", quality=20)


def test_the_table_says_size_and_rate_of_every_file_with_units(
    pictures: Path, tmp_path: Path
) -> None:
    summary = encode(pictures, tmp_path)
    assert summary.table == str(tmp_path / "batch.csv")
    size_bytes = (tmp_path / "a.cwic").stat().st_size
    assert rows(tmp_path)[0] == {
        "input": "a.png",
        "output": "a.cwic",
        "width_px": "32",
        "height_px": "24",
        "input_bytes": str((pictures / "a.png").stat().st_size),
        "output_bytes": str(size_bytes),
        "rate_bpp": str(round(8 * size_bytes / (32 * 24), 6)),
        "kept_whole": "False",
        "error": "",
    }
    assert summary.output_bytes == sum(int(row["output_bytes"]) for row in rows(tmp_path))


def test_pictures_that_are_kept_whole_are_counted_and_come_back_exactly(tmp_path: Path) -> None:
    source = tmp_path / "pictures"
    save_picture(source / "photo.png")
    drawing = Image.fromarray(np.arange(64 * 96).reshape(64, 96).astype(np.uint8) // 40 * 40)
    drawing.save(source / "drawing.png")
    summary = encode(source, tmp_path / "files", Encoding(Request(lossless="always")))
    assert summary.num_whole == 2
    summary = encode(
        source, tmp_path / "files", Encoding(Request(bpp=1, lossless="auto")), force=True
    )
    assert [row["kept_whole"] for row in rows(tmp_path / "files")] == ["True", "False"]
    assert summary.num_whole == 1
    batch.run(str(tmp_path / "files"), str(tmp_path / "back"), Decoding(), Workers(1))
    with Image.open(tmp_path / "back" / "drawing.png") as back:
        assert np.array_equal(back, drawing)


def test_a_tree_of_files_becomes_pictures_again(pictures: Path, tmp_path: Path) -> None:
    encode(pictures, tmp_path / "files")
    summary = batch.run(
        str(tmp_path / "files"), str(tmp_path / "back"), Decoding("webp"), Workers(1)
    )
    assert (summary.num_done, summary.failed) == (3, [])
    with Image.open(tmp_path / "back" / "deep" / "er" / "b.webp") as picture:
        assert (picture.size, picture.format) == ((32, 24), "WEBP")
    encoded, decoded = rows(tmp_path / "files"), rows(tmp_path / "back")
    assert [row["rate_bpp"] for row in encoded] == [row["rate_bpp"] for row in decoded]


def test_results_may_lie_beside_their_sources(pictures: Path) -> None:
    assert encode(pictures, pictures).num_done == 3
    assert encode(pictures, pictures).num_skipped == 3


def test_a_model_of_ones_own_encodes_and_decodes(
    pictures: Path, tmp_path: Path, tiny_model_path: Path
) -> None:
    model = str(tiny_model_path)
    assert not encode(pictures, tmp_path / "files", Encoding(model=model)).failed
    for task, num_failed in [(Decoding(), 3), (Decoding(model=model), 0)]:
        summary = batch.run(str(tmp_path / "files"), str(tmp_path / "back"), task, Workers(1))
        assert len(summary.failed) == num_failed


@given(st.lists(st.text("aA./", min_size=1), unique_by=str.casefold))
def test_no_two_results_have_the_same_name(names: list[str]) -> None:
    results = batch.result_names(names, ".cwic")
    assert len({result.casefold() for result in results}) == len(names)


def test_names_stay_short_where_they_can() -> None:
    names = ["x/a.png", "a.png", "a.jpg", "b.png", "b.png.webp"]
    expected = ["x/a.cwic", "a.png.cwic", "a.jpg.cwic", "b.cwic", "b.png.webp.cwic"]
    assert batch.result_names(names, ".cwic") == expected


# --- again, and interrupted -----------------------------------------------------------------------


def test_what_is_finished_is_skipped_and_force_makes_it_again(
    pictures: Path, tmp_path: Path
) -> None:
    encode(pictures, tmp_path)
    first = contents(tmp_path)
    (tmp_path / "deep" / "c.cwic").unlink()
    summary = encode(pictures, tmp_path)
    assert (summary.num_done, summary.num_skipped) == (1, 2)
    assert contents(tmp_path) == first
    summary = encode(pictures, tmp_path, Encoding(Request(quality=80)), force=True)
    assert (summary.num_done, summary.num_skipped) == (3, 0)
    assert contents(tmp_path).keys() == first.keys()
    assert contents(tmp_path)["a.cwic"] != first["a.cwic"]


def test_a_damaged_result_is_neither_trusted_nor_destroyed(pictures: Path, tmp_path: Path) -> None:
    encode(pictures, tmp_path)
    whole = (tmp_path / "a.cwic").read_bytes()
    (tmp_path / "a.cwic").write_bytes(whole[:-1])
    summary = encode(pictures, tmp_path)
    assert "-f makes it again" in errors(summary)["a.png"]
    assert (tmp_path / "a.cwic").read_bytes() == whole[:-1]
    assert not encode(pictures, tmp_path, force=True).failed
    assert (tmp_path / "a.cwic").read_bytes() == whole


def start(*words: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "cwic", "batch", *map(str, words), "--quiet"]
    return subprocess.Popen(command, start_new_session=True)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """Thirty pictures, and what a batch makes of them without interruption."""
    source = tmp_path_factory.mktemp("many")
    for number in range(30):
        save_picture(source / f"{number % 3}" / f"{number}.png", number)
    target = tmp_path_factory.mktemp("unbroken")
    encode(source, target)
    return source, contents(target)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_killed_batch_leaves_whole_files_and_goes_on_to_the_same_end(
    many: tuple[Path, dict[str, bytes]], tmp_path: Path
) -> None:
    source, expected = many
    process = start(source, tmp_path, "-q", 20, "-j", 2)
    while process.poll() is None and len(list(tmp_path.rglob("*.cwic"))) < 3:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    # The workers notice that they are alone; until then they may write, but whole files only.
    for name, data in contents(tmp_path).items():
        assert Path(name).name.startswith(".cwic-") or data == expected[name]
    assert start(source, tmp_path, "-q", 20, "-j", 2).wait(300) == 0
    finished = contents(tmp_path)
    assert {name: finished[name] for name in expected} == expected


def test_two_batches_into_one_folder_at_once_end_like_one(
    many: tuple[Path, dict[str, bytes]], tmp_path: Path
) -> None:
    source, expected = many
    both = [start(source, tmp_path, "-q", 20, "-j", 1) for _ in range(2)]
    assert [process.wait(300) for process in both] == [0, 0]
    assert contents(tmp_path) == expected


def test_what_a_killed_writer_left_is_removed_once_it_is_old(
    pictures: Path, tmp_path: Path
) -> None:
    old, new = tmp_path / "files" / "deep" / ".cwic-0.tmp", tmp_path / "files" / ".cwic-1.tmp"
    old.parent.mkdir(parents=True)
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    encode(pictures, tmp_path / "files")
    assert (old.exists(), new.exists()) == (False, True)


# --- bad input ------------------------------------------------------------------------------------


def png_that_lies(width_px: int, height_px: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width_px, height_px, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def test_files_that_cannot_be_read_are_listed_and_the_others_are_done(
    pictures: Path, tmp_path: Path
) -> None:
    (pictures / "text.png").write_text("no picture")
    (pictures / "empty.png").touch()
    (pictures / "short.png").write_bytes((pictures / "a.png").read_bytes()[:60])
    (pictures / "lies.png").write_bytes(png_that_lies(2**20, 2**20))
    (pictures / "lies-a-little.png").write_bytes(png_that_lies(64, 64))
    (pictures / "folder.png").mkdir()
    summary = encode(pictures, tmp_path)
    assert summary.num_done == 3
    failed = errors(summary)
    assert sorted(failed) == [
        "empty.png", "lies-a-little.png", "lies.png", "short.png", "text.png",
    ]  # fmt: skip
    assert failed["text.png"] == "found no picture in a format that Pillow reads"
    assert {row["input"]: row["error"] for row in rows(tmp_path) if row["error"]} == failed
    assert not (tmp_path / "text.cwic").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes of POSIX")
def test_links_are_followed_but_not_in_circles_and_pipes_are_not_waited_for(
    pictures: Path, tmp_path: Path
) -> None:
    (pictures / "deep" / "up").symlink_to(pictures)
    (pictures / "again").symlink_to(pictures / "deep" / "er")
    (pictures / "itself.png").symlink_to("itself.png")
    (pictures / "nowhere.png").symlink_to("nothing")
    os.mkfifo(pictures / "pipe.png")
    summary = encode(pictures, tmp_path)
    assert sorted(errors(summary)) == ["itself.png", "nowhere.png", "pipe.png"]
    done = [outcome.source for outcome in summary.outcomes if not outcome.error]
    assert done == ["a.png", "again/b.png", "deep/c.JPG", "deep/er/b.png"]


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
def test_a_folder_that_cannot_be_read_is_listed(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pictures / "deep").chmod(0)
    if os.access(pictures / "deep", os.R_OK):  # root may read all; it is refused as others are
        scandir = os.scandir

        def refuse(path: Any) -> Any:
            if os.fspath(path) == str(pictures / "deep"):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return scandir(path)

        monkeypatch.setattr(os, "scandir", refuse)
    try:
        summary = encode(pictures, tmp_path)
    finally:
        (pictures / "deep").chmod(0o700)
    assert errors(summary) == {"deep": "Permission denied"}
    assert summary.num_done == 1


def test_a_full_disk_stops_the_batch_and_says_how_to_go_on(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def write_file(path: Path, data: bytes) -> None:
        tried.append(path)
        raise CodecError("cannot write: No space left") from OSError(errno.ENOSPC, "No space left")

    with monkeypatch.context() as patch:
        patch.setattr(folder, "write_file", write_file)
        with pytest.raises(CodecError, match=r"No space left.*stopped after 0 of 3.*same command"):
            encode(pictures, tmp_path)
    assert len(tried) == 1
    assert encode(pictures, tmp_path).num_done == 3


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("mount"),
    reason="a small disk takes root",
)
def test_a_disk_that_is_really_full_holds_whole_files_only(pictures: Path, tmp_path: Path) -> None:
    for number in range(60):
        save_picture(pictures / f"{number:02}.png", number)
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount")
    try:
        with pytest.raises(CodecError, match="No space left on device"):
            encode(pictures, disk)
        files = contents(disk)
        assert files
        for data in files.values():
            cwic.decode(data)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_model_that_is_not_there_is_said_once(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(CodecError, match=r"no-such-model.*stopped after 0 of 3"):
        encode(pictures, tmp_path, Encoding(model="no-such-model"))


def test_a_folder_without_work_says_what_it_was_looking_for(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(CodecError, match="expected a folder, found nothing"):
        encode(tmp_path / "gone", tmp_path)
    with pytest.raises(CodecError, match="expected a folder, found a file"):
        encode(pictures / "a.png", tmp_path)
    encode(pictures, tmp_path / "files")
    with pytest.raises(CodecError, match=r"expected at least a picture.*--to png"):
        encode(tmp_path / "files", tmp_path)
    with pytest.raises(CodecError, match=r"expected at least a \.cwic file"):
        batch.run(str(pictures), str(tmp_path), Decoding(), Workers(1))


def test_a_result_that_cannot_be_had_is_a_failure_of_its_own(
    pictures: Path, tmp_path: Path
) -> None:
    summary = encode(pictures, tmp_path, Encoding(Request(target_bytes=10, strict=True)))
    assert len(summary.failed) == 3
    (tmp_path / "a.cwic").mkdir()
    assert "expected a file, found a folder" in errors(encode(pictures, tmp_path))["a.png"]


def test_warnings_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    Image.new("I;16", (24, 16), 30_000).save(path)
    with pytest.warns(CodecWarning, match=r"deep\.png: 8 bits per channel"):
        encode(tmp_path, tmp_path / "files")


# --- URLs and Ray ---------------------------------------------------------------------------------


def test_a_url_is_a_folder_like_any_other(pictures: Path, tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    encode(pictures, tmp_path / "files")
    encode(pictures, "memory://batch/files")
    expected = contents(tmp_path / "files")
    system = fsspec.filesystem("memory")
    stored = {path: system.cat_file(path) for path in system.find("/batch/files")}
    assert stored == {f"/batch/files/{name}": data for name, data in expected.items()}

    again = encode(pictures, "memory://batch/files")
    assert (again.num_done, again.num_skipped) == (0, 3)
    # A file system that shows half of a file gets it by another name first.
    summary = batch.run("memory://batch/files", f"local://{tmp_path}/back", Decoding(), Workers(1))
    assert (summary.num_done, summary.failed) == (3, [])
    names = ["a.png", "batch.csv", "deep/c.png", "deep/er/b.png"]
    assert list(contents(tmp_path / "back")) == names
    assert encode(pictures, (tmp_path / "files").as_uri()).num_skipped == 3


def test_a_store_that_fsspec_needs_one_more_package_for_is_reached_through_pyarrow(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsspec = pytest.importorskip("fsspec")
    pytest.importorskip("pyarrow")

    def needs_more(url: str) -> None:
        raise ImportError(f"install a package for {url}")

    monkeypatch.setattr(fsspec.core, "url_to_fs", needs_more)
    source, target = (
        folder.UrlFolder(path.as_uri()) for path in (pictures, tmp_path / "there" / "files")
    )
    names = ["a.png", "deep/c.JPG", "deep/er/b.png", "notes.txt"]
    assert list(source.files(lambda name, error: None)) == names
    data = source.read("a.png")
    assert data == (pictures / "a.png").read_bytes()
    assert source.size_bytes("a.png") == len(data)
    assert not target.exists("deep/a.png")
    target.write("deep/a.png", data)
    assert target.exists("deep/a.png")
    assert contents(tmp_path / "there") == {"files/deep/a.png": data}


def test_a_url_of_an_unknown_kind_is_named(pictures: Path) -> None:
    pytest.importorskip("fsspec")
    with pytest.raises(CodecError, match="nonsense://out"):
        encode(pictures, "nonsense://out")


@pytest.mark.parametrize(
    ("module", "more"), [("ray", {"ray_address": "local"}), ("fsspec", {"source": "memory://in"})]
)
def test_what_is_not_installed_is_named_with_the_extra(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, more: Any
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    folder._file_system.cache_clear()
    with pytest.raises(NotBuiltError, match=r"pip install 'cwic\[ray\]'"):
        encode(**{"source": pictures, "target": tmp_path, **more})


@pytest.mark.parametrize(("address", "tries"), [("local", 5), ("auto", 1)])
def test_a_ray_of_this_machine_that_is_slow_to_begin_is_begun_again(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, tries: int
) -> None:
    begun: list[object] = []

    class SlowRay(types.ModuleType):
        def init(self, **options: object) -> None:
            begun.append(options)
            raise RuntimeError("The current node timed out during startup.")

        def shutdown(self) -> None:
            begun.append(None)

    monkeypatch.setitem(sys.modules, "ray", SlowRay("ray"))
    monkeypatch.setitem(sys.modules, "ray.data", types.ModuleType("ray.data"))
    monkeypatch.setenv("RAY_BACKEND_LOG_LEVEL", "fatal")
    with pytest.raises(CodecError, match=f"no Ray at {address}: The current node timed out"):
        encode(pictures, tmp_path, ray_address=address)
    assert len(begun) == 2 * tries
    assert begun[1::2] == [None] * tries


@pytest.mark.slow
def test_ray_does_the_same_as_this_process(
    many: tuple[Path, dict[str, bytes]], tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    source, expected = many
    (source / "text.png").write_text("no picture")
    try:
        assert start(source, tmp_path, "-q", 20, "-j", 2, "--ray", "local").wait(RAY_LIMIT_S) == 1
    finally:
        (source / "text.png").unlink()
    assert rows(tmp_path)[-1]["error"] == "found no picture in a format that Pillow reads"
    assert start(source, tmp_path, "-q", 20, "-j", 2, "--ray", "local").wait(RAY_LIMIT_S) == 0
    assert contents(tmp_path) == expected


@pytest.mark.slow
def test_a_cluster_that_does_not_answer_is_named_at_once(pictures: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    words = ["batch", str(pictures), str(tmp_path), "--ray", "127.0.0.1:1"]
    command = [sys.executable, "-m", "cwic", *words]
    done = subprocess.run(command, capture_output=True, timeout=100)
    assert done.returncode == 1
    assert b"no Ray at 127.0.0.1:1: Connection refused; `ray start --head`" in done.stderr
