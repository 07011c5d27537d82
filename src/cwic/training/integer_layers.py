"""Layers that :mod:`cwic.coding.exact_arithmetic` reproduces: what coding tables are chosen with.

Simulates its integers in floating point: an activation is a multiple of 2^-8, a weight one of
2^-12. In evaluation mode the layers compute in float64 with matrix products, where every partial
sum is a multiple of 2^-20 below 2^33 and so exact in any order; in training they compute in
whatever precision is current, rounded to the same grids with straight-through gradients. Which
layers there are is left to the families.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cwic.coding.exact_arithmetic import ACTIVATION_BITS, MAX_INTEGER, SUM_BITS, WEIGHT_BITS


class IntegerWeights(NamedTuple):
    """A layer as integers."""

    weight: npt.NDArray[np.int64]  # (out, in, k, k), |w| <= MAX_INTEGER, units of 2^-WEIGHT_BITS
    bias: npt.NDArray[np.int64]  # (out,), units of 2^-SUM_BITS


def straight_through(value: Tensor, replacement: Tensor) -> Tensor:
    """The replacement, with the gradient of the value.

    Exact if the replacement is the value rounded: the difference of the two has no rounding error.
    """
    return value + (replacement - value).detach()


def round_half_up(x: Tensor) -> Tensor:
    """floor(x + 1/2), what shift-and-round does; gradient 1."""
    return straight_through(x, torch.floor(x + 0.5))


class IntegerConv2d(nn.Module):
    """A convolution, stride 1, zero padding, whose weights lie on the integer grid."""

    def __init__(self, in_channels: int, out_channels: int, size: int = 1, bias: bool = True):
        super().__init__()
        self.size = size
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, size, size))
        nn.init.kaiming_uniform_(self.weight, nonlinearity="relu")
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    def _on_grid(self) -> tuple[Tensor, Tensor | None]:
        scale = 2.0**WEIGHT_BITS
        weight = self.weight.clamp(-MAX_INTEGER / scale, MAX_INTEGER / scale)
        weight = straight_through(weight, torch.round(weight * scale) / scale)
        if self.bias is None:
            return weight, None
        fine = 2.0**SUM_BITS
        return weight, straight_through(self.bias, torch.round(self.bias.double() * fine) / fine)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, h, w) multiples of 2^-8 -> (B, out, h, w) multiples of 2^-20; see the module."""
        weight, bias = self._on_grid()
        if self.training:
            bias = None if bias is None else bias.to(x.dtype)
            return nn.functional.conv2d(x, weight, bias, padding=self.size // 2)
        batch, _, height, width = x.shape
        # A matrix product by name: a convolution routine may pick an algorithm that is not exact.
        columns = nn.functional.unfold(x.double(), self.size, padding=self.size // 2)
        y = weight.double().flatten(1) @ columns
        if bias is not None:
            y = y + bias.double()[:, None]
        return y.reshape(batch, -1, height, width)

    def quantized(self) -> IntegerWeights:
        """The integers that the layer computes with."""
        weight, bias = self._on_grid()
        rounded = torch.round(weight.detach().double() * 2**WEIGHT_BITS)
        if bias is None:
            bias = torch.zeros(len(weight), dtype=torch.float64)
        return IntegerWeights(
            rounded.to(torch.int64).cpu().numpy(),
            torch.round(bias.detach().double() * 2**SUM_BITS).to(torch.int64).cpu().numpy(),
        )


def integer_relu(x: Tensor) -> Tensor:
    """A sum as the next layer's activation: ReLU, clip, and round to multiples of 2^-8."""
    scale = 2.0**ACTIVATION_BITS
    inside = x.clamp(0, MAX_INTEGER / scale)
    return straight_through(inside, torch.floor(inside * scale + 0.5) / scale)
