"""Butteraugli's 3-norm of two pictures as arrays, by libjxl's program `butteraugli_main`."""

import math
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from cwic.errors import CodecError

Pixels = npt.NDArray[np.uint8]  # (H, W, 3) R, G, B

_PROGRAM = "butteraugli_main"
_NORM = re.compile(r"^3-norm: ([0-9.]+)$", re.MULTILINE)

# With a shorter side the program says 0, whatever the pictures.
BUTTERAUGLI_PX = 8


def butteraugli(reference: Pixels, decoded: Pixels) -> float:
    """The 3-norm of Butteraugli's map of differences, for a screen of 80 nits.

    Args:
        reference: (H, W, 3), in sRGB.
        decoded: same shape.

    Returns:
        0 for equal pictures, about 1 where differences are just noticed, more for worse; nan with a
        side under 8 px, and where the program is not installed.

    Raises:
        CodecError: the program is there, but gives no 3-norm.
    """
    if reference.shape != decoded.shape:
        raise ValueError(f"expected a picture of shape {reference.shape}, found {decoded.shape}")
    program = butteraugli_program()
    if program is None or min(reference.shape[:2]) < BUTTERAUGLI_PX:
        return math.nan
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, name) for name in ("reference.ppm", "decoded.ppm")]
        for path, pixels in zip(paths, (reference, decoded), strict=True):
            Image.fromarray(np.ascontiguousarray(pixels)).save(path)
        try:
            done = subprocess.run(
                [program, *paths],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
            )
        except OSError as error:
            raise CodecError(f"{program}: expected a program that runs, found {error}") from error
    found = _NORM.search(done.stdout)
    if done.returncode or found is None:
        said = (done.stdout + done.stderr).strip()
        raise CodecError(
            f"{program}: expected a line with its 3-norm, found exit code {done.returncode} "
            f"and {said!r}"
        )
    return float(found[1])


@cache
def butteraugli_program() -> str | None:
    """Where it is installed, None where it is not; asked once a process."""
    return shutil.which(_PROGRAM)
