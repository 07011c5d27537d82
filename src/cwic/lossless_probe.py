"""What a picture would take without loss, at a glance: whether it is worth trying to keep it whole.

Owns the glance and nothing else: what is tried for which request is left to `choice`. It looks at a
few rows only, because photographs, which never win, must not pay for screens, which nearly always
do.
"""

import numpy as np
import numpy.typing as npt

# One row of each of so many equal bands. Its place in the band goes by the square of their number,
# lest lines of text keep in step with the rows.
_ROWS = 32
_GOLDEN = (5**0.5 - 1) / 2

# Colours are counted on so many pixels of those rows.
_COLOURED = 4096
# No photograph has so few. A drawing that has takes less than their entropy, dithered or not.
_FEW_COLOURS = 64
_OF_FEW_COLOURS = 0.6


def entropy_bpp(pixels: npt.NDArray[np.uint8]) -> float:
    """Bits per pixel of sampled rows without their repetitions: of colours or errors of prediction.

    The lesser of two entropies of order 0: of the colours (where they are few, a share of it), and
    of what is left of each channel after a prediction from the neighbours to the left and above,
    less what is left of green. A WebP lossless stream takes 0.7 to 0.9 of it on photographs and
    down to a fifth on text. Of (H, W, 3): 0 for an even picture, 1 to 2 for a page of text, 3 to 14
    for a photograph, at most 24.
    """
    height, width = pixels.shape[:2]
    rows = _sampled(height)
    current = pixels[rows]
    step = max(1, current.shape[0] * width // _COLOURED)
    samples = current.reshape(-1, 3)[::step].astype(np.uint32)
    _, counts = np.unique(samples @ np.array([1, 256, 65536], np.uint32), return_counts=True)
    colours = _entropy(counts) * (_OF_FEW_COLOURS if len(counts) <= _FEW_COLOURS else 1)

    # Beyond the first row and column stands what is nearest.
    above = pixels[np.maximum(rows - 1, 0)].astype(np.int16)
    current = current.astype(np.int16)
    left, above_left = (np.concatenate([row[:, :1], row[:, :-1]], 1) for row in (current, above))
    low, high = np.minimum(left, above), np.maximum(left, above)
    error = current - np.clip(left + above - above_left, low, high)
    green = error[..., 1]
    channels = (green, error[..., 0] - green, error[..., 2] - green)
    errors = sum(_entropy(np.bincount(channel.ravel() & 255)) for channel in channels)
    return min(colours, errors)


def _sampled(height: int) -> npt.NDArray[np.intp]:
    """The rows that are looked at, ascending."""
    if height <= _ROWS:
        return np.arange(height)
    band = np.arange(_ROWS)
    return ((band + band**2 * _GOLDEN % 1) * height / _ROWS).astype(np.intp)


def _entropy(counts: npt.NDArray[np.integer]) -> float:
    """In bits, of what was counted so many times each."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())
