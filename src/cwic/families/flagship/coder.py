r"""Tiles of the `flagship` family <-> bytes: one traversal for encoder and decoder.

What is coded, in this order, in one range coder:

* the importance map, see :mod:`.levels`;
* the hyper-latents z, each channel by a table of its own;
* the latents in groups of channels, each in two steps over a checkerboard. A symbol is
  round((y - m) 2^((q + s) / 4)), its latent m + symbol 2^(-(q + s) / 4). The mean m comes from a
  network in floating point, see :mod:`.latents`; the number of its table comes from integers alone,
  so that every machine reads the same symbols.

What is called `visit` goes through symbols in either direction: an encoder or a counter takes them
from arrays, a decoder writes them into the same arrays.

Cells beyond the picture, which exist because hyper-latents cover 4 x 4 latents, have symbol 0, the
levels of their nearest neighbours, and are not coded. Leaves the networks to
:mod:`.step_network`, the range coder to :mod:`cwic.coding.arithmetic_coder`, the transforms to
:mod:`.tiles`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cwic.coding.arithmetic_coder import BitCoder, BitCounter, BitDecoder
from cwic.coding.blas_threads import one_blas_thread
from cwic.coding.exact_arithmetic import ACTIVATION_BITS, MAX_INTEGER
from cwic.coding.symbol_tables import FREQUENCY_TOTAL, SymbolTables
from cwic.errors import BitstreamError, ModelError
from cwic.families.flagship.grid import HYPER_LATENTS, Q_UNITS, Array, Cells, Checkerboard
from cwic.families.flagship.latents import (
    CONDITION_PLANES,
    MAX_CODED,
    MAX_EXCESS_BITS,
    MAX_SYMBOL,
    Dequantizer,
    Latents,
    Quantizer,
    SecondThread,
    SideInformation,
    Symbols,
)
from cwic.families.flagship.levels import LEVEL_TABLES_SHAPE, visit_levels
from cwic.families.flagship.step_network import MAX_HYPER, NUM_TABLES, MeanNetwork, ScaleNetwork

ESCAPE = 2 * MAX_SYMBOL + 1  # index of the escape; symbol k has index k + MAX_SYMBOL
RATE_CLASSES = 12  # classes of q that have hyper-latent statistics of their own
RATE_CLASS_WIDTH = 2  # in quarter octaves; 0 lies in the middle of them all

_SCALE_PLANES = 2  # of the scale network: level and q
_HALF = FREQUENCY_TOTAL // 2


class _Step(NamedTuple):
    """What is coded at once: a group's channels, cells of one colour."""

    number: int  # 2 group + colour
    tables: npt.NDArray[np.uint8]  # (channels, cells)
    symbols: Symbols  # (channels, cells) zeros, to be filled in before the next step


class CodedLatents(NamedTuple):
    """All that a payload says, and what it means to the synthesis."""

    q: int  # of the header, in 1/64 of a quarter octave
    level: npt.NDArray[np.int64]  # (h, w) levels of the importance map
    hyper: npt.NDArray[np.int64]  # (hyper_channels, h / 4, w / 4)
    steps: Sequence[_Step]  # as they were coded
    board: Checkerboard  # of their cells
    decoded: npt.NDArray[np.float32]  # (M, h, w); of the first groups alone, fewer channels
    prior: npt.NDArray[np.float32]  # (mean width, h, w) what is known without the latents
    planes: npt.NDArray[np.float32]  # (5, h, w), see `latents.condition`

    @property
    def symbols(self) -> Symbols:
        """As many as latents; made when they are asked for."""
        return self._whole([step.symbols for step in self.steps])

    @property
    def tables(self) -> npt.NDArray[np.uint8]:
        """Numbers of the symbols' coding tables; made when they are asked for."""
        return self._whole([step.tables for step in self.steps])

    def _whole(self, of_steps: Sequence[Array]) -> Array:
        """(channels, cells) of each step on the grid, (M, h, w)."""
        return self.board.whole((np.concatenate(of_steps[::2]), np.concatenate(of_steps[1::2])))


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
        self.mean_network = MeanNetwork(_layers(arrays, "mean."), groups, f"model {model}: mean")
        self.scale_network = ScaleNetwork(
            _layers(arrays, "scale."), groups, f"model {model}: scale"
        )
        self.hyper_channels = self.scale_network.hyper_channels
        found = (self.mean_network.hyper_channels, self.mean_network.planes)
        if (
            found != (self.hyper_channels, CONDITION_PLANES)
            or self.scale_network.planes != _SCALE_PLANES
        ):
            raise ModelError(
                f"model {model}: expected networks of {self.hyper_channels} hyper-latents, "
                f"{CONDITION_PLANES} and {_SCALE_PLANES} planes, "
                f"found {found} and {self.scale_network.planes}"
            )
        hyper_shape = (RATE_CLASSES * self.hyper_channels, 2 * MAX_HYPER + 1)
        self._symbol_tables = _tables(arrays, "symbol_tables", (NUM_TABLES, ESCAPE + 1), model)
        self._hyper_tables = _tables(arrays, "hyper_tables", hyper_shape, model)
        self._level_tables = _tables(arrays, "level_tables", LEVEL_TABLES_SHAPE, model)
        self._magnitudes = _magnitudes(arrays, model)

    def encode(
        self,
        coder: BitCoder,
        y: npt.NDArray[np.float32],
        side: SideInformation,
        cells: Cells,
        *,
        two_threads: bool = False,
    ) -> CodedLatents:
        """Quantize latents and code them.

        Args:
            coder: takes the symbols: an encoder, or a :class:`BitCounter`.
            y: (M, h, w) of the analysis.
            side: of the tile; levels beyond the picture only repeat those inside.
            cells: of the tile.
            two_threads: the two networks may work side by side.
        """
        self.visit_side(coder, side, cells)
        board = Checkerboard(cells)
        with one_blas_thread(), SecondThread(two_threads) as thread:
            latents = Quantizer(self.mean_network, side, board, y, thread)
            return self._visit(coder, side, board, latents, 2 * len(self.mean_network.groups))

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
            num_groups: of channels that are needed; only their symbols and latents are decoded.
                None: all.
            two_threads: the two networks may work side by side.

        Raises:
            BitstreamError: the payload is damaged in a way that shows.
        """
        coder = BitDecoder(payload)
        height, width = cells.padded_height, cells.padded_width
        hyper_shape = (self.hyper_channels, height // HYPER_LATENTS, width // HYPER_LATENTS)
        side = SideInformation(
            q, np.zeros((height, width), np.int64), np.zeros(hyper_shape, np.int64)
        )
        self.visit_side(coder, side, cells)
        all_groups = len(self.mean_network.groups)
        num_steps = 2 * (num_groups or all_groups)
        board = Checkerboard(cells)
        with one_blas_thread(), SecondThread(two_threads) as thread:
            latents = Dequantizer(self.mean_network, side, board, num_steps, thread)
            coded = self._visit(coder, side, board, latents, num_steps)
        if num_steps == 2 * all_groups:
            coder.finish()
        return coded

    def bits_of_cells(self, coded: CodedLatents, cells: Cells) -> npt.NDArray[np.float64]:
        """What each cell of a picture costs in bits, (cells.height, cells.width).

        The share of hyper-latents and levels is the same for all; they are of no cell.
        """
        inside = (slice(None), slice(cells.height), slice(cells.width))
        symbol = coded.symbols[inside]
        beyond = np.abs(symbol) > MAX_SYMBOL
        index = np.where(beyond, ESCAPE, symbol + MAX_SYMBOL)
        bits = self._symbol_tables.bits[coded.tables[inside], index].sum(axis=0, dtype=np.float64)
        counter = BitCounter()
        side = SideInformation(coded.q, coded.level.copy(), coded.hyper.copy())
        self.visit_side(counter, side, cells)
        result: npt.NDArray[np.float64] = bits + counter.bits / bits.size
        return result

    def visit_side(self, coder: BitCoder, side: SideInformation, cells: Cells) -> None:
        """Visit the importance map, then the hyper-latents; a decoder's are filled in.

        Raises:
            BitstreamError: a decoder finds what no encoder writes.
        """
        visit_levels(coder, self._level_tables, side.level, cells)
        self.visit_hyper(coder, side.hyper, side.q)

    def visit_hyper(self, coder: BitCoder, hyper: npt.NDArray[np.int64], q: int) -> None:
        """Visit hyper-latents, (hyper_channels, h / 4, w / 4); a decoder's are filled in."""
        rate_class = q // (RATE_CLASS_WIDTH * Q_UNITS) + RATE_CLASSES // 2
        rate_class = min(max(rate_class, 0), RATE_CLASSES - 1)
        channel = np.arange(self.hyper_channels) + rate_class * self.hyper_channels
        index = np.repeat(channel, hyper[0].size)
        symbols = coder.code_symbols(hyper.reshape(-1) + MAX_HYPER, self._hyper_tables, index)
        hyper[:] = symbols.reshape(hyper.shape) - MAX_HYPER

    def _visit(
        self,
        coder: BitCoder,
        side: SideInformation,
        board: Checkerboard,
        latents: Latents,
        num_steps: int,
    ) -> CodedLatents:
        """Visit the latents."""
        steps = []
        for step in self._steps(side, board, num_steps):
            inside = board.inside[step.number % 2]
            step.symbols[:, inside] = _visit_symbols(
                coder,
                latents.symbols(step.number)[:, inside],
                self._symbol_tables,
                step.tables[:, inside],
            )
            latents.take(step.number, step.symbols)
            steps.append(step)
        decoded = latents.finish()
        return CodedLatents(*side, steps, board, decoded, latents.prior, latents.planes)

    def _steps(self, side: SideInformation, board: Checkerboard, num_steps: int) -> Iterator[_Step]:
        """The order of the latents: what is coded next, and by which tables.

        Whoever asks for a step has filled in the symbols of those before it: their magnitudes are
        all that the scale network sees of the latents.
        """
        network = self.scale_network
        planes = np.stack([side.level << ACTIVATION_BITS, np.full_like(side.level, 4 * side.q)])
        state = network.begin(side.hyper << ACTIVATION_BITS, planes, board)
        levels = [side.level.reshape(-1)[own] for own in board.cells]
        for number in range(num_steps):
            tables = network.table(state, number, levels[number % 2], side.q)
            step = _Step(number, tables, np.zeros(tables.shape, np.int32))
            yield step
            if number + 1 < num_steps:
                magnitudes = self._magnitudes.take(step.symbols + MAX_SYMBOL, mode="clip")
                network.absorb(state, number, magnitudes, board, num_steps)


def _visit_symbols(
    coder: BitCoder, symbols: Symbols, tables: SymbolTables, index: npt.NDArray[np.uint8]
) -> Symbols:
    """Symbols of any magnitude; those beyond the tables as an escape, a sign and an Elias gamma.

    Args:
        coder: what encodes, counts or decodes.
        symbols: (channels, cells); a decoder takes only their number.
        tables: of the model.
        index: (channels, cells) of each symbol's table.

    Returns:
        (channels, cells) symbols, in both directions.
    """
    flat = symbols.reshape(-1)
    in_table = np.where(np.abs(flat) > MAX_SYMBOL, ESCAPE, flat + MAX_SYMBOL)
    coded = coder.code_symbols(in_table, tables, index.reshape(-1))
    values = coded - MAX_SYMBOL
    escaped = np.flatnonzero(coded == ESCAPE)
    if escaped.size:
        values[escaped] = _visit_escapes(coder, flat[escaped])
    return values.reshape(symbols.shape)


def _visit_escapes(coder: BitCoder, symbols: Symbols) -> Symbols:
    """Magnitudes above MAX_SYMBOL, bits of probability 1/2: signs, lengths in unary, digits."""

    def code(bits: Array) -> npt.NDArray[np.int64]:
        return coder.code(bits, np.full(len(bits), _HALF)).astype(np.int64)

    negative = code((symbols < 0).astype(np.uint8))
    excess = np.maximum(np.abs(symbols) - MAX_SYMBOL, 1)
    digits = np.zeros(len(symbols), np.int64)
    longer = np.arange(len(symbols))
    while longer.size:
        if digits[longer[0]] == MAX_EXCESS_BITS:
            raise BitstreamError(
                f"expected symbols of at most {MAX_CODED}, found an escape beyond that"
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


def _magnitudes(arrays: Mapping[str, Array], model: str) -> npt.NDArray[np.uint16]:
    """What the scale network sees of symbols from -MAX_SYMBOL to MAX_SYMBOL."""
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
    return np.concatenate([magnitudes[:0:-1], magnitudes]).astype(np.uint16)
