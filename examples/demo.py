"""Encodes and decodes the sample pictures and shows what comes out beside JPEG.

Prints a table and writes one picture with a row for each sample: the original, what cwic made of
it, and JPEG at the same size. Uses nothing but the public functions of the package and Pillow.

    python examples/demo.py [COMPARISON.png]
"""

import io
import math
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import cwic

SAMPLES = Path(__file__).parent / "samples"
TARGET_BPP = 0.5
MARGIN_PX = 12
CAPTION_PX = 26


class Outcome(NamedTuple):
    """One sample and what two codecs made of it; the pictures are all RGB and of equal size."""

    name: str
    original: Image.Image
    decoded: Image.Image
    jpeg: Image.Image
    size_bytes: int
    jpeg_bytes: int
    model_identity: bytes
    encode_s: float
    decode_s: float

    @property
    def rate_bpp(self) -> float:
        """Bits of the whole file for each pixel."""
        return 8 * self.size_bytes / (self.original.width * self.original.height)

    @property
    def psnr_db(self) -> float:
        """Of what cwic decoded."""
        return psnr_db(self.original, self.decoded)

    @property
    def jpeg_psnr_db(self) -> float:
        """Of the JPEG that is not smaller."""
        return psnr_db(self.original, self.jpeg)


def psnr_db(reference: Image.Image, decoded: Image.Image) -> float:
    """Peak signal-to-noise ratio over all three channels, in dB; infinite for equal pictures."""
    difference = np.asarray(reference, np.float64) - np.asarray(decoded, np.float64)
    mse = float(np.mean(difference**2))
    return 10 * math.log10(255**2 / mse) if mse else math.inf


def jpeg_not_smaller(picture: Image.Image, size_bytes: int) -> bytes:
    """The smallest JPEG of at least so many bytes, or the largest there is."""

    def jpeg(quality: int) -> bytes:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality, optimize=True, progressive=True)
        return file.getvalue()

    low, high = 1, 95  # Pillow advises against more than 95
    while low < high:
        middle = (low + high) // 2
        if len(jpeg(middle)) >= size_bytes:
            high = middle
        else:
            low = middle + 1
    return jpeg(high)


def run(path: Path) -> Outcome:
    """Encodes and decodes one picture."""
    original = Image.open(path).convert("RGB")
    start_s = time.perf_counter()
    data = cwic.encode(original, bpp=TARGET_BPP)
    encoded_s = time.perf_counter()
    decoded = cwic.decode(data)
    decoded_s = time.perf_counter()
    jpeg = jpeg_not_smaller(original, len(data))
    return Outcome(
        name=path.stem,
        original=original,
        decoded=decoded.convert("RGB"),
        jpeg=Image.open(io.BytesIO(jpeg)).convert("RGB"),
        size_bytes=len(data),
        jpeg_bytes=len(jpeg),
        model_identity=cwic.read_header(data).identity,
        encode_s=encoded_s - start_s,
        decode_s=decoded_s - encoded_s,
    )


def comparison(outcomes: list[Outcome]) -> Image.Image:
    """One row for each sample: original, cwic, JPEG, each with a caption above it."""
    width = max(outcome.original.width for outcome in outcomes)
    column = width + MARGIN_PX
    rows = [outcome.original.height + CAPTION_PX + MARGIN_PX for outcome in outcomes]
    sheet = Image.new("RGB", (3 * column + MARGIN_PX, sum(rows) + MARGIN_PX), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(16)
    top = MARGIN_PX
    for outcome, row in zip(outcomes, rows, strict=True):
        cells = [
            (outcome.original, f"{outcome.name}, original"),
            (outcome.decoded, f"cwic {outcome.size_bytes:,} B, {outcome.psnr_db:.2f} dB"),
            (outcome.jpeg, f"JPEG {outcome.jpeg_bytes:,} B, {outcome.jpeg_psnr_db:.2f} dB"),
        ]
        for index, (picture, caption) in enumerate(cells):
            left = MARGIN_PX + index * column
            draw.text((left, top), caption, fill="black", font=font)
            sheet.paste(picture, (left, top + CAPTION_PX))
        top += row
    return sheet


def main() -> int:
    """Runs the demo; returns the exit code."""
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "demo.png")
    print(f"cwic {cwic.__version__}, {TARGET_BPP} bits per pixel asked for")
    print()
    print("picture       size B    bpp  PSNR dB  JPEG dB (at B)      encode s  decode s")
    outcomes = []
    for path in sorted(SAMPLES.glob("*.png")):
        outcome = run(path)
        outcomes.append(outcome)
        print(
            f"{outcome.name:<12} {outcome.size_bytes:>7,}  {outcome.rate_bpp:.3f}"
            f"  {outcome.psnr_db:>7.2f}  {outcome.jpeg_psnr_db:>7.2f} ({outcome.jpeg_bytes:>7,})"
            f"   {outcome.encode_s:>8.2f}  {outcome.decode_s:>8.2f}"
        )
    identities = sorted({outcome.model_identity.hex() for outcome in outcomes})
    comparison(outcomes).save(target)
    print()
    print(f"Sizes are those of whole files, made by model {', '.join(identities)}.")
    print(f"Look at {target}: original, cwic, and JPEG at the same size, side by side.")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except cwic.CodecError as error:
        sys.exit(f"error: {error}")
