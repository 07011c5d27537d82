"""The importance map and the spent bits over their picture: what `cwic view` shows."""

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from cwic.families.protocol import Allocation
from cwic.image import profile_of_rgb_samples

_BLOCK_PX = 16  # the side of the blocks that bits are counted in

_GAP_PX = 12
_SCALE_PX = 14  # height of a colour scale
_TEXT_PX = 13

# From little to much: dark blue, purple, red, orange, pale yellow.
_COLOURS = np.array(
    [(13, 8, 80), (110, 20, 120), (200, 50, 80), (245, 140, 40), (250, 245, 160)], np.float64
)
_OPACITY = 0.6


def overlay(picture: Image.Image, allocation: Allocation) -> Image.Image:
    """Two panels side by side with a scale under each: the map, and bits per 16x16 block.

    RGB, with the profile of the picture, which is decoded or original, of the file's size.
    """
    grey = np.asarray(picture.convert("L"), np.float64)
    per_block = allocation.bits * (_BLOCK_PX / allocation.cell_px) ** 2
    panels = [
        _panel(grey, allocation.importance, allocation.cell_px, "importance map, levels"),
        _panel(grey, per_block, allocation.cell_px, f"bits per {_BLOCK_PX}x{_BLOCK_PX} block"),
    ]
    width = sum(panel.width for panel in panels) + 3 * _GAP_PX
    sheet = Image.new("RGB", (width, panels[0].height + 2 * _GAP_PX), "white")
    left = _GAP_PX
    for panel in panels:
        sheet.paste(panel, (left, _GAP_PX))
        left += panel.width + _GAP_PX
    profile = profile_of_rgb_samples(picture)
    if profile is not None:
        sheet.info["icc_profile"] = profile
    return sheet


def _panel(
    grey: npt.NDArray[np.float64], values: npt.NDArray[np.floating], cell_px: int, title: str
) -> Image.Image:
    height, width = grey.shape
    low, high = float(values.min()), float(values.max())
    share = (values - low) / (high - low) if high > low else np.zeros(values.shape)
    large = np.repeat(np.repeat(share, cell_px, axis=0), cell_px, axis=1)[:height, :width]
    mixed = (1 - _OPACITY) * grey[:, :, None] + _OPACITY * _coloured(large)
    font = ImageFont.load_default(_TEXT_PX)
    texts = (f"{low:.3g}", title, f"{high:.3g}")
    # A small picture still has room for the words of its scale.
    panel_width = max(width, round(font.getlength("   ".join(texts))))
    panel = Image.new("RGB", (panel_width, height + _SCALE_PX + 2 * _TEXT_PX), "white")
    panel.paste(Image.fromarray(mixed.round().astype(np.uint8)), (0, 0))
    scale = np.broadcast_to(np.linspace(0, 1, panel_width), (_SCALE_PX, panel_width))
    panel.paste(
        Image.fromarray(_coloured(scale).round().astype(np.uint8)), (0, height + _TEXT_PX // 2)
    )
    draw = ImageDraw.Draw(panel)
    line = height + _SCALE_PX + 2 * _TEXT_PX - 2
    for x, text, anchor in zip(
        (0, panel_width // 2, panel_width - 1), texts, ("ls", "ms", "rs"), strict=True
    ):
        draw.text((x, line), text, fill="black", font=font, anchor=anchor)
    return panel


def _coloured(share: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """(H, W) in [0, 1] -> (H, W, 3) in [0, 255]."""
    stops = np.linspace(0, 1, len(_COLOURS))
    return np.stack([np.interp(share, stops, channel) for channel in _COLOURS.T], axis=-1)
