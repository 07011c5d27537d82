"""The two networks that predict, step by step, what can be known of a symbol before it is read.

Both have one shape and go through the same steps:

    state = from_hyper(z) + from_planes(planes) + sum of absorb_group[g](what group g decoded)
    prediction of step 2 g + pass = head(act(hidden(act(state))))

with 3x3 convolutions on the way from z and in `absorb_group`, 1x1 elsewhere. The mean network
computes in float32, the scale network in the exact integers of
:mod:`cwic.coding.exact_arithmetic`. Latents lie on a checkerboard: the first pass of a group codes
the cells of even x + y, the second the others, so everything is kept in two halves, one for each
colour. Cells and colours are left to :mod:`.grid`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

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
from cwic.families.flagship.digit_products import DigitWeights, activation_digits
from cwic.families.flagship.grid import Q_UNITS, Array, Checkerboard, Halves, taps

# The largest hyper-latents of a scale network are activations themselves.
MAX_HYPER = 63
assert MAX_HYPER << ACTIVATION_BITS <= MAX_INTEGER

NUM_TABLES = 64  # for symbols of latents
TABLES_PER_OCTAVE = 6  # 1.5 tables for each quarter octave of the step size
SMALLEST_SCALE = 0.05  # of table 0, the parameter of a logistic distribution, in steps
MIDDLE_TABLE = 20  # of a symbol with a step size of 1 and nothing known
TABLE_GAIN = 4  # of the last layers of a scale network, a power of two: tables are small units

# What a unit of q, 1/64 of a quarter octave, adds to the sum that becomes a table's number.
_SUM_PER_Q = 2**SUM_BITS * TABLES_PER_OCTAVE // (4 * Q_UNITS)
assert 4 * Q_UNITS * _SUM_PER_Q == 2**SUM_BITS * TABLES_PER_OCTAVE

MEAN_SLOPE = 0.1  # of the leaky ReLU of a mean network

# Share of cells from which on it is quicker to add to all of them.
_DENSE = 0.7

# Layers on the way from the hyper-latents: name, size of the kernel.
_FROM_HYPER = (("hyper_64", 3), ("to_32", 1), ("hyper_32", 3), ("to_16", 1))


class _Layer(NamedTuple):
    weight: Array  # (out, in * taps)
    bias: Array  # (out, 1)

    def __call__(self, columns: Array) -> Array:
        result: Array = self.weight @ columns
        result += self.bias
        return result


class StepNetwork:
    """See the module. Subclasses choose the arithmetic.

    Attributes:
        groups: channels of each group of latents.
        hyper_channels: of the hyper-latents.
        planes: of what the network is given beside them.
        width: of the state.
    """

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
        self.groups = tuple(groups)
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
        of_planes = self._layers["from_planes"](planes.reshape(len(planes), -1).astype(self.dtype))
        x += of_planes.reshape(x.shape)
        return board.halves(x)

    def predict(self, state: Halves, step: int) -> Array:
        """(channels of the group, cells of the pass's colour) of step 2 group + pass."""
        hidden = self._layers[f"hidden.{step}"](self.activate(state[step % 2]))
        return self._layers[f"head.{step}"](self.activate(hidden))

    def absorb(
        self, state: Halves, step: int, decoded: Array, board: Checkerboard, num_steps: int
    ) -> None:
        """Add what a step decoded to the state, as far as a later step looks at it.

        Args:
            state: is changed.
            step: 2 group + pass.
            decoded: (channels of the group, cells of the colour).
            board: of the cells.
            num_steps: that are taken in all.
        """
        raise NotImplementedError

    def _kernels(self) -> Iterator[tuple[int, bool, Array]]:
        """Group, whether to the same colour, and weights (width, channels, taps) of convolutions.

        A pass reaches the two colours by different taps.
        """
        for group, channels in enumerate(self.groups):
            kernel = self._layers[f"absorb_group.{group}"].weight.reshape(self.width, channels, 9)
            for same in (True, False):
                yield group, same, kernel[:, :, taps(0, 0 if same else 1)]


def _colours_after(step: int, num_steps: int) -> tuple[int, ...]:
    """Colours of the cells that a step after this one looks at."""
    return {num_steps - 1: (), num_steps - 2: (1,)}.get(step, (0, 1))


class MeanNetwork(StepNetwork):
    """Means of latents, in latents' own units, in float32: never asked for a coding table."""

    dtype = np.float32

    def __init__(self, layers: Mapping[str, tuple[Array, Array]], groups: Sequence[int], what: str):
        """As of :class:`StepNetwork`."""
        super().__init__(layers, groups, what)
        self._absorb = {
            (group, same): np.ascontiguousarray(kernel.reshape(self.width, -1))
            for group, same, kernel in self._kernels()
        }

    def activate(self, x: Array) -> Array:
        """Leaky ReLU."""
        result: Array = np.float32(MEAN_SLOPE) * x
        return np.maximum(x, result, out=result)

    def absorb(
        self, state: Halves, step: int, decoded: Array, board: Checkerboard, num_steps: int
    ) -> None:
        """Latents, few of which are zero."""
        group, colour = divmod(step, 2)
        padded = board.padded(decoded)
        for to in _colours_after(step, num_steps):
            half = state[to]
            half += self._layers[f"absorb_group.{group}"].bias
            half += self._absorb[group, colour == to] @ board.columns(padded, colour, to)


class ScaleNetwork(StepNetwork):
    """Numbers of coding tables, in exact integers.

    Its planes are 2^8 s and 4 q, its hyper-latents 2^8 z; what it absorbs are magnitudes of symbols
    as activations. Sums are held in units of the next layer's activations, or of the numbers of
    tables: a power of two scales integers exactly. In memory the channels of a cell's state lie
    side by side, as products of digits give them.
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
            self._absorb = {
                (group, same): DigitWeights(kernel) for group, same, kernel in self._kernels()
            }
        except ValueError as error:
            raise ModelError(f"{what}: {error}") from error
        for name, (weight, bias) in self._layers.items():
            is_head = name.startswith("head")
            unit = TABLE_GAIN * 2.0**-SUM_BITS if is_head else 2.0**-WEIGHT_BITS
            weight *= unit
            bias *= unit
            if not is_head and not name.startswith(("from_planes", "absorb_group")):
                bias += 0.5  # so that the floor of a sum rounds it

    def begin(self, z: Array, planes: Array, board: Checkerboard) -> Halves:
        """As of :class:`StepNetwork`."""
        even, odd = super().begin(z, planes, board)
        return np.ascontiguousarray(even.T).T, np.ascontiguousarray(odd.T).T

    def absorb(
        self, state: Halves, step: int, decoded: Array, board: Checkerboard, num_steps: int
    ) -> None:
        """Magnitudes (uint16), most of which are zero at low rates: so are channels, and digits."""
        group, colour = divmod(step, 2)
        colours = _colours_after(step, num_steps)
        for to in colours:
            state[to][...] += self._layers[f"absorb_group.{group}"].bias
        if not colours:
            return
        for digits, worth in activation_digits(decoded):
            unit = worth * 2.0**-WEIGHT_BITS
            channels = np.flatnonzero(digits.any(axis=1))
            digits = digits[channels]
            nonzero = digits.any(axis=0).reshape(1, -1)
            is_dense = np.count_nonzero(nonzero) > _DENSE * nonzero.size
            padded_nonzero = None if is_dense else board.padded(nonzero)
            padded = np.ascontiguousarray(board.padded(digits).transpose(1, 2, 0))
            for to in colours:
                weights, sums = self._absorb[group, colour == to], state[to].T
                rows = board.rows(padded, colour, to)
                if padded_nonzero is not None:
                    near = board.columns(padded_nonzero, colour, to).any(axis=0)
                    reached = np.flatnonzero(near)
                    if len(reached) <= _DENSE * len(sums):
                        sums[reached] += weights.products(rows[reached], channels, unit)
                        continue
                sums += weights.products(rows, channels, unit)

    def activate(self, x: Array) -> Array:
        """Round, ReLU, clip; a half was added before."""
        result: Array = np.floor(x)
        return np.clip(result, 0, MAX_INTEGER, out=result)

    def table(self, state: Halves, step: int, level: Array, q: int) -> npt.NDArray[np.uint8]:
        """Numbers of the coding tables of a step's symbols.

            clip((4 sum + 3 * 2^13 (64 s + q) + 20 * 2^20 + 2^19) >> 20, 0, 63)

        A step size of half the length doubles a symbol: that much is known without a network.

        Args:
            state: of all that is decoded.
            step: 2 group + pass.
            level: (cells of the colour,) levels s of the importance map.
            q: of the header.

        Returns:
            (channels of the group, cells of the colour)
        """
        numbers = self.predict(state, step)
        of_step_size = _SUM_PER_Q * (Q_UNITS * level.astype(np.int64) + q)
        # Where this sum could round, it is far beyond all tables.
        numbers += (
            of_step_size + MIDDLE_TABLE * 2**SUM_BITS + 2 ** (SUM_BITS - 1)
        ) * 2.0**-SUM_BITS
        np.clip(numbers, 0, NUM_TABLES - 1, out=numbers)
        return numbers.astype(np.uint8)


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
