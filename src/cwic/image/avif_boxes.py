"""What the boxes of an AVIF file say of its samples, which Pillow drops: colours and depth.

Owns no more of ISO base media than the way to two kinds of boxes, by which the file of one picture
describes itself.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from PIL import Image

from cwic.image.profiles import Cicp
from cwic.image.source_file import stream_of

# A picture's description stands at the beginning, and is small.
_MAX_META_BYTES = 2**20
_MAX_BOXES = 1000
_WAY = (b"meta", b"iprp", b"ipco")
_FULL_BOX_BYTES = 4
_UNSPECIFIED = 2


class AvifFacts(NamedTuple):
    """Of the file's first picture."""

    depth_bits: int  # of a sample; 8 if the file does not say
    cicp: Cicp | None  # code points of the decoded RGB samples, where both are specified


def facts_of(image: Image.Image) -> AvifFacts | None:
    """What the file of an image says; None if it is no AVIF file, or no longer there."""
    if image.format != "AVIF":
        return None
    with stream_of(image) as file:
        data = b"" if file is None else file.read(_MAX_META_BYTES)
    depth_bits, cicp = 8, None
    for kind, content in _properties(data):
        if kind == b"pixi" and len(content) > _FULL_BOX_BYTES + 1:
            depth_bits = max(depth_bits, *content[_FULL_BOX_BYTES + 1 :])
        elif kind == b"colr" and content[:4] == b"nclx" and len(content) >= 10 and cicp is None:
            primaries, transfer = struct.unpack_from(">HH", content, 4)
            if _UNSPECIFIED not in (primaries, transfer):
                # The decoder has undone matrix and range.
                cicp = Cicp(primaries, transfer, 0, True)
    return AvifFacts(depth_bits, cicp)


def _properties(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of what is said of the file's items."""
    for kind in _WAY:
        data = next((content for found, content in _boxes(data) if found == kind), b"")
        if kind == b"meta":
            data = data[_FULL_BOX_BYTES:]
    yield from _boxes(data)


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 0
    for _ in range(_MAX_BOXES):
        if position + 8 > len(data):
            return
        length, kind = struct.unpack_from(">I4s", data, position)
        if length < 8:
            return
        yield kind, data[position + 8 : position + length]
        position += length
