"""Exact samples over a coded picture: the body of an EXACT section, for both directions.

Of a page with a photograph in it the network makes the photograph, and what is text or graphics
lies over it as it was. Which pixels these are is left to `graphics`, how samples become streams to
`webp_lossless`, where the body stands to `bitstream`. The layout is in docs/format.md.
"""

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
    """Samples, and where they are shown in place of coded ones."""

    pixels: Pixels  # (H, W, 3)
    mask: Mask  # (H, W), true where the sample is shown

    def over(self, pixels: Pixels, reduce: int = 1) -> Pixels:
        """The layer on coded pixels of the same part of a picture, reduced by as much.

        A pixel of a reduced picture is the mean of those that would be shown in its square.
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
        """The body of an EXACT section, which `StoredLayer` reads."""
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


class StoredLayer:
    """The layer of a file; its streams are decoded where they are needed, one at a time."""

    def __init__(self, file: Bitstream):
        """A file may have none: then nothing is put over anything.

        Raises:
            BitstreamError: the section is not as long as its streams say.
        """
        header = file.header
        self._picture = Rectangle(0, 0, header.height, header.width)
        self._is_grey = Mode(header.mode).is_grey
        self._streams: list[tuple[Rectangle, bytes]] = []
        body = file.sections.get(Kind.EXACT)
        if body is None:
            return
        position = 0
        for tile in _tiles(header.height, header.width):
            start = position + _LENGTH_BYTES
            position = start + int.from_bytes(body[position:start], "little")
            if max(start, position) > len(body):
                break
            self._streams.append((tile, body[start:position]))
        if position != len(body):
            raise BitstreamError(
                f"damaged EXACT section: expected {position} bytes, found {len(body)}"
            )

    def over(self, pixels: Pixels, part: Rectangle, reduce: int = 1) -> Pixels:
        """The layer on coded pixels of a part of the picture, which is reduced by as much.

        `part` is in pixels; its corners are multiples of `reduce`, or the picture's.

        Raises:
            BitstreamError: a stream is damaged.
            NotBuiltError: this Pillow has no libwebp.
        """
        result = None
        target = part.shrunk(reduce)
        for tile, stream in self._streams:
            found = tile.cut(part)
            if not stream or found.height <= 0 or found.width <= 0:
                continue
            layer = self._layer(stream, tile, found)
            result = pixels.copy() if result is None else result
            place = found.shrunk(reduce).slices(target)
            result[place] = layer.over(result[place], reduce)
        return pixels if result is None else result

    def bits(self, cell_px: int) -> npt.NDArray[np.float64]:
        """(rows, columns) bits that it takes in cells of so many pixels a side.

        Those of a stream lie evenly over the pixels that are shown.

        `cell_px` divides the sides of its streams' tiles.

        Raises:
            BitstreamError: a stream is damaged.
            NotBuiltError: this Pillow has no libwebp.
        """
        cells = self._picture.shrunk(cell_px)
        result = np.zeros((cells.height, cells.width))
        for tile, stream in self._streams:
            if not stream:
                continue
            mask = self._layer(stream, tile, tile).mask
            rows, columns = (np.arange(0, side, cell_px) for side in mask.shape)
            shown = np.add.reduceat(np.add.reduceat(mask, rows, dtype=np.int64), columns, axis=1)
            place = tile.shrunk(cell_px).slices(cells)
            result[place] = 8 * len(stream) * shown / max(shown.sum(), 1)
        return result

    def _layer(self, stream: bytes, tile: Rectangle, part: Rectangle) -> Layer:
        """The part of a tile."""
        samples = webp_lossless.unpacked(
            stream, tile.height, tile.width, "EXACT", may_have_alpha=True
        )[part.slices(tile)]
        mask = np.ones(samples.shape[:2], np.bool_)
        if samples.shape[2] == 4:
            alpha = samples[..., 3]
            mask = alpha == 255
            if (~mask & (alpha != 0)).any():
                raise BitstreamError(
                    "damaged EXACT section: found pixels that are shown in part, expected each "
                    "shown or not"
                )
        if self._is_grey:
            webp_lossless.check_grey(samples[mask], "EXACT")
        return Layer(np.ascontiguousarray(samples[..., :3]), mask)


def _tiles(height: int, width: int) -> list[Rectangle]:
    """Of a layer over a picture, whatever the tiles of that are."""
    return Tiling(height, width, TILE_PX, 1).tiles
