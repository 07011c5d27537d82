"""A picture refined tile by tile: what each sees of its neighbours, and what may be lost where.

A tile is refined beside the latents of its neighbours, those before it as they were refined, the
others as they would be coded without: so what its latents do beyond its borders counts. Of decoded
tiles no more are in memory than two rows and three.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cwic.coding.arithmetic_coder import BitCounter
from cwic.coding.blas_threads import one_blas_thread
from cwic.engine import Engine
from cwic.errors import ModelError
from cwic.families.flagship.coder import CodedLatents, LatentCoder
from cwic.families.flagship.grid import LATENT_PX, Q_UNITS, Cells, Checkerboard
from cwic.families.flagship.latents import SideInformation, condition
from cwic.families.flagship.refine.descent import RECIPES, Latents, Problem, descend
from cwic.families.flagship.refine.distortion import LOW_FREQUENCY_PX, distortion_of
from cwic.families.flagship.refine.gradients import (
    distortion_graph,
    loss_graph,
    means_graph,
    reference_graph,
)
from cwic.families.flagship.tiles import Inputs, cells_in, gathered
from cwic.families.protocol import Pixels
from cwic.families.tiling import Rectangle, Tiling
from cwic.model_file import ModelFile

# What counts around a tile, and is looked at: less than the synthesis sees, since what latents do
# fades with the distance.
_HALO_PX = 64

# The distortion of a tile of more pixels than `_WHOLE_PIXELS` is taken in blocks of at most so many
# pixels a side: graphs of the visual tune take 700 bytes a pixel while they run.
_WHOLE_PIXELS = 768 * 768
_BLOCK_PX = 384

# Half of the sum that a window of SSIM needs to look at both its sides.
_WINDOW_MARGIN_PX = 5


class Uncoded(NamedTuple):
    """A tile before its latents are quantized."""

    latents: Latents  # (M, h, w), padded
    side: SideInformation
    cells: Cells


class Original(NamedTuple):
    """A picture that is coded, and where it counts."""

    picture: Pixels
    tiling: Tiling
    weights: npt.NDArray[np.float32] | None  # (rows, columns) of cells, of a mask; None: all 1


class Task(NamedTuple):
    """A picture to be refined."""

    original: Original
    q: int  # what was asked for: that of the distortion's weight
    uncoded: Callable[[int], Uncoded]  # of a tile by its number


class RefinedTile(NamedTuple):
    """What became of a tile."""

    payload: bytes
    latents: Latents | None  # (M, h, w), padded, that the coder made it of; None: not kept


class _Block(NamedTuple):
    """A part of a tile and what is seen around it."""

    core: Rectangle
    seen: Rectangle
    engine: Engine
    fixed: list[npt.NDArray[np.float32]]  # what the graph takes beside latents
    bits: float  # of a distortion of 1 in all that is seen
    core_bits: float  # likewise in the core


class Refiner:
    """The graphs of one model; safe to share among threads."""

    def __init__(self, model: ModelFile, coder: LatentCoder, threads: int | None):
        """`threads`: processor threads of one call; None: all cores."""
        self._model, self._coder, self._threads = model, coder, threads
        self._distortion = distortion_of(model)
        self._recipe = RECIPES["structure" if self._distortion.num_scales(1024) else "squares"]
        self._engines: dict[int, Engine] = {}

    def refine(
        self,
        task: Task,
        num_steps: int,
        *,
        keeps_quality: bool,
        starts: Sequence[Latents] | None = None,
        keeps_latents: bool = True,
        progress: Callable[[float], None] | None = None,
    ) -> list[RefinedTile]:
        """All tiles, in raster order.

        Args:
            task: the picture.
            num_steps: of each tile's descent.
            keeps_quality: see :func:`.descent.descend`.
            starts: latents of each tile to begin with; None: those of the analysis.
            keeps_latents: whether the result has what another refinement may begin with, 5 bytes a
                pixel.
            progress: is told the share of the work that is done, after each step.

        Raises:
            ModelError: the synthesis has an operator whose gradient is not known.
        """
        tiling = task.original.tiling
        around: dict[int, Inputs] = {}
        result = []
        done = 0

        def tick() -> None:
            nonlocal done
            done += 1
            if progress is not None:
                progress(done / (num_steps * len(tiling.tiles)))

        for number, tile in enumerate(tiling.tiles):
            own = tiling.around(tile)
            window = tiling.around(own, _HALO_PX)
            needed = set(tiling.meeting(window))
            # A later tile of this row, or the next one, may still need what this one does not.
            for other in around.keys() - needed:
                if other < number - tiling.columns - 1:
                    del around[other]
            for other in sorted(needed - around.keys() - {number}):
                neighbour = task.uncoded(other)
                _, coded = self._coded(neighbour, neighbour.latents)
                around[other] = (coded.decoded, coded.prior, coded.planes)
            uncoded = task.uncoded(number)
            problem = self._problem(task, number, uncoded, window, around)
            if starts is not None:
                problem = problem._replace(start=starts[number])
            best = descend(problem, self._recipe, num_steps, keeps_quality=keeps_quality, tick=tick)
            coded = best.coded
            around[number] = (coded.decoded, coded.prior, coded.planes)
            counter, _ = self._coded(uncoded, best.latents)
            result.append(RefinedTile(counter.payload(), best.latents if keeps_latents else None))
        return result

    def distortion(self, original: Original, shown: Pixels) -> float:
        """What a picture loses that is shown in place of its original, (H, W, 3) both.

        In bits per pixel at q = 0, by the same measure and in the same blocks as of a refinement.
        """
        tiling = original.tiling
        total = 0.0
        for tile in tiling.tiles:
            for core in _blocks(tiling.around(tile)):
                seen = tiling.around(core, _HALO_PX)
                engine = self._engine(self._num_scales(seen))
                pixels = _planes(tiling.pixels(shown, seen)) - np.float32(0.5)
                (value,) = engine.run("loss", pixels, *self._fixed(original, seen))
                total += _num_pixels(tiling, core) * float(value.item())
        return total / _num_pixels(tiling, tiling.picture)

    def _coded(self, uncoded: Uncoded, latents: Latents) -> tuple[BitCounter, CodedLatents]:
        counter = BitCounter()
        # What is beyond the picture is filled in again by the coder.
        q, level, hyper = uncoded.side
        side = SideInformation(q, level.copy(), hyper.copy())
        coded = self._coder.encode(
            counter, latents, side, uncoded.cells, two_threads=self._threads != 1
        )
        return counter, coded

    def _problem(
        self,
        task: Task,
        number: int,
        uncoded: Uncoded,
        window: Rectangle,
        around: dict[int, Inputs],
    ) -> Problem:
        latents, side, cells = uncoded
        network = self._coder.mean_network
        planes = condition(side.q, side.level)
        board = Checkerboard(cells)
        with one_blas_thread():
            state = board.whole(network.begin(side.hyper, planes, board))
        prior = network.activate(state)
        steps = side.level.astype(np.float32) + np.float32(side.q / Q_UNITS)
        tiling = task.original.tiling
        own = tiling.around(tiling.tiles[number])
        rows, columns = own.slices(window, LATENT_PX)
        inside = (slice(None), slice(cells.height), slice(cells.width))
        neighbours = {**around, number: (np.zeros_like(latents), prior, planes)}
        decoded, *beside = gathered(neighbours, tiling, window)
        blocks = [self._block(task, core, window, beside) for core in _blocks(own)]

        def run(graph: str, candidate: Latents) -> Iterator[tuple[_Block, list[Latents]]]:
            decoded[:, rows, columns] = candidate[inside]
            for block in blocks:
                seen = decoded[:, *block.seen.slices(window, LATENT_PX)]
                yield block, block.engine.run(graph, seen[None], *block.fixed)

        def distortion(candidate: Latents) -> float:
            found = run("distortion", candidate)
            return sum(block.core_bits * float(value.item()) for block, (value,) in found)

        def slope(candidate: Latents) -> tuple[float, Latents]:
            slopes = np.zeros_like(candidate)
            total = 0.0
            for block, (value, gradient) in run("slope", candidate):
                total += block.core_bits * float(value.item())
                part = gradient[0][:, *block.core.slices(block.seen, LATENT_PX)]
                slopes[:, *block.core.slices(own, LATENT_PX)] = np.float32(block.bits) * part
            return total, slopes

        even = np.zeros((1, 1, *latents.shape[1:]), np.float32)
        even[0, 0] = np.indices(latents.shape[1:]).sum(axis=0) % 2 == 0

        def means(candidate: Latents, by_means: Latents) -> tuple[Latents, Latents]:
            found, gradient = blocks[0].engine.run(
                "means", candidate[None], state[None], even, 1 - even, by_means[None]
            )
            return found[0], gradient[0]

        def encode(candidate: Latents) -> tuple[float, CodedLatents]:
            counter, coded = self._coded(uncoded, candidate)
            return counter.bits, coded

        return Problem(latents, np.exp2(steps / 4), cells, encode, distortion, slope, means)

    def _block(
        self,
        task: Task,
        core: Rectangle,
        window: Rectangle,
        beside: list[npt.NDArray[np.float32]],
    ) -> "_Block":
        """`beside`: prior and planes of the tile's window."""
        tiling = task.original.tiling
        seen = tiling.around(core, _HALO_PX)
        place = seen.slices(window, LATENT_PX)
        fixed = [np.ascontiguousarray(each[:, *place])[None] for each in beside]
        weight = 2 ** (task.q / (2 * Q_UNITS))
        return _Block(
            core,
            seen,
            self._engine(self._num_scales(seen)),
            fixed + self._fixed(task.original, seen),
            weight * _num_pixels(tiling, seen),
            weight * _num_pixels(tiling, core),
        )

    def _num_scales(self, window: Rectangle) -> int:
        return self._distortion.num_scales(min(window.height, window.width))

    def _fixed(self, original: Original, window: Rectangle) -> list[npt.NDArray[np.float32]]:
        """What a distortion graph takes of a picture's window beside latents, prior and planes."""
        tiling = original.tiling
        picture = _planes(tiling.pixels(original.picture, window))
        inside = window.cut(tiling.picture)
        shares = np.zeros((window.height, window.width), np.float32)
        rows, columns = inside.slices(window)
        shares[rows, columns] = 1 / (inside.height * inside.width)
        if original.weights is not None:
            weights = original.weights[cells_in(window)]
            shares *= np.repeat(np.repeat(weights, LATENT_PX, axis=0), LATENT_PX, axis=1)
        low = _shrunk(shares, LOW_FREQUENCY_PX) * LOW_FREQUENCY_PX**2
        result: list[npt.NDArray[np.float32]] = [
            picture - np.float32(0.5),
            shares[None, None],
            low[None, None],
        ]
        num_scales = self._num_scales(window)
        if not num_scales:
            return result
        found = self._engine(num_scales).run("reference", picture)
        margin = _WINDOW_MARGIN_PX
        for scale in range(num_scales):
            if scale:
                shares = _shrunk(shares, 2)
            counted = shares[margin : len(shares) - margin, margin : shares.shape[1] - margin]
            total = counted.sum(dtype=np.float64)
            # Of a picture so small that no window lies inside, all count.
            counted = counted / total if total > 0 else np.full_like(counted, 1 / counted.size)
            result += [*found[3 * scale : 3 * scale + 3], counted.astype(np.float32)[None, None]]
        return result

    def _engine(self, num_scales: int) -> Engine:
        """The graphs for so many scales."""
        if num_scales not in self._engines:
            made = Engine(
                replace(self._model, graphs=self._graphs(num_scales)), self._threads, is_large=True
            )
            # No lock, which a forked process would inherit: two threads may both make them.
            self._engines.setdefault(num_scales, made)
        return self._engines[num_scales]

    def _graphs(self, num_scales: int) -> dict[str, bytes]:
        model, groups = self._model, self._coder.mean_network.groups
        try:
            of_latents = model.graphs["synthesis"], self._distortion, num_scales
            distortion = distortion_graph(*of_latents, with_gradient=False)
            slope = distortion_graph(*of_latents)
        except (LookupError, ValueError) as error:
            raise ModelError(
                f"model {model.name}: its synthesis allows no effort: {error}"
            ) from error
        return {
            "means": means_graph(model.arrays, groups),
            "distortion": distortion,
            "slope": slope,
            "loss": loss_graph(self._distortion, num_scales),
            "reference": reference_graph(num_scales),
        }


def _blocks(tile: Rectangle) -> list[Rectangle]:
    """A tile in blocks of nearly equal sides, its corners and theirs on cells."""
    if tile.height * tile.width <= _WHOLE_PIXELS:
        return [tile]

    def ends(start: int, end: int) -> list[tuple[int, int]]:
        num_cells = (end - start) // LATENT_PX
        num_blocks = -(-(end - start) // _BLOCK_PX)
        cuts = [start + LATENT_PX * (num_cells * k // num_blocks) for k in range(num_blocks + 1)]
        return list(pairwise(cuts))

    return [
        Rectangle(top, left, bottom, right)
        for top, bottom in ends(tile.top, tile.bottom)
        for left, right in ends(tile.left, tile.right)
    ]


def _planes(pixels: Pixels) -> npt.NDArray[np.float32]:
    """(H, W, 3) -> (1, 3, H, W) in [0, 1]."""
    return (pixels.transpose(2, 0, 1)[None] / np.float32(255)).astype(np.float32)


def _num_pixels(tiling: Tiling, window: Rectangle) -> int:
    inside = window.cut(tiling.picture)
    return inside.height * inside.width


def _shrunk(plane: npt.NDArray[np.float32], side: int) -> npt.NDArray[np.float32]:
    """(h, w) -> means over squares."""
    height, width = (length // side for length in plane.shape)
    result: npt.NDArray[np.float32] = plane.reshape(height, side, width, side).mean(axis=(1, 3))
    return result
