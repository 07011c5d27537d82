"""What was asked for of one picture: the only place where that is checked.

Imports nothing heavy. What a request means is left to `rate_control` (size and PSNR), the families
(quality), `saliency` (masks) and `choice` (lossless).
"""

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from cwic.defaults import LOSSLESS, MAX_EFFORT, MAX_ROI_STRENGTH

if TYPE_CHECKING:
    from cwic.image import Source
    from cwic.saliency import Detector

__all__ = ["Request"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked for of one picture, checked when it is made.

    At most one of `quality`, `bpp`, `target_bytes` and `psnr_db` may be given. A target that
    cannot be met gives the nearest file there is, with a `CodecWarning`; metadata and transparency
    leave the picture at least a quarter of a size.

    Pictures that are cheap without loss (screens, text, charts) are kept whole: where a size is
    asked for and they fit in; where a quality is, and they are at most a quarter larger than
    the coded file; where a PSNR is, and they are no larger.

    Attributes:
        quality: in [0, 100]; 50 if nothing else is asked for. Busy pictures, which hide errors,
            get coarser steps at one quality than calm ones.
        bpp: bits of the whole file per picture pixel, above 0.
        target_bytes: size of the whole file, above 0.
        psnr_db: peak signal-to-noise ratio of the decoded picture in dB, above 0.
        roi: region of interest: a picture, white where it matters, or an array (H, W) of bool,
            uint8 or floats in [0, 1]; of any size with the picture's ratio of sides. The file
            has the size that it would have without; only where the bits go changes.
        roi_strength: of the region of interest, 0 to 4.
        saliency: True for the built-in detector (extra `saliency`), a mask as of `roi`, a
            function of the (H, W, 3) uint8 pixels that returns one, or the path of such a
            function as an ONNX file (.onnx; what it must be is at `saliency.load_detector`).
        strict: a file never larger (or a picture never worse) than asked, or none. A smaller
            file (or a better picture) is done, where the picture takes no more.
        effort: 0 to 9, how much longer to look for a smaller file of the same quality, or for a
            better picture of the same size: see docs/command.md. The decoder's work stays.
        lossless: "auto" as above, "never", or "always": kept whole whatever else is asked for.
        keep_metadata: ICC, EXIF and XMP go into the file.
        max_pixels: width times height beyond which a picture is refused; None: 179 million.
            Picture files are under Pillow's own limit as well
            (`PIL.Image.MAX_IMAGE_PIXELS`).
        truncated: of a file that ends too early, what is there is taken, with a `CodecWarning`;
            what is missing is grey or black.

    Raises:
        ValueError: a field of another type or out of range, or more than one target.
    """

    quality: float | None = None
    bpp: float | None = None
    target_bytes: int | None = None
    psnr_db: float | None = None
    roi: "Source | None" = None
    roi_strength: float = 1.0
    saliency: "bool | Source | Detector | None" = None
    strict: bool = False
    effort: int = 0
    lossless: str = LOSSLESS[0]
    keep_metadata: bool = True
    max_pixels: int | None = None
    truncated: bool = False

    def __post_init__(self) -> None:
        _check_number("roi_strength", self.roi_strength, f"0 to {MAX_ROI_STRENGTH}")
        if not (math.isfinite(self.roi_strength) and 0 <= self.roi_strength <= MAX_ROI_STRENGTH):
            raise ValueError(
                f"roi_strength: expected 0 to {MAX_ROI_STRENGTH}, found {self.roi_strength}"
            )
        targets = {
            name: getattr(self, name) for name in ("quality", "bpp", "target_bytes", "psnr_db")
        }
        given = {name: value for name, value in targets.items() if value is not None}
        if len(given) > 1:
            raise ValueError(
                f"expected at most one of {', '.join(targets)}, found {', '.join(given)}"
            )
        for name, value in given.items():
            expected = "0 to 100" if name == "quality" else "a number above 0"
            _check_number(name, value, expected)
            if name == "quality" and not 0 <= value <= 100:
                raise ValueError(f"quality: expected 0 to 100, found {value}")
            if not math.isfinite(value) or (name != "quality" and value <= 0):
                raise ValueError(f"{name}: expected a number above 0, found {value}")
        if not _is_whole(self.effort) or not 0 <= self.effort <= MAX_EFFORT:
            raise ValueError(
                f"effort: expected a whole number, 0 to {MAX_EFFORT}, found {self.effort!r}"
            )
        if self.lossless not in LOSSLESS:
            raise ValueError(f"lossless: expected one of {LOSSLESS}, found {self.lossless!r}")
        for name in ("strict", "keep_metadata", "truncated"):
            value = getattr(self, name)
            # By name, so that numpy's are known without numpy.
            if type(value).__name__ not in ("bool", "bool_"):
                raise ValueError(f"{name}: expected True or False, found {value!r}")
        largest = self.max_pixels
        if largest is not None and not (_is_whole(largest) and largest >= 1):
            raise ValueError(f"max_pixels: expected a whole number above 0, found {largest!r}")

    @property
    def asked(self) -> str:
        """The size or PSNR that was asked for, with its unit; empty where a quality was."""
        if self.target_bytes is not None:
            return f"{self.target_bytes:,} B"
        if self.bpp is not None:
            return f"{self.bpp:g} bpp"
        return "" if self.psnr_db is None else f"{self.psnr_db:g} dB"

    def size_bytes(self, num_pixels: int) -> float | None:
        """The size of the whole file that was asked for, of a picture of so many pixels."""
        return self.target_bytes if self.bpp is None else self.bpp * num_pixels / 8


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _check_number(name: str, value: Any, expected: str) -> None:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise ValueError(f"{name}: expected {expected}, found {value!r}")
