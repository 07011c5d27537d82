"""SSIMULACRA2 of two pictures as arrays, by the package of that name; needs no torch.

The package (numpy, scipy) reads files and leaves small pictures to its caller. It is not libjxl's
tool at two borders: both pad a picture with black at the left and at the right, the tool does so at
the top and at the bottom too, where the package mirrors it. Black hides errors: those of the first
and the last columns count about a third of those of the first and the last rows.
"""

import io
import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from cwic.errors import NotBuiltError

Pixels = npt.NDArray[np.uint8]  # (H, W, 3) R, G, B

# Six scales of at least 8 px, each half of the last, rounded up. With fewer, the package multiplies
# what it measured by weights of something else: 64x64 pixels as JPEG of quality 90 have 16.
_SIX_SCALES_PX = 225


def ssimulacra2(reference: Pixels, decoded: Pixels) -> float:
    """SSIMULACRA2 (Sneyers 2022, weights of 2023) of a decoded picture; both in sRGB.

    100 for equal pictures, about 90 where differences are hard to see, 70 for high, 50 for medium
    and 30 for low quality, below 0 for very bad ones; nan with a side under 225 px.

    Raises:
        NotBuiltError: the package is not installed.
    """
    if reference.shape != decoded.shape:
        raise ValueError(f"expected a picture of shape {reference.shape}, found {decoded.shape}")
    if min(reference.shape[:2]) < _SIX_SCALES_PX:
        return math.nan
    try:
        from ssimulacra2 import compute_ssimulacra2
    except ImportError as error:
        raise NotBuiltError(
            "SSIMULACRA2 needs ssimulacra2, found none: pip install 'cwic[evaluate]'"
        ) from error
    return float(compute_ssimulacra2(_file(reference), _file(decoded)))


def _file(pixels: Pixels) -> io.BytesIO:
    """A picture in a form that takes no time to write and read."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PPM")
    return file
