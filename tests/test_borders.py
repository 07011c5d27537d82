"""Edge and corner ratio: closed forms of errors that lie in known places."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from cwic.evaluation.borders import corner_ratio, edge_ratio

GREY = np.full((50, 60, 3), 100, np.uint8)


def with_errors(*errors: tuple[tuple[slice | int, ...], int]) -> np.ndarray:
    """A copy of `GREY` with differences at some places."""
    picture = GREY.copy()
    for place, difference in errors:
        picture[place] += np.uint8(difference)
    return picture


@pytest.mark.parametrize("line", [(0,), (-1,), (slice(None), 0), (slice(None), -1)])
def test_an_error_of_one_outermost_line_stands_over_half_a_level(
    line: tuple[slice | int, ...],
) -> None:
    assert edge_ratio(GREY, with_errors((line, 6))) == pytest.approx(36 / 0.5)


def test_the_worst_line_counts_and_the_inside_is_16_px_from_every_border() -> None:
    inside = (slice(16, -16), slice(16, -16))
    decoded = with_errors(((0,), 3), ((-1, slice(None)), 5), (inside, 2))
    assert edge_ratio(GREY, decoded) == pytest.approx(25 / (4 + 0.5))
    between = with_errors(((slice(1, 16),), 9), ((slice(-16, -1),), 9))
    # The first and last columns cross the two bands of 15 of 50 rows.
    assert edge_ratio(GREY, between) == pytest.approx(81 * 30 / 50 / 0.5)


def test_an_error_that_is_the_same_everywhere_is_nearly_1() -> None:
    decoded = GREY + np.uint8(10)
    assert edge_ratio(GREY, decoded) == pytest.approx(100 / 100.5)
    assert corner_ratio(GREY, decoded) == pytest.approx(100 / 100.5)


@pytest.mark.parametrize("rows", [slice(None, 16), slice(-16, None)])
@pytest.mark.parametrize("columns", [slice(None, 16), slice(-16, None)])
def test_the_worst_corner_counts_with_all_of_its_pixels(rows: slice, columns: slice) -> None:
    assert corner_ratio(GREY, with_errors(((rows, columns), 4))) == pytest.approx(16 / 0.5)
    one_pixel = with_errors(((rows.indices(50)[0], columns.indices(60)[0]), 16))
    assert corner_ratio(GREY, one_pixel) == pytest.approx(1 / 0.5)


@pytest.mark.parametrize("ratio", [edge_ratio, corner_ratio])
def test_darker_and_lighter_are_as_bad_and_nothing_wrong_is_0(
    ratio: Callable[[np.ndarray, np.ndarray], float],
) -> None:
    decoded = with_errors(((0,), 100))
    assert ratio(GREY, decoded) == ratio(decoded, GREY) > 100
    assert ratio(GREY, GREY) == 0


@pytest.mark.parametrize("ratio", [edge_ratio, corner_ratio])
def test_a_picture_without_an_inside_has_none(
    ratio: Callable[[np.ndarray, np.ndarray], float],
) -> None:
    for height, width in ((32, 60), (50, 32), (1, 1)):
        small = GREY[:height, :width]
        assert math.isnan(ratio(small, small))
    assert ratio(GREY[:33, :33], GREY[:33, :33]) == 0
    with pytest.raises(ValueError, match=r"\(50, 60, 3\), found \(49, 60, 3\)"):
        ratio(GREY, GREY[1:])
