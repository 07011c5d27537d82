"""Files, Pillow images and arrays -> `Picture`.

Owns what samples mean: bit depths, transparent colours, orientation, which metadata counts. What
EXIF blocks, profiles and other files say is left to `exif`, `profiles`, `png_chunks`, `avif_boxes`.

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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from cwic.colour_mode import Mode
from cwic.defaults import MAX_METADATA_BYTES, MAX_PIXELS
from cwic.errors import CodecWarning, ImageError, reason
from cwic.image import avif_boxes, exif, png_chunks, profiles
from cwic.image.declared_length import missing_bytes
from cwic.image.picture import Metadata, Picture, dpi_of, is_neutral

Samples = NDArray[np.uint8]

Source = str | os.PathLike[str] | BinaryIO | Image.Image | NDArray[Any] | Picture
_ORIENTATION = ExifTags.Base.Orientation
# How to make (H, W, C) of each orientation upright.
_TURNED: dict[int, Callable[[Samples], Samples]] = {
    2: lambda samples: samples[:, ::-1],
    3: lambda samples: samples[::-1, ::-1],
    4: lambda samples: samples[::-1],
    5: lambda samples: samples.swapaxes(0, 1),
    6: lambda samples: samples[::-1].swapaxes(0, 1),
    7: lambda samples: samples[::-1, ::-1].swapaxes(0, 1),
    8: lambda samples: samples[:, ::-1].swapaxes(0, 1),
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
# Of TIFF.
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_PLACES_OF_SAMPLES = (273, 324)  # of strips, of tiles
_WHITE_IS_ZERO = 0
_SIGNED = 2
_DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
_TRUNCATED = "it is truncated: what is missing is grey or black"
_COMPLETED = "it is truncated: what is missing is made up"
_TAKE_TRUNCATED = "--truncated (truncated=True) takes what is there"
_TAKE_LARGER = (
    "cwic encode --max-pixels takes larger ones, in Python max_pixels= with "
    "PIL.Image.MAX_IMAGE_PIXELS"
)
_DAMAGED = "its samples are damaged: a chunk IDAT has another checksum than expected"
_TAKE_DAMAGED = "--truncated (truncated=True) takes them as they are"
_EIGHT_BITS = "8 bits per channel are coded, of"
_START_OF_JPEG, _END_OF_JPEG = b"\xff\xd8\xff", b"\xff\xd9"


def read_picture(
    source: Source,
    *,
    keep_metadata: bool = True,
    max_pixels: int = MAX_PIXELS,
    truncated: bool = False,
    info: Mapping[Any, Any] | None = None,
) -> Picture:
    """Takes whatever a user has; `docs/pictures.md` lists what is kept, changed and refused.

    A file or Pillow image may be of any mode Pillow knows: palettes are resolved, CMYK goes through
    its embedded profile where it has one, and of several frames the current one is taken (the
    first of a file).

    The EXIF orientation is applied to files, to images as `Image.open` gave them
    (`PIL.ImageFile.ImageFile`), and where `info` has it. An image that was made of another is taken
    as it stands, and its orientation is upright.

    Arrays are (H, W) or (H, W, 1) grey, (H, W, 2) grey and alpha, (H, W, 3) RGB, (H, W, 4) RGBA; of
    dtype uint8, uint16, bool (black and white) or float in [0, 1]. A picture is given back; samples
    may share memory with an array.

    Args:
        source: a path, a binary file object, a Pillow image, an array, or a picture.
        keep_metadata: whether ICC, EXIF and XMP are kept.
        max_pixels: width times height beyond which a picture is refused before it is decoded.
            Files are under Pillow's own limit as well (`PIL.Image.MAX_IMAGE_PIXELS`).
        truncated: whether of a file that ends too early what is there is taken, with a warning;
            what is missing is grey or black, of WebP and AVIF whatever their decoders make of it.
        info: what counts instead of the entries of these names in a Pillow image's `info`.

    Raises:
        ImageError: the picture cannot be read, or its kind is not supported.
    """
    how = _Reading(max_pixels, truncated, [])
    if isinstance(source, Picture):
        _check_size(source.width, source.height, max_pixels)
        return source if keep_metadata else replace(source, metadata=Metadata())
    if isinstance(source, np.ndarray):
        picture = _from_array(source, how)
    elif isinstance(source, Image.Image):
        with _naming_failures(_name_of(source)):
            picture = _from_pil(source, how, info or {})
    elif isinstance(source, str | os.PathLike):
        with _open_path(source) as file:
            picture = _from_file(file, how)
    elif hasattr(source, "read"):
        picture = _from_file(source, how)
    else:
        raise ImageError(
            f"found {type(source).__name__}, expected a path, a binary file, a Pillow image or an "
            "array"
        )
    for note in how.notes:
        warnings.warn(f"{_name_of(source)}: {note}", CodecWarning, stacklevel=2)
    return picture if keep_metadata else replace(picture, metadata=Metadata())


class _Reading(NamedTuple):
    """How a picture is read."""

    max_pixels: int
    is_truncated_taken: bool
    notes: list[str]  # gets what is lost


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


def _from_file(file: BinaryIO, how: _Reading) -> Picture:
    with _naming_failures(_name_of(file)):
        if not file.seekable():
            file = io.BytesIO(file.read())
        file.seek(0)
        bounded = png_chunks.bounded(file, MAX_METADATA_BYTES)
        for name in bounded.dropped:
            how.notes.append(f"its chunk {name} is too large and left out")
        info = {} if bounded.profile is None else {"icc_profile": bounded.profile}
        as_whole = how._replace(is_truncated_taken=False, notes=[])
        try:
            picture = _from_opened(bounded.file, as_whole, info)
        except OSError as error:
            bounded.file.seek(0)
            data = bounded.file.read()
            num_missing = missing_bytes(data)
            is_unknown = isinstance(error, UnidentifiedImageError)
            found = _unknown_tiff(file) if is_unknown and not num_missing else None
            if found is not None:
                raise ImageError(found) from None
            if not how.is_truncated_taken:
                if num_missing:
                    expected = f"expected {len(data) + num_missing} bytes, found {len(data)}"
                    raise OSError(f"it is truncated: {expected}; {_TAKE_TRUNCATED}") from error
                if "truncated" in str(error):
                    raise OSError(f"{reason(error)}; {_TAKE_TRUNCATED}") from error
                raise
            if is_unknown and not num_missing:
                raise
        else:
            how.notes.extend(as_whole.notes)
            bounded.file.seek(0)
            if png_chunks.has_damaged_samples(bounded.file):
                if not how.is_truncated_taken:
                    raise OSError(f"{_DAMAGED}; {_TAKE_DAMAGED}")
                how.notes.append(_DAMAGED)
            return picture
        how.notes.append(_COMPLETED if num_missing else _TRUNCATED)
        # With an end its reader makes a picture of what there is of each scan.
        end = _END_OF_JPEG if data.startswith(_START_OF_JPEG) else bytes(num_missing)
        return _from_opened(io.BytesIO(data + end), how, info)


def _from_opened(file: BinaryIO, how: _Reading, info: Mapping[Any, Any]) -> Picture:
    with warnings.catch_warnings():
        # Our own limit is an error, and stands in the same place as Pillow's.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            image = Image.open(file)
        except Image.DecompressionBombError as error:
            found = str(error).partition(", could be")[0]
            raise ImageError(f"{found}; {_TAKE_LARGER}") from error
    with image:
        image.info.update(info)
        return _from_pil(image, how, {})


def _unknown_tiff(file: BinaryIO) -> str | None:
    """What is wrong with a TIFF file whose samples Pillow does not know."""
    from PIL import TiffImagePlugin  # where nothing else has, it is not worth its time

    file.seek(0)
    try:
        header = file.read(8)
        if not header.startswith((b"II*\0", b"MM\0*")):
            return None
        directory = TiffImagePlugin.ImageFileDirectory_v2(header)
        file.seek(directory.next)
        directory.load(file)
        depths = directory.get(_BITS_PER_SAMPLE, (1,))
        photometric = directory.get(_PHOTOMETRIC)
    except Exception:  # as of any damaged file
        return None
    if not any(tag in directory for tag in _PLACES_OF_SAMPLES):
        return "found a TIFF that does not say where its samples lie; it may be truncated"
    return (
        f"found a TIFF of {'+'.join(map(str, depths))} bits a sample (photometric interpretation "
        f"{photometric}), expected one that Pillow reads"
    )


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if not width or not height:
        raise ImageError(f"found a picture of {width}x{height} pixels, expected at least 1x1")
    if width * height > max_pixels:
        raise ImageError(
            f"found a picture of {width}x{height} = {width * height} pixels, "
            f"expected at most {max_pixels}"
        )


def _from_pil(image: Image.Image, how: _Reading, info: Mapping[Any, Any]) -> Picture:
    notes = how.notes
    _check_size(image.width, image.height, how.max_pixels)
    # Multi-picture JPEG is what many phones write: the further frames are previews, not animation.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        frames = getattr(image, "n_frames", "several")
        notes.append(f"only frame {image.tell() + 1} of {frames} is coded")
    is_deep_colour = _is_deep(image)
    png = png_chunks.facts_of(image)
    avif = avif_boxes.facts_of(image)
    _load(image, how)
    info = {**image.info, **info}
    block, orientation = _exif_of(image, info, notes)

    channels = _channels_of(image, png, info, notes)
    if orientation in _TURNED:
        channels = _TURNED[orientation](channels)
    if is_deep_colour and image.mode not in _DEEP_MODES:
        notes.append(f"{_EIGHT_BITS} 16")
    if avif is not None and avif.depth_bits > 8:
        notes.append(f"{_EIGHT_BITS} {avif.depth_bits}")
    if png is not None and png.cicp is not None and not png.cicp.is_full_range:
        channels = _full_range(channels, notes)
    height, width, num_channels = channels.shape
    cicp = None if png is None else png.cicp
    if avif is not None and not info.get("icc_profile"):
        cicp = avif.cicp
    if png is not None and png.has_profile and not info.get("icc_profile"):
        notes.append("its damaged ICC profile is left out")
    metadata = Metadata(
        _usable("ICC profile", _profile_of(image, cicp, info, num_channels < 3, notes), notes),
        _usable("EXIF block", _exif_of_picture(block, info, width, height, notes), notes),
        _usable("XMP packet", _xmp_of(info), notes),
    )
    return _from_channels(channels, metadata)


def _load(image: Image.Image, how: _Reading) -> None:
    """Decodes an image; of a truncated one what Pillow had decoded when it gave up."""
    try:
        image.load()
    except OSError:
        tile = getattr(image, "tile", None)
        if not (how.is_truncated_taken and tile and getattr(image, "_im", None) is not None):
            raise
        image.tile = []  # type: ignore[attr-defined]
        if _TRUNCATED not in how.notes:
            how.notes.append(_TRUNCATED)


def _channels_of(
    image: Image.Image, png: png_chunks.PngFacts | None, info: Mapping[Any, Any], notes: list[str]
) -> Samples:
    """(H, W, 1 to 4): the samples as they stand in the file, 8 bits of each."""
    key = png.key if png is not None and "transparency" in image.info else ()
    if image.mode in _DEEP_MODES:
        samples = np.asarray(image)
        if image.mode == "I":
            samples = _to_16_bits(samples)
        largest = 65535
        if image.format == "TIFF":
            samples, largest = _tiff_samples(image, samples)
        channels = _to_8_bits(samples, notes, largest)[:, :, None]
        transparent = key[0] if len(key) == 1 else info.get("transparency")  # at 16 bits
        if isinstance(transparent, int):
            channels = _with_alpha(channels, samples != transparent)
        return channels
    if image.format == "TIFF" and _SIGNED in _tiff_tags(image).get(_SAMPLE_FORMAT, ()):
        notes.append("its samples are signed, and taken as unsigned")
    if key and png is not None and image.mode in ("1", "L", "RGB"):
        channels = np.asarray(image.convert("L") if image.mode == "1" else image)
        channels = channels.reshape(*channels.shape[:2], -1)
        return _with_alpha(channels, ~_is_key(image, channels, key, png.depth_bits))
    if image.format == "XPM" and isinstance(image.info.get("transparency"), bytes):
        # Pillow before 13 has the characters of the transparent colour there, takes them for alpha
        # of a palette, and decodes no picture in which they stand.
        image = image.copy()
        del image.info["transparency"]
    if image.mode in ("CMYK", "LAB"):
        image = _to_srgb(image, info, notes)
    channels = np.asarray(image.convert(_mode_to_read(image)))
    return channels.reshape(*channels.shape[:2], -1)


def _with_alpha(channels: Samples, is_opaque: NDArray[np.bool_]) -> Samples:
    return np.dstack([channels, is_opaque * np.uint8(255)])


def _is_key(
    image: Image.Image, channels: Samples, key: tuple[int, ...], depth_bits: int
) -> NDArray[np.bool_]:
    """(H, W): where the samples of a PNG are those that its tRNS chunk makes transparent."""
    if depth_bits <= 8:
        scaled = [sample * 255 // ((1 << depth_bits) - 1) for sample in key]
        found: NDArray[np.bool_] = (channels == scaled).all(axis=2)
        return found
    found = (channels == [sample >> 8 for sample in key]).all(axis=2)
    low = png_chunks.low_bytes(image) if found.any() else None
    if low is not None and low.shape == channels.shape:
        found &= (low == [sample & 255 for sample in key]).all(axis=2)
    return found


def _tiff_samples(image: Image.Image, samples: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Samples of more than 8 bits as the tags of a TIFF mean them, and the largest that may be."""
    depth_bits = int(_tiff_tags(image).get(_BITS_PER_SAMPLE, (16,))[0])
    is_float = samples.dtype.kind == "f"
    largest = 1 if is_float else (1 << min(depth_bits, 16)) - 1
    # Pillow inverts these up to 8 bits.
    if _tiff_tags(image).get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        samples = largest - samples
    return samples, largest


def _tiff_tags(image: Image.Image) -> Mapping[int, Any]:
    """Of a TIFF file that was opened."""
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    return tags


def _full_range(channels: Samples, notes: list[str]) -> Samples:
    """Colours of 16 to 235, as video has them, stretched to 0 to 255."""
    notes.append("its samples reach from 16 to 235 (cICP) and are stretched")
    table = np.rint(np.clip((np.arange(256) - 16) * 255 / 219, 0, 255)).astype(np.uint8)
    stretched = table[channels]
    if channels.shape[2] in (2, 4):
        stretched[..., -1] = channels[..., -1]
    result: Samples = stretched
    return result


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
    colours = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    return f"{colours}A" if image.has_transparency_data else colours


def _to_srgb(image: Image.Image, info: Mapping[Any, Any], notes: list[str]) -> Image.Image:
    """CMYK or Lab to RGB; through the embedded profile of CMYK, since its inks mean little else."""
    profile = info.get("icc_profile")
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


def _from_array(array: NDArray[Any], how: _Reading) -> Picture:
    if array.ndim not in (2, 3) or (array.ndim == 3 and not 1 <= array.shape[2] <= 4):
        raise ImageError(
            f"found an array of shape {array.shape}, expected (H, W) or (H, W, C) with C from 1 to "
            "4"
        )
    _check_size(array.shape[1], array.shape[0], how.max_pixels)
    return _from_channels(_to_8_bits(array, how.notes), Metadata())


def _to_8_bits(array: NDArray[Any], notes: list[str], largest: int = 65535) -> Samples:
    """Samples of any supported dtype, rounded to uint8 of the same shape.

    Takes uint8, bool, floats from 0 to 1, and uint16 of which `largest` is white.
    """
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
    notes.append(f"{_EIGHT_BITS} {largest.bit_length()}")
    # Exactly round(255 * sample / largest).
    wide: NDArray[np.uint32] = array.astype(np.uint32)
    rounded = (wide * np.uint32(255) + np.uint32(largest // 2)) // np.uint32(largest)
    return np.asarray(np.minimum(rounded, 255), np.uint8)


def _to_16_bits(array: NDArray[np.int32]) -> NDArray[np.uint16]:
    """Samples of Pillow's mode I, which its readers fill with 16-bit values."""
    if array.min() < 0 or array.max() > 65535:
        raise ImageError(
            f"found integer samples from {array.min()} to {array.max()}, expected 0 to 65535"
        )
    return array.astype(np.uint16)


def _from_channels(channels: Samples, metadata: Metadata) -> Picture:
    """(H, W) or (H, W, 1 to 4) uint8 to a picture."""
    if channels.ndim == 2:
        channels = channels[:, :, None]
    alpha = None
    if channels.shape[2] in (2, 4):
        channels, alpha = channels[:, :, :-1], np.ascontiguousarray(channels[:, :, -1])
    if channels.shape[2] == 1:
        mode = Mode.L if alpha is None else Mode.LA
        return Picture(np.repeat(channels, 3, axis=2), alpha, mode, metadata)
    if is_neutral(channels):
        mode = Mode.NEUTRAL_RGB if alpha is None else Mode.NEUTRAL_RGBA
    else:
        mode = Mode.RGB if alpha is None else Mode.RGBA
    return Picture(np.ascontiguousarray(channels), alpha, mode, metadata)


def _profile_of(
    image: Image.Image,
    cicp: profiles.Cicp | None,
    info: Mapping[Any, Any],
    is_grey: bool,
    notes: list[str],
) -> bytes | None:
    """The profile of the samples as they were read: of their kind, or None for sRGB."""
    if image.mode in ("CMYK", "LAB"):
        return None  # converted to sRGB
    if cicp is not None and cicp.matrix != 0:
        notes.append(f"its matrix coefficients {cicp.matrix} (cICP) cannot be and are left out")
        cicp = None
    profile = png_chunks.profile_of(info, cicp, is_grey, notes)
    if not profile:
        return None
    fitted = profiles.fitted(profile, is_grey)
    if fitted is None:
        notes.append(profiles.misfit(profile, is_grey))
    return fitted


def _exif_of(
    image: Image.Image, info: Mapping[Any, Any], notes: list[str]
) -> tuple[bytes | None, int]:
    """The EXIF block of an image as it is, and the orientation that is to be applied (1 to 8)."""
    is_given = info.get("exif") is not image.info.get("exif")
    try:
        found = info.get("exif")
        if isinstance(found, Image.Exif):
            found = found.tobytes()
        block = found.removeprefix(exif.MARKER) if isinstance(found, bytes) and found else None
        orientation = None if block is None else exif.orientation_of(block)
        if block is None or (orientation is None and not is_given):
            # Of the tags of a TIFF file, or an XMP packet.
            tags = image.getexif()
            orientation = tags.get(_ORIENTATION)
            if block is None and tags and not is_given:
                block = _exif_of_tags(tags)
    except Exception as error:  # the picture is worth more than the description of its camera
        notes.append(f"its damaged EXIF block is left out: {reason(error)}")
        return None, exif.UPRIGHT
    if not (is_given or isinstance(image, ImageFile.ImageFile)):
        orientation = exif.UPRIGHT
    return block, orientation if isinstance(orientation, int) else exif.UPRIGHT


def _exif_of_picture(
    block: bytes | None, info: Mapping[Any, Any], width: int, height: int, notes: list[str]
) -> bytes | None:
    """The EXIF block of an upright picture, with its resolution."""
    try:
        if block is not None:
            block = exif.without_thumbnail(exif.with_size(block, width, height))
        dpi = dpi_of(info)
        if dpi is not None:
            block = exif.with_resolution(block, *dpi)
    except (ValueError, struct.error) as error:
        notes.append(f"its damaged EXIF block is left out: {reason(error)}")
        return None
    density = info.get("aspect")  # of PNG
    if density is None and info.get("jfif_unit") == 0:
        density = info.get("jfif_density")
    if isinstance(density, tuple) and len(set(density)) == 2 and all(density):
        notes.append(f"its pixels of {density[0]}:{density[1]} are taken as square")
    return block


def _xmp_of(info: Mapping[Any, Any]) -> bytes | None:
    """The XMP packet of an upright picture."""
    xmp = info.get("xmp")
    if isinstance(xmp, str):
        xmp = xmp.encode()
    return _XMP_ORIENTATION.sub(rb"\g<1>1", xmp) if isinstance(xmp, bytes) else None


def _usable(name: str, block: object, notes: list[str]) -> bytes | None:
    """A block of metadata that is there and can be kept."""
    if not isinstance(block, bytes) or not block:
        return None
    if len(block) > MAX_METADATA_BYTES:
        notes.append(f"its {name} of {len(block)} bytes is left out")
        return None
    return block


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
    return kept.tobytes().removeprefix(exif.MARKER) if kept else None
