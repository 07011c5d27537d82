"""Whole files of models beside JPEG, JPEG 2000 and WebP at equal size, averaged over a folder.

    python benchmarks/kodak.py FOLDER [--model NAME|PATH ...] [--bpp 0.118 0.172 ...] [--every N]

Needs the extra `evaluate`. Sizes are those of whole files, pictures are compared after rounding to
8 bits. SSIM: Gaussian window 11x11, sigma 1.5, mean over R, G and B; MS-SSIM likewise, the mean of
the pictures' values. JPEG: 4:2:0, optimised, progressive; JPEG 2000: OpenJPEG, irreversible, with
colour transform; WebP: libwebp, method 6; all through Pillow, at the setting whose file is nearest
to the size asked for.
"""

import argparse
import io
import sys
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, features

import cwic
from cwic.evaluation.metrics import measure

PAPER_BPP = (0.118, 0.172, 0.293, 0.472, 0.671)  # of the released models of the CVPR 2018 paper

COLUMNS = "psnr_rgb_db ssim_rgb ms_ssim_rgb haarpsi block_color_error".split()
FORMATS = (".3f", ".2f", ".4f", ".4f", ".4f", ".1f")

Compress = Callable[[Image.Image, float], tuple[int, Image.Image]]


def reopened(data: bytes) -> Image.Image:
    """The picture in a compressed file."""
    return Image.open(io.BytesIO(data)).convert("RGB")


def by_quality(name: str, lowest: int, highest: int, **settings: object) -> Compress:
    """A codec of Pillow at the quality whose file is nearest to a rate."""

    def compress(image: Image.Image, bpp: float) -> tuple[int, Image.Image]:
        target_bytes = bpp * image.width * image.height / 8

        @cache
        def at(quality: int) -> bytes:
            file = io.BytesIO()
            image.save(file, name, quality=quality, **settings)
            return file.getvalue()

        low, high = lowest, highest
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if len(at(middle)) <= target_bytes else (low, middle)
        data = min(at(low), at(high), key=lambda data: abs(len(data) - target_bytes))
        return len(data), reopened(data)

    return compress


def jpeg2000(image: Image.Image, bpp: float) -> tuple[int, Image.Image]:
    """Size in bytes and decoded picture of the JPEG 2000 file for a rate."""
    file = io.BytesIO()
    image.save(
        file,
        "JPEG2000",
        quality_mode="rates",
        quality_layers=[24 / bpp],
        irreversible=True,
        mct=1,
    )
    return len(file.getvalue()), reopened(file.getvalue())


def ours(codec: cwic.Codec) -> Compress:
    """The same for a model of this package."""

    def compress(image: Image.Image, bpp: float) -> tuple[int, Image.Image]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a rate out of reach shows in the bpp column
            data = codec.encode(image, bpp=bpp)
        return len(data), codec.decode(data)

    return compress


def main() -> None:
    """Prints a Markdown table with a row for each codec and rate."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--model", metavar="NAME|PATH", nargs="+", default=[None])
    parser.add_argument("--bpp", type=float, nargs="+", default=PAPER_BPP)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="each Nth picture alone")
    options = parser.parse_args()
    paths = sorted(options.folder.glob("*.png"))[:: options.every]
    if not paths:
        sys.exit(f"{options.folder}: expected PNG pictures, found none")
    loaded = [cwic.Codec.load(model) for model in options.model]
    codecs: dict[str, Compress] = {codec.name: ours(codec) for codec in loaded}
    codecs |= {
        "JPEG": by_quality("JPEG", 1, 95, optimize=True, progressive=True),
        "JPEG 2000": jpeg2000,
        "WebP": by_quality("WEBP", 0, 100, method=6),
    }
    models = ", ".join(f"{codec.name} {codec.identity.hex()}" for codec in loaded)
    print(
        f"Means over {len(paths)} pictures, whole files. {models}; "
        f"libjpeg-turbo {features.version('libjpeg_turbo')} (4:2:0, optimised, progressive), "
        f"OpenJPEG {features.version('jpg_2000')} (irreversible, with colour transform), "
        f"libwebp {features.version('webp')} (method 6). SSIM and MS-SSIM: mean over R, G and B, "
        "Gaussian window 11x11, sigma 1.5. Block colour: how far the mean colour of "
        "a 64x64 block is off, of 255, in the worst block of a picture.\n"
    )
    print("| asked bpp | codec | bpp | PSNR dB | SSIM | MS-SSIM | HaarPSI | block colour |")
    print("|---|---|---|---|---|---|---|---|")
    for bpp in options.bpp:
        for name, compress in codecs.items():
            rows = []
            for path in paths:
                with Image.open(path) as file:
                    original = file.convert("RGB")
                size_bytes, decoded = compress(original, bpp)
                rate_bpp = 8 * size_bytes / (original.width * original.height)
                found = measure(np.asarray(original), np.asarray(decoded))
                rows.append((rate_bpp, *(getattr(found, column) for column in COLUMNS)))
            cells = (f"{x:{form}}" for x, form in zip(np.mean(rows, axis=0), FORMATS, strict=True))
            print(f"| {bpp:.3f} | {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
