"""Pictures for the pages: tiles in rows with a line of text under each, as one JPEG file."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from cwic.atomic_file import write_file

__all__ = ["Tile", "save_sheet"]

_GAP_PX = 8
_TEXT_PX = 15
_LINE_PX = 20


class Tile(NamedTuple):
    """A picture and what stands under it."""

    pixels: npt.NDArray[np.uint8]  # (H, W, 3)
    lines: tuple[str, ...]


def save_sheet(rows: Sequence[Sequence[Tile]], path: Path, quality: int = 88) -> None:
    """Writes rows of tiles of one size.

    Args:
        rows: of equal length.
        path: of the JPEG file; its folder is made.
        quality: of JPEG, without subsampling of colour: what is shown are differences.
    """
    height, width = rows[0][0].pixels.shape[:2]
    lines = max(len(tile.lines) for row in rows for tile in row)
    step_y, step_x = height + lines * _LINE_PX + _GAP_PX, width + _GAP_PX
    size = (len(rows[0]) * step_x + _GAP_PX, len(rows) * step_y + _GAP_PX)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_TEXT_PX)
    for y, row in enumerate(rows):
        for x, tile in enumerate(row):
            left, top = _GAP_PX + x * step_x, _GAP_PX + y * step_y
            sheet.paste(Image.fromarray(np.ascontiguousarray(tile.pixels)), (left, top))
            for number, line in enumerate(tile.lines):
                place = (left, top + height + 2 + number * _LINE_PX)
                draw.text(place, line, fill="black", font=font)
    file = io.BytesIO()
    sheet.save(file, "JPEG", quality=quality, subsampling=0, optimize=True, progressive=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, file.getvalue())
