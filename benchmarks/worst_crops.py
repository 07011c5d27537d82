"""Where the default model does worst beside JPEG 2000 and AVIF of equal size, to look at.

    python benchmarks/worst_crops.py KODAK [--bpp 0.1 0.25 0.5] [--count 4]
        [--out docs/pictures/worst-crops.jpg] [--all FOLDER]

Of six pictures at each rate the windows of 192x192 are searched for where its SSIM falls furthest
below the better of the two, at most one of each picture and rate, and the worst of all are shown
without scaling. --all writes all of these pictures whole, as PNG. Prints Markdown.
"""

import argparse
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from sheets import Tile, save_sheet

from cwic import Codec
from cwic.evaluation.anchors import contestant
from cwic.evaluation.compare import of_size
from cwic.evaluation.metrics import measure

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ("kodim03", "kodim05", "kodim13", "kodim15", "kodim20", "kodim23")
ANCHORS = {"jpeg2000": "JPEG 2000", "avif": "AVIF 4:2:0"}
SIDE_PX, STRIDE_PX = 192, 96


class Crop(NamedTuple):
    """A window and how each codec does in it."""

    picture: str
    bpp: float
    window: tuple[slice, slice]
    ssim: dict[str, float]  # by codec, ours under our model's name
    decoded: dict[str, np.ndarray]  # whole pictures, the original under ""

    def behind(self, ours: str) -> float:
        """How far we are under the better of the others."""
        return max(self.ssim[name] for name in ANCHORS) - self.ssim[ours]


def crops_of(
    codec: Codec, name: str, image: Image.Image, bpp: float, all_to: Path | None
) -> list[Crop]:
    """Every window of a picture at one rate."""
    original = np.asarray(image)
    data = codec.encode(image, bpp=bpp)
    decoded = {"": original, codec.name: np.asarray(codec.decode(data).convert("RGB"))}
    for anchor in ANCHORS:
        other = contestant(anchor)
        decoded[anchor] = np.asarray(other.decode(of_size(other, image, len(data))).convert("RGB"))
    if all_to is not None:
        all_to.mkdir(parents=True, exist_ok=True)
        for what, pixels in decoded.items():
            Image.fromarray(pixels).save(all_to / f"{name}-{bpp:g}-{what or 'original'}.png")
    found = []
    height, width = original.shape[:2]
    for top in range(0, height - SIDE_PX + 1, STRIDE_PX):
        for left in range(0, width - SIDE_PX + 1, STRIDE_PX):
            window = (slice(top, top + SIDE_PX), slice(left, left + SIDE_PX))
            ssim = {
                what: measure(original[window], pixels[window]).ssim_rgb
                for what, pixels in decoded.items()
                if what
            }
            found.append(Crop(name, bpp, window, ssim, decoded))
    return found


def main() -> None:
    """Writes the sheet and prints its place and words."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("kodak", type=Path, metavar="KODAK")
    parser.add_argument("--bpp", type=float, nargs="+", default=[0.1, 0.25, 0.5])
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures" / "worst-crops.jpg")
    parser.add_argument("--all", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    codec = Codec.load()
    worst, behind = [], 0
    for name in PICTURES:
        with Image.open(options.kodak / f"{name}.png") as file:
            image = file.convert("RGB")
        for bpp in options.bpp:
            crops = crops_of(codec, name, image, bpp, options.all)
            behind += sum(crop.behind(codec.name) > 0 for crop in crops)
            worst.append(max(crops, key=lambda crop: crop.behind(codec.name)))
    windows = len(PICTURES) * len(options.bpp) * len(crops)
    worst.sort(key=lambda crop: -crop.behind(codec.name))
    rows = []
    for crop in worst[: options.count]:
        labels = {"": f"original, {crop.picture}", codec.name: codec.name} | ANCHORS
        rows.append(
            [
                Tile(
                    crop.decoded[what][crop.window],
                    (
                        labels[what],
                        f"SSIM {crop.ssim[what]:.3f}" if what else f"at {crop.bpp:g} bpp",
                    ),
                )
                for what in ("", *ANCHORS, codec.name)
            ]
        )
    save_sheet(rows, options.out)
    where = Path(os.path.relpath(options.out, ROOT / "docs")).as_posix()
    print(
        f"{codec.name} {codec.identity.hex()}, {', '.join(PICTURES)} at "
        f"{', '.join(f'{bpp:g}' for bpp in options.bpp)} bpp: in {behind} of {windows} windows of "
        f"{SIDE_PX}x{SIDE_PX} its SSIM is under the better of {' and '.join(ANCHORS.values())} at "
        "the same size. The worst, one of a picture and rate:\n\n"
        f"![Crops of the worst places]({where})"
    )


if __name__ == "__main__":
    main()
