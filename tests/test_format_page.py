"""`docs/format.md` is enough: readers of container and coder, written from that page alone.

Nothing of `cwic` is used to read; its own reader is only what the result is compared with.
"""

import binascii
import io
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from reference_range_coder import ReferenceDecoder
from test_golden import expected_hashes, hashes

import cwic
from cwic.bitstream import Kind, pack
from cwic.codec import Codec
from cwic.image import Mode

GOLDEN = Path(__file__).parent / "data" / "golden"
FILES = sorted(GOLDEN.glob("*.cwic"))
WHOLE_FILES = sorted(GOLDEN.glob("whole-*.cwic"))
EXACT_FILES = sorted(GOLDEN.glob("*-exact.cwic"))
TILE, ALPHA, ICC, EXIF, XMP, _, WHOLE, _, EXACT = range(9)


class File(NamedTuple):
    identity: bytes
    width: int
    height: int
    mode: int
    tile_px: int | None
    q: int
    sections: list[tuple[int, bytes]]

    def of(self, kind: int) -> list[bytes]:
        return [body for found, body in self.sections if found == kind]


def read(data: bytes) -> File:
    position = 0

    def take(count: int) -> bytes:
        nonlocal position
        assert position + count <= len(data)
        position += count
        return data[position - count : position]

    def varint() -> int:
        value = 0
        for place in range(8):
            (byte,) = take(1)
            value |= (byte & 0x7F) << (7 * place)
            if byte < 0x80:
                assert byte > 0 or place == 0  # the shortest form
                return value
        raise AssertionError("a varint of more than 8 bytes")

    assert take(6) == bytes.fromhex("C77769630D0A")
    assert take(1) == b"\x01"
    identity = take(8)
    width, height = varint(), varint()
    assert 1 <= width < 2**31
    assert 1 <= height < 2**31
    (layout,) = take(1)
    mode, exponent = layout & 15, layout >> 4
    assert mode <= 5
    zigzag = varint()
    q = zigzag // 2 if zigzag % 2 == 0 else -(zigzag + 1) // 2
    assert -4096 <= q <= 4096
    tile_px = None if exponent == 0 else 2 ** (exponent + 5)
    tiles = 1 if tile_px is None else -(-width // tile_px) * -(-height // tile_px)
    of_tiles = WHOLE if identity == bytes(8) else TILE
    table: list[tuple[int, int]] = []
    while sum(kind == of_tiles for kind, _ in table) < tiles:
        entry = varint()
        kind = entry & 7
        table.append((8 + varint() if kind == 7 else kind, entry >> 3))
    kinds = [kind for kind, _ in table]
    first = kinds.index(of_tiles)
    assert kinds[first:] == [of_tiles] * tiles
    assert TILE + WHOLE - of_tiles not in kinds
    if identity == bytes(8):
        assert q >= 0
        assert kinds.count(ALPHA) <= (mode in (2, 3, 5))
        assert EXACT not in kinds
    else:
        assert kinds.count(ALPHA) == (mode in (2, 3, 5))
    before_crc = position
    assert int.from_bytes(take(2), "big") == binascii.crc_hqx(data[:before_crc], 0xFFFF)
    sections = []
    for kind, length in table:
        body = take(length)
        assert int.from_bytes(take(4), "little") == zlib.crc32(body)
        sections.append((kind, body))
    assert position == len(data)
    return File(identity, width, height, mode, tile_px, q, sections)


def alpha_plane(body: bytes, width: int, height: int) -> np.ndarray:
    form, rest = body[0], body[1:]
    if form == 4:
        (value,) = rest
        return np.full((height, width), value, np.uint8)
    assert form <= 3
    inflater = zlib.decompressobj()
    samples = inflater.decompress(rest, width * height + 1)
    assert inflater.eof
    assert not inflater.unused_data
    assert len(samples) == width * height
    plane = np.frombuffer(samples, np.uint8).reshape(height, width)
    if form & 2:
        plane = np.cumsum(plane, axis=0, dtype=np.uint8)
    if form & 1:
        plane = np.cumsum(plane, axis=1, dtype=np.uint8)
    return plane


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_golden_file_is_what_the_page_says(path: Path) -> None:
    data = path.read_bytes()
    file = read(data)
    header = cwic.read_header(data)
    assert file[:6] == (
        header.identity,
        header.width,
        header.height,
        header.mode,
        header.tile_px,
        header.q,
    )
    tiles = file.of(TILE) + file.of(WHOLE)
    assert len(tiles) == header.num_tiles
    for body, section in zip(tiles, header.tiles, strict=True):
        assert body == data[section.offset : section.offset + section.length]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_payload_is_coded_as_the_page_says(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A range coder of Python integers in place of the library's reads the same symbols."""
    monkeypatch.setattr("cwic.families.cvpr2018.coder.BitDecoder", ReferenceDecoder)
    monkeypatch.setattr("cwic.families.flagship.coder.BitDecoder", ReferenceDecoder)
    assert hashes(path) == expected_hashes(path)


@pytest.mark.parametrize("path", WHOLE_FILES, ids=lambda path: path.stem)
def test_a_picture_kept_whole_is_what_the_page_says(path: Path) -> None:
    """Its streams are .webp files for Pillow, with the twenty bytes of the page before them."""
    file = read(path.read_bytes())
    side = file.tile_px or max(file.width, file.height)
    picture = np.full((file.height, file.width, 4), 255, np.uint8)
    bodies = iter(file.of(WHOLE))
    for top in range(0, file.height, side):
        for left in range(0, file.width, side):
            place = picture[top : top + side, left : left + side]
            samples = np.asarray(Image.open(io.BytesIO(webp(next(bodies)))))
            place[..., : samples.shape[2]] = samples
    for body in file.of(ALPHA):
        picture[..., 3] = alpha_plane(body, file.width, file.height)
    expected = Image.open(path.with_suffix(".png"))
    assert expected.mode == Mode(file.mode).pil_name
    np.testing.assert_array_equal(picture, expected.convert("RGBA"))


@pytest.mark.parametrize("path", EXACT_FILES, ids=lambda path: path.stem)
def test_an_exact_layer_is_what_the_page_says(path: Path) -> None:
    file = read(path.read_bytes())
    (body,) = file.of(EXACT)
    picture = np.asarray(Image.open(path.with_suffix(".png")).convert("RGB"))
    shown = 0
    for top in range(0, file.height, 2048):
        for left in range(0, file.width, 2048):
            length = int.from_bytes(body[:4], "little")
            stream, body = body[4 : 4 + length], body[4 + length :]
            place = picture[top : top + 2048, left : left + 2048]
            samples = np.asarray(Image.open(io.BytesIO(webp(stream))).convert("RGBA"))
            is_shown = samples[..., 3] == 255
            assert (is_shown | (samples[..., 3] == 0)).all()
            np.testing.assert_array_equal(samples[is_shown][:, :3], place[is_shown])
            shown += int(is_shown.sum())
    assert body == b""
    assert 0 < shown < file.width * file.height


def webp(stream: bytes) -> bytes:
    chunk = b"VP8L" + len(stream).to_bytes(4, "little") + stream + bytes(len(stream) % 2)
    return b"RIFF" + (4 + len(chunk)).to_bytes(4, "little") + b"WEBP" + chunk


@pytest.mark.parametrize("form", ["smooth", "noise", "even", "rows", "columns"])
def test_transparency_is_what_the_page_says(form: str, tiny_flagship_codec: Codec) -> None:
    rng = np.random.default_rng(7)
    y, x = np.mgrid[0:50, 0:70]
    planes: dict[str, Any] = {
        "smooth": 2 * x + 3 * y,
        "noise": rng.integers(0, 256, (50, 70)),
        "even": np.full((50, 70), 77),
        "rows": 5 * y + 0 * x,
        "columns": 3 * x,
    }
    alpha = (planes[form] % 256).astype(np.uint8)
    picture = np.dstack([rng.integers(0, 256, (50, 70, 3), dtype=np.uint8), alpha])
    file = read(tiny_flagship_codec.encode(picture, lossless="never"))
    (body,) = file.of(ALPHA)
    np.testing.assert_array_equal(alpha_plane(body, 70, 50), alpha)


def test_metadata_is_what_the_page_says() -> None:
    blocks = {ICC: b"a profile" * 50, EXIF: b"II*\x00" + bytes(20), XMP: b"<x:xmpmeta/>"}
    data = pack(
        identity=b"identity",
        width=100,
        height=300,
        mode=Mode.RGB,
        q=-77,
        tiles=[b"one", b"", b"three"],
        tile_px=128,
        sections={Kind(kind): block for kind, block in blocks.items()},
    )
    file = read(data)
    assert (file.q, file.tile_px, file.of(TILE)) == (-77, 128, [b"one", b"", b"three"])
    for kind, block in blocks.items():
        (body,) = file.of(kind)
        assert zlib.decompress(body) == block
