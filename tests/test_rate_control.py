"""A search ends at the best setting, within its tolerance, or at the nearest end."""

import itertools
import math
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cwic.rate_control import Found, Goal, search


class Counted:
    """A function given by its list of values, which refuses to be asked twice for the same."""

    def __init__(self, values: list[float], low: int = 0) -> None:
        self.values = values
        self.low = low
        self.high = low + len(values) - 1
        self.asked: list[int] = []

    def __call__(self, setting: int) -> float:
        assert self.low <= setting <= self.high
        assert setting not in self.asked
        self.asked.append(setting)
        return self.values[setting - self.low]


def searched(function: Callable[[int], float], target: float, **goal: Any) -> Found[int]:
    """A search among settings that are their own codings; its last word is checked."""
    values: dict[int, float] = {}

    def value_of(coding: int) -> float:
        values[coding] = function(coding)
        return values[coding]

    found = search(lambda setting: setting, value_of, Goal(target, **goal))
    assert found.coding == found.setting
    assert found.value == values[found.setting]
    assert found.evaluations == len(values)
    return found


def bound(num_settings: int) -> int:
    return 5 + 4 * math.ceil(math.log2(num_settings))


rises = st.lists(
    # Many plateaus, some steps, a few cliffs.
    st.one_of(st.just(0), st.integers(0, 5), st.integers(0, 100_000)),
    min_size=1,
    max_size=400,
)
lows = st.integers(-500, 500)
targets = st.integers(1, 3_000_000)
tolerances = st.sampled_from([0.0, 0.001, 0.01, 0.1])
slopes = st.none() | st.floats(1e-9, 10.0)
shares = st.none() | st.floats(0.0, 1.0)


def monotone(steps: list[int], low: int) -> Counted:
    return Counted([1.0 + total for total in itertools.accumulate(steps)], low)


def start_of(function: Counted, share: float | None) -> int | None:
    if share is None:
        return None
    return function.low + round(share * (function.high - function.low))


@settings(deadline=None)
@given(rises, lows, targets, tolerances, slopes, shares)
def test_any_monotone_function_ends_within_tolerance_or_at_the_best_setting(
    steps: list[int],
    low: int,
    target: int,
    tolerance: float,
    slope: float | None,
    share: float | None,
) -> None:
    function = monotone(steps, low)
    result = searched(
        function,
        target,
        low=function.low,
        high=function.high,
        tolerance=tolerance,
        slope=slope,
        start=start_of(function, share),
    )
    error = abs(math.log(result.value) - math.log(target))
    best = min(abs(math.log(value) - math.log(target)) for value in function.values)
    assert result.value == function.values[result.setting - low]
    assert result.reached == (error <= tolerance)
    assert result.reached or error == best
    assert result.evaluations <= bound(len(steps))


@settings(deadline=None)
@given(rises, lows, targets, tolerances, slopes, shares)
def test_not_above_gives_the_largest_allowed_setting_or_one_within_tolerance_below(
    steps: list[int],
    low: int,
    target: int,
    tolerance: float,
    slope: float | None,
    share: float | None,
) -> None:
    function = monotone(steps, low)
    result = searched(
        function,
        target,
        low=function.low,
        high=function.high,
        tolerance=tolerance,
        not_above=True,
        slope=slope,
        start=start_of(function, share),
    )
    allowed = [i + low for i, value in enumerate(function.values) if value <= target]
    if not allowed:
        assert result.setting == low
        assert not result.reached
    else:
        assert result.value <= target
        assert result.reached or result.setting == allowed[-1]
    assert result.evaluations <= bound(len(steps))


@settings(deadline=None)
@given(
    st.lists(st.floats(1.0, 1e6), min_size=1, max_size=100),
    targets,
    st.booleans(),
    slopes,
)
def test_noise_gives_the_best_of_what_was_evaluated_and_never_an_endless_search(
    values: list[float], target: int, not_above: bool, slope: float | None
) -> None:
    function = Counted(values)
    result = searched(
        function,
        target,
        low=0,
        high=function.high,
        tolerance=0.01,
        not_above=not_above,
        slope=slope,
    )
    seen = [values[setting] for setting in function.asked]
    if not_above and min(seen) <= target:
        seen = [value for value in seen if value <= target]
    elif not_above:
        assert 0 in function.asked
        seen = [values[0]]
    assert abs(math.log(result.value / target)) == pytest.approx(
        min(abs(math.log(value / target)) for value in seen)
    )
    assert result.evaluations <= bound(len(values))


@settings(deadline=None)
@given(st.lists(st.floats(20.0, 60.0) | st.just(math.inf), min_size=1, max_size=200))
def test_decibels_are_searched_without_a_logarithm_and_an_exact_copy_is_infinite(
    values: list[float],
) -> None:
    function = Counted(sorted(values))
    result = searched(function, 34.0, low=0, high=function.high, tolerance=0.05, scale=float)
    best = min(abs(value - 34.0) for value in values)
    assert abs(result.value - 34.0) == best or abs(result.value - 34.0) <= 0.05


def size_of_a_picture(setting: int) -> float:
    """Bytes as a codec's sizes go: a header, and a logarithm that bends as the rate grows."""
    octaves = setting / 256
    return 40 + math.floor(20_000 * 2 ** (0.9 * octaves - 0.04 * octaves**2))


def test_no_more_than_two_codings_are_held_at_a_time() -> None:
    class Coding:
        def __init__(self, setting: int) -> None:
            self.setting = setting

    alive: weakref.WeakSet[Coding] = weakref.WeakSet()
    most = 0

    def code(setting: int) -> Coding:
        nonlocal most
        coding = Coding(setting)
        alive.add(coding)
        most = max(most, len(alive))
        return coding

    goal = Goal(4321, low=-1024, high=1024, tolerance=1e-4)
    found = search(code, lambda coding: size_of_a_picture(coding.setting), goal)
    assert found.evaluations > 3
    assert most == 2
    assert list(alive) == [found.coding]


@pytest.mark.parametrize("target", [1_500, 4_000, 10_000, 24_576, 60_000, 120_000])
@pytest.mark.parametrize("not_above", [False, True])
def test_a_usual_size_takes_at_most_four_evaluations(target: int, not_above: bool) -> None:
    result = searched(
        size_of_a_picture,
        target,
        low=-1024,
        high=1024,
        tolerance=0.01,
        not_above=not_above,
        start=0,
        slope=0.9 * math.log(2) / 256,
    )
    assert result.reached
    assert result.evaluations <= 4


@pytest.mark.parametrize("target", [4_000, 24_576, 120_000])
def test_without_an_expected_slope_a_usual_size_takes_at_most_six(target: int) -> None:
    result = searched(size_of_a_picture, target, low=-1024, high=1024, tolerance=0.01)
    assert result.reached
    assert result.evaluations <= 6


@pytest.mark.parametrize(("target", "end"), [(1, -64), (10**9, 64)])
def test_a_target_out_of_reach_gives_the_nearest_end_quickly(target: int, end: int) -> None:
    result = searched(size_of_a_picture, target, low=-64, high=64, tolerance=0.01, slope=0.002)
    assert result == Found(end, end, size_of_a_picture(end), 2, False)


def test_a_range_of_one_setting_is_evaluated_once() -> None:
    result = searched(lambda setting: 7.0, 7, low=3, high=3, tolerance=0.0)
    assert result == Found(3, 3, 7.0, 1, True)


def test_of_two_equally_close_settings_the_smaller_file_is_taken() -> None:
    function: Callable[[int], float] = [10.0, 20.0].__getitem__
    result = searched(function, 15, low=0, high=1, tolerance=0.0, scale=float)
    assert (result.setting, result.value) == (0, 10.0)


def test_on_a_plateau_under_the_limit_the_largest_setting_is_taken() -> None:
    values = [10.0, 20.0, 20.0, 20.0, 20.0, 90.0]
    result = searched(values.__getitem__, 30, low=0, high=5, tolerance=0.0, not_above=True)
    assert result.setting == 4


def test_a_size_of_nothing_counts_as_below_every_target() -> None:
    function = Counted([0.0] * 50 + [100.0] * 50)
    result = searched(function, 100, low=0, high=99, tolerance=0.01)
    assert result.value == 100.0


def test_a_value_that_falls_here_and_there_is_looked_for_beside_where_the_search_ends() -> None:
    function = [0.0, 10.0, 20.0, 30.0, 40.0, 48.0, 60.0, 50.0, 80.0]

    def found(beside: int) -> Found[int]:
        goal = {"low": 0, "high": 8, "tolerance": 1.0, "scale": float, "start": 5, "slope": 10.0}
        return searched(Counted(function), 50, beside=beside, **goal)

    assert found(0)[2:] == (48.0, 2, False)
    assert found(1)[2:] == (50.0, 4, True)


@given(st.lists(st.integers(0, 100), min_size=1, max_size=80), st.integers(0, 100))
def test_looking_beside_takes_a_few_evaluations_and_never_ends_worse(
    values: list[float], target: float
) -> None:
    goal = {"low": 0, "high": len(values) - 1, "tolerance": 0.5, "scale": float}
    plain = searched(Counted(values), target, **goal)
    beside = searched(Counted(values), target, beside=3, **goal)
    assert abs(beside.value - target) <= abs(plain.value - target)
    assert beside.evaluations <= plain.evaluations + 6
