"""Rendered flat art: shapes, posters, cel shading, pixel art; soft gradients and shadows."""

import numpy as np
from PIL import Image, ImageFilter

from rendering.canvas import (
    BLACK,
    WHITE,
    Canvas,
    brightness,
    hue_colour,
    mixed,
    ramp,
    soft_noise,
)


def flat(canvas: Canvas) -> None:
    """Areas of one colour each."""
    canvas.pick([_shapes, _shapes, _poster, _cel, _sprites, _stripes, _signs, _plain])(canvas)


def _shapes(canvas: Canvas) -> None:
    canvas.fill(canvas.box, canvas.colour())
    for _ in range(canvas.integer(3, 30)):
        colour = canvas.colour()
        side = round(min(canvas.width, canvas.height) * canvas.real(0.03, 0.5))
        x, y = canvas.integer(-side // 2, canvas.width), canvas.integer(-side // 2, canvas.height)
        box = (x, y, x + side, y + round(side * canvas.real(0.3, 1.5)))
        kind = canvas.integer(0, 4)
        if kind == 0:
            canvas.fill(box, colour)
        elif kind == 1:
            canvas.ellipse((x, y, x + side, y + side), colour)
        elif kind == 2:
            points = np.array((x, y)) + canvas.rng.uniform(0, side, (canvas.integer(3, 6), 2))
            canvas.polygon([(float(u), float(v)) for u, v in points], colour)
        elif kind == 3:
            canvas.rounded(box, colour, side * canvas.real(0.05, 0.4))
        else:
            end = (canvas.real(0, canvas.width), canvas.real(0, canvas.height))
            canvas.line([(x, y), end], colour, canvas.px(canvas.integer(1, 12)))


def _poster(canvas: Canvas) -> None:
    ground = canvas.colour()
    canvas.fill(canvas.box, ground)
    ink = canvas.colour() if canvas.chance(0.5) else WHITE if brightness(ground) < 130 else BLACK
    side = min(canvas.width, canvas.height)
    for _ in range(canvas.integer(1, 4)):
        radius = round(side * canvas.real(0.1, 0.6))
        x, y = canvas.integer(0, canvas.width), canvas.integer(0, canvas.height)
        canvas.ellipse((x - radius, y - radius, x + radius, y + radius), canvas.colour())
    y = round(canvas.height * canvas.real(0.05, 0.3))
    for _ in range(canvas.integer(1, 4)):
        text = canvas.writer.title()
        size = round(side * canvas.real(0.05, 0.2))
        wide = canvas.text_width(text, canvas.head_face, size)
        size = min(size, max(8, round(size * 0.9 * canvas.width / max(1, wide))))
        canvas.text((canvas.width // 2, y), text, canvas.head_face, size, ink, centre=True)
        y += round(1.3 * size)
    size = canvas.px(canvas.integer(9, 16))
    box = (canvas.width // 8, round(0.75 * canvas.height), canvas.width * 7 // 8, canvas.height)
    canvas.paragraph(box, canvas.face, size, ink, sentences=2, centred=True)


def _cel(canvas: Canvas) -> None:
    """Hills, sky and round figures with outlines, each in a light and a dark tone."""
    hue = canvas.real(0, 1)
    canvas.gradient(canvas.box, [hue_colour(hue, 0.5, 0.9)] * 2)
    for layer in range(canvas.integer(2, 5)):
        x = np.linspace(0, canvas.width, 60)
        phases = canvas.rng.uniform(0, 6, 3)
        waves = sum(
            np.sin(phase + rate * x / canvas.width) / rate
            for phase, rate in zip(phases, canvas.rng.uniform(2, 14, 3), strict=True)
        )
        base = canvas.height * (0.35 + 0.15 * layer)
        y = base + 0.3 * canvas.height * np.asarray(waves)
        points = list(zip(x.tolist(), y.tolist(), strict=True))
        colour = hue_colour(hue + 0.12 * layer, canvas.real(0.4, 1), canvas.real(0.3, 0.9))
        canvas.polygon([*points, (canvas.width, canvas.height), (0, canvas.height)], colour)
        if canvas.chance(0.5):
            canvas.line(points, BLACK, canvas.px(2))
    for _ in range(canvas.integer(1, 6)):
        radius = round(canvas.height * canvas.real(0.04, 0.2))
        x0, y0 = canvas.integer(0, canvas.width), canvas.integer(0, canvas.height)
        colour = canvas.colour()
        line = canvas.px(canvas.integer(1, 4))
        outer = (x0 - radius - line, y0 - radius - line, x0 + radius + line, y0 + radius + line)
        canvas.ellipse(outer, BLACK)
        canvas.ellipse(
            (x0 - radius, y0 - radius, x0 + radius, y0 + radius), mixed(colour, BLACK, 0.35)
        )
        part = round(0.75 * radius)
        shift = radius // 6
        lit = (x0 - part - shift, y0 - part - shift, x0 + part - shift, y0 + part - shift)
        canvas.ellipse(lit, colour)
        spot = (x0 - radius // 2, y0 - radius // 2, x0 - radius // 4, y0 - radius // 4)
        canvas.ellipse(spot, WHITE)


def _sprites(canvas: Canvas) -> None:
    """Pixel art scaled up: figures like mirrored blots on tiles."""
    zoom = canvas.integer(3, 14)
    columns, rows = canvas.width // zoom + 1, canvas.height // zoom + 1
    palette = np.array([canvas.colour() for _ in range(canvas.integer(4, 12))], np.uint8)
    art = np.zeros((rows, columns), np.int64)
    tile = canvas.integer(4, 16)
    kinds = canvas.rng.integers(0, 3, (rows // tile + 1, columns // tile + 1))
    # Most of a tile is of one colour.
    pairs = canvas.rng.integers(0, len(palette), (3, 2))
    spotted = canvas.rng.random((3, tile, tile)) < canvas.rng.uniform(0, 0.35, (3, 1, 1))
    tiles = np.where(spotted, pairs[:, 1, None, None], pairs[:, 0, None, None])
    for row in range(kinds.shape[0]):
        for column in range(kinds.shape[1]):
            top, left = row * tile, column * tile
            part = art[top : top + tile, left : left + tile]
            part[...] = tiles[kinds[row, column], : part.shape[0], : part.shape[1]]
    for _ in range(canvas.integer(2, 14)):
        side = canvas.integer(6, 20)
        half = canvas.rng.random((side, side // 2)) < 0.55
        figure = np.concatenate([half, half[:, ::-1]], axis=1)
        top, left = canvas.integer(0, rows), canvas.integer(0, columns)
        part = art[top : top + figure.shape[0], left : left + figure.shape[1]]
        shown = figure[: part.shape[0], : part.shape[1]]
        part[shown] = canvas.integer(0, len(palette) - 1)
    pixels = palette[art].repeat(zoom, axis=0).repeat(zoom, axis=1)
    canvas.image = Image.fromarray(pixels[: canvas.height, : canvas.width].copy())


def _stripes(canvas: Canvas) -> None:
    """Stripes, checks or a flag."""
    colours = [canvas.colour() for _ in range(canvas.integer(2, 5))]
    step = canvas.integer(2, max(3, canvas.width // 4))
    kind = canvas.integer(0, 3)
    y, x = np.mgrid[0 : canvas.height, 0 : canvas.width]
    if kind == 0:
        places = x // step
    elif kind == 1:
        places = y // step
    elif kind == 2:
        places = x // step + y // step
    else:
        places = ((x * canvas.real(0.3, 1) + y * canvas.real(0.3, 1)) / step).astype(np.int64)
    canvas.image = Image.fromarray(np.array(colours, np.uint8)[places % len(colours)])
    if canvas.chance(0.4):
        radius = min(canvas.width, canvas.height) // 4
        x0, y0 = canvas.width // 2, canvas.height // 2
        canvas.ellipse((x0 - radius, y0 - radius, x0 + radius, y0 + radius), canvas.colour())


def _signs(canvas: Canvas) -> None:
    """A sheet of icons."""
    canvas.fill(canvas.box, canvas.colour() if canvas.chance(0.5) else canvas.theme.ground)
    side = canvas.px(canvas.integer(16, 80))
    for top in range(side // 2, canvas.height, round(1.6 * side)):
        for left in range(side // 2, canvas.width, round(1.6 * side)):
            canvas.icon((left, top, left + side, top + side), canvas.colour())


def _plain(canvas: Canvas) -> None:
    """One colour, or two with a straight edge, and very little on it."""
    canvas.fill(canvas.box, canvas.colour(vivid=canvas.chance(0.6)))
    if canvas.chance(0.5):
        split = round(canvas.height * canvas.real(0.1, 0.9))
        canvas.fill((0, split, canvas.width, canvas.height), canvas.colour())
    if canvas.chance(0.6):
        size = canvas.px(canvas.integer(14, 60))
        place = (canvas.width // 2, canvas.integer(0, canvas.height - size))
        canvas.text(
            place, canvas.writer.title(), canvas.head_face, size, canvas.colour(), centre=True
        )


def soft(canvas: Canvas) -> None:
    """Gradients, vignettes, clouds, discs out of focus; cards with wide shadows on them."""
    kind = canvas.integer(0, 3)
    colours = [canvas.colour(vivid=False) for _ in range(canvas.integer(2, 4))]
    y, x = np.mgrid[0 : canvas.height, 0 : canvas.width].astype(np.float32)
    if kind == 0:
        canvas.gradient(canvas.box, colours, canvas.real(-3, 3))
    elif kind == 1:
        centre = canvas.rng.uniform(0, 1, 2)
        away = np.hypot(x / canvas.width - centre[0], y / canvas.height - centre[1])
        canvas.image = Image.fromarray(ramp(np.clip(away / away.max(), 0, 1), colours))
    elif kind == 2:
        clouds = soft_noise(canvas.rng, canvas.image.size, canvas.real(60, 400))
        clouds = clouds + 0.4 * soft_noise(canvas.rng, canvas.image.size, canvas.real(20, 80))
        canvas.image = Image.fromarray(ramp(np.clip(0.5 + 0.5 * clouds, 0, 1), colours))
    else:
        small = Canvas(
            canvas.rng, (canvas.width // 4, canvas.height // 4), 1, canvas.fonts, canvas.photos
        )
        small.gradient(small.box, colours[:2], canvas.real(-2, 2))
        for _ in range(canvas.integer(5, 40)):
            side = canvas.integer(4, 50)
            left, top = canvas.integer(-side, small.width), canvas.integer(-side, small.height)
            colour = small.pick([colours[-1], WHITE, canvas.colour(vivid=False)])
            small.ellipse((left, top, left + side, top + side), colour, canvas.real(0.1, 0.6))
        blurred = small.image.filter(ImageFilter.GaussianBlur(canvas.real(1, 8)))
        canvas.image = blurred.resize(canvas.image.size, Image.Resampling.BICUBIC)
    if canvas.chance(0.6):
        for _ in range(canvas.integer(1, 4)):
            wide = round(canvas.width * canvas.real(0.15, 0.6))
            high = round(canvas.height * canvas.real(0.1, 0.5))
            left, top = (
                canvas.integer(0, canvas.width - wide),
                canvas.integer(0, canvas.height - high),
            )
            box = (left, top, left + wide, top + high)
            canvas.shadow(
                box, canvas.px(canvas.pick([6, 15, 30])), canvas.real(0.15, 0.6), canvas.px(8)
            )
            colour = canvas.pick([canvas.theme.surface, canvas.theme.accent, canvas.colour()])
            canvas.rounded(
                box, colour, canvas.px(canvas.pick([0, 8, 24])), canvas.pick([1.0, 1.0, 0.5])
            )
            ink = WHITE if brightness(colour) < 130 else BLACK
            size = canvas.px(canvas.integer(10, 40))
            if canvas.chance(0.7):
                inner = (left + size, top + size // 2, left + wide - size, top + high)
                canvas.paragraph(inner, canvas.head_face, size, ink, sentences=1)
    if canvas.chance(0.5):
        grain = canvas.rng.standard_normal((canvas.height, canvas.width, 1), dtype=np.float32)
        noisy = np.asarray(canvas.image, np.float32) + canvas.real(0.5, 4) * grain
        canvas.image = Image.fromarray(noisy.clip(0, 255).round().astype(np.uint8))
