"""Bits on what stands out and elsewhere, of several models at equal size, no mask given.

    python benchmarks/salient_bits.py KODAK [--model NAME|PATH ...] [--bpp 0.25]

Shows whether a training with `saliency_weight` moved a model's own importance map: salient is the
fifth of a picture's cells with the largest spectral residual, which is the map that training weighs
by. Sizes are of whole files; bits are those of the picture's payload, as `cwic view` shows them.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cwic import Codec
from cwic.saliency import emphasis_of_cells
from cwic.training.saliency import spectral_residual

SHARE = 0.2


def main() -> None:
    """Prints a Markdown table with a row for each model."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kodak", type=Path, help="folder of PNG pictures")
    parser.add_argument("--model", nargs="+", default=["cwic-psnr", "cwic-visual"])
    parser.add_argument("--bpp", type=float, default=0.25)
    options = parser.parse_args()
    paths = sorted(options.kodak.glob("*.png"))
    if not paths:
        sys.exit(f"{options.kodak}: expected PNG pictures, found none")
    codecs = [Codec.load(model) for model in options.model]
    print(
        f"{len(paths)} pictures at {options.bpp} bpp; "
        + ", ".join(f"{codec.name} {codec.identity.hex()}" for codec in codecs)
        + f". Salient: the {SHARE:.0%} of cells with the largest spectral residual.\n"
    )
    print(
        "| model | bpp | bits per salient pixel | per other pixel | ratio |"
        " mean squared error, salient | other |\n|---|---|---|---|---|---|---|"
    )
    for codec in codecs:
        rows = []
        for path in paths:
            with Image.open(path) as file:
                picture = file.convert("RGB")
            pixels = np.asarray(picture, np.float32)
            data = codec.encode(picture, bpp=options.bpp)
            decoded, spent = codec.inspect(data)
            error = np.square(pixels - np.asarray(decoded, np.float32)).mean(axis=2)
            found = spectral_residual(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0, 0]
            cells = emphasis_of_cells(found.numpy(), spent.cell_px)
            salient = cells >= np.quantile(cells, 1 - SHARE)
            per_pixel = spent.bits / spent.cell_px**2
            errors = emphasis_of_cells(error, spent.cell_px) + error.mean()
            rows.append(
                (
                    8 * len(data) / error.size,
                    per_pixel[salient].mean(),
                    per_pixel[~salient].mean(),
                    errors[salient].mean(),
                    errors[~salient].mean(),
                )
            )
        bpp, inside, outside, error_inside, error_outside = np.mean(rows, axis=0)
        print(
            f"| {codec.name} | {bpp:.3f} | {inside:.3f} | {outside:.3f} | "
            f"{inside / outside:.2f} | {error_inside:.1f} | {error_outside:.1f} |"
        )


if __name__ == "__main__":
    main()
