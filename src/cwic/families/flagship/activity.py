"""How busy a picture is: what decides which step size a quality means for it.

A busy picture hides errors that show in a calm one. At one step size for all, busy pictures take
most of the bits and come out closer to their originals than anyone can see.
"""

import numpy as np
import numpy.typing as npt

from cwic.image import LUMA

_SQUARE_PX = 8

_LUMA = np.array(LUMA, np.float32)

# Variance that counts as calm: noise of four levels is texture, less is not.
_CALM = 16.0

# Rows looked at together, so that memory does not grow with the picture.
_BAND_PX = 64 * _SQUARE_PX


def activity(pixels: npt.NDArray[np.uint8]) -> float:
    """Mean over 8x8 squares of log2(1 + variance of luma / 16).

    Squares that do not fit in at the right and at the bottom are left out; a picture smaller than a
    square is one of its own size.

    Args:
        pixels: (H, W, 3).

    Returns:
        0 for an even picture, about 3 for a photograph, at most 11.
    """
    height, width = pixels.shape[:2]
    rows, columns = min(_SQUARE_PX, height), min(_SQUARE_PX, width)
    total, count = 0.0, 0
    for top in range(0, height - rows + 1, _BAND_PX):
        band = pixels[top : top + _BAND_PX, : width // columns * columns]
        luma = band[: len(band) // rows * rows] @ _LUMA
        squares = luma.reshape(-1, rows, width // columns, columns)
        variance = squares.var(axis=(1, 3), dtype=np.float64)
        total += float(np.log2(1 + variance / _CALM).sum())
        count += variance.size
    return total / count
