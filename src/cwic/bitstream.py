"""The container: a header and sections <-> the bytes of a .cwic file.

Owns every offset, length, checksum and range check of format version 1, which `docs/format.md`
describes byte by byte. Owns no meaning beyond that: tile payloads are left to the families, those
of a picture kept whole to `whole`, the alpha section to `alpha_plane`, the exact one to
`exact_layer`, the colour mode to `colour_mode`, and whether the model of a file is here to
`model_file`.

Reading trusts nothing. A damaged or hostile file raises `BitstreamError`; no allocation is larger
than the data that is there or, where something is inflated, than `Limits` allows. Packing checks
the same ranges and raises `ValueError`, because there they are the caller's mistake.
"""

import binascii
import mmap
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from cwic.colour_mode import Mode
from cwic.defaults import MAX_METADATA_BYTES, MAX_PIXELS
from cwic.errors import BitstreamError

Data = bytes | bytearray | memoryview | mmap.mmap

# A byte above 127 and a line end, as in PNG: a transfer that drops the eighth bit or rewrites line
# ends damages the magic, and is named as the cause.
MAGIC = b"\xc7wic\r\n"
VERSION = 1
IDENTITY_BYTES = 8
# In place of the identity of a model: samples are kept, and every reader opens the file.
NO_MODEL = bytes(IDENTITY_BYTES)
MAX_SIDE_PX = 2**31 - 1
MAX_Q = 4096
TILE_SIDES_PX = tuple(2 ** (exponent + 5) for exponent in range(1, 11))

_NUM_MODES = len(Mode)
_MODES_WITH_ALPHA = tuple(int(mode) for mode in Mode if mode.has_alpha)
_HEADER_CRC_BYTES = 2
BODY_CRC_BYTES = 4
# Lengths are checked against the file; this only keeps a hostile one from becoming a huge integer.
_MAX_VARINT_BYTES = 8


class Kind(IntEnum):
    """What a section holds. A reader skips kinds that it does not know."""

    TILE = 0
    ALPHA = 1
    ICC = 2
    EXIF = 3
    XMP = 4
    THUMBNAIL = 5
    WHOLE = 6
    UNKNOWN = 7
    EXACT = 8


METADATA_KINDS = (Kind.ICC, Kind.EXIF, Kind.XMP)
# In the order of a file.
_BESIDE_TILES = (Kind.ALPHA, *METADATA_KINDS, Kind.THUMBNAIL, Kind.EXACT)

# An entry of the section table has three bits for its kind. A kind from 8 on has 7 there, and its
# number less 8 follows.
_LONG_KIND = 7
_FIRST_LONG_KIND = 8


@dataclass(frozen=True)
class Limits:
    """What a file may ask for before it is refused."""

    # Width times height. The default is the size at which Pillow's own protection against
    # decompression bombs refuses a picture, twice its `MAX_IMAGE_PIXELS`.
    max_pixels: int = MAX_PIXELS
    max_metadata_bytes: int = MAX_METADATA_BYTES  # of one inflated ICC, EXIF or XMP section
    max_sections: int = 2**17  # entries of the section table, tiles included


# For a reader of headers who allocates no pixels, or leaves their number to another to judge.
ANY_SIZE = Limits(max_pixels=MAX_SIDE_PX**2)


@dataclass(frozen=True)
class Section:
    """Where the body of a section stands."""

    kind: Kind  # what it holds
    offset: int  # of the body's first byte, in bytes from the start of the file
    length: int  # of the body in bytes, without the CRC-32 that follows it


@dataclass(frozen=True)
class Header:
    """Everything before the bodies, checked."""

    version: int  # of the format
    identity: bytes  # 8 bytes that name the model; `NO_MODEL` where the samples are kept
    width: int  # in pixels
    height: int  # in pixels
    mode: int  # a value of `colour_mode.Mode`
    tile_px: int | None  # side of a tile in pixels; None where one tile holds the whole picture
    # What the model is coded at, in 1/64 units, in [-4096, 4096]. Without a model how many colours
    # the picture was reduced to, or 0 where nothing is lost.
    q: int
    sections: tuple[Section, ...]  # in the order of the file; the tiles are last, in raster order
    size_bytes: int  # length of the header with its CRC

    @property
    def has_model(self) -> bool:
        """Whether a model made the file; or else it keeps samples, and any reader opens it."""
        return self.identity != NO_MODEL

    @property
    def is_whole(self) -> bool:
        """Whether the picture is kept whole: nothing is lost."""
        return not self.has_model and self.q == 0

    @property
    def num_colours(self) -> int | None:
        """How many colours a picture was reduced to; None if it was not, or with a model."""
        return None if self.has_model or self.is_whole else self.q

    @property
    def kept(self) -> str:
        """What is kept without a model, in words; none of a model."""
        if self.has_model:
            return ""
        return "kept whole" if self.is_whole else f"kept in {self.num_colours} colours"

    @property
    def has_exact_layer(self) -> bool:
        """Whether text and graphics in a coded picture are kept as they are."""
        return self.find(Kind.EXACT) is not None

    @property
    def exactness(self) -> str:
        """What is kept, in words: without a model, or over a coded picture; or nothing."""
        return "text and graphics exact" if self.has_exact_layer else self.kept

    @property
    def num_tiles(self) -> int:
        """How many tiles the picture is made of."""
        return _num_tiles(self.width, self.height, self.tile_px)

    @property
    def pixels(self) -> int:
        """Width times height."""
        return self.width * self.height

    @property
    def file_bytes(self) -> int:
        """The size that a complete file with this header has."""
        last = self.sections[-1]
        return last.offset + last.length + BODY_CRC_BYTES

    @property
    def tiles(self) -> tuple[Section, ...]:
        """The sections of the tiles, in raster order."""
        return self.sections[len(self.sections) - self.num_tiles :]

    def find(self, kind: Kind) -> Section | None:
        """The only section of a kind, or None. For tiles see `tiles`."""
        return next((section for section in self.sections if section.kind == kind), None)


@dataclass(frozen=True)
class Bitstream:
    """A whole file, every checksum verified."""

    header: Header
    tiles: tuple[bytes, ...]  # payload of each tile, in raster order
    # The other bodies, metadata inflated. Alpha is there exactly if the mode has an alpha channel,
    # but of a picture kept whole perhaps not even then: its tiles may hold the channel.
    sections: Mapping[Kind, bytes]


def pack(
    *,
    identity: bytes,
    width: int,
    height: int,
    mode: int,
    q: int,
    tiles: Sequence[bytes],
    tile_px: int | None = None,
    sections: Mapping[Kind, bytes] | None = None,
) -> bytes:
    """Makes the bytes of a file; `unpack` is its inverse.

    An RGB picture in one tile, up to 16383 pixels a side and less than 2^25 bytes of payload, costs
    at most 32 bytes beyond its payload.

    Args:
        identity: 8 bytes that name the model; `NO_MODEL` makes the tiles those of a picture kept
            whole.
        width: in pixels, in [1, 2^31 - 1].
        height: in pixels, in [1, 2^31 - 1].
        mode: 0 to 5, see :class:`Header`.
        q: in 1/64 units, in [-4096, 4096]; without a model 0, or colours that are left, to 4096.
        tiles: payload of each tile, in raster order.
        tile_px: side of a tile in pixels, a power of two in [64, 32768]; None for one tile.
        sections: what else the file holds, ALPHA, ICC, EXIF, XMP, THUMBNAIL or EXACT; metadata is
            deflated here. ALPHA is given exactly if the mode has an alpha channel, without a model
            at most then; EXACT only with a model.

    Raises:
        ValueError: an argument is out of its range.
    """
    sections = sections or {}
    _require(len(identity) == IDENTITY_BYTES, f"identity of {len(identity)} bytes", "8 bytes")
    _require(0 <= mode < _NUM_MODES, f"mode {mode}", f"0 to {_NUM_MODES - 1}")
    _check_ranges(identity, width, height, q)
    _require(tile_px in (None, *TILE_SIDES_PX), f"tiles of {tile_px} px", f"{TILE_SIDES_PX}")
    num_tiles = _num_tiles(width, height, tile_px)
    _require(
        num_tiles <= Limits.max_sections, f"{num_tiles} tiles", f"at most {Limits.max_sections}"
    )
    _require(len(tiles) == num_tiles, f"{len(tiles)} tiles", f"{num_tiles}")
    _check_alpha(mode, Kind.ALPHA in sections, identity)
    _check_exact(Kind.EXACT in sections, identity)
    bodies = [*_stored(sections), *((_kind_of_tiles(identity), tile) for tile in tiles)]

    tile_exponent = 0 if tile_px is None else tile_px.bit_length() - 6
    parts = [
        MAGIC,
        bytes([VERSION]),
        identity,
        _varint(width),
        _varint(height),
        bytes([tile_exponent << 4 | mode]),
        _varint(2 * q if q >= 0 else -2 * q - 1),
    ]
    for kind, body in bodies:
        parts.append(_varint(len(body) << 3 | min(kind, _LONG_KIND)))
        if kind >= _FIRST_LONG_KIND:
            parts.append(_varint(kind - _FIRST_LONG_KIND))
    parts.append(_header_crc(b"".join(parts)))
    for _, body in bodies:
        parts += [body, _body_crc(body)]
    return b"".join(parts)


def _stored(sections: Mapping[Kind, bytes]) -> Iterator[tuple[Kind, bytes]]:
    """The bodies beside the tiles, in the order of a file; metadata is deflated."""
    assert sections.keys() <= set(_BESIDE_TILES), sections.keys()
    for kind in _BESIDE_TILES:
        body = sections.get(kind)
        if body is not None and kind in METADATA_KINDS:
            limit = Limits.max_metadata_bytes
            _require(len(body) <= limit, f"{kind.name} of {len(body)} bytes", f"up to {limit}")
            body = zlib.compress(body, 9)
        if body is not None:
            yield kind, body


def read_header(data: Data, limits: Limits | None = None) -> Header:
    """Reads and checks the header, and nothing after it.

    `data` is the file, or any first part of it that holds the whole header. Sections lie behind it
    without gap or overlap, but may reach beyond `data`.

    Raises:
        BitstreamError: this is no .cwic file of version 1, it is damaged, or it is over a limit.
        ValueError: `limits` is of another type.
    """
    if limits is None:
        limits = Limits()
    elif not isinstance(limits, Limits):
        raise ValueError(f"limits: found {limits!r}, expected a cwic.Limits")
    with memoryview(data) as view:
        reader = _Reader(view)
        reader.magic()
        version = reader.byte("format version")
        if version != VERSION:
            raise BitstreamError(
                f"found format version {version}, this program reads version {VERSION}"
            )
        identity = reader.take(IDENTITY_BYTES, "model identity")
        width, height = reader.varint("width"), reader.varint("height")
        mode, tile_px = reader.layout()
        zigzag = reader.varint("q")
        q = zigzag >> 1 if zigzag % 2 == 0 else -(zigzag + 1 >> 1)
        _check_ranges(identity, width, height, q, BitstreamError)
        if width * height > limits.max_pixels:
            raise BitstreamError(
                f"found a picture of {width}x{height} = {width * height} pixels, "
                f"expected at most {limits.max_pixels}"
            )
        num_tiles = _num_tiles(width, height, tile_px)
        table = reader.table(num_tiles, _kind_of_tiles(identity), limits.max_sections)
        crc = _header_crc(view[: reader.position])
        if reader.take(_HEADER_CRC_BYTES, "header checksum") != crc:
            raise BitstreamError("damaged header: its checksum does not match")
        size_bytes = reader.position

    kinds = {kind for kind, _ in table}
    _check_alpha(mode, Kind.ALPHA in kinds, identity, BitstreamError)
    _check_exact(Kind.EXACT in kinds, identity, BitstreamError)
    sections = []
    offset = size_bytes
    for kind, length in table:
        sections.append(Section(kind, offset, length))
        offset += length + BODY_CRC_BYTES
    return Header(version, identity, width, height, mode, tile_px, q, tuple(sections), size_bytes)


def read_section(data: Data, section: Section) -> bytes:
    """The body of an entry of the header as it is stored, without its checksum, which is verified.

    `data` is the file from its first byte; it need not reach beyond this section.

    Raises:
        BitstreamError: the file ends too early, or the section is damaged.
    """
    end = section.offset + section.length
    if len(data) < end + BODY_CRC_BYTES:
        raise BitstreamError(
            f"truncated file: found {len(data)} bytes, expected at least {end + BODY_CRC_BYTES} "
            f"for the {section.kind.name} section"
        )
    with memoryview(data) as view:
        body = bytes(view[section.offset : end])
        crc = bytes(view[end : end + BODY_CRC_BYTES])
    if crc != _body_crc(body):
        raise BitstreamError(
            f"damaged {section.kind.name} section at byte {section.offset}: its checksum does not "
            "match"
        )
    return body


def read_metadata(data: Data, section: Section, limits: Limits | None = None) -> bytes:
    """The ICC profile, EXIF block or XMP packet of a section, inflated; see `read_section`.

    Raises:
        BitstreamError: the file ends too early, the section is damaged, or it is over the limit.
    """
    assert section.kind in METADATA_KINDS, section.kind
    limits = limits or Limits()
    return _inflate(read_section(data, section), section.kind, limits.max_metadata_bytes)


def read_tiles(data: Data, header: Header, indices: Iterable[int]) -> tuple[bytes, ...]:
    """The payloads of chosen tiles, without touching the rest of the file.

    `data` is the file from its first byte, `indices` count tiles in raster order.

    Raises:
        BitstreamError: the file ends too early, or a tile is damaged.
        ValueError: an index is out of range.
    """
    tiles = header.tiles
    payloads = []
    for index in indices:
        _require(0 <= index < len(tiles), f"tile {index}", f"0 to {len(tiles) - 1}")
        payloads.append(read_section(data, tiles[index]))
    return tuple(payloads)


def unpack(data: Data, limits: Limits | None = None) -> Bitstream:
    """Reads exactly one file and verifies every checksum; the inverse of `pack`.

    Raises:
        BitstreamError: the file is damaged, incomplete, followed by something, or over a limit.
    """
    limits = limits or Limits()
    header = read_header(data, limits)
    check_length(header, len(data))
    bodies: dict[Kind, bytes] = {}
    for section in header.sections[: len(header.sections) - header.num_tiles]:
        if section.kind in METADATA_KINDS:
            bodies[section.kind] = read_metadata(data, section, limits)
        else:
            bodies[section.kind] = read_section(data, section)
    return Bitstream(header, read_tiles(data, header, range(header.num_tiles)), bodies)


def check_length(header: Header, num_bytes: int) -> None:
    """Whether a file is as long as its header says.

    Raises:
        BitstreamError: it is truncated, or something follows it.
    """
    if num_bytes != header.file_bytes:
        what = "truncated file" if num_bytes < header.file_bytes else "data after the end"
        raise BitstreamError(f"{what}: found {num_bytes} bytes, expected {header.file_bytes}")


class _Reader:
    """A position in the header; every step is checked."""

    def __init__(self, view: memoryview) -> None:
        self.view = view
        self.position = 0

    def take(self, count: int, what: str) -> bytes:
        taken = bytes(self.view[self.position : self.position + count])
        if len(taken) < count:
            raise BitstreamError(f"truncated header: the data ends within the {what}")
        self.position += count
        return taken

    def byte(self, what: str) -> int:
        return self.take(1, what)[0]

    def varint(self, what: str) -> int:
        """An unsigned LEB128 number in its shortest form."""
        number = 0
        for index in range(_MAX_VARINT_BYTES):
            byte = self.byte(what)
            number |= (byte & 127) << 7 * index
            if byte < 128:
                if byte == 0 and index > 0:
                    raise BitstreamError(
                        f"damaged header: {what} is written with more bytes than it needs"
                    )
                return number
        raise BitstreamError(
            f"damaged header: {what} has more than the expected {_MAX_VARINT_BYTES} bytes"
        )

    def magic(self) -> None:
        found = bytes(self.view[: len(MAGIC)])
        self.position = len(MAGIC)
        if found == MAGIC:
            return
        if MAGIC.startswith(found):
            raise BitstreamError(
                f"truncated header: found {len(found)} bytes, expected a .cwic file"
            )
        if found.startswith(MAGIC[:4]) or found[1:4] == MAGIC[1:4]:
            raise BitstreamError(
                f"damaged, as by a transfer in text mode: the file begins with {found!r}, "
                f"expected {MAGIC!r}"
            )
        raise BitstreamError(f"not a .cwic file: it begins with {found!r}, expected {MAGIC!r}")

    def layout(self) -> tuple[int, int | None]:
        """Mode, and side of a tile in pixels."""
        layout = self.byte("layout")
        mode, tile_exponent = layout & 15, layout >> 4
        if mode >= _NUM_MODES or tile_exponent > len(TILE_SIDES_PX):
            raise BitstreamError(
                f"found layout byte {layout:#04x}, expected a mode 0 to {_NUM_MODES - 1} in its "
                f"low half and a tile exponent 0 to {len(TILE_SIDES_PX)} in its high half"
            )
        return mode, TILE_SIDES_PX[tile_exponent - 1] if tile_exponent else None

    def table(
        self, num_tiles: int, kind_of_tiles: Kind, max_sections: int
    ) -> list[tuple[Kind, int]]:
        """Kind and length of every section; it ends with the last expected tile."""
        if num_tiles > max_sections:
            raise BitstreamError(
                f"found a header of {num_tiles} tiles, expected at most {max_sections} sections"
            )
        entries: list[tuple[Kind, int]] = []
        seen: set[Kind] = set()
        tiles_to_come = num_tiles
        while tiles_to_come:
            if len(entries) == max_sections:
                raise BitstreamError(f"found more than the expected {max_sections} sections")
            entry = self.varint("section table")
            kind, length = Kind(entry & 7), entry >> 3
            if kind == _LONG_KIND:
                kind = _long_kind(self.varint("section table"))
            if kind == kind_of_tiles:
                tiles_to_come -= 1
            elif kind in (Kind.TILE, Kind.WHOLE):
                raise BitstreamError(
                    f"found a {kind.name} section in a file "
                    f"{'with' if kind_of_tiles == Kind.TILE else 'without'} a model"
                )
            elif kind_of_tiles in seen:
                raise BitstreamError(f"found a {kind.name} section after the first tile")
            elif kind in seen and kind != Kind.UNKNOWN:
                raise BitstreamError(f"found more than the one expected {kind.name} section")
            seen.add(kind)
            entries.append((kind, length))
        return entries


def _long_kind(number: int) -> Kind:
    """The kind from `_FIRST_LONG_KIND` on of a number in the section table."""
    known = [kind for kind in Kind if kind == number + _FIRST_LONG_KIND]
    return known[0] if known else Kind.UNKNOWN


def _kind_of_tiles(identity: bytes) -> Kind:
    return Kind.WHOLE if identity == NO_MODEL else Kind.TILE


def _check_ranges(
    identity: bytes, width: int, height: int, q: int, error: type[Exception] = ValueError
) -> None:
    """Checks what stands in a header as a number, for both directions."""
    for name, side in (("width", width), ("height", height)):
        _require(1 <= side <= MAX_SIDE_PX, f"{name} {side} px", f"1 to {MAX_SIDE_PX}", error)
    _require(abs(q) <= MAX_Q, f"q {q}", f"-{MAX_Q} to {MAX_Q}", error)
    is_right = q >= 0 or identity != NO_MODEL
    _require(is_right, f"q {q} in a file without a model", f"0 to {MAX_Q}", error)


def _check_alpha(
    mode: int, has_section: bool, identity: bytes, error: type[Exception] = ValueError
) -> None:
    """Checks that a mode with alpha has its section; without a model tiles may hold the channel."""
    has_alpha = mode in _MODES_WITH_ALPHA
    _require(
        has_section == has_alpha or (has_alpha and identity == NO_MODEL),
        f"mode {mode} with{'' if has_section else 'out'} an alpha section",
        f"one exactly for the modes {_MODES_WITH_ALPHA}",
        error,
    )


def _check_exact(has_section: bool, identity: bytes, error: type[Exception] = ValueError) -> None:
    """Checks that exact samples stand beside coded ones only."""
    is_right = identity != NO_MODEL or not has_section
    _require(is_right, "an EXACT section in a file without a model", "none", error)


def _num_tiles(width: int, height: int, tile_px: int | None) -> int:
    if tile_px is None:
        return 1
    return -(-width // tile_px) * -(-height // tile_px)


def _varint(number: int) -> bytes:
    """Unsigned LEB128: seven bits a byte, lowest first, the top bit set on all but the last."""
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _header_crc(header: bytes | memoryview) -> bytes:
    return binascii.crc_hqx(header, 0xFFFF).to_bytes(_HEADER_CRC_BYTES, "big")


def _body_crc(body: bytes) -> bytes:
    return zlib.crc32(body).to_bytes(BODY_CRC_BYTES, "little")


def _inflate(body: bytes, kind: Kind, max_bytes: int) -> bytes:
    """Inflates one zlib stream that must fill the body, never making more than `max_bytes` + 1."""
    stream = zlib.decompressobj()
    try:
        inflated = stream.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise BitstreamError(f"damaged {kind.name} section: {error}") from error
    if len(inflated) > max_bytes:
        raise BitstreamError(f"found a {kind.name} section of more than {max_bytes} bytes inflated")
    if not stream.eof or stream.unused_data:
        raise BitstreamError(f"damaged {kind.name} section: expected exactly one zlib stream")
    return inflated


def _require(
    condition: bool, found: str, expected: str, error: type[Exception] = ValueError
) -> None:
    if not condition:
        raise error(f"found {found}, expected {expected}")
