"""Codes of the `cvpr2018` family <-> bytes: one traversal, walked by encoder and decoder alike.

A traversal visits every bit in coding order with the number of its context; what a visit does is
the caller's choice: code it, decode it, add up its cost, or count it. So there is no second copy of
the order. Contexts are made of integers that are coded already, and probabilities are integers k
(k / 2^16 for a 1) from the model file, so that every machine reads the same file the same way.

Leaves the range coder to :mod:`cwic.arithmetic_coder` and the float transforms to
:mod:`cwic.engine`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cwic.arithmetic_coder import BitDecoder, BitEncoder
from cwic.errors import BitstreamError, ModelError

Bits = npt.NDArray[np.uint8]
Contexts = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.uint16]

# (bits (N,), contexts (N,)) -> bits (N,): a decoder ignores the values it is handed.
Visit = Callable[[Bits, Contexts], Bits]

# Contexts of a code bit: checkerboard colour x three bits below x sums over the four neighbours
# in its own channel and in the one below, each from -4 to 4.
_CODE_CONTEXTS_PER_CHANNEL = 2 * 8 * 9 * 9

_MAX_CODE_CHANNELS = 1024


class CodeLayout(NamedTuple):
    """The numbers of a `cvpr2018` model that its coder depends on."""

    code_channels: int  # n
    levels: int  # L, at most 256, divides n
    first_kept: int  # kept channels at level 0: 0 (paper) or n / L (released model)

    def kept(self, level: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        """Kept channels of each cell from its level."""
        return self.first_kept + level.astype(np.int64) * (self.code_channels // self.levels)

    @property
    def level_bits(self) -> int:
        """Bits of a level."""
        return (self.levels - 1).bit_length()

    @property
    def map_contexts(self) -> int:
        """Predicted level 0..L (L: nothing known) x nodes of the binary tree over its bits."""
        return (self.levels + 1) << self.level_bits

    @property
    def num_contexts(self) -> int:
        """Length of the probability table: contexts of the map, then those of the code."""
        return self.map_contexts + self.code_channels * _CODE_CONTEXTS_PER_CHANNEL


class CodedPicture(NamedTuple):
    """A binary code and its importance map."""

    code: Bits  # (n, h, w), values 0 and 1; 0 where masked
    level: npt.NDArray[np.uint8]  # (h, w), 0..L - 1


def encode_symbols(picture: CodedPicture, layout: CodeLayout, table: Probabilities) -> bytes:
    """Code a picture's map and bits.

    Args:
        picture: what to code; bits outside the mask are not looked at.
        layout: of the model.
        table: (num_contexts,) numerators k of P(bit = 1) = k / 2^16.
    """
    coder = BitEncoder()
    _walk(picture, layout, lambda bits, contexts: coder.code(bits, table[contexts]))
    return coder.finish()


def decode_symbols(
    payload: bytes, height: int, width: int, layout: CodeLayout, table: Probabilities
) -> CodedPicture:
    """The inverse of :func:`encode_symbols`; `height` and `width` in cells.

    Raises:
        BitstreamError: the payload is damaged in a way that shows.
    """
    coder = BitDecoder(payload)
    picture = CodedPicture(
        np.zeros((layout.code_channels, height, width), np.uint8),
        np.zeros((height, width), np.uint8),
    )
    _walk(picture, layout, lambda bits, contexts: coder.code(bits, table[contexts]))
    coder.finish()
    return picture


def cost_bits(picture: CodedPicture, layout: CodeLayout, table: Probabilities) -> float:
    """Cross entropy of a picture under the table in bits: its size without coding it."""
    one = -np.log2(table / 65536)
    zero = -np.log2(1 - table / 65536)
    total = 0.0

    def add(bits: Bits, contexts: Contexts) -> Bits:
        nonlocal total
        total += float(np.where(bits, one[contexts], zero[contexts]).sum())
        return bits

    _walk(picture, layout, add)
    return total


def count_contexts(picture: CodedPicture, layout: CodeLayout) -> npt.NDArray[np.int64]:
    """How often each context saw a 0 and a 1, (num_contexts, 2): what tables are made from."""
    counts = np.zeros((layout.num_contexts, 2), np.int64)

    def count(bits: Bits, contexts: Contexts) -> Bits:
        np.add.at(counts, (contexts, bits), 1)
        return bits

    _walk(picture, layout, count)
    return counts


def probability_table(counts: npt.NDArray[np.int64], layout: CodeLayout) -> Probabilities:
    """Probabilities from counts, each context falling back on coarser ones where it saw little.

    Args:
        counts: (num_contexts, 2) of zeros and ones.
        layout: of the model.

    Returns:
        (num_contexts,) k with 1 <= k <= 65535.
    """
    if counts.shape != (layout.num_contexts, 2):
        raise ModelError(
            f"expected counts of shape {(layout.num_contexts, 2)}, found {counts.shape}"
        )
    weight = 16.0  # pseudo-observations that the coarser context is worth

    def refine(
        coarse: npt.NDArray[np.float64], fine: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        refined: npt.NDArray[np.float64] = fine[..., 1] + weight * coarse
        refined /= fine.sum(axis=-1) + weight
        return refined

    of_map = counts[: layout.map_contexts].reshape(layout.levels + 1, -1, 2)
    p_map = refine(refine(np.full(1, 0.5), of_map.sum(axis=0))[None], of_map)
    of_code = counts[layout.map_contexts :].reshape(layout.code_channels, 2, 8, 9, 9, 2)
    p_code: npt.NDArray[np.float64] = np.full((1, 1, 1, 1, 1), 0.5)
    for summed in ((1, 2, 3, 4), (2, 4), (4,), ()):
        p_code = refine(p_code, of_code.sum(axis=summed, keepdims=True))
    p = np.concatenate([p_map.ravel(), p_code.ravel()])
    table: Probabilities = np.clip(np.rint(p * 65536), 1, 65535).astype(np.uint16)
    return table


def checked_table(layout: CodeLayout, table: npt.NDArray[np.integer[Any]]) -> Probabilities:
    """A table from a model file, if it fits its layout.

    Raises:
        ModelError: wrong shape or probabilities outside 1..65535.
    """
    if not (
        2 <= layout.levels <= 256
        and layout.levels <= layout.code_channels <= _MAX_CODE_CHANNELS
        and layout.code_channels % layout.levels == 0
        and 0 <= layout.first_kept <= layout.code_channels // layout.levels
    ):
        raise ModelError(
            f"expected 2 to 256 levels that divide up to {_MAX_CODE_CHANNELS} code channels, "
            f"and no more channels kept at first than at each level, found {layout}"
        )
    if table.shape != (layout.num_contexts,) or table.min() < 1 or table.max() > 65535:
        raise ModelError(
            f"expected {layout.num_contexts} probabilities from 1 to 65535, "
            f"found shape {table.shape}"
        )
    return table.astype(np.uint16)


def _walk(picture: CodedPicture, layout: CodeLayout, visit: Visit) -> None:
    """Visit the map, then the code; what the visits return is written into `picture`."""
    _walk_map(picture.level, layout, visit)
    _walk_code(picture.code, layout.kept(picture.level), layout.map_contexts, visit)


def _walk_map(level: npt.NDArray[np.uint8], layout: CodeLayout, visit: Visit) -> None:
    """All cells of equal x + 2 y at once: left, above and above right are known by then.

    A level is visited as the path through a binary tree over its four bits, highest first.
    """
    height, width = level.shape
    # One cell of "unknown" around the picture; cells not yet visited count as unknown too.
    known = np.full((height + 1, width + 2), layout.levels, np.int64)
    for step in range(width + 2 * (height - 1)):
        y = np.arange(max(0, (step - width + 2) // 2), min(height - 1, step // 2) + 1)
        x = step - 2 * y
        left, above, right = known[y + 1, x], known[y, x + 1], known[y, x + 2]
        predicted = _predict_level(left, above, right, layout.levels)
        actual = level[y, x]
        node = np.ones(y.size, np.int64)
        for shift in range(layout.level_bits - 1, -1, -1):
            bit = ((actual >> shift) & 1).astype(np.uint8)
            node = 2 * node + visit(bit, (predicted << layout.level_bits) + node)
        value = node - (1 << layout.level_bits)
        if value.size and int(value.max()) >= layout.levels:
            raise BitstreamError(
                f"expected importance levels below {layout.levels}, found {int(value.max())}"
            )
        level[y, x] = value
        known[y + 1, x + 1] = value


def _predict_level(left: Contexts, above: Contexts, right: Contexts, unknown: int) -> Contexts:
    """Rounded mean of the known neighbours, the nearer ones twice; `unknown` where none is."""
    total = np.zeros_like(left)
    weight = np.zeros_like(left)
    for neighbour, share in ((left, 2), (above, 2), (right, 1)):
        there = neighbour != unknown
        total += share * np.where(there, neighbour, 0)
        weight += share * there
    mean = (2 * total + weight) // np.maximum(2 * weight, 1)
    return np.where(weight > 0, mean, unknown)


def _walk_code(code: Bits, kept: npt.NDArray[np.int64], first_context: int, visit: Visit) -> None:
    """Channel by channel, in each the cells of even x + y first: 2 n steps in all."""
    channels, height, width = code.shape
    stride = width + 2
    # Signs of the bits with a border: +1 and -1, 0 for outside, masked, or not yet visited.
    sign = np.zeros((channels + 3, (height + 2) * stride), np.int64)
    y, x = np.divmod(np.arange(height * width), width)
    place = (y + 1) * stride + x + 1
    kept_of_cell = kept.ravel()
    colour = (x + y) & 1
    flat = code.reshape(channels, -1)
    for k in range(channels):
        own, below = sign[k + 3], sign[k + 2]
        for parity in (0, 1):
            cells = np.flatnonzero((kept_of_cell > k) & (colour == parity))
            if cells.size == 0:
                continue
            at = place[cells]
            bits_below = 4 * (below[at] > 0) + 2 * (sign[k + 1][at] > 0) + (sign[k][at] > 0)
            around = own[at - 1] + own[at + 1] + own[at - stride] + own[at + stride] + 4
            around_below = (
                below[at - 1] + below[at + 1] + below[at - stride] + below[at + stride] + 4
            )
            context = ((k * 2 + parity) * 8 + bits_below) * 81 + around * 9 + around_below
            bits = visit(flat[k, cells], first_context + context)
            flat[k, cells] = bits
            own[at] = 2 * bits.astype(np.int64) - 1
