"""What SSIMULACRA2 counts, as a loss: differentiable, in torch.

The score is a falling function of one weighted sum of errors, whose numbers are those of
:mod:`cwic.ssimulacra2_sum`. The sum is given here; the score stays with the package ssimulacra2
(:mod:`cwic.ssimulacra2`). Borders are mirrored, where the package lets two of them fade to black.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from cwic.evaluation.structural_similarity import SSIM_PX, windowed
from cwic.ssimulacra2_sum import (
    ABSORBANCE,
    BIAS,
    C2,
    CHANNELS,
    FOURTH_POWER,
    LEAST_POWER,
    LEAST_ROOT,
    MEAN,
    SHARE,
    WEIGHTS,
    XYB,
    XYB_BIAS,
)

_LEAST_SIDE_PX = 8  # of a scale
# The slope of a cube root has no bound; decoded pictures leave the range of colours.
_LEAST_ABSORBED = 1e-4


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
    """
    total = reference.new_zeros(len(reference))
    scales = _scales(_linear(reference), _linear(decoded))
    for weights, channels, (x, y) in zip(WEIGHTS, CHANNELS, scales, strict=False):
        x, y = (_xyb(of, channels) for of in (x, y))
        for kind, errors in enumerate(_errors(x, y)):
            for place, channel in enumerate(channels):
                plane = errors[:, place]
                for way in (MEAN, FOURTH_POWER):
                    of_this = weights.get((channel, way, kind), 0)
                    if of_this:
                        total = total + of_this * _average(plane, way, weight)
    return SHARE * total


def _scales(x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Pictures of linear light from fine to coarse; what is left at an edge counts as one."""
    for scale in range(len(WEIGHTS)):
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


def _xyb(linear: Tensor, channels: Sequence[int]) -> Tensor:
    """Linear light (B, 3, h, w) -> channels of XYB, (B, C, h, w)."""
    light = dict(enumerate(linear.unbind(1)))
    cones = {cone for channel in channels for cone, share in enumerate(XYB[channel]) if share}
    roots = {
        cone: (_mixed(light, ABSORBANCE[cone]) + BIAS).clamp(min=_LEAST_ABSORBED).pow(1 / 3)
        for cone in cones
    }
    found = [_mixed(roots, XYB[channel]) + XYB_BIAS[channel] for channel in channels]
    return torch.stack(found, dim=1)


def _mixed(planes: Mapping[int, Tensor], shares: Sequence[float]) -> Tensor:
    """(B, h, w): planes by number, each times its share."""
    parts = [share * planes[number] for number, share in enumerate(shares) if share]
    result: Tensor = torch.stack(parts).sum(dim=0)
    return result


def _errors(x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """Of one scale (B, C, h, w) each: of structure, of edges that came, of those that went."""
    mean_x, mean_y = _blurred(x), _blurred(y)
    variances = _blurred(x * x) - mean_x.square() + _blurred(y * y) - mean_y.square()
    covariance = _blurred(x * y) - mean_x * mean_y
    luminance = 1 - (mean_x - mean_y).square()
    yield (1 - luminance * (2 * covariance + C2) / (variances + C2)).relu()
    edges = (1 + (y - mean_y).abs()) / (1 + (x - mean_x).abs()) - 1
    yield edges.relu()
    yield (-edges).relu()


def _blurred(planes: Tensor) -> Tensor:
    margin = SSIM_PX // 2
    return windowed(nn.functional.pad(planes, (margin,) * 4, mode="reflect"))


def _average(plane: Tensor, way: int, weight: Tensor | None) -> Tensor:
    """(B,): the mean over places of (B, h, w), or the fourth root of the mean fourth power."""
    if way == MEAN:
        return _mean(plane, weight)
    power = _mean(plane.square().square(), weight)
    return (power + LEAST_POWER).pow(0.25) - LEAST_ROOT


def _mean(plane: Tensor, weight: Tensor | None) -> Tensor:
    if weight is None:
        return plane.mean(dim=(1, 2))
    shares = nn.functional.adaptive_avg_pool2d(weight, (plane.shape[1], plane.shape[2]))[:, 0]
    return (plane * shares).sum(dim=(1, 2)) / shares.sum(dim=(1, 2)).clamp(min=1e-6)
