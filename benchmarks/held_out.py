"""Weights on held-out crops, by kind: what each model makes of them, and what the second gains.

    python benchmarks/held_out.py DATA RENDERED --model A B ... [--count 12] [--crop-px 250]
        [--quality 5 25 45 65 85] [--out results] [-j 1]

DATA and RENDERED are what `cwic train --data` takes, split as training splits them: the last tenth
of each folder, and all that lies under `held_out/`. A model is a bundled one, a model file, or a
checkpoint of a run, whose averaged weights are exported first. Of each kind it is the centres of
`--count` pictures spread over its folder. Rates are those of whole files, headers and all; nothing
is estimated. Gains are those over the first model at equal size, each picture's curve interpolated
over the logarithm of its size, and averaged over the sizes that both models have. What was
measured is kept in the folder of results. Needs the extras `evaluate` and `train`; prints Markdown.
"""

import argparse
import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from everyday import kind_of as kind_of_crop
from PIL import Image
from tqdm import tqdm

from cwic import model_file
from cwic.errors import CodecError
from cwic.evaluation.anchors import Contestant, contestant
from cwic.evaluation.measurement import Point, Store, jobs_of, measure_all, point_key
from cwic.evaluation.quality import Quality, decibel
from cwic.evaluation.rate_distortion import bd_rate
from cwic.training.data import PictureFile, kind_of, list_pictures, read_pixels
from cwic.training.export import export_checkpoint

HELD_OUT = 0.1  # of each folder, as in the recipes
CHECKPOINT = ".safetensors"

# An exact copy counts as one of a squared error of 1e-4 levels: means stay finite.
MAX_DB = 88.0


class Measure(NamedTuple):
    """A column of the table of gains."""

    label: str
    value: Callable[[Quality], float]
    form: str


GAINS = (
    Measure("PSNR, dB", lambda found: min(found.psnr_rgb_db, MAX_DB), "+.2f"),
    Measure("SSIM", lambda found: found.ssim_rgb, "+.4f"),
    Measure("MS-SSIM, dB", lambda found: min(decibel(found.ms_ssim_rgb), MAX_DB), "+.2f"),
    Measure("SSIMULACRA2", lambda found: found.ssimulacra2, "+.2f"),
)
PSNR, SSIM, MS_SSIM, SSIMULACRA2 = GAINS

Curve = tuple[Sequence[float], Sequence[float]]  # rates in bpp, and what was measured


def crops_of(data: Sequence[Path], count: int, crop_px: int, folder: Path) -> list[Path]:
    """Centres of held-out pictures as PNG files KIND-NAME.png, kind by kind.

    Args:
        data: folders or packs.
        count: pictures of each kind.
        crop_px: side of a crop; smaller pictures are left out.
        folder: to write to.
    """
    by_kind: dict[str, list[PictureFile]] = {}
    for file in list_pictures(data, HELD_OUT).held_out:
        by_kind.setdefault(kind_of(file), []).append(file)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for kind, files in sorted(by_kind.items()):
        for index in sorted(
            {round(i * (len(files) - 1) / max(1, count - 1)) for i in range(count)}
        ):
            name = files[index].name.rpartition(".")[0]
            path = folder / f"{kind}-{name}.png"
            pixels = read_pixels(files[index])
            top, left = ((side - crop_px) // 2 for side in pixels.shape[:2])
            if min(top, left) < 0:
                continue
            crop = pixels[top : top + crop_px, left : left + crop_px]
            Image.fromarray(np.ascontiguousarray(crop)).save(path)
            paths.append(path)
    return paths


def exported(model: str, folder: Path) -> str:
    """A model as :func:`contestant` takes it; the averaged weights of a checkpoint as a file."""
    if not model.endswith(CHECKPOINT):
        return model
    path = Path(model)
    folder.mkdir(parents=True, exist_ok=True)
    output = folder / f"{path.parent.name}-{path.stem}{model_file.EXTENSION}"
    model_file.save(export_checkpoint(path, output.stem), output)
    return str(output)


def measured(
    paths: Sequence[Path], codecs: Sequence[Contestant], results: Path, processes: int
) -> list[Point]:
    """The points of all pictures, from the file of results as far as they are there."""
    store = Store(results)
    jobs, failures = jobs_of(paths, codecs)
    missing = [
        job._replace(settings=left)
        for job in jobs
        if (left := tuple(s for s in job.settings if not store.has(point_key(job, s))))
    ]
    for result in tqdm(measure_all(missing, processes), total=len(missing), unit=" pictures"):
        store.add(result.points)
        failures += result.failures
    if failures:
        sys.exit("\n".join(map(str, failures)))
    return store.select(jobs)


def curve(points: Sequence[Point], measure: Measure) -> Curve:
    """Of one picture by one model, by rising rate; of two files of one size the better."""
    best: dict[float, float] = {}
    for point in points:
        value = measure.value(point.quality)
        best[point.bpp] = max(value, best.get(point.bpp, value))
    rates = sorted(best)
    return rates, [best[rate] for rate in rates]


def gain(anchor: Curve, test: Curve) -> float:
    """How much higher a curve lies than another, over the sizes that both have.

    Returns:
        in units of what was measured; nan where they have no size in common.
    """
    low = max(min(rates) for rates, _ in (anchor, test))
    high = min(max(rates) for rates, _ in (anchor, test))
    if low > high:
        return math.nan
    at = np.linspace(np.log(low), np.log(high), 33)

    def mean(of: Curve) -> npt.NDArray[np.float64]:
        return np.interp(at, np.log(of[0]), of[1])

    return float(np.mean(mean(test) - mean(anchor)))


def mean_curve(points: Sequence[Point], measure: Measure) -> Curve:
    """Means over pictures at each setting, by rising rate."""
    settings = sorted({point.setting for point in points})
    at = [[point for point in points if point.setting == setting] for setting in settings]
    rates = [statistics.fmean(point.bpp for point in row) for row in at]
    values = [statistics.fmean(measure.value(point.quality) for point in row) for row in at]
    order = np.argsort(rates)
    return [rates[i] for i in order], [values[i] for i in order]


def print_gains(
    points: Sequence[Point],
    anchor: Contestant,
    test: Contestant,
    groups: Mapping[str, Sequence[str]],
) -> None:
    """A row for each kind, and means of the kinds of each group, by its name, and of all."""
    print(
        f"\n{test.label} over {anchor.label} at equal size, means over the crops of a kind; "
        "size at equal quality (BD-rate of the mean curves); the crop with the least gain.\n"
    )
    labels = [measure.label for measure in GAINS]
    print(f"| kind | {' | '.join(labels)} | size, PSNR | size, MS-SSIM | least SSIMULACRA2 |")
    print("|" + "---|" * (len(labels) + 4))
    rows: dict[str, tuple[list[float], list[float]]] = {}
    for kind in kinds_of(points):
        by_image: dict[str, dict[str, list[Point]]] = {}
        for point in points:
            if kind_of_crop(point.image) == kind:
                by_image.setdefault(point.image, {}).setdefault(point.codec, []).append(point)
        gains = {
            image: [
                gain(curve(of[anchor.name], measure), curve(of[test.name], measure))
                for measure in GAINS
            ]
            for image, of in by_image.items()
        }
        known = {image: values for image, values in gains.items() if not np.isnan(values).any()}
        means = [statistics.fmean(column) for column in zip(*known.values(), strict=True)] or [
            math.nan
        ] * len(GAINS)
        rates = [
            bd_rate(*(mean_curve(of_kind(points, kind, c.name), m) for c in (anchor, test)))
            for m in (PSNR, MS_SSIM)
        ]
        rows[kind] = (means, [found.percent if found else math.nan for found in rates])
        least = min(known, key=lambda image: known[image][-1]) if known else ""
        worst = f"{Path(least).stem} {known[least][-1]:+.2f}" if known else ""
        print(f"| {kind} ({len(known)}) | {_cells(*rows[kind])} | {worst} |")
    for name, kinds in {**groups, "all": tuple(rows)}.items():
        chosen = [rows[kind] for kind in kinds if kind in rows]
        if chosen:
            mean = (
                [_mean(c) for c in zip(*half, strict=True)] for half in zip(*chosen, strict=True)
            )
            print(f"| mean of {len(chosen)} kinds, {name} | {_cells(*mean)} | |")


def _cells(gains: Sequence[float], rates: Sequence[float]) -> str:
    formed = [f"{value:{measure.form}}" for value, measure in zip(gains, GAINS, strict=True)]
    return " | ".join([*formed, *("" if math.isnan(v) else f"{v:+.1f} %" for v in rates)])


def _mean(values: Sequence[float]) -> float:
    """Of those that are known."""
    known = [value for value in values if not math.isnan(value)]
    return statistics.fmean(known) if known else math.nan


def kinds_of_data(data: Sequence[Path]) -> dict[str, list[str]]:
    """The kinds of held-out pictures below each folder, by its name; of a single one nothing."""
    if len(data) == 1:
        return {}
    found = ((folder.stem, list_pictures([folder], HELD_OUT).held_out) for folder in data)
    return {name: sorted({kind_of(file) for file in files}) for name, files in found}


def kinds_of(points: Sequence[Point]) -> list[str]:
    """In their order."""
    return list(dict.fromkeys(kind_of_crop(point.image) for point in points))


def of_kind(points: Sequence[Point], kind: str, codec: str) -> list[Point]:
    """Of one kind by one model."""
    return [p for p in points if (kind_of_crop(p.image), p.codec) == (kind, codec)]


def print_values(points: Sequence[Point], codecs: Sequence[Contestant]) -> None:
    """A row for each kind, quality and model: means, and medians of the edge ratio."""
    print(
        "\n| kind | quality | model | bpp | PSNR dB | SSIM | MS-SSIM dB | SSIMULACRA2 | "
        "its worst crop | edge, median | worst block's colour |"
    )
    print("|" + "---|" * 11)
    for kind in kinds_of(points):
        for setting in codecs[0].settings:
            for codec in codecs:
                row = [p for p in of_kind(points, kind, codec.name) if p.setting == setting]
                worst = min(row, key=lambda point: point.quality.ssimulacra2)
                means = (
                    f"{statistics.fmean(m.value(p.quality) for p in row):{m.form.lstrip('+')}}"
                    for m in GAINS
                )
                cells = (
                    kind,
                    f"{setting:g}",
                    codec.label,
                    f"{statistics.fmean(p.bpp for p in row):.3f}",
                    *means,
                    f"{Path(worst.image).stem} {worst.quality.ssimulacra2:.1f}",
                    f"{statistics.median(p.quality.edge_ratio for p in row):.2f}",
                    f"{max(p.quality.block_color_error for p in row):.1f}",
                )
                print(f"| {' | '.join(cells)} |")


def main() -> None:
    """Prints Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", type=Path, nargs="+", metavar="DATA")
    parser.add_argument("--model", metavar="NAME|PATH", nargs="+", required=True)
    parser.add_argument("--quality", type=float, nargs="+", default=[5, 25, 45, 65, 85])
    parser.add_argument("--count", type=int, default=12, help="crops of each kind (default: 12)")
    parser.add_argument("--crop-px", type=int, default=250, help="side of a crop, 225 or more")
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("-j", "--jobs", type=int, default=1)
    options = parser.parse_args()
    if options.crop_px < 225:
        parser.error(
            f"--crop-px: expected 225 or more, which SSIMULACRA2 needs, found {options.crop_px}"
        )
    folder = options.out / "held_out"
    try:
        paths = crops_of(options.data, options.count, options.crop_px, folder)
        models = [exported(model, folder) for model in options.model]
        codecs = [
            replace(contestant(f"cwic:{model}"), settings=tuple(options.quality))
            for model in models
        ]
    except CodecError as error:
        sys.exit(str(error))
    if not paths:
        sys.exit(f"expected held-out pictures of {options.crop_px} px a side, found none")
    codecs = [
        replace(codec, label=Path(model).stem) for codec, model in zip(codecs, models, strict=True)
    ]
    points = measured(paths, codecs, options.out / "held_out.jsonl", options.jobs)
    print(
        f"{len(paths)} held-out crops of {options.crop_px}x{options.crop_px}, whole files, by "
        + ", ".join(codec.label for codec in codecs)
        + ". Edge: squared error of the worst of the four outermost lines over that of what lies "
        "16 px inside, plus 0.5. Colour: largest difference of a 64x64 block's mean, of 255."
    )
    for codec in codecs[1:]:
        print_gains(points, codecs[0], codec, kinds_of_data(options.data))
    print_values(points, codecs)


if __name__ == "__main__":
    main()
