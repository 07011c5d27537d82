"""A glance at a picture: what is even, repeated or smooth is cheap, and noise is not."""

import numpy as np
import pytest
from conftest import seeded_picture
from hypothesis import given
from hypothesis import strategies as st
from test_whole import drawings

from cwic.image import read_picture
from cwic.lossless_probe import entropy_bpp


@given(st.integers(1, 80), st.integers(1, 80), st.integers(0, 9))
def test_any_picture_has_between_0_and_24_bits(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    assert 0 <= entropy_bpp(pixels) <= 24
    assert entropy_bpp(pixels[:1, :1] * np.ones_like(pixels)) == 0


def test_noise_costs_what_its_colours_do_and_no_more() -> None:
    rng = np.random.default_rng(1)
    two = rng.integers(0, 2, (200, 300, 1)).astype(np.uint8) * np.uint8(255)
    assert entropy_bpp(np.repeat(two, 3, axis=2)) == pytest.approx(0.6, abs=0.01)
    many = rng.integers(0, 256, (200, 300, 1)).astype(np.uint8)
    assert entropy_bpp(np.repeat(many, 3, axis=2)) == pytest.approx(8, abs=0.1)
    assert entropy_bpp(rng.integers(0, 256, (200, 300, 3), dtype=np.uint8)) > 11


def test_a_slope_of_a_thousand_colours_is_cheap() -> None:
    y, x = np.mgrid[0:300, 0:400]
    slope = np.stack([x // 2, y // 2, (x + y) // 3], axis=-1).astype(np.uint8)
    assert entropy_bpp(slope) < 1


def test_drawings_are_cheaper_than_photographs() -> None:
    drawn = [entropy_bpp(read_picture(image).pixels) for image in drawings().values()]
    assert max(drawn) < 2.5
    assert min(entropy_bpp(seeded_picture(seed)[:, 70:]) for seed in range(4)) > 5


def test_lines_of_text_do_not_hide_between_the_rows_that_are_looked_at() -> None:
    """About half of the rows are busy, at any even distance, and so is what is seen."""
    noise = np.random.default_rng(3).integers(0, 256, (640, 100, 3), dtype=np.uint8)
    for distance in range(2, 60):
        busy = np.arange(640) % distance < distance / 2
        page = np.where(busy[:, None, None], noise, np.uint8(255))
        assert 0.6 < entropy_bpp(page) / entropy_bpp(noise) / busy.mean() < 1.5
