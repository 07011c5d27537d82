"""Whether files are the same as before a change: hashes of files, of symbols and of pixels.

    python benchmarks/file_hashes.py KODAK [--model NAME] [--quality 20 50 80] > before.txt
    python benchmarks/file_hashes.py KODAK --against before.txt

Of each picture at each quality the file and what it decodes to, of each golden file its symbols and
its picture. With `--against` prints the lines that are no more, and ends with 1 if there are any.
Pixels may differ by rounding between machines and between releases of a BLAS, and so may the
symbols that an encoder chooses: compare on one machine, in one environment.
"""

import argparse
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from cwic import Codec, bitstream
from cwic.whole import WholeReader

GOLDEN = Path(__file__).parents[1] / "tests" / "data" / "golden"


def lines(folder: Path, model: str | None, qualities: list[float]) -> Iterator[str]:
    """What is the same as long as nothing changes."""
    for file in sorted(GOLDEN.glob("*.cwic")):
        data = file.read_bytes()
        codec: Codec | WholeReader = WholeReader()
        if bitstream.read_header(data).has_model:
            codec = Codec.load(GOLDEN / f"{file.name.partition('-')[0]}.cwicmodel")
        symbols = _hash(*(tile.astype("<i4").tobytes() for tile in codec.symbols(data)))
        yield f"{file.name} symbols {symbols} pixels {_of_pixels(codec.decode(data))}"
    codec = Codec.load(model)
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as image:
            picture = np.asarray(image.convert("RGB"))
        for quality in qualities:
            data = codec.encode(picture, quality=quality)
            pixels = _of_pixels(codec.decode(data))
            yield f"{path.stem} {quality:g} {len(data)} bytes {_hash(data)} pixels {pixels}"


def _of_pixels(image: Image.Image) -> str:
    return _hash(image.mode.encode(), np.asarray(image).tobytes())


def _hash(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def main() -> None:
    """Prints the lines, or those that differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("kodak", type=Path, metavar="KODAK", help="folder of PNG pictures")
    parser.add_argument("--model", default="cwic-visual")
    parser.add_argument("--quality", type=float, nargs="+", default=[20, 50, 80])
    parser.add_argument("--against", type=Path, help="what was printed before")
    options = parser.parse_args()
    found = lines(options.kodak, options.model, options.quality)
    if options.against is None:
        for line in found:
            print(line, flush=True)
        return
    now, expected = set(found), options.against.read_text(encoding="utf-8").splitlines()
    lost = [line for line in expected if line not in now]
    for line in lost:
        print(f"no longer: {line}")
    print(f"{len(expected) - len(lost)} of {len(expected)} lines are as before")
    sys.exit(1 if lost else 0)


if __name__ == "__main__":
    main()
