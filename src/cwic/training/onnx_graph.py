"""A torch module as an ONNX graph: checked, reproducible, with its weights in half precision."""

import logging
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

_OPSET = 18


class Input(NamedTuple):
    """An input of a graph; height and width are free, and the same for all inputs."""

    name: str
    example: Tensor
    axes: tuple[int, int]  # of height and width


def onnx_graph(module: nn.Module, inputs: Sequence[Input], outputs: Sequence[str]) -> bytes:
    """The graph of a module in evaluation mode on the CPU, inputs in the order of its arguments."""
    height, width = torch.export.Dim("height", min=1), torch.export.Dim("width", min=1)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own notes on its internals
        program = torch.onnx.export(
            module,
            tuple(given.example for given in inputs),
            dynamo=True,
            opset_version=_OPSET,
            input_names=[given.name for given in inputs],
            output_names=list(outputs),
            dynamic_shapes=tuple({given.axes[0]: height, given.axes[1]: width} for given in inputs),
            verbose=False,
        )
    assert program is not None
    graph = onnx.load_model_from_string(program.model_proto.SerializeToString())
    _strip_notes(graph)
    _halve_weights(graph)
    _pool_before_branches(graph)
    onnx.checker.check_model(graph)
    data: bytes = graph.SerializeToString(deterministic=True)
    return data


def _strip_notes(graph: onnx.ModelProto) -> None:
    """Drop the exporter's notes: they hold source lines and would make the identity wander."""
    del graph.metadata_props[:]
    del graph.graph.metadata_props[:]
    del graph.graph.value_info[:]
    graph.producer_version = ""
    for part in (*graph.graph.node, *graph.graph.input, *graph.graph.output):
        part.doc_string = ""
        del part.metadata_props[:]


def _halve_weights(graph: onnx.ModelProto) -> None:
    """Store float32 weights as float16 with a cast behind them; folded when a session starts."""
    casts = []
    for tensor in graph.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        name = tensor.name
        halved = numpy_helper.from_array(
            numpy_helper.to_array(tensor).astype(np.float16), name + "_half"
        )
        tensor.CopyFrom(halved)
        casts.append(
            onnx.helper.make_node("Cast", [name + "_half"], [name], to=onnx.TensorProto.FLOAT)
        )
    for cast in reversed(casts):
        graph.graph.node.insert(0, cast)


def _pool_before_branches(graph: onnx.ModelProto) -> None:
    """Put a pooling of 1x1, which changes nothing, between a shuffle and a residual block.

    ONNX Runtime computes convolutions in a layout of its own, of which DepthToSpace knows nothing.
    It brings a tensor into that layout for a convolution, but not for the addition behind it, and
    then adds in the plain one, with two more conversions. For a pooling it does.
    """
    nodes = graph.graph.node
    used = Counter(name for node in nodes for name in node.input)
    for node in [node for node in nodes if node.op_type == "DepthToSpace"]:
        name = node.output[0]
        if used[name] < 2:
            continue
        node.output[0] = name + "_shuffled"
        pool = onnx.helper.make_node("MaxPool", [node.output[0]], [name], kernel_shape=[1, 1])
        nodes.insert(list(nodes).index(node) + 1, pool)
