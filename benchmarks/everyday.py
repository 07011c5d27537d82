"""Pictures of every kind at equal file size, by our models, AVIF, WebP, JPEG and JPEG XL.

    python benchmarks/everyday.py FOLDER [--model NAME|PATH ...] [--bpp 0.5 ...] [--out results]
        [--lossless auto|never] [-j 2]

Any folder of pictures; the word of a file's name before the first hyphen is its kind. Of every
codec it is the file whose size is nearest to the one asked for: within 1 % by our models, and by
the others where one of their settings has such a file; smaller where a picture is kept whole.
Colours alone count: pictures are coded as RGB without transparency. JPEG XL takes part where
imagecodecs is installed, and Butteraugli is measured where libjxl's `butteraugli_main` is. What was
measured is kept in the folder of results and not measured again. Needs the extra `evaluate`; prints
Markdown.
"""

import argparse
import json
import math
import multiprocessing
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from cwic.evaluation.anchors import Contestant, contestant, default_names
from cwic.evaluation.compare import of_size
from cwic.evaluation.measurement import (
    Job,
    Point,
    Store,
    jobs_of,
    pixels_of,
    point_key,
    quality_of,
)
from cwic.model_file import DEFAULT_MODEL

# What is said of each beside its name, from its facts.
ANCHORS = {
    "avif-444": "libavif {avif}, speed {speed}",
    "avif": "libavif {avif}, speed {speed}",
    "webp": "libwebp {webp}, method {method}; the format has no 4:4:4",
    "jpeg": "libjpeg-turbo {libjpeg_turbo}, optimised, progressive",
    "jpegxl": "{libjxl}, effort {effort}",
}

# Further from what was asked for than steps of a codec lie apart: it has no such file.
OUT_OF_REACH = 0.1

TOO_SMALL = f"files under {1 - OUT_OF_REACH:.0%}"

MEASURED: dict[str, Callable[[Point], float]] = {
    "SSIMULACRA2": lambda point: point.quality.ssimulacra2,
    "SSIM": lambda point: point.quality.ssim_rgb,
    "an edge": lambda point: point.quality.edge_ratio,
}


def kind_of(image: str) -> str:
    """The word of a file's name before the first hyphen."""
    return Path(image).stem.partition("-")[0]


def pictures_in(folder: Path) -> list[Path]:
    """Every file of a folder whose name is that of a picture that Pillow reads, by name."""
    readable = {
        suffix for suffix, form in Image.registered_extensions().items() if form in Image.OPEN
    }
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in readable and p.is_file())


def at_sizes(codec: Contestant, rates_bpp: Sequence[float]) -> Contestant:
    """A codec whose settings are the sizes asked for."""
    facts = json.loads(codec.facts) | {"size": "nearest"}
    return replace(
        codec,
        setting_name="bpp",
        settings=tuple(rates_bpp),
        facts=json.dumps(facts, sort_keys=True),
    )


def points_of(job: Job) -> list[Point]:
    """A picture by a codec at each size; times are not taken."""
    lossless = json.loads(job.facts).get("lossless", "never")
    codec, pixels = _loaded(job.codec, lossless=lossless), pixels_of(job.path)
    image = Image.fromarray(pixels)
    points = []
    for bpp in job.settings:
        asked_bytes = round(bpp * image.width * image.height / 8)
        data = of_size(codec, image, asked_bytes)
        points.append(
            Point(
                image=job.path.name,
                codec=job.codec,
                setting=bpp,
                width=image.width,
                height=image.height,
                file_bytes=len(data),
                encode_s=math.nan,
                decode_s=math.nan,
                quality=quality_of(pixels, np.asarray(codec.decode(data).convert("RGB"))),
                image_sha256=job.image_sha256,
                facts=job.facts,
            )
        )
    return points


_loaded = cache(contestant)


def measured(
    paths: Sequence[Path], codecs: Sequence[Contestant], out: Path, processes: int
) -> list[Point]:
    """The points of all pictures, from the folder of results as far as they are there."""
    out.mkdir(parents=True, exist_ok=True)
    store = Store(out / "everyday.jsonl")
    jobs, failures = jobs_of(paths, codecs)
    if failures:
        sys.exit("\n".join(map(str, failures)))
    missing = [
        job._replace(settings=left)
        for job in jobs
        if (left := tuple(s for s in job.settings if not store.has(point_key(job, s))))
    ]
    for points in tqdm(_all_points(missing, processes), total=len(missing), unit=" files"):
        store.add(points)
    return store.select(jobs)


def _all_points(jobs: Sequence[Job], processes: int) -> Iterator[list[Point]]:
    if processes == 1 or not jobs:
        yield from map(points_of, jobs)
        return
    # A fork would inherit the locks of ONNX Runtime's threads.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn) as pool:
        yield from pool.map(points_of, jobs)


def print_table(points: Sequence[Point], codecs: Sequence[Contestant]) -> None:
    """A row for each kind and codec, of points at one size."""
    print(
        "| kind | codec | SSIMULACRA2 | its worst picture | Butteraugli | PSNR dB | PSNR of luma "
        f"| SSIM | size, of asked | {TOO_SMALL} | edge, median | edge, worst |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for kind in dict.fromkeys(kind_of(point.image) for point in points):
        for codec in codecs:
            row = [p for p in points if (kind_of(p.image), p.codec) == (kind, codec.name)]
            cells = (
                f"{kind} ({len(row)})",
                codec.label,
                _mean(MEASURED["SSIMULACRA2"], row, ".1f"),
                _named(min, MEASURED["SSIMULACRA2"], row, ".1f"),
                _mean(lambda point: point.quality.butteraugli, row, ".2f"),
                _mean_db(point.quality.psnr_rgb_db for point in row),
                _mean_db(point.quality.psnr_y_db for point in row),
                _mean(MEASURED["SSIM"], row, ".4f"),
                _mean(size_of_asked, row, ".1%"),
                str(sum(is_too_small(point) for point in row) or ""),
                _mean(MEASURED["an edge"], row, ".2f", statistics.median),
                _named(max, MEASURED["an edge"], row, ".2f"),
            )
            print(f"| {' | '.join(cells)} |")
    print()


def size_of_asked(point: Point) -> float:
    """The size of a file, as a share of what was asked for."""
    return point.bpp / point.setting


def sizes(points: Sequence[Point], codec: Contestant) -> str:
    """How far a codec was from what was asked for."""
    shares = [
        size_of_asked(point)
        for point in points
        if point.codec == codec.name and not is_whole(point)
    ]
    whole = sum(is_whole(point) for point in points if point.codec == codec.name)
    reached = [share for share in shares if abs(share - 1) <= OUT_OF_REACH]
    text = codec.label
    if reached:
        ends = f"{min(reached):.1%} to {max(reached):.1%}"
        text += f" {statistics.fmean(reached):.1%} ({ends})"
    if whole:
        text += f", {whole} kept whole"
    outside = len(shares) - len(reached)
    return f"{text}, {outside} out of reach" if outside else text


def is_too_small(point: Point) -> bool:
    """Whether the nearest file of a codec is much smaller, and yet loses something."""
    return size_of_asked(point) < 1 - OUT_OF_REACH and not is_whole(point)


def is_whole(point: Point) -> bool:
    """Whether a picture came back exactly."""
    return math.isinf(point.quality.psnr_rgb_db)


def too_small(points: Sequence[Point]) -> Iterator[str]:
    """A line for each measure that some pictures are too small for."""
    for name, value in MEASURED.items():
        pictures = {
            f"{point.image} ({point.width}x{point.height})"
            for point in points
            if math.isnan(value(point))
        }
        if pictures:
            yield f"Too small for {name}: {', '.join(sorted(pictures))}."


def _mean(
    value: Callable[[Point], float],
    points: Sequence[Point],
    form: str,
    mean: Callable[[Sequence[float]], float] = statistics.fmean,
) -> str:
    values = [value(point) for point in points if not math.isnan(value(point))]
    return f"{mean(values):{form}}" if values else ""


def _mean_db(values: Iterable[float]) -> str:
    """Of those that are finite, with how many are infinite."""
    values = list(values)
    finite = [value for value in values if math.isfinite(value)]
    exact = f"{len(values) - len(finite)} exact" if len(finite) < len(values) else ""
    mean = f"{statistics.fmean(finite):.2f}" if finite else ""
    return f"{mean} ({exact})" if mean and exact else mean or exact


def _named(
    choose: Callable[..., Point],
    value: Callable[[Point], float],
    points: Sequence[Point],
    form: str,
) -> str:
    among = [point for point in points if not math.isnan(value(point))]
    if not among:
        return ""
    chosen = choose(among, key=value)
    return f"{Path(chosen.image).stem} {value(chosen):{form}}"


def main() -> None:
    """Prints Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--model", metavar="NAME|PATH", nargs="+", default=[DEFAULT_MODEL])
    parser.add_argument("--bpp", type=float, nargs="+", default=[0.5])
    parser.add_argument("--lossless", choices=("auto", "never"), default="auto")
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("-j", "--jobs", type=int, default=2)
    options = parser.parse_args()
    paths = pictures_in(options.folder)
    if not paths:
        sys.exit(f"{options.folder}: expected pictures, found none")
    here = default_names()
    names = [*(f"cwic:{model}" for model in options.model), *(n for n in ANCHORS if n in here)]
    codecs = [at_sizes(contestant(name, lossless=options.lossless), options.bpp) for name in names]
    points = measured(paths, codecs, options.out, options.jobs)
    facts = {codec.name: json.loads(codec.facts) for codec in codecs}
    models = (f"{c.label} {facts[c.name]['identity']}" for c in codecs if c.name not in ANCHORS)
    anchors = (
        f"{c.label} ({ANCHORS[c.name].format(**facts[c.name])})"
        for c in codecs
        if c.name in ANCHORS
    )
    print(
        f"{len(paths)} pictures, each of its kind and its number in brackets, means over a kind. "
        f"{', '.join(models)}; {', '.join(anchors)}. "
        "Edge: squared error of the worst of the four outermost lines over that of what lies 16 px "
        "inside, plus 0.5."
    )
    for bpp in options.bpp:
        of_rate = [point for point in points if point.setting == bpp]
        print(f"\nFiles of {bpp:g} bpp:\n")
        print_table(of_rate, codecs)
        print(
            f"Sizes of the files, of the one asked for: mean (range) of those within "
            f"{OUT_OF_REACH:.0%} of it. {'; '.join(sizes(of_rate, codec) for codec in codecs)}."
        )
    for line in too_small(points):
        print(f"\n{line}")


if __name__ == "__main__":
    main()
