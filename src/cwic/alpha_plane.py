"""Alpha planes <-> bytes, without loss: the body of an alpha section.

The layout is in docs/format.md. What a plane means is left to `image`, where its bytes stand to
`bitstream`.
"""

import zlib

import numpy as np
from numpy.typing import NDArray

from cwic.errors import BitstreamError

# Bits of the first byte: which neighbours were subtracted; or the whole plane is one value.
_LEFT = 1
_UP = 2
_CONSTANT = 4


def pack_alpha(alpha: NDArray[np.uint8]) -> bytes:
    """The body of an alpha section, without loss, of (H, W) uint8; `unpack_alpha` is the inverse.

    A plane of one value takes two bytes. Any other is deflated after a prediction of each sample
    from its left neighbour, its upper one, both or neither, whichever is smallest.
    """
    if (alpha == alpha.flat[0]).all():
        return bytes([_CONSTANT, alpha.flat[0]])
    candidates = {}
    for prediction in range(4):
        residual = alpha
        if prediction & _LEFT:
            residual = np.diff(residual, axis=1, prepend=np.uint8(0))
        if prediction & _UP:
            residual = np.diff(residual, axis=0, prepend=np.uint8(0))
        candidates[prediction] = np.ascontiguousarray(residual).data
    # The fastest level ranks them well enough, and four times the best level would take seconds.
    best = min(candidates, key=lambda prediction: len(zlib.compress(candidates[prediction], 1)))
    return bytes([best]) + zlib.compress(candidates[best], 9)


def unpack_alpha(data: bytes, width: int, height: int) -> NDArray[np.uint8]:
    """The inverse of `pack_alpha`, (height, width) uint8; both are checked against a limit already.

    Raises:
        BitstreamError: the data is damaged. It never inflates to more than the plane.
    """
    size = width * height
    if len(data) == 2 and data[0] == _CONSTANT:
        return np.full((height, width), data[1], np.uint8)
    if not data or data[0] > 3:
        raise BitstreamError(
            f"damaged alpha plane: it begins with {data[:1]!r}, expected a prediction from 0 to 3 "
            "or a constant"
        )
    stream = zlib.decompressobj()
    try:
        inflated = stream.decompress(data[1:], size + 1)
    except zlib.error as error:
        raise BitstreamError(f"damaged alpha plane: {error}") from error
    if len(inflated) != size or not stream.eof or stream.unused_data:
        raise BitstreamError(
            f"damaged alpha plane: expected one zlib stream of exactly {size} bytes for "
            f"{width}x{height} pixels"
        )
    plane = np.frombuffer(inflated, np.uint8).reshape(height, width)
    if data[0] & _UP:
        plane = np.cumsum(plane, axis=0, dtype=np.uint8)
    if data[0] & _LEFT:
        plane = np.cumsum(plane, axis=1, dtype=np.uint8)
    return plane
