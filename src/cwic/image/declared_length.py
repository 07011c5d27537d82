"""How long a file says it is: what tells one that ends too early, where its reader does not.

Readers of WebP and AVIF refuse a file that is not complete. With zeros in place of what is missing
they decode what is there.
"""

import struct

_RIFF_HEAD_BYTES = 12
# More says nothing of a picture; it is the end of a damaged file.
_MAX_MISSING_BYTES = 2**26
_MAX_BOXES = 1000


def missing_bytes(data: bytes) -> int:
    """How many bytes a WebP or AVIF file lacks; 0 of any other file, and where none does.

    Args:
        data: the file, as far as it is there.
    """
    missing = _declared_bytes(data) - len(data)
    return missing if 0 < missing <= _MAX_MISSING_BYTES else 0


def _declared_bytes(data: bytes) -> int:
    if len(data) >= _RIFF_HEAD_BYTES and data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return 8 + int(struct.unpack_from("<I", data, 4)[0])
    if data[4:8] == b"ftyp" and b"avi" in data[8:32]:
        return _end_of_last_box(data)
    return 0


def _end_of_last_box(data: bytes) -> int:
    position = 0
    for _ in range(_MAX_BOXES):
        if position + 8 > len(data):
            break
        length = int(struct.unpack_from(">I", data, position)[0])
        if length == 1 and position + 16 <= len(data):
            length = int(struct.unpack_from(">Q", data, position + 8)[0])
        if length < 8:  # 0: to the end of the file
            break
        position += length
    return position
