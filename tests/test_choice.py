"""Coded or kept whole: whichever file answers a request better."""

import warnings

import numpy as np
import pytest
from conftest import seeded_picture

from cwic import bitstream
from cwic.codec import Codec
from cwic.errors import CodecWarning, ImageError, TargetError


def decoded_array(codec: Codec, data: bytes) -> np.ndarray:
    return np.asarray(codec.decode(data))


def drawn(height: int = 64, width: int = 96) -> np.ndarray:
    """(height, width, 3) uint8: stripes, of which a file without loss is the smaller one."""
    y, x = np.mgrid[0:height, 0:width]
    return np.array([(250, 240, 230), (20, 40, 60), (200, 90, 40)], np.uint8)[(x + 2 * y) // 7 % 3]


def is_whole(data: bytes) -> bool:
    return bitstream.read_header(data).is_whole


@pytest.mark.parametrize("targets", [{}, {"quality": 80}, {"bpp": 3}, {"psnr_db": 30}])
def test_a_drawing_is_kept_whole_and_exact(
    tiny_flagship_codec: Codec, targets: dict[str, float]
) -> None:
    data = tiny_flagship_codec.encode(drawn(), strict=True, **targets)
    assert is_whole(data)
    np.testing.assert_array_equal(decoded_array(tiny_flagship_codec, data), drawn())


@pytest.mark.parametrize("targets", [{}, {"quality": 80}, {"target_bytes": True}])
def test_a_photograph_costs_a_glance_and_has_the_bytes_that_it_had(
    tiny_flagship_codec: Codec, targets: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(7)
    texture = seeded_picture(2).astype(int) + rng.integers(-8, 9, (*seeded_picture(2).shape[:2], 1))
    pixels = texture.clip(0, 255).astype(np.uint8)

    def pack_whole(_: object) -> bytes:
        raise AssertionError("tried")

    monkeypatch.setattr("cwic.choice.pack_whole", pack_whole)
    if "target_bytes" in targets:
        targets = {"target_bytes": len(tiny_flagship_codec.encode(pixels, lossless="never"))}
    data = tiny_flagship_codec.encode(pixels, **targets)
    assert data == tiny_flagship_codec.encode(pixels, lossless="never", **targets)


@pytest.mark.parametrize("colours", [2, 3, 5, 9, 17, 40, 90])
def test_a_quality_is_kept_whole_up_to_a_quarter_more_and_a_psnr_up_to_nothing_more(
    tiny_flagship_codec: Codec, colours: int
) -> None:
    """Blocks of ever more colours, from what is cheap without loss to what is not."""
    rng = np.random.default_rng(colours)
    blocks = rng.integers(0, 256, (colours, 3), dtype=np.uint8)[rng.integers(0, colours, (8, 12))]
    pixels = np.kron(blocks, np.ones((8, 8, 1), np.uint8))
    whole = tiny_flagship_codec.encode(pixels, lossless="always")
    coded = tiny_flagship_codec.encode(pixels, lossless="never", quality=90)
    expected = whole if len(whole) <= 1.25 * len(coded) else coded
    assert tiny_flagship_codec.encode(pixels, quality=90) == expected
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CodecWarning)  # even the worst file is better
        coded = tiny_flagship_codec.encode(pixels, lossless="never", psnr_db=3)
        found = tiny_flagship_codec.encode(pixels, psnr_db=3)
    assert found == min(whole, coded, key=len)


def test_a_size_is_kept_whole_where_it_fits_to_the_byte(tiny_flagship_codec: Codec) -> None:
    whole = tiny_flagship_codec.encode(drawn(), lossless="always")
    for strict in (False, True):
        fitting = tiny_flagship_codec.encode(drawn(), target_bytes=len(whole), strict=strict)
        assert fitting == whole
    with pytest.warns(CodecWarning, match="kept whole"):
        # Nothing is as small; and nothing comes nearer.
        assert tiny_flagship_codec.encode(drawn(), target_bytes=len(whole) - 1) == whole
    with pytest.raises(TargetError, match=f"smallest file of this picture has {len(whole)} B"):
        tiny_flagship_codec.encode(drawn(), target_bytes=len(whole) - 1, strict=True)


def test_what_the_model_cannot_reach_is_kept_whole(tiny_codec: Codec) -> None:
    pixels = seeded_picture(5)
    whole = tiny_codec.encode(pixels, lossless="always")
    for targets in ({"bpp": 24.0}, {"psnr_db": 99.0}):
        for strict in (False, True):
            assert tiny_codec.encode(pixels, strict=strict, **targets) == whole


def test_always_says_so_where_the_file_is_larger_than_asked_for(tiny_codec: Codec) -> None:
    pixels = seeded_picture(5)
    with pytest.warns(CodecWarning, match="the target is 0.1 bpp, but kept whole this picture has"):
        data = tiny_codec.encode(pixels, lossless="always", bpp=0.1)
    np.testing.assert_array_equal(decoded_array(tiny_codec, data), pixels)
    with pytest.raises(TargetError, match="the target is at most 100 B, but kept whole"):
        tiny_codec.encode(pixels, lossless="always", target_bytes=100, strict=True)


def test_a_mask_does_not_matter_where_nothing_is_lost_but_must_be_one(
    tiny_flagship_codec: Codec,
) -> None:
    mask = np.zeros((64, 96), bool)
    mask[:, :48] = True
    plain = tiny_flagship_codec.encode(drawn())
    assert tiny_flagship_codec.encode(drawn(), roi=mask) == plain
    with pytest.raises(ImageError, match="mask of"):
        tiny_flagship_codec.encode(drawn(), roi=mask[:, :9])
