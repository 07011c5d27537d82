"""What is kept in fewer colours or with exact graphics: beside what the model makes of it.

    python benchmarks/kept.py FOLDER [--model NAME] [--bpp X ...] [--quality Q ...]
        [--every 1] [--whatever-they-lose]

Each PNG picture of FOLDER and its subfolders, or each so many-th, is encoded at each size and each
quality, by the model alone and with `--lossless auto`. Rows are those that came out in fewer
colours, or coded with exact text and graphics. Below them: how many of all were, and how many were
kept whole. "losses" is the loss of the file over that of the coded one, by the model's own measure.
With --whatever-they-lose, fewer colours are taken where `choice` and `palette` would leave a
picture to the model. Needs the extra `evaluate`; prints Markdown.
"""

import argparse
import statistics
import warnings
from pathlib import Path
from unittest.mock import patch

import numpy as np

from cwic import Codec
from cwic.bitstream import read_header
from cwic.errors import CodecWarning
from cwic.image import read_picture
from cwic.psnr import psnr_db
from cwic.ssimulacra2 import ssimulacra2_in_parts


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--bpp", nargs="*", type=float, default=[0.25, 0.5, 1.0])
    parser.add_argument("--quality", nargs="*", type=float, default=[25.0, 50.0, 75.0])
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--whatever-they-lose", action="store_true")
    options = parser.parse_args()
    if options.whatever_they_lose:
        patch("cwic.choice._LOSS_OF_CODED", 1e9).start()
        patch("cwic.palette._MAX_COLOURS", 2**24).start()
    # A size out of the model's reach is what fewer colours are for.
    warnings.simplefilter("ignore", CodecWarning)
    codec = Codec.load(options.model)
    paths = sorted(options.folder.rglob("*.png"))[:: options.every]
    requests = [(f"{bpp:g} bpp", {"bpp": bpp}) for bpp in options.bpp]
    requests += [(f"quality {quality:g}", {"quality": quality}) for quality in options.quality]
    print(
        f"{codec.name} {codec.identity.hex()}, {len(paths)} pictures, {len(requests)} requests.\n"
    )
    print("| picture | asked for | kept | losses | bpp, coded and now | PSNR dB | SSIMULACRA2 |")
    print("|---|---|---|---|---|---|---|")
    gains: dict[str, list[float]] = {"in fewer colours": [], "with exact graphics": []}
    num_whole = 0
    for path in paths:
        original = read_picture(path).pixels
        for label, request in requests:
            data = codec.encode(path, **request)
            header = read_header(data)
            num_whole += header.is_whole
            if header.num_colours is None and not header.has_exact_layer:
                continue
            kept, way = f"{header.num_colours} colours", "in fewer colours"
            if header.has_exact_layer:
                kept, way = "exact graphics", "with exact graphics"
            files = (codec.encode(path, lossless="never", **request), data)
            shown = [np.asarray(codec.decode(file).convert("RGB")) for file in files]
            scores = [ssimulacra2_in_parts(original, pixels) for pixels in shown]
            gains[way].append(scores[1] - scores[0])
            # The measure that the choice goes by.
            analyzed = codec._family.analyze(original)
            coded, now = (analyzed.distortion(pixels, None) for pixels in shown)
            cells = [
                path.relative_to(options.folder).with_suffix("").as_posix(),
                label,
                kept,
                f"{now / coded:.2f}",
                ", ".join(f"{8 * len(file) / header.pixels:.3f}" for file in files),
                ", ".join(f"{psnr_db(original, pixels):.1f}" for pixels in shown),
                ", ".join(f"{score:.1f}" for score in scores),
            ]
            print(f"| {' | '.join(cells)} |", flush=True)
    print(f"\nOf {len(paths) * len(requests)} files, {num_whole} are kept whole", end="")
    for way, found in gains.items():
        if found:
            print(
                f", {len(found)} {way}: SSIMULACRA2 {statistics.fmean(found):+.1f} in the mean, "
                f"{min(found):+.1f} to {max(found):+.1f}",
                end="",
            )
    print(".")


if __name__ == "__main__":
    main()
