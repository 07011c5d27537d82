"""What tiles cost a large picture: seams, size, quality at their borders; and memory.

    python benchmarks/tiles.py KODAK [--model NAME] [--quality 5 25 75] [--memory]

Mosaics of Kodak pictures that still fit into one piece, by the same model in tiles and in one
piece: how far pixels of the same latents are apart, how large both files are, and what PSNR both
have within 16 pixels of a border between tiles. For the last the tiles are of 256 pixels, not 1024:
what a cell at a border lacks is the same, and there are many borders. A few decisions of the
quantizer that fall differently move a single tile by a tenth of a dB, so a mean comes with its
interval. The borders fall into pictures and not between them. `--memory` adds the peak of memory
for larger and larger mosaics, each way in a process of its own.
"""

import argparse
import multiprocessing
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from speed import peak_of_memory_mb

from cwic import bitstream, model_file
from cwic.codec import Codec
from cwic.families.flagship.coder import CodedLatents
from cwic.families.flagship.family import TILE_PX, Flagship, FlagshipAnalysis
from cwic.families.tiling import Tiling
from cwic.model_file import DEFAULT_MODEL

SIDE_PX = 2048  # two tiles a side, and the largest square in one piece
BORDER_TILE_PX = 256  # eight a side
BORDER_PX = 16
FAR_PX = 64
SHIFT_PX = (200, 100)  # rows and columns that are cut off, so that no border is a picture's edge
ANY_MODEL = b"\1" * bitstream.IDENTITY_BYTES  # a file is as long with one as with another
MEMORY_SIDES_PX = (2048, 3072, 4608)
MEMORY_QUALITY = 50

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]


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


def file_bytes(payloads: Sequence[bytes], q: int, tiling: Tiling, tile_px: int | None) -> int:
    """Of the whole file."""
    picture = tiling.picture
    return len(
        bitstream.pack(
            identity=ANY_MODEL,
            width=picture.width,
            height=picture.height,
            mode=0,
            q=q,
            tiles=payloads,
            tile_px=tile_px,
        )
    )


def joined(tiles: Sequence[CodedLatents], columns: int) -> CodedLatents:
    """The latents of whole tiles as those of one piece, as far as the synthesis needs them."""

    def whole(name: str) -> npt.NDArray[np.float32]:
        rows = [
            np.concatenate([getattr(tile, name) for tile in tiles[start : start + columns]], axis=2)
            for start in range(0, len(tiles), columns)
        ]
        return np.concatenate(rows, axis=1)

    return tiles[0]._replace(decoded=whole("decoded"), prior=whole("prior"), planes=whole("planes"))


def of_tiles(squares: Floats) -> Floats:
    """(tiles, 2) sums of squared errors of each small tile, near its borders and far from them."""
    x = np.arange(SIDE_PX)
    inside = x % BORDER_TILE_PX
    distance = np.minimum(inside, BORDER_TILE_PX - 1 - inside)
    # The picture's own edges are no borders between tiles.
    distance[:BORDER_PX] = distance[-BORDER_PX:] = FAR_PX - 1
    nearest = np.minimum(distance[:, None], distance)
    side = SIDE_PX // BORDER_TILE_PX
    shape = (side, BORDER_TILE_PX, side, BORDER_TILE_PX)
    sums = [
        (squares * chosen).reshape(shape).sum(axis=(1, 3)).ravel()
        for chosen in (nearest < BORDER_PX, nearest >= FAR_PX)
    ]
    return np.stack(sums, axis=1)


def gain_db(in_tiles: Floats, in_one: Floats) -> str:
    """How much higher the PSNR is in tiles, with its interval of 95 % by the jackknife over tiles.

    Args:
        in_tiles: (tiles,) sums of squared errors.
        in_one: likewise of the same pixels.
    """
    gain = 10 * np.log10(in_one.sum() / in_tiles.sum())
    without = 10 * np.log10((in_one.sum() - in_one) / (in_tiles.sum() - in_tiles))
    deviation = np.sqrt((len(without) - 1) * np.square(without - without.mean()).mean())
    return f"{gain:+.3f} ± {1.96 * deviation:.3f} dB"


def measured(family: Flagship, mosaics: list[Pixels], qualities: list[float]) -> None:
    """Prints a row for each quality, of all mosaics together."""
    one, tiles, small = (
        family.tiling(SIDE_PX, SIDE_PX, tile_px) for tile_px in (None, TILE_PX, BORDER_TILE_PX)
    )
    sizes = {quality: np.zeros(2) for quality in qualities}
    apart: dict[float, list[Pixels]] = {quality: [] for quality in qualities}
    errors: dict[float, list[Floats]] = {quality: [] for quality in qualities}

    def in_one_piece(latents: Sequence[CodedLatents], tiling: Tiling) -> Pixels:
        return family.transforms.synthesize(
            [joined(latents, tiling.columns)].__getitem__, one, one.picture
        )

    for picture in mosaics:
        analyses = [FlagshipAnalysis(family, picture, tiling) for tiling in (one, tiles, small)]

        def squares(shown: Pixels, picture: Pixels = picture) -> Floats:
            return of_tiles(np.square(picture.astype(np.float64) - shown).sum(axis=2))

        for quality in qualities:
            q = family.q_of_quality(quality, picture)
            whole, divided, finely = (analysis.code(q) for analysis in analyses)
            counters, latents = zip(
                *(divided.tile(number) for number in range(len(tiles.tiles))), strict=True
            )
            payloads = [counter.payload() for counter in counters]
            sizes[quality] += (
                file_bytes(payloads, divided.q, tiles, TILE_PX),
                file_bytes(whole.payloads(), whole.q, one, None),
            )
            shown = family.transforms.synthesize(latents.__getitem__, tiles, tiles.picture)
            same = in_one_piece(latents, tiles)
            apart[quality].append(np.maximum(shown, same) - np.minimum(shown, same))
            fine = in_one_piece([finely.tile(n)[1] for n in range(len(small.tiles))], small)
            errors[quality].append(np.stack([squares(fine), squares(whole.pixels())]))
    print(
        "| quality | same latents: pixels apart by | size, against one piece "
        f"| PSNR within {BORDER_PX} px of borders, against one piece "
        f"| nine of ten tiles between | beyond {FAR_PX} px |\n|---|---|---|---|---|---|"
    )
    for quality in qualities:
        difference = np.stack(apart[quality])
        in_tiles, in_one = np.concatenate(errors[quality], axis=1)
        near_db = 10 * np.log10(in_one[:, 0] / in_tiles[:, 0])
        low, high = np.quantile(near_db, (0.05, 0.95))
        share = (difference > 0).mean()
        print(
            f"| {quality:g} | at most {difference.max()}/255, {share:.2%} of them "
            f"| {sizes[quality][0] / sizes[quality][1] - 1:+.2%} "
            f"| {gain_db(in_tiles[:, 0], in_one[:, 0])} | {low:+.2f} and {high:+.2f} dB "
            f"| {gain_db(in_tiles[:, 1], in_one[:, 1])} |",
            flush=True,
        )


def memory(pictures: list[Pixels], model: str) -> None:
    """Prints the peak of memory for each size, and by what it grows with each pixel."""
    print("\n| megapixels | the picture itself | encode | decode |\n|---|---|---|---|")
    found = []
    for side in MEMORY_SIDES_PX:
        with tempfile.TemporaryDirectory() as folder:
            pixels, file = Path(folder, "pixels.npy"), Path(folder, "large.cwic")
            np.save(pixels, mosaic(pictures, side, side))
            peaks = []
            for act in (_encode, _decode):
                # Spawned: a fork would begin with the memory of this process.
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                    peaks.append(process.submit(act, model, pixels, file).result())
        row = (3 * side**2 / 1e6, *peaks)
        found.append(row)
        shown = " | ".join(f"{size_mb:.0f} MB" for size_mb in row)
        print(f"| {side**2 / 1e6:.1f} | {shown} |", flush=True)
    smaller, larger = np.array(found[-2:])
    growth = 3 * (larger - smaller) / (larger[0] - smaller[0])
    shown = " | ".join(f"{size:.1f}" for size in growth)
    print(f"| bytes for each pixel more, between the last two | {shown} |")


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
        f"{options.model} {model.identity.hex()}. Two mosaics of {half} pictures, "
        f"{SIDE_PX}x{SIDE_PX}; tiles of {TILE_PX} pixels, for the PSNR at borders of "
        f"{BORDER_TILE_PX}.\n"
    )
    if options.quality:
        measured(Flagship(model), mosaics, options.quality)
    if options.memory:
        memory(landscape, options.model)


if __name__ == "__main__":
    main()
