"""What a picture of Kodak costs in headless Chromium, on one thread, at three qualities.

    python benchmarks/browser.py KODAK [--model NAME ...] [--picture kodim19]

Needs `make web`, Node and Chromium (web/README.md); web/bench/kodak.mjs says what it measures.
Prints Markdown.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from cwic import Codec, model_file
from cwic.web_model import write_web_models

WEB = Path(__file__).resolve().parent.parent / "web"
QUALITIES = (10, 50, 90)


def main() -> None:
    """Prints Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("kodak", type=Path, help="folder of PNG pictures")
    parser.add_argument("--model", nargs="+", default=["cwic-visual"])
    parser.add_argument("--picture", default="kodim19")
    options = parser.parse_args()
    if not (WEB / "dist" / "cwic.js").is_file():
        sys.exit(f"{WEB / 'dist'}: expected the program for browsers (make web), found none")
    node = shutil.which("node")
    if node is None:
        sys.exit("expected Node, found none: nodejs.org, or Debian's package nodejs")
    picture = options.kodak / f"{options.picture}.png"
    with tempfile.TemporaryDirectory() as folder:
        codecs = [Codec.load(name) for name in options.model]
        models = Path(folder, "site", "models")
        write_web_models([model_file.find(name) for name in options.model], models)
        files = []
        for codec in codecs:
            for quality in QUALITIES:
                data = codec.encode(picture, quality=quality, lossless="never")
                file = Path(folder, f"{picture.stem}, {codec.name}, q {quality}.cwic")
                file.write_bytes(data)
                files.append(str(file))
        names = ", ".join(f"{c.name} {c.identity.hex()}" for c in codecs)
        print(f"{names}.", end=" ", flush=True)
        subprocess.run([node, "bench/kodak.mjs", str(models), *files], cwd=WEB, check=True)


if __name__ == "__main__":
    main()
