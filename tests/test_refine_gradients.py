"""Gradients without torch are those of torch's autograd."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from cwic import model_file
from cwic.engine import Session
from cwic.evaluation.structural_similarity import ms_ssim, ssim
from cwic.families.distortion import Distortion
from cwic.families.distortion_graphs import distortion_graph, reference_graph
from cwic.families.flagship.refine.gradients import means_graph
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


@pytest.mark.parametrize(
    "distortion",
    [Distortion(mse=100.0), Distortion(mse=30.0, ssim=2.2, ms_ssim=25.0, low_frequencies=1000.0)],
    ids=["squared error", "structure"],
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
        scales = Session(reference_graph(num_scales), 1).run(picture + np.float32(0.5))
        for scale in range(num_scales):
            mean = scales[3 * scale + 1]
            counts = np.full((1, 1, *mean.shape[2:]), 1 / mean[0, 0].size, np.float32)
            feeds += [*scales[3 * scale : 3 * scale + 3], counts]
    graph = distortion_graph(model.graphs["synthesis"], distortion, num_scales)
    value, gradient = Session(graph, 1).run(*feeds)

    decoded.requires_grad_()
    reference = torch.from_numpy(picture)
    shown = network.synthesis(decoded, prior, planes).clamp(-0.5, 0.5)
    expected = distortion.mse * (shown - reference).square().mean()
    if distortion.low_frequencies:
        expected = expected + distortion.low_frequencies * low_frequency_error(reference, shown)[0]
        similar = ssim(reference + 0.5, shown + 0.5)[0]
        expected = expected + distortion.ssim * (1 - similar)
        expected = expected + distortion.ms_ssim * (1 - ms_ssim(reference + 0.5, shown + 0.5)[0])
    expected.backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-3)
    assert decoded.grad is not None
    assert_close(gradient, decoded.grad)


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
