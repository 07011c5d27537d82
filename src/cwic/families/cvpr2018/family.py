"""The `cvpr2018` family at run time (Li et al., 2018): a binary code, masked by importance."""

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cwic.coding.arithmetic_coder import BitCounter
from cwic.engine import Engine
from cwic.errors import BitstreamError, ImageError
from cwic.families.cvpr2018.closed_loop import asked_for
from cwic.families.cvpr2018.coder import CodeCoder, CodedPicture, CodeLayout
from cwic.families.cvpr2018.refine import Leanings, Refiner, Task
from cwic.families.original import Original, weights_of
from cwic.families.protocol import (
    Allocation,
    Coded,
    Emphasis,
    Pixels,
    RateRange,
    TileStream,
    checked_numbers,
    no_light_synthesis,
    shrunk,
    steps_of,
)
from cwic.families.tiling import Rectangle, Tiling
from cwic.image import pad_to_multiple
from cwic.model_file import ModelFile

FAMILY = "cvpr2018"

# Side of a code cell in pixels.
CELL_PX = 8

# The transforms of a whole picture take about 220 bytes a pixel: 3.7 GB at this size.
MAX_PIXELS = 2**24
MAX_SIDE_PX = 2**14

# Added before an importance is rounded down, as in the authors' released layer, so that an exact
# multiple of 1 / L that floating point left a hair below still counts as reached.
LEVEL_EPSILON = 1e-5

# Logits that a mask of contrast 1 adds to the importance map, and octaves by which what is lost
# there counts for more.
_MASK_LOGITS = 3.0
_MASK_OCTAVES = 2.4


class Analysis(NamedTuple):
    """What the analysis makes of a picture of 8 h x 8 w pixels."""

    activation: npt.NDArray[np.float32]  # (n, h, w) in (0, 1); a bit is activation > 0.5
    map_logits: npt.NDArray[np.float32]  # (h, w), logits of the importance map


def analyze(engine: Engine, pixels: Pixels) -> Analysis:
    """(8 h, 8 w, 3) uint8 -> activations and map logits."""
    activation, map_logits = engine.run("analysis", pixels[None])
    return Analysis(activation[0], map_logits[0, 0])


def synthesize(engine: Engine, code: npt.NDArray[np.uint8]) -> Pixels:
    """Masked code (n, h, w) of 0 and 1 -> (8 h, 8 w, 3) uint8."""
    (pixels,) = engine.run("synthesis", code[None])
    result: Pixels = pixels[0]
    return result


def level_of_picture(analysis: Analysis, q: int, layout: CodeLayout) -> npt.NDArray[np.uint8]:
    """Map quantizer of the paper (eq. 4): (h, w) levels.

    `q` is what is added to the logits, in units of 1/64.
    """
    p = 1 / (1 + np.exp(-(analysis.map_logits + np.float32(q / 64))))
    level = np.clip(np.floor(p * layout.levels + LEVEL_EPSILON), 0, layout.levels - 1)
    result: npt.NDArray[np.uint8] = level.astype(np.uint8)
    return result


def code_of_picture(analysis: Analysis, q: int, layout: CodeLayout) -> CodedPicture:
    """Binarizer, map quantizer and mask of the paper (eq. 1, 4 and 5), once and for all.

    `q` is what is added to the logits, in units of 1/64.
    """
    level = level_of_picture(analysis, q, layout)
    k = np.arange(layout.code_channels)[:, None, None]
    bits = (analysis.activation > 0.5) & (k < layout.kept(level))
    return CodedPicture(bits.astype(np.uint8), level)


class Cvpr2018:
    """A :class:`cwic.families.protocol.Family`; q counts 1/64 of a logit of the importance map."""

    cell_px = CELL_PX
    log_size_per_q = 0.5 / 64
    psnr_db_per_q = 1.5 / 64
    refined_saving = 0.0  # the map stays; the picture is what gets better

    def __init__(self, model: ModelFile, threads: int | None = None):
        """`threads` of one call; None: all cores."""
        self.layout = CodeLayout(**checked_numbers(model, model.decoding, CodeLayout))
        self.rates = RateRange(**checked_numbers(model, model.encoding, RateRange))
        self.coder = CodeCoder(self.layout, model.arrays, model.name)
        self.engine = Engine(model, threads)
        self.refiner = Refiner(model, self.coder, threads)
        self.name = model.name

    def tiling(self, height: int, width: int, tile_px: int | None) -> Tiling:
        """One tile, if the encoder was of this program."""
        return Tiling(height, width, tile_px, CELL_PX)

    def analyze(self, pixels: Pixels) -> "_Analyzed":
        """(H, W, 3) uint8 of any size."""
        height, width = pixels.shape[:2]
        _check_size(height, width)
        return _Analyzed(self, pixels, self.tiling(height, width, None))

    def q_of_quality(self, quality: float, pixels: Pixels) -> int:  # noqa: ARG002
        """The same for all pictures: the map itself keeps more of the busy ones."""
        return self.rates.of_quality(quality)

    def decode(
        self, stream: TileStream, part: Rectangle, reduce: int = 1, *, fast: bool = False
    ) -> Pixels:
        """A part of the picture; all of it is decoded."""
        self._check_speed(fast)
        return self.part(self._decode(stream), stream.tiling, part, reduce)

    def symbols(self, stream: TileStream) -> list[npt.NDArray[np.int32]]:
        """Levels and bits of the code."""
        coded = self._decode(stream)
        return [np.concatenate([coded.level.ravel(), coded.code.ravel()]).astype(np.int32)]

    def decode_with_allocation(
        self, stream: TileStream, *, fast: bool = False
    ) -> tuple[Pixels, Allocation]:
        """The map's levels are those of the file; its bits lie in proportion to the bits kept."""
        self._check_speed(fast)
        coded = self._decode(stream)
        kept = self.layout.kept(coded.level)
        bits = kept * np.float64(8 * len(stream.payloads[0]) / max(1, int(kept.sum())))
        allocation = Allocation(coded.level.astype(np.float32), bits, CELL_PX)
        return self.part(coded, stream.tiling, stream.tiling.picture), allocation

    def _check_speed(self, fast: bool) -> None:
        """Raises TargetError for a fast decode: the family has no light synthesis."""
        if fast:
            raise no_light_synthesis(self.name)

    def _decode(self, stream: TileStream) -> CodedPicture:
        """The code of a file; its header's q adds nothing to the map."""
        _, _, height, width = stream.tiling.picture
        try:
            _check_size(height, width)
        except ImageError as error:
            raise BitstreamError(str(error)) from None
        if len(stream.payloads) != 1:
            raise BitstreamError(
                f"expected one tile for family {FAMILY}, found {len(stream.payloads)}"
            )
        cells = (-(-height // CELL_PX), -(-width // CELL_PX))
        return self.coder.decode(stream.payloads[0], *cells)

    def part(self, coded: CodedPicture, tiling: Tiling, part: Rectangle, reduce: int = 1) -> Pixels:
        """A part of the picture of a code."""
        rows, columns = part.slices(tiling.picture)
        return shrunk(synthesize(self.engine, coded.code)[rows, columns], reduce)


def _check_size(height: int, width: int) -> None:
    """Raises ImageError where a picture is too large for a family without tiles."""
    if height * width > MAX_PIXELS or max(height, width) > MAX_SIDE_PX:
        raise ImageError(
            f"found a picture of {width}x{height} pixels, expected at most {MAX_PIXELS:,} and "
            f"no side above {MAX_SIDE_PX:,} for a model of family {FAMILY}"
        )


class _Analyzed(NamedTuple):
    """A picture of which nothing is known yet: what the analysis is to see depends on q."""

    family: Cvpr2018
    picture: Pixels
    tiling: Tiling

    def code(self, q: int, emphasis: Emphasis | None = None) -> "_Coded":
        analysis = self._analysis(q, emphasis)
        return _Coded(self, q, code_of_picture(analysis, q, self.family.layout))

    def refine(
        self,
        q: int,
        emphasis: Emphasis | None,
        effort: int,
        *,
        keeps_quality: bool,
        start: Coded | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> "_Coded":
        """The picture at a q, its code refined; a third of the steps from a `start` on."""
        analysis, layout = self._analysis(q, emphasis), self.family.layout
        task = Task(
            self._original(emphasis),
            q,
            analysis.activation,
            lambda at: level_of_picture(analysis, at, layout),
            self.family.rates.min_q,
        )
        leanings = start.leanings if isinstance(start, _Coded) else None
        refined = self.family.refiner.refine(
            task,
            steps_of(effort, again=leanings is not None),
            keeps_quality=keeps_quality,
            start=leanings,
            progress=progress,
        )
        return _Coded(self, q, refined.picture, refined.leanings)

    def distortion(self, shown: Pixels, emphasis: Emphasis | None) -> float:
        """What the picture loses, (H, W, 3) shown in its place."""
        return self.family.refiner.distortion(self._original(emphasis), shown)

    def _analysis(self, q: int, emphasis: Emphasis | None) -> Analysis:
        """Of what has to be seen for the picture to be shown at a q; the map emphasized."""
        family, picture = self.family, self.picture

        def analyzed(seen: Pixels) -> Analysis:
            found = analyze(family.engine, pad_to_multiple(seen, CELL_PX))
            if emphasis is None:
                return found
            return found._replace(map_logits=found.map_logits + _MASK_LOGITS * emphasis)

        def shown(seen: Pixels) -> Pixels:
            coded = code_of_picture(analyzed(seen), q, family.layout)
            return family.part(coded, self.tiling, self.tiling.picture)

        return analyzed(asked_for(picture, shown))

    def _original(self, emphasis: Emphasis | None) -> Original:
        weights = weights_of(emphasis, _MASK_OCTAVES)
        return Original(self.picture, self.tiling, weights, CELL_PX)


class _Coded:
    def __init__(
        self, of: _Analyzed, q: int, picture: CodedPicture, leanings: Leanings | None = None
    ):
        """`leanings` with which another refinement may begin; None: of the analysis."""
        self._of = of
        self.q = q
        self.leanings = leanings
        self.picture = picture

    @cached_property
    def _counted(self) -> BitCounter:
        return self._of.family.coder.counted(self.picture)

    def size_bytes(self) -> float:
        return self._counted.bits / 8

    def payloads(self) -> list[bytes]:
        return [self._counted.payload()]

    def pixels(self) -> Pixels:
        of, family = self._of, self._of.family
        return family.part(self.picture, of.tiling, of.tiling.picture)
