"""What a region of interest brings, at equal size: quality inside and outside, with and without.

    python benchmarks/regions.py KODAK [--model NAME ...] [--bpp 0.25] [--strength 1] [--every N]
        [--all]

Two regions of 0.447 of both sides, a fifth of the area: in the middle, and in the upper left. PSNR
is of the pixels there; SSIMULACRA2 is that of the picture with the original everywhere else. Needs
the extra `evaluate`.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from cwic import Codec
from cwic.ssimulacra2 import ssimulacra2

SHARE = 0.447

Pixels = npt.NDArray[np.uint8]
Where = npt.NDArray[np.bool_]


class Change(NamedTuple):
    """What a mask changes of one picture; of a quality the difference to the file without."""

    size: float  # share by which the file is larger
    inside_db: float
    outside_db: float
    inside_points: float  # of SSIMULACRA2
    outside_points: float


def qualities(original: Pixels, decoded: Pixels, where: Where) -> tuple[float, float]:
    """PSNR of the pixels of a mask in dB, and SSIMULACRA2 of these, the others as in the original.

    `original` and `decoded` (H, W, 3), `where` (H, W).
    """
    mse = np.square(original.astype(np.float64) - decoded)[where].mean()
    seen = np.where(where[..., None], decoded, original)
    return float(10 * np.log10(255**2 / mse)), ssimulacra2(original, seen)


def changes(codec: Codec, path: Path, bpp: float, strength: float) -> dict[str, Change]:
    """Of one picture, by the name of the region."""
    original = np.asarray(Image.open(path).convert("RGB"))
    height, width = original.shape[:2]
    rows, columns = round(SHARE * height), round(SHARE * width)
    plain = codec.encode(original, bpp=bpp)
    without = np.asarray(codec.decode(plain))
    corners = {"middle": ((height - rows) // 2, (width - columns) // 2), "corner": (0, 0)}
    found = {}
    for name, (top, left) in corners.items():
        mask = np.zeros((height, width), bool)
        mask[top : top + rows, left : left + columns] = True
        data = codec.encode(original, bpp=bpp, roi=mask, roi_strength=strength)
        decoded = np.asarray(codec.decode(data))
        (inside_db, inside), (outside_db, outside) = (
            np.subtract(qualities(original, decoded, where), qualities(original, without, where))
            for where in (mask, ~mask)
        )
        size = len(data) / len(plain) - 1
        found[name] = Change(size, inside_db, outside_db, inside, outside)
    return found


def print_row(picture: str, region: str, change: Change) -> None:
    """In Markdown."""
    qualities = (f"{value:+.2f}" for value in change[1:])
    print(f"| {picture} | {region} | {change.size:+.1%} | {' | '.join(qualities)} |", flush=True)


def main() -> None:
    """Prints a Markdown table for each model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("kodak", type=Path, help="folder of PNG pictures")
    parser.add_argument("--model", nargs="+", default=["cwic-visual", "cwic-psnr"])
    parser.add_argument("--bpp", type=float, default=0.25)
    parser.add_argument("--strength", type=float, default=1.0)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="each Nth picture alone")
    parser.add_argument("--all", action="store_true", help="a row for every picture too")
    options = parser.parse_args()
    paths = sorted(options.kodak.glob("*.png"))[:: options.every]
    for model in options.model:
        codec = Codec.load(model)
        print(
            f"{codec.name} {codec.identity.hex()}, {options.bpp} bpp, strength {options.strength}; "
            f"against the file without a mask. Each region is {SHARE} of both sides.\n"
        )
        print(
            "| picture | region | size | inside dB | outside dB | inside SSIMULACRA2 "
            "| outside SSIMULACRA2 |\n|---|---|---|---|---|---|---|"
        )
        found = []
        for path in paths:
            for name, change in changes(codec, path, options.bpp, options.strength).items():
                found.append(change)
                if options.all:
                    print_row(path.stem, name, change)
        columns = np.array(found)
        print_row(f"mean of {len(found)}", "", Change(*columns.mean(axis=0)))
        worst = (np.abs(columns[:, 0]).max(), *columns[:, 1:].min(axis=0))
        print_row(f"the worst of {len(found)}", "", Change(*worst))
        print()


if __name__ == "__main__":
    main()
