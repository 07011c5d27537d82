"""Text and graphics in a picture that is a photograph elsewhere: where they are.

Owns which squares are taken for graphics. How they are kept is left to `exact_layer`, what is coded
below them to `image.filled`, whether that pays to `choice`. The limits are measured, see "Exact
graphics" in docs/experiments.md.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

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

# A picture in which fewer of all squares are text or graphics with contrast is not tried.
_MIN_SHARE = 0.05
# Together with even squares they cover at least this share: less never paid.
_MIN_COVERED = 0.2

# Before all of them are looked at, about so many rows of them are; a picture passes with less.
_GLANCED_ROWS = 16
_GLANCE_SHARE = _MIN_SHARE / 2


def graphics_of(pixels: Pixels) -> Mask | None:
    """Where a picture, (H, W, 3), has text or graphics: whole squares; None if hardly anywhere."""
    height, width = pixels.shape[:2]
    rows, columns = -(-height // SQUARE_PX), -(-width // SQUARE_PX)
    found = np.empty((rows, columns), np.bool_)
    # A few rows of squares tell a photograph. They are looked at one by one, because each takes ten
    # times the memory of its pixels.
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


def beside_graphics(pixels: Pixels, mask: Mask) -> Pixels:
    """The squares where the mask is false, one below the other, (16 n, 16, 3).

    If there is no such square, the whole picture. `mask` is as of `graphics_of`.
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
