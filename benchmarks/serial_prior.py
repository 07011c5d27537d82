"""What a fully causal prior would save over the parallel one, on the latents of a frozen model.

    python benchmarks/serial_prior.py FOLDER ... [--model cwic-psnr] [--steps 500]

All priors see the same latents of the same crops and say for each a mean and a scale; what counts
is what the rounded difference from the mean costs under a logistic law of that scale.

- none: one mean and scale a channel, by q.
- one level: what the hyper-latents say, no latent sees another.
- parallel: the model's own networks, ten steps; as bundled, and from scratch in as many steps as
  the others.
- serial: every latent sees all before it: places above and to the left, and at its own place the
  channels before it; with the hyper-latents and without. To decode it would take a step for every
  latent of a picture, 491,520 for one of 768x512.

Trains on crops of the training part, measures on the held-out tenth. Needs the extra `train`.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from cwic import model_file
from cwic.flagship_coder import LATENT_PX
from cwic.training.data import PictureFile, PictureStore, list_pictures
from cwic.training.flagship import to_network
from cwic.training.model.flagship import PRESETS, FlagshipConfig, FlagshipNetwork, Noise
from cwic.training.model.flagship_transforms import condition
from cwic.training.model.logistic import logistic_bits
from cwic.training.restore import restore_weights

CROP_PX = 192
BATCH = 4
QS = (-6.0, 0.0, 6.0)  # of the table, in quarter octaves
WIDTH = 640  # hidden units of the way to a latent's mean and scale
CONTEXT = 128  # channels of what earlier places, and the hyper-latents, say


class Latents(NamedTuple):
    """What a prior sees of crops, and what is to be coded."""

    y: Tensor  # (B, M, h, w)
    decoded: Tensor  # (B, M, h, w) as a decoder has them
    z: Tensor  # (B, hyper_channels, h / 4, w / 4) integers
    q: Tensor  # (B,)

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


def without_map(q: Tensor, side: int) -> Tensor:
    """Levels of 0 for all places."""
    return torch.zeros(len(q), 1, side, side)


def analyzed(network: FlagshipNetwork, x: Tensor, q: Tensor) -> tuple[Latents, Tensor, Tensor]:
    """Latents of crops, with the bits (B,) of the model's own prior and of its hyper-latents."""
    parts, own, hyper = [], [], []
    with torch.no_grad():
        for start in range(0, len(x), 8):
            some, some_q = x[start : start + 8], q[start : start + 8]
            level = without_map(some_q, CROP_PX // LATENT_PX)
            planes = condition(some_q, level)
            y, _ = network.analysis(some, some_q)
            z = torch.round(network.hyper_analysis(y, planes))
            decoded, _, bits = network._code_latents(y, z, level, some_q, planes, None)
            parts.append((y, decoded, z, some_q))
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
            # Channel c is number c + 1; a hidden unit of number d sees the channels 1 to d, and
            # channel c hears of the units below its number.
            number = torch.arange(1, latents + 1)
            unit = torch.arange(WIDTH) * latents // WIDTH
            enters = (number[None] <= unit[:, None]).float()
            among = (unit[None] <= unit[:, None]).float()
            leaves = (unit[None] < number[:, None]).float().repeat(2, 1)
            self.present = MaskedConv(latents, WIDTH, 1, enters[..., None, None])
        else:
            among, leaves = torch.ones(WIDTH, WIDTH), torch.ones(2 * latents, WIDTH)
        self.enter = nn.Conv2d(1 + CONTEXT * (hyper + serial), WIDTH, 1)
        self.hidden = MaskedConv(WIDTH, WIDTH, 1, among[..., None, None])
        self.leave = MaskedConv(WIDTH, 2 * latents, 1, leaves[..., None, None])
        nn.init.zeros_(self.leave.weight)
        assert self.leave.bias is not None
        nn.init.zeros_(self.leave.bias)

    def bits(self, latents: Latents, noise: bool) -> Tensor:
        """(B,) what the latents cost; with noise in place of rounding it can be differentiated."""
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
        state = torch.nn.functional.leaky_relu(state, 0.1)
        state = state + torch.nn.functional.leaky_relu(self.hidden(state), 0.1)
        mean, log_scale = self.leave(state).chunk(2, dim=1)
        exact = (latents.y - mean * self.spread) * latents.gain
        value = exact + torch.rand_like(exact) - 0.5 if noise else torch.round(exact)
        # Of a logistic law of scale s the standard deviation is about 1.8 s.
        scale = self.spread * latents.gain * torch.exp(log_scale.clamp(-8, 4)) / 1.8
        cost: Tensor = logistic_bits(value, 1 / scale.clamp(min=0.05))
        return cost.sum(dim=(1, 2, 3))


def trained(
    parameters: Sequence[nn.Parameter],
    cost: Callable[[Latents], Tensor],
    latents: Latents,
    steps: int,
    name: str,
) -> None:
    """Adam with a cosine, every picture weighed by 2^(-q / 4) as the model's own training does."""
    optimizer = torch.optim.Adam(parameters, lr=2e-3)
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
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="training pictures")
    parser.add_argument("--model", default="cwic-psnr", help="of PRESETS' small network, no map")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--crops", type=int, default=300)
    parser.add_argument("--held-out-crops", type=int, default=24)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(1)
    config = PRESETS["small"]
    network = FlagshipNetwork(config)
    network.load_state_dict(restore_weights(model_file.find(options.model), network), strict=False)
    network.eval().requires_grad_(False)
    split = list_pictures(options.folders, 0.1)
    x = cut(split.training, options.crops, 1)
    q = torch.from_numpy(np.random.default_rng(1).uniform(-9, 9, len(x)).round(2)).float()
    latents, _, _ = analyzed(network, x, q)
    spread = latents.y.std(dim=(0, 2, 3)).clamp(min=1e-3)

    rows: dict[str, Callable[[Latents], Tensor]] = {}
    with_hyper = set()
    for name, hyper, serial in (
        ("none", False, False),
        ("one level", True, False),
        ("serial, one level", False, True),
        ("serial above hyper-latents", True, True),
    ):
        prior = Prior(config, spread, hyper=hyper, serial=serial)
        trained(
            list(prior.parameters()),
            partial(prior.bits, noise=True),
            latents,
            options.steps,
            name,
        )
        rows[name] = partial(prior.bits, noise=False)
        if hyper:
            with_hyper.add(name)

    fresh = FlagshipNetwork(config)

    def parallel_bits(part: Latents) -> Tensor:
        level = without_map(part.q, part.y.shape[2])
        planes = condition(part.q, level)
        noise = None
        if fresh.training:
            noise = Noise(torch.rand_like(part.y) - 0.5, torch.empty(0))
        _, _, bits = fresh._code_latents(part.y, part.z, level, part.q, planes, noise)
        return bits.sum(dim=(1, 2, 3))

    parameters = [*fresh.mean_network.parameters(), *fresh.scale_network.parameters()]
    trained(parameters, parallel_bits, latents, options.steps, "parallel")
    fresh.eval()
    rows["parallel, from scratch"] = parallel_bits
    with_hyper |= {"parallel, from scratch", "parallel, as bundled"}

    held_out = cut(split.held_out, options.held_out_crops, 2)
    table: dict[str, list[float]] = {}
    for value in QS:
        measured, own, hyper_bits = analyzed(network, held_out, torch.full((len(held_out),), value))
        with torch.no_grad():
            costs = {name: bits(measured) for name, bits in rows.items()}
        costs["parallel, as bundled"] = own
        for name, cost in costs.items():
            total = cost + hyper_bits if name in with_hyper else cost
            table.setdefault(name, []).append(float(total.mean()) / CROP_PX**2)
    print(
        f"Bits per pixel, hyper-latents included where they are used; {len(held_out)} held-out "
        f"crops of {CROP_PX}x{CROP_PX}; {options.steps} steps of {BATCH} of {len(x)} crops.\n"
    )
    print("| prior | " + " | ".join(f"q = {value:g}" for value in QS) + " |")
    print("|---" * (len(QS) + 1) + "|")
    for name, rates in table.items():
        print(f"| {name} | " + " | ".join(f"{rate:.3f}" for rate in rates) + " |")


if __name__ == "__main__":
    main()
