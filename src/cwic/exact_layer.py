"""Exact samples over a coded picture: the body of an EXACT section, for both directions.

Of a page with a photograph in it the network makes the photograph, and what is text or graphics
lies over it as it was. Which pixels these are is left to `graphics`, how samples become streams to
`webp_lossless`, where the body stands to `bitstream`. The layout is in docs/format.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from cwic import webp_lossless
from cwic.bitstream import Bitstream, Kind
from cwic.errors import BitstreamError
from cwic.families.protocol import Pixels, shrunk
from cwic.families.tiling import Rectangle, Tiling
from cwic.image import Mode
from cwic.webp_lossless import TILE_PX

_LENGTH_BYTES = 4  # of a stream, in front of it

Mask = npt.NDArray[np.bool_]  # (H, W)


@dataclass(frozen=True, eq=False)
class Layer:
    """Samples, and where they count."""

    pixels: Pixels  # (H, W, 3)
    mask: Mask  # (H, W), true where the sample is shown

    def over(self, pixels: Pixels, reduce: int = 1) -> Pixels:
        """The layer on pixels of the same part of a picture, reduced by as much.

        A pixel of a reduced picture is a mean of both, as far as each is seen in its square.
        """
        if reduce == 1:
            return np.where(self.mask[..., None], self.pixels, pixels)
        exact = shrunk(np.where(self.mask[..., None], self.pixels, np.uint8(0)), reduce)
        share = shrunk(np.where(self.mask, np.uint8(255), np.uint8(0)), reduce)[..., None]
        rest = pixels * ((255 - share) / np.float32(255))
        result: Pixels = np.clip(np.rint(rest) + exact, 0, 255).astype(np.uint8)
        return result

    @cached_property
    def body(self) -> bytes:
        """The body of an EXACT section; `read_exact` is the inverse where the mask is true."""
        height, width = self.mask.shape
        parts = []
        for tile in _tiles(height, width):
            place = tile.slices(Rectangle(0, 0, height, width))
            mask = self.mask[place]
            stream = b""
            if mask.any():
                alpha = np.where(mask, np.uint8(255), np.uint8(0))
                seen = np.where(mask[..., None], self.pixels[place], np.uint8(0))
                stream = webp_lossless.packed(np.dstack([seen, alpha]))
            parts += [len(stream).to_bytes(_LENGTH_BYTES, "little"), stream]
        return b"".join(parts)


def read_exact(file: Bitstream, part: Rectangle) -> Layer | None:
    """The layer over a part of a picture; None where the file has none.

    Raises:
        BitstreamError: the section is damaged.
        NotBuiltError: this Pillow has no libwebp.
    """
    if Kind.EXACT not in file.sections:
        return None
    header = file.header
    is_grey = Mode(header.mode).is_grey
    pixels = np.zeros((part.height, part.width, 3), np.uint8)
    mask = np.zeros((part.height, part.width), np.bool_)
    for tile, stream in _streams(file.sections[Kind.EXACT], header.height, header.width):
        found = tile.cut(part)
        if not stream or found.height <= 0 or found.width <= 0:
            continue
        samples = webp_lossless.unpacked(
            stream, tile.height, tile.width, "EXACT", may_have_alpha=True
        )
        if is_grey:
            webp_lossless.check_grey(samples, "EXACT")
        samples = samples[found.slices(tile)]
        place = found.slices(part)
        pixels[place] = samples[..., :3]
        mask[place] = True
        if samples.shape[2] == 4:
            alpha = samples[..., 3]
            if ((alpha != 0) & (alpha != 255)).any():
                raise BitstreamError(
                    "damaged EXACT section: found pixels that are seen in part, expected all or "
                    "nothing"
                )
            mask[place] = alpha == 255
    return Layer(pixels, mask)


def _tiles(height: int, width: int) -> list[Rectangle]:
    """Of a layer over a picture, whatever the tiles of that are."""
    return Tiling(height, width, TILE_PX, 1).tiles


def _streams(body: bytes, height: int, width: int) -> Iterator[tuple[Rectangle, bytes]]:
    """Each tile with its stream, which is empty where nothing in it is exact."""
    position = 0
    for tile in _tiles(height, width):
        length = int.from_bytes(body[position : position + _LENGTH_BYTES], "little")
        position += _LENGTH_BYTES
        if position + length > len(body):
            raise BitstreamError(
                f"damaged EXACT section: expected {position + length} bytes, found {len(body)}"
            )
        yield tile, body[position : position + length]
        position += length
    if position != len(body):
        raise BitstreamError(
            f"damaged EXACT section: found {len(body) - position} bytes after its last stream"
        )
