# Study of 2026-11-28, frozen: ran at commit dfc0d36, see README.md beside it.
"""The entropy coder of the paper in sizes and orders: what each spends on codes of a trained model.

    python benchmarks/contexts.py KODAK TRAIN [--steps 1500] [--out runs/contexts] [--only NAME ...]

KODAK is the folder of the 24 pictures, TRAIN one of training pictures. Codes and maps are those of
the bundled `cvpr2018`; of the training part of TRAIN at random rates, of Kodak at five qualities.
Every network sees the same codes in as many steps. The adaptive coders of `adaptive_coding.py`
start anew in each picture. The last rows are the map, by an adaptive coder and by the model's own
network. Finished networks in the folder of `--out` are not trained again. Prints Markdown. Needs
the extra `train`.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import torch
from adaptive_coding import MEDIUM, SMALL, Neighbour, bits_of_code, bits_of_map
from PIL import Image
from safetensors.torch import load_file, save
from torch import Tensor
from tqdm import tqdm

from cwic import cvpr2018, model_file
from cwic.arithmetic_coder import BitCounter
from cwic.atomic_file import write_file
from cwic.cvpr2018_coder import known_before
from cwic.image import pad_to_multiple
from cwic.training.data import PictureStore, centre_crops, list_pictures
from cwic.training.model.context_network import CodeContext, information
from cwic.training.optimizer import Muon

QUALITIES = (0, 25, 50, 75, 100)
CROP_PX, CROPS = 256, 800
BATCH, CHANNELS = 8, 16  # crops and channels of a step
LEARNING_RATE, LAST_LEARNING_RATE = 3e-3, 1e-4
AVERAGE = 0.99
SEED = 3


@dataclass(frozen=True)
class Choice:
    """One network."""

    label: str
    maps: int = 4
    reach: int = 2
    hidden: int = 48
    second: int = 24
    channel_delay: int | None = 3


CHOICES = {
    "none": Choice("none: channel and level", maps=0),
    "small": Choice("small: 2x3x3", maps=2, reach=1, hidden=24, second=12),
    "full": Choice("full: 4x5x5"),
    "wide": Choice("full, twice as wide", hidden=96, second=48),
    "checkerboard": Choice("full, two passes over each channel", channel_delay=0),
    "raster": Choice("full, one bit after the other", channel_delay=None),
}


class Codes(NamedTuple):
    """Of pictures of one size."""

    code: npt.NDArray[np.uint8]  # (N, n, h, w)
    level: npt.NDArray[np.uint8]  # (N, h, w)
    kept: npt.NDArray[np.int64]  # (N, h, w)

    def tensors(self, indices: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Code, kept and level as :class:`CodeContext` takes them."""
        code, level, kept = (torch.from_numpy(part[list(indices)]).float() for part in self)
        return code, kept[:, None], level[:, None]

    def batch(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Some of them, half the time mirrored, as :meth:`tensors` gives them."""
        code, kept, level = self.tensors(rng.integers(0, len(self.code), BATCH).tolist())
        if rng.random() < 0.5:
            code, kept, level = (part.flip(3) for part in (code, kept, level))
        return code, kept, level


def codes_of(model: cvpr2018.Cvpr2018, pictures: Sequence[np.ndarray], qs: Sequence[int]) -> Codes:
    """Codes of pictures of one size, each at its own q."""
    found = []
    for pixels, q in zip(pictures, qs, strict=True):
        analysis = cvpr2018.analyze(model.engine, pad_to_multiple(pixels, cvpr2018.CELL_PX))
        found.append(cvpr2018.code_of_picture(analysis, q, model.layout))
    level = np.stack([picture.level for picture in found])
    return Codes(np.stack([picture.code for picture in found]), level, model.layout.kept(level))


def training_codes(model: cvpr2018.Cvpr2018, folder: Path) -> Codes:
    """Of crops of the training part of a folder, at random rates."""
    store = PictureStore(list_pictures([folder], 0.1).training, 0, CROP_PX)
    crops = centre_crops(store, CROP_PX, CROPS)
    span = (model.rates.min_q, model.rates.max_q)
    qs = np.random.default_rng(SEED).integers(*span, len(crops), endpoint=True)
    return codes_of(model, list(crops), qs.tolist())


def codes_of_kodak(model: cvpr2018.Cvpr2018, folder: Path) -> list[Codes]:
    """Of the pictures of a folder, upright ones turned, at each of the qualities."""
    pictures = []
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        pictures.append(pixels if pixels.shape[0] < pixels.shape[1] else np.rot90(pixels))
    return [
        codes_of(model, pictures, [model.rates.of_quality(quality)] * len(pictures))
        for quality in QUALITIES
    ]


def main() -> None:
    """Trains what is missing and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("kodak", type=Path, metavar="KODAK")
    parser.add_argument("folder", type=Path, metavar="TRAIN")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/contexts"))
    parser.add_argument("--only", nargs="+", choices=CHOICES, default=list(CHOICES))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    loaded = model_file.load(model_file.find("cvpr2018"))
    model = cvpr2018.Cvpr2018(loaded, threads=options.threads)
    out = options.out / f"{loaded.identity.hex()}-{options.steps}"
    out.mkdir(parents=True, exist_ok=True)

    codes_of_training = cache(lambda: training_codes(model, options.folder))
    kodak = codes_of_kodak(model, options.kodak)
    networks = {}
    for name in options.only:
        networks[name] = _trained(
            CHOICES[name], model, out / name, options.steps, codes_of_training
        )

    print(
        f"{loaded.name} {loaded.identity.hex()}, {len(kodak[0].code)} pictures, {options.steps} "
        f"steps of {BATCH} crops; bits of the code, or of the map, over the bits that the map "
        "keeps.\n"
    )
    print(f"| contexts | kMAC a bit | {' | '.join(f'quality {q}' for q in QUALITIES)} |")
    print("|---|---|" + "---|" * len(QUALITIES))
    adaptive: dict[str, tuple[Neighbour, ...]] = {
        "adaptive: the channel": (),
        "adaptive: 2 bits": SMALL,
        "adaptive: 6 bits": MEDIUM,
    }
    for label, neighbours in adaptive.items():
        shares = [_share(codes, _adaptive(codes, neighbours)) for codes in kodak]
        _row(label, "", shares)
    for name, network in networks.items():
        shares = [_share(codes, _spent(network, codes)) for codes in kodak]
        _row(CHOICES[name].label, f"{_kmacs(CHOICES[name]):.1f}", shares)
    if "full" in networks:
        with (
            patch("cwic.training.model.integer_layers.straight_through", lambda value, _: value),
            patch("cwic.training.model.context_network.straight_through", lambda value, _: value),
        ):
            shares = [_share(codes, _spent(networks["full"], codes)) for codes in kodak]
        _row("full, nothing rounded", "", shares)
    levels = model.layout.levels
    _row("the map: adaptive", "", [_share(c, adaptive_bits_of_maps(c, levels)) for c in kodak])
    _row("the map: the bundled network", "", [_share(c, _bits_of_maps(model, c)) for c in kodak])


def _row(label: str, kmacs: str, shares: Sequence[float]) -> None:
    print(f"| {label} | {kmacs} | " + " | ".join(f"{share:.4f}" for share in shares) + " |")


def _share(codes: Codes, bits: float) -> float:
    return bits / float(codes.kept.sum())


def _kmacs(choice: Choice) -> float:
    """Multiplications for a bit, in thousands."""
    taps = sum(
        known_before(choice.channel_delay, below, choice.reach).sum()
        for below in range(choice.maps)
    )
    return float(taps * choice.hidden + choice.hidden * choice.second + choice.second) / 1000


def _adaptive(codes: Codes, neighbours: tuple[Neighbour, ...]) -> float:
    return sum(
        bits_of_code(code[None], kept[None], neighbours)
        for code, kept in zip(codes.code, codes.kept, strict=True)
    )


def adaptive_bits_of_maps(codes: Codes, levels: int) -> float:
    """Bits on the maps of all pictures, each by an adaptive coder of its own."""
    return sum(bits_of_map(level[None].astype(np.int64), levels) for level in codes.level)


def _bits_of_maps(model: cvpr2018.Cvpr2018, codes: Codes) -> float:
    counter = BitCounter()
    for level in codes.level:
        model.coder.code_map(counter, level.copy())
    return counter.bits


@torch.no_grad()
def _spent(network: CodeContext, codes: Codes) -> float:
    """By the exact network, on all pictures."""
    network.eval()
    parts = torch.split(torch.arange(network.code_channels), CHANNELS)
    total = 0.0
    for index in range(len(codes.code)):
        code, kept, level = codes.tensors([index])
        for part in parts:
            bits = information(network(code, kept, level, part), code[:, part])
            total += float(torch.where(part.view(1, -1, 1, 1) < kept, bits, 0.0).sum())
    return total


def _trained(
    choice: Choice,
    model: cvpr2018.Cvpr2018,
    path: Path,
    steps: int,
    codes_of_training: Callable[[], Codes],
) -> CodeContext:
    """A network, its weights averaged."""
    torch.manual_seed(SEED)
    network = CodeContext(
        model.layout.code_channels,
        model.layout.levels,
        choice.maps,
        choice.reach,
        choice.hidden,
        choice.second,
        choice.channel_delay,
    )
    weights = path.with_suffix(".safetensors")
    if weights.exists():
        network.load_state_dict(load_file(weights))
        return network
    codes = codes_of_training()

    def bits_a_kept_one(rng: np.random.Generator) -> Tensor:
        code, kept, level = codes.batch(rng)
        channels = torch.from_numpy(rng.choice(network.code_channels, CHANNELS, replace=False))
        bits = information(network(code, kept, level, channels), code[:, channels])
        inside = channels.view(1, -1, 1, 1) < kept
        return torch.where(inside, bits, 0.0).sum() / inside.sum()

    train(network, bits_a_kept_one, steps, LEARNING_RATE, path.name)
    write_file(weights, save(network.state_dict()))
    return network


def train(
    network: torch.nn.Module,
    loss_of_step: Callable[[np.random.Generator], Tensor],
    steps: int,
    learning_rate: float,
    label: str,
) -> None:
    """Anneal a network and leave it with the average of its weights."""
    rng = np.random.default_rng(SEED)
    optimizer = Muon(network.parameters(), lr=learning_rate)
    average = {name: value.clone() for name, value in network.state_dict().items()}
    for step in tqdm(range(steps), desc=label, mininterval=10):
        progress = (1 + np.cos(np.pi * step / steps)) / 2
        optimizer.param_groups[0]["lr"] = LAST_LEARNING_RATE + progress * (
            learning_rate - LAST_LEARNING_RATE
        )
        optimizer.zero_grad()
        loss_of_step(rng).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        decay = min(AVERAGE, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            average[name].lerp_(value, 1 - decay)
    network.load_state_dict(average)


if __name__ == "__main__":
    main()
