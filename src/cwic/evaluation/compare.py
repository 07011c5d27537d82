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
from cwic.evaluation.array_similarity import ssim
from cwic.evaluation.report import Comparison, Version, comparison, page
from cwic.image import profile_of_rgb_samples
from cwic.psnr import psnr_db
from cwic.rate_control import Goal, search
from cwic.ssimulacra2 import ssimulacra2

Pixels = npt.NDArray[np.uint8]  # (H, W, 3)

CODECS = ("jpeg", "jpeg2000", "webp", "avif")


class _Ladder(NamedTuple):
    """The settings of an anchor that are tried, by rising size."""

    settings: tuple[float, ...]
    slope: float | None = None  # how much the logarithm of a size rises with one, about

    def nearest(self, setting: float) -> int:
        """The place of the setting that is nearest to another."""
        return min(range(len(self.settings)), key=lambda k: abs(self.settings[k] - setting))


# Several qualities are one to libavif (1.4.2; found by trying them all), and a search among equals
# costs seconds: the highest of each. Where another version groups them otherwise, a few are missed.
_AVIF_QUALITIES = tuple(
    float(quality)
    for quality in (
        *(2, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31, 33, 34, 36, 38, 39, 41, 43, 44),
        *(46, 48, 49, 51, 53, 54, 55, 57, 58, 59, 61, 62, 63, 65, 66, 67, 69, 70, 71, 73, 74, 75),
        *(77, 78, 79, 81, 82, 83, 85, 86, 87, 89, 90, 91, 93, 94, 95, 97, 98, 99, 100),
    )
)

# By the name of a codec, or of its setting.
_LADDERS = {
    "quality": _Ladder(tuple(float(quality) for quality in range(101)), slope=0.035),
    "bpp": _Ladder(tuple(step / 100 for step in range(1, 2401))),
    "distance": _Ladder(tuple(25 * 0.98**step for step in range(310)), slope=0.014),  # to 0.05
    **dict.fromkeys(("avif", "avif-444"), _Ladder(_AVIF_QUALITIES, slope=0.056)),
}

_TOLERANCE = 0.01  # of a size

# SSIMULACRA2 takes one to two seconds for a million pixels.
_MAX_PIXELS_OF_SSIMULACRA2 = 2**22


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
    """The file of a codec whose size comes nearest to a target, by its own search if it has one."""
    if codec.encode_to_size is not None:
        return codec.encode_to_size(image, target_bytes)
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

    `start` is the first setting to try: a good guess saves most of the time. `tolerance` is the
    share of the target that is near enough.
    """
    ladder = _LADDERS.get(codec.name) or _LADDERS[codec.setting_name]
    if codec.setting_name == "bpp":
        start = 8 * target_bytes / (image.width * image.height)
    found = search(
        lambda number: codec.encode(image, ladder.settings[number]),
        lambda file: float(len(file)),
        Goal(
            target_bytes,
            low=0,
            high=len(ladder.settings) - 1,
            tolerance=tolerance,
            start=None if start is None else ladder.nearest(start),
            slope=ladder.slope,
        ),
    )
    return NearestFile(found.coding, ladder.settings[found.setting])


def compared(
    title: str,
    picture: Image.Image,
    data: bytes,
    decoded: Image.Image,
    codecs: Sequence[str] = CODECS,
    *,
    largest_px: int | None = None,
    with_ssimulacra2: bool = False,
) -> Comparison:
    """A picture, its `.cwic` file and those of other codecs at its size.

    The original is RGB; the page shows all versions with its profile. Anchors that are not here, or
    cannot take this picture, are left out. Of a picture with a longer side than `largest_px` the
    middle is shown; numbers are of all of it. SSIMULACRA2 needs its package, and at most 4 million
    pixels.
    """
    profile = profile_of_rgb_samples(picture)
    picture = picture.copy()
    picture.info = {}  # the others hold the picture alone
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
        quality = _quality(original, shown, with_ssimulacra2)
        caption = f"{len(file):,} B, {rate_bpp:.3f} bpp, {quality}"
        versions.append(Version(label, shown[middle], caption))
    # The first two are seen first: ours, and the one that everybody knows.
    order = [1, 2, 0, *range(3, len(versions))] if len(versions) > 2 else [0, 1]
    return Comparison(title, tuple(versions[number] for number in order), profile)


def _quality(original: Pixels, shown: Pixels, with_ssimulacra2: bool) -> str:
    """What is measured of a version, in words."""
    reached_db = psnr_db(original, shown)
    if math.isinf(reached_db):
        return "exact"
    found = {"SSIM": f"{ssim(original, shown):.4f}"}
    height, width = original.shape[:2]
    if with_ssimulacra2 and height * width <= _MAX_PIXELS_OF_SSIMULACRA2:
        with contextlib.suppress(NotBuiltError):
            found["SSIMULACRA2"] = f"{ssimulacra2(original, shown):.1f}"
    measured = [f"{name} {number}" for name, number in found.items() if number != "nan"]
    return ", ".join([f"PSNR {reached_db:.2f} dB", *measured])


def compared_page(shown: Comparison) -> str:
    """The same as one HTML document that needs no other file."""
    return page(shown.title, [("", comparison(replace(shown, title="")))])


def _middle(side_px: int, largest_px: int | None) -> slice:
    shown_px = min(side_px, largest_px or side_px)
    start = (side_px - shown_px) // 2
    return slice(start, start + shown_px)
