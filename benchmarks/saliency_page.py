"""The pictures of docs/saliency.md, and the table beside them.

    python benchmarks/saliency_page.py KODAK [--model cwic-visual] [--bpp 0.2] [--out docs/saliency]

For each of six pictures one sheet: the original with a frame, its saliency map, and inside the
frame, pixel by pixel, JPEG 2000, AVIF, ours without and with saliency, all of equal size. One more
sheet shows where the bits go without a region of interest and with one. Needs the extras `evaluate`
and `saliency`.
"""

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from cwic import Codec
from cwic.evaluation.anchors import contestant
from cwic.evaluation.compare import nearest_file
from cwic.evaluation.perceptual import haarpsi
from cwic.psnr import psnr_db
from cwic.saliency import detect
from cwic.view import overlay

PICTURES = ("kodim04", "kodim05", "kodim15", "kodim20", "kodim21", "kodim23")
ANCHORS = ("jpeg2000", "avif")
PANEL_PX = (320, 224)  # width, height
CAPTION_PX = 18
REGION_SHARE = 0.447
WEBP_QUALITY = 82


def framed(mask: npt.NDArray[np.float32]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the panel-sized window that is most salient."""
    width, height = PANEL_PX
    total = np.pad(mask.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    sums = (
        total[height:, width:]
        - total[:-height, width:]
        - total[height:, :-width]
        + total[:-height, :-width]
    )
    top, left = np.unravel_index(int(sums.argmax()), sums.shape)
    return int(left), int(top), int(left) + width, int(top) + height


def sheet(panels: list[tuple[str, Image.Image]], columns: int) -> Image.Image:
    """Panels in rows, each with a caption under it."""
    width, height = panels[0][1].size
    rows = -(-len(panels) // columns)
    page = Image.new("RGB", (columns * width, rows * (height + CAPTION_PX)), "white")
    draw = ImageDraw.Draw(page)
    font = ImageFont.load_default(12)
    for index, (caption, panel) in enumerate(panels):
        left, top = index % columns * width, index // columns * (height + CAPTION_PX)
        page.paste(panel, (left, top))
        draw.text((left + 4, top + height + 2), caption, fill="black", font=font)
    return page


def salient_psnr_db(
    original: npt.NDArray[np.uint8],
    decoded: npt.NDArray[np.uint8],
    mask: npt.NDArray[np.float32],
) -> float:
    """PSNR with every pixel counted by its saliency."""
    error = np.square(original.astype(np.float64) - decoded).mean(axis=2)
    return float(10 * np.log10(255**2 / np.average(error, weights=mask)))


def shown(picture: Image.Image, frame: tuple[int, int, int, int]) -> Image.Image:
    """A whole picture at the size of a panel, with a frame."""
    marked = picture.copy()
    ImageDraw.Draw(marked).rectangle(frame, outline="yellow", width=3)
    marked.thumbnail(PANEL_PX)
    panel = Image.new("RGB", PANEL_PX, "white")
    panel.paste(marked)
    return panel


def main() -> None:
    """Writes the pictures and prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kodak", type=Path, help="folder of PNG pictures")
    parser.add_argument("--model", default="cwic-visual")
    parser.add_argument("--bpp", type=float, default=0.2)
    parser.add_argument("--out", type=Path, default=Path("docs/saliency"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    codec = Codec.load(options.model)
    anchors = [contestant(name) for name in ANCHORS]
    print(
        f"{codec.name} {codec.identity.hex()}, {options.bpp} bpp. PSNR of the whole picture, PSNR "
        "with every pixel counted by its saliency, HaarPSI.\n"
    )
    print("| picture | codec | size | PSNR dB | salient PSNR dB | HaarPSI |")
    print("|---" * 6 + "|")
    starts: dict[str, float] = {}
    for name in PICTURES:
        with Image.open(options.kodak / f"{name}.png") as file:
            picture = file.convert("RGB")
        original = np.asarray(picture)
        mask = detect(original)
        without = codec.encode(picture, bpp=options.bpp)
        files = []
        for anchor in anchors:
            found = nearest_file(anchor, picture, len(without), start=starts.get(anchor.name))
            starts[anchor.name] = found.setting
            decoded = np.asarray(anchor.decode(found.data).convert("RGB"))
            files.append((anchor.label, found.data, decoded))
        within = codec.encode(picture, target_bytes=len(without), saliency=mask)
        for label, data in ((codec.name, without), (f"{codec.name}, saliency", within)):
            files.append((label, data, np.asarray(codec.decode(data))))
        frame = framed(mask)
        grey = Image.fromarray((255 * mask).round().astype(np.uint8)).convert("RGB")
        panels = [("original", shown(picture, frame)), ("saliency map", shown(grey, frame))]
        for label, data, decoded in files:
            caption = f"{label}, {len(data):,} B"
            panels.append((caption, Image.fromarray(decoded).crop(frame)))
            print(
                f"| {name} | {label} | {len(data):,} B | {psnr_db(original, decoded):.2f} | "
                f"{salient_psnr_db(original, decoded, mask):.2f} | "
                f"{haarpsi(original, decoded):.4f} |"
            )
        save(sheet(panels, 2), options.out / f"{name}.webp")
    region = np.zeros((picture.height, picture.width), bool)
    height, width = round(REGION_SHARE * picture.height), round(REGION_SHARE * picture.width)
    top, left = (picture.height - height) // 2, (picture.width - width) // 2
    region[top : top + height, left : left + width] = True
    panels = []
    for caption, roi in (("no region", None), ("region in the middle", region)):
        data = codec.encode(picture, bpp=options.bpp, roi=roi)
        panels.append(
            (f"{caption}, {len(data):,} B", overlay(picture, codec.inspect(data).allocation))
        )
    save(sheet(panels, 1).reduce(2), options.out / "regions.webp")


def save(image: Image.Image, path: Path) -> None:
    """As a small file for a page."""
    image.save(path, quality=WEBP_QUALITY, method=6)


if __name__ == "__main__":
    main()
