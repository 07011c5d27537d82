"""Colours that nobody sees cost nothing and leave no rim; those that are seen stay."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter

import cwic
from cwic.image import Mode, read_picture, without_hidden_colours
from cwic.image.hidden_colours import filled

from conftest import seeded_picture  # isort: skip

sides = st.integers(1, 40)


def disc(height: int, width: int) -> np.ndarray:
    """(H, W) alpha of a disc with a soft rim."""
    y, x = np.mgrid[:height, :width]
    distance = np.hypot(x - width / 2, y - height / 2)
    return np.clip(255 * (0.4 * min(height, width) - distance) / 4, 0, 255).astype(np.uint8)


@given(sides, sides, st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_what_can_be_seen_stays_exactly(width: int, height: int, seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    alpha = np.where(rng.random((height, width)) < share, 0, rng.integers(1, 256)).astype(np.uint8)
    before = pixels.copy()
    result = filled(pixels, alpha == 0)
    np.testing.assert_array_equal(result[alpha > 0], pixels[alpha > 0])
    np.testing.assert_array_equal(pixels, before)
    if (alpha > 0).any():
        low, high = pixels[alpha > 0].min(axis=0), pixels[alpha > 0].max(axis=0)
        assert (result >= low.astype(int) - 2).all()
        assert (result <= high.astype(int) + 2).all()


def test_hidden_pixels_continue_what_lies_beside_them() -> None:
    y, x = np.mgrid[:64, :96]
    pixels = np.dstack([x * 2, y * 3, 255 - x]).astype(np.uint8)
    alpha = np.full((64, 96), 255, np.uint8)
    alpha[20:40, 30:60] = 0
    noisy = pixels.copy()
    noisy[alpha == 0] = np.random.default_rng(0).integers(0, 256, (600, 3))
    result = filled(noisy, alpha == 0).astype(int)
    steps = [np.abs(np.diff(result, axis=axis)).max() for axis in (0, 1)]
    assert max(steps) <= 24  # 255 of the noise
    np.testing.assert_array_equal(filled(pixels, alpha == 0), filled(noisy, alpha == 0))


def test_a_picture_of_which_nothing_is_hidden_stays_the_same() -> None:
    picture = read_picture(
        np.dstack([seeded_picture(1), np.full((*seeded_picture(1).shape[:2],), 1).astype(np.uint8)])
    )
    assert without_hidden_colours(picture).pixels is picture.pixels
    opaque = read_picture(seeded_picture(1))
    assert without_hidden_colours(opaque) is opaque


def test_grey_that_hides_colours_is_grey() -> None:
    pixels = np.full((8, 8, 4), 90, np.uint8)
    pixels[2:4, 2:4] = (200, 10, 30, 0)
    picture = read_picture(pixels)
    assert picture.mode == Mode.RGBA
    assert without_hidden_colours(picture).mode == Mode.NEUTRAL_RGBA


@pytest.mark.parametrize("hidden", ["noise", "black", "white"])
def test_what_is_hidden_costs_nothing_and_leaves_no_rim(hidden: str) -> None:
    pixels = np.asarray(
        Image.fromarray(seeded_picture(3)).resize((128, 96)).filter(ImageFilter.GaussianBlur(2))
    )
    alpha = disc(96, 128)
    other = {
        "noise": np.random.default_rng(0).integers(0, 256, pixels.shape, dtype=np.uint8),
        "black": np.zeros_like(pixels),
        "white": np.full_like(pixels, 255),
    }[hidden]
    source = np.dstack([np.where(alpha[..., None] > 0, pixels, other), alpha])
    data = cwic.encode(source, lossless="never")
    assert len(data) < 1.1 * len(cwic.encode(np.dstack([pixels, alpha]), lossless="never"))
    decoded = np.asarray(cwic.decode(data)).astype(int)
    np.testing.assert_array_equal(decoded[..., 3], alpha)
    error = np.square(decoded[..., :3] - pixels).mean(axis=2)
    inside, rim = error[alpha == 255].mean(), error[(alpha > 0) & (alpha < 255)].mean()
    assert rim < 4 * inside + 12


def test_where_no_loss_is_asked_for_hidden_colours_stay() -> None:
    source = np.random.default_rng(0).integers(0, 256, (20, 30, 4), dtype=np.uint8)
    source[:10, :, 3] = 0
    decoded = cwic.decode(cwic.encode(source, lossless="always"))
    np.testing.assert_array_equal(np.asarray(decoded), source)


def test_an_opaque_picture_with_transparency_is_coded_and_decoded_without_a_word() -> None:
    source = Image.fromarray(seeded_picture(2)).convert("RGBA")
    file = io.BytesIO()
    source.save(file, "PNG")
    decoded = cwic.decode(cwic.encode(file))
    assert decoded.mode == "RGBA"
    assert decoded.getchannel("A").getextrema() == (255, 255)


def test_a_drawing_that_is_kept_whole_keeps_hidden_colours_where_that_is_cheap() -> None:
    source = np.full((64, 64, 4), 255, np.uint8)
    source[20:40, 20:40] = (200, 30, 30, 255)
    source[:10] = (7, 8, 9, 0)
    np.testing.assert_array_equal(np.asarray(cwic.decode(cwic.encode(source))), source)
