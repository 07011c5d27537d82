# Study of 2026-11-26, frozen: ran at commit 9e40cf4, see README.md beside it.
"""What a fully causal prior would save over the parallel one, on the latents of a frozen model.

    python benchmarks/serial_prior.py TRAIN [--model cwic-psnr] [--steps 200]

All priors see the same latents of the same crops and say for each a mean and a scale; what counts
is what the rounded difference from the mean costs under a logistic law of that scale.

From scratch, each in the same few steps:

- none: one mean and scale a channel, by q.
- one level: what the hyper-latents say, no latent sees another.
- serial: every latent sees the twelve places before it in a window of 5x5, row by row, and at its
  own place the channels before it; with the hyper-latents and without.
- parallel: the model's own networks, ten steps.

And with the training that the bundled model has:

- parallel, as bundled.
- the same, corrected: a network that changes mean and scale of each latent, and starts by changing
  nothing. Once it sees only what the parallel prior says, which shows what more training brings;
  once also all latents before it within its own coding step (in a window of 5x5, and the channels
  before it). Together with what earlier steps told, that prior is causal down to a single latent.

To decode a serial prior takes a step for every latent of a picture, 491,520 for one of 768x512.

Trains on crops of the training part, measures on the held-out tenth. Needs the extra `train`.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from cwic import model_file
from cwic.flagship_coder import LATENT_PX
from cwic.training.data import PictureFile, PictureStore, list_pictures
from cwic.training.flagship import to_network
from cwic.training.model.flagship import FlagshipConfig, FlagshipNetwork, Noise
from cwic.training.model.flagship_entropy import inverse_scale, rounded_table
from cwic.training.model.flagship_transforms import condition
from cwic.training.model.logistic import logistic_bits
from cwic.training.restore import preset_of, restore_weights

CROP_PX = 192
BATCH = 4
QS = (-6.0, 0.0, 6.0)  # of the table, in quarter octaves
WIDTH = 640  # hidden units of the way to a latent's mean and scale
CONTEXT = 128  # channels of what earlier places, and the hyper-latents, say
MAX_SURPRISE = 4.0  # of a symbol over its scale, as the correction sees it


class Latents(NamedTuple):
    """What a prior sees of crops, and what is to be coded."""

    y: Tensor  # (B, M, h, w)
    decoded: Tensor  # (B, M, h, w) as a decoder has them
    z: Tensor  # (B, hyper_channels, h / 4, w / 4) integers
    q: Tensor  # (B,)
    exact: Tensor  # (B, M, h, w) steps from the mean of the model's own prior, not rounded
    table: Tensor  # (B, M, h, w) and the index of its scale

    def part(self, where: Sequence[int]) -> "Latents":
        """Some of the crops."""
        return Latents(*(tensor[list(where)] for tensor in self))

    @property
    def gain(self) -> Tensor:
        """(B, 1, 1, 1) steps a unit."""
        return torch.exp2(self.q / 4)[:, None, None, None]


def cut(paths: Sequence[PictureFile], count: int, seed: int) -> Tensor:
    """(count, 3, CROP_PX, CROP_PX), one crop a picture."""
    rng = np.random.default_rng(seed)
    found = []
    for index in rng.permutation(len(paths)):
        pixels = PictureStore([paths[index]], 0, 0)[0]
        rows, columns = (side - CROP_PX for side in pixels.shape[:2])
        if min(rows, columns) >= 0:
            top, left = rng.integers(rows + 1), rng.integers(columns + 1)
            found.append(pixels[top : top + CROP_PX, left : left + CROP_PX])
        if len(found) == count:
            break
    return to_network(torch.from_numpy(np.stack(found)))


class WatchedNetwork(FlagshipNetwork):
    """A network that keeps what its prior said of the latents it last coded."""

    def __init__(self, config: FlagshipConfig):
        super().__init__(config)
        self.said: list[tuple[Tensor, Tensor]] = []  # of each group, steps from the mean and table

    def _bits(self, exact: Tensor, symbol: Tensor, table: Tensor, noise: Tensor | None) -> Tensor:
        self.said.append((exact, rounded_table(table).float()))
        return super()._bits(exact, symbol, table, noise)


def without_map(q: Tensor, side: int) -> Tensor:
    """Levels of 0 for all places."""
    return torch.zeros(len(q), 1, side, side)


def analyzed(network: WatchedNetwork, x: Tensor, q: Tensor) -> tuple[Latents, Tensor, Tensor]:
    """Latents of crops, with the bits (B,) of the model's own prior and of its hyper-latents."""
    parts, own, hyper = [], [], []
    with torch.no_grad():
        for start in range(0, len(x), 8):
            some, some_q = x[start : start + 8], q[start : start + 8]
            level = without_map(some_q, CROP_PX // LATENT_PX)
            planes = condition(some_q, level)
            y, _ = network.analysis(some, some_q)
            z = torch.round(network.hyper_analysis(y, planes))
            network.said.clear()
            decoded, _, bits = network._code_latents(
                y, z, level, some_q, planes, None, *y.shape[2:]
            )
            exact, table = (
                torch.cat(tensors, dim=1) for tensors in zip(*network.said, strict=True)
            )
            parts.append((y, decoded, z, some_q, exact, table))
            own.append(bits.sum(dim=(1, 2, 3)))
            hyper.append(network.hyper_model(z, some_q).sum(dim=(1, 2, 3)))
    latents = Latents(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))
    return latents, torch.cat(own), torch.cat(hyper)


class MaskedConv(nn.Conv2d):
    """A convolution some of whose weights are 0 and stay so."""

    mask: Tensor

    def __init__(self, channels: int, out: int, side: int, mask: Tensor):
        super().__init__(channels, out, side, padding=side // 2)
        self.register_buffer("mask", mask.expand_as(self.weight).clone(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, h, w) -> (B, out, h, w)."""
        result: Tensor = self._conv_forward(x, self.weight * self.mask, self.bias)
        return result


class Causal(NamedTuple):
    """Which unit may see which, so that a channel hears only of the channels before it.

    A hidden unit of number d sees the channels 0 to d - 1 and is heard by those from d on.
    """

    unit: Tensor  # (WIDTH,) numbers of the hidden units
    enters: Tensor  # (WIDTH, M)
    among: Tensor  # (WIDTH, WIDTH)
    leaves: Tensor  # (2 M, WIDTH) to means, then to scales


def causal(channels: int) -> Causal:
    """The masks for so many channels; 1 where one may see the other."""
    channel = torch.arange(channels)
    unit = torch.arange(WIDTH) * channels // WIDTH
    return Causal(
        unit,
        (channel[None] < unit[:, None]).float(),
        (unit[None] <= unit[:, None]).float(),
        (unit[None] <= channel[:, None]).float().repeat(2, 1),
    )


class Prior(nn.Module):
    """Means and scales of latents from hyper-latents, from earlier latents, from both or none."""

    spread: Tensor

    def __init__(self, config: FlagshipConfig, spread: Tensor, *, hyper: bool, serial: bool):
        """`spread`: (M,) standard deviation of each channel."""
        super().__init__()
        latents = config.latent_channels
        self.register_buffer("spread", spread[:, None, None])
        self.hyper = self.past = self.present = None
        if hyper:
            self.hyper = nn.Sequential(
                nn.Conv2d(config.hyper_channels, CONTEXT, 3, padding=1),
                nn.LeakyReLU(0.1),
                nn.Conv2d(CONTEXT, 16 * CONTEXT, 1),
                nn.PixelShuffle(4),
            )
        if serial:
            place = torch.zeros(5, 5)
            place[:2] = 1
            place[2, :2] = 1
            self.past = MaskedConv(latents, CONTEXT, 5, place)
            _, enters, among, leaves = causal(latents)
            self.present = MaskedConv(latents, WIDTH, 1, enters[..., None, None])
        else:
            among, leaves = torch.ones(WIDTH, WIDTH), torch.ones(2 * latents, WIDTH)
        self.enter = nn.Conv2d(1 + CONTEXT * (hyper + serial), WIDTH, 1)
        self.hidden = MaskedConv(WIDTH, WIDTH, 1, among[..., None, None])
        self.leave = MaskedConv(WIDTH, 2 * latents, 1, leaves[..., None, None])
        nn.init.zeros_(self.leave.weight)
        assert self.leave.bias is not None
        nn.init.zeros_(self.leave.bias)

    def law(self, latents: Latents) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the scale of every latent, both over its channel's spread."""
        seen = latents.decoded / self.spread
        size = seen.shape[2:]
        told = [(latents.q / 10)[:, None, None, None].expand(-1, 1, *size)]
        if self.hyper is not None:
            told.append(torch.nn.functional.leaky_relu(self.hyper(latents.z / 4), 0.1))
        if self.past is not None:
            told.append(torch.nn.functional.leaky_relu(self.past(seen), 0.1))
        state = self.enter(torch.cat(told, dim=1))
        if self.present is not None:
            state = state + self.present(seen)
        return law_of(state, self.hidden, self.leave)

    def bits(self, latents: Latents, *, noise: bool) -> Tensor:
        """(B,) what the latents cost; with noise in place of rounding it can be differentiated."""
        mean, log_scale = self.law(latents)
        exact = (latents.y - mean * self.spread) * latents.gain
        # Of a logistic law of scale s the standard deviation is about 1.8 s.
        scale = self.spread * latents.gain * torch.exp(log_scale.clamp(-8, 4)) / 1.8
        return cost_of(exact, scale, noise)


class Correction(nn.Module):
    """Changes the means and scales of a parallel prior, by what its own coding step has told."""

    def __init__(self, config: FlagshipConfig, *, serial: bool):
        """Without `serial` no latent of a step sees another of it."""
        super().__init__()
        latents = config.latent_channels
        group = torch.repeat_interleave(
            torch.arange(len(config.groups)), torch.tensor(config.groups)
        )
        unit, enters, among, leaves = causal(latents)
        # What the prior says of a later group depends on this one's symbols.
        told = (group[None] <= group[unit][:, None]).float()
        self.told = MaskedConv(latents, WIDTH, 1, told[..., None, None])
        self.rate = nn.Conv2d(1, WIDTH, 1)
        self.past = self.from_past = self.present = None
        if serial:
            # Places of the same colour of the checkerboard: the others are of another step.
            place = torch.zeros(5, 5)
            place[0, ::2] = 1
            place[1, 1::2] = 1
            place[2, 0] = 1
            of_past = torch.arange(CONTEXT) * len(config.groups) // CONTEXT
            seen = (group[None] <= of_past[:, None]).float()[..., None, None] * place
            self.past = MaskedConv(latents, CONTEXT, 5, seen)
            heard = (of_past[None] <= group[unit][:, None]).float()
            self.from_past = MaskedConv(CONTEXT, WIDTH, 1, heard[..., None, None])
            self.present = MaskedConv(latents, WIDTH, 1, enters[..., None, None])
        self.hidden = MaskedConv(WIDTH, WIDTH, 1, among[..., None, None])
        self.leave = MaskedConv(WIDTH, 2 * latents, 1, leaves[..., None, None])
        nn.init.zeros_(self.leave.weight)
        assert self.leave.bias is not None
        nn.init.zeros_(self.leave.bias)

    def law(self, latents: Latents) -> tuple[Tensor, Tensor]:
        """What is added to each mean, in scales, and to the logarithm of each scale."""
        inverse = inverse_scale(latents.table)
        state = self.told(torch.log(inverse)) + self.rate((latents.q / 10)[:, None, None, None])
        if self.past is not None and self.from_past is not None and self.present is not None:
            surprise = (torch.round(latents.exact) * inverse).clamp(-MAX_SURPRISE, MAX_SURPRISE)
            past = torch.nn.functional.leaky_relu(self.past(surprise), 0.1)
            state = state + self.from_past(past) + self.present(surprise)
        return law_of(state, self.hidden, self.leave)

    def bits(self, latents: Latents, *, noise: bool) -> Tensor:
        """As of :class:`Prior`."""
        mean, log_scale = self.law(latents)
        scale = 1 / inverse_scale(latents.table)
        return cost_of(latents.exact - mean * scale, scale * torch.exp(log_scale), noise)


def law_of(state: Tensor, hidden: nn.Module, leave: nn.Module) -> tuple[Tensor, Tensor]:
    """Mean and logarithm of the scale of every latent, from what is known there."""
    state = torch.nn.functional.leaky_relu(state, 0.1)
    state = state + torch.nn.functional.leaky_relu(hidden(state), 0.1)
    mean, log_scale = leave(state).chunk(2, dim=1)
    return mean, log_scale


def cost_of(exact: Tensor, scale: Tensor, noise: bool) -> Tensor:
    """(B,) bits of latents: so many steps from their means, under logistic laws of these scales."""
    value = exact + torch.rand_like(exact) - 0.5 if noise else torch.round(exact)
    cost: Tensor = logistic_bits(value, 1 / scale.clamp(min=0.05))
    return cost.sum(dim=(1, 2, 3))


class Cost(Protocol):
    """What a prior makes of latents."""

    def __call__(self, latents: Latents, *, noise: bool) -> Tensor:
        """(B,) bits; with noise in place of rounding they can be differentiated."""


NONE, SERIAL_ALONE = "none", "serial, one level"  # the rows without hyper-latents
BUNDLED = "parallel, as bundled"


def trained(
    parameters: Sequence[nn.Parameter],
    cost: Callable[[Latents], Tensor],
    latents: Latents,
    steps: int,
    learning_rate: float,
    name: str,
) -> None:
    """Adam with a cosine, every picture weighed by 2^(-q / 4) as the model's own training does."""
    optimizer = torch.optim.Adam(parameters, lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    rng = np.random.default_rng(3)
    for _ in tqdm(range(steps), desc=name):
        part = latents.part(rng.integers(0, len(latents.q), BATCH).tolist())
        loss = (cost(part) * torch.exp2(-part.q / 4)).mean() / CROP_PX**2
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="TRAIN", help="training pictures")
    parser.add_argument("--model", default="cwic-psnr", help="a bundled flagship without a map")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--crops", type=int, default=400)
    parser.add_argument("--held-out-crops", type=int, default=24)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(1)
    path = model_file.find(options.model)
    model = model_file.load(path)
    config = preset_of(model)
    network = WatchedNetwork(config)
    network.load_state_dict(restore_weights(path, network), strict=False)
    network.eval().requires_grad_(False)
    split = list_pictures([options.folder], 0.1)
    x = cut(split.training, options.crops, 1)
    q = torch.from_numpy(np.random.default_rng(1).uniform(-9, 9, len(x)).round(2)).float()
    trained_on, _, _ = analyzed(network, x, q)
    spread = trained_on.y.std(dim=(0, 2, 3)).clamp(min=1e-3)

    fresh = FlagshipNetwork(config)

    def fresh_bits(latents: Latents, *, noise: bool) -> Tensor:
        fresh.train(noise)
        level = without_map(latents.q, latents.y.shape[2])
        drawn = Noise(torch.rand_like(latents.y) - 0.5, torch.empty(0)) if noise else None
        planes = condition(latents.q, level)
        _, _, bits = fresh._code_latents(
            latents.y, latents.z, level, latents.q, planes, drawn, *latents.y.shape[2:]
        )
        return bits.sum(dim=(1, 2, 3))

    def made(prior: Prior | Correction) -> tuple[Cost, list[nn.Parameter]]:
        return prior.bits, list(prior.parameters())

    from_scratch: dict[str, tuple[Cost, list[nn.Parameter]]] = {
        NONE: made(Prior(config, spread, hyper=False, serial=False)),
        "one level": made(Prior(config, spread, hyper=True, serial=False)),
        SERIAL_ALONE: made(Prior(config, spread, hyper=False, serial=True)),
        "serial above hyper-latents": made(Prior(config, spread, hyper=True, serial=True)),
        "parallel, from scratch": (
            fresh_bits,
            [*fresh.mean_network.parameters(), *fresh.scale_network.parameters()],
        ),
    }
    from_bundled = {
        "as bundled, corrected": made(Correction(config, serial=False)),
        "as bundled, made serial": made(Correction(config, serial=True)),
    }
    rows = from_scratch | from_bundled
    for name, (cost, parameters) in rows.items():
        # What starts from a trained prior has less far to go.
        learning_rate = 2e-3 if name in from_scratch else 1e-3
        costs = partial(cost, noise=True)
        trained(parameters, costs, trained_on, options.steps, learning_rate, name)

    held_out = cut(split.held_out, options.held_out_crops, 2)
    found: dict[str, list[float]] = {name: [] for name in (*from_scratch, BUNDLED, *from_bundled)}
    for value in QS:
        measured, own, hyper_bits = analyzed(network, held_out, torch.full((len(held_out),), value))
        with torch.no_grad():
            bits = {name: cost(measured, noise=False) for name, (cost, _) in rows.items()}
        for name, of_latents in {BUNDLED: own, **bits}.items():
            total = of_latents if name in (NONE, SERIAL_ALONE) else of_latents + hyper_bits
            found[name].append(float(total.mean()) / CROP_PX**2)
    print(
        f"{model.name} {model.identity.hex()}. Bits per pixel, hyper-latents included where they "
        f"are used, and in parentheses relative to the bundled prior; {len(held_out)} held-out "
        f"crops of {CROP_PX}x{CROP_PX}; {options.steps} steps of {BATCH} of {len(x)} crops.\n"
    )
    print("| prior | " + " | ".join(f"q = {value:g}" for value in QS) + " |")
    print("|---" * (len(QS) + 1) + "|")
    for name, rates in found.items():
        cells = (
            f"{rate:.4f} ({rate / base - 1:+.1%})"
            for rate, base in zip(rates, found[BUNDLED], strict=True)
        )
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
