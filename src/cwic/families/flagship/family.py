"""The `cwic` family at run time: one content-weighted model for every rate."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cwic.coding.arithmetic_coder import BitCounter
from cwic.engine import Engine
from cwic.errors import BitstreamError, ModelError
from cwic.families.flagship.activity import activity
from cwic.families.flagship.coder import (
    HYPER_PX,
    LATENT_PX,
    MAX_LEVEL,
    PREVIEW_PX,
    Q_UNITS,
    CodedLatents,
    LatentCoder,
    cells_of,
    condition,
)
from cwic.families.flagship.step_network import MAX_HYPER
from cwic.families.protocol import Allocation, Offset, Pixels, RateRange, checked_numbers, shrunk
from cwic.families.tiling import Rectangle, Tiling
from cwic.model_file import ModelFile

FAMILY = "cwic"

# Larger pictures are coded in tiles of this side, whose latents are predicted from no other tile.
MAX_UNDIVIDED_PIXELS = 2**22
MAX_UNDIVIDED_SIDE_PX = 2**14
TILE_PX = 1024

# What a reader takes: a file must not ask for more memory than a picture would.
_MAX_TILE_PIXELS = 2**22

# What the transforms see of a tile's neighbours; their receptive fields reach 112 pixels.
HALO_PX = 128

# Latents take 5 bytes a pixel; beyond 335 MB of them they are computed again rather than kept.
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


class _View(NamedTuple):
    """A graph that makes a picture of latents."""

    graph: str
    unit_px: int  # pixels of the coded picture that one of its pixels stands for, a side
    halo_px: int  # what it sees of a tile's neighbours


_FULL = _View("synthesis", 1, HALO_PX)
_PREVIEW = _View("preview", PREVIEW_PX, HYPER_PX)


class Flagship:
    """A :class:`cwic.families.protocol.Family`; q counts 1/64 of a quarter octave of the step."""

    cell_px = LATENT_PX
    log_size_per_q = 0.2 / 64
    psnr_db_per_q = 0.8 / 64

    def __init__(self, model: ModelFile, threads: int | None = None):
        """`threads`: processor threads of one call; None: all cores."""
        self.rates = RateRange(**checked_numbers(model, model.encoding, RateRange))
        self.coder = LatentCoder(model.arrays, _groups(model), model.name)
        self.workers = threads or os.cpu_count() or 1
        self._engine = Engine(model, threads)
        # Tiles are worked on side by side, each by one thread.
        self._engine_of_tiles = Engine(model, 1)

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
        self,
        payloads: Sequence[bytes],
        q: int,
        tiling: Tiling,
        part: Rectangle,
        reduce: int = 1,
    ) -> Pixels:
        """A part of the picture; no more of a file is decoded than it takes."""
        preview = reduce == PREVIEW_PX and self._engine.has(_PREVIEW.graph)

        def decoded(number: int) -> CodedLatents:
            num_groups = 1 if preview else None
            return self._decode_tile(payloads, q, tiling, number, num_groups)

        self.engine(tiling).prepare((_PREVIEW if preview else _FULL).graph)
        if preview:
            return self.synthesize(decoded, tiling, part, _PREVIEW)
        return shrunk(self.synthesize(decoded, tiling, part), reduce)

    def _decode_tile(
        self,
        payloads: Sequence[bytes],
        q: int,
        tiling: Tiling,
        number: int,
        num_groups: int | None = None,
    ) -> CodedLatents:
        tile = tiling.tiles[number]
        cells = cells_of(tile.height, tile.width)
        return self.coder.decode(
            payloads[number],
            q,
            cells,
            num_groups=num_groups,
            two_threads=self.two_threads(tiling),
        )

    def symbols(
        self, payloads: Sequence[bytes], q: int, tiling: Tiling
    ) -> list[npt.NDArray[np.int32]]:
        """Levels, hyper-latents and symbols of each tile, their padding included."""
        result = []
        for number in range(len(tiling.tiles)):
            coded = self._decode_tile(payloads, q, tiling, number)
            parts = (coded.level, coded.hyper, coded.symbols)
            result.append(np.concatenate([part.ravel().astype(np.int32) for part in parts]))
        return result

    def synthesize(
        self,
        coded: Callable[[int], CodedLatents],
        tiling: Tiling,
        part: Rectangle,
        view: "_View | None" = None,
    ) -> Pixels:
        """A part of the picture from the latents of its tiles.

        Args:
            coded: the latents of a tile by its number; called once for each that is needed.
            tiling: of the picture.
            part: in pixels, inside the picture.
            view: what to make of the latents; None: the picture at its size.
        """
        view = view or _FULL
        shown_part = part.shrunk(view.unit_px)
        result = np.empty((shown_part.height, shown_part.width, 3), np.uint8)
        known: dict[int, tuple[npt.NDArray[np.float32], ...]] = {}

        def inputs_of(number: int) -> tuple[npt.NDArray[np.float32], ...]:
            latents = coded(number)
            return latents.decoded, latents.prior, latents.planes

        def gathered(window: Rectangle) -> list[npt.NDArray[np.float32]]:
            inputs: list[npt.NDArray[np.float32]] = []
            shape = (window.height // LATENT_PX, window.width // LATENT_PX)
            for number in tiling.meeting(window):
                arrays = known[number]
                own = tiling.around(tiling.tiles[number])
                both = own.cut(window)
                here, there = both.slices(own, LATENT_PX), both.slices(window, LATENT_PX)
                if not inputs:
                    inputs = [np.empty((len(array), *shape), np.float32) for array in arrays]
                for array, whole in zip(arrays, inputs, strict=True):
                    whole[:, *there] = array[:, *here]
            return inputs

        def show(number: int) -> None:
            core = tiling.tiles[number].cut(part)
            window = tiling.around(core, view.halo_px)
            inputs = (array[None] for array in gathered(window))
            (pixels,) = self.engine(tiling).run(view.graph, *inputs)
            small = core.shrunk(view.unit_px)
            rows, columns = small.slices(window.shrunk(view.unit_px))
            result[small.slices(shown_part)] = pixels[0][rows, columns]

        with self.pool(tiling) as pool:
            shown = tiling.meeting(part)
            for row in sorted({number // tiling.columns for number in shown}):
                in_row = [number for number in shown if number // tiling.columns == row]
                first, last = (tiling.tiles[number].cut(part) for number in (in_row[0], in_row[-1]))
                band = Rectangle(first.top, first.left, last.bottom, last.right)
                needed = set(tiling.meeting(tiling.around(band, view.halo_px)))
                for number in known.keys() - needed:
                    del known[number]
                missing = sorted(needed - known.keys())
                known.update(zip(missing, pool(inputs_of, missing), strict=True))
                for _ in pool(show, in_row):
                    pass
        return result

    def allocation(self, payloads: Sequence[bytes], q: int, tiling: Tiling) -> Allocation:
        """Levels of the importance map, and bits a cell."""
        cells = cells_of(tiling.picture.height, tiling.picture.width)
        importance = np.zeros((cells.height, cells.width), np.float32)
        bits = np.zeros((cells.height, cells.width))

        def add(number: int) -> None:
            tile = tiling.tiles[number]
            own = cells_of(tile.height, tile.width)
            coded = self._decode_tile(payloads, q, tiling, number)
            importance[_cells(tile)] = coded.level[: own.height, : own.width]
            bits[_cells(tile)] = self.coder.bits_of_cells(coded, own)

        with self.pool(tiling) as pool:
            for _ in pool(add, range(len(tiling.tiles))):
                pass
        return Allocation(importance, bits, LATENT_PX)

    def engine(self, tiling: Tiling) -> Engine:
        """All threads for one tile, or one for each of several."""
        return self._engine if len(tiling.tiles) == 1 else self._engine_of_tiles

    def two_threads(self, tiling: Tiling) -> bool:
        """Whether coding one tile may take two threads: there is no other to work on."""
        return len(tiling.tiles) == 1 and self.workers > 1

    @contextmanager
    def pool(self, tiling: Tiling) -> Iterator[Callable[..., Iterator[Any]]]:
        """A `map` over numbers of tiles: side by side if there are several."""
        if len(tiling.tiles) == 1:
            yield map
            return
        with ThreadPoolExecutor(self.workers) as executor:
            yield executor.map


class FlagshipAnalysis:
    """A picture behind the analysis transform."""

    def __init__(self, family: Flagship, picture: Pixels, tiling: Tiling):
        """Analyzes all tiles; keeps the latents of pictures that are not enormous."""
        self.family, self.tiling = family, tiling
        self._picture = picture
        _, _, height, width = tiling.picture
        cells = cells_of(height, width)
        self.importance = np.empty((cells.height, cells.width), np.float32)
        self._latents: dict[int, npt.NDArray[np.float32]] = {}
        keeps = height * width <= _MAX_KEPT_PIXELS
        family.engine(tiling).prepare("hyper_analysis")

        def analyze(number: int) -> None:
            latents, importance = self._analyze(number)
            self.importance[_cells(tiling.tiles[number])] = importance
            if keeps:
                self._latents[number] = latents

        with family.pool(tiling) as pool:
            for _ in pool(analyze, range(len(tiling.tiles))):
                pass

    def _analyze(self, number: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        core = self.tiling.around(self.tiling.tiles[number])
        window = self.tiling.around(core, HALO_PX)
        pixels = self.tiling.pixels(self._picture, window)
        latents, importance = self.family.engine(self.tiling).run("analysis", pixels[None])
        rows, columns = core.slices(window, LATENT_PX)
        # A view of a part would keep the halo in memory.
        own = np.ascontiguousarray(latents[0][:, rows, columns])
        return own, importance[0, 0, rows, columns]

    def latents(self, number: int) -> npt.NDArray[np.float32]:
        """(M, h, w) of a tile's own cells."""
        if number in self._latents:
            return self._latents[number]
        return self._analyze(number)[0]

    def code(self, q: int, offset: Offset | None = None) -> "FlagshipCoded":
        """The picture at a rate offset."""
        importance = self.importance
        if offset is not None:
            importance = importance + _MASK_LEVELS * offset
        level, q = centred_levels(importance, q)
        return FlagshipCoded(self, q, level)


class FlagshipCoded:
    """A picture at one rate."""

    def __init__(self, of: FlagshipAnalysis, q: int, level: npt.NDArray[np.int64]):
        """`level` (rows, columns) of cells of the picture, `q` of the header."""
        self._of = of
        self.q = q
        self.level = level
        self._only_tile: tuple[BitCounter, CodedLatents] | None = None

    def tile(self, number: int) -> tuple[BitCounter, CodedLatents]:
        """What a tile costs, and its latents; kept only for a picture that is not divided."""
        if self._only_tile is not None:
            return self._only_tile
        tile = self._of.tiling.tiles[number]
        cells = cells_of(tile.height, tile.width)
        # What hyper-latents cover beyond the tile's own cells repeats the last of these.
        beyond = ((0, cells.padded_height - cells.height), (0, cells.padded_width - cells.width))
        level = np.pad(self.level[_cells(tile)], beyond, mode="edge")
        latents = np.pad(self._of.latents(number), ((0, 0), *beyond), mode="edge")
        family = self._of.family
        (z,) = family.engine(self._of.tiling).run(
            "hyper_analysis", latents[None], condition(self.q, level)[None]
        )
        hyper = np.floor(np.clip(z[0], -MAX_HYPER, MAX_HYPER) + 0.5).astype(np.int64)
        counter = BitCounter()
        two_threads = family.two_threads(self._of.tiling)
        result = (
            counter,
            family.coder.code(
                counter, latents, hyper, level, self.q, cells, two_threads=two_threads
            ),
        )
        if len(self._of.tiling.tiles) == 1:
            self._only_tile = result
        return result

    def _of_tiles(self, value: Callable[[int], Any]) -> list[Any]:
        with self._of.family.pool(self._of.tiling) as pool:
            return list(pool(value, range(len(self._of.tiling.tiles))))

    def size_bytes(self) -> float:
        """Of all payloads, without making them."""
        bits = self._of_tiles(lambda number: self.tile(number)[0].bits)
        return float(sum(bits)) / 8

    def payloads(self) -> list[bytes]:
        """The tiles' bytes."""
        return self._of_tiles(lambda number: self.tile(number)[0].payload())

    def pixels(self) -> Pixels:
        """What a decoder will show."""
        tiling = self._of.tiling
        return self._of.family.synthesize(
            lambda number: self.tile(number)[1], tiling, tiling.picture
        )


def _cells(part: Rectangle) -> tuple[slice, slice]:
    """Rows and columns of the cells of a tile in a picture's map."""
    return (
        slice(part.top // LATENT_PX, -(-part.bottom // LATENT_PX)),
        slice(part.left // LATENT_PX, -(-part.right // LATENT_PX)),
    )


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
