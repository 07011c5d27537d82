"""Codes and maps through the entropy coder and back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cwic import cvpr2018_coder
from cwic.cvpr2018_coder import CodedPicture, CodeLayout
from cwic.errors import BitstreamError, ModelError

LAYOUTS = [
    CodeLayout(code_channels=8, levels=4, first_kept=2),
    CodeLayout(code_channels=8, levels=4, first_kept=0),
    CodeLayout(code_channels=10, levels=5, first_kept=2),
    CodeLayout(code_channels=64, levels=16, first_kept=4),
    CodeLayout(code_channels=128, levels=32, first_kept=0),
]


def random_picture(
    layout: CodeLayout, height: int, width: int, rng: np.random.Generator, p_one: float = 0.4
) -> CodedPicture:
    level = rng.integers(0, layout.levels, (height, width)).astype(np.uint8)
    mask = np.arange(layout.code_channels)[:, None, None] < layout.kept(level)
    code = ((rng.random(mask.shape) < p_one) & mask).astype(np.uint8)
    return CodedPicture(code, level)


def flat_table(layout: CodeLayout) -> np.ndarray:
    return np.full(layout.num_contexts, 32768, np.uint16)


@settings(max_examples=40, deadline=None)
@given(
    layout=st.sampled_from(LAYOUTS),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    seed=st.integers(0, 2**32 - 1),
)
def test_decoding_gives_back_any_code_and_map(
    layout: CodeLayout, height: int, width: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    picture = random_picture(layout, height, width, rng, p_one=rng.random())
    table = rng.integers(1, 65536, layout.num_contexts).astype(np.uint16)
    payload = cvpr2018_coder.encode_symbols(picture, layout, table)
    decoded = cvpr2018_coder.decode_symbols(payload, height, width, layout, table)
    np.testing.assert_array_equal(decoded.level, picture.level)
    np.testing.assert_array_equal(decoded.code, picture.code)


def test_the_payload_is_as_long_as_its_cross_entropy() -> None:
    layout = LAYOUTS[3]
    picture = random_picture(layout, 20, 30, np.random.default_rng(1))
    table = cvpr2018_coder.probability_table(cvpr2018_coder.count_contexts(picture, layout), layout)
    expected_bytes = cvpr2018_coder.cost_bits(picture, layout, table) / 8
    payload = cvpr2018_coder.encode_symbols(picture, layout, table)
    assert expected_bytes - 1 <= len(payload) <= expected_bytes * 1.001 + 8


def test_counted_tables_code_smaller_than_flat_ones() -> None:
    layout = LAYOUTS[3]
    rng = np.random.default_rng(2)
    pictures = [random_picture(layout, 20, 30, rng, p_one=0.1) for _ in range(3)]
    counts = sum(cvpr2018_coder.count_contexts(picture, layout) for picture in pictures[:2])
    table = cvpr2018_coder.probability_table(counts, layout)
    cost = cvpr2018_coder.cost_bits(pictures[2], layout, table)
    assert cost < 0.75 * cvpr2018_coder.cost_bits(pictures[2], layout, flat_table(layout))


def test_every_kept_bit_and_every_level_is_visited_once() -> None:
    layout = LAYOUTS[0]
    picture = random_picture(layout, 7, 5, np.random.default_rng(3))
    counts = cvpr2018_coder.count_contexts(picture, layout)
    assert counts.sum() == layout.kept(picture.level).sum() + layout.level_bits * 35


def test_contexts_hold_nothing_that_a_decoder_does_not_know_yet() -> None:
    """Flipping one bit may change no context of a bit that is coded before it."""
    layout = LAYOUTS[0]
    picture = random_picture(layout, 6, 5, np.random.default_rng(4))

    def visited(of: CodedPicture) -> list[tuple[int, int]]:
        seen: list[tuple[int, int]] = []

        def visit(bits: np.ndarray, contexts: np.ndarray) -> np.ndarray:
            seen.extend(zip(contexts.tolist(), bits.tolist(), strict=True))
            return bits

        cvpr2018_coder._walk(CodedPicture(of.code.copy(), of.level.copy()), layout, visit)
        return seen

    original = visited(picture)
    for k, y, x in np.argwhere(picture.code)[::3]:
        changed = picture.code.copy()
        changed[k, y, x] = 0
        differing = visited(CodedPicture(changed, picture.level))
        first = next(i for i, (a, b) in enumerate(zip(original, differing, strict=True)) if a != b)
        # The first difference is in the bit itself, seen from the same context.
        assert original[first][0] == differing[first][0]
        assert (original[first][1], differing[first][1]) == (1, 0)


@pytest.mark.parametrize("seed", range(20))
def test_garbage_gives_symbols_of_the_right_shape_or_a_bitstream_error(seed: int) -> None:
    layout = LAYOUTS[2]
    rng = np.random.default_rng(seed)
    garbage = rng.bytes(int(rng.integers(0, 200)))
    try:
        picture = cvpr2018_coder.decode_symbols(garbage, 6, 7, layout, flat_table(layout))
    except BitstreamError:
        return
    assert picture.code.shape == (10, 6, 7)
    assert picture.level.max() < layout.levels


def test_tables_that_do_not_fit_are_refused() -> None:
    layout = LAYOUTS[0]
    with pytest.raises(ModelError, match="probabilities"):
        cvpr2018_coder.checked_table(layout, flat_table(layout)[:-1])
    zero = flat_table(layout)
    zero[3] = 0
    with pytest.raises(ModelError, match="probabilities"):
        cvpr2018_coder.checked_table(layout, zero)
