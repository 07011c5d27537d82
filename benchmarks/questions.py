"""Questions of the CVPR 2018 paper that the bundled models answer; each prints Markdown.

    python benchmarks/questions.py rate KODAK       # does the map's sum stand for the size?
    python benchmarks/questions.py bits KODAK       # where the bits go, and a picture of it
    python benchmarks/questions.py low KODAK        # SSIM and artefacts at a low rate; a picture

Those that needed networks trained for them are in `studies/`.
"""

import argparse
import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from sheets import Tile, save_sheet

from cwic import Codec, model_file
from cwic.evaluation.anchors import contestant
from cwic.evaluation.compare import of_size
from cwic.evaluation.metrics import measure
from cwic.families.cvpr2018.family import Cvpr2018
from cwic.view import overlay

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "pictures"
QUALITIES = (0, 25, 50, 75, 100)
RATES_BPP = {"low": 0.15, "middle": 0.35, "high": 0.6}
LOW_BPP = 0.15
LOW_COLUMNS = "psnr_rgb_db ssim_rgb ms_ssim_rgb haarpsi grid_ratio block_color_error".split()
LOW_FORMATS = (".3f", ".2f", ".4f", ".4f", ".4f", ".2f", ".1f")
SHOWN = "kodim23.png"
BLOCK_PX = 16

Pixels = npt.NDArray[np.uint8]


class Spent(NamedTuple):
    """Bits of one picture at one quality."""

    pixels: int
    kept: float  # bits of the code, uncoded
    coded: float  # bits of code and map, by the model's networks


def spent(model: Cvpr2018, pixels: Pixels, quality: float) -> Spent:
    """What a picture costs at a quality."""
    picture = model.analyze(pixels).code(model.rates.of_quality(quality)).picture
    kept = model.layout.kept(picture.level)
    return Spent(
        pixels.shape[0] * pixels.shape[1], float(kept.sum()), model.coder.counted(picture).bits
    )


def _paper_model() -> tuple[Cvpr2018, str]:
    model = model_file.load(model_file.find("cvpr2018"))
    return Cvpr2018(model, threads=1), f"{model.name} {model.identity.hex()}"


def rate(pictures: Sequence[tuple[str, Pixels]]) -> None:
    """The sum of the map against the size that entropy coding comes to."""
    model, name = _paper_model()
    print(
        f"{name}, {len(pictures)} pictures. Coded / kept is the size of code and map in coded bits "
        "over the bits that the map keeps, which is what its sum says.\n"
    )
    print("| quality | kept bpp | coded bpp | coded / kept, mean | least | most | correlation |")
    print("|---|---|---|---|---|---|---|")
    for quality in QUALITIES:
        found = [spent(model, pixels, quality) for _, pixels in pictures]
        kept = np.array([s.kept / s.pixels for s in found])
        coded = np.array([s.coded / s.pixels for s in found])
        share = coded / kept
        correlation = np.corrcoef(np.log(kept), np.log(coded))[0, 1]
        print(
            f"| {quality} | {kept.mean():.3f} | {coded.mean():.3f} | {share.mean():.3f} | "
            f"{share.min():.3f} | {share.max():.3f} | {correlation:.4f} |"
        )


def bits(pictures: Sequence[tuple[str, Pixels]]) -> None:
    """Where the bits go, in numbers and over one picture."""
    codecs = [Codec.load("cvpr2018"), Codec.load("cwic-visual")]
    print(
        _named(codecs)
        + f", {len(pictures)} pictures. Blocks of {BLOCK_PX}x{BLOCK_PX}, busy by their mean luma "
        "gradient: the share of the bits that the busiest and the calmest quarter take, and the "
        "rank correlation of a block's gradient and bits.\n"
    )
    print("| codec | rate | bpp | busiest quarter | calmest quarter | rank correlation |")
    print("|---|---|---|---|---|---|")
    rows = []
    for codec in codecs:
        row = []
        for name, wanted_bpp in RATES_BPP.items():
            found = []
            for picture, pixels in pictures:
                data = _encoded(codec, pixels, wanted_bpp)
                allocation = codec.inspect(data).allocation
                spread = _per_block(allocation.bits, allocation.cell_px)
                found.append((8 * len(data) / pixels[..., 0].size, *_shares(pixels, spread)))
                if picture == SHOWN:
                    view = overlay(Image.fromarray(pixels), allocation)
                    size = (2 * view.width // 5, 2 * view.height // 5)
                    small = view.resize(size, Image.Resampling.BOX)
                    line = f"{codec.name}, {name} rate: {found[-1][0]:.3f} bpp"
                    row.append(Tile(np.asarray(small), (line,)))
            bpp, busy, calm, correlation = np.mean(found, axis=0)
            print(
                f"| {codec.name} | {name} | {bpp:.3f} | {busy:.0%} | {calm:.0%} | "
                f"{correlation:.2f} |"
            )
        rows.append(row)
    if all(rows):
        # Codecs side by side, rates below each other: the panels are wide.
        save_sheet(list(zip(*rows, strict=True)), PICTURES / "where-the-bits-go.jpg", quality=75)
        print(f"\n![Importance maps and bits of {SHOWN}](pictures/where-the-bits-go.jpg)")


def low(pictures: Sequence[tuple[str, Pixels]]) -> None:
    """SSIM and artefacts beside JPEG and JPEG 2000 at a low rate."""
    ours = [Codec.load("cvpr2018"), Codec.load("cwic-visual")]
    print(
        _named(ours)
        + f", {len(pictures)} pictures at {LOW_BPP} bpp. Grid: the gradient across every eighth "
        "line over that across the others, 1 where no blocks show. Block colour: the largest error "
        "of the mean colour of a 64x64 block, of 255, mean over the pictures.\n"
    )
    print("| codec | bpp | PSNR dB | SSIM | MS-SSIM | HaarPSI | grid | block colour |")
    print("|---|---|---|---|---|---|---|---|")
    shown: list[Tile] = []
    for name in ("original", "jpeg", "jpeg2000", *(codec.name for codec in ours)):
        rows = []
        for picture, pixels in pictures:
            image = Image.fromarray(pixels)
            if name == "original":
                decoded, rate_bpp = pixels, 24.0
            elif name in ("jpeg", "jpeg2000"):
                anchor = contestant(name)
                data = of_size(anchor, image, round(LOW_BPP * pixels[..., 0].size / 8))
                decoded, rate_bpp = np.asarray(anchor.decode(data)), 0.0
            else:
                codec = next(codec for codec in ours if codec.name == name)
                data = _encoded(codec, pixels, LOW_BPP)
                decoded = np.asarray(codec.decode(data).convert("RGB"))
            if name != "original":
                rate_bpp = 8 * len(data) / pixels[..., 0].size
                quality = measure(pixels, decoded)
                rows.append((rate_bpp, *(getattr(quality, column) for column in LOW_COLUMNS)))
            if picture == SHOWN:
                label = {"jpeg": "JPEG", "jpeg2000": "JPEG 2000"}.get(name, name)
                line = label if name == "original" else f"{label}, {rate_bpp:.3f} bpp"
                shown.append(Tile(decoded[60:340, 150:430], (line,)))
        if rows:
            values = np.mean(rows, axis=0)
            cells = (f"{value:{form}}" for value, form in zip(values, LOW_FORMATS, strict=True))
            print(f"| {name} | {' | '.join(cells)} |")
    if shown:
        save_sheet([shown], PICTURES / "low-rate.jpg")
        print(f"\n![A part of {SHOWN} at {LOW_BPP} bpp](pictures/low-rate.jpg)")


def _named(codecs: Iterable[Codec]) -> str:
    """Names and identities, as a test of the pages wants them."""
    return ", ".join(f"{codec.name} {codec.identity.hex()}" for codec in codecs)


def _encoded(codec: Codec, pixels: Pixels, bpp: float) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a rate out of reach shows in the bpp column
        return codec.encode(pixels, bpp=bpp)


def _per_block(values: npt.NDArray[np.float64], cell_px: int) -> npt.NDArray[np.float64]:
    """Sums over blocks of cells, what fills no whole block left out."""
    cells = BLOCK_PX // cell_px
    rows, columns = (side // cells for side in values.shape)
    whole = values[: rows * cells, : columns * cells]
    blocks: npt.NDArray[np.float64] = whole.reshape(rows, cells, columns, cells).sum(axis=(1, 3))
    return blocks


def _shares(pixels: Pixels, spread: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    luma = pixels @ np.array([0.299, 0.587, 0.114])
    gradient = np.abs(np.diff(luma, axis=0, append=luma[-1:]))
    gradient += np.abs(np.diff(luma, axis=1, append=luma[:, -1:]))
    busy = _per_block(gradient, 1).ravel()
    spread = spread[: pixels.shape[0] // BLOCK_PX, : pixels.shape[1] // BLOCK_PX].ravel()
    order = np.argsort(busy)
    quarter = len(order) // 4
    total = spread.sum()
    ranks = np.array([np.argsort(np.argsort(values)) for values in (busy, spread)], np.float64)
    return (
        float(spread[order[-quarter:]].sum() / total),
        float(spread[order[:quarter]].sum() / total),
        float(np.asarray(np.corrcoef(ranks))[0, 1]),
    )


QUESTIONS = {"rate": rate, "bits": bits, "low": low}


def main() -> None:
    """Prints Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("question", choices=QUESTIONS)
    parser.add_argument("kodak", type=Path, metavar="KODAK", help="folder of PNG pictures")
    parser.add_argument(
        "--every", type=int, default=4, help="pictures looked at: every so manieth, from the third"
    )
    options = parser.parse_args()
    paths = sorted(options.kodak.glob("*.png"))[2 :: options.every]
    if not paths:
        sys.exit(f"{options.kodak}: expected PNG pictures, found too few")
    pictures = []
    for path in paths:
        with Image.open(path) as file:
            pictures.append((path.name, np.asarray(file.convert("RGB"))))
    QUESTIONS[options.question](pictures)


if __name__ == "__main__":
    main()
