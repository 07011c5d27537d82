"""The gradient of a number that an ONNX graph computes, as more nodes of the same graph.

Backwards through the operators that syntheses, mean networks and distortions are made of. A
convolution's gradient is a convolution with the kernel turned around and its channels exchanged,
which ONNX Runtime computes faster than a transposed one; a shuffle of pixels behind a convolution
of 1x1 becomes a stride of that.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from cwic.onnx_graph import Array, Graph, Node

_FLOAT = 1  # float32, as types are numbered


class _Gradient(NamedTuple):
    """A gradient that is known as a tensor, perhaps one that a shuffle of pixels still divides."""

    name: str
    # Of a tensor behind a DepthToSpace of this block, whose input is what the gradient is for.
    block: int = 1


def add_gradient(graph: Graph, of: dict[str, str], by: list[str]) -> list[str]:
    """Add the nodes that compute a gradient.

    Args:
        graph: is added to.
        of: for each tensor that the number depends on directly the name of its gradient there.
        by: tensors whose gradient is asked for.

    Returns:
        Names of their gradients, in that order.

    Raises:
        ValueError: there is an operator between the two that this module does not know, or none.
    """
    backward = _Backward(graph, by)
    for name, seed in of.items():
        backward.give(name, _Gradient(seed))
    for node in reversed(backward.between):
        found = backward.take(node.outputs[0])
        if found is not None:
            backward.through(node, found)
    result = []
    for name in by:
        gradient = backward.take(name)
        if gradient is None:
            raise ValueError(f"expected a number that depends on {name}, found none")
        result.append(backward.plain(gradient))
    return result


class _Backward:
    def __init__(self, graph: Graph, by: list[str]):
        self.graph = graph
        # What depends on the tensors asked for.
        reached = set(by)
        self.between: list[Node] = []
        for node in graph.nodes:
            if reached.intersection(node.inputs):
                reached.update(node.outputs)
                self.between.append(node)
        self._reached = reached
        self._found: dict[str, list[_Gradient]] = {}
        self._slices: dict[str, list[tuple[int, int, str]]] = {}
        self._rules: dict[str, Callable[[Node, _Gradient], None]] = {
            "Abs": self._abs,
            "Add": self._add,
            "AveragePool": self._average_pool,
            "Cast": self._cast,
            "Clip": self._clip,
            "Concat": self._concat,
            "Conv": self._conv,
            "DepthToSpace": self._depth_to_space,
            "Div": self._div,
            "LeakyRelu": self._leaky_relu,
            "MaxPool": self._max_pool,
            "Mul": self._mul,
            "Pow": self._pow,
            "ReduceSum": self._reduce_sum,
            "Relu": self._relu,
            "Slice": self._slice,
            "Sub": self._sub,
        }

    def give(self, name: str, gradient: _Gradient) -> None:
        """One part of the gradient of a tensor."""
        if name in self._reached:
            self._found.setdefault(name, []).append(gradient)

    def take(self, name: str) -> _Gradient | None:
        """The sum of the parts."""
        parts = self._found.pop(name, [])
        if name in self._slices:
            parts.append(self._sliced(name))
        if not parts:
            return None
        block = max(part.block for part in parts)
        parts = [self._divided_by(block, part) for part in parts]
        total = parts[0]
        for part in parts[1:]:
            total = total._replace(name=self.graph.add("Add", total.name, part.name))
        return total

    def plain(self, gradient: _Gradient) -> str:
        """The gradient as a tensor of the shape of what it is for."""
        if gradient.block == 1:
            return gradient.name
        raise ValueError("expected a convolution before a shuffle of pixels, found none")

    def _divided_by(self, block: int, gradient: _Gradient) -> _Gradient:
        """The same gradient with a shuffle of this block ahead of it."""
        if gradient.block == block:
            return gradient
        return _Gradient(self._shuffled(self.plain(gradient), block), block)

    def _shuffled(self, name: str, block: int) -> str:
        """A tensor with its channels spread over squares; itself for a block of 1."""
        if block == 1:
            return name
        return self.graph.add("DepthToSpace", name, mode="CRD", blocksize=block)

    def through(self, node: Node, gradient: _Gradient) -> None:
        """From a node's output to its inputs."""
        if node.operator not in self._rules:
            raise ValueError(
                f"expected operators with a gradient, {', '.join(self._rules)}, "
                f"found {node.operator}"
            )
        self._rules[node.operator](node, gradient)

    def _add(self, node: Node, gradient: _Gradient) -> None:
        for name in node.inputs:
            self.give(name, gradient)

    def _sub(self, node: Node, gradient: _Gradient) -> None:
        self.give(node.inputs[0], gradient)
        if node.inputs[1] in self._reached:
            negative = self.graph.add("Neg", self.plain(gradient))
            self.give(node.inputs[1], _Gradient(negative))

    def _mul(self, node: Node, gradient: _Gradient) -> None:
        one, other = node.inputs
        for name, factor in ((one, other), (other, one)):
            if name in self._reached:
                product = self.graph.add("Mul", self.plain(gradient), factor)
                self.give(name, _Gradient(product))

    def _div(self, node: Node, gradient: _Gradient) -> None:
        above, below = node.inputs
        share = self.graph.add("Div", self.plain(gradient), below)
        self.give(above, _Gradient(share))
        if below in self._reached:
            product = self.graph.add("Mul", share, node.outputs[0])
            self.give(below, _Gradient(self.graph.add("Neg", product)))

    def _pow(self, node: Node, gradient: _Gradient) -> None:
        """Of numbers above 0, to a constant power; at 0 there is no slope."""
        base, power = node.inputs
        _expect(node, power in self.graph.arrays, "a constant power")
        add = self.graph.add
        self._times(node, gradient, add("Mul", add("Div", node.outputs[0], base), power))

    def _abs(self, node: Node, gradient: _Gradient) -> None:
        self._times(node, gradient, self.graph.add("Sign", node.inputs[0]))

    def _reduce_sum(self, node: Node, gradient: _Gradient) -> None:
        """Axes are kept; the factor before it spreads the gradient again."""
        _expect(node, node.attributes.get("keepdims", 1) == 1, "axes that are kept")
        self.give(node.inputs[0], gradient)

    def _cast(self, node: Node, gradient: _Gradient) -> None:
        _expect(node, node.attributes.get("to") == _FLOAT, "a cast to float32")
        self.give(node.inputs[0], gradient)

    def _relu(self, node: Node, gradient: _Gradient) -> None:
        self._times(node, gradient, self.graph.add("Sign", node.outputs[0]))

    def _leaky_relu(self, node: Node, gradient: _Gradient) -> None:
        add = self.graph.add
        alpha = node.attributes.get("alpha", 0.01)
        assert isinstance(alpha, float)
        # 1 where the output is positive, else alpha.
        self._times(node, gradient, add("Max", add("Sign", node.outputs[0]), alpha))

    def _times(self, node: Node, gradient: _Gradient, slope: str) -> None:
        """Through a function of each number by itself, whose slope goes through shuffles too."""
        product = self.graph.add("Mul", gradient.name, self._shuffled(slope, gradient.block))
        self.give(node.inputs[0], _Gradient(product, gradient.block))

    def _clip(self, node: Node, gradient: _Gradient) -> None:
        add = self.graph.add
        inside = add("Equal", node.inputs[0], node.outputs[0])
        kept = add("Where", inside, self.plain(gradient), 0.0)
        self.give(node.inputs[0], _Gradient(kept))

    def _max_pool(self, node: Node, gradient: _Gradient) -> None:
        _expect(node, node.attributes.get("kernel_shape") == (1, 1), "a pooling of 1x1")
        self.give(node.inputs[0], gradient)

    def _average_pool(self, node: Node, gradient: _Gradient) -> None:
        """Of squares that do not overlap and fill the whole."""
        side = node.attributes.get("kernel_shape")
        _expect(node, side == node.attributes.get("strides"), "squares that do not overlap")
        assert isinstance(side, tuple)
        scales = np.array([1, 1, *side], np.float32)
        each = self.graph.add("Mul", self.plain(gradient), 1.0 / (side[0] * side[1]))
        spread = self.graph.add(
            "Resize",
            each,
            "",
            scales,
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
        self.give(node.inputs[0], _Gradient(spread))

    def _concat(self, node: Node, gradient: _Gradient) -> None:
        """Of channels; of those inputs that have a gradient, and are slices."""
        _expect(node, node.attributes.get("axis") == 1, "channels put together")
        start = 0
        for name in node.inputs:
            if name not in self._reached:
                break
            first, last = self._bounds(name)
            end = start + last - first
            self.give(name, _Gradient(self._channels(self.plain(gradient), start, end)))
            start = end

    def _channels(self, name: str, start: int, end: int) -> str:
        bounds = (np.array([each], np.int64) for each in (start, end, 1))  # 1: channels
        return self.graph.add("Slice", name, *bounds)

    def _slice(self, node: Node, gradient: _Gradient) -> None:
        start, end = self._bounds(node.outputs[0])
        self._slices.setdefault(node.inputs[0], []).append((start, end, self.plain(gradient)))

    def _bounds(self, name: str) -> tuple[int, int]:
        """First channel and the one behind the last that a slice takes."""
        arrays = self.graph.arrays
        for node in self.between:
            if name in node.outputs and node.operator == "Slice":
                start, end, axis, step = (int(arrays[each][0]) for each in node.inputs[1:5])
                if axis == 1 and step == 1 and 0 <= start < end:
                    return start, end
        raise ValueError(f"expected a slice of channels, found {name}")

    def _sliced(self, name: str) -> _Gradient:
        """Of a tensor of which slices alone are used, which follow one another."""
        parts = sorted(self._slices.pop(name))
        if parts[0][0] or any(one[1] != other[0] for one, other in pairwise(parts)):
            raise ValueError(f"expected slices that share all of {name}, found {parts}")
        return _Gradient(self.graph.add("Concat", *(part for _, _, part in parts), axis=1))

    def _depth_to_space(self, node: Node, gradient: _Gradient) -> None:
        _expect(node, node.attributes.get("mode") == "CRD", "a shuffle in the order CRD")
        block = node.attributes["blocksize"]
        assert isinstance(block, int)
        self.give(node.inputs[0], _Gradient(self.plain(gradient), block))

    def _conv(self, node: Node, gradient: _Gradient) -> None:
        _expect(node, node.inputs[1] in self.graph.arrays, "constant weights")
        weight = self.graph.arrays[node.inputs[1]]
        attributes = node.attributes
        pads, group = attributes.get("pads", (0, 0, 0, 0)), attributes.get("group", 1)
        assert isinstance(pads, tuple)
        assert isinstance(group, int)
        _expect(node, attributes.get("strides", (1, 1)) == (1, 1), "no stride")
        _expect(node, group == 1 or weight.shape[1] == 1, "groups of one channel")
        sides = weight.shape[2:]
        if gradient.block == 1:
            kernel = weight[:, :, ::-1, ::-1]
            back = tuple(side - 1 - pad for side, pad in zip(2 * sides, pads, strict=True))
            self._convolve(node, gradient.name, _exchanged(kernel, group), back, group)
        elif sides == (1, 1) and group == 1:
            # Channel b^2 c + b y + x of the output is pixel (y, x) of channel c's square.
            block = gradient.block
            kernel = weight.reshape(-1, block, block, weight.shape[1]).transpose(3, 0, 1, 2)
            self._convolve(node, gradient.name, kernel, (0, 0, 0, 0), 1, block)
        else:
            # What ONNX gathers from a square lies square by square, not channel by channel.
            block = gradient.block
            gathered = self.graph.add("SpaceToDepth", gradient.name, blocksize=block)
            kernel = _exchanged(weight[:, :, ::-1, ::-1], group)
            order = np.arange(kernel.shape[1]).reshape(-1, block * block).T.ravel()
            back = tuple(side - 1 - pad for side, pad in zip(2 * sides, pads, strict=True))
            self._convolve(node, gathered, kernel[:, order], back, group)

    def _convolve(
        self,
        node: Node,
        gradient: str,
        kernel: Array,
        pads: tuple[int, ...],
        group: int,
        stride: int = 1,
    ) -> None:
        result = self.graph.add(
            "Conv",
            gradient,
            np.ascontiguousarray(kernel, np.float32),
            kernel_shape=kernel.shape[2:],
            pads=pads,
            strides=(stride, stride),
            dilations=(1, 1),
            group=group,
        )
        self.give(node.inputs[0], _Gradient(result))


def _exchanged(kernel: Array, group: int) -> Array:
    """(out, in, h, w) with inputs and outputs exchanged; of one channel a group as it is."""
    return kernel if group > 1 else kernel.transpose(1, 0, 2, 3)


def _expect(node: Node, is_found: bool, what: str) -> None:
    if not is_found:
        raise ValueError(f"{node.operator}: expected {what}, found {node.attributes}")
