"""What a picture of Kodak costs in headless Chromium, on one thread, at three qualities.

    python benchmarks/browser.py KODAK WEB [--model NAME|PATH] [--picture kodim19]

WEB is the folder that `make web` writes. Needs Node and Chromium (web/README.md);
web/bench/kodak.mjs says what it measures. Prints Markdown.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from speed import machine

from cwic import Codec, model_file
from cwic.model_file import DEFAULT_MODEL
from cwic.web_model import write_web_models

QUALITIES = (10, 50, 90)


def main() -> None:
    """Prints Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("kodak", type=Path, help="folder of PNG pictures")
    parser.add_argument("web", type=Path, help="folder of the program for browsers")
    parser.add_argument("--model", metavar="NAME|PATH", default=DEFAULT_MODEL)
    parser.add_argument("--picture", default="kodim19")
    options = parser.parse_args()
    if not (options.web / "cwic.js").is_file():
        sys.exit(f"{options.web}: expected the program for browsers (make web), found none")
    node = shutil.which("node")
    if node is None:
        sys.exit("expected Node, found none: nodejs.org, or Debian's package nodejs")
    codec = Codec.load(options.model)
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder, "models")
        write_web_models([model_file.find(options.model)], models)
        files = []
        for quality in QUALITIES:
            file = Path(folder, f"{options.picture}, quality {quality}.cwic")
            picture = options.kodak / f"{options.picture}.png"
            file.write_bytes(codec.encode(picture, quality=quality, lossless="never"))
            files.append(str(file))
        print(f"{codec.name} {codec.identity.hex()}, {machine()}.", end=" ", flush=True)
        program = options.web.parent / "bench" / "kodak.mjs"
        subprocess.run([node, str(program), str(models), *files], check=True)


if __name__ == "__main__":
    main()
