"""Codes of the `cvpr2018` family <-> bytes: one traversal for encoder and decoder.

First the importance map, all cells of equal x + 2 y at once, bit plane after bit plane of their
levels; a network gives the probability of each bit. Then the code, all bits of equal x + 2 y + d k
at once, k their channel; a network gives the probability of each bit from those bits of a cube
around it that are coded before. Both networks compute in the exact integers of
:mod:`cwic.coding.exact_arithmetic` and see integers that are coded already, so that every machine
reads the same file the same way.

What is called `visit` goes through symbols in either direction: an encoder or a counter takes them
from arrays, a decoder writes them into the same arrays. Leaves the range coder to
:mod:`cwic.coding.arithmetic_coder` and the float transforms to :mod:`cwic.engine`.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cwic.coding.arithmetic_coder import BitCoder, BitCounter, BitDecoder
from cwic.coding.blas_threads import one_blas_thread
from cwic.coding.exact_arithmetic import (
    ACTIVATION_BITS,
    MAX_INTEGER,
    SUM_BITS,
    check_exact,
    dtype_for_signs,
    rectified,
)
from cwic.coding.symbol_tables import FREQUENCY_TOTAL
from cwic.errors import ModelError

Bits = npt.NDArray[np.uint8]
Array = npt.NDArray[Any]

LOGIT_UNITS = 128  # a probability's index counts 1 / LOGIT_UNITS of a logit
PROBABILITIES = 2048  # length of the table of probabilities, logits from -8 to 8

# (dy, dx) of the cells that come before a cell in order of x + 2 y, as far as a 5 x 5 window goes.
LEVEL_TAPS = (
    *((-2, dx) for dx in range(-2, 3)),
    *((-1, dx) for dx in range(-2, 2)),
    *((0, dx) for dx in range(-2, 0)),
)

MAX_CODE_CHANNELS = 1024
MAX_CHANNEL_DELAY = 16
OUTPUT_GAIN = 4  # of the last layers
_MAX_PLACE = 2**40  # of biases: no sum comes near 2^53
_REACH = 2  # cells of border around maps and codes


class CodeLayout(NamedTuple):
    """The numbers of a `cvpr2018` model that its coder depends on."""

    code_channels: int  # n
    levels: int  # L, a power of two up to 256 that divides n
    first_kept: int  # kept channels at level 0: 0 (paper) or n / L (released model)
    channel_delay: int  # d: bits of equal x + 2 y + d k are one step

    def kept(self, level: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        """Kept channels of each cell from its level."""
        return self.first_kept + level.astype(np.int64) * (self.code_channels // self.levels)


def known_before(channel_delay: int, below: int, reach: int) -> npt.NDArray[np.bool_]:
    """Which cells around a bit are coded before it, in the channel `below` channels below its own.

    (2 reach + 1, 2 reach + 1), with `reach` cells on each side.
    """
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    before: npt.NDArray[np.bool_] = dx + 2 * dy < channel_delay * below
    return before


class CodedPicture(NamedTuple):
    """A binary code and its importance map."""

    code: Bits  # (n, h, w), values 0 and 1; 0 where masked
    level: npt.NDArray[np.uint8]  # (h, w), 0..L - 1


class _Tap(NamedTuple):
    """A bit of the cube, as seen from the bit that it helps to predict."""

    below: int  # channels
    dy: int
    dx: int


class _Perceptron(NamedTuple):
    """What follows the first layer: act, a layer, act, the outputs."""

    hidden: Array  # (second, first)
    hidden_bias: Array
    out: Array  # (outputs, second)
    out_bias: Array

    def __call__(self, x: Array) -> npt.NDArray[np.int64]:
        """(N, first) sums -> (N, outputs) sums times the gain."""
        y = rectified(rectified(x) @ self.hidden.T + self.hidden_bias)
        sums: Array = y @ self.out.T + self.out_bias
        return OUTPUT_GAIN * sums.astype(np.int64)


class _Pricer(BitCounter):
    """Notes down what each bit was coded with."""

    def __init__(self) -> None:
        super().__init__()
        self.p_one: list[Array] = []  # of each call

    def code(self, bits: Array, p_one: Array) -> Bits:
        self.p_one.append(p_one)
        return super().code(bits, p_one)


class CodeCoder:
    """The probabilities of one model, and the traversal that uses them."""

    def __init__(self, layout: CodeLayout, arrays: Mapping[str, Array], model: str):
        """Take a model file's arrays over.

        Args:
            layout: of the model.
            arrays: `code.below.weight` (H, maps - 1, 2 r + 1, 2 r + 1) and `code.own.weight`
                (H, 1, ...) where there is a cube, `code.place` (n L, H), `code.hidden.*`,
                `code.out.*`; `level.neighbours.*` (H, 2, 5, 5), `level.hidden.*`, `level.out.*`
                of L - 1 outputs, all integers; `probabilities` (2048,).
            model: its name, for error messages.

        Raises:
            ModelError: they do not fit.
        """
        self._model = model
        _check_layout(layout, model)
        self.layout = layout
        found = {name: _integers(name, array, model) for name, array in arrays.items()}
        self._place = self._take(found, "code.place", (layout.code_channels * layout.levels, None))
        width = self._place.shape[1]
        if np.abs(self._place).max() > _MAX_PLACE:
            raise ModelError(f"model {model}: code.place: expected at most {_MAX_PLACE}")
        self._taps, self._cube = self._cube_of(found, width)
        self._code_perceptron = self._perceptron(found, "code", width, 1)
        self._neighbours, self._level_bias = self._neighbours_of(found)
        self._level_perceptron = self._perceptron(
            found, "level", len(self._level_bias), layout.levels - 1
        )
        probabilities = self._take(found, "probabilities", (PROBABILITIES,)).astype(np.int64)
        if probabilities.min() < 1 or probabilities.max() >= FREQUENCY_TOTAL:
            raise ModelError(
                f"model {model}: expected probabilities from 1 to {FREQUENCY_TOTAL - 1}"
            )
        self._probabilities = probabilities

    def _cube_of(self, found: dict[str, Array], width: int) -> tuple[list[_Tap], Array]:
        """What a bit is predicted from, and its weights, (taps, width)."""
        cube: list[_Tap] = []
        rows = [np.zeros((0, width))]
        for name, inputs in (("code.own.weight", 1), ("code.below.weight", None)):
            if name not in found:
                continue
            weight = self._kernel(found, name, (width, inputs))
            self._check_exact(weight, np.zeros(width), 1 << ACTIVATION_BITS)
            reach = weight.shape[2] // 2
            for j in range(weight.shape[1]):
                below = 0 if inputs else weight.shape[1] - j
                known = known_before(self.layout.channel_delay, below, reach)
                for row, column in np.argwhere(known):
                    cube.append(_Tap(below, int(row) - reach, int(column) - reach))
                    rows.append(weight[None, :, j, row, column])
        weights = np.concatenate(rows)
        return cube, weights.astype(dtype_for_signs(weights))

    def _neighbours_of(self, found: dict[str, Array]) -> tuple[Array, Array]:
        """The first layer of the levels' network, (2 taps, H), and its bias, (H,)."""
        name = "level.neighbours.weight"
        weight = self._kernel(found, name, (None, 2))
        if weight.shape[2] != 2 * _REACH + 1:
            raise ModelError(
                f"model {self._model}: {name}: expected windows of {2 * _REACH + 1}, "
                f"found {weight.shape}"
            )
        bias = self._take(found, "level.neighbours.bias", (len(weight),))
        self._check_exact(weight, bias, 1 << ACTIVATION_BITS)
        rows = [
            weight[:, plane, dy + _REACH, dx + _REACH] for plane in (0, 1) for dy, dx in LEVEL_TAPS
        ]
        return np.stack(rows), bias

    def _take(self, found: dict[str, Array], name: str, shape: tuple[int | None, ...]) -> Array:
        array = found.get(name)
        if (
            array is None
            or array.ndim != len(shape)
            or not array.size
            or any(want not in (None, side) for want, side in zip(shape, array.shape, strict=True))
        ):
            raise ModelError(
                f"model {self._model}: expected {name} of shape {shape}, "
                f"found {None if array is None else array.shape}"
            )
        return array

    def _kernel(
        self, found: dict[str, Array], name: str, shape: tuple[int | None, int | None]
    ) -> Array:
        weight = self._take(found, name, (*shape, None, None))
        if weight.shape[2] != weight.shape[3] or weight.shape[2] not in (1, 3, 5):
            raise ModelError(
                f"model {self._model}: {name}: expected windows of 1, 3 or 5, found {weight.shape}"
            )
        return weight

    def _perceptron(
        self, found: dict[str, Array], name: str, inputs: int, outputs: int
    ) -> _Perceptron:
        hidden = self._take(found, f"{name}.hidden.weight", (None, inputs, 1, 1))
        hidden_bias = self._take(found, f"{name}.hidden.bias", (len(hidden),))
        out = self._take(found, f"{name}.out.weight", (outputs, len(hidden), 1, 1))
        out_bias = self._take(found, f"{name}.out.bias", (outputs,))
        self._check_exact(hidden, hidden_bias)
        self._check_exact(out, out_bias)
        return _Perceptron(hidden[:, :, 0, 0], hidden_bias, out[:, :, 0, 0], out_bias)

    def _check_exact(self, weight: Array, bias: Array, max_input: int = MAX_INTEGER) -> None:
        try:
            check_exact((weight.astype(np.int64), bias.astype(np.int64)), max_input=max_input)
        except ValueError as error:
            raise ModelError(f"model {self._model}: {error}") from error

    # -- both directions ---------------------------------------------------------------------------

    def decode(self, payload: bytes, height: int, width: int) -> CodedPicture:
        """The code and the map of a payload of (height, width) cells.

        Raises:
            BitstreamError: the payload is damaged in a way that shows.
        """
        coder = BitDecoder(payload)
        picture = CodedPicture(
            np.zeros((self.layout.code_channels, height, width), np.uint8),
            np.zeros((height, width), np.uint8),
        )
        self.visit(coder, picture)
        coder.finish()
        return picture

    def counted(self, picture: CodedPicture) -> BitCounter:
        """What a picture costs, and its payload if that is needed."""
        counter = BitCounter()
        self.visit(counter, CodedPicture(picture.code.copy(), picture.level.copy()))
        return counter

    def priced(self, picture: CodedPicture) -> tuple[float, npt.NDArray[np.float32]]:
        """Bits that a picture takes, and by how much a 1 is dearer than a 0 where it is coded.

        Of the code's bits, (n, h, w), each with all others as they are; 0 where masked.
        """
        counter = _Pricer()
        self.visit_map(counter, picture.level.copy())
        num_calls = len(counter.p_one)
        self._visit_code(counter, CodedPicture(picture.code.copy(), picture.level))
        prices = np.zeros(picture.code.shape, np.float32)
        flat = prices.reshape(len(prices), -1)
        steps = self._steps(self.layout.kept(picture.level))
        for (k, cells), p_one in zip(steps, counter.p_one[num_calls:], strict=True):
            flat[k, cells] = np.log2(FREQUENCY_TOTAL / p_one - 1)
        return counter.bits, prices

    def visit(self, coder: BitCoder, picture: CodedPicture) -> None:
        """Visit the map, then the code: an encoder's are coded, a decoder's are filled in.

        Raises:
            BitstreamError: a decoder finds what no encoder writes.
        """
        self.visit_map(coder, picture.level)
        self._visit_code(coder, picture)

    def visit_map(self, coder: BitCoder, level: npt.NDArray[np.uint8]) -> None:
        """Visit the map alone, (h, w) levels in 0..L - 1: all cells of equal x + 2 y at once."""
        height, width = level.shape
        stride = width + 2 * _REACH
        # Levels as activations, and which cells are known; zeros around and ahead.
        planes = np.zeros((2, (height + 2 * _REACH) * stride))
        taps = np.array([dy * stride + dx for dy, dx in LEVEL_TAPS])
        unit = (1 << ACTIVATION_BITS) // self.layout.levels
        for step in range(width + 2 * (height - 1)):
            y = np.arange(max(0, (step - width + 2) // 2), min(height - 1, step // 2) + 1)
            if not y.size:
                continue
            x = step - 2 * y
            at = (y + _REACH) * stride + x + _REACH
            near = at[:, None] + taps
            columns = np.concatenate([planes[0][near], planes[1][near]], axis=1)
            logits = self._level_perceptron(columns @ self._neighbours + self._level_bias)
            value = self._visit_levels(coder, level[y, x], logits)
            level[y, x] = value
            planes[0][at] = unit * value
            planes[1][at] = 1 << ACTIVATION_BITS

    def _visit_levels(
        self, coder: BitCoder, level: npt.NDArray[np.uint8], logits: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """(N,) levels, their highest bits first; logits (N, L - 1), one for each node of a heap."""
        cells = np.arange(len(level))
        p_one = self._p_one(logits)
        node = np.ones(len(level), np.int64)  # 1, then 2 or 3, then 4 to 7, ...: bits so far
        for plane in reversed(range(self.layout.levels.bit_length() - 1)):
            bits = coder.code(level >> plane & 1, p_one[cells, node - 1])
            node = 2 * node + bits
        return node - self.layout.levels

    def _p_one(self, sums: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Numerators of P(bit = 1), from logits as a perceptron gives them."""
        index = (sums * LOGIT_UNITS >> SUM_BITS) + PROBABILITIES // 2
        p_one: npt.NDArray[np.int64] = self._probabilities[np.clip(index, 0, PROBABILITIES - 1)]
        return p_one

    @one_blas_thread()
    def _visit_code(self, coder: BitCoder, picture: CodedPicture) -> None:
        """All bits of a step at once, in the order of :meth:`_steps`."""
        channels, height, width = picture.code.shape
        lowest = max((tap.below for tap in self._taps), default=0)
        stride = width + 2 * _REACH
        plane = (height + 2 * _REACH) * stride
        # -1 and 1; 0 for outside, masked, or not yet coded.
        sign = np.zeros((lowest + channels) * plane, self._cube.dtype)
        taps = np.array([dy * stride + dx - below * plane for below, dy, dx in self._taps], np.intp)
        y, x = np.divmod(np.arange(height * width), width)
        place = lowest * plane + (y + _REACH) * stride + x + _REACH
        flat = picture.code.reshape(channels, -1)
        level = picture.level.ravel().astype(np.int64)
        one = 1 << ACTIVATION_BITS  # what a sign is as an activation
        for k, cells in self._steps(self.layout.kept(picture.level)):
            at = k * plane + place[cells]
            sums = self._place[k * self.layout.levels + level[cells]]
            sums += one * (sign.take(at[:, None] + taps) @ self._cube)
            bits = coder.code(flat[k, cells], self._p_one(self._code_perceptron(sums)[:, 0]))
            flat[k, cells] = bits
            sign[at] = np.where(bits, 1, -1)

    def _steps(
        self, kept: npt.NDArray[np.int64]
    ) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
        """Channels and cells, raster positions, of the kept bits of each step that has any."""
        channels, delay = self.layout.code_channels, self.layout.channel_delay
        height, width = kept.shape
        flat = kept.ravel()
        k, y = (grid.ravel() for grid in np.mgrid[0:channels, 0:height])
        first = 2 * y + delay * k  # the step in which a row of a channel begins
        for step in range(width + 2 * (height - 1) + delay * (channels - 1)):
            x = step - first
            rows = np.flatnonzero((x >= 0) & (x < width))
            cells = y[rows] * width + x[rows]
            inside = flat[cells] > k[rows]
            if inside.any():
                yield k[rows[inside]], cells[inside]


def _check_layout(layout: CodeLayout, model: str) -> None:
    """Raises ModelError where numbers make no sense together."""
    n, levels, first_kept, channel_delay = layout
    if not 1 <= channel_delay <= MAX_CHANNEL_DELAY:
        raise ModelError(
            f"model {model}: expected a channel_delay of 1 to {MAX_CHANNEL_DELAY}, "
            f"found {channel_delay}"
        )
    if not (
        2 <= levels <= 256
        and levels & (levels - 1) == 0
        and levels <= n <= MAX_CODE_CHANNELS
        and n % levels == 0
        and 0 <= first_kept <= n // levels
    ):
        raise ModelError(
            f"model {model}: expected a power of two of up to 256 levels that divides up to "
            f"{MAX_CODE_CHANNELS} code channels, and no more channels kept at first than at "
            f"each level, found {layout}"
        )


def _integers(name: str, array: Array, model: str) -> Array:
    if array.dtype.kind not in "iu":
        raise ModelError(f"model {model}: {name}: expected integers, found {array.dtype}")
    return array.astype(np.float64)
