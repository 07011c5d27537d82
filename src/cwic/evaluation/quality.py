"""Names, units and scales of what is measured; free of torch, so that tables and plots can use it.

How the numbers come about is in :mod:`cwic.evaluation.metrics` and the modules that it names.
"""

import math
from collections.abc import Callable
from typing import NamedTuple


class Quality(NamedTuple):
    """What is measured of one decoded picture; nan where it is too small for a metric."""

    psnr_rgb_db: float
    psnr_y_db: float
    ssim_rgb: float  # mean over the channels R, G and B
    ssim_y: float
    ms_ssim_rgb: float  # five scales, mean over the channels
    haarpsi: float
    ssimulacra2: float
    edge_ratio: float  # worst outermost line over the inside, in squared error
    corner_ratio: float
    grid_ratio: float  # 1 where no 8-pixel grid shows
    block_color_error: float  # of 255: mean of a 64x64 block against the original's, the worst one
    butteraugli: float = math.nan  # its 3-norm, 0 for equal pictures; nan where nobody asked


class Metric(NamedTuple):
    """A quality for plots and BD-rates."""

    column: str  # a field of `Quality`
    label: str
    scale: Callable[[float], float] = float


def decibel(similarity: float) -> float:
    """-10 log10(1 - x): the scale on which MS-SSIM is compared."""
    return math.inf if similarity >= 1 else -10 * math.log10(1 - similarity)


def negated(distance: float) -> float:
    """A distance on a scale that rises with quality, as curves are compared."""
    return -distance


METRICS = (
    Metric("psnr_rgb_db", "PSNR (RGB), dB"),
    Metric("psnr_y_db", "PSNR (Y), dB"),
    Metric("ssim_rgb", "SSIM (RGB)"),
    Metric("ssim_y", "SSIM (Y)"),
    Metric("ms_ssim_rgb", "MS-SSIM (RGB), dB", decibel),
    Metric("haarpsi", "HaarPSI"),
    Metric("ssimulacra2", "SSIMULACRA2"),
    Metric("butteraugli", "Butteraugli (3-norm), negated", negated),
)
