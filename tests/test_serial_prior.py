"""The benchmark's serial priors: what a latent's law depends on was decoded before it."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

torch = pytest.importorskip("torch")
from cwic.training.model.flagship import FlagshipConfig  # noqa: E402

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
CONFIG = FlagshipConfig(groups=(2, 3, 4), hyper_channels=4)
CHANNELS = CONFIG.latent_channels
SIDE = 8
CENTRE = 4  # far enough from the borders for a window of 5x5
# (channel, row, column) of places above, and to the left, in the window.
BEFORE = {
    (other, row, column)
    for other in range(CHANNELS)
    for row in range(CENTRE - 2, CENTRE + 1)
    for column in range(CENTRE - 2, CENTRE + 3)
    if (row, column) < (CENTRE, CENTRE)
}
GROUP = torch.repeat_interleave(torch.arange(3), torch.tensor(CONFIG.groups))


@pytest.fixture
def serial_prior(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    import serial_prior

    torch.manual_seed(1)
    return serial_prior


def latents_of(serial_prior: ModuleType) -> object:
    """Latents to be differentiated for; too small for the bound on what a correction sees."""
    shape = (1, CHANNELS, SIDE, SIDE)
    return serial_prior.Latents(
        torch.randn(shape),
        torch.randn(shape, requires_grad=True),
        torch.randn(1, CONFIG.hyper_channels, SIDE // 4, SIDE // 4),
        torch.zeros(1),
        (0.1 * torch.randn(shape)).requires_grad_(),
        (20 + torch.randn(shape)).requires_grad_(),
    )


def seen(prior: torch.nn.Module, latents: object, tensor: torch.Tensor, channel: int) -> set:
    """(channel, row, column) of a tensor that the law of the central latent depends on."""
    for parameter in prior.parameters():
        torch.nn.init.normal_(parameter)
    mean, log_scale = prior.law(latents)
    value = mean[0, channel, CENTRE, CENTRE] + log_scale[0, channel, CENTRE, CENTRE]
    (gradient,) = torch.autograd.grad(value, tensor)
    return {tuple(place) for place in gradient[0].nonzero().tolist()}


@pytest.mark.parametrize("channel", [0, 4, CHANNELS - 1])
def test_a_latent_of_the_serial_prior_sees_places_and_channels_before_it_alone(
    serial_prior: ModuleType, channel: int
) -> None:
    prior = serial_prior.Prior(CONFIG, torch.ones(CHANNELS), hyper=True, serial=True)
    latents = latents_of(serial_prior)
    expected = set(BEFORE)
    expected |= {(other, CENTRE, CENTRE) for other in range(channel)}
    assert seen(prior, latents, latents.decoded, channel) == expected


@pytest.mark.parametrize("channel", [0, 4, CHANNELS - 1])
def test_a_latent_made_serial_sees_what_its_coding_step_has_told_and_no_later_group(
    serial_prior: ModuleType, channel: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serial_prior.torch, "round", lambda x: x)
    prior = serial_prior.Correction(CONFIG, serial=True)
    latents = latents_of(serial_prior)
    symbols = seen(prior, latents, latents.exact, channel)
    expected = {
        (other, row, column)
        for other, row, column in BEFORE
        if (row + column) % 2 == 0  # the same colour of the checkerboard
        and GROUP[other] <= GROUP[channel]
    }
    assert symbols == expected | {(other, CENTRE, CENTRE) for other in range(channel)}
    told = seen(prior, latents, latents.table, channel)
    assert {other for other, row, column in told} <= {
        other for other in range(CHANNELS) if GROUP[other] <= GROUP[channel]
    }


def test_a_correction_starts_by_changing_nothing(serial_prior: ModuleType) -> None:
    latents = latents_of(serial_prior)
    for serial in (False, True):
        mean, log_scale = serial_prior.Correction(CONFIG, serial=serial).law(latents)
        assert not mean.any()
        assert not log_scale.any()
