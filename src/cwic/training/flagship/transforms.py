"""Transforms of the flagship: picture -> latents at 1/16, and back.

Nearly all the work is done at 1/8 and 1/16. Between the picture and 1/8 lie a few channels at 1/4
and convolutions that overlap on both sides of every boundary: a transform that cuts the picture
into blocks of 8 leaves a grid in it. Without its residual branches either transform is linear, as
the highest rates want it. What passes 1/16 has fewer numbers than the picture has; the details that
the highest rates want go past it, from 1/8 to 1/8. The hyper-analysis, which sees latents only, is
here too.

Shapes: (h, w) = (H / 16, W / 16) is the size of the latents, M their channels.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cwic.families.flagship.latents import CONDITION_PLANES
from cwic.families.flagship.step_network import MEAN_SLOPE

# The edges of both transforms work at 1 / EDGE_PX of the picture's size.
EDGE_PX = 4


def normalized(pixels: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 in [-0.5, 0.5], channels last in memory."""
    return pixels.permute(0, 3, 1, 2).float() / 255 - 0.5


def to_bytes(x: Tensor) -> Tensor:
    """(B, ., h, w) nominally in [-0.5, 0.5] -> same shape, uint8."""
    return torch.round(torch.clamp(x * 255 + 127.5, 0, 255)).to(torch.uint8)


def activate(x: Tensor) -> Tensor:
    """Leaky ReLU: inference engines fuse it into the convolution before it.

    Steeper than PyTorch's 0.01: hardly any unit is lost in the first thousand steps.
    """
    return nn.functional.leaky_relu(x, MEAN_SLOPE)


def condition(q: Tensor, level: Tensor) -> Tensor:
    """The step size as planes that enter the networks beside their other inputs.

    A plane that enters with the first layer of a residual network acts as a bias of every block,
    at no cost. q (B,) of the picture and levels (B, 1, h, w) of its map, both in quarter octaves of
    the step size -> (B, CONDITION_PLANES, h, w), magnitudes of about 1.
    """
    q = q[:, None, None, None].expand_as(level)
    total = (q + level) / 8
    step = torch.exp2(-2 * total)  # 2^(-(q + s) / 4)
    return torch.cat([total, total.square(), step / 2, 1 / (2 * step), q / 8], dim=1)


def conv(in_channels: int, out_channels: int, size: int, stride: int = 1) -> nn.Conv2d:
    """A convolution whose output has 1 / stride of its input's size."""
    return nn.Conv2d(in_channels, out_channels, size, stride, padding=(size - stride + 1) // 2)


class ResidualBlock(nn.Module):
    """x + 1x1(3x3(1x1(x))), half as many channels inside.

    In training on a CPU it takes less time than 1x1, depthwise 3x3, 1x1 at full width, with 1.6
    times the multiplications of that.
    """

    def __init__(self, channels: int):
        super().__init__()
        inner = channels // 2
        self.reduce = conv(channels, inner, 1)
        self.mix = conv(inner, inner, 3)
        self.expand = conv(inner, channels, 1)

    @property
    def last(self) -> nn.Conv2d:
        """The convolution that closes the branch."""
        return self.expand

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, h, w) -> same shape."""
        y: Tensor = self.expand(activate(self.mix(activate(self.reduce(x)))))
        return x + y


class EdgeBlock(nn.Module):
    """x + 3x3(3x3(x)), for the few channels near the picture."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = conv(channels, channels, 3)
        self.second = conv(channels, channels, 3)

    @property
    def last(self) -> nn.Conv2d:
        """The convolution that closes the branch."""
        return self.second

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, h, w) -> same shape."""
        y: Tensor = self.second(activate(self.first(x)))
        return x + y


def _blocks(kind: Callable[[int], nn.Module], channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(kind(channels) for _ in range(count)))


def _full_precision(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """A layer outside autocast: bfloat16 has no room for latents of many steps."""
    with torch.autocast(x.device.type, enabled=False):
        y: Tensor = layer(x.float())
        return y


class Analysis(nn.Module):
    """Picture -> latents y and features for the importance map, in two halves.

    The first half, :meth:`front`, does what lies at 1/8 and above and never knows the rate. The
    second, :meth:`rest`, lies at 1/16; an analysis that sees q sees it there, so that a search for
    a size repeats a small part of the work.
    """

    def __init__(
        self,
        edge_channels: int,
        width_8: int,
        width_16: int,
        blocks_8: int,
        blocks_16: int,
        latent_channels: int,
        detail_channels: int,
        sees_q: bool,
    ):
        """Channels at 1/4 (`edge_channels`), 1/8 and 1/16; residual blocks at 1/8 and 1/16.

        `detail_channels`: how many of the M latent channels, the last ones, are made at 1/8.
        `sees_q`: whether the picture's quality is an input of the second half.
        """
        super().__init__()
        self.width_16 = width_16
        # Each window overlaps its neighbours by half.
        self.edge = conv(3, edge_channels, 2 * EDGE_PX, EDGE_PX)
        self.to_8 = conv(edge_channels, width_8, 4, 2)
        self.blocks_8 = _blocks(ResidualBlock, width_8, blocks_8)
        self.to_16 = conv(width_8, width_16, 3, 2)
        self.blocks_16 = _blocks(ResidualBlock, width_16, blocks_16)
        self.to_latents = conv(width_16, latent_channels - detail_channels, 1)
        self.to_details = conv(width_8, detail_channels, 2, 2) if detail_channels else None
        # q enters with the features; details, which are made before it, are moved by what comes
        # of them. Both start at zero, see :class:`FlagshipNetwork`.
        self.from_q = conv(CONDITION_PLANES, width_16, 1) if sees_q else None
        moves_details = sees_q and detail_channels > 0
        self.move_details = conv(width_16, detail_channels, 1) if moves_details else None

    def forward(self, x: Tensor, q: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x (B, 3, H, W) in [-0.5, 0.5] -> y (B, M, h, w) float32, features (B, width_16, h, w).

        `q` (B,) in quarter octaves is looked at only by a network that sees it.
        """
        planes = None
        if self.from_q is not None:
            assert q is not None
            planes = condition(q, torch.zeros_like(q)[:, None, None, None])
        return self.rest(*self.front(x), planes)

    def front(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """x (B, 3, H, W) -> features (B, width_16, h, w), details (B, detail_channels, h, w)."""
        features_8 = self.blocks_8(self.to_8(self.edge(x)))
        details = None
        if self.to_details is not None:
            details = _full_precision(self.to_details, features_8)
        return self.to_16(features_8), details

    def rest(
        self, features: Tensor, details: Tensor | None, planes: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Of :meth:`front` to what :meth:`forward` gives.

        Args:
            features: (B, width_16, h, w).
            details: (B, detail_channels, h, w) float32; None without any.
            planes: :func:`condition` of q and levels of 0, (B, CONDITION_PLANES, h or 1, w or 1);
                looked at only by a network that sees q.
        """
        if self.from_q is not None:
            assert planes is not None
            features = features + self.from_q(planes)
        features = self.blocks_16(features)
        y = _full_precision(self.to_latents, features)
        if details is not None:
            if self.move_details is not None:
                details = details + _full_precision(self.move_details, features)
            y = torch.cat([y, details], dim=1)
        return y, features


class ImportanceNet(nn.Module):
    """Features of the analysis -> importance before it is centred and rounded."""

    def __init__(self, in_channels: int, hidden: int = 32):
        super().__init__()
        self.reduce = conv(in_channels, hidden, 1)
        self.mix = conv(hidden, hidden, 3)
        self.last = conv(hidden, 1, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 1, h, w) float32, in quarter octaves."""
        return _full_precision(self.last, activate(self.mix(activate(self.reduce(features)))))


class HyperAnalysis(nn.Module):
    """Latents, q and levels -> hyper-latents at a quarter of their size, not rounded."""

    def __init__(self, latent_channels: int, width: int, hyper_channels: int):
        super().__init__()
        self.reduce = conv(latent_channels + CONDITION_PLANES, width, 1)
        self.to_32 = conv(width, width, 4, 2)
        self.to_64 = conv(width, hyper_channels, 4, 2)

    def forward(self, y: Tensor, planes: Tensor) -> Tensor:
        """y (B, M, h, w), condition (B, ., h, w) -> (B, hyper_channels, h / 4, w / 4) float32."""
        features = activate(self.reduce(torch.cat([y, planes], dim=1)))
        return _full_precision(self.to_64, activate(self.to_32(features)))


class Preview(nn.Module):
    """First group of decoded latents -> the picture at 1/8 of its size."""

    def __init__(self, group_channels: int, prior_channels: int, hidden: int = 96):
        super().__init__()
        self.enter = conv(group_channels + prior_channels + CONDITION_PLANES, hidden, 1)
        self.last = conv(hidden, 3 * 2 * 2, 3)

    def forward(self, group: Tensor, prior: Tensor, planes: Tensor) -> Tensor:
        """Latents of the first group, prior and condition -> (B, 3, H / 8, W / 8).

        Shapes and range as of :class:`Synthesis`.
        """
        entered = torch.cat([group, prior.to(group.dtype), planes], dim=1)
        features = activate(_full_precision(self.enter, entered))
        return nn.functional.pixel_shuffle(_full_precision(self.last, features), 2)


@dataclass(frozen=True)
class SynthesisSizes:
    """Channels and blocks of a synthesis; the light one of the bundled models has the defaults."""

    edge_channels: int = 32  # at 1/4 of the picture's size
    edge_blocks: int = 1  # blocks of two 3x3 convolutions there
    width_8: int = 128  # channels at 1/8
    width_16: int = 160  # channels at 1/16
    blocks_8: int = 6  # residual blocks at 1/8
    blocks_16: int = 1  # residual blocks at 1/16


class Synthesis(nn.Module):
    """Decoded latents -> picture."""

    def __init__(
        self, sizes: SynthesisSizes, latent_channels: int, detail_channels: int, prior_channels: int
    ):
        """`detail_channels`: how many of the M latent channels, the last ones, enter at 1/8.

        `prior_channels`: of the features of the hyper-latents.
        """
        super().__init__()
        self.detail_channels = detail_channels
        width_8, width_16 = sizes.width_8, sizes.width_16
        entering = latent_channels - detail_channels + prior_channels + CONDITION_PLANES
        self.enter = conv(entering, width_16, 1)
        self.enter_8 = conv(detail_channels, 4 * width_8, 1) if detail_channels else None
        self.blocks_16 = _blocks(ResidualBlock, width_16, sizes.blocks_16)
        self.to_8 = conv(width_16, 4 * width_8, 1)
        self.blocks_8 = _blocks(ResidualBlock, width_8, sizes.blocks_8)
        self.to_4 = conv(width_8, 4 * sizes.edge_channels, 1)
        self.edge_blocks = _blocks(EdgeBlock, sizes.edge_channels, sizes.edge_blocks)
        # 3x3 at 1/4, then a shuffle: a lapped transform with windows of 12 at steps of 4.
        self.edge = conv(sizes.edge_channels, 3 * EDGE_PX**2, 3)

    def forward(self, decoded: Tensor, prior: Tensor, planes: Tensor) -> Tensor:
        """Latents (B, M, h, w), prior features, condition (B, ., h, w) -> the picture (B, 3, H, W).

        Nominally in [-0.5, 0.5], not clipped.
        """
        return nn.functional.pixel_shuffle(self.subpixels(decoded, prior, planes), EDGE_PX)

    def subpixels(self, decoded: Tensor, prior: Tensor, planes: Tensor) -> Tensor:
        """The picture before its last shuffle, (B, 3 * EDGE_PX^2, H / EDGE_PX, W / EDGE_PX)."""
        coarse_channels = decoded.shape[1] - self.detail_channels
        coarse, details = decoded[:, :coarse_channels], decoded[:, coarse_channels:]
        entered = torch.cat([coarse, prior.to(decoded.dtype), planes], dim=1)
        features = self.to_8(self.blocks_16(_full_precision(self.enter, entered)))
        if self.enter_8 is not None:
            features = features + _full_precision(self.enter_8, details)
        features = nn.functional.pixel_shuffle(features, 2)
        features = nn.functional.pixel_shuffle(self.to_4(self.blocks_8(features)), 2)
        result: Tensor = self.edge(self.edge_blocks(features))
        return result
