"""EXIF blocks: what follows from the picture they are with, and its resolution.

Owns the few tags that say something about the samples: orientation, sizes, resolution, thumbnail.
A block is patched where it stands and never written anew, because maker notes hold offsets that
only their maker knows. What the orientation does to the samples is left to `image`.

A block is bytes from its TIFF header (`II` or `MM`) on. Whatever is wrong with its first directory
is a ValueError; damage further on is left as it is.
"""

import math
import struct
from collections.abc import Iterator
from typing import NamedTuple

MARKER = b"Exif\0\0"  # what JPEG puts before a block
UPRIGHT = 1

# Tags of the first directory.
_WIDTH, _HEIGHT = 0x0100, 0x0101
_STRIP_OFFSETS, _STRIP_BYTES = 0x0111, 0x0117
_ORIENTATION = 0x0112
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 0x011A, 0x011B, 0x0128
_JPEG_OFFSET, _JPEG_BYTES = 0x0201, 0x0202
_EXIF_DIRECTORY, _GPS_DIRECTORY = 0x8769, 0x8825
# Tags of the EXIF directory.
_PIXEL_WIDTH, _PIXEL_HEIGHT = 0xA002, 0xA003
_INTEROPERABILITY_DIRECTORY = 0xA005

_SHORT, _LONG, _RATIONAL = 3, 4, 5
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}

_HEADER_BYTES = 8
_ENTRY_BYTES = 12
_INCH, _CENTIMETRE = 2, 3
_CENTIMETRES_PER_INCH = 2.54
# EXIF: "when the image resolution is unknown, 72 [dpi] is designated".
_UNKNOWN_DPI = 72
_MAX_DPI = 1e6
_DENOMINATOR = 1000


def orientation_of(block: bytes) -> int | None:
    """The number of the orientation, 1 to 8 if it is sound; None if there is none."""
    patched = _Patched(block)
    entry = patched.directory(patched.first).get(_ORIENTATION)
    return None if entry is None else patched.number(entry)


def with_size(block: bytes, width: int, height: int) -> bytes:
    """The block of an upright picture of a size in pixels: what it says of either is made true.

    Tags that are not there are not added.
    """
    patched = _Patched(block)
    first = patched.directory(patched.first)
    if _ORIENTATION in first:
        patched.set_number(first[_ORIENTATION], UPRIGHT)
    described = patched.directory_at(first.get(_EXIF_DIRECTORY))
    for entries, tag, side_px in (
        (first, _WIDTH, width),
        (first, _HEIGHT, height),
        (described, _PIXEL_WIDTH, width),
        (described, _PIXEL_HEIGHT, height),
    ):
        if tag in entries:
            patched.set_number(entries[tag], side_px)
    return bytes(patched.data)


def without_thumbnail(block: bytes) -> bytes:
    """The block without the small picture that it holds of the large one, if it holds one.

    What stood behind the small picture stays where it is, with zeros before it.
    """
    patched = _Patched(block)
    link = patched.end_of(patched.first)
    if link + 4 > len(block):
        return block
    (second,) = struct.unpack_from(f"{patched.order}I", block, link)
    if not second:
        return block
    struct.pack_into(f"{patched.order}I", patched.data, link, 0)
    try:
        unused = list(_ranges(patched, [second])) + list(_thumbnails(patched, second))
    except ValueError:
        return bytes(patched.data)
    first = patched.directory(patched.first)
    described = patched.directory_at(first.get(_EXIF_DIRECTORY))
    starts = [patched.first] + [
        patched.number(entry)
        for entry in (
            first.get(_EXIF_DIRECTORY),
            first.get(_GPS_DIRECTORY),
            described.get(_INTEROPERABILITY_DIRECTORY),
        )
        if entry is not None
    ]
    used = [range(_HEADER_BYTES), *_ranges(patched, starts)]
    cut = [
        piece
        for piece in unused
        if not any(piece.start < other.stop and other.start < piece.stop for other in used)
    ]
    for piece in cut:
        patched.data[piece.start : piece.stop] = bytes(len(piece))
    length = len(block)
    for piece in sorted(cut, key=lambda piece: piece.stop, reverse=True):
        if piece.start < length <= piece.stop + 1:  # a byte to make it even, perhaps
            length = piece.start
    return bytes(patched.data[:length])


def resolution_of(block: bytes) -> tuple[float, float] | None:
    """Across and down in dots per inch; None if the block does not say."""
    patched = _Patched(block)
    first = patched.directory(patched.first)
    unit = patched.number(first[_RESOLUTION_UNIT]) if _RESOLUTION_UNIT in first else _INCH
    if not {_X_RESOLUTION, _Y_RESOLUTION} <= first.keys() or unit not in (_INCH, _CENTIMETRE):
        return None
    scale = _CENTIMETRES_PER_INCH if unit == _CENTIMETRE else 1
    try:
        across, down = (patched.ratio(first[tag]) * scale for tag in (_X_RESOLUTION, _Y_RESOLUTION))
    except (ValueError, ZeroDivisionError):
        return None
    return (across, down) if _is_resolution(across, down) else None


def with_resolution(block: bytes | None, across_dpi: float, down_dpi: float) -> bytes | None:
    """The block with a resolution in it, which came from elsewhere in the file.

    None makes a block. Anything that is no resolution changes nothing; the 72 dpi that stand for an
    unknown one are not added, nor do they replace another.
    """
    is_unknown = round(across_dpi, 1) == round(down_dpi, 1) == _UNKNOWN_DPI
    if is_unknown or not _is_resolution(across_dpi, down_dpi):
        return block
    block = block or b"II*\0" + struct.pack("<IHI", _HEADER_BYTES, 0, 0)
    known = resolution_of(block)
    if known is not None and math.dist(known, (across_dpi, down_dpi)) < 0.5:
        return block
    patched = _Patched(block)
    order = patched.order
    added = {
        _X_RESOLUTION: patched.append(_rational(order, across_dpi)),
        _Y_RESOLUTION: patched.append(_rational(order, down_dpi)),
    }
    entries = {
        entry.tag: bytes(patched.data[entry.position : entry.position + _ENTRY_BYTES])
        for entry in patched.directory(patched.first).values()
    }
    for tag, offset in added.items():
        entries[tag] = struct.pack(f"{order}HHII", tag, _RATIONAL, 1, offset)
    entries[_RESOLUTION_UNIT] = struct.pack(f"{order}HHIHH", _RESOLUTION_UNIT, _SHORT, 1, _INCH, 0)
    link = patched.end_of(patched.first)
    directory = struct.pack(f"{order}H", len(entries))
    directory += b"".join(entry for _, entry in sorted(entries.items()))
    directory += bytes(patched.data[link : link + 4]).ljust(4, b"\0")
    struct.pack_into(f"{order}I", patched.data, 4, patched.append(directory))
    return bytes(patched.data)


class _Entry(NamedTuple):
    """One tag of a directory."""

    tag: int
    kind: int
    num_values: int
    position: int  # of the entry
    value: range  # where its value stands, inside the entry or elsewhere


class _Patched:
    """A block that is being changed."""

    def __init__(self, block: bytes):
        order = {b"II": "<", b"MM": ">"}.get(block[:2])
        if order is None or len(block) < _HEADER_BYTES + 2:
            raise ValueError(f"found {block[:4]!r}, expected a TIFF header")
        self.order = order
        self.data = bytearray(block)
        (self.first,) = struct.unpack_from(f"{order}I", block, 4)

    def directory(self, start: int) -> dict[int, _Entry]:
        """The entries of a directory whose values lie inside the block."""
        if not _HEADER_BYTES <= start <= len(self.data) - 2:
            raise ValueError(f"found a directory at byte {start} of {len(self.data)}")
        (count,) = struct.unpack_from(f"{self.order}H", self.data, start)
        entries = {}
        for position in range(start + 2, start + 2 + _ENTRY_BYTES * count, _ENTRY_BYTES):
            if position + _ENTRY_BYTES > len(self.data):
                raise ValueError(f"found a directory that reaches beyond {len(self.data)} bytes")
            tag, kind, number = struct.unpack_from(f"{self.order}HHI", self.data, position)
            size = _TYPE_BYTES.get(kind, 0) * number
            offset = position + 8
            if size > 4:
                (offset,) = struct.unpack_from(f"{self.order}I", self.data, offset)
            if size and offset + size <= len(self.data):
                entries[tag] = _Entry(tag, kind, number, position, range(offset, offset + size))
        return entries

    def directory_at(self, pointer: _Entry | None) -> dict[int, _Entry]:
        """The entries of the directory that an entry points to; none if it is damaged."""
        if pointer is None:
            return {}
        try:
            return self.directory(self.number(pointer))
        except ValueError:
            return {}

    def end_of(self, start: int) -> int:
        """Where the link to the next directory stands."""
        (count,) = struct.unpack_from(f"{self.order}H", self.data, start)
        return int(start + 2 + _ENTRY_BYTES * count)

    def number(self, entry: _Entry) -> int:
        """The first value of an entry of whole numbers; 0 for any other."""
        kind = {1: "B", _SHORT: "H", _LONG: "I", 13: "I"}.get(entry.kind)
        if kind is None:
            return 0
        return int(struct.unpack_from(f"{self.order}{kind}", self.data, entry.value.start)[0])

    def ratio(self, entry: _Entry) -> float:
        """The first value of an entry of ratios."""
        if entry.kind != _RATIONAL:
            return float(self.number(entry))
        above, below = struct.unpack_from(f"{self.order}II", self.data, entry.value.start)
        return float(above / below)

    def set_number(self, entry: _Entry, number: int) -> None:
        """One value, of the kind that the entry had if it holds the number."""
        is_short = entry.kind != _LONG and number < 2**16
        fields = (_SHORT, 1, number, 0) if is_short else (_LONG, 1, number)
        struct.pack_into(
            f"{self.order}HHIHH" if is_short else f"{self.order}HHII",
            self.data, entry.position, entry.tag, *fields,
        )  # fmt: skip

    def append(self, content: bytes) -> int:
        """Where the content then stands."""
        self.data += bytes(len(self.data) % 2)
        self.data += content
        return len(self.data) - len(content)


def _ranges(patched: _Patched, starts: list[int]) -> Iterator[range]:
    """What directories take up, with the values that stand outside of them."""
    for start in starts:
        try:
            entries = patched.directory(start)
        except ValueError:
            continue
        yield range(start, min(patched.end_of(start) + 4, len(patched.data)))
        for entry in entries.values():
            if entry.value.start != entry.position + 8:
                yield entry.value


def _thumbnails(patched: _Patched, start: int) -> Iterator[range]:
    """Where the samples of the small picture stand."""
    entries = patched.directory(start)
    for offset, length in ((_JPEG_OFFSET, _JPEG_BYTES), (_STRIP_OFFSETS, _STRIP_BYTES)):
        if offset in entries and length in entries and entries[offset].num_values == 1:
            begin = patched.number(entries[offset])
            end = begin + patched.number(entries[length])
            if begin < end <= len(patched.data):
                yield range(begin, end)


def _is_resolution(across_dpi: float, down_dpi: float) -> bool:
    return all(
        math.isfinite(dpi) and 1 / _DENOMINATOR <= dpi <= _MAX_DPI for dpi in (across_dpi, down_dpi)
    )


def _rational(order: str, number: float) -> bytes:
    above = round(number * _DENOMINATOR)
    shared = math.gcd(above, _DENOMINATOR)
    return struct.pack(f"{order}II", above // shared, _DENOMINATOR // shared)
