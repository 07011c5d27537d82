"""Times of the entropy coder of `cvpr2018` alone, codes and maps <-> bytes.

    python benchmarks/entropy_coding.py KODAK [--model NAME]

In process, without the float transforms: of each picture the median of five after one that does not
count; of these the mean and the slowest. Encoding is counting, which rate control asks for, and
writing. Prints Markdown.
"""

import argparse
import statistics
from pathlib import Path

import numpy as np
from PIL import Image
from speed import QUALITY, machine, median_s

from cwic import model_file
from cwic.families.cvpr2018 import family as cvpr2018

QUALITIES = (0, QUALITY, 100)


def main() -> None:
    """Prints a row for each quality."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("kodak", type=Path, metavar="KODAK")
    parser.add_argument("--model", default="cvpr2018")
    options = parser.parse_args()
    loaded = model_file.load(model_file.find(options.model))
    model = cvpr2018.Cvpr2018(loaded, threads=None)
    paths = sorted(options.kodak.glob("*.png"))
    print(f"{loaded.name} {loaded.identity.hex()}, {len(paths)} pictures, {machine()}.\n")
    print("| quality | payload, bpp | encode: mean, slowest | decode: mean, slowest |")
    print("|---|---|---|---|")
    analyses = []
    for path in paths:
        with Image.open(path) as image:
            analyses.append(model.analyze(np.asarray(image.convert("RGB"))))
    for quality in QUALITIES:
        bpp, encode_s, decode_s = [], [], []
        for analysis in analyses:
            picture = analysis.code(model.rates.of_quality(quality)).picture
            payload = model.coder.counted(picture).payload()
            cells = picture.level.shape
            encode_s.append(median_s(lambda p=picture: model.coder.counted(p).payload()))  # type: ignore[misc]
            decode_s.append(median_s(lambda p=payload, c=cells: model.coder.decode(p, *c)))  # type: ignore[misc]
            bpp.append(8 * len(payload) / (picture.level.size * cvpr2018.CELL_PX**2))
        times = " | ".join(
            f"{statistics.mean(seconds):.3f} s, {max(seconds):.3f} s"
            for seconds in (encode_s, decode_s)
        )
        print(f"| {quality} | {statistics.mean(bpp):.3f} | {times} |")


if __name__ == "__main__":
    main()
