"""The grid of a picture's latents: its cells, their two colours, and the units of both and of q."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Halves = tuple[Array, Array]  # (channels, cells of even x + y), (channels, cells of odd x + y)
Indices = npt.NDArray[np.intp] | slice

LATENT_PX = 16  # pixels of a latent's side
HYPER_LATENTS = 4  # latents of a hyper-latent's side
HYPER_PX = LATENT_PX * HYPER_LATENTS
PREVIEW_PX = 8  # pixels of the side of a preview's pixel

Q_UNITS = 64  # q of a header is an integer in 1 / Q_UNITS of a quarter octave of the step size


class Cells(NamedTuple):
    """Latent positions of a picture."""

    height: int  # rows that have pixels of the picture
    width: int
    padded_height: int  # of the grid, a multiple of HYPER_LATENTS
    padded_width: int


def cells_of(height_px: int, width_px: int) -> Cells:
    """The cells of a picture of so many pixels."""
    height, width = -(-height_px // LATENT_PX), -(-width_px // LATENT_PX)
    return Cells(
        height,
        width,
        -(-height // HYPER_LATENTS) * HYPER_LATENTS,
        -(-width // HYPER_LATENTS) * HYPER_LATENTS,
    )


class Checkerboard:
    """Where the two halves of a grid lie, and what surrounds each cell.

    The width is even, so every row has as many cells of one colour as of the other: a half is
    a grid of half the width, whose rows begin at one of the first two cells in turn.

    Attributes:
        height: rows of the grid, padding included.
        width: its columns.
        cells: for each colour its cells as positions in the flattened grid, ascending.
        inside: for each colour which of its cells have pixels of the picture.
    """

    def __init__(self, cells: Cells):
        """`cells` of the picture, `padded_width` even."""
        height, width = cells.padded_height, cells.padded_width
        assert width % 2 == 0
        self.height, self.width = height, width
        y, x = np.divmod(np.arange(height * width), width)
        colour = (x + y) & 1
        self.cells = (np.flatnonzero(colour == 0), np.flatnonzero(colour == 1))
        self.inside: tuple[Indices, Indices] = (slice(None), slice(None))
        if (height, width) != (cells.height, cells.width):
            has_pixels = (y < cells.height) & (x < cells.width)
            even, odd = (np.flatnonzero(has_pixels[own]) for own in self.cells)
            self.inside = (even, odd)

    def padded(self, values: Array) -> Array:
        """(C, cells of a colour) -> (C, height + 2, width / 2 + 2), zeros around."""
        result = np.zeros((len(values), self.height + 2, self.width // 2 + 2), values.dtype)
        result[:, 1:-1, 1:-1] = values.reshape(len(values), self.height, self.width // 2)
        return result

    def columns(self, padded: Array, colour: int, to: int) -> Array:
        """The 3x3 neighbourhoods of the cells of one colour, as far as they have another.

        Args:
            padded: of (C, cells of `colour`), which are zero elsewhere on the grid.
            colour: of the values.
            to: colour of the cells whose neighbourhoods are asked for.

        Returns:
            (C * taps, cells of `to`), the taps those of :func:`taps`.
        """
        channels, half_width = len(padded), self.width // 2
        num_taps = len(taps(colour, to))
        result = np.empty((channels, num_taps, self.height, half_width), padded.dtype)
        for place, row, rows, columns in self._neighbours(colour, to):
            result[:, place, row::2] = padded[:, rows, columns]
        return result.reshape(-1, len(self.cells[to]))

    def rows(self, padded: Array, colour: int, to: int) -> Array:
        """As :meth:`columns`, with the channels of a cell side by side.

        Args:
            padded: (height + 2, width / 2 + 2, C), as :meth:`padded` but for the order.
            colour: of the values.
            to: colour of the cells whose neighbourhoods are asked for.

        Returns:
            (cells of `to`, taps * C)
        """
        channels, half_width = padded.shape[2], self.width // 2
        num_taps = len(taps(colour, to))
        result = np.empty((self.height, half_width, num_taps, channels), padded.dtype)
        for place, row, rows, columns in self._neighbours(colour, to):
            result[row::2, :, place] = padded[rows, columns]
        return result.reshape(len(self.cells[to]), -1)

    def _neighbours(self, colour: int, to: int) -> Iterator[tuple[int, int, slice, slice]]:
        """Place of a tap, first of every other row, and rows and columns in a padded half."""
        for place, tap in enumerate(taps(colour, to)):
            down, right = tap // 3 - 1, tap % 3 - 1
            for row in (0, 1):
                # Cell i of a row lies at x = 2 i + first.
                first, first_there = (row + to) % 2, (row + down + colour) % 2
                left = 1 + (first + right - first_there) // 2
                rows = slice(1 + down + row, 1 + down + self.height, 2)
                yield place, row, rows, slice(left, left + self.width // 2)

    def halves(self, grid: Array) -> Halves:
        """(C, height, width) in two halves."""
        shape = (len(grid), self.height, self.width // 2)
        halves = (np.empty(shape, grid.dtype), np.empty(shape, grid.dtype))
        for colour, half in enumerate(halves):
            for row in (0, 1):
                half[:, row::2] = grid[:, row::2, (row + colour) % 2 :: 2]
        return halves[0].reshape(len(grid), -1), halves[1].reshape(len(grid), -1)

    def whole(self, halves: Halves) -> Array:
        """The inverse of :meth:`halves`."""
        grid = np.empty((len(halves[0]), self.height, self.width), halves[0].dtype)
        for colour, half in enumerate(halves):
            split = half.reshape(len(grid), self.height, -1)
            for row in (0, 1):
                grid[:, row::2, (row + colour) % 2 :: 2] = split[:, row::2]
        return grid


def taps(colour: int, to: int) -> tuple[int, ...]:
    """Taps of a 3x3 kernel, row by row, that reach cells of `colour` from those of colour `to`."""
    return (0, 2, 4, 6, 8) if colour == to else (1, 3, 5, 7)
