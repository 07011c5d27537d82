"""Peak signal-to-noise ratio: the one definition, for searches, messages and measurements."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

_PEAK = 255.0
# Differences take 8 bytes a sample; so many rows' worth of samples are in memory at a time.
_BAND_SAMPLES = 2**18


def psnr_db(original: npt.NDArray[Any], shown: npt.NDArray[Any]) -> float:
    """PSNR in dB over all samples together; infinite for equal pictures.

    Both are (H, W) or (H, W, 3) in [0, 255]. Exact for integers up to the rounding of the result.

    Raises:
        ValueError: the shapes differ.
    """
    if original.shape != shown.shape:
        raise ValueError(f"expected a picture of shape {original.shape}, found {shown.shape}")
    rows = max(1, _BAND_SAMPLES * len(original) // original.size)
    squares = 0.0
    for start in range(0, len(original), rows):
        band = slice(start, start + rows)
        squares += float(np.square(np.subtract(original[band], shown[band], dtype=float)).sum())
    return 10 * math.log10(_PEAK**2 * original.size / squares) if squares else math.inf
