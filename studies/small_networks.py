# Study of 2026-11-24, frozen: ran at commit ae8ed2d, see README.md beside it.
"""Small networks of the CVPR 2018 paper, trained alike but for one choice: what the choice brings.

    python benchmarks/small_networks.py TRAIN [--out runs/small-networks] [--steps 800 300]

TRAIN is a folder of training pictures; of each source in it a tenth is held out and measured. First
one binary autoencoder without a map is trained, then from it, with the same crops and steps, a
network for each choice. Finished networks in the folder of `--out` are not trained again. Prints
Markdown.

Sizes are those of ideal adaptive coders, the same for all (`adaptive_coding.py`), so that a choice
is not judged by how well an entropy coder was trained for it.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from adaptive_coding import MEDIUM, bits_of_code, bits_of_map
from safetensors.torch import load_file, save
from torch import Tensor

from cwic.atomic_file import write_file
from cwic.evaluation.rate_distortion import bd_rate
from cwic.training.data import DataConfig, PictureStore, batches, centre_crops, list_pictures
from cwic.training.loss import mean_squared_error, target_fraction, thresholded_rate
from cwic.training.model.binarizer import binarize
from cwic.training.model.context_network import information
from cwic.training.model.importance_map import (
    MaskGradient,
    kept_channels,
    prefix_mask,
    quantize_levels,
)
from cwic.training.model.network import Cvpr2018Config, Cvpr2018Network
from cwic.training.optimizer import Muon

NETWORK = Cvpr2018Config(
    width=0.125,
    code_channels=32,
    context_maps=2,
    context_reach=1,
    context_width=16,
    channel_delay=0,
)
DATA = DataConfig(crop_px=80, cache_mb=1024)
PICTURES = 400  # of the training pictures, evenly chosen
BATCH = 8
LEARNING_RATE = 5e-3
MSE_WEIGHT, RATE_WEIGHT = 6.0, 0.04
SEED = 1
HELD_OUT_PX, HELD_OUT_COUNT = 256, 16
OFFSETS = np.linspace(NETWORK.min_rate_offset, NETWORK.max_rate_offset, 6)


@dataclass(frozen=True)
class Choice:
    """One network."""

    name: str
    label: str
    gradient: MaskGradient | Literal["none"] = "window"  # of the mask by the map
    rate: Literal["map", "entropy"] = "map"  # what the threshold is put on
    flat: bool = False  # every cell keeps the same number of bits


CHOICES = (
    Choice("window", "the paper: sum of the map, gradient of eq. 7"),
    Choice("local", "gradient LOCAL of the released layer", gradient="local"),
    Choice("global", "gradient GLOBAL of the released layer", gradient="global"),
    Choice("none", "no gradient of the mask: only the rate moves the map", gradient="none"),
    Choice("entropy", "estimated entropy in place of the map's sum", rate="entropy"),
    Choice("flat", "no map: the same number of bits in every cell", flat=True),
)


def main() -> None:
    """Trains what is missing and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, metavar="TRAIN", help="training pictures")
    parser.add_argument("--out", type=Path, default=Path("runs/small-networks"))
    parser.add_argument(
        "--steps", type=int, nargs=2, default=(800, 300), help="without the map, of each choice"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    split = list_pictures([options.folder], DATA.held_out)
    first_steps, steps = options.steps
    of_run = {"steps": [first_steps, steps], "network": repr(NETWORK), "pictures": PICTURES}

    stores: list[PictureStore] = []

    def store() -> PictureStore:
        if not stores:
            paths = split.training[:: max(1, len(split.training) // PICTURES)]
            stores.append(PictureStore(paths, DATA.cache_mb, DATA.crop_px))
        return stores[0]

    held_out = centre_crops(
        PictureStore(split.held_out, 0, HELD_OUT_PX), HELD_OUT_PX, HELD_OUT_COUNT
    )
    network, begun_s = _begun(options.out, of_run, first_steps, store)
    first = {name: value.clone() for name, value in network.state_dict().items()}
    curves, seconds = {}, {}
    for choice in CHOICES:
        path = options.out / f"{choice.name}.json"
        found = json.loads(path.read_text()) if path.exists() else {}
        if found.get("of_run") != of_run:
            network.load_state_dict(first)
            start_s = time.process_time()
            _train(network, store(), range(first_steps, first_steps + steps), choice)
            trained_s = time.process_time() - start_s
            _save(network, options.out / f"{choice.name}.safetensors")
            found = {"of_run": of_run, "curve": _curve(network, held_out, choice)}
            found["seconds"] = trained_s
            path.write_text(json.dumps(found, indent=2))
        curves[choice.name], seconds[choice.name] = found["curve"], found["seconds"]
    _print(curves, first_steps, steps, begun_s, sum(seconds.values()), len(held_out))


def _begun(
    out: Path, of_run: dict[str, Any], steps: int, store: Callable[[], PictureStore]
) -> tuple[Cvpr2018Network, float]:
    """The network without a map that all choices start from, and its processor seconds."""
    torch.manual_seed(SEED)
    network = Cvpr2018Network(NETWORK).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    weights, notes = out / "first.safetensors", out / "first.json"
    found = json.loads(notes.read_text()) if notes.exists() else {}
    if found.get("of_run") == of_run:
        network.load_state_dict(load_file(weights))
        return network, found["seconds"]
    start_s = time.process_time()
    _train(network, store(), range(steps), None)
    seconds = time.process_time() - start_s
    _save(network, weights)
    notes.write_text(json.dumps({"of_run": of_run, "seconds": seconds}))
    return network, seconds


def _save(network: Cvpr2018Network, path: Path) -> None:
    tensors = {name: value.contiguous() for name, value in network.state_dict().items()}
    write_file(path, save(tensors))


def _train(
    network: Cvpr2018Network, store: PictureStore, steps: range, choice: Choice | None
) -> None:
    """Steps of one network; None is the binary autoencoder without a map."""
    optimizer = Muon(network.parameters(), lr=LEARNING_RATE)
    for step, crops in zip(steps, batches(store, DATA, SEED, steps, range(BATCH)), strict=True):
        done = (step - steps.start) / len(steps)
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * (0.05 + 0.95 * (1 - done))
        x = (torch.from_numpy(crops).permute(0, 3, 1, 2).float() - 127.5) / 127.5
        rate_offset = float(
            np.random.default_rng((SEED, step)).uniform(
                NETWORK.min_rate_offset, NETWORK.max_rate_offset
            )
        )
        loss = _loss(network, x, choice, rate_offset)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 99:
            name = choice.name if choice else "first"
            print(f"{name}: step {step + 1}, loss {float(loss.detach()):.4f}", file=sys.stderr)


def _loss(network: Cvpr2018Network, x: Tensor, choice: Choice | None, rate_offset: float) -> Tensor:
    e, logits = network.analyze(x)
    bits = binarize(e)
    if choice is None:
        return MSE_WEIGHT * mean_squared_error(x, network.synthesize(bits))
    assert logits is not None
    p = _importance(logits, choice, rate_offset)
    mask = _mask(p, choice.gradient)
    loss = MSE_WEIGHT * mean_squared_error(x, network.synthesize(bits * mask))
    threshold = target_fraction(rate_offset, NETWORK)
    if choice.flat:
        return loss
    if choice.rate == "map":
        rate = thresholded_rate(p, mask.detach().mean(dim=(1, 2, 3)), threshold)
        return loss + RATE_WEIGHT * rate
    informed, learned = _entropy(network, bits, p)
    above = (informed.detach() > threshold).float()
    return loss + RATE_WEIGHT * above * informed / threshold + learned


def _importance(logits: Tensor, choice: Choice, rate_offset: float) -> Tensor:
    return torch.sigmoid((torch.zeros_like(logits) if choice.flat else logits) + rate_offset)


def _mask(p: Tensor, gradient: MaskGradient | Literal["none"]) -> Tensor:
    if gradient == "none":
        p, gradient = p.detach(), "window"
    return prefix_mask(p, NETWORK.code_channels, NETWORK.levels, NETWORK.quantizer, gradient)


def _entropy(network: Cvpr2018Network, bits: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """Information in the kept bits, of 1 for each position of the code, by a learned context.

    Returns:
        what moves code and map, and what the context learns by.
    """
    n = NETWORK.code_channels
    with torch.no_grad():
        level = quantize_levels(p, NETWORK.levels)
        kept = kept_channels(level, n, NETWORK.levels, NETWORK.quantizer)
        channels = torch.arange(n)
    logit = network.code_context(bits.detach(), kept, level, channels)
    inside = (channels.view(1, -1, 1, 1) < kept).float()
    learned = (information(logit, bits.detach()) * inside).mean()
    fixed = logit.detach()
    # Information in a bit, linear between its two values, for a gradient by the code.
    softplus = torch.nn.functional.softplus
    expected = (bits * softplus(-fixed) + (1 - bits) * softplus(fixed)) / np.log(2)
    by_code = (expected * inside).mean()
    # By the map: what the bits around the end of the mask hold; of those beyond it nothing is
    # known, so they count in full. LOCAL sums over two levels, hence a half of it.
    at_end = torch.where(inside > 0, expected.detach(), 1.0)
    by_map = (at_end * prefix_mask(p, n, NETWORK.levels, NETWORK.quantizer, "local")).mean() / 2
    return by_code + by_map - by_map.detach(), learned


def _curve(network: Cvpr2018Network, crops: np.ndarray, choice: Choice) -> list[dict[str, float]]:
    """Rate-distortion points on held-out crops, 8-bit pictures."""
    x = (torch.from_numpy(crops).permute(0, 3, 1, 2).float() - 127.5) / 127.5
    pixels = crops.shape[0] * crops.shape[1] * crops.shape[2]
    network.eval()
    points = []
    with torch.no_grad():
        e, logits = network.analyze(x)
        assert logits is not None
        for rate_offset in OFFSETS:
            p = _importance(logits, choice, float(rate_offset))
            code = binarize(e) * _mask(p, "window")
            decoded = ((network.synthesize(code) + 1) * 127.5).round().clamp(0, 255)
            mse = ((x + 1) * 127.5 - decoded).square().mean(dim=(1, 2, 3))
            level = quantize_levels(p, NETWORK.levels)
            kept = kept_channels(level, NETWORK.code_channels, NETWORK.levels, NETWORK.quantizer)
            counts = kept[:, 0].numpy().astype(np.int64)
            code_bits = bits_of_code(code.numpy().astype(np.uint8), counts, MEDIUM)
            map_bits = 0.0 if choice.flat else bits_of_map(_integers(level), NETWORK.levels)
            points.append(
                {
                    "kept_bpp": float(counts.sum()) / pixels,
                    "coded_bpp": (code_bits + map_bits) / pixels,
                    "psnr_db": float((10 * torch.log10(255**2 / mse)).mean()),
                }
            )
    network.train()
    return points


def _integers(level: Tensor) -> np.ndarray:
    return level[:, 0].numpy().astype(np.int64)


def _print(
    curves: dict[str, list[dict[str, float]]],
    first_steps: int,
    steps: int,
    first_s: float,
    rest_s: float,
    crops: int,
) -> None:
    print(
        f"Width {NETWORK.width:g} of the paper's, {NETWORK.code_channels} code channels, "
        f"{NETWORK.levels} levels; {first_steps} steps without a map, then {steps} of each choice, "
        f"{BATCH} crops of {DATA.crop_px}x{DATA.crop_px} a step, {(first_s + rest_s) / 60:.0f} "
        f"minutes of one core in all. {crops} held-out crops of {HELD_OUT_PX}x{HELD_OUT_PX}; sizes "
        "of code and map by ideal adaptive coders. BD-rate in PSNR against the paper's choice: "
        "below 0 is smaller.\n"
    )
    rates = " | ".join("bpp / dB" for _ in OFFSETS)
    print(f"| choice | {rates} | BD-rate |\n|---|{'---|' * len(OFFSETS)}---|")
    reference = _pairs(curves[CHOICES[0].name])
    for choice in CHOICES:
        curve = curves[choice.name]
        cells = " | ".join(f"{p['coded_bpp']:.3f} / {p['psnr_db']:.2f}" for p in curve)
        rate = bd_rate(reference, _pairs(curve))
        shown = "none in common" if rate is None else f"{rate.percent:+.1f} %"
        print(f"| {choice.label} | {cells} | {'' if choice is CHOICES[0] else shown} |")


def _pairs(curve: list[dict[str, float]]) -> tuple[list[float], list[float]]:
    return [p["coded_bpp"] for p in curve], [p["psnr_db"] for p in curve]


if __name__ == "__main__":
    main()
