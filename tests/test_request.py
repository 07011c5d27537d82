"""How a picture is to be encoded is checked in one place, whoever encodes it."""

import math

import numpy as np
import pytest

import cwic
from cwic.request import Request


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"quality": -1}, "quality: expected 0 to 100, found -1"),
        ({"quality": 101}, "quality: expected 0 to 100"),
        ({"quality": math.nan}, "quality: expected 0 to 100"),
        ({"bpp": 0}, "bpp: expected a number above 0"),
        ({"bpp": math.nan}, "bpp: expected a number above 0"),
        ({"target_bytes": -5}, "target_bytes: expected a number above 0, found -5"),
        ({"psnr_db": math.inf}, "psnr_db: expected a number above 0, found inf"),
        ({"ssimulacra2": 0}, "ssimulacra2: expected a number above 0, at most 100, found 0"),
        ({"ssimulacra2": 100.5}, "ssimulacra2: expected a number above 0, at most 100, found 100"),
        ({"ssimulacra2": math.nan}, "ssimulacra2: expected a number above 0, at most 100"),
        ({"ssimulacra2": "70"}, "ssimulacra2: expected a number above 0, .*, found '70'"),
        ({"psnr_db": 30, "ssimulacra2": 70}, "expected at most one of .*, found psnr_db, ssimul"),
        ({"quality": 50, "bpp": 0.5}, "expected at most one of .*, found quality, bpp"),
        ({"roi_strength": 4.5}, "roi_strength: expected 0 to 4"),
        ({"roi_strength": math.nan}, "roi_strength: expected 0 to 4"),
        ({"lossless": "perhaps"}, "lossless: expected one of"),
        ({"lossless": True}, "lossless: expected one of .*, found True"),
        ({"quality": "high"}, "quality: expected 0 to 100, found 'high'"),
        ({"quality": True}, "quality: expected 0 to 100, found True"),
        ({"quality": [50]}, "quality: expected 0 to 100"),
        ({"quality": 50 + 0j}, "quality: expected 0 to 100"),
        ({"bpp": "0.5"}, "bpp: expected a number above 0, found '0.5'"),
        ({"target_bytes": "40kB"}, "target_bytes: expected a number above 0, found '40kB'"),
        ({"psnr_db": np.ones(2)}, "psnr_db: expected a number above 0"),
        ({"roi_strength": None}, "roi_strength: expected 0 to 4.*, found None"),
        ({"strict": "no"}, "strict: expected True or False, found 'no'"),
        ({"keep_metadata": 0}, "keep_metadata: expected True or False, found 0"),
        ({"truncated": None}, "truncated: expected True or False, found None"),
        ({"max_pixels": "all"}, "max_pixels: expected a whole number above 0, found 'all'"),
        ({"max_pixels": 0}, "max_pixels: expected a whole number above 0, found 0"),
        ({"max_pixels": 1e6}, "max_pixels: expected a whole number above 0"),
    ],
)
def test_what_is_out_of_range_or_at_odds_is_refused(
    fields: dict[str, object], message: str, tiny_codec: cwic.Codec
) -> None:
    with pytest.raises(ValueError, match=message):
        Request(**fields)  # type: ignore[arg-type]
    pixels = np.zeros((8, 8, 3), np.uint8)
    for encode in (cwic.encode, tiny_codec.encode):
        with pytest.raises(ValueError, match=message):
            encode(pixels, **fields)  # type: ignore[operator]


def test_numbers_and_truths_of_numpy_are_some() -> None:
    request = Request(quality=np.float32(50), strict=np.True_, max_pixels=np.int64(9))  # type: ignore[arg-type]
    assert (request.quality, request.strict, request.max_pixels) == (50, True, 9)


def test_a_size_is_asked_for_in_bytes_or_in_bits_a_pixel() -> None:
    assert Request(target_bytes=500).size_bytes(1000) == 500
    assert Request(bpp=0.5).size_bytes(1000) == 62.5
    assert Request(quality=3).size_bytes(1000) is None
    assert Request(psnr_db=30).size_bytes(1000) is None


def test_a_request_says_what_was_asked_for_in_its_unit() -> None:
    requests = (Request(target_bytes=2500), Request(bpp=0.25), Request(psnr_db=31.5), Request())
    assert [request.target for request in requests] == ["2,500 B", "0.25 bpp", "31.5 dB", ""]
