"""Wires the boxes of the paper's figure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, overload

import torch
from torch import Tensor, nn

from cwic.families.cvpr2018.coder import MAX_CHANNEL_DELAY, MAX_CODE_CHANNELS
from cwic.families.cvpr2018.family import CELL_PX
from cwic.training.config import NetworkConfig
from cwic.training.cvpr2018.binarizer import binarize
from cwic.training.cvpr2018.context import CodeContext, LevelContext, information
from cwic.training.cvpr2018.importance_map import (
    ImportanceMapNet,
    MaskGradient,
    QuantizerForm,
    kept_channels,
    prefix_mask,
    quantize_levels,
)
from cwic.training.cvpr2018.transforms import (
    AnalysisTransform,
    ResidualBlock,
    SynthesisTransform,
    Variant,
    base_channels,
)


@dataclass(frozen=True)
class Cvpr2018Config(NetworkConfig):
    """Sizes and switches of a `cvpr2018` network.

    Switches: `binarizer` and `importance_map` off is the plain autoencoder; only the map off is
    the binary codec of one fixed rate; both on is the paper.
    """

    multiple_px: ClassVar[int] = CELL_PX

    width: float = 1.0  # factor on every hidden channel count; 1/16 is the 8-channel test network
    variant: Variant = "released"  # layer table: the released model's or the paper's text's
    code_channels: int = 64  # n, bits a cell of 8 x 8 pixels can keep
    levels: int = 16  # L, levels of the importance map; divides n
    quantizer: QuantizerForm = "released"  # kept channels: (n/L)(Q + 1), or the paper's (n/L) Q
    mask_gradient: MaskGradient = "window"  # proxy gradient of the mask
    binarizer: bool = True
    importance_map: bool = True
    min_rate_offset: float = -3.0  # offsets on the map's logits that the network is trained for:
    max_rate_offset: float = 1.5  # quality 0 and 100 of the exported model; equal: one rate
    context_maps: int = 4  # channels of the entropy coder's cube, the coded one included
    context_reach: int = 2  # cells of the cube on each side; 2 is the paper's 5 x 5
    context_width: int = 48  # first layer of the entropy coder's network
    channel_delay: int = 3  # order of coding, see CodeLayout

    def __post_init__(self) -> None:
        if not 0 < self.width <= 4:
            raise ValueError(f"width must lie in (0, 4], found {self.width}")
        if (
            not 2 <= self.levels <= 256
            or self.levels & (self.levels - 1)
            or not 1 <= self.code_channels <= MAX_CODE_CHANNELS
            or self.code_channels % self.levels
        ):
            raise ValueError(
                f"levels must be a power of two from 2 to 256 that divides code_channels, which "
                f"must be at most {MAX_CODE_CHANNELS}, found {self.levels} and {self.code_channels}"
            )
        for name, low, high in (
            ("min_rate_offset", -16, 16),
            ("max_rate_offset", -16, 16),
            ("context_maps", 1, 8),
            ("context_reach", 0, 2),
            ("channel_delay", 1, MAX_CHANNEL_DELAY),
        ):
            if not low <= getattr(self, name) <= high:
                found = getattr(self, name)
                raise ValueError(f"{name} must lie in [{low}, {high}], found {found}")
        if not self.min_rate_offset <= self.max_rate_offset:
            raise ValueError(
                f"min_rate_offset must not lie above max_rate_offset, "
                f"found {self.min_rate_offset} and {self.max_rate_offset}"
            )


class Cvpr2018Output(NamedTuple):
    """What one pass of the network gives; all float."""

    reconstruction: Tensor  # (B, 3, H, W), nominally [-1, 1]
    code: Tensor  # (B, n, h, w), masked; {0, 1} with the binarizer, else [0, 1]
    importance: Tensor | None  # p, (B, 1, h, w) in (0, 1); None without the map
    kept_fraction: Tensor  # (B,) mask ones / mask positions, in [0, 1]


class CodedBits(NamedTuple):
    """What the entropy coder spends on a picture."""

    code_bits: Tensor  # (B,) on the bits of the code; of some channels, scaled up to all
    level_bits: Tensor  # (B,) on the importance map
    kept_bits: Tensor  # (B,) number of bits that the mask keeps


class Cvpr2018Network(nn.Module):
    r"""Content-weighted autoencoder of the CVPR 2018 paper.

    x -> analysis -> F(x) -> 1x1 convolution, sigmoid -> binarizer -> bits
                       \-> importance map net -> p -> quantizer -> mask -> bits * mask -> synthesis

    A rate offset on the logits of p, before the sigmoid, lets one network serve a range of rates.
    """

    def __init__(self, config: Cvpr2018Config):
        super().__init__()
        self.config = config
        self.analysis = AnalysisTransform(config.width, config.variant)
        features = self.analysis.out_channels
        self.to_code = nn.Conv2d(features, config.code_channels, 1)
        if config.importance_map:
            self.importance_net = ImportanceMapNet(
                features, base_channels(config.width), config.variant
            )
        self.synthesis = SynthesisTransform(config.code_channels, config.width, config.variant)
        self._initialize()
        if config.binarizer and config.importance_map:
            self.code_context = CodeContext(
                config.code_channels,
                config.levels,
                config.context_maps,
                config.context_reach,
                config.context_width,
                config.channel_delay,
            )
            self.level_context = LevelContext(config.levels)

    def _initialize(self) -> None:
        """He's initialisation, faint residual branches, a faint picture, and decided bits.

        The paper's Xavier everywhere halves the variance at each ReLU, so that the sigmoids start
        out undecided and the picture noisy. Branches must not start at zero: they end in a ReLU,
        whose derivative there is zero, and would stay shut.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, ResidualBlock):
                with torch.no_grad():
                    module.second.weight.mul_(0.1)
        nn.init.xavier_uniform_(self.to_code.weight, gain=6)
        nn.init.xavier_uniform_(self.synthesis.last.weight, gain=0.1)

    def analyze(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """x (B, 3, H, W) in [-1, 1] -> sigmoid code (B, n, h, w), map logits (B, 1, h, w)."""
        # In bfloat16 one kept bit in twenty would be another, and the network learn to expect that.
        with torch.autocast(x.device.type, enabled=False):
            features = self.analysis(x.float())
            logits = self.importance_net(features) if self.config.importance_map else None
            return torch.sigmoid(self.to_code(features)), logits

    def entropy_parameters(self) -> Iterator[nn.Parameter]:
        """Those that only the entropy coder depends on."""
        for module in (self.code_context, self.level_context):
            yield from module.parameters()

    def coded_bits(
        self, x: Tensor, rate_offset: Tensor | float, channels: Tensor | None = None
    ) -> CodedBits:
        """What the entropy coder spends on some channels (None: all); see :meth:`forward`.

        Gradients reach its own networks alone.
        """
        config = self.config
        n = config.code_channels
        with torch.no_grad():
            e, logits = self.analyze(x)
            assert logits is not None
            code = (e.float() > 0.5).float()
            p = torch.sigmoid(logits.float() + rate_offset)
            level = quantize_levels(p, config.levels)
            kept = kept_channels(level, n, config.levels, config.quantizer)
        if channels is None:
            channels = torch.arange(n, device=x.device)
        # bfloat16 is coarser than the grid of activations.
        with torch.autocast(x.device.type, enabled=False):
            logit = self.code_context(code, kept, level, channels)
            level_bits = self.level_context(level)
        bits = information(logit, code[:, channels])
        inside = channels.view(1, -1, 1, 1) < kept
        share = n / len(channels)
        return CodedBits(
            share * torch.where(inside, bits, 0.0).sum(dim=(1, 2, 3)),
            level_bits.sum(dim=(1, 2, 3)),
            kept.sum(dim=(1, 2, 3)),
        )

    @overload
    def forward(
        self, x: Tensor, rate_offset: Tensor | float = ..., with_map: bool = ...
    ) -> Cvpr2018Output: ...

    @overload
    def forward(
        self, x: Tensor, rate_offset: Tensor | float, with_map: bool, channels: Tensor
    ) -> CodedBits: ...

    def forward(
        self,
        x: Tensor,
        rate_offset: Tensor | float = 0.0,
        with_map: bool = True,
        channels: Tensor | None = None,
    ) -> Cvpr2018Output | CodedBits:
        """One pass.

        Args:
            x: (B, 3, H, W) in [-1, 1], H and W multiples of 8.
            rate_offset: added to the logits of the map; a number, a scalar tensor or (B, 1, 1, 1).
            with_map: False skips the map even if the network has one (the first stage of training).
            channels: if given, no picture but :meth:`coded_bits`: one entry for every training.
        """
        if channels is not None:
            return self.coded_bits(x, rate_offset, channels)
        config = self.config
        e, logits = self.analyze(x)
        bits = binarize(e) if config.binarizer else e
        if logits is None or not with_map:
            everything = torch.ones(x.shape[0], device=x.device)
            return Cvpr2018Output(self.synthesis(bits), bits, None, everything)
        p = torch.sigmoid(logits.float() + rate_offset)
        mask = prefix_mask(
            p, config.code_channels, config.levels, config.quantizer, config.mask_gradient
        )
        code = bits * mask.to(bits.dtype)
        with torch.no_grad():
            level = quantize_levels(p, config.levels)
            kept = kept_channels(level, config.code_channels, config.levels, config.quantizer)
            kept_fraction = kept.mean(dim=(1, 2, 3)) / config.code_channels
        return Cvpr2018Output(self.synthesis(code), code, p, kept_fraction)
