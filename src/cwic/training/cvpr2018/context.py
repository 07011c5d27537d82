"""The convolutional entropy coder of the paper, in a form that codes many bits at once.

Two networks in the runtime's exact integers say what a decoder can know:

* :class:`CodeContext` of a bit of the code, from a cube of bits around it, as far as they are coded
  before it (`known_before` of the runtime's coder). Symbols are -1 and 1, and 0 for what is
  outside, masked or not yet coded (the paper's 1, 2 and 0).
* :class:`LevelContext` of each bit plane of a level of the importance map, from the cells that come
  before it in order of x + 2 y and from the level's higher bits.

What they are trained on and the traversal at run time are left to others.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cwic.coding.exact_arithmetic import SUM_BITS
from cwic.coding.symbol_tables import FREQUENCY_TOTAL
from cwic.families.cvpr2018.coder import (
    LEVEL_TAPS,
    LOGIT_UNITS,
    OUTPUT_GAIN,
    PROBABILITIES,
    known_before,
)
from cwic.training.integer_layers import IntegerConv2d, integer_relu, straight_through
from cwic.training.logistic import LN2

_SECOND_WIDTH = 24  # of a code's network
_LEVEL_WIDTHS = (32, 16)  # of a level's network


def _on_sum_grid(x: Tensor) -> Tensor:
    """Rounded as a bias is."""
    fine = 2.0**SUM_BITS
    return straight_through(x, torch.round(x.double() * fine) / fine)


class CodeContext(nn.Module):
    """Logit of P(bit = 1) for the bits of some channels of a code."""

    def __init__(
        self,
        code_channels: int,
        levels: int,
        maps: int,
        reach: int,
        hidden: int,
        channel_delay: int,
    ):
        """`maps`: channels of the cube, the bit's own one among them.

        `reach`: cells on each side of the bit; the paper's 5 x 5 is 2. `hidden`: width of the first
        layer.
        """
        super().__init__()
        self.code_channels, self.levels = code_channels, levels
        self.maps = maps
        size = 2 * reach + 1
        if maps > 1:
            self.below = IntegerConv2d(maps - 1, hidden, size, bias=False)
        self.own = IntegerConv2d(1, hidden, size, bias=False)
        known = [known_before(channel_delay, maps - 1 - j, reach) for j in range(maps)]
        self.register_buffer("known", torch.from_numpy(np.stack(known)).float(), persistent=False)
        # One bias for each channel and level: how likely a 1 is, cube aside.
        self.place = nn.Parameter(torch.zeros(code_channels * levels * hidden))
        self.hidden = IntegerConv2d(hidden, _SECOND_WIDTH)
        self.out = IntegerConv2d(_SECOND_WIDTH, 1)
        with torch.no_grad():
            self.place.normal_(0, 0.1)
            self.out.weight.mul_(0.1)

    def forward(self, code: Tensor, kept: Tensor, level: Tensor, channels: Tensor) -> Tensor:
        """Logits (B, K, h, w) of K `channels` of a code; what lies outside the mask means nothing.

        `code` (B, n, h, w), values 0 and 1; `kept` (B, 1, h, w), how many leading channels a cell
        keeps; `level` (B, 1, h, w), integers 0..L - 1.
        """
        batch, n, height, width = code.shape
        mask = torch.arange(n, device=code.device).view(1, -1, 1, 1) < kept
        sign = torch.where(mask, 2 * code - 1, 0.0)
        count = len(channels)
        index = channels.view(1, -1, 1, 1) * self.levels + level.long()
        place = _on_sum_grid(self.place).to(code.dtype).view(n * self.levels, -1)
        x = nn.functional.embedding(index, place).permute(0, 1, 4, 2, 3)
        x = x.reshape(batch * count, -1, height, width)
        self._forget_unknown()
        if self.maps > 1:
            padded = nn.functional.pad(sign, (0, 0, 0, 0, self.maps - 1, 0))
            below = torch.stack([padded[:, channels + j] for j in range(self.maps - 1)], dim=2)
            x = x + self.below(below.reshape(batch * count, -1, height, width))
        x = x + self.own(sign[:, channels].reshape(batch * count, 1, height, width))
        logit: Tensor = self.out(integer_relu(self.hidden(integer_relu(x))))
        return OUTPUT_GAIN * logit.view(batch, count, height, width)

    def places(self) -> npt.NDArray[np.int64]:
        """Biases of all channels and levels, (n L, hidden), in units of sums."""
        rounded = torch.round(self.place.detach().double() * 2**SUM_BITS).to(torch.int64)
        return rounded.cpu().numpy().reshape(self.code_channels * self.levels, -1)

    @torch.no_grad()
    def _forget_unknown(self) -> None:
        """Weights of what is not coded yet stay zero, and are zero in the integers."""
        known: Any = self.known
        self.own.weight.mul_(known[-1:])
        if self.maps > 1:
            self.below.weight.mul_(known[:-1])


class LevelContext(nn.Module):
    """Bits of a level, highest first, from the levels known before it.

    A logit for each of the L - 1 decisions that its bits can come to: nodes of a binary heap.
    """

    def __init__(self, levels: int):
        super().__init__()
        self.levels = levels
        hidden, second = _LEVEL_WIDTHS
        self.neighbours = IntegerConv2d(2, hidden, 5)
        self.hidden = IntegerConv2d(hidden, second)
        self.out = IntegerConv2d(second, levels - 1)
        taps = torch.zeros(5, 5)
        for dy, dx in LEVEL_TAPS:
            taps[dy + 2, dx + 2] = 1
        self.register_buffer("known", taps, persistent=False)
        with torch.no_grad():
            self.out.weight.mul_(0.1)

    def _logits(self, level: Tensor) -> Tensor:
        """(B, 1, h, w) integers -> (B, L - 1, h, w)."""
        taps: Any = self.known
        with torch.no_grad():
            self.neighbours.weight.mul_(taps)
        # 16 levels are multiples of 1 / 16: on the grid of activations.
        planes = torch.cat([level / self.levels, torch.ones_like(level)], dim=1)
        x = integer_relu(self.hidden(integer_relu(self.neighbours(planes))))
        logits: Tensor = OUTPUT_GAIN * self.out(x)
        return logits

    def forward(self, level: Tensor) -> Tensor:
        """(B, 1, h, w) integers -> (B, 1, h, w) bits that coding them takes."""
        logits = self._logits(level)
        spent = torch.zeros_like(level)
        node = torch.ones_like(level, dtype=torch.long)
        for plane in reversed(range(self.levels.bit_length() - 1)):
            bit = level.long() >> plane & 1
            spent = spent + information(logits.gather(1, node - 1), bit)
            node = 2 * node + bit
        return spent


def information(logit: Tensor, bit: Tensor) -> Tensor:
    """What bits take, in bits, above 0, their probabilities those of the table.

    `logit` of P(bit = 1) and `bit`, 0 or 1, of one shape. The gradient is that of the logit not
    rounded.
    """
    index = torch.floor(logit * LOGIT_UNITS).clamp(-PROBABILITIES // 2, PROBABILITIES // 2 - 1)
    logit = straight_through(logit, (index + 0.5) / LOGIT_UNITS)
    return nn.functional.softplus(torch.where(bit > 0.5, -logit, logit)) / LN2


def probability_table() -> npt.NDArray[np.int64]:
    """(2048,) numerators k of P(bit = 1) = k / 2^16, by the index of a logit."""
    logit = (np.arange(PROBABILITIES) - PROBABILITIES // 2 + 0.5) / LOGIT_UNITS
    p = np.rint(FREQUENCY_TOTAL / (1 + np.exp(-logit)))
    table: npt.NDArray[np.int64] = p.clip(1, FREQUENCY_TOTAL - 1).astype(np.int64)
    return table
