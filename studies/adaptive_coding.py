# Study of 2026-11-28, frozen: ran at commit dfc0d36, see README.md beside it.
"""What adaptive coders would spend on a code and its importance map: exact lengths, no coder run.

An adaptive binary coder that starts each context at even odds and counts along (Krichevsky and
Trofimov, 1981) spends an amount that depends on the counts alone, not on the order: that is what is
computed here. It is the part of CABAC that matters for such a comparison, without its limited
precision and without its trained starting states.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

Bits = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]


class Neighbour(NamedTuple):
    """A bit coded before, seen from the one at hand."""

    channel: int  # how many channels below
    row: int  # above it
    column: int  # left of it; negative to the right


# The cell on the left and the one above.
SMALL = (Neighbour(0, 0, 1), Neighbour(0, 1, 0))
# And the corners above, and the same cell in the two channels below.
MEDIUM = (
    *SMALL,
    Neighbour(0, 1, 1),
    Neighbour(0, 1, -1),
    Neighbour(1, 0, 0),
    Neighbour(2, 0, 0),
)


def bits_of_code(code: Bits, kept: Indices, neighbours: tuple[Neighbour, ...]) -> float:
    """Bits that an adaptive coder spends on the kept bits of codes, contexts shared among them.

    Args:
        code: (N, n, h, w), values 0 and 1.
        kept: (N, h, w) number of leading channels that a cell keeps.
        neighbours: whose values (0, 1, or neither) select the context; with none of them the
            channel does.
    """
    channels = np.arange(code.shape[1])[:, None, None]
    inside = channels < kept[:, None]
    symbol = np.where(inside, code + 1, 0)  # the paper's 0, 1 and 2
    if not neighbours:
        context = np.broadcast_to(channels, code.shape)
        return _adaptive_bits(context[inside], code[inside].astype(np.int64), code.shape[1], 2)
    reach = 2
    padded = np.pad(symbol, ((0, 0), (reach, 0), (reach, 0), (reach, reach)))
    n, height, width = code.shape[1:]
    context = np.zeros(code.shape, np.int64)
    for channel, row, column in neighbours:
        c, y, x = reach - channel, reach - row, reach - column
        context = 3 * context + padded[:, c : c + n, y : y + height, x : x + width]
    count = 3 ** len(neighbours)
    return _adaptive_bits(context[inside], code[inside].astype(np.int64), count, 2)


def bits_of_map(level: Indices, levels: int) -> float:
    """Bits on importance maps (N, h, w), the context the mean of the levels left and above."""
    left = np.pad(level, ((0, 0), (0, 0), (1, 0)))[:, :, :-1]
    above = np.pad(level, ((0, 0), (1, 0), (0, 0)))[:, :-1]
    return _adaptive_bits(((left + above + 1) // 2).ravel(), level.ravel(), levels, levels)


def _adaptive_bits(context: Indices, symbol: Indices, contexts: int, symbols: int) -> float:
    """Length of the sequences of all contexts with counts that start at one half each."""
    counts = np.bincount(context * symbols + symbol, minlength=contexts * symbols)
    counts = counts.reshape(contexts, symbols)
    total = counts.sum(axis=1)
    log_p = (
        gammaln(counts + 0.5).sum(axis=1)
        - symbols * gammaln(0.5)
        + gammaln(symbols / 2)
        - gammaln(total + symbols / 2)
    )
    return float(-log_p.sum() / np.log(2))
