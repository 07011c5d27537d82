"""The encoder of the paper's network looks at what its code shows, so that colours stay."""

from collections.abc import Callable

import numpy as np
import pytest
from conftest import seeded_picture

from cwic import model_file
from cwic.evaluation.metrics import measure
from cwic.families.cvpr2018.closed_loop import asked_for
from cwic.families.cvpr2018.family import Cvpr2018, analyze, code_of_picture
from cwic.families.protocol import Pixels
from cwic.image import pad_to_multiple


def flat(level: int, shape: tuple[int, int] = (50, 70)) -> Pixels:
    return np.full((*shape, 3), level, np.uint8)


def darkened(by: int) -> Callable[[Pixels], Pixels]:
    return lambda seen: (seen.astype(int) - by).clip(0, 255).astype(np.uint8)


def test_what_is_shown_as_it_is_is_asked_for_as_it_is() -> None:
    picture = seeded_picture(4)
    assert np.array_equal(asked_for(picture, lambda seen: seen), picture)


@pytest.mark.parametrize("shape", [(1, 1), (3, 90), (33, 31), (64, 100)])
def test_most_of_what_is_missing_is_asked_for(shape: tuple[int, int]) -> None:
    """Shares of 0.25, 0.3, 0.5 and 0.3 of what is left, one after the other, up to the edges."""
    asked = asked_for(flat(100, shape), darkened(10))
    assert np.all(asked == round(110 - 10 * 0.75 * 0.7 * 0.5 * 0.7))


def test_no_more_is_asked_for_than_a_picture_can_hold() -> None:
    assert np.all(asked_for(flat(252), darkened(40)) == 255)
    assert np.all(asked_for(flat(3), darkened(-40)) == 0)


def test_what_is_asked_for_lies_where_it_is_missing() -> None:
    """Means of squares are laid where the squares are, at sides that are no multiples too."""
    picture = flat(100, (90, 101))

    def shown(seen: Pixels) -> Pixels:
        result = seen.copy()
        result[:, 64:] -= 20
        return result

    asked = asked_for(picture, shown).astype(int)
    assert np.abs(asked[:, :32] - 100).max() == 0
    assert asked[:, 85:].min() >= 115


@pytest.mark.parametrize("q", [-160, -64, 64])
def test_colours_stay_and_photographs_get_better(q: int) -> None:
    """Means of 64x64 pixels come much nearer, and the picture with them."""
    family = Cvpr2018(model_file.load(model_file.find("cvpr2018")), threads=1)
    picture = np.kron(seeded_picture(3)[:48, :64], np.ones((4, 4, 1), np.uint8))
    open_loop = code_of_picture(analyze(family.engine, picture), q, family.layout)
    analyzed = family.analyze(picture)
    before = family.part(open_loop, analyzed.tiling, analyzed.tiling.picture)
    after = analyzed.code(q).pixels()
    found, found_before = measure(picture, after), measure(picture, before)
    assert found.block_color_error < 0.75 * found_before.block_color_error
    assert found.psnr_rgb_db > found_before.psnr_rgb_db + 0.2


def test_sides_that_are_no_multiples_of_a_cell_are_compared_as_they_are() -> None:
    family = Cvpr2018(model_file.load(model_file.find("cvpr2018")), threads=1)
    picture = seeded_picture(5)[:43, :61]
    seen: list[tuple[int, ...]] = []

    def shown(pixels: Pixels) -> Pixels:
        seen.append(pixels.shape)
        found = analyze(family.engine, pad_to_multiple(pixels, 8))
        tiling = family.tiling(*pixels.shape[:2], None)
        return family.part(code_of_picture(found, 0, family.layout), tiling, tiling.picture)

    asked = asked_for(picture, shown)
    assert seen == [picture.shape] * 4
    expected = analyze(family.engine, pad_to_multiple(asked, 8))
    assert np.array_equal(
        family.analyze(picture).code(0).pixels(),
        family.part(
            code_of_picture(expected, 0, family.layout),
            *((t := family.tiling(43, 61, None)), t.picture),
        ),
    )
