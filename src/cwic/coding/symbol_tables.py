"""Probabilities as integers: tables of frequencies, and what their symbols cost.

constriction takes probabilities as floats and converts them to integers out of 2^24. With
`perfect=False` that conversion is

    left cumulative of symbol s = trunc(sum(p[:s]) * ((2^24 - S) / sum(p))) + s,    S symbols,

and here every operand is an integer, or an integer over 2^16, in float64: sums stay below 2^17, the
division is by a power of two, and the product needs 41 bits. So no operation rounds, and the result
is the same integer on every machine:

    left cumulative of symbol s = floor(F[s] * (2^24 - S) / 2^16) + s,    F[s] = sum(f[:s]),

for tables of frequencies f, and for a bit the same with S = 2 and f = (2^16 - k, k). The tests
check this against a range coder written with nothing but Python integers. (`perfect=True` would
search with floating-point logarithms, and the Gaussian models use `erf`: neither is portable.) The
`+ s` means that no symbol is impossible: one of frequency 0 costs 24 bits, and k = 1 and k = 65535
leave 257 and 256 parts in 2^24 for the unlikely value.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

try:
    import constriction
except ImportError:
    from cwic.coding import range_coder

    _models: Any = range_coder
else:
    _models = constriction.stream.model

FREQUENCY_BITS = 16
FREQUENCY_TOTAL = 1 << FREQUENCY_BITS

_CODER_BITS = 24  # of the probabilities inside constriction

# Usual symbols of a table are all but a share of 2^-14, and so few that looking for one is quick.
_UNUSUAL_PARTS = 1 << (_CODER_BITS - 14)
_MAX_USUAL = 64

# constriction's model of bits, each of which comes with its own probability.
BERNOULLI: Any = _models.Bernoulli(perfect=False)


class UsualSymbols(NamedTuple):
    """The likeliest symbols of a table, with the same probabilities as there.

    A decoder searches a table for each symbol, and among a few in half the time. What lies below
    `first` is the model's symbol 0, what lies above `last` its last one, and after either of these
    a decoder has lost its way: it must have kept where it was.
    """

    model: object
    first: int
    last: int


class SymbolTables:
    """Frequencies of symbols, several tables of one length; checked once, models made when needed.

    Args:
        frequencies: (T, S) integers >= 0, S >= 2; each row sums to 2^16.

    Raises:
        ValueError: a shape, dtype or range is not as documented.
    """

    def __init__(self, frequencies: NDArray[Any]) -> None:
        if (
            frequencies.ndim != 2
            or frequencies.shape[1] < 2
            or frequencies.dtype.kind not in "iu"
            or frequencies.size == 0
        ):
            raise ValueError(
                f"tables: found shape {frequencies.shape} of {frequencies.dtype}, "
                f"expected (T >= 1, S >= 2) integers"
            )
        frequencies = frequencies.astype(np.int64)
        if frequencies.min() < 0 or (frequencies.sum(axis=1) != FREQUENCY_TOTAL).any():
            sums = sorted(set(frequencies.sum(axis=1).tolist()))
            raise ValueError(
                f"tables: found rows with entries from {frequencies.min()} that sum to {sums}, "
                f"expected entries >= 0 that sum to {FREQUENCY_TOTAL}"
            )
        self.frequencies: NDArray[np.int64] = frequencies
        self.num_tables, self.num_symbols = frequencies.shape
        self._models: dict[int, object] = {}
        self._usual: dict[int, UsualSymbols | None] = {}

    def model(self, table: int) -> object:
        """constriction's model of a table."""
        if table not in self._models:
            # Frequencies stay undivided: constriction normalizes, and a sum of 2^16 makes that
            # exact. With perfect=False its models are the same whether built lazily or not.
            categorical: Callable[..., object] = _models.Categorical
            row = self.frequencies[table].astype(np.float64)
            self._models[table] = categorical(row, perfect=False)
        return self._models[table]

    def usual(self, table: int) -> UsualSymbols | None:
        """The usual symbols of a table, or None where too many are usual."""
        if table not in self._usual:
            self._usual[table] = self._new_usual(table)
        return self._usual[table]

    def _new_usual(self, table: int) -> UsualSymbols | None:
        lefts = self._lefts(table)
        parts: list[int] = np.diff(lefts).tolist()
        first = last = int(self.frequencies[table].argmax())
        unusual = (1 << _CODER_BITS) - parts[first]
        while unusual > _UNUSUAL_PARTS:
            if first == 0 or last == self.num_symbols - 1 or last - first == _MAX_USUAL - 1:
                return None
            if parts[first - 1] >= parts[last + 1]:
                first -= 1
                unusual -= parts[first]
            else:
                last += 1
                unusual -= parts[last]
        if first == 0 or last == self.num_symbols - 1:
            return None
        # Of S symbols constriction gives each its share of 2^24 - S, and one more. So these
        # numbers, which sum to that, are shares already: the factor is 1, and nothing rounds.
        shares = np.diff([0, *lefts[first : last + 2], 1 << _CODER_BITS]) - 1
        categorical: Callable[..., object] = _models.Categorical
        return UsualSymbols(categorical(shares.astype(np.float64), perfect=False), first, last)

    def _lefts(self, table: int) -> NDArray[np.int64]:
        """(S + 1,) left cumulatives of a table's symbols out of 2^24, and the end."""
        before = np.cumsum(self.frequencies[table]) - self.frequencies[table]
        share = (1 << _CODER_BITS) - self.num_symbols
        lefts = (before * share >> FREQUENCY_BITS) + np.arange(self.num_symbols)
        return np.append(lefts, 1 << _CODER_BITS)

    @cached_property
    def bits(self) -> NDArray[np.float32]:
        """(T, S) what a symbol costs, in bits."""
        coder_total = 1 << _CODER_BITS
        parts = self.frequencies * ((coder_total - self.num_symbols) / FREQUENCY_TOTAL) + 1
        bits: NDArray[np.float32] = (_CODER_BITS - np.log2(parts)).astype(np.float32)
        return bits
