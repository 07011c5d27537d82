r"""Latents of the `cwic` family <-> bytes: one traversal, walked by the encoder and the decoder.

What is coded, in this order, in one range coder:

* the importance map: a bit that says whether it is flat; if not, its levels along x + 2 y, each by
  a table chosen by a prediction from its left and upper neighbours and by how rough they are;
* the hyper-latents z, each channel by a table of its own;
* the latents in groups of channels, each in two passes over a checkerboard. A symbol is
  round((y - m) 2^((q + s) / 4)), its latent m + symbol 2^(-(q + s) / 4). The mean m comes from a
  network in floating point; the number of its table comes from integers alone, so that every
  machine reads the same symbols.

Cells beyond the picture, which exist because hyper-latents cover 4 x 4 latents, have symbol 0, the
levels of their nearest neighbours, and are not coded. Leaves the networks to
:mod:`.step_network`, the range coder to :mod:`cwic.coding.arithmetic_coder`, the transforms to
:mod:`cwic.engine`.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cwic.coding.arithmetic_coder import (
    FREQUENCY_TOTAL,
    BitCoder,
    BitCounter,
    BitDecoder,
    SymbolTables,
)
from cwic.coding.blas_threads import one_blas_thread
from cwic.coding.exact_arithmetic import ACTIVATION_BITS, MAX_INTEGER
from cwic.errors import BitstreamError, ModelError
from cwic.families.flagship.step_network import (
    MAX_HYPER,
    Array,
    Checkerboard,
    MeanNetwork,
    ScaleNetwork,
)

LATENT_PX = 16  # pixels of a latent's side
HYPER_LATENTS = 4  # latents of a hyper-latent's side
HYPER_PX = LATENT_PX * HYPER_LATENTS
PREVIEW_PX = 8  # pixels of the side of a preview's pixel

Q_UNITS = 64  # q of a header is an integer in 1 / Q_UNITS of a quarter octave of the step size
MAX_LEVEL = 8  # of the importance map, both signs, in quarter octaves
NUM_TABLES = 64  # for symbols of latents
MAX_SYMBOL = 255  # larger magnitudes are coded as an escape and a number
ESCAPE = 2 * MAX_SYMBOL + 1  # index of the escape; symbol k has index k + MAX_SYMBOL
RATE_CLASSES = 12  # classes of q that have hyper-latent statistics of their own

LEVEL_CONTEXTS = (1, 2, 3, 5, 8)  # roughness at which the next context of a level begins
LEVEL_FRACTIONS = 4  # a level's prediction is a multiple of 1 / LEVEL_FRACTIONS
MAX_LEVEL_RESIDUAL = 20  # of a level from its prediction rounded down

# Context of a level by the roughness of its neighbourhood.
_LEVEL_CONTEXT = np.searchsorted(
    LEVEL_CONTEXTS, np.arange(6 * MAX_LEVEL + 1), side="right"
).tolist()

_PLANES = 5  # of `condition`
_TOLD = 2  # planes of the scale network: level and q
_HALF = FREQUENCY_TOTAL // 2
_MAX_EXCESS_BITS = 16  # of what an escape adds to MAX_SYMBOL
_MAX_CODED = MAX_SYMBOL + (1 << _MAX_EXCESS_BITS) - 1

Symbols = npt.NDArray[np.int32]


class CodedLatents(NamedTuple):
    """All that a payload says, and what it means to the synthesis."""

    q: int  # of the header, in 1/64 of a quarter octave
    level: npt.NDArray[np.int64]  # (h, w) levels of the importance map
    hyper: npt.NDArray[np.int64]  # (hyper_channels, h / 4, w / 4)
    symbols: npt.NDArray[np.int32]  # (M, h, w); of the first groups alone, fewer channels
    tables: npt.NDArray[np.uint8]  # as many numbers of the symbols' coding tables
    decoded: npt.NDArray[np.float32]  # as many latents
    prior: npt.NDArray[np.float32]  # (mean width, h, w) what is known without the latents
    planes: npt.NDArray[np.float32]  # (5, h, w), see `condition`


class Cells(NamedTuple):
    """Latent positions of a picture."""

    height: int  # rows that have pixels of the picture
    width: int
    padded_height: int  # of the grid, a multiple of HYPER_LATENTS
    padded_width: int


def cells_of(height_px: int, width_px: int) -> Cells:
    """The cells of a picture of so many pixels."""
    height, width = -(-height_px // LATENT_PX), -(-width_px // LATENT_PX)
    return Cells(
        height,
        width,
        -(-height // HYPER_LATENTS) * HYPER_LATENTS,
        -(-width // HYPER_LATENTS) * HYPER_LATENTS,
    )


def condition(q: int, level: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """What networks in floating point are told of the step size, as planes beside other inputs.

    Args:
        q: of the header.
        level: (h, w).

    Returns:
        (5, h, w), magnitudes of about 1.
    """
    base = np.full(level.shape, q / Q_UNITS, np.float32)
    total = (base + level.astype(np.float32)) / 8
    step = np.exp2(-2 * total)
    return np.stack([total, total * total, step / 2, 1 / (2 * step), base / 8]).astype(np.float32)


class LatentCoder:
    """The probabilities of one model, and the traversal that uses them."""

    def __init__(self, arrays: Mapping[str, Array], groups: tuple[int, ...], model: str):
        """Take a model file's arrays over.

        Args:
            arrays: `mean.LAYER.weight`, `mean.LAYER.bias` (float), `scale.LAYER.weight`,
                `scale.LAYER.bias` (integer), `symbol_tables` (64, 512), `hyper_tables`
                (12 hyper_channels, 127), `level_tables` (24, 41), `magnitudes` (256,).
            groups: latent channels of each group.
            model: its name, for error messages.

        Raises:
            ModelError: they do not fit.
        """
        self._groups = groups
        self.mean_network = MeanNetwork(_layers(arrays, "mean."), groups, f"model {model}: mean")
        self.scale_network = ScaleNetwork(
            _layers(arrays, "scale."), groups, f"model {model}: scale"
        )
        self.hyper_channels = self.scale_network.hyper_channels
        found = (self.mean_network.hyper_channels, self.mean_network.planes)
        if found != (self.hyper_channels, _PLANES) or self.scale_network.planes != _TOLD:
            raise ModelError(
                f"model {model}: expected networks of {self.hyper_channels} hyper-latents, "
                f"{_PLANES} and {_TOLD} planes, found {found} and {self.scale_network.planes}"
            )
        expected = {
            "symbol_tables": (NUM_TABLES, ESCAPE + 1),
            "hyper_tables": (RATE_CLASSES * self.hyper_channels, 2 * MAX_HYPER + 1),
            "level_tables": (
                (len(LEVEL_CONTEXTS) + 1) * LEVEL_FRACTIONS,
                2 * MAX_LEVEL_RESIDUAL + 1,
            ),
        }
        tables = {name: _tables(arrays, name, shape, model) for name, shape in expected.items()}
        self._symbol_tables = tables["symbol_tables"]
        self._hyper_tables = tables["hyper_tables"]
        self._level_tables = tables["level_tables"]
        magnitudes = arrays.get("magnitudes", np.zeros(0))
        if (
            magnitudes.shape != (MAX_SYMBOL + 1,)
            or magnitudes.dtype.kind not in "iu"
            or not 0 <= magnitudes.min() <= magnitudes.max() <= MAX_INTEGER
        ):
            raise ModelError(
                f"model {model}: expected {MAX_SYMBOL + 1} integer magnitudes, 0 to {MAX_INTEGER}, "
                f"found shape {magnitudes.shape} of {magnitudes.dtype}"
            )
        # Of symbols from -MAX_SYMBOL to MAX_SYMBOL.
        self._magnitudes = np.concatenate([magnitudes[:0:-1], magnitudes]).astype(np.float64)

    # -- the encoder's side ------------------------------------------------------------------------

    def code(
        self,
        coder: BitCoder,
        y: npt.NDArray[np.float32],
        hyper: npt.NDArray[np.int64],
        level: npt.NDArray[np.int64],
        q: int,
        cells: Cells,
        *,
        two_threads: bool = False,
    ) -> CodedLatents:
        """Quantize latents and code them.

        Args:
            coder: takes the symbols: an encoder, or a :class:`BitCounter`.
            y: (M, h, w) of the analysis.
            hyper: (hyper_channels, h / 4, w / 4) in -63..63.
            level: (h, w) in -8..8; beyond the picture only what it repeats from inside.
            q: of the header.
            cells: of the picture.
            two_threads: the two networks may work side by side.
        """
        self._code_levels(coder, level, cells)
        self._code_hyper(coder, hyper, q)
        return self._walk(coder, y, hyper, level, q, cells, len(self._groups), two_threads)

    # -- the decoder's side ------------------------------------------------------------------------

    def decode(
        self,
        payload: bytes,
        q: int,
        cells: Cells,
        *,
        num_groups: int | None = None,
        two_threads: bool = False,
    ) -> CodedLatents:
        """What a payload says.

        Args:
            payload: of a tile.
            q: of the header.
            cells: of the tile.
            num_groups: of channels that are wanted; only their symbols and latents are decoded.
                None: all.
            two_threads: the two networks may work side by side.

        Raises:
            BitstreamError: the payload is damaged in a way that shows.
        """
        coder = BitDecoder(payload)
        level = np.zeros((cells.padded_height, cells.padded_width), np.int64)
        shape = (
            self.hyper_channels,
            cells.padded_height // HYPER_LATENTS,
            cells.padded_width // HYPER_LATENTS,
        )
        self._code_levels(coder, level, cells)
        hyper = self._code_hyper(coder, np.zeros(shape, np.int64), q)

        groups = num_groups or len(self._groups)
        result = self._walk(coder, None, hyper, level, q, cells, groups, two_threads)
        if len(result.symbols) == sum(self._groups):
            coder.finish()
        return result

    # -- both --------------------------------------------------------------------------------------

    def _walk(
        self,
        coder: BitCoder,
        y: npt.NDArray[np.float32] | None,
        hyper: npt.NDArray[np.int64],
        level: npt.NDArray[np.int64],
        q: int,
        cells: Cells,
        num_groups: int,
        two_threads: bool,
    ) -> CodedLatents:
        """Visit the latents step by step; `y` is an encoder's, a decoder has none.

        The scale network depends on symbols alone, so neither network waits for the other within a
        step: an encoder's means run ahead of what is coded, a decoder's follow what is read.
        """
        board = Checkerboard(cells.padded_height, cells.padded_width)
        inside = _inside(board, cells)
        levels = [level.reshape(-1)[own] for own in board.cells]
        told = np.stack([level << ACTIVATION_BITS, np.full_like(level, 4 * q)])
        num_steps = 2 * num_groups
        symbols: list[list[Array]] = [[], []]
        tables: list[list[Array]] = [[], []]
        network = self.scale_network
        with one_blas_thread(), _beside(two_threads) as beside:
            side = _LatentSide(self.mean_network, self._groups, board, hyper, level, q, num_steps)
            begun = beside.next(side.begin)
            quantized = []
            if y is not None:
                halves = board.halves(y)
                quantized = [
                    beside.next(side.quantize, step, halves, inside) for step in range(num_steps)
                ]
            dequantized = []
            state = network.begin(hyper << ACTIVATION_BITS, told, board)
            begun()
            absorbed: Callable[[], Any] | None = None
            for step in range(num_steps):
                colour, needed = step % 2, _still_needed(step, num_steps)
                table = network.table(state, step, levels[colour], q, NUM_TABLES)
                wanted = quantized[step]() if quantized else None
                found = self._code_step(coder, wanted, table, inside[colour])
                symbols[colour].append(found)
                tables[colour].append(table)
                if absorbed is not None:
                    absorbed()
                    absorbed = None
                if needed:
                    magnitudes = self._magnitudes.take(found + MAX_SYMBOL, mode="clip")
                    heard = network.heard(step, magnitudes, board)
                if y is None:
                    dequantized.append(beside.next(side.dequantize, step, found))
                # The next step asks for the other colour; this one may be told beside it.
                if colour in needed:
                    absorbed = beside.any(network.absorb, state, heard, board, colour)
                if 1 - colour in needed:
                    network.absorb(state, heard, board, 1 - colour)
            for wait in dequantized:
                wait()
        whole = [
            board.whole((np.concatenate(even), np.concatenate(odd)))
            for even, odd in (symbols, tables, side.decoded)
        ]
        return CodedLatents(q, level, hyper, whole[0], whole[1], whole[2], side.prior, side.planes)

    def _code_step(
        self,
        coder: BitCoder,
        symbols: Symbols | None,
        table: npt.NDArray[np.uint8],
        inside: "_Inside",
    ) -> Symbols:
        """Symbols of a step, (channels, cells of its colour); a decoder has none before."""
        found = _code_symbols(
            coder,
            None if symbols is None else symbols[:, inside].reshape(-1),
            self._symbol_tables,
            table[:, inside].reshape(-1),
        ).reshape(len(table), -1)
        if found.shape == table.shape:
            return found
        padded = np.zeros(table.shape, np.int32)
        padded[:, inside] = found
        return padded

    def bits_of_cells(self, coded: CodedLatents, cells: Cells) -> npt.NDArray[np.float64]:
        """What each cell of a picture costs in bits, (cells.height, cells.width).

        The share of hyper-latents and levels is the same for all; they are of no cell.
        """
        inside = (slice(None), slice(cells.height), slice(cells.width))
        symbol = coded.symbols[inside]
        beyond = np.abs(symbol) > MAX_SYMBOL
        index = np.where(beyond, ESCAPE, symbol + MAX_SYMBOL)
        bits = self._symbol_tables.bits[coded.tables[inside], index].sum(axis=0, dtype=np.float64)
        shared = BitCounter()
        self._code_levels(shared, coded.level.copy(), cells)
        self._code_hyper(shared, coded.hyper, coded.q)
        result: npt.NDArray[np.float64] = bits + shared.bits / bits.size
        return result

    def _code_hyper(
        self, coder: BitCoder, hyper: npt.NDArray[np.int64], q: int
    ) -> npt.NDArray[np.int64]:
        rate_class = min(max((q + RATE_CLASSES * Q_UNITS) >> 7, 0), RATE_CLASSES - 1)
        channel = np.arange(len(hyper)) + rate_class * len(hyper)
        index = np.repeat(channel, hyper[0].size)
        found = coder.code_symbols(hyper.reshape(-1) + MAX_HYPER, self._hyper_tables, index)
        return found.reshape(hyper.shape).astype(np.int64) - MAX_HYPER

    def _code_levels(self, coder: BitCoder, level: npt.NDArray[np.int64], cells: Cells) -> None:
        """Code the map; a decoder's `level` is filled in, cells beyond the picture included."""
        rough = np.array([level.any()], np.uint8)
        inner = level[: cells.height, : cells.width]
        if coder.code(rough, np.array([_HALF]))[0]:
            self._code_rough_levels(coder, inner)
        bottom, right = np.array(level.shape) - inner.shape
        level[:] = np.pad(inner, ((0, bottom), (0, right)), mode="edge")

    def _code_rough_levels(self, coder: BitCoder, level: npt.NDArray[np.int64]) -> None:
        """All cells of equal x + 2 y at once: left, above and above right are known by then."""
        order, starts, neighbours = _level_order(*level.shape)
        values = [0] * (level.size + 1)  # the last one is what is known of nothing
        wanted = level.reshape(-1)[order]
        # A step has a few cells: numbers of Python are quicker than arrays.
        for start, end in pairwise(starts):
            tables, shifts = [], []
            for west_at, north_at, north_west_at, north_east_at in neighbours[start:end]:
                west, north = values[west_at], values[north_at]
                north_west, north_east = values[north_west_at], values[north_east_at]
                predicted = 2 * (west + north) + north_east - north_west
                roughness = (
                    abs(west - north_west) + abs(north - north_west) + abs(north - north_east)
                )
                tables.append(_LEVEL_CONTEXT[roughness] * LEVEL_FRACTIONS + (predicted & 3))
                shifts.append((predicted >> 2) - MAX_LEVEL_RESIDUAL)
            shift = np.array(shifts)
            found = shift + coder.code_symbols(
                wanted[start:end] - shift, self._level_tables, np.array(tables)
            )
            largest = int(np.abs(found).max())
            if largest > MAX_LEVEL:
                raise BitstreamError(
                    f"expected importance levels of at most {MAX_LEVEL}, found {largest}"
                )
            for place, value in zip(order[start:end], found.tolist(), strict=True):
                values[place] = value
        level[:] = np.reshape(values[:-1], level.shape)


class _LatentSide:
    """The side of a walk that computes in floating point: means, and latents from symbols."""

    def __init__(
        self,
        network: MeanNetwork,
        groups: tuple[int, ...],
        board: Checkerboard,
        hyper: npt.NDArray[np.int64],
        level: npt.NDArray[np.int64],
        q: int,
        num_steps: int,
    ):
        self._network, self._groups, self._board = network, groups, board
        self._hyper, self._num_steps = hyper, num_steps
        self._ends = np.cumsum(groups)
        steps = level.astype(np.float32) + np.float32(q / Q_UNITS)
        gain = np.exp2(steps / 4).reshape(-1)
        self._gain = [gain[own] for own in board.cells]
        self.planes = condition(q, level)
        self.decoded: list[list[Array]] = [[], []]  # latents of each colour, group by group
        self.prior: npt.NDArray[np.float32]
        self._state: tuple[Array, Array]

    def begin(self) -> None:
        """What is known without the latents."""
        self._state = self._network.begin(self._hyper, self.planes, self._board)
        self.prior = self._network.activate(self._board.whole(self._state))

    def quantize(self, step: int, halves: tuple[Array, Array], inside: "list[_Inside]") -> Symbols:
        """An encoder's symbols of a step, (channels, cells of its colour).

        Args:
            step: steps are taken in order.
            halves: the latents in two colours.
            inside: cells of each colour that have pixels; the others have symbol 0.
        """
        group, colour = divmod(step, 2)
        mean = self._network.predict(self._state, step)
        own = halves[colour][self._ends[group] - self._groups[group] : self._ends[group]]
        exact = (own - mean) * self._gain[colour]
        np.clip(exact, -_MAX_CODED, _MAX_CODED, out=exact)
        symbols = np.zeros(mean.shape, np.int32)
        symbols[:, inside[colour]] = np.floor(exact[:, inside[colour]] + np.float32(0.5))
        self._add(step, mean, symbols)
        return symbols

    def dequantize(self, step: int, symbols: Symbols) -> None:
        """Take a decoder's symbols of a step; steps are taken in order."""
        self._add(step, self._network.predict(self._state, step), symbols)

    def _add(self, step: int, mean: Array, symbols: Symbols) -> None:
        latents = mean + symbols.astype(np.float32) / self._gain[step % 2]
        self.decoded[step % 2].append(latents)
        colours = _still_needed(step, self._num_steps)
        if colours:
            heard = self._network.heard(step, latents, self._board)
            for colour in colours:
                self._network.absorb(self._state, heard, self._board, colour)


def _still_needed(step: int, num_steps: int) -> tuple[int, ...]:
    """Colours whose state is asked for after a step; the last step of all asks for one alone."""
    return {num_steps - 1: (), num_steps - 2: (1,)}.get(step, (0, 1))


_Inside = npt.NDArray[np.intp] | slice  # cells of one colour that have pixels of the picture


def _inside(board: Checkerboard, cells: Cells) -> list[_Inside]:
    """Of both colours."""
    if (board.height, board.width) == (cells.height, cells.width):
        return [slice(None), slice(None)]
    inside_picture = np.zeros((board.height, board.width), bool)
    inside_picture[: cells.height, : cells.width] = True
    return [np.flatnonzero(inside_picture.reshape(-1)[own]) for own in board.cells]


class _Beside:
    """Takes calls, and gives what waits for their results.

    Without a thread to make them in, each is made where it is waited for.
    """

    def __init__(self, executor: ThreadPoolExecutor | None):
        self._executor = executor

    def next(self, call: Callable[..., Any], *values: Any) -> Callable[[], Any]:
        """A call that is made after those before it."""
        if self._executor is None:
            return partial(call, *values)
        return self._executor.submit(call, *values).result

    def any(self, call: Callable[..., Any], *values: Any) -> Callable[[], Any]:
        """A call in any order: who waits for it before it has begun makes it."""
        if self._executor is None:
            return partial(call, *values)
        future = self._executor.submit(call, *values)
        return lambda: call(*values) if future.cancel() else future.result()


@contextmanager
def _beside(two_threads: bool) -> Iterator[_Beside]:
    """With a thread of its own, or without."""
    if not two_threads:
        yield _Beside(None)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="cwic-means") as executor:
        yield _Beside(executor)


class _LevelOrder(NamedTuple):
    """In which order levels are coded, and what is known of each."""

    order: list[int]  # (cells,) positions in the flattened map
    starts: list[int]  # of each step in `order`, and the end
    neighbours: list[list[int]]  # (cells, 4) positions of W, N, NW and NE, in that order


def _level_order(height: int, width: int) -> _LevelOrder:
    """Cells by x + 2 y, then y, and their neighbours.

    A missing neighbour is replaced by the nearest known one: above the first row that is W, left of
    the first column N, right of the last one N. The first cell of all knows nothing: its neighbours
    have position height * width.
    """
    y, x = np.divmod(np.arange(height * width), width)
    step = x + 2 * y
    order = np.argsort(step, kind="stable")
    starts = np.flatnonzero(np.diff(step[order], prepend=-1, append=-1)).tolist()
    y, x = y[order], x[order]
    west, north = order - 1, order - width
    north_west, north_east = north - 1, north + 1
    west = np.where(x == 0, north, west)
    north_west = np.where(x == 0, north, north_west)
    north_east = np.where(x == width - 1, north, north_east)
    west[0] = height * width
    north, north_west, north_east = (
        np.where(y == 0, west, there) for there in (north, north_west, north_east)
    )
    around = np.stack([west, north, north_west, north_east], axis=1)
    return _LevelOrder(order.tolist(), starts, around.tolist())


def _code_symbols(
    coder: BitCoder,
    symbols: Symbols | None,
    tables: SymbolTables,
    index: npt.NDArray[np.uint8],
) -> Symbols:
    """Symbols of any magnitude; those beyond the tables as an escape, a sign and an Elias gamma."""
    if symbols is None:  # a decoder's
        symbols = wanted = np.zeros(len(index), np.int32)
    else:
        beyond = np.abs(symbols) > MAX_SYMBOL
        wanted = np.where(beyond, ESCAPE, symbols + MAX_SYMBOL)
    found = coder.code_symbols(wanted, tables, index)
    values = found - MAX_SYMBOL
    escaped = np.flatnonzero(found == ESCAPE)
    if escaped.size:
        values[escaped] = _code_escapes(coder, symbols[escaped])
    return values


def _code_escapes(coder: BitCoder, symbols: Symbols) -> Symbols:
    """Magnitudes above MAX_SYMBOL, bits of probability 1/2: signs, lengths in unary, digits."""

    def code(bits: Array) -> npt.NDArray[np.int64]:
        return coder.code(bits, np.full(len(bits), _HALF)).astype(np.int64)

    negative = code((symbols < 0).astype(np.uint8))
    excess = np.maximum(np.abs(symbols) - MAX_SYMBOL, 1)
    digits = np.zeros(len(symbols), np.int64)
    longer = np.arange(len(symbols))
    while longer.size:
        if digits[longer[0]] == _MAX_EXCESS_BITS:
            raise BitstreamError(
                f"expected symbols of at most {_MAX_CODED}, found an escape beyond that"
            )
        goes_on = code((excess[longer] >> (digits[longer] + 1) > 0).astype(np.uint8))
        longer = longer[goes_on == 1]
        digits[longer] += 1
    value = np.ones(len(symbols), np.int64)
    for digit in range(int(digits.max()) - 1, -1, -1):
        having = np.flatnonzero(digits > digit)
        bit = code(((excess[having] >> digit) & 1).astype(np.uint8))
        value[having] = 2 * value[having] + bit
    return np.where(negative == 1, -value - MAX_SYMBOL, value + MAX_SYMBOL).astype(np.int32)


def _layers(arrays: Mapping[str, Array], prefix: str) -> dict[str, tuple[Array, Array]]:
    """Layers by name, those of which a bias is missing left out."""
    names = (
        name.removeprefix(prefix).removesuffix(".weight")
        for name in arrays
        if name.startswith(prefix) and name.endswith(".weight")
    )
    return {
        name: (arrays[f"{prefix}{name}.weight"], arrays[f"{prefix}{name}.bias"])
        for name in names
        if f"{prefix}{name}.bias" in arrays
    }


def _tables(
    arrays: Mapping[str, Array], name: str, shape: tuple[int, int], model: str
) -> SymbolTables:
    found = arrays.get(name)
    if found is None or found.shape != shape:
        raise ModelError(
            f"model {model}: expected {name} of shape {shape}, "
            f"found {None if found is None else found.shape}"
        )
    try:
        return SymbolTables(found)
    except ValueError as error:
        raise ModelError(f"model {model}: {name}: {error}") from error
