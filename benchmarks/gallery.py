"""The pictures of docs/gallery.md: a part of each of six, by us and by others at the same size.

    python benchmarks/gallery.py FOLDER [--out docs/gallery]

Of the pictures below, those that FOLDER holds: once with that of Kodak, once with the everyday one.
Each sheet shows a part pixel by pixel; sizes and SSIMULACRA2 are those of whole pictures. AVIF is
shown with the subsampling of colours that SSIMULACRA2 says is better for the picture. They are
chosen to show faults as well. Needs the extra `evaluate`; prints Markdown.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from sheets import Tile, save_sheet

from cwic import Codec, read_header
from cwic.evaluation.anchors import contestant
from cwic.evaluation.compare import of_size
from cwic.ssimulacra2 import ssimulacra2

ROOT = Path(__file__).resolve().parent.parent
# Of each group the best is shown.
ANCHORS = (("jpeg",), ("webp",), ("avif", "avif-444"))
WIDTH_PX, HEIGHT_PX = 248, 208
JPEG_QUALITY = 90


class Exhibit(NamedTuple):
    """A picture and what of it is shown."""

    file: str
    title: str
    bpp: float
    left: int
    top: int
    look_at: str


EXHIBITS = (
    Exhibit(
        "kodim08.png", "Houses", 0.25, 500, 240, "the letters of the sign, the bars of the windows"
    ),
    Exhibit("kodim05.png", "Wheels", 0.25, 200, 150, "spokes and tyres, the letters on the tank"),
    Exhibit(
        "kodim23.png", "Parrots", 0.1, 420, 90, "the colour of the eye, the fine black feathers"
    ),
    Exhibit("photo-guitar.png", "A guitar", 0.5, 170, 90, "the strings, the dark cloth behind"),
    Exhibit(
        "screen-imac_dark.png", "Text on a dark screen", 0.25, 60, 90, "the edges of the letters"
    ),
    Exhibit("chart-lines.png", "A chart", 0.5, 40, 30, "the thin lines, the grey between them"),
)


def main() -> None:
    """Writes the sheets and prints their places and words."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "gallery")
    options = parser.parse_args()
    exhibits = [exhibit for exhibit in EXHIBITS if (options.folder / exhibit.file).exists()]
    if not exhibits:
        names = ", ".join(exhibit.file for exhibit in EXHIBITS)
        sys.exit(f"{options.folder}: expected at least one of {names}, found none")
    codec = Codec.load()
    print(f"{codec.name} {codec.identity.hex()}.")
    for exhibit in exhibits:
        show(exhibit, options.folder, codec, options.out)


def show(exhibit: Exhibit, folder: Path, codec: Codec, out: Path) -> None:
    """Writes the sheet of one picture and prints its Markdown."""
    with Image.open(folder / exhibit.file) as file:
        picture = file.convert("RGB")
    original = np.asarray(picture)
    window = (
        slice(exhibit.top, exhibit.top + HEIGHT_PX),
        slice(exhibit.left, exhibit.left + WIDTH_PX),
    )
    ours = codec.encode(picture, bpp=exhibit.bpp)
    target_bytes = round(exhibit.bpp * picture.width * picture.height / 8)
    tiles = [Tile(original[window], ("original",))]

    shown: list[str] = []

    def add(*files: tuple[str, bytes, Image.Image]) -> None:
        """The best of these."""
        versions = [(label, data, np.asarray(image.convert("RGB"))) for label, data, image in files]
        scores = [ssimulacra2(original, pixels) for _, _, pixels in versions]
        best = scores.index(max(scores))
        label, data, pixels = versions[best]
        shown.append(label)
        lines = (f"{label}, {len(data):,} B", f"SSIMULACRA2 {scores[best]:.1f}")
        tiles.append(Tile(pixels[window], lines))

    for group in ANCHORS:
        files = []
        for other in map(contestant, group):
            data = of_size(other, picture, target_bytes)
            files.append((other.label, data, other.decode(data)))
        add(*files)
    add((codec.name, ours, codec.decode(ours)))
    path = out / f"{Path(exhibit.file).stem}.jpg"
    save_sheet([tiles], path, JPEG_QUALITY)
    where = Path(os.path.relpath(path, ROOT / "docs")).as_posix()
    header = read_header(ours)
    how = f"{header.kept}{', without any loss' if header.is_whole else ''}"
    kept = "" if header.has_model else f" Ours is {how}."
    print(
        f"\n**{exhibit.title}** ({exhibit.file}) at {exhibit.bpp:g} bpp. Look at {exhibit.look_at}."
        f"{kept}\n\n![{exhibit.title}: the original, "
        f"{', '.join(shown[:-1])} and {codec.name}]({where})"
    )


if __name__ == "__main__":
    main()
