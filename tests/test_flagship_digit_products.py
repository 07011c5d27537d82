"""Products in digits of eight bits are those of integers, whichever kernels a processor has."""

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from cwic.coding.exact_arithmetic import MAX_INTEGER
from cwic.families.flagship import digit_products
from cwic.families.flagship.digit_products import DigitWeights, activation_digits


def of_digits(weights: NDArray[np.int64], activations: NDArray[np.uint16]) -> NDArray[np.float64]:
    """(cells, outputs) of (outputs, channels, taps) and (cells, taps, channels)."""
    layer, result = DigitWeights(weights), np.zeros((len(activations), len(weights)))
    channels = np.arange(weights.shape[1])
    for digits, worth in activation_digits(activations):
        result += layer.products(digits.reshape(len(digits), -1), channels, worth)
    return result


@pytest.mark.parametrize("largest_weight", [3, 127, 128, 32_639, 32_640, MAX_INTEGER])
@pytest.mark.parametrize("largest", [1, 256, 2048, MAX_INTEGER])
def test_products_of_digits_are_those_of_integers(largest_weight: int, largest: int) -> None:
    generator = np.random.default_rng(largest_weight + largest)
    weights = generator.integers(-largest_weight, largest_weight, (7, 33, 5), endpoint=True)
    activations = generator.integers(0, largest, (50, 5, 33), endpoint=True).astype(np.uint16)
    expected = np.einsum("oct,ntc->no", weights, activations.astype(np.int64))
    assert np.array_equal(of_digits(weights, activations), expected)


@pytest.mark.parametrize("weight", [MAX_INTEGER, -MAX_INTEGER, 127, -128, 128])
@pytest.mark.parametrize("activation", [127, 16_383, MAX_INTEGER])
def test_the_largest_products_neither_saturate_nor_overflow(weight: int, activation: int) -> None:
    """All of one sign, 1,152 of them: what kernels that add pairs in 16 bits find hardest."""
    weights = np.full((16, 128, 9), weight)
    activations = np.full((20, 9, 128), activation, np.uint16)
    assert (of_digits(weights, activations) == 1152 * weight * activation).all()


def test_channels_without_a_digit_may_be_left_out() -> None:
    generator = np.random.default_rng(0)
    weights = generator.integers(-9999, 9999, (6, 40, 4))
    channels = np.array([0, 3, 17, 39])
    rows = generator.integers(0, 128, (30, 4, 4)).astype(np.uint8)
    found = DigitWeights(weights).products(rows.reshape(30, -1), channels, 1.0)
    expected = np.einsum("oct,ntc->no", weights[:, channels], rows.astype(np.int64))
    assert np.array_equal(found, expected)


def test_nothing_has_no_digits() -> None:
    assert list(activation_digits(np.zeros((3, 4), np.uint16))) == []
    ((digit, worth),) = activation_digits(np.full((3, 4), 256, np.uint16))
    assert worth == 128
    assert (digit == 2).all()


def test_the_product_is_a_graph_of_one_node() -> None:
    found = onnx.load_from_string(digit_products._PRODUCT)
    onnx.checker.check_model(found)
    a, b, y = (
        helper.make_tensor_value_info(*value)
        for value in (
            ("a", TensorProto.UINT8, ["n", "k"]),
            ("b", TensorProto.INT8, ["k", "m"]),
            ("y", TensorProto.INT32, ["n", "m"]),
        )
    )
    node = helper.make_node("MatMulInteger", ["a", "b"], ["y"])
    graph = helper.make_graph([node], "p", [a, b], [y])
    opset = helper.make_opsetid("", 10)
    assert found == helper.make_model(graph, opset_imports=[opset], ir_version=8)
