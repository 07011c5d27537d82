"""One picture by us and by the codecs people know, at the same size, on one page.

Leaves the page to :mod:`cwic.evaluation.report` and the other codecs to
:mod:`cwic.evaluation.anchors`.
"""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from cwic.errors import CodecError, NotBuiltError
from cwic.evaluation.anchors import Contestant, contestant
from cwic.evaluation.report import Comparison, Version, comparison, page
from cwic.rate_control import search_offset

__all__ = ["CODECS", "compared", "compared_page", "installed", "nearest_file", "of_size"]

CODECS = ("jpeg", "jpeg2000", "webp", "avif")

# Settings that are tried: steps of an anchor's own setting, and how far they go.
_STEPS = {"quality": (1.0, 0, 95), "bpp": (0.01, 1, 2400)}

# How much the logarithm of a size rises with a step, about.
_SLOPES = {"quality": 0.035}

_TOLERANCE = 0.01  # of a size


def installed() -> list[Contestant]:
    """Those of `CODECS` that are here."""
    found = []
    for name in CODECS:
        with contextlib.suppress(NotBuiltError):
            found.append(contestant(name))
    return found


class NearestFile(NamedTuple):
    """A file and the setting that made it."""

    data: bytes
    setting: float


def of_size(codec: Contestant, image: Image.Image, target_bytes: int) -> bytes:
    """The file of a codec whose size comes nearest to a target."""
    return nearest_file(codec, image, target_bytes).data


def nearest_file(
    codec: Contestant,
    image: Image.Image,
    target_bytes: int,
    *,
    start: float | None = None,
    tolerance: float = _TOLERANCE,
) -> NearestFile:
    """The file of a codec whose size comes nearest to a target, and its setting.

    Args:
        codec: with a setting "quality" or "bpp".
        image: RGB.
        target_bytes: of the whole file.
        start: the first setting to try; a good guess saves most of the time.
        tolerance: share of the target that is near enough.
    """
    step, low, high = _STEPS[codec.setting_name]
    files: dict[int, bytes] = {}

    def size(offset: int) -> float:
        files[offset] = codec.encode(image, offset * step)
        return float(len(files[offset]))

    if codec.setting_name == "bpp":
        start = 8 * target_bytes / (image.width * image.height)
    result = search_offset(
        size,
        target_bytes,
        low=low,
        high=high,
        tolerance=tolerance,
        start=None if start is None else round(start / step),
        slope=_SLOPES.get(codec.setting_name),
    )
    return NearestFile(files[result.offset], result.offset * step)


def compared(
    title: str,
    picture: Image.Image,
    data: bytes,
    decoded: Image.Image,
    codecs: Sequence[str] = CODECS,
    *,
    largest_px: int | None = None,
) -> Comparison:
    """A picture, its `.cwic` file and those of other codecs at its size.

    Args:
        title: plain text.
        picture: the original, RGB.
        data: the `.cwic` file.
        decoded: what it decodes to.
        codecs: names of anchors; those that are not here, or cannot take this picture, are
            left out.
        largest_px: of a picture with a longer side the middle is shown; numbers are of all of it.
    """
    original = np.asarray(picture)
    files = [("cwic", data, np.asarray(decoded.convert("RGB")))]
    for name in codecs:
        try:
            codec = contestant(name)
            file = of_size(codec, picture, len(data))
        except (CodecError, OSError, ValueError):  # not installed, or not for such a picture
            continue
        files.append((codec.label, file, np.asarray(codec.decode(file).convert("RGB"))))
    middle = tuple(_middle(side, largest_px) for side in original.shape[:2])
    caption = f"{picture.width}x{picture.height}"
    if original[middle].shape != original.shape:
        caption += f", shown: the middle {largest_px} px"
    versions = [Version("original", original[middle], caption)]
    for label, file, shown in files:
        rate_bpp = 8 * len(file) / (picture.width * picture.height)
        caption = f"{len(file):,} B, {rate_bpp:.3f} bpp, {psnr_db(original, shown):.2f} dB PSNR"
        versions.append(Version(label, shown[middle], caption))
    # The first two are seen first: ours, and the one that everybody knows.
    order = [1, 2, 0, *range(3, len(versions))] if len(versions) > 2 else [0, 1]
    return Comparison(title, tuple(versions[number] for number in order))


def compared_page(shown: Comparison) -> str:
    """The same as one HTML document that needs no other file."""
    return page(shown.title, [("", comparison(replace(shown, title="")))])


def _middle(side_px: int, largest_px: int | None) -> slice:
    shown_px = min(side_px, largest_px or side_px)
    start = (side_px - shown_px) // 2
    return slice(start, start + shown_px)


def psnr_db(original: npt.NDArray[np.uint8], shown: npt.NDArray[np.uint8]) -> float:
    """Of (H, W, 3) pictures; infinite for equal ones."""
    mse = float(np.square(original.astype(np.float32) - shown).mean(dtype=np.float64))
    return 10 * math.log10(255**2 / mse) if mse else math.inf
