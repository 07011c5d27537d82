"""Fast decoding: the light synthesis in place of the full one, through every door that decodes."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Run, expect_one_line, seeded_picture
from PIL import Image

import cwic
from cwic import model_file, pillow_plugin
from cwic.codec import Codec
from cwic.engine import Session
from cwic.errors import TargetError
from cwic.families.flagship import family as flagship
from cwic.families.flagship.grid import LATENT_PX
from cwic.families.flagship.tiles import FAST
from cwic.serve import Controls, coded, opened
from cwic.whole import WholeReader


def large_picture() -> np.ndarray:
    return np.asarray(Image.fromarray(seeded_picture(5)).resize((300, 259)))


def with_alpha() -> np.ndarray:
    pixels = large_picture()
    return np.dstack([pixels, np.broadcast_to(np.arange(300) % 256, (259, 300)).astype(np.uint8)])


PICTURES = {"RGB": large_picture, "RGBA": with_alpha, "L": lambda: large_picture()[..., 1]}


@pytest.fixture(scope="module")
def light(tiny_flagship_path: Path) -> Codec:
    """A codec whose only synthesis is the light one of the tiny model."""
    model = model_file.load(tiny_flagship_path)
    return Codec(replace(model, graphs={**model.graphs, "synthesis": model.graphs["fast"]}))


@pytest.fixture(scope="module")
def without(tiny_flagship_path: Path) -> Codec:
    """A codec of the tiny model without its light synthesis."""
    model = model_file.load(tiny_flagship_path)
    return Codec(replace(model, graphs={n: g for n, g in model.graphs.items() if n != "fast"}))


@pytest.fixture(scope="module")
def file(tiny_flagship_codec: Codec) -> bytes:
    return tiny_flagship_codec.encode(large_picture(), quality=70, lossless="never")


@pytest.fixture
def here(tiny_flagship_codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny model stands in for the bundled one that made a file."""
    monkeypatch.setattr("cwic.codec.loaded_for", lambda *_, **__: tiny_flagship_codec)


@pytest.mark.parametrize("tile_px", [None, 128])
@pytest.mark.parametrize("region", [None, (120, 100, 21, 60)])
@pytest.mark.parametrize("reduce", [1, 2, 4])
@pytest.mark.parametrize("mode", PICTURES)
def test_a_fast_decode_is_that_of_the_light_synthesis(
    mode: str,
    reduce: int,
    region: tuple[int, int, int, int] | None,
    tile_px: int | None,
    tiny_flagship_codec: Codec,
    light: Codec,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if tile_px is not None:
        monkeypatch.setattr(flagship, "MAX_UNDIVIDED_PIXELS", 64 * 64)
        monkeypatch.setattr(flagship, "TILE_PX", tile_px)
    data = tiny_flagship_codec.encode(PICTURES[mode](), quality=70, lossless="never")
    assert cwic.read_header(data).tile_px == tile_px
    found = tiny_flagship_codec.decode(data, region=region, reduce=reduce, fast=True)
    assert found.mode == mode
    np.testing.assert_array_equal(found, light.decode(data, region=region, reduce=reduce))
    full = tiny_flagship_codec.decode(data, region=region, reduce=reduce)
    assert found.size == full.size
    assert np.any(np.asarray(found) != np.asarray(full))


@pytest.mark.parametrize("name", ["cwic-visual", "cwic-psnr"])
def test_the_light_synthesis_sees_no_further_than_its_halo(name: str) -> None:
    session = Session(model_file.load(model_file.find(name)).graphs["fast"], 1)
    own, halo = 3, FAST.halo_px // LATENT_PX  # cells
    rng = np.random.default_rng(0)
    shapes = [(1, of.shape[1], 1, own + halo + 1) for of in session.inputs]
    cells = [rng.normal(0, 1, shape).astype(np.float32) for shape in shapes]
    (before,) = session.run(*cells)
    for array in cells:
        array[..., -1] += 3  # behind the halo
    (after,) = session.run(*cells)
    other_columns = np.flatnonzero((before != after).any(axis=(0, 1, 3)))
    assert other_columns[0] >= own * LATENT_PX


def test_a_preview_is_the_same_with_and_without_fast(
    file: bytes, tiny_flagship_codec: Codec, without: Codec
) -> None:
    preview = tiny_flagship_codec.decode(file, reduce=8)
    for codec in (tiny_flagship_codec, without):
        np.testing.assert_array_equal(codec.decode(file, reduce=8, fast=True), preview)


def test_a_picture_kept_whole_is_the_same_with_and_without_fast(tiny_flagship_codec: Codec) -> None:
    data = tiny_flagship_codec.encode(large_picture(), lossless="always")
    for codec in (tiny_flagship_codec, WholeReader()):
        np.testing.assert_array_equal(codec.decode(data, fast=True), large_picture())
        np.testing.assert_array_equal(codec.inspect(data, fast=True).picture, large_picture())


def test_what_is_shown_with_its_bits_is_the_fast_decode(
    file: bytes, tiny_flagship_codec: Codec
) -> None:
    picture, allocation = tiny_flagship_codec.inspect(file, fast=True)
    np.testing.assert_array_equal(picture, tiny_flagship_codec.decode(file, fast=True))
    np.testing.assert_array_equal(
        allocation.bits, tiny_flagship_codec.inspect(file).allocation.bits
    )


@pytest.mark.parametrize("family", ["flagship", "cvpr2018"])
def test_a_model_without_a_light_synthesis_says_so(
    family: str, file: bytes, without: Codec, tiny_codec: Codec
) -> None:
    codec = without if family == "flagship" else tiny_codec
    data = file if family == "flagship" else codec.encode(seeded_picture(1), lossless="never")
    message = rf"^model {codec.name}: expected a light synthesis .*, found none; decode without"
    with pytest.raises(TargetError, match=message):
        codec.decode(data, fast=True)
    with pytest.raises(TargetError, match=message):
        codec.inspect(data, fast=True)
    assert codec.decode(data).size == codec.decode(data, fast=False).size


def test_the_functions_for_one_call_decode_fast(
    file: bytes, tiny_flagship_codec: Codec, here: None
) -> None:
    fast = tiny_flagship_codec.decode(file, fast=True)
    np.testing.assert_array_equal(cwic.decode(file, fast=True), fast)
    assert np.any(np.asarray(cwic.decode(file)) != np.asarray(fast))


def test_pillow_decodes_fast_where_the_picture_or_the_class_says_so(
    file: bytes,
    tiny_flagship_codec: Codec,
    here: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "photo.cwic"
    path.write_bytes(file)
    full, fast = (tiny_flagship_codec.decode(file, fast=fast) for fast in (False, True))
    with Image.open(path) as picture:
        assert isinstance(picture, pillow_plugin.CwicImageFile)
        np.testing.assert_array_equal(picture, full)
    with Image.open(path) as picture:
        assert isinstance(picture, pillow_plugin.CwicImageFile)
        picture.fast = True
        np.testing.assert_array_equal(picture, fast)
    monkeypatch.setattr(pillow_plugin.CwicImageFile, "fast", True)
    with Image.open(path) as picture:
        np.testing.assert_array_equal(picture, fast)


def test_what_a_model_can_show_is_known_without_loading_it(
    tiny_flagship_path: Path, tiny_model_path: Path
) -> None:
    assert "fast" in model_file.read_info(tiny_flagship_path).graphs
    assert model_file.read_info(tiny_model_path).graphs == {"analysis", "synthesis"}


@pytest.mark.slow
def test_the_page_offers_a_fast_decode_where_a_model_has_one(
    tiny_flagship_path: Path, tiny_model_path: Path
) -> None:
    pytest.importorskip("gradio")
    script = (
        "import sys; from cwic.serve import page\n"
        "components = page(sys.argv[1:]).config['components']\n"
        "boxes = [c['props'] for c in components if 'fast' in str(c['props'].get('label'))]\n"
        "print(*(box['visible'] for box in boxes))"
    )
    for models, offered in (
        ((tiny_model_path, tiny_flagship_path), "True"),
        ((tiny_model_path,), "False"),
    ):
        # Gradio leaves an event loop open, so it gets a process of its own.
        command = [sys.executable, "-c", script, *map(str, models)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.stdout.split() == [offered], done.stderr


def test_the_page_shows_the_fast_decode_where_a_person_asks_for_it(
    file: bytes,
    tiny_flagship_path: Path,
    tiny_flagship_codec: Codec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cwic.serve.loaded_for", lambda _: tiny_flagship_codec)
    path, photo = tmp_path / "photo.cwic", tmp_path / "photo.png"
    path.write_bytes(file)
    fast = tiny_flagship_codec.decode(file, fast=True)
    np.testing.assert_array_equal(opened(path, fast=True).decoded, fast)
    assert np.any(np.asarray(opened(path).decoded) != np.asarray(fast))
    Image.fromarray(large_picture()).save(photo)
    controls = Controls(model=str(tiny_flagship_path), lossless="never", fast=True)
    found = coded(photo, controls, None)
    np.testing.assert_array_equal(found.decoded, tiny_flagship_codec.decode(found.data, fast=True))


def test_the_command_decodes_fast(
    run: Run, file: bytes, tiny_flagship_path: Path, tiny_flagship_codec: Codec, tmp_path: Path
) -> None:
    path = tmp_path / "photo.cwic"
    path.write_bytes(file)
    assert run("decode", path, "--fast", "--model", tiny_flagship_path)[0] == 0
    fast = tiny_flagship_codec.decode(file, fast=True)
    with Image.open(tmp_path / "photo.png") as picture:
        np.testing.assert_array_equal(picture, fast)
    batch = ("batch", tmp_path, tmp_path / "out", "--to", "png", "--fast", "-j", "1")
    assert run(*batch, "--model", tiny_flagship_path)[0] == 0
    with Image.open(tmp_path / "out" / "photo.png") as picture:
        np.testing.assert_array_equal(picture, fast)


def test_the_command_names_the_model_that_cannot_decode_fast(
    run: Run, tiny_codec: Codec, tiny_model_path: Path, tmp_path: Path
) -> None:
    """In a batch it is the failure of one file, and the others are decoded."""
    path = tmp_path / "photo.cwic"
    path.write_bytes(tiny_codec.encode(seeded_picture(1), lossless="never"))
    (tmp_path / "whole.cwic").write_bytes(tiny_codec.encode(seeded_picture(1), lossless="always"))
    expect_one_line(run("decode", path, "--fast", "--model", tiny_model_path), "model tiny:")
    batch = ("batch", tmp_path, tmp_path / "out", "--to", "png", "--fast", "-j", "1")
    code, _, err = run(*batch, "--model", tiny_model_path)
    assert code == 1
    assert "1 of 2 failed" in err
    assert [path.name for path in (tmp_path / "out").glob("*.png")] == ["whole.png"]
