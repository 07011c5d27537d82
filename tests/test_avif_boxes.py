"""Colours and depth of AVIF, which Pillow drops."""

import contextlib
import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from cwic.errors import CodecWarning, ImageError
from cwic.image import Picture, read_picture

AVIF_DATA = Path(__file__).parent / "data" / "avif"

pytestmark = pytest.mark.skipif(not features.check("avif"), reason="needs AVIF")


def avif(primaries: int, transfer: int) -> io.BytesIO:
    """An AVIF file with these code points in its boxes."""
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "AVIF", quality=90)
    data = bytearray(file.getvalue())
    place = data.find(b"colrnclx") + 8
    assert struct.unpack_from(">HH", data, place) == (1, 13)
    struct.pack_into(">HH", data, place, primaries, transfer)
    return io.BytesIO(data)


def profile_of(picture: Picture) -> bytes | None:
    return picture.metadata.icc


@pytest.mark.parametrize(("primaries", "transfer"), [(1, 13), (2, 2), (1, 2), (2, 13)])
def test_srgb_and_what_is_not_specified_need_no_profile(primaries: int, transfer: int) -> None:
    assert profile_of(read_picture(avif(primaries, transfer))) is None


@pytest.mark.parametrize("is_loaded", [False, True])
def test_display_p3_becomes_a_profile(tmp_path: Path, is_loaded: bool) -> None:
    path = tmp_path / "p3.avif"
    path.write_bytes(avif(12, 13).getvalue())
    with Image.open(path) as image:
        if is_loaded:
            image.load()
        profile = profile_of(read_picture(image))
    assert profile is not None
    assert profile == profile_of(read_picture(avif(12, 13)))
    assert profile[16:20] == b"RGB "


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_hdr_is_named(transfer: int, name: str) -> None:
    with pytest.warns(CodecWarning, match=f"its samples are {name}"):
        profile = profile_of(read_picture(avif(9, transfer)))
    assert profile is not None
    assert bytes([9, transfer, 0, 1]) in profile


@pytest.mark.parametrize("depth_bits", [10, 12])
def test_what_is_deeper_than_8_bits_is_said(depth_bits: int) -> None:
    with pytest.warns(CodecWarning, match=f"8 bits per channel are coded, of {depth_bits}$"):
        picture = read_picture(AVIF_DATA / f"ramps{depth_bits}.avif")
    ramp = np.arange(64) * 255 / 63
    assert np.abs(picture.pixels[:15] - ramp[:, None]).max() < 2
    falling = np.stack([ramp, ramp, 255 - ramp], axis=-1)
    assert np.abs(picture.pixels[17:] - falling).max() < 2


def test_a_truncated_description_does_no_harm() -> None:
    data = avif(12, 13).getvalue()
    for length in range(0, 400, 7):
        with contextlib.suppress(ImageError):
            read_picture(io.BytesIO(data[:length]))
