"""The graph of means that a refinement runs, made of what a model file holds.

`means_graph`: means of all latents at once from latents that are known, and the gradient of a
number that depends on them by the latents that they are made of. What a picture loses is in
:mod:`cwic.families.distortion_graphs`.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise

import numpy as np

from cwic.families.flagship.grid import Array
from cwic.families.flagship.step_network import MEAN_SLOPE
from cwic.families.graph_parts import convolution
from cwic.onnx_gradient import add_gradient
from cwic.onnx_graph import Graph, write_graph


def means_graph(arrays: Mapping[str, Array], groups: Sequence[int]) -> bytes:
    """Means of all latents at once, with all latents known, and a gradient through them.

    Args:
        arrays: of the model: `mean.LAYER.weight`, `mean.LAYER.bias`.
        groups: latent channels of each group.

    Returns:
        A graph of `latents` (1, M, h, w); `state` (1, width, h, w), the network's first one;
        `even` (1, 1, h, w), 1 where x + y is even, and `odd`; `by_means` (1, M, h, w), the
        gradient of a number by the means. Outputs, both (1, M, h, w): the means, and the number's
        gradient by the latents that means are made of.
    """
    graph = Graph()
    for name in ("latents", "state", "even", "odd", "by_means"):
        graph.input(name)
    add = graph.add
    starts = list(accumulate(groups, initial=0))
    states = {"even": "state", "odd": "state"}
    means = []

    def conv(x: str, layer: str) -> str:
        weight = arrays[f"mean.{layer}.weight"].astype(np.float32)
        return convolution(graph, x, weight, arrays[f"mean.{layer}.bias"])

    last = len(groups) - 1
    for group, (start, end) in enumerate(pairwise(starts)):
        own = _slice(graph, "latents", start, end)
        predicted = {}
        for step, colour in enumerate(states):
            hidden = conv(_leaky(graph, states[colour]), f"hidden.{2 * group + step}")
            mean = conv(_leaky(graph, hidden), f"head.{2 * group + step}")
            predicted[colour] = add("Mul", mean, colour)
            if group < last or colour == "even":
                absorbed = conv(add("Mul", own, colour), f"absorb_group.{group}")
                states = {name: add("Add", state, absorbed) for name, state in states.items()}
        means.append(add("Add", predicted["even"], predicted["odd"]))
    mean = add("Concat", *means, axis=1)
    seeds = {
        name: _slice(graph, "by_means", start, end)
        for name, (start, end) in zip(means, pairwise(starts), strict=True)
    }
    (gradient,) = add_gradient(graph, seeds, ["latents"])
    graph.outputs = [mean, gradient]
    return write_graph(graph)


def _leaky(graph: Graph, x: str) -> str:
    return graph.add("LeakyRelu", x, alpha=MEAN_SLOPE)


def _slice(graph: Graph, x: str, start: int, end: int) -> str:
    bounds = (np.array([each], np.int64) for each in (start, end, 1, 1))
    return graph.add("Slice", x, *bounds)
