"""What the chunks of a PNG file say of its samples, as far as Pillow drops or misreads it.

Owns depth, transparent colour, the statements about colour and which of them counts (Portable
Network Graphics, third edition, 4.3), and chunks that are too large for Pillow. Samples and
profiles are left to others.
"""

import contextlib
import io
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin

from cwic.image import profiles
from cwic.image.source_file import stream_of

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB, _GREY_ALPHA = 0, 2, 4
# A picture has a dozen chunks before its samples; whoever has more hides nothing here.
_MAX_CHUNKS = 10_000
_PIECE_BYTES = 2**20
_FACTS = frozenset({b"IHDR", b"tRNS", b"cICP", b"iCCP"})
_MAX_FACT_BYTES = 64

# What libpng takes for the gamma of sRGB, and for its primaries.
_SRGB_GAMMA, _GAMMA_TOLERANCE = 0.45455, 0.05
_PRIMARIES_TOLERANCE = 0.002
_GAMMA_RANGE = (0.05, 20.0)


class _Chunk(NamedTuple):
    name: bytes
    offset: int  # of its content in the file
    length: int


@dataclass(frozen=True)
class PngFacts:
    """What stands before the samples of a file."""

    depth_bits: int  # of a sample, or of an index into the palette: 1, 2, 4, 8 or 16
    key: tuple[
        int, ...
    ] = ()  # the transparent samples at the file's depth: one of grey, three of RGB
    cicp: profiles.Cicp | None = None  # code points for colours
    has_profile: bool = False  # whether there is an iCCP chunk, sound or not


@dataclass
class Bounded:
    """A file without what Pillow refuses to inflate."""

    file: BinaryIO  # the file itself, if nothing had to go
    profile: bytes | None = None  # ICC, if it was too large for Pillow and not for us
    dropped: list[str] = field(default_factory=list)  # names of the chunks that are lost


def facts_of(image: Image.Image) -> PngFacts | None:
    """What the file of an image says; None if it is no PNG file, or no longer there."""
    if not isinstance(image, PngImagePlugin.PngImageFile):
        return None
    with contextlib.suppress(OSError, ValueError, struct.error), stream_of(image) as file:
        if file is not None:
            return _facts(file)
    return None


def low_bytes(image: Image.Image) -> npt.NDArray[np.uint8] | None:
    """The lower bytes of the samples of 16-bit RGB, of which Pillow gives the upper ones.

    Returns:
        (H, W, 3), or None if the file is no longer there.
    """
    with contextlib.suppress(OSError, ValueError, SyntaxError), stream_of(image) as file:
        if file is not None:
            with Image.open(file, formats=["PNG"]) as again:
                # As if the bytes of each sample stood the other way round.
                again.tile = [tile._replace(args="RGB;16L") for tile in again.tile]
                again.load()
                return np.asarray(again)
    return None


def has_damaged_samples(file: BinaryIO) -> bool:
    """Whether a checksum of the samples is wrong, which Pillow does not look at.

    Args:
        file: seekable, at its beginning; what is no PNG file has none.
    """
    with contextlib.suppress(OSError, struct.error):
        for chunk in _chunks(file):
            if chunk.name != b"IDAT":
                continue
            file.seek(chunk.offset)
            found = zlib.crc32(chunk.name)
            for start in range(0, chunk.length, _PIECE_BYTES):
                piece = file.read(min(_PIECE_BYTES, chunk.length - start))
                if not piece:
                    return False  # it ends too early, behind all that Pillow needs
                found = zlib.crc32(piece, found)
            expected = file.read(4)
            if len(expected) == 4 and struct.unpack(">I", expected) != (found,):
                return True
    return False


def bounded(file: BinaryIO, max_profile_bytes: int) -> Bounded:
    """A seekable file, at its beginning, that Pillow reads in spite of large texts and profiles."""
    result = Bounded(file)
    cut: list[_Chunk] = []
    text_bytes = 0
    try:
        for chunk in _chunks(file):
            if chunk.name not in (b"iCCP", b"zTXt", b"iTXt", b"tEXt"):
                continue
            file.seek(chunk.offset)
            content = file.read(min(chunk.length, PngImagePlugin.MAX_TEXT_MEMORY))
            body = _deflated(chunk.name, content)
            # Counted to just beyond what Pillow takes.
            text = content if body is None else _inflated(body, PngImagePlugin.MAX_TEXT_CHUNK)[0]
            size = len(text)
            text_bytes += 0 if chunk.name == b"iCCP" else size
            is_too_large = (
                body is not None and size > PngImagePlugin.MAX_TEXT_CHUNK
            ) or text_bytes > PngImagePlugin.MAX_TEXT_MEMORY
            if not is_too_large:
                continue
            cut.append(chunk)
            if chunk.name == b"iCCP" and body is not None:
                profile, is_whole = _inflated(body, max_profile_bytes)
                result.profile = profile if is_whole else None
            if result.profile is None or chunk.name != b"iCCP":
                result.dropped.append(chunk.name.decode())
    except (OSError, struct.error):
        cut = []  # whatever is wrong with it, Pillow says
    file.seek(0)
    if cut:
        data = file.read()
        kept, start = [], 0
        for chunk in cut:
            kept.append(data[start : chunk.offset - 8])
            start = chunk.offset + chunk.length + 4
        result.file = io.BytesIO(b"".join([*kept, data[start:]]))
    return result


def profile_of(
    info: Mapping[Any, Any], cicp: profiles.Cicp | None, is_grey: bool, notes: list[str]
) -> bytes | None:
    """The ICC profile of what chunks say, by the one that counts; None for sRGB or nothing said.

    Args:
        info: of Pillow's image, also of one that was made of it.
        cicp: which Pillow drops.
        is_grey: whether samples are grey, not RGB.
        notes: gets a sentence about what is lost.
    """
    if cicp is not None:
        profile = None if cicp.is_srgb else profiles.profile_of_cicp(cicp, is_grey)
        if cicp.hdr_name:
            notes.append(
                f"its samples are {cicp.hdr_name} (HDR): programs that cannot read code points in "
                "a profile will show it without what is brighter than white"
            )
        if profile is not None or cicp.is_srgb:
            return profile
        notes.append(
            f"its colours (cICP {cicp.primaries}, {cicp.transfer}) are not known and left out"
        )
    if isinstance(info.get("icc_profile"), bytes):
        return bytes(info["icc_profile"])
    if "srgb" in info:
        return None
    return _profile_of_gamma(info.get("gamma"), info.get("chromaticity"), is_grey, notes)


def _profile_of_gamma(
    gamma: object, chromaticity: object, is_grey: bool, notes: list[str]
) -> bytes | None:
    """What gAMA and cHRM come to."""
    if isinstance(gamma, float) and not _GAMMA_RANGE[0] <= gamma <= _GAMMA_RANGE[1]:
        notes.append(f"its gamma of {gamma:g} (gAMA) cannot be and is left out")
        gamma = None
    primaries = None
    if isinstance(chromaticity, tuple) and len(chromaticity) == 8:
        points = [(float(x), float(y)) for x, y in zip(*[iter(chromaticity)] * 2, strict=True)]
        primaries = profiles.Primaries(*points)
        if np.abs(np.subtract(primaries, profiles.SRGB_PRIMARIES)).max() <= _PRIMARIES_TOLERANCE:
            primaries = None
    if is_grey:
        primaries = None
    is_srgb = not isinstance(gamma, float) or abs(gamma / _SRGB_GAMMA - 1) <= _GAMMA_TOLERANCE
    if primaries is None and is_srgb:
        return None
    curve = profiles.gamma_curve(1 / gamma) if isinstance(gamma, float) else profiles.srgb_curve()
    if is_grey:
        return profiles.profile_of_grey(curve)
    try:
        return profiles.profile_of_rgb(primaries or profiles.SRGB_PRIMARIES, curve)
    except ValueError:
        notes.append("its primary colours (cHRM) cannot be and are left out")
        return None if is_srgb else profiles.profile_of_rgb(profiles.SRGB_PRIMARIES, curve)


def _chunks(file: IO[bytes]) -> Iterator[_Chunk]:
    """All that there are, from the beginning of a PNG file."""
    file.seek(0)
    if file.read(len(_SIGNATURE)) != _SIGNATURE:
        return
    offset = len(_SIGNATURE)
    for _ in range(_MAX_CHUNKS):
        file.seek(offset)
        head = file.read(8)
        if len(head) < 8:
            return
        length, name = struct.unpack(">I4s", head)
        yield _Chunk(name, offset + 8, length)
        offset += 12 + length


def _facts(file: IO[bytes]) -> PngFacts | None:
    content: dict[bytes, bytes] = {}
    for chunk in _chunks(file):
        if chunk.name == b"IDAT":
            break
        if chunk.name in _FACTS and chunk.name not in content:
            file.seek(chunk.offset)
            content[chunk.name] = file.read(min(chunk.length, _MAX_FACT_BYTES))
    header = content.get(b"IHDR", b"")
    if len(header) < 13:
        return None
    depth_bits, colour = header[8], header[9]
    key: tuple[int, ...] = ()
    num_samples = {_GREY: 1, _RGB: 3}.get(colour, 0)
    if num_samples and len(content.get(b"tRNS", b"")) >= 2 * num_samples:
        # Bits beyond the depth do not count.
        found = struct.unpack_from(f">{num_samples}H", content[b"tRNS"])
        key = tuple(sample & ((1 << depth_bits) - 1) for sample in found)
    cicp = None
    if len(content.get(b"cICP", b"")) == 4:
        primaries, transfer, matrix, full_range = content[b"cICP"]
        cicp = profiles.Cicp(primaries, transfer, matrix, bool(full_range))
    return PngFacts(depth_bits, key, cicp, b"iCCP" in content)


def _deflated(name: bytes, content: bytes) -> bytes | None:
    """The zlib stream of a chunk, or None if there is none."""
    if name == b"tEXt":
        return None
    _, _, rest = content.partition(b"\0")
    if name == b"iTXt":
        if rest[:2] != b"\1\0":
            return None
        return rest[2:].split(b"\0", 2)[-1]
    return rest[1:]


def _inflated(body: bytes, max_bytes: int) -> tuple[bytes, bool]:
    """The content of a stream, up to just beyond a length, and whether that is all of it."""
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(body, max_bytes + 1)
    except zlib.error:
        return b"", False
    return content, stream.eof and len(content) <= max_bytes
