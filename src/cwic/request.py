"""How one picture is to be encoded: the only place where that is checked.

Imports nothing heavy. What a request means is left to `rate_control` (size, PSNR, SSIMULACRA2),
the families (quality), `saliency` (masks) and `choice` (lossless).
"""

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from cwic.defaults import LOSSLESS, MAX_EFFORT, MAX_ROI_STRENGTH

if TYPE_CHECKING:
    from cwic.image import Source
    from cwic.saliency import Detector

# Targets, of which one may be given, and what is expected of each.
_ABOVE_0 = "a number above 0"
_EXPECTED = {
    "quality": "0 to 100",
    "bpp": _ABOVE_0,
    "target_bytes": _ABOVE_0,
    "psnr_db": _ABOVE_0,
    "ssimulacra2": "a number above 0, at most 100",
}


@dataclass(frozen=True, kw_only=True)
class Request:
    """How one picture is to be encoded, checked when it is made.

    At most one of `quality`, `bpp`, `target_bytes`, `psnr_db` and `ssimulacra2` may be given. A
    target that cannot be met gives the nearest file there is, with a `CodecWarning`; metadata and
    transparency leave the picture at least a quarter of a size, unless that is `strict`.

    Pictures that are cheap without loss (screens, text, charts) are kept whole: for a target size,
    if they fit in; for a quality, if they are at most a quarter larger than the coded file; for a
    PSNR or SSIMULACRA2, if they are no larger. Where they are too large for that, they are kept in
    2 to 256 colours, if that is much nearer to the picture than what the model makes. Of a page
    with photographs in it, text and graphics are kept and the rest is coded, if that is better.

    Attributes:
        quality: in [0, 100]; 50 where there is no target. Busy pictures, which hide errors,
            get coarser steps at one quality than calm ones.
        bpp: bits of the whole file per picture pixel, above 0.
        target_bytes: size of the whole file, above 0.
        psnr_db: peak signal-to-noise ratio of the decoded picture in dB, above 0.
        ssimulacra2: of the decoded picture, above 0 to 100; needs the extra `evaluate`. Samples
            are taken as sRGB; of more than 4 million pixels it is the mean of equal parts.
        roi: region of interest: a picture, white where it matters, or an array (H, W) of bool,
            uint8 or floats in [0, 1]; of any size with the picture's ratio of sides. The file
            has the size that it would have without; only where the bits go changes.
        roi_strength: of the region of interest, 0 to 4.
        saliency: True for the built-in detector (extra `saliency`), a mask as of `roi`, a
            function of the (H, W, 3) uint8 pixels that returns one, or the path of such a
            function as an ONNX file (.onnx; what it must be is at `saliency.load_detector`).
        strict: a file never larger (or a picture never worse) than the target, or none. A smaller
            file (or a better picture) is done, where the picture takes no more.
        effort: 0 to 9, how much longer to look for a smaller file of the same quality, or for a
            better picture of the same size: see docs/command.md. The decoder's work stays.
        lossless: "auto" as above, "never", or "always": kept whole whatever the target.
        keep_metadata: ICC, EXIF and XMP go into the file.
        max_pixels: width times height beyond which a picture is refused; None: 179 million.
            Picture files are under Pillow's own limit as well
            (`PIL.Image.MAX_IMAGE_PIXELS`).
        truncated: of a file that ends too early, what is there is taken, with a `CodecWarning`;
            what is missing is grey or black, of WebP and AVIF made up by their decoders.

    Raises:
        ValueError: a field of another type or out of range, or more than one target.
    """

    quality: float | None = None
    bpp: float | None = None
    target_bytes: int | None = None
    psnr_db: float | None = None
    ssimulacra2: float | None = None
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
        targets = {name: getattr(self, name) for name in _EXPECTED}
        given = {name: value for name, value in targets.items() if value is not None}
        if len(given) > 1:
            raise ValueError(
                f"expected at most one of {', '.join(targets)}, found {', '.join(given)}"
            )
        for name, value in given.items():
            expected = _EXPECTED[name]
            _check_number(name, value, expected)
            largest = math.inf if expected == _ABOVE_0 else 100
            is_above = value >= 0 if name == "quality" else value > 0
            if not (math.isfinite(value) and is_above and value <= largest):
                raise ValueError(f"{name}: expected {expected}, found {value}")
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
        most = self.max_pixels
        if most is not None and not (_is_whole(most) and most >= 1):
            raise ValueError(f"max_pixels: expected a whole number above 0, found {most!r}")

    @property
    def target(self) -> str:
        """The target with its unit; empty for a quality."""
        if self.target_bytes is not None:
            return f"{self.target_bytes:,} B"
        if self.bpp is not None:
            return f"{self.bpp:g} bpp"
        measured = self.measured_target
        return "" if measured is None else self.with_unit(f"{measured:g}")

    @property
    def measured_target(self) -> float | None:
        """The target PSNR or SSIMULACRA2: what a decoded picture is measured for."""
        return self.psnr_db if self.ssimulacra2 is None else self.ssimulacra2

    def with_unit(self, number: str) -> str:
        """A value of the measure of the target, in words."""
        return f"{number} dB" if self.ssimulacra2 is None else f"SSIMULACRA2 {number}"

    def size_bytes(self, num_pixels: int) -> float | None:
        """The target size of the whole file, of a picture of so many pixels."""
        return self.target_bytes if self.bpp is None else self.bpp * num_pixels / 8


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _check_number(name: str, value: Any, expected: str) -> None:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise ValueError(f"{name}: expected {expected}, found {value!r}")
