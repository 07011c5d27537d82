"""Codes and maps through the entropy coder and back."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cwic.coding.arithmetic_coder import BitCounter, BitEncoder
from cwic.coding.exact_arithmetic import dtype_for_signs
from cwic.errors import BitstreamError, ModelError
from cwic.families.cvpr2018 import coder as cvpr2018_coder
from cwic.families.cvpr2018.coder import PROBABILITIES, CodeCoder, CodedPicture, CodeLayout

LAYOUTS = [
    CodeLayout(code_channels=8, levels=4, first_kept=2, channel_delay=1),
    CodeLayout(code_channels=8, levels=4, first_kept=0, channel_delay=3),
    CodeLayout(code_channels=16, levels=8, first_kept=2, channel_delay=3),
    CodeLayout(code_channels=64, levels=16, first_kept=4, channel_delay=3),
    CodeLayout(code_channels=128, levels=32, first_kept=0, channel_delay=2),
    CodeLayout(code_channels=32, levels=16, first_kept=2, channel_delay=7),
]

Product = Callable[[np.ndarray, np.ndarray], np.ndarray]


def random_arrays(layout: CodeLayout, seed: int, maps: int = 3, size: int = 5) -> dict[str, Any]:
    """Networks that nobody trained, of the shapes that an export writes."""
    rng = np.random.default_rng(seed)
    n, levels = layout.code_channels, layout.levels

    def weights(*shape: int) -> np.ndarray:
        return rng.integers(-4000, 4001, shape).astype(np.int16)

    def biases(*shape: int) -> np.ndarray:
        return rng.integers(-(2**20), 2**20, shape)

    arrays = {
        "code.place": biases(n * levels, 6),
        "code.hidden.weight": weights(5, 6, 1, 1),
        "code.hidden.bias": biases(5),
        "code.out.weight": weights(1, 5, 1, 1),
        "code.out.bias": biases(1),
        "level.neighbours.weight": weights(4, 2, 5, 5),
        "level.neighbours.bias": biases(4),
        "level.hidden.weight": weights(3, 4, 1, 1),
        "level.hidden.bias": biases(3),
        "level.out.weight": weights(levels - 1, 3, 1, 1),
        "level.out.bias": biases(levels - 1),
        "probabilities": np.sort(rng.integers(1, 65536, PROBABILITIES)).astype(np.uint16),
    }
    if maps > 1:
        arrays["code.below.weight"] = weights(6, maps - 1, size, size)
    if maps > 0:
        arrays["code.own.weight"] = weights(6, 1, size, size)
    return arrays


def coder_of(layout: CodeLayout, seed: int = 0, **choices: Any) -> CodeCoder:
    return CodeCoder(layout, random_arrays(layout, seed, **choices), "random")


def random_picture(
    layout: CodeLayout, height: int, width: int, rng: np.random.Generator, p_one: float = 0.4
) -> CodedPicture:
    level = rng.integers(0, layout.levels, (height, width)).astype(np.uint8)
    mask = np.arange(layout.code_channels)[:, None, None] < layout.kept(level)
    code = ((rng.random(mask.shape) < p_one) & mask).astype(np.uint8)
    return CodedPicture(code, level)


@settings(max_examples=40, deadline=None)
@given(
    layout=st.sampled_from(LAYOUTS),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    seed=st.integers(0, 2**32 - 1),
    maps=st.integers(0, 4),
    size=st.sampled_from([1, 3, 5]),
)
def test_decoding_gives_back_any_code_and_map(
    layout: CodeLayout,
    height: int,
    width: int,
    seed: int,
    maps: int,
    size: int,
) -> None:
    rng = np.random.default_rng(seed)
    picture = random_picture(layout, height, width, rng, p_one=rng.random())
    coder = coder_of(layout, seed, maps=maps, size=size)
    payload = coder.counted(picture).payload()
    decoded = coder.decode(payload, height, width)
    np.testing.assert_array_equal(decoded.level, picture.level)
    np.testing.assert_array_equal(decoded.code, picture.code)


def test_the_payload_is_as_long_as_its_cross_entropy() -> None:
    picture = random_picture(LAYOUTS[3], 20, 30, np.random.default_rng(1))
    counter = coder_of(LAYOUTS[3]).counted(picture)
    # What has one chance in 2^16 has a little more in the range coder, so it may even be shorter.
    assert len(counter.payload()) == pytest.approx(counter.bits / 8, rel=1e-3, abs=8)


def test_counting_leaves_the_picture_alone_and_codes_the_same_bytes() -> None:
    layout = LAYOUTS[0]
    picture = random_picture(layout, 7, 5, np.random.default_rng(3))
    before = CodedPicture(picture.code.copy(), picture.level.copy())
    coder, encoder = coder_of(layout), BitEncoder()
    payload = coder.counted(picture).payload()
    np.testing.assert_array_equal(picture.code, before.code)
    np.testing.assert_array_equal(picture.level, before.level)
    coder.visit(encoder, picture)
    assert encoder.finish() == payload


class Witness(BitCounter):
    """Remembers each symbol with what it was coded by."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, int]] = []

    def code(self, bits: Any, p_one: Any) -> Any:
        self.seen += zip(np.asarray(p_one).tolist(), np.asarray(bits).tolist(), strict=True)
        return super().code(bits, p_one)


def test_every_kept_bit_and_every_level_is_visited_once() -> None:
    layout = LAYOUTS[0]
    picture = random_picture(layout, 7, 5, np.random.default_rng(3))
    witness = Witness()
    coder_of(layout).visit(witness, picture)
    bits_a_level = 2
    assert len(witness.seen) == layout.kept(picture.level).sum() + 35 * bits_a_level


@pytest.mark.parametrize("channel_delay", [1, 3, 7])
@pytest.mark.parametrize("of", ["code", "level"])
def test_expectations_hold_nothing_that_a_decoder_does_not_know_yet(
    of: str, channel_delay: int
) -> None:
    """Changing one symbol may change no expectation of a symbol that is coded before it."""
    layout = CodeLayout(8, levels=4, first_kept=8 // 4, channel_delay=channel_delay)
    picture = random_picture(layout, 6, 5, np.random.default_rng(4))
    coder = coder_of(layout, 9, maps=4)

    def visited(code: np.ndarray, level: np.ndarray) -> list[tuple[int, int]]:
        witness = Witness()
        coder.visit(witness, CodedPicture(code.copy(), level.copy()))
        return witness.seen

    original = visited(picture.code, picture.level)
    for place in np.argwhere(picture.code if of == "code" else picture.level)[::3]:
        code, level = picture.code.copy(), picture.level.copy()
        changed = code if of == "code" else level
        changed[tuple(place)] -= 1
        differing = visited(code, level)
        pairs = zip(original, differing, strict=False)
        first = next(i for i, (a, b) in enumerate(pairs) if a != b)
        # The first difference is in the symbol itself, seen with the same expectation.
        assert original[first][0] == differing[first][0]
        assert original[first][1] - differing[first][1] == 1


def test_a_level_is_coded_from_its_highest_bit_down() -> None:
    layout = LAYOUTS[2]
    level = np.array([[5]], np.uint8)
    arrays = random_arrays(layout, 0) | {
        "level.out.weight": np.zeros((7, 3, 1, 1), np.int16),
        "level.out.bias": np.arange(7) << 18,  # times four: logits of 0, 1, 2, ...
        "probabilities": np.arange(1, PROBABILITIES + 1).astype(np.uint16),
    }
    witness = Witness()
    CodeCoder(layout, arrays, "hand-made").visit_map(witness, level)
    # Nodes 1, 3 and 6 of the heap; 128 entries of the table to a logit, 0 in its middle.
    assert witness.seen == [(1025, 1), (1025 + 256, 0), (1025 + 640, 1)]


@pytest.mark.parametrize("seed", range(20))
def test_garbage_gives_symbols_of_the_right_shape_or_a_bitstream_error(seed: int) -> None:
    layout = LAYOUTS[2]
    rng = np.random.default_rng(seed)
    garbage = rng.bytes(int(rng.integers(0, 200)))
    try:
        picture = coder_of(layout).decode(garbage, 6, 7)
    except BitstreamError:
        return
    assert picture.code.shape == (16, 6, 7)
    assert picture.level.max() < layout.levels


# --- other arithmetic -----------------------------------------------------------------------------


class Elsewhere:
    """A matrix whose products with numpy's arrays are computed by a function."""

    __array_ufunc__ = None  # so that numpy leaves its products to this class

    def __init__(self, matrix: np.ndarray, product: Product):
        self.matrix, self.product, self.dtype = matrix, product, matrix.dtype

    @property
    def T(self) -> "Elsewhere":  # noqa: N802 - as an array names it
        return Elsewhere(self.matrix.T, self.product)

    def __rmatmul__(self, left: np.ndarray) -> np.ndarray:
        return self.product(left, self.matrix)


def computing_elsewhere(coder: CodeCoder, product: Product) -> CodeCoder:
    for name in ("_cube", "_neighbours"):
        setattr(coder, name, Elsewhere(getattr(coder, name), product))
    for name in ("_code_perceptron", "_level_perceptron"):
        perceptron = getattr(coder, name)
        layers = {part: Elsewhere(getattr(perceptron, part), product) for part in ("hidden", "out")}
        setattr(coder, name, perceptron._replace(**layers))
    return coder


def product_in_int64(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    product: np.ndarray = left.astype(np.int64) @ right.astype(np.int64)
    return product


def rectified_in_int64(sums: np.ndarray) -> np.ndarray:
    return np.clip((sums.astype(np.int64) + 2**11) >> 12, 0, 2**15 - 1)


def product_in_tf32(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """As a graphics card may take it upon itself: 10 bits of mantissa."""

    def shortened(array: np.ndarray) -> np.ndarray:
        bits = np.ascontiguousarray(array, np.float32).view(np.uint32) & np.uint32(0xFFFFE000)
        return bits.view(np.float32)

    product: np.ndarray = (shortened(left) @ shortened(right)).astype(np.float64)
    return product


Rectifier = Callable[[np.ndarray], np.ndarray]


def read_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
    product: Product,
    rectified: Rectifier,
    changes: dict[str, np.ndarray] | None = None,
) -> tuple[CodedPicture, CodedPicture]:
    """A picture, and what is read of its payload by the other arithmetic."""
    layout = LAYOUTS[-1]
    arrays = random_arrays(layout, 6, maps=4) | (changes or {})
    picture = random_picture(layout, 11, 14, np.random.default_rng(6))
    payload = CodeCoder(layout, arrays, "here").counted(picture).payload()
    monkeypatch.setattr(cvpr2018_coder, "rectified", rectified)
    elsewhere = computing_elsewhere(CodeCoder(layout, arrays, "elsewhere"), product)
    return picture, elsewhere.decode(payload, 11, 14)


def test_integers_of_64_bits_read_the_same_symbols(monkeypatch: pytest.MonkeyPatch) -> None:
    picture, read = read_elsewhere(monkeypatch, product_in_int64, rectified_in_int64)
    np.testing.assert_array_equal(read.level, picture.level)
    np.testing.assert_array_equal(read.code, picture.code)


@pytest.mark.parametrize(("maps", "dtype"), [(21, np.float32), (24, np.float64)])
def test_cubes_as_heavy_as_they_may_be_are_read_the_same(
    maps: int, dtype: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(maps)
    heavy = {
        f"code.{name}.weight": rng.choice([-(2**15) + 1, 2**15 - 1], (6, inputs, 5, 5))
        for name, inputs in (("own", 1), ("below", maps - 1))
    }
    cube = CodeCoder(LAYOUTS[-1], random_arrays(LAYOUTS[-1], 6) | heavy, "heavy")._cube
    assert cube.dtype == dtype
    picture, read = read_elsewhere(monkeypatch, product_in_int64, rectified_in_int64, heavy)
    np.testing.assert_array_equal(read.code, picture.code)


def test_signs_are_multiplied_in_float32_as_long_as_that_is_exact() -> None:
    rng = np.random.default_rng(0)
    weights = rng.choice([-(2**15) + 1, 2**15 - 1], (512, 40))
    assert np.abs(weights).sum(axis=0).max() == 2**24 - 512
    assert dtype_for_signs(weights) is np.float32
    # The largest sums that there are, and others.
    signs = np.concatenate([np.sign(weights.T), rng.integers(-1, 2, (300, 512))])
    product = signs.astype(np.float32) @ weights.astype(np.float32)
    np.testing.assert_array_equal(product, signs @ weights)
    # Sums of 2^24 + 1 are not among the numbers of float32.
    assert dtype_for_signs(np.concatenate([weights, np.full((1, 40), 513)])) is np.float64
    assert dtype_for_signs(np.zeros((0, 3))) is np.float32


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_torch_in_float64_reads_the_same_symbols(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")

    def there(array: np.ndarray) -> Any:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device, torch.float64)

    def product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        result: np.ndarray = (there(left) @ there(right)).cpu().numpy()
        return result

    def rectified(sums: np.ndarray) -> np.ndarray:
        rounded = torch.floor(there(sums) * 2.0**-12 + 0.5)
        result: np.ndarray = rounded.clamp(0, 2**15 - 1).cpu().numpy()
        return result

    picture, read = read_elsewhere(monkeypatch, product, rectified)
    np.testing.assert_array_equal(read.level, picture.level)
    np.testing.assert_array_equal(read.code, picture.code)


def test_products_of_a_graphics_card_in_tf32_would_be_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    try:
        picture, read = read_elsewhere(monkeypatch, product_in_tf32, rectified_in_int64)
    except BitstreamError:
        return
    assert (read.code != picture.code).any()


# --- models that do not fit -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("code.place", np.zeros((3, 6), np.int64)),
        ("code.place", np.full((32, 6), 2**50)),
        ("code.below.weight", np.zeros((6, 2, 4, 4), np.int16)),
        ("code.hidden.weight", np.zeros((5, 7, 1, 1), np.int16)),
        ("code.out.bias", np.zeros(2, np.int64)),
        ("code.out.bias", np.zeros(1, np.float32)),
        ("level.neighbours.weight", np.zeros((4, 2, 3, 3), np.int16)),
        ("level.out.weight", None),
        ("level.out.weight", np.zeros((2, 3, 1, 1), np.int16)),
        ("probabilities", np.zeros(PROBABILITIES, np.uint16)),
    ],
)
def test_arrays_that_do_not_fit_are_refused(name: str, array: np.ndarray | None) -> None:
    arrays = random_arrays(LAYOUTS[0], 1) | {name: array}
    with pytest.raises(ModelError, match=name):
        CodeCoder(LAYOUTS[0], {k: v for k, v in arrays.items() if v is not None}, "broken")


@pytest.mark.parametrize("layout", [(8, 3, 1), (8, 16, 0), (2048, 16, 0), (12, 8, 0), (8, 4, 3)])
def test_layouts_that_make_no_sense_are_refused(layout: tuple[int, int, int]) -> None:
    with pytest.raises(ModelError, match="levels"):
        CodeCoder(CodeLayout(*layout, channel_delay=3), {}, "broken")


@pytest.mark.parametrize("channel_delay", [-1, 0, 17])
def test_a_delay_out_of_range_is_refused(channel_delay: int) -> None:
    layout = CodeLayout(8, 4, 2, channel_delay)
    with pytest.raises(ModelError, match=f"channel_delay of 1 to 16, found {channel_delay}"):
        CodeCoder(layout, random_arrays(layout, 0), "broken")


# --- the seam -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("maps", "reach", "channel_delay"), [(1, 0, 3), (2, 1, 1), (4, 2, 3)])
def test_training_counts_the_bits_that_the_coder_spends(
    maps: int, reach: int, channel_delay: int, one_torch_thread: None
) -> None:
    import torch

    from cwic.training.cvpr2018.export import code_layout, coder_arrays
    from cwic.training.cvpr2018.network import Cvpr2018Config, Cvpr2018Network

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(maps)
        network = Cvpr2018Network(
            Cvpr2018Config(
                width=1 / 16,
                context_maps=maps,
                context_reach=reach,
                context_width=8,
                channel_delay=channel_delay,
            )
        )
        torch.nn.init.normal_(network.code_context.out.weight)
        torch.nn.init.normal_(network.level_context.out.weight)
        network.eval()
        x = torch.rand(1, 3, 88, 72) * 2 - 1
        with torch.no_grad():
            coded = network.coded_bits(x, 0.5)
            output = network(x, 0.5)
    assert output.importance is not None
    layout = code_layout(network.config)
    level = np.floor(output.importance[0, 0].numpy() * layout.levels + 1e-5).astype(np.uint8)
    picture = CodedPicture(output.code[0].numpy().astype(np.uint8), level)
    coder = CodeCoder(layout, coder_arrays(network), "seam")
    total = BitCounter()
    coder.visit_map(total, level)
    assert total.bits == pytest.approx(float(coded.level_bits), rel=1e-3)
    counted = coder.counted(picture).bits - total.bits
    assert counted == pytest.approx(float(coded.code_bits), rel=1e-3)
