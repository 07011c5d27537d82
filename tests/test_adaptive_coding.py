"""The benchmarks' adaptive coders against ones that count bit by bit, seeing only the past."""

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(autouse=True)
def benchmarks_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])


@pytest.fixture
def code() -> tuple[np.ndarray, np.ndarray]:
    """(1, 6, 7, 9) bits that depend on their neighbours, and (1, 7, 9) kept channels."""
    rng = np.random.default_rng(1)
    kept = rng.integers(0, 7, (1, 7, 9))
    smooth = np.cumsum(rng.normal(size=(1, 6, 7, 9)), axis=3)
    return (smooth > 0).astype(np.uint8), kept


@pytest.mark.parametrize("name", ["SMALL", "MEDIUM"])
def test_the_length_is_that_of_a_coder_that_counts_along(
    code: tuple[np.ndarray, np.ndarray], name: str
) -> None:
    import adaptive_coding

    bits, kept = code
    neighbours = getattr(adaptive_coding, name)
    _, n, height, width = bits.shape
    past: dict[tuple[int, int, int], int] = {}  # what a decoder knows
    counts: Counter[tuple[tuple[int, ...], int]] = Counter()
    length = 0.0
    for k in range(n):
        for y in range(height):
            for x in range(width):
                if k >= kept[0, y, x]:
                    continue
                context = tuple(past.get((k - c, y - r, x - s), 2) for c, r, s in neighbours)
                bit = int(bits[0, k, y, x])
                of_context = counts[context, 0] + counts[context, 1]
                length -= np.log2((counts[context, bit] + 0.5) / (of_context + 1))
                counts[context, bit] += 1
                past[k, y, x] = bit
    found = adaptive_coding.bits_of_code(bits, kept.astype(np.int64), neighbours)
    assert found == pytest.approx(length)
    assert found < kept.sum()


def test_a_map_costs_what_counting_along_costs() -> None:
    import adaptive_coding

    rng = np.random.default_rng(2)
    level = np.cumsum(rng.integers(0, 2, (1, 5, 8)), axis=2)
    levels = 16
    counts: Counter[tuple[int, int]] = Counter()
    length = 0.0
    for y in range(5):
        for x in range(8):
            left = level[0, y, x - 1] if x else 0
            above = level[0, y - 1, x] if y else 0
            context = int(left + above + 1) // 2
            symbol = int(level[0, y, x])
            total = sum(counts[context, other] for other in range(levels))
            length -= np.log2((counts[context, symbol] + 0.5) / (total + levels / 2))
            counts[context, symbol] += 1
    assert adaptive_coding.bits_of_map(level, levels) == pytest.approx(length)
