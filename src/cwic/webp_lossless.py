"""Samples <-> WebP lossless streams, by the libwebp that comes with Pillow.

Owns how a stream is made and what is checked before and after one is decoded. What a stream is of,
a picture or a layer over one, is left to who asks.
"""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image, features

from cwic.errors import BitstreamError, NotBuiltError

Samples = npt.NDArray[np.uint8]  # (H, W, 3) or (H, W, 4)

# A stream holds no more, and so a reader never needs memory for more at a time.
MAX_STREAM_PIXELS = 2**22
MAX_STREAM_SIDE_PX = 2**14 - 1
# What is larger is divided: libwebp looks back over a million pixels, which is more rows of a tile
# than of a wide picture.
TILE_PX = 2048

# Time against size. The slow one tries everything, for pictures whose header is half the file.
_ORDINARY = {"method": 4, "quality": 80}
_THOROUGH = {"method": 6, "quality": 100}
_THOROUGH_PIXELS = 2**12

# What a .webp file has before its stream: RIFF, length, WEBP, VP8L, length.
_RIFF_BYTES = 20
_SIGNATURE = 0x2F
_HEAD_BYTES = 5


def is_available() -> bool:
    """Whether this Pillow has libwebp."""
    return bool(features.check("webp"))


def packed(samples: Samples) -> bytes:
    """The stream of samples, at most `MAX_STREAM_PIXELS` and `MAX_STREAM_SIDE_PX` a side."""
    height, width = samples.shape[:2]
    effort = _THOROUGH if height * width <= _THOROUGH_PIXELS else _ORDINARY
    file = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(samples))
    image.save(file, "WEBP", lossless=True, exact=True, **effort)
    found = file.getvalue()
    length = int.from_bytes(found[_RIFF_BYTES - 4 : _RIFF_BYTES], "little")
    assert found[8:16] == b"WEBPVP8L", found[:_RIFF_BYTES]
    return found[_RIFF_BYTES : _RIFF_BYTES + length]


def unpacked(stream: bytes, height: int, width: int, name: str, *, may_have_alpha: bool) -> Samples:
    """The samples of a stream, (H, W, 4) where it has alpha, else (H, W, 3).

    All that it claims is checked before anything is decoded. `name` is that of its section.

    Raises:
        BitstreamError: it is damaged, of another size, or has alpha and may not.
        NotBuiltError: this Pillow has no libwebp.
    """
    number = int.from_bytes(stream[1:_HEAD_BYTES], "little")
    found = 1 + (number & 0x3FFF), 1 + (number >> 14 & 0x3FFF)
    has_alpha, version = bool(number >> 28 & 1), number >> 29
    if len(stream) < _HEAD_BYTES or stream[0] != _SIGNATURE or version != 0:
        raise BitstreamError(
            f"damaged {name} section: it begins with {stream[:_HEAD_BYTES].hex()}, expected a WebP "
            "lossless stream of version 0"
        )
    if found != (width, height):
        raise BitstreamError(
            f"damaged {name} section: found a stream of {found[0]}x{found[1]} pixels, "
            f"expected {width}x{height}"
        )
    if has_alpha and not may_have_alpha:
        raise BitstreamError(
            f"damaged {name} section: found a stream with alpha, expected one without"
        )
    if not is_available():
        raise NotBuiltError(f"the {name} section needs a Pillow with WebP, found one without")
    from PIL import _webp  # a Pillow without WebP has none

    chunk = b"WEBPVP8L" + len(stream).to_bytes(4, "little") + stream + bytes(len(stream) % 2)
    webp = b"RIFF" + len(chunk).to_bytes(4, "little") + chunk
    try:
        # Not by Pillow's image classes: their limit on pixels is that of the user's own files.
        frame = _webp.WebPAnimDecoder(webp).get_next()
    except MemoryError:
        raise
    except Exception as error:  # Pillow lists nowhere what a damaged stream raises
        raise BitstreamError(f"damaged {name} section: {error}") from error
    if frame is None:
        raise BitstreamError(f"damaged {name} section: its stream cannot be decoded")
    samples = np.frombuffer(frame[0], np.uint8)  # R, G, B, and alpha or nothing of use
    if samples.size != 4 * width * height:
        raise BitstreamError(
            f"damaged {name} section: it decodes to {samples.size} bytes, expected "
            f"{width}x{height} pixels"
        )
    samples = samples.reshape(height, width, 4)
    return samples if has_alpha else np.ascontiguousarray(samples[:, :, :3])


def check_grey(samples: Samples, name: str) -> None:
    """Refuses colours in a grey picture.

    Raises:
        BitstreamError: there are some.
    """
    if (samples[..., :1] != samples[..., 1:3]).any():
        raise BitstreamError(f"damaged {name} section: found colours, expected a grey picture")
