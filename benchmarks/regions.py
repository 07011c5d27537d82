"""What a region of interest brings, at equal size: PSNR inside and outside, with and without.

    python benchmarks/regions.py KODAK [--model NAME] [--bpp 0.25] [--strength 1] [--all]

Two regions of 0.447 of both sides, a fifth of the area: in the middle, and in the upper left.
"""

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from cwic import Codec

SHARE = 0.447


def psnr_db(
    original: npt.NDArray[np.float64], decoded: Image.Image, where: npt.NDArray[np.bool_]
) -> float:
    """PSNR of the pixels of a mask, in dB."""
    mse = np.square(original - np.asarray(decoded, np.float64))[where].mean()
    return float(10 * np.log10(255**2 / mse))


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("kodak", type=Path, help="folder of PNG pictures")
    parser.add_argument("--model", default="cwic-psnr")
    parser.add_argument("--bpp", type=float, default=0.25)
    parser.add_argument("--strength", type=float, default=1.0)
    parser.add_argument("--all", action="store_true", help="a row for every picture too")
    options = parser.parse_args()
    codec = Codec.load(options.model)
    print(
        f"{codec.name} {codec.identity.hex()}, {options.bpp} bpp, strength {options.strength}; "
        f"PSNR against the file without a mask. Each region is {SHARE} of both sides.\n"
    )
    print("| picture | region | size | inside dB | outside dB |\n|---|---|---|---|---|")
    gains, losses, shares = [], [], []
    for path in sorted(options.kodak.glob("*.png")):
        picture = Image.open(path).convert("RGB")
        original = np.asarray(picture, np.float64)
        height, width = original.shape[:2]
        rows, columns = round(SHARE * height), round(SHARE * width)
        plain = codec.encode(picture, bpp=options.bpp)
        without = codec.decode(plain)
        corners = {"middle": ((height - rows) // 2, (width - columns) // 2), "corner": (0, 0)}
        for name, (top, left) in corners.items():
            mask = np.zeros((height, width), bool)
            mask[top : top + rows, left : left + columns] = True
            data = codec.encode(picture, bpp=options.bpp, roi=mask, roi_strength=options.strength)
            decoded = codec.decode(data)
            inside, outside = (
                psnr_db(original, decoded, where) - psnr_db(original, without, where)
                for where in (mask, ~mask)
            )
            gains.append(inside)
            losses.append(-outside)
            share = len(data) / len(plain) - 1
            if options.all:
                print(f"| {path.stem} | {name} | {share:+.1%} | {inside:+.2f} | {outside:+.2f} |")
            shares.append(abs(share))
    print(
        f"| the worst of {len(gains)} | | {max(shares):+.1%} | {min(gains):+.2f} | "
        f"{-max(losses):+.2f} |"
    )


if __name__ == "__main__":
    main()
