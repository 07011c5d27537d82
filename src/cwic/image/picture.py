"""What a picture is to the codec, between files and networks: samples, alpha plane, metadata.

Owns the way back to a Pillow image, and padding. How a file becomes a picture is left
to `reader`, how an image becomes a file to `writer`.
"""

import contextlib
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cwic.colour_mode import Mode
from cwic.image import exif, profiles
from cwic.image.hidden_colours import filled

# PNG counts dots per metre.
_PNG_STEP_DPI = 0.0254
# Of R, G and B in grey.
LUMA = (0.299, 0.587, 0.114)

_Sample = TypeVar("_Sample", bound=np.generic)


@dataclass(frozen=True)
class Metadata:
    """What travels with the samples, as far as it is there."""

    icc: bytes | None = None  # ICC profile
    # EXIF from its TIFF header on, without the marker "Exif" that JPEG puts before it. It is of an
    # upright picture, holds no thumbnail, and has the resolution, wherever the source had that.
    exif: bytes | None = None
    xmp: bytes | None = None  # XMP packet

    def as_pil_info(self) -> dict[str, Any]:
        """What is there, under the names and in the form of Pillow's readers."""
        block, dpi = None, None
        if self.exif is not None:
            block = exif.MARKER + self.exif
            with contextlib.suppress(ValueError, struct.error):
                dpi = exif.resolution_of(self.exif)
        info = {"icc_profile": self.icc, "exif": block, "xmp": self.xmp, "dpi": dpi}
        return {name: value for name, value in info.items() if value is not None}


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture as the codec sees it."""

    pixels: NDArray[np.uint8]  # (H, W, 3) RGB, equal channels if the mode is grey; may be read-only
    alpha: NDArray[np.uint8] | None = (
        None  # (H, W), 0 transparent; there exactly if the mode has it
    )
    mode: Mode = Mode.RGB  # what the source was and what `to_pil` returns to
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


def to_pil(picture: Picture) -> Image.Image:
    """A Pillow image of the picture's own mode; `info` has the metadata, as of Pillow's readers.

    Grey is the rounded luma 0.299 R + 0.587 G + 0.114 B, so three equal channels give themselves.
    """
    image = Image.fromarray(as_shown(picture.pixels, picture.mode))
    if picture.mode in (Mode.L, Mode.LA):
        image = image.convert("L")
    if picture.alpha is not None:
        alpha = Image.fromarray(np.ascontiguousarray(picture.alpha))
        image = Image.merge(picture.mode.pil_name, (*image.split(), alpha))
    image.info.update(_true_of(picture).as_pil_info())
    return image


def as_shown(pixels: NDArray[np.uint8], mode: Mode) -> NDArray[np.uint8]:
    """(H, W, 3) of a network as the mode shows it: three equal channels if it is grey."""
    pixels = np.ascontiguousarray(pixels)
    if not mode.is_grey:
        return pixels
    return np.asarray(Image.fromarray(pixels).convert("L").convert("RGB"))


def without_hidden_colours(picture: Picture) -> Picture:
    """The picture with other colours where alpha is 0: cheap ones, continuous at the rim.

    What can be seen stays exactly as it is.
    """
    if picture.alpha is None:
        return picture
    pixels = filled(picture.pixels, picture.alpha == 0)
    mode = picture.mode
    if mode == Mode.RGBA and pixels is not picture.pixels and is_neutral(pixels):
        mode = Mode.NEUTRAL_RGBA
    return replace(picture, pixels=pixels, mode=mode)


def pad_to_multiple(pixels: NDArray[_Sample], multiple: int) -> NDArray[_Sample]:
    """Repeats the last column and row of (H, W) or (H, W, C) until both sides are multiples.

    Gives `pixels` itself if it fits already.
    """
    height, width = pixels.shape[:2]
    bottom, right = -height % multiple, -width % multiple
    if not bottom and not right:
        return pixels
    return np.pad(pixels, [(0, bottom), (0, right)] + [(0, 0)] * (pixels.ndim - 2), mode="edge")


def is_neutral(channels: NDArray[np.uint8]) -> bool:
    """Whether the three channels of (H, W, 3) are equal everywhere."""
    # Most pictures have colour in their first rows already.
    return all(
        np.array_equal(rows[..., 0], rows[..., 1]) and np.array_equal(rows[..., 0], rows[..., 2])
        for rows in (channels[start : start + 64] for start in range(0, len(channels), 64))
    )


def dpi_of(info: Mapping[Any, Any]) -> tuple[float, float] | None:
    """The resolution as Pillow's readers give it, if it is one."""
    try:
        across, down = (float(value) for value in info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    # One dot per inch is what Pillow says of a TIFF file that does not say.
    if not (1 < across < math.inf and 1 < down < math.inf):
        return None
    across, down = (
        round(dpi) if abs(dpi - round(dpi)) < _PNG_STEP_DPI / 2 else dpi for dpi in (across, down)
    )
    return across, down


def _true_of(picture: Picture) -> Metadata:
    """The metadata of a picture that may be a part of the one that it was written for."""
    metadata = picture.metadata
    if metadata.icc is not None:
        is_grey = picture.mode in (Mode.L, Mode.LA)
        metadata = replace(metadata, icc=profiles.fitted(metadata.icc, is_grey))
    if metadata.exif is not None:
        with contextlib.suppress(ValueError, struct.error):
            block = exif.with_size(metadata.exif, picture.width, picture.height)
            metadata = replace(metadata, exif=block)
    return metadata
