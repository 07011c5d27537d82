"""`cwic evaluate`: measures, and writes everything that is said about it into one folder.

    points.jsonl          every point with what it depends on; what a second run takes up
    points.csv            the same for spreadsheets
    averages.csv          means over the pictures
    bd_rate.csv, .md      against every anchor
    compressai/*.json     curves in CompressAI's schema
    curves/*.png, *.svg
    report.html           all of it with pictures, in one file
    environment.json      command, machine and versions

Owns the order of the steps and the words of the report.
"""

import json
import os
import platform
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib import metadata
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from tqdm import tqdm

from cwic import __version__
from cwic.atomic_file import write_file
from cwic.errors import CodecError
from cwic.evaluation import measurement, plots, report, tables
from cwic.evaluation.anchors import (
    ANCHORS,
    Contestant,
    contestant,
    default_names,
    plain_name,
)
from cwic.evaluation.rate_distortion import (
    Curve,
    mean_curves,
    measured_metrics,
    published_curves,
)

# Of the gallery.
_SHOWN_BPP = 0.25
_SHOWN_PICTURES = 4
_SHOWN_PX = (768, 512)

_METHOD = (
    "Bits per pixel are those of whole files. Pictures are compared after rounding to 8 bits; PSNR "
    "of R, G and B together and of luma (0.299 R + 0.587 G + 0.114 B); SSIM with a Gaussian window "
    "of 11x11, sigma 1.5; MS-SSIM with five scales, in dB -10 log10(1 - x); HaarPSI (Reisenhofer "
    "et al. 2018); SSIMULACRA2 of pictures with sides of 225 px or more; where libjxl's program is "
    "installed, Butteraugli's 3-norm for a screen of 80 nits, lower is better. edge_ratio is the "
    "squared error of the worst outermost line, corner_ratio that of the worst corner of 16x16, "
    "over that of what lies 16 px inside plus 0.5. grid_ratio is the luma gradient across every "
    "eighth pixel line over that across the others, relative to the original's; block_color_error "
    "the largest error of the mean colour of a 64x64 block, of 255, in the worst picture. Times "
    "are seconds of the processor, of one run with one thread."
)

_KODAK = [f"kodim{number:02}" for number in range(1, 25)]


@dataclass(frozen=True)
class Evaluation:
    """What a run came to."""

    measured: int  # points of this run
    reused: int  # points of earlier runs
    curves: list[Curve]
    failures: list[measurement.Failure]


def evaluate(
    paths: Sequence[Path],
    out: Path,
    *,
    codecs: Sequence[str] | None = None,
    processes: int = 1,
    command: Sequence[str] = (),
    show_progress: bool = False,
) -> Evaluation:
    """Rate-distortion of codecs over pictures, with tables, plots and a page.

    Points that are in the folder `out` already are not measured again. Codecs are `jpeg`,
    `jpeg2000`, `webp`, `avif`, `avif-444`, `jpegxl`, `heic`, `cwic:MODEL`,
    `cwic:MODEL@effort=N`; None: all that are here, without effort. A model is an anchor too where
    it is measured with an effort. `processes` measure at the same time, one thread each. The report
    gives `command` as the way to repeat it.

    Raises:
        CodecError: a codec is unknown or not installed, or nothing could be measured at all.
    """
    named = {path.name: path for path in dict.fromkeys(paths)}
    if len(named) < len(set(paths)):
        twice = next(path for path in paths if named[path.name] != path)
        raise CodecError(f"{twice}: expected pictures of different names, found two {twice.name}")
    contestants = [contestant(name) for name in dict.fromkeys(codecs or default_names())]
    out.mkdir(parents=True, exist_ok=True)
    store = measurement.Store(out / "points.jsonl")
    jobs, failures = measurement.jobs_of(list(named.values()), contestants)
    num_points = sum(len(job.settings) for job in jobs)
    missing = [
        job._replace(settings=left)
        for job in jobs
        if (left := tuple(s for s in job.settings if not store.has(measurement.point_key(job, s))))
    ]
    reused = num_points - sum(len(job.settings) for job in missing)
    with tqdm(
        total=num_points, initial=reused, unit=" points", disable=None if show_progress else True
    ) as bar:
        for result in measurement.measure_all(missing, processes):
            store.add(result.points)
            failures += result.failures
            bar.update(len(result.job.settings))
    points = store.select(jobs)
    if not points:
        first = f", the first: {failures[0]}" if failures else ""
        raise CodecError(f"expected pictures that can be measured, found none{first}")
    labels = {codec.name: codec.label for codec in contestants}
    settings = {codec.name: codec.settings for codec in contestants}
    curves, averaged = mean_curves(points, labels, settings)
    run = _Run(out, contestants, points, curves, averaged, failures, command)
    run.write(named)
    return Evaluation(len(points) - reused, reused, curves, failures)


@dataclass(frozen=True)
class _Run:
    """Everything that the files of a run are made of."""

    out: Path
    contestants: Sequence[Contestant]
    points: Sequence[measurement.Point]
    curves: Sequence[Curve]
    averaged: Sequence[str]  # names of the pictures in the means
    failures: Sequence[measurement.Failure]
    command: Sequence[str]

    def write(self, paths: dict[str, Path]) -> None:
        """All files; `paths` leads from names to pictures."""
        facts = {codec.name: codec.facts for codec in self.contestants}
        efforts = {codec.name: codec.effort for codec in self.contestants}
        dataset = "kodak" if self._is_kodak() else f"{len(self.averaged)} pictures"
        averages = [
            {
                "codec": curve.codec,
                "effort": efforts[curve.codec],
                "pictures": len(self.averaged),
                **row,
            }
            for curve in self.curves
            for row in curve.rows
        ]
        anchors = {*ANCHORS, *(plain_name(name) for name, effort in efforts.items() if effort)}
        rates = tables.bd_rate_rows(self.curves, anchors)
        rows = [{**point.row(), "effort": efforts[point.codec]} for point in self.points]
        tables.write_csv(self.out / "points.csv", rows)
        tables.write_csv(self.out / "averages.csv", averages)
        tables.write_csv(self.out / "bd_rate.csv", rates)
        write_file(self.out / "bd_rate.md", tables.markdown(rates).encode())
        for curve in self.curves:
            tables.write_compressai(self.out / "compressai", curve, facts[curve.codec], dataset)
        environment = self._environment()
        write_file(self.out / "environment.json", json.dumps(environment, indent=2).encode())

        (self.out / "curves").mkdir(exist_ok=True)
        published = [c for c in published_curves() if c.drawn] if self._is_kodak() else []
        drawings = []
        for metric in measured_metrics(self.curves):
            figure = plots.plot(metric, self.curves, published, f"Means over {dataset}")
            text = plots.save(figure, self.out / "curves" / metric.column)
            drawings.append(text[text.index("<svg") :])
        if not self.curves:
            nothing = "<p>There is no picture that all codecs share at all settings: no means.</p>"
            drawings.append(nothing)
        sections = [
            ("How it was measured", self._method(environment)),
            ("BD-rate", self._bd_rate_html(rates)),
            ("Curves", f'<div class="plots">{"".join(drawings)}</div>'),
            ("Pictures", "".join(map(report.comparison, self._gallery(paths)))),
            ("Means", report.folded(f"{len(averages)} points", report.table(averages))),
        ]
        if published:
            # Whose points the dashed curves are.
            sources = [
                {"codec": c.label, "source": c.source, "licence": c.licence} for c in published
            ]
            sections.insert(3, ("Published curves", report.table(sources)))
        if self.failures:
            listed = "".join(f"<li>{escape(str(failure))}</li>" for failure in self.failures)
            sections.insert(1, ("What failed", f"<ul>{listed}</ul>"))
        title = f"{len(self.contestants)} codecs on "
        title += "the 24 pictures of Kodak" if self._is_kodak() else dataset
        write_file(self.out / "report.html", report.page(title, sections).encode())

    def _is_kodak(self) -> bool:
        return [Path(name).stem.lower() for name in self.averaged] == _KODAK

    def _environment(self) -> dict[str, object]:
        packages = ("cwic numpy pillow onnxruntime torch scipy ssimulacra2 matplotlib").split()
        return {
            "command": shlex.join(self.command),
            "cwic": __version__,
            "python": platform.python_version(),
            "system": platform.platform(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "packages": {name: _version(name) for name in packages},
            "codecs": {
                codec.name: {
                    "setting": codec.setting_name,
                    "settings": codec.settings,
                    **json.loads(codec.facts),
                }
                for codec in self.contestants
            },
            "pictures": list(self.averaged),
        }

    def _method(self, environment: dict[str, object]) -> str:
        return (
            f"<p>{escape(', '.join(codec.label for codec in self.contestants))}.</p>"
            f"<pre>{escape(shlex.join(self.command))}</pre>"
            f"<p>Means over {len(self.averaged)} pictures. {_METHOD}</p>"
            + report.folded(
                "Environment and settings",
                f"<pre>{escape(json.dumps(environment, indent=2))}</pre>",
            )
        )

    def _bd_rate_html(self, rates: Sequence[dict[str, object]]) -> str:
        return (
            "<p>Mean difference in file size at equal quality, by piecewise cubic interpolation "
            "over what both curves share of the quality that the anchor has at 0.1 to 1 bpp; below "
            "0 is smaller than the anchor.</p>"
            + "".join(
                f"<h3>Against {escape(anchor)}, %</h3>{report.table(lines)}"
                for anchor, lines in tables.bd_rates_against(rates).items()
            )
        )

    def _gallery(self, paths: dict[str, Path]) -> list[report.Comparison]:
        """Some pictures, evenly chosen, by every codec at the rate nearest to the one shown."""
        count = min(_SHOWN_PICTURES, len(self.averaged))
        places = np.linspace(0, len(self.averaged) - 1, count).round().astype(int)
        return [self._shown(paths[self.averaged[place]]) for place in places]

    def _shown(self, path: Path) -> report.Comparison:
        pixels = measurement.pixels_of(path)
        versions = [report.Version("original", _middle(pixels), "")]
        for codec in self.contestants:
            points = [p for p in self.points if (p.image, p.codec) == (path.name, codec.name)]
            if not points:
                continue
            nearest = min(points, key=lambda point: abs(np.log(point.bpp / _SHOWN_BPP)))
            decoded = codec.decode(codec.encode(Image.fromarray(pixels), nearest.setting))
            quality = nearest.quality
            caption = (
                f"{nearest.file_bytes:,} B, {nearest.bpp:.3f} bpp, PSNR {quality.psnr_rgb_db:.2f} "
                f"dB, SSIM {quality.ssim_rgb:.4f}, MS-SSIM {quality.ms_ssim_rgb:.4f}, HaarPSI "
                f"{quality.haarpsi:.4f}, SSIMULACRA2 {quality.ssimulacra2:.1f} "
                f"({codec.setting_name} {nearest.setting:g})"
            )
            versions.append(report.Version(codec.label, _middle(np.asarray(decoded)), caption))
        return report.Comparison(path.name, tuple(versions))


def _middle(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """What of a picture is shown: all of it, or the middle of a larger one."""
    width, height = _SHOWN_PX if pixels.shape[1] >= pixels.shape[0] else _SHOWN_PX[::-1]
    top, left = max(pixels.shape[0] - height, 0) // 2, max(pixels.shape[1] - width, 0) // 2
    return pixels[top : top + height, left : left + width]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
