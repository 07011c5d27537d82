"""Where the bits of a file went: sums that add up, and a sheet that shows them."""

from pathlib import Path

import numpy as np
import pytest
from conftest import Run, seeded_picture
from PIL import Image

from cwic.codec import Codec
from cwic.families.protocol import Allocation
from cwic.image import profiles
from cwic.view import overlay


@pytest.mark.parametrize("name", ["tiny_codec", "tiny_flagship_codec"])
def test_the_bits_of_all_cells_are_those_of_the_file(
    name: str, request: pytest.FixtureRequest
) -> None:
    codec: Codec = request.getfixturevalue(name)
    pixels = seeded_picture(12)
    data = codec.encode(pixels, quality=70)
    found = codec.inspect(data).allocation
    rows, columns = (-(-side // found.cell_px) for side in pixels.shape[:2])
    assert found.bits.shape == found.importance.shape == (rows, columns)
    assert found.bits.min() >= 0
    assert found.bits.sum() / 8 == pytest.approx(len(data) - 28, abs=8)


def test_a_mask_shows_in_the_map_and_in_the_bits(tiny_flagship_codec: Codec) -> None:
    pixels = seeded_picture(13)
    mask = np.zeros(pixels.shape[:2], bool)
    mask[:, :48] = True
    plain = tiny_flagship_codec.inspect(tiny_flagship_codec.encode(pixels)).allocation
    masked = tiny_flagship_codec.inspect(tiny_flagship_codec.encode(pixels, roi=mask)).allocation
    assert masked.importance[:, :3].mean() > plain.importance[:, :3].mean() + 1
    assert masked.bits[:, :3].sum() / masked.bits.sum() > plain.bits[:, :3].sum() / plain.bits.sum()


def test_the_sheet_has_the_profile_of_the_picture(run: Run, photo: Path, tmp_path: Path) -> None:
    profile = profiles.profile_of_rgb(profiles.SRGB_PRIMARIES, profiles.gamma_curve(2.2))
    with Image.open(photo) as picture:
        picture.save(tmp_path / "p3.png", icc_profile=profile)
        picture.convert("L").save(
            tmp_path / "grey.png", icc_profile=profiles.profile_of_grey(profiles.gamma_curve(1.8))
        )
    assert run("encode", tmp_path / "p3.png")[0] == 0
    grey = profiles.profile_of_rgb(profiles.SRGB_PRIMARIES, profiles.gamma_curve(1.8))
    sources = ("p3.png", profile), ("p3.cwic", profile), ("grey.png", grey), ("photo.png", None)
    for name, expected in sources:
        assert run("view", tmp_path / name, "-o", tmp_path / "map.png", "-f")[0] == 0
        with Image.open(tmp_path / "map.png") as sheet:
            assert sheet.info.get("icc_profile") == expected, name


@pytest.mark.parametrize("name", ["tiny_codec", "tiny_flagship_codec"])
@pytest.mark.parametrize("lossless", ["never", "always"])
def test_a_file_looked_into_shows_what_decoding_does(
    name: str, lossless: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec: Codec = request.getfixturevalue(name)
    monkeypatch.setattr("cwic.families.flagship.family.MAX_UNDIVIDED_PIXELS", 64 * 64)
    monkeypatch.setattr("cwic.families.flagship.family.TILE_PX", 64)
    pixels = np.dstack([seeded_picture(15), seeded_picture(15)[..., 0]])
    data = codec.encode(pixels, lossless=lossless)
    picture, found = codec.inspect(data)
    assert picture == codec.decode(data)
    cells = tuple(-(-side // found.cell_px) for side in pixels.shape[:2])
    assert found.importance.shape == found.bits.shape == cells


@pytest.mark.parametrize(("width", "height", "cell_px"), [(96, 64, 16), (1, 1, 8), (37, 500, 8)])
def test_a_sheet_has_two_panels_over_the_picture(width: int, height: int, cell_px: int) -> None:
    cells = (-(-height // cell_px), -(-width // cell_px))
    rng = np.random.default_rng(1)
    bits = rng.uniform(0, 90, cells)
    sheet = overlay(
        Image.new("RGB", (width, height), "grey"),
        Allocation(rng.integers(-3, 4, cells).astype(np.float32), bits, cell_px),
    )
    assert sheet.mode == "RGB"
    assert sheet.width > 2 * width
    assert sheet.height > height


def test_an_even_map_is_shown_too() -> None:
    even = Allocation(np.zeros((4, 4), np.float32), np.zeros((4, 4)), 16)
    assert overlay(Image.new("RGB", (64, 64)), even).height > 64
