"""One optimiser step: what it does with a bad gradient, and that nothing in it is read back."""

from collections.abc import Callable

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cwic.training.config import StageConfig, TrainConfig  # noqa: E402
from cwic.training.cvpr2018.network import Cvpr2018Network  # noqa: E402
from cwic.training.cvpr2018.objective import Cvpr2018Stage  # noqa: E402
from cwic.training.data import DataConfig  # noqa: E402
from cwic.training.families import FAMILIES  # noqa: E402
from cwic.training.family import Drawn, Place, StepLoss  # noqa: E402
from cwic.training.flagship.network import FlagshipNetwork  # noqa: E402
from cwic.training.flagship.objective import FlagshipStage  # noqa: E402
from cwic.training.optimizer import Muon, is_matrix  # noqa: E402
from cwic.training.step import State, Step  # noqa: E402

# Two of each family: pictures, and the entropy coder alone.
STAGES: dict[str, tuple[StageConfig, ...]] = {
    "flagship": (
        FlagshipStage(
            "map",
            1,
            batch=2,
            ssim_weight=2.0,
            ms_ssim_weight=5.0,
            low_frequency_weight=100.0,
            grid_weight=1.0,
            preview_weight=40.0,
            saliency_weight=0.5,
        ),
        FlagshipStage("hard", 1, batch=2, hard=True, entropy_only=True),
    ),
    "cvpr2018": (
        Cvpr2018Stage("map", 1, batch=2, ssim_weight=0.1),
        Cvpr2018Stage("entropy", 1, batch=2, entropy_only=True),
    ),
}


@pytest.fixture(params=STAGES)
def config(
    request: pytest.FixtureRequest,
    tiny_network: Cvpr2018Network,
    tiny_flagship_network: FlagshipNetwork,
) -> TrainConfig:
    """Of a tiny network of each family."""
    network = tiny_flagship_network if request.param == "flagship" else tiny_network
    return TrainConfig(
        family=request.param,
        stages=STAGES[request.param],
        network=network.config,
        data=DataConfig(crop_px=192),
    )


def prepared(
    config: TrainConfig, stage: StageConfig, device: str = "cpu"
) -> tuple[torch.nn.Module, Drawn, Callable[[Drawn], StepLoss]]:
    """A network, what is drawn for its first step, and its objective."""
    torch.manual_seed(1)
    family = FAMILIES[config.family]
    network = family.build(config).to(device).train()
    family.begin_stage(network, stage)
    pixels = np.random.default_rng(1).integers(0, 256, (2, 192, 192, 3), dtype=np.uint8)
    on_device = torch.from_numpy(pixels).to(device)
    drawn = family.draw(on_device, config, stage, Place(0, range(2)))
    return network, drawn, lambda values: family.objective(network, values, config, stage)


def copied(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in network.named_parameters()}


def test_a_gradient_that_is_not_finite_moves_nothing() -> None:
    network = torch.nn.Linear(3, 2)
    average = copied(network)

    def objective(drawn: Drawn) -> StepLoss:
        x, factor = drawn.tensors
        loss = (network(x) * factor).sum()
        return StepLoss(loss, loss.detach()[None])

    optimizer = Muon(network.parameters(), lr=0.1)
    bad_steps = torch.zeros((), dtype=torch.int64)
    step = Step(
        objective,
        State(network, average, optimizer, bad_steps),
        clip_norm=1.0,
        captured=False,
    )
    x = torch.ones(1, 3)
    step([Drawn((x, torch.tensor(1.0)))], 0.1, 0.5)  # there is momentum now
    before, before_average = copied(network), {k: v.clone() for k, v in average.items()}
    for count, factor in ((1, np.nan), (2, np.inf)):
        result = step([Drawn((x, torch.tensor(factor)))], 0.1, 0.5)
        assert not torch.isfinite(result.norm)
        assert int(bad_steps) == count
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, before[name])
        assert torch.equal(average[name], before_average[name])
    result = step([Drawn((x, torch.tensor(2.0)))], 0.1, 0.5)
    assert int(bad_steps) == 0
    assert float(result.norm) == pytest.approx((2 * 3 * 4 + 2 * 4) ** 0.5)
    for name, parameter in network.named_parameters():
        assert not torch.equal(parameter, before[name])
        assert torch.allclose(average[name], (parameter + before_average[name]) / 2)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # by torch
@pytest.mark.parametrize("number", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_an_objective_is_one_graph(config: TrainConfig, number: int) -> None:
    # What reads a number back would break it in two; what draws would give another loss.
    _, drawn, objective = prepared(config, config.stages[number])
    plain = objective(drawn)
    traced = torch.compile(objective, backend="eager", fullgraph=True)(drawn)
    assert torch.equal(traced.loss, plain.loss)
    assert torch.allclose(traced.figures, plain.figures, equal_nan=True)
    assert plain.figures.shape == (len(FAMILIES[config.family].log_columns),)


def test_what_is_drawn_depends_on_the_step_alone(config: TrainConfig) -> None:
    pixels = torch.zeros((2, 192, 192, 3), dtype=torch.uint8)
    family, stage = FAMILIES[config.family], config.stages[0]
    first, again, other = (
        family.draw(pixels, config, stage, Place(step, range(2))) for step in (3, 3, 4)
    )
    assert first.layout == again.layout
    first, again, other = (drawn.tensors for drawn in (first, again, other))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert [a.shape for a in first] == [b.shape for b in other]


def test_a_batch_in_parts_is_the_same_step_as_in_one() -> None:
    found = []
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))
    for size in (8, 2):
        torch.manual_seed(1)
        network = torch.nn.Linear(3, 2)

        def objective(drawn: Drawn, network: torch.nn.Linear = network) -> StepLoss:
            loss = network(drawn.tensors[0]).square().mean()
            return StepLoss(loss, loss.detach()[None])

        bad_steps = torch.zeros((), dtype=torch.int64)
        optimizer = torch.optim.Adam(network.parameters())
        state = State(network, copied(network), optimizer, bad_steps)
        step = Step(objective, state, clip_norm=1.0, captured=False)
        result = step([Drawn((part,)) for part in x.split(size)], 0.1, 0.5)
        found.append((result, copied(network)))
    (whole, after), (parts, after_parts) = found
    assert torch.allclose(whole.loss, parts.loss)
    assert torch.allclose(whole.figures, parts.figures)
    assert torch.allclose(whole.norm, parts.norm)
    assert all(torch.allclose(after[name], after_parts[name]) for name in after)


def test_the_learning_rate_may_be_a_tensor() -> None:
    results = []
    for rate in (0.01, torch.tensor(0.01)):
        torch.manual_seed(2)
        network = torch.nn.Conv2d(3, 4, 3)
        optimizer = Muon(network.parameters(), lr=0.0)
        for group in optimizer.param_groups:
            group["lr"] = rate
        network(torch.ones(1, 3, 5, 5)).square().sum().backward()
        optimizer.step()
        results.append(copied(network))
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_captured_step_does_what_a_plain_one_does(config: TrainConfig) -> None:
    family, stage = FAMILIES[config.family], config.stages[0]
    found = []
    for captured in (False, True):
        network, _, objective = prepared(config, stage, "cuda")
        compiled = torch.compile(objective, fullgraph=True)
        average = copied(network)
        optimizer = Muon(network.parameters(), lr=0.0)
        bad_steps = torch.zeros((), dtype=torch.int64, device="cuda")
        state = State(network, average, optimizer, bad_steps)
        step = Step(compiled, state, clip_norm=1.0, captured=captured)
        pixels = torch.zeros((2, 192, 192, 3), dtype=torch.uint8, device="cuda")
        for number in range(8):
            pixels = pixels + 17 * (number + 1)
            drawn = family.draw(pixels, config, stage, Place(number, range(2)))
            loss = float(step([drawn], 1e-3 * (number + 1), 0.9).loss)
        found.append((loss, average))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-3)
    for name, value in found[0][1].items():
        assert torch.allclose(found[1][1][name], value, atol=1e-3), name


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
