"""What every `.cwic` file of a picture holds beside its tiles: size, mode, transparency, metadata.

Both directions, for files of a model and for those without. The tiles, and exact samples over them,
are left to who makes and reads them, bytes to `bitstream`.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from cwic import bitstream
from cwic.alpha_plane import unpack_alpha
from cwic.bitstream import Bitstream, Kind
from cwic.families.protocol import Allocation, shrunk
from cwic.families.tiling import Rectangle
from cwic.image import Metadata, Mode, Picture, to_pil


class Inspected(NamedTuple):
    """The picture of a file, and where its bits went."""

    picture: Image.Image
    allocation: Allocation


class Overhead(NamedTuple):
    """What a file takes beside its tiles, in bytes with lengths and checksums."""

    header_bytes: int  # and the checksums of tiles
    alpha_bytes: int  # of transparency in a section of its own
    exact_bytes: int  # of what is kept as it is in a coded picture: a part of the picture itself
    metadata_bytes: Mapping[str, int]  # by the name of what is there: ICC, EXIF, XMP

    @property
    def chosen_bytes(self) -> int:
        """What is there because the picture came with it: transparency and metadata."""
        return self.alpha_bytes + sum(self.metadata_bytes.values())

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.header_bytes + self.exact_bytes + self.chosen_bytes


def overhead_of(data: bytes) -> Overhead:
    """What a sound file takes beside its tiles."""
    header = bitstream.read_header(data, bitstream.ANY_SIZE)
    tiles_bytes = sum(tile.length for tile in header.tiles)
    sizes = {section.kind: section.length + bitstream.BODY_CRC_BYTES for section in header.sections}
    metadata = {kind.name: sizes[kind] for kind in bitstream.METADATA_KINDS if kind in sizes}
    alpha_bytes = sizes.get(Kind.ALPHA, 0)
    exact_bytes = sizes.get(Kind.EXACT, 0)
    found_bytes = tiles_bytes + alpha_bytes + exact_bytes + sum(metadata.values())
    return Overhead(header.file_bytes - found_bytes, alpha_bytes, exact_bytes, metadata)


def pack_picture(
    picture: Picture,
    q: int,
    tiles: Sequence[bytes],
    *,
    identity: bytes = bitstream.NO_MODEL,
    tile_px: int | None,
    alpha: bytes | None = None,
    exact: bytes | None = None,
) -> bytes:
    """The file of a picture; its pixels are in the tiles, the other arguments as of `pack`."""
    metadata = picture.metadata
    found = {
        Kind.ALPHA: alpha,
        Kind.ICC: metadata.icc,
        Kind.EXIF: metadata.exif,
        Kind.XMP: metadata.xmp,
        Kind.EXACT: exact,
    }
    return bitstream.pack(
        identity=identity,
        width=picture.width,
        height=picture.height,
        mode=picture.mode,
        q=q,
        tiles=tiles,
        tile_px=tile_px,
        sections={kind: body for kind, body in found.items() if body is not None},
    )


def alpha_of(file: Bitstream, part: Rectangle, reduce: int) -> npt.NDArray[np.uint8] | None:
    """The transparency of a part, (height, width) of it reduced; None without an alpha section.

    Raises:
        BitstreamError: the section is damaged.
    """
    if Kind.ALPHA not in file.sections:
        return None
    width, height = file.header.width, file.header.height
    plane = unpack_alpha(file.sections[Kind.ALPHA], width, height)
    return shrunk(plane[part.slices(Rectangle(0, 0, height, width))], reduce)


def shown(
    file: Bitstream, pixels: npt.NDArray[np.uint8], alpha: npt.NDArray[np.uint8] | None
) -> Image.Image:
    """The image of decoded pixels (H, W, 3) and alpha (H, W), in the file's mode."""
    metadata = Metadata(*(file.sections.get(kind) for kind in bitstream.METADATA_KINDS))
    mode = Mode(file.header.mode)
    return to_pil(Picture(pixels=pixels, alpha=alpha, mode=mode, metadata=metadata))
