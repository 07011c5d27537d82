"""Curves and points as files that other programs read: CSV, CompressAI's JSON, Markdown."""

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cwic.atomic_file import write_file
from cwic.evaluation.quality import METRICS
from cwic.evaluation.rate_distortion import Curve, bd_rate, measured_metrics

# CompressAI's names of what it measures too, and ours in the same manner.
_COMPRESSAI = {
    "bpp": "bpp",
    "psnr-rgb": "psnr_rgb_db",
    "psnr-y": "psnr_y_db",
    "ssim-rgb": "ssim_rgb",
    "ssim-y": "ssim_y",
    "ms-ssim-rgb": "ms_ssim_rgb",
    "haarpsi": "haarpsi",
    "ssimulacra2": "ssimulacra2",
    "butteraugli": "butteraugli",
    "encoding_time": "encode_s",
    "decoding_time": "decode_s",
}


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """A table with the keys of the first row as its head."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_file(path, text.getvalue().encode())


def write_compressai(folder: Path, curve: Curve, facts: str, dataset: str) -> None:
    """A curve in the schema of CompressAI's results, which the scripts of papers read."""
    folder.mkdir(exist_ok=True)
    results = {
        name: [row[column] for row in curve.rows]
        for name, column in _COMPRESSAI.items()
        if all(math.isfinite(row[column]) for row in curve.rows)
    }
    document = {
        "name": curve.label,
        "description": f"whole files; {facts}",
        "meta": {"dataset": dataset, "codec": curve.codec},
        "results": results,
    }
    data = json.dumps(document, indent=2, allow_nan=False).encode()
    write_file(folder / f"{file_name(curve.codec)}.json", data)


def bd_rate_rows(curves: Sequence[Curve], anchors: Iterable[str]) -> list[dict[str, Any]]:
    """BD-rate of every curve against every anchor among them in every metric that was measured.

    `low_bpp` and `high_bpp` are where on the anchor's curve the comparison begins and ends.
    """
    rows = []
    metrics = measured_metrics(curves)
    for anchor in (curve for curve in curves if curve.codec in set(anchors)):
        for curve in curves:
            if curve is anchor:
                continue
            for metric in metrics:
                rate = bd_rate(anchor.of(metric), curve.of(metric))
                rows.append(
                    {
                        "anchor": anchor.label,
                        "codec": curve.label,
                        "metric": metric.column,
                        "bd_rate_percent": None if rate is None else round(rate.percent, 2),
                        "low_bpp": None if rate is None else round(rate.low_bpp, 3),
                        "high_bpp": None if rate is None else round(rate.high_bpp, 3),
                    }
                )
    return rows


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The BD-rates as one table for each anchor; shorter ranges than 0.1 to 1 bpp are named."""
    parts = []
    for anchor, lines in bd_rates_against(rows).items():
        parts.append(f"BD-rate against {anchor}, %: below 0 is smaller at equal quality.\n")
        parts.append("| " + " | ".join(lines[0]) + " |")
        parts.append("|" + "---|" * len(lines[0]))
        parts += ["| " + " | ".join(line.values()) + " |" for line in lines]
        parts.append("")
    return "\n".join(parts)


def bd_rates_against(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, str]]]:
    """By anchor, a line for each other codec: its name and a cell for each metric."""
    lines: dict[str, dict[str, dict[str, str]]] = {}
    for row in rows:
        line = lines.setdefault(row["anchor"], {}).setdefault(row["codec"], {"codec": row["codec"]})
        line[_TITLES[row["metric"]]] = _cell(row)
    return {anchor: list(of_anchor.values()) for anchor, of_anchor in lines.items()}


_TITLES = {metric.column: metric.label.partition(", ")[0] for metric in METRICS}


def _cell(row: dict[str, Any]) -> str:
    if row["bd_rate_percent"] is None:
        return "no common range"
    whole = row["low_bpp"] <= 0.15 and row["high_bpp"] >= 0.9
    where = "" if whole else f" ({row['low_bpp']:.2f} to {row['high_bpp']:.2f} bpp)"
    return f"{row['bd_rate_percent']:+.1f}{where}"


def file_name(codec: str) -> str:
    """A codec's name as that of a file."""
    return re.sub(r"[^\w.-]+", "-", codec).strip("-")
