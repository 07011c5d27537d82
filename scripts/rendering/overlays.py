"""Rendered overlays: text, labels, signs and interfaces over photographs; long straight lines."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from rendering.canvas import (
    BLACK,
    WHITE,
    Box,
    Canvas,
    Colour,
    brightness,
    hue_colour,
    in_perspective,
    inset,
    mixed,
    new_theme,
    soft_noise,
)
from rendering.charts import plot
from rendering.screens import PROGRAMS, button, window


def overlay(canvas: Canvas) -> None:
    """A photograph, or several, with one or two things on it."""
    if canvas.chance(0.12):
        _collage(canvas)
    else:
        canvas.photo(canvas.box)
        if canvas.chance(0.2):
            _vignette(canvas)
    for _ in range(canvas.pick([1, 2, 2, 3])):
        canvas.pick(
            [
                _subtitles,
                _headline,
                _headline,
                _labels,
                _labels,
                _signs,
                _signs,
                _card,
                _card,
                _stamp,
                _icons,
                _meme,
                _grid,
                _panel,
                _scattered,
                _lock_screen,
            ]
        )(canvas)


def _vignette(canvas: Canvas) -> None:
    y, x = np.mgrid[0 : canvas.height, 0 : canvas.width].astype(np.float32)
    away = np.hypot(x / canvas.width - 0.5, y / canvas.height - 0.5)
    light = 1 - canvas.real(0.3, 1.2) * np.clip(away - 0.25, 0, None)
    pixels = np.asarray(canvas.image, np.float32) * light.clip(0, 1)[..., None]
    canvas.image = Image.fromarray(pixels.round().astype(np.uint8))


def _collage(canvas: Canvas) -> None:
    border = canvas.integer(0, canvas.px(16))
    canvas.fill(canvas.box, canvas.pick([WHITE, BLACK, canvas.colour()]))
    columns, rows = canvas.integer(1, 3), canvas.integer(1, 3)
    wide, high = canvas.width // columns, canvas.height // rows
    for row in range(rows):
        for column in range(columns):
            box = (column * wide, row * high, (column + 1) * wide, (row + 1) * high)
            canvas.photo(inset(box, border))


def _outlined(
    canvas: Canvas, place: tuple[int, int], text: str, size: int, ink: Colour, edge: Colour
) -> None:
    """Text in the middle with a border around its letters."""
    font = canvas.head_face.at(size, shaped=canvas.writer.script.shaped and not text.isascii())
    x = place[0] - round(font.getlength(text)) // 2
    ImageDraw.Draw(canvas.image).text(
        (x, place[1]), text, fill=ink, font=font, stroke_width=max(1, size // 14), stroke_fill=edge
    )


def _subtitles(canvas: Canvas) -> None:
    size = canvas.px(canvas.integer(14, 30))
    ink = canvas.pick([WHITE, WHITE, (255, 255, 0)])
    boxed = canvas.chance(0.35)
    count = canvas.integer(1, 2)
    y = canvas.height - round(1.5 * size) * count - canvas.integer(4, canvas.height // 8)
    for _ in range(count):
        text = canvas.writer.words(3, 8)
        fitted = canvas.fitting(text, canvas.head_face, size, canvas.width - 8)
        if boxed:
            half = canvas.text_width(text, canvas.head_face, fitted) // 2 + size // 3
            middle = canvas.width // 2
            canvas.fill(
                (middle - half, y, middle + half, y + round(1.4 * size)), BLACK, canvas.real(0.5, 1)
            )
            canvas.text((middle, y), text, canvas.head_face, fitted, ink, centre=True)
        else:
            _outlined(canvas, (canvas.width // 2, y), text, fitted, ink, BLACK)
        y += round(1.4 * size)


def _meme(canvas: Canvas) -> None:
    size = round(canvas.height * canvas.real(0.06, 0.13))
    for y in (size // 3, canvas.height - round(1.5 * size)):
        text = canvas.writer.words(2, 5).upper()
        fitted = canvas.fitting(text, canvas.head_face, size, canvas.width - 10)
        _outlined(canvas, (canvas.width // 2, y), text, fitted, WHITE, BLACK)


def _headline(canvas: Canvas) -> None:
    """A large heading and a few lines, perhaps on a darkened or lightened part."""
    dark = canvas.chance(0.7)
    shade, ink = (BLACK, WHITE) if dark else (WHITE, BLACK)
    if canvas.chance(0.7):
        top = round(canvas.height * canvas.real(0.2, 0.6))
        high = canvas.height - top
        strength = canvas.real(0.5, 0.95)
        fade = np.linspace(0, 255 * strength, high).round().astype(np.uint8)
        mask = Image.fromarray(np.repeat(fade[:, None], canvas.width, axis=1))
        canvas.paint((0, top, canvas.width, canvas.height), shade, mask)
        y = top + high // 3
    else:
        y = canvas.integer(0, canvas.height // 2)
    if canvas.chance(0.2):
        ink = canvas.colour()
    left = round(canvas.width * canvas.real(0.03, 0.12))
    for _ in range(canvas.integer(1, 3)):
        text = canvas.writer.title()
        size = canvas.px(canvas.integer(24, 90))
        size = canvas.fitting(text, canvas.head_face, size, canvas.width - 2 * left)
        if canvas.chance(0.3):
            canvas.text(
                (left + canvas.px(2), y + canvas.px(2)),
                text,
                canvas.head_face,
                size,
                BLACK,
                opacity=0.6,
            )
        canvas.text((left, y), text, canvas.head_face, size, ink)
        y += round(1.25 * size)
    size = canvas.px(canvas.integer(9, 16))
    box = (left, y + size, canvas.width - left, canvas.height)
    y = canvas.paragraph(box, canvas.face, size, ink, sentences=canvas.integer(1, 3))
    if canvas.chance(0.4):
        button(canvas, (left, y + size), size)


def _labels(canvas: Canvas) -> None:
    """Frames around parts of the photograph, each with a label, or labels with leader lines."""
    size = canvas.px(canvas.integer(8, 16))
    framed = canvas.chance(0.6)
    for _ in range(canvas.integer(2, 9)):
        colour = canvas.colour()
        ink = WHITE if brightness(colour) < 130 else BLACK
        text = (
            canvas.writer.words(1, 2)
            if canvas.chance(0.5)
            else f"{canvas.latin.word()} {canvas.real(0, 1):.2f}"
        )
        wide = canvas.text_width(text, canvas.face, size) + size
        x, y = canvas.integer(0, canvas.width), canvas.integer(0, canvas.height)
        if framed:
            box = (
                x,
                y,
                x + canvas.integer(wide, wide + canvas.width // 4),
                y + canvas.integer(3 * size, canvas.height // 3),
            )
            canvas.outline(box, colour, canvas.px(canvas.pick([1, 2, 3])))
        else:
            end = (
                x + canvas.real(-0.2, 0.2) * canvas.width,
                y + canvas.real(-0.2, 0.2) * canvas.height,
            )
            canvas.line([(x, y), end], colour, canvas.px(1.5))
            dot = canvas.px(4)
            canvas.ellipse(
                (
                    round(end[0]) - dot,
                    round(end[1]) - dot,
                    round(end[0]) + dot,
                    round(end[1]) + dot,
                ),
                colour,
            )
        tag = (x, y - round(1.5 * size), x + wide, y)
        canvas.rounded(tag, colour, canvas.pick([0, canvas.px(3)]), canvas.pick([1.0, 1.0, 0.7]))
        canvas.text((x + size // 2, tag[1] + round(0.1 * size)), text, canvas.face, size, ink)


def _board(canvas: Canvas) -> Image.Image:
    """A shop sign, a road sign or a notice, seen from the front."""
    wide, high = canvas.integer(240, 560), canvas.integer(70, 300)
    ground = canvas.colour()
    board = Canvas(canvas.rng, (wide, high), 1, canvas.fonts, canvas.photos)
    board.fill(board.box, ground)
    ink = WHITE if brightness(ground) < 130 else BLACK
    if canvas.chance(0.3):
        ink = canvas.colour()
    if canvas.chance(0.6):
        board.outline(inset(board.box, 6), ink, canvas.integer(2, 5))
    text = board.writer.title()
    size = board.integer(high // 4, high // 2)
    fitted = board.fitting(text, board.head_face, size, wide - 30)
    board.text((wide // 2, high // 8), text, board.head_face, fitted, ink, centre=True)
    small = max(8, high // 11)
    board.paragraph(
        (16, high // 8 + round(1.5 * size), wide - 16, high - 8),
        board.face,
        small,
        ink,
        centred=True,
    )
    return board.image


def _signs(canvas: Canvas) -> None:
    """Boards in perspective, lit like the photograph, as on buildings."""
    for _ in range(canvas.integer(1, 3)):
        board = _board(canvas)
        wide = canvas.width * canvas.real(0.2, 0.6)
        high = wide * board.height / board.width
        left = canvas.real(-0.1, 0.8) * canvas.width
        top = canvas.real(0, 0.8) * canvas.height
        slant, shrink = canvas.real(-0.35, 0.35) * high, canvas.real(0.55, 1)
        corners = [
            (left, top),
            (left + wide, top + slant),
            (left + wide * canvas.real(0.97, 1.03), top + slant + high * shrink),
            (left + wide * canvas.real(-0.03, 0.03), top + high),
        ]
        # Enlarged pictures are read between pixels, shrunk ones would lose lines.
        part = wide / board.width
        if part < 0.7:
            size = (max(8, round(1.2 * wide)), max(8, round(1.2 * high)))
            board = board.resize(size, Image.Resampling.LANCZOS)
        warped, mask = in_perspective(board, corners, canvas.image.size)
        light = canvas.real(0.55, 1)
        warped = warped.point([round(light * level) for level in range(256)] * 3)
        if canvas.chance(0.4):
            blur = ImageFilter.GaussianBlur(canvas.real(0.4, 1.2))
            warped, mask = warped.filter(blur), mask.filter(blur)
        canvas.image.paste(warped, (0, 0), mask)


def _card(canvas: Canvas) -> None:
    """A window, a card or a part of a program over the photograph."""
    wide = round(canvas.width * canvas.real(0.3, 0.8))
    high = round(canvas.height * canvas.real(0.25, 0.8))
    left, top = canvas.integer(0, canvas.width - wide), canvas.integer(0, canvas.height - high)
    window(canvas, (left, top, left + wide, top + high), canvas.pick(PROGRAMS))


def _stamp(canvas: Canvas) -> None:
    """The date of a camera, a name in a corner, or a mark across the picture."""
    kind = canvas.integer(0, 2)
    size = canvas.px(canvas.integer(9, 22))
    if kind == 0:
        date = f"{canvas.integer(1990, 2030)} {canvas.integer(1, 12):02} {canvas.integer(1, 28):02}"
        text = f"{date}  {canvas.integer(0, 23):02}:{canvas.integer(0, 59):02}"
        place = (canvas.width - size, canvas.height - 2 * size)
        canvas.text(
            place,
            text,
            canvas.mono_face,
            size,
            canvas.pick([(255, 140, 0), WHITE, (255, 255, 0)]),
            right=True,
        )
    elif kind == 1:
        text = "© " + canvas.latin.title()
        canvas.text(
            (size, canvas.height - 2 * size),
            text,
            canvas.latin_face,
            size,
            WHITE,
            opacity=canvas.real(0.4, 1),
        )
    else:
        text = canvas.latin.title()
        step = canvas.px(canvas.integer(90, 220))
        for y in range(0, canvas.height, step):
            for x in range(-(y // step % 2) * step, canvas.width, 2 * step):
                canvas.text((x, y), text, canvas.latin_face, 2 * size, WHITE, opacity=0.3)


def _icons(canvas: Canvas) -> None:
    """A row or column of icons with shadows, as on a launcher or beside a film."""
    side = canvas.px(canvas.integer(18, 60))
    down = canvas.chance(0.5)
    size = max(7, side // 4)
    for place in range(canvas.integer(3, 8)):
        along = side // 2 + place * round(1.7 * side)
        x, y = (
            (canvas.width - round(1.5 * side), along) if down else (along, canvas.height - 2 * side)
        )
        box = (x, y, x + side, y + side)
        if canvas.chance(0.5):
            canvas.shadow(box, canvas.px(3), 0.5, 2)
            canvas.rounded(box, canvas.colour(), side * canvas.pick([0.2, 0.5]))
            canvas.icon(inset(box, side // 4), WHITE)
        else:
            canvas.icon(box, canvas.colour())
        canvas.text(
            (x + side // 2, y + side + 2),
            canvas.writer.word()[:10],
            canvas.face,
            size,
            WHITE,
            centre=True,
        )


def _grid(canvas: Canvas) -> None:
    """Thin lines over the photograph: thirds, a map's squares, rulers with numbers."""
    colour = canvas.pick([WHITE, BLACK, canvas.colour()])
    count = canvas.pick([3, 3, 8, 16])
    size = canvas.px(canvas.integer(7, 11))
    for place in range(1, count):
        x, y = canvas.width * place // count, canvas.height * place // count
        canvas.line([(x, 0), (x, canvas.height)], colour)
        canvas.line([(0, y), (canvas.width, y)], colour)
        if count > 3:
            canvas.text((x + 2, 1), str(10 * place), canvas.latin_face, size, colour)
            canvas.text((2, y + 1), str(10 * place), canvas.latin_face, size, colour)
    if canvas.chance(0.5):
        points = [(canvas.real(0, canvas.width), canvas.real(0, canvas.height)) for _ in range(6)]
        canvas.line(points, canvas.theme.accent, canvas.px(3))


def _panel(canvas: Canvas) -> None:
    """A half transparent panel with a plot or text."""
    wide, high = (
        canvas.width * canvas.integer(3, 7) // 10,
        canvas.height * canvas.integer(3, 6) // 10,
    )
    left, top = canvas.integer(0, canvas.width - wide), canvas.integer(0, canvas.height - high)
    box = (left, top, left + wide, top + high)
    canvas.theme = new_theme(canvas.rng)
    if canvas.chance(0.5):
        blurred = canvas.image.crop(box).filter(ImageFilter.BoxBlur(canvas.px(8)))
        canvas.image.paste(blurred, box[:2])
    canvas.rounded(box, canvas.theme.surface, canvas.px(10), canvas.real(0.5, 0.9))
    if canvas.chance(0.5):
        canvas.inside(box, plot)
    else:
        size = canvas.px(canvas.integer(9, 18))
        canvas.paragraph(inset(box, size), canvas.face, size, canvas.theme.ink, sentences=9)


def _scattered(canvas: Canvas) -> None:
    """Words of many sizes, colours and turns, as on a poster or a bag."""
    for _ in range(canvas.integer(3, 14)):
        text = canvas.writer.words(1, 2)
        size = canvas.px(8 * 2 ** canvas.real(0, 3))
        wide = canvas.text_width(text, canvas.head_face, size) + size
        mask = Image.new("L", (wide, 2 * size))
        shaped = canvas.writer.script.shaped and not text.isascii()
        ImageDraw.Draw(mask).text(
            (size // 2, size // 4), text, fill=255, font=canvas.head_face.at(size, shaped=shaped)
        )
        if canvas.chance(0.6):
            mask = mask.rotate(
                canvas.pick([90, canvas.real(-40, 40)]), Image.Resampling.BICUBIC, expand=True
            )
        x, y = canvas.integer(-wide // 2, canvas.width), canvas.integer(-size, canvas.height)
        canvas.paint((x, y, x + mask.width, y + mask.height), canvas.colour(), mask)


def _lock_screen(canvas: Canvas) -> None:
    """Time of day, date and messages, as on a phone."""
    size = round(min(canvas.width, canvas.height) * canvas.real(0.12, 0.22))
    y = canvas.height // 10
    middle = canvas.width // 2
    clock = f"{canvas.integer(0, 23)}:{canvas.integer(0, 59):02}"
    canvas.text((middle, y), clock, canvas.latin_face, size, WHITE, centre=True)
    small = canvas.px(canvas.integer(10, 15))
    y += round(1.3 * size)
    canvas.text(
        (middle, y), canvas.writer.words(2, 3), canvas.face, round(1.3 * small), WHITE, centre=True
    )
    y += 4 * small
    for _ in range(canvas.integer(1, 4)):
        box: Box = (canvas.width // 10, y, canvas.width * 9 // 10, y + 4 * small)
        plate = canvas.pick([WHITE, BLACK])
        canvas.rounded(box, plate, small, canvas.real(0.3, 0.9))
        icon = (box[0] + small, y + small, box[0] + 3 * small, y + 3 * small)
        canvas.icon(icon, canvas.colour())
        ink = WHITE if plate == BLACK else BLACK
        canvas.text(
            (box[0] + 4 * small, y + small // 2),
            canvas.writer.words(1, 3),
            canvas.head_face,
            small,
            ink,
        )
        canvas.text(
            (box[0] + 4 * small, y + 2 * small),
            canvas.writer.words(3, 6),
            canvas.face,
            round(0.85 * small),
            ink,
        )
        y += 5 * small


def straight_lines(canvas: Canvas) -> None:
    """Fronts of buildings, floors, fences and stairs: long straight edges in perspective."""
    if canvas.chance(0.4):
        canvas.photo(canvas.box)
    else:
        sky = hue_colour(canvas.real(0.5, 0.68), canvas.real(0, 0.7), canvas.real(0.3, 1))
        canvas.gradient(canvas.box, [mixed(sky, WHITE, 0.2), mixed(sky, WHITE, 0.7)])
    for _ in range(canvas.integer(1, 3)):
        front = canvas.pick([_front] * 6 + [_slats, _floor])(canvas)
        wide = canvas.width * canvas.real(0.6, 1.4)
        left = canvas.real(-0.3, 0.5) * canvas.width
        top = canvas.real(-0.3, 0.4) * canvas.height
        bottom = canvas.height * canvas.real(0.8, 1.4)
        slant = canvas.real(-0.3, 0.45) * canvas.height
        end = canvas.real(-0.1, 0.2) * canvas.height
        near = [
            (left, top),
            (left + wide, top + slant),
            (left + wide, bottom - end),
            (left, bottom),
        ]
        if canvas.chance(0.5):
            near = [(canvas.width - x, y) for x, y in (near[1], near[0], near[3], near[2])]
        warped, mask = in_perspective(front, near, canvas.image.size)
        canvas.image.paste(warped, (0, 0), mask)
    if canvas.chance(0.4):
        for _ in range(canvas.integer(1, 6)):
            start = (0.0, canvas.real(0, canvas.height))
            end_point = (float(canvas.width), canvas.real(0, canvas.height))
            canvas.line([start, end_point], BLACK, canvas.real(0.6, 2.5) * canvas.unit)
    if canvas.chance(0.25):
        _signs(canvas)
    grain = canvas.rng.standard_normal((canvas.height, canvas.width, 1), dtype=np.float32)
    pixels = np.asarray(canvas.image, np.float32) + canvas.real(0, 4) * grain
    canvas.image = Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8))


def _material(canvas: Canvas) -> Colour:
    """The colour of plaster, stone, brick, concrete, wood or metal; now and then of paint."""
    if canvas.chance(0.15):
        return canvas.colour(vivid=False)
    hue = canvas.pick([0.02, 0.06, 0.1, 0.13, 0.58])
    return hue_colour(hue + canvas.real(-0.02, 0.02), canvas.real(0, 0.5), canvas.real(0.2, 0.95))


def _wall(canvas: Canvas, size: tuple[int, int], colour: Colour) -> Canvas:
    """A wall with the unevenness of plaster, and courses of bricks or plates now and then."""
    wall = Canvas(canvas.rng, size, 1, canvas.fonts, canvas.photos)
    rough = soft_noise(canvas.rng, size, 3) + soft_noise(canvas.rng, size, 120)
    strength = canvas.real(2, 14)
    pixels = np.array(colour, np.float32) + strength * rough[..., None]
    wall.image = Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8))
    if canvas.chance(0.35):
        high, wide = canvas.integer(6, 24), canvas.integer(14, 60)
        joint = mixed(colour, canvas.pick([BLACK, WHITE]), canvas.real(0.15, 0.5))
        for row, y in enumerate(range(0, size[1], high)):
            wall.line([(0, y), (size[0], y)], joint)
            for x in range(row % 2 * wide // 2, size[0], wide):
                wall.line([(x, y), (x, min(size[1], y + high))], joint)
    return wall


def _front(canvas: Canvas) -> Image.Image:
    """The front of a building: rows of windows with frames, sills and what they mirror."""
    colour = _material(canvas)
    wall = _wall(canvas, (canvas.integer(500, 900), canvas.integer(500, 900)), colour)
    columns, rows = canvas.integer(3, 16), canvas.integer(3, 18)
    step_x, step_y = wall.width / columns, wall.height / rows
    share_x, share_y = canvas.real(0.35, 0.95), canvas.real(0.35, 0.95)
    frame = mixed(colour, canvas.pick([WHITE, BLACK]), canvas.real(0.3, 1))
    glass = [mixed(_material(canvas), BLACK, canvas.real(0.2, 0.7)) for _ in range(2)]
    mirrored = Image.new("RGB", wall.image.size)
    whole, wall.image = wall.image, mirrored
    if canvas.chance(0.5):
        wall.photo(wall.box)
        wall.fill(wall.box, glass[0], 0.4)
    else:
        wall.gradient(
            wall.box, [glass[0], mixed(glass[0], WHITE, 0.5), glass[1]], canvas.real(-1, 1)
        )
    mirrored, wall.image = wall.image, whole
    bars, crossed = canvas.integer(0, 3), canvas.integer(0, 2)
    edge = canvas.integer(1, 4)
    sill = canvas.chance(0.5)
    for row in range(rows):
        for column in range(columns):
            left = round((column + (1 - share_x) / 2) * step_x)
            top = round((row + (1 - share_y) / 2) * step_y)
            box = (left, top, left + round(share_x * step_x), top + round(share_y * step_y))
            if canvas.chance(0.12):
                wall.fill(
                    box, mixed(glass[1], canvas.pick([WHITE, (255, 220, 150)]), canvas.real(0, 0.7))
                )
            else:
                wall.image.paste(mirrored.crop(box), box[:2])
            for bar in range(1, bars + 1):
                x = left + (box[2] - left) * bar // (bars + 1)
                wall.line([(x, top), (x, box[3])], frame, max(1, edge // 2))
            for bar in range(1, crossed + 1):
                y = top + (box[3] - top) * bar // (crossed + 1)
                wall.line([(left, y), (box[2], y)], frame, max(1, edge // 2))
            wall.outline(box, frame, edge)
            if sill:
                wall.fill((left - 2, box[3], box[2] + 2, box[3] + 3), mixed(frame, BLACK, 0.2))
    if canvas.chance(0.4):
        for row in range(rows):
            y = round(row * step_y)
            wall.fill((0, y, wall.width, y + canvas.integer(2, 6)), mixed(colour, BLACK, 0.4))
    return wall.image


def _slats(canvas: Canvas) -> Image.Image:
    """Slats, rails or pillars with light on one side and shadow on the other."""
    size = (canvas.integer(500, 900), canvas.integer(400, 800))
    step, share = canvas.integer(5, 60), canvas.real(0.3, 0.9)
    along = np.arange(size[0], dtype=np.float32) % step / step
    light = np.where(along < share, 0.6 + 0.5 * np.sin(np.pi * np.clip(along / share, 0, 1)), 0.3)
    colour = np.array(_material(canvas), np.float32)
    rough = 1 + 0.05 * soft_noise(canvas.rng, size, 4)
    pixels = (light[None, :] * rough)[..., None] * colour
    image = Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8))
    return image.transpose(Image.Transpose.ROTATE_90) if canvas.chance(0.5) else image


def _floor(canvas: Canvas) -> Image.Image:
    """Tiles or planks with joints between."""
    colour = _material(canvas)
    wall = _wall(canvas, (800, 800), colour)
    step = canvas.integer(20, 100)
    other = mixed(colour, canvas.pick([BLACK, WHITE]), canvas.real(0.1, 0.8))
    joint = mixed(colour, BLACK, 0.5)
    for row, y in enumerate(range(0, 800, step)):
        for column, x in enumerate(range(0, 800, step)):
            if (row + column) % 2:
                wall.fill((x, y, x + step, y + step), other, 0.8)
        wall.line([(0, y), (800, y)], joint, 2)
        wall.line([(y, 0), (y, 800)], joint, 2)
    return wall.image
