"""Perceptual distances of pictures, as metrics and as losses: differentiable, in torch.

All take pictures (B, 3, H, W), R, G, B in [0, 255], and may weigh places. HaarPSI needs no trained
weights (Reisenhofer, Bosse, Kutyniok and Wiegand, Signal Processing: Image Communication 61, 2018,
arXiv 1607.06140); LPIPS (Zhang et al., CVPR 2018, arXiv 1801.03924) is that of the package `lpips`.
Other metrics are in :mod:`cwic.evaluation.metrics`.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cwic.errors import NotBuiltError
from cwic.evaluation.ssimulacra2_distance import ssimulacra2_distance

# --- HaarPSI --------------------------------------------------------------------------------------

_C = 30.0  # of the similarity of two coefficients, eq. 3
_ALPHA = 4.2  # slope of the logistic function, eq. 10
_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))


def haarpsi(reference: npt.NDArray[np.uint8], decoded: npt.NDArray[np.uint8]) -> float:
    """HaarPSI of two pictures (H, W, 3), in double precision; in [0, 1], 1 for equal pictures."""
    x, y = (
        torch.from_numpy(np.ascontiguousarray(picture).copy()).permute(2, 0, 1)[None].double()
        for picture in (reference, decoded)
    )
    return float(haarpsi_similarity(x, y))


def haarpsi_similarity(reference: Tensor, decoded: Tensor, weight: Tensor | None = None) -> Tensor:
    """Perceptual similarity for colour pictures (eq. 16), with the paper's halving of resolution.

    Two (B, 3, H, W) in [0, 255] -> (B,) in [0, 1], 1 for equal pictures. `weight` (B, 1, h, w), at
    least 0, is how much a place counts; None: all alike.
    """
    ours, theirs = (_halved(_yiq(picture)) for picture in (reference, decoded))
    scales = [[_haar(planes[:, :1], scale) for planes in (ours, theirs)] for scale in (1, 2, 3)]
    local = (_similarity(*scales[0]) + _similarity(*scales[1])) / 2  # (B, 2, h, w)
    weights = torch.maximum(*scales[2])
    chroma = _similarity(_mean_of_4(ours[:, 1:]).abs(), _mean_of_4(theirs[:, 1:]).abs())
    local = torch.cat([local, chroma.mean(dim=1, keepdim=True)], dim=1)
    weights = torch.cat([weights, weights.mean(dim=1, keepdim=True)], dim=1)
    if weight is not None:
        weights = weights * _resized(weight, weights)
    numerator = (torch.sigmoid(_ALPHA * local) * weights).sum(dim=(1, 2, 3))
    denominator = weights.sum(dim=(1, 2, 3))
    # Two flat black pictures have nothing to compare, and are equal.
    empty = denominator == 0
    mean = (numerator / denominator.masked_fill(empty, 1)).masked_fill(
        empty, 1 / (1 + math.exp(-_ALPHA))
    )
    return (torch.logit(mean) / _ALPHA).square()


def _yiq(pictures: Tensor) -> Tensor:
    """(B, 3, H, W) R, G, B -> Y, I, Q; no constant has to go to the device."""
    r, g, b = pictures.unbind(dim=1)
    return torch.stack([x * r + y * g + z * b for x, y, z in _YIQ], dim=1)


def _similarity(a: Tensor, b: Tensor) -> Tensor:
    return (2 * a * b + _C) / (a.square() + b.square() + _C)


def _mean_of_4(planes: Tensor, stride: int = 1) -> Tensor:
    """Of each pixel and those to its right and below; zeros beyond the border."""
    return nn.functional.avg_pool2d(nn.functional.pad(planes, (0, 1, 0, 1)), 2, stride)


def _halved(planes: Tensor) -> Tensor:
    return _mean_of_4(planes, 2)


def _haar(plane: Tensor, scale: int) -> Tensor:
    """(B, 1, H, W) -> (B, 2, H, W): magnitudes of the undecimated Haar coefficients, both ways."""
    side = 2**scale
    kernel = torch.full((side, side), 1 / side, dtype=plane.dtype, device=plane.device)
    kernel[: side // 2] *= -1
    padding = (side // 2 - 1, side // 2)
    padded = nn.functional.pad(plane, padding * 2)
    return nn.functional.conv2d(padded, torch.stack([kernel, kernel.T])[:, None]).abs()


# --- distances ------------------------------------------------------------------------------------


DistanceName = Literal["haarpsi", "lpips", "ssimulacra2"]


# How far pictures are from their originals to the eye: reference, decoded and a weight as of
# `haarpsi_similarity` -> (B,) at least 0, 0 for equal pictures; differentiable in `decoded`.
PerceptualDistance = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def load_distance(name: DistanceName, device: torch.device | None = None) -> PerceptualDistance:
    """A distance by name, for pictures on a device (None: the processor).

    "lpips" is the package of that name with its AlexNet, "ssimulacra2" what that metric sums up.

    Raises:
        NotBuiltError: the package lpips or its networks cannot be had.
    """
    if name == "haarpsi":
        return haar_distance
    if name == "ssimulacra2":
        return ssimulacra2_distance
    try:
        import lpips

        network: Any = lpips.LPIPS(net="alex", spatial=True, verbose=False)
    # It wants torchvision, which fails in many ways, and loads weights from the network.
    except Exception as error:
        message = f"lpips: expected the package lpips with its networks: {error}"
        raise NotBuiltError(message) from error
    network = network.eval().requires_grad_(False).to(device or "cpu")

    def distance(reference: Tensor, decoded: Tensor, weight: Tensor | None = None) -> Tensor:
        of_place = network(reference / 127.5 - 1, decoded / 127.5 - 1)
        return _mean_over_places(of_place, weight)[:, 0]

    return distance


def haar_distance(reference: Tensor, decoded: Tensor, weight: Tensor | None = None) -> Tensor:
    """1 - HaarPSI; see `PerceptualDistance`."""
    return 1 - haarpsi_similarity(reference, decoded, weight)


def _mean_over_places(values: Tensor, weight: Tensor | None) -> Tensor:
    """(B, C, h, w) -> (B, C)."""
    if weight is None:
        return values.mean(dim=(2, 3))
    weight = _resized(weight, values)
    total = weight.sum(dim=(2, 3)).clamp(min=torch.finfo(values.dtype).tiny)
    return (values * weight).sum(dim=(2, 3)) / total


def _resized(weight: Tensor, like: Tensor) -> Tensor:
    """(B, 1, h, w) -> (B, 1, H, W) of another tensor."""
    size = (like.shape[2], like.shape[3])
    if weight.shape[2] >= size[0] and weight.shape[3] >= size[1]:
        return nn.functional.adaptive_avg_pool2d(weight, size)
    return nn.functional.interpolate(weight, size=size, mode="bilinear", align_corners=False)
