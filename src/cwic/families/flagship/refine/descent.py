r"""Moves the latents of one tile downhill: bits plus what the picture loses.

What is minimised over integers, the symbols v, is

    bits(v) + D(latents(v)),      latents(v) = means of what was decoded before + v / gain,

the distortion D in bits at the picture's quality. Symbols move as real numbers: between two
integers, bits follow a straight line, with a corner at each of them, and to D the variance of
rounding up or down at random is added in a share that rises. So symbols settle on integers one
after another, and those that still move make up for the error of those that do not. A step is a
gradient step in D, divided by a bound of its curvature, then the exact step of least cost in
bits, which does not leave a corner for less than it takes (a proximal gradient method).

Bounds of the curvature are learned on the way, one for each channel and one for each cell, from
how much the gradient changed with the last step. What is random in other methods, which sample
roundings, is an expectation here: nothing is drawn, and a fifth of the steps do.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cwic.families.flagship.coder import CodedLatents
from cwic.families.flagship.grid import Cells
from cwic.families.flagship.step_network import SMALLEST_SCALE, TABLES_PER_OCTAVE

Latents = npt.NDArray[np.float32]

# Symbols of sharper laws than this stay 0: a first step away costs them 14 bits and more.
_SHARPEST = 10.0

# The tables follow the symbols every so many steps.
_TABLES_EVERY = 4

# Curvature that a channel or a cell is given at least, as a share of the mean of all: those that
# hardly move would say nothing of it.
_LEAST_WEIGHT = 0.03
_SAFETY = 1.3  # a bound of the curvature over what was measured
_FORGETTING = 0.75  # of a bound in a step that measured less

_LAST_SHARE = 0.2  # of the steps, in which the variance counts in full

# The distortion's weight follows the quality that is to be kept from this share of the steps on.
_WATCHED_FROM = 0.4
_WEIGHTS = (0.5, 4.0)
_RESPONSE = 4.0  # of the weight's logarithm to the distortion's
_MOST_CHANGE = 0.2  # of that in one step
_AIM = 0.997  # of the distortion that is not to be exceeded
_SLACK = 5e-4  # of a distortion that counts as the same
# Where the quality is not kept in the end, so many more steps, and again until they are as many as
# were planned, or so many times: at the lowest qualities what is saved is lost again slowly.
_REPAIR_STEPS = 3
_MOST_REPAIRS = 12

# A descent ends where a step brings less than this share of the cost.
_LEAST_GAIN = 5e-4


@dataclass(frozen=True)
class Recipe:
    """How large steps may be, in units of one step of the quantizer.

    Attributes:
        curvature: of the distortion by a symbol, in bits.
        variance: of it that counts for the variance of a rounding, when the descent begins.
        last_variance: likewise when it ends.
        first_bound: curvature over `curvature` that is reckoned with before any was measured.
        least_bound: likewise ever after.
        longest: that a symbol moves at once.
    """

    curvature: float
    variance: float
    last_variance: float
    first_bound: float
    least_bound: float
    longest: float


# For squared error, which is the same quadratic everywhere, and for similarities, which bend where
# they touch nothing: tuned on crops of held-out pictures (docs/experiments.md, Effort).
RECIPES = {
    "squares": Recipe(20.0, 14.0, 14.0, 4.0, 2.5, 0.3),
    "structure": Recipe(24.0, 14.0, 14.0, 8.0, 3.0, 0.1),
}


class Problem(NamedTuple):
    """A tile to be refined; all arrays of latents lie on the padded grid."""

    latents: Latents  # (M, h, w) of the analysis
    gain: Latents  # (h, w) steps in a unit of latents
    cells: Cells
    # (M, h, w) -> bits, and what they say.
    encode: Callable[[Latents], tuple[float, CodedLatents]]
    # (M, h, w) decoded -> distortion in bits: a pass of the synthesis.
    distortion: Callable[[Latents], float]
    # The same, and its gradient in that shape, 0 outside the tile: two passes.
    slope: Callable[[Latents], tuple[float, Latents]]
    # (M, h, w) latents and a gradient by means -> means, and the gradient by latents.
    means: Callable[[Latents, Latents], tuple[Latents, Latents]]
    start: Latents | None = None  # (M, h, w) where the descent begins; None: at `latents`


class Candidate(NamedTuple):
    """A coding of a tile."""

    latents: Latents  # that the coder makes it of
    bits: float
    distortion: float  # in bits
    coded: CodedLatents

    @property
    def cost(self) -> float:
        """What a descent minimises."""
        return self.bits + self.distortion


def descend(
    problem: Problem,
    recipe: Recipe,
    num_steps: int,
    *,
    keeps_quality: bool,
    tick: Callable[[], None],
) -> Candidate:
    """The best coding of a tile that so many steps find; never worse than that of its latents.

    Args:
        problem: the tile.
        recipe: of the model's distortion.
        num_steps: at least 1. :func:`most_passes` has what they take.
        keeps_quality: the distortion is not to rise, and may fall a little; otherwise bits and
            distortion are minimised together.
        tick: called after each step.
    """
    first = _candidate(problem, problem.latents)
    best = first
    descent = _Descent(problem, recipe, first.coded)
    watched_from = _first_watched(num_steps) if keeps_quality else num_steps
    last: tuple[float, float] | None = None  # bits and distortion at the last look
    for step in range(num_steps):
        if step and step % _TABLES_EVERY == 0:
            if step >= watched_from:
                found = _candidate(problem, descent.latents)
                descent.compare(found)
                best = _better(found, best, first, keeps_quality)
                bits, coded, distortion = found.bits, found.coded, found.distortion
            else:
                bits, coded = problem.encode(descent.latents)
                distortion = descent.predicted
            descent.follow(coded)
            # Below what is to be kept, the weight still falls, and bits with it.
            share = distortion / max(first.distortion, 1e-9)
            is_kept = step >= watched_from and 2 * _AIM - 1 <= share <= 1 + _SLACK
            may_end = is_kept or not keeps_quality
            if last is not None and may_end and descent.is_done(last, (bits, distortion)):
                for _ in range(num_steps - step):
                    tick()
                break
            last = bits, distortion
        descent.step(min(1.0, step / num_steps / (1 - _LAST_SHARE)))
        if step >= watched_from:
            descent.weigh(first.distortion)
        tick()
    found = _candidate(problem, descent.latents)
    best = _better(found, best, first, keeps_quality)
    for _ in range(_num_repairs(num_steps) if keeps_quality else 0):
        if found.distortion <= first.distortion * (1 + _SLACK):
            break
        descent.follow(found.coded)
        descent.compare(found)
        for _ in range(_REPAIR_STEPS):
            descent.weigh(first.distortion)
            descent.step(1.0)
        found = _candidate(problem, descent.latents)
        best = _better(found, best, first, keeps_quality)
    return best


def most_passes(num_steps: int, *, keeps_quality: bool) -> int:
    """Passes of the synthesis that a descent of so many steps takes at most.

    A step takes two, forwards and backwards, each coding that is looked at one.
    """
    if not keeps_quality:
        return 2 * num_steps + 2
    watched = range(_TABLES_EVERY, num_steps, _TABLES_EVERY)
    num_looks = sum(step >= _first_watched(num_steps) for step in watched)
    return 2 * num_steps + 2 + num_looks + _num_repairs(num_steps) * (2 * _REPAIR_STEPS + 1)


def _num_repairs(num_steps: int) -> int:
    """How often the quality is repaired at most, a few steps each time."""
    return min(max(num_steps // _REPAIR_STEPS, 1), _MOST_REPAIRS)


def _first_watched(num_steps: int) -> int:
    """The step from which on the quality is watched that is to be kept."""
    return math.ceil(_WATCHED_FROM * num_steps)


def _candidate(problem: Problem, latents: Latents) -> Candidate:
    bits, coded = problem.encode(latents)
    return Candidate(latents, bits, problem.distortion(coded.decoded), coded)


def _better(found: Candidate, best: Candidate, first: Candidate, keeps_quality: bool) -> Candidate:
    """The better of two codings."""
    if keeps_quality and found.distortion > first.distortion * (1 + _SLACK):
        return best
    is_better = found.bits < best.bits if keeps_quality else found.cost < best.cost
    return found if is_better else best


class _Descent:
    """The state of a descent."""

    def __init__(self, problem: Problem, recipe: Recipe, coded: CodedLatents):
        self._problem, self._recipe = problem, recipe
        self.latents = problem.latents if problem.start is None else problem.start
        shape = self.latents.shape
        cells = problem.cells
        self._inside = np.zeros(shape[1:], bool)
        self._inside[: cells.height, : cells.width] = True
        self._weight = 1.0  # of the distortion
        self._value = 0.0  # the distortion at the last step
        self._spread_sum = 0.0  # of the variances of all roundings
        self._rounding = recipe.last_variance / 2  # what a unit of that adds once all is rounded
        self.predicted = 0.0  # the distortion then
        self._channel_bounds = np.full(shape[0], float(recipe.first_bound))
        self._cell_bounds = np.full(shape[1:], float(recipe.first_bound))
        self._symbols = np.zeros(shape, np.float32)  # of the last step, real numbers
        self._slopes = np.zeros(shape, np.float32)  # of the distortion by symbols, likewise
        self._is_new = True
        gain = problem.gain[: shape[1], : shape[2]]
        self._gain = np.broadcast_to(gain, shape)
        self._moving = np.zeros(0, np.intp)
        self._sharpness = np.zeros(0)
        self.follow(coded)

    def follow(self, coded: CodedLatents) -> None:
        """Take the tables of a coding over."""
        sharpness = np.exp2(-coded.tables.astype(np.float32) / TABLES_PER_OCTAVE) / SMALLEST_SCALE
        moving = (sharpness < _SHARPEST) | (coded.symbols != 0)
        moving &= self._inside
        self._moving = np.flatnonzero(moving)
        self._sharpness = sharpness.reshape(-1)[self._moving].astype(np.float64)

    def compare(self, found: Candidate) -> None:
        """Learn from a coding of the latents as they are what rounding them adds."""
        if self._spread_sum > 0:
            added = found.distortion - self._value
            self._rounding = max(added / self._spread_sum, 0.0)
            self.predicted = found.distortion

    def is_done(self, last: tuple[float, float], now: tuple[float, float]) -> bool:
        """Whether the steps between two looks, bits and distortion of each, brought too little."""
        before, after = (bits + self._weight * distortion for bits, distortion in (last, now))
        return before - after < _TABLES_EVERY * _LEAST_GAIN * after

    def weigh(self, distortion: float) -> None:
        """Let the distortion count for more where it is going to be above what it is to be."""
        change = _RESPONSE * np.log(max(self.predicted, 1e-9) / max(_AIM * distortion, 1e-9))
        factor = float(np.exp(min(max(change, -_MOST_CHANGE), _MOST_CHANGE)))
        self._weight = min(max(self._weight * factor, _WEIGHTS[0]), _WEIGHTS[1])

    def step(self, part: float) -> None:
        """One step, at a part of the way from 0 to 1."""
        recipe, problem = self._recipe, self._problem
        value, slopes = problem.slope(self.latents)
        means, through_means = problem.means(self.latents, slopes)
        slopes = (slopes + through_means) / self._gain
        symbols = (self.latents - means) * self._gain
        place = self._moving
        now, slope = (each.reshape(-1)[place].astype(np.float64) for each in (symbols, slopes))
        bound = self._bounds(place, now, slope)
        still = np.zeros_like(symbols)
        still.reshape(-1)[place] = now
        self._symbols, self._slopes, self._is_new = still, slopes, False

        variance = recipe.variance + (recipe.last_variance - recipe.variance) * part
        fraction = now - np.floor(now)
        self._value, self._spread_sum = value, float((fraction * (1 - fraction)).sum())
        self.predicted = value + self._rounding * self._spread_sum
        slope = self._weight * (slope + variance * (0.5 - fraction))
        moved = _moved(now, slope, self._sharpness, 1 / (self._weight * recipe.curvature * bound))
        moved = np.clip(moved, now - recipe.longest, now + recipe.longest)
        result = means.copy()
        flat = result.reshape(-1)
        flat[place] += (moved / self._gain.reshape(-1)[place]).astype(np.float32)
        self.latents = result

    def _bounds(
        self,
        place: npt.NDArray[np.intp],
        now: npt.NDArray[np.float64],
        slope: npt.NDArray[np.float64],
    ) -> npt.NDArray[np.float64]:
        """Bounds of the curvature over the recipe's, one for each symbol that moves."""
        recipe = self._recipe
        channels, height, width = self.latents.shape
        channel, cell = np.divmod(place, height * width)
        if not self._is_new:
            change = now - self._symbols.reshape(-1)[place]
            bent = change * (slope - self._slopes.reshape(-1)[place])
            squares = recipe.curvature * change**2
            least = _LEAST_WEIGHT * squares.sum()
            of_channel = (np.bincount(channel, each, channels) for each in (bent, squares))
            of_cell = (
                _spread(np.bincount(cell, each, height * width).astype(float), height, width)
                for each in (bent, squares)
            )
            for bounds, (found, moved) in (
                (self._channel_bounds, of_channel),
                (self._cell_bounds, of_cell),
            ):
                measured = found / (moved + least / bounds.size + 1e-12)
                bounds *= _FORGETTING
                np.maximum(bounds, _SAFETY * measured, out=bounds)
                np.maximum(bounds, recipe.least_bound, out=bounds)
        of_cells = self._cell_bounds.reshape(-1)
        result: npt.NDArray[np.float64] = np.maximum(self._channel_bounds[channel], of_cells[cell])
        return result


def _spread(values: npt.NDArray[np.float64], height: int, width: int) -> npt.NDArray[np.float64]:
    """(h * w,) -> (h, w) means over 3x3 cells, the outermost repeated."""
    padded = np.pad(values.reshape(height, width), 1, mode="edge")
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    result: npt.NDArray[np.float64] = (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / 9
    return result


def _bits(
    symbol: npt.NDArray[np.float64], sharpness: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """What integers cost by a logistic law of scale 1 / sharpness, but for a constant."""
    size = np.abs(symbol)
    result: npt.NDArray[np.float64] = (
        np.logaddexp(0, (size - 0.5) * sharpness) + np.logaddexp(0, -(size + 0.5) * sharpness)
    ) / np.log(2)
    return result


def _moved(
    now: npt.NDArray[np.float64],
    slope: npt.NDArray[np.float64],
    sharpness: npt.NDArray[np.float64],
    length: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """The least of bits and the distortion's parabola, across one corner of the bits at most."""
    aim = now - length * slope
    below = np.floor(aim)
    bits = [_bits(below + offset, sharpness) for offset in (-1, 0, 1, 2)]
    before, within, behind = (
        length * np.subtract(*pair)
        for pair in ((bits[1], bits[0]), (bits[2], bits[1]), (bits[3], bits[2]))
    )
    result = aim - within
    # Across the corner below, or held by it; the same above.
    lower = np.clip(aim - before, below - 1, below)
    upper = np.clip(aim - behind, below + 1, below + 2)
    result = np.where(result < below, lower, np.where(result > below + 1, upper, result))
    return result
