"""Exact samples over a coded picture: the section, both ways, and what a decoder shows."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from conftest import page_with_photograph, seeded_picture

from cwic import Codec, bitstream, webp_lossless
from cwic.bitstream import Bitstream, Header, Kind, Section
from cwic.errors import BitstreamError
from cwic.exact_layer import Layer, StoredLayer
from cwic.families.tiling import Rectangle


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec.load()


IDENTITY = bytes(range(8))


def decoded_array(codec: Codec, data: bytes) -> npt.NDArray[np.uint8]:
    return np.asarray(codec.decode(data))


def file_of(body: bytes, height: int, width: int, mode: int = 0) -> Bitstream:
    """A file of one empty tile with a layer."""
    header = Header(1, IDENTITY, width, height, mode, None, 0, (Section(Kind.TILE, 0, 0),), 0)
    return Bitstream(header, (b"",), {Kind.EXACT: body})


def layer(height: int, width: int, seed: int = 0) -> Layer:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
    return Layer(pixels, rng.random((height, width)) < 0.3)


def everything(found: Layer) -> Rectangle:
    return Rectangle(0, 0, *found.mask.shape)


def shown(
    file: Bitstream, part: Rectangle, reduce: int = 1, ground: int = 77
) -> npt.NDArray[np.uint8]:
    """A part of a layer over a picture of one grey."""
    target = part.shrunk(reduce)
    pixels = np.full((target.height, target.width, 3), ground, np.uint8)
    return StoredLayer(file).over(pixels, part, reduce)


@pytest.mark.parametrize("size", [(1, 1), (33, 50), (7, 2049), (2050, 3)])
def test_what_is_stored_is_shown_where_it_counts(size: tuple[int, int]) -> None:
    original = layer(*size)
    found = shown(file_of(original.body, *size), everything(original))
    expected = np.where(original.mask[..., None], original.pixels, 77)
    np.testing.assert_array_equal(found, expected)


def test_a_part_is_that_of_the_whole_and_decodes_only_the_streams_that_it_meets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = layer(9, 5000)
    file = file_of(original.body, 9, 5000)
    whole = shown(file, everything(original))
    read: list[int] = []
    unpacked = webp_lossless.unpacked

    def counted(stream: bytes, height: int, width: int, name: str, **options: bool) -> object:
        read.append(width)
        return unpacked(stream, height, width, name, **options)

    monkeypatch.setattr(webp_lossless, "unpacked", counted)
    part = Rectangle(2, 4090, 8, 4200)
    np.testing.assert_array_equal(shown(file, part), whole[2:8, 4090:4200])
    assert read == [2048, 904]


def test_where_nothing_is_exact_there_is_no_stream() -> None:
    empty = Layer(np.zeros((4, 3000, 3), np.uint8), np.zeros((4, 3000), bool))
    assert empty.body == bytes(8)
    assert (shown(file_of(empty.body, 4, 3000), everything(empty)) == 77).all()


def test_a_file_without_a_layer_shows_what_is_coded() -> None:
    file = Bitstream(file_of(b"", 5, 5).header, (b"",), {})
    assert (shown(file, Rectangle(0, 0, 5, 5)) == 77).all()


def test_a_stream_without_alpha_is_shown_everywhere() -> None:
    pixels = seeded_picture(1)
    height, width = pixels.shape[:2]
    stream = webp_lossless.packed(pixels)
    body = len(stream).to_bytes(4, "little") + stream
    found = shown(file_of(body, height, width), Rectangle(0, 0, height, width))
    np.testing.assert_array_equal(found, pixels)


def test_a_reduced_layer_counts_as_far_as_it_covers_a_square() -> None:
    mask = np.zeros((16, 24), bool)
    mask[:8, :8] = True
    mask[8:, 8:12] = True
    original = Layer(np.full((16, 24, 3), 200, np.uint8), mask)
    found = shown(file_of(original.body, 16, 24), everything(original), 8, ground=100)
    np.testing.assert_array_equal(found[..., 0], [[200, 100, 100], [100, 150, 100]])


@pytest.mark.parametrize("reduce", [2, 4, 8])
def test_a_reduced_part_over_tiles_is_the_mean_of_what_the_whole_shows(reduce: int) -> None:
    original = layer(19, 2100)
    file = file_of(original.body, 19, 2100)
    part = Rectangle(8, 2000, 19, 2100)  # its corner is a multiple of 8
    whole = shown(file, part).astype(float)
    bottom, right = -whole.shape[0] % reduce, -whole.shape[1] % reduce
    sums, counts = (
        np.pad(values, ((0, bottom), (0, right), (0, 0)))
        .reshape(-(-11 // reduce), reduce, -(-100 // reduce), reduce, 3)
        .sum((1, 3))
        for values in (whole, np.ones_like(whole))
    )
    np.testing.assert_allclose(shown(file, part, reduce), sums / counts, atol=1.5)


def broken(change: Callable[[bytes], bytes], mode: int = 0) -> Bitstream:
    return file_of(change(layer(20, 30).body), 20, 30, mode)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (broken(lambda body: b""), "expected 4 bytes, found 0"),
        (broken(lambda body: body[:-1]), "expected .* bytes, found"),
        (broken(lambda body: body + b"x"), "expected .* bytes, found"),
        (broken(lambda body: b"\xff\xff\xff\xff" + body[4:]), "expected 4294967299 bytes"),
        (broken(lambda body: body[:4] + b"\0" + body[5:]), "begins with 00"),
        (broken(lambda body: body, mode=1), "found colours, expected a grey picture"),
    ],
)
def test_a_damaged_section_is_refused(file: Bitstream, message: str) -> None:
    with pytest.raises(BitstreamError, match=f"damaged EXACT section.*({message})"):
        shown(file, Rectangle(0, 0, 20, 30))


def test_samples_that_are_shown_in_part_are_refused() -> None:
    samples = np.full((4, 4, 4), 128, np.uint8)
    stream = webp_lossless.packed(samples)
    body = len(stream).to_bytes(4, "little") + stream
    with pytest.raises(BitstreamError, match="shown in part"):
        shown(file_of(body, 4, 4), Rectangle(0, 0, 4, 4))


# --- pages ----------------------------------------------------------------------------------------


def graphics_in(found: npt.NDArray[np.uint8], page: npt.NDArray[np.uint8]) -> float:
    """The share of pixels that are as they were, of those outside the photograph and a margin."""
    same = (found == page).all(axis=-1)
    same[80:220, 60:240] = False
    outside = same.size - 140 * 180
    return float(same.sum() / outside)


@pytest.mark.parametrize("targets", [{"bpp": 1.5}, {"psnr_db": 24.0}, {"quality": 95}])
def test_text_around_a_photograph_is_exact(codec: Codec, targets: dict[str, float]) -> None:
    page = page_with_photograph()
    data = codec.encode(page, **targets)
    assert bitstream.read_header(data).has_exact_layer
    assert graphics_in(decoded_array(codec, data), page) == 1
    plain = codec.encode(page, lossless="never", **targets)
    assert not bitstream.read_header(plain).has_exact_layer
    assert graphics_in(decoded_array(codec, plain), page) < 0.9
    if "bpp" in targets:
        assert len(data) <= 1.5 * page.shape[0] * page.shape[1] / 8 * 1.005
    else:
        assert len(data) < len(plain)


def test_parts_previews_and_maps_of_a_page_show_the_graphics(codec: Codec) -> None:
    page = page_with_photograph()
    data = codec.encode(page, bpp=1.5)
    whole = decoded_array(codec, data)
    part = np.asarray(codec.decode(data, region=(13, 21, 100, 90)))
    np.testing.assert_array_equal(part, whole[21:111, 13:113])
    part = np.asarray(codec.decode(data, region=(16, 32, 96, 24), reduce=4)).astype(float)
    expected = whole[32:56, 16:112].reshape(6, 4, 24, 4, 3).mean((1, 3))
    np.testing.assert_allclose(part, expected, atol=1)
    preview = np.asarray(codec.decode(data, reduce=8)).astype(float)
    expected = whole.reshape(page.shape[0] // 8, 8, page.shape[1] // 8, 8, 3).mean((1, 3))
    np.testing.assert_allclose(preview[:8], expected[:8], atol=1)
    np.testing.assert_array_equal(np.asarray(codec.inspect(data).picture), whole)


def test_the_map_of_bits_has_those_of_the_layer_where_it_is_shown(codec: Codec) -> None:
    page = page_with_photograph()[:281, :299]  # no multiples of a cell
    data = codec.encode(page, bpp=1.5)
    file = bitstream.unpack(data)
    found = codec.inspect(data).allocation
    layer = StoredLayer(file).bits(found.cell_px)
    assert layer.shape == found.bits.shape
    assert layer.sum() == pytest.approx(8 * (len(file.sections[bitstream.Kind.EXACT]) - 4))
    photograph = (
        slice(112 // found.cell_px, 192 // found.cell_px),
        slice(96 // found.cell_px, 208 // found.cell_px),
    )
    assert not layer[photograph].any()
    tiles = 8 * sum(map(len, file.tiles))
    assert found.bits.sum() == pytest.approx(layer.sum() + tiles, rel=0.03)


def test_a_strict_size_and_an_effort_hold_for_pages() -> None:
    codec, page = Codec.load("cwic-psnr"), page_with_photograph()
    plain = codec.encode(page, target_bytes=9_000, strict=True)
    data = codec.encode(page, target_bytes=9_000, strict=True, effort=1)
    for found in (plain, data):
        assert bitstream.read_header(found).has_exact_layer
        assert len(found) <= 9_000
    error = [
        np.square(decoded_array(codec, found).astype(float) - page).mean()
        for found in (plain, data)
    ]
    assert error[1] < error[0]


@pytest.mark.parametrize("bpp", [5.0, 1.2])
def test_a_size_that_the_rest_does_not_fill_is_no_miss(codec: Codec, bpp: float) -> None:
    """Warnings are errors here."""
    page = page_with_photograph()
    data = codec.encode(page, bpp=bpp, strict=True)
    assert bitstream.read_header(data).exactness
    assert len(data) <= bpp * page.shape[0] * page.shape[1] / 8


def test_what_is_transparent_is_not_kept_exactly(codec: Codec) -> None:
    page = page_with_photograph()
    alpha = np.full(page.shape[:2], 255, np.uint8)
    alpha[:88] = 0
    opaque, cut = (
        codec.encode(np.dstack([page, plane]), quality=50)
        for plane in (np.full_like(alpha, 255), alpha)
    )
    sizes = [
        section.length
        for data in (opaque, cut)
        if (section := bitstream.read_header(data).find(Kind.EXACT)) is not None
    ]
    assert sizes[1] < 0.85 * sizes[0]


def test_transparent_and_grey_pages_have_exact_graphics(codec: Codec) -> None:
    page = page_with_photograph()
    grey = np.ascontiguousarray(page[..., 1])
    data = codec.encode(grey, bpp=1)
    assert bitstream.read_header(data).has_exact_layer
    shown = np.asarray(codec.decode(data))
    assert shown.shape == grey.shape
    np.testing.assert_array_equal(shown[:64], grey[:64])
    alpha = np.full(grey.shape, 255, np.uint8)
    alpha[:40, :50] = 0
    data = codec.encode(np.dstack([page, alpha]), bpp=1.5)
    assert bitstream.read_header(data).has_exact_layer
    shown = np.asarray(codec.decode(data))
    np.testing.assert_array_equal(shown[..., 3], alpha)
    np.testing.assert_array_equal(shown[:64, 60:, :3], page[:64, 60:])
