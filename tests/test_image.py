import contextlib
import io
import os
import struct
import tracemalloc
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageOps, PngImagePlugin

from cwic.defaults import MAX_PIXELS
from cwic.errors import CodecError, CodecWarning, ImageError
from cwic.image import (
    Metadata,
    Mode,
    Picture,
    encode_image,
    pad_to_multiple,
    read_picture,
    to_pil,
)

sides = st.integers(1, 70)
seeds = st.integers(0, 2**32 - 1)
channel_counts = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def noise(seed: int, *shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def noise_of(mode: Mode, seed: int, height: int, width: int) -> NDArray[np.uint8]:
    """Samples of a picture of a mode."""
    samples = noise(seed, height, width, channel_counts[mode.pil_name])
    if mode in (Mode.NEUTRAL_RGB, Mode.NEUTRAL_RGBA):
        samples[..., 1] = samples[..., 2] = samples[..., 0]
    return samples


def noise_image(mode: str, width: int = 13, height: int = 7) -> Image.Image:
    """An image of any Pillow mode that pictures come in."""
    if mode == "1":
        return Image.fromarray(noise(0, height, width) > 127)
    if mode == "I;16":
        return Image.fromarray(noise(0, height, width).astype(np.uint16) * 257)
    if mode == "I":
        return Image.fromarray(noise(0, height, width).astype(np.int32) * 257)
    if mode == "F":
        return Image.fromarray(noise(0, height, width).astype(np.float32) / 255)
    bands = "L" if mode == "P" else mode
    planes = [Image.fromarray(noise(band, height, width)) for band in range(len(bands))]
    if mode == "YCbCr":
        return Image.merge("YCbCr", planes[:3])
    image = planes[0] if bands == "L" else Image.merge(mode, planes)
    if mode == "P":
        image = image.quantize(16)
    return image


def file_of(image: Image.Image, file_format: str, **options: Any) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return io.BytesIO(file.getvalue())


def png_of_16_bits(color_type: int, num_channels: int, sample: int) -> io.BytesIO:
    """A 2x1 PNG whose samples are all the same; Pillow writes only grey ones."""

    def chunk(name: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", 2, 1, 16, color_type, 0, 0, 0)
    rows = zlib.compress(b"\0" + struct.pack(">H", sample) * 2 * num_channels)
    return io.BytesIO(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def exif_with(orientation: int, order: str = "<") -> bytes:
    """A minimal EXIF block: a maker's name and an orientation."""
    name = b"cwic cameras\0"
    block = struct.pack(f"{order}2sHIH", b"II" if order == "<" else b"MM", 42, 8, 2)
    block += struct.pack(f"{order}HHII", ExifTags.Base.Make, 2, len(name), 8 + 2 + 24 + 4)
    block += struct.pack(f"{order}HHIHH", ExifTags.Base.Orientation, 3, 1, orientation, 0)
    return block + struct.pack(f"{order}I", 0) + name


def tags_of(exif: bytes | None) -> dict[int, Any]:
    assert exif is not None
    tags = Image.Exif()
    tags.load(exif)
    return dict(tags)


@given(sides, sides, st.sampled_from(Mode), seeds)
def test_an_array_of_any_mode_and_size_comes_back_exactly(
    width: int, height: int, mode: Mode, seed: int
) -> None:
    array = noise_of(mode, seed, height, width)
    picture = read_picture(array)
    assert (picture.width, picture.height, picture.mode) == (width, height, mode)
    assert picture.pixels.shape == (height, width, 3)
    image = to_pil(picture)
    assert image.mode == mode.pil_name
    np.testing.assert_array_equal(np.asarray(image).reshape(array.shape), array)


@settings(max_examples=30)
@given(sides, sides, st.sampled_from(Mode), st.sampled_from(["png", "tiff", "webp"]), seeds)
def test_a_lossless_file_of_any_mode_and_size_comes_back_exactly(
    width: int, height: int, mode: Mode, file_format: str, seed: int
) -> None:
    picture = read_picture(noise_of(mode, seed, height, width))
    again = read_picture(io.BytesIO(encode_image(to_pil(picture), file_format)))
    np.testing.assert_array_equal(again.pixels, picture.pixels)
    if mode.has_alpha:
        assert again.alpha is not None
        assert picture.alpha is not None
        np.testing.assert_array_equal(again.alpha, picture.alpha)
    if file_format != "webp":
        assert again.mode == mode


def test_a_grey_array_may_have_two_axes() -> None:
    grey = noise(0, 5, 9)
    picture = read_picture(grey)
    assert picture.mode == Mode.L
    for channel in range(3):
        np.testing.assert_array_equal(picture.pixels[:, :, channel], grey)


def test_a_bool_array_is_black_and_white() -> None:
    assert read_picture(np.array([[True, False]])).pixels[0, :, 0].tolist() == [255, 0]


@pytest.mark.parametrize("dtype", [">u2", "<u2"])
def test_16_bit_arrays_are_rounded_with_a_warning(dtype: str) -> None:
    values = np.array([[0, 128, 129, 257, 32767, 65406, 65407, 65535]], dtype)
    with pytest.warns(CodecWarning, match="array: 8 bits per channel are coded, of 16"):
        picture = read_picture(values)
    assert picture.pixels[0, :, 0].tolist() == [0, 0, 1, 1, 127, 254, 255, 255]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_arrays_from_0_to_1_are_rounded_with_a_warning(dtype: type) -> None:
    values = np.array([[[0, 0.25, 1]]], dtype)
    with pytest.warns(CodecWarning, match="8 bits per channel are coded, of float"):
        picture = read_picture(values)
    assert picture.pixels.tolist() == [[[0, 64, 255]]]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 4, 5), np.uint8), r"shape \(3, 4, 5\), expected \(H, W\)"),
        (np.zeros(3, np.uint8), r"shape \(3,\)"),
        (np.zeros((1, 2, 3, 4), np.uint8), "shape"),
        (np.zeros((4, 4, 0), np.uint8), "shape"),
        (np.zeros((0, 4), np.uint8), "4x0 pixels, expected at least 1x1"),
        (np.zeros((4, 0, 3), np.uint8), "0x4 pixels"),
        (np.zeros((2, 2), np.int64), "samples of int64, expected uint8, uint16, bool or float"),
        (np.zeros((2, 2), np.int32), "samples of int32"),
        (np.zeros((2, 2), np.complex64), "samples of complex64"),
        (np.array([["a"]]), "samples of <U1"),
        (np.array([[np.nan]]), "NaN or infinite"),
        (np.array([[np.inf]]), "NaN or infinite"),
        (np.array([[1.5]]), "samples from 1.5 to 1.5, expected 0 to 1"),
        (np.array([[-0.5]]), "samples from -0.5"),
    ],
)
def test_other_arrays_are_image_errors_that_say_what_was_found(
    array: NDArray[Any], message: str
) -> None:
    with pytest.raises(ImageError, match=message):
        read_picture(array)


def test_something_that_is_no_picture_is_an_image_error() -> None:
    number: Any = 3
    with pytest.raises(ImageError, match="found int, expected a path"):
        read_picture(number)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("1", Mode.L),
        ("L", Mode.L),
        ("LA", Mode.LA),
        ("P", Mode.NEUTRAL_RGB),
        ("PA", Mode.RGBA),
        ("RGB", Mode.RGB),
        ("RGBA", Mode.RGBA),
        ("RGBX", Mode.RGB),
        ("CMYK", Mode.RGB),
        ("YCbCr", Mode.RGB),
        ("HSV", Mode.RGB),
        ("LAB", Mode.RGB),
    ],
)
def test_every_pillow_mode_of_8_bits_is_read(mode: str, expected: Mode) -> None:
    image = noise_image("RGBA").convert("P").convert("PA") if mode == "PA" else noise_image(mode)
    assert image.mode == mode
    picture = read_picture(image)
    assert picture.mode == expected
    as_rgb = image.convert("RGBA" if picture.mode.has_alpha else "RGB")
    np.testing.assert_array_equal(picture.pixels, np.asarray(as_rgb)[:, :, :3])


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_deeper_pillow_modes_are_read_with_a_warning(mode: str) -> None:
    with pytest.warns(CodecWarning, match="8 bits per channel"):
        picture = read_picture(noise_image(mode))
    np.testing.assert_array_equal(picture.pixels[:, :, 0], noise(0, 7, 13))
    assert picture.mode == Mode.L


def test_integer_samples_beyond_16_bits_are_an_image_error() -> None:
    with pytest.raises(ImageError, match="found integer samples from 0 to 70000"):
        read_picture(Image.fromarray(np.array([[0, 70000]], np.int32)))


@pytest.mark.parametrize(("color_type", "num_channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_a_16_bit_png_is_read_with_one_warning(color_type: int, num_channels: int) -> None:
    with pytest.warns(CodecWarning, match="8 bits per channel are coded, of 16") as caught:
        picture = read_picture(png_of_16_bits(color_type, num_channels, 0x8080))
    assert len(caught) == 1
    assert picture.pixels.tolist() == [[[128] * 3] * 2]


@pytest.mark.parametrize("file_format", ["PPM", "TIFF"])
def test_other_16_bit_files_are_read_with_a_warning(file_format: str) -> None:
    with pytest.warns(CodecWarning, match="8 bits per channel are coded, of 16"):
        picture = read_picture(file_of(noise_image("I;16"), file_format))
    np.testing.assert_array_equal(picture.pixels[:, :, 0], noise(0, 7, 13))


def test_a_colour_ppm_of_16_bits_is_read_with_a_warning() -> None:
    samples = np.array([65535, 0, 0x8080, 257, 514, 771], ">u2")
    for header, body in (
        (b"P6 2 1 65535\n", samples.tobytes()),
        (b"P3 2 1 65535\n", " ".join(map(str, samples)).encode()),
    ):
        with pytest.warns(CodecWarning, match="8 bits per channel are coded, of 16") as caught:
            picture = read_picture(io.BytesIO(header + body))
        assert len(caught) == 1
        assert picture.pixels.tolist() == [[[255, 0, 128], [1, 2, 3]]]


def tiff_of(
    samples: NDArray[Any], depth_bits: int, photometric: int, order: str = "<"
) -> io.BytesIO:
    """A TIFF of one strip of grey, packed by hand: Pillow writes no other depths than 8 and 16."""
    height, width = samples.shape
    if depth_bits in (8, 16, 32):
        kind = {8: "u1", 16: "u2", 32: "f4"}[depth_bits]
        body = samples.astype(f"{order}{kind}").tobytes()
    else:
        bits = np.unpackbits(samples.astype(">u2").view(np.uint8).reshape(height, width, 2), axis=2)
        body = np.packbits(bits[:, :, 16 - depth_bits :].reshape(height, -1), axis=1).tobytes()
    entries = {
        256: width, 257: height, 258: depth_bits, 259: 1, 262: photometric, 273: 8 + 2 + 120 + 4,
        277: 1, 278: height, 279: len(body), 339: 3 if depth_bits == 32 else 1,
    }  # fmt: skip
    directory = struct.pack(f"{order}H", len(entries))
    for tag, value in entries.items():
        directory += struct.pack(f"{order}HHII", tag, 4, 1, value)
    head = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8)
    return io.BytesIO(head + directory + bytes(4) + body)


@pytest.mark.parametrize(
    ("depth_bits", "photometric", "order", "is_deflated"),
    [
        (12, 1, "<", False),
        (16, 0, "<", False),
        (16, 0, "<", True),
        (16, 1, "<", False),
        (16, 1, ">", False),
        (32, 0, "<", False),
        (32, 0, ">", False),
        (32, 1, "<", False),
    ],
)
def test_a_tiff_of_any_depth_is_white_where_it_is_white(
    depth_bits: int, photometric: int, order: str, is_deflated: bool
) -> None:
    top = 1 if depth_bits == 32 else (1 << depth_bits) - 1
    shares = np.array([[0, 0.25, 0.5, 1]])
    samples = shares * top if depth_bits == 32 else np.rint(shares * top)
    file = tiff_of(samples, depth_bits, photometric, order)
    if is_deflated:
        with Image.open(file) as image:
            file = file_of(image, "TIFF", compression="tiff_adobe_deflate", tiffinfo={262: 0})
    depth = "float32" if depth_bits == 32 else str(depth_bits)
    with pytest.warns(CodecWarning, match=f"8 bits per channel are coded, of {depth}$") as caught:
        picture = read_picture(file)
    assert len(caught) == 1
    expected = np.rint(255 * (shares if photometric else 1 - shares))
    assert np.abs(picture.pixels[:, :, 0] - expected).max() <= 1
    assert picture.pixels[0, [0, 3], 0].tolist() == ([0, 255] if photometric else [255, 0])


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("depth_bits", [1, 2, 4, 8])
def test_a_tiff_of_few_bits_is_white_where_it_is_white(depth_bits: int, photometric: int) -> None:
    top = (1 << depth_bits) - 1
    picture = read_picture(tiff_of(np.array([[0, top] * 8]), depth_bits, photometric))
    assert picture.pixels[0, :2, 0].tolist() == ([0, 255] if photometric else [255, 0])


@pytest.mark.parametrize(
    ("depth_bits", "photometric", "order"),
    [(10, 1, "<"), (14, 1, "<"), (12, 1, ">"), (12, 0, "<"), (16, 0, ">")],
)
def test_a_tiff_of_a_depth_that_pillow_cannot_read_is_refused_with_its_depth(
    depth_bits: int, photometric: int, order: str
) -> None:
    file = tiff_of(np.zeros((4, 4), int), depth_bits, photometric, order)
    with pytest.raises(ImageError, match=f"a TIFF of {depth_bits} bits a sample"):
        read_picture(file)


def test_signed_samples_are_taken_as_unsigned_with_a_warning() -> None:
    image = Image.new("L", (3, 2), 200)
    with pytest.warns(CodecWarning, match="samples are signed"):
        picture = read_picture(file_of(image, "TIFF", tiffinfo={339: 2}))
    assert picture.pixels[0, 0, 0] == 200


def test_a_transparent_grey_of_16_bits_becomes_an_alpha_plane() -> None:
    image = Image.fromarray(np.array([[500, 501], [60_000, 500]], np.uint16))
    with pytest.warns(CodecWarning, match="8 bits per channel"):
        picture = read_picture(file_of(image, "PNG", transparency=500))
    assert picture.mode == Mode.LA
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [[0, 255], [255, 0]]
    assert picture.pixels[:, :, 0].tolist() == [[2, 2], [233, 2]]


def test_a_palette_with_transparency_becomes_an_alpha_plane() -> None:
    image = noise_image("P")
    transparent = read_picture(file_of(image, "PNG", transparency=3))
    assert transparent.mode == Mode.NEUTRAL_RGBA
    assert transparent.alpha is not None
    np.testing.assert_array_equal(transparent.alpha == 0, np.asarray(image) == 3)
    table = read_picture(file_of(image, "PNG", transparency=bytes(range(16))))
    assert table.alpha is not None
    np.testing.assert_array_equal(table.alpha, np.asarray(image))


@pytest.mark.parametrize(
    ("mode", "transparent", "expected"),
    [("1", 0, Mode.LA), ("L", 9, Mode.LA), ("RGB", (1, 2, 3), Mode.RGBA)],
)
def test_a_transparent_colour_becomes_an_alpha_plane(
    mode: str, transparent: Any, expected: Mode
) -> None:
    image = Image.new(mode, (3, 2), 255 if mode != "RGB" else (9, 9, 9))
    image.putpixel((1, 0), transparent)
    picture = read_picture(file_of(image, "PNG", transparency=transparent))
    assert picture.mode == expected
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [[255, 0, 255], [255, 255, 255]]


@pytest.mark.parametrize("num_colours", [3, 300])
def test_an_xpm_with_a_transparent_colour_that_it_does_not_use_is_opaque(num_colours: int) -> None:
    keys = [f"{number:03d}" for number in range(num_colours)]
    colours = [f'"{key} c #{int(key) % 256:02x}4080",' for key in keys]
    head = f'/* XPM */\nstatic char *a[] = {{\n"{num_colours} 1 {num_colours + 1} 3",\n'
    file = io.BytesIO(
        "\n".join([head + '"    c None",', *colours, f'"{"".join(keys)}"', "};"]).encode()
    )
    picture = read_picture(file)
    assert picture.alpha is None or (picture.alpha == 255).all()
    np.testing.assert_array_equal(picture.pixels[0, :3], [[0, 64, 128], [1, 64, 128], [2, 64, 128]])


def test_cmyk_without_a_profile_is_converted_by_pillow() -> None:
    image = noise_image("CMYK")
    picture = read_picture(file_of(image, "TIFF"))
    np.testing.assert_array_equal(picture.pixels, np.asarray(image.convert("RGB")))


def test_an_unusable_cmyk_profile_is_dropped_with_a_warning() -> None:
    image = noise_image("CMYK")
    file = file_of(image, "TIFF", icc_profile=b"no profile")
    with pytest.warns(CodecWarning, match="CMYK profile cannot be used"):
        picture = read_picture(file)
    np.testing.assert_array_equal(picture.pixels, np.asarray(image.convert("RGB")))
    assert picture.metadata.icc is None


def profile_of_grey_inks(lightness: tuple[float, float, float, float]) -> bytes:
    """A CMYK profile of a press whose inks are all grey: that of the darkest ink is what one sees.

    Args:
        lightness: L* of each ink alone, 0 to 100; paper has 100.
    """
    corners = []
    for number in range(16):  # of the cube of the inks, the last changing fastest
        inks = [value for bit, value in enumerate(lightness) if number >> (3 - bit) & 1]
        corners += [round(min([100, *inks]) * 2.55), 128, 128]  # L*, a*, b*
    straight = bytes(range(256))
    identity = struct.pack(">9i", *(65536 * (place % 4 == 0) for place in range(9)))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity
    table += 4 * straight + bytes(corners) + 3 * straight
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    name = b"grey inks\0"
    about = b"desc" + bytes(4) + struct.pack(">I", len(name)) + name + bytes(78)
    tags = {b"A2B0": table, b"wtpt": white, b"desc": about, b"cprt": b"text" + bytes(4) + b"none\0"}
    body, index = b"", struct.pack(">I", len(tags))
    for kind, tag in tags.items():
        index += struct.pack(">4sII", kind, 128 + 4 + 12 * len(tags) + len(body), len(tag))
        body += tag + bytes(-len(tag) % 4)
    illuminant = struct.pack(">3i", 63190, 65536, 54061)
    header = struct.pack(
        ">I4sI4s4s4s12s4s28x12s", 128 + len(index + body), b"lcms", 0x02400000,
        b"prtr", b"CMYK", b"Lab ", bytes(12), b"acsp", illuminant,
    )  # fmt: skip
    return header.ljust(128, b"\0") + index + body


def test_cmyk_goes_through_its_profile_which_is_then_dropped() -> None:
    image = Image.new("CMYK", (4, 1))
    for x, inks in enumerate([(0, 0, 0, 0), (255, 0, 0, 0), (0, 255, 0, 0), (255, 0, 0, 255)]):
        image.putpixel((x, 0), inks)
    profile = profile_of_grey_inks((50, 75, 90, 0))
    for file in (
        file_of(image, "TIFF", icc_profile=profile),
        file_of(image.resize((64, 16), Image.Resampling.NEAREST), "JPEG", icc_profile=profile),
    ):
        picture = read_picture(file)
        shown = picture.pixels[0, picture.width // 8 :: picture.width // 4]
        # sRGB of L* 100, 50, 75 and 0.
        expected = np.repeat([[255], [119], [185], [0]], 3, axis=1)
        assert np.abs(shown.astype(int) - expected).max() <= 3
        assert picture.metadata.icc is None


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_orientation_is_applied_and_then_upright(
    file_format: str, orientation: int, order: str
) -> None:
    image = noise_image("RGB", 16, 8)
    options = {"lossless": True} if file_format == "WEBP" else {}
    exif = exif_with(orientation, order)
    if file_format == "JPEG":
        exif = b"Exif\0\0" + exif
    file = file_of(image, file_format, exif=exif, **options)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(file.getvalue())))
    picture = read_picture(file)
    assert (picture.width, picture.height) == ((16, 8) if orientation < 5 else (8, 16))
    np.testing.assert_array_equal(picture.pixels, np.asarray(upright))
    tags = tags_of(picture.metadata.exif)
    assert tags.get(ExifTags.Base.Orientation, 1) == 1
    assert tags[ExifTags.Base.Make] == "cwic cameras"


def test_only_the_orientation_changes_in_the_exif_block() -> None:
    # Maker notes hold offsets that only their maker knows, so the block is not written anew.
    image = noise_image("RGB")
    picture = read_picture(file_of(image, "PNG", exif=exif_with(6) + b"maker note"))
    assert picture.metadata.exif == exif_with(1) + b"maker note"


def test_an_icc_profile_of_megabytes_is_kept_and_one_beyond_the_container_left_out() -> None:
    image = noise_image("RGB")
    profile = noise(1, 5 * 2**20).tobytes()
    file = file_of(image, "TIFF", icc_profile=profile)
    assert read_picture(file).metadata.icc == profile
    file = file_of(image, "TIFF", icc_profile=bytes(17 * 2**20))
    with pytest.warns(CodecWarning, match="its ICC profile of 17825792 bytes is left out"):
        picture = read_picture(file)
    assert picture.metadata.icc is None


def test_a_damaged_exif_block_is_left_out_with_a_warning() -> None:
    file = file_of(noise_image("RGB"), "PNG", exif=b"no TIFF header at all")
    with pytest.warns(CodecWarning, match="damaged EXIF block is left out"):
        picture = read_picture(file)
    assert picture.metadata.exif is None


@pytest.mark.parametrize("extension", ["png", "jpg", "webp", "avif", "tif"])
def test_metadata_survives_every_format_that_has_a_place_for_it(extension: str) -> None:
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    upright = XMP.replace(b'"6"', b'"1"')
    source = Picture(noise(0, 8, 8, 3), metadata=Metadata(icc, exif_with(1), upright))
    data = encode_image(to_pil(source), extension)
    kept = read_picture(io.BytesIO(data)).metadata
    assert kept.icc == icc
    assert kept.xmp == upright
    assert tags_of(kept.exif)[ExifTags.Base.Make] == "cwic cameras"
    assert read_picture(io.BytesIO(data), keep_metadata=False).metadata == Metadata()


@pytest.mark.parametrize("extension", ["png", "jpg", "webp", "avif", "tif"])
def test_the_directories_of_exif_survive_too(extension: str, capfd: pytest.CaptureFixture) -> None:
    tags = Image.Exif()
    tags[ExifTags.Base.Make] = "cwic cameras"
    tags.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ISOSpeedRatings] = 400
    tags.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    source = Picture(noise(0, 8, 8, 3), metadata=Metadata(exif=tags.tobytes()[6:]))
    data = encode_image(to_pil(source), extension)
    kept = Image.Exif()
    kept.load(read_picture(io.BytesIO(data)).metadata.exif or b"")
    assert kept[ExifTags.Base.Make] == "cwic cameras"
    assert kept.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ISOSpeedRatings] == 400
    assert kept.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"
    assert capfd.readouterr().err == ""  # of libraries


def test_the_orientation_in_an_xmp_packet_becomes_upright() -> None:
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt("XML:com.adobe.xmp", XMP.decode())
    picture = read_picture(file_of(noise_image("RGB"), "PNG", pnginfo=chunks))
    assert picture.metadata.xmp == XMP.replace(b'"6"', b'"1"')


def test_metadata_too_long_for_a_jpeg_segment_is_left_out_with_a_warning() -> None:
    source = Picture(noise(0, 8, 8, 3), metadata=Metadata(exif=exif_with(1), xmp=bytes(70_000)))
    with pytest.warns(CodecWarning, match="JPEG cannot hold XMP of 70000 bytes"):
        data = encode_image(to_pil(source), "jpg")
    kept = read_picture(io.BytesIO(data)).metadata
    assert kept.xmp is None
    assert kept.exif == exif_with(1)


@pytest.mark.parametrize("extension", ["png", "jpg", "webp", "avif", "tif"])
def test_an_exif_block_that_is_no_exif_never_keeps_a_picture_from_being_written(
    extension: str,
) -> None:
    source = Picture(noise(0, 8, 8, 3), metadata=Metadata(exif=b"no TIFF header at all"))
    if extension in ("avif", "tif"):
        with pytest.warns(CodecWarning, match="cannot hold this EXIF"):
            data = encode_image(to_pil(source), extension)
    else:
        data = encode_image(to_pil(source), extension)
    assert Image.open(io.BytesIO(data)).size == (8, 8)


def test_of_several_frames_the_first_is_taken_with_a_warning() -> None:
    frames = [Image.new("RGB", (4, 3), colour) for colour in ("red", "green", "blue")]
    for file_format in ("GIF", "TIFF", "PNG", "WEBP"):
        file = file_of(frames[0], file_format, save_all=True, append_images=frames[1:])
        with pytest.warns(CodecWarning, match="only frame 1 of 3 is coded"):
            picture = read_picture(file)
        assert picture.pixels[0, 0, 0] > 200


def test_paths_of_all_kinds_and_binary_files_are_read(tmp_path: Path) -> None:
    pixels = noise(0, 6, 5, 3)
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).save(path)
    np.testing.assert_array_equal(read_picture(path).pixels, pixels)
    np.testing.assert_array_equal(read_picture(os.fspath(path)).pixels, pixels)
    with open(path, "rb") as file:
        np.testing.assert_array_equal(read_picture(file).pixels, pixels)


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_a_pipe_is_read() -> None:
    pixels = noise(0, 6, 5, 3)
    reader, writer = os.pipe()
    with open(writer, "wb") as file:
        file.write(encode_image(Image.fromarray(pixels), "png"))
    with open(reader, "rb") as file:
        np.testing.assert_array_equal(read_picture(file).pixels, pixels)


def test_a_missing_file_is_an_image_error(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"no such file: .*absent\.png"):
        read_picture(tmp_path / "absent.png")


def test_a_folder_is_an_image_error(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot read"):
        read_picture(tmp_path)


def test_a_file_that_is_no_picture_is_an_image_error_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "notes.png"
    path.write_text("not a picture")
    with pytest.raises(ImageError, match=r"notes\.png: found no picture"):
        read_picture(path)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "AVIF"])
def test_a_truncated_file_is_an_image_error(file_format: str) -> None:
    data = file_of(noise_image("RGB", 40, 40), file_format).getvalue()
    for length in (0, 1, 10, len(data) // 3, len(data) * 2 // 3):
        with pytest.raises(ImageError):
            read_picture(io.BytesIO(data[:length]))


@pytest.mark.parametrize(
    ("file_format", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("TIFF", {}),
        ("BMP", {}),
        ("WEBP", {}),
        ("AVIF", {}),
    ],
)
def test_of_a_truncated_file_what_is_there_is_taken_where_that_is_asked_for(
    file_format: str, options: dict[str, Any]
) -> None:
    image = Image.linear_gradient("L").convert("RGB")
    image.paste(noise_image("RGB", 64, 256), (0, 0))  # lest a few bytes hold all of it
    data = file_of(image, file_format, **options).getvalue()
    data = data[: len(data) * 3 // 4]
    with pytest.raises(ImageError, match="truncated"):
        read_picture(io.BytesIO(data))
    with pytest.warns(CodecWarning, match="it is truncated") as caught:
        picture = read_picture(io.BytesIO(data), truncated=True)
    assert len(caught) == 1
    assert (picture.width, picture.height) == image.size
    seen = slice(0, 256) if options else slice(0, 100)
    if file_format != "BMP":  # begins with its last row
        differences = picture.pixels[seen, 70:].astype(int) - np.asarray(image)[seen, 70:]
        assert np.abs(differences).max() <= 40


def test_a_png_whose_samples_have_another_checksum_is_refused() -> None:
    data = bytearray(file_of(noise_image("L", 60, 60), "PNG").getvalue())
    data[data.index(b"IEND") - 5] ^= 1  # of the checksum, which Pillow does not look at
    with pytest.raises(ImageError, match=r"samples are damaged.*checksum.*--truncated"):
        read_picture(io.BytesIO(data))
    with pytest.warns(CodecWarning, match="its samples are damaged"):
        picture = read_picture(io.BytesIO(data), truncated=True)
    assert (picture.width, picture.height) == (60, 60)


@pytest.mark.parametrize("file_format", ["WEBP", "AVIF"])
def test_what_a_file_says_of_its_length_costs_no_memory(file_format: str) -> None:
    data = bytearray(file_of(noise_image("RGB"), file_format).getvalue())
    place = 4 if file_format == "WEBP" else data.find(b"mdat") - 4
    data[place : place + 4] = b"\xff\xff\xff\x7f" if file_format == "WEBP" else b"\x7f\xff\xff\xff"
    tracemalloc.start()
    try:
        with contextlib.suppress(ImageError), warnings.catch_warnings():
            warnings.simplefilter("ignore", CodecWarning)
            read_picture(io.BytesIO(data[:-100]), truncated=True)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow's name for the directory
def test_a_tiff_without_its_directory_is_not_called_one_of_another_depth() -> None:
    data = file_of(noise_image("RGB", 90, 90), "TIFF", compression="tiff_lzw").getvalue()
    with pytest.raises(ImageError, match="truncated"):
        read_picture(io.BytesIO(data[: len(data) // 2]))


def test_a_whole_file_is_read_without_a_word_where_a_truncated_one_would_be_taken() -> None:
    image = noise_image("RGB")
    picture = read_picture(file_of(image, "PNG"), truncated=True)
    np.testing.assert_array_equal(picture.pixels, np.asarray(image))


def test_a_file_without_a_picture_is_refused_even_where_a_truncated_one_would_be_taken() -> None:
    data = file_of(noise_image("RGB"), "JPEG").getvalue()
    for length in (0, 2, 20):
        with pytest.raises(ImageError):
            read_picture(io.BytesIO(data[:length]), truncated=True)


def test_a_picture_that_was_read_is_given_back() -> None:
    picture = read_picture(noise(0, 5, 5, 3))
    assert read_picture(picture) is picture
    described = Picture(picture.pixels, metadata=Metadata(xmp=b"<x/>"))
    assert read_picture(described, keep_metadata=False).metadata == Metadata()
    with pytest.raises(ImageError, match="expected at most 24"):
        read_picture(picture, max_pixels=24)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("extension", ["jpg", "ppm", "bmp"])
def test_an_opaque_picture_loses_its_transparency_without_a_word(mode: str, extension: str) -> None:
    image = Image.new("RGB", (8, 8), (200, 200, 200)).convert(mode)
    again = read_picture(io.BytesIO(encode_image(image, extension)))
    assert not again.mode.has_alpha
    assert np.abs(again.pixels.astype(int) - 200).max() <= 1


@settings(max_examples=60)
@given(st.sampled_from(["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP"]), seeds)
def test_a_damaged_file_is_a_picture_or_an_image_error(file_format: str, seed: int) -> None:
    data = bytearray(file_of(noise_image("RGB", 20, 20), file_format).getvalue())
    generator = np.random.default_rng(seed)
    for position in generator.integers(0, min(len(data), 400), 3):
        data[position] = generator.integers(0, 256)
    try:
        picture = read_picture(io.BytesIO(data))
    except (CodecError, CodecWarning):
        return
    assert picture.pixels.dtype == np.uint8


def test_a_picture_over_the_limit_is_refused_before_it_is_decoded() -> None:
    file = file_of(Image.new("1", (300, 200)), "PNG")
    with pytest.raises(ImageError, match="300x200 = 60000 pixels, expected at most 59999"):
        read_picture(file, max_pixels=59_999)
    assert read_picture(file, max_pixels=60_000).width == 300


def test_a_decompression_bomb_is_an_image_error() -> None:
    file = png_of_16_bits(0, 1, 0)
    data = bytearray(file.getvalue())
    data[16:24] = struct.pack(">II", 100_000, 100_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    with pytest.raises(ImageError, match=r"10000000000 pixels.* limit of .* --max-pixels"):
        read_picture(io.BytesIO(data))


def test_the_limit_is_ours_where_pillow_would_only_warn() -> None:
    side = 9_600
    assert Image.MAX_IMAGE_PIXELS is not None
    assert Image.MAX_IMAGE_PIXELS < side * side < MAX_PIXELS
    with pytest.raises(ImageError, match=f"expected at most {side}"):
        read_picture(file_of(Image.new("1", (side, side)), "PNG"), max_pixels=side)


def test_grey_output_is_the_rounded_luma() -> None:
    pixels = noise(0, 9, 9, 3)
    grey = np.asarray(to_pil(Picture(pixels, mode=Mode.L))).astype(float)
    luma = pixels @ np.array([0.299, 0.587, 0.114])
    assert np.abs(grey - luma).max() <= 0.51


def test_a_grey_format_holds_no_colours() -> None:
    assert encode_image(Image.new("L", (3, 2)), "pgm").startswith(b"P5")
    with pytest.raises(ImageError, match=r"in colour, expected a grey one: \.ppm holds both"):
        encode_image(Image.new("RGB", (3, 2)), "pgm")


@pytest.mark.parametrize(
    "extension", ["png", "jpg", "jpeg", "webp", "avif", "tif", "tiff", "ppm", "bmp"]
)
@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.filterwarnings("ignore:.*has no transparency:cwic.errors.CodecWarning")
def test_every_format_holds_every_mode(tmp_path: Path, extension: str, mode: Mode) -> None:
    smooth = np.add.outer(np.arange(40), np.arange(48))[:, :, None]
    channels = np.repeat(smooth, channel_counts[mode.pil_name], axis=2).astype(np.uint8) + 100
    if mode.has_alpha:
        channels[:, :, -1] = 255
    path = tmp_path / f"picture.{extension.upper()}"
    path.write_bytes(encode_image(to_pil(read_picture(channels)), path.suffix))
    again = read_picture(path)
    difference = again.pixels.astype(int) - read_picture(channels).pixels
    assert np.abs(difference).max() <= (3 if extension in ("jpg", "jpeg", "avif") else 0)


@pytest.mark.parametrize("extension", ["jpg", "ppm", "bmp"])
@pytest.mark.parametrize("mode", [Mode.LA, Mode.RGBA])
def test_transparency_is_laid_on_white_with_a_warning(extension: str, mode: Mode) -> None:
    channels = np.zeros((8, 8, channel_counts[mode.pil_name]), np.uint8)
    channels[:, :, -1] = 51
    with pytest.warns(CodecWarning, match="is laid on white"):
        data = encode_image(to_pil(read_picture(channels)), extension)
    again = read_picture(io.BytesIO(data))
    assert not again.mode.has_alpha
    assert np.abs(again.pixels.astype(int) - 204).max() <= 1


@pytest.mark.parametrize("extension", ["", "gif", "docx"])
def test_an_unknown_extension_is_an_image_error_that_lists_the_known(
    extension: str,
) -> None:
    with pytest.raises(ImageError, match=r"expected one of png, jpg, .*avif"):
        encode_image(Image.new("RGB", (1, 1)), extension)


def test_the_format_is_named_with_or_without_a_dot_in_any_case() -> None:
    for name in (".WebP", "webp"):
        assert encode_image(Image.new("RGB", (2, 2)), name)[8:12] == b"WEBP"


def test_a_picture_that_a_format_cannot_hold_is_an_image_error() -> None:
    with pytest.raises(ImageError, match="cannot encode WEBP"):
        encode_image(Image.new("RGB", (20_000, 1)), "webp")


@given(sides, sides, st.integers(1, 33), st.booleans(), seeds)
def test_padding_repeats_the_last_row_and_column(
    width: int, height: int, multiple: int, is_plane: bool, seed: int
) -> None:
    pixels = noise(seed, height, width) if is_plane else noise(seed, height, width, 3)
    padded = pad_to_multiple(pixels, multiple)
    assert padded.shape[0] % multiple == padded.shape[1] % multiple == 0
    assert padded.shape[0] - height < multiple
    assert padded.shape[1] - width < multiple
    np.testing.assert_array_equal(padded[:height, :width], pixels)
    np.testing.assert_array_equal(padded[:, -1], padded[:, width - 1])
    np.testing.assert_array_equal(padded[-1], padded[height - 1])
