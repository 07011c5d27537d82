"""The `cwic` family at run time: one content-weighted model for every rate."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cwic.engine import Engine
from cwic.errors import ModelError
from cwic.family import Offset, Pixels, RateRange, checked_numbers
from cwic.flagship_coder import (
    HYPER_PX,
    LATENT_PX,
    MAX_LEVEL,
    Q_UNITS,
    BitCounter,
    CodedLatents,
    LatentCoder,
    cells_of,
    condition,
)
from cwic.image import crop, pad_to_multiple
from cwic.model_file import ModelFile
from cwic.step_network import MAX_HYPER

FAMILY = "cwic"

_MAX_GROUPS = 5

# Quarter octaves of the step size that a mask of contrast 1 adds to the importance map. Networks
# are trained with random maps of up to 6.
_MASK_LEVELS = 6.0


class Flagship:
    """See :class:`cwic.family.Family`; q counts 1/64 of a quarter octave of the step size."""

    cell_px = LATENT_PX
    log_size_per_q = 0.2 / 64
    psnr_db_per_q = 0.8 / 64

    def __init__(self, model: ModelFile, threads: int | None = None):
        """`threads` of one call of a transform; None: all cores."""
        self.rates = RateRange(**checked_numbers(model, model.encoding, RateRange))
        self.coder = LatentCoder(model.arrays, _groups(model), model.name)
        self.engine = Engine(model, threads)

    def analyze(self, pixels: Pixels) -> "FlagshipAnalysis":
        """(H, W, 3) uint8 of any size."""
        height, width = pixels.shape[:2]
        y, importance = self.engine.run("analysis", pad_to_multiple(pixels, HYPER_PX)[None])
        return FlagshipAnalysis(self, y[0], importance[0, 0], height, width)

    def decode(self, payload: bytes, q: int, height: int, width: int) -> Pixels:
        """The (height, width, 3) pixels of a payload."""
        coded = self.coder.decode(payload, q, cells_of(height, width))
        return crop(self.synthesize(coded), width, height)

    def synthesize(self, coded: CodedLatents) -> Pixels:
        """(16 h, 16 w, 3) uint8."""
        (pixels,) = self.engine.run(
            "synthesis", coded.decoded[None], coded.prior[None], coded.planes[None]
        )
        result: Pixels = pixels[0]
        return result


@dataclass(frozen=True)
class FlagshipAnalysis:
    """A picture behind the analysis transform."""

    family: Flagship
    y: npt.NDArray[np.float32]  # (M, h, w) latents
    importance: npt.NDArray[np.float32]  # (h, w) in quarter octaves, any mean
    height: int  # of the picture in pixels
    width: int

    def code(self, q: int, offset: Offset | None = None) -> "FlagshipCoded":
        """The picture at a rate offset."""
        cells = cells_of(self.height, self.width)
        importance = self.importance[: cells.height, : cells.width]
        if offset is not None:
            importance = importance + _MASK_LEVELS * offset
        level, q = centred_levels(importance, q)
        level = np.pad(
            level,
            ((0, cells.padded_height - cells.height), (0, cells.padded_width - cells.width)),
            mode="edge",
        )
        (z,) = self.family.engine.run("hyper_analysis", self.y[None], condition(q, level)[None])
        hyper = np.floor(np.clip(z[0], -MAX_HYPER, MAX_HYPER) + 0.5).astype(np.int64)
        counter = BitCounter()
        coded = self.family.coder.code(counter, self.y, hyper, level, q, cells)
        return FlagshipCoded(self, counter, coded)


@dataclass(frozen=True)
class FlagshipCoded:
    """A picture at one rate."""

    of: FlagshipAnalysis
    counter: BitCounter
    coded: CodedLatents

    @property
    def q(self) -> int:
        """Of the header."""
        return self.coded.q

    def size_bytes(self) -> float:
        """Of the payload, without making it."""
        return self.counter.bits / 8

    def payload(self) -> bytes:
        """The tile's bytes."""
        return self.counter.payload()

    def pixels(self) -> Pixels:
        """What a decoder will show."""
        return crop(self.of.family.synthesize(self.coded), self.of.width, self.of.height)


def centred_levels(
    importance: npt.NDArray[np.float32], q: int
) -> tuple[npt.NDArray[np.int64], int]:
    """Integer levels of an importance map, and the q that a header states with them.

    Rounding leaves the levels a mean of their own; the header takes it back, so that the mean of
    q + 64 s is what was asked for, whatever the map.

    Args:
        importance: (h, w) in quarter octaves, any mean.
        q: in 1/64 of a quarter octave.

    Returns:
        (h, w) levels in -8..8, and q of the header.
    """
    centred = importance - importance.mean(dtype=np.float64)
    level = np.floor(np.clip(centred, -MAX_LEVEL, MAX_LEVEL) + 0.5).astype(np.int64)
    return level, q - int(np.floor(level.mean() * Q_UNITS + 0.5))


def _groups(model: ModelFile) -> tuple[int, ...]:
    found: Any = model.decoding.get("groups")
    if (
        set(model.decoding) != {"groups"}
        or not isinstance(found, list)
        or not 1 <= len(found) <= _MAX_GROUPS
        or any(type(size) is not int or size < 1 for size in found)
    ):
        raise ModelError(
            f"model {model.name}: damaged manifest: expected groups, 1 to {_MAX_GROUPS} positive "
            f"integers, found {str(model.decoding)[:200]}"
        )
    return tuple(found)
