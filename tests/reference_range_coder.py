"""The range coder of `docs/format.md`, written from that page with Python integers alone.

What the package's coder is compared with.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

TOTAL = 2**24


@cache
def cumulative(frequencies: tuple[int, ...]) -> list[int]:
    """`left` of each symbol of a table, and at the end 2^24."""
    num_symbols = len(frequencies)
    left, before = [], 0
    for symbol, frequency in enumerate(frequencies):
        left.append((before * (TOTAL - num_symbols) >> 16) + symbol)
        before += frequency
    return [*left, TOTAL]


class ReferenceEncoder:
    """Symbols to bytes."""

    def __init__(self) -> None:
        self.low = 0
        self.range = 2**64 - 1
        self.num_shifts = 0

    def code_symbol(self, symbol: int, frequencies: Sequence[int]) -> None:
        bounds = cumulative(tuple(frequencies))
        left, right = bounds[symbol], bounds[symbol + 1]
        scale = self.range >> 24
        self.low += scale * left
        self.range = scale * (right - left)
        if self.range < 2**32:
            self.low <<= 32
            self.range <<= 32
            self.num_shifts += 1

    def code_bit(self, bit: int, k: int) -> None:
        self.code_symbol(bit, (2**16 - k, k))

    def finish(self) -> bytes:
        if self.range == 2**64 - 1:
            return b""
        # The smallest multiple of 2^32 in [low, low + range), without its 32 zero bits.
        number = (self.low + 2**32 - 1) >> 32
        return number.to_bytes(4 * (self.num_shifts + 1), "big").rstrip(b"\0")


class ReferenceDecoder:
    """Bytes to symbols; a `BitCoder` that may take the place of the package's `BitDecoder`.

    `range` is the encoder's; `offset` is how far the number that was written lies above its `low`.
    """

    def __init__(self, payload: bytes) -> None:
        assert payload[-1:] != b"\0"
        padded = payload + bytes(-len(payload) % 4)
        self.words = [int.from_bytes(padded[at : at + 4], "big") for at in range(0, len(padded), 4)]
        self.position = 0
        self.offset = self.word() << 32 | self.word()
        self.range = 2**64 - 1

    def word(self) -> int:
        """The next 32 bits; zeros beyond the end."""
        self.position += 1
        return self.words[self.position - 1] if self.position <= len(self.words) else 0

    def symbol(self, frequencies: tuple[int, ...]) -> int:
        bounds = cumulative(frequencies)
        scale = self.range >> 24
        part = self.offset // scale
        assert part < TOTAL, "the number lies outside the range"
        found = bisect_right(bounds, part) - 1
        self.offset -= scale * bounds[found]
        self.range = scale * (bounds[found + 1] - bounds[found])
        if self.range < 2**32:
            self.offset = self.offset << 32 | self.word()
            self.range <<= 32
        return found

    def code(self, bits: NDArray[Any], p_one: Iterable[int]) -> NDArray[np.uint8]:
        """See `BitCoder.code`."""
        return np.array([self.symbol((2**16 - int(k), int(k))) for k in p_one], np.uint8)

    def code_symbols(
        self, symbols: NDArray[Any], tables: Any, table_index: NDArray[Any]
    ) -> NDArray[np.int32]:
        """See `BitCoder.code_symbols`; `tables` is a `SymbolTables`."""
        decoded = np.zeros(len(table_index), np.int32)
        for table in sorted(set(table_index.tolist())):
            frequencies = tuple(tables.frequencies[table].tolist())
            for position in np.flatnonzero(table_index == table):
                decoded[position] = self.symbol(frequencies)
        return decoded

    def finish(self) -> None:
        """No whole words are left over: an encoder writes none before its first symbol, and one
        fewer than the decoder has seen after it."""
        written = 0 if self.range == 2**64 - 1 else self.position - 1
        assert len(self.words) <= written, "whole words are left over"
