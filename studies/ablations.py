# Study of 2026-11-26, frozen: ran at commit c9e06c0, see README.md beside it.
"""Flagship networks that differ in one choice, trained alike: what the choice brings, and its time.

    python benchmarks/ablations.py TRAIN ... [--out runs/ablations] [--steps 900] [--threads 1]
        [--only NAME ...] [--seed 1]

TRAIN are folders of training pictures or packs of them; a tenth is held out and measured.
Every choice is trained from scratch by `cwic train`, on the same crops in as many steps; a run that
was stopped goes on, and a finished one is not trained again. --only leaves out the others, in the
table as well. Prints Markdown. Needs the extra `train`.

Rates are what the coding tables cost on held-out crops, at five q. Milliseconds are those of the
exported network, a picture of 768x512, on all threads.
"""

import argparse
import csv
import dataclasses
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from cwic import Codec, model_file
from cwic.evaluation.rate_distortion import bd_rate
from cwic.training import export_flagship
from cwic.training.model.flagship import PRESETS, FlagshipConfig, FlagshipNetwork
from cwic.training.trainer import train

BASE = replace(PRESETS["small"], min_q=-11.0, max_q=10.0)
CROP_PX, BATCH = 192, 8
LEARNING_RATE, LAST_LEARNING_RATE = 3e-3, 1e-4

SQUARED = {"mse_weight": 845.0, "grid_weight": 1.0}
MIXED = {
    "mse_weight": 130.0,
    "ms_ssim_weight": 25.0,
    "low_frequency_weight": 400.0,
    "grid_weight": 1.0,
}


@dataclass(frozen=True)
class Choice:
    """One network and its loss."""

    label: str
    against: str  # the choice that it is compared with
    network: dict[str, Any] = field(default_factory=dict)  # what differs from BASE
    with_map: bool = False
    loss: dict[str, float] = field(default_factory=lambda: SQUARED)


CHOICES = {
    "base": Choice("psnr: the small network", "base"),
    "map": Choice("psnr: with its own map", "base", with_map=True),
    "no-neighbours": Choice("psnr: no spatial context", "base", {"context_px": 1}),
    "one-group": Choice("psnr: one group of channels", "base", {"groups": (320,)}),
    "two-groups": Choice("psnr: two groups", "base", {"groups": (64, 256)}),
    "shallow": Choice(
        "psnr: half the blocks",
        "base",
        {
            "analysis_blocks_8": 2,
            "analysis_blocks_16": 2,
            "synthesis_blocks_8": 3,
            "synthesis_blocks_16": 2,
        },
    ),
    "narrow": Choice("psnr: 3/4 of the width", "base", {"width_8": 96, "width_16": 144}),
    "wide": Choice("psnr: 5/4 of the width", "base", {"width_8": 160, "width_16": 240}),
    "mixed": Choice("visual: MS-SSIM and MSE, with map", "base", with_map=True, loss=MIXED),
    "mixed-no-map": Choice("visual: without map", "mixed", loss=MIXED),
}


@dataclass(frozen=True)
class Found:
    """What a finished run says."""

    bpp: list[float]
    psnr_db: list[float]
    ms_ssim_db: list[float]
    cpu_s: float
    encode_ms: float
    decode_ms: float


def main() -> None:
    """Trains what is missing and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("folders", type=Path, nargs="+", metavar="TRAIN")
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=CHOICES, default=list(CHOICES))
    options = parser.parse_args()
    found = {}
    for name in options.only:
        folder = options.out / f"{name}-{options.steps}-{options.seed}"
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "config.toml"
        config.write_text(toml(CHOICES[name], options.steps, options.seed))
        train(config, options.folders, folder, threads=options.threads)
        found[name] = measured(folder, CHOICES[name])
    show(found, options.steps, options.seed)


def toml(choice: Choice, steps: int, seed: int) -> str:
    """The configuration of a run."""
    return recipe(
        replace(BASE, **choice.network),
        {
            "steps": steps,
            "batch": BATCH,
            "with_map": choice.with_map,
            "warmup_steps": max(1, steps // 10),
            "learning_rate": LEARNING_RATE,
            "final_learning_rate": LAST_LEARNING_RATE,
            "preview_weight": 40.0,
            **choice.loss,
        },
        CROP_PX,
        seed,
    )


def recipe(network: FlagshipConfig, stage: dict[str, Any], crop_px: int, seed: int) -> str:
    """What `cwic train` reads, for one stage that ends with a validation."""
    lines = [
        'family = "cwic"',
        'optimizer = "muon"',
        f"seed = {seed}",
        "ema_decay = 0.99",
        f"validate_every = {stage['steps']}",
        "checkpoint_every = 100",
        "validation_crop_px = 256",
        "[network]",
        *(f"{name} = {_value(value)}" for name, value in dataclasses.asdict(network).items()),
        "[data]",
        f"crop_px = {crop_px}",
        "downscale = 0.3",
        "[[stages]]",
        'name = "all"',
        *(f"{name} = {_value(value)}" for name, value in stage.items()),
    ]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(list(value)) if isinstance(value, tuple) else repr(value)


def measured(folder: Path, choice: Choice) -> Found:
    """The last validation of a run, its processor time, and the time of its network."""
    rows = _rows(folder / "validation.csv")
    last = [row for row in rows if row["step"] == rows[-1]["step"]]
    last.sort(key=lambda row: float(row["q"]))
    bpp, psnr_db, ms_ssim_db = (
        [float(row[column]) for row in last] for column in ("bpp", "psnr_db", "ms_ssim_db")
    )
    encode_ms, decode_ms = milliseconds(choice)
    return Found(
        bpp,
        psnr_db,
        ms_ssim_db,
        cpu_s=float(_rows(folder / "log.csv")[-1]["cpu_s"]),
        encode_ms=encode_ms,
        decode_ms=decode_ms,
    )


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def milliseconds(choice: Choice) -> tuple[float, float]:
    """Of encoding and decoding noise that is blurred to look like a picture, untrained.

    NaN where no coder knows the network. How long it takes depends a little on what is coded, and
    the same is coded by all.
    """
    config = replace(BASE, **choice.network)
    if config.context_px != BASE.context_px:
        return float("nan"), float("nan")
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (32, 48, 3)).astype(np.uint8)
    picture = np.kron(coarse, np.ones((16, 16, 1), np.uint8))
    network = FlagshipNetwork(config)
    model = export_flagship.build_model(network, "timed", with_map=choice.with_map)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "timed.cwicmodel"
        model_file.save(model, path)
        codec = Codec.load(path)
    data = codec.encode(picture, quality=50)
    return (
        _median_ms(lambda: codec.encode(picture, quality=50)),
        _median_ms(lambda: codec.decode(data)),
    )


def _median_ms(work: Callable[[], Any]) -> float:
    seconds = []
    for _ in range(6):
        start_s = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start_s)
    return 1000 * median(seconds[1:])


def show(found: dict[str, Found], steps: int, seed: int) -> None:
    """Prints the table."""
    minutes = [run.cpu_s / 60 for run in found.values()]
    print(
        f"{steps} steps of {BATCH} crops of {CROP_PX}x{CROP_PX} from scratch, seed {seed}, "
        f"{min(minutes):.0f} to {max(minutes):.0f} minutes of a core each. BD-rates on held-out "
        "crops: below 0 is smaller.\n"
    )
    print(
        "| choice | against | PSNR | MS-SSIM | encode ms | decode ms |\n|---|---|---|---|---|---|"
    )
    for name, run in found.items():
        choice = CHOICES[name]
        cells = ["", ""]
        if choice.against in found and choice.against != name:
            anchor = found[choice.against]
            cells = [
                _percent(anchor.bpp, of_anchor, run.bpp, of_run)
                for of_anchor, of_run in (
                    (anchor.psnr_db, run.psnr_db),
                    (anchor.ms_ssim_db, run.ms_ssim_db),
                )
            ]
        times = ("" if math.isnan(ms) else f"{ms:.0f}" for ms in (run.encode_ms, run.decode_ms))
        against = "" if choice.against == name else CHOICES[choice.against].label
        print("| " + " | ".join([choice.label, against, *cells, *times]) + " |")


def _percent(
    anchor_bpp: Sequence[float],
    anchor: Sequence[float],
    bpp: Sequence[float],
    quality: Sequence[float],
) -> str:
    rate = bd_rate((anchor_bpp, anchor), (bpp, quality))
    return "none in common" if rate is None else f"{rate.percent:+.1f} %"


if __name__ == "__main__":
    main()
