"""The transforms of a model over tiles of a picture: what each sees, and which run side by side.

A transform of a tile sees a window, the tile and a halo of its real neighbours, so that no seam
shows. Tiles of one picture are worked on side by side, each by one thread; a picture of one tile
has all threads for itself. A tile is shown as soon as it and its neighbours are decoded, beside the
decoding of those behind it.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Set
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cwic.engine import Engine
from cwic.families.flagship.coder import CodedLatents
from cwic.families.flagship.grid import HYPER_PX, LATENT_PX, PREVIEW_PX
from cwic.families.flagship.latents import condition
from cwic.families.flagship.step_network import MAX_HYPER
from cwic.families.protocol import Pixels, shrunk
from cwic.families.tiling import Rectangle, Tiling
from cwic.model_file import ModelFile

# What the transforms see of a tile's neighbours; their receptive fields reach 124 pixels, that of
# the light synthesis 76.
HALO_PX = 128
_FAST_HALO_PX = 80

# Picture -> latents and importance. Of an analysis that sees q the first graph makes, at 1/16 and
# whatever the rate, what the second one takes beside q.
ANALYSIS, ANALYSIS_AT_Q = "analysis", "analysis_at_q"

# What the synthesis takes of a tile: latents, prior and planes, each (channels, rows, columns).
Inputs = tuple[npt.NDArray[np.float32], ...]


class View(NamedTuple):
    """A graph that makes a picture of latents."""

    graph: str
    unit_px: int  # pixels of the coded picture that one of its pixels stands for, a side
    halo_px: int  # what it sees of a tile's neighbours


FULL = View("synthesis", 1, HALO_PX)
FAST = View("fast", 1, _FAST_HALO_PX)
PREVIEW = View("preview", PREVIEW_PX, HYPER_PX)


def cells_in(part: Rectangle) -> tuple[slice, slice]:
    """Rows and columns of the cells of a tile in a picture's map."""
    return (
        slice(part.top // LATENT_PX, -(-part.bottom // LATENT_PX)),
        slice(part.left // LATENT_PX, -(-part.right // LATENT_PX)),
    )


class Analyzed(NamedTuple):
    """A tile's own cells behind the analysis."""

    latents: npt.NDArray[np.float32]  # (M, h, w)
    importance: npt.NDArray[np.float32]  # (h, w)


def _window(tiling: Tiling, number: int) -> Rectangle:
    """What the analysis sees of a tile."""
    return tiling.around(tiling.around(tiling.tiles[number]), HALO_PX)


def _own(tiling: Tiling, number: int, found: list[npt.NDArray[Any]]) -> Analyzed:
    """Of latents (1, M, h, w) and importance (1, 1, h, w) of a window what lies in its tile."""
    latents, importance = found
    core = tiling.around(tiling.tiles[number])
    rows, columns = core.slices(_window(tiling, number), LATENT_PX)
    # A view of a part would keep the halo in memory.
    return Analyzed(
        np.ascontiguousarray(latents[0][:, rows, columns]), importance[0, 0, rows, columns]
    )


class TileTransforms:
    """The transforms of one model; safe to share among threads."""

    def __init__(self, model: ModelFile, threads: int | None = None):
        """`threads`: processor threads of one call; None: all cores."""
        self._threads = threads or os.cpu_count() or 1
        self._engine_of_one = Engine(model, threads)
        self._engine_of_several = Engine(model, 1)

    def has(self, view: View) -> bool:
        """Whether the model has the graph of a view."""
        return self._engine_of_one.has(view.graph)

    def prepare(self, tiling: Tiling, view: View) -> None:
        """Begin to load the graph of a view, and go on meanwhile."""
        self._engine(tiling).prepare(view.graph)

    def release(self) -> None:
        """Give back what the graphs keep in memory for their next run, hundreds of megabytes."""
        self._engine_of_one.release()
        self._engine_of_several.release()

    def two_threads(self, tiling: Tiling) -> bool:
        """Whether coding one tile may take two threads: there is no other to work on."""
        return len(tiling.tiles) == 1 and self._threads > 1

    @contextmanager
    def pool(self, tiling: Tiling) -> Iterator[Callable[..., Iterator[Any]]]:
        """A `map` over numbers of tiles: side by side if there are several."""
        if len(tiling.tiles) == 1:
            yield map
            return
        with ThreadPoolExecutor(self._threads) as executor:
            yield executor.map

    def for_each(self, tiling: Tiling, call: Callable[[int], Any]) -> list[Any]:
        """Results of a call for the number of each tile."""
        with self.pool(tiling) as pool:
            return list(pool(call, range(len(tiling.tiles))))

    def analysis_sees_q(self) -> bool:
        """Whether latents depend on q: then :meth:`front` and :meth:`analyze_at`."""
        return self._engine_of_one.has(ANALYSIS_AT_Q)

    def analyze(self, picture: Pixels, tiling: Tiling, number: int) -> Analyzed:
        """Latents and importance of a tile's own cells."""
        pixels = tiling.pixels(picture, _window(tiling, number))
        return _own(tiling, number, self._engine(tiling).run(ANALYSIS, pixels[None]))

    def front(self, picture: Pixels, tiling: Tiling, number: int) -> npt.NDArray[np.float32]:
        """What of a tile's analysis does not depend on q: (C, h, w) of the tile with its halo."""
        pixels = tiling.pixels(picture, _window(tiling, number))
        (front,) = self._engine(tiling).run(ANALYSIS, pixels[None])
        result: npt.NDArray[np.float32] = front[0]
        return result

    def analyze_at(
        self, q: int, front: npt.NDArray[np.float32], tiling: Tiling, number: int
    ) -> Analyzed:
        """The rest of a tile's analysis: as :meth:`analyze`, at one q."""
        planes = condition(q, np.zeros(front.shape[1:], np.int64))
        found = self._engine(tiling).run(ANALYSIS_AT_Q, front[None], planes[None])
        return _own(tiling, number, found)

    def hyper_latents(
        self,
        tiling: Tiling,
        latents: npt.NDArray[np.float32],
        q: int,
        level: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.int64]:
        """Of a tile's latents (M, h, w) and levels (h, w), padded: (hyper_channels, h / 4, w / 4).

        Integers in -63..63.
        """
        planes = condition(q, level)
        (z,) = self._engine(tiling).run("hyper_analysis", latents[None], planes[None])
        hyper: npt.NDArray[np.int64] = np.floor(np.clip(z[0], -MAX_HYPER, MAX_HYPER) + 0.5).astype(
            np.int64
        )
        return hyper

    def synthesize(
        self,
        coded: Callable[[int], CodedLatents],
        tiling: Tiling,
        part: Rectangle,
        view: View = FULL,
        reduce: int = 1,
    ) -> Pixels:
        """A part of the picture from the latents of its tiles.

        Args:
            coded: the latents of a tile by its number; called once for each that is needed.
            tiling: of the picture.
            part: in pixels, inside the picture; its corners are multiples of `reduce`, or the
                picture's.
            view: what to make of the latents.
            reduce: how many pixels a side of what the view makes become one.
        """
        unit_px = view.unit_px * reduce
        shown = part.shrunk(unit_px)
        result = np.empty((shown.height, shown.width, 3), np.uint8)
        inputs: dict[int, Inputs] = {}

        def window_of(number: int) -> Rectangle:
            return tiling.around(tiling.tiles[number].cut(part), view.halo_px)

        def decode(number: int) -> None:
            latents = coded(number)
            inputs[number] = latents.decoded, latents.prior, latents.planes

        def show(number: int) -> None:
            core, window = tiling.tiles[number].cut(part), window_of(number)
            seen = (array[None] for array in gathered(inputs, tiling, window))
            (pixels,) = self._engine(tiling).run(view.graph, *seen)
            own = core.shrunk(view.unit_px).slices(window.shrunk(view.unit_px))
            result[core.shrunk(unit_px).slices(shown)] = shrunk(pixels[0][own], reduce)

        numbers = tiling.meeting(part)
        needs = {number: frozenset(tiling.meeting(window_of(number))) for number in numbers}
        threads = 1 if len(tiling.tiles) == 1 else self._threads
        in_pipeline(needs, decode, show, inputs.pop, threads)
        return result

    def _engine(self, tiling: Tiling) -> Engine:
        return self._engine_of_one if len(tiling.tiles) == 1 else self._engine_of_several


def in_pipeline(
    needs: Mapping[int, Set[int]],
    decode: Callable[[int], object],
    show: Callable[[int], object],
    forget: Callable[[int], object],
    threads: int,
) -> None:
    """Decode tiles and show tiles, side by side; the first exception of a call ends it.

    What can be shown goes first, so that about two rows of tiles are decoded and not yet forgotten.

    Args:
        needs: by the number of each tile to show, those that must be decoded before.
        decode: called once for each tile that is needed, in the order of their numbers.
        show: called for each tile to show.
        forget: called where all that need a tile are shown; never while others run it.
        threads: how many calls at a time; 1 makes them all in the caller's thread.
    """
    users: dict[int, set[int]] = {}
    for number, needed in needs.items():
        for tile in needed:
            users.setdefault(tile, set()).add(number)
    num_missing = {number: len(needed) for number, needed in needs.items()}
    to_decode = deque(sorted(users))
    to_show: deque[int] = deque()

    def take() -> tuple[Callable[[int], object], int]:
        return (show, to_show.popleft()) if to_show else (decode, to_decode.popleft())

    def done(call: Callable[[int], object], number: int) -> None:
        if call is show:
            for tile in needs[number]:
                users[tile].remove(number)
                if not users[tile]:
                    forget(tile)
            return
        for user in sorted(users[number]):
            num_missing[user] -= 1
            if num_missing[user] == 0:
                to_show.append(user)

    if threads == 1:
        while to_show or to_decode:
            call, number = take()
            call(number)
            done(call, number)
        return
    running: dict[Future[object], tuple[Callable[[int], object], int]] = {}
    with ThreadPoolExecutor(threads) as executor:
        while running or to_show or to_decode:
            while len(running) < threads and (to_show or to_decode):
                call, number = take()
                running[executor.submit(call, number)] = call, number
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                future.result()
                done(*running.pop(future))


def gathered(
    inputs: dict[int, Inputs], tiling: Tiling, window: Rectangle
) -> list[npt.NDArray[np.float32]]:
    """What the synthesis takes of a window, from the tiles that it meets.

    Args:
        inputs: of those tiles by number, on their own cells or with padding behind.
        tiling: of the picture.
        window: in pixels, its corners on cells.
    """
    whole: list[npt.NDArray[np.float32]] = []
    shape = (window.height // LATENT_PX, window.width // LATENT_PX)
    for number in tiling.meeting(window):
        own = tiling.around(tiling.tiles[number])
        both = own.cut(window)
        source, target = both.slices(own, LATENT_PX), both.slices(window, LATENT_PX)
        if not whole:
            whole = [np.empty((len(array), *shape), np.float32) for array in inputs[number]]
        for array, gathered in zip(inputs[number], whole, strict=True):
            gathered[:, *target] = array[:, *source]
    return whole
