"""HaarPSI, a perceptual similarity of two pictures that needs no trained weights.

Reisenhofer, Bosse, Kutyniok and Wiegand, "A Haar wavelet-based perceptual similarity index for
image quality assessment", Signal Processing: Image Communication 61 (2018), arXiv 1607.06140. The
other metrics are in :mod:`cwic.evaluation.metrics`.
"""

import numpy as np
import numpy.typing as npt

__all__ = ["haarpsi"]

Plane = npt.NDArray[np.float64]  # (H, W)

_C = 30.0  # of the similarity of two coefficients, eq. 3
_ALPHA = 4.2  # slope of the logistic function, eq. 10
_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


def haarpsi(reference: npt.NDArray[np.uint8], decoded: npt.NDArray[np.uint8]) -> float:
    """Perceptual similarity for colour pictures (eq. 16), with the paper's halving of resolution.

    Args:
        reference: (H, W, 3) R, G, B.
        decoded: same shape.

    Returns:
        in [0, 1]; 1 for equal pictures.
    """
    ours, theirs = (
        [_halved(plane) for plane in np.moveaxis(picture @ _YIQ.T, -1, 0)]
        for picture in (reference.astype(np.float64), decoded.astype(np.float64))
    )
    numerator = denominator = 0.0
    weights = []
    for axis in (0, 1):
        first, second, third = (
            (_haar(ours[0], scale, axis), _haar(theirs[0], scale, axis)) for scale in (1, 2, 3)
        )
        weight = np.maximum(*third)
        local = (_similarity(*first) + _similarity(*second)) / 2
        weights.append(weight)
        numerator += float((_logistic(local) * weight).sum())
        denominator += float(weight.sum())
    chroma = [
        _similarity(np.abs(_mean_of_4(a)), np.abs(_mean_of_4(b)))
        for a, b in zip(ours[1:], theirs[1:], strict=True)
    ]
    weight = (weights[0] + weights[1]) / 2
    numerator += float((_logistic((chroma[0] + chroma[1]) / 2) * weight).sum())
    denominator += float(weight.sum())
    if denominator == 0:  # two flat black pictures
        return 1.0
    mean = numerator / denominator
    return float((np.log(mean / (1 - mean)) / _ALPHA) ** 2)


def _similarity(a: Plane, b: Plane) -> Plane:
    similar: Plane = (2 * a * b + _C) / (a**2 + b**2 + _C)
    return similar


def _logistic(x: Plane) -> Plane:
    curved: Plane = 1 / (1 + np.exp(-_ALPHA * x))
    return curved


def _box(plane: Plane, before: int, after: int, axis: int) -> Plane:
    """Sum over the pixels i - before .. i + after along an axis, zeros beyond the border."""
    length = plane.shape[axis]
    padding = [(0, 0), (0, 0)]
    padding[axis] = (before + 1, after)
    total = np.cumsum(np.pad(plane, padding), axis=axis)
    window = before + after + 1
    later = np.take(total, range(window, window + length), axis=axis)
    earlier = np.take(total, range(length), axis=axis)
    return later - earlier


def _mean_of_4(plane: Plane) -> Plane:
    return _box(_box(plane, 0, 1, 0), 0, 1, 1) / 4


def _halved(plane: Plane) -> Plane:
    return _mean_of_4(plane)[::2, ::2]


def _haar(plane: Plane, scale: int, axis: int) -> Plane:
    """Magnitude of the undecimated Haar coefficients that see edges across an axis."""
    half = 2 ** (scale - 1)
    smooth = _box(plane, half - 1, half, 1 - axis)
    difference = _box(smooth, -1, half, axis) - _box(smooth, half - 1, 0, axis)
    magnitude: Plane = np.abs(difference) / 2**scale
    return magnitude
