"""A picture that is refined, block by block, as graphs of a distortion take it.

The distortion of a large picture is taken in blocks, each with what is seen around it: graphs take
hundreds of bytes a pixel while they run.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cwic.engine import Engine
from cwic.families.distortion import LOW_FREQUENCY_PX, Distortion
from cwic.families.protocol import Emphasis, Pixels
from cwic.families.tiling import Rectangle, Tiling

# What counts around a block, and is looked at: less than a synthesis may see, since what is coded
# fades with the distance.
HALO_PX = 64

# A rectangle of more pixels than `_WHOLE_PIXELS` is divided into blocks of at most so many pixels a
# side: graphs of the visual tune take 900 bytes a pixel while they run.
_WHOLE_PIXELS = 768 * 768
_BLOCK_PX = 384

# Corners of blocks are multiples, which those of the cells of all families divide.
_BLOCK_MULTIPLE_PX = 16

# How much or little what a mask makes of a place may count.
_MASK_WEIGHTS = (1 / 8, 8.0)

# Half of the sum that a window of SSIM needs to look at both its sides.
_WINDOW_MARGIN_PX = 5


class Original(NamedTuple):
    """A picture that is coded, and where it counts."""

    picture: Pixels
    tiling: Tiling
    weights: npt.NDArray[np.float32] | None  # (rows, columns) of cells, of a mask; None: all 1
    cell_px: int  # side of a cell

    def num_pixels(self, window: Rectangle) -> int:
        """Of a window, those of the picture alone."""
        inside = window.cut(self.tiling.picture)
        return inside.height * inside.width

    def compared(
        self, engine: Engine, window: Rectangle, distortion: Distortion
    ) -> list[npt.NDArray[np.float32]]:
        """What a distortion graph takes of a window beside what the synthesis takes.

        Args:
            engine: has the graph `reference`.
            window: corners on cells.
            distortion: of the graph.
        """
        tiling = self.tiling
        picture = planes(tiling.pixels(self.picture, window))
        inside = window.cut(tiling.picture)
        shares = np.zeros((window.height, window.width), np.float32)
        rows, columns = inside.slices(window)
        shares[rows, columns] = 1 / (inside.height * inside.width)
        if self.weights is not None:
            cell_px = self.cell_px
            weights = self.weights[
                window.top // cell_px : -(-window.bottom // cell_px),
                window.left // cell_px : -(-window.right // cell_px),
            ]
            shares *= np.repeat(np.repeat(weights, cell_px, axis=0), cell_px, axis=1)
        low = _shrunk(shares, LOW_FREQUENCY_PX) * LOW_FREQUENCY_PX**2
        result: list[npt.NDArray[np.float32]] = [
            picture - np.float32(0.5),
            shares[None, None],
            low[None, None],
        ]
        num_scales = distortion.num_scales(min(window.height, window.width))
        if not num_scales:
            return result
        found = engine.run("reference", picture)
        each = len(found) // num_scales  # all scales have as many
        margin = _WINDOW_MARGIN_PX
        for scale in range(num_scales):
            if scale:
                shares = _shrunk(shares, 2)
            counted = shares[margin : len(shares) - margin, margin : shares.shape[1] - margin]
            total = counted.sum(dtype=np.float64)
            # Of a picture so small that no window lies inside, all count.
            counted = counted / total if total > 0 else np.full_like(counted, 1 / counted.size)
            of_scale = found[each * scale : each * (scale + 1)]
            result += [*of_scale, counted.astype(np.float32)[None, None]]
        return result


def blocks_of(tile: Rectangle) -> list[Rectangle]:
    """A tile, its corners on cells, in blocks of nearly equal sides."""
    if tile.height * tile.width <= _WHOLE_PIXELS:
        return [tile]

    def ends(start: int, end: int) -> list[tuple[int, int]]:
        num_cells = (end - start) // _BLOCK_MULTIPLE_PX
        num_blocks = -(-(end - start) // _BLOCK_PX)
        inner = [_BLOCK_MULTIPLE_PX * (num_cells * k // num_blocks) for k in range(num_blocks)]
        return list(pairwise([*(start + each for each in inner), end]))

    return [
        Rectangle(top, left, bottom, right)
        for top, bottom in ends(tile.top, tile.bottom)
        for left, right in ends(tile.left, tile.right)
    ]


def weights_of(emphasis: Emphasis | None, octaves: float) -> npt.NDArray[np.float32] | None:
    """Of each cell of an original; `octaves` by which it counts for more at a contrast of 1."""
    if emphasis is None:
        return None
    weights: npt.NDArray[np.float32] = np.exp2(octaves * emphasis).clip(*_MASK_WEIGHTS)
    return weights.astype(np.float32)


def planes(pixels: Pixels) -> npt.NDArray[np.float32]:
    """(H, W, 3) -> (1, 3, H, W) in [0, 1]."""
    return (pixels.transpose(2, 0, 1)[None] / np.float32(255)).astype(np.float32)


def _shrunk(plane: npt.NDArray[np.float32], side: int) -> npt.NDArray[np.float32]:
    """(h, w) -> means over squares; what is left at the edges is left out."""
    height, width = (length // side for length in plane.shape)
    squares = plane[: height * side, : width * side].reshape(height, side, width, side)
    result: npt.NDArray[np.float32] = squares.mean(axis=(1, 3))
    return result
