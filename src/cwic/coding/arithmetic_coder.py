"""Integer symbols and integer probabilities <-> bytes: the range coder.

Owns the bytes of one payload: a thin wrapper of constriction's queue range coder, or where that
library has no wheel of :mod:`.range_coder`, that has one method for both directions and turns a
coder's exceptions into this package's. Tables, and why they are exact, are left to
:mod:`.symbol_tables`; which probability belongs to which symbol, and the order of coding, to the
coders of the families; lengths and checksums to `bitstream`.

**Bytes.** constriction's 32-bit words are written most significant byte first, the order in which
they refine the coded number, and zero bytes at the end are dropped: a decoder reads zeros beyond
the end anyway. A payload is at most 5 bytes (2 on average) and 0.02 % longer than the information
content of its symbols. A shorter last word would often do, but constriction's choice lets
`BitDecoder.finish` notice most decoders that have lost their way (93 of 100 in an experiment).
"""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cwic.coding.symbol_tables import BERNOULLI, FREQUENCY_TOTAL, SymbolTables, UsualSymbols
from cwic.errors import BitstreamError

try:
    import constriction
except ImportError:
    from cwic.coding import range_coder

    _queue: Any = range_coder
else:
    _queue = constriction.stream.queue

_FEW = 64  # so many symbols are ordered sooner as numbers of Python than as arrays

# From so many symbols of one table on it is quicker to expect usual ones; if there is another after
# all, no more than _ONE_TRY are decoded again.
_MANY = 64
_ONE_TRY = 16384

_WORD_BYTES = 4


class BitCoder(Protocol):
    """What an encoder and a decoder have in common, so that one traversal serves both."""

    def code(self, bits: NDArray[Any], p_one: NDArray[Any]) -> NDArray[np.uint8]:
        """Codes bits, each with its own probability.

        Args:
            bits: (N,) any integer or bool dtype, values 0 and 1. A decoder takes only N from it.
            p_one: (N,) integer k in [1, 65535]: the bit is 1 with probability k / 2^16.

        Returns:
            (N,) uint8 in {0, 1}: the bits that were given to the encoder, in both directions.
        """
        ...

    def code_symbols(
        self, symbols: NDArray[Any], tables: SymbolTables, table_index: NDArray[Any]
    ) -> NDArray[np.int32]:
        """Codes symbols, each with one of several tables.

        The symbols are coded ordered by table, and by position within a table.

        Args:
            symbols: (N,) integer in [0, S). A decoder takes only N from it.
            tables: T tables of S symbols.
            table_index: (N,) integer in [0, T): the row that each symbol is coded with.

        Returns:
            (N,) int32: the symbols that were given to the encoder, in both directions.
        """
        ...


class BitEncoder:
    """Collects symbols and gives their bytes."""

    def __init__(self) -> None:
        self._coder = _queue.RangeEncoder()

    def code(self, bits: NDArray[Any], p_one: NDArray[Any]) -> NDArray[np.uint8]:
        """Appends bits; see `BitCoder.code`.

        Raises:
            ValueError: a shape, dtype or range is not as documented.
        """
        probabilities = _bit_probabilities(bits, p_one)
        values = _integers("bits", bits, 0, 1)
        if len(values):
            self._coder.encode(values, BERNOULLI, probabilities)
        return values.astype(np.uint8)

    def code_symbols(
        self, symbols: NDArray[Any], tables: SymbolTables, table_index: NDArray[Any]
    ) -> NDArray[np.int32]:
        """Appends symbols; see `BitCoder.code_symbols`.

        Raises:
            ValueError: a shape, dtype or range is not as documented.
        """
        order, runs = _by_table(symbols, tables, table_index)
        values = _integers("symbols", symbols, 0, tables.num_symbols - 1)
        ordered = values[order]
        start = 0
        for table, length in runs:
            self._coder.encode(ordered[start : start + length], tables.model(table))
            start += length
        return values

    def finish(self) -> bytes:
        """The payload; the encoder is left as it was."""
        words: NDArray[np.uint32] = self._coder.get_compressed()
        return words.astype(">u4").tobytes().rstrip(b"\0")


class BitCounter:
    """A coder that adds up what symbols would cost, and keeps them to be coded after all."""

    def __init__(self) -> None:
        self.bits = 0.0
        self._calls: list[Callable[[BitEncoder], object]] = []

    def code(self, bits: NDArray[Any], p_one: NDArray[Any]) -> NDArray[np.uint8]:
        """See `BitCoder.code`."""
        p = np.where(bits, p_one, FREQUENCY_TOTAL - p_one) / FREQUENCY_TOTAL
        self.bits -= float(np.log2(p).sum())
        self._calls.append(lambda encoder: encoder.code(bits, p_one))
        return bits.astype(np.uint8)

    def code_symbols(
        self, symbols: NDArray[Any], tables: SymbolTables, table_index: NDArray[Any]
    ) -> NDArray[np.int32]:
        """See `BitCoder.code_symbols`."""
        self.bits += float(tables.bits[table_index, symbols].sum(dtype=np.float64))
        self._calls.append(lambda encoder: encoder.code_symbols(symbols, tables, table_index))
        return symbols.astype(np.int32)

    def payload(self) -> bytes:
        """What was counted, coded."""
        encoder = BitEncoder()
        for call in self._calls:
            call(encoder)
        return encoder.finish()


class BitDecoder:
    """Gives back the symbols of one payload.

    Args:
        payload: what `BitEncoder.finish` returned.

    Raises:
        BitstreamError: no encoder writes these bytes.
    """

    def __init__(self, payload: bytes) -> None:
        if payload[-1:] == b"\0":
            raise BitstreamError(
                "damaged payload: it ends in a zero byte, expected none (encoders drop them)"
            )
        padded = payload + bytes(-len(payload) % _WORD_BYTES)
        words = np.frombuffer(padded, dtype=">u4").astype(np.uint32)
        self._coder = _queue.RangeDecoder(words)

    def code(self, bits: NDArray[Any], p_one: NDArray[Any]) -> NDArray[np.uint8]:
        """The next bits; see `BitCoder.code`.

        Raises:
            BitstreamError: no encoder writes such a payload.
            ValueError: a shape, dtype or range is not as documented.
        """
        probabilities = _bit_probabilities(bits, p_one)
        if not len(probabilities):
            return np.zeros(0, np.uint8)
        return self._decode(BERNOULLI, probabilities).astype(np.uint8)

    def code_symbols(
        self, symbols: NDArray[Any], tables: SymbolTables, table_index: NDArray[Any]
    ) -> NDArray[np.int32]:
        """The next symbols; see `BitCoder.code_symbols`.

        Raises:
            BitstreamError: no encoder writes such a payload.
            ValueError: a shape, dtype or range is not as documented.
        """
        order, runs = _by_table(symbols, tables, table_index)
        decoded = np.empty(len(symbols), np.int32)
        if runs:
            decoded[order] = np.concatenate(
                [part for table, length in runs for part in self._run(tables, table, length)]
            )
        return decoded

    def finish(self) -> None:
        """Checks that the payload ends where its symbols end.

        constriction can tell that whole words are left over, or that the last word is not the one
        an encoder would have chosen. It cannot tell when a payload was cut short, but a decoder
        that has lost its way nearly always fails here.

        Raises:
            BitstreamError: there is more in the payload than was decoded.
        """
        if not self._coder.maybe_exhausted():
            raise BitstreamError(
                "damaged payload: found more data after the last symbol, expected its end"
            )

    def _run(self, tables: SymbolTables, table: int, length: int) -> Iterator[NDArray[np.int32]]:
        """The next symbols, all of one table, in parts."""
        usual = tables.usual(table) if length >= _MANY else None
        if usual is None:
            yield self._decode(tables.model(table), length)
            return
        for start in range(0, length, _ONE_TRY):
            count = min(_ONE_TRY, length - start)
            before = self._coder.clone()
            decoded = self._decode_usual(usual, count)
            if decoded is None:
                self._coder = before
                decoded = self._decode(tables.model(table), count)
            yield decoded

    def _decode_usual(self, usual: UsualSymbols, count: int) -> NDArray[np.int32] | None:
        """The next symbols if all are usual ones; else None, and the decoder has lost its way."""
        try:
            decoded = self._decode(usual.model, count)
        except BitstreamError:
            return None
        decoded += usual.first - 1
        are_usual = usual.first <= decoded.min() and decoded.max() <= usual.last
        return decoded if are_usual else None

    def _decode(self, model: object, parameters: object) -> NDArray[np.int32]:
        # constriction's documentation names no exception. Seen are AssertionError (bytes no encoder
        # writes); the decoder has no other input here that was not checked before.
        try:
            decoded: NDArray[np.int32] = self._coder.decode(model, parameters)
        except (AssertionError, KeyError, ValueError) as error:
            raise BitstreamError(f"damaged payload: {error}") from error
        return decoded


def _check_integers(name: str, values: NDArray[Any], lowest: int, highest: int) -> None:
    """Checks that there are (N,) integers in a range."""
    if values.ndim != 1 or values.dtype.kind not in "iub":
        raise ValueError(
            f"{name}: found shape {values.shape} of {values.dtype}, expected (N,) integers"
        )
    if len(values) and not (lowest <= values.min() and values.max() <= highest):
        raise ValueError(
            f"{name}: found {values.min()} to {values.max()}, expected {lowest} to {highest}"
        )


def _integers(name: str, values: NDArray[Any], lowest: int, highest: int) -> NDArray[np.int32]:
    """The (N,) values as a contiguous int32 array, after checking dtype and range."""
    _check_integers(name, values, lowest, highest)
    return np.ascontiguousarray(values, dtype=np.int32)


def _bit_probabilities(bits: NDArray[Any], p_one: NDArray[Any]) -> NDArray[np.float64]:
    """(N,) exact float64 multiples of 2^-16."""
    if len(bits) != len(p_one):
        raise ValueError(f"found {len(bits)} bits and {len(p_one)} probabilities, expected as many")
    return _integers("p_one", p_one, 1, FREQUENCY_TOTAL - 1) / np.float64(FREQUENCY_TOTAL)


def _by_table(
    symbols: NDArray[Any], tables: SymbolTables, table_index: NDArray[Any]
) -> tuple[NDArray[np.intp], list[tuple[int, int]]]:
    """Positions ordered by table, and each table in use with the number of its symbols."""
    if len(symbols) != len(table_index):
        raise ValueError(
            f"found {len(symbols)} symbols and {len(table_index)} table indices, expected as many"
        )
    if 0 < len(table_index) <= _FEW and table_index.dtype.kind in "iu" and table_index.ndim == 1:
        numbers: list[int] = table_index.tolist()
        places = sorted(range(len(numbers)), key=numbers.__getitem__)
        if numbers[places[0]] >= 0 and numbers[places[-1]] < tables.num_tables:
            runs = [(table, numbers.count(table)) for table in sorted(set(numbers))]
            return np.array(places), runs
    _check_integers("table_index", table_index, 0, tables.num_tables - 1)
    # Tables are few: their numbers as bytes sort by counting.
    few = tables.num_tables <= 256
    index = table_index.astype(np.uint8, copy=False) if few else table_index
    order = np.argsort(index, kind="stable")
    counts = np.bincount(index).tolist()
    return order, [(table, count) for table, count in enumerate(counts) if count]
