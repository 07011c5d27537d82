"""Gradients without torch are those of torch's autograd."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from cwic import model_file
from cwic.engine import Session
from cwic.evaluation.ssimulacra2_distance import _linear, _scales, _xyb
from cwic.evaluation.structural_similarity import ms_ssim, ssim, windowed
from cwic.families.distortion import Distortion
from cwic.families.distortion_engines import DistortionEngines
from cwic.families.distortion_graphs import distortion_graph, reference_graph
from cwic.families.flagship.refine.gradients import means_graph
from cwic.families.original import Original
from cwic.families.tiling import Tiling
from cwic.ssimulacra2_sum import C2, LEAST_POWER, LEAST_ROOT, MEAN, SHARE, WEIGHTS
from cwic.training.distortion import low_frequency_error
from cwic.training.flagship.network import FlagshipConfig, FlagshipNetwork

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def network(tiny_flagship_network: FlagshipNetwork) -> FlagshipNetwork:
    """With weights as a model file stores them."""
    network = copy.deepcopy(tiny_flagship_network)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim >= 2:
                parameter.copy_(parameter.half().float())
    return network


@pytest.fixture(scope="module")
def model(tiny_flagship_path: Path) -> model_file.ModelFile:
    return model_file.load(tiny_flagship_path)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def inputs_of_synthesis(config: FlagshipConfig, height: int, width: int) -> list[np.ndarray]:
    sizes = (config.latent_channels, config.mean_width, 5)
    return [random(1, size, height, width, seed=size) for size in sizes]


def assert_close(found: np.ndarray, expected: torch.Tensor, relative: float = 1e-3) -> None:
    wanted = expected.detach().numpy()
    assert found.shape == wanted.shape
    assert np.abs(wanted).max() > 0
    assert np.abs(found - wanted).max() < relative * np.abs(wanted).max()


def errors_inside(reference: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
    """SSIMULACRA2's sum over windows that lie inside the picture, where the loss mirrors it."""
    total = torch.zeros(())
    scales = _scales(_linear(reference), _linear(shown))
    for weights, pictures in zip(WEIGHTS, scales, strict=True):
        x, y = (_xyb(picture, (0, 1, 2)) for picture in pictures)
        mean_x, mean_y = windowed(x), windowed(y)
        variances = windowed(x * x) + windowed(y * y) - mean_x**2 - mean_y**2
        covariance = windowed(x * y) - mean_x * mean_y
        brightness = 1 - (mean_x - mean_y) ** 2
        away_x, away_y = (
            (of[..., 5:-5, 5:-5] - mean).abs() for of, mean in ((x, mean_x), (y, mean_y))
        )
        edges = (1 + away_y) / (1 + away_x) - 1
        kinds = (1 - brightness * (2 * covariance + C2) / (variances + C2), edges, -edges)
        for (channel, way, kind), weight in weights.items():
            errors = kinds[kind][0, channel].clamp(min=0)
            root = ((errors**4).mean() + LEAST_POWER) ** 0.25 - LEAST_ROOT
            taken = errors.mean() if way == MEAN else root
            total = total + SHARE * weight * taken
    return total


@pytest.mark.parametrize(
    "distortion",
    [
        Distortion(mse=100.0),
        Distortion(mse=30.0, ssim=2.2, ms_ssim=25.0, low_frequencies=1000.0),
        Distortion(mse=1.0, ssimulacra2=0.2),
        Distortion(mse=1.0, ssim=2.0, ssimulacra2=0.2),
        Distortion(mse=30.0, ssim=2.2, ms_ssim=25.0, low_frequencies=1000.0, ssimulacra2=0.2),
    ],
    ids=["squared error", "structure", "ssimulacra2", "ssimulacra2 and ssim", "all"],
)
def test_the_gradient_of_a_distortion_is_that_of_autograd(
    network: FlagshipNetwork, model: model_file.ModelFile, distortion: Distortion
) -> None:
    height, width = 11, 12
    inputs = inputs_of_synthesis(network.config, height, width)
    decoded, prior, planes = (torch.from_numpy(each) for each in inputs)
    with torch.no_grad():
        shown = network.synthesis(decoded, prior, planes)
    # Alike, or the powers of MS-SSIM have no slope that means anything.
    picture = 0.8 * shown.numpy() + 0.1 * random(1, 3, 16 * height, 16 * width)
    picture = picture.clip(-0.5, 0.5).astype(np.float32)

    num_scales = distortion.num_scales(16 * height)
    shares = np.ones((1, 1, 16 * height, 16 * width), np.float32)
    feeds = [*inputs, picture, shares / shares.size]
    feeds.append(np.full((1, 1, height, width), 1 / (height * width), np.float32))
    if num_scales:
        known = Session(reference_graph(distortion, num_scales), 1).run(picture + np.float32(0.5))
        each = len(known) // num_scales
        for scale in range(num_scales):
            of_scale = known[each * scale : each * (scale + 1)]
            mean = of_scale[1]
            counts = np.full((1, 1, *mean.shape[2:]), 1 / mean[0, 0].size, np.float32)
            feeds += [*of_scale, counts]
    graph = distortion_graph(model.graphs["synthesis"], distortion, num_scales)
    value, gradient = Session(graph, 1).run(*feeds)

    decoded.requires_grad_()
    reference = torch.from_numpy(picture)
    shown = network.synthesis(decoded, prior, planes).clamp(-0.5, 0.5)
    expected = distortion.mse * (shown - reference).square().mean()
    expected = expected + distortion.low_frequencies * low_frequency_error(reference, shown)[0]
    expected = expected + distortion.ssim * (1 - ssim(reference + 0.5, shown + 0.5)[0])
    expected = expected + distortion.ms_ssim * (1 - ms_ssim(reference + 0.5, shown + 0.5)[0])
    if distortion.ssimulacra2:
        found = errors_inside(255 * (reference + 0.5), 255 * (shown + 0.5))
        expected = expected + distortion.ssimulacra2 * found
    expected.backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-3)
    assert decoded.grad is not None
    assert_close(gradient, decoded.grad)


@pytest.mark.parametrize("side", [16, 32, 48, 96])
def test_a_picture_that_is_decoded_loses_what_its_latents_lose(
    network: FlagshipNetwork, model: model_file.ModelFile, side: int
) -> None:
    """Of few scales as of many; each graph takes what an original has for it."""
    distortion = Distortion(30.0, 2.2, 25.0, 1000.0, 0.2)
    inputs = inputs_of_synthesis(network.config, side // 16, side // 16)
    with torch.no_grad():
        shown = network.synthesis(*map(torch.from_numpy, inputs)).clamp(-0.5, 0.5).numpy()
    samples = (255 * (shown[0].transpose(1, 2, 0) + 0.5)).round().astype(np.uint8)
    noise = np.random.default_rng(4).integers(-20, 21, samples.shape)
    picture = (samples + noise).clip(0, 255).astype(np.uint8)
    tiling = Tiling(side, side, None, 16)
    original = Original(picture, tiling, None, 16)
    engines = DistortionEngines(model, distortion, 1)
    engine = engines.of(tiling.picture)
    compared = original.compared(engine, tiling.picture, distortion)
    (lost,) = engine.run("distortion", *inputs, *compared)
    again, _ = engine.run("slope", *inputs, *compared)
    assert again.item() == pytest.approx(lost.item(), rel=1e-5)
    # Of bytes, which are rounded.
    assert engines.loss(original, samples, [tiling.picture]) == pytest.approx(lost.item(), rel=0.02)
    assert engines.loss(original, picture, [tiling.picture]) == pytest.approx(0, abs=1e-4)


def test_the_gradient_through_means_is_that_of_autograd(
    network: FlagshipNetwork, model: model_file.ModelFile
) -> None:
    height, width = 4, 6
    config = network.config
    latents = 2 * random(1, config.latent_channels, height, width)
    state = random(1, config.mean_width, height, width, seed=1)
    even = (np.indices((height, width)).sum(axis=0) % 2 == 0).astype(np.float32)[None, None]
    by_means = random(1, config.latent_channels, height, width, seed=2)
    mean, gradient = Session(means_graph(model.arrays, config.groups), 1).run(
        latents, state, even, 1 - even, by_means
    )

    # Step by step, as the coder goes.
    known = torch.from_numpy(latents).requires_grad_()
    of_state = torch.from_numpy(state)
    means, start = [], 0
    for group, channels in enumerate(config.groups):
        own = known[:, start : start + channels]
        start += channels
        predicted = 0
        for second, colour in enumerate((even, 1 - even)):
            here = torch.from_numpy(colour)
            predicted = predicted + here * network.mean_network.predict(of_state, group, second)
            of_state = network.mean_network.absorb(of_state, group, here * own)
        means.append(predicted)
    expected_mean = torch.cat(means, dim=1)
    (expected_mean * torch.from_numpy(by_means)).sum().backward()
    assert known.grad is not None
    assert_close(mean, expected_mean)
    assert_close(gradient, known.grad)
