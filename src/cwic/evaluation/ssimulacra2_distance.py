"""What SSIMULACRA2 counts, as a loss: differentiable, in torch.

SSIMULACRA2 (Sneyers 2022, weights of 2023) is a falling function of one weighted sum. Of XYB at six
scales it takes three maps, errors of structure, edges that came and edges that went, each by its
mean and by the fourth root of its mean fourth power. The sum is given here; the score stays with
the package ssimulacra2 (:mod:`cwic.ssimulacra2`). Of its 108 weights the 25 are used that matter.
Borders are mirrored, where the package lets two of them fade to black.
"""

from collections.abc import Iterator
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from cwic.errors import NotBuiltError
from cwic.evaluation.structural_similarity import SSIM_PX, windowed

_NUM_SCALES = 6
_LEAST_SIDE_PX = 8  # of a scale
_LEAST_WEIGHT = 0.1  # most of the others are a thousandth or nothing, those that count 1 to 200
_MEAN, _FOURTH_POWER = 0, 1  # in the order of the weights
_C2 = 0.0009
_SHARE = 0.9562382616834844  # of the sum that the score goes by

# R, G, B of linear light -> what three kinds of cones see, rows sum to 1 (libjxl, opsin_params.h).
_ABSORBANCE = (
    (0.3, 0.622, 0.078),
    (0.23, 0.692, 0.078),
    (0.24342268924547819, 0.20476744424496821, 0.5518098665095536),
)
_BIAS = 0.0037930732552754493
_BIAS_ROOT: float = _BIAS ** (1 / 3)
# The slope of a cube root has no bound; decoded pictures leave the range of colours.
_LEAST_ABSORBED = 1e-4
# Of the mean fourth power, whose root has none either.
_LEAST_POWER = 1e-16
_LEAST_ROOT: float = _LEAST_POWER**0.25


def ssimulacra2_distance(
    reference: Tensor, decoded: Tensor, weight: Tensor | None = None
) -> Tensor:
    """The weighted sum of SSIMULACRA2's errors, of which the score is a falling function.

    About 1.2 at a score of 80, 2.7 at 69 and 5 at 55. Scales with a side under 8 px are left out.

    Args:
        reference: (B, 3, H, W), R, G, B of sRGB in [0, 255]; sides of at least 11 px.
        decoded: same shape.
        weight: (B, 1, h, w), at least 0, how much a place counts; None: all alike.

    Returns:
        (B,), 0 for equal pictures.

    Raises:
        NotBuiltError: the package ssimulacra2 is not installed.
    """
    total = reference.new_zeros(len(reference))
    for scale, (x, y) in enumerate(_scales(_linear(reference), _linear(decoded))):
        weights = _weights()[scale]
        if not weights:
            continue
        channels = sorted({channel for channel, _, _ in weights})
        x, y = (torch.stack([_XYB[channel](of) for channel in channels], dim=1) for of in (x, y))
        for kind, errors in enumerate(_errors(x, y)):
            for place, channel in enumerate(channels):
                plane = errors[:, place]
                for order in (_MEAN, _FOURTH_POWER):
                    of_this = weights.get((channel, order, kind), 0)
                    if of_this:
                        total = total + of_this * _average(plane, order, weight)
    return _SHARE * total


@cache
def _weights() -> list[dict[tuple[int, int, int], float]]:
    """Those that matter, of each scale, by channel, order and kind of error."""
    try:
        from ssimulacra2.ssimulacra2 import weights
    except ImportError as error:
        raise NotBuiltError(
            "a loss by SSIMULACRA2 needs the package ssimulacra2, found none: "
            "pip install 'cwic[evaluate]'"
        ) from error
    found: list[dict[tuple[int, int, int], float]] = [{} for _ in range(_NUM_SCALES)]
    for (channel, scale, order, kind), value in np.ndenumerate(weights.reshape(3, -1, 2, 3)):
        if value > _LEAST_WEIGHT:
            found[scale][channel, order, kind] = float(value)
    return found


def _scales(x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Pictures of linear light from fine to coarse; what is left at an edge counts as one."""
    for scale in range(_NUM_SCALES):
        if scale:
            x, y = (nn.functional.avg_pool2d(planes, 2, ceil_mode=True) for planes in (x, y))
        if min(x.shape[2:]) < _LEAST_SIDE_PX:
            return
        yield x, y


def _linear(pictures: Tensor) -> Tensor:
    """SRGB in [0, 255] -> linear light in [0, 1]."""
    x = pictures / 255
    curved = ((x.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4
    return torch.where(x <= 0.04045, x / 12.92, curved)


def _absorbed(linear: Tensor, cone: int) -> Tensor:
    """Linear light (B, 3, h, w) -> what a kind of cones makes of it, (B, h, w)."""
    r, g, b = (
        share * plane for share, plane in zip(_ABSORBANCE[cone], linear.unbind(1), strict=True)
    )
    return (r + g + b + _BIAS).clamp(min=_LEAST_ABSORBED).pow(1 / 3) - _BIAS_ROOT


def _x(linear: Tensor) -> Tensor:
    return 7 * (_absorbed(linear, 0) - _absorbed(linear, 1)) + 0.42


def _y(linear: Tensor) -> Tensor:
    return (_absorbed(linear, 0) + _absorbed(linear, 1)) / 2 + 0.01


def _b(linear: Tensor) -> Tensor:
    return _absorbed(linear, 2) - (_absorbed(linear, 0) + _absorbed(linear, 1)) / 2 + 0.55


# X, Y and B - Y of linear light, moved and stretched to be of one size and above 0.
_XYB = (_x, _y, _b)


def _errors(x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """Of one scale (B, C, h, w) each: of structure, of edges that came, of those that went."""
    mean_x, mean_y = _blurred(x), _blurred(y)
    variances = _blurred(x * x) - mean_x.square() + _blurred(y * y) - mean_y.square()
    covariance = _blurred(x * y) - mean_x * mean_y
    luminance = 1 - (mean_x - mean_y).square()
    yield (1 - luminance * (2 * covariance + _C2) / (variances + _C2)).relu()
    edges = (1 + (y - mean_y).abs()) / (1 + (x - mean_x).abs()) - 1
    yield edges.relu()
    yield (-edges).relu()


def _blurred(planes: Tensor) -> Tensor:
    margin = SSIM_PX // 2
    return windowed(nn.functional.pad(planes, (margin,) * 4, mode="reflect"))


def _average(plane: Tensor, order: int, weight: Tensor | None) -> Tensor:
    """(B,): the mean over places of (B, h, w), or the fourth root of the mean fourth power."""
    if order == _MEAN:
        return _mean(plane, weight)
    power = _mean(plane.square().square(), weight)
    return (power + _LEAST_POWER).pow(0.25) - _LEAST_ROOT


def _mean(plane: Tensor, weight: Tensor | None) -> Tensor:
    if weight is None:
        return plane.mean(dim=(1, 2))
    shares = nn.functional.adaptive_avg_pool2d(weight, (plane.shape[1], plane.shape[2]))[:, 0]
    return (plane * shares).sum(dim=(1, 2)) / shares.sum(dim=(1, 2)).clamp(min=1e-6)
