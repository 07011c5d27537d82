"""What tiles cost a large picture: seams, quality at their borders, size; and memory.

    python benchmarks/tiles.py KODAK [--model NAME] [--quality 5 25 75] [--memory]

A mosaic of Kodak pictures that still fits into one piece, by the same model in tiles and in one
piece: how far pixels of the same latents are apart, what PSNR both have within 16 pixels of the
tiles' borders, how large both files are. The borders fall into pictures and not between them.
`--memory` adds the peak of memory for larger and larger mosaics, each way in a process of its own.
"""

import argparse
import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from speed import peak_of_memory_mb

from cwic import bitstream, model_file
from cwic.codec import Codec
from cwic.flagship import TILE_PX, Flagship, FlagshipAnalysis, FlagshipCoded
from cwic.flagship_coder import CodedLatents
from cwic.model_file import DEFAULT_MODEL
from cwic.tiling import Tiling

SIDE_PX = 2048  # two tiles a side, and the largest square in one piece
BORDER_PX = 16
SHIFT_PX = (200, 100)  # rows and columns that are cut off, so that no border is a picture's edge
MEMORY_SIDES_PX = (2048, 3072, 4608)
MEMORY_QUALITY = 50

Pixels = npt.NDArray[np.uint8]


def mosaic(pictures: list[Pixels], height: int, width: int) -> Pixels:
    """(height, width, 3) of landscape pictures side by side."""
    top, left = SHIFT_PX
    columns = -(-(width + left) // pictures[0].shape[1])
    rows = -(-(height + top) // pictures[0].shape[0])
    wall = [
        np.concatenate(
            [pictures[(columns * y + x) % len(pictures)] for x in range(columns)], axis=1
        )
        for y in range(rows)
    ]
    return np.ascontiguousarray(np.concatenate(wall)[top : top + height, left : left + width])


def file_bytes(coded: FlagshipCoded, tiling: Tiling, tile_px: int | None) -> int:
    """Of the whole file."""
    picture = tiling.picture
    return len(
        bitstream.pack(
            identity=bytes(bitstream.IDENTITY_BYTES),
            width=picture.width,
            height=picture.height,
            mode=0,
            q=coded.q,
            tiles=coded.payloads(),
            tile_px=tile_px,
        )
    )


def joined(tiles: list[CodedLatents], columns: int) -> CodedLatents:
    """The latents of whole tiles as those of one piece, as far as the synthesis needs them."""

    def whole(name: str) -> npt.NDArray[np.float32]:
        rows = [
            np.concatenate([getattr(tile, name) for tile in tiles[start : start + columns]], axis=2)
            for start in range(0, len(tiles), columns)
        ]
        return np.concatenate(rows, axis=1)

    return tiles[0]._replace(decoded=whole("decoded"), prior=whole("prior"), planes=whole("planes"))


def border_mse(original: Pixels, decoded: Pixels) -> float:
    """Mean squared error of the pixels within BORDER_PX of a border between tiles."""
    near = np.zeros(original.shape[:2], bool)
    for border in range(TILE_PX, SIDE_PX, TILE_PX):
        near[border - BORDER_PX : border + BORDER_PX] = True
        near[:, border - BORDER_PX : border + BORDER_PX] = True
    return float(np.square(original[near].astype(np.float64) - decoded[near]).mean())


def compared(measured: npt.NDArray[np.float64]) -> str:
    """Cells of a row: errors in tiles and in one piece, then sizes likewise."""
    gain_db = 10 * np.log10(measured[1] / measured[0])
    return f"{gain_db:+.3f} dB | {measured[2] / measured[3] - 1:+.2%}"


def seams(family: Flagship, mosaics: list[Pixels], qualities: list[float]) -> None:
    """Prints a row for each mosaic and quality, and one of all mosaics together."""
    print(
        "| mosaic | quality | same latents: pixels apart by | PSNR near borders, against one piece "
        "| size, against one piece |\n|---|---|---|---|---|"
    )
    tiles = family.tiling(SIDE_PX, SIDE_PX, TILE_PX)
    one = family.tiling(SIDE_PX, SIDE_PX, None)
    analyses = [
        tuple(FlagshipAnalysis(family, picture, tiling) for tiling in (tiles, one))
        for picture in mosaics
    ]
    for quality in qualities:
        q = family.rates.of_quality(quality)
        sums = np.zeros(4)
        for number, (picture, (in_tiles, in_one)) in enumerate(
            zip(mosaics, analyses, strict=True), 1
        ):
            divided, whole = in_tiles.code(q), in_one.code(q)
            latents = [divided.tile(place)[1] for place in range(len(tiles.tiles))]
            shown = family.synthesize(latents.__getitem__, tiles, tiles.picture)
            same = family.synthesize([joined(latents, tiles.columns)].__getitem__, one, one.picture)
            difference = np.abs(shown.astype(np.int16) - same)
            measured = np.array(
                [
                    border_mse(picture, shown),
                    border_mse(picture, whole.pixels()),
                    file_bytes(divided, tiles, TILE_PX),
                    file_bytes(whole, one, None),
                ]
            )
            sums += measured
            apart = f"at most {difference.max()}/255, {(difference > 0).mean():.2%} of them"
            print(f"| {number} | {quality:g} | {apart} | {compared(measured)} |", flush=True)
        print(f"| all | {quality:g} | | {compared(sums)} |")


def memory(pictures: list[Pixels], model: str) -> None:
    """Prints the peak of memory for each size."""
    print("\n| megapixels | the picture itself | encode | decode |\n|---|---|---|---|")
    for side in MEMORY_SIDES_PX:
        with tempfile.TemporaryDirectory() as folder:
            pixels, file = Path(folder, "pixels.npy"), Path(folder, "large.cwic")
            np.save(pixels, mosaic(pictures, side, side))
            peaks = []
            for act in (_encode, _decode):
                # Spawned: a fork would begin with the memory of this process.
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                    peaks.append(process.submit(act, model, pixels, file).result())
        shown = " | ".join(f"{size_mb:.0f} MB" for size_mb in (3 * side**2 / 1e6, *peaks))
        print(f"| {side**2 / 1e6:.1f} | {shown} |")


def _encode(model: str, pixels: Path, file: Path) -> float:
    file.write_bytes(Codec.load(model).encode(np.load(pixels), quality=MEMORY_QUALITY))
    return peak_of_memory_mb()


def _decode(model: str, _pixels: Path, file: Path) -> float:
    Codec.load(model).decode(file.read_bytes())
    return peak_of_memory_mb()


def main() -> None:
    """Prints Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("kodak", type=Path, help="folder of PNG pictures")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--quality", type=float, nargs="*", default=[5, 25, 75])
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args()
    pictures = [
        np.asarray(Image.open(path).convert("RGB")) for path in sorted(options.kodak.glob("*.png"))
    ]
    landscape = [p if p.shape[0] < p.shape[1] else p.transpose(1, 0, 2) for p in pictures]
    half = len(landscape) // 2
    mosaics = [mosaic(part, SIDE_PX, SIDE_PX) for part in (landscape[:half], landscape[half:])]
    model = model_file.load(model_file.find(options.model))
    print(
        f"{options.model} {model.identity.hex()}. Mosaics of {half} pictures, {SIDE_PX}x{SIDE_PX}; "
        f"tiles of {TILE_PX} pixels.\n"
    )
    if options.quality:
        seams(Flagship(model), mosaics, options.quality)
    if options.memory:
        memory(landscape, options.model)


if __name__ == "__main__":
    main()
