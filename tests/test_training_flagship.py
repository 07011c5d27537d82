"""The `cwic` family in training: exact scales, centred maps, and a run through the one trainer."""

import csv
import dataclasses
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

torch = pytest.importorskip("torch")

from pytorch_msssim import ms_ssim, ssim  # noqa: E402

from cwic.coding.arithmetic_coder import FREQUENCY_BITS  # noqa: E402
from cwic.coding.exact_arithmetic import check_exact  # noqa: E402
from cwic.errors import TrainingError  # noqa: E402
from cwic.evaluation.metrics import grid_ratio, line_gradients  # noqa: E402
from cwic.families.flagship.coder import ESCAPE, MAX_SYMBOL, NUM_TABLES  # noqa: E402
from cwic.training.checkpoint import Progress, load_checkpoint, load_weights  # noqa: E402
from cwic.training.config import FlagshipStage, load_config  # noqa: E402
from cwic.training.data import (  # noqa: E402
    DataConfig,
    DeviceCrop,
    DeviceStore,
    device_batches,
    list_pictures,
)
from cwic.training.flagship import draw_choices, draw_cut, draw_noise, random_map  # noqa: E402
from cwic.training.loss import (  # noqa: E402
    flagship_distortion,
    grid_variation,
    multiscale_similarity,
    shrunk_to_preview,
)
from cwic.training.model.flagship import (  # noqa: E402
    PRESETS,
    Cut,
    FastConfig,
    FlagshipConfig,
    FlagshipNetwork,
    Noise,
    centred_levels,
    kmacs_per_pixel,
)
from cwic.training.model.flagship_entropy import (  # noqa: E402
    HyperModel,
    LevelModel,
    coding_tables,
    inverse_scale,
    magnitude_table,
    rounded_table,
    symbol_bits,
    table_bits,
)
from cwic.training.model.integer_layers import IntegerWeights  # noqa: E402
from cwic.training.model.logistic import logistic_bits  # noqa: E402
from cwic.training.optimizer import Muon, is_matrix  # noqa: E402
from cwic.training.saliency import saliency_shares, spectral_residual  # noqa: E402
from cwic.training.trainer import train  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")

CONFIGS = Path(__file__).parent.parent / "configs"
CPU = torch.device("cpu")

TINY = FlagshipConfig(
    edge_channels=4,
    width_8=8,
    width_16=8,
    analysis_blocks_8=1,
    analysis_blocks_16=1,
    synthesis_blocks_8=1,
    synthesis_blocks_16=1,
    groups=(2, 3),
    detail_channels=2,
    hyper_channels=4,
    hyper_width=4,
    mean_width=6,
    scale_width=5,
    fast=FastConfig(edge_channels=3, edge_blocks=0, width_8=6, width_16=6, blocks_8=1, blocks_16=1),
)

TINY_TOML = """\
family = "cwic"
seed = 3
validation_crop_px = 64
validation_count = 2
validate_every = 6
checkpoint_every = 3
log_every = 1
[network]
edge_channels = 4
width_8 = 8
width_16 = 8
analysis_blocks_8 = 1
analysis_blocks_16 = 1
synthesis_blocks_8 = 1
synthesis_blocks_16 = 1
groups = [2, 3]
detail_channels = 2
hyper_channels = 4
hyper_width = 4
mean_width = 6
scale_width = 5
[network.fast]
edge_channels = 3
edge_blocks = 0
width_8 = 6
width_16 = 6
blocks_8 = 1
blocks_16 = 1
[data]
crop_px = 64
"""


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


# --- the network ----------------------------------------------------------------------------------


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
            decoded, _, bits = network._code_latents(latents, z, level, q, planes, None, 4, 4)
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


# --- exact scales ---------------------------------------------------------------------------------


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


# --- probabilities --------------------------------------------------------------------------------


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


# --- the importance map ---------------------------------------------------------------------------


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


def test_a_share_of_the_steps_cuts_the_entropy_model_at_a_line_of_its_shape() -> None:
    stage = FlagshipStage(name="one", steps=1, batch=4, cut_share=0.25)
    cuts = [draw_cut(stage, 3, step, 12, 23) for step in range(200)]
    assert cuts == [draw_cut(stage, 3, step, 12, 23) for step in range(200)]
    assert 30 < len([cut for cut in cuts if cut is not None]) < 70
    assert len(set(cuts)) == 2  # a graph for each of a few shapes, not for every line
    lines = {draw_cut(stage, 3, step, rows, 12) for step in range(40) for rows in range(4, 25)}
    found = [cut for cut in lines if cut is not None]
    assert {cut.horizontal for cut in found} == {False, True}
    assert all(cut.cell % 4 == 0 and cut.cell > 0 for cut in found)
    assert all(draw_cut(stage, 3, step, 4, 3) is None for step in range(40))
    assert draw_cut(dataclasses.replace(stage, cut_share=0.0), 3, 1, 12, 23) is None


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


def test_a_step_draws_q_over_the_whole_range_and_maps_for_a_share() -> None:
    stage = FlagshipStage(name="one", steps=1, batch=10, random_maps=0.4)
    shares = []
    for step in range(40):
        drawn = draw_choices(TINY, stage, 3, step, 4, 6)
        assert drawn.q.shape == (10,)
        assert np.array_equal(drawn.q * 64, np.rint(drawn.q * 64))
        part = np.floor((drawn.q - TINY.min_q) / (TINY.max_q - TINY.min_q) * 10).clip(0, 9)
        assert len(set(part.tolist())) >= 8
        shares.append(np.mean(np.abs(drawn.offset).max(axis=(1, 2, 3)) > 0))
        again = draw_choices(TINY, stage, 3, step, 4, 6)
        assert np.array_equal(drawn.q, again.q)
        assert np.array_equal(drawn.offset, again.offset)
    assert 0.25 < np.mean(shares) < 0.5


def test_a_stage_may_draw_four_of_five_q_from_a_part_of_the_range() -> None:
    stage = FlagshipStage(name="one", steps=1, batch=10, often_q=(-2.0, 1.0))
    drawn = np.concatenate([draw_choices(TINY, stage, 3, step, 4, 6).q for step in range(200)])
    outside = 1 - 3 / (TINY.max_q - TINY.min_q)
    assert np.mean((drawn < -2) | (drawn > 1)) == pytest.approx(0.2 * outside, abs=0.02)
    assert drawn.min() < TINY.min_q + 1
    assert drawn.max() > TINY.max_q - 1


# --- the grid -------------------------------------------------------------------------------------


def test_the_grid_ratio_sees_a_grid_of_8_and_nothing_else() -> None:
    generator = torch.Generator().manual_seed(7)
    x = torch.rand(2, 3, 64, 64, generator=generator) / 4
    assert grid_ratio(x, x) == 1
    assert float(grid_variation(x, x).max()) == 0
    squares = (torch.arange(64) // 8 % 2).float()
    grid = x + 0.1 * (squares[:, None] + squares)
    assert grid_ratio(x, grid) > 1.2
    assert float(grid_variation(x, grid).min()) > 0.005
    shifted = x + 0.1 * torch.roll((squares[:, None] + squares), (3, 3), (0, 1))
    assert grid_ratio(x, shifted) < 1
    phases = line_gradients(grid)
    assert phases.shape == (2, 8)
    assert (phases.argmax(dim=1) == 0).all()


# --- sizes ----------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(("preset", "low", "high"), [("small", 14, 20), ("large", 40, 60)])
def test_the_presets_keep_their_budgets(preset: str, low: float, high: float) -> None:
    macs = kmacs_per_pixel(PRESETS[preset])
    assert low <= macs.transforms <= high
    assert macs.scale <= 1.5
    assert macs.fast <= 10
    assert macs.fast <= macs.synthesis / 2
    network = FlagshipNetwork(PRESETS[preset])
    of_fast = sum(parameter.numel() for parameter in network.fast.parameters())
    assert of_fast <= 1_100_000
    assert sum(parameter.numel() for parameter in network.parameters()) - of_fast <= 8_500_000
    network.scale_network.quantized()  # asserts that every sum is exact


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        ("cwic-psnr", "small"),
        ("cwic-visual", "small"),
        ("cwic-psnr-gpu", "large"),
        ("cwic-visual-gpu", "large"),
    ],
)
def test_the_published_recipes_are_the_presets_each_with_its_range_of_rates(
    name: str, preset: str
) -> None:
    config = load_config(CONFIGS / f"{name}.toml")
    assert isinstance(config.network, FlagshipConfig)
    rates = {"min_q": config.network.min_q, "max_q": config.network.max_q}
    assert config.network == dataclasses.replace(PRESETS[preset], **rates)
    assert isinstance(config.stages[-1], FlagshipStage)
    assert config.stages[-1].hard
    assert config.stages[-1].entropy_only


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (TINY_TOML.replace("[2, 3]", "[1, 1, 1, 1, 1, 1]"), "network: groups must be 1 to 5"),
        (TINY_TOML.replace("[2, 3]", "3"), "network, groups: expected an array, found 3"),
        (TINY_TOML.replace("crop_px = 64\n", "crop_px = 72\n", 2), "multiple of 16, found 72"),
        (TINY_TOML.replace("width_8 = 8", "width_8 = 7"), "width_8 and width_16 even"),
        (TINY_TOML.replace("width_8", "width"), "network: unknown key width"),
    ],
)
def test_errors_name_their_key(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text + '[[stages]]\nname = "one"\nsteps = 1\n')
    with pytest.raises(TrainingError, match=r"recipe\.toml") as caught:
        load_config(path)
    assert named in str(caught.value)


# --- training -------------------------------------------------------------------------------------


def recipe(folder: Path, stages: str, text: str = TINY_TOML, name: str = "recipe.toml") -> Path:
    path = folder / name
    path.write_text(text + stages)
    return path


def run(config: Path, data: Path, run_dir: Path, **options: object) -> Progress:
    return train(config, [data], run_dir, device="cpu", show_progress=False, **options)  # type: ignore[arg-type]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


THREE_STAGES = """\
[[stages]]
name = "main"
steps = 4
batch = 3
learning_rate = 2e-3
grid_weight = 0.5
low_frequency_weight = 100.0
[[stages]]
name = "map off"
steps = 2
batch = 2
learning_rate = 1e-3
with_map = false
random_maps = 0.0
[[stages]]
name = "entropy"
steps = 3
batch = 2
learning_rate = 1e-3
hard = true
entropy_only = true
preview_weight = 100.0
"""


@pytest.mark.parametrize(("optimizer", "rate"), [("adam", 5e-3), ("muon", 2e-2)])
def test_ten_steps_lower_the_loss(
    optimizer: str, rate: float, picture_folder: Path, tmp_path: Path
) -> None:
    stage = f'[[stages]]\nname = "one"\nsteps = 10\nbatch = 4\nlearning_rate = {rate}\n'
    config = recipe(tmp_path, stage, f'optimizer = "{optimizer}"\n' + TINY_TOML)
    run(config, picture_folder, tmp_path / "run")
    losses = [float(row["loss"]) for row in rows(tmp_path / "run" / "log.csv")]
    assert len(losses) == 10
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])


# --- saliency and perception ----------------------------------------------------------------------


def two_pictures() -> "tuple[torch.Tensor, torch.Tensor]":
    """A dark ground with a bright spot, in [-0.5, 0.5], and the same with errors."""
    generator = torch.Generator().manual_seed(4)
    x = 0.02 * torch.randn((2, 3, 64, 64), generator=generator) - 0.3
    x[:, :, 8:20, 40:52] = 0.4
    return x, x + 0.05 * torch.randn(x.shape, generator=generator)


def test_what_stands_out_is_salient_and_counts_for_more() -> None:
    x, _ = two_pictures()
    found = spectral_residual(x)
    assert found.shape == (2, 1, 64, 64)
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    spot, ground = found[..., 8:20, 40:52].mean(), found[..., 40:, :20].mean()
    assert float(spot) > 2 * float(ground)
    shares = saliency_shares(x, 0.6)
    assert torch.allclose(shares.mean(dim=(1, 2, 3)), torch.ones(2), atol=1e-4)
    assert float(shares.min()) >= 0.4 - 1e-4
    assert float(shares.max()) <= 0.4 + 0.6 * 4 * 2


def test_a_flat_picture_has_finite_shares() -> None:
    shares = saliency_shares(torch.zeros(1, 3, 64, 64), 1.0)
    assert torch.isfinite(shares).all()


def test_errors_on_what_stands_out_cost_more_with_a_saliency_weight() -> None:
    x, noisy = two_pictures()
    on_spot, off_spot = x.clone(), x.clone()
    on_spot[..., 8:20, 40:52] = noisy[..., 8:20, 40:52]
    off_spot[..., 40:52, 8:20] = noisy[..., 40:52, 8:20]
    plain = FlagshipStage(name="one", steps=1, ssim_weight=5.0, perceptual_weight=5.0)
    salient = dataclasses.replace(plain, saliency_weight=0.8)

    def ratio(stage: FlagshipStage) -> float:
        on, off = (flagship_distortion(x, y, stage).sum() for y in (on_spot, off_spot))
        return float(on / off)

    assert ratio(salient) > 1.2 * ratio(plain)


@pytest.mark.parametrize("scales", [1, 5])
def test_ms_ssim_with_even_shares_is_that_of_the_library(scales: int) -> None:
    generator = torch.Generator().manual_seed(8)
    x = torch.rand((1, 3, 192, 192), generator=generator) - 0.5
    x = torch.nn.functional.avg_pool2d(x, 5, 1, 2)
    y = x + 0.03 * torch.randn(x.shape, generator=generator)
    of_library = ms_ssim if scales == 5 else ssim
    plain = of_library(x + 0.5, y + 0.5, data_range=1, size_average=False)
    assert torch.allclose(multiscale_similarity(x, y, None, scales), plain, atol=1e-5)
    even = multiscale_similarity(x, y, torch.full((1, 1, 192, 192), 0.7), scales)
    assert torch.allclose(plain, even, atol=1e-5)
    assert float(plain) < 0.99


def test_weights_of_0_load_nothing_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise AssertionError("asked for with a weight of 0")

    monkeypatch.setattr("cwic.training.loss.saliency_shares", refused)
    monkeypatch.setattr("cwic.training.loss._distance", refused)
    x, y = two_pictures()
    stage = FlagshipStage(name="one", steps=1, mse_weight=100.0, perceptual="no such file")
    expected = 100 * (x - y).square().mean(dim=(1, 2, 3))
    assert torch.allclose(flagship_distortion(x, y, stage), expected)


@pytest.mark.parametrize(
    "line", ["saliency_weight = 1.5", "perceptual_weight = -1.0", "saliency_weight = -0.1"]
)
def test_weights_out_of_range_are_refused(line: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=line.partition(" ")[0]):
        load_config(recipe(tmp_path, f'[[stages]]\nname = "one"\nsteps = 1\n{line}\n'))


def test_a_run_with_saliency_and_perception_lowers_its_loss(
    picture_folder: Path, tmp_path: Path
) -> None:
    stage = (
        '[[stages]]\nname = "one"\nsteps = 10\nbatch = 4\nlearning_rate = 5e-3\n'
        "saliency_weight = 0.5\nperceptual_weight = 3.0\n"
    )
    run(recipe(tmp_path, stage), picture_folder, tmp_path / "run")
    losses = [float(row["loss"]) for row in rows(tmp_path / "run" / "log.csv")]
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])


def test_a_resumed_run_equals_an_unbroken_one(picture_folder: Path, tmp_path: Path) -> None:
    config = recipe(tmp_path, THREE_STAGES, 'optimizer = "muon"\n' + TINY_TOML)
    assert run(config, picture_folder, tmp_path / "whole").step == 9
    for _ in range(9):
        broken = run(config, picture_folder, tmp_path / "broken", max_seconds=1e-9)
    assert broken.step == 9
    _, _, whole = load_checkpoint(tmp_path / "whole" / "checkpoint.safetensors")
    _, _, resumed = load_checkpoint(tmp_path / "broken" / "checkpoint.safetensors")
    for group, tensors in whole.items():
        for name, tensor in tensors.items():
            assert torch.equal(tensor, resumed[group][name]), f"{group}/{name}"


def test_the_logs_have_the_columns_of_the_family(picture_folder: Path, tmp_path: Path) -> None:
    run(recipe(tmp_path, THREE_STAGES), picture_folder, tmp_path / "run")
    log = rows(tmp_path / "run" / "log.csv")
    assert (
        list(log[0])
        == (
            "step stage wall_s cpu_s learning_rate loss psnr_db bpp hyper_bpp level_bpp grad_norm "
            "mpx_per_s"
        ).split()
    )
    assert float(log[4]["level_bpp"]) < 0.1 * max(float(row["level_bpp"]) for row in log[:4])
    validation = rows(tmp_path / "run" / "validation.csv")
    assert [float(row["q"]) for row in validation[:5]] == [-11, -5.75, -0.5, 4.75, 10]
    assert {row["step"] for row in validation} == {"6", "9"}
    for row in validation:
        assert float(row["grid_ratio"]) > 0
        assert float(row["bpp"]) > float(row["hyper_bpp"])


def test_the_entropy_stage_leaves_the_transforms_alone(
    picture_folder: Path, tmp_path: Path
) -> None:
    config = recipe(tmp_path, THREE_STAGES)
    run(config, picture_folder, tmp_path / "run")
    _, _, after = load_checkpoint(tmp_path / "run" / "checkpoint.safetensors")
    shorter = recipe(tmp_path, THREE_STAGES.partition('[[stages]]\nname = "entropy"')[0])
    run(shorter, picture_folder, tmp_path / "short")
    _, _, before = load_checkpoint(tmp_path / "short" / "checkpoint.safetensors")
    changed = {
        name.partition(".")[0]
        for name in before["weights"]
        if not torch.equal(before["average"][name], after["weights"][name])
    }
    assert changed == {"mean_network", "scale_network", "hyper_model", "level_model", "preview"}


FAST_STAGE = """\
[[stages]]
name = "fast"
steps = 20
batch = 4
learning_rate = 2e-2
crop_px = 48
max_crop_px = 64
fast_only = true
distill_weight = 200.0
cut_share = 0.5
"""


def test_the_fast_stage_trains_the_light_synthesis_alone(
    picture_folder: Path, tmp_path: Path
) -> None:
    main = THREE_STAGES.partition('[[stages]]\nname = "map off"')[0] + "preview_weight = 100.0\n"
    text = 'optimizer = "muon"\n' + TINY_TOML
    run(recipe(tmp_path, main, text), picture_folder, tmp_path / "run")
    before = load_checkpoint(tmp_path / "run" / "checkpoint.safetensors")[2]["weights"]
    run(recipe(tmp_path, main + FAST_STAGE, text), picture_folder, tmp_path / "run")
    after = load_checkpoint(tmp_path / "run" / "checkpoint.safetensors")[2]["weights"]
    changed = {
        name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])
    }
    assert changed == {"fast"}
    log = [row for row in rows(tmp_path / "run" / "log.csv") if row["stage"] == "fast"]
    losses = [float(row["loss"]) for row in log]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    for row in rows(tmp_path / "run" / "validation.csv"):
        assert np.isfinite(float(row["fast_db"])) == (row["stage"] == "fast")


def test_a_run_starts_from_the_averaged_weights_of_another(
    picture_folder: Path, tmp_path: Path
) -> None:
    one = '[[stages]]\nname = "one"\nsteps = 3\nbatch = 2\nlearning_rate = 2e-3\n'
    run(recipe(tmp_path, one), picture_folder, tmp_path / "first")
    checkpoint = tmp_path / "first" / "checkpoint.safetensors"
    _, _, start = load_weights(checkpoint)
    still = '[[stages]]\nname = "two"\nsteps = 1\nbatch = 2\nlearning_rate = 1e-30\n'
    given_there = recipe(tmp_path, still, f'init_from = "{checkpoint}"\n' + TINY_TOML, "b.toml")
    given_here = recipe(tmp_path, still, name="c.toml")
    run(given_there, picture_folder, tmp_path / "there")
    run(given_here, picture_folder, tmp_path / "here", init_from=checkpoint)
    for name in ("there", "here"):
        progress_config, progress, weights = load_weights(
            tmp_path / name / "checkpoint.safetensors"
        )
        assert progress.step == 1
        assert progress_config.family == "cwic"
        for key, value in weights.items():
            torch.testing.assert_close(value, start[key], rtol=0, atol=1e-6)
    other = recipe(tmp_path, still, TINY_TOML.replace("mean_width = 6", "mean_width = 8"), "d.toml")
    with pytest.raises(TrainingError, match="expected the network of the configuration"):
        run(other, picture_folder, tmp_path / "other", init_from=checkpoint)


def test_muon_treats_depthwise_convolutions_as_vectors() -> None:
    torch.manual_seed(0)
    depthwise = torch.nn.Conv2d(6, 6, 3, groups=6)
    dense = torch.nn.Conv2d(6, 6, 3)
    assert [is_matrix(layer.weight) for layer in (depthwise, dense)] == [False, True]
    network = torch.nn.Sequential(depthwise, dense)
    optimizer = Muon(network.parameters(), lr=1e-2)
    network(torch.rand(1, 6, 8, 8)).square().sum().backward()
    optimizer.step()
    assert "exp_avg" in optimizer.state[depthwise.weight]
    assert "momentum" in optimizer.state[dense.weight]


# --- pictures on the device -----------------------------------------------------------------------


def store_of(folder: Path, config: DataConfig) -> DeviceStore:
    return DeviceStore(list_pictures([folder], 0).training, config.crop_px, config, CPU)


def test_crops_on_the_device_are_what_numpy_cuts_out(picture_folder: Path) -> None:
    config = DataConfig(crop_px=24, flip=True, turn=True, downscale=0.5)
    store = store_of(picture_folder, config)
    paths = sorted(picture_folder.iterdir())
    assert len(store) == len(paths)
    crops = [store.draw(config, 5, step, position) for step in range(5) for position in range(8)]
    assert {crop.turns for crop in crops} == {0, 1, 2, 3}
    assert {crop.flip for crop in crops} == {False, True}
    gathered = store.gather(crops, (24, 24)).numpy()
    assert gathered.dtype == np.uint8
    sizes = set()
    for crop, found in zip(crops, gathered, strict=True):
        picture = store.version(crop.picture).numpy()
        sizes.add(picture.shape)
        cut = picture[crop.top : crop.top + 24, crop.left : crop.left + 24]
        np.testing.assert_array_equal(
            found, np.rot90(cut[:, ::-1] if crop.flip else cut, crop.turns)
        )
    originals = {np.asarray(Image.open(path)).shape for path in paths}
    assert sizes & originals
    assert sizes - originals  # copies are in use


def test_pictures_on_the_device_are_those_of_the_folder(picture_folder: Path) -> None:
    store = store_of(picture_folder, DataConfig(crop_px=24))
    for index, path in enumerate(sorted(picture_folder.iterdir())):
        np.testing.assert_array_equal(store.version(index).numpy(), np.asarray(Image.open(path)))


def test_a_crop_on_the_device_depends_on_seed_step_and_position_alone(
    picture_folder: Path,
) -> None:
    config = DataConfig(crop_px=24, downscale=0.3)
    store = store_of(picture_folder, config)
    whole = list(device_batches(store, config, 5, range(3), range(4)))
    later = list(device_batches(store_of(picture_folder, config), config, 5, range(2, 3), range(4)))
    assert torch.equal(whole[2], later[0])
    (half,) = device_batches(store, config, 5, range(1, 2), range(2, 4))
    assert torch.equal(whole[1][2:], half)
    assert not torch.equal(whole[0], whole[1])


def test_crops_stay_inside_their_picture(picture_folder: Path) -> None:
    config = DataConfig(crop_px=64)
    store = store_of(picture_folder, config)
    for position in range(200):
        crop = store.draw(config, 1, 0, position)
        height, width = store.version(crop.picture).shape[:2]
        assert 0 <= crop.top <= height - 64
        assert 0 <= crop.left <= width - 64
    assert store.gather([DeviceCrop(0, 0, 0, True, 3)], (64, 64)).shape == (1, 64, 64, 3)


def test_a_run_with_its_pictures_on_the_device_trains(picture_folder: Path, tmp_path: Path) -> None:
    text = TINY_TOML + 'on_device = "always"\n'
    stage = '[[stages]]\nname = "one"\nsteps = 2\nbatch = 2\n'
    assert run(recipe(tmp_path, stage, text), picture_folder, tmp_path / "run").step == 2


# --- packs ----------------------------------------------------------------------------------------


def pack(path: Path, folder: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        pictures = sorted(folder.iterdir())
        for index, picture in enumerate(pictures):
            part = "held_out" if index >= len(pictures) - 2 else "training"
            archive.write(picture, f"{part}/{index:03}.png")
    return path


def test_a_pack_stands_for_a_folder(picture_folder: Path, tmp_path: Path) -> None:
    file = pack(tmp_path / "pictures.zip", picture_folder)
    split = list_pictures([file, picture_folder], 0.1)
    assert len(split.training) == 10 + 11
    assert len(split.held_out) == 2 + 1
    stage = '[[stages]]\nname = "one"\nsteps = 2\nbatch = 2\n'
    assert run(recipe(tmp_path, stage), file, tmp_path / "run").step == 2
    assert rows(tmp_path / "run" / "validation.csv")


def test_a_pack_without_pictures_is_an_error_that_names_it(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
        archive.writestr("notes.txt", "nothing")
    with pytest.raises(TrainingError, match=r"empty\.zip: expected pictures under training/"):
        list_pictures([tmp_path / "empty.zip"], 0.1)
