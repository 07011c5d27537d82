import mmap
import zlib
from binascii import crc_hqx
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cwic.bitstream import (
    MAGIC,
    MAX_Q,
    MAX_SIDE_PX,
    NO_MODEL,
    TILE_SIDES_PX,
    Bitstream,
    Header,
    Kind,
    Limits,
    Section,
    pack,
    read_header,
    read_section,
    read_tiles,
    unpack,
)
from cwic.errors import BitstreamError

IDENTITY = bytes(range(8))
MINIMAL: dict[str, Any] = {
    "identity": IDENTITY,
    "width": 768,
    "height": 512,
    "mode": 0,
    "q": 0,
    "tiles": [b"payload"],
}
EVERYTHING: dict[str, Any] = {
    "identity": IDENTITY,
    "width": 130,
    "height": 65,
    "mode": 2,
    "q": -77,
    "tile_px": 64,
    "tiles": [b"one", b"", b"three", b"four", b"five", b"six"],
    "sections": {
        Kind.ALPHA: b"alpha plane",
        Kind.ICC: b"profile " * 20,
        Kind.EXIF: b"exif",
        Kind.XMP: b"",
        Kind.THUMBNAIL: b"thumbnail",
    },
}


@st.composite
def files(draw: st.DrawFn) -> dict[str, Any]:
    mode = draw(st.integers(0, 5))
    tile_px = draw(st.sampled_from((None, *TILE_SIDES_PX)))
    # At most 4x4 tiles, or any size in one.
    longest = 10_000 if tile_px is None else 4 * tile_px
    width = draw(st.integers(1, min(longest, 13_000)))
    height = draw(st.integers(1, min(longest, 13_000)))
    num_tiles = 1 if tile_px is None else -(-width // tile_px) * -(-height // tile_px)
    body = st.binary(max_size=300)
    identity = draw(st.binary(min_size=8, max_size=8))  # the simplest one is no model
    sections = draw(
        st.dictionaries(st.sampled_from((Kind.ICC, Kind.EXIF, Kind.XMP, Kind.THUMBNAIL)), body)
    )
    if mode in (2, 3, 5) and (identity != NO_MODEL or draw(st.booleans())):
        sections[Kind.ALPHA] = draw(body)
    return {
        "identity": identity,
        "width": width,
        "height": height,
        "mode": mode,
        "q": draw(st.integers(0 if identity == NO_MODEL else -MAX_Q, MAX_Q)),
        "tile_px": tile_px,
        "tiles": [draw(st.binary(max_size=40)) for _ in range(num_tiles)],
        "sections": sections,
    }


def with_header(header: bytes, bodies: bytes = b"") -> bytes:
    """A file from header bytes without their checksum."""
    return header + crc_hqx(header, 0xFFFF).to_bytes(2, "big") + bodies


def body(content: bytes) -> bytes:
    return content + zlib.crc32(content).to_bytes(4, "little")


PREFIX = MAGIC + b"\1" + IDENTITY
WHOLE_PREFIX = MAGIC + b"\1" + NO_MODEL


@given(files())
def test_unpack_is_the_inverse_of_pack(fields: dict[str, Any]) -> None:
    data = pack(**fields)
    stream = unpack(data)
    header = stream.header
    for name in ("identity", "width", "height", "mode", "q", "tile_px"):
        assert getattr(header, name) == fields[name]
    assert stream.sections == fields["sections"]
    assert list(stream.tiles) == fields["tiles"]
    assert header.num_tiles == len(fields["tiles"])
    assert header.has_model == (fields["identity"] != NO_MODEL)
    assert header.is_whole == (not header.has_model and fields["q"] == 0)
    is_reduced = not header.has_model and fields["q"] > 0
    assert header.num_colours == (fields["q"] if is_reduced else None)
    assert header.kept.startswith("kept ") == (not header.has_model)
    assert {tile.kind for tile in header.tiles} == {Kind.TILE if header.has_model else Kind.WHOLE}
    assert header.pixels == fields["width"] * fields["height"]
    assert header.file_bytes == len(data)


def test_a_file_is_exactly_the_documented_bytes() -> None:
    header = MAGIC + b"\x01" + IDENTITY + b"\x80\x06\x80\x04" + b"\x00" + b"\x00" + b"\x38"
    assert pack(**MINIMAL) == with_header(header, body(b"payload"))
    sections = [
        (1, b"alpha plane"),
        (2, zlib.compress(EVERYTHING["sections"][Kind.ICC], 9)),
        (3, zlib.compress(b"exif", 9)),
        (4, zlib.compress(b"", 9)),
        (5, b"thumbnail"),
        *((0, tile) for tile in EVERYTHING["tiles"]),
    ]
    table = b"".join(
        bytes([length & 127 | 128, length >> 7]) if length > 127 else bytes([length])
        for length in (len(content) << 3 | kind for kind, content in sections)
    )
    header = MAGIC + b"\x01" + IDENTITY + b"\x82\x01\x41" + b"\x12" + b"\x99\x01" + table
    assert pack(**EVERYTHING) == with_header(header, b"".join(body(c) for _, c in sections))


def test_a_file_without_a_model_is_exactly_the_documented_bytes() -> None:
    header = MAGIC + b"\x01" + bytes(8) + b"\x80\x06\x80\x04" + b"\x00" + b"\x00" + b"\x3e"
    assert pack(**{**MINIMAL, "identity": NO_MODEL}) == with_header(header, body(b"payload"))


@pytest.mark.parametrize("q", [-MAX_Q, MAX_Q])
def test_an_rgb_picture_in_one_tile_costs_at_most_32_bytes(q: int) -> None:
    payload = bytes(2**25 - 1)
    data = pack(identity=IDENTITY, width=16383, height=16383, mode=0, q=q, tiles=[payload])
    assert len(data) - len(payload) <= 32


@given(files(), st.data())
def test_any_truncation_is_a_bitstream_error(fields: dict[str, Any], draw: st.DataObject) -> None:
    data = pack(**fields)
    with pytest.raises(BitstreamError):
        unpack(data[: draw.draw(st.integers(0, len(data) - 1))])


def test_every_truncation_of_one_file_is_a_bitstream_error() -> None:
    data = pack(**EVERYTHING)
    for length in range(len(data)):
        with pytest.raises(BitstreamError):
            unpack(data[:length])


@given(files(), st.data())
def test_any_flipped_byte_is_a_bitstream_error(fields: dict[str, Any], draw: st.DataObject) -> None:
    data = bytearray(pack(**fields))
    data[draw.draw(st.integers(0, len(data) - 1))] ^= draw.draw(st.integers(1, 255))
    with pytest.raises(BitstreamError):
        unpack(bytes(data))


def test_every_flipped_bit_of_one_file_is_a_bitstream_error() -> None:
    data = pack(**EVERYTHING)
    for position in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            with pytest.raises(BitstreamError):
                unpack(damaged)


@given(st.binary(max_size=80))
def test_garbage_is_a_bitstream_error(garbage: bytes) -> None:
    for data in (garbage, MAGIC + garbage, PREFIX + garbage, with_header(PREFIX + garbage)):
        with pytest.raises(BitstreamError):
            unpack(data)


def test_data_after_the_end_is_a_bitstream_error() -> None:
    with pytest.raises(BitstreamError, match="data after the end"):
        unpack(pack(**MINIMAL) + b"\0")


@given(files())
def test_a_header_is_read_from_its_own_bytes_alone(fields: dict[str, Any]) -> None:
    data = pack(**fields)
    header = read_header(data)
    assert read_header(data[: header.size_bytes]) == header
    assert header.size_bytes == header.sections[0].offset
    with pytest.raises(BitstreamError, match="truncated header"):
        read_header(data[: header.size_bytes - 1])


@settings(max_examples=30)
@given(files(), st.data())
def test_chosen_tiles_are_read_without_the_rest(
    fields: dict[str, Any], draw: st.DataObject
) -> None:
    data = pack(**fields)
    header = read_header(data)
    chosen = draw.draw(st.lists(st.integers(0, header.num_tiles - 1), max_size=5))
    assert read_tiles(data, header, chosen) == tuple(fields["tiles"][index] for index in chosen)


def test_a_damaged_tile_does_not_keep_the_others_from_being_read() -> None:
    data = bytearray(pack(**EVERYTHING))
    header = read_header(data)
    data[header.tiles[3].offset] ^= 1
    assert read_tiles(data, header, [2, 4]) == (b"three", b"five")
    with pytest.raises(BitstreamError, match="damaged TILE section"):
        read_tiles(data, header, [3])
    with pytest.raises(ValueError, match="tile 6"):
        read_tiles(data, header, [6])


def test_sections_are_found_by_kind_and_read_as_stored() -> None:
    data = pack(**EVERYTHING)
    header = read_header(data)
    thumbnail = header.find(Kind.THUMBNAIL)
    assert thumbnail is not None
    assert read_section(data, thumbnail) == b"thumbnail"
    assert read_header(pack(**MINIMAL)).find(Kind.THUMBNAIL) is None


def test_a_mapped_file_is_read_like_bytes(tmp_path: Path) -> None:
    data = pack(**EVERYTHING)
    (tmp_path / "file.cwic").write_bytes(data)
    with (
        open(tmp_path / "file.cwic", "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
    ):
        assert unpack(mapped) == unpack(data)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"\x89PNG\r\n\x1a\n", "not a .cwic file"),
        (b"\xc7wic\n\n", "text mode"),
        (b"Gwic\r\n", "text mode"),
        (MAGIC + b"\2" + IDENTITY, "version 2"),
        (PREFIX + b"\0\1\0\0\0", "width 0 px"),
        (PREFIX + b"\1\0\0\0\0", "height 0 px"),
        (PREFIX + b"\x81\0\1\0\0\0", "more bytes than it needs"),
        (PREFIX + b"\xff" * 8 + b"\1\0\0\0", "more than the expected 8 bytes"),
        (PREFIX + b"\x80\x80\x80\x80\x08\1\0\0\0", "width 2147483648 px"),
        (PREFIX + b"\xff\xff\xff\xff\x07\1\0\0\0", "2147483647x1"),
        (PREFIX + b"\1\1\6\0\0", "layout byte 0x06"),
        (PREFIX + b"\1\1\xb0\0\0", "layout byte 0xb0"),
        (PREFIX + b"\1\1\0\x81\x40\0", "q -4097"),
        (PREFIX + b"\1\1\0\x82\x40\0", "q 4097"),
        (PREFIX + b"\1\1\2\0\0", "mode 2 without an alpha section"),
        (PREFIX + b"\1\1\0\0\1\0", "mode 0 with an alpha section"),
        (PREFIX + b"\1\1\0\0\2\2\0", "one expected ICC section"),
        (PREFIX + b"\x41\1\x10\0\0\2\0", "ICC section after the first tile"),
        (PREFIX + b"\x80\x80\x01\x80\x10\x10\0", "8192 tiles"),
        (PREFIX + b"\1\1\0\0\6", "WHOLE section in a file with a model"),
        (WHOLE_PREFIX + b"\1\1\0\0\0", "TILE section in a file without a model"),
        (WHOLE_PREFIX + b"\1\1\0\1\6", "q -1 in a file without a model"),
        (WHOLE_PREFIX + b"\1\1\0\0\1\6", "mode 0 with an alpha section"),
        (WHOLE_PREFIX + b"\1\1\2\0\1\1\6", "one expected ALPHA section"),
        (WHOLE_PREFIX + b"\x41\1\x10\0\6\2\6", "ICC section after the first tile"),
    ],
)
def test_absurd_headers_are_bitstream_errors_that_say_what_was_found(
    header: bytes, message: str
) -> None:
    limits = Limits(max_sections=1000) if "8192 tiles" in message else None
    with pytest.raises(BitstreamError, match=message):
        read_header(with_header(header), limits)


def test_a_wrong_header_checksum_is_a_bitstream_error() -> None:
    data = bytearray(pack(**MINIMAL))
    data[read_header(data).size_bytes - 1] ^= 1
    with pytest.raises(BitstreamError, match="damaged header: its checksum"):
        read_header(data)


def test_a_length_beyond_any_file_is_a_bitstream_error_and_not_an_allocation() -> None:
    data = with_header(PREFIX + b"\1\1\0\0" + b"\xf8" + b"\xff" * 6 + b"\x7f")
    assert read_header(data).tiles[0].length > 2**50
    with pytest.raises(BitstreamError, match="truncated file"):
        unpack(data)


def test_sections_of_unknown_kinds_are_skipped_but_their_checksums_are_not() -> None:
    table = bytes([3 << 3 | 7, 1, 2 << 3 | 7, 1, 1 << 3 | 7, 0xFF, 0x7F, 4 << 3])
    bodies = [b"abc", b"de", b"f", b"tile"]
    data = with_header(PREFIX + b"\1\1\0\0" + table, b"".join(map(body, bodies)))
    assert unpack(data).tiles == (b"tile",)
    damaged = data.replace(b"abc", b"abd")
    with pytest.raises(BitstreamError, match="damaged UNKNOWN section"):
        unpack(damaged)


def test_an_exact_section_has_a_long_kind_and_stands_beside_coded_tiles_only() -> None:
    small = {**MINIMAL, "width": 1, "height": 1}
    data = pack(**small, sections={Kind.EXACT: b"layer"})
    table = bytes([5 << 3 | 7, 0, 7 << 3])
    bodies = body(b"layer") + body(b"payload")
    assert data == with_header(PREFIX + b"\1\1\0\0" + table, bodies)
    assert read_header(data).has_exact_layer
    assert not read_header(pack(**MINIMAL)).has_exact_layer
    assert unpack(data).sections == {Kind.EXACT: b"layer"}
    with pytest.raises(ValueError, match="EXACT section in a file without a model"):
        pack(**{**MINIMAL, "identity": NO_MODEL}, sections={Kind.EXACT: b"layer"})
    table = bytes([5 << 3 | 7, 0, 7 << 3 | 6])
    with pytest.raises(BitstreamError, match="EXACT section in a file without a model"):
        read_header(with_header(WHOLE_PREFIX + b"\1\1\0\0" + table, bodies))
    twice = bytes([5 << 3 | 7, 0, 5 << 3 | 7, 0, 7 << 3])
    with pytest.raises(BitstreamError, match="more than the one expected EXACT section"):
        read_header(with_header(PREFIX + b"\1\1\0\0" + twice))


def test_the_number_of_sections_is_limited() -> None:
    table = bytes([7, 1] * 50 + [0])
    data = with_header(PREFIX + b"\1\1\0\0" + table, body(b"") * 51)
    assert unpack(data, Limits(max_sections=51)).tiles == (b"",)
    with pytest.raises(BitstreamError, match="more than the expected 50 sections"):
        unpack(data, Limits(max_sections=50))


def test_the_number_of_pixels_is_limited() -> None:
    data = pack(**{**MINIMAL, "width": 13_378, "height": 13_378})
    with pytest.raises(BitstreamError, match="expected at most 178956970"):
        read_header(data)
    assert read_header(data, Limits(max_pixels=13_378**2)).pixels == 13_378**2


def test_metadata_is_limited_before_it_is_inflated() -> None:
    data = pack(**MINIMAL, sections={Kind.XMP: bytes(10**6)})
    assert len(data) < 2000
    assert unpack(data, Limits(max_metadata_bytes=10**6)).sections[Kind.XMP] == bytes(10**6)
    with pytest.raises(BitstreamError, match="XMP section of more than 999999 bytes"):
        unpack(data, Limits(max_metadata_bytes=10**6 - 1))


@pytest.mark.parametrize(
    "stored", [b"", b"no zlib", zlib.compress(b"icc")[:-1], zlib.compress(b"icc") + b"\0"]
)
def test_metadata_that_is_not_one_zlib_stream_is_a_bitstream_error(stored: bytes) -> None:
    header = PREFIX + b"\1\1\0\0" + bytes([len(stored) << 3 | 2, 0])
    with pytest.raises(BitstreamError, match="damaged ICC section"):
        unpack(with_header(header, body(stored) + body(b"")))


@pytest.mark.parametrize(
    "wrong",
    [
        {"identity": bytes(7)},
        {"width": 0},
        {"height": MAX_SIDE_PX + 1},
        {"mode": 6},
        {"mode": 2},
        {"sections": {Kind.ALPHA: b""}},
        {"q": MAX_Q + 1},
        {"identity": NO_MODEL, "q": -1},
        {"identity": NO_MODEL, "sections": {Kind.ALPHA: b""}},
        {"tile_px": 100},
        {"tile_px": 512},
        {"tiles": []},
        {"sections": {Kind.ICC: bytes(16 * 2**20 + 1)}},
    ],
)
def test_packing_refuses_what_reading_would(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        pack(**{**MINIMAL, **wrong})


def test_the_largest_side_can_be_packed_and_read() -> None:
    data = pack(**{**MINIMAL, "width": MAX_SIDE_PX, "height": 1})
    assert read_header(data, Limits(max_pixels=MAX_SIDE_PX)).width == MAX_SIDE_PX


def test_results_are_plain_values_that_compare() -> None:
    data = pack(**MINIMAL)
    stream = unpack(data)
    assert stream == unpack(data)
    assert isinstance(stream, Bitstream)
    assert isinstance(stream.header, Header)
    assert stream.header.sections == (Section(Kind.TILE, stream.header.size_bytes, 7),)
