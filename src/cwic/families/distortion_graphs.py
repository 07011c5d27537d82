"""Graphs of what a picture loses, made of what a model file holds: no weight is stored twice.

* `distortion_graph`: what a picture loses, and the gradient of that by what it is made of;
* `loss_graph`: what a picture loses that is decoded already;
* `reference_graph`: what both need to know of the original.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cwic.families import ssimulacra2_graphs
from cwic.families.distortion import LOW_FREQUENCY_PX, SCALE_EXPONENTS, Distortion
from cwic.families.graph_parts import halved, summed, total, windowed
from cwic.onnx_gradient import add_gradient
from cwic.onnx_graph import Graph, read_graph, write_graph

# Of SSIM (Wang et al. 2004), for pixels in a range of length 1.
_C1, _C2 = 0.01**2, 0.03**2
_PEAK = 255.0  # of a byte
_LEAST_MEAN = 1e-3  # of a scale's similarity: powers below have no use


class _SsimReference(NamedTuple):
    """What SSIM needs to know of the original at a scale: names of tensors."""

    x: str  # (1, 3, h, w)
    mean_x: str  # under the window (1, 3, h - 10, w - 10), as the variance
    variance_x: str


def exponents(num_scales: int) -> tuple[float, ...]:
    """Of MS-SSIM's scales; what is coarser than the last one counts there."""
    *finer, last = range(num_scales)
    return (*(SCALE_EXPONENTS[scale] for scale in finer), sum(SCALE_EXPONENTS[last:]))


def reference_graph(distortion: Distortion, num_scales: int) -> bytes:
    """What the scales need to know of a picture (1, 3, H, W) in [0, 1], sides multiples of 8.

    Outputs for each scale: the picture (1, 3, h, w), its mean and its variance under the window
    (1, 3, h - 10, w - 10); where SSIMULACRA2 counts, the four of `ssimulacra2_graphs.Reference`.
    """
    graph = Graph()
    x = graph.input("picture")
    if distortion.ssimulacra2:
        linear = ssimulacra2_graphs.linear_light(graph, x)
    for scale in range(num_scales):
        # An output of its own even where nothing is computed.
        x = halved(graph, x) if scale else graph.add("Add", x, 0.0)
        mean, square = windowed(graph, x, graph.add("Mul", x, x))
        variance = graph.add("Sub", square, graph.add("Mul", mean, mean))
        graph.outputs += [x, mean, variance]
        if distortion.ssimulacra2:
            linear = halved(graph, linear) if scale else linear
            graph.outputs += ssimulacra2_graphs.reference(graph, linear, scale)
    return write_graph(graph)


def distortion_graph(
    synthesis: bytes, distortion: Distortion, num_scales: int, *, with_gradient: bool = True
) -> bytes:
    """The distortion of a picture and its gradient by the synthesis' first input.

    Args:
        synthesis: the model's graph.
        distortion: of the tune.
        num_scales: of `Distortion.num_scales`.
        with_gradient: without, half of the work is left out, and the second output.

    Returns:
        A graph of what the synthesis takes, as float32; of the picture (1, 3, H, W) in
        [-0.5, 0.5]; how much each place counts (1, 1, H, W), sum 1, and the same of squares of 16
        pixels; and for each scale what `reference_graph` has of it and how much each window counts,
        sum 1. Outputs: the distortion (1, 1, 1, 1), its gradient (1, M, h, w).
    """
    graph = Graph()
    made_of = read_graph(synthesis)
    for name in made_of.inputs:
        graph.input(name)
    y = _shown(graph, made_of)
    seeds: dict[str, str] = {}
    graph.outputs = [_loss(graph, y, distortion, num_scales, seeds)]
    if with_gradient:
        graph.outputs += add_gradient(graph, seeds, made_of.inputs[:1])
    return write_graph(graph)


def loss_graph(distortion: Distortion, num_scales: int) -> bytes:
    """The distortion (1, 1, 1, 1) of a picture as it is shown, (1, 3, H, W) in [-0.5, 0.5].

    Takes that, then what `distortion_graph` takes behind the inputs of the synthesis.
    """
    graph = Graph()
    y = graph.input("shown")
    graph.outputs = [_loss(graph, y, distortion, num_scales, {})]
    return write_graph(graph)


def _loss(
    graph: Graph, y: str, distortion: Distortion, num_scales: int, seeds: dict[str, str]
) -> str:
    """Adds the distortion of a picture (1, 3, H, W) in [-0.5, 0.5], and inputs; its value."""
    for name in ("reference", "shares", "shares_low"):
        graph.input(name)
    of_ssim: list[_SsimReference] = []
    of_ssimulacra2: list[ssimulacra2_graphs.Reference] = []
    shares_of: list[str] = []
    for scale in range(num_scales):
        names = [f"{name}_{scale}" for name in _SsimReference._fields]
        of_ssim.append(_SsimReference(*map(graph.input, names)))
        if distortion.ssimulacra2:
            names = [f"xyb_{name}_{scale}" for name in ssimulacra2_graphs.Reference._fields]
            of_ssimulacra2.append(ssimulacra2_graphs.Reference(*map(graph.input, names)))
        shares_of.append(graph.input(f"shares_{scale}"))
    add = graph.add

    def squares(errors: str, shares: str, weight: float) -> str:
        """Adds a squared error to the seeds; its value."""
        weighted = add("Mul", errors, add("Mul", shares, weight / 3))
        seeds[errors] = add("Add", weighted, weighted)
        return total(graph, add("Mul", weighted, errors), (1, 2, 3))

    errors = add("Sub", y, "reference")
    parts = [squares(errors, "shares", distortion.mse)]
    if distortion.low_frequencies:
        side = (LOW_FREQUENCY_PX, LOW_FREQUENCY_PX)
        shrunk = add("AveragePool", errors, kernel_shape=side, strides=side)
        parts.append(squares(shrunk, "shares_low", distortion.low_frequencies))
    if num_scales:
        y = add("Add", y, 0.5)
        if distortion.ssim or distortion.ms_ssim:
            # SSIM is of the first scale alone.
            of_scales = of_ssim if distortion.ms_ssim else of_ssim[:1]
            parts.append(_structure(graph, y, distortion, of_scales, shares_of, seeds))
        if distortion.ssimulacra2:
            found = ssimulacra2_graphs.weighted_sum(
                graph, y, of_ssimulacra2, shares_of, distortion.ssimulacra2, seeds
            )
            parts.append(found)
    return summed(graph, parts)


def _shown(graph: Graph, synthesis: Graph) -> str:
    """Adds a synthesis; the name of its picture (1, 3, H, W) in [-0.5, 0.5], not yet of bytes."""
    made = {node.outputs[0]: node for node in synthesis.nodes}
    # At the end stand Mul, by 255 perhaps, Add of 127.5, Clip, and what makes bytes of it.
    end = next(
        (node.outputs[0] for node in reversed(synthesis.nodes) if node.operator == "Clip"), ""
    )
    chain = []
    for operator in ("Clip", "Add", "Mul"):
        node = made.get(end)
        if node is None or node.operator != operator:
            raise ValueError("expected a picture that is scaled, shifted and clipped, found none")
        chain.append(node)
        end = node.inputs[0]
    clip, _, scaled = chain
    behind = synthesis.nodes[synthesis.nodes.index(clip) :]
    shuffles = [node for node in behind if node.operator == "DepthToSpace"]
    kept = synthesis.nodes[: synthesis.nodes.index(scaled)]
    part = Graph(synthesis.inputs, [end], kept, synthesis.arrays)
    used = {name for node in kept for name in node.inputs}
    part.arrays = {name: array for name, array in part.arrays.items() if name in used}
    given = dict(zip(synthesis.inputs, graph.inputs, strict=False))
    x = graph.include(part, given, "synthesis.")[end]
    # Of pixels from -1 to 1, as the paper has them, half.
    scale = float(synthesis.arrays[scaled.inputs[1]]) / _PEAK
    x = x if scale == 1 else graph.add("Mul", x, scale)
    for shuffle in shuffles:
        x = graph.add("DepthToSpace", x, **shuffle.attributes)
    return graph.add("Clip", x, -0.5, 0.5)


def _structure(
    graph: Graph,
    y: str,
    distortion: Distortion,
    references: list[_SsimReference],
    shares_of: list[str],
    seeds: dict[str, str],
) -> str:
    """Adds SSIM and MS-SSIM of a picture in [0, 1]; the value of their part of the distortion."""
    add = graph.add
    means: list[str] = []
    parts = []
    for scale, reference in enumerate(references):
        x, mean_x, variance_x = reference
        shares = shares_of[scale]
        if scale:
            y = halved(graph, y)
        mean_y, mean_yy, mean_xy = windowed(graph, y, add("Mul", y, y), add("Mul", x, y))
        product, square = add("Mul", mean_x, mean_y), add("Mul", mean_y, mean_y)
        covariance = add("Sub", mean_xy, product)
        variances = add("Add", variance_x, add("Sub", mean_yy, square))
        contrast = add(
            "Div",
            add("Add", add("Mul", covariance, 2.0), _C2),
            add("Add", variances, _C2),
        )
        similarity = contrast
        is_whole = scale == len(references) - 1
        if is_whole or (scale == 0 and distortion.ssim):
            squares = add("Add", add("Mul", mean_x, mean_x), square)
            brightness = add(
                "Div",
                add("Add", add("Mul", product, 2.0), _C1),
                add("Add", squares, _C1),
            )
            similarity = add("Mul", contrast, brightness)
        if scale == 0 and distortion.ssim:
            mean = total(graph, add("Mul", similarity, shares), (2, 3))
            seeds[mean] = graph.constant(np.full((1, 3, 1, 1), -distortion.ssim / 3, np.float32))
            loss = add("Mul", add("Sub", 1.0, mean), distortion.ssim / 3)
            parts.append(total(graph, loss, (1,)))
        if distortion.ms_ssim:
            counted = add("Mul", similarity if is_whole else contrast, shares)
            means.append(total(graph, counted, (2, 3)))
    if means:
        parts.append(_product(graph, means, distortion.ms_ssim, seeds))
    return summed(graph, parts)


def _product(graph: Graph, means: Sequence[str], weight: float, seeds: dict[str, str]) -> str:
    """Adds MS-SSIM of the means (1, 3, 1, 1) of all scales; the value of its part."""
    add = graph.add
    powers = exponents(len(means))
    positive = [add("Max", mean, _LEAST_MEAN) for mean in means]
    product = ""
    for mean, exponent in zip(positive, powers, strict=True):
        power = add("Pow", mean, exponent)
        product = add("Mul", product, power) if product else power
    for mean, clipped, exponent in zip(means, positive, powers, strict=True):
        slope = add("Div", add("Mul", product, -weight * exponent / 3), clipped)
        seeds[mean] = slope
    return total(graph, add("Mul", add("Sub", 1.0, product), weight / 3), (1,))
