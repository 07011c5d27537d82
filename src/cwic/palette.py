"""Pictures in fewer colours: what a picture is when only so many stay.

Owns which pictures and which numbers are tried, and the settings; which number is best for a
request is left to `choice`, which colours stay to Pillow.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image

# So many are tried: half an octave apart, up to what Pillow makes.
NUM_COLOURS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)

# The search for the colours ends where it moves fewer than one in so many pixels: a quarter of the
# time, for a decibel at most.
_SETTLED = 1000

# A picture of more has photographs or slopes in it, which would come out in bands. It would take
# long as well: the work goes by the number of colours.
_MAX_COLOURS = 2**13


def is_reducible(pixels: npt.NDArray[np.uint8]) -> bool:
    """Whether a picture, (H, W, 3), has so few colours that it may look the same in fewer."""
    return Image.fromarray(np.ascontiguousarray(pixels)).getcolors(_MAX_COLOURS) is not None


def reduced(pixels: npt.NDArray[np.uint8], num_colours: int) -> npt.NDArray[np.uint8]:
    """A picture in at most so many colours, each pixel in the one nearest to its own.

    Args:
        pixels: (H, W, 3).
        num_colours: 2 to 256.

    Returns:
        The same shape. Equal channels stay equal. Nothing is dithered: that would cost more than
        the colours that it stands for.
    """
    image = Image.fromarray(np.ascontiguousarray(pixels))
    moved = max(1, image.width * image.height // _SETTLED)
    in_fewer = image.quantize(
        num_colours, Image.Quantize.MAXCOVERAGE, kmeans=moved, dither=Image.Dither.NONE
    )
    return np.asarray(in_fewer.convert("RGB"))
