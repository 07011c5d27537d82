"""What rendered pictures are drawn with: a canvas, its chance, colours, fonts and photographs.

Shapes and text are anti-aliased as programs draw them. Lengths are in pixels of the canvas; `unit`
says how many of them a reference pixel is, as on screens of several densities.
"""

import colorsys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from rendering.fonts import Face, FontShelf
from rendering.words import SCRIPT_BY_NAME, SCRIPTS, Writer

Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]  # left, top, right, bottom; right and bottom are outside
T = TypeVar("T")

BLACK: Colour = (0, 0, 0)
WHITE: Colour = (255, 255, 255)

# Shapes are drawn so many times larger and averaged.
_FINE = 4

# How often a picture's own script is another than Latin.
_OTHER_SCRIPT = 0.3


def hue_colour(hue: float, saturation: float, value: float) -> Colour:
    """A colour of hue, saturation and value, each in [0, 1]."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def mixed(first: Colour, second: Colour, share: float) -> Colour:
    """A colour between two: the share in [0, 1] is the second's."""
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(first, second, strict=True))
    return red, green, blue


def brightness(colour: Colour) -> float:
    """How bright a colour is, in 0..255."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


@dataclass(frozen=True)
class Theme:
    """The colours of one interface or page."""

    ground: Colour  # behind everything
    surface: Colour  # of windows and cards
    ink: Colour  # of text
    faint: Colour  # of text that matters less
    line: Colour  # of borders and rules
    accent: Colour  # of buttons and links
    accents: tuple[Colour, ...]  # of series, icons and marks
    dark: bool


def new_theme(rng: np.random.Generator, *, dark: bool | None = None) -> Theme:
    """A theme, light or dark; by chance if not said."""
    if dark is None:
        dark = bool(rng.random() < 0.4)
    hue = rng.random()
    tint = float(rng.choice([0.0, 0.03, 0.08, 0.2]))
    contrast = float(rng.choice([1.0, 1.0, 0.92, 0.8]))
    if dark:
        ground = hue_colour(hue, tint * 3, rng.uniform(0.0, 0.16))
        surface = hue_colour(hue, tint * 2, rng.uniform(0.08, 0.25))
        ink = mixed(surface, WHITE, contrast)
    else:
        ground = hue_colour(hue, tint, rng.uniform(0.86, 1.0))
        surface = WHITE if rng.random() < 0.6 else hue_colour(hue, tint / 2, rng.uniform(0.93, 1))
        ink = mixed(surface, hue_colour(hue, 0.5, float(rng.choice([0, 0, 0.15, 0.25]))), contrast)
    accents = tuple(
        hue_colour(
            hue + place / 6 + rng.uniform(-0.05, 0.05), rng.uniform(0.5, 1), rng.uniform(0.6, 1)
        )
        for place in range(6)
    )
    return Theme(
        ground,
        surface,
        ink,
        mixed(surface, ink, rng.uniform(0.4, 0.7)),
        mixed(surface, ink, rng.uniform(0.08, 0.3)),
        accents[0],
        accents,
        dark,
    )


class PhotoShelf:
    """Photographs to choose from, each folder as likely as any other.

    Args:
        paths: files that Pillow reads; may be none, then gradients take their place.
    """

    def __init__(self, paths: Sequence[Path]):
        by_folder: dict[Path, list[Path]] = {}
        for path in sorted(paths):
            by_folder.setdefault(path.parent, []).append(path)
        self._folders = [by_folder[folder] for folder in sorted(by_folder)]

    def open(self, rng: np.random.Generator, width: int, height: int) -> Image.Image | None:
        """The least enlarged one of three, not yet decoded; None if there is no photograph."""
        if not self._folders:
            return None
        best: Image.Image | None = None
        for _ in range(3):
            folder = self._folders[rng.integers(len(self._folders))]
            photo = Image.open(folder[rng.integers(len(folder))])
            if best is None or _enlarged(photo, width, height) < _enlarged(best, width, height):
                best, photo = photo, best or photo
            if photo is not best:
                photo.close()
        return best


def _enlarged(photo: Image.Image, width: int, height: int) -> float:
    """How many times larger a photograph must become to fill a box; not below 1."""
    return max(1.0, width / photo.width, height / photo.height)


class Canvas:
    """A picture that is being drawn.

    Args:
        rng: what decides everything that is drawn.
        size: width and height in pixels.
        unit: pixels of the canvas in a reference pixel.
        fonts: to write with.
        photos: to show.
        fringes: whether text has the coloured edges of sub-pixel rendering.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        size: tuple[int, int],
        unit: float,
        fonts: FontShelf,
        photos: PhotoShelf,
        *,
        fringes: bool = False,
    ):
        self.rng = rng
        self.unit = unit
        self.fonts = fonts
        self.photos = photos
        self.fringes = fringes
        self.image = Image.new("RGB", size)
        self.theme = new_theme(rng)
        others = [script.name for script in SCRIPTS if script.name in fonts.scripts]
        others.remove("latin")
        own = "latin"
        if others and rng.random() < _OTHER_SCRIPT:
            own = others[rng.integers(len(others))]
        self.latin = Writer(rng, SCRIPT_BY_NAME["latin"])
        self.writer = Writer(rng, SCRIPT_BY_NAME[own]) if own != "latin" else self.latin
        self.face = fonts.choose(rng, own)
        self.head_face = self.face
        if rng.random() < 0.6:
            self.head_face = fonts.choose(rng, own, bold=bool(rng.random() < 0.6))
        self.mono_face = fonts.choose(rng, "latin", mono=True)
        self.latin_face = self.face if "latin" in self.face.scripts else fonts.choose(rng, "latin")

    # Chance.

    @property
    def width(self) -> int:
        """In pixels."""
        return self.image.width

    @property
    def height(self) -> int:
        """In pixels."""
        return self.image.height

    @property
    def box(self) -> Box:
        """All of the canvas."""
        return 0, 0, self.width, self.height

    def px(self, length: float) -> int:
        """Reference pixels as pixels of the canvas, one at least."""
        return max(1, round(length * self.unit))

    def chance(self, share: float) -> bool:
        """True in so many cases of one."""
        return bool(self.rng.random() < share)

    def integer(self, low: int, high: int) -> int:
        """A whole number, both ends included; `low` if they are the wrong way round."""
        return int(self.rng.integers(low, max(low, high) + 1))

    def real(self, low: float, high: float) -> float:
        """A number in between."""
        return float(self.rng.uniform(low, high))

    def pick(self, things: Sequence[T]) -> T:
        """One of several."""
        return things[int(self.rng.integers(len(things)))]

    def colour(self, *, vivid: bool | None = None) -> Colour:
        """Any colour; vivid ones are saturated to the full."""
        if self.chance(0.2) if vivid is None else vivid:
            pure = [(a, b, c) for a in (0, 255) for b in (0, 255) for c in (0, 255)]
            return self.pick(pure[1:7])
        return hue_colour(self.real(0, 1), self.real(0, 1) ** 0.6, self.real(0.15, 1))

    # Areas.

    def fill(self, box: Box, colour: Colour, opacity: float = 1.0) -> None:
        """A box in one colour; nothing if it is empty."""
        if box[2] <= box[0] or box[3] <= box[1]:
            return
        if opacity < 1:
            self.paint(box, colour, Image.new("L", _size(box), round(255 * opacity)))
        else:
            self.image.paste(colour, box)

    def paint(self, box: Box, colour: Colour, mask: Image.Image) -> None:
        """A colour through a mask of the size of the box."""
        self.image.paste(colour, box[:2], mask)

    def shape(
        self,
        box: Box,
        colour: Colour,
        draw: Callable[[ImageDraw.ImageDraw, int], None],
        opacity: float = 1.0,
    ) -> None:
        """A shape with smooth edges.

        Args:
            box: where it lies; what goes beyond is cut off.
            colour: of the shape.
            draw: draws it white into a picture so many times larger than the box.
            opacity: in [0, 1].
        """
        width, height = _size(box)
        if width < 1 or height < 1:
            return
        fine = _FINE if width * height < 300_000 else 2
        mask = Image.new("L", (fine * width, fine * height))
        draw(ImageDraw.Draw(mask), fine)
        mask = mask.reduce(fine)
        if opacity < 1:
            mask = mask.point([round(opacity * level) for level in range(256)])
        self.paint(box, colour, mask)

    def rounded(self, box: Box, colour: Colour, radius: float, opacity: float = 1.0) -> None:
        """A box with round corners."""
        if box[2] <= box[0] or box[3] <= box[1]:
            return
        if radius < 0.5:
            self.fill(box, colour, opacity)
            return
        self.paint(box, colour, rounded_mask(_size(box), radius, opacity))

    def outline(self, box: Box, colour: Colour, thickness: int = 1, radius: float = 0) -> None:
        """The border of a box."""
        if box[2] <= box[0] or box[3] <= box[1]:
            return
        if radius < 0.5:
            ImageDraw.Draw(self.image).rectangle(
                (box[0], box[1], box[2] - 1, box[3] - 1), outline=colour, width=thickness
            )
            return
        mask = rounded_mask(_size(box), radius)
        inner = inset(box, thickness)
        if inner[2] > inner[0] and inner[3] > inner[1]:
            hole = rounded_mask(_size(inner), max(0.0, radius - thickness))
            mask.paste(0, (thickness, thickness), hole)
        self.paint(box, colour, mask)

    def ellipse(self, box: Box, colour: Colour, opacity: float = 1.0) -> None:
        """An ellipse that fills a box."""
        width, height = _size(box)
        self.shape(
            box,
            colour,
            lambda draw, fine: draw.ellipse((0, 0, fine * width - 1, fine * height - 1), fill=255),
            opacity,
        )

    def polygon(
        self, points: Sequence[tuple[float, float]], colour: Colour, opacity: float = 1.0
    ) -> None:
        """A filled polygon."""
        box = _bounds(points, 1, self.box)
        self.shape(
            box,
            colour,
            lambda draw, fine: draw.polygon(
                [(fine * (x - box[0]), fine * (y - box[1])) for x, y in points], fill=255
            ),
            opacity,
        )

    def line(
        self, points: Sequence[tuple[float, float]], colour: Colour, thickness: float = 1.0
    ) -> None:
        """A line through points; sharp where it runs along the grid, smooth elsewhere."""
        (x0, y0), (x1, y1) = points[0], points[-1]
        whole = max(1, round(thickness))
        if len(points) == 2 and (x0 == x1 or y0 == y1):
            left, top = round(min(x0, x1)), round(min(y0, y1))
            right, bottom = round(max(x0, x1)), round(max(y0, y1))
            box = (left, top, left + whole, bottom) if x0 == x1 else (left, top, right, top + whole)
            if box[2] > box[0] and box[3] > box[1]:
                self.fill(box, colour)
            return
        box = _bounds(points, whole + 1, self.box)
        self.shape(
            box,
            colour,
            lambda draw, fine: draw.line(
                [(fine * (x - box[0]), fine * (y - box[1])) for x, y in points],
                fill=255,
                width=max(1, round(fine * thickness)),
                joint="curve",
            ),
        )

    def shadow(self, box: Box, radius: float, strength: float, drop: int = 0) -> None:
        """A soft shadow around a box; the radius is that of the blur, the strength in [0, 1]."""
        if box[2] <= box[0] or box[3] <= box[1]:
            return
        pad = round(2 * radius) + 1
        around = cut(
            (box[0] - pad, box[1] - pad + drop, box[2] + pad, box[3] + pad + drop), self.box
        )
        width, height = _size(around)
        if width < 1 or height < 1:
            return
        # A blurred box is smooth: a quarter of the resolution is enough for a wide one.
        part = 4 if radius >= 6 else 1
        mask = Image.new("L", (width // part + 1, height // part + 1))
        inner = [box[0] - around[0], box[1] + drop - around[1], box[2] - around[0]]
        inner.append(box[3] + drop - around[1])
        left, top, right, bottom = (side // part for side in inner)
        mask.paste(round(255 * strength), (left, top, max(left, right), max(top, bottom)))
        mask = mask.filter(ImageFilter.GaussianBlur(radius / part))
        if part > 1:
            mask = mask.resize(
                (part * mask.width, part * mask.height), Image.Resampling.BICUBIC
            ).crop((0, 0, width, height))
        else:
            mask = mask.crop((0, 0, width, height))
        self.paint(around, BLACK, mask)

    def gradient(self, box: Box, colours: Sequence[Colour], angle: float = 0.0) -> None:
        """A linear gradient through colours; the angle in radians, 0 goes downwards."""
        width, height = _size(box)
        if width < 1 or height < 1:
            return
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        along = np.cos(angle) * y / max(1, height) + np.sin(angle) * x / max(1, width)
        along = (along - along.min()) / max(1e-6, float(along.max() - along.min()))
        self.image.paste(Image.fromarray(ramp(along, colours)), box[:2])

    def photo(self, box: Box) -> None:
        """A photograph that fills a box, cut to its shape; a gradient if there is none."""
        width, height = _size(box)
        if width < 1 or height < 1:
            return
        photo = self.photos.open(self.rng, width, height)
        if photo is None:
            self.gradient(box, [self.colour() for _ in range(3)], self.real(-1, 1))
            return
        with photo:
            mirrored = self.chance(0.5)
            fitted = ImageOps.fit(
                photo.convert("RGB"),
                (width, height),
                Image.Resampling.BICUBIC,
                centering=(self.real(0.2, 0.8), self.real(0.2, 0.8)),
            )
        self.image.paste(ImageOps.mirror(fitted) if mirrored else fitted, box[:2])

    def rounded_photo(self, box: Box, radius: float) -> None:
        """A photograph with round corners."""
        if box[2] <= box[0] or box[3] <= box[1]:
            return
        before = self.image.crop(box)
        self.photo(box)
        mask = ImageOps.invert(rounded_mask(_size(box), radius))
        self.image.paste(before, box[:2], mask)

    # Text.

    def text(
        self,
        place: tuple[float, float],
        text: str,
        face: Face,
        size_px: int,
        colour: Colour,
        *,
        right: bool = False,
        centre: bool = False,
        opacity: float = 1.0,
    ) -> int:
        """A line of text, its top left at a place, or its top right, or the middle of its top.

        Returns:
            Its width in pixels.
        """
        if not text:
            return 0
        font = face.at(size_px, shaped=self.writer.script.shaped and not text.isascii())
        width = round(font.getlength(text))
        x = round(place[0]) - (width if right else width // 2 if centre else 0)
        y = round(place[1])
        if self.fringes and size_px < 40 and opacity == 1:
            self._fringed_text((x, y), text, face, size_px, colour)
        elif opacity < 1:
            mask = Image.new("L", (width + size_px, round(1.6 * size_px)))
            ImageDraw.Draw(mask).text((0, 0), text, fill=round(255 * opacity), font=font)
            self.paint((x, y, x + mask.width, y + mask.height), colour, mask)
        else:
            ImageDraw.Draw(self.image).text((x, y), text, fill=colour, font=font)
        return width

    def text_width(self, text: str, face: Face, size_px: int) -> int:
        """The width of a line of text in pixels."""
        font = face.at(size_px, shaped=self.writer.script.shaped and not text.isascii())
        return round(font.getlength(text))

    def fitting(self, text: str, face: Face, size_px: int, width: int) -> int:
        """The size in pixels at which a line of text fits a width, not larger than it was."""
        used = self.text_width(text, face, size_px)
        return size_px if used <= width else max(6, size_px * width // used)

    def _fringed_text(
        self, place: tuple[int, int], text: str, face: Face, size_px: int, colour: Colour
    ) -> None:
        """Text whose edges are coloured, one third of a pixel for each primary."""
        shaped = self.writer.script.shaped and not text.isascii()
        font = face.at(3 * size_px, shaped=shaped)
        width = round(font.getlength(text)) // 3 + size_px
        height = round(1.5 * size_px)
        left, top = place
        area = cut((left - 2, top, left + width, top + height), self.box)
        if area[2] <= area[0] or area[3] <= area[1]:
            return
        tall = Image.new("L", (3 * (width + 2), 3 * height))
        ImageDraw.Draw(tall).text((6, 0), text, fill=255, font=font)
        fine = np.asarray(tall.reduce((1, 3)), np.float32) / 255
        padded = np.pad(fine, ((0, 0), (2, 2)))
        weights = (1, 2, 3, 2, 1)
        columns = fine.shape[1]
        soft = sum(
            weight / 9 * padded[:, place : place + columns] for place, weight in enumerate(weights)
        )
        cover = np.asarray(soft).reshape(height, width + 2, 3)
        x, y = area[0] - (left - 2), area[1] - top
        cover = cover[y : y + area[3] - area[1], x : x + area[2] - area[0]]
        under = np.asarray(self.image.crop(area), np.float32)
        over = under + cover * (np.array(colour, np.float32) - under)
        self.image.paste(Image.fromarray(np.round(over).astype(np.uint8)), area[:2])

    def paragraph(
        self,
        box: Box,
        face: Face,
        size_px: int,
        colour: Colour,
        *,
        sentences: int | None = None,
        spacing: float = 1.4,
        justified: bool = False,
        centred: bool = False,
    ) -> int:
        """Sentences in lines that fit a box.

        Args:
            box: the width is kept, the height not exceeded.
            face: to write with.
            size_px: of the letters.
            colour: of the letters.
            sentences: how many; by chance if None.
            spacing: from line to line, in sizes of the letters.
            justified: whether lines end at the right edge.
            centred: whether lines stand in the middle.

        Returns:
            Where the text ends, as a row of the canvas.
        """
        pieces = self.writer.sentences(sentences or self.integer(1, 7))
        script = self.writer.script
        gap = " " if script.spaced else ""
        font = face.at(size_px, shaped=script.shaped)
        space = font.getlength(gap) if gap else 0.0
        step = max(1, round(spacing * size_px))
        width = box[2] - box[0]
        y = box[1]
        lines: list[list[str]] = [[]]
        used = 0.0
        for piece in pieces:
            length = font.getlength(piece)
            if lines[-1] and used + length > width:
                lines.append([])
                used = 0.0
            lines[-1].append(piece)
            used += length + space
        for number, words in enumerate(lines):
            if y + step > box[3]:
                break
            last = number == len(lines) - 1
            if justified and not last and len(words) > 1 and not script.shaped:
                lengths = [font.getlength(word) for word in words]
                extra = max(0.0, (width - sum(lengths)) / (len(words) - 1))
                x = float(box[0])
                for word, length in zip(words, lengths, strict=True):
                    self.text((x, y), word, face, size_px, colour)
                    x += length + extra
            elif centred:
                middle = (box[0] + box[2]) // 2
                self.text((middle, y), gap.join(words), face, size_px, colour, centre=True)
            elif script.leftward:
                self.text((box[2], y), gap.join(words), face, size_px, colour, right=True)
            else:
                self.text((box[0], y), gap.join(words), face, size_px, colour)
            y += step
        return y

    def icon(self, box: Box, colour: Colour) -> None:
        """A small sign of the kind that buttons have, a tile, or a round portrait."""
        width, height = _size(box)
        if width < 3 or height < 3:
            return
        kind = self.integer(0, 9)
        left, top, right, bottom = box
        stroke = max(1.0, width / 9)
        mid_x, mid_y = (left + right) / 2, (top + bottom) / 2
        if kind == 0:
            self.ellipse(box, colour)
        elif kind == 1:
            self.outline(box, colour, max(1, round(stroke)), width / 4)
        elif kind == 2:
            for place in (0.2, 0.5, 0.8):
                y = top + place * height
                self.line([(left, y), (right, y)], colour, stroke)
        elif kind == 3:
            self.polygon([(left, top), (right, mid_y), (left, bottom)], colour)
        elif kind == 4:
            self.line([(left, mid_y), (mid_x, bottom), (right, top)], colour, stroke)
        elif kind == 5:
            self.line([(left, top), (right, bottom)], colour, stroke)
            self.line([(right, top), (left, bottom)], colour, stroke)
        elif kind == 6:
            turns = np.linspace(0, 2 * np.pi, 11)[:-1] - np.pi / 2
            radii = np.where(np.arange(10) % 2, 0.22, 0.5)
            self.polygon(
                [
                    (mid_x + width * radius * np.cos(turn), mid_y + height * radius * np.sin(turn))
                    for turn, radius in zip(turns, radii, strict=True)
                ],
                colour,
            )
        elif kind == 7:
            self.rounded(box, colour, width / 4)
            letter = self.writer.word()[:1]
            size = max(5, round(0.6 * height))
            ink = WHITE if brightness(colour) < 150 else BLACK
            self.text((mid_x, mid_y - 0.6 * size), letter, self.face, size, ink, centre=True)
        elif kind == 8:
            self.rounded_photo(box, width / 2)
        else:
            for place in range(4):
                x = left + place % 2 * width // 2
                y = top + place // 2 * height // 2
                self.fill((x, y, x + width // 2 - 1, y + height // 2 - 1), colour)

    def inside(self, box: Box, draw: "Callable[[Canvas, Box], None]") -> None:
        """Draw something that is cut off at the edges of a box."""
        box = cut(box, self.box)
        if box[2] - box[0] < 2 or box[3] - box[1] < 2:
            return
        whole = self.image
        self.image = whole.crop(box)
        try:
            draw(self, self.box)
            whole.paste(self.image, box[:2])
        finally:
            self.image = whole


def _size(box: Box) -> tuple[int, int]:
    return box[2] - box[0], box[3] - box[1]


def inset(box: Box, margin: int) -> Box:
    """A box within a box."""
    return box[0] + margin, box[1] + margin, box[2] - margin, box[3] - margin


def cut(box: Box, limits: Box) -> Box:
    """What of a box lies within limits."""
    return (
        max(box[0], limits[0]),
        max(box[1], limits[1]),
        min(box[2], limits[2]),
        min(box[3], limits[3]),
    )


def _bounds(points: Sequence[tuple[float, float]], margin: int, limits: Box) -> Box:
    """The box around points."""
    xs, ys = zip(*points, strict=True)
    box = (
        int(min(xs)) - margin,
        int(min(ys)) - margin,
        int(max(xs)) + margin + 1,
        int(max(ys)) + margin + 1,
    )
    return cut(box, limits)


def rounded_mask(size: tuple[int, int], radius: float, opacity: float = 1.0) -> Image.Image:
    """A mask of a box with round corners; only the corners are drawn finely."""
    width, height = size
    level = round(255 * opacity)
    mask = Image.new("L", (max(1, width), max(1, height)), level)
    side = min(round(radius), width // 2, height // 2)
    if side < 1:
        return mask
    corner = Image.new("L", (_FINE * side, _FINE * side))
    ImageDraw.Draw(corner).ellipse((0, 0, 2 * _FINE * side - 1, 2 * _FINE * side - 1), fill=level)
    corner = corner.reduce(_FINE)
    flipped = ImageOps.mirror(corner)
    mask.paste(corner, (0, 0))
    mask.paste(flipped, (width - side, 0))
    mask.paste(ImageOps.flip(corner), (0, height - side))
    mask.paste(ImageOps.flip(flipped), (width - side, height - side))
    return mask


def ramp(along: np.ndarray, colours: Sequence[Colour]) -> np.ndarray:
    """Places in [0, 1], of any shape, as uint8 colours between given ones, last axis 3."""
    stops = np.linspace(0, 1, len(colours))
    table = np.stack(
        [
            np.interp(np.linspace(0, 1, 4096), stops, [colour[channel] for colour in colours])
            for channel in range(3)
        ],
        axis=-1,
    )
    places = (along * 4095).astype(np.int32)
    return np.round(table).astype(np.uint8)[places]


def soft_noise(rng: np.random.Generator, size: tuple[int, int], grain_px: float) -> np.ndarray:
    """(height, width) float32 noise in about -1..1 whose grains are so many pixels wide."""
    width, height = size
    few = (max(2, round(2 * height / grain_px) + 1), max(2, round(2 * width / grain_px) + 1))
    dots = rng.normal(0, 0.7, (few[0] + 2, few[1] + 2))
    # Neighbours are averaged, so that the grid of the dots does not show.
    dots = (dots[:-2] + 2 * dots[1:-1] + dots[2:]) / 4
    dots = (dots[:, :-2] + 2 * dots[:, 1:-1] + dots[:, 2:]) / 4
    noise = Image.fromarray(dots.astype(np.float32))
    return np.asarray(noise.resize(size, Image.Resampling.BICUBIC), np.float32)


def in_perspective(
    picture: Image.Image, corners: Sequence[tuple[float, float]], size: tuple[int, int]
) -> tuple[Image.Image, Image.Image]:
    """A picture with its corners moved, and the mask of where it lies.

    Args:
        picture: what is seen at an angle.
        corners: where its top left, top right, bottom right and bottom left come to lie.
        size: width and height of the result.
    """
    width, height = picture.size
    rows, targets = [], []
    sources = ((0, 0), (width, 0), (width, height), (0, height))
    for (x, y), (u, v) in zip(corners, sources, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        targets += [u, v]
    solved = np.linalg.solve(np.array(rows, np.float64), np.array(targets, np.float64))
    coefficients = tuple(float(value) for value in solved)
    warped = picture.transform(
        size, Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BICUBIC
    )
    fine = Image.new("L", (2 * size[0], 2 * size[1]))
    ImageDraw.Draw(fine).polygon([(2 * x, 2 * y) for x, y in corners], fill=255)
    return warped, fine.reduce(2)
