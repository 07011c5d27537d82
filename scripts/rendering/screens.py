"""Rendered screens: desktops with windows, and programs that fill the screen."""

from collections.abc import Callable

from PIL import Image, ImageOps

from rendering.canvas import (
    BLACK,
    WHITE,
    Box,
    Canvas,
    Colour,
    brightness,
    cut,
    hue_colour,
    inset,
    mixed,
    new_theme,
    rounded_mask,
)
from rendering.charts import plot
from rendering.words import code_line, file_name, identifier

Content = Callable[[Canvas, Box], None]


def screen(canvas: Canvas) -> None:
    """A desktop with a few windows, or one program on the whole screen."""
    if canvas.chance(0.4):
        desktop(canvas)
    else:
        canvas.pick(PROGRAMS)(canvas, canvas.box)


def desktop(canvas: Canvas) -> None:
    """Wallpaper, a bar, icons, and windows with shadows."""
    if canvas.chance(0.65):
        canvas.photo(canvas.box)
    elif canvas.chance(0.7):
        canvas.gradient(
            canvas.box, [canvas.colour(vivid=False) for _ in range(3)], canvas.real(-2, 2)
        )
    else:
        canvas.fill(canvas.box, canvas.colour())
    _desktop_icons(canvas)
    for _ in range(canvas.integer(1, 3)):
        width = round(canvas.width * canvas.real(0.4, 0.9))
        height = round(canvas.height * canvas.real(0.35, 0.85))
        left = round((canvas.width - width) * canvas.real(-0.1, 1.1))
        top = round((canvas.height - height) * canvas.real(0.05, 1.1))
        window(canvas, (left, top, left + width, top + height), canvas.pick(PROGRAMS))
    _bar(canvas)


def window(canvas: Canvas, box: Box, content: Content) -> None:
    """A window with title, buttons and shadow around some content."""
    canvas.theme = new_theme(canvas.rng)
    theme = canvas.theme
    radius = canvas.px(canvas.pick([0, 0, 4, 8, 12]))
    bar = canvas.px(canvas.integer(20, 38))
    if canvas.chance(0.85):
        canvas.shadow(
            box, canvas.px(canvas.pick([3, 8, 16, 28])), canvas.real(0.2, 0.6), canvas.px(6)
        )
    before = canvas.image.copy() if radius else None
    head = mixed(theme.surface, canvas.pick([theme.ink, theme.accent]), canvas.real(0.02, 0.3))
    canvas.fill(box, theme.surface)
    canvas.fill((box[0], box[1], box[2], box[1] + bar), head)
    canvas.inside((box[0], box[1] + bar, box[2], box[3]), content)
    size = canvas.px(canvas.integer(10, 14))
    ink = WHITE if brightness(head) < 130 else BLACK
    y = box[1] + (bar - round(1.25 * size)) // 2
    middle = canvas.chance(0.5)
    x = (box[0] + box[2]) // 2 if middle else box[0] + bar
    title = canvas.writer.title()
    if canvas.text_width(title, canvas.face, size) < box[2] - box[0] - 6 * bar:
        canvas.text((x, y), title, canvas.face, size, ink, centre=middle)
    step = round(bar * 0.75)
    for place in range(3):
        side = round(bar * 0.36)
        left = box[0] + 8 + place * step if middle else box[2] - (place + 1) * step
        top = box[1] + (bar - side) // 2
        if middle:
            colour = hue_colour((0.0, 0.12, 0.33)[place], 0.7, 0.95)
            canvas.ellipse((left, top, left + side, top + side), colour)
        else:
            canvas.icon((left, top, left + side, top + side), ink)
    if canvas.chance(0.6):
        canvas.outline(box, theme.line, 1, radius)
    if before is not None:
        _round_corners(canvas, before, box, radius)


def _round_corners(canvas: Canvas, before: Image.Image, box: Box, radius: int) -> None:
    """Give the corners of a window back to what was behind it."""
    mask = ImageOps.invert(rounded_mask((box[2] - box[0], box[3] - box[1]), radius))
    seen = cut(box, canvas.box)
    if seen[2] > seen[0] and seen[3] > seen[1]:
        part = mask.crop((seen[0] - box[0], seen[1] - box[1], seen[2] - box[0], seen[3] - box[1]))
        canvas.image.paste(before.crop(seen), seen[:2], part)


def _desktop_icons(canvas: Canvas) -> None:
    side = canvas.px(canvas.integer(28, 56))
    size = canvas.px(canvas.integer(9, 12))
    for row in range(canvas.integer(0, canvas.height // (2 * side) - 1)):
        x, y = side // 2, side // 2 + canvas.px(20) + row * 2 * side
        canvas.icon((x, y, x + side, y + side), canvas.colour())
        label = canvas.writer.words(1, 2)[:14]
        below = (x + side // 2, y + side + canvas.px(3))
        canvas.text((below[0] + 1, below[1] + 1), label, canvas.face, size, BLACK, centre=True)
        canvas.text(below, label, canvas.face, size, WHITE, centre=True)


def _bar(canvas: Canvas) -> None:
    """The bar of a desktop or of a phone, above or below."""
    high = canvas.px(canvas.integer(18, 44))
    top = 0 if canvas.chance(0.5) else canvas.height - high
    colour = canvas.pick([BLACK, WHITE, canvas.theme.surface, canvas.theme.accent])
    canvas.fill((0, top, canvas.width, top + high), colour, canvas.pick([1.0, 1.0, 0.7, 0.45]))
    ink = WHITE if brightness(colour) < 140 else BLACK
    size = canvas.px(canvas.integer(9, 13))
    y = top + (high - round(1.3 * size)) // 2
    side = round(0.6 * high)
    for place in range(canvas.integer(2, 8)):
        x = canvas.px(8) + place * round(1.3 * high)
        canvas.icon((x, top + high // 5, x + side, top + high // 5 + side), canvas.colour())
    canvas.text(
        (canvas.width - canvas.px(8), y),
        canvas.latin.number(),
        canvas.latin_face,
        size,
        ink,
        right=True,
    )


def code(canvas: Canvas, box: Box) -> None:
    """A program in an editor: line numbers, colours by kind, perhaps a list of files."""
    canvas.theme = theme = new_theme(canvas.rng, dark=canvas.chance(0.65))
    canvas.fill(box, theme.surface)
    size = canvas.px(canvas.integer(9, 17))
    step = round(canvas.real(1.25, 1.6) * size)
    colours: dict[str, Colour] = {"plain": theme.ink, "comment": theme.faint}
    for place, kind in enumerate(("keyword", "name", "text", "number")):
        colours[kind] = mixed(theme.accents[place], theme.ink, canvas.real(0, 0.3))
    left = box[0]
    if canvas.chance(0.45):
        left += canvas.px(canvas.integer(90, 180))
        side = (box[0], box[1], left, box[3])
        canvas.fill(side, mixed(theme.surface, theme.ink, 0.05))
        for y in range(box[1] + step, box[3], step + canvas.px(3)):
            x = box[0] + canvas.px(8 + 10 * canvas.integer(0, 2))
            canvas.text(
                (x, y), file_name(canvas.rng, canvas.latin), canvas.latin_face, size, theme.faint
            )
        canvas.line([(left, box[1]), (left, box[3])], theme.line)
    numbers = canvas.chance(0.75)
    line_number, depth = canvas.integer(1, 900), 0
    wide = canvas.mono_face.at(size).getlength("m")
    gutter = round(6 * wide) if numbers else canvas.px(8)
    marked = canvas.integer(0, 40)
    for row, y in enumerate(range(box[1] + canvas.px(6), box[3], step)):
        if row == marked:
            canvas.fill((left, y, box[2], y + step), mixed(theme.surface, theme.ink, 0.08))
        if numbers:
            number = str(line_number + row)
            canvas.text(
                (left + gutter - 1.5 * wide, y),
                number,
                canvas.mono_face,
                size,
                theme.faint,
                right=True,
            )
        depth = max(0, min(5, depth + canvas.pick([-2, -1, 0, 0, 0, 0, 1, 1])))
        if canvas.chance(0.12):
            continue
        x = left + gutter + round(4 * depth * wide)
        for kind, text in code_line(canvas.rng, canvas.latin):
            if x > box[2]:
                break
            canvas.text((x, y), text, canvas.mono_face, size, colours[kind])
            x += (
                round(len(text) * wide)
                if canvas.mono_face.mono
                else canvas.text_width(text, canvas.mono_face, size)
            )


def terminal(canvas: Canvas, box: Box) -> None:
    """A terminal: prompts, columns of words and numbers."""
    canvas.theme = theme = new_theme(canvas.rng, dark=canvas.chance(0.85))
    canvas.fill(box, BLACK if canvas.chance(0.4) else theme.surface)
    size = canvas.px(canvas.integer(9, 16))
    wide = canvas.mono_face.at(size).getlength("m")
    columns = max(8, round((box[2] - box[0]) / wide) - 2)
    x = box[0] + canvas.px(5)
    ink = canvas.pick([theme.ink, theme.ink, (0, 255, 0), (255, 176, 0)])
    for y in range(box[1] + canvas.px(4), box[3], round(1.25 * size)):
        chance = canvas.rng.random()
        if chance < 0.12:
            prompt = f"{canvas.latin.word()}@{canvas.latin.word()}:~$ "
            used = canvas.text((x, y), prompt, canvas.mono_face, size, theme.accents[1])
            command, option = canvas.latin.word(), canvas.latin.word()[:1]
            command = f"{command} -{option} {file_name(canvas.rng, canvas.latin)}"
            canvas.text((x + used, y), command, canvas.mono_face, size, ink)
        elif chance < 0.5:
            cells = [canvas.latin.number() for _ in range(canvas.integer(2, 5))]
            line = "".join(cell.ljust(12) for cell in cells) + file_name(canvas.rng, canvas.latin)
            canvas.text((x, y), line[:columns], canvas.mono_face, size, ink)
        elif chance < 0.9:
            line = canvas.latin.words(3, 12).lower()[:columns]
            colour = ink if canvas.chance(0.8) else canvas.pick(theme.accents)
            canvas.text((x, y), line, canvas.mono_face, size, colour)


def chat(canvas: Canvas, box: Box) -> None:
    """Speech bubbles left and right, with portraits and times of day."""
    theme = canvas.theme
    if canvas.chance(0.3):
        canvas.photo(box)
    elif canvas.chance(0.3):
        canvas.gradient(box, [theme.ground, mixed(theme.ground, theme.accent, 0.3)], 0.3)
    else:
        canvas.fill(box, theme.ground)
    size = canvas.px(canvas.integer(10, 17))
    pad = canvas.px(9)
    radius = canvas.px(canvas.pick([2, 8, 14]))
    own = mixed(theme.surface, theme.accent, canvas.real(0.2, 1))
    y = box[1] + pad
    while y < box[3] - 3 * size:
        mine = canvas.chance(0.45)
        longest = min(canvas.px(360), round((box[2] - box[0]) * canvas.real(0.35, 0.75)))
        text = canvas.writer.words(1, 5) if canvas.chance(0.4) else ""
        side = canvas.px(30)
        colour = own if mine else theme.surface
        ink = WHITE if brightness(colour) < 130 else BLACK
        if text:
            wide = canvas.text_width(text, canvas.face, size) + 2 * pad
            longest = min(longest, wide)
        left = box[2] - pad - longest if mine else box[0] + 2 * pad + side
        high = round(1.4 * size) * (1 if text else canvas.integer(1, 5))
        bubble = (left, y, left + longest, y + high + 2 * pad)
        if canvas.chance(0.5):
            canvas.shadow(bubble, canvas.px(2), 0.25, canvas.px(1))
        if canvas.chance(0.12):
            high = round(longest * canvas.real(0.5, 0.9))
            bubble = (left, y, left + longest, min(box[3], y + high))
            canvas.rounded_photo(bubble, radius)
        else:
            canvas.rounded(bubble, colour, radius)
            if text:
                canvas.text((left + pad, y + pad), text, canvas.face, size, ink)
            else:
                canvas.paragraph(inset(bubble, pad), canvas.face, size, ink, sentences=3)
        if not mine:
            canvas.rounded_photo((box[0] + pad, y, box[0] + pad + side, y + side), side / 2)
        y = bubble[3] + pad // 2
        if canvas.chance(0.4):
            small = max(6, round(0.7 * size))
            canvas.text((left, y), canvas.latin.number(), canvas.latin_face, small, theme.faint)
            y += 2 * small
        y += pad // 2


def web_page(canvas: Canvas, box: Box) -> None:
    """A site: head with links, a large picture, cards or an article."""
    theme = canvas.theme
    canvas.fill(box, theme.surface)
    size = canvas.px(canvas.integer(10, 17))
    bar = canvas.px(canvas.integer(34, 70))
    head = canvas.pick([theme.surface, theme.accent, theme.ink])
    canvas.fill((box[0], box[1], box[2], box[1] + bar), head)
    ink = WHITE if brightness(head) < 130 else BLACK
    x = box[0] + canvas.px(16)
    y = box[1] + (bar - round(1.3 * size)) // 2
    x += canvas.text(
        (x, y - size // 3), canvas.writer.title(), canvas.head_face, round(1.5 * size), ink
    )
    while x < box[2] - canvas.px(120):
        x += canvas.px(22)
        x += canvas.text((x, y), canvas.writer.words(1, 1), canvas.face, size, ink)
    y = box[1] + bar
    canvas.line([(box[0], y), (box[2], y)], theme.line)
    if canvas.chance(0.6):
        high = round((box[3] - y) * canvas.real(0.25, 0.5))
        hero = (box[0], y, box[2], y + high)
        if canvas.chance(0.75):
            canvas.photo(hero)
        else:
            canvas.gradient(hero, [theme.accents[1], theme.accents[2]], canvas.real(-2, 2))
        if canvas.chance(0.5):
            canvas.fill(hero, BLACK, canvas.real(0.15, 0.6))
        big = canvas.px(canvas.integer(22, 54))
        middle = (box[0] + box[2]) // 2
        canvas.text(
            (middle, y + high // 3),
            canvas.writer.title(),
            canvas.head_face,
            big,
            WHITE,
            centre=True,
        )
        button(canvas, (middle - canvas.px(50), y + high * 2 // 3), size)
        y += high
    if canvas.chance(0.55):
        cards(canvas, (box[0], y, box[2], box[3]), size)
    else:
        article(canvas, (box[0], y, box[2], box[3]), size)


def button(canvas: Canvas, place: tuple[int, int], size: int) -> int:
    """A button with a word on it; returns its right edge."""
    text = canvas.writer.words(1, 2)
    wide = canvas.text_width(text, canvas.face, size) + 2 * size
    box = (place[0], place[1], place[0] + wide, place[1] + 2 * size + 2)
    colour = canvas.pick([canvas.theme.accent, canvas.theme.accent, canvas.theme.surface])
    radius = canvas.px(canvas.pick([0, 3, 6, 14]))
    canvas.rounded(box, colour, radius)
    if colour == canvas.theme.surface or canvas.chance(0.2):
        canvas.outline(box, canvas.theme.faint, 1, radius)
    ink = WHITE if brightness(colour) < 140 else BLACK
    canvas.text((place[0] + size, place[1] + round(0.4 * size)), text, canvas.face, size, ink)
    return box[2]


def cards(canvas: Canvas, box: Box, size: int) -> None:
    """Cards in rows: a photograph, a heading, a few lines."""
    theme = canvas.theme
    canvas.fill(box, theme.ground)
    gap = canvas.px(canvas.integer(8, 20))
    columns = max(1, round((box[2] - box[0]) / canvas.px(canvas.integer(150, 300))))
    wide = (box[2] - box[0] - gap * (columns + 1)) // columns
    high = round(wide * canvas.real(0.7, 1.4))
    radius = canvas.px(canvas.pick([0, 4, 10]))
    soft = canvas.chance(0.6)
    for top in range(box[1] + gap, box[3], high + gap):
        for column in range(columns):
            left = box[0] + gap + column * (wide + gap)
            card = (left, top, left + wide, top + high)
            if soft:
                canvas.shadow(card, canvas.px(5), 0.25, canvas.px(2))
            canvas.rounded(card, theme.surface, radius)
            split = top + round(high * canvas.real(0.4, 0.6))
            canvas.rounded_photo((left, top, left + wide, split), radius)
            head = canvas.writer.title()
            big = canvas.fitting(head, canvas.head_face, round(1.15 * size), wide - gap)
            place = (left + gap // 2, split + gap // 3)
            canvas.text(place, head, canvas.head_face, big, theme.ink)
            body = (
                left + gap // 2,
                split + gap // 3 + 2 * size,
                left + wide - gap // 2,
                top + high - size,
            )
            canvas.paragraph(body, canvas.face, max(6, round(0.85 * size)), theme.faint)


def article(canvas: Canvas, box: Box, size: int) -> None:
    """Headings, paragraphs and photographs in one column, perhaps links beside it."""
    theme = canvas.theme
    canvas.fill(box, theme.surface)
    margin = round((box[2] - box[0]) * canvas.real(0.03, 0.2))
    left, right = box[0] + margin, box[2] - margin
    if canvas.chance(0.4):
        side = left + (right - left) // 4
        for y in range(box[1] + 2 * size, box[3], 2 * size):
            canvas.text((left, y), canvas.writer.words(1, 2), canvas.face, size, theme.accent)
        left = side + size
    y = box[1] + size
    while y < box[3] - 2 * size:
        chance = canvas.rng.random()
        if chance < 0.3:
            big = round(size * canvas.real(1.3, 2.4))
            canvas.text((left, y), canvas.writer.title(), canvas.head_face, big, theme.ink)
            y += round(1.6 * big)
        elif chance < 0.42:
            high = min(box[3] - y, round((right - left) * canvas.real(0.3, 0.6)))
            canvas.photo((left, y, right, y + high))
            y += high + size
        elif chance < 0.5:
            canvas.text((left, y), canvas.writer.words(2, 6), canvas.face, size, theme.accent)
            y += 2 * size
        else:
            y = canvas.paragraph((left, y, right, box[3]), canvas.face, size, theme.ink) + size


def table(canvas: Canvas, box: Box) -> None:
    """A spreadsheet or a list with columns."""
    theme = canvas.theme
    canvas.fill(box, theme.surface)
    size = canvas.px(canvas.integer(8, 14))
    row_high = round(size * canvas.real(1.5, 2.6))
    head = mixed(theme.surface, theme.accent, canvas.real(0.1, 1))
    canvas.fill((box[0], box[1], box[2], box[1] + row_high), head)
    head_ink = WHITE if brightness(head) < 130 else BLACK
    edges = [box[0]]
    while edges[-1] < box[2]:
        edges.append(edges[-1] + canvas.px(canvas.integer(50, 160)))
    wordy = [canvas.chance(0.4) for _ in edges]
    striped, ruled = canvas.chance(0.5), canvas.chance(0.7)
    chosen = canvas.integer(1, 30)
    for row, top in enumerate(range(box[1], box[3], row_high)):
        if row == chosen:
            canvas.fill(
                (box[0], top, box[2], top + row_high), mixed(theme.surface, theme.accent, 0.4)
            )
        elif striped and row and row % 2 == 0:
            canvas.fill(
                (box[0], top, box[2], top + row_high), mixed(theme.surface, theme.ink, 0.05)
            )
        y = top + (row_high - round(1.25 * size)) // 2
        for column, left in enumerate(edges[:-1]):
            ink = head_ink if row == 0 else theme.ink
            if row == 0 or wordy[column]:
                text = canvas.writer.words(1, 2)
                wide = edges[column + 1] - left - canvas.px(8)
                if canvas.text_width(text, canvas.face, size) <= wide:
                    canvas.text((left + canvas.px(5), y), text, canvas.face, size, ink)
            else:
                right = edges[column + 1] - canvas.px(5)
                canvas.text(
                    (right, y), canvas.latin.number(), canvas.latin_face, size, ink, right=True
                )
        if ruled:
            canvas.line([(box[0], top), (box[2], top)], theme.line)
    if ruled:
        for left in edges:
            canvas.line([(left, box[1]), (left, box[3])], theme.line)


def form(canvas: Canvas, box: Box) -> None:
    """Settings: labels, fields, switches, sliders and buttons."""
    theme = canvas.theme
    canvas.fill(box, theme.ground)
    size = canvas.px(canvas.integer(10, 16))
    pad = round(1.2 * size)
    card = inset(box, pad)
    radius = canvas.px(canvas.pick([0, 6, 12]))
    canvas.shadow(card, canvas.px(6), 0.2)
    canvas.rounded(card, theme.surface, radius)
    y = card[1] + pad
    canvas.text(
        (card[0] + pad, y), canvas.writer.title(), canvas.head_face, round(1.6 * size), theme.ink
    )
    y += 3 * size
    right = card[2] - pad
    while y < card[3] - 4 * size:
        canvas.text((card[0] + pad, y), canvas.writer.words(1, 3), canvas.face, size, theme.ink)
        kind = canvas.integer(0, 4)
        on = canvas.chance(0.5)
        colour = theme.accent if on else theme.line
        if kind == 0:
            track = (right - 3 * size, y, right, y + round(1.5 * size))
            canvas.rounded(track, colour, 0.75 * size)
            knob = right - round(1.4 * size) if on else track[0] + round(0.1 * size)
            canvas.ellipse(
                (knob, y + 2, knob + round(1.3 * size), y + round(1.5 * size) - 2), WHITE
            )
        elif kind == 1:
            field = (
                card[0] + (card[2] - card[0]) // 2,
                y - size // 2,
                right,
                y + round(1.8 * size),
            )
            canvas.rounded(field, theme.ground, radius / 2)
            canvas.outline(field, theme.line, 1, radius / 2)
            canvas.text(
                (field[0] + size, y), canvas.writer.words(1, 2), canvas.face, size, theme.faint
            )
        elif kind == 2:
            start, middle = card[0] + (card[2] - card[0]) // 2, y + size // 2
            level = start + round((right - start) * canvas.real(0, 1))
            canvas.rounded((start, middle, right, middle + canvas.px(4)), theme.line, canvas.px(2))
            canvas.rounded(
                (start, middle, level, middle + canvas.px(4)), theme.accent, canvas.px(2)
            )
            canvas.ellipse(
                (level - size // 2, y + canvas.px(2), level + size // 2, y + size + canvas.px(2)),
                theme.accent,
            )
        elif kind == 3:
            tick = (right - size - 4, y, right, y + size + 4)
            canvas.rounded(tick, colour, canvas.px(3))
            if on:
                canvas.line(
                    [
                        (tick[0] + 3, y + size // 2),
                        (tick[0] + size // 2, y + size),
                        (right - 3, y + 3),
                    ],
                    WHITE,
                    2,
                )
        else:
            button(canvas, (right - 8 * size, y - size // 2), size)
        y += round(1.6 * size)
        if canvas.chance(0.5):
            small = max(6, round(0.8 * size))
            y = canvas.paragraph(
                (card[0] + pad, y, right, y + 3 * size), canvas.face, small, theme.faint
            )
        y += size
        canvas.line([(card[0] + pad, y), (right, y)], theme.line)
        y += size
    button(canvas, (card[0] + pad, card[3] - 3 * size), size)


def gallery(canvas: Canvas, box: Box) -> None:
    """Photographs in a grid, with names and marks."""
    theme = canvas.theme
    canvas.fill(box, theme.ground)
    gap = canvas.px(canvas.integer(1, 14))
    columns = canvas.integer(2, 5)
    wide = (box[2] - box[0] - gap * (columns + 1)) // columns
    high = round(wide * canvas.pick([1.0, 0.75, 0.6, 1.3]))
    named = canvas.chance(0.5)
    size = canvas.px(canvas.integer(8, 12))
    radius = canvas.px(canvas.pick([0, 0, 5, 12]))
    for top in range(box[1] + gap, box[3], high + gap + (2 * size if named else 0)):
        for column in range(columns):
            left = box[0] + gap + column * (wide + gap)
            if canvas.chance(0.15):
                canvas.rounded((left, top, left + wide, top + high), canvas.colour(), radius)
                icon = round(0.4 * min(wide, high))
                x, y = left + (wide - icon) // 2, top + (high - icon) // 2
                canvas.icon((x, y, x + icon, y + icon), WHITE)
            else:
                canvas.rounded_photo((left, top, left + wide, top + high), radius)
            if named:
                canvas.text(
                    (left, top + high + 2),
                    file_name(canvas.rng, canvas.latin),
                    canvas.latin_face,
                    size,
                    theme.ink,
                )


def viewer(canvas: Canvas, box: Box) -> None:
    """A photograph or film with controls over it."""
    canvas.fill(box, canvas.pick([BLACK, canvas.theme.ground]))
    margin = canvas.integer(0, (box[3] - box[1]) // 8)
    canvas.photo((box[0], box[1] + margin, box[2], box[3] - margin))
    high = canvas.px(canvas.integer(30, 60))
    bar = (box[0], box[3] - high, box[2], box[3])
    canvas.fill(bar, BLACK, canvas.real(0.4, 1))
    size = canvas.px(canvas.integer(9, 13))
    for place in range(canvas.integer(2, 7)):
        x = box[0] + canvas.px(12) + place * high * 3 // 4
        side = high // 3
        canvas.icon((x, bar[1] + high // 2, x + side, bar[1] + high // 2 + side), WHITE)
    level = box[0] + round((box[2] - box[0]) * canvas.real(0.1, 0.9))
    y = bar[1] + high // 5
    canvas.fill((box[0] + 10, y, box[2] - 10, y + canvas.px(3)), (110, 110, 110))
    canvas.fill((box[0] + 10, y, max(box[0] + 11, level), y + canvas.px(3)), canvas.theme.accent)
    canvas.text(
        (box[2] - 12, bar[1] + high // 2),
        canvas.latin.number(),
        canvas.latin_face,
        size,
        WHITE,
        right=True,
    )
    canvas.text(
        (box[0] + 12, box[1] + 8), canvas.writer.title(), canvas.face, round(1.3 * size), WHITE
    )


def article_page(canvas: Canvas, box: Box) -> None:
    """An article alone."""
    article(canvas, box, canvas.px(canvas.integer(10, 20)))


def dashboard(canvas: Canvas, box: Box) -> None:
    """Panels with charts and large numbers."""
    theme = canvas.theme
    canvas.fill(box, theme.ground)
    gap = canvas.px(canvas.integer(6, 16))
    columns, rows = canvas.integer(1, 3), canvas.integer(1, 3)
    wide = (box[2] - box[0] - gap * (columns + 1)) // columns
    high = (box[3] - box[1] - gap * (rows + 1)) // rows
    radius = canvas.px(canvas.pick([0, 4, 10]))
    for row in range(rows):
        for column in range(columns):
            left = box[0] + gap + column * (wide + gap)
            top = box[1] + gap + row * (high + gap)
            panel = (left, top, left + wide, top + high)
            canvas.shadow(panel, canvas.px(4), 0.2, 2)
            canvas.rounded(panel, theme.surface, radius)
            if canvas.chance(0.25):
                size = canvas.px(canvas.integer(24, 48))
                middle = (left + wide // 2, top + high // 3)
                canvas.text(
                    middle,
                    canvas.latin.number(),
                    canvas.latin_face,
                    size,
                    canvas.pick(theme.accents),
                    centre=True,
                )
                below = (middle[0], middle[1] + round(1.4 * size))
                canvas.text(
                    below,
                    canvas.writer.words(1, 2),
                    canvas.face,
                    canvas.px(11),
                    theme.faint,
                    centre=True,
                )
            else:
                canvas.inside(inset(panel, gap // 2), plot)


def lines_of_names(canvas: Canvas, box: Box) -> None:
    """A list of entries with icons and two lines of text, as of mails or files."""
    theme = canvas.theme
    canvas.fill(box, theme.surface)
    size = canvas.px(canvas.integer(10, 15))
    high = canvas.px(canvas.integer(34, 64))
    round_icons = canvas.chance(0.5)
    for row, top in enumerate(range(box[1], box[3], high)):
        if row == 1:
            canvas.fill((box[0], top, box[2], top + high), mixed(theme.surface, theme.accent, 0.25))
        side = round(0.65 * high)
        icon = (box[0] + canvas.px(8), top + (high - side) // 2)
        place = (*icon, icon[0] + side, icon[1] + side)
        if round_icons:
            canvas.rounded_photo(place, side / 2)
        else:
            canvas.icon(place, canvas.pick(theme.accents))
        x = place[2] + canvas.px(10)
        canvas.text(
            (x, top + high // 8), canvas.writer.words(1, 4), canvas.head_face, size, theme.ink
        )
        canvas.text(
            (x, top + high // 2),
            canvas.writer.words(4, 14),
            canvas.face,
            max(6, round(0.85 * size)),
            theme.faint,
        )
        right = box[2] - canvas.px(10)
        canvas.text(
            (right, top + high // 8),
            canvas.latin.number(),
            canvas.latin_face,
            max(6, round(0.85 * size)),
            theme.faint,
            right=True,
        )
        canvas.line([(box[0], top), (box[2], top)], theme.line)


def drawing_program(canvas: Canvas, box: Box) -> None:
    """A photograph among tool bars, palettes and sliders."""
    canvas.theme = theme = new_theme(canvas.rng, dark=canvas.chance(0.7))
    canvas.fill(box, theme.ground)
    side = canvas.px(canvas.integer(28, 44))
    panel = min((box[2] - box[0]) // 3, canvas.px(canvas.integer(120, 220)))
    picture = (box[0] + side, box[1] + side, box[2] - panel, box[3])
    canvas.photo(inset(picture, canvas.px(canvas.integer(0, 30))))
    for y in range(box[1] + side, box[3] - side, side):
        canvas.icon(
            (box[0] + side // 4, y + side // 4, box[0] + 3 * side // 4, y + 3 * side // 4),
            theme.faint,
        )
    x = box[0] + canvas.px(8)
    size = canvas.px(canvas.integer(9, 13))
    while x < box[2] - canvas.px(60):
        x += canvas.text(
            (x, box[1] + side // 3), canvas.writer.words(1, 1), canvas.face, size, theme.ink
        )
        x += canvas.px(14)
    left = box[2] - panel
    canvas.fill((left, box[1] + side, box[2], box[3]), theme.surface)
    square = panel // 8
    for row in range(4):
        for column in range(7):
            x, y = left + square // 2 + column * square, box[1] + side + square // 2 + row * square
            canvas.fill(
                (x, y, x + square - 1, y + square - 1), canvas.colour(vivid=row == 0 or None)
            )
    y = box[1] + side + 5 * square
    while y < box[3] - 3 * size:
        label = identifier(canvas.rng, canvas.latin)[:12]
        canvas.text((left + size, y), label, canvas.latin_face, size, theme.ink)
        canvas.text(
            (box[2] - size, y),
            canvas.latin.number(),
            canvas.latin_face,
            size,
            theme.faint,
            right=True,
        )
        level = left + size + round((panel - 2 * size) * canvas.real(0, 1))
        bar_y = y + round(1.6 * size)
        canvas.fill((left + size, bar_y, box[2] - size, bar_y + canvas.px(3)), theme.line)
        canvas.fill(
            (left + size, bar_y, max(left + size + 1, level), bar_y + canvas.px(3)), theme.accent
        )
        y += 3 * size


PROGRAMS: tuple[Content, ...] = (
    code,
    code,
    terminal,
    chat,
    web_page,
    web_page,
    table,
    form,
    gallery,
    viewer,
    article_page,
    dashboard,
    lines_of_names,
    drawing_program,
)
