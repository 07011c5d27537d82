"""Pictures kept whole: every sample comes back, and what is damaged is said in words."""

import io
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features

import cwic
from cwic import bitstream, model_file, whole
from cwic.bitstream import NO_MODEL, Kind, pack, read_header
from cwic.errors import (
    BitstreamError,
    CodecWarning,
    NotBuiltError,
    TargetError,
    UnknownModelError,
)
from cwic.image import Mode, read_picture
from cwic.whole import WholeReader, pack_whole

READER = WholeReader()


def drawing(height: int, width: int, channels: int = 3) -> np.ndarray:
    """(height, width, channels) uint8: slanted stripes of few colours."""
    y, x = np.mgrid[0:height, 0:width]
    colours = np.array([(250, 240, 230, 255), (20, 40, 60, 255), (200, 90, 40, 0)], np.uint8)
    return colours[(x + 2 * y) // 7 % 3][..., :channels]


def kept(pixels: np.ndarray, tile_px: int | None = None) -> bytes:
    return pack_whole(read_picture(pixels), tile_px=tile_px)


def stream_of(samples: np.ndarray, **options: object) -> bytes:
    """What stands behind the twenty bytes of a .webp file."""
    file = io.BytesIO()
    Image.fromarray(samples).save(file, "WEBP", **({"lossless": True, "exact": True} | options))
    return file.getvalue()[20:]


def file_of(stream: bytes, width: int = 32, height: int = 24, **fields: object) -> bytes:
    """A container without fault around any stream."""
    return pack(
        **({"identity": NO_MODEL, "mode": 0, "q": 0} | fields),  # type: ignore[arg-type]
        width=width,
        height=height,
        tiles=[stream],
    )


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 150),
    width=st.integers(1, 150),
    channels=st.integers(1, 4),
    tile_px=st.sampled_from([None, 64, 128]),
    is_noise=st.booleans(),
    seed=st.integers(0, 99),
)
def test_every_sample_of_every_mode_comes_back(
    height: int, width: int, channels: int, tile_px: int | None, is_noise: bool, seed: int
) -> None:
    """Noise in the alpha too, so that colours under alpha 0 are among them."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256 if is_noise else 3, (height, width, channels)).astype(np.uint8)
    pixels = pixels[..., 0] if channels == 1 else pixels
    decoded = READER.decode(kept(pixels, tile_px))
    assert decoded.mode == ("L", "LA", "RGB", "RGBA")[channels - 1]
    np.testing.assert_array_equal(decoded, pixels)


def test_transparency_takes_the_place_where_it_is_smaller() -> None:
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
    slope = np.broadcast_to(np.arange(80, dtype=np.uint8), (60, 80))
    beside = kept(np.dstack([noise, slope]))
    assert read_header(beside).find(Kind.ALPHA) is not None
    within = kept(drawing(60, 80, 4))
    assert read_header(within).find(Kind.ALPHA) is None
    np.testing.assert_array_equal(READER.decode(within), drawing(60, 80, 4))


@pytest.mark.parametrize("name", ["palette with alpha", "one bit", "grey", "16 bits", "48 bits"])
def test_what_people_have_comes_back_as_it_looks(name: str, tmp_path: Path) -> None:
    path = tmp_path / "source.png"
    grey = drawing(40, 50)[..., 0]
    match name:
        case "palette with alpha":
            image = Image.fromarray(drawing(40, 50)).quantize(3)
            image.save(path, transparency=bytes([0, 128, 255]))
        case "one bit":
            Image.fromarray(grey > 100).save(path)
        case "grey":
            Image.fromarray(grey).save(path)
        case "16 bits":
            Image.fromarray(grey.astype(np.uint16) * 257).save(path)
        case "48 bits":
            # Pillow cannot write it.
            path = path.with_suffix(".ppm")
            deep = (drawing(40, 50).astype(">u2") * 257).tobytes()
            path.write_bytes(b"P6 50 40 65535\n" + deep)
    if "bits" in name:
        with pytest.warns(CodecWarning, match="8 bits per channel are coded, of 16"):
            data = cwic.encode(path, lossless="always")
        expected = grey if name == "16 bits" else drawing(40, 50)
    else:
        data = cwic.encode(path, lossless="always")
        image = Image.open(path)
        expected = np.asarray(image.convert("RGBA" if image.has_transparency_data else "L"))
    np.testing.assert_array_equal(cwic.decode(data), expected)


def test_metadata_travels_along() -> None:
    image = Image.fromarray(drawing(20, 30))
    image.info.update(icc_profile=b"a profile", xmp=b"<x/>")
    assert READER.decode(pack_whole(read_picture(image))).info == image.info


def test_no_model_is_loaded_for_a_file_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    data = kept(drawing(40, 50))

    def load(*_: object, **__: object) -> None:
        raise AssertionError("loaded a model")

    monkeypatch.setattr(model_file, "load", load)
    monkeypatch.setattr(model_file, "find_identity", load)
    cwic.register_pillow_plugin()
    np.testing.assert_array_equal(cwic.decode(data), drawing(40, 50))
    with Image.open(io.BytesIO(data)) as image:
        assert (image.size, image.mode) == ((50, 40), "RGB")
        np.testing.assert_array_equal(image, drawing(40, 50))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("tile_px", [None, 64])
def test_a_region_is_that_part_of_the_picture(channels: int, tile_px: int | None) -> None:
    pixels = drawing(150, 200, channels)
    data = kept(pixels, tile_px)
    for x, y, width, height in [(0, 0, 200, 150), (63, 64, 2, 1), (130, 20, 70, 130)]:
        part = READER.decode(data, region=(x, y, width, height))
        expected = pixels[y : y + height, x : x + width]
        np.testing.assert_array_equal(np.asarray(part).reshape(expected.shape), expected)
    with pytest.raises(TargetError, match="within 200x150"):
        READER.decode(data, region=(150, 0, 51, 10))


def test_a_region_takes_no_tile_beyond_it() -> None:
    pixels = drawing(150, 200)
    data = kept(pixels, 64)
    streams = list(bitstream.unpack(data).tiles)
    streams[0] = b"\x2f" + streams[0][1:5] + b"\xff" * 9
    broken = pack(identity=NO_MODEL, width=200, height=150, mode=0, q=0, tiles=streams, tile_px=64)
    part = READER.decode(broken, region=(64, 0, 100, 150))
    np.testing.assert_array_equal(part, pixels[:, 64:164])
    with pytest.raises(BitstreamError, match="damaged WHOLE section"):
        READER.decode(broken, region=(63, 0, 100, 150))


@pytest.mark.parametrize("reduce", [2, 4, 8])
@pytest.mark.parametrize("mode", ["RGB", "LA"])
@pytest.mark.parametrize("tile_px", [None, 64])
def test_a_reduced_picture_is_made_of_means(reduce: int, mode: str, tile_px: int | None) -> None:
    rng = np.random.default_rng(5)
    image = Image.fromarray(rng.integers(0, 256, (83, 149, 4), dtype=np.uint8)).convert(mode)
    data = pack_whole(read_picture(image), tile_px=tile_px)
    reduced = READER.decode(data, reduce=reduce)
    assert reduced.mode == mode
    # Channel by channel: elsewhere too, colours are not weighed by their opacity.
    for found, channel in zip(reduced.split(), image.split(), strict=True):
        np.testing.assert_array_equal(found, channel.reduce(reduce))
    part = READER.decode(data, reduce=reduce, region=(64, 16, 40, 40))
    place = tuple(side // reduce for side in (64, 16, 104, 56))
    np.testing.assert_array_equal(part, reduced.crop(place))


def test_a_codec_reads_such_a_file_like_any_other(tiny_flagship_codec: cwic.Codec) -> None:
    pixels = drawing(70, 90)
    data = kept(pixels, 64)
    np.testing.assert_array_equal(tiny_flagship_codec.decode(data), pixels)
    tiles = tiny_flagship_codec.symbols(data)
    assert [tile.size for tile in tiles] == [3 * 64 * 64, 3 * 26 * 64, 3 * 64 * 6, 3 * 26 * 6]
    np.testing.assert_array_equal(tiles[3].reshape(6, 26, 3), pixels[64:, 64:])
    found = tiny_flagship_codec.inspect(data).allocation
    assert found.bits.shape == found.importance.shape == (5, 6)
    assert not found.importance.any()
    sizes = [section.length for section in read_header(data).tiles]
    assert found.bits.sum() == pytest.approx(8 * sum(sizes))
    assert found.bits[4, 5] == pytest.approx(4 * sizes[3])


def test_a_file_of_a_model_is_not_for_a_reader_without_one(tiny_flagship_codec: cwic.Codec) -> None:
    data = tiny_flagship_codec.encode(drawing(20, 30), lossless="never")
    with pytest.raises(UnknownModelError, match=tiny_flagship_codec.identity.hex()):
        READER.decode(data)


def test_a_file_of_another_bundled_model_is_named(tiny_flagship_codec: cwic.Codec) -> None:
    data = cwic.encode(drawing(20, 20), model="cvpr2018", lossless="never")
    with pytest.raises(UnknownModelError, match=r"found one of [0-9a-f]{16} \(cvpr2018\)"):
        tiny_flagship_codec.decode(data)


# --- sizes ----------------------------------------------------------------------------------------


def test_a_side_beyond_what_a_stream_holds_is_divided() -> None:
    pixels = drawing(3, 2**14)
    data = kept(pixels)
    assert read_header(data).tile_px == whole.TILE_PX
    np.testing.assert_array_equal(READER.decode(data), pixels)


def test_a_picture_beyond_what_a_stream_holds_is_divided_and_takes_bounded_memory() -> None:
    """Beside the picture itself, reading holds one tile and what libwebp makes of it."""
    pixels = np.zeros((1024, 3 * 2048, 3), np.uint8)
    pixels[::40, ::30, 0] = 200
    data = kept(pixels)
    header = read_header(data)
    assert (header.tile_px, header.num_tiles) == (2048, 3)
    tracemalloc.start()
    decoded = READER.decode(data)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(decoded, pixels)
    assert peak_bytes < 2.6 * pixels.nbytes


@pytest.mark.slow
def test_a_screenshot_of_24_megapixels_is_exact_small_and_quickly_cut() -> None:
    pixels = np.tile(drawing(400, 600), (10, 10, 1))
    data = cwic.encode(pixels, bpp=0.5)
    header = read_header(data)
    assert header.is_whole
    assert header.num_tiles == 6
    assert 8 * len(data) / header.pixels < 0.1
    np.testing.assert_array_equal(cwic.decode(data), pixels)
    part = cwic.decode(data, region=(3000, 2000, 500, 400))
    np.testing.assert_array_equal(part, pixels[2000:2400, 3000:3500])


def drawings() -> dict[str, Image.Image]:
    """Pictures that are small as a PNG file."""
    rng = np.random.default_rng(2)
    text = np.zeros((300, 400), bool)
    glyphs = rng.random((60, 12, 7)) < 0.4
    for line in range(5, 280, 16):
        for column, glyph in enumerate(rng.integers(0, 60, 48)):
            text[line : line + 12, 5 + 8 * column : 12 + 8 * column] = glyphs[glyph]
    tiles = Image.fromarray(rng.integers(0, 16, (20, 30)).astype(np.uint8))
    pixel_art = tiles.resize((240, 160), Image.Resampling.NEAREST)
    pixel_art.putpalette(rng.integers(0, 256, 48).astype(np.uint8).tobytes())
    screen = np.full((300, 400, 3), 245, np.uint8)
    screen[:40] = np.linspace(60, 200, 40).astype(np.uint8)[:, None, None]
    screen[60:, :100] = (40, 44, 52)
    screen[text] = (20, 20, 20)
    half = Image.fromarray((np.mgrid[0:200, 0:300][1] * 0.8).astype(np.uint8)).convert("1")
    return {
        "scan": Image.fromarray(~text),
        "pixel art": pixel_art,
        "screen": Image.fromarray(screen),
        "palette": Image.fromarray(drawing(200, 300)).quantize(3),
        "half tone": half,
        "icon": Image.fromarray(drawing(16, 16, 4)),
        "dot": Image.fromarray(drawing(1, 1)),
    }


@pytest.mark.parametrize("name", drawings())
def test_a_drawing_is_never_larger_than_its_png_by_more_than_64_bytes(
    name: str, tmp_path: Path, tiny_flagship_codec: cwic.Codec
) -> None:
    path = tmp_path / "drawing.png"
    drawings()[name].save(path, optimize=True)
    assert len(pack_whole(read_picture(path))) <= path.stat().st_size + 64
    assert len(tiny_flagship_codec.encode(path)) <= path.stat().st_size + 64


# --- damage ---------------------------------------------------------------------------------------


def test_a_stream_of_another_size_than_the_header_is_refused() -> None:
    data = file_of(stream_of(drawing(24, 32)), width=32, height=25)
    with pytest.raises(BitstreamError, match="found a stream of 32x24 pixels, expected 32x25"):
        READER.decode(data)


def test_more_pixels_than_a_stream_may_hold_are_refused_before_there_is_memory_for_them() -> None:
    data = file_of(stream_of(drawing(24, 32)), width=12_000, height=12_000)
    tracemalloc.start()
    with pytest.raises(BitstreamError, match="12000x12000 pixels, expected at most 4194304"):
        READER.decode(data)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 10**6


def test_what_loses_or_moves_is_not_smuggled_in() -> None:
    lossy = stream_of(drawing(24, 32), lossless=False)
    with pytest.raises(BitstreamError, match="expected a WebP lossless stream"):
        READER.decode(file_of(lossy))
    file = io.BytesIO()
    frames = [Image.fromarray(drawing(24, 32)), Image.fromarray(255 - drawing(24, 32))]
    frames[0].save(file, "WEBP", lossless=True, save_all=True, append_images=frames[1:])
    for begin in (0, 12, 20):
        with pytest.raises(BitstreamError, match="expected a WebP lossless stream"):
            READER.decode(file_of(file.getvalue()[begin:]))


@pytest.mark.parametrize("mode", [Mode.L, Mode.NEUTRAL_RGB])
def test_colours_in_a_grey_picture_are_refused(mode: Mode) -> None:
    with pytest.raises(BitstreamError, match="found colours, expected a grey picture"):
        READER.decode(file_of(stream_of(drawing(24, 32)), mode=mode))


def test_a_side_longer_than_a_stream_may_have_is_refused() -> None:
    data = file_of(stream_of(drawing(24, 32)), width=16384, height=16)
    with pytest.raises(BitstreamError, match=r"16384x16 pixels, .* and 16383 a side"):
        READER.decode(data)


def test_a_stream_with_alpha_where_there_is_none_is_refused() -> None:
    stream = stream_of(drawing(24, 32, 4))
    for fields in ({"mode": Mode.RGB}, {"mode": Mode.RGBA, "sections": {Kind.ALPHA: b"\4\xff"}}):
        with pytest.raises(BitstreamError, match="stream with alpha, expected one without"):
            READER.decode(file_of(stream, **fields))
    assert READER.decode(file_of(stream, mode=Mode.RGBA)).getchannel("A").getextrema() == (0, 255)


@pytest.mark.parametrize(
    "stream", [b"", b"\x2f", stream_of(drawing(24, 32))[:9], b"\x2f" + b"x" * 40]
)
def test_a_stream_that_is_none_is_a_bitstream_error(stream: bytes) -> None:
    with pytest.raises(BitstreamError, match="damaged WHOLE section"):
        READER.decode(file_of(stream))


def test_any_damage_behind_a_right_checksum_gives_a_picture_or_a_bitstream_error() -> None:
    rng = np.random.default_rng(8)
    sound = stream_of(np.dstack([drawing(24, 32), rng.integers(0, 256, (24, 32), dtype=np.uint8)]))
    refused = 0
    for _ in range(400):
        stream = bytearray(sound)
        for place in rng.integers(5, len(stream), rng.integers(1, 4)):
            stream[place] ^= int(rng.integers(1, 256))
        try:
            decoded = READER.decode(file_of(bytes(stream), mode=Mode.RGBA))
        except BitstreamError:
            refused += 1
        else:
            assert decoded.size == (32, 24)
    assert refused > 20


def test_the_limits_of_a_reader_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    data = kept(drawing(40, 50))
    with pytest.raises(BitstreamError, match="expected at most 1999"):
        cwic.decode(data, limits=cwic.Limits(max_pixels=1999))
    # Pillow's own is for the files that a person opens with it.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    np.testing.assert_array_equal(cwic.decode(data), drawing(40, 50))


def test_a_pillow_without_webp_codes_everything_and_says_what_it_cannot_read(
    monkeypatch: pytest.MonkeyPatch, tiny_flagship_codec: cwic.Codec
) -> None:
    data = kept(drawing(40, 50))
    check = features.check
    monkeypatch.setattr(features, "check", lambda name: name != "webp" and check(name))
    coded = tiny_flagship_codec.encode(drawing(40, 50))
    assert coded == tiny_flagship_codec.encode(drawing(40, 50), lossless="never")
    with pytest.raises(NotBuiltError, match="Pillow with WebP"):
        tiny_flagship_codec.encode(drawing(40, 50), lossless="always")
    with pytest.raises(NotBuiltError, match="Pillow with WebP"):
        READER.decode(data)
