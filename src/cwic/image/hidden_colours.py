"""Colours that nobody sees: what is coded in their place.

A network sees the colours under full transparency, or under exact samples, spends bits on them and
lets them shine through at the rim. They are replaced by the colours of the nearest visible pixels,
fading into the mean: cheap, and continuous at the rim.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image

_NEUTRAL = 128
_BILINEAR = Image.Resampling.BILINEAR

Planes = npt.NDArray[np.float32]


def filled(pixels: npt.NDArray[np.uint8], hidden: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """The pixels (H, W, 3) with others where they are hidden (H, W); the rest stays exactly.

    A new array if anything changed.
    """
    if not hidden.any():
        return pixels
    if hidden.all():
        return np.full_like(pixels, _NEUTRAL)
    # Pillow halves the first, largest step, and weighs colours by what is visible as it does so.
    visible = np.where(hidden, np.uint8(0), np.uint8(255))
    half = np.asarray(Image.fromarray(np.dstack([pixels, visible])).reduce(2), np.float32)
    coarse = _extended(half[..., :3], np.minimum(4 * half[..., 3], 255))
    height, width = hidden.shape
    rounded = Image.fromarray(np.rint(coarse).astype(np.uint8))
    smooth = np.asarray(rounded.resize((2 * half.shape[1], 2 * half.shape[0]), _BILINEAR))
    result = pixels.copy()
    np.copyto(result, smooth[:height, :width], where=hidden[..., None])
    return result


def _halved(colours: Planes, weights: Planes) -> tuple[Planes, Planes]:
    """(H, W, 3) and (H, W) at half the size: weighted means, and weights of at most 255."""
    bottom, right = (side % 2 for side in weights.shape)
    weight = np.pad(weights, ((0, bottom), (0, right)))
    colour = np.pad(colours, ((0, bottom), (0, right), (0, 0))) * weight[..., None]
    # Rows, then columns: ten times as fast as a sum over two axes at once.
    weight = weight[0::2] + weight[1::2]
    weight = weight[:, 0::2] + weight[:, 1::2]
    colour = colour[0::2] + colour[1::2]
    colour = colour[:, 0::2] + colour[:, 1::2]
    colour /= np.maximum(weight, 1)[..., None]
    return colour, np.minimum(weight, 255)


def _extended(colours: Planes, weights: Planes) -> Planes:
    """Colours everywhere: where little weighs, those of a coarser picture shine through."""
    if weights.min() >= 255 or weights.size == 1:
        return colours
    coarse = _doubled(_extended(*_halved(colours, weights)), *weights.shape)
    share = (weights / 255)[..., None]
    result: Planes = coarse + share * (colours - coarse)
    return result


def _doubled(planes: Planes, height: int, width: int) -> Planes:
    """Twice the size, less a row or a column, interpolated."""
    size = 2 * planes.shape[1], 2 * planes.shape[0]
    doubled = [
        np.asarray(Image.fromarray(np.ascontiguousarray(plane)).resize(size, _BILINEAR))
        for plane in np.moveaxis(planes, 2, 0)
    ]
    return np.stack(doubled, axis=2)[:height, :width]
