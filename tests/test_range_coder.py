"""The coder for machines without constriction does what constriction does, damage included."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import constriction
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cwic.coding import range_coder

HERE = Path(__file__).parent
MODELS, QUEUE = constriction.stream.model, constriction.stream.queue

# Parts of a payload: bits with their probabilities, or symbols of one table.
bits = st.lists(st.tuples(st.integers(0, 1), st.integers(1, 65535)), max_size=40)
tables = st.lists(st.integers(0, 5000), min_size=1, max_size=8).map(
    lambda row: [*row, 65536 - sum(row)]
)
symbols = tables.flatmap(
    lambda row: st.tuples(st.just(row), st.lists(st.integers(0, len(row) - 1), max_size=40))
)
parts_of_a_payload = st.lists(st.one_of(bits, symbols), max_size=4)


def encoded(parts: list[Any], models: Any, queue: Any) -> list[int]:
    encoder = queue.RangeEncoder()
    for part in parts:
        if isinstance(part, tuple):
            model = models.Categorical(np.array(part[0], np.float64), perfect=False)
            encoder.encode(np.array(part[1], np.int32), model)
        elif part:
            values, p_one = (np.array(column) for column in zip(*part, strict=True))
            bernoulli = models.Bernoulli(perfect=False)
            encoder.encode(values.astype(np.int32), bernoulli, p_one / 65536)
    words: list[int] = encoder.get_compressed().tolist()
    while words and not words[-1]:  # payloads end without their zeros
        words.pop()
    return words


def decoded(words: list[int], parts: list[Any], models: Any, queue: Any) -> tuple[Any, bool] | None:
    """What comes out, and whether it may have ended; None: no encoder writes such words."""
    decoder = queue.RangeDecoder(np.array(words, np.uint32))
    found: list[int] = []
    try:
        for part in parts:
            if isinstance(part, tuple):
                model = models.Categorical(np.array(part[0], np.float64), perfect=False)
                found += decoder.decode(model, len(part[1])).tolist()
            elif part:
                p_one = np.array([k for _, k in part]) / 65536
                found += decoder.decode(models.Bernoulli(perfect=False), p_one).tolist()
    except (AssertionError, ValueError):
        return None
    return found, decoder.maybe_exhausted()


@given(parts_of_a_payload)
def test_both_coders_write_the_same_words_and_read_them(parts: list[Any]) -> None:
    words = encoded(parts, MODELS, QUEUE)
    assert encoded(parts, range_coder, range_coder) == words
    found = decoded(words, parts, range_coder, range_coder)
    assert found == decoded(words, parts, MODELS, QUEUE)
    assert found is not None
    assert found[1]


@given(parts_of_a_payload, st.lists(st.integers(0, 2**32 - 1), max_size=8), st.booleans())
def test_both_coders_make_the_same_of_other_words(
    parts: list[Any], others: list[int], behind: bool
) -> None:
    words = encoded(parts, MODELS, QUEUE) + others if behind else others
    expected = decoded(words, parts, MODELS, QUEUE)
    assert decoded(words, parts, range_coder, range_coder) == expected


def test_a_carry_runs_through_whole_words_of_ones() -> None:
    """Likely bits that keep low just under a carry, then one that sends it up."""
    sure, unlikely = (0, 1), (1, 65535)
    for length in range(200, 400):
        parts = [[(1, 65535)] * length + [sure] * 3 + [unlikely] * 40]
        words = encoded(parts, MODELS, QUEUE)
        assert encoded(parts, range_coder, range_coder) == words


def test_an_encoder_can_be_asked_for_its_words_more_than_once() -> None:
    encoder = range_coder.RangeEncoder()
    table = range_coder.Categorical(np.array([65535.0, 1.0]), perfect=False)
    encoder.encode(np.ones(50, np.int32), table)
    assert encoder.get_compressed().tolist() == encoder.get_compressed().tolist()


def test_golden_files_decode_where_constriction_is_missing() -> None:
    code = (
        "import sys; sys.modules['constriction'] = None\n"
        "import pytest\n"
        "sys.exit(pytest.main(sys.argv[1:]))"
    )
    golden = str(HERE / "test_golden.py")
    arguments = [golden, "-q", "-p", "no:cacheprovider", "-k", "golden_file_decodes"]
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
