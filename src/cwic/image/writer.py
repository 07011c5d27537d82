"""Pillow images -> picture files of other formats, at a quality that adds no visible loss.

Owns what each format can hold: transparency, metadata, resolution, profiles of grey samples. What
does not fit is left out with a `CodecWarning`.
"""

import io
import warnings
from typing import Any, NamedTuple

from PIL import ExifTags, Image, PngImagePlugin

from cwic.defaults import MAX_METADATA_BYTES
from cwic.errors import CodecWarning, ImageError, reason
from cwic.image import profiles
from cwic.image.picture import dpi_of

_TIFF_XMP_TAG = 700
_EXIF_DIRECTORIES = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)


def check_format(file_format: str) -> None:
    """Whether pictures can be written in a format; `file_format` as for :func:`encode_image`.

    Raises:
        ImageError: the format is not known.
    """
    name = file_format.lower().removeprefix(".")
    if name not in _FORMATS:
        found = f"picture format {file_format!r}" if name else "no file extension"
        raise ImageError(f"found {found}, expected one of {', '.join(_FORMATS)}")


def encode_image(image: Image.Image, file_format: str) -> bytes:
    """The bytes of a picture file, at a quality that adds no visible loss.

    PNG, TIFF, WebP, PPM and BMP are lossless, JPEG and AVIF are not. ICC, EXIF and XMP in
    `image.info` go along where the format has a place for them.

    Args:
        image: of mode L, LA, RGB or RGBA.
        file_format: a file extension with or without its dot, in any case.

    Raises:
        ImageError: the format is not known, or cannot hold the picture.
    """
    check_format(file_format)
    name = file_format.lower().removeprefix(".")
    known = _FORMATS[name]
    if image.mode in ("LA", "RGBA") and not known.has_alpha:
        if image.getchannel("A").getextrema() != (255, 255):
            warnings.warn(
                f"{known.name} has no transparency: the picture is laid on white",
                CodecWarning,
                stacklevel=2,
            )
        image = on_white(image)
    if name == "pgm" and image.mode != "L":
        raise ImageError("found a picture in colour, expected a grey one: .ppm holds both")
    options = {**known.options, **_metadata(image, known)}
    try:
        return _save(image, known, options)
    except Exception as error:  # Pillow's plugins raise nearly anything
        failure = ImageError(f"cannot encode {known.name}: {reason(error)}")
        failure.__cause__ = error
    if options.pop("exif", None) is None:
        raise failure
    # Formats that take EXIF apart fail on a block that others carry as it is.
    try:
        encoded = _save(image, known, options)
    except Exception:
        raise failure from failure.__cause__
    warnings.warn(f"{known.name} cannot hold this EXIF: it is left out", CodecWarning, stacklevel=2)
    return encoded


def _metadata(image: Image.Image, known: "_Format") -> dict[str, Any]:
    """What goes along, as options of Pillow's `save`."""
    info, options = image.info, dict[str, Any]()
    if known.has_dpi and dpi_of(info) is not None:
        options["dpi"] = dpi_of(info)
    for key in ("icc_profile", "exif", "xmp") if known.has_metadata else ():
        block = info.get(key)
        if not isinstance(block, bytes) or not block:
            continue
        if key == "icc_profile":
            is_grey = known.has_grey and image.mode in ("L", "LA")
            options[key] = profiles.fitted(block, is_grey)
            if options[key] is None:
                warnings.warn(profiles.misfit(block, is_grey), CodecWarning, stacklevel=3)
        elif len(block) > known.max_block_bytes:
            warnings.warn(
                f"{known.name} cannot hold {key.upper()} of {len(block)} bytes: it is left out",
                CodecWarning,
                stacklevel=3,
            )
        elif key == "xmp" and known.name == "PNG":
            chunks = PngImagePlugin.PngInfo()
            chunks.add_itxt("XML:com.adobe.xmp", block.decode("utf-8", "replace"))
            options["pnginfo"] = chunks
        else:
            options[key] = block
    return {name: value for name, value in options.items() if value is not None}


def profile_of_rgb_samples(image: Image.Image) -> bytes | None:
    """The ICC profile of an image for its samples as RGB; None says sRGB, or nothing."""
    profile = image.info.get("icc_profile")
    return profiles.fitted(profile, is_grey=False) if profile else None


class _Format(NamedTuple):
    """A file format that pictures are written in."""

    name: str  # as Pillow calls it
    suffix: str  # a file extension by which Pillow knows it
    options: dict[str, Any]  # for Pillow's `save`
    has_alpha: bool = True
    has_metadata: bool = True
    max_block_bytes: int = MAX_METADATA_BYTES  # of one EXIF or XMP block
    has_grey: bool = True  # whether grey samples are not made RGB
    has_dpi: bool = True  # whether there is a place for the resolution outside of EXIF


# Level 2 takes a third of the time of the default; files of photographs are even smaller.
_PNG = _Format("PNG", ".png", {"compress_level": 2})
# Quality 95 without chroma subsampling. A JPEG segment holds 65535 bytes with its length and, for
# XMP, a name of 29.
_OF_JPEG = {"quality": 95, "subsampling": 0}
_JPEG = _Format("JPEG", ".jpg", _OF_JPEG, has_alpha=False, max_block_bytes=65535 - 2 - 29)
_TIFF = _Format("TIFF", ".tif", {"compression": "tiff_adobe_deflate"})
# `exact` keeps the colour of fully transparent pixels.
_OF_WEBP = {"lossless": True, "exact": True}
_WEBP = _Format("WEBP", ".webp", _OF_WEBP, has_grey=False, has_dpi=False)
_OF_AVIF = {"quality": 95, "subsampling": "4:4:4"}
_AVIF = _Format("AVIF", ".avif", _OF_AVIF, has_grey=False, has_dpi=False)
_PPM = _Format("PPM", ".ppm", {}, has_alpha=False, has_metadata=False, has_dpi=False)
_BMP = _Format("BMP", ".bmp", {}, has_alpha=False, has_metadata=False)
_FORMATS = {
    "png": _PNG,
    "jpg": _JPEG,
    "jpeg": _JPEG,
    "tif": _TIFF,
    "tiff": _TIFF,
    "webp": _WEBP,
    "avif": _AVIF,
    "ppm": _PPM,
    "pgm": _PPM,
    "bmp": _BMP,
}


def _save(image: Image.Image, known: _Format, options: dict[str, Any]) -> bytes:
    """The file that Pillow writes with nothing but these options."""
    options = dict(options)
    if known.name == "TIFF":
        # XMP is a tag here, and Pillow takes tags from one place only.
        tags = Image.Exif()
        tags.load(options.pop("exif", b""))
        xmp = options.pop("xmp", None)
        if xmp is not None:
            tags[_TIFF_XMP_TAG] = xmp
        if tags:
            options["exif"] = tags
        if any(directory in tags for directory in _EXIF_DIRECTORIES):
            # Of a file with directories of EXIF Pillow compresses no samples.
            del options["compression"]
    # Pillow takes some metadata from `info` by itself, also what was left out on purpose. The two
    # share their samples: a copy of a large picture would be the peak of memory.
    image.load()
    plain = image._new(image.im)
    plain.info = {}
    # By a name Pillow loads the one plugin that it takes, by a format five.
    encoded = io.BytesIO()
    encoded.name = f"picture{known.suffix}"
    plain.save(encoded, **options)
    return encoded.getvalue()


def on_white(image: Image.Image) -> Image.Image:
    """LA or RGBA laid on white: L or RGB with the same `info`."""
    flat = Image.new("RGBA", image.size, "white")
    flat.alpha_composite(image.convert("RGBA"))
    flattened = flat.convert("L" if image.mode == "LA" else "RGB")
    flattened.info = image.info
    return flattened
