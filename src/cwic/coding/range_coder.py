"""The range coder in Python, for machines on which constriction has no wheel; the same bytes.

Those are Linux and Windows on arm64. What is here has the names and the arguments of what
:mod:`.arithmetic_coder` uses of constriction, whose arithmetic is in `docs/format.md`: a coded
number lies in [low, low + range), and each symbol narrows that to its share of 2^24 parts. It is
slower, about a microsecond a symbol. Tables are those of constriction with `perfect=False`, for
frequencies with which it does not round.
"""

from bisect import bisect_right
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TOTAL_BITS = 24
_TOTAL = 1 << _TOTAL_BITS
_WORD_BITS = 32
_WORD_TOTAL = 1 << _WORD_BITS
_STATE_MASK = (1 << 64) - 1

# An encoder ends with the smallest whole word that its range holds: less than two words from low.
_END = (_WORD_TOTAL << 1) - 1


class Categorical:
    """A table: `bounds[s]` is how many of the 2^24 parts lie below symbol s.

    Args:
        frequencies: (S,) integers in float64, shares of their sum.
        perfect: False.
    """

    def __init__(self, frequencies: NDArray[np.float64], perfect: bool) -> None:
        assert not perfect
        whole: list[int] = frequencies.astype(np.int64).tolist()
        total = sum(whole)
        before, self.bounds = 0, [0] * (len(whole) + 1)
        for symbol, frequency in enumerate(whole):
            self.bounds[symbol] = before * (_TOTAL - len(whole)) // total + symbol
            before += frequency
        self.bounds[-1] = _TOTAL
        self.parts = [(left, right - left) for left, right in pairwise(self.bounds)]


class Bernoulli:
    """A bit whose probability comes with it."""

    def __init__(self, perfect: bool) -> None:
        assert not perfect

    @staticmethod
    def bounds(p_one: NDArray[np.float64]) -> list[int]:
        """How many of the 2^24 parts belong to a zero, for each probability k / 2^16 of a one."""
        zeros = (1 << 16) - np.rint(p_one * (1 << 16)).astype(np.int64)
        found: list[int] = ((zeros * (_TOTAL - 2) >> 16) + 1).tolist()
        return found


class RangeEncoder:
    """Symbols to words."""

    def __init__(self) -> None:
        self._words: list[int] = []
        self._low = 0
        self._range = _STATE_MASK

    def encode(
        self,
        symbols: NDArray[np.int32],
        model: Categorical | Bernoulli,
        p_one: NDArray[np.float64] | None = None,
    ) -> None:
        """Appends (N,) symbols, all with one table, or bits with (N,) probabilities."""
        values: list[int] = symbols.tolist()
        parts: Iterable[tuple[int, int]]
        if isinstance(model, Categorical):
            parts = [model.parts[value] for value in values]
        else:
            assert p_one is not None
            zeros = model.bounds(p_one)
            parts = [
                (zero, _TOTAL - zero) if value else (0, zero)
                for value, zero in zip(values, zeros, strict=True)
            ]
        low, width, words = self._low, self._range, self._words
        for left, size in parts:
            scale = width >> _TOTAL_BITS
            low += scale * left
            width = scale * size
            if width < _WORD_TOTAL:
                if low > _STATE_MASK:
                    _carry(words)
                words.append(low >> _WORD_BITS & (_WORD_TOTAL - 1))
                low = (low & (_WORD_TOTAL - 1)) << _WORD_BITS
                width <<= _WORD_BITS
        self._low, self._range = low, width

    def get_compressed(self) -> NDArray[np.uint32]:
        """The words, the most significant first; the encoder is left as it was.

        They are constriction's, which may have zeros more or fewer at the end.
        """
        if self._range == _STATE_MASK:
            return np.zeros(0, np.uint32)
        words = self._words.copy()
        last = self._low + _WORD_TOTAL - 1 >> _WORD_BITS
        if last >= _WORD_TOTAL:
            _carry(words)
        return np.array([*words, last & (_WORD_TOTAL - 1)], np.uint32)


def _carry(words: list[int]) -> None:
    """Adds one to the number that the words are."""
    at = len(words) - 1
    while words[at] == _WORD_TOTAL - 1:
        words[at] = 0
        at -= 1
    words[at] += 1


class RangeDecoder:
    """Words to symbols; `offset` is how far the number lies above the encoder's low."""

    def __init__(self, words: NDArray[np.uint32]) -> None:
        self._words: list[int] = words.tolist()[::-1]
        self._offset = self._word() << _WORD_BITS
        self._offset |= self._word()
        self._range = _STATE_MASK

    def clone(self) -> "RangeDecoder":
        """Another one in the same place."""
        other = RangeDecoder(np.zeros(0, np.uint32))
        other._words = self._words.copy()
        other._offset, other._range = self._offset, self._range
        return other

    def _word(self) -> int:
        """The next one; zeros beyond the end."""
        return self._words.pop() if self._words else 0

    def decode(self, model: Categorical | Bernoulli, parameter: Any) -> NDArray[np.int32]:
        """The next symbols.

        Args:
            model: of all of them.
            parameter: their number for a table, (N,) probabilities for bits.

        Raises:
            ValueError: no encoder writes such words.
        """
        bounds: Iterable[list[int]]
        if isinstance(model, Categorical):
            bounds = [model.bounds] * parameter
        else:
            bounds = [[0, zero, _TOTAL] for zero in model.bounds(parameter)]
        decoded = []
        offset, width = self._offset, self._range
        for lefts in bounds:
            scale = width >> _TOTAL_BITS
            part = offset // scale
            if part >= _TOTAL:
                raise ValueError("the number lies outside the range of any symbol")
            symbol = bisect_right(lefts, part) - 1
            left = lefts[symbol]
            offset -= scale * left
            width = scale * (lefts[symbol + 1] - left)
            if width < _WORD_TOTAL:
                offset = offset << _WORD_BITS | self._word()
                width <<= _WORD_BITS
            decoded.append(symbol)
        self._offset, self._range = offset, width
        return np.array(decoded, np.int32)

    def maybe_exhausted(self) -> bool:
        """Whether an encoder may have ended here."""
        return not self._words and (self._range == _STATE_MASK or self._offset < _END)
