"""Perceptual distances of pictures, as metrics and as losses: differentiable, in torch.

All take pictures (B, 3, H, W), R, G, B in [0, 255], and may weigh places. HaarPSI needs no trained
weights (Reisenhofer, Bosse, Kutyniok and Wiegand, Signal Processing: Image Communication 61, 2018,
arXiv 1607.06140). :class:`FeatureDistance` has the form of LPIPS (Zhang et al., CVPR 2018, arXiv
1801.03924) over a trunk that is given as a file. It is another distance than LPIPS, which is that
of the package `lpips` only. Other metrics are in :mod:`cwic.evaluation.metrics`.
"""

import hashlib
import math
import os
import pickle
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cwic.errors import CodecError, NotBuiltError, reason

__all__ = [
    "FeatureDistance",
    "HaarDistance",
    "PerceptualDistance",
    "haarpsi",
    "haarpsi_similarity",
    "load_distance",
]

# --- HaarPSI --------------------------------------------------------------------------------------

# Channel weights of :class:`FeatureDistance`, little-endian float16; benchmarks/orderings.py trains
# and writes them.
WEIGHTS_FILE = "feature_weights.f16"

_C = 30.0  # of the similarity of two coefficients, eq. 3
_ALPHA = 4.2  # slope of the logistic function, eq. 10
_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))


def haarpsi(reference: npt.NDArray[np.uint8], decoded: npt.NDArray[np.uint8]) -> float:
    """HaarPSI of two pictures, in double precision.

    Args:
        reference: (H, W, 3) R, G, B.
        decoded: same shape.

    Returns:
        in [0, 1]; 1 for equal pictures.
    """
    x, y = (
        torch.from_numpy(np.ascontiguousarray(picture).copy()).permute(2, 0, 1)[None].double()
        for picture in (reference, decoded)
    )
    return float(haarpsi_similarity(x, y))


def haarpsi_similarity(reference: Tensor, decoded: Tensor, weight: Tensor | None = None) -> Tensor:
    """Perceptual similarity for colour pictures (eq. 16), with the paper's halving of resolution.

    Args:
        reference: (B, 3, H, W) in [0, 255].
        decoded: same shape.
        weight: (B, 1, h, w), at least 0, how much a place counts; None: all alike.

    Returns:
        (B,) in [0, 1]; 1 for equal pictures.
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


class PerceptualDistance(Protocol):
    """How far pictures are from their originals to the eye."""

    def __call__(self, reference: Tensor, decoded: Tensor, weight: Tensor | None = None) -> Tensor:
        """Differentiable in `decoded`.

        Args:
            reference: (B, 3, H, W) in [0, 255].
            decoded: same shape.
            weight: (B, 1, h, w), at least 0, how much a place counts; None: all alike.

        Returns:
            (B,) at least 0; 0 for equal pictures.
        """
        ...


def load_distance(name: str, device: torch.device | None = None) -> PerceptualDistance:
    """A distance by name.

    Args:
        name: "haarpsi"; "lpips", which is the package of that name with its AlexNet; or the path of
            the weights of SqueezeNet v1.1, for :class:`FeatureDistance`.
        device: of the pictures; None: the processor.

    Raises:
        NotBuiltError: the package cannot be had.
        CodecError: the file cannot be read, or holds something else.
    """
    if name == "haarpsi":
        return HaarDistance()
    if name == "lpips":
        return _Lpips(device)
    distance = FeatureDistance.load(Path(name))
    return distance if device is None else distance.to(device)


class HaarDistance:
    """1 - HaarPSI."""

    def __call__(self, reference: Tensor, decoded: Tensor, weight: Tensor | None = None) -> Tensor:
        """See :class:`PerceptualDistance`."""
        return 1 - haarpsi_similarity(reference, decoded, weight)


class _Lpips:
    """The real LPIPS, where its package and its networks are there."""

    def __init__(self, device: torch.device | None):
        try:
            import lpips

            self._network: Any = lpips.LPIPS(net="alex", spatial=True, verbose=False)
        # It wants torchvision, which fails in many ways, and loads weights from the network.
        except Exception as error:
            raise NotBuiltError(
                f"lpips: expected the package lpips with its networks: {error}"
            ) from error
        self._network = self._network.eval().requires_grad_(False).to(device or "cpu")

    def __call__(self, reference: Tensor, decoded: Tensor, weight: Tensor | None = None) -> Tensor:
        """See :class:`PerceptualDistance`."""
        of_place = self._network(reference / 127.5 - 1, decoded / 127.5 - 1)
        return _mean_over_places(of_place, weight)[:, 0]


# Channels of SqueezeNet's fire modules: in, squeezed, each of the two ways out; 0 is a pooling.
_FIRES = {
    3: (64, 16, 64),
    4: (128, 16, 64),
    6: (128, 32, 128),
    7: (256, 32, 128),
    9: (256, 48, 192),
    10: (384, 48, 192),
    11: (384, 64, 256),
    12: (512, 64, 256),
}
_TAPS = (1, 4, 7, 9, 10, 11, 12)  # indices of layers

# Of the Caffe model: pictures B, G, R less these means.
_CAFFE_MEAN = (104.0, 117.0, 123.0)


class _Fire(nn.Module):
    """Iandola et al., arXiv 1602.07360, figure 2."""

    def __init__(self, channels: int, squeezed: int, expanded: int):
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.squeeze(x))
        return torch.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], dim=1))


class _SqueezeNet(nn.Module):
    """The convolutions of SqueezeNet v1.1: pictures -> what its seven stages say."""

    mean: Tensor  # of the pictures that it was trained on, B, G, R

    def __init__(self) -> None:
        super().__init__()
        pooling = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, stride=2), nn.ReLU()]
        for index in range(2, 13):
            layers.append(_Fire(*_FIRES[index]) if index in _FIRES else pooling)
        self.features = nn.Sequential(*layers)
        self.register_buffer("mean", torch.tensor(_CAFFE_MEAN)[:, None, None], persistent=False)

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """(B, 3, H, W) R, G, B in [0, 255], at least 35 px a side."""
        x = pictures.flip(1) - self.mean
        taps = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in _TAPS:
                taps.append(x)
        return taps


class FeatureDistance(nn.Module):
    """Weighted squared differences of what a frozen trunk says of two pictures.

    Sum over its stages of the mean over places of the weighted sum over channels of squared
    differences; what a place says is first brought to length 1. No weight is negative.
    """

    CHANNELS = (64, 128, 256, 384, 384, 512, 512)  # of the stages

    weights: Tensor

    def __init__(self, trunk: nn.Module, weights: npt.NDArray[np.float32]):
        """Use :meth:`load`; this is for trunks built in memory.

        Args:
            trunk: gives seven stages of 64 to 512 channels.
            weights: (2240,) of the channels of all stages, none negative.
        """
        super().__init__()
        if weights.shape != (sum(self.CHANNELS),) or not (weights >= 0).all():
            raise CodecError(
                f"expected {sum(self.CHANNELS)} weights, none negative, "
                f"found some of shape {weights.shape}"
            )
        self.trunk = trunk.eval().requires_grad_(False)
        self.register_buffer("weights", torch.from_numpy(weights.astype(np.float32)))

    @classmethod
    def load(cls, trunk: Path, weights: npt.NDArray[np.float32] | None = None) -> "FeatureDistance":
        """From the file of a trunk.

        Args:
            trunk: SqueezeNet v1.1 for pictures B, G, R in [0, 255] less (104, 117, 123), saved by
                `torch.save` as tensors named `features.0.weight` and so on.
            weights: of the channels; None: those of this package, which were trained by
                benchmarks/orderings.py.

        Raises:
            CodecError: the file cannot be read or holds something else, or the weights do not fit.
        """
        network = _SqueezeNet()
        try:
            found = torch.load(trunk, map_location="cpu", weights_only=True)
            wanted = {name: found[name].float() for name in network.state_dict()}
            network.load_state_dict(wanted)
        except OSError as error:
            raise CodecError(f"{trunk}: cannot be read: {reason(error)}") from error
        except (
            pickle.UnpicklingError,
            EOFError,
            RuntimeError,
            KeyError,
            TypeError,
            AttributeError,
            IndexError,
        ) as error:
            why = reason(error)[:200]
            raise CodecError(f"{trunk}: expected weights of SqueezeNet v1.1: {why}") from error
        return cls(network, bundled_weights() if weights is None else weights)

    def differences(self, reference: Tensor, decoded: Tensor) -> Tensor:
        """(B, 2240): the mean squared difference of every channel; arguments as of a distance."""
        return torch.cat(
            [_mean_over_places(d, None) for d in self._of_places(reference, decoded)], 1
        )

    def forward(self, reference: Tensor, decoded: Tensor, weight: Tensor | None = None) -> Tensor:
        """See :class:`PerceptualDistance`; pictures of at least 35 px a side."""
        of_channels = torch.split(self.weights, list(self.CHANNELS))
        total = reference.new_zeros(len(reference))
        differences = self._of_places(reference, decoded)
        for channels, difference in zip(of_channels, differences, strict=True):
            of_place = torch.einsum("bchw,c->bhw", difference, channels)[:, None]
            total = total + _mean_over_places(of_place, weight)[:, 0]
        return total

    def _of_places(self, reference: Tensor, decoded: Tensor) -> Sequence[Tensor]:
        """For each stage (B, C, h, w): squared differences of unit vectors."""
        with torch.no_grad():
            expected = [_unit(tap) for tap in self.trunk(reference)]
        found = [_unit(tap) for tap in self.trunk(decoded)]
        return [(a - b).square() for a, b in zip(expected, found, strict=True)]


def bundled_weights() -> npt.NDArray[np.float32]:
    """(2240,) the channel weights that benchmarks/orderings.py trained."""
    file = resources.files("cwic.evaluation") / WEIGHTS_FILE
    weights: npt.NDArray[np.float32] = np.frombuffer(file.read_bytes(), "<f2").astype(np.float32)
    return weights


def trunk_digest(path: str | os.PathLike[str]) -> str:
    """The first 12 digits of the hash of a trunk's file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]


def _unit(tap: Tensor) -> Tensor:
    return tap / (tap.square().sum(dim=1, keepdim=True) + 1e-10).sqrt()


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
