"""Levels of the importance map: what they are, in which order they are coded, and by which tables.

A level is an integer number of quarter octaves of the step size. Cells of equal x + 2 y are coded
at once, each by a table that its left and upper neighbours choose.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cwic.coding.arithmetic_coder import BitCoder
from cwic.coding.symbol_tables import FREQUENCY_TOTAL, SymbolTables
from cwic.errors import BitstreamError
from cwic.families.flagship.grid import Q_UNITS, Cells

MAX_LEVEL = 8  # of both signs
LEVEL_CONTEXTS = (1, 2, 3, 5, 8)  # roughness at which the next context of a level begins
LEVEL_FRACTIONS = 4  # a level's prediction is a multiple of 1 / LEVEL_FRACTIONS
MAX_LEVEL_RESIDUAL = 20  # of a level from its prediction rounded down
LEVEL_TABLES_SHAPE = (
    (len(LEVEL_CONTEXTS) + 1) * LEVEL_FRACTIONS,
    2 * MAX_LEVEL_RESIDUAL + 1,
)

# Context of a level by the roughness of its neighbourhood.
_LEVEL_CONTEXT = np.searchsorted(
    LEVEL_CONTEXTS, np.arange(6 * MAX_LEVEL + 1), side="right"
).tolist()


def centred_levels(
    importance: npt.NDArray[np.float32], q: int
) -> tuple[npt.NDArray[np.int64], int]:
    """Integer levels of an importance map, and the q that a header states with them.

    Rounding leaves the levels a mean of their own; the header takes it back, so that the mean of
    q + 64 s is what was asked for, whatever the map.

    Args:
        importance: (h, w) in quarter octaves, any mean.
        q: that was asked for, in 1/64 of a quarter octave.

    Returns:
        (h, w) levels in -8..8, and q of the header.
    """
    centred = importance - importance.mean(dtype=np.float64)
    level = np.floor(np.clip(centred, -MAX_LEVEL, MAX_LEVEL) + 0.5).astype(np.int64)
    return level, q - int(np.floor(level.mean() * Q_UNITS + 0.5))


def visit_levels(
    coder: BitCoder, tables: SymbolTables, level: npt.NDArray[np.int64], cells: Cells
) -> None:
    """Code a map, or read it.

    Args:
        coder: what encodes, counts or decodes.
        tables: of `LEVEL_TABLES_SHAPE`.
        level: (padded_height, padded_width) in -8..8. An encoder's is coded; a decoder's is filled
            in. Cells beyond the picture take the level of the nearest cell inside.
        cells: of the picture.

    Raises:
        BitstreamError: a decoder finds a level that no encoder writes.
    """
    is_rough = np.array([level.any()], np.uint8)
    inner = level[: cells.height, : cells.width]
    if coder.code(is_rough, np.array([FREQUENCY_TOTAL // 2]))[0]:
        _visit_rough(coder, tables, inner)
    bottom, right = np.array(level.shape) - inner.shape
    level[:] = np.pad(inner, ((0, bottom), (0, right)), mode="edge")


def _visit_rough(coder: BitCoder, tables: SymbolTables, level: npt.NDArray[np.int64]) -> None:
    """All cells of equal x + 2 y at once: left, above and above right are known by then."""
    order, starts, neighbours = _order(*level.shape)
    values = [0] * (level.size + 1)  # the last one stands for a neighbour that there is not
    to_code = level.reshape(-1)[order]
    # A step has a few cells: numbers of Python are quicker than arrays.
    for start, end in pairwise(starts):
        index, shifts = [], []
        for west_at, north_at, north_west_at, north_east_at in neighbours[start:end]:
            west, north = values[west_at], values[north_at]
            north_west, north_east = values[north_west_at], values[north_east_at]
            predicted = 2 * (west + north) + north_east - north_west
            roughness = abs(west - north_west) + abs(north - north_west) + abs(north - north_east)
            index.append(_LEVEL_CONTEXT[roughness] * LEVEL_FRACTIONS + (predicted & 3))
            shifts.append((predicted >> 2) - MAX_LEVEL_RESIDUAL)
        shift = np.array(shifts)
        coded = shift + coder.code_symbols(to_code[start:end] - shift, tables, np.array(index))
        largest = int(np.abs(coded).max())
        if largest > MAX_LEVEL:
            raise BitstreamError(
                f"expected importance levels of at most {MAX_LEVEL}, found {largest}"
            )
        for place, value in zip(order[start:end], coded.tolist(), strict=True):
            values[place] = value
    level[:] = np.reshape(values[:-1], level.shape)


class _Order(NamedTuple):
    """In which order levels are coded, and what is known of each."""

    order: list[int]  # (cells,) positions in the flattened map
    starts: list[int]  # of each step in `order`, and the end
    neighbours: list[list[int]]  # (cells, 4) positions of W, N, NW and NE, in that order


def _order(height: int, width: int) -> _Order:
    """Cells by x + 2 y, then y, and their neighbours.

    A missing neighbour is replaced by the nearest known one: above the first row that is W, left of
    the first column N, right of the last one N. The first cell of all knows nothing: its neighbours
    have position height * width.
    """
    y, x = np.divmod(np.arange(height * width), width)
    step = x + 2 * y
    order = np.argsort(step, kind="stable")
    starts = np.flatnonzero(np.diff(step[order], prepend=-1, append=-1)).tolist()
    y, x = y[order], x[order]
    west, north = order - 1, order - width
    north_west, north_east = north - 1, north + 1
    west = np.where(x == 0, north, west)
    north_west = np.where(x == 0, north, north_west)
    north_east = np.where(x == width - 1, north, north_east)
    west[0] = height * width
    north, north_west, north_east = (
        np.where(y == 0, west, there) for there in (north, north_west, north_east)
    )
    around = np.stack([west, north, north_west, north_east], axis=1)
    return _Order(order.tolist(), starts, around.tolist())
