"""Rate-distortion curves of the bundled models beside the codecs that Pillow writes: BD-rates.

    python benchmarks/curves.py KODAK [--out results] [--plots docs/plots] [-j 2]

`cwic evaluate` with its page and tables, whose folder a second run takes up; prints the BD-rates as
Markdown and copies the curves that the pages show.
"""

import argparse
import shutil
import sys
from pathlib import Path

from cwic import model_file
from cwic.evaluation.benchmark import evaluate

ANCHORS = ("jpeg", "jpeg2000", "webp", "avif")
SHOWN = ("psnr_rgb_db", "ms_ssim_rgb", "ssim_rgb")


def main() -> None:
    """Prints Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("kodak", type=Path, help="folder of PNG pictures")
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--plots", type=Path, default=Path("docs/plots"))
    parser.add_argument("-j", "--jobs", type=int, default=2)
    options = parser.parse_args()
    models = model_file.bundled_models()
    found = evaluate(
        sorted(options.kodak.glob("*.png")),
        options.out,
        codecs=[*(f"cwic:{model.name}" for model in models), *ANCHORS],
        processes=options.jobs,
        command=["python", "benchmarks/curves.py", "KODAK"],
        show_progress=True,
    )
    if found.failures:
        sys.exit("\n".join(map(str, found.failures)))
    options.plots.mkdir(parents=True, exist_ok=True)
    print(", ".join(f"{model.name} {model.identity.hex()}" for model in models) + ".\n")
    print((options.out / "bd_rate.md").read_text(encoding="utf-8"))
    for name in SHOWN:
        shutil.copyfile(options.out / "curves" / f"{name}.png", options.plots / f"{name}.png")
        print(f"![{name}]({options.plots.name}/{name}.png)")


if __name__ == "__main__":
    main()
