import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from reference_range_coder import ReferenceDecoder, ReferenceEncoder

from cwic.coding.arithmetic_coder import BitCoder, BitDecoder, BitEncoder
from cwic.coding.symbol_tables import FREQUENCY_TOTAL, SymbolTables
from cwic.errors import BitstreamError

seeds = st.integers(0, 2**32 - 1)
payloads = st.binary(max_size=60).map(lambda data: data.rstrip(b"\0"))


def random_bits(seed: int, num_bits: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Bits drawn from their own probabilities, from nearly certain to even ones."""
    generator = np.random.default_rng(seed)
    shape = generator.choice([0.02, 0.5, 5])
    p_one = np.rint(generator.beta(shape, shape, num_bits) * FREQUENCY_TOTAL).astype(np.int64)
    p_one = p_one.clip(1, FREQUENCY_TOTAL - 1)
    bits = generator.integers(0, FREQUENCY_TOTAL, num_bits) < p_one
    return bits.astype(np.uint8), p_one


def random_tables(seed: int, num_tables: int, num_symbols: int) -> NDArray[np.int64]:
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.full(num_symbols, 0.3), num_tables)
    return generator.multinomial(FREQUENCY_TOTAL, probabilities)


def random_symbols(
    seed: int, tables: NDArray[np.int64], num_coded: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Symbols drawn from their own tables, and the table of each."""
    generator = np.random.default_rng(seed)
    index = generator.integers(0, len(tables), num_coded)
    drawn = generator.integers(0, FREQUENCY_TOTAL, num_coded)
    symbols = (drawn[:, None] >= np.cumsum(tables, axis=1)[index]).sum(axis=1)
    return symbols.astype(np.int32), index


def information_bytes(probabilities: NDArray[np.float64]) -> float:
    return float(-np.log2(probabilities).sum() / 8)


def test_the_words_of_fixed_bits_are_pinned() -> None:
    encoder = BitEncoder()
    encoder.code(
        np.array([1, 0, 0, 1, 1, 0, 1, 0, 1, 1], np.uint8),
        np.array([1, 65535, 32768, 40000, 60000, 100, 3, 65000, 12345, 54321]),
    )
    assert encoder.finish().hex() == "fffeff007ee33b1f"


def test_the_words_of_fixed_symbols_are_pinned() -> None:
    encoder = BitEncoder()
    tables = np.array([[60000, 5000, 500, 36], [16384, 16384, 16384, 16384], [0, 65536, 0, 0]])
    encoder.code_symbols(
        np.array([0, 3, 1, 2, 2, 1, 0, 0, 3, 1], np.int32),
        SymbolTables(tables),
        np.array([0, 1, 2, 1, 0, 0, 0, 1, 0, 2]),
    )
    assert encoder.finish().hex() == "ea38544f"


@given(seeds, st.integers(0, 200))
def test_bits_agree_with_a_coder_of_integers_only(seed: int, num_bits: int) -> None:
    bits, p_one = random_bits(seed, num_bits)
    encoder = BitEncoder()
    reference = ReferenceEncoder()
    encoder.code(bits, p_one)
    for bit, k in zip(bits.tolist(), p_one.tolist(), strict=True):
        reference.code_bit(bit, k)
    payload = encoder.finish()
    assert payload == reference.finish()
    decoder = ReferenceDecoder(payload)
    assert decoder.code(np.zeros(num_bits), p_one).tolist() == bits.tolist()
    decoder.finish()


@given(seeds, st.integers(0, 60), st.integers(1, 5), st.integers(2, 70))
def test_symbols_agree_with_a_coder_of_integers_only(
    seed: int, num_coded: int, num_tables: int, num_symbols: int
) -> None:
    tables = random_tables(seed, num_tables, num_symbols)
    generator = np.random.default_rng(seed)
    symbols = generator.integers(0, num_symbols, num_coded, dtype=np.int32)
    index = generator.integers(0, num_tables, num_coded)
    encoder = BitEncoder()
    reference = ReferenceEncoder()
    encoder.code_symbols(symbols, SymbolTables(tables), index)
    for table in range(num_tables):
        for position in np.flatnonzero(index == table):
            reference.code_symbol(int(symbols[position]), tables[table].tolist())
    payload = encoder.finish()
    assert payload == reference.finish()
    decoder = ReferenceDecoder(payload)
    decoded = decoder.code_symbols(np.zeros(num_coded), SymbolTables(tables), index)
    assert decoded.tolist() == symbols.tolist()
    decoder.finish()


@given(seeds, st.lists(st.integers(0, 300), max_size=6))
def test_any_sequence_of_calls_is_inverted_by_the_same_traversal(
    seed: int, lengths: list[int]
) -> None:
    tables = random_tables(seed, 7, 19)

    def traverse(coder: BitCoder, hidden: bool) -> list[NDArray[Any]]:
        coded: list[NDArray[Any]] = []
        for step, length in enumerate(lengths):
            bits, p_one = random_bits(seed + step, length)
            symbols, index = random_symbols(seed + step, tables, length)
            if hidden:
                bits, symbols = np.zeros_like(bits), np.zeros_like(symbols)
            coded.append(coder.code(bits, p_one))
            coded.append(coder.code_symbols(symbols, SymbolTables(tables), index))
        return coded

    encoder = BitEncoder()
    given_ = traverse(encoder, hidden=False)
    decoder = BitDecoder(encoder.finish())
    decoded = traverse(decoder, hidden=True)
    decoder.finish()
    for before, after in zip(given_, decoded, strict=True):
        assert before.dtype == after.dtype
        np.testing.assert_array_equal(before, after)


@given(seeds, st.integers(1, 3000))
def test_a_payload_of_bits_is_at_most_five_bytes_longer_than_their_information(
    seed: int, num_bits: int
) -> None:
    bits, p_one = random_bits(seed, num_bits)
    encoder = BitEncoder()
    encoder.code(bits, p_one)
    expected = information_bytes(np.where(bits, p_one, FREQUENCY_TOTAL - p_one) / FREQUENCY_TOTAL)
    assert len(encoder.finish()) <= expected * 1.0002 + 5


@settings(max_examples=30)
@given(seeds, st.integers(1, 3000))
def test_a_payload_of_symbols_is_at_most_five_bytes_longer_than_their_information(
    seed: int, num_coded: int
) -> None:
    tables = random_tables(seed, 32, 40)
    symbols, index = random_symbols(seed, tables, num_coded)
    encoder = BitEncoder()
    encoder.code_symbols(symbols, SymbolTables(tables), index)
    expected = information_bytes(tables[index, symbols] / FREQUENCY_TOTAL)
    assert len(encoder.finish()) <= expected * 1.0002 + 5


def peaked_table(num_symbols: int) -> NDArray[np.int64]:
    """(1, S) one symbol is nearly certain, three on either side are not rare, the others are."""
    middle = num_symbols // 2
    table = np.zeros((1, num_symbols), np.int64)
    table[0, middle - 3 : middle + 4] = 300
    table[0, middle] += FREQUENCY_TOTAL - 7 * 300
    return table


@pytest.mark.parametrize("places", [[], [0], [39_999], [16_383, 16_384], [5, 20_000, 39_000]])
def test_a_long_run_of_one_table_may_have_unusual_symbols_anywhere(places: list[int]) -> None:
    table = peaked_table(512)
    symbols = np.repeat(np.arange(253, 260, dtype=np.int32), 40_000 // 7 + 1)[:40_000]
    symbols[places] = np.resize([0, 511, 251, 260], len(places))
    tables, index = SymbolTables(table), np.zeros(len(symbols), np.int64)
    usual = tables.usual(0)
    assert usual is not None
    assert (usual.first, usual.last) == (253, 259)
    encoder = BitEncoder()
    encoder.code_symbols(symbols, tables, index)
    decoder = BitDecoder(encoder.finish())
    assert np.array_equal(decoder.code_symbols(symbols * 0, tables, index), symbols)
    decoder.finish()


@given(payloads)
def test_garbage_decodes_alike_whether_or_not_usual_symbols_are_expected(payload: bytes) -> None:
    tables = SymbolTables(peaked_table(80))
    runs = []
    for at_once in (320, 1):  # of so few as one none is expected to be usual
        decoder, decoded = BitDecoder(payload), []
        try:
            for _ in range(320 // at_once):
                part = decoder.code_symbols(np.zeros(at_once), tables, np.zeros(at_once, np.int64))
                decoded += part.tolist()
        except BitstreamError as error:
            decoded = [str(error)]
        runs.append(decoded)
    assert runs[0] == runs[1]


def test_a_table_of_many_likely_symbols_has_no_usual_ones() -> None:
    assert SymbolTables(np.full((1, 512), FREQUENCY_TOTAL // 512)).usual(0) is None


def test_even_the_least_likely_bits_and_symbols_can_be_coded() -> None:
    encoder = BitEncoder()
    encoder.code(np.array([1, 0], np.uint8), np.array([1, FREQUENCY_TOTAL - 1]))
    tables = SymbolTables(np.array([[0, FREQUENCY_TOTAL]]))
    encoder.code_symbols(np.zeros(3, np.int32), tables, np.zeros(3, np.int64))
    payload = encoder.finish()
    assert len(payload) <= math.ceil((2 * 16 + 3 * 24) / 8) + 4
    decoder = BitDecoder(payload)
    assert decoder.code(np.zeros(2), np.array([1, FREQUENCY_TOTAL - 1])).tolist() == [1, 0]
    decoded = decoder.code_symbols(np.zeros(3), tables, np.zeros(3, np.int64))
    assert decoded.tolist() == [0, 0, 0]
    decoder.finish()


def test_nothing_coded_is_nothing_written() -> None:
    encoder = BitEncoder()
    assert encoder.code(np.zeros(0, np.uint8), np.zeros(0, np.int64)).shape == (0,)
    assert encoder.finish() == b""
    decoder = BitDecoder(b"")
    decoder.finish()


def test_finishing_twice_gives_the_same_bytes() -> None:
    encoder = BitEncoder()
    bits, p_one = random_bits(0, 100)
    encoder.code(bits, p_one)
    assert encoder.finish() == encoder.finish()


@given(payloads, seeds)
def test_garbage_gives_symbols_of_the_right_shape_or_a_bitstream_error(
    payload: bytes, seed: int
) -> None:
    _, p_one = random_bits(seed, 80)
    tables = random_tables(seed, 3, 11)
    decoder = BitDecoder(payload)
    try:
        bits = decoder.code(np.zeros(80), p_one)
        symbols = decoder.code_symbols(np.zeros(50), SymbolTables(tables), np.arange(50) % 3)
        decoder.finish()
    except BitstreamError:
        return
    assert bits.shape == (80,)
    assert set(bits.tolist()) <= {0, 1}
    assert symbols.shape == (50,)
    assert 0 <= symbols.min() <= symbols.max() < 11


def test_bytes_that_no_encoder_writes_are_a_bitstream_error() -> None:
    decoder = BitDecoder(b"\xff" * 16)
    with pytest.raises(BitstreamError, match="damaged payload"):
        decoder.code(np.zeros(10), np.full(10, 32768))


def test_a_payload_that_ends_in_a_zero_byte_is_a_bitstream_error() -> None:
    with pytest.raises(BitstreamError, match="zero byte"):
        BitDecoder(b"\x01\0")


@given(seeds, st.binary(min_size=5, max_size=20).filter(lambda data: data[-1] != 0))
def test_data_after_the_last_symbol_is_a_bitstream_error(seed: int, surplus: bytes) -> None:
    bits, p_one = random_bits(seed, 200)
    encoder = BitEncoder()
    encoder.code(bits, p_one)
    payload = encoder.finish()
    words = payload + bytes(-len(payload) % 4)
    decoder = BitDecoder(words + b"\1\0\0\0\1\0\0\0" + surplus)
    decoder.code(np.zeros(200), p_one)
    with pytest.raises(BitstreamError, match="expected its end"):
        decoder.finish()


@pytest.mark.parametrize(
    ("bits", "p_one"),
    [
        (np.array([2]), np.array([100])),
        (np.array([-1]), np.array([100])),
        (np.array([1]), np.array([0])),
        (np.array([1]), np.array([FREQUENCY_TOTAL])),
        (np.array([1]), np.array([0.5])),
        (np.array([1, 0]), np.array([100])),
        (np.array([[1]]), np.array([[100]])),
    ],
)
def test_bits_out_of_range_are_refused_before_anything_is_coded(
    bits: NDArray[Any], p_one: NDArray[Any]
) -> None:
    encoder = BitEncoder()
    with pytest.raises(ValueError, match="expected"):
        encoder.code(bits, p_one)
    assert encoder.finish() == b""


@pytest.mark.parametrize(
    ("symbols", "tables", "index"),
    [
        ([4], [[16384] * 4], [0]),
        ([-1], [[16384] * 4], [0]),
        ([0], [[16384] * 4], [1]),
        ([0], [[16384] * 4], [-1]),
        ([0, 1], [[16384] * 4], [0]),
        ([0], [[16384] * 3], [0]),
        ([0], [[-1, 65537]], [0]),
        ([0], [[65536]], [0]),
        ([0], [[0.5, 0.5]], [0]),
    ],
)
def test_symbols_and_tables_out_of_range_are_refused_before_anything_is_coded(
    symbols: list[int], tables: list[list[int]], index: list[int]
) -> None:
    encoder = BitEncoder()
    with pytest.raises(ValueError, match="expected"):
        encoder.code_symbols(np.array(symbols), SymbolTables(np.array(tables)), np.array(index))
    assert encoder.finish() == b""
