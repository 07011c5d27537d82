"""The picture at the top of the README: an original, and JPEG and cwic at the same file size.

    python benchmarks/equal_size.py [PICTURE] [--bpp 0.3] [--model NAME] [--out FILE]

Prints Markdown that shows it.
"""

import argparse
import os
from pathlib import Path

import numpy as np
from PIL import Image
from sheets import Tile, save_sheet

from cwic import Codec
from cwic.evaluation.anchors import contestant
from cwic.evaluation.compare import of_size

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "examples" / "samples" / "chelsea.png"
SHOWN = (slice(10, 250), slice(90, 370))  # the face


def main() -> None:
    """Writes the picture and prints its place and words."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("picture", type=Path, nargs="?", default=SAMPLE)
    parser.add_argument("--bpp", type=float, default=0.25)
    parser.add_argument("--model", default=None)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures" / "equal-size.jpg")
    options = parser.parse_args()
    with Image.open(options.picture) as file:
        original = file.convert("RGB")
    codec, jpeg = Codec.load(options.model), contestant("jpeg")
    ours = codec.encode(original, bpp=options.bpp)
    theirs = of_size(jpeg, original, len(ours))
    tiles = [
        Tile(np.asarray(original)[SHOWN], ("original",)),
        Tile(np.asarray(jpeg.decode(theirs))[SHOWN], (f"JPEG, {len(theirs):,} bytes",)),
        Tile(
            np.asarray(codec.decode(ours).convert("RGB"))[SHOWN],
            (f"cwic, {len(ours):,} bytes",),
        ),
    ]
    save_sheet([tiles], options.out)
    where = Path(os.path.relpath(options.out, ROOT)).as_posix()
    print(
        f"![Original, JPEG ({len(theirs):,} bytes) and cwic ({len(ours):,} bytes)]({where})"
        f"\n\n{options.picture.name}, {original.width}x{original.height}, its middle; "
        f"{codec.name} {codec.identity.hex()}."
    )


if __name__ == "__main__":
    main()
