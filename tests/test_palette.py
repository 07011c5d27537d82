"""Pictures in fewer colours."""

import numpy as np
import pytest
from conftest import colours_of, seeded_picture

from cwic.palette import NUM_COLOURS, is_reducible, reduced


@pytest.mark.parametrize("number", NUM_COLOURS)
def test_so_many_colours_stay_and_the_shape(number: int) -> None:
    pixels = seeded_picture(3)
    found = reduced(pixels, number)
    assert (found.shape, found.dtype) == (pixels.shape, np.uint8)
    assert 1 < colours_of(found) <= number


def test_more_colours_are_nearer() -> None:
    pixels = seeded_picture(3).astype(float)
    errors = [np.square(reduced(seeded_picture(3), n) - pixels).mean() for n in NUM_COLOURS]
    assert errors == sorted(errors, reverse=True)


def test_a_picture_of_so_few_colours_stays_what_it_is() -> None:
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (12, 3), np.uint8)[rng.integers(0, 12, (40, 33))]
    for number in (12, 16, 256):
        np.testing.assert_array_equal(reduced(pixels, number), pixels)


def test_each_pixel_has_the_nearest_of_the_colours() -> None:
    pixels = seeded_picture(4)
    found = reduced(pixels, 24)
    colours = np.unique(found.reshape(-1, 3), axis=0).astype(int)
    of_each = np.square(pixels.reshape(-1, 1, 3) - colours).sum(2)
    taken = np.square(pixels.reshape(-1, 3) - found.reshape(-1, 3).astype(int)).sum(1)
    np.testing.assert_array_equal(taken, of_each.min(1))


def test_grey_stays_grey() -> None:
    grey = np.repeat(seeded_picture(5)[..., :1], 3, 2)
    for number in NUM_COLOURS:
        found = reduced(grey, number)
        assert (found == found[..., :1]).all()


def test_a_picture_of_more_than_8192_colours_is_not_to_be_reduced() -> None:
    number = np.arange(8192, dtype=np.uint32)
    pixels = np.stack([number >> 8, number & 255, number * 0], -1).astype(np.uint8)
    pixels = pixels.reshape(64, 128, 3)
    assert is_reducible(pixels)
    assert not is_reducible(np.vstack([pixels, np.full((1, 128, 3), 255, np.uint8)]))
