"""From graphs back to weights."""

import dataclasses

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")

from cwic import model_file  # noqa: E402
from cwic.training.restore import stored_weights  # noqa: E402


def test_a_bias_that_two_convolutions_share_is_that_of_both(
    tiny_model: model_file.ModelFile,
) -> None:
    bias = np.float32([1, 2, 3])
    weights = [np.full((3, 3, 1, 1), value, np.float32) for value in (4, 5)]
    arrays = {"one.weight": weights[0], "two.weight": weights[1], "one.bias": bias}
    nodes = [
        onnx.helper.make_node("Conv", [entering, f"{name}.weight", "one.bias"], [leaving])
        for name, entering, leaving in (("one", "x", "between"), ("two", "between", "y"))
    ]
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, (1, 3, 8, 8))
        for name in ("x", "y")
    ]
    stored = [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = onnx.helper.make_graph(nodes, "analysis", ends[:1], ends[1:], stored)
    graphs = {"analysis": onnx.helper.make_model(graph).SerializeToString()}
    model = dataclasses.replace(tiny_model, graphs=graphs, arrays={}, path=None)
    found = stored_weights(model, torch.nn.Identity(), {})
    expected = arrays | {"two.bias": bias}
    assert found.keys() == {f"analysis.{name}" for name in expected}
    for name, array in expected.items():
        np.testing.assert_array_equal(found[f"analysis.{name}"].numpy(), array)
