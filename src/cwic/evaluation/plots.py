"""Rate-distortion curves as PNG and SVG."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cwic.atomic_file import write_file
from cwic.evaluation.quality import Metric
from cwic.evaluation.rate_distortion import Curve, Published

_SHOWN_BPP = 1.25


def plot(
    metric: Metric, curves: Sequence[Curve], published: Sequence[Published], title: str
) -> Figure:
    """One metric over the rate: ours thick, anchors thin, what others published dashed.

    `published` are of the same pictures; those without this metric are left out.
    """
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    axes = figure.add_subplot()
    for number, curve in enumerate(curves):
        rates, values = curve.of(metric)
        ours = curve.codec.startswith("cwic")
        axes.plot(
            rates,
            values,
            marker="o" if ours else ".",
            linewidth=2.4 if ours else 1.2,
            color=f"C{number % 10}",
            label=curve.label,
            zorder=3 if ours else 2,
        )
    for number, peer in enumerate(peer for peer in published if peer.of(metric)[0]):
        rates, values = peer.of(metric)
        shade = 0.25 + 0.5 * (number % 4) / 3
        style = ((0, (5, 2)), (0, (1, 1)), (0, (5, 1, 1, 1)))[number // 4 % 3]
        axes.plot(
            rates,
            values,
            linestyle=style,
            linewidth=1,
            color=str(shade),
            label=peer.label,
            zorder=1,
        )
    axes.set_xlim(0, _SHOWN_BPP)
    _fit_height(axes)
    axes.set_xlabel("bits per pixel of the whole file")
    axes.set_ylabel(metric.label)
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize=7, ncols=2)
    return figure


def _fit_height(axes: Axes) -> None:
    """Sets the vertical range to that of what lies within the horizontal one."""
    points = np.concatenate([line.get_xydata() for line in axes.lines] or [np.empty((0, 2))])
    values = points[points[:, 0] <= _SHOWN_BPP, 1]
    if values.size:
        margin = 0.04 * np.ptp(values) or 1
        axes.set_ylim(values.min() - margin, values.max() + margin)


def save(figure: Figure, path: Path) -> str:
    """Writes PATH.png and PATH.svg, and returns the text of the latter."""
    image, drawing = io.BytesIO(), io.BytesIO()
    figure.savefig(image, format="png", dpi=130)
    # The same text for the same numbers.
    with rc_context({"svg.hashsalt": "cwic", "svg.fonttype": "none"}):
        figure.savefig(drawing, format="svg", metadata={"Date": None})
    write_file(path.with_suffix(".png"), image.getvalue())
    write_file(path.with_suffix(".svg"), drawing.getvalue())
    return drawing.getvalue().decode()
