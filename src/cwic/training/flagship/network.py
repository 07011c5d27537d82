r"""Wires the flagship's network.

    x -> analysis -> y, features -> importance net -> levels s (integer, centred)
    gain = 2^((q + s) / 4);  hyper-analysis(y, q, s) -> z (integer)
    step by step: mean m and coding table of a symbol from z, s, q and what is decoded,
    symbol = round((y - m) gain),  decoded latent = m + symbol / gain
    synthesis(decoded latents, what z, s and q say) -> picture
    fast(the same) -> picture, with a third of the work
    preview(the first group of them, what z, s and q say) -> picture at 1/8 of its size

q and s count quarter octaves of the step size: four more halve it. Analysis and synthesis see the
picture's own cells alone; for the hyper-latents, each of which covers 4 x 4 cells, latents and
levels are repeated beyond them, and symbols there are 0 and cost nothing. Leaves the transforms to
:mod:`.transforms` and the probabilities to :mod:`.entropy`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from cwic.coding.exact_arithmetic import ACTIVATION_BITS
from cwic.families.flagship.grid import HYPER_LATENTS, LATENT_PX, Q_UNITS
from cwic.families.flagship.latents import MAX_SYMBOL
from cwic.families.flagship.levels import MAX_LEVEL
from cwic.families.flagship.step_network import MAX_HYPER
from cwic.training.config import NetworkConfig
from cwic.training.flagship.entropy import (
    HyperModel,
    LevelModel,
    MeanNetwork,
    ScaleNetwork,
    bounded_table,
    inverse_scale,
    magnitude_table,
    rounded_table,
    symbol_bits,
    table_bits,
)
from cwic.training.flagship.transforms import (
    Analysis,
    EdgeBlock,
    HyperAnalysis,
    ImportanceNet,
    Preview,
    ResidualBlock,
    Synthesis,
    SynthesisSizes,
    condition,
)
from cwic.training.integer_layers import round_half_up
from cwic.training.logistic import logistic_bits

# Gain on He's initialisation of the last layer of the analysis: latents start out a few steps wide.
_LATENT_GAIN = 2.0


@dataclass(frozen=True)
class FlagshipConfig(NetworkConfig):
    """Sizes and switches of a flagship network."""

    multiple_px: ClassVar[int] = LATENT_PX

    edge_channels: int = 32  # at 1/4 of the picture's size
    edge_blocks: int = 1  # blocks of two 3x3 convolutions at 1/4, synthesis only
    width_8: int = 128  # channels at 1/8
    width_16: int = 192  # channels at 1/16
    analysis_blocks_8: int = 4
    analysis_blocks_16: int = 3
    synthesis_blocks_8: int = 6
    synthesis_blocks_16: int = 3
    groups: tuple[int, ...] = (16, 32, 48, 96)  # latent channels, coded in 2 passes a group
    detail_channels: int = 0  # how many of them, the last ones, go past 1/16
    hyper_channels: int = 48  # at 1/64
    hyper_width: int = 64  # hidden channels of the way from and to the hyper-latents
    mean_width: int = 128  # state of the mean network
    scale_width: int = 96  # state of the scale network, which is evaluated in integers
    analysis_sees_q: bool = False  # True: a search for a size runs the analysis' second half
    importance_map: bool = True
    fast: SynthesisSizes = field(default_factory=SynthesisSizes)  # of the light synthesis
    min_q: float = -11.0  # quarter octaves of the step size that the network is trained for:
    max_q: float = 10.0  # quality 0 and quality 100

    def __post_init__(self) -> None:
        if not 1 <= len(self.groups) <= 5:
            raise ValueError(
                f"groups must be 1 to 5 (2 to 10 coding steps), found {len(self.groups)}"
            )
        sizes = (self.edge_channels, self.width_8, self.width_16, self.hyper_channels)
        if min(*sizes, *self.groups) < 1 or self.width_8 % 2 or self.width_16 % 2:
            raise ValueError(
                f"channels must be at least 1, width_8 and width_16 even, "
                f"found {sizes} and groups {self.groups}"
            )
        if not 0 <= self.detail_channels < self.latent_channels:
            raise ValueError(
                f"detail_channels must be fewer than the {self.latent_channels} of all groups, "
                f"found {self.detail_channels}"
            )
        if not -12 <= self.min_q < self.max_q <= 12:
            raise ValueError(
                f"min_q must lie below max_q, both in [-12, 12], "
                f"found {self.min_q} and {self.max_q}"
            )

    @property
    def latent_channels(self) -> int:
        """M."""
        return sum(self.groups)

    @property
    def synthesis(self) -> SynthesisSizes:
        """Of the full synthesis."""
        return SynthesisSizes(
            self.edge_channels,
            self.edge_blocks,
            self.width_8,
            self.width_16,
            self.synthesis_blocks_8,
            self.synthesis_blocks_16,
        )


class Noise(NamedTuple):
    """Uniform in [-1/2, 1/2]: stands in for rounding where the rate is differentiated."""

    latents: Tensor  # (B, M, H / 16, W / 16)
    hyper: Tensor  # (B, hyper_channels, H / 64, W / 64), sides rounded up

    def part(self, part: "Part", cells: tuple[int, int]) -> "Noise":
        """Of a part of the picture, with none beyond its own cells, on `cells` (h, w)."""
        own = self.latents[:, :, *part.cells]
        missing = [side - found for side, found in zip(cells, own.shape[2:], strict=True)]
        latents = nn.functional.pad(own, (0, missing[1], 0, missing[0]))
        return Noise(latents, self.hyper[:, :, *part.hyper_cells])


class Part(NamedTuple):
    """A rectangle of a picture whose latents are predicted from nothing outside it: a tile."""

    top: int  # in cells; top and left are multiples of 4
    left: int
    bottom: int
    right: int

    @property
    def cells(self) -> tuple[slice, slice]:
        """Rows and columns of cells."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    @property
    def hyper_cells(self) -> tuple[slice, slice]:
        """Rows and columns of hyper-latents."""
        ends = (self.top, self.bottom, self.left, self.right)
        top, bottom, left, right = (-(-end // HYPER_LATENTS) for end in ends)
        return slice(top, bottom), slice(left, right)


class Cut(NamedTuple):
    """A line at which the entropy model is cut in two, as at the border of tiles."""

    horizontal: bool
    cell: int  # the first one beyond the line, a multiple of 4

    def parts(self, height: int, width: int) -> tuple[Part, Part]:
        """Of a picture of so many cells."""
        if self.horizontal:
            return Part(0, 0, self.cell, width), Part(self.cell, 0, height, width)
        return Part(0, 0, height, self.cell), Part(0, self.cell, height, width)


class Coded(NamedTuple):
    """What the coder makes of latents."""

    decoded: Tensor  # (B, M, h, w)
    prior: Tensor  # (B, mean width, h, w), features of the hyper-latents for the synthesis
    latent_bits: Tensor  # (B,)
    hyper_bits: Tensor  # (B,)
    level_bits: Tensor  # (B,)


class FlagshipOutput(NamedTuple):
    """What one pass gives."""

    reconstruction: Tensor  # (B, 3, H, W), nominally [-0.5, 0.5]
    fast: Tensor | None  # (B, 3, H, W), likewise, of the light synthesis; None without it
    preview: Tensor  # (B, 3, H / 8, W / 8), likewise
    level: Tensor  # (B, 1, h, w) float holding integers -8..8
    q: Tensor  # (B,) of the header, in quarter octaves, multiples of 1 / 64
    latent_bits: Tensor  # (B,)
    hyper_bits: Tensor  # (B,)
    level_bits: Tensor  # (B,)

    @property
    def bits(self) -> Tensor:
        """(B,) all that is coded."""
        return self.latent_bits + self.hyper_bits + self.level_bits


def centred_levels(importance: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """Integer levels of an importance map, and the q that a header states with them.

    s = round(importance - its mean over the picture), clipped to -8..8. Rounding leaves a mean of
    its own; the header takes it back: q_header = (64 q - round(64 mean(s))) / 64. So the mean of
    q_header + s is q, to half a unit of the header, whatever the map.

    Args:
        importance: (B, 1, h, w) in quarter octaves, any mean.
        q: (B,) in quarter octaves, multiples of 1 / 64.

    Returns:
        s (B, 1, h, w) float holding integers, q_header (B,); straight-through gradients.
    """
    importance = importance.float()
    centred = importance - importance.mean(dim=(2, 3), keepdim=True)
    level = round_half_up(centred.clamp(-MAX_LEVEL, MAX_LEVEL))
    mean = level.mean(dim=(1, 2, 3))
    return level, q - round_half_up(mean * Q_UNITS) / Q_UNITS


class FlagshipNetwork(nn.Module):
    """One model for every rate and every importance map."""

    magnitudes: Tensor
    costs: Tensor

    def __init__(self, config: FlagshipConfig):
        super().__init__()
        self.config = config
        latents = config.latent_channels
        self.analysis = Analysis(
            config.edge_channels,
            config.width_8,
            config.width_16,
            config.analysis_blocks_8,
            config.analysis_blocks_16,
            latents,
            config.detail_channels,
            config.analysis_sees_q,
        )
        if config.importance_map:
            self.importance_net = ImportanceNet(config.width_16)
        self.hyper_analysis = HyperAnalysis(latents, 2 * config.hyper_width, config.hyper_channels)
        self.hyper_model = HyperModel(config.hyper_channels)
        self.level_model = LevelModel()
        context = (config.hyper_channels, config.hyper_width)
        self.mean_network = MeanNetwork(*context, config.mean_width, config.groups)
        self.scale_network = ScaleNetwork(*context, config.scale_width, config.groups)
        entering = (latents, config.detail_channels, config.mean_width)
        self.synthesis = Synthesis(config.synthesis, *entering)
        self.fast = Synthesis(config.fast, *entering)
        self.preview = Preview(config.groups[0], config.mean_width)
        magnitudes = torch.from_numpy(magnitude_table()).float() / 2**ACTIVATION_BITS
        self.register_buffer("magnitudes", magnitudes, persistent=False)
        costs = torch.from_numpy(table_bits()).float().flatten()
        self.register_buffer("costs", costs, persistent=False)
        self._initialize()

    def _initialize(self) -> None:
        """He's initialisation, residual branches closed, a flat map, a faint picture."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=0.1)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, ResidualBlock | EdgeBlock):
                nn.init.zeros_(module.last.weight)
        for network in (self.mean_network, self.scale_network):
            for name, module in network.named_modules():
                if name.startswith("head."):
                    module.weight.data.mul_(0.1)
        with torch.no_grad():
            self.analysis.to_latents.weight.mul_(_LATENT_GAIN)
            for synthesis in (self.synthesis, self.fast):
                if synthesis.enter_8 is not None:
                    synthesis.enter_8.weight.zero_()
                synthesis.edge.weight.mul_(0.1)
            self.preview.last.weight.mul_(0.1)
            # As an analysis that does not see q: what is restored from one is the same at first.
            for layer in (self.analysis.from_q, self.analysis.move_details):
                if layer is not None:
                    layer.weight.zero_()
        if self.config.importance_map:
            nn.init.zeros_(self.importance_net.last.weight)

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Those that no decoder has: of the analysis, its map and the hyper-analysis."""
        yield from self.analysis.parameters()
        yield from self.hyper_analysis.parameters()
        if self.config.importance_map:
            yield from self.importance_net.parameters()

    def entropy_parameters(self) -> Iterator[nn.Parameter]:
        """Those that no latent depends on, and no picture of full size: expectations, preview."""
        for module in (
            self.hyper_model,
            self.level_model,
            self.mean_network,
            self.scale_network,
            self.preview,
        ):
            yield from module.parameters()

    def forward(
        self,
        x: Tensor,
        q: Tensor,
        offset: Tensor,
        noise: Noise | None = None,
        with_map: bool = True,
        hard: bool = False,
        with_fast: bool = False,
        cut: Cut | None = None,
    ) -> FlagshipOutput:
        """One pass.

        In training mode rates are differentiable estimates. In evaluation mode they are what the
        coding tables cost, and table indices those of the integer network, exactly.

        Args:
            x: (B, 3, H, W) in [-0.5, 0.5], H and W multiples of 16.
            q: (B,) in quarter octaves, multiples of 1 / 64.
            offset: (B, 1, H / 16, W / 16) added to the importance map, in quarter octaves.
            noise: for the rates of a training pass that is not hard.
            with_map: False leaves the network's own map out.
            hard: rates of rounded values, with straight-through gradients.
            with_fast: the light synthesis runs too.
            cut: where the entropy model sees nothing beyond a line, as at a tile's border; the
                transforms see across it.
        """
        y, features = self.analysis(x, q)
        importance = offset
        if with_map and self.config.importance_map:
            importance = importance + self.importance_net(features)
        level, q = centred_levels(importance, q)
        parts: tuple[Part, ...] = (Part(0, 0, *y.shape[2:]),)
        axis = 3
        if cut is not None:
            parts, axis = cut.parts(*y.shape[2:]), 2 if cut.horizontal else 3
        coded = [
            self._code(y[:, :, *part.cells], level[:, :, *part.cells], q, part, noise, hard)
            for part in parts
        ]
        decoded, prior = (
            torch.cat([getattr(part, name) for part in coded], dim=axis)
            for name in ("decoded", "prior")
        )
        latent_bits, hyper_bits, level_bits = (
            torch.stack([getattr(part, name) for part in coded]).sum(dim=0)
            for name in ("latent_bits", "hyper_bits", "level_bits")
        )
        planes = condition(q, level)
        return FlagshipOutput(
            self.synthesis(decoded, prior, planes),
            self.fast(decoded, prior, planes) if with_fast else None,
            self.preview(decoded[:, : self.config.groups[0]], prior, planes),
            level,
            q,
            latent_bits,
            hyper_bits,
            level_bits,
        )

    def _code(
        self, y: Tensor, level: Tensor, q: Tensor, part: Part, noise: Noise | None, hard: bool
    ) -> Coded:
        """Hyper-latents and latents of a part; y (B, M, h, w), level (B, 1, h, w)."""
        height, width = y.shape[2:]
        level_bits = self.level_model(level)
        missing = (0, -width % HYPER_LATENTS, 0, -height % HYPER_LATENTS)
        y, level = (nn.functional.pad(plane, missing, "replicate") for plane in (y, level))
        planes = condition(q, level)
        z_soft = self.hyper_analysis(y, planes)
        z = round_half_up(z_soft.clamp(-MAX_HYPER, MAX_HYPER))
        part_noise = None
        if self.training and not hard:
            assert noise is not None
            part_noise = noise.part(part, (y.shape[2], y.shape[3]))
            hyper_bits = self.hyper_model(z_soft + part_noise.hyper, q)
        else:
            hyper_bits = self.hyper_model(z, q)
        inside = None
        if (height, width) != y.shape[2:]:
            inside = torch.zeros(y.shape[2:], dtype=torch.bool, device=y.device)
            inside[:height, :width] = True
        decoded, prior, latent_bits = self._code_latents(y, z, level, q, planes, part_noise, inside)
        own = (slice(None), slice(None), slice(height), slice(width))
        return Coded(
            decoded[own],
            prior[own],
            latent_bits[own].sum(dim=(1, 2, 3)),
            hyper_bits.sum(dim=(1, 2, 3)),
            level_bits.sum(dim=(1, 2, 3)),
        )

    def _code_latents(
        self,
        y: Tensor,
        z: Tensor,
        level: Tensor,
        q: Tensor,
        planes: Tensor,
        noise: Noise | None,
        inside: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Decoded latents (B, M, h, w), the synthesis' prior features, bits (B, M, h, w).

        `inside` (h, w) marks the picture's own cells; None: all are. The others have symbol 0, and
        their bits are not to be counted.
        """
        height, width = y.shape[2:]
        row = torch.arange(height, device=y.device)[:, None]
        column = torch.arange(width, device=y.device)
        first = (row + column) % 2 == 0
        gain = torch.exp2((q[:, None, None, None] + level) / 4)
        scale_planes = torch.cat([level, q[:, None, None, None].expand_as(level)], dim=1)
        mean_state = self.mean_network.begin(z, planes)
        scale_state = self.scale_network.begin(z, scale_planes)
        prior = self.mean_network.activate(mean_state)
        all_decoded, all_bits = [], []
        ends = list(accumulate(self.config.groups))
        for group, end in enumerate(ends):
            own = y[:, end - self.config.groups[group] : end]
            group_noise = None
            if noise is not None:
                group_noise = noise.latents[:, end - self.config.groups[group] : end]
            of_pass = []
            for second in (0, 1):
                mean = self.mean_network.predict(mean_state, group, second).float()
                table = self.scale_network.table(scale_state, scale_planes, group, second)
                exact = (own - mean) * gain
                symbol = round_half_up(exact)
                if inside is not None:
                    symbol = torch.where(inside, symbol, 0.0)
                here = first if second == 0 else ~first
                decoded = torch.where(here, mean + symbol / gain, 0.0)
                of_pass.append((decoded, exact, symbol, table))
                if end < ends[-1] or second == 0:
                    size = symbol.detach().abs().clamp(max=MAX_SYMBOL).long()
                    known = torch.where(here, self.magnitudes[size], 0.0)
                    mean_state = self.mean_network.absorb(mean_state, group, decoded)
                    scale_state = self.scale_network.absorb(scale_state, group, known)
            before, after = of_pass
            all_decoded.append(before[0] + after[0])
            exact, symbol, table = (
                torch.where(first, one, other)
                for one, other in zip(before[1:], after[1:], strict=True)
            )
            all_bits.append(self._bits(exact, symbol, table, group_noise))
        return torch.cat(all_decoded, dim=1), prior, torch.cat(all_bits, dim=1)

    def _bits(self, exact: Tensor, symbol: Tensor, table: Tensor, noise: Tensor | None) -> Tensor:
        """Bits of symbols: by the tables in evaluation, else differentiable."""
        if not self.training:
            return symbol_bits(symbol, rounded_table(table).long(), self.costs)
        table = table.float()
        if noise is None:
            return logistic_bits(symbol, inverse_scale(rounded_table(table)))
        return logistic_bits(exact + noise, inverse_scale(bounded_table(table)))
