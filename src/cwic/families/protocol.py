"""What encoding and decoding need of a model family, and no more.

A family turns the pixels of a picture into the payloads of its tiles and back. Targets, containers,
metadata and picture files are left to :mod:`cwic.encoder` and :mod:`cwic.codec`.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from cwic.defaults import MAX_EFFORT
from cwic.errors import ModelError, TargetError
from cwic.families.tiling import Rectangle, Tiling
from cwic.model_file import ModelFile

Pixels = npt.NDArray[np.uint8]  # (H, W, 3)
# What a mask adds to an importance map: (rows, columns) of cells, mean 0, magnitudes of about 1.
Emphasis = npt.NDArray[np.float32]

# Steps of a refinement by effort; each family's `most_passes` has what they take (docs/command.md).
_STEPS = (0, 2, 4, 7, 10, 14, 24, 39, 62, 98)
assert len(_STEPS) == MAX_EFFORT + 1
# Of one that begins with what was found at another q, which is nearly done.
_SHARE_AGAIN = 1 / 3


class RateRange(NamedTuple):
    """Range of q of a model, in the header's units."""

    min_q: int  # quality 0
    max_q: int  # quality 100

    def of_quality(self, quality: float, finer: float = 0.0) -> int:
        """q of a quality in [0, 100] for an ordinary picture, and `finer` by so much."""
        return round(self.min_q + quality / 100 * (self.max_q - self.min_q) + finer)


class Allocation(NamedTuple):
    """Where the bits of a file went.

    Both maps lie on the grid of the family's cells.
    """

    importance: npt.NDArray[np.float32]  # (rows, columns), what the importance map says
    bits: npt.NDArray[np.float64]  # (rows, columns), spent on each cell
    cell_px: int  # side of a cell


class TileStream(NamedTuple):
    """The coded tiles of a file, and what it takes to read them."""

    payloads: Sequence[bytes]  # of all tiles, in raster order
    q: int  # of the header
    tiling: Tiling


class Coded(Protocol):
    """A picture at one rate, all decisions taken."""

    @property
    def q(self) -> int:
        """What the header must say."""
        ...

    def size_bytes(self) -> float:
        """Length of all payloads, to within a few bytes each, without making them."""
        ...

    def payloads(self) -> list[bytes]:
        """The tiles' bytes, in raster order."""
        ...

    def pixels(self) -> Pixels:
        """(H, W, 3) what a decoder will show."""
        ...


class Analyzed(Protocol):
    """A picture behind the analysis transform."""

    @property
    def tiling(self) -> Tiling:
        """The tiles that it is coded in."""
        ...

    def code(self, q: int, emphasis: Emphasis | None = None) -> Coded:
        """The picture at a q within the model's range; `emphasis` is what masks add to the map."""
        ...

    def refine(
        self,
        q: int,
        emphasis: Emphasis | None,
        effort: int,
        *,
        keeps_quality: bool,
        start: Coded | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> Coded:
        """The same with more work for fewer bits.

        Args:
            q: in the header's units.
            emphasis: as of `code`.
            effort: 1 to `defaults.MAX_EFFORT`.
            keeps_quality: what the picture loses, by the measure that the model was trained for,
                is not to rise; otherwise size and loss fall together.
            start: the same picture refined at another q, which makes this one less work.
            progress: is told what share of the work is done, from 0 to 1.

        Raises:
            ModelError: the model cannot.
        """
        ...

    def distortion(self, shown: Pixels, emphasis: Emphasis | None) -> float:
        """What the picture loses by the measure that the model was trained for.

        Args:
            shown: what a decoder shows in its place.
            emphasis: as of `code`; what stands out counts for more.
        """
        ...


class Family(Protocol):
    """One model, ready to encode and decode; safe to share among threads.

    What reads a payload raises BitstreamError where that is damaged in a way that shows.
    """

    rates: RateRange
    cell_px: int  # side of a cell of the importance map
    log_size_per_q: float  # about how much the logarithm of a size rises with q
    psnr_db_per_q: float
    refined_saving: float  # about what a refinement takes off the logarithm of a size at one q

    def q_of_quality(self, quality: float, pixels: Pixels) -> int:
        """q of a quality in [0, 100] for a picture, (H, W, 3) uint8."""
        ...

    def tiling(self, height: int, width: int, tile_px: int | None) -> Tiling:
        """Where the tiles of a file lie, from what its header says.

        Raises:
            BitstreamError: a tile would be larger than any that is written.
        """
        ...

    def analyze(self, pixels: Pixels) -> Analyzed:
        """(H, W, 3) uint8 of any size.

        Raises:
            ImageError: it is too large for the family; before any memory is taken.
        """
        ...

    def decode(
        self, stream: TileStream, part: Rectangle, reduce: int = 1, *, fast: bool = False
    ) -> Pixels:
        """A part of the picture, (height, width, 3).

        Args:
            stream: of the whole picture.
            part: in pixels; its corners are multiples of `reduce`, or the picture's.
            reduce: 1, 2, 4 or 8; how many pixels a side become one.
            fast: by the light synthesis, where a synthesis is needed; a TargetError where that is
                missing.
        """
        ...

    def symbols(self, stream: TileStream) -> list[npt.NDArray[np.int32]]:
        """All integers that a picture is coded as, flat, for each tile."""
        ...

    def decode_with_allocation(
        self, stream: TileStream, *, fast: bool = False
    ) -> tuple[Pixels, Allocation]:
        """The whole picture and where its bits went; every payload is decoded once."""
        ...


def no_light_synthesis(model_name: str) -> TargetError:
    """What a model says that is asked for a fast decode and cannot do it."""
    return TargetError(
        f"model {model_name}: expected a light synthesis for a fast decode, found none; "
        "decode without fast"
    )


def steps_of(effort: int, *, again: bool = False) -> int:
    """Steps of a refinement; `again` begins with what one at another q found."""
    return math.ceil(_STEPS[effort] * (_SHARE_AGAIN if again else 1))


def shrunk(pixels: Pixels, reduce: int) -> Pixels:
    """Means over squares of so many pixels a side; what is left at the edges counts as one."""
    if reduce == 1:
        return pixels
    return np.asarray(Image.fromarray(pixels).reduce(reduce))


def checked_numbers(
    model: ModelFile, found: dict[str, Any], kind: type[tuple[Any, ...]]
) -> dict[str, int]:
    """A table of the manifest that holds the integers of a named tuple.

    Raises:
        ModelError: it does not.
    """
    names = set(kind.__annotations__)
    if set(found) != names or any(type(value) is not int for value in found.values()):
        raise ModelError(
            f"model {model.name}: damaged manifest: expected integers {', '.join(sorted(names))}, "
            f"found {str(found)[:200]}"
        )
    return found
