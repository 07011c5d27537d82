"""A target (a size, a rate, a PSNR) to the coding that comes nearest to it.

Owns the search and what to say about a target out of reach. :func:`search` is a pure function of
functions and knows of no picture; what q means and how a coding is made is left to the families.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Generic, NamedTuple, TypeVar

from cwic.families.protocol import Coded, Family
from cwic.image import Picture, as_shown
from cwic.picture_file import Beside
from cwic.psnr import psnr_db
from cwic.request import Request

__all__ = [
    "Answer",
    "Candidate",
    "Found",
    "Goal",
    "at_psnr",
    "at_same_size",
    "at_size",
    "blame",
    "is_within_size",
    "search",
]

Coding = TypeVar("Coding")

# How close a size or a PSNR must come to count as what was asked for.
_SIZE_TOLERANCE = 0.005
_PSNR_TOLERANCE_DB = 0.05

# What a mask may change the size by where only a quality was asked for.
_SAME_SIZE_TOLERANCE = 0.003

# Nearest results this far off are worth a warning.
_SIZE_WARNING = 0.05
_PSNR_WARNING_DB = 0.25

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
    psnr_db: float | None = None  # of what a decoder shows; None: not known, or exact
    complaint: str = ""  # why it is not quite what was asked for
    is_out_of_reach: bool = False  # so that "strict" refuses it
    is_missed: bool = False  # what the model cannot do, nothing lost perhaps can
    q: int = 0  # that the family was asked for


class Candidate:
    """A picture coded at one q, and its file, which is made once and only if it is asked for."""

    def __init__(self, q: int, coded: Coded, pack: Callable[[int, Sequence[bytes]], bytes]):
        """`q` that was asked for; `pack` makes a file of the header's q and the payloads."""
        self.q = q
        self._coded: Coded | None = coded
        self._pack = pack

    @property
    def coded(self) -> Coded:
        """The coding; there until it is shelved."""
        assert self._coded is not None, "shelved"
        return self._coded

    @cached_property
    def data(self) -> bytes:
        """The whole file."""
        return self._pack(self.coded.q, self.coded.payloads())

    def shelve(self) -> None:
        """Lets go of the coding, which may take 30 bytes a pixel, and keeps the file."""
        _ = self.data
        self._coded = None


def is_within_size(num_bytes: float, target_bytes: float, *, strict: bool) -> bool:
    """Whether a file is as small as was asked for: as near as coded files come, or no larger."""
    return num_bytes <= target_bytes * (1 if strict else 1 + _SIZE_TOLERANCE)


def at_size(
    code: Callable[[int], Candidate],
    family: Family,
    request: Request,
    size_bytes: float,
    beside: Beside,
    start: int | None = None,
) -> Answer:
    """The file that comes nearest to a size.

    Args:
        code: the picture at a q.
        family: of the model.
        request: says whether the size is a promise, and how it was asked for.
        size_bytes: of the whole file.
        beside: what the file takes whatever the search does.
        start: the first q to try; None: the middle.
    """
    why, asked_bytes = blame(beside, size_bytes), size_bytes
    # A promise is one about the file.
    is_crowded = bool(why) and beside.chosen_bytes > _NAMED_SHARE * size_bytes
    if is_crowded and not request.strict:
        size_bytes = max(size_bytes, beside.total_bytes + _LEAST_SHARE * size_bytes)
    size_bytes = min(max(size_bytes, _SIZES_BYTES[0]), _SIZES_BYTES[1])

    def true_bytes(candidate: Candidate) -> float:
        return float(len(candidate.data))

    def estimated_bytes(candidate: Candidate) -> float:
        return beside.total_bytes + candidate.coded.size_bytes()

    # A promise needs true sizes; anything else is met to within a few bytes by the estimate.
    found = search(
        code,
        true_bytes if request.strict else estimated_bytes,
        Goal(
            size_bytes,
            low=family.rates.min_q,
            high=family.rates.max_q,
            tolerance=_SIZE_TOLERANCE,
            start=start,
            slope=family.log_size_per_q,
            not_above=request.strict,
        ),
        Candidate.shelve,
    )
    data, q = found.coding.data, found.coding.q
    is_far = abs(math.log(len(data) / size_bytes)) > _SIZE_WARNING
    if request.strict:
        is_above = len(data) > size_bytes
        complaint = ""
        if is_above:
            smallest = f"the smallest file of this picture has {len(data):,} B"
            complaint = _because(f"asked for at most {request.asked}, {smallest}", why)
        elif is_crowded:
            complaint = _because(f"more than half of {request.asked} is not the picture", why)
        # What is smaller than it may be is done, unless something better is as small.
        return Answer(data, None, complaint, is_above, is_missed=is_above or is_far, q=q)
    if is_crowded and size_bytes > asked_bytes:
        num_bytes = len(data) - beside.total_bytes
        complaint = _because(
            f"asked for {request.asked}, this file has {len(data):,} B, {num_bytes:,} B of them "
            "for the picture",
            why,
        )
    elif is_far:
        complaint = _because(_nearest(request.asked, f"{len(data):,} B"), why)
    elif is_crowded:
        complaint = _because(f"more than half of {request.asked} is not the picture", why)
    else:
        complaint = ""
    return Answer(data, None, complaint, is_missed=is_far or len(data) > 1.05 * asked_bytes, q=q)


def blame(beside: Beside, size_bytes: float) -> str:
    """What takes more than half of a size and is not the picture, and what helps; or nothing.

    Args:
        beside: what a file takes beside its tiles.
        size_bytes: that was asked for.
    """
    if beside.total_bytes <= _NAMED_SHARE * size_bytes:
        return ""
    metadata_bytes = sum(beside.metadata_bytes.values())
    names = " and ".join(beside.metadata_bytes)
    take, them = ("take", "them") if len(beside.metadata_bytes) > 1 else ("takes", "it")
    parts = {
        f"{names} {take} {metadata_bytes:,} B, --strip (keep_metadata=False) leaves {them} out": (
            metadata_bytes
        ),
        f"transparency takes {beside.alpha_bytes:,} B, since it is kept exactly, and only a "
        "larger size or a picture without it helps": beside.alpha_bytes,
        f"the header takes {beside.header_bytes:,} B": beside.header_bytes,
    }
    largest_bytes = max(parts.values())
    return "; ".join(text for text, num in parts.items() if num > largest_bytes / 4)


def _because(what: str, why: str) -> str:
    return f"{what}: {why}" if why else what


def at_psnr(
    code: Callable[[int], Candidate],
    family: Family,
    request: Request,
    target_db: float,
    picture: Picture,
    start: int | None = None,
) -> Answer:
    """The file whose decoded picture comes nearest to a PSNR; arguments as of :func:`at_size`."""

    # Searched downwards from the best, so that "strict" is the same promise as for sizes.
    def loss_db(candidate: Candidate) -> float:
        shown = as_shown(candidate.coded.pixels(), picture.mode)
        return -min(psnr_db(picture.pixels, shown), _EXACT_DB)

    found = search(
        lambda negative_q: code(-negative_q),
        loss_db,
        Goal(
            -target_db,
            low=-family.rates.max_q,
            high=-family.rates.min_q,
            tolerance=_PSNR_TOLERANCE_DB,
            scale=float,
            start=None if start is None else -start,
            slope=family.psnr_db_per_q,
            not_above=request.strict,
        ),
        Candidate.shelve,
    )
    reached_db = -found.value
    complaint, is_out_of_reach = "", False
    if request.strict and reached_db < target_db:
        complaint = f"asked for at least {request.asked}, the best of "
        complaint += f"this picture is {reached_db:.2f} dB"
        is_out_of_reach = True
    elif not request.strict and abs(reached_db - target_db) > _PSNR_WARNING_DB:
        complaint = _nearest(request.asked, f"{reached_db:.2f} dB")
    return Answer(
        found.coding.data,
        reached_db if reached_db < _EXACT_DB else None,
        complaint,
        is_out_of_reach,
        is_missed=bool(complaint) and reached_db < target_db,
        q=found.coding.q,
    )


def at_same_size(
    code: Callable[[int], Candidate], family: Family, q: int, payload_bytes: float
) -> Candidate:
    """The coding with which a mask only moves bits from one place to another.

    Args:
        code: the picture at a q, with the mask.
        family: of the model.
        q: of the picture without the mask.
        payload_bytes: of that, as `Coded.size_bytes` says it.
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


def _nearest(asked: str, found: str) -> str:
    return f"asked for {asked}, this picture can only have {found} with this model"


# --- the search -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What a search is for.

    Attributes:
        target: of the value.
        low: the smallest setting, included.
        high: the largest setting, included; at least `low`.
        tolerance: how far from the target the scaled value may be; with `math.log`, 0.01 is 1 %.
        scale: makes the value roughly linear in the setting: `math.log` for sizes, `float` for
            decibels. Values that are not positive count as minus infinity.
        not_above: accept only values that are not above the target: the result is within
            `tolerance` below it, or the largest such setting. If the value at `low` is above the
            target, there is none, and the result is `low`.
        start: the first setting to try; the middle of the range if not given.
        slope: expected change of the scaled value per setting, above 0; it makes the second
            evaluation a good one. Without it, the second is at an end of the range.
    """

    target: float = field(kw_only=False)
    low: int
    high: int
    tolerance: float
    scale: Callable[[float], float] = math.log
    not_above: bool = False
    start: int | None = None
    slope: float | None = None

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
    """Where a search ended.

    Attributes:
        setting: the chosen one, among those that were tried.
        coding: what the setting gave.
        value: of the coding.
        evaluations: how many settings were tried.
        reached: whether `value` is within the tolerance of the target, and not above it if the
            search was asked to stay below.
    """

    setting: int
    coding: Coding
    value: float
    evaluations: int
    reached: bool


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
    nearest end of the range, after at most `5 + 4 * ceil(log2(high - low + 1))` evaluations; sizes
    of a real picture take two to four. A function that falls here and there still gets the best of
    what was evaluated. No more than two codings are held at a time: the best so far, and the one
    that is judged.

    Args:
        code: what a setting gives; never called twice with the same one.
        value_of: size or quality of that; must not give NaN.
        goal: target, range and tolerance.
        shelve: is called with the best coding so far before another is made beside it.

    Returns:
        The best that was evaluated. Of two that are equally close, the one of the smaller value.
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
    """The order of a search: settings to try, each of them in `tried` before the next is asked for.

    A secant on the scaled value, kept inside a bracket, with a bisection whenever two secants in a
    row failed to halve the bracket.
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
