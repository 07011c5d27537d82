"""The flagship's network: exact scales, probabilities, centred maps, sizes."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")


from flagship_training import TINY  # noqa: E402

from cwic import model_file  # noqa: E402
from cwic.coding.exact_arithmetic import check_exact  # noqa: E402
from cwic.coding.symbol_tables import FREQUENCY_BITS  # noqa: E402
from cwic.families.flagship.coder import ESCAPE  # noqa: E402
from cwic.families.flagship.grid import HYPER_PX, LATENT_PX  # noqa: E402
from cwic.families.flagship.latents import MAX_SYMBOL  # noqa: E402
from cwic.families.flagship.step_network import NUM_TABLES  # noqa: E402
from cwic.training.config import load_config  # noqa: E402
from cwic.training.families import FAMILIES  # noqa: E402
from cwic.training.flagship.entropy import (  # noqa: E402
    HyperModel,
    LevelModel,
    coding_tables,
    inverse_scale,
    magnitude_table,
    rounded_table,
    symbol_bits,
    table_bits,
)
from cwic.training.flagship.family import draw_noise, random_map  # noqa: E402
from cwic.training.flagship.network import (  # noqa: E402
    Cut,
    FlagshipConfig,
    FlagshipNetwork,
    Noise,
    centred_levels,
)
from cwic.training.flagship.objective import (  # noqa: E402
    shrunk_to_preview,
)
from cwic.training.integer_layers import IntegerConv2d, IntegerWeights  # noqa: E402
from cwic.training.logistic import logistic_bits  # noqa: E402

CONFIGS = Path(__file__).parent.parent / "configs"

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def lively(network: FlagshipNetwork) -> FlagshipNetwork:
    """A network that nobody trained, with symbols, tables and levels of every size."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith(("hyper_model", "level_model")):
                continue
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
            parameter.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
        for layer, factor in (
            (network.analysis.to_latents, 30.0),
            (network.hyper_analysis.to_64, 10.0),
            (network.importance_net.last, 8.0),
            *((head, 4.0) for head in network.scale_network.head),
        ):
            layer.weight.mul_(factor)
    return network


@pytest.fixture(scope="module")
def network() -> FlagshipNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return lively(FlagshipNetwork(TINY)).eval()


@pytest.fixture(scope="module")
def pictures() -> "torch.Tensor":
    generator = torch.Generator().manual_seed(2)
    smooth = torch.rand(2, 3, 8, 12, generator=generator)
    return torch.nn.functional.interpolate(smooth, size=(64, 128), mode="bicubic") - 0.5


def no_offset(x: "torch.Tensor") -> "torch.Tensor":
    return torch.zeros(x.shape[0], 1, x.shape[2] // 16, x.shape[3] // 16)


def some_noise(x: "torch.Tensor") -> Noise:
    batch, _, height, width = x.shape
    return Noise(
        torch.rand(batch, 5, height // 16, width // 16) - 0.5,
        torch.rand(batch, 4, height // 64, width // 64) - 0.5,
    )


def test_a_pass_gives_a_picture_integer_levels_and_bits(
    network: FlagshipNetwork, pictures: "torch.Tensor"
) -> None:
    q = torch.tensor([-9.0, 8.5])
    with torch.no_grad():
        output = network(pictures, q, no_offset(pictures))
    assert output.reconstruction.shape == pictures.shape
    assert output.level.shape == (2, 1, 4, 8)
    assert len(output.level.unique()) > 2
    assert torch.equal(output.level, output.level.round())
    for bits in (output.latent_bits, output.hyper_bits, output.level_bits):
        assert bits.shape == (2,)
        assert (bits > 0).all()


def test_a_higher_q_costs_more(network: FlagshipNetwork, pictures: "torch.Tensor") -> None:
    costs = []
    for q in (-9.0, -3.0, 3.0, 9.0):
        with torch.no_grad():
            output = network(pictures[:1], torch.tensor([q]), no_offset(pictures[:1]))
        costs.append(float(output.latent_bits))
    assert costs == sorted(costs)


def test_what_is_coded_later_changes_no_earlier_prediction(network: FlagshipNetwork) -> None:
    """The order of decoding: a step sees groups before it and, in its own, the first colour."""
    generator = torch.Generator().manual_seed(3)
    y = 2 * torch.randn(1, 5, 4, 4, generator=generator)
    z = torch.randint(-3, 4, (1, 4, 1, 1), generator=generator).float()
    level, q = torch.zeros(1, 1, 4, 4), torch.zeros(1)
    planes = torch.zeros(1, 5, 4, 4)
    first = (torch.arange(4)[:, None] + torch.arange(4)) % 2 == 0

    def run(latents: "torch.Tensor") -> tuple["torch.Tensor", "torch.Tensor"]:
        with torch.no_grad():
            decoded, _, bits = network._code_latents(latents, z, level, q, planes, None, None)
        return decoded, bits

    decoded, bits = run(y)
    # Latents of the second colour of the second group: nobody may see them.
    changed = y.clone()
    changed[:, 2:] += torch.where(first, 0.0, 2.0)
    decoded_after, bits_after = run(changed)
    assert torch.equal(decoded[:, :2], decoded_after[:, :2])
    assert torch.equal(bits[:, :2], bits_after[:, :2])
    assert torch.equal(decoded[:, 2:][..., first], decoded_after[:, 2:][..., first])
    assert not torch.equal(bits[:, 2:][..., ~first], bits_after[:, 2:][..., ~first])
    # Latents of the first colour of the first group: all others may.
    changed = y.clone()
    changed[:, :2] += torch.where(first, 2.0, 0.0)
    _, bits_after = run(changed)
    assert not torch.equal(bits[:, :2][..., ~first], bits_after[:, :2][..., ~first])
    assert not torch.equal(bits[:, 2:], bits_after[:, 2:])


def test_every_parameter_is_trained(pictures: "torch.Tensor") -> None:
    network = lively(FlagshipNetwork(TINY))
    q = torch.tensor([-2.0, 5.0])
    output = network(pictures, q, no_offset(pictures), some_noise(pictures), with_fast=True)
    distortion = (output.reconstruction - pictures).square().mean()
    assert output.fast is not None
    distortion = distortion + (output.fast - pictures).square().mean()
    distortion = distortion + (output.preview - shrunk_to_preview(pictures)).square().mean()
    (845 * distortion + output.bits.mean() / 8192).backward()
    # Only the rate classes of the two q have a gradient, but their tensors do.
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        # Centring takes a constant on the map back.
        assert parameter.grad.abs().sum() > 0 or name == "importance_net.last.bias", name


def test_bits_with_noise_are_about_those_of_the_tables(pictures: "torch.Tensor") -> None:
    torch.manual_seed(4)
    network = FlagshipNetwork(TINY)  # its tables are about right, as those of a trained one are
    q = torch.tensor([2.0, 6.0])
    with torch.no_grad():
        network.train()
        soft = torch.stack(
            [network(pictures, q, no_offset(pictures), some_noise(pictures)).bits for _ in range(9)]
        ).mean(dim=0)
        hard = network(pictures, q, no_offset(pictures), hard=True).bits
        network.eval()
        tables = network(pictures, q, no_offset(pictures)).bits
    torch.testing.assert_close(soft, tables, rtol=0.15, atol=20)
    torch.testing.assert_close(hard, tables, rtol=0.1, atol=20)


def convolved(x: npt.NDArray[np.int64], layer: IntegerWeights) -> npt.NDArray[np.int64]:
    """(C, h, w) integers, zero padding, nothing but int64."""
    size = layer.weight.shape[2]
    _, height, width = x.shape
    padded = np.pad(x, ((0, 0), (size // 2, size // 2), (size // 2, size // 2)))
    total = np.broadcast_to(layer.bias[:, None, None], (len(layer.bias), height, width)).copy()
    for i in range(size):
        for j in range(size):
            total += np.einsum(
                "oc,chw->ohw", layer.weight[:, :, i, j], padded[:, i : i + height, j : j + width]
            )
    return total


def relu(x: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.clip((x + 2**11) >> 12, 0, 2**15 - 1)


def shuffled(x: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    channels, height, width = x.shape
    y = x.reshape(channels // 4, 2, 2, height, width).transpose(0, 3, 1, 4, 2)
    return y.reshape(channels // 4, 2 * height, 2 * width)


def table_indices(
    layers: dict[str, IntegerWeights],
    groups: tuple[int, ...],
    z: npt.NDArray[np.int64],
    s: npt.NDArray[np.int64],
    q64: int,
    symbols: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """The scale network as the documentation states it, in int64.

    Args:
        layers: of the network.
        groups: channels of each group.
        z: (Z, h / 4, w / 4).
        s: (h, w).
        q64: of the header.
        symbols: (M, h, w).
    """
    x = relu(convolved(256 * z, layers["hyper_64"]))
    x = relu(shuffled(convolved(x, layers["to_32"])))
    x = relu(convolved(x, layers["hyper_32"]))
    planes = np.stack([256 * s, np.full_like(s, 4 * q64)])
    state = shuffled(convolved(x, layers["to_16"])) + convolved(planes, layers["from_planes"])
    rows, columns = np.indices(s.shape)
    first = (rows + columns) % 2 == 0
    magnitudes = magnitude_table()
    result = np.zeros_like(symbols)
    start = 0
    for group, channels in enumerate(groups):
        own = symbols[start : start + channels]
        for second, here in enumerate((first, ~first)):
            step = 2 * group + second
            hidden = relu(convolved(relu(state), layers[f"hidden.{step}"]))
            total = 4 * convolved(hidden, layers[f"head.{step}"])
            total += 3 * 2**13 * (64 * s + q64) + 20 * 2**20 + 2**19
            index = np.clip(total >> 20, 0, NUM_TABLES - 1)
            result[start : start + channels][:, here] = index[:, here]
            known = np.where(here, magnitudes[np.minimum(np.abs(own), MAX_SYMBOL)], 0)
            state = state + convolved(known, layers[f"absorb_group.{group}"])
        start += channels
    return result


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(-576, 576))
def test_the_scale_network_is_its_integers_exactly(seed: int, q64: int) -> None:
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed % 1000)
    scale_network = lively(FlagshipNetwork(TINY)).eval().scale_network
    z = rng.integers(-63, 64, (4, 2, 3))
    s = rng.integers(-8, 9, (8, 12))
    symbols = np.rint(rng.laplace(0, rng.uniform(0.2, 60), (5, 8, 12))).astype(np.int64)
    rows, columns = np.indices(s.shape)
    first = torch.from_numpy((rows + columns) % 2 == 0)
    magnitudes = torch.from_numpy(magnitude_table()).float() / 256
    told = torch.stack(
        [torch.from_numpy(s).float(), torch.full((8, 12), q64 / 64)], dim=0
    ).unsqueeze(0)
    found = []
    with torch.no_grad():
        state = scale_network.begin(torch.from_numpy(z).float()[None], told)
        for group, own in enumerate(torch.from_numpy(symbols).split(TINY.groups)):
            passes = []
            for second, here in enumerate((first, ~first)):
                table = scale_network.table(state, told, group, second)
                assert table.dtype == torch.float64
                passes.append(rounded_table(table))
                known = magnitudes[own.abs().clamp(max=MAX_SYMBOL)]
                state = scale_network.absorb(state, group, torch.where(here, known, 0.0)[None])
            found.append(torch.where(first, *passes))
    expected = table_indices(scale_network.quantized(), TINY.groups, z, s, q64, symbols)
    np.testing.assert_array_equal(torch.cat(found, dim=1)[0].numpy(), expected)
    assert expected.min() < expected.max()


def test_the_network_codes_with_the_integer_indices(
    network: FlagshipNetwork, pictures: "torch.Tensor", monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the symbols that a whole pass coded, integers alone find the tables it used."""
    coded: list[tuple[torch.Tensor, torch.Tensor]] = []
    original = network._bits

    def watched(exact, symbol, table, noise):  # type: ignore[no-untyped-def]
        coded.append((symbol, rounded_table(table)))
        return original(exact, symbol, table, noise)

    hyper: list[torch.Tensor] = []
    monkeypatch.setattr(network, "_bits", watched)
    network.hyper_model.register_forward_pre_hook(lambda module, given: hyper.append(given[0]))
    with torch.no_grad():
        output = network(pictures[:1], torch.tensor([1.25]), no_offset(pictures[:1]))
    symbols, tables = (
        torch.cat([pair[i] for pair in coded], dim=1)[0].numpy().astype(np.int64) for i in (0, 1)
    )
    expected = table_indices(
        network.scale_network.quantized(),
        TINY.groups,
        hyper[0][0].numpy().astype(np.int64),
        output.level[0, 0].numpy().astype(np.int64),
        round(float(output.q) * 64),
        symbols,
    )
    np.testing.assert_array_equal(tables, expected)
    assert len(np.unique(tables)) > 5


def test_weights_that_could_overflow_are_refused() -> None:
    large = IntegerWeights(np.full((1, 2**12, 3, 3), 2**15 - 1), np.zeros(1, np.int64))
    check_exact(large)
    with pytest.raises(ValueError, match="not exact"):
        check_exact(large, max_input=2**25)
    with pytest.raises(ValueError, match="not exact"):
        check_exact(*[large] * 300)
    with pytest.raises(ValueError, match="expected weights"):
        check_exact((np.array([[-(2**15)]], np.int16), np.zeros(1, np.int64)))
    with pytest.raises(ValueError, match="expected integers"):
        check_exact((np.array([[0.5]]), np.zeros(1, np.int64)))


def test_logistic_bits_are_those_of_the_distribution() -> None:
    symbols = torch.arange(-4000, 4001).double()
    for scale in (0.05, 0.3, 1.0, 20.0, 72.0):
        p = torch.exp2(-logistic_bits(symbols - 0.3, torch.tensor(1 / scale).double()))
        assert float(p.sum()) == pytest.approx(1, abs=1e-9)
    far = logistic_bits(torch.tensor([1e4]), torch.tensor([20.0]))
    assert torch.isfinite(far).all()


def test_coding_tables_are_whole_and_cost_what_the_distribution_says() -> None:
    tables = coding_tables()
    assert tables.shape == (NUM_TABLES, ESCAPE + 1)
    assert (tables.sum(axis=1) == 2**FREQUENCY_BITS).all()
    assert tables.min() >= 0
    assert (tables[:, ESCAPE] >= 1).all()
    costs = torch.from_numpy(table_bits()).flatten()
    for index in (0, 10, 20, 40, NUM_TABLES - 1):
        inverse = inverse_scale(torch.tensor(float(index)).double())
        symbols = torch.arange(-MAX_SYMBOL, MAX_SYMBOL + 1).double()
        ideal = logistic_bits(symbols, inverse)
        p = torch.exp2(-ideal)
        real = symbol_bits(symbols, torch.full(symbols.shape, index), costs)
        assert float((p * real).sum()) == pytest.approx(float((p * ideal).sum()), abs=2e-3)


def test_a_symbol_beyond_the_tables_is_an_escape_and_a_number() -> None:
    costs = torch.from_numpy(table_bits()).flatten()
    symbols = torch.tensor([-MAX_SYMBOL - 1.0, MAX_SYMBOL + 1.0, MAX_SYMBOL + 2.0, -2000.0])
    bits = symbol_bits(symbols, torch.full((4,), 30), costs)
    escape = float(table_bits()[30, ESCAPE])
    # A sign and an Exp-Golomb number of 1, 1, 2 and 1745.
    assert bits.tolist() == pytest.approx([escape + 2, escape + 2, escape + 4, escape + 22])


def test_rate_classes_follow_the_header() -> None:
    q64 = np.arange(-800, 801)
    classes = HyperModel.rate_class(torch.from_numpy(q64 / 64)).numpy()
    np.testing.assert_array_equal(classes, np.clip((q64 + 768) >> 7, 0, 11))


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.floats(0, 30),
    st.floats(-20, 20),
    st.integers(-576, 576),
    st.integers(1, 20),
    st.integers(1, 20),
)
def test_the_mean_of_header_and_levels_is_q(
    seed: int, spread: float, mean: float, q64: int, height: int, width: int
) -> None:
    rng = np.random.default_rng(seed)
    importance = torch.from_numpy(mean + spread * rng.standard_normal((1, 1, height, width)))
    level, q = centred_levels(importance, torch.tensor([q64 / 64]))
    assert torch.equal(level, level.round())
    assert level.abs().max() <= 8
    assert float(q * 64) == round(float(q * 64))
    assert abs(float((q + level).double().mean()) - q64 / 64) <= 0.5 / 64 + 1e-5


def test_a_flat_map_is_no_map_whatever_its_height() -> None:
    level, q = centred_levels(torch.full((1, 1, 5, 7), 3.7), torch.tensor([1.5]))
    assert not level.any()
    assert float(q) == 1.5
    model = LevelModel()
    with torch.no_grad():
        assert float(model(level).sum()) < 20
        assert float(model.eval()(level).sum()) == 0


def test_levels_are_predicted_from_what_is_coded_before_them() -> None:
    rng = np.random.default_rng(4)
    level = torch.from_numpy(rng.integers(-8, 9, (1, 1, 6, 7))).float()
    before = LevelModel.neighbours(level)
    changed = level.clone()
    changed[0, 0, 3, 2] += 3
    after = LevelModel.neighbours(changed)
    rows, columns = np.indices((6, 7))
    # Everything that comes first along x + 2 y, and the cell itself, looks as before.
    earlier = torch.from_numpy(columns + 2 * rows <= 2 + 2 * 3)
    for one, other in zip(before, after, strict=True):
        assert torch.equal(one[..., earlier], other[..., earlier])
    assert not torch.equal(before.prediction, after.prediction)
    # A ramp from left to right goes on.
    ramp = torch.arange(7.0).expand(1, 1, 6, 7) - 3
    assert torch.equal(LevelModel.neighbours(ramp).prediction[..., 1:, 1:-1], ramp[..., 1:, 1:-1])


def test_random_maps_of_every_kind_are_coded(
    network: FlagshipNetwork, pictures: "torch.Tensor"
) -> None:
    rng = np.random.default_rng(6)
    maps = [random_map(rng, 4, 8) for _ in range(40)]
    assert max(float(np.abs(one).max()) for one in maps) > 4
    assert max(float(np.abs(one).max()) for one in maps) <= 6
    offset = torch.from_numpy(np.stack(maps[:2]))[:, None]
    with torch.no_grad():
        output = network(pictures, torch.zeros(2), offset, with_map=False)
    expected, q = centred_levels(offset, torch.zeros(2))
    assert torch.equal(output.level, expected)
    assert torch.equal(output.q, q)
    assert torch.isfinite(output.bits).all()


@pytest.mark.parametrize("cut", [None, Cut(False, 4), Cut(True, 4)])
@pytest.mark.parametrize("shape", [(80, 112), (128, 144)])
def test_cells_beyond_the_picture_count_for_nothing(
    shape: tuple[int, int], cut: Cut | None, network: FlagshipNetwork
) -> None:
    """Sides are multiples of 16 alone: hyper-latents reach beyond, noise of latents does not."""
    generator = torch.Generator().manual_seed(4)
    x = torch.rand(2, 3, *shape, generator=generator) - 0.5
    drawn = draw_noise(torch.zeros(2, *shape, 3, dtype=torch.uint8), TINY, (1, 2))
    q = torch.tensor([-3.0, 4.0])
    network.train()
    try:
        with torch.no_grad():
            output = network(x, q, no_offset(x), drawn, cut=cut)
            loud = Noise(drawn.latents, torch.zeros_like(drawn.hyper))
            without = network(x, q, no_offset(x), loud, cut=cut)
    finally:
        network.eval()
    assert output.reconstruction.shape == x.shape
    assert torch.equal(output.latent_bits, without.latent_bits)
    assert torch.isfinite(output.bits).all()


class Macs(NamedTuple):
    """Multiplications and additions of each part per picture pixel, in thousands."""

    analysis: float
    importance: float
    hyper_analysis: float
    mean: float  # each step of a checkerboard counted on its half of the positions
    scale: float  # likewise
    synthesis: float
    fast: float  # in place of the synthesis, where time counts for more
    preview: float  # in place of the synthesis, where a preview is all that is wanted

    @property
    def transforms(self) -> float:
        """Analysis and synthesis."""
        return self.analysis + self.synthesis


def kmacs_per_pixel(config: FlagshipConfig) -> Macs:
    """Count the convolutions of a network by running it once."""
    network = FlagshipNetwork(config).eval()
    counts = dict.fromkeys(Macs._fields, 0.0)
    side = HYPER_PX
    parts = {
        "analysis": "analysis",
        "importance_net": "importance",
        "hyper_analysis": "hyper_analysis",
        "mean_network": "mean",
        "scale_network": "scale",
        "synthesis": "synthesis",
        "fast": "fast",
        "preview": "preview",
    }

    def count(part: str, share: float) -> Callable[[torch.nn.Module, Any, "torch.Tensor"], None]:
        def hook(module: torch.nn.Module, _: Any, output: "torch.Tensor") -> None:
            assert isinstance(module, torch.nn.Conv2d | IntegerConv2d)
            positions = output.shape[2] * output.shape[3]
            counts[part] += share * module.weight.numel() * positions / side**2 / 1000

        return hook

    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Conv2d | IntegerConv2d):
            head, _, rest = name.partition(".")
            # A step reads and writes one colour of the checkerboard, that is half of the terms.
            halved = rest.startswith(("absorb_group.", "hidden.", "head."))
            module.register_forward_hook(count(parts[head], 0.5 if halved else 1.0))
    h = side // LATENT_PX
    with torch.no_grad():
        x, q, offset = torch.zeros(1, 3, side, side), torch.zeros(1), torch.zeros(1, 1, h, h)
        network(x, q, offset, with_fast=True)
    return Macs(**counts)


def test_macs_are_those_counted_by_hand() -> None:
    macs = kmacs_per_pixel(TINY)
    by_hand = {
        # 8x8 at 1/4, 4x4 and a block at 1/8, 3x3, a block and 1x1 at 1/16, 2x2 for details.
        "analysis": (3 * 64 * 4) / 16
        + (4 * 16 * 8 + (8 * 4 + 4 * 9 * 4 + 4 * 8)) / 64
        + (8 * 9 * 8 + (8 * 4 + 4 * 9 * 4 + 4 * 8) + 8 * 3 + 4 * 8 * 2) / 256,
        "importance": (8 * 32 + 32 * 9 * 32 + 32) / 256,
        "hyper_analysis": (10 * 8) / 256 + (8 * 16 * 8) / 1024 + (8 * 16 * 4) / 4096,
        # Hyper-latents; planes; half of the positions of each step.
        "mean": (4 * 9 * 4 + 4 * 16) / 4096
        + (4 * 9 * 4 + 4 * 24) / 1024
        + (5 * 6) / 256
        + (2 * 2 * 9 * 6 + 1 * 3 * 9 * 6 + 4 * 6 * 6 + 2 * 5 * 6) / 2 / 256,
        "scale": (4 * 9 * 4 + 4 * 16) / 4096
        + (4 * 9 * 4 + 4 * 20) / 1024
        + (2 * 5) / 256
        + (2 * 2 * 9 * 5 + 1 * 3 * 9 * 5 + 4 * 5 * 5 + 2 * 5 * 5) / 2 / 256,
        "synthesis": ((3 + 6 + 5) * 8 + (8 * 4 + 4 * 9 * 4 + 4 * 8) + 8 * 32 + 2 * 32) / 256
        + ((8 * 4 + 4 * 9 * 4 + 4 * 8) + 8 * 16) / 64
        + (2 * 4 * 9 * 4 + 4 * 9 * 48) / 16,
        # As the synthesis, 6 and 3 channels wide, without a block at 1/4.
        "fast": ((3 + 6 + 5) * 6 + (6 * 3 + 3 * 9 * 3 + 3 * 6) + 6 * 24 + 2 * 24) / 256
        + ((6 * 3 + 3 * 9 * 3 + 3 * 6) + 6 * 12) / 64
        + (3 * 9 * 48) / 16,
        "preview": ((2 + 6 + 5) * 96 + 96 * 9 * 12) / 256,
    }
    for part, value in macs._asdict().items():
        assert 1000 * value == pytest.approx(by_hand[part]), part
    assert macs.transforms == macs.analysis + macs.synthesis


def test_macs_counted_from_a_model_file_are_those_of_its_network(
    tiny_flagship_network: FlagshipNetwork,
    tiny_flagship_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(CONFIGS.parent / "benchmarks"))
    found = importlib.import_module("macs").kmacs_per_pixel(model_file.load(tiny_flagship_path))
    expected = kmacs_per_pixel(tiny_flagship_network.config)
    assert found == pytest.approx(
        {
            "analysis": expected.analysis + expected.importance,
            "hyper_analysis": expected.hyper_analysis,
            "coder": expected.mean + expected.scale,
            "synthesis": expected.synthesis,
            "fast": expected.fast,
            "preview": expected.preview,
        }
    )


@pytest.mark.parametrize(
    ("recipe", "low", "high"), [("cwic-psnr", 14, 20), ("cwic-psnr-gpu", 40, 60)]
)
def test_the_networks_of_the_recipes_keep_their_budgets(
    recipe: str, low: float, high: float
) -> None:
    sizes = load_config(CONFIGS / f"{recipe}.toml", FAMILIES).network
    assert isinstance(sizes, FlagshipConfig)
    macs = kmacs_per_pixel(sizes)
    assert low <= macs.transforms <= high
    assert macs.scale <= 1.5
    assert macs.fast <= 10
    assert macs.fast <= macs.synthesis / 2
    network = FlagshipNetwork(sizes)
    of_fast = sum(parameter.numel() for parameter in network.fast.parameters())
    assert of_fast <= 1_100_000
    assert sum(parameter.numel() for parameter in network.parameters()) - of_fast <= 8_500_000
    network.scale_network.quantized()  # asserts that every sum is exact
