"""A target (a size, a rate, a PSNR, an SSIMULACRA2) to the coding that comes nearest to it.

Owns the search and what to say about a target out of reach. :func:`search` is a pure function of
functions and knows of no picture; what q means and how a coding is made is left to the families.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, NamedTuple, TypeVar

import numpy.typing as npt

from cwic.exact_layer import Layer
from cwic.families.protocol import Coded, Family
from cwic.image import Picture, as_shown
from cwic.picture_file import Overhead
from cwic.psnr import psnr_db
from cwic.request import Request
from cwic.ssimulacra2 import check_measurable, ssimulacra2_in_parts

Coding = TypeVar("Coding")
Samples = npt.NDArray[Any]

# How close a size must come to count as the target.
_SIZE_TOLERANCE = 0.005

# What a mask may change the size by where the target is a quality.
_SAME_SIZE_TOLERANCE = 0.003

# How much coarser a plain file is made at once, where a refined one is to be compared with it.
_COARSER_Q = 4

# Nearest results this far off are worth a warning.
_SIZE_WARNING = 0.05

# Where what comes with the picture takes more than half of a size, the picture still gets this
# share of it: better a file that is larger, and says why, than a picture that nobody can use.
_NAMED_SHARE = 0.5
_LEAST_SHARE = 0.25

# Sizes beyond any file, and small enough for logarithms.
_SIZES_BYTES = (1e-3, 1e15)

# What counts as the PSNR of an exact copy: that of a mean squared error of 1e-10.
_EXACT_DB = 10 * math.log10(255**2 / 1e-10)


# --- targets --------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """A file for a request, and how well it does."""

    data: bytes
    reached: float | None = None  # of the measure of the target; None: not known, or exact
    complaint: str = ""  # why it misses the target
    is_out_of_reach: bool = False  # so that "strict" refuses it
    is_missed: bool = False  # what the model cannot do, nothing lost perhaps can
    q: int = 0  # that the family was asked for


class Candidate:
    """A picture coded at one q, and its file, which is made once and only if it is needed."""

    def __init__(
        self,
        q: int,
        coded: Coded,
        pack: Callable[[int, Sequence[bytes]], bytes],
        layer: Layer | None = None,
    ):
        """`q` that was asked for; `pack` makes a file of the header's q and the payloads.

        `layer`: what that file has over the coded pixels.
        """
        self.q = q
        self._coded: Coded | None = coded
        self._pack = pack
        self._layer = layer

    @property
    def coded(self) -> Coded:
        """The coding; there until it is shelved."""
        assert self._coded is not None, "shelved"
        return self._coded

    def pixels(self) -> Samples:
        """(H, W, 3) what a decoder will show; until it is shelved."""
        pixels = self.coded.pixels()
        return pixels if self._layer is None else self._layer.over(pixels)

    @cached_property
    def data(self) -> bytes:
        """The whole file."""
        return self._pack(self.coded.q, self.coded.payloads())

    def shelve(self) -> None:
        """Lets go of the coding, which may take 30 bytes a pixel, and keeps the file."""
        _ = self.data
        self._coded = None


def is_within_size(num_bytes: float, target_bytes: float, *, strict: bool) -> bool:
    """Whether a file is as small as its target: as near as coded files come, or no larger."""
    return num_bytes <= target_bytes * (1 if strict else 1 + _SIZE_TOLERANCE)


def at_size(
    code: Callable[[int], Candidate],
    family: Family,
    request: Request,
    size_bytes: float,
    overhead: Overhead,
    start: int | None = None,
) -> Answer:
    """The file that comes nearest to a size.

    `code` makes the picture at a q. The request has the unit of the size in messages, and whether
    it is a promise. `overhead` is what the file takes whatever the search does. `start` is the
    first q to try; None: the middle.
    """
    why, target_bytes = blame(overhead, size_bytes), size_bytes
    # A promise is one about the file.
    is_crowded = bool(why) and overhead.chosen_bytes > _NAMED_SHARE * size_bytes
    if is_crowded and not request.strict:
        size_bytes = max(size_bytes, overhead.total_bytes + _LEAST_SHARE * size_bytes)
    size_bytes = min(max(size_bytes, _SIZES_BYTES[0]), _SIZES_BYTES[1])

    def true_bytes(candidate: Candidate) -> float:
        return float(len(candidate.data))

    def estimated_bytes(candidate: Candidate) -> float:
        return overhead.total_bytes + candidate.coded.size_bytes()

    def searched(
        code: Callable[[int], Candidate],
        bytes_of: Callable[[Candidate], float],
        start: int | None,
    ) -> Found[Candidate]:
        goal = Goal(
            size_bytes,
            low=family.rates.min_q,
            high=family.rates.max_q,
            tolerance=_SIZE_TOLERANCE,
            start=start,
            slope=family.log_size_per_q,
            not_above=request.strict,
        )
        return search(code, bytes_of, goal, Candidate.shelve)

    def off(candidate: Candidate) -> float:
        return abs(math.log(len(candidate.data) / size_bytes))

    # A promise needs true sizes; anything else is met to within a few bytes by the estimate, which
    # are too many of a small file.
    found = searched(code, true_bytes if request.strict else estimated_bytes, start)
    if found.reached and off(found.coding) > _SIZE_TOLERANCE:
        first = found.coding
        found = searched(lambda q: first if q == first.q else code(q), true_bytes, first.q)
    data, q = found.coding.data, found.coding.q
    is_far = off(found.coding) > _SIZE_WARNING
    is_at_an_end = q in (family.rates.min_q, family.rates.max_q) and not found.reached
    if request.strict:
        is_above = len(data) > size_bytes
        complaint = ""
        if is_above:
            smallest = f"the smallest file of this picture has {len(data):,} B"
            complaint = _because(f"the target is at most {request.target}, but {smallest}", why)
        elif is_crowded:
            complaint = _because(f"more than half of {request.target} is not the picture", why)
        # What is smaller than it may be is done, unless something better is as small.
        return Answer(data, None, complaint, is_above, is_missed=is_above or is_far, q=q)
    if is_crowded and size_bytes > target_bytes:
        num_bytes = len(data) - overhead.total_bytes
        complaint = _because(
            f"the target is {request.target}, but this file has {len(data):,} B, "
            f"{num_bytes:,} B of them for the picture",
            why,
        )
    elif is_far or is_at_an_end:
        complaint = _because(_nearest(request.target, f"{len(data):,} B"), why)
    elif is_crowded:
        complaint = _because(f"more than half of {request.target} is not the picture", why)
    else:
        complaint = ""
    return Answer(data, None, complaint, is_missed=is_far or len(data) > 1.05 * target_bytes, q=q)


def blame(overhead: Overhead, size_bytes: float) -> str:
    """What takes more than half of a target size and is not the picture, and what helps; or ""."""
    if overhead.total_bytes - overhead.exact_bytes <= _NAMED_SHARE * size_bytes:
        return ""
    metadata_bytes = sum(overhead.metadata_bytes.values())
    names = " and ".join(overhead.metadata_bytes)
    take, them = ("take", "them") if len(overhead.metadata_bytes) > 1 else ("takes", "it")
    parts = {
        f"{names} {take} {metadata_bytes:,} B, --strip (keep_metadata=False) leaves {them} out": (
            metadata_bytes
        ),
        f"transparency takes {overhead.alpha_bytes:,} B, since it is kept exactly, and only a "
        "larger size or a picture without it helps": overhead.alpha_bytes,
        f"the header takes {overhead.header_bytes:,} B": overhead.header_bytes,
    }
    largest_bytes = max(parts.values())
    return "; ".join(text for text, num in parts.items() if num > largest_bytes / 4)


def _because(what: str, why: str) -> str:
    return f"{what}: {why}" if why else what


@dataclass(frozen=True, kw_only=True)
class _Measure:
    """How near a decoded picture is to its original, and how a search sees that.

    Attributes:
        of: the measure, of (H, W, 3) original and decoded samples; the higher the better.
        exact: the highest value that counts; no less than an exact copy has.
        origin: the loss that is searched for is this less the value.
        scale: makes the loss roughly linear in q.
        slope_per_db: expected change of the scaled loss with each dB that PSNR falls.
        tolerance: how close a value must come to count as the target.
        warning: nearest values this far off are worth a warning.
        beside: `beside` of a goal.
    """

    of: Callable[[Samples, Samples], float]
    exact: float
    origin: float
    scale: Callable[[float], float]
    slope_per_db: float
    tolerance: float
    warning: float
    beside: int

    def scaled_tolerance(self, target: float) -> float:
        """The tolerance as the search sees it, at a target."""
        loss = self.origin - target
        return abs(self.scale(loss + self.tolerance) - self.scale(loss))


_PSNR = _Measure(
    of=psnr_db,
    exact=_EXACT_DB,
    origin=0.0,
    scale=float,
    slope_per_db=1.0,
    tolerance=0.05,
    warning=0.25,
    beside=0,
)
# What is missing to 100 falls by about the same factor with each dB, from 10 to 90. Of a small
# picture the score rises and falls by a point from one q to the next.
_SSIMULACRA2 = _Measure(
    of=ssimulacra2_in_parts,
    exact=100 - 1e-3,
    origin=100.0,
    scale=math.log,
    slope_per_db=0.14,
    tolerance=0.2,
    warning=1.0,
    beside=3,
)


def at_measure(
    code: Callable[[int], Candidate],
    family: Family,
    request: Request,
    target: float,
    picture: Picture,
    start: int | None = None,
) -> Answer:
    """The file whose decoded picture comes nearest to a PSNR or an SSIMULACRA2.

    Arguments as of :func:`at_size`.

    Raises:
        NotBuiltError: the target is an SSIMULACRA2, and it is not installed.
        TargetError: the target is an SSIMULACRA2, and a side is too short for it.
    """
    measure = _PSNR if request.ssimulacra2 is None else _SSIMULACRA2
    if measure is _SSIMULACRA2:
        check_measurable(picture.height, picture.width)

    value = measured(request, picture)

    # Searched downwards from the best, so that "strict" is the same promise as for sizes.
    def loss(candidate: Candidate) -> float:
        return measure.origin - value(candidate.pixels())

    aim = min(target, measure.exact)
    found = search(
        lambda negative_q: code(-negative_q),
        loss,
        Goal(
            measure.origin - aim,
            low=-family.rates.max_q,
            high=-family.rates.min_q,
            tolerance=measure.scaled_tolerance(aim),
            scale=measure.scale,
            start=None if start is None else -start,
            slope=measure.slope_per_db * family.psnr_db_per_q,
            not_above=request.strict,
            # A refinement is too dear to be made for each of them.
            beside=measure.beside if start is None else 0,
        ),
        Candidate.shelve,
    )
    reached = measure.origin - found.value
    in_words = request.with_unit(f"{reached:.2f}")
    q = found.coding.q
    is_far = abs(reached - aim) > measure.warning
    is_at_an_end = q in (family.rates.min_q, family.rates.max_q) and not found.reached
    complaint, is_out_of_reach = "", False
    if request.strict and reached < aim:
        complaint = f"the target is at least {request.target}, but the best of "
        complaint += f"this picture is {in_words}"
        is_out_of_reach = True
    elif not request.strict and (is_far or is_at_an_end):
        complaint = _nearest(request.target, in_words)
    return Answer(
        found.coding.data,
        reached if reached < measure.exact else None,
        complaint,
        is_out_of_reach,
        is_missed=reached < aim and (is_far or request.strict),
        q=q,
    )


def at_same_size(
    code: Callable[[int], Candidate], family: Family, q: int, payload_bytes: float
) -> Candidate:
    """The coding with which a mask only moves bits from one place to another.

    `code` makes the picture at a q with the mask. `q` and `payload_bytes`, the latter as of
    `Coded.size_bytes`, are those of the picture without.
    """
    return search(
        code,
        lambda candidate: candidate.coded.size_bytes(),
        Goal(
            payload_bytes,
            low=family.rates.min_q,
            high=family.rates.max_q,
            tolerance=_SAME_SIZE_TOLERANCE,
            start=q,
            slope=family.log_size_per_q,
        ),
        Candidate.shelve,
    ).coding


def beats_plain(
    refined: Answer,
    plain: Answer,
    code: Callable[[int], Candidate],
    family: Family,
    *,
    is_size: bool,
    value_of: Callable[[bytes], float],
) -> bool:
    """Whether a refined file is worth more than one without refinement, at the same target.

    The two are never equally far from their target. So the refined file is compared with a plain
    one that is no smaller (no better), which is the answer itself, or one of the next finer
    (coarser) q; it has to be better (smaller).

    Args:
        refined: the answer of the refined file.
        plain: of the file without.
        code: makes the picture at a q, without refinement.
        family: of the model.
        is_size: whether the target is a size; or else a quality.
        value_of: the quality of a file, the higher the better: by the model's own measure where
            the target is a size, or else by the measure of the target.
    """
    size = len(refined.data)
    q, data = plain.q, plain.data
    if not is_size and size >= len(data):
        return False
    value = value_of(refined.data)
    last_q = family.rates.max_q if is_size else family.rates.min_q
    if is_size:
        while len(data) < size and q != last_q:
            short = math.log(size / len(data)) / family.log_size_per_q
            q = min(q + max(math.ceil(short), 1), last_q)
            data = code(q).data
        return value > value_of(data)
    while len(data) > size and value_of(data) > value and q != last_q:
        q = max(q - _COARSER_Q, last_q)
        data = code(q).data
    return size < len(data)


def measured(request: Request, picture: Picture) -> Callable[[Samples], float]:
    """The measure of a request's target, of (H, W, 3) pixels as a network gives them."""
    measure = _PSNR if request.ssimulacra2 is None else _SSIMULACRA2

    def value(pixels: Samples) -> float:
        return min(measure.of(picture.pixels, as_shown(pixels, picture.mode)), measure.exact)

    return value


def _nearest(target: str, found: str) -> str:
    return (
        f"the target is {target}, but the nearest that this model makes of this picture is {found}"
    )


# --- the search -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What a search is for."""

    target: float = field(kw_only=False)  # of the value
    low: int  # the smallest setting, included
    high: int  # the largest setting, included; at least `low`
    # How far from the target the scaled value may be; with `math.log`, 0.01 is 1 %.
    tolerance: float
    # Makes the value roughly linear in the setting: `math.log` for sizes, `float` for decibels.
    # Values that are not positive count as minus infinity.
    scale: Callable[[float], float] = math.log
    # Accept only values that are not above the target: the result is within `tolerance` below it,
    # or the largest such setting. If the value at `low` is above the target, it is `low`.
    not_above: bool = False
    start: int | None = None  # the first setting to try; None: the middle of the range
    # Expected change of the scaled value per setting, above 0; it makes the second evaluation a
    # good one. Without it, the second is at an end of the range.
    slope: float | None = None
    # How many settings to try on each side of where the search ends without reaching the target:
    # a value that falls here and there may come nearer to it there.
    beside: int = 0

    def __post_init__(self) -> None:
        assert self.low <= self.high, f"empty range {self.low}..{self.high}"
        assert math.isfinite(self.target), f"target {self.target} is not finite"
        assert self.tolerance >= 0, f"tolerance {self.tolerance} is negative"
        assert self.slope is None or self.slope > 0, f"slope {self.slope} is not positive"

    def is_reached(self, point: "_Point") -> bool:
        """Whether a value is near enough, and not above the target where that matters."""
        return abs(point.error) <= self.tolerance and not (self.not_above and self.is_above(point))

    def is_above(self, point: "_Point") -> bool:
        """By the value: a logarithm could round a small excess away."""
        return point.value > self.target

    def rank(self, point: "_Point") -> tuple[float, float, float]:
        """The lower the better."""
        if not self.not_above:
            return abs(point.error), point.value, 0
        if not self.is_above(point):
            return 0, -point.value, -point.setting
        return 1, point.setting, 0  # where every value is too large, the lowest is the least harm


class Found(NamedTuple, Generic[Coding]):
    """Where a search ended."""

    setting: int  # the chosen one, among those that were tried
    coding: Coding  # what the setting gave
    value: float  # of the coding
    evaluations: int  # how many settings were tried
    reached: bool  # whether the goal is reached


class _Point(NamedTuple):
    setting: int
    value: float
    error: float  # scaled value less scaled target


def search(
    code: Callable[[int], Coding],
    value_of: Callable[[Coding], float],
    goal: Goal,
    shelve: Callable[[Coding], None] = lambda coding: None,
) -> Found[Coding]:
    """Finds the setting whose value comes closest to a target, and returns what it gave.

    The value should rise with the setting; steps and plateaus are fine. For a function that never
    falls the search ends either within the tolerance, or at the best setting of all, or at the
    nearest end of the range, after at most `5 + 4 * ceil(log2(high - low + 1))` evaluations, and
    twice `beside` more; sizes of a real picture take two to four. A function that falls here and
    there still gets the best of what was evaluated; of two that are equally close, it is the one of
    the smaller value. No more than two codings are held at a time: the best so far, and the one
    that is judged.

    Args:
        code: what a setting gives; never called twice with the same one.
        value_of: size or quality of that; must not give NaN.
        goal: target, range and tolerance.
        shelve: is called with the best coding so far before another is made beside it.
    """
    tried: list[_Point] = []
    best: tuple[_Point, Coding] | None = None
    scaled_target = goal.scale(goal.target)
    for setting in _settings(goal, tried):
        if best is not None:
            shelve(best[1])
        coding = code(setting)
        value = value_of(coding)
        assert not math.isnan(value), f"the value at setting {setting} is NaN"
        point = _Point(setting, value, _scaled(value, goal.scale) - scaled_target)
        tried.append(point)
        if best is None or goal.rank(point) < goal.rank(best[0]):
            best = point, coding
        del coding  # lest it is in memory beside the next
    assert best is not None
    point, coding = best
    return Found(point.setting, coding, point.value, len(tried), goal.is_reached(point))


def _settings(goal: Goal, tried: list[_Point]) -> Iterator[int]:
    """The order of a search: settings to try, each of them in `tried` before the next is taken.

    A secant on the scaled value, kept inside a bracket, with a bisection whenever two secants in a
    row failed to halve the bracket. Last, if no value is near enough, those beside the bracket.
    """
    # Staying below means aiming at the middle of what is accepted; aiming at its upper edge would
    # miss every other time.
    aim = -goal.tolerance / 2 if goal.not_above else 0.0
    below: _Point | None = None  # the largest setting known to be not above the target
    above: _Point | None = None  # the smallest setting known to be above it, beyond `below`
    widths: list[int] = []  # of the bracket, one entry for each step taken inside it
    middle = (goal.low + goal.high) // 2
    setting = middle if goal.start is None else min(max(goal.start, goal.low), goal.high)
    while True:
        yield setting
        point = tried[-1]
        if goal.is_reached(point):
            return
        end = goal.low if goal.is_above(point) else goal.high
        if goal.is_above(point):
            above = point
        else:
            below = point
        if below is not None and above is not None:
            width = above.setting - below.setting
            if width <= 1:
                yield from _beside(goal, tried, below.setting, above.setting)
                return
            widths.append(width)
            if len(widths) > 2 and 2 * width > widths[-3]:
                setting = (below.setting + above.setting) // 2
                widths.clear()
            else:
                setting = _between(below, above, aim)
        elif setting == end:
            return
        else:
            setting = _outward(tried, aim, goal.slope, end=end)


def _beside(goal: Goal, tried: list[_Point], low: int, high: int) -> Iterator[int]:
    """Settings around a bracket that has closed, the nearest first, until one reaches the goal."""
    known = {point.setting for point in tried}
    for distance in range(1, goal.beside + 1):
        for setting in (low - distance, high + distance):
            if goal.low <= setting <= goal.high and setting not in known:
                yield setting
                if goal.is_reached(tried[-1]):
                    return


def _scaled(value: float, scale: Callable[[float], float]) -> float:
    try:
        return scale(value)
    except ValueError:  # the logarithm of nothing
        return -math.inf


def _between(below: _Point, above: _Point, aim: float) -> int:
    """The setting strictly inside a bracket where a straight line meets the aim."""
    share = 0.5
    rise = above.error - below.error
    if math.isfinite(rise) and rise > 0:
        share = (aim - below.error) / rise
    setting = below.setting + round(share * (above.setting - below.setting))
    return min(max(setting, below.setting + 1), above.setting - 1)


def _outward(tried: list[_Point], aim: float, slope: float | None, *, end: int) -> int:
    """The next setting on the way to an end, while all values lie on one side of the target.

    The first steps trust the expected slope and then the measured one. From the fourth on a
    step is at least twice as long as the last, so that the end comes within reach whatever the
    function does.
    """
    last = tried[-1]
    shortest = 1
    if len(tried) > 1:
        previous = tried[-2]
        step = last.setting - previous.setting
        slope = (last.error - previous.error) / step
        if len(tried) > 3:
            shortest = 2 * abs(step)
    # "not above 0" and not "at most 0": two infinite errors make the slope NaN.
    if slope is None or not slope > 0 or not math.isfinite(last.error):
        return end
    room = abs(end - last.setting)
    # Limited before rounding: a slope next to nothing asks for an endless integer.
    step = max(round(min(max(abs(aim - last.error) / slope, shortest), room)), 1)
    return last.setting + step if end > last.setting else last.setting - step
