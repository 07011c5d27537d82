"""How long payloads are beside what their own probabilities say, and the rates at both ends.

    python benchmarks/payload.py KODAK [--quality 0 50 100]

Every bundled model. The cross entropy of a payload is the sum of -log2 p over its symbols, p of a
bit as the exact networks give it in multiples of 2^-16, p of a symbol of a table as the range coder
has it, in 2^-24: what rounding the tables costs does not show. The rest of a file is its
header, its table of sections and checksums. Prints Markdown.
"""

import argparse
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
from PIL import Image

import cwic
from cwic import bitstream, model_file
from cwic.coding import arithmetic_coder


def payload_and_entropy(
    codec: cwic.Codec, image: Image.Image, quality: float
) -> tuple[int, int, float]:
    """Bytes of the file, bytes of its payloads, and the bytes that their probabilities say."""
    counters: list[arithmetic_coder.BitCounter] = []
    payload_of = arithmetic_coder.BitCounter.payload

    def noted(counter: arithmetic_coder.BitCounter) -> bytes:
        counters.append(counter)
        return payload_of(counter)

    with patch.object(arithmetic_coder.BitCounter, "payload", noted):
        data = codec.encode(image, quality=quality)
    payload_bytes = sum(map(len, bitstream.unpack(data).tiles))
    return len(data), payload_bytes, sum(counter.bits for counter in counters) / 8


def main() -> None:
    """Prints a row for each model and quality."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="KODAK")
    parser.add_argument("--quality", type=float, nargs="+", default=[0, 50, 100])
    options = parser.parse_args()
    paths = sorted(options.folder.glob("*.png"))
    if not paths:
        sys.exit(f"{options.folder}: expected PNG pictures, found none")
    print(
        "| model | quality | bpp | payload over its cross entropy, mean | worst picture "
        "| file beyond the payload, at most |\n|---|---|---|---|---|---|"
    )
    for model in model_file.bundled_models():
        codec = cwic.Codec.load(model.name)
        for quality in options.quality:
            rates, excess, rest = [], [], []
            for path in paths:
                with Image.open(path) as file:
                    image = file.convert("RGB")
                size, payload, entropy = payload_and_entropy(codec, image, quality)
                rates.append(8 * size / (image.width * image.height))
                excess.append(payload / entropy - 1)
                rest.append(size - payload)
            print(
                f"| {model.name} {model.identity.hex()} | {quality:g} | {np.mean(rates):.3f} "
                f"| {np.mean(excess):+.3%} | {max(excess):+.3%} | {max(rest)} B |"
            )


if __name__ == "__main__":
    main()
