"""Graphs from strangers: nothing but plain arithmetic on what is inside gets to the runtime."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cwic import model_file
from cwic.engine import Session
from cwic.errors import ModelError
from cwic.model_file import ModelFile
from cwic.onnx_check import check_graph

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

GOLDEN = Path(__file__).parent / "data" / "golden"


def model_of(*nodes: "onnx.NodeProto", **more: object) -> "onnx.ModelProto":
    edges = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    weight = numpy_helper.from_array(np.ones(1, np.float32), "w")
    graph = helper.make_graph(list(nodes), "graph", edges[:1], edges[1:], [weight])
    return helper.make_model(graph, **more)


def plain() -> "onnx.ModelProto":
    return model_of(helper.make_node("Mul", ["x", "w"], ["y"]))


def with_external_weights() -> "onnx.ModelProto":
    model = plain()
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="/etc/passwd")
    return model


def with_an_external_constant() -> "onnx.ModelProto":
    tensor = numpy_helper.from_array(np.ones(1, np.float32))
    tensor.external_data.add(key="location", value="/etc/passwd")
    return model_of(
        helper.make_node("Constant", [], ["w2"], value=tensor),
        helper.make_node("Mul", ["x", "w2"], ["y"]),
    )


def with_a_foreign_operator() -> "onnx.ModelProto":
    return model_of(helper.make_node("Mul", ["x", "w"], ["y"], domain="com.microsoft"))


def with_a_foreign_opset() -> "onnx.ModelProto":
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("my.library", 1)]
    return model_of(helper.make_node("Mul", ["x", "w"], ["y"]), opset_imports=opsets)


def with_a_loop() -> "onnx.ModelProto":
    body = plain().graph
    return model_of(helper.make_node("Loop", ["x", "w"], ["y"], body=body))


def with_an_operator_unknown_here() -> "onnx.ModelProto":
    return model_of(helper.make_node("RandomUniform", [], ["y"], shape=[1]))


def with_a_function() -> "onnx.ModelProto":
    model = plain()
    opsets = [helper.make_opsetid("", 18)]
    node = helper.make_node("Mul", ["a", "a"], ["b"])
    model.functions.append(helper.make_function("", "square", ["a"], ["b"], [node], opsets))
    return model


def with_sparse_weights() -> "onnx.ModelProto":
    model = plain()
    model.graph.sparse_initializer.add(dims=[1])
    return model


def without_a_graph() -> "onnx.ModelProto":
    model = plain()
    model.ClearField("graph")
    return model


def field(number: int, content: bytes, *, beyond: int = 0) -> bytes:
    """A field of bytes, as in a protocol buffer; `beyond` stands above the 32 bits of its key."""

    def varint(value: int) -> bytes:
        low, rest = value & 127, value >> 7
        return bytes([low | 128]) + varint(rest) if rest else bytes([low])

    return varint(beyond << 32 | number << 3 | 2) + varint(len(content)) + content


@pytest.mark.parametrize("beyond", [0, 1, 7])
def test_an_operator_is_not_hidden_by_a_key_that_the_runtime_shortens(beyond: int) -> None:
    model = plain()
    node = model.graph.node[0].SerializeToString() + field(4, b"RandomNormal", beyond=beyond)
    parts = [field(1, node), *(field(5, w.SerializeToString()) for w in model.graph.initializer)]
    model.ClearField("graph")
    data = model.SerializeToString() + field(7, b"".join(parts))
    with pytest.raises(ValueError, match="at most 32 bits" if beyond else "RandomNormal"):
        check_graph(data)


def test_what_was_checked_is_what_runs_though_it_looks_like_the_format_of_the_runtime() -> None:
    """That format is told by four bytes, which may stand in a comment of an ONNX graph."""
    model = plain()
    model.ir_version = 8
    data = field(6, b"ORTM" + bytes(2**17)) + model.SerializeToString()
    assert data[4:8] == b"ORTM"
    check_graph(data)
    (output,) = Session(data).run(np.full(1, 7, np.float32))
    assert output.tolist() == [7]


def test_plain_arithmetic_is_taken() -> None:
    check_graph(plain().SerializeToString())


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (with_external_weights, "reference to a file"),
        (with_an_external_constant, "reference to a file"),
        (with_a_foreign_operator, "com.microsoft"),
        (with_a_foreign_opset, "my.library"),
        (with_a_loop, "subgraph"),
        (with_an_operator_unknown_here, "RandomUniform"),
        (with_a_function, "functions"),
        (with_sparse_weights, "sparse"),
        (without_a_graph, "one graph, found 0"),
    ],
)
def test_what_no_graph_of_ours_needs_is_refused(
    make: Callable[[], "onnx.ModelProto"], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        check_graph(make().SerializeToString())


def test_a_model_file_with_such_a_graph_does_not_load(
    tiny_flagship_path: Path, tmp_path: Path
) -> None:
    model = model_file.load(tiny_flagship_path)
    graphs = model.graphs | {"analysis": with_external_weights().SerializeToString()}
    bad = ModelFile(**(vars(model) | {"graphs": graphs}))
    model_file.save(bad, tmp_path / "bad.cwicmodel")
    with pytest.raises(ModelError, match=r"analysis\.onnx: .*reference to a file"):
        model_file.load(tmp_path / "bad.cwicmodel")


@given(st.binary(max_size=200))
def test_any_bytes_are_taken_or_refused(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        check_graph(data)


@settings(max_examples=300)
@given(
    position=st.integers(0, 10**6),
    value=st.integers(0, 255),
    model=st.sampled_from(sorted(GOLDEN.glob("*.cwicmodel"))),
)
def test_a_damaged_graph_is_taken_or_refused(position: int, value: int, model: Path) -> None:
    data = bytearray(model_file.load(model).graphs["synthesis"])
    data[position % len(data)] = value
    with contextlib.suppress(ValueError):
        check_graph(bytes(data))
