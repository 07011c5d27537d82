"""A profile is one of the samples that it is with, going in and coming out."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

import cwic
from cwic.errors import CodecWarning
from cwic.image import Metadata, Mode, Picture, encode_image, read_picture, to_pil
from cwic.image.profiles import (
    SRGB_PRIMARIES,
    Cicp,
    Primaries,
    fitted,
    gamma_curve,
    profile_of_cicp,
    profile_of_grey,
    profile_of_rgb,
    srgb_curve,
)

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GREY_18 = profile_of_grey(gamma_curve(1.8))


def of_space(space: bytes, kind: bytes = b"prtr") -> bytes:
    """A profile of which nothing is known but what it is about."""
    return (bytes(12) + kind + space + b"Lab " + bytes(12) + b"acsp").ljust(132, b"\0")


def shown(profile: bytes, pixels: np.ndarray) -> np.ndarray:
    converted = ImageCms.profileToProfile(
        Image.fromarray(pixels), ImageCms.ImageCmsProfile(io.BytesIO(profile)),
        ImageCms.createProfile("sRGB"), outputMode="RGB",
    )  # fmt: skip
    return np.asarray(converted).astype(int)


def space_of(data: bytes | None) -> bytes | None:
    return None if data is None else data[16:20]


def test_the_profile_of_srgb_changes_nothing() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 30, 3), dtype=np.uint8)
    profile = profile_of_rgb(SRGB_PRIMARIES, srgb_curve())
    assert np.abs(shown(profile, pixels) - pixels).max() <= 1
    assert np.abs(shown(profile, pixels) - shown(SRGB, pixels)).max() <= 1


@pytest.mark.parametrize("primaries", [1, 4, 5, 6, 7, 9, 11, 12])
@pytest.mark.parametrize("transfer", [1, 4, 5, 6, 8, 13, 14, 15, 16, 17, 18])
def test_every_known_code_point_makes_a_valid_profile_with_a_neutral_axis(
    primaries: int, transfer: int
) -> None:
    profile = profile_of_cicp(Cicp(primaries, transfer, 0, True), is_grey=False)
    assert profile is not None
    assert struct.unpack(">I", profile[:4]) == (len(profile),)
    found = ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile
    assert (found.xcolor_space.strip(), found.connection_space.strip()) == ("RGB", "XYZ")
    greys = np.repeat(np.arange(0, 256, 5, dtype=np.uint8)[None, :, None], 3, axis=2)
    levels = shown(profile, greys)[0]
    assert np.ptp(levels, axis=1).max() <= 1
    assert (np.diff(levels[:, 1]) >= 0).all()
    assert (levels[0, 1], levels[-1, 1]) == (0, 255)


@pytest.mark.parametrize(("primaries", "transfer"), [(2, 13), (22, 1), (0, 1), (1, 2), (9, 9)])
def test_other_code_points_make_none(primaries: int, transfer: int) -> None:
    assert profile_of_cicp(Cicp(primaries, transfer, 0, True), is_grey=False) is None


def test_colours_that_cannot_be_are_a_value_error() -> None:
    for red in ((0.3, 0.6), (0.1, 0.0), (float("nan"), 0.3)):
        with pytest.raises(ValueError, match="expected"):
            profile_of_rgb(Primaries((0.3127, 0.329), red, (0.3, 0.6), (0.15, 0.06)), srgb_curve())


def test_grey_and_neutral_rgb_look_the_same_under_the_profile_of_either() -> None:
    levels = np.arange(0, 256, 3, dtype=np.uint8)[None]
    neutral = np.repeat(levels[..., None], 3, axis=2)
    as_rgb = fitted(GREY_18, is_grey=False)
    assert as_rgb is not None
    assert space_of(as_rgb) == b"RGB "
    assert np.abs(shown(as_rgb, neutral) - shown(GREY_18, levels)).max() <= 1
    as_grey = fitted(as_rgb, is_grey=True)
    assert as_grey == GREY_18
    of_srgb = fitted(SRGB, is_grey=True)
    assert of_srgb is not None
    assert space_of(of_srgb) == b"GRAY"
    assert np.abs(shown(of_srgb, levels) - neutral).max() <= 1


@pytest.mark.parametrize("is_grey", [False, True])
@pytest.mark.parametrize(
    "profile", [of_space(b"CMYK"), of_space(b"Lab "), of_space(b"RGB ", b"link")]
)
def test_a_profile_of_other_colours_fits_nothing(profile: bytes, is_grey: bool) -> None:
    assert fitted(profile, is_grey) is None


def test_a_profile_that_fits_or_that_nobody_knows_stays_as_it_is() -> None:
    for profile in (SRGB, b"", b"unknown", bytes(1000)):
        assert fitted(profile, is_grey=False) == profile
    assert fitted(GREY_18, is_grey=True) == GREY_18


@pytest.mark.parametrize("length", [132, 140, 200, 300])
def test_a_truncated_profile_does_no_harm(length: int) -> None:
    assert fitted(GREY_18[:length], is_grey=False) is None or length >= len(GREY_18)


# --- with pictures --------------------------------------------------------------------------------


def grey_jpeg(profile: bytes | None = GREY_18) -> Image.Image:
    file = io.BytesIO()
    levels = np.add.outer(np.arange(40), np.arange(56)).astype(np.uint8) * 2
    Image.fromarray(levels).save(file, "JPEG", quality=95, icc_profile=profile)
    return Image.open(io.BytesIO(file.getvalue()))


def test_grey_goes_in_with_its_profile_and_comes_out_with_one_that_fits() -> None:
    data = cwic.encode(grey_jpeg())
    decoded = cwic.decode(data)
    assert (decoded.mode, decoded.info["icc_profile"]) == ("L", GREY_18)
    for extension, mode, space in (
        ("png", "L", b"GRAY"),
        ("tif", "L", b"GRAY"),
        ("jpg", "L", b"GRAY"),
        ("webp", "RGB", b"RGB "),
        ("avif", "RGB", b"RGB "),
    ):
        with Image.open(io.BytesIO(encode_image(decoded, extension))) as image:
            assert (image.mode, space_of(image.info["icc_profile"])) == (mode, space)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_grey_that_was_converted_in_memory_gets_the_profile_of_its_new_samples(mode: str) -> None:
    image = grey_jpeg().convert(mode)
    assert space_of(image.info["icc_profile"]) == b"GRAY"
    assert space_of(read_picture(image).metadata.icc) == b"RGB "
    assert encode_image(image.convert("RGB"), "png").count(b"iCCP") == 1
    with Image.open(io.BytesIO(encode_image(image.convert("RGB"), "png"))) as again:
        assert space_of(again.info["icc_profile"]) == b"RGB "


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_colour_that_was_made_grey_gets_the_profile_of_grey(mode: str) -> None:
    image = Image.new("RGB", (8, 8), (200, 90, 10))
    image.info["icc_profile"] = SRGB
    assert space_of(read_picture(image.convert(mode)).metadata.icc) == b"GRAY"


def test_a_profile_of_inks_never_stays_with_rgb() -> None:
    image = Image.new("RGB", (8, 8), (200, 90, 10))
    image.info["icc_profile"] = of_space(b"CMYK")
    with pytest.warns(CodecWarning, match="its ICC profile of CMYK says nothing of RGB samples"):
        assert read_picture(image).metadata.icc is None
    with pytest.warns(CodecWarning, match="CMYK says nothing of RGB"):
        data = encode_image(image, "png")
    assert "icc_profile" not in Image.open(io.BytesIO(data)).info


def test_inks_with_a_profile_of_rgb_are_converted_without_it() -> None:
    file = io.BytesIO()
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(file, "TIFF", icc_profile=SRGB)
    with pytest.warns(CodecWarning, match="its CMYK profile cannot be used"):
        picture = read_picture(file)
    assert picture.metadata.icc is None
    assert picture.pixels[0, 0].tolist() == [255, 0, 0]


def test_a_file_that_holds_a_profile_of_other_samples_is_decoded_without_it() -> None:
    pixels = np.full((8, 8, 3), 90, np.uint8)
    for profile, space in ((of_space(b"CMYK"), None), (GREY_18, b"RGB ")):
        image = to_pil(Picture(pixels, mode=Mode.NEUTRAL_RGB, metadata=Metadata(icc=profile)))
        assert space_of(image.info.get("icc_profile")) == space
