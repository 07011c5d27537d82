"""Distortions against closed forms, and the rate loss of the paper."""

import math

import pytest

torch = pytest.importorskip("torch")

from cwic.training.config import StageConfig  # noqa: E402
from cwic.training.cvpr2018.importance_map import kept_channels, quantize_levels  # noqa: E402
from cwic.training.cvpr2018.network import Cvpr2018Config  # noqa: E402
from cwic.training.cvpr2018.objective import (  # noqa: E402
    distortion,
    mean_squared_error,
    target_fraction,
    thresholded_rate,
)


def test_the_mean_squared_error_counts_a_pixel_from_0_to_1() -> None:
    black, white = -torch.ones(2, 3, 4, 4), torch.ones(2, 3, 4, 4)
    assert float(mean_squared_error(black, white)) == 1
    # One step of 1/255 everywhere is 48.13 dB.
    mse = float(mean_squared_error(black, black + 2 / 255))
    assert -10 * math.log10(mse) == pytest.approx(48.13, abs=0.01)


SSIM_ALONE = StageConfig("one", 1, mse_weight=0.0, ssim_weight=1.0)


def test_equal_pictures_have_no_distortion() -> None:
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    assert float(distortion(x, x, SSIM_ALONE)[0]) == pytest.approx(0, abs=1e-5)


def test_the_structural_similarity_of_flat_pictures_is_its_luminance_term() -> None:
    dark, light = torch.full((1, 3, 32, 32), -0.5), torch.full((1, 3, 32, 32), 0.5)
    a, b, c1 = 0.5, 1.5, (0.01 * 2) ** 2
    expected = (2 * a * b + c1) / (a * a + b * b + c1)
    found = 1 - float(distortion(dark, light, SSIM_ALONE)[0])
    assert found == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("quantizer", ["released", "paper"])
@pytest.mark.parametrize("offset", [-2.0, 0.0, 1.5])
def test_the_threshold_is_what_a_map_around_the_offset_keeps(quantizer: str, offset: float) -> None:
    config = Cvpr2018Config(quantizer=quantizer)
    center = 1 / (1 + math.exp(-offset))
    # One level wide, so that the quantizer's rounding averages out.
    p = torch.linspace(center - 1 / 32, center + 1 / 32, 6401)[:-1]
    kept = kept_channels(
        quantize_levels(p, config.levels), config.code_channels, config.levels, quantizer
    )
    share = float(kept.mean()) / config.code_channels
    assert share == pytest.approx(target_fraction(offset, config), abs=1e-3)


def test_the_rate_loss_pushes_every_cell_alike_above_the_threshold_and_not_below() -> None:
    p = torch.rand(2, 1, 3, 4, requires_grad=True)
    kept_fraction = torch.tensor([0.2, 0.6])
    loss = thresholded_rate(p, kept_fraction, 0.3)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(p.detach().mean()) / 0.3)
    assert torch.allclose(p.grad, torch.full_like(p, 1 / 24 / 0.3))
    p.grad = None
    loss = thresholded_rate(p, kept_fraction, 0.41)
    loss.backward()
    assert float(loss.detach()) == 0
    assert not p.grad.any()
