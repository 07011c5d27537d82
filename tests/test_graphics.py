"""Where a picture has text and graphics."""

import numpy as np
import pytest
from conftest import page_with_photograph, seeded_picture

from cwic.graphics import beside_graphics, graphics_of


def test_text_is_graphics_and_a_photograph_is_not() -> None:
    mask = graphics_of(page_with_photograph())
    assert mask is not None
    assert mask[:64].all()
    assert not mask[112:192, 96:208].any()


@pytest.mark.parametrize("size", [(1, 1), (5, 40), (16, 16), (17, 31), (100, 3)])
def test_pictures_of_any_size_have_a_mask_of_their_size_or_none(size: tuple[int, int]) -> None:
    mask = graphics_of(page_with_photograph()[: size[0], : size[1]])
    assert mask is None or mask.shape == size


def test_photographs_and_even_pictures_have_no_graphics() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(-6, 7, (*seeded_picture(3).shape[:2], 1))
    photograph = (seeded_picture(3).astype(int) + noise).clip(0, 255).astype(np.uint8)
    assert graphics_of(photograph) is None
    assert graphics_of(np.full((200, 300, 3), 77, np.uint8)) is None


def test_what_is_beside_graphics_are_the_squares_of_the_photograph() -> None:
    page = page_with_photograph()
    mask = graphics_of(page)
    assert mask is not None
    found = beside_graphics(page, mask)
    assert found.shape == (16 * int((~mask).sum()) // 256, 16, 3)
    np.testing.assert_array_equal(found[:16], page[96:112, 80:96])
    everything = np.ones(page.shape[:2], bool)
    np.testing.assert_array_equal(beside_graphics(page, everything), page)
