"""Encoder time for smaller files: the code of one picture is changed before it is coded.

Each bit has a leaning, a number in [0, 1] that begins with what the analysis says; the bit is 1
where that is above 0.5. A step takes the gradient of what the picture costs at the bits, a pass of
the synthesis forwards and one backwards, and moves leanings as if it were the gradient there (a
straight-through estimate), each by about as much, whatever its gradient's size (Adam). So nothing
is relaxed: every step sees a picture as a decoder would show it, and what it loses.

Where the quality is to be kept, the map gives way meanwhile: the offset on its logits follows what
the picture loses, so that fewer bits are kept while those that are say more.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cwic.engine import Engine
from cwic.families.cvpr2018.coder import Bits, CodeCoder, CodedPicture
from cwic.families.distortion import Distortion
from cwic.families.distortion_engines import DistortionEngines
from cwic.families.original import HALO_PX, Original, blocks_of
from cwic.families.protocol import Pixels
from cwic.families.tiling import Rectangle
from cwic.model_file import ModelFile

Leanings = npt.NDArray[np.float32]

# What the bundled model was trained for, but for its low frequencies: their squares of 16 pixels do
# not fit on cells of 8. The squared error stands in for them, with more weight beside SSIM.
DISTORTION = Distortion(mse=6.0, ssim=0.3)

# Bits per pixel that a distortion of 1 counts, at q = 0 and twice as many every so many q: about
# what the model's own curve pays there, of photographs.
_BITS_AT_0 = 20.0
_Q_PER_OCTAVE = 72.0

# How far a leaning moves at first, less where there are more steps than so many, and which share of
# all steps a direction is the mean of; how much of the sizes of gradients counts a step later.
_LENGTH = 0.05
_FEW_STEPS = 24
_AVERAGED = 1 / 6
_FORGETTING = 0.95
_LEAST_SIZE = 1e-3  # of a gradient, in bits

# What bits cost is looked up every so many steps.
_PRICES_EVERY = 5

_SLACK = 5e-4  # of a distortion that counts as the same

# q per unit of the distortion's logarithm by which the map follows, and the most in one step.
_RESPONSE_Q = 100.0
_MOST_Q = 16.0
# Below the model's least q the map may go by so much: few bits, but good ones.
_BELOW_Q = 192
# In the end the lowest q that keeps the quality is searched for, in so many passes.
_LAST_LOOKS = 6
_LAST_REACH_Q = 64


class Task(NamedTuple):
    """A picture to be refined."""

    original: Original
    q: int  # what was asked for
    activation: npt.NDArray[np.float32]  # (n, h, w) in (0, 1); a bit is activation > 0.5
    level: Callable[[int], npt.NDArray[np.uint8]]  # the map (h, w) at a q
    least_q: int  # of the model


class _Candidate(NamedTuple):
    """A coding of a picture."""

    picture: CodedPicture
    bits: float
    distortion: float


class Refined(NamedTuple):
    """What became of a picture."""

    picture: CodedPicture
    leanings: Leanings  # (n, h, w), with which another refinement may begin


class _Block(NamedTuple):
    """A part of a picture and what is seen around it."""

    core: Rectangle
    seen: Rectangle
    engine: Engine
    compared: list[npt.NDArray[np.float32]]  # what the graph takes beside the code


class Refiner:
    """The graphs of one model; safe to share among threads."""

    def __init__(self, model: ModelFile, coder: CodeCoder, threads: int | None):
        """`threads`: processor threads of one call; None: all cores."""
        self._engines = DistortionEngines(model, DISTORTION, threads)
        self.coder = coder

    def refine(
        self,
        task: Task,
        num_steps: int,
        *,
        keeps_quality: bool,
        start: Leanings | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> Refined:
        """The best coding that so many steps find; never worse than that of the analysis.

        Args:
            task: the picture.
            num_steps: at least 1. :func:`most_passes` has what they take.
            keeps_quality: the distortion is not to rise, and fewer bits are what is looked for;
                otherwise the map stays as it is, and bits and distortion fall together.
            start: leanings to begin with; None: those of the analysis.
            progress: is told the share of the work that is done, after each step.

        Raises:
            ModelError: the synthesis has an operator whose gradient is not known.
        """
        descent = _Descent(self, task, start)
        picture = descent.run(num_steps, keeps_quality=keeps_quality, progress=progress)
        return Refined(picture, descent.leanings)

    def distortion(self, original: Original, shown: Pixels) -> float:
        """What a picture loses that is shown in place of its original, (H, W, 3) both."""
        return self._engines.loss(original, shown, _cores(original))

    def blocks(self, original: Original) -> list[_Block]:
        """A picture's parts."""
        result = []
        for core in _cores(original):
            seen = original.tiling.around(core, HALO_PX)
            engine = self._engines.of(seen)
            result.append(_Block(core, seen, engine, original.compared(engine, seen, DISTORTION)))
        return result


def _cores(original: Original) -> list[Rectangle]:
    return blocks_of(original.tiling.around(original.tiling.picture))


def most_passes(num_steps: int, *, keeps_quality: bool) -> int:
    """Passes of the synthesis that a refinement of so many steps takes at most.

    A step takes two, forwards and backwards, each coding that is looked at one.
    """
    return 2 * num_steps + 2 + (_LAST_LOOKS if keeps_quality else 0)


class _Descent:
    """The state of a descent."""

    def __init__(self, refiner: Refiner, task: Task, start: Leanings | None):
        self._coder, self._task = refiner.coder, task
        self.leanings = (task.activation if start is None else start).copy()
        self._blocks = refiner.blocks(task.original)
        self._q = float(task.q)
        self._follow()

    def run(
        self,
        num_steps: int,
        *,
        keeps_quality: bool,
        progress: Callable[[float], None] | None,
    ) -> CodedPicture:
        """The best coding that is found, that of the analysis among them."""
        first = self._candidate(self._picture(self._task.activation))
        best = first
        kept = first.distortion * (1 + _SLACK) if keeps_quality else math.inf
        momentum = max(0.0, 1 - 1 / (_AVERAGED * num_steps))
        longest = _LENGTH * min(1.0, _FEW_STEPS / num_steps)
        mean, square = np.zeros_like(self.leanings), np.zeros_like(self.leanings)
        prices = mean

        def better(found: _Candidate) -> _Candidate:
            if keeps_quality:
                is_better = found.distortion <= kept and found.bits < best.bits
            else:
                is_better = self._cost(found) < self._cost(best)
            return found if is_better else best

        for step in range(num_steps):
            picture = self._picture(self.leanings)
            distortion, slopes = self._slope(picture.code)
            if step % _PRICES_EVERY == 0:
                bits, prices = self._coder.priced(picture)
                best = better(_Candidate(picture, bits, distortion))
            slopes = np.where(self._mask, slopes + prices, np.float32(0))
            mean += (1 - momentum) * (slopes - mean)
            square += (1 - _FORGETTING) * (slopes**2 - square)
            # Both begin with 0, and are scaled up at first.
            size = np.sqrt(square / (1 - _FORGETTING ** (step + 1))) + _LEAST_SIZE
            length = longest * (1 - step / num_steps) / (1 - momentum ** (step + 1))
            self.leanings -= np.float32(length) * mean / size
            np.clip(self.leanings, 0, 1, out=self.leanings)
            if keeps_quality:
                change = _RESPONSE_Q * math.log(max(distortion, 1e-9) / max(first.distortion, 1e-9))
                self._move_q(self._q + min(max(change, -_MOST_Q), _MOST_Q))
            if progress is not None:
                progress((step + 1) / num_steps)
        if keeps_quality:
            self._settle(kept)
        return better(self._candidate(self._picture(self.leanings))).picture

    def _settle(self, kept: float) -> None:
        """Move q to the lowest near it at which the distortion is no more than `kept`."""
        low, high = self._q - _LAST_REACH_Q, self._q + _LAST_REACH_Q
        for _ in range(_LAST_LOOKS):
            middle = (low + high) / 2
            self._move_q(middle)
            if self._distortion(self._picture(self.leanings).code) <= kept:
                high = middle
            else:
                low = middle
        self._move_q(high)

    def _move_q(self, q: float) -> None:
        self._q = min(max(q, self._task.least_q - _BELOW_Q), float(self._task.q))
        self._follow()

    def _follow(self) -> None:
        """Take the map over that belongs to q."""
        layout = self._coder.layout
        self._level = self._task.level(round(self._q))
        channels = np.arange(layout.code_channels)[:, None, None]
        self._mask = channels < layout.kept(self._level)

    def _picture(self, leanings: Leanings) -> CodedPicture:
        return CodedPicture(((leanings > 0.5) & self._mask).astype(np.uint8), self._level)

    def _candidate(self, picture: CodedPicture) -> _Candidate:
        bits = self._coder.counted(picture).bits
        return _Candidate(picture, bits, self._distortion(picture.code))

    def _cost(self, found: _Candidate) -> float:
        num_pixels = self._task.original.num_pixels(self._task.original.tiling.picture)
        return found.bits + self._bits_per_px() * num_pixels * found.distortion

    def _bits_per_px(self) -> float:
        """Of a distortion of 1."""
        return float(_BITS_AT_0 * 2 ** (self._q / _Q_PER_OCTAVE))

    def _distortion(self, code: Bits) -> float:
        total = 0.0
        for block in self._blocks:
            (value,) = block.engine.run("distortion", self._seen(code, block), *block.compared)
            total += self._share(block.core) * float(value.item())
        return total

    def _slope(self, code: Bits) -> tuple[float, Leanings]:
        """The distortion, and its gradient by the code in bits."""
        original = self._task.original
        picture, cell_px = original.tiling.picture, original.cell_px
        slopes = np.zeros(code.shape, np.float32)
        total = 0.0
        for block in self._blocks:
            value, gradient = block.engine.run("slope", self._seen(code, block), *block.compared)
            total += self._share(block.core) * float(value.item())
            bits = self._bits_per_px() * original.num_pixels(block.seen)
            part = gradient[0][:, *block.core.slices(block.seen, cell_px)]
            slopes[:, *block.core.slices(picture, cell_px)] = np.float32(bits) * part
        return total, slopes

    def _seen(self, code: Bits, block: _Block) -> npt.NDArray[np.float32]:
        original = self._task.original
        place = block.seen.slices(original.tiling.picture, original.cell_px)
        return code[:, *place][None].astype(np.float32)

    def _share(self, part: Rectangle) -> float:
        original = self._task.original
        return original.num_pixels(part) / original.num_pixels(original.tiling.picture)
