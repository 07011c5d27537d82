"""One rendered picture from a seed and an index: its kind, its size, and how it is finished."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

from rendering.canvas import Canvas, PhotoShelf
from rendering.charts import chart
from rendering.flats import flat, soft
from rendering.fonts import FontShelf
from rendering.overlays import overlay, straight_lines
from rendering.pages import page
from rendering.screens import screen

MIN_SIDE_PX = 448
MAX_SIDE_PX = 1280

KINDS: dict[str, Callable[[Canvas], None]] = {
    "chart": chart,
    "flat": flat,
    "lines": straight_lines,
    "overlay": overlay,
    "screen": screen,
    "soft": soft,
    "text": page,
}

# The order of kinds for training, again and again: most is what is not kept lossless.
TRAINING_ORDER = (
    "overlay screen lines text overlay screen chart overlay screen flat lines overlay screen soft"
    " text overlay".split()
)

_GREY = 0.06
_FRINGED = 0.2
_SHRUNK = 0.35  # share of pictures that are drawn larger and scaled down


class RenderedPicture(NamedTuple):
    """A picture and what it shows."""

    kind: str
    image: Image.Image  # RGB


def kind_of(index: int, *, held_out: bool) -> str:
    """The kind of a picture: for training by `TRAINING_ORDER`, held out each kind in turn."""
    order = sorted(KINDS) if held_out else TRAINING_ORDER
    return order[index % len(order)]


def render_picture(
    seed: int, index: int, fonts: FontShelf, photos: PhotoShelf, *, held_out: bool = False
) -> RenderedPicture:
    """Draw one picture.

    Args:
        seed: of the set of pictures, not negative.
        index: of the picture within it, not negative.
        fonts: to write with.
        photos: to show.
        held_out: whether kinds follow one another evenly instead of as in training.

    Returns:
        A picture with sides of `MIN_SIDE_PX` to `MAX_SIDE_PX`, the same for the same arguments.
    """
    rng = np.random.default_rng((seed, index))
    kind = kind_of(index, held_out=held_out)
    low, high = np.log(MIN_SIDE_PX), np.log(MAX_SIDE_PX + 1)
    width, height = (int(np.exp(side)) for side in rng.uniform(low, high, 2))
    scale = float(rng.uniform(1.2, 2)) if rng.random() < _SHRUNK else 1.0
    # A large canvas is not enlarged further than its time allows.
    scale = min(scale, max(1.0, (2.0e6 / (width * height)) ** 0.5))
    unit = scale * float(rng.choice([1.0, 1.0, 1.0, 1.25, 1.5, 2.0]))
    canvas = Canvas(
        rng,
        (round(scale * width), round(scale * height)),
        unit,
        fonts,
        photos,
        fringes=scale == 1 and bool(rng.random() < _FRINGED),
    )
    KINDS[kind](canvas)
    image = canvas.image
    if image.size != (width, height):
        method = (Image.Resampling.LANCZOS, Image.Resampling.BICUBIC, Image.Resampling.BOX)
        image = image.resize((width, height), method[rng.integers(3)])
    if rng.random() < _GREY:
        image = image.convert("L").convert("RGB")
    return RenderedPicture(kind, image)
