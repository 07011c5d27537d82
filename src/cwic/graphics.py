"""Text and graphics in a picture that is a photograph elsewhere: where they are, and without them.

Owns which squares are taken for graphics, and what a network is given in their place. How they are
kept is left to `exact_layer`, whether that pays to `choice`. The limits are measured, see "Exact
graphics" in docs/experiments.md.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]  # (H, W, 3)
Mask = npt.NDArray[np.bool_]  # (H, W)

# Side of the squares that are graphics or not.
SQUARE_PX = 16

# A square of so few colours is even, or an edge between two.
_FEW_COLOURS = 2
# One of text or graphics has at most so many colours, at least so much contrast in a channel, and
# at least this share of pixels as their neighbour to the left or above: letters stand on an even
# ground. Noise leaves a photograph few such pixels.
_MAX_COLOURS = 96
_MIN_CONTRAST = 32
_MIN_EQUAL = 0.45
# Fewer neighbours of the eight that are graphics too: a highlight, a shadow.
_MIN_NEIGHBOURS = 2

# Of all squares, so many are text or graphics with some contrast, or it is not worth a second look.
_MIN_SHARE = 0.05
# With even ones they are at least so many: less never paid.
_MIN_COVERED = 0.2

# Before all of them are looked at, about so many rows of them are; a picture passes with less.
_GLANCED_ROWS = 16
_GLANCE_SHARE = _MIN_SHARE / 2

# Side of the smallest squares whose means are taken of what is left; divides `SQUARE_PX`.
_FINEST_PX = 4

# What stands for graphics where a picture has nothing else.
_NOTHING = 128


def graphics_of(pixels: Pixels) -> Mask | None:
    """Where a picture, (H, W, 3), has text or graphics: whole squares; None if hardly anywhere."""
    height, width = pixels.shape[:2]
    rows, columns = -(-height // SQUARE_PX), -(-width // SQUARE_PX)
    found = np.empty((rows, columns), np.bool_)
    # A few rows tell a photograph; and one at a time takes ten times the memory of its pixels.
    every = max(1, rows // _GLANCED_ROWS)
    glanced = range(every // 2, rows, every)
    num_contrasted = sum(int(_are_graphics(pixels, row)[0].sum()) for row in glanced)
    if num_contrasted < _GLANCE_SHARE * len(glanced) * columns:
        return None
    num_contrasted = 0
    for row in range(rows):
        contrasted, even = _are_graphics(pixels, row)
        num_contrasted += int(contrasted.sum())
        found[row] = contrasted | even
    if num_contrasted < _MIN_SHARE * found.size:
        return None
    padded = np.pad(found, 1).astype(np.int8)
    around = sum(padded[y : y + rows, x : x + columns] for y in range(3) for x in range(3))
    found &= around > _MIN_NEIGHBOURS  # with itself
    if found.mean() < _MIN_COVERED or found.all():
        return None
    whole = np.repeat(np.repeat(found, SQUARE_PX, axis=0), SQUARE_PX, axis=1)
    return whole[:height, :width]


def without_graphics(pixels: Pixels, mask: Mask) -> Pixels:
    """The picture with something smooth where the mask is true: it costs a network next to nothing.

    Means of what is left are taken over squares of 4, 8, 16 ... pixels, and come back where the
    finer ones have nothing left. `mask` is as of `graphics_of`.
    """
    height, width = mask.shape
    means = np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).reduce(_FINEST_PX))
    weights = (~mask[::_FINEST_PX, ::_FINEST_PX]).astype(np.float32)
    sums = means.astype(np.float32) * weights[..., None]
    levels = [(sums, weights)]
    while max(weights.shape) > 1:
        sums, weights = _halved(sums), _halved(weights[..., None])[..., 0]
        scale: npt.NDArray[np.float32] = (1 / np.maximum(weights, 1)).astype(np.float32)
        sums, weights = sums * scale[..., None], weights * scale
        levels.append((sums, weights))
    found = np.full_like(sums, _NOTHING)
    for sums, weights in reversed(levels):
        rest = _doubled(found)[: len(weights), : weights.shape[1]]
        found = sums + (1 - weights)[..., None] * rest
    small = Image.fromarray(found.round().clip(0, 255).astype(np.uint8))
    size = (_FINEST_PX * small.width, _FINEST_PX * small.height)
    smooth = np.asarray(small.resize(size, Image.Resampling.BILINEAR))[:height, :width]
    return np.where(mask[..., None], smooth, pixels)


def beside_graphics(pixels: Pixels, mask: Mask) -> Pixels:
    """The squares where the mask is false, one below the other, (16 n, 16, 3).

    Of a picture without any, all of it. `mask` is as of `graphics_of`.
    """
    rows, columns = (side // SQUARE_PX for side in mask.shape)
    inside = pixels[: rows * SQUARE_PX, : columns * SQUARE_PX]
    squares = inside.reshape(rows, SQUARE_PX, columns, SQUARE_PX, 3).swapaxes(1, 2)
    corners = mask[: rows * SQUARE_PX : SQUARE_PX, : columns * SQUARE_PX : SQUARE_PX]
    found = squares[~corners]
    return found.reshape(-1, SQUARE_PX, 3) if len(found) else pixels


def _are_graphics(pixels: Pixels, row: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which squares of a row have text or graphics with some contrast, and which are even."""
    top, bottom = row * SQUARE_PX, (row + 1) * SQUARE_PX
    strip = pixels[max(top - 1, 0) : bottom]
    colours = np.zeros((*strip.shape[:2], 4), np.uint8)
    colours[..., :3] = strip
    numbers = colours.view(np.uint32)[..., 0]
    above, numbers = numbers[:-1], numbers[min(top, 1) :]
    equal = np.zeros(numbers.shape, np.bool_)
    equal[:, 1:] = numbers[:, 1:] == numbers[:, :-1]
    equal[len(numbers) - len(above) :] |= numbers[len(numbers) - len(above) :] == above

    is_candidate = _in_squares(equal).mean(axis=1) >= _MIN_EQUAL
    candidates = np.sort(_in_squares(numbers)[is_candidate], axis=1)
    num_colours = 1 + (candidates[:, 1:] != candidates[:, :-1]).sum(axis=1)
    samples = candidates[..., None].view(np.uint8)
    contrast = (samples.max(axis=1) - samples.min(axis=1)).max(axis=1)
    contrasted, even = np.zeros_like(is_candidate), np.zeros_like(is_candidate)
    contrasted[is_candidate] = (num_colours <= _MAX_COLOURS) & (contrast >= _MIN_CONTRAST)
    even[is_candidate] = num_colours <= _FEW_COLOURS
    return contrasted, even


def _in_squares(strip: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A row of squares, (n, 256), of (16, W) or fewer; what is nearest is repeated beyond."""
    height, width = strip.shape
    strip = np.pad(strip, ((0, SQUARE_PX - height), (0, -width % SQUARE_PX)), mode="edge")
    squares = strip.reshape(SQUARE_PX, -1, SQUARE_PX).transpose(1, 0, 2)
    return squares.reshape(len(squares), -1)


def _halved(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Sums over squares of 2x2; what is left over at the edges counts as it is."""
    height, width = values.shape[:2]
    values = np.pad(values, ((0, height % 2), (0, width % 2), (0, 0)))
    pairs = values[::2] + values[1::2]
    return pairs[:, ::2] + pairs[:, 1::2]


def _doubled(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Twice as many rows and columns, straight lines between them."""
    height, width = values.shape[:2]
    size = (2 * width, 2 * height)
    planes = [
        Image.fromarray(np.ascontiguousarray(values[..., channel])).resize(
            size, Image.Resampling.BILINEAR
        )
        for channel in range(3)
    ]
    return np.dstack([np.asarray(plane) for plane in planes])
