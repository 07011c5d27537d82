"""Files, Pillow images and arrays <-> `Picture`: RGB samples, an optional alpha plane, metadata.

Owns what a picture is before and after the codec: colour modes, bit depths, orientation, metadata,
the file formats of others, and padding. Leaves the coding of the alpha plane to `alpha_plane`, the
.cwic container to `bitstream`, and the meaning of `-` for standard input and output to the command.

Whatever Pillow raises on a bad file becomes an `ImageError` that names the file. What is lost on
the way in (bits beyond eight, frames beyond the first, damaged metadata) is said in a
`CodecWarning`.
"""

import contextlib
import io
import os
import re
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, PngImagePlugin, UnidentifiedImageError

from cwic.atomic_file import write_file
from cwic.defaults import MAX_METADATA_BYTES, MAX_PIXELS
from cwic.errors import CodecWarning, ImageError, reason

__all__ = [
    "Metadata",
    "Mode",
    "Picture",
    "Source",
    "as_shown",
    "crop",
    "encode_image",
    "pad_to_multiple",
    "read_picture",
    "save_image",
    "to_pil",
]

_Sample = TypeVar("_Sample", bound=np.generic)

Source = str | os.PathLike[str] | BinaryIO | Image.Image | NDArray[Any]


class Mode(IntEnum):
    """Colour mode of a picture, as it is stored in a .cwic file."""

    RGB = 0
    L = 1
    RGBA = 2
    LA = 3
    NEUTRAL_RGB = 4  # RGB whose channels are equal everywhere: coded as grey, and comes back so
    NEUTRAL_RGBA = 5

    @property
    def has_alpha(self) -> bool:
        """Whether pictures of this mode carry an alpha plane."""
        return self in (Mode.RGBA, Mode.LA, Mode.NEUTRAL_RGBA)

    @property
    def is_grey(self) -> bool:
        """Whether the channels of a decoded picture are made equal."""
        return self not in (Mode.RGB, Mode.RGBA)

    @property
    def pil_name(self) -> str:
        """Of Pillow's mode that a picture comes back in."""
        return self.name.removeprefix("NEUTRAL_")


@dataclass(frozen=True)
class Metadata:
    """What travels with the samples.

    Attributes:
        icc: ICC profile, or None.
        exif: EXIF block from its TIFF header on, without the marker "Exif" that JPEG puts before
            it, or None. Its orientation is upright.
        xmp: XMP packet, or None.
    """

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None

    def as_pil_info(self) -> dict[str, bytes]:
        """What is there, under the names and in the form of Pillow's readers."""
        exif = None if self.exif is None else _EXIF_MARKER + self.exif
        blocks = {"icc_profile": self.icc, "exif": exif, "xmp": self.xmp}
        return {name: block for name, block in blocks.items() if block is not None}


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture as the codec sees it.

    Attributes:
        pixels: (H, W, 3) uint8 RGB; three equal channels if the mode is grey. May be read-only.
        alpha: (H, W) uint8, 0 transparent to 255 opaque; present exactly if the mode has it.
        mode: what the source was and what `to_pil` returns to.
        metadata: what travels with the samples.
    """

    pixels: NDArray[np.uint8]
    alpha: NDArray[np.uint8] | None = None
    mode: Mode = Mode.RGB
    metadata: Metadata = Metadata()

    def __post_init__(self) -> None:
        assert self.pixels.ndim == 3, self.pixels.shape
        assert self.pixels.shape[2] == 3, self.pixels.shape
        assert self.pixels.dtype == np.uint8, self.pixels.dtype
        assert (self.alpha is not None) == self.mode.has_alpha, self.mode
        if self.alpha is not None:
            assert self.alpha.shape == self.pixels.shape[:2], self.alpha.shape
            assert self.alpha.dtype == np.uint8, self.alpha.dtype

    @property
    def width(self) -> int:
        """In pixels."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """In pixels."""
        return int(self.pixels.shape[0])


def read_picture(
    source: Source, *, keep_metadata: bool = True, max_pixels: int = MAX_PIXELS
) -> Picture:
    """Takes whatever a user has.

    A file or Pillow image may be of any mode Pillow knows: palettes are resolved, CMYK goes through
    its embedded profile where it has one, the EXIF orientation is applied, and of several frames
    the current one is taken (the first of a file).

    Arrays are (H, W) or (H, W, 1) grey, (H, W, 2) grey and alpha, (H, W, 3) RGB, (H, W, 4) RGBA; of
    dtype uint8, uint16, bool (black and white) or float in [0, 1].

    Args:
        source: a path, a binary file object, a Pillow image or an array.
        keep_metadata: whether ICC, EXIF and XMP are kept.
        max_pixels: width times height beyond which a picture is refused before it is decoded.
            Files are under Pillow's own limit as well (`PIL.Image.MAX_IMAGE_PIXELS`).

    Returns:
        The picture. Its samples may share memory with an array that was passed.

    Raises:
        ImageError: the picture cannot be read, or its kind is not supported.
    """
    notes: list[str] = []
    if isinstance(source, np.ndarray):
        picture = _from_array(source, max_pixels, notes)
    elif isinstance(source, Image.Image):
        with _naming_failures(_name_of(source)):
            picture = _from_pil(source, keep_metadata, max_pixels, notes)
    elif isinstance(source, str | os.PathLike):
        with _open_path(source) as file:
            picture = _from_file(file, keep_metadata, max_pixels, notes)
    elif hasattr(source, "read"):
        picture = _from_file(source, keep_metadata, max_pixels, notes)
    else:
        raise ImageError(
            f"found {type(source).__name__}, expected a path, a binary file, a Pillow image or an "
            "array"
        )
    for note in notes:
        warnings.warn(f"{_name_of(source)}: {note}", CodecWarning, stacklevel=2)
    return picture


def to_pil(picture: Picture) -> Image.Image:
    """A Pillow image of the picture's own mode.

    Grey is the rounded luma 0.299 R + 0.587 G + 0.114 B, so three equal channels give themselves.

    Args:
        picture: what to convert.

    Returns:
        The image; metadata is in `info` as Pillow's readers put it there, where `encode_image` and
        `save_image` find it.
    """
    image = Image.fromarray(as_shown(picture.pixels, picture.mode))
    if picture.mode in (Mode.L, Mode.LA):
        image = image.convert("L")
    if picture.alpha is not None:
        alpha = Image.fromarray(np.ascontiguousarray(picture.alpha))
        image = Image.merge(picture.mode.pil_name, (*image.split(), alpha))
    image.info.update(picture.metadata.as_pil_info())
    return image


def as_shown(pixels: NDArray[np.uint8], mode: Mode) -> NDArray[np.uint8]:
    """(H, W, 3) of a network as the mode shows it: three equal channels if it is grey."""
    pixels = np.ascontiguousarray(pixels)
    if not mode.is_grey:
        return pixels
    return np.asarray(Image.fromarray(pixels).convert("L").convert("RGB"))


def save_image(
    image: Image.Image, target: str | os.PathLike[str], *, file_format: str | None = None
) -> None:
    """Writes a picture file in one step, at a quality that adds no visible loss.

    Args:
        image: of mode L, LA, RGB or RGBA.
        target: where to write.
        file_format: as in `encode_image`; by default the extension of `target`.

    Raises:
        ImageError: the format is not known, or cannot hold the picture.
        CodecError: the file cannot be written.
    """
    write_file(target, encode_image(image, file_format or Path(target).suffix))


def encode_image(image: Image.Image, file_format: str) -> bytes:
    """The bytes of a picture file, at a quality that adds no visible loss.

    PNG, TIFF, WebP, PPM and BMP are lossless, JPEG and AVIF are not. ICC, EXIF and XMP in
    `image.info` go along where the format has a place for them.

    Args:
        image: of mode L, LA, RGB or RGBA.
        file_format: a file extension with or without its dot, in any case.

    Returns:
        The file.

    Raises:
        ImageError: the format is not known, or cannot hold the picture.
    """
    name = file_format.lower().removeprefix(".")
    known = _FORMATS.get(name)
    if known is None:
        found = f"picture format {file_format!r}" if name else "no file extension"
        raise ImageError(f"found {found}, expected one of {', '.join(_FORMATS)}")
    if image.mode in ("LA", "RGBA") and not known.has_alpha:
        warnings.warn(
            f"{known.name} has no transparency: the picture is laid on white",
            CodecWarning,
            stacklevel=2,
        )
        image = _on_white(image)
    options = dict(known.options)
    info = image.info
    metadata = {
        "icc_profile": info.get("icc_profile"),
        "exif": info.get("exif"),
        "xmp": info.get("xmp"),
    }
    for key, block in metadata.items():
        if not isinstance(block, bytes) or not block or not known.has_metadata:
            continue
        if key != "icc_profile" and len(block) > known.max_block_bytes:
            warnings.warn(
                f"{known.name} cannot hold {key.upper()} of {len(block)} bytes: it is left out",
                CodecWarning,
                stacklevel=2,
            )
        elif key == "xmp" and known.name == "PNG":
            chunks = PngImagePlugin.PngInfo()
            chunks.add_itxt("XML:com.adobe.xmp", block.decode("utf-8", "replace"))
            options["pnginfo"] = chunks
        else:
            options[key] = block
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


def pad_to_multiple(pixels: NDArray[_Sample], multiple: int) -> NDArray[_Sample]:
    """Repeats the last column and row until both sides are multiples; `crop` is the inverse.

    Args:
        pixels: (H, W) or (H, W, C), H and W >= 1.
        multiple: in pixels, >= 1.

    Returns:
        Same dtype and number of axes; `pixels` itself if it fits already.
    """
    height, width = pixels.shape[:2]
    bottom, right = -height % multiple, -width % multiple
    if not bottom and not right:
        return pixels
    return np.pad(pixels, [(0, bottom), (0, right)] + [(0, 0)] * (pixels.ndim - 2), mode="edge")


def crop(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """The upper left part of a picture.

    Args:
        pixels: (H, W) or (H, W, C) uint8.
        width: in pixels, in [1, W].
        height: in pixels, in [1, H].

    Returns:
        A view of (height, width) or (height, width, C) uint8.
    """
    assert 1 <= height <= pixels.shape[0], (pixels.shape, height)
    assert 1 <= width <= pixels.shape[1], (pixels.shape, width)
    return pixels[:height, :width]


class _Format(NamedTuple):
    """A file format that pictures are written in."""

    name: str
    """As Pillow calls it."""
    suffix: str
    """A file extension by which Pillow knows it."""
    options: dict[str, Any]
    """For Pillow's `save`."""
    has_alpha: bool
    has_metadata: bool
    max_block_bytes: int = MAX_METADATA_BYTES
    """Of one EXIF or XMP block."""


# Level 2 takes a third of the time of the default; files of photographs are even smaller.
_PNG = _Format("PNG", ".png", {"compress_level": 2}, has_alpha=True, has_metadata=True)
# Quality 95 without chroma subsampling. A JPEG segment holds 65535 bytes with its length and, for
# XMP, a name of 29.
_JPEG = _Format("JPEG", ".jpg", {"quality": 95, "subsampling": 0}, False, True, 65535 - 2 - 29)
_TIFF = _Format(
    "TIFF", ".tif", {"compression": "tiff_adobe_deflate"}, has_alpha=True, has_metadata=True
)
# `exact` keeps the colour of fully transparent pixels.
_WEBP = _Format(
    "WEBP", ".webp", {"lossless": True, "exact": True}, has_alpha=True, has_metadata=True
)
_AVIF = _Format(
    "AVIF", ".avif", {"quality": 95, "subsampling": "4:4:4"}, has_alpha=True, has_metadata=True
)
_PPM = _Format("PPM", ".ppm", {}, has_alpha=False, has_metadata=False)
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

_TIFF_XMP_TAG = 700
_EXIF_MARKER = b"Exif\0\0"
_ORIENTATION = ExifTags.Base.Orientation
_UPRIGHT = 1
# How to make a picture of each orientation upright.
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_XMP_ORIENTATION = re.compile(rb'(<tiff:Orientation>|tiff:Orientation=")[2-8]')
# A TIFF file keeps its EXIF among the tags that describe its own layout; these are not layout.
_DESCRIPTIVE_TAGS = (
    ExifTags.Base.ImageDescription,
    ExifTags.Base.Make,
    ExifTags.Base.Model,
    ExifTags.Base.Software,
    ExifTags.Base.DateTime,
    ExifTags.Base.Artist,
    ExifTags.Base.Copyright,
)
_DESCRIPTIVE_IFDS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)

_EIGHT_BITS = "8 bits per channel are coded, of"


def _name_of(source: Source) -> str:
    """How messages call the source."""
    if isinstance(source, np.ndarray):
        return "array"
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "") or "Pillow image")
    if isinstance(source, str | os.PathLike):
        return os.fsdecode(source)
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else "picture"


@contextlib.contextmanager
def _naming_failures(name: str) -> Iterator[None]:
    """Turns whatever is raised inside into an `ImageError` about `name`."""
    try:
        yield
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error.__cause__
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: found no picture in a format that Pillow reads") from error
    except Exception as error:
        # The readers of damaged files raise OSError, SyntaxError, ValueError, struct.error,
        # ZeroDivisionError, DecompressionBombError and more; Pillow lists them nowhere.
        raise ImageError(f"cannot read {name}: {reason(error)}") from error


def _open_path(path: str | os.PathLike[str]) -> BinaryIO:
    name = _name_of(path)
    try:
        return open(path, "rb")
    except FileNotFoundError as error:
        raise ImageError(f"no such file: {name}") from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise ImageError(f"cannot read {name}: {reason(error)}") from error


def _from_file(file: BinaryIO, keep_metadata: bool, max_pixels: int, notes: list[str]) -> Picture:
    with _naming_failures(_name_of(file)):
        if not file.seekable():
            file = io.BytesIO(file.read())
        with warnings.catch_warnings():
            # Our own limit is an error, and stands in the same place as Pillow's.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(file)
        with image:
            return _from_pil(image, keep_metadata, max_pixels, notes)


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if not width or not height:
        raise ImageError(f"found a picture of {width}x{height} pixels, expected at least 1x1")
    if width * height > max_pixels:
        raise ImageError(
            f"found a picture of {width}x{height} = {width * height} pixels, "
            f"expected at most {max_pixels}"
        )


def _from_pil(
    image: Image.Image, keep_metadata: bool, max_pixels: int, notes: list[str]
) -> Picture:
    _check_size(image.width, image.height, max_pixels)
    # Multi-picture JPEG is what many phones write: the further frames are previews, not animation.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        frames = getattr(image, "n_frames", "several")
        notes.append(f"only frame {image.tell() + 1} of {frames} is coded")
    is_deep_colour = _is_deep(image)
    image.load()
    metadata, orientation = _metadata(image, notes)
    if orientation in _TRANSPOSITIONS:
        image = image.transpose(_TRANSPOSITIONS[orientation])

    if image.mode in ("CMYK", "LAB"):
        image = _to_srgb(image, notes)
        metadata = Metadata(None, metadata.exif, metadata.xmp)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        samples = np.asarray(image)
        channels = _to_8_bits(_to_16_bits(samples) if image.mode == "I" else samples, notes)
        transparent = image.info.get("transparency")  # a sample of 16 bits
        if isinstance(transparent, int):
            alpha = np.where(samples == transparent, np.uint8(0), np.uint8(255))
            channels = np.stack([channels, alpha], axis=2)
    else:
        channels = np.asarray(image.convert(_mode_to_read(image)))
        if is_deep_colour:
            notes.append(f"{_EIGHT_BITS} 16")
    return _from_channels(channels, metadata if keep_metadata else Metadata())


def _is_deep(image: Image.Image) -> bool:
    """Whether an image that is not loaded yet has samples of more than 8 bits in its file.

    Pillow's readers have no mode for colour of 16 bits, and take the upper byte.
    """
    for tile in getattr(image, "tile", ()):
        if ";16" in str(tile):
            return True
        # PPM: the largest sample.
        if tile[0].startswith("ppm") and isinstance(tile[3], tuple) and tile[3][-1] > 255:
            return True
    return False


def _mode_to_read(image: Image.Image) -> str:
    """Which of L, LA, RGB and RGBA holds the image without loss."""
    if image.mode in ("1", "L", "LA", "La"):
        return "LA" if image.has_transparency_data else "L"
    return "RGBA" if image.has_transparency_data else "RGB"


def _to_srgb(image: Image.Image, notes: list[str]) -> Image.Image:
    """CMYK or Lab to RGB; through the embedded profile of CMYK, since its inks mean little else."""
    profile = image.info.get("icc_profile")
    if image.mode == "CMYK" and profile:
        from PIL import ImageCms  # rarely needed, and a library of its own

        try:
            converted = ImageCms.profileToProfile(
                image,
                ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                ImageCms.createProfile("sRGB"),
                outputMode="RGB",
            )
        except (ImageCms.PyCMSError, OSError, TypeError, ValueError) as error:
            notes.append(f"its CMYK profile cannot be used: {reason(error)}")
        else:
            assert converted is not None  # only `inPlace=True` returns nothing
            return converted
    return image.convert("RGB")


def _from_array(array: NDArray[Any], max_pixels: int, notes: list[str]) -> Picture:
    if array.ndim not in (2, 3) or (array.ndim == 3 and not 1 <= array.shape[2] <= 4):
        raise ImageError(
            f"found an array of shape {array.shape}, expected (H, W) or (H, W, C) with C from 1 to "
            "4"
        )
    _check_size(array.shape[1], array.shape[0], max_pixels)
    return _from_channels(_to_8_bits(array, notes), Metadata())


def _to_8_bits(array: NDArray[Any], notes: list[str]) -> NDArray[np.uint8]:
    """Samples of any supported dtype, rounded to uint8 of the same shape."""
    dtype = array.dtype
    if dtype == np.uint8:
        return np.asarray(array, np.uint8)
    if dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if dtype.kind == "f":
        if not np.isfinite(array).all():
            raise ImageError("found samples that are NaN or infinite, expected 0 to 1")
        if array.min() < 0 or array.max() > 1:
            raise ImageError(
                f"found {dtype} samples from {array.min()} to {array.max()}, expected 0 to 1"
            )
        notes.append(f"{_EIGHT_BITS} {dtype.name}")
        scaled: NDArray[np.float32] = array.astype(np.float32) * np.float32(255)
        return np.rint(scaled).astype(np.uint8)
    if dtype.kind != "u" or dtype.itemsize != 2:
        raise ImageError(f"found samples of {dtype}, expected uint8, uint16, bool or float")
    notes.append(f"{_EIGHT_BITS} 16")
    # Exactly round(255 * sample / 65535).
    wide: NDArray[np.uint32] = array.astype(np.uint32)
    return ((wide * np.uint32(255) + np.uint32(32767)) // np.uint32(65535)).astype(np.uint8)


def _to_16_bits(array: NDArray[np.int32]) -> NDArray[np.uint16]:
    """Samples of Pillow's mode I, which its readers fill with 16-bit values."""
    if array.min() < 0 or array.max() > 65535:
        raise ImageError(
            f"found integer samples from {array.min()} to {array.max()}, expected 0 to 65535"
        )
    return array.astype(np.uint16)


def _from_channels(channels: NDArray[np.uint8], metadata: Metadata) -> Picture:
    """(H, W) or (H, W, 1 to 4) uint8 to a picture."""
    if channels.ndim == 2:
        channels = channels[:, :, None]
    alpha = None
    if channels.shape[2] in (2, 4):
        channels, alpha = channels[:, :, :-1], np.ascontiguousarray(channels[:, :, -1])
    if channels.shape[2] == 1:
        mode = Mode.L if alpha is None else Mode.LA
        return Picture(np.repeat(channels, 3, axis=2), alpha, mode, metadata)
    if _is_neutral(channels):
        mode = Mode.NEUTRAL_RGB if alpha is None else Mode.NEUTRAL_RGBA
    else:
        mode = Mode.RGB if alpha is None else Mode.RGBA
    return Picture(np.ascontiguousarray(channels), alpha, mode, metadata)


def _is_neutral(channels: NDArray[np.uint8]) -> bool:
    """Whether the three channels of (H, W, 3) are equal everywhere."""
    # Most pictures have colour in their first rows already.
    return all(
        np.array_equal(rows[..., 0], rows[..., 1]) and np.array_equal(rows[..., 0], rows[..., 2])
        for rows in (channels[start : start + 64] for start in range(0, len(channels), 64))
    )


def _metadata(image: Image.Image, notes: list[str]) -> tuple[Metadata, int]:
    """What an image carries, with upright orientation, and the orientation it had (1 to 8)."""
    icc = image.info.get("icc_profile")
    xmp = image.info.get("xmp")
    if isinstance(xmp, str):
        xmp = xmp.encode()
    if isinstance(xmp, bytes):
        xmp = _XMP_ORIENTATION.sub(rb"\g<1>1", xmp)
    exif, orientation = None, _UPRIGHT
    try:
        tags = image.getexif()
        orientation = tags.get(_ORIENTATION, _UPRIGHT)
        exif = image.info.get("exif")
        if exif:
            exif = exif.removeprefix(_EXIF_MARKER)
            if orientation != _UPRIGHT:
                exif = _upright(exif)
        elif tags:
            exif = _exif_of_tags(tags)
    except Exception as error:  # the picture is worth more than the description of its camera
        exif = None
        notes.append(f"its damaged EXIF block is left out: {reason(error)}")
    return (
        Metadata(
            _usable("ICC profile", icc, notes),
            _usable("EXIF block", exif, notes),
            _usable("XMP packet", xmp, notes),
        ),
        orientation,
    )


def _usable(name: str, block: object, notes: list[str]) -> bytes | None:
    """A block of metadata that is there and can be kept."""
    if not isinstance(block, bytes) or not block:
        return None
    # A longer block would not be read back from a .cwic file.
    if len(block) > MAX_METADATA_BYTES:
        notes.append(f"its {name} of {len(block)} bytes is left out")
        return None
    return block


def _upright(exif: bytes) -> bytes:
    """Sets the orientation to 1 in place.

    Writing the block anew would move the maker notes, whose offsets only the maker knows.
    """
    order = {b"II": "<", b"MM": ">"}[exif[:2]]
    (start,) = struct.unpack_from(f"{order}I", exif, 4)
    (num_entries,) = struct.unpack_from(f"{order}H", exif, start)
    patched = bytearray(exif)
    for offset in range(start + 2, start + 2 + 12 * num_entries, 12):
        (tag,) = struct.unpack_from(f"{order}H", exif, offset)
        if tag == _ORIENTATION:
            # Tag, type SHORT, one value, the value, padding.
            struct.pack_into(f"{order}HHIHH", patched, offset, tag, 3, 1, _UPRIGHT, 0)
    return bytes(patched)


def _exif_of_tags(tags: Image.Exif) -> bytes | None:
    """An EXIF block of the tags that describe the picture rather than the layout of its file."""
    kept = Image.Exif()
    for tag in _DESCRIPTIVE_TAGS:
        if tag in tags:
            kept[tag] = tags[tag]
    for ifd in _DESCRIPTIVE_IFDS:
        block = tags.get_ifd(ifd)
        if block:
            kept[ifd] = dict(block)
    return kept.tobytes().removeprefix(_EXIF_MARKER) if kept else None


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
    # Pillow takes some metadata from `info` by itself, also what was left out on purpose.
    plain = image.copy()
    plain.info = {}
    # By a name Pillow loads the one plugin that it takes, by a format five.
    encoded = io.BytesIO()
    encoded.name = f"picture{known.suffix}"
    plain.save(encoded, **options)
    return encoded.getvalue()


def _on_white(image: Image.Image) -> Image.Image:
    """LA or RGBA laid on white: L or RGB with the same `info`."""
    flat = Image.new("RGBA", image.size, "white")
    flat.alpha_composite(image.convert("RGBA"))
    flattened = flat.convert("L" if image.mode == "LA" else "RGB")
    flattened.info = image.info
    return flattened
