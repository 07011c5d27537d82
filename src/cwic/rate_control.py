"""The search that turns a wish (a size, a rate, a PSNR) into a global quality offset.

Owns the search and nothing else: it is a pure function of a function. What an offset means, how a
size is counted and what to tell the person about a target out of reach is left to `codec`.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["SearchResult", "search_offset"]


class SearchResult(NamedTuple):
    """Where a search ended.

    Attributes:
        offset: the chosen offset, one of those that were evaluated.
        value: what the caller's function gave at `offset`.
        evaluations: how many times the caller's function was called.
        reached: whether `value` is within the tolerance of the target, and not above it if the
            search was asked to stay below.
    """

    offset: int
    value: float
    evaluations: int
    reached: bool


class _Point(NamedTuple):
    offset: int
    value: float
    error: float  # scaled value less scaled target


def search_offset(
    value_of: Callable[[int], float],
    target: float,
    *,
    low: int,
    high: int,
    tolerance: float,
    scale: Callable[[float], float] = math.log,
    not_above: bool = False,
    start: int | None = None,
    slope: float | None = None,
    max_evaluations: int | None = None,
) -> SearchResult:
    """Finds the offset whose value comes closest to a target.

    The function is expected to rise with the offset; steps and plateaus are fine. The search is a
    secant on the scaled value, kept inside a bracket, with a bisection whenever two secants in a
    row failed to halve the bracket. For a function that never falls it therefore ends either
    within `tolerance`, or at the best offset of all, or at the nearest end of the range, after at
    most `5 + 4 * ceil(log2(high - low + 1))` evaluations; sizes of a real picture take two to
    four. A function that falls here and there still gets the best of what was evaluated.

    Args:
        value_of: the size or quality at an offset; must not give NaN. Never called twice with the
            same offset.
        target: the wish, in the unit of `value_of`.
        low: the smallest offset, included.
        high: the largest offset, included; at least `low`.
        tolerance: how far from the target the scaled value may be; with `math.log`, 0.01 is 1 %.
        scale: makes the value roughly linear in the offset: `math.log` for sizes, `float` for
            decibels. Values that are not positive count as minus infinity.
        not_above: accept only values that are not above the target: the result is within
            `tolerance` below it, or the largest such offset. If the value at `low` is above the
            target, there is none, and the result is `low`.
        start: the first offset to try; the middle of the range if not given.
        slope: expected change of the scaled value per offset, above 0; it makes the second
            evaluation a good one. Without it, the second is at an end of the range.
        max_evaluations: stop after so many and give the best so far; at least 1. With `not_above`
            one more is spent, at `low`, if nothing evaluated so far was small enough.

    Returns:
        The best offset that was evaluated. Of two that are equally close, the one of the smaller
        value.
    """
    assert low <= high, f"empty range {low}..{high}"
    assert math.isfinite(target), f"target {target} is not finite"
    assert tolerance >= 0, f"tolerance {tolerance} is negative"
    assert slope is None or slope > 0, f"slope {slope} is not positive"
    assert max_evaluations is None or max_evaluations >= 1, f"max_evaluations {max_evaluations}"
    scaled_target = scale(target)
    # Staying below means aiming at the middle of what is accepted; aiming at its upper edge would
    # miss every other time.
    aim = -tolerance / 2 if not_above else 0.0
    limit = math.inf if max_evaluations is None else max_evaluations

    tried: list[_Point] = []
    below: _Point | None = None  # the largest offset known to be not above the target
    above: _Point | None = None  # the smallest offset known to be above it, beyond `below`
    widths: list[int] = []  # of the bracket, one entry for each step taken inside it

    def evaluate(offset: int) -> _Point:
        value = value_of(offset)
        assert not math.isnan(value), f"the value at offset {offset} is NaN"
        point = _Point(offset, value, _scaled(value, scale) - scaled_target)
        tried.append(point)
        return point

    offset = (low + high) // 2 if start is None else min(max(start, low), high)
    while True:
        point = evaluate(offset)
        # The sign is taken from the value: a logarithm could round a small excess away.
        is_above = point.value > target
        if abs(point.error) <= tolerance and not (not_above and is_above):
            break
        if is_above:
            above = point
        else:
            below = point
        if len(tried) >= limit:
            break
        if below is not None and above is not None:
            width = above.offset - below.offset
            if width <= 1:
                break
            widths.append(width)
            if len(widths) > 2 and 2 * width > widths[-3]:
                offset = (below.offset + above.offset) // 2
                widths.clear()
            else:
                offset = _between(below, above, aim)
        elif point.offset == (low if is_above else high):
            break
        else:
            offset = _outward(tried, aim, slope, end=low if is_above else high)

    if not_above:
        if all(p.value > target for p in tried) and all(p.offset != low for p in tried):
            evaluate(low)
        allowed = [p for p in tried if p.value <= target]
        if allowed:
            best = max(allowed, key=lambda p: (p.value, p.offset))
        else:  # every value is too large, and the smallest offset is the least harm
            best = min(tried, key=lambda p: p.offset)
    else:
        best = min(tried, key=lambda p: (abs(p.error), p.value))
    reached = abs(best.error) <= tolerance and not (not_above and best.value > target)
    return SearchResult(best.offset, best.value, len(tried), reached)


def _scaled(value: float, scale: Callable[[float], float]) -> float:
    try:
        return scale(value)
    except ValueError:  # the logarithm of nothing
        return -math.inf


def _between(below: _Point, above: _Point, aim: float) -> int:
    """The offset strictly inside a bracket where a straight line meets the aim."""
    share = 0.5
    rise = above.error - below.error
    if math.isfinite(rise) and rise > 0:
        share = (aim - below.error) / rise
    offset = below.offset + round(share * (above.offset - below.offset))
    return min(max(offset, below.offset + 1), above.offset - 1)


def _outward(tried: list[_Point], aim: float, slope: float | None, *, end: int) -> int:
    """The next offset on the way to an end, while all values lie on one side of the target.

    The first steps trust the expected slope and then the measured one. From the fourth on a
    step is at least twice as long as the last, so that the end comes within reach whatever the
    function does.
    """
    last = tried[-1]
    shortest = 1
    if len(tried) > 1:
        previous = tried[-2]
        step = last.offset - previous.offset
        slope = (last.error - previous.error) / step
        if len(tried) > 3:
            shortest = 2 * abs(step)
    # "not above 0" and not "at most 0": two infinite errors make the slope NaN.
    if slope is None or not slope > 0 or not math.isfinite(last.error):
        return end
    room = abs(end - last.offset)
    # Limited before rounding: a slope next to nothing asks for an endless integer.
    step = max(round(min(max(abs(aim - last.error) / slope, shortest), room)), 1)
    return last.offset + step if end > last.offset else last.offset - step
