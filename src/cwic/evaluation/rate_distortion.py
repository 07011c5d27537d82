"""Points of many pictures -> mean curves -> BD-rates; and the published curves of other codecs."""

import csv
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.interpolate import PchipInterpolator

from cwic.evaluation.measurement import Point
from cwic.evaluation.quality import METRICS, Metric

# Where anchors are compared: beyond it few people compress.
LOW_BPP, HIGH_BPP = 0.1, 1.0

# The worst of all pictures stands for this column, their mean for all others.
_WORST = "block_color_error"


@dataclass(frozen=True)
class Curve:
    """Means over pictures of a codec's points, by rising rate."""

    codec: str
    label: str
    rows: tuple[dict[str, float], ...]  # columns of `Point.row` that are measured, and the setting

    def of(self, metric: Metric) -> tuple[list[float], list[float]]:
        """Rates in bpp and values on the metric's scale, where it could be measured."""
        pairs = [(row["bpp"], metric.scale(row[metric.column])) for row in self.rows]
        pairs = [pair for pair in pairs if math.isfinite(pair[1])]
        return [rate for rate, _ in pairs], [value for _, value in pairs]


def measured_metrics(curves: Sequence[Curve]) -> list[Metric]:
    """Those that some curve has points of.

    The others need a program that was not there, or larger pictures.
    """
    return [metric for metric in METRICS if any(curve.of(metric)[0] for curve in curves)]


def mean_curves(
    points: Sequence[Point], labels: dict[str, str], settings: dict[str, tuple[float, ...]]
) -> tuple[list[Curve], list[str]]:
    """Means over the pictures that every codec has at all settings, and the names of those.

    A codec that has no picture at all settings is left out and does not count as missing. Without a
    picture that all others share there is nothing to take means of, and both lists are empty.
    `labels` and `settings` are by codec, `labels` in the order of the result.
    """
    found: dict[str, dict[str, dict[float, Point]]] = defaultdict(lambda: defaultdict(dict))
    for point in points:
        found[point.codec][point.image][point.setting] = point
    complete = {
        codec: {image for image, at in found[codec].items() if set(settings[codec]) <= set(at)}
        for codec in labels
    }
    complete = {codec: images for codec, images in complete.items() if images}
    common = set.intersection(*complete.values()) if complete else set()
    if not common:
        return [], []
    curves = []
    for codec in complete:
        rows = []
        for setting in settings[codec]:
            tables = [found[codec][image][setting].row() for image in common]
            columns = [name for name in tables[0] if name not in ("image", "codec")]
            rows.append(
                {
                    name: float(
                        (np.max if name == _WORST else np.mean)([table[name] for table in tables])
                    )
                    for name in columns
                }
            )
        curves.append(Curve(codec, labels[codec], tuple(sorted(rows, key=lambda row: row["bpp"]))))
    return curves, sorted(common)


class BdRate(NamedTuple):
    """Mean difference in rate at equal quality."""

    percent: float  # below 0: smaller files than the anchor's
    low_bpp: float  # of the anchor, where the comparison begins
    high_bpp: float


def bd_rate(
    anchor: tuple[Sequence[float], Sequence[float]], test: tuple[Sequence[float], Sequence[float]]
) -> BdRate | None:
    """Bjontegaard's delta rate by piecewise cubic Hermite interpolation (PCHIP) of log rate.

    A curve is rates in bpp and quality. The range is what both have of the quality that the anchor
    has at 0.1 to 1 bpp; None where they have none in common. The numbers of points need not be
    equal. Points that a cheaper one beats do not count.
    """
    try:
        (log_a, quality_a), (log_t, quality_t) = (_rising(*curve) for curve in (anchor, test))
    except ValueError:
        return None
    quality_at = PchipInterpolator(log_a, quality_a)
    ends = np.clip(np.log([LOW_BPP, HIGH_BPP]), log_a[0], log_a[-1])
    low = max(float(quality_at(ends[0])), quality_t[0])
    high = min(float(quality_at(ends[1])), quality_t[-1])
    if not low < high:
        return None
    rate_a, rate_t = PchipInterpolator(quality_a, log_a), PchipInterpolator(quality_t, log_t)
    difference = float(rate_t.integrate(low, high) - rate_a.integrate(low, high)) / (high - low)
    low_bpp, high_bpp = (float(np.exp(rate_a(quality))) for quality in (low, high))
    return BdRate(100 * math.expm1(difference), low_bpp, high_bpp)


def _rising(
    rates: Sequence[float], quality: Sequence[float]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Natural log of the rates and quality, both strictly rising."""
    kept: list[tuple[float, float]] = []
    for rate, value in sorted(zip(rates, quality, strict=True)):
        if not kept or (rate > kept[-1][0] and value > kept[-1][1]):
            kept.append((rate, value))
    if len(kept) < 2:
        raise ValueError("expected two points that rise")
    pairs = np.array(kept)
    return np.log(pairs[:, 0]), pairs[:, 1]


class Published(NamedTuple):
    """A curve that others have published, averages over the 24 pictures of Kodak."""

    label: str
    rates_bpp: tuple[float, ...]
    psnr_rgb_db: tuple[float, ...]  # nan where it was not published
    ms_ssim_rgb: tuple[float, ...]
    source: str
    licence: str
    drawn: bool  # as a peer; the others are there to check our anchors against

    def of(self, metric: Metric) -> tuple[list[float], list[float]]:
        """As :meth:`Curve.of`; empty where the metric was not published."""
        values = getattr(self, metric.column, (math.nan,) * len(self.rates_bpp))
        pairs = zip(self.rates_bpp, map(metric.scale, values), strict=True)
        shown = [pair for pair in pairs if math.isfinite(pair[1])]
        return [rate for rate, _ in shown], [value for _, value in shown]


def published_curves() -> list[Published]:
    """The published points that the package carries; the file names source and licence."""
    text = files("cwic.evaluation").joinpath("published_kodak.csv").read_text(encoding="utf-8")
    rows: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in csv.DictReader(text.splitlines()):
        rows[row["codec"]].append(row)

    def column(of: Iterable[dict[str, str]], name: str) -> tuple[float, ...]:
        return tuple(float(row[name] or "nan") for row in of)

    return [
        Published(
            label=label,
            rates_bpp=column(of, "bpp"),
            psnr_rgb_db=column(of, "psnr_rgb_db"),
            ms_ssim_rgb=column(of, "ms_ssim_rgb"),
            source=of[0]["source"],
            licence=of[0]["licence"],
            drawn=of[0]["use"] == "peer",
        )
        for label, of in rows.items()
    ]
