"""How much worse a decoded picture is at its border than inside; needs no torch."""

import math

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]  # (H, W, 3) R, G, B

_BORDER_PX = 16
# Added to the mean squared error inside: next to nothing there must not make a ratio large.
_INSIDE_MSE = 0.5


def edge_ratio(reference: Pixels, decoded: Pixels) -> float:
    """Error of the worst of the four outermost lines over that of what lies 16 px inside.

    Both are mean squared errors, the one inside plus 0.5. About 1 where a border is like the rest;
    from about 4 on it shows as a line; nan where nothing lies inside, with a side of 32 px or less.
    """
    squares = _squares(reference, decoded)
    lines = (squares[0], squares[-1], squares[:, 0], squares[:, -1])
    return max(float(line.mean()) for line in lines) / _inside(squares)


def corner_ratio(reference: Pixels, decoded: Pixels) -> float:
    """The same of the worst of the four corners of 16x16 px."""
    squares = _squares(reference, decoded)
    first, last = slice(None, _BORDER_PX), slice(-_BORDER_PX, None)
    corners = (squares[rows, columns] for rows in (first, last) for columns in (first, last))
    return max(float(corner.mean()) for corner in corners) / _inside(squares)


def _squares(reference: Pixels, decoded: Pixels) -> npt.NDArray[np.float64]:
    """(H, W, 3) squared errors."""
    if reference.shape != decoded.shape:
        raise ValueError(f"expected a picture of shape {reference.shape}, found {decoded.shape}")
    return np.square(reference.astype(np.float64) - decoded)


def _inside(squares: npt.NDArray[np.float64]) -> float:
    inside = squares[_BORDER_PX:-_BORDER_PX, _BORDER_PX:-_BORDER_PX]
    return float(inside.mean()) + _INSIDE_MSE if inside.size else math.nan
