"""Everything that reads a stranger's file, as functions of any bytes: what the fuzzer calls.

A door takes bytes and does with them what a person would do with a file from somebody else. It
returns when the file was read or refused in words; whatever else it raises is a finding.
`scripts/fuzz` looks for such bytes, `tests/test_fuzz.py` keeps those that were found. All models
are the frozen ones of the golden files.
"""

import argparse
import contextlib
import io
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from cwic import bitstream, codec, model_file, pillow_plugin
from cwic.bitstream import Kind
from cwic.cli.verbs import VERBS
from cwic.codec import Codec
from cwic.errors import CodecError, CodecWarning
from cwic.families.tiling import Rectangle, Tiling
from cwic.image import Mode, read_picture
from cwic.whole import pack_whole

GOLDEN = Path(__file__).resolve().parent / "data" / "golden"
# By the low half of an input's first byte; any other is the first.
FIRST = {0: "flagship", 15: "cvpr2018"}
MODELS = {first: GOLDEN / f"{name}.cwicmodel" for first, name in FIRST.items()}
# The same of files without a model.
WHOLE = 13

# Pictures stay small, so that an input takes milliseconds.
MAX_SIDE_PX = 160
LIMITS = bitstream.Limits(max_pixels=MAX_SIDE_PX**2, max_metadata_bytes=2**16, max_sections=64)

_FIXED_BYTES = len(bitstream.MAGIC) + 1 + bitstream.IDENTITY_BYTES
_FIRST_LONG_KIND = 8  # of the section table
_BODY_CRC_BYTES = 4


@cache
def codecs() -> dict[int, Codec]:
    """Of the frozen models, on one thread."""
    return {first: Codec.load(path, threads=1) for first, path in MODELS.items()}


# --- a file made right ----------------------------------------------------------------------------


class _Lenient:
    """Reads whatever is there; beyond the end stand zeros."""

    def __init__(self, data: bytes, position: int):
        self.data, self.position = data, position

    def byte(self) -> int:
        self.position += 1
        return self.data[self.position - 1] if self.position <= len(self.data) else 0

    def varint(self) -> int:
        number = 0
        for place in range(4):
            byte = self.byte()
            number |= (byte & 127) << 7 * place
            if byte < 128:
                break
        return number

    def bytes(self, count: int) -> bytes:
        self.position += count
        return self.data[self.position - count : self.position]

    @property
    def left(self) -> int:
        return max(0, len(self.data) - self.position)


def repaired(data: bytes, identity: bytes) -> bytes:
    """A file that says what `data` says, with what a chance change would break made right.

    Magic, version, identity, size of the picture (at most `MAX_SIDE_PX` a side), the end of the
    section table, lengths and checksums; what a stream says of its own size; without a model the
    sign of q.
    Layout, q, kinds and bodies stay what they were.
    """
    is_whole = identity == bitstream.NO_MODEL
    of_tiles = Kind.WHOLE if is_whole else Kind.TILE
    reader = _Lenient(data, _FIXED_BYTES)
    width, height = (1 + (reader.varint() - 1) % MAX_SIDE_PX for _ in range(2))
    layout, zigzag = reader.byte(), reader.varint()
    zigzag = zigzag & ~1 if is_whole else zigzag
    exponent = layout >> 4
    side = 2 ** (exponent + 5) if exponent else max(width, height)
    tiles = -(-width // side) * -(-height // side)
    table: list[tuple[int, int]] = []
    while tiles and len(table) < LIMITS.max_sections:
        entry = reader.varint()
        kind = entry & 7
        if kind == Kind.UNKNOWN:
            kind = _FIRST_LONG_KIND + reader.varint()
        # What an encoder always writes, if the table is cut short.
        if not reader.left:
            kind = of_tiles
        tiles -= kind == of_tiles
        table.append((kind, entry >> 3))
    reader.position += 2  # checksum of the header
    bodies = []
    for number, (kind, length) in enumerate(table):
        last = number == len(table) - 1
        body = reader.bytes(reader.left if last else min(length, reader.left))
        if last and len(body) == length + _BODY_CRC_BYTES:
            body = body[:length]
        reader.position += _BODY_CRC_BYTES
        # No encoder writes them, and a decoder says so before it begins.
        bodies.append((kind, body.rstrip(b"\0") if kind == Kind.TILE else body))
    if is_whole:
        places = iter(Tiling(height, width, side if exponent else None, 1).tiles)
        bodies = [
            (kind, _with_head(body, next(places)) if kind == Kind.WHOLE else body)
            for kind, body in bodies
        ]
    else:
        everything = Rectangle(0, 0, height, width)  # one tile of a layer
        bodies = [
            (kind, _with_length(body, everything) if kind == Kind.EXACT else body)
            for kind, body in bodies
        ]
    parts = [
        bitstream.MAGIC,
        bytes([bitstream.VERSION]),
        identity,
        bitstream._varint(width),
        bitstream._varint(height),
        bytes([layout]),
        bitstream._varint(zigzag),
    ]
    for kind, body in bodies:
        parts.append(bitstream._varint(len(body) << 3 | min(kind, Kind.UNKNOWN)))
        if kind >= _FIRST_LONG_KIND:
            parts.append(bitstream._varint(kind - _FIRST_LONG_KIND))
    parts.append(bitstream._header_crc(b"".join(parts)))
    for _, body in bodies:
        parts += [body, bitstream._body_crc(body)]
    return b"".join(parts)


def _with_length(body: bytes, tile: Rectangle) -> bytes:
    """The body of a layer with one stream, of the length and the size that it says."""
    stream = _with_head(body[4:], tile)
    return len(stream).to_bytes(4, "little") + stream


def _with_head(stream: bytes, tile: Rectangle) -> bytes:
    """A WebP lossless stream that says the size of its tile; whether it has alpha stays."""
    has_alpha = len(stream) > 4 and stream[4] & 16
    sides = tile.width - 1 | tile.height - 1 << 14 | (1 << 28 if has_alpha else 0)
    return b"\x2f" + sides.to_bytes(4, "little") + stream[5:]


def _codec(first: int) -> Codec:
    """Which of them a first byte means; the slower ones seldom, and each without a model too."""
    return codecs().get(first & 15, codecs()[0])


def _identity(first: int) -> bytes:
    return bitstream.NO_MODEL if first & 15 == WHOLE else _codec(first).identity


def _file(data: bytes) -> tuple[bytes, Codec]:
    """The first byte says whose file it is, and whether it is taken as it stands."""
    chosen = _codec(data[0])
    as_it_is = data[0] & 0xF0 == 0xF0
    return data[1:] if as_it_is else repaired(data[1:], _identity(data[0])), chosen


class _InMemory:
    """What `cwic info` needs of a path."""

    name, suffix = "input.cwic", ".cwic"

    def __init__(self, data: bytes):
        self._data = data

    def is_dir(self) -> bool:
        return False

    def read_bytes(self) -> bytes:
        return self._data

    def __str__(self) -> str:
        return self.name


# --- the doors ------------------------------------------------------------------------------------


def info(data: bytes) -> None:
    """`cwic info`, and all sections read."""
    file, _ = _file(data)
    with contextlib.redirect_stdout(io.StringIO()):
        VERBS["info"](argparse.Namespace(input=_InMemory(file), json=bool(data[0] & 2)))
    bitstream.unpack(file, LIMITS)


def decode(data: bytes) -> None:
    """`Codec.decode` of a whole file."""
    file, chosen = _file(data)
    chosen.decode(file, limits=LIMITS)


def payload(data: bytes) -> None:
    """`Codec.decode` of any payload under a header that is right."""
    head, rest = data[:7].ljust(7, b"\0"), data[7:]
    chosen = _codec(head[0])
    mode = Mode(head[0] >> 4 & 3)
    reduce = (1, 1, 2, 8)[head[0] >> 6]
    # A layer or two of cells; now and then more, and two tiles.
    width, height = (1 + (value & 31) for value in head[1:3])
    tile_px = None
    if head[2] & 0xE0 == 0xE0:
        width, tile_px = 4 * width, 64
    num_tiles = 1 if tile_px is None else -(-width // tile_px)
    first = head[5] if num_tiles > 1 else 0
    tiles = [rest[:first], rest[first:]][-num_tiles:]
    q = int.from_bytes(head[3:5], "little") % (2 * bitstream.MAX_Q + 1) - bitstream.MAX_Q
    has_section = mode.has_alpha
    if head[0] & 15 == WHOLE:
        q, has_section = 0, mode.has_alpha and bool(head[6] & 1)
        places = Tiling(height, width, tile_px, 1).tiles
        tiles = [_with_head(tile, place) for tile, place in zip(tiles, places, strict=True)]
    else:
        tiles = [tile.rstrip(b"\0") for tile in tiles]
    file = bitstream.pack(
        identity=_identity(head[0]),
        width=width,
        height=height,
        mode=mode,
        q=q,
        tiles=tiles,
        tile_px=tile_px,
        sections={Kind.ALPHA: bytes([4, head[6]])} if has_section else {},
    )
    chosen.decode(file, reduce=reduce, limits=LIMITS)


def pillow(data: bytes) -> None:
    """`Image.open` and `load`, of which Pillow's users expect OSError."""
    file, _ = _file(data)
    with (
        contextlib.suppress(OSError, Image.DecompressionBombError),
        _frozen_models_bundled(),
        Image.open(io.BytesIO(file), formats=["CWIC"]) as image,
    ):
        if image.width * image.height <= LIMITS.max_pixels:
            if data[0] & 2:
                image.draft(None, (1 + data[0] // 4, 9))
            image.load()


def model(data: bytes) -> None:
    """`Codec.load` of a damaged model file whose identity is made right.

    The first byte chooses the model, and whether an entry is damaged or the archive. Then come
    changes: entry (1 byte), place (3), how much goes (1), how much comes (1), what comes.
    """
    path_of_model = MODELS.get(data[0] & 15, MODELS[0])
    entries = dict(_entries(path_of_model))
    names = sorted(entries)
    raw = bool(data[0] & 0x80)
    damaged = bytearray(_archive(entries)) if raw else bytearray()
    reader = _Lenient(data, 1)
    while reader.left > 5:
        name = names[reader.byte() % len(names)]
        into = damaged if raw else bytearray(entries[name])
        place = int.from_bytes(reader.bytes(3), "little") % (len(into) + 1)
        goes, comes = reader.byte(), reader.byte()
        into[place : place + goes] = reader.bytes(comes)
        entries[name] = bytes(into)
    with _temporary(".cwicmodel") as path, _identity_of(path_of_model):
        path.write_bytes(damaged if raw else _archive(entries))
        Codec.load(path, threads=1)


DOORS: dict[str, Callable[[bytes], None]] = {
    door.__name__: door for door in (info, decode, payload, pillow, model)
}


def knock(door: str, data: bytes) -> bool:
    """What a door says to bytes: whether it took them. Raises what nobody expects of it."""
    if not data:
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CodecWarning)
        try:
            DOORS[door](data)
        except CodecError:
            return False
    return True


# --- what a fuzzer begins with --------------------------------------------------------------------


class Seed(NamedTuple):
    """An input worth changing."""

    name: str
    data: bytes


def seeds(door: str) -> Iterator[Seed]:
    """Golden files and files of small pictures, in the form that a door takes."""
    if door == "model":
        for first, model_path in MODELS.items():
            entries = _entries(model_path)
            for name in range(len(entries)):
                for place in (0, 9, 64, 200):
                    change = bytes([first, name, place, 0, 0, 1, 1, 77])
                    yield Seed(f"{first}-{name}-{place}", change)
        return
    for path in sorted(GOLDEN.glob("*.cwic")):
        firsts = FIRST | {WHOLE: "whole"}
        of_model = [first for first, name in firsts.items() if path.name.startswith(f"{name}-")]
        if of_model and door != "payload":
            yield Seed(path.stem, bytes(of_model) + path.read_bytes())
    rng = np.random.default_rng(11)
    for first, one in codecs().items():
        whose = bytes([first])
        for side in (1, 9) if first else (1, 9, 16, 24, 32):
            smooth = np.linspace(rng.integers(0, 255, 3), rng.integers(0, 255, 3), side)
            picture = np.broadcast_to(smooth, (side, side, 3)) + rng.normal(0, 9, (side, side, 3))
            data = one.encode(
                picture.clip(0, 255).astype(np.uint8),
                quality=int(rng.integers(101)),
                lossless="never",
            )
            name = f"{one.name}-{side}"
            if door == "payload":
                stream = bitstream.unpack(data)
                q = (stream.header.q + bitstream.MAX_Q).to_bytes(2, "little")
                head = whose + bytes([side - 1, side - 1]) + q + b"\0\0"
                yield Seed(name, head + stream.tiles[0])
            else:
                yield Seed(name, whose + data)
    for side in (1, 9, 32):
        drawn = (np.mgrid[0:side, 0:side] // 5).sum(axis=0) % 3 * 100
        for channels in (1, 2, 3, 4):
            picture = (drawn[..., None] + np.arange(channels)).astype(np.uint8)
            data = pack_whole(read_picture(picture))
            name = f"whole-{side}-{channels}"
            if door == "payload":
                (stream,) = bitstream.unpack(data).tiles
                mode = bitstream.read_header(data).mode
                head = bytes([WHOLE | mode << 4, side - 1, side - 1, 0, 0, 0, 0])
                yield Seed(name, head + stream)
            else:
                yield Seed(name, bytes([WHOLE]) + data)


# --- what stands behind ---------------------------------------------------------------------------


@contextlib.contextmanager
def _temporary(suffix: str) -> Iterator[Path]:
    """A file in memory where there is such a thing; one for this process."""
    path = _folder() / ("input" + suffix)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


@cache
def _folder() -> Path:
    in_memory = Path("/dev/shm")
    # Kept by the cache, removed with the process.
    folder = tempfile.TemporaryDirectory(dir=in_memory if in_memory.is_dir() else None)
    _KEPT.append(folder)
    return Path(folder.name)


_KEPT: list[object] = []


@cache
def _entries(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _archive(entries: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as written:
        for name, content in entries.items():
            written.writestr(name, content)
    return file.getvalue()


@contextlib.contextmanager
def _frozen_models_bundled() -> Iterator[None]:
    """Files of the frozen models are found as those of the bundled ones are."""
    assert pillow_plugin  # it has made itself known to Pillow
    by_identity = {one.identity: one for one in codecs().values()}

    def found(data: bytes, *_: object, **__: object) -> Codec:
        identity = bitstream.read_header(data).identity
        return by_identity.get(identity) or codecs()[0]  # which reads files without a model too

    before = codec.loaded_for
    codec.loaded_for = found
    try:
        yield
    finally:
        codec.loaded_for = before


@contextlib.contextmanager
def _identity_of(path: Path) -> Iterator[None]:
    """The identity of a changed model is still computed, and taken to be the manifest's."""
    before = model_file._identity
    info = _info(path)

    def frozen(family: str, *rest: object) -> bytes:
        before(family, *rest)  # type: ignore[arg-type]
        return info.identity if family == info.family else bytes(model_file.IDENTITY_BYTES)

    model_file._identity = frozen
    try:
        yield
    finally:
        model_file._identity = before


@cache
def _info(path: Path) -> model_file.ModelInfo:
    return model_file.read_info(path)
