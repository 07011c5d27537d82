"""SSIM of two pictures as arrays, where torch is not installed: what the comparison page says.

The same numbers as :mod:`cwic.evaluation.structural_similarity`, which is differentiable and much
faster for many pictures; it takes window and constants from here, and a test compares the two.
"""

import math

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]  # (H, W, 3) R, G, B
Plane = npt.NDArray[np.float64]

WINDOW_PX = 11
SIGMA_PX = 1.5
C1, C2 = 0.01**2, 0.03**2  # the range of a pixel is 1
# Rows of the result that are computed at a time, so that a large picture takes little memory.
_BAND_PX = 128


def ssim(reference: Pixels, decoded: Pixels) -> float:
    """Structural similarity (Wang et al. 2004) of two pictures, mean over places and channels.

    At most 1; nan with a side under 11 px.
    """
    if reference.shape != decoded.shape:
        raise ValueError(f"expected a picture of shape {reference.shape}, found {decoded.shape}")
    rows, columns = (side - WINDOW_PX + 1 for side in reference.shape[:2])
    if min(rows, columns) < 1:
        return math.nan
    total = 0.0
    for start in range(0, rows, _BAND_PX):
        band = slice(start, min(start + _BAND_PX, rows) + WINDOW_PX - 1)
        for channel in range(3):
            x, y = (pixels[band, :, channel] / 255 for pixels in (reference, decoded))
            total += float(_similarity(x, y).sum())
    return total / float(3 * rows * columns)


def _similarity(x: Plane, y: Plane) -> Plane:
    """SSIM at each place where the window lies within (h, w) planes in [0, 1]."""
    mean_x, mean_y = _windowed(x), _windowed(y)
    square_x, square_y, product = mean_x**2, mean_y**2, mean_x * mean_y
    variances = _windowed(x * x) - square_x + _windowed(y * y) - square_y
    covariance = _windowed(x * y) - product
    brightness: Plane = (2 * product + C1) / (square_x + square_y + C1)
    return brightness * (2 * covariance + C2) / (variances + C2)


def _windowed(x: Plane) -> Plane:
    """Means of (h, w) under the window, (h - 10, w - 10)."""
    distance = np.arange(WINDOW_PX) - WINDOW_PX // 2
    weights = np.exp(-(distance**2) / (2 * SIGMA_PX**2))
    weights /= weights.sum()
    height, width = (side - WINDOW_PX + 1 for side in x.shape)
    down = sum(weight * x[k : k + height] for k, weight in enumerate(weights))
    across: Plane = sum(weight * down[:, k : k + width] for k, weight in enumerate(weights))
    return across
