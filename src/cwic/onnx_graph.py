"""ONNX graphs as nodes and arrays: read from a model file's bytes, built, and written.

Just as much of the protocol buffer as graphs of this program use: float arrays, whole numbers, and
attributes of a node that are numbers, lists of numbers or text. What a graph may hold is checked by
:mod:`cwic.onnx_check` before; what it computes is left to whoever builds it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from cwic.onnx_check import content_of, fields

Array = npt.NDArray[Any]
Attribute = int | float | str | tuple[int, ...]

_OPSET, _IR_VERSION = 18, 10

# Numbers of fields, as in onnx.proto.
_MODEL_IR, _MODEL_GRAPH, _MODEL_OPSETS = 1, 7, 8
_OPSET_VERSION = 2
_GRAPH_NODE, _GRAPH_NAME, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 2, 5, 11, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_OPERATOR, _NODE_ATTRIBUTE = 1, 2, 4, 5
_ATTRIBUTE_NAME, _ATTRIBUTE_FLOAT, _ATTRIBUTE_INT, _ATTRIBUTE_TEXT = 1, 2, 3, 4
_ATTRIBUTE_INTS, _ATTRIBUTE_KIND = 8, 20
_KIND_FLOAT, _KIND_INT, _KIND_TEXT, _KIND_INTS = 1, 2, 3, 7
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_RAW = 1, 2, 8, 9
_VALUE_NAME, _VALUE_TYPE = 1, 2
_TYPE_TENSOR, _TENSOR_TYPE_ELEMENT, _TENSOR_TYPE_SHAPE = 1, 1, 2
_SHAPE_DIM, _DIM_VALUE, _DIM_NAME = 1, 1, 2

_FLOAT = 1
_ELEMENTS: dict[int, np.dtype[Any]] = {
    1: np.dtype("<f4"),
    6: np.dtype("<i4"),
    7: np.dtype("<i8"),
    10: np.dtype("<f2"),
}
_NUMBERS = {dtype: number for number, dtype in _ELEMENTS.items()}


@dataclass(frozen=True)
class Node:
    """One operator."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Attribute] = field(default_factory=dict)


@dataclass
class Graph:
    """Nodes in an order in which they can be computed.

    Attributes:
        inputs: names; all are float32 of four axes, of any sizes.
        outputs: names.
        nodes: what is computed.
        arrays: weights and constants by name.
    """

    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    arrays: dict[str, Array] = field(default_factory=dict)

    def add(self, operator: str, *inputs: "str | Array | float", **attributes: Attribute) -> str:
        """The name of what a new node computes.

        Args:
            operator: of the standard ONNX domain.
            inputs: names of what is there already, or constants.
            attributes: of the node.
        """
        output = f"t{len(self.nodes)}"
        names = tuple(each if isinstance(each, str) else self.constant(each) for each in inputs)
        self.nodes.append(Node(operator, names, (output,), attributes))
        return output

    def constant(self, value: "Array | float") -> str:
        """The name of an array; numbers become float32."""
        array = np.float32(value) if isinstance(value, float | int) else value
        name = f"c{len(self.arrays)}"
        self.arrays[name] = np.asarray(array)
        return name

    def input(self, name: str) -> str:
        """A new input."""
        self.inputs.append(name)
        return name

    def include(self, other: "Graph", renamed: dict[str, str], prefix: str) -> dict[str, str]:
        """Take over another graph's nodes and arrays.

        Args:
            other: of which the inputs in `renamed` are there already.
            renamed: names here of the other's inputs.
            prefix: of all other names.

        Returns:
            The names here of all that the other graph computes.
        """
        names = dict(renamed)
        for name, array in other.arrays.items():
            names[name] = prefix + name
            self.arrays[names[name]] = array
        for node in other.nodes:
            names |= {output: prefix + output for output in node.outputs}
            inputs = tuple(names[each] if each else "" for each in node.inputs)
            outputs = tuple(names[each] for each in node.outputs)
            self.nodes.append(Node(node.operator, inputs, outputs, node.attributes))
        return names


def read_graph(data: bytes) -> Graph:
    """A graph of a model file; weights in half precision become float32.

    Args:
        data: a serialized `ModelProto` that :func:`cwic.onnx_check.check_graph` accepts.

    Raises:
        ValueError: it holds what this module does not read.
    """
    for number, value in fields(memoryview(data)):
        if number == _MODEL_GRAPH:
            return _unhalved(_read_graph(content_of(value)))
    raise ValueError("expected a graph, found none")


def _read_graph(data: memoryview) -> Graph:
    graph = Graph()
    for number, value in fields(data):
        if number == _GRAPH_NODE:
            graph.nodes.append(_read_node(content_of(value)))
        elif number == _GRAPH_INITIALIZER:
            name, array = _read_tensor(content_of(value))
            graph.arrays[name] = array
        elif number in (_GRAPH_INPUT, _GRAPH_OUTPUT):
            names = graph.inputs if number == _GRAPH_INPUT else graph.outputs
            names += [
                _text(each) for kind, each in fields(content_of(value)) if kind == _VALUE_NAME
            ]
    return graph


def _unhalved(graph: Graph) -> Graph:
    """Without the casts behind weights in half precision."""
    nodes = []
    for node in graph.nodes:
        if node.operator == "Cast" and node.inputs[0] in graph.arrays:
            if node.attributes["to"] != _FLOAT:
                raise ValueError(f"expected weights cast to float32, found {node.attributes}")
            graph.arrays[node.outputs[0]] = graph.arrays.pop(node.inputs[0]).astype(np.float32)
        else:
            nodes.append(node)
    graph.nodes = nodes
    return graph


def _read_node(data: memoryview) -> Node:
    inputs, outputs, operator = [], [], ""
    attributes: dict[str, Attribute] = {}
    for number, value in fields(data):
        if number == _NODE_INPUT:
            inputs.append(_text(value))
        elif number == _NODE_OUTPUT:
            outputs.append(_text(value))
        elif number == _NODE_OPERATOR:
            operator = _text(value)
        elif number == _NODE_ATTRIBUTE:
            name, attribute = _read_attribute(content_of(value))
            attributes[name] = attribute
    return Node(operator, tuple(inputs), tuple(outputs), attributes)


def _read_attribute(data: memoryview) -> tuple[str, Attribute]:
    name, kind = "", 0
    found: dict[int, Attribute] = {}
    whole: list[int] = []
    for number, value in fields(data):
        if number == _ATTRIBUTE_NAME:
            name = _text(value)
        elif number == _ATTRIBUTE_KIND:
            assert isinstance(value, int)
            kind = value
        elif number == _ATTRIBUTE_INT:
            assert isinstance(value, int)
            found[_KIND_INT] = _signed(value)
        elif number == _ATTRIBUTE_FLOAT:
            found[_KIND_FLOAT] = float(np.frombuffer(content_of(value), "<f4")[0])
        elif number == _ATTRIBUTE_TEXT:
            found[_KIND_TEXT] = _text(value)
        elif number == _ATTRIBUTE_INTS:
            whole += _whole_numbers(value)
    found[_KIND_INTS] = tuple(whole)
    if kind not in found:
        raise ValueError(f"expected an attribute of numbers or text, found {name!r}")
    return name, found[kind]


def _read_tensor(data: memoryview) -> tuple[str, Array]:
    shape: list[int] = []
    name, element, raw = "", 0, memoryview(b"")
    for number, value in fields(data):
        if number == _TENSOR_DIMS:
            shape += _whole_numbers(value)
        elif number == _TENSOR_TYPE:
            assert isinstance(value, int)
            element = value
        elif number == _TENSOR_NAME:
            name = _text(value)
        elif number == _TENSOR_RAW:
            raw = content_of(value)
    if element not in _ELEMENTS:
        raise ValueError(f"expected weights of a type in {sorted(_ELEMENTS)}, found {element}")
    try:
        return name, np.frombuffer(raw, _ELEMENTS[element]).reshape(shape)
    except ValueError as error:
        raise ValueError(f"{name}: expected weights as raw bytes: {error}") from error


def _text(value: "int | memoryview") -> str:
    return bytes(content_of(value)).decode("utf-8", "replace")


def _whole_numbers(value: "int | memoryview") -> list[int]:
    """One number, or several packed into bytes."""
    if isinstance(value, int):
        return [_signed(value)]
    result, number, shift = [], 0, 0
    for byte in value:
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            result.append(_signed(number))
            number, shift = 0, 0
    return result


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def write_graph(graph: Graph) -> bytes:
    """A graph as a serialized `ModelProto`."""
    parts = [_bytes(_GRAPH_NAME, b"graph")]
    parts += [_bytes(_GRAPH_NODE, _node(node)) for node in graph.nodes]
    parts += [_bytes(_GRAPH_INITIALIZER, _tensor(*each)) for each in graph.arrays.items()]
    parts += [_bytes(_GRAPH_INPUT, _value(name, axes=4)) for name in graph.inputs]
    parts += [_bytes(_GRAPH_OUTPUT, _value(name, axes=None)) for name in graph.outputs]
    opset = _bytes(_MODEL_OPSETS, _number(_OPSET_VERSION, _OPSET))
    return _number(_MODEL_IR, _IR_VERSION) + opset + _bytes(_MODEL_GRAPH, b"".join(parts))


def _node(node: Node) -> bytes:
    parts = [_bytes(_NODE_INPUT, name.encode()) for name in node.inputs]
    parts += [_bytes(_NODE_OUTPUT, name.encode()) for name in node.outputs]
    parts.append(_bytes(_NODE_OPERATOR, node.operator.encode()))
    parts += [_bytes(_NODE_ATTRIBUTE, _attribute(*each)) for each in node.attributes.items()]
    return b"".join(parts)


def _attribute(name: str, value: Attribute) -> bytes:
    start = _bytes(_ATTRIBUTE_NAME, name.encode())
    if isinstance(value, int):
        return start + _number(_ATTRIBUTE_INT, value) + _number(_ATTRIBUTE_KIND, _KIND_INT)
    if isinstance(value, float):
        bits = _varint(_ATTRIBUTE_FLOAT << 3 | 5) + np.array(value, "<f4").tobytes()
        return start + bits + _number(_ATTRIBUTE_KIND, _KIND_FLOAT)
    if isinstance(value, str):
        text = _bytes(_ATTRIBUTE_TEXT, value.encode())
        return start + text + _number(_ATTRIBUTE_KIND, _KIND_TEXT)
    numbers = b"".join(_number(_ATTRIBUTE_INTS, each) for each in value)
    return start + numbers + _number(_ATTRIBUTE_KIND, _KIND_INTS)


def _tensor(name: str, array: Array) -> bytes:
    array = np.asarray(array, array.dtype.newbyteorder("<"))
    dims = b"".join(_number(_TENSOR_DIMS, side) for side in array.shape)
    element = _number(_TENSOR_TYPE, _NUMBERS[array.dtype])
    raw = _bytes(_TENSOR_RAW, array.tobytes())
    return dims + element + _bytes(_TENSOR_NAME, name.encode()) + raw


def _value(name: str, axes: int | None) -> bytes:
    """An input or an output in float32; sizes are free, for None their number too."""
    element = _number(_TENSOR_TYPE_ELEMENT, _FLOAT)
    if axes is not None:
        dims = (f"{name}_{axis}".encode() for axis in range(axes))
        shape = b"".join(_bytes(_SHAPE_DIM, _bytes(_DIM_NAME, dim)) for dim in dims)
        element += _bytes(_TENSOR_TYPE_SHAPE, shape)
    kind = _bytes(_VALUE_TYPE, _bytes(_TYPE_TENSOR, element))
    return _bytes(_VALUE_NAME, name.encode()) + kind


def _bytes(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value & (1 << 64) - 1)


def _varint(value: int) -> bytes:
    return bytes(_varint_bytes(value))


def _varint_bytes(value: int) -> Iterator[int]:
    while value > 127:
        yield value & 127 | 128
        value >>= 7
    yield value
