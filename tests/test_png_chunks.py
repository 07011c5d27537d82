"""What the chunks of a PNG file say of its samples is kept, or a warning says what is lost."""

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin

import cwic
from cwic.errors import CodecWarning
from cwic.image import Mode, Picture, encode_image, read_picture, to_pil

GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
NUM_CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGB_ALPHA: 4}
CHUNK = tuple[bytes, bytes]

P3 = (31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
ADOBE_RGB = (31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)
SRGB = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)


def png(
    samples: list[list[int]] | np.ndarray,
    colour: int,
    depth_bits: int,
    *chunks: CHUNK,
    after: tuple[CHUNK, ...] = (),
) -> io.BytesIO:
    """A PNG of (H, W * channels) samples, with chunks before and after them, by hand."""

    def chunk(name: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)

    rows = np.asarray(samples)
    width = rows.shape[1] // NUM_CHANNELS[colour]
    bits = np.unpackbits(rows.astype(">u2").view(np.uint8).reshape(*rows.shape, 2), axis=2)
    packed = np.packbits(bits[:, :, 16 - depth_bits :].reshape(len(rows), -1), axis=1)
    body = b"".join(b"\0" + row.tobytes() for row in packed)
    header = struct.pack(">IIBBBBB", width, len(rows), depth_bits, colour, 0, 0, 0)
    before = b"".join(chunk(*one) for one in chunks)
    behind = b"".join(chunk(*one) for one in after)
    return io.BytesIO(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before
        + chunk(b"IDAT", zlib.compress(body)) + behind + chunk(b"IEND", b"")
    )  # fmt: skip


def chromaticities(numbers: tuple[int, ...]) -> CHUNK:
    return b"cHRM", struct.pack(">8I", *numbers)


def gamma(number: int) -> CHUNK:
    return b"gAMA", struct.pack(">I", number)


def icc_chunk(profile: bytes) -> CHUNK:
    return b"iCCP", b"name\0\0" + zlib.compress(profile)


def read(file: io.BytesIO, *expected: str) -> Picture:
    """A picture, and that there were these warnings and no others."""
    if not expected:
        return read_picture(file)
    with pytest.warns(CodecWarning) as caught:
        picture = read_picture(file)
    assert len(caught) == len(expected), [str(one.message) for one in caught]
    for warning, text in zip(caught, expected, strict=True):
        assert text in str(warning.message)
    return picture


def as_srgb(picture: Picture) -> np.ndarray:
    """What a reader of the decoded picture shows, by LittleCMS."""
    image = to_pil(picture)
    profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
    shown = ImageCms.profileToProfile(
        image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    return np.asarray(shown)


# --- transparent colours --------------------------------------------------------------------------


@pytest.mark.parametrize("depth_bits", [1, 2, 4, 8])
@pytest.mark.parametrize("unused_bits", [0, 0xFF00])
def test_a_transparent_grey_is_meant_at_the_depth_of_the_file(
    depth_bits: int, unused_bits: int
) -> None:
    top = (1 << depth_bits) - 1
    key = 1 if depth_bits == 1 else top - 1
    for sample in {0, key, top}:
        picture = read(
            png([[sample] * 5], GREY, depth_bits, (b"tRNS", struct.pack(">H", key | unused_bits)))
        )
        assert picture.mode == Mode.LA
        assert picture.alpha is not None
        assert picture.alpha[0, 0] == (0 if sample == key else 255)
        assert picture.pixels[0, 0].tolist() == [round(255 * sample / top)] * 3


def test_a_transparent_colour_of_8_bits_is_that_colour_alone() -> None:
    rows = [[1, 2, 3, 1, 2, 4, 3, 2, 1]]
    picture = read(png(rows, RGB, 8, (b"tRNS", struct.pack(">3H", 1, 2, 3))))
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [[0, 255, 255]]


def test_a_transparent_colour_of_16_bits_is_that_colour_alone() -> None:
    rows = [[0x1200, 0x3400, 0x5600, 0x1200, 0x3400, 0x5601, 0x1201, 0x3400, 0x5600, 9, 9, 9]]
    file = png(rows, RGB, 16, (b"tRNS", struct.pack(">3H", *rows[0][:3])))
    picture = read(file, "8 bits per channel are coded, of 16")
    assert picture.mode == Mode.RGBA
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [[0, 255, 255, 255]]
    assert picture.pixels[0].tolist() == [[0x12, 0x34, 0x56]] * 3 + [[0, 0, 0]]


def test_a_transparent_grey_of_16_bits_is_that_grey_alone() -> None:
    file = png([[500, 501, 499]], GREY, 16, (b"tRNS", struct.pack(">H", 500)))
    picture = read(file, "8 bits per channel are coded, of 16")
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [[0, 255, 255]]


@pytest.mark.parametrize("depth_bits", [1, 2, 4, 8])
def test_the_transparency_of_a_palette_counts_its_entries(depth_bits: int) -> None:
    palette = (b"PLTE", bytes([10, 20, 30, 200, 100, 50]))
    file = png([[0, 1, 1, 0]], PALETTE, depth_bits, palette, (b"tRNS", b"\xff\x40"))
    picture = read(file)
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [[255, 64, 64, 255]]
    assert picture.pixels[0, :2].tolist() == [[10, 20, 30], [200, 100, 50]]


@pytest.mark.parametrize("is_loaded", [False, True])
@pytest.mark.parametrize("is_path", [False, True])
def test_an_image_that_pillow_opened_means_the_same_as_its_file(
    tmp_path: Path, is_loaded: bool, is_path: bool
) -> None:
    file = png([[3, 0, 2]], GREY, 2, (b"tRNS", b"\0\3"))
    path = tmp_path / "grey.png"
    path.write_bytes(file.getvalue())
    with Image.open(path if is_path else file) as image:
        if is_loaded:
            image.load()
        alpha = read_picture(image).alpha
        cwic.register_pillow_plugin()
        saved = io.BytesIO()
        image.save(saved, "CWIC")
    assert alpha is not None
    assert alpha.tolist() == [[0, 255, 255]]
    assert np.asarray(Image.open(saved).getchannel("A")).tolist() == [[0, 255, 255]]


# --- colours --------------------------------------------------------------------------------------

GREYS = np.repeat(np.array([[0, 64, 128, 192, 255]]), 3, axis=1)


def expected_of_gamma(exponent: float) -> np.ndarray:
    light = (GREYS[0, ::3] / 255) ** exponent
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return 255 * encoded


@pytest.mark.parametrize(("colour", "space"), [(RGB, b"RGB "), (GREY, b"GRAY"), (PALETTE, b"RGB ")])
@pytest.mark.parametrize("number", [100_000, 55_556, 35_000])
def test_a_gamma_becomes_a_profile_of_its_curve(colour: int, space: bytes, number: int) -> None:
    if colour == PALETTE:
        chunks = (gamma(number), (b"PLTE", GREYS.astype(np.uint8).tobytes()))
        file = png([[0, 1, 2, 3, 4]], PALETTE, 8, *chunks)
    else:
        rows = GREYS if colour == RGB else GREYS[:, ::3]
        file = png(rows, colour, 8, gamma(number))
    picture = read(file)
    assert picture.metadata.icc is not None
    assert picture.metadata.icc[16:20] == space
    assert picture.pixels[0, :, 0].tolist() == GREYS[0, ::3].tolist()
    shown = as_srgb(picture)[0, :, 0]
    assert np.abs(shown - expected_of_gamma(100_000 / number)).max() <= 1.5


@pytest.mark.parametrize(
    "chunks",
    [
        (gamma(45_455),),
        (gamma(45_000), chromaticities(SRGB)),
        (chromaticities(SRGB),),
        ((b"sRGB", b"\0"), gamma(100_000), chromaticities(P3)),
        ((b"cICP", b"\1\x0d\0\1"), gamma(100_000), chromaticities(P3)),
    ],
)
def test_what_says_srgb_needs_no_profile(chunks: tuple[CHUNK, ...]) -> None:
    assert read(png(GREYS, RGB, 8, *chunks)).metadata.icc is None


def test_chromaticities_become_a_profile_of_these_primaries() -> None:
    # Adobe RGB's red is sRGB's, its green is beyond; what is worked out here is by hand.
    rows = np.array([[128, 128, 128, 255, 0, 0, 90, 200, 90]])
    shown = as_srgb(read(png(rows, RGB, 8, gamma(45_470), chromaticities(ADOBE_RGB))))[0]
    assert np.abs(shown[0].astype(int) - 128).max() <= 1
    to_xyz = np.array(
        [[0.57667, 0.18556, 0.18823], [0.29734, 0.62736, 0.07529], [0.02703, 0.07069, 0.99134]]
    )
    from_xyz = np.array(
        [[3.24045, -1.53714, -0.49853], [-0.96927, 1.87601, 0.04156], [0.05564, -0.20403, 1.05723]]
    )
    light = np.clip(from_xyz @ to_xyz @ (rows.reshape(3, 3)[2] / 255) ** 2.2, 0, 1)
    encoded = 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(shown[2] - encoded).max() <= 2


def test_grey_has_no_use_for_chromaticities() -> None:
    assert read(png([[9]], GREY, 8, chromaticities(P3))).metadata.icc is None


def test_chunks_count_in_the_order_of_the_specification() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    p3 = read(png(GREYS, RGB, 8, (b"cICP", b"\x0c\x0d\0\1"))).metadata.icc
    assert p3 is not None
    everything = (icc_chunk(srgb), gamma(100_000), chromaticities(ADOBE_RGB))
    picture = read(png(GREYS, RGB, 8, (b"cICP", b"\x0c\x0d\0\1"), *everything))
    assert picture.metadata.icc == p3
    assert read(png(GREYS, RGB, 8, *everything)).metadata.icc == srgb


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_hdr_is_named_and_its_code_points_go_into_the_profile(transfer: int, name: str) -> None:
    file = png(GREYS, RGB, 8, (b"cICP", bytes([9, transfer, 0, 1])))
    picture = read(file, f"its samples are {name} (HDR)")
    assert picture.metadata.icc is not None
    assert b"cicp\0\0\0\0" + bytes([9, transfer, 0, 1]) in picture.metadata.icc
    assert picture.pixels[0, :, 0].tolist() == GREYS[0, ::3].tolist()
    # Paper white is at 58 percent of PQ and 75 percent of HLG.
    white = {16: 148, 18: 191}[transfer]
    levels = np.repeat([[0, white // 2, white - 1, white + 2, 255]], 3, axis=1)
    file = png(levels, RGB, 8, (b"cICP", bytes([9, transfer, 0, 1])))
    shown = as_srgb(read(file, name))[0, :, 1]
    assert shown[0] == 0
    assert 10 < shown[1] < 120
    assert 245 < shown[2] <= 255
    assert shown[3] == shown[4] == 255


def test_samples_of_narrow_range_are_stretched_and_alpha_is_not() -> None:
    rows = [[16, 16, 16, 16, 235, 235, 235, 235, 126, 16, 0, 255]]
    file = png(rows, RGB_ALPHA, 8, (b"cICP", b"\1\x0d\0\0"))
    picture = read(file, "16 to 235 (cICP) and are stretched")
    assert picture.pixels[0].tolist() == [[0, 0, 0], [255, 255, 255], [128, 0, 0]]
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [[16, 235, 255]]


@pytest.mark.parametrize(
    ("chunk", "warning"),
    [
        ((b"cICP", b"\x02\x02\0\1"), "its colours (cICP 2, 2) are not known"),
        ((b"cICP", b"\x09\x10\x09\1"), "matrix coefficients 9 (cICP)"),
        (gamma(0), "gamma of 0 (gAMA)"),
        (chromaticities((0,) * 8), "primary colours (cHRM)"),
        (chromaticities((31270, 32900) + (64000, 33000) * 3), "primary colours (cHRM)"),
        ((b"iCCP", b"name\0\0no zlib"), "damaged ICC profile"),
    ],
)
def test_what_cannot_be_is_left_out_with_a_warning(chunk: CHUNK, warning: str) -> None:
    assert read(png(GREYS, RGB, 8, chunk), warning).metadata.icc is None


@given(
    st.lists(st.integers(0, 2**32 - 1) | st.integers(0, 100_000), min_size=8, max_size=8),
    st.integers(0, 2**32 - 1) | st.integers(0, 200_000),
    st.binary(min_size=4, max_size=4),
    st.integers(0, 7),
)
def test_any_numbers_become_a_valid_profile_or_a_warning(
    numbers: list[int], exponent: int, codes: bytes, which: int
) -> None:
    every = (chromaticities(tuple(numbers)), gamma(exponent), (b"cICP", codes))
    chunks = [chunk for place, chunk in enumerate(every) if which >> place & 1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CodecWarning)
        profile = read_picture(png(GREYS, RGB, 8, *chunks)).metadata.icc
    if profile is not None:
        assert ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.xcolor_space == "RGB "


def test_an_image_made_of_a_file_keeps_what_its_samples_mean() -> None:
    with Image.open(png(np.tile(GREYS, (8, 2)), RGB, 8, gamma(100_000))) as image:
        profile = read_picture(image.resize((4, 4))).metadata.icc
    assert profile is not None
    assert b"para" in profile


# --- chunks that Pillow refuses -------------------------------------------------------------------


@pytest.mark.parametrize("is_after", [False, True])
@pytest.mark.parametrize(
    ("name", "head"), [(b"zTXt", b"Comment\0\0"), (b"iTXt", b"Comment\0\1\0en\0Comment\0")]
)
def test_a_large_text_costs_the_text_and_not_the_picture(
    name: bytes, head: bytes, is_after: bool
) -> None:
    large = (name, head + zlib.compress(bytes(3 * 2**20)))
    small = (b"tEXt", b"Title\0a picture")
    chunks = (small,) if is_after else (small, large)
    file = png(GREYS, RGB, 8, *chunks, after=(large,) if is_after else ())
    with pytest.raises(ValueError, match="MAX_TEXT_CHUNK"):
        Image.open(file).load()
    picture = read(file, f"its chunk {name.decode()} is too large and left out")
    assert picture.pixels[0, :, 0].tolist() == GREYS[0, ::3].tolist()


def test_an_icc_profile_too_large_for_pillow_is_kept() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = srgb + bytes(2 * 2**20)
    assert read(png(GREYS, RGB, 8, icc_chunk(profile))).metadata.icc == profile
    file = png(GREYS, RGB, 8, icc_chunk(bytes(17 * 2**20)))
    picture = read(file, "its chunk iCCP is too large and left out")
    assert picture.metadata.icc is None


def test_many_texts_cost_the_later_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_MEMORY", 1000)
    text = (b"tEXt", b"Comment\0" + b"x" * 400)
    picture = read(png(GREYS, RGB, 8, text, text, text), "its chunk tEXt is too large")
    assert picture.width == 5


def test_a_profile_of_a_png_comes_back_in_a_png() -> None:
    source = read(png(GREYS, RGB, 8, gamma(100_000)))
    again = read_picture(io.BytesIO(encode_image(to_pil(source), "png")))
    assert again.metadata.icc == source.metadata.icc
