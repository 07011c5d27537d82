"""Pictures kept whole: samples <-> files without a model, in which none of them is lost.

Owns what such a file holds, for both directions: WebP lossless streams of its tiles, and which of
the two places transparency takes. What is worth keeping, and in how many colours, is left to
`choice`, where bytes stand to `bitstream`, the streams themselves to `webp_lossless`.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image

from cwic import bitstream, webp_lossless
from cwic.alpha_plane import pack_alpha
from cwic.bitstream import Bitstream, Kind
from cwic.errors import BitstreamError, NotBuiltError, UnknownModelError
from cwic.families.protocol import Allocation, shrunk
from cwic.families.tiling import Rectangle, Tiling, part_of
from cwic.image import Mode, Picture
from cwic.picture_file import Inspected, alpha_of, pack_picture, shown
from cwic.webp_lossless import MAX_STREAM_PIXELS, MAX_STREAM_SIDE_PX, TILE_PX, Samples

# A map of a file that has none lies on cells of this side.
_CELL_PX = 16


def pack_whole(
    picture: Picture, *, tile_px: int | None = None, num_colours: int | None = None
) -> bytes:
    """The `.cwic` file that keeps every sample of a picture; `WholeReader.decode` is the inverse.

    The colour of transparent pixels is kept as well. `tile_px` is 64 to 2048 and a power of two;
    None divides large pictures only. Of a picture that was reduced to some colours, `num_colours`
    says to how many.

    Raises:
        NotBuiltError: this Pillow has no libwebp.
    """
    if not webp_lossless.is_available():
        raise NotBuiltError("to keep a picture whole needs a Pillow with WebP, found one without")
    is_large = (
        picture.width * picture.height > MAX_STREAM_PIXELS
        or max(picture.width, picture.height) > MAX_STREAM_SIDE_PX
    )
    if tile_px is None and is_large:
        tile_px = TILE_PX
    tiles = Tiling(picture.height, picture.width, tile_px, 1).tiles
    everything = tiles[0] if tile_px is None else Rectangle(0, 0, picture.height, picture.width)
    parts = [tile.slices(everything) for tile in tiles]

    q = num_colours or 0
    beside = pack_picture(
        picture,
        q,
        [webp_lossless.packed(picture.pixels[part]) for part in parts],
        tile_px=tile_px,
        alpha=None if picture.alpha is None else pack_alpha(picture.alpha),
    )
    if picture.alpha is None:
        return beside
    streams = [
        webp_lossless.packed(np.dstack([picture.pixels[part], picture.alpha[part]]))
        for part in parts
    ]
    return min(beside, pack_picture(picture, q, streams, tile_px=tile_px), key=len)


class WholeReader:
    """Reads files of pictures that were kept whole, which need no model.

    A damaged file is a BitstreamError, one of a model an UnknownModelError.
    """

    name = "no model"

    def decode(
        self,
        data: bytes,
        *,
        region: tuple[int, int, int, int] | None = None,
        reduce: int = 1,
        fast: bool = False,  # noqa: ARG002 - there is no synthesis
        limits: bitstream.Limits | None = None,
    ) -> Image.Image:
        """The picture, or a part of it, as :meth:`cwic.Codec.decode`, sample by sample."""
        file, tiling = _unpack(data, limits)
        part = part_of(region, tiling.picture, reduce)
        mode = Mode(file.header.mode)
        target = part.shrunk(reduce)
        pixels = np.empty((target.height, target.width, 3), np.uint8)
        alpha = None
        if mode.has_alpha:
            alpha = np.full((target.height, target.width), 255, np.uint8)
        for index in tiling.meeting(part):
            tile = tiling.tiles[index]
            found = tile.cut(part)
            samples = _tile(file, index, tile)[found.slices(tile)]
            place = found.shrunk(reduce).slices(target)
            pixels[place] = shrunk(np.ascontiguousarray(samples[..., :3]), reduce)
            if alpha is not None and samples.shape[2] == 4:
                alpha[place] = shrunk(np.ascontiguousarray(samples[..., 3]), reduce)
        if Kind.ALPHA in file.sections:
            alpha = alpha_of(file, part, reduce)
        return shown(file, pixels, alpha)

    def inspect(self, data: bytes, *, fast: bool = False) -> Inspected:  # noqa: ARG002
        """The picture, and where the bits went: evenly over each tile, and no importance."""
        file, tiling = _unpack(data)
        rows, columns = (-(-side // _CELL_PX) for side in tiling.picture[2:])
        bits = np.zeros((rows, columns))
        for tile, body in zip(tiling.tiles, file.tiles, strict=True):
            cells = tile.shrunk(_CELL_PX)
            place = cells.slices(Rectangle(0, 0, rows, columns))
            bits[place] = 8 * len(body) / (cells.height * cells.width)
        allocation = Allocation(np.zeros((rows, columns), np.float32), bits, _CELL_PX)
        return Inspected(self.decode(data), allocation)

    def symbols(self, data: bytes) -> list[npt.NDArray[np.int32]]:
        """The samples of each tile, flat."""
        file, tiling = _unpack(data)
        return [
            _tile(file, index, tile).astype(np.int32).ravel()
            for index, tile in enumerate(tiling.tiles)
        ]


def _unpack(data: bytes, limits: bitstream.Limits | None = None) -> tuple[Bitstream, Tiling]:
    file = bitstream.unpack(data, limits)
    header = file.header
    if header.has_model:
        raise UnknownModelError(
            f"expected a file without a model, found one of {header.identity.hex()}"
        )
    tiling = Tiling(header.height, header.width, header.tile_px, 1)
    largest = tiling.tiles[0]
    if (
        largest.width * largest.height > MAX_STREAM_PIXELS
        or max(largest.width, largest.height) > MAX_STREAM_SIDE_PX
    ):
        raise BitstreamError(
            f"found a stream of {largest.width}x{largest.height} pixels, expected at most "
            f"{MAX_STREAM_PIXELS}, and {MAX_STREAM_SIDE_PX} a side"
        )
    return file, tiling


def _tile(file: Bitstream, index: int, tile: Rectangle) -> Samples:
    """The samples of a tile, after all that its stream claims was checked against the header."""
    mode = Mode(file.header.mode)
    samples = webp_lossless.unpacked(
        file.tiles[index],
        tile.height,
        tile.width,
        "WHOLE",
        may_have_alpha=mode.has_alpha and Kind.ALPHA not in file.sections,
    )
    if mode.is_grey:
        webp_lossless.check_grey(samples, "WHOLE")
    return samples
