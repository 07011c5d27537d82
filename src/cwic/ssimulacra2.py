"""SSIMULACRA2 of two pictures as arrays, by the package of that name.

The package (numpy, scipy) reads files and leaves small pictures to its caller. It is not libjxl's
tool at two borders: both pad a picture with black at the left and at the right, the tool does so at
the top and at the bottom too, where the package mirrors it. Black hides errors: those of the first
and the last columns count about a third of those of the first and the last rows.
"""

import io
import math
from importlib.util import find_spec
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from PIL import Image

from cwic.errors import NotBuiltError, TargetError

Pixels = npt.NDArray[np.uint8]  # (H, W, 3) R, G, B

# Six scales of at least 8 px, each half of the last, rounded up. With fewer, the package multiplies
# what it measured by weights of something else: 64x64 pixels as JPEG of quality 90 have 16.
_SIX_SCALES_PX = 225

# The package takes half a gigabyte and one to two seconds a million pixels.
_MAX_PIXELS_AT_ONCE = 2**22
_PART_PX = 1448  # a side, about: two million pixels

_MISSING = "SSIMULACRA2 needs the package ssimulacra2, found none: pip install 'cwic[evaluate]'"


def ssimulacra2(reference: Pixels, decoded: Pixels) -> float:
    """SSIMULACRA2 (Sneyers 2022, weights of 2023) of a decoded picture.

    Args:
        reference: (H, W, 3), in sRGB.
        decoded: same shape.

    Returns:
        100 for equal pictures, about 90 where differences are hard to see, 70 for high, 50 for
        medium and 30 for low quality, below 0 for very bad ones; nan with a side under 225 px.

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
        raise NotBuiltError(_MISSING) from error
    return float(compute_ssimulacra2(_file(reference), _file(decoded)))


def ssimulacra2_in_parts(reference: Pixels, decoded: Pixels) -> float:
    """The same within bounded memory: of more than 4 million pixels the mean of equal parts.

    The mean is up to about a point higher than SSIMULACRA2 of the whole where parts differ much.

    Args:
        reference: (H, W, 3), in sRGB.
        decoded: same shape.

    Raises:
        NotBuiltError: the package is not installed.
    """
    height, width = reference.shape[:2]
    if height * width <= _MAX_PIXELS_AT_ONCE:
        return ssimulacra2(reference, decoded)
    total: float = 0
    for rows in _parts(height):
        for columns in _parts(width):
            found = ssimulacra2(reference[rows, columns], decoded[rows, columns])
            total += found * (rows.stop - rows.start) * (columns.stop - columns.start)
    return float(total / (height * width))


def check_measurable(height: int, width: int) -> None:
    """Refuses what cannot be measured, before any work is done.

    Raises:
        NotBuiltError: the package is not installed.
        TargetError: a side is too short for a measurement.
    """
    if find_spec("ssimulacra2") is None:
        raise NotBuiltError(_MISSING)
    if min(height, width) < _SIX_SCALES_PX:
        raise TargetError(
            f"SSIMULACRA2: found a picture of {width}x{height} pixels, expected at least "
            f"{_SIX_SCALES_PX} on each side"
        )


def _parts(side_px: int) -> list[slice]:
    """Parts of a side, as equal as they can be."""
    count = math.ceil(side_px / _PART_PX)
    ends = [side_px * number // count for number in range(count + 1)]
    return [slice(*pair) for pair in pairwise(ends)]


def _file(pixels: Pixels) -> io.BytesIO:
    """A picture in a form that takes no time to write and read."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PPM")
    return file
