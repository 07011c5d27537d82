"""Distortions against closed forms, and the rate loss of the paper."""

import math

import pytest

torch = pytest.importorskip("torch")

from cwic.training.cvpr2018.importance_map import kept_channels, quantize_levels  # noqa: E402
from cwic.training.cvpr2018.network import Cvpr2018Config  # noqa: E402
from cwic.training.cvpr2018.objective import (  # noqa: E402
    Cvpr2018Stage,
    distortion,
    mean_squared_error,
    offset_weight,
    target_fraction,
    thresholded_rate,
)


def test_the_mean_squared_error_counts_a_pixel_from_0_to_1() -> None:
    black, white = -torch.ones(2, 3, 4, 4), torch.ones(2, 3, 4, 4)
    assert float(mean_squared_error(black, white)) == 1
    # One step of 1/255 everywhere is 48.13 dB.
    mse = float(mean_squared_error(black, black + 2 / 255))
    assert -10 * math.log10(mse) == pytest.approx(48.13, abs=0.01)


SSIM_ALONE = Cvpr2018Stage("one", 1, mse_weight=0.0, ssim_weight=1.0)


def test_equal_pictures_have_no_distortion() -> None:
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    assert float(distortion(x, x, SSIM_ALONE)[0]) == pytest.approx(0, abs=1e-5)


def test_the_structural_similarity_of_flat_pictures_is_its_luminance_term() -> None:
    dark, light = torch.full((1, 3, 32, 32), -0.5), torch.full((1, 3, 32, 32), 0.5)
    a, b, c1 = 0.5, 1.5, (0.01 * 2) ** 2
    expected = (2 * a * b + c1) / (a * a + b * b + c1)
    found = 1 - float(distortion(dark, light, SSIM_ALONE)[0])
    assert found == pytest.approx(expected, abs=1e-3)


def test_low_frequencies_weigh_what_is_left_of_an_error_at_a_sixteenth_of_the_size() -> None:
    stage = Cvpr2018Stage("one", 1, mse_weight=0.0, low_frequency_weight=100.0)
    x = torch.zeros(1, 3, 32, 48)
    drifted = x + 2 / 255  # a step of a byte, in the range of length 2
    assert float(distortion(x, drifted, stage)[0]) == pytest.approx(100 / 255**2)
    stripes = x + 0.2 * (-1) ** torch.arange(48)
    assert float(distortion(x, stripes, stage)[0]) == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="low_frequency_weight must not be negative"):
        Cvpr2018Stage("one", 1, low_frequency_weight=-1.0)


def test_upper_rates_count_for_more_the_middle_as_ever() -> None:
    config = Cvpr2018Config(min_rate_offset=-4.0, max_rate_offset=2.0)
    stage = Cvpr2018Stage("one", 1, upper_weight=math.log(4))
    weights = [offset_weight(offset, config, stage) for offset in (-4.0, -1.0, 2.0)]
    assert weights == pytest.approx([0.5, 1, 2])
    assert offset_weight(-4.0, config, Cvpr2018Stage("one", 1)) == 1
    one_rate = Cvpr2018Config(min_rate_offset=1.0, max_rate_offset=1.0)
    assert offset_weight(1.0, one_rate, stage) == 1


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
