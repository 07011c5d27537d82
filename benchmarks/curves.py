"""Rate-distortion curves of the bundled models beside the codecs that Pillow writes: BD-rates.

    python benchmarks/curves.py KODAK [--out results] [--plots docs/plots] [-j 2]

`cwic evaluate` with its page and tables, whose folder a second run takes up: what is there already
is not measured again. Prints Markdown, and draws for each tune the plot that the pages show, with
what others published of the same pictures.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from cwic import model_file
from cwic.evaluation import plots, tables
from cwic.evaluation.anchors import contestant
from cwic.evaluation.benchmark import evaluate
from cwic.evaluation.quality import METRICS
from cwic.evaluation.rate_distortion import Curve, bd_rate, published_curves

ANCHORS = ("jpeg", "jpeg2000", "webp", "avif", "avif-444")
COMPARED_WITH = ("jpeg2000", "avif", "avif-444")
PSNR, SSIM, MS_SSIM, SSIMULACRA2 = (METRICS[place] for place in (0, 2, 4, 6))
# Which model is drawn in which metric, and beside the published codecs of which kind.
PLOTS = (
    ("psnr", PSNR, "cwic:cwic-psnr", "(MS-SSIM)"),
    ("ms-ssim", MS_SSIM, "cwic:cwic-visual", "(MSE)"),
    ("ssim", SSIM, None, None),
    ("ssimulacra2", SSIMULACRA2, None, None),
)


def main() -> None:
    """Prints Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("kodak", type=Path, help="folder of PNG pictures")
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--plots", type=Path, default=Path("docs/plots"))
    parser.add_argument("-j", "--jobs", type=int, default=2)
    options = parser.parse_args()
    models = model_file.bundled_models()
    ours = [f"cwic:{model.name}" for model in models]
    found = evaluate(
        sorted(options.kodak.glob("*.png")),
        options.out,
        codecs=[*ours, *ANCHORS],
        processes=options.jobs,
        command=["cwic", "evaluate", "KODAK", "--codecs", *ours, *ANCHORS, "--out", "results"],
        show_progress=True,
    )
    if found.failures:
        sys.exit("\n".join(map(str, found.failures)))
    print(", ".join(f"{model.name} {model.identity.hex()}" for model in models) + ".\n")
    print_rates([curve for curve in found.curves if curve.codec in ours])
    print(tables.markdown(tables.bd_rate_rows(found.curves, COMPARED_WITH)))
    print_published(next(curve for curve in found.curves if curve.codec == "jpeg2000"))
    draw(found.curves, options.out, options.plots)


def print_rates(curves: Sequence[Curve]) -> None:
    """The mean points of our models."""
    print("| model | quality | bpp | PSNR dB | SSIM | MS-SSIM | HaarPSI | SSIMULACRA2 | grid |")
    print("|---|---|---|---|---|---|---|---|---|")
    for curve in curves:
        for row in curve.rows:
            print(
                f"| {curve.label} | {row['setting']:g} | {row['bpp']:.3f} | "
                f"{row['psnr_rgb_db']:.2f} | {row['ssim_rgb']:.4f} | {row['ms_ssim_rgb']:.4f} | "
                f"{row['haarpsi']:.4f} | {row['ssimulacra2']:.1f} | {row['grid_ratio']:.3f} |"
            )
    print()


def print_published(anchor: Curve) -> None:
    """BD-rates of what others published, in the metrics that they did."""
    print("What others published of Kodak against our JPEG 2000, BD-rate in %:\n")
    print("| codec | PSNR (RGB) | MS-SSIM (RGB) |\n|---|---|---|")
    for peer in published_curves():
        if not peer.drawn:
            continue
        cells = []
        for metric in (PSNR, MS_SSIM):
            rate = bd_rate(anchor.of(metric), peer.of(metric))
            cells.append("" if rate is None else f"{rate.percent:+.1f}")
        print(f"| {peer.label} | {' | '.join(cells)} |")
    print()


def draw(curves: Sequence[Curve], out: Path, shown: Path) -> None:
    """Draws into the folder of results, and copies what the pages show."""
    shown.mkdir(parents=True, exist_ok=True)
    peers = [peer for peer in published_curves() if peer.drawn]
    for name, metric, model, left_out in PLOTS:
        drawn = [c for c in curves if model is None or c.codec in (model, *ANCHORS)]
        beside = [peer for peer in peers if left_out and left_out not in peer.label]
        figure = plots.plot(metric, drawn, beside, "Means over the 24 pictures of Kodak")
        plots.save(figure, out / "curves" / f"page-{name}")
        shutil.copyfile(out / "curves" / f"page-{name}.png", shown / f"{name}.png")
        label = contestant(model).label if model else "all models"
        print(f"![{metric.label} over rate: {label} and others]({shown.name}/{name}.png)\n")


if __name__ == "__main__":
    main()
