"""The `flagship` family: one content-weighted model for every rate."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from cwic.coding.arithmetic_coder import BitCounter
from cwic.errors import BitstreamError, ModelError
from cwic.families.flagship.activity import activity
from cwic.families.flagship.coder import CodedLatents, LatentCoder
from cwic.families.flagship.grid import LATENT_PX, PREVIEW_PX, cells_of
from cwic.families.flagship.latents import SideInformation
from cwic.families.flagship.levels import centred_levels
from cwic.families.flagship.refine.picture import RefinedTile, Refiner, Task, Uncoded
from cwic.families.flagship.tiles import (
    FAST,
    FULL,
    PREVIEW,
    Analyzed,
    TileTransforms,
    View,
    cells_in,
)
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
    steps_of,
)
from cwic.families.tiling import Rectangle, Tiling
from cwic.model_file import ModelFile

FAMILY = "flagship"

# Larger pictures are coded in tiles of this side, whose latents are predicted from no other tile.
MAX_UNDIVIDED_PIXELS = 2**22
MAX_UNDIVIDED_SIDE_PX = 2**14
TILE_PX = 1024

# What a reader takes: a file must not ask for more memory than a picture would.
_MAX_TILE_PIXELS = 2**22

# Latents take 6 bytes a pixel, what of an analysis does not depend on q up to 11; beyond 403 and
# 740 MB of them they are computed again rather than kept.
_MAX_KEPT_PIXELS = 2**26

_MAX_GROUPS = 5

# A quarter octave of the step size for each doubling of a picture's typical variance; where
# pictures of the training folders lie; the share of the qualities, at either end, over which the
# difference between pictures fades (docs/experiments.md).
_Q_PER_ACTIVITY = 64
_ORDINARY_ACTIVITY = 3.0
_ACTIVITY_RAMP = 0.15

# Quarter octaves of the step size that a mask of contrast 1 adds to the importance map. Networks
# are trained with random maps of up to 6.
_MASK_LEVELS = 6.0
# Where a mask makes steps finer by so many quarter octaves, its distortion counts 2^(half of that)
# times: as in training.
_MASK_OCTAVES = _MASK_LEVELS / 2


class Flagship:
    """A :class:`cwic.families.protocol.Family`; q counts 1/64 of a quarter octave of the step."""

    cell_px = LATENT_PX
    log_size_per_q = 0.2 / 64
    refined_saving = 0.06
    psnr_db_per_q = 0.8 / 64

    def __init__(self, model: ModelFile, threads: int | None = None):
        """`threads`: processor threads of one call; None: all cores."""
        rates = {name: value for name, value in model.encoding.items() if name != "distortion"}
        self.rates = RateRange(**checked_numbers(model, rates, RateRange))
        self.coder = LatentCoder(model.arrays, _groups(model), model.name)
        self.refiner = Refiner(model, self.coder, threads)
        self.transforms = TileTransforms(model, threads)
        self._name = model.name

    def q_of_quality(self, quality: float, pixels: Pixels) -> int:
        """Coarser for a busy picture, finer for a calm one, the same for both at 0 and 100.

        The step size rises with the root of a picture's typical contrast, within a range that
        leaves q rising with quality.
        """
        most = _ACTIVITY_RAMP * (self.rates.max_q - self.rates.min_q)
        calmer = _Q_PER_ACTIVITY * (_ORDINARY_ACTIVITY - activity(pixels))
        share = min(1.0, min(quality, 100 - quality) / 100 / _ACTIVITY_RAMP)
        return self.rates.of_quality(quality, share * min(max(calmer, -most), most))

    def tile_px(self, height: int, width: int) -> int | None:
        """Pictures are divided where one piece would take much memory."""
        small = height * width <= MAX_UNDIVIDED_PIXELS
        return None if small and max(height, width) <= MAX_UNDIVIDED_SIDE_PX else TILE_PX

    def tiling(self, height: int, width: int, tile_px: int | None) -> Tiling:
        """Where the tiles of a picture lie.

        Raises:
            BitstreamError: a tile would be larger than any that is written.
        """
        sides = (min(side, tile_px or side) for side in (height, width))
        tile_height, tile_width = sides
        if (
            tile_height * tile_width > _MAX_TILE_PIXELS
            or max(tile_height, tile_width) > MAX_UNDIVIDED_SIDE_PX
        ):
            raise BitstreamError(
                f"found a tile of {tile_width}x{tile_height} pixels, expected at most "
                f"{_MAX_TILE_PIXELS:,} and no side above {MAX_UNDIVIDED_SIDE_PX:,}"
            )
        return Tiling(height, width, tile_px, LATENT_PX)

    def analyze(self, pixels: Pixels) -> "FlagshipAnalysis":
        """(H, W, 3) uint8 of any size."""
        height, width = pixels.shape[:2]
        return FlagshipAnalysis(
            self, pixels, self.tiling(height, width, self.tile_px(height, width))
        )

    def decode(
        self, stream: TileStream, part: Rectangle, reduce: int = 1, *, fast: bool = False
    ) -> Pixels:
        """A part of the picture; no more of a file is decoded than it takes."""
        is_preview = reduce == PREVIEW_PX and self.transforms.has(PREVIEW)
        view, num_groups = (PREVIEW, 1) if is_preview else (self._synthesis(fast), None)

        def decoded(number: int) -> CodedLatents:
            return self._decode_tile(stream, number, num_groups=num_groups)

        self.transforms.prepare(stream.tiling, view)
        left = 1 if is_preview else reduce
        return self.transforms.synthesize(decoded, stream.tiling, part, view, left)

    def _synthesis(self, fast: bool) -> View:
        """The full synthesis or the light one; raises TargetError where that is missing."""
        if fast and not self.transforms.has(FAST):
            raise no_light_synthesis(self._name)
        return FAST if fast else FULL

    def _decode_tile(
        self, stream: TileStream, number: int, *, num_groups: int | None = None
    ) -> CodedLatents:
        tile = stream.tiling.tiles[number]
        return self.coder.decode(
            stream.payloads[number],
            stream.q,
            cells_of(tile.height, tile.width),
            num_groups=num_groups,
            two_threads=self.transforms.two_threads(stream.tiling),
        )

    def symbols(self, stream: TileStream) -> list[npt.NDArray[np.int32]]:
        """Levels, hyper-latents and symbols of each tile, their padding included."""
        result = []
        for number in range(len(stream.tiling.tiles)):
            coded = self._decode_tile(stream, number)
            parts = (coded.level, coded.hyper, coded.symbols)
            result.append(np.concatenate([part.ravel().astype(np.int32) for part in parts]))
        return result

    def decode_with_allocation(
        self, stream: TileStream, *, fast: bool = False
    ) -> tuple[Pixels, Allocation]:
        """The whole picture, and the same, noted down as the tiles are decoded."""
        view = self._synthesis(fast)
        result = _no_allocation(stream.tiling)

        def decoded(number: int) -> CodedLatents:
            coded = self._decode_tile(stream, number)
            self._allocate(stream.tiling.tiles[number], coded, result)
            return coded

        tiling = stream.tiling
        self.transforms.prepare(tiling, view)
        return self.transforms.synthesize(decoded, tiling, tiling.picture, view), result

    def _allocate(self, tile: Rectangle, coded: CodedLatents, result: Allocation) -> None:
        """Writes a tile's levels and bits into those of its picture."""
        own = cells_of(tile.height, tile.width)
        result.importance[cells_in(tile)] = coded.level[: own.height, : own.width]
        result.bits[cells_in(tile)] = self.coder.bits_of_cells(coded, own)


class TileLatents:
    """Latents and importance of all tiles of a picture, as one analysis makes them."""

    def __init__(
        self, family: Flagship, tiling: Tiling, analyze: Callable[[int], Analyzed], *, keeps: bool
    ):
        """Analyzes all tiles.

        Args:
            family: that codes them.
            tiling: of the picture.
            analyze: a tile by its number.
            keeps: whether latents are kept rather than made again.
        """
        self.family, self.tiling = family, tiling
        self._analyze = analyze
        _, _, height, width = tiling.picture
        cells = cells_of(height, width)
        self.importance = np.empty((cells.height, cells.width), np.float32)
        self._latents: dict[int, npt.NDArray[np.float32]] = {}

        def add(number: int) -> None:
            found = analyze(number)
            self.importance[cells_in(tiling.tiles[number])] = found.importance
            if keeps:
                self._latents[number] = found.latents

        family.transforms.for_each(tiling, add)

    def latents(self, number: int) -> npt.NDArray[np.float32]:
        """(M, h, w) of a tile's own cells."""
        if number in self._latents:
            return self._latents[number]
        return self._analyze(number).latents


class FlagshipAnalysis:
    """A picture behind the analysis transform, or behind what of it does not depend on q."""

    def __init__(self, family: Flagship, picture: Pixels, tiling: Tiling):
        """Analyzes all tiles; keeps what it finds of pictures that are not enormous."""
        self.tiling = tiling
        self._family = family
        self._picture = picture
        _, _, height, width = tiling.picture
        self._keeps = height * width <= _MAX_KEPT_PIXELS
        self._at_any_q: TileLatents | None = None
        self._front: Callable[[int], npt.NDArray[np.float32]]
        transforms = family.transforms
        if not transforms.analysis_sees_q():
            analyze = partial(transforms.analyze, picture, tiling)
            self._at_any_q = TileLatents(family, tiling, analyze, keeps=self._keeps)
            return
        self._front = partial(transforms.front, picture, tiling)
        if self._keeps:
            self._front = transforms.for_each(tiling, self._front).__getitem__

    def at(self, q: int) -> TileLatents:
        """All tiles at a q, or at any, where the analysis does not see it."""
        if self._at_any_q is not None:
            return self._at_any_q
        transforms, tiling, front = self._family.transforms, self.tiling, self._front

        def analyze(number: int) -> Analyzed:
            return transforms.analyze_at(q, front(number), tiling, number)

        return TileLatents(self._family, tiling, analyze, keeps=self._keeps)

    def code(self, q: int, emphasis: Emphasis | None = None) -> "FlagshipCoded":
        """The picture at a q."""
        latents = self.at(q)
        importance = latents.importance
        if emphasis is not None:
            importance = importance + _MASK_LEVELS * emphasis
        level, q = centred_levels(importance, q)
        return FlagshipCoded(latents, q, level)

    def refine(
        self,
        q: int,
        emphasis: Emphasis | None,
        effort: int,
        *,
        keeps_quality: bool,
        start: Coded | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> "RefinedCoding":
        """The picture at a q, its latents refined; a third of the steps from a `start` on."""
        plain = self.code(q, emphasis)
        task = Task(self._original(emphasis), q, plain.uncoded)
        starts = None
        if isinstance(start, RefinedCoding):
            found = [tile.latents for tile in start.tiles if tile.latents is not None]
            starts = found or None
        if len(self.tiling.tiles) > 1:
            self._family.transforms.release()
        tiles = self._family.refiner.refine(
            task,
            steps_of(effort, again=starts is not None),
            keeps_quality=keeps_quality,
            starts=starts,
            keeps_latents=self._keeps and not keeps_quality,  # a quality takes no second one
            progress=progress,
        )
        return RefinedCoding(self._family, self.tiling, plain.q, tiles)

    def distortion(self, shown: Pixels, emphasis: Emphasis | None) -> float:
        """What the picture loses, (H, W, 3) shown in its place; in bits per pixel at q = 0."""
        return self._family.refiner.distortion(self._original(emphasis), shown)

    def _original(self, emphasis: Emphasis | None) -> Original:
        weights = weights_of(emphasis, _MASK_OCTAVES)
        return Original(self._picture, self.tiling, weights, LATENT_PX)


class FlagshipCoded:
    """A picture at one rate."""

    def __init__(self, of: TileLatents, q: int, level: npt.NDArray[np.int64]):
        """`level` (rows, columns) of cells of the picture, `q` of the header."""
        self._of = of
        self.q = q
        self.level = level
        self._only_tile: tuple[BitCounter, CodedLatents] | None = None
        self._payloads: dict[int, bytes] = {}

    def tile(self, number: int) -> tuple[BitCounter, CodedLatents]:
        """What a tile costs, and its latents.

        Kept only for a picture that is not divided; of several tiles the payloads are, which take
        a twentieth of the time to make, so that none is coded again for its bytes.
        """
        if self._only_tile is not None:
            return self._only_tile
        latents, side, cells = self.uncoded(number)
        tiling, transforms = self._of.tiling, self._of.family.transforms
        counter = BitCounter()
        coded = self._of.family.coder.encode(
            counter, latents, side, cells, two_threads=transforms.two_threads(tiling)
        )
        if len(tiling.tiles) == 1:
            self._only_tile = counter, coded
        else:
            self._payloads[number] = counter.payload()
        return counter, coded

    def uncoded(self, number: int) -> Uncoded:
        """What is known of a tile before its latents are quantized."""
        tile = self._of.tiling.tiles[number]
        cells = cells_of(tile.height, tile.width)
        # What hyper-latents cover beyond the tile's own cells repeats the last of these.
        beyond = ((0, cells.padded_height - cells.height), (0, cells.padded_width - cells.width))
        level = np.pad(self.level[cells_in(tile)], beyond, mode="edge")
        latents = np.pad(self._of.latents(number), ((0, 0), *beyond), mode="edge")
        tiling, transforms = self._of.tiling, self._of.family.transforms
        hyper = transforms.hyper_latents(tiling, latents, self.q, level)
        return Uncoded(latents, SideInformation(self.q, level, hyper), cells)

    def size_bytes(self) -> float:
        """Of all payloads, without making them."""
        transforms = self._of.family.transforms
        bits = transforms.for_each(self._of.tiling, lambda number: self.tile(number)[0].bits)
        return float(sum(bits)) / 8

    def payloads(self) -> list[bytes]:
        """The tiles' bytes."""

        def payload(number: int) -> bytes:
            if number not in self._payloads:
                counter, _ = self.tile(number)
                if number not in self._payloads:
                    self._payloads[number] = counter.payload()
            return self._payloads[number]

        return self._of.family.transforms.for_each(self._of.tiling, payload)

    def pixels(self) -> Pixels:
        """What a decoder will show."""
        tiling = self._of.tiling
        return self._of.family.transforms.synthesize(
            lambda number: self.tile(number)[1], tiling, tiling.picture
        )


class RefinedCoding:
    """A picture at one rate, refined: its payloads are made."""

    def __init__(self, family: Flagship, tiling: Tiling, q: int, tiles: list[RefinedTile]):
        """`q` of the header, `tiles` in raster order."""
        self._family, self._tiling, self.tiles = family, tiling, tiles
        self.q = q

    def size_bytes(self) -> float:
        """Of all payloads."""
        return float(sum(map(len, self.payloads())))

    def payloads(self) -> list[bytes]:
        """The tiles' bytes."""
        return [tile.payload for tile in self.tiles]

    def pixels(self) -> Pixels:
        """What a decoder will show."""
        stream = TileStream(self.payloads(), self.q, self._tiling)
        return self._family.decode(stream, self._tiling.picture)


def _no_allocation(tiling: Tiling) -> Allocation:
    """Of a picture of which nothing is read yet."""
    cells = cells_of(tiling.picture.height, tiling.picture.width)
    shape = (cells.height, cells.width)
    return Allocation(np.zeros(shape, np.float32), np.zeros(shape), LATENT_PX)


def _groups(model: ModelFile) -> tuple[int, ...]:
    if model.decoding.get("padding_px") != LATENT_PX:
        raise ModelError(
            f"model {model.name}: expected padding_px {LATENT_PX}, pictures that are padded to "
            f"multiples of {LATENT_PX} pixels, found {model.decoding.get('padding_px', 'none')}"
        )
    found: Any = model.decoding.get("groups")
    if (
        set(model.decoding) != {"groups", "padding_px"}
        or not isinstance(found, list)
        or not 1 <= len(found) <= _MAX_GROUPS
        or any(type(size) is not int or size < 1 for size in found)
    ):
        raise ModelError(
            f"model {model.name}: damaged manifest: expected groups, 1 to {_MAX_GROUPS} positive "
            f"integers, found {str(model.decoding)[:200]}"
        )
    return tuple(found)
