"""The weighted sum of errors that SSIMULACRA2 goes by, as nodes of a graph.

Its numbers are those of :mod:`cwic.ssimulacra2_sum`. As a part of a distortion it is taken of what
lies in windows of 11x11 pixels that are inside the picture; of a large picture, which is refined in
blocks, of each block by itself.
"""

from typing import NamedTuple

import numpy as np

from cwic.families.graph_parts import convolution, halved, summed, total, windowed
from cwic.onnx_graph import Graph
from cwic.ssimulacra2_sum import (
    ABSORBANCE,
    BIAS,
    C2,
    CAME,
    CHANNELS,
    FOURTH_POWER,
    LEAST_POWER,
    LEAST_ROOT,
    MEAN,
    SHARE,
    STRUCTURE,
    WEIGHTS,
    WENT,
    XYB,
    XYB_BIAS,
)

_DARK = 0.04045  # of sRGB, below which it is linear


class Reference(NamedTuple):
    """What a scale needs to know of the original: names of tensors, of its channels of XYB."""

    x: str  # (1, C, h, w)
    mean: str  # (1, C, h - 10, w - 10), as all that follows
    variance: str
    edges: str  # 1 / (1 + how far the middle of a window is from its mean)


def linear_light(graph: Graph, picture: str) -> str:
    """Adds linear light in [0, 1] of sRGB in [0, 1]."""
    add = graph.add
    dark = add("Mul", add("Clip", picture, 0.0, _DARK), 1 / 12.92)
    bright = add("Mul", add("Add", add("Clip", picture, _DARK, 1.0), 0.055), 1 / 1.055)
    # Below the limit `dark` alone changes, above it `bright` alone.
    return add("Add", dark, add("Add", add("Pow", bright, 2.4), -_DARK / 12.92))


def reference(graph: Graph, linear: str, scale: int) -> Reference:
    """Adds what a scale needs to know of an original, from its linear light (1, 3, h, w)."""
    add = graph.add
    x = _xyb(graph, linear, scale)
    channels = len(CHANNELS[scale])
    mean, square, middle = windowed(graph, x, add("Mul", x, x), middle_of=x, channels=channels)
    variance = add("Sub", square, add("Mul", mean, mean))
    edges = add("Div", 1.0, add("Add", add("Abs", add("Sub", middle, mean)), 1.0))
    return Reference(x, mean, variance, edges)


def weighted_sum(
    graph: Graph,
    picture: str,
    references: list[Reference],
    shares: list[str],
    weight: float,
    seeds: dict[str, str],
) -> str:
    """Adds the sum of a picture's errors.

    Args:
        graph: is added to.
        picture: (1, 3, H, W) in [0, 1], sRGB.
        references: what is known of the original, of each scale.
        shares: (1, 1, h - 10, w - 10) how much each window counts, of each scale, sum 1.
        weight: of the sum.
        seeds: is given, for each mean and root, the gradient of the sum by it.

    Returns:
        The sum (1, 1, 1, 1), times its weight.
    """
    linear = linear_light(graph, picture)
    parts = []
    for scale, (of_original, counted) in enumerate(zip(references, shares, strict=True)):
        if scale:
            linear = halved(graph, linear)
        for kind, errors in _errors(graph, linear, of_original, scale).items():
            for way in (MEAN, FOURTH_POWER):
                found = [WEIGHTS[scale].get((each, way, kind), 0) for each in CHANNELS[scale]]
                if not any(found):
                    continue
                taken = _taken(graph, errors, counted, way)
                weights = np.array(found, np.float32).reshape(1, -1, 1, 1)
                seeds[taken] = graph.constant(np.float32(weight * SHARE) * weights)
                parts.append(total(graph, graph.add("Mul", taken, seeds[taken]), (1,)))
    return summed(graph, parts)


def _xyb(graph: Graph, linear: str, scale: int) -> str:
    """Adds the channels of XYB that count (1, C, h, w)."""
    channels = CHANNELS[scale]
    cones = np.array(ABSORBANCE, np.float32)[:, :, None, None]
    absorbed = convolution(graph, linear, cones, np.full(3, BIAS, np.float32))
    roots = graph.add("Pow", absorbed, 1 / 3)
    mixed = np.array(XYB, np.float32)[channels, :, None, None]
    return convolution(graph, roots, mixed, np.array(XYB_BIAS, np.float32)[channels])


def _errors(graph: Graph, linear: str, of_original: Reference, scale: int) -> dict[int, str]:
    """Adds the kinds of errors that count, by kind, each (1, C, h - 10, w - 10)."""
    add = graph.add
    x, mean_x, variance_x, edges_x = of_original
    y = _xyb(graph, linear, scale)
    maps = (y, add("Mul", y, y), add("Mul", x, y))
    channels = len(CHANNELS[scale])
    mean_y, mean_yy, mean_xy, middle = windowed(graph, *maps, middle_of=y, channels=channels)
    covariance = add("Sub", mean_xy, add("Mul", mean_x, mean_y))
    variances = add("Add", variance_x, add("Sub", mean_yy, add("Mul", mean_y, mean_y)))
    apart = add("Sub", mean_x, mean_y)
    brightness = add("Sub", 1.0, add("Mul", apart, apart))
    contrast = add("Div", add("Add", add("Mul", covariance, 2.0), C2), add("Add", variances, C2))
    result = {STRUCTURE: add("Relu", add("Sub", 1.0, add("Mul", brightness, contrast)))}
    wanted = {kind for _, _, kind in WEIGHTS[scale]}
    edges_y = add("Add", add("Abs", add("Sub", middle, mean_y)), 1.0)
    came = add("Sub", add("Mul", edges_y, edges_x), 1.0)
    if CAME in wanted:
        result[CAME] = add("Relu", came)
    if WENT in wanted:
        result[WENT] = add("Relu", add("Mul", came, -1.0))
    return result


def _taken(graph: Graph, errors: str, shares: str, way: int) -> str:
    """Adds the mean of errors (1, C, h, w), or the fourth root of their mean fourth power."""
    add = graph.add
    if way == MEAN:
        return total(graph, add("Mul", errors, shares), (2, 3))
    squares = add("Mul", errors, errors)
    power = total(graph, add("Mul", add("Mul", squares, squares), shares), (2, 3))
    root = add("Pow", add("Add", power, LEAST_POWER), 0.25)
    return add("Sub", root, LEAST_ROOT)
