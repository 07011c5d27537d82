# Study of 2026-11-26, frozen: ran at commit 2109ea0, see README.md beside it.
"""What one model for every rate costs: itself trained on for one rate, and as long for all.

    python benchmarks/single_rate.py TRAIN [--steps 300] [--threads 2] [--out runs/single-rate]

TRAIN is a folder of training pictures; a tenth of each source in it is held out and measured. From
the bundled `cwic-psnr`, on the same crops with the same falling learning rate, `cwic train` goes on
once over the whole range of q and once at each of three q alone. Then each of these is compared
with the first at the PSNR that it reaches. Finished runs in the folder of `--out` are not trained
again. Prints Markdown. Needs the extra `train`.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from ablations import SQUARED, recipe
from torch import Tensor

from cwic import model_file
from cwic.training.checkpoint import load_weights
from cwic.training.config import load_config
from cwic.training.data import PictureStore, centre_crops, list_pictures
from cwic.training.flagship import FlagshipFamily
from cwic.training.model.flagship import FlagshipConfig, FlagshipNetwork
from cwic.training.restore import preset_of
from cwic.training.trainer import CHECKPOINT_NAME, train

QS = (-8.0, -4.0, 1.0)  # about 0.15, 0.37 and 0.9 bits per pixel of the held-out crops
AROUND = 1.0  # the curve of the model for all rates is measured so far on both sides
EXACTLY = 1 / 64  # a range of q has two ends
CROP_PX, BATCH, HELD_OUT_COUNT = 256, 8, 48
LEARNING_RATE, LAST_LEARNING_RATE = 5e-4, 2e-5
SEED = 7


def main() -> None:
    """Trains what is missing and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, metavar="TRAIN")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/single-rate"))
    options = parser.parse_args()
    path = model_file.find("cwic-psnr")
    info = model_file.read_info(path)
    whole = preset_of(model_file.load(path))
    split = list_pictures([options.folder], 0.1)
    crops = centre_crops(PictureStore(split.held_out, 0, CROP_PX), CROP_PX, HELD_OUT_COUNT)
    print(
        f"{info.name} {info.identity.hex()}, {options.steps} steps more of {BATCH} crops of "
        f"{CROP_PX}x{CROP_PX}; {len(crops)} held-out crops.\n"
    )
    print("| q | trained on for it: bpp | PSNR dB | for all q, at that PSNR: bpp | more |")
    print("|---|---|---|---|---|")
    runs = options.out / f"{info.identity.hex()}-{options.steps}"
    for q in QS:
        finished = []
        for name, low, high in (("all", whole.min_q, whole.max_q), (f"{q:g}", q, q + EXACTLY)):
            folder = runs / name
            folder.mkdir(parents=True, exist_ok=True)
            config = folder / "config.toml"
            config.write_text(toml(replace(whole, min_q=low, max_q=high), options.steps))
            train(config, [options.folder], folder, threads=options.threads, init_from=path)
            finished.append(folder)
        everywhere, alone = finished
        bpp, psnr_db = curve(alone, q, q + EXACTLY, crops).mean(axis=1)
        all_bpp, all_psnr_db = curve(everywhere, q - AROUND, q + AROUND, crops)
        at_equal_bpp = float(np.exp(np.interp(psnr_db, all_psnr_db, np.log(all_bpp))))
        print(
            f"| {q:g} | {bpp:.4f} | {psnr_db:.2f} | {at_equal_bpp:.4f} "
            f"| {100 * (at_equal_bpp / bpp - 1):+.1f} % |"
        )


def toml(network: FlagshipConfig, steps: int) -> str:
    """The configuration of a run."""
    stage = {
        "steps": steps,
        "batch": BATCH,
        "with_map": False,
        "warmup_steps": max(1, steps // 10),
        "learning_rate": LEARNING_RATE,
        "final_learning_rate": LAST_LEARNING_RATE,
        "preview_weight": 50.0,
        **SQUARED,
    }
    return recipe(network, stage, CROP_PX, SEED)


def curve(run: Path, low: float, high: float, crops: np.ndarray) -> np.ndarray:
    """Bits per pixel and PSNR in dB, (2, 5), at five q of a range."""
    config = load_config(run / "config.toml")
    assert isinstance(config.network, FlagshipConfig)
    network = FlagshipNetwork(replace(config.network, min_q=low, max_q=high))
    weights: dict[str, Tensor] = load_weights(run / CHECKPOINT_NAME)[2]
    network.load_state_dict(weights)
    rows = (
        FlagshipFamily()
        .validate(network, config, config.stages[0], crops, torch.device("cpu"))
        .rows
    )
    return np.array([[row[name] for row in rows] for name in ("bpp", "psnr_db")])


if __name__ == "__main__":
    main()
