"""Tiles of a large picture: where they lie, and what a transform must see around them.

Tiles partition the picture; nothing is coded twice. A transform of a tile sees a window, the tile
and a halo of its real neighbours, so that no seam shows.
"""

import operator
from typing import NamedTuple, SupportsIndex

import numpy as np
import numpy.typing as npt

from cwic.defaults import REDUCTIONS
from cwic.errors import TargetError


class Rectangle(NamedTuple):
    """Rows top..bottom - 1 and columns left..right - 1, in pixels."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Columns."""
        return self.right - self.left

    def cut(self, other: "Rectangle") -> "Rectangle":
        """What the two have in common."""
        return Rectangle(
            max(self.top, other.top),
            max(self.left, other.left),
            min(self.bottom, other.bottom),
            min(self.right, other.right),
        )

    def shrunk(self, unit: int) -> "Rectangle":
        """The squares of so many pixels a side, counted from the picture's corner, it meets."""
        return Rectangle(
            self.top // unit, self.left // unit, -(-self.bottom // unit), -(-self.right // unit)
        )

    def slices(self, origin: "Rectangle", unit: int = 1) -> tuple[slice, slice]:
        """Where it lies in an array that begins at the corner of `origin`, a rectangle around it.

        `unit`: pixels of an element's side; divides all corners.
        """
        return (
            slice((self.top - origin.top) // unit, (self.bottom - origin.top) // unit),
            slice((self.left - origin.left) // unit, (self.right - origin.left) // unit),
        )


class Tiling:
    """A picture in tiles, in raster order."""

    def __init__(self, height: int, width: int, tile_px: int | None, multiple: int):
        """Sizes in pixels; `tile_px` None is one tile, else a multiple of `multiple`."""
        self.picture = Rectangle(0, 0, height, width)  # all of it
        self.tile_px = tile_px
        self._multiple = multiple
        self._side_px = tile_px = tile_px or max(height, width)
        self.tiles = [
            Rectangle(top, left, min(top + tile_px, height), min(left + tile_px, width))
            for top in range(0, height, tile_px)
            for left in range(0, width, tile_px)
        ]
        self.columns = -(-width // tile_px)

    def meeting(self, part: Rectangle) -> list[int]:
        """Numbers of the tiles that have a pixel of a part, its padding included, ascending."""
        side, rows = self._side_px, len(self.tiles) // self.columns
        return [
            row * self.columns + column
            for row in range(part.top // side, min(-(-part.bottom // side), rows))
            for column in range(part.left // side, min(-(-part.right // side), self.columns))
        ]

    def around(self, part: Rectangle, halo_px: int = 0) -> Rectangle:
        """A part and its halo within the padded picture, its corners on multiples."""
        m = self._multiple
        bottom, right = (-(-side // m) * m for side in (self.picture.bottom, self.picture.right))
        return Rectangle(
            max((part.top - halo_px) // m * m, 0),
            max((part.left - halo_px) // m * m, 0),
            min(-(-(part.bottom + halo_px) // m) * m, bottom),
            min(-(-(part.right + halo_px) // m) * m, right),
        )

    def pixels(self, picture: npt.NDArray[np.uint8], part: Rectangle) -> npt.NDArray[np.uint8]:
        """A part of the padded picture, corners on multiples, as of `around`.

        Of `picture`, (H, W, 3), the last row and column are repeated beyond it.
        """
        inside = part.cut(self.picture)
        rows, columns = inside.slices(self.picture)
        missing = ((0, part.height - inside.height), (0, part.width - inside.width), (0, 0))
        found = picture[rows, columns]
        return np.pad(found, missing, mode="edge") if any(map(any, missing)) else found


def part_of(region: tuple[int, int, int, int] | None, picture: Rectangle, reduce: int) -> Rectangle:
    """A part of a picture, out to whole pixels of the reduced one.

    `region` is (x, y, width, height) in pixels; None is all.

    Raises:
        TargetError: the region is not within the picture.
        ValueError: `reduce` is none of `REDUCTIONS`, or the region is not four whole numbers.
    """
    if reduce not in REDUCTIONS or not isinstance(reduce, SupportsIndex):
        raise ValueError(f"reduce: expected one of {REDUCTIONS}, found {reduce!r}")
    if region is None:
        return picture
    try:
        x, y, width, height = map(operator.index, region)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"region: expected x, y, width, height in whole pixels, found {region!r}"
        ) from error
    part = Rectangle(y, x, y + height, x + width)
    if width < 1 or height < 1 or part.cut(picture) != part:
        raise TargetError(
            f"region: expected x, y, width, height within {picture.width}x{picture.height}, "
            f"found {region}"
        )
    return Rectangle(*(side * reduce for side in part.shrunk(reduce))).cut(picture)
