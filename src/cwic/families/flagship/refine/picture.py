"""A picture refined tile by tile: what each sees of its neighbours, and what may be lost where.

A tile is refined beside the latents of its neighbours, those before it as they were refined, the
others as they would be coded without: so what its latents do beyond its borders counts. Of decoded
tiles no more are in memory than two rows and three.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cwic.coding.arithmetic_coder import BitCounter
from cwic.coding.blas_threads import one_blas_thread
from cwic.engine import Engine
from cwic.families.distortion import distortion_of
from cwic.families.distortion_engines import DistortionEngines
from cwic.families.flagship.coder import CodedLatents, LatentCoder
from cwic.families.flagship.grid import LATENT_PX, Q_UNITS, Cells, Checkerboard
from cwic.families.flagship.latents import SideInformation, condition
from cwic.families.flagship.refine.descent import RECIPES, Latents, Problem, descend
from cwic.families.flagship.refine.gradients import means_graph
from cwic.families.flagship.tiles import Inputs, gathered
from cwic.families.original import HALO_PX, Original, blocks_of
from cwic.families.protocol import Pixels
from cwic.families.tiling import Rectangle
from cwic.model_file import ModelFile


class Uncoded(NamedTuple):
    """A tile before its latents are quantized."""

    latents: Latents  # (M, h, w), padded
    side: SideInformation
    cells: Cells


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
    fixed: list[npt.NDArray[np.float32]]  # what the graph takes of the coder beside latents
    # What it takes of the original: kept of a tile of one block alone, since it takes as much
    # memory as the rest of a tile.
    compared: Callable[[], list[npt.NDArray[np.float32]]]
    bits: float  # of a distortion of 1 in all that is seen
    core_bits: float  # likewise in the core


class Refiner:
    """The graphs of one model; safe to share among threads."""

    def __init__(self, model: ModelFile, coder: LatentCoder, threads: int | None):
        """`threads`: processor threads of one call; None: all cores."""
        self._coder, self._threads = coder, threads
        groups = coder.mean_network.groups
        self._engines = DistortionEngines(
            model,
            distortion_of(model),
            threads,
            lambda: {"means": means_graph(model.arrays, groups)},
        )
        compares_structure = self._engines.distortion.num_scales(1024) > 0
        self._recipe = RECIPES["structure" if compares_structure else "squares"]

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
            keeps_latents: whether the result has what another refinement may begin with, 6 bytes a
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
            window = tiling.around(own, HALO_PX)
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
        blocks = [core for tile in tiling.tiles for core in blocks_of(tiling.around(tile))]
        return self._engines.loss(original, shown, blocks)

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
        blocks = [self._block(task, core, window, beside) for core in blocks_of(own)]
        if len(blocks) == 1:
            blocks = [blocks[0]._replace(compared=cache(blocks[0].compared))]

        def run(graph: str, candidate: Latents) -> Iterator[tuple[_Block, list[Latents]]]:
            decoded[:, rows, columns] = candidate[inside]
            for block in blocks:
                seen = decoded[:, *block.seen.slices(window, LATENT_PX)]
                yield block, block.engine.run(graph, seen[None], *block.fixed, *block.compared())

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
    ) -> _Block:
        """`beside`: prior and planes of the tile's window."""
        seen = task.original.tiling.around(core, HALO_PX)
        place = seen.slices(window, LATENT_PX)
        fixed = [np.ascontiguousarray(each[:, *place])[None] for each in beside]
        weight = 2 ** (task.q / (2 * Q_UNITS))
        engine = self._engines.of(seen)
        original = task.original
        return _Block(
            core,
            seen,
            engine,
            fixed,
            partial(original.compared, engine, seen, self._engines.distortion),
            weight * original.num_pixels(seen),
            weight * original.num_pixels(core),
        )
