"""EXIF follows the picture: orientation, sizes, thumbnail, resolution; nothing else moves."""

import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin

import cwic
from cwic.errors import CodecWarning
from cwic.image import encode_image, read_picture, to_pil
from cwic.image.exif import (
    orientation_of,
    resolution_of,
    with_resolution,
    with_size,
    without_thumbnail,
)

ORIENTATION, MAKE = ExifTags.Base.Orientation, ExifTags.Base.Make
PIXEL_WIDTH, PIXEL_HEIGHT = ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight


def thumbnail() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(file, "JPEG")
    return file.getvalue()


def block(
    order: str = "<", *, orientation: int = 6, tail: bytes = b"", small: bytes = b""
) -> bytes:
    """An EXIF block with a maker's name, sizes, a maker note that points at itself, a thumbnail."""
    name, note = b"the cameras\0", b"note of the maker\0"
    at_name = 8 + 2 + 3 * 12 + 4
    at_exif = at_name + len(name)
    at_note = at_exif + 2 + 3 * 12 + 4
    at_second = at_note + len(note)
    at_small = at_second + 2 + 2 * 12 + 4

    def entry(tag: int, kind: int, count: int, value: int) -> bytes:
        if kind == 3:
            return struct.pack(f"{order}HHIHH", tag, kind, count, value, 0)
        return struct.pack(f"{order}HHII", tag, kind, count, value)

    data = struct.pack(f"{order}2sHIH", b"II" if order == "<" else b"MM", 42, 8, 3)
    data += entry(MAKE, 2, len(name), at_name) + entry(ORIENTATION, 3, 1, orientation)
    data += entry(0x8769, 4, 1, at_exif) + struct.pack(f"{order}I", at_second if small else 0)
    data += name + struct.pack(f"{order}H", 3)
    data += entry(0x927C, 7, len(note), at_note)
    data += entry(PIXEL_WIDTH, 4, 1, 16) + entry(PIXEL_HEIGHT, 3, 1, 8) + bytes(4) + note
    if small:
        data += struct.pack(f"{order}H", 2) + entry(0x201, 4, 1, at_small)
        data += entry(0x202, 4, 1, len(small)) + bytes(4) + small
    return data + tail


def tags_of(data: bytes | None) -> tuple[Image.Exif, dict[int, object]]:
    """The first directory and the EXIF directory, as Pillow reads them."""
    assert data is not None
    tags = Image.Exif()
    tags.load(data)
    return tags, tags.get_ifd(ExifTags.IFD.Exif)


def jpeg_of(data: bytes, **options: object) -> io.BytesIO:
    file = io.BytesIO()
    pixels = np.arange(16 * 8 * 3, dtype=np.uint8).reshape(8, 16, 3)
    Image.fromarray(pixels).save(file, "JPEG", exif=b"Exif\0\0" + data, **options)
    return io.BytesIO(file.getvalue())


@pytest.mark.parametrize("order", ["<", ">"])
def test_sizes_and_orientation_follow_the_picture_and_nothing_moves(order: str) -> None:
    before = block(order, tail=b"more")
    after = with_size(before, 70_000, 8)
    assert (orientation_of(before), orientation_of(after)) == (6, 1)
    tags, described = tags_of(after)
    assert tags[MAKE] == "the cameras"
    assert (described[PIXEL_WIDTH], described[PIXEL_HEIGHT]) == (70_000, 8)
    assert described[0x927C] == b"note of the maker\0"
    assert len(after) == len(before)
    assert after.find(b"note of the maker") == before.find(b"note of the maker")


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_thumbnail_goes_and_what_it_takes(order: str) -> None:
    small = thumbnail()
    before = block(order, small=small)
    after = without_thumbnail(before)
    assert after == block(order)
    assert not tags_of(after)[0].get_ifd(ExifTags.IFD.IFD1)
    tailed = without_thumbnail(block(order, small=small, tail=b"a maker note elsewhere"))
    assert small[:100] not in tailed
    assert tailed.endswith(b"a maker note elsewhere")
    assert len(tailed) == len(before) + 22


def test_a_thumbnail_that_lies_upon_other_things_is_only_forgotten() -> None:
    before = bytearray(block(small=thumbnail()))
    position = before.find(struct.pack("<HHI", 0x201, 4, 1)) + 8
    struct.pack_into("<I", before, position, 20)
    after = without_thumbnail(bytes(before))
    assert tags_of(after)[0][MAKE] == "the cameras"
    assert not tags_of(after)[0].get_ifd(ExifTags.IFD.IFD1)


@given(st.integers(0, 10_000), st.integers(0, 255), st.integers(0, 10_000), st.integers(0, 400))
def test_a_damaged_block_is_changed_or_a_value_error(
    first: int, value: int, second: int, length: int
) -> None:
    data = bytearray(block(small=thumbnail())[: 900 - length])
    for position in (first, second):
        data[position % len(data)] = value
    for change in (
        without_thumbnail,
        orientation_of,
        resolution_of,
        lambda data: with_size(data, 3, 4),
        lambda data: with_resolution(data, 300, 300),
    ):
        try:
            change(bytes(data))
        except (ValueError, struct.error):
            continue


# --- resolution -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dpi", [(300, 300), (96, 96), (299.72, 150), (1200, 600), (72.4, 72.4)])
@pytest.mark.parametrize("before", [None, block("<"), block(">")])
def test_a_resolution_is_added_without_moving_anything(
    before: bytes | None, dpi: tuple[float, float]
) -> None:
    after = with_resolution(before, *dpi)
    assert after is not None
    assert resolution_of(after) == pytest.approx(dpi, abs=0.001)
    tags, described = tags_of(after)
    assert float(tags[ExifTags.Base.XResolution]) == pytest.approx(dpi[0], abs=0.001)
    assert tags[ExifTags.Base.ResolutionUnit] == 2
    if before is not None:
        assert tags[MAKE] == "the cameras"
        assert described[0x927C] == b"note of the maker\0"
        assert after[8 : len(before)] == before[8:]
    assert with_resolution(after, *dpi) == after


def test_72_dots_per_inch_say_nothing_and_replace_nothing() -> None:
    assert with_resolution(None, 72, 72.009) is None
    known = with_resolution(None, 300, 300)
    assert with_resolution(known, 72, 72) == known
    replaced = with_resolution(known, 600, 600)
    assert replaced is not None
    assert resolution_of(replaced) == (600, 600)


@pytest.mark.parametrize("dpi", [(0, 0), (-1, 2), (float("nan"), 1), (1e9, 1e9), (float("inf"), 1)])
def test_what_is_no_resolution_adds_nothing(dpi: tuple[float, float]) -> None:
    assert with_resolution(None, *dpi) is None


def test_a_resolution_in_centimetres_is_one_in_inches() -> None:
    tags = Image.Exif()
    tags[ExifTags.Base.XResolution] = tags[ExifTags.Base.YResolution] = 100
    tags[ExifTags.Base.ResolutionUnit] = 3
    data = tags.tobytes().removeprefix(b"Exif\0\0")
    assert resolution_of(data) == pytest.approx((254, 254))
    tags[ExifTags.Base.ResolutionUnit] = 1
    assert resolution_of(tags.tobytes().removeprefix(b"Exif\0\0")) is None


@pytest.mark.parametrize("source", ["PNG", "JPEG", "TIFF", "BMP"])
@pytest.mark.parametrize("target", ["png", "jpg", "tif", "bmp", "webp", "avif"])
def test_the_resolution_survives_from_any_format_to_any_other(source: str, target: str) -> None:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, source, dpi=(300, 200))
    decoded = cwic.decode(cwic.encode(io.BytesIO(file.getvalue()), lossless="always"))
    assert decoded.info["dpi"] == (300, 200)
    with Image.open(io.BytesIO(encode_image(decoded, target))) as image:
        if target in ("webp", "avif"):  # in EXIF alone
            tags = image.getexif()
            found = tags[ExifTags.Base.XResolution], tags[ExifTags.Base.YResolution]
        else:
            found = image.info["dpi"]
    assert [round(float(dpi)) for dpi in found] == [300, 200]


def test_a_tiff_that_says_nothing_of_its_resolution_has_none() -> None:
    file = io.BytesIO()
    Image.new("L", (4, 4)).save(file, "TIFF")
    with Image.open(file) as image:
        assert isinstance(image, TiffImagePlugin.TiffImageFile)
    assert "dpi" not in to_pil(read_picture(file)).info


def test_an_image_is_saved_with_the_resolution_that_it_is_given() -> None:
    cwic.register_pillow_plugin()
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "CWIC", dpi=(150, 150))
    with Image.open(file) as image:
        assert image.info["dpi"] == (150, 150)


def test_pixels_that_are_not_square_are_said_to_be_taken_as_square() -> None:
    file = jpeg_of(block(orientation=1))
    data = bytearray(file.getvalue())
    position = data.find(b"JFIF") + 7
    data[position : position + 5] = struct.pack(">BHH", 0, 2, 1)
    with pytest.warns(CodecWarning, match="pixels of 2:1 are taken as square"):
        read_picture(io.BytesIO(data))


# --- files, images and what is made of them -------------------------------------------------------


def test_a_turned_file_comes_with_the_sizes_of_the_upright_picture_and_no_thumbnail() -> None:
    picture = read_picture(jpeg_of(block(small=thumbnail())))
    assert (picture.width, picture.height) == (8, 16)
    tags, described = tags_of(picture.metadata.exif)
    assert tags[ORIENTATION] == 1
    assert (described[PIXEL_WIDTH], described[PIXEL_HEIGHT]) == (8, 16)
    assert picture.metadata.exif == with_size(block(), 8, 16)


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (lambda image: image.rotate(270, expand=True), (8, 16)),
        (lambda image: image.copy(), (16, 8)),
        (lambda image: image.convert("L"), (16, 8)),
        (lambda image: image.crop((0, 0, 5, 4)), (5, 4)),
        (lambda image: image.resize((30, 20)), (30, 20)),
        (ImageOps.exif_transpose, (8, 16)),
    ],
)
def test_an_image_made_of_a_turned_one_is_taken_as_it_stands(make, size: tuple[int, int]) -> None:
    with Image.open(jpeg_of(block(small=thumbnail()))) as image:
        made = make(image)
    picture = read_picture(made)
    assert (picture.width, picture.height) == size
    np.testing.assert_array_equal(picture.pixels, np.asarray(made.convert("RGB")))
    tags, described = tags_of(picture.metadata.exif)
    assert tags.get(ORIENTATION, 1) == 1
    assert (described[PIXEL_WIDTH], described[PIXEL_HEIGHT]) == size


@pytest.mark.parametrize("is_loaded", [False, True])
def test_an_image_as_pillow_opened_it_is_turned(is_loaded: bool) -> None:
    with Image.open(jpeg_of(block())) as image:
        if is_loaded:
            image.load()
        picture = read_picture(image)
    assert (picture.width, picture.height) == (8, 16)


@pytest.mark.parametrize("options", [{"region": (2, 4, 5, 6)}, {"reduce": 2}])
@pytest.mark.parametrize("lossless", ["always", "never"])
def test_a_part_of_a_picture_comes_with_its_own_sizes(
    options: dict[str, object], lossless: str
) -> None:
    decoded = cwic.decode(cwic.encode(jpeg_of(block()), lossless=lossless), **options)  # type: ignore[arg-type]
    _, described = tags_of(decoded.info["exif"])
    assert (described[PIXEL_WIDTH], described[PIXEL_HEIGHT]) == decoded.size
