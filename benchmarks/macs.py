"""Multiplications and numbers of a model's networks, counted from its file.

Needs onnx, which the extras `train` and `dev` bring.
"""

import re

import numpy as np
from onnx import ModelProto, helper, load_from_string, shape_inference

from cwic.model_file import ModelFile

__all__ = ["ENCODER_GRAPHS", "kmacs_per_pixel", "parameters"]

# Graphs that decoding does not need.
ENCODER_GRAPHS = ("analysis", "hyper_analysis")

_SIDE_PX = 256
_LATENT_PX = {"flagship": 16, "cvpr2018": 8}

# Of the networks that take the coding steps of the flagship: pixels along the side of a cell at
# which a layer computes. At 16 a step computes one of the two colours of a checkerboard.
_STEP_LAYERS = {
    "hyper_64": 64,
    "to_32": 64,
    "hyper_32": 32,
    "to_16": 32,
    "from_planes": 16,
    "absorb_group": 16,
    "hidden": 16,
    "head": 16,
}
_STEP_WEIGHT = re.compile(r"(?:mean|scale)\.(\w+?)(?:\.(\d+))?\.weight")


def kmacs_per_pixel(model: ModelFile) -> dict[str, float]:
    """Thousands of multiplications for a pixel, by graph, and "coder" for the coder's networks.

    Those of `cvpr2018` code one bit or level at a time: counted as if every bit were kept.
    """
    counted = {name: _graph_kmacs(graph, name, model) for name, graph in model.graphs.items()}
    if model.family == "flagship":
        last = len(model.decoding["groups"]) - 1
        counted["coder"] = (
            sum(
                array.size
                * _colours(found[1], found[2] == str(last))
                / 2
                / _STEP_LAYERS[found[1]] ** 2
                for name, array in model.arrays.items()
                if (found := _STEP_WEIGHT.fullmatch(name))
            )
            / 1000
        )
    else:
        cell_pixels = _LATENT_PX[model.family] ** 2
        bits = model.decoding["code_channels"]
        counted["coder"] = sum(
            int(np.count_nonzero(array)) * (bits if name.startswith("code.") else 1)
            for name, array in model.arrays.items()
            if name.endswith(".weight")
        ) / (cell_pixels * 1000)
    return counted


def parameters(model: ModelFile) -> dict[str, int]:
    """How many trained numbers there are, by graph, and those of the coder's networks, "coder"."""
    counted = {
        name: sum(
            int(np.prod(weight.dims)) for weight in _loaded(graph).graph.initializer if weight.dims
        )
        for name, graph in model.graphs.items()
    }
    counted["coder"] = sum(
        array.size
        for name, array in model.arrays.items()
        if name.endswith((".weight", ".bias", ".place"))
    )
    return counted


def _colours(layer: str, is_last_group: bool) -> int:
    """How many of the two colours a layer computes for one picture.

    Both colours of a group are absorbed, but of the last group only the first: nothing comes after.
    """
    if layer in ("hidden", "head") or (layer == "absorb_group" and is_last_group):
        return 1
    return 2


def _loaded(graph: bytes) -> ModelProto:
    return load_from_string(graph)


def _graph_kmacs(data: bytes, name: str, model: ModelFile) -> float:
    """Thousands of multiplications for a pixel of a graph's convolutions."""
    graph = _loaded(data).graph
    for given in graph.input:
        cells = 1 if given.name == "pixels" else _LATENT_PX[model.family]
        for dimension in given.type.tensor_type.shape.dim:
            if dimension.dim_param:
                dimension.dim_value = _SIDE_PX // cells
    whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    inferred = shape_inference.infer_shapes(whole, data_prop=True).graph
    shapes = {
        value.name: [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        for value in (*inferred.value_info, *inferred.output, *inferred.input)
    } | {weight.name: list(weight.dims) for weight in graph.initializer}
    total = 0
    for node in graph.node:
        if node.op_type == "Conv":
            height, width = shapes[node.output[0]][2:]
            weight = shapes[node.input[1]]
            assert height > 0, f"{name}: {node.name}: expected a known size"
            assert len(weight) == 4, f"{name}: {node.name}: expected 4 dimensions, found {weight}"
            total += height * width * int(np.prod(weight))
    return total / _SIDE_PX**2 / 1000
