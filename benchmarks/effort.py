"""What an effort of the encoder saves, and what it takes: the table of "Effort" in docs.

    python benchmarks/effort.py FOLDER [--model NAME ...] [--effort N ...] [--count N]

Each picture is coded at five qualities with effort 0, then with each of the others at the same
ones. BD-rates against effort 0, of whole files, are means over the pictures; SSIMULACRA2 is that
at equal size, in points. Seconds are of one megapixel, on as many processors as there are.
"""

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.interpolate import PchipInterpolator

from cwic import Codec
from cwic.evaluation.metrics import measure
from cwic.evaluation.rate_distortion import bd_rate

QUALITIES = (15, 30, 45, 60, 75)

# A point of a curve: bpp, PSNR, SSIM and MS-SSIM in decibels, SSIMULACRA2.
Point = tuple[float, float, float, float, float]


def points(codec: Codec, picture: np.ndarray, effort: int) -> tuple[list[Point], float]:
    """A curve, and seconds of one megapixel."""
    result, seconds = [], 0.0
    for quality in QUALITIES:
        start_s = time.perf_counter()
        data = codec.encode(picture, quality=quality, effort=effort, lossless="never")
        seconds += time.perf_counter() - start_s
        found = measure(picture, np.asarray(codec.decode(data)))
        result.append(
            (
                8 * len(data) / (picture.shape[0] * picture.shape[1]),
                found.psnr_rgb_db,
                -10 * math.log10(1 - found.ssim_rgb),
                -10 * math.log10(1 - found.ms_ssim_rgb),
                found.ssimulacra2,
            )
        )
    num_megapixels = len(QUALITIES) * picture.shape[0] * picture.shape[1] / 1e6
    return result, seconds / num_megapixels


def gains(plain: Sequence[Point], refined: Sequence[Point]) -> list[float]:
    """BD-rates in PSNR, SSIM and MS-SSIM, and points of SSIMULACRA2 at equal size."""
    before, after = (list(zip(*curve, strict=True)) for curve in (plain, refined))
    result = []
    for quality in (1, 2, 3):
        found = bd_rate((before[0], before[quality]), (after[0], after[quality]))
        result.append(math.nan if found is None else found.percent)
    curves = [PchipInterpolator(np.log(curve[0]), curve[4]) for curve in (before, after)]
    low, high = (pick(before[0][end], after[0][end]) for pick, end in ((max, 0), (min, -1)))
    places = np.linspace(math.log(low), math.log(high), 50)
    result.append(float(np.mean(curves[1](places) - curves[0](places))))
    return result


def main() -> None:
    """Prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", nargs="+", default=["cwic-psnr", "cwic-visual"])
    parser.add_argument("--effort", nargs="+", type=int, default=[3, 5, 7, 9])
    parser.add_argument("--count", type=int, help="pictures to take; all if not given")
    options = parser.parse_args()
    files = sorted(path for path in options.folder.iterdir() if path.suffix == ".png")
    files = files[: options.count]
    pictures = []
    for path in files:
        with Image.open(path) as file:
            pictures.append(np.asarray(file.convert("RGB")))
    print("| model | effort | s/MP | PSNR | SSIM | MS-SSIM | SSIMULACRA2 at equal size |")
    print("|---|---|---|---|---|---|---|")
    for name in options.model:
        codec = Codec.load(name)
        plain = [points(codec, picture, 0) for picture in pictures]
        print(f"| {name} | 0 | {np.mean([each[1] for each in plain]):.1f} | | | | |")
        for effort in options.effort:
            refined = [points(codec, picture, effort) for picture in pictures]
            means = np.mean(
                [gains(a[0], b[0]) for a, b in zip(plain, refined, strict=True)], axis=0
            )
            seconds = np.mean([each[1] for each in refined])
            rates = " | ".join(f"{rate:+.1f} %" for rate in means[:3])
            print(f"| {name} | {effort} | {seconds:.1f} | {rates} | {means[3]:+.2f} |", flush=True)


if __name__ == "__main__":
    main()
