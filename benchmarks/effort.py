"""What an effort of the encoder saves; what it takes is in `effort_times.py`.

    python benchmarks/effort.py FOLDER [--model NAME ...] [--effort N ...] [--quality Q ...]
        [--by-kind] [--count N] [--out results] [-j 1]

Each PNG picture of FOLDER is coded at some qualities without effort, then at the same ones with
each effort, never kept whole. BD-rates against effort 0, of whole files, are means over the
pictures, in brackets of how many where some have no quality in common; SSIMULACRA2 is that at equal
size, in points, and the picture that gains least. With `--by-kind` the name of a picture begins
with its kind, as those of `everyday.py` do. What was measured is kept in the folder of results, and
taken up again. Needs the extra `evaluate`; prints Markdown.
"""

import argparse
import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from everyday import kind_of
from held_out import MS_SSIM, PSNR, SSIMULACRA2, Measure, curve, gain, measured

from cwic import Codec
from cwic.errors import CodecError
from cwic.evaluation.anchors import Contestant, contestant
from cwic.evaluation.measurement import Point
from cwic.evaluation.quality import decibel
from cwic.evaluation.rate_distortion import bd_rate

QUALITIES = (15.0, 30.0, 45.0, 60.0, 75.0)
EFFORTS = (3, 5, 7, 9)

# Similarities in decibels, in which their curves are even.
SSIM = Measure("SSIM", lambda found: decibel(found.ssim_rgb), "+.2f")
SAVED = (PSNR, SSIM, MS_SSIM)


def by_image(points: Sequence[Point], codec: Contestant) -> dict[str, list[Point]]:
    """The points of a codec, by picture."""
    found: dict[str, list[Point]] = {}
    for point in points:
        if point.codec == codec.name:
            found.setdefault(point.image, []).append(point)
    return found


def saved_percent(before: Sequence[Point], after: Sequence[Point], measure: Measure) -> float:
    """BD-rate of one picture; nan where the curves have no quality in common."""
    found = bd_rate(curve(before, measure), curve(after, measure))
    return math.nan if found is None else found.percent


def saved(plain: dict[str, list[Point]], other: dict[str, list[Point]], measure: Measure) -> str:
    """Mean of the BD-rates of pictures whose curves share a quality, and how many, if not all."""
    percents = [saved_percent(plain[image], other[image], measure) for image in plain]
    shared = [percent for percent in percents if not math.isnan(percent)]
    if not shared:
        return ""
    of_some = "" if len(shared) == len(percents) else f" ({len(shared)})"
    return f"{statistics.fmean(shared):+.1f} %{of_some}"


def print_row(
    name: str, plain: dict[str, list[Point]], other: dict[str, list[Point]], effort: int | None
) -> None:
    """Of some pictures: what an effort saves."""
    gains = {
        image: gain(curve(plain[image], SSIMULACRA2), curve(other[image], SSIMULACRA2))
        for image in plain
    }
    least = min(gains, key=lambda image: gains[image])
    cells = [
        name,
        f"{effort}",
        *(saved(plain, other, measure) for measure in SAVED),
        f"{statistics.fmean(gains.values()):+.2f}",
        f"{Path(least).stem} {gains[least]:+.2f}",
    ]
    print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Prints a table in Markdown for each model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", nargs="+", default=["cwic-psnr", "cwic-visual"])
    parser.add_argument("--effort", nargs="+", type=int, default=EFFORTS)
    parser.add_argument("--quality", nargs="+", type=float, default=QUALITIES)
    parser.add_argument("--by-kind", action="store_true")
    parser.add_argument(
        "--count", type=int, help="pictures to take, evenly chosen; all if not given"
    )
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("-j", "--jobs", type=int, default=1)
    options = parser.parse_args()
    paths = sorted(options.folder.glob("*.png"))
    paths = paths[:: -(-len(paths) // options.count)] if options.count else paths
    options.out.mkdir(parents=True, exist_ok=True)
    for model in options.model:
        names = [f"cwic:{model}", *(f"cwic:{model}@effort={n}" for n in options.effort)]
        try:
            codecs = [replace(contestant(n), settings=tuple(options.quality)) for n in names]
        except CodecError as error:
            sys.exit(str(error))
        points = measured(paths, codecs, options.out / "effort.jsonl", options.jobs)
        loaded = Codec.load(model)
        qualities = ", ".join(f"{quality:g}" for quality in options.quality)
        print(
            f"\n{loaded.name} {loaded.identity.hex()}, {len(paths)} pictures, qualities "
            f"{qualities}; saved at equal quality; SSIMULACRA2 at equal size.\n"
        )
        print("| pictures | effort | PSNR | SSIM | MS-SSIM | SSIMULACRA2 | least |")
        print("|---|---|---|---|---|---|---|")
        plain = by_image(points, codecs[0])
        kinds = {"all": list(plain)}
        if options.by_kind:
            kinds = {}
            for image in plain:
                kinds.setdefault(kind_of(image), []).append(image)
        for kind, images in kinds.items():
            of_kind = {image: plain[image] for image in images}
            for codec in codecs[1:]:
                label = f"{kind} ({len(images)})"
                print_row(label, of_kind, by_image(points, codec), codec.effort)


if __name__ == "__main__":
    main()
