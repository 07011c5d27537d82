"""Analysis and synthesis transforms of the `cvpr2018` family (the paper's encoder and decoder).

The default is the layer table of the authors' released model; `variant="paper"` is that of the
paper's text (no third convolution in the encoder, a 1x1 first and no third one in the decoder, a
3x3 last). `width` scales every hidden channel count and leaves the code as it is.
"""

from typing import Literal

import torch
from torch import Tensor, nn

Variant = Literal["released", "paper"]


def normalized(pixels: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 in [-1, 1], channels last in memory."""
    return (pixels.permute(0, 3, 1, 2).float() - 127.5) / 127.5


def to_bytes(x: Tensor) -> Tensor:
    """(B, 3, H, W) nominally in [-1, 1] -> (B, H, W, 3) uint8."""
    pixels = torch.round(torch.clamp(x * 127.5 + 127.5, 0, 255))
    return pixels.to(torch.uint8).permute(0, 2, 3, 1)


def base_channels(width: float) -> int:
    """The paper's 128 channels times `width`, a multiple of 8, at least 8.

    The other hidden widths are multiples of this one: 256 = 2 x, 512 = 4 x, 32 = x / 4.
    """
    return max(8, 8 * round(128 * width / 8))


class ResidualBlock(nn.Module):
    """y = ReLU(x + ReLU(conv(ReLU(conv(x))))), two 3x3 convolutions, no normalisation."""

    def __init__(self, channels: int, inner: int):
        super().__init__()
        self.first = nn.Conv2d(channels, inner, 3, padding=1)
        self.second = nn.Conv2d(inner, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, h, w) -> same shape."""
        inner = nn.functional.relu(self.first(x))
        return nn.functional.relu(x + nn.functional.relu(self.second(inner)))


class AnalysisTransform(nn.Module):
    """Picture -> features F(x) at 1/8 of its size; the code and the map are read off these."""

    def __init__(self, width: float, variant: Variant):
        super().__init__()
        c128 = base_channels(width)
        c256 = 2 * c128
        layers: list[nn.Module] = [
            nn.Conv2d(3, c128, 8, stride=4, padding=2),
            nn.ReLU(),  # (B, c128, H/4, W/4)
            ResidualBlock(c128, c128),
            nn.Conv2d(c128, c256, 4, stride=2, padding=1),
            nn.ReLU(),  # (B, c256, H/8, W/8)
            ResidualBlock(c256, c128),
        ]
        if variant == "released":
            layers += [nn.Conv2d(c256, c256, 3, padding=1), nn.ReLU()]
        layers += [ResidualBlock(c256, c128)]
        self.layers = nn.Sequential(*layers)
        self.out_channels = c256

    def forward(self, x: Tensor) -> Tensor:
        """x (B, 3, H, W) in [-1, 1], H and W multiples of 8 -> (B, out_channels, H/8, W/8)."""
        features: Tensor = self.layers(x)
        return features


class SynthesisTransform(nn.Module):
    """Masked code -> picture. A masked bit and a 0 look the same to it, as in the paper."""

    def __init__(self, code_channels: int, width: float, variant: Variant):
        super().__init__()
        c128 = base_channels(width)
        c256, c512, c32 = 2 * c128, 4 * c128, max(8, c128 // 4)
        first_size = 3 if variant == "released" else 1
        layers: list[nn.Module] = [
            nn.Conv2d(code_channels, c512, first_size, padding=first_size // 2),
            nn.ReLU(),
            ResidualBlock(c512, c128),
        ]
        if variant == "released":
            layers += [nn.Conv2d(c512, c512, 3, padding=1), nn.ReLU()]
        last_size = 1 if variant == "released" else 3
        layers += [
            ResidualBlock(c512, c128),
            nn.PixelShuffle(2),  # (B, c512 / 4, H/4, W/4)
            nn.Conv2d(c512 // 4, c256, 3, padding=1),
            nn.ReLU(),
            ResidualBlock(c256, c128),
            nn.PixelShuffle(4),  # (B, c256 / 16, H, W)
            nn.Conv2d(c256 // 16, c32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(c32, 3, last_size, padding=last_size // 2),
        ]
        self.layers = nn.Sequential(*layers)

    @property
    def last(self) -> nn.Conv2d:
        """The convolution that gives the picture."""
        layer = self.layers[-1]
        assert isinstance(layer, nn.Conv2d)
        return layer

    def forward(self, code: Tensor) -> Tensor:
        """code (B, n, h, w) in {0, 1} -> (B, 3, 8 h, 8 w), nominally in [-1, 1], not clipped."""
        x: Tensor = self.layers(code)
        return x
