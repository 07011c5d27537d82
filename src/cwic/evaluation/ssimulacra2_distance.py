"""What SSIMULACRA2 counts, as a loss: differentiable, in torch.

SSIMULACRA2 (Sneyers 2022, weights of 2023) is a falling function of one weighted sum. Of XYB at six
scales it takes three maps, errors of structure, edges that came and edges that went, each by its
mean and by the fourth root of its mean fourth power. The sum is given here; the score stays with
the package ssimulacra2 (:mod:`cwic.ssimulacra2`), whose 108 weights are used. Borders are mirrored,
where the package lets two of them fade to black.
"""

from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor, nn

from cwic.errors import NotBuiltError
from cwic.evaluation.structural_similarity import SSIM_PX, windowed

_NUM_SCALES = 6
_LEAST_SIDE_PX = 8  # of a scale
_C2 = 0.0009
_SHARE = 0.9562382616834844  # of the sum that the score goes by

# R, G, B of linear light -> what three kinds of cones see, rows sum to 1 (libjxl, opsin_params.h).
_ABSORBANCE = (
    (0.3, 0.622, 0.078),
    (0.23, 0.692, 0.078),
    (0.24342268924547819, 0.20476744424496821, 0.5518098665095536),
)
_BIAS = 0.0037930732552754493
_BIAS_ROOT = _BIAS ** (1 / 3)
# The slope of a cube root has no bound; decoded pictures leave the range of colours.
_LEAST_ABSORBED = 1e-4
# Of the mean fourth power, whose root has none either.
_LEAST_POWER = 1e-16


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
    weights = _weights()
    total = reference.new_zeros(len(reference))
    for scale, (x, y) in enumerate(_scales(_linear(reference), _linear(decoded))):
        for kind, errors in enumerate(_errors(_xyb(x), _xyb(y))):
            for order, averages in enumerate(_averages(errors, weight)):
                for channel in range(3):
                    of_this = weights[channel][scale][order][kind]
                    if of_this:
                        total = total + of_this * averages[:, channel]
    return _SHARE * total


@cache
def _weights() -> list[list[list[list[float]]]]:
    """By channel, scale, order (mean, fourth power) and kind of error."""
    try:
        from ssimulacra2.ssimulacra2 import weights
    except ImportError as error:
        raise NotBuiltError(
            "a loss by SSIMULACRA2 needs the package ssimulacra2, found none: "
            "pip install 'cwic[evaluate]'"
        ) from error
    found: list[list[list[list[float]]]] = weights.reshape(3, _NUM_SCALES, 2, 3).tolist()
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


def _xyb(linear: Tensor) -> Tensor:
    """Linear light -> X, Y and B - Y, moved and stretched to be of one size and above 0."""
    r, g, b = linear.unbind(dim=1)
    long, middle, short = (
        (x * r + y * g + z * b + _BIAS).clamp(min=_LEAST_ABSORBED) ** (1 / 3) - _BIAS_ROOT
        for x, y, z in _ABSORBANCE
    )
    luma = (long + middle) / 2
    return torch.stack([7 * (long - middle) + 0.42, luma + 0.01, short - luma + 0.55], dim=1)


def _errors(x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """(B, 3, h, w) each, of one scale: of structure, of edges that came, of those that went."""
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


def _averages(errors: Tensor, weight: Tensor | None) -> Iterator[Tensor]:
    """(B, 3) each: the mean over places, and the fourth root of the mean fourth power."""
    yield _mean(errors, weight)
    yield (_mean(errors.square().square(), weight) + _LEAST_POWER) ** 0.25 - _LEAST_POWER**0.25


def _mean(values: Tensor, weight: Tensor | None) -> Tensor:
    if weight is None:
        return values.mean(dim=(2, 3))
    shares = nn.functional.adaptive_avg_pool2d(weight, (values.shape[2], values.shape[3]))
    return (values * shares).sum(dim=(2, 3)) / shares.sum(dim=(2, 3)).clamp(min=1e-6)
