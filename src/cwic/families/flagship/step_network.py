"""The network that says, step by step, what can be known of a symbol before it is read.

One shape for the two networks of the `cwic` family, which walk the steps side by side:

    state = from_hyper(z) + from_planes(planes) + sum of absorb_group[g](what group g decoded)
    prediction of step 2 g + pass = head(act(hidden(act(state))))

with 3x3 convolutions on the way from z and in `absorb_group`, 1x1 elsewhere. The mean network
computes in float32, the scale network in the exact integers of
:mod:`cwic.coding.exact_arithmetic`. Latents lie on a checkerboard: the first pass of a group codes
the cells of even x + y, the second the others, so everything is kept in two halves, one for each
colour.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cwic.coding.exact_arithmetic import (
    ACTIVATION_BITS,
    MAX_INTEGER,
    SUM_BITS,
    WEIGHT_BITS,
    check_exact,
)
from cwic.errors import ModelError

Array = npt.NDArray[Any]
Halves = tuple[Array, Array]  # (channels, cells of even x + y), (channels, cells of odd x + y)

_SLOPE = np.float32(0.1)  # of the leaky ReLU of a mean network

# Share of cells from which on it is quicker to add to all of them.
_DENSE = 0.7

# Layers on the way from the hyper-latents: name, size of the kernel.
_FROM_HYPER = (("hyper_64", 3), ("to_32", 1), ("hyper_32", 3), ("to_16", 1))


class Checkerboard:
    """Where the two halves of a (height, width) grid lie, and what surrounds each cell.

    The width is even, so every row has as many cells of one colour as of the other: a half is
    a grid of half the width, whose rows begin at one of the first two cells in turn.

    Attributes:
        cells: for each colour its cells as positions in the flattened grid, ascending.
    """

    def __init__(self, height: int, width: int):
        assert width % 2 == 0
        self.height, self.width = height, width
        y, x = np.divmod(np.arange(height * width), width)
        colour = (x + y) & 1
        self.cells = (np.flatnonzero(colour == 0), np.flatnonzero(colour == 1))

    def padded(self, values: Array) -> Array:
        """(C, cells of a colour) -> (C, height + 2, width / 2 + 2), zeros around."""
        result = np.zeros((len(values), self.height + 2, self.width // 2 + 2), values.dtype)
        result[:, 1:-1, 1:-1] = values.reshape(len(values), self.height, self.width // 2)
        return result

    def columns(self, padded: Array, colour: int, to: int) -> Array:
        """The 3x3 neighbourhoods of the cells of one colour, as far as they have another.

        Args:
            padded: of (C, cells of `colour`), which are zero elsewhere on the grid.
            colour: of the values.
            to: colour of the cells whose neighbourhoods are asked for.

        Returns:
            (C * taps, cells of `to`), the taps those of :func:`taps`.
        """
        shape = (len(padded), self.height, self.width // 2)
        chosen = taps(colour, to)
        result = np.empty((shape[0], len(chosen), *shape[1:]), padded.dtype)
        for place, tap in enumerate(chosen):
            down, right = tap // 3 - 1, tap % 3 - 1
            for row in (0, 1):
                # Cell i of a row lies at x = 2 i + first.
                first, first_there = (row + to) % 2, (row + down + colour) % 2
                left = 1 + (first + right - first_there) // 2
                rows = slice(1 + down + row, 1 + down + self.height, 2)
                result[:, place, row::2] = padded[:, rows, left : left + shape[2]]
        return result.reshape(-1, len(self.cells[to]))

    def halves(self, grid: Array) -> Halves:
        """(C, height, width) in two halves."""
        shape = (len(grid), self.height, self.width // 2)
        halves = (np.empty(shape, grid.dtype), np.empty(shape, grid.dtype))
        for colour, half in enumerate(halves):
            for row in (0, 1):
                half[:, row::2] = grid[:, row::2, (row + colour) % 2 :: 2]
        return halves[0].reshape(len(grid), -1), halves[1].reshape(len(grid), -1)

    def whole(self, halves: Halves) -> Array:
        """The inverse of :meth:`halves`."""
        grid = np.empty((len(halves[0]), self.height, self.width), halves[0].dtype)
        for colour, half in enumerate(halves):
            split = half.reshape(len(grid), self.height, -1)
            for row in (0, 1):
                grid[:, row::2, (row + colour) % 2 :: 2] = split[:, row::2]
        return grid


def taps(colour: int, to: int) -> tuple[int, ...]:
    """Taps of a 3x3 kernel, row by row, that reach cells of `colour` from those of colour `to`."""
    return (0, 2, 4, 6, 8) if colour == to else (1, 3, 5, 7)


class Heard(NamedTuple):
    """What a step decoded, as the cells around take it in."""

    step: int
    channels: npt.NDArray[np.intp]  # of the group, those that say anything
    padded: Array  # their values
    cells: Array | None  # padded, where anything is said; None: nearly everywhere


class _Layer(NamedTuple):
    weight: Array  # (out, in * taps)
    bias: Array  # (out, 1)

    def __call__(self, columns: Array) -> Array:
        result: Array = self.weight @ columns
        result += self.bias
        return result


class StepNetwork:
    """See the module. Subclasses choose the arithmetic."""

    dtype: npt.DTypeLike

    def __init__(self, layers: Mapping[str, tuple[Array, Array]], groups: Sequence[int], what: str):
        """Sizes follow from the layers.

        Args:
            layers: by name, weight (out, in, k, k) and bias (out,).
            groups: channels of each group of latents.
            what: the network's name in error messages.

        Raises:
            ModelError: a layer is missing, or they do not fit one another.
        """
        self._what = what
        self._layers: dict[str, _Layer] = {}
        steps = range(2 * len(groups))
        self.hyper_channels = self._add(layers, "hyper_64", None, None, 3)
        hyper_width = self._outputs("hyper_64")
        self._add(layers, "to_32", 4 * hyper_width, hyper_width, 1)
        self._add(layers, "hyper_32", hyper_width, hyper_width, 3)
        self._add(layers, "to_16", None, hyper_width, 1)
        self.width, rest = divmod(self._outputs("to_16"), 4)
        if rest:
            self._misfit("to_16", self._outputs("to_16"), "outputs in fours")
        self.planes = self._add(layers, "from_planes", self.width, None, 1)
        for group, channels in enumerate(groups):
            self._add(layers, f"absorb_group.{group}", self.width, channels, 3)
        for step in steps:
            self._add(layers, f"hidden.{step}", self.width, self.width, 1)
            self._add(layers, f"head.{step}", groups[step // 2], self.width, 1)
        # A pass reaches the two colours by different taps.
        self._absorb: dict[tuple[int, bool], Array] = {}
        for group, channels in enumerate(groups):
            kernel = self._layers[f"absorb_group.{group}"].weight.reshape(self.width, channels, 9)
            for same in (True, False):
                chosen = kernel[:, :, taps(0, 0 if same else 1)]
                self._absorb[group, same] = np.ascontiguousarray(chosen.reshape(self.width, -1))

    def _add(
        self,
        layers: Mapping[str, tuple[Array, Array]],
        name: str,
        outputs: int | None,
        inputs: int | None,
        size: int,
    ) -> int:
        """Take a layer over, checked; its number of inputs."""
        if name not in layers:
            raise ModelError(f"{self._what}: expected a layer {name}, found none")
        weight, bias = layers[name]
        if weight.ndim != 4 or bias.shape != (len(weight),) or not weight.size:
            self._misfit(name, f"{weight.shape} and {bias.shape}", "(out, in, k, k) and (out,)")
        expected = (outputs or weight.shape[0], inputs or weight.shape[1], size, size)
        if weight.shape != expected:
            self._misfit(name, weight.shape, expected)
        self._layers[name] = _Layer(
            np.ascontiguousarray(weight.reshape(len(weight), -1), self.dtype),
            bias[:, None].astype(self.dtype),
        )
        return int(weight.shape[1])

    def _misfit(self, name: str, found: object, expected: object) -> None:
        raise ModelError(f"{self._what}: {name}: expected {expected}, found {found}")

    def _outputs(self, name: str) -> int:
        return len(self._layers[name].weight)

    def activate(self, x: Array) -> Array:
        """Between layers."""
        raise NotImplementedError

    def begin(self, z: Array, planes: Array, board: Checkerboard) -> Halves:
        """State before the first step.

        Args:
            z: (hyper_channels, h / 4, w / 4) hyper-latents.
            planes: (planes, h, w).
            board: of (h, w).

        Returns:
            (width, cells) of each colour.
        """
        x = z.astype(self.dtype)
        for name, size in _FROM_HYPER:
            shape = x.shape[1:]
            columns = _columns_3x3(x) if size == 3 else x.reshape(len(x), -1)
            x = self._layers[name](columns).reshape(-1, *shape)
            if size == 1:
                x = _shuffled(x)
            if name != "to_16":
                x = self.activate(x)
        told = self._layers["from_planes"](planes.reshape(len(planes), -1).astype(self.dtype))
        x += told.reshape(x.shape)
        return board.halves(x)

    def predict(self, state: Halves, step: int) -> Array:
        """(channels of the group, cells of the pass's colour) of step 2 group + pass."""
        hidden = self._layers[f"hidden.{step}"](self.activate(state[step % 2]))
        return self._layers[f"head.{step}"](self.activate(hidden))

    def _weights(self, group: int, same_colour: bool, channels: npt.NDArray[np.intp]) -> Array:
        """(width, channels * taps) of a group's convolution."""
        weights = self._absorb[group, same_colour]
        num_taps = len(taps(0, 0 if same_colour else 1))
        if len(channels) * num_taps == weights.shape[1]:
            return weights
        split = weights.reshape(self.width, -1, num_taps)
        return split[:, channels].reshape(self.width, -1)

    def heard(self, step: int, decoded: Array, board: Checkerboard) -> Heard:
        """What :meth:`absorb` takes.

        Args:
            step: 2 group + pass.
            decoded: (channels of the group, cells of the colour).
            board: of the cells.
        """
        # At low rates most channels say nothing, and many cells hear nothing.
        channels = np.flatnonzero(decoded.any(axis=1))
        if len(channels) < len(decoded):
            decoded = decoded[channels]
        values = decoded.astype(self.dtype, copy=False)
        says = values.any(axis=0).reshape(1, -1)
        everywhere = np.count_nonzero(says) > _DENSE * says.size
        return Heard(
            step, channels, board.padded(values), None if everywhere else board.padded(says)
        )

    def absorb(self, state: Halves, heard: Heard, board: Checkerboard, to: int) -> None:
        """Add what a step decoded to the state of one colour.

        Args:
            state: is changed.
            heard: of the step.
            board: of the cells.
            to: the colour.
        """
        group, colour = divmod(heard.step, 2)
        half = state[to]
        half += self._layers[f"absorb_group.{group}"].bias
        if not len(heard.channels):
            return
        weights = self._weights(group, colour == to, heard.channels)
        columns = board.columns(heard.padded, colour, to)
        if heard.cells is not None:
            hears = np.flatnonzero(board.columns(heard.cells, colour, to).any(axis=0))
            if len(hears) <= _DENSE * half.shape[1]:
                half[:, hears] += weights @ columns[:, hears]
                return
        half += weights @ columns


class MeanNetwork(StepNetwork):
    """Means of latents, in latents' own units, in float32: never asked for a coding table."""

    dtype = np.float32

    def activate(self, x: Array) -> Array:
        """Leaky ReLU."""
        result: Array = np.maximum(x, _SLOPE * x)
        return result


class ScaleNetwork(StepNetwork):
    """Numbers of coding tables, in exact integers.

    Its planes are 2^8 s and 4 q, its hyper-latents 2^8 z; what it absorbs are magnitudes of symbols
    as activations. Sums are held in units of the next layer's activations, or of the numbers of
    tables: a power of two scales integers exactly.
    """

    dtype = np.float64

    def __init__(
        self,
        layers: Mapping[str, tuple[Array, Array]],
        groups: Sequence[int],
        what: str,
    ):
        """As of :class:`StepNetwork`, or a sum would not be exact."""
        super().__init__(layers, groups, what)
        used = {name: layers[name] for name in self._layers}
        of_state = ("to_16", "from_planes", "absorb_group")
        # Each group is absorbed twice, once for each colour.
        twice = [pair for name, pair in used.items() if name.startswith(of_state)] * 2
        try:
            for pair in used.values():
                check_exact(pair)
            check_exact(*twice)
        except ValueError as error:
            raise ModelError(f"{what}: {error}") from error
        for name, (weight, bias) in self._layers.items():
            is_head = name.startswith("head")
            unit = 2.0 ** -(SUM_BITS - 2 if is_head else WEIGHT_BITS)
            weight *= unit
            bias *= unit
            if not is_head and not name.startswith(("from_planes", "absorb_group")):
                bias += 0.5  # so that the floor of a sum rounds it
        for weight in self._absorb.values():
            weight *= 2.0**-WEIGHT_BITS

    def activate(self, x: Array) -> Array:
        """Round, ReLU, clip; a half was added before."""
        result: Array = np.floor(x)
        return np.clip(result, 0, MAX_INTEGER, out=result)

    def table(
        self, state: Halves, step: int, level: Array, q: int, num_tables: int
    ) -> npt.NDArray[np.uint8]:
        """Numbers of the coding tables of a step's symbols.

            clip((4 sum + 3 * 2^13 (64 s + q) + 20 * 2^20 + 2^19) >> 20, 0, num_tables - 1)

        A step size of half the length doubles a symbol: that much is known without a network.

        Args:
            state: of all that is decoded.
            step: 2 group + pass.
            level: (cells of the colour,) levels s of the importance map.
            q: of the header.
            num_tables: how many there are, at most 256.

        Returns:
            (channels of the group, cells of the colour)
        """
        numbers = self.predict(state, step)
        told = (
            3 * 2**13 * (64 * level.astype(np.int64) + q) + 20 * 2**SUM_BITS + 2 ** (SUM_BITS - 1)
        )
        # Where this sum could round, it is far beyond all tables.
        numbers += told * 2.0**-SUM_BITS
        np.clip(numbers, 0, num_tables - 1, out=numbers)
        return numbers.astype(np.uint8)


# The largest inputs of a scale network are activations themselves.
MAX_HYPER = 63
assert MAX_HYPER << ACTIVATION_BITS <= MAX_INTEGER


def _columns_3x3(x: Array) -> Array:
    """(C, h, w) -> (C * 9, h * w), zeros outside."""
    channels, height, width = x.shape
    padded = np.zeros((channels, height + 2, width + 2), x.dtype)
    padded[:, 1:-1, 1:-1] = x
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    return windows.transpose(0, 3, 4, 1, 2).reshape(channels * 9, height * width)


def _shuffled(x: Array) -> Array:
    """(4 C, h, w) -> (C, 2 h, 2 w), as torch's `pixel_shuffle`."""
    channels, height, width = len(x) // 4, x.shape[1], x.shape[2]
    split = x.reshape(channels, 2, 2, height, width).transpose(0, 3, 1, 4, 2)
    return split.reshape(channels, 2 * height, 2 * width)
