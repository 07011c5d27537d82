r"""Entropy model of the flagship: what a decoder can know of a symbol before it reads it.

Latents are coded in groups of channels, each group in two passes over a checkerboard, so that
2 x groups parallel steps do it all. Two networks of one shape walk these steps side by side:

* the mean network, in floating point, sees all that is decoded, dequantized latents included;
* the scale network sees integers alone (hyper-latents, levels, q, magnitudes of decoded symbols) in
  the arithmetic of :mod:`cwic.training.integer_layers`; it says which coding table a symbol has.

Both keep a state per position: a sum of convolutions of what is decoded so far. It is never
rounded, so what a group adds is computed once. Also here: the distribution behind the tables, and
the static models of hyper-latents and levels. The wiring is left to :mod:`.network`.
"""

from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cwic.coding.exact_arithmetic import ACTIVATION_BITS
from cwic.coding.symbol_tables import FREQUENCY_BITS
from cwic.families.flagship.coder import ESCAPE, RATE_CLASS_WIDTH, RATE_CLASSES
from cwic.families.flagship.latents import CONDITION_PLANES, MAX_SYMBOL
from cwic.families.flagship.levels import LEVEL_CONTEXTS, LEVEL_FRACTIONS, MAX_LEVEL_RESIDUAL
from cwic.families.flagship.step_network import (
    MAX_HYPER,
    MIDDLE_TABLE,
    NUM_TABLES,
    SMALLEST_SCALE,
    TABLE_GAIN,
    TABLES_PER_OCTAVE,
)
from cwic.training.flagship.transforms import activate, conv
from cwic.training.integer_layers import IntegerConv2d, IntegerWeights, integer_relu, round_half_up
from cwic.training.logistic import frequencies, logistic_bits, logistic_masses

# A symbol whose frequency is 0 still has its unit of 2^-24 in the range coder.
_IMPOSSIBLE_BITS = 24.0

LOG_SCALES = (-3.0, 4.0)  # natural logarithms of the scales of hyper-latents
STATISTICS_GAIN = 10.0  # statistics move as many times faster than their parameters


def inverse_scale(table: Tensor) -> Tensor:
    """1 / s of a table index, which need not be an integer."""
    return torch.exp2(-table / TABLES_PER_OCTAVE) / SMALLEST_SCALE


def coding_tables() -> npt.NDArray[np.int64]:
    """Frequencies of symbols -MAX_SYMBOL..MAX_SYMBOL and of the escape, out of 2^FREQUENCY_BITS.

    Returns:
        (NUM_TABLES, ESCAPE + 1), rows sum to 2^FREQUENCY_BITS, escapes are at least 1.
    """
    scale = SMALLEST_SCALE * 2.0 ** (np.arange(NUM_TABLES) / TABLES_PER_OCTAVE)
    p = logistic_masses(np.zeros(NUM_TABLES), scale, -MAX_SYMBOL, MAX_SYMBOL)
    escape = np.maximum(1 - p.sum(axis=1, keepdims=True), 2.0**-FREQUENCY_BITS)
    return frequencies(np.concatenate([p, escape], axis=1))


def table_bits() -> npt.NDArray[np.float64]:
    """Cost of each symbol in bits under :func:`coding_tables`, same shape."""
    tables = coding_tables()
    possible = np.log2(np.maximum(tables, 1)) - FREQUENCY_BITS
    return np.where(tables > 0, -possible, _IMPOSSIBLE_BITS)


def symbol_bits(symbol: Tensor, table: Tensor, costs: Tensor) -> Tensor:
    """What the coder spends on symbols, float holding integers, with tables 0..NUM_TABLES - 1.

    Same shape, bits; an escape with its sign and an Exp-Golomb number where one is needed. `costs`
    are those of :func:`table_bits`, flat.
    """
    beyond = symbol.abs() - MAX_SYMBOL
    index = torch.where(beyond > 0, ESCAPE, symbol.clamp(-MAX_SYMBOL, MAX_SYMBOL) + MAX_SYMBOL)
    bits = costs[table * (ESCAPE + 1) + index.long()]
    golomb = 2 + 2 * torch.floor(torch.log2(beyond.clamp(min=1)))
    return bits + torch.where(beyond > 0, golomb, 0.0)


def magnitude_table() -> npt.NDArray[np.int64]:
    """log2(1 + |symbol|) in units of 2^-ACTIVATION_BITS, for 0..MAX_SYMBOL: what contexts see."""
    magnitudes = np.log2(1 + np.arange(MAX_SYMBOL + 1)) * 2**ACTIVATION_BITS
    table: npt.NDArray[np.int64] = np.floor(magnitudes + 0.5).astype(np.int64)
    return table


class StepNetwork(nn.Module):
    """The shape that the mean and the scale network share; subclasses choose the arithmetic.

    state = from_hyper(z) + from_planes(planes) + sum of absorb[g](what group g decoded)
    prediction of step (g, pass) = head[g, pass](act(hidden[g, pass](act(state))))
    """

    plane_channels: ClassVar[int]  # of q and the levels

    def __init__(self, hyper_channels: int, hyper_width: int, width: int, groups: tuple[int, ...]):
        """`hyper_channels` of z, `hyper_width` at 1/64 and 1/32, `width` of the state."""
        super().__init__()
        layer = self.layer
        self.hyper_64 = layer(hyper_channels, hyper_width, 3)
        self.to_32 = layer(hyper_width, 4 * hyper_width, 1)
        self.hyper_32 = layer(hyper_width, hyper_width, 3)
        self.to_16 = layer(hyper_width, 4 * width, 1)
        self.from_planes = layer(self.plane_channels, width, 1)
        self.absorb_group = nn.ModuleList(layer(channels, width, 3) for channels in groups)
        self.hidden = nn.ModuleList(layer(width, width, 1) for _ in range(2 * len(groups)))
        self.head = nn.ModuleList(
            layer(width, channels, 1) for channels in groups for _ in range(2)
        )

    def layer(self, in_channels: int, out_channels: int, size: int) -> nn.Module:
        """A convolution that keeps height and width."""
        raise NotImplementedError

    def activate(self, x: Tensor) -> Tensor:
        """Between layers."""
        raise NotImplementedError

    def begin(self, z: Tensor, planes: Tensor) -> Tensor:
        """State before the first step, (B, width, h, w).

        z (B, hyper_channels, h / 4, w / 4), planes (B, plane_channels, h, w).
        """
        x = self.activate(self.hyper_64(z))
        x = self.activate(nn.functional.pixel_shuffle(self.to_32(x), 2))
        x = self.activate(self.hyper_32(x))
        state: Tensor = nn.functional.pixel_shuffle(self.to_16(x), 2) + self.from_planes(planes)
        return state

    def predict(self, state: Tensor, group: int, second: int) -> Tensor:
        """(B, width, h, w) -> (B, channels of the group, h, w) for its first or second pass."""
        step = 2 * group + second
        hidden = self.activate(self.hidden[step](self.activate(state)))
        prediction: Tensor = self.head[step](hidden)
        return prediction

    def absorb(self, state: Tensor, group: int, decoded: Tensor) -> Tensor:
        """The state after a pass: `decoded` (B, channels of the group, h, w), 0 where not coded."""
        added: Tensor = self.absorb_group[group](decoded)
        return state + added


class MeanNetwork(StepNetwork):
    """Means of latents, in latents' own units; `planes` are those of `condition`."""

    plane_channels = CONDITION_PLANES

    def layer(self, in_channels: int, out_channels: int, size: int) -> nn.Module:
        """In floating point."""
        return conv(in_channels, out_channels, size)

    def activate(self, x: Tensor) -> Tensor:
        """Leaky ReLU."""
        return activate(x)


class ScaleNetwork(StepNetwork):
    """Table indices of symbols, by integers alone.

    Its planes are s and q in quarter octaves, an integer and a multiple of 1 / 64; what it absorbs
    are magnitudes log2(1 + |symbol|) on the grid of activations.
    """

    plane_channels = 2

    def layer(self, in_channels: int, out_channels: int, size: int) -> nn.Module:
        """In integers."""
        return IntegerConv2d(in_channels, out_channels, size)

    def activate(self, x: Tensor) -> Tensor:
        """Shift, round, ReLU, clip."""
        return integer_relu(x)

    def table(self, state: Tensor, planes: Tensor, group: int, second: int) -> Tensor:
        """Table index of every symbol of a step before it is rounded and clipped.

        A step size of half the length doubles a symbol: that much is known without a network.
        """
        of_step_size = (planes[:, :1] + planes[:, 1:]) * (TABLES_PER_OCTAVE / 4)
        return TABLE_GAIN * self.predict(state, group, second) + of_step_size + MIDDLE_TABLE

    def quantized(self) -> dict[str, IntegerWeights]:
        """Every layer as integers, by its name. That all sums are exact is checked at run time.

        In units of 2^-ACTIVATION_BITS, z is 2^8 z, s is 2^8 s, q is 4 q64. The index of a step is

            clip((4 sum + 3 * 2^13 (64 s + q64) + 20 * 2^20 + 2^19) >> 20, 0, NUM_TABLES - 1).
        """
        return {
            name: module.quantized()
            for name, module in self.named_modules()
            if isinstance(module, IntegerConv2d)
        }


def rounded_table(table: Tensor) -> Tensor:
    """Table indices as integers 0..NUM_TABLES - 1 (in a float), gradient as of `bounded_table`."""
    return round_half_up(bounded_table(table))


def bounded_table(table: Tensor) -> Tensor:
    """Clipped to 0..NUM_TABLES - 1; a faint gradient leads back from outside."""
    clipped = table.clamp(0, NUM_TABLES - 1)
    outside = 0.05 * (table - clipped)
    return clipped + outside - outside.detach()


class HyperModel(nn.Module):
    """Static distributions of hyper-latents: a logistic one for each channel and class of q."""

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels
        # One-dimensional all: they are statistics, not matrices.
        self.mean = nn.Parameter(torch.zeros(channels))
        self.log_scale = nn.Parameter(torch.zeros(channels))
        self.class_mean = nn.Parameter(torch.zeros(RATE_CLASSES * channels))
        self.class_log_scale = nn.Parameter(torch.zeros(RATE_CLASSES * channels))

    @staticmethod
    def rate_class(q: Tensor) -> Tensor:
        """q (B,) in quarter octaves -> (B,) integer 0..11; from the header: (q64 + 768) >> 7."""
        place = torch.floor(q / RATE_CLASS_WIDTH + RATE_CLASSES / 2)
        return place.clamp(0, RATE_CLASSES - 1).long()

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the scale, (12, channels) each."""
        mean = self.mean + self.class_mean.view(-1, self.channels)
        log_scale = self.log_scale + self.class_log_scale.view(-1, self.channels)
        return STATISTICS_GAIN * mean, (STATISTICS_GAIN * log_scale).clamp(*LOG_SCALES)

    def tables(self) -> npt.NDArray[np.int64]:
        """Frequencies of hyper-latents -63..63, (12 channels, 127), a class's channels together."""
        mean, log_scale = (value.detach().double().flatten() for value in self.statistics())
        return frequencies(
            logistic_masses(
                mean.cpu().numpy(), log_scale.exp().cpu().numpy(), -MAX_HYPER, MAX_HYPER
            )
        )

    def forward(self, z: Tensor, q: Tensor) -> Tensor:
        """Bits of hyper-latents, as z: (B, channels, ., .) rounded, or with noise in its place.

        q (B,) in quarter octaves.
        """
        place = self.rate_class(q)
        mean, log_scale = self.statistics()
        inverse = torch.exp(-log_scale[place])
        mean = mean[place]
        return logistic_bits(z - mean[..., None, None], inverse[..., None, None])


class LevelNeighbours(NamedTuple):
    """What is known of a level when it is coded, row by row or along x + 2 y."""

    prediction: Tensor  # (B, 1, h, w) multiples of 1 / 4
    context: Tensor  # (B, 1, h, w) integer 0..5, the rougher the neighbourhood the larger


class LevelModel(nn.Module):
    """Distribution of a level around a prediction from its left and upper neighbours."""

    def __init__(self) -> None:
        super().__init__()
        start = torch.linspace(-2, 0, len(LEVEL_CONTEXTS) + 1)
        self.log_scale = nn.Parameter(start / STATISTICS_GAIN)

    def _clipped_log_scale(self) -> Tensor:
        return (STATISTICS_GAIN * self.log_scale).clamp(-3, 3)

    def tables(self) -> npt.NDArray[np.int64]:
        """Frequencies of a level less its prediction rounded down, -20..20: (24, 41).

        A table for each context and, within it, each fraction 0, 1/4, 1/2, 3/4 of a prediction.
        """
        scale = self._clipped_log_scale().detach().double().exp().cpu().numpy()
        fraction = np.arange(LEVEL_FRACTIONS) / LEVEL_FRACTIONS
        return frequencies(
            logistic_masses(
                np.tile(fraction, len(scale)),
                np.repeat(scale, LEVEL_FRACTIONS),
                -MAX_LEVEL_RESIDUAL,
                MAX_LEVEL_RESIDUAL,
            )
        )

    @staticmethod
    def neighbours(level: Tensor) -> LevelNeighbours:
        """Prediction (2 W + 2 N + NE - NW) / 4 and roughness |W - NW| + |N - NW| + |N - NE|.

        A missing neighbour takes the value of the nearest known one: above the first row that is W,
        left of the first column N, right of the last one N; the first cell of all knows only 0.
        """
        height, width = level.shape[2:]
        padded = nn.functional.pad(level, (1, 1, 1, 0))
        west = padded[:, :, 1:, :width]
        north = padded[:, :, :height, 1 : width + 1]
        north_west = padded[:, :, :height, :width]
        north_east = padded[:, :, :height, 2:]
        row = torch.arange(height, device=level.device)[:, None]
        column = torch.arange(width, device=level.device)
        west = torch.where(column == 0, north, west)
        north_west = torch.where(column == 0, north, north_west)
        north_east = torch.where(column == width - 1, north, north_east)
        north, north_west, north_east = (
            torch.where(row == 0, west, value) for value in (north, north_west, north_east)
        )
        prediction = (2 * west + 2 * north + north_east - north_west) / 4
        with torch.no_grad():
            roughness = (
                (west - north_west).abs() + (north - north_west).abs() + (north - north_east).abs()
            )
            context = sum((roughness >= start).long() for start in LEVEL_CONTEXTS)
        assert isinstance(context, Tensor)
        return LevelNeighbours(prediction, context)

    def forward(self, level: Tensor) -> Tensor:
        """(B, 1, h, w) integers -> (B, 1, h, w) bits; a flat map costs nothing beyond its flag."""
        prediction, context = self.neighbours(level)
        inverse = torch.exp(-self._clipped_log_scale())[context]
        bits = logistic_bits(level - prediction, inverse)
        if self.training:
            return bits
        return bits * (level != 0).any(dim=(1, 2, 3), keepdim=True)
