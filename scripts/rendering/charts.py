"""Rendered charts and diagrams."""

import itertools

import numpy as np
from PIL import Image

from rendering.canvas import (
    BLACK,
    WHITE,
    Box,
    Canvas,
    brightness,
    inset,
    mixed,
    ramp,
    soft_noise,
)


def chart(canvas: Canvas) -> None:
    """One to four plots, a diagram of boxes, or a sheet of squared paper."""
    theme = canvas.theme
    canvas.fill(canvas.box, theme.surface if canvas.chance(0.7) else WHITE)
    chance = canvas.rng.random()
    if chance < 0.25:
        diagram(canvas)
    elif chance < 0.33:
        squared_paper(canvas)
    elif chance < 0.55:
        middle_x, middle_y = canvas.width // 2, canvas.height // 2
        for left, right in ((0, middle_x), (middle_x, canvas.width)):
            for top, bottom in ((0, middle_y), (middle_y, canvas.height)):
                canvas.inside(inset((left, top, right, bottom), canvas.px(4)), plot)
    else:
        plot(canvas, canvas.box)


def plot(canvas: Canvas, box: Box) -> None:
    """Title, axes, grid, series and legend; or a pie."""
    theme = canvas.theme
    small = max(6, canvas.px(canvas.integer(8, 13)))
    size = round(1.4 * small)
    if canvas.chance(0.8):
        middle = (box[0] + box[2]) // 2
        canvas.text(
            (middle, box[1] + small // 2),
            canvas.writer.title(),
            canvas.head_face,
            size,
            theme.ink,
            centre=True,
        )
    area = (
        box[0] + round(4.5 * small),
        box[1] + 2 * size,
        box[2] - 2 * small,
        box[3] - 3 * small,
    )
    if area[2] - area[0] < 20 or area[3] - area[1] < 20:
        return
    kind = canvas.pick([_lines, _lines, _bars, _points, _areas, _squares, _pie, _steps])
    if kind is not _pie:
        _axes(canvas, area, small)
    kind(canvas, area)
    if canvas.chance(0.6):
        _legend(canvas, area, small)


def _axes(canvas: Canvas, area: Box, size: int) -> None:
    theme = canvas.theme
    left, top, right, bottom = area
    rows = min(canvas.integer(3, 9), max(1, (bottom - top) // (2 * size)))
    columns = min(canvas.integer(3, 11), max(1, (right - left) // (6 * size)))
    grid = canvas.chance(0.75)
    dashed = canvas.chance(0.3)
    scale, decimals = 10 ** canvas.real(-1, 4), canvas.pick([0, 0, 1, 2])
    for row in range(rows + 1):
        y = bottom - round(row * (bottom - top) / rows)
        if grid:
            if dashed:
                for x in range(left, right - 3, canvas.px(7)):
                    canvas.fill((x, y, x + canvas.px(4), y + 1), theme.line)
            else:
                canvas.line([(left, y), (right, y)], theme.line)
        label = f"{row * scale / rows:,.{decimals}f}"
        canvas.text(
            (left - size // 2, y - round(0.6 * size)),
            label,
            canvas.latin_face,
            size,
            theme.faint,
            right=True,
        )
    words = canvas.chance(0.4)
    first = canvas.integer(0, 2000)
    for column in range(columns + 1):
        x = left + round(column * (right - left) / columns)
        if grid and not dashed:
            canvas.line([(x, top), (x, bottom)], theme.line)
        label = canvas.writer.word()[:6] if words else str(first + column)
        face = canvas.face if words else canvas.latin_face
        canvas.text((x, bottom + size // 2), label, face, size, theme.faint, centre=True)
    canvas.line([(left, bottom), (right, bottom)], theme.ink, canvas.px(1))
    canvas.line([(left, top), (left, bottom)], theme.ink, canvas.px(1))


def _legend(canvas: Canvas, area: Box, size: int) -> None:
    theme = canvas.theme
    count = canvas.integer(2, 4)
    wide, high = 9 * size, round(1.5 * size) * count + size
    left = canvas.pick([area[0] + size, max(area[0], area[2] - wide - size)])
    box = (left, area[1] + size, left + wide, area[1] + size + high)
    canvas.fill(box, theme.surface, canvas.real(0.6, 1))
    canvas.outline(box, theme.line)
    for place in range(count):
        y = box[1] + size // 2 + place * round(1.5 * size)
        canvas.fill(
            (left + size // 2, y + size // 4, left + 2 * size, y + size), theme.accents[place]
        )
        canvas.text(
            (left + round(2.5 * size), y), canvas.writer.word()[:9], canvas.face, size, theme.ink
        )


def _walk(canvas: Canvas, count: int) -> np.ndarray:
    """(count,) values in 0..1 that wander."""
    steps = canvas.rng.normal(canvas.real(-0.2, 0.2), 1, count)
    values = np.cumsum(steps) if canvas.chance(0.7) else steps
    if canvas.chance(0.4):
        values = np.sin(np.linspace(0, canvas.real(2, 20), count)) * count**0.5 + 0.2 * values
    spread = float(np.ptp(values)) or 1.0
    low = canvas.real(0, 0.4)
    return np.asarray(low + (0.98 - low) * (values - values.min()) / spread)


def _places(values: np.ndarray, area: Box) -> list[tuple[float, float]]:
    """Values as points of an area, from left to right."""
    xs = np.linspace(area[0], area[2], len(values))
    ys = area[3] - values * (area[3] - area[1])
    return list(zip(xs.tolist(), ys.tolist(), strict=True))


def _lines(canvas: Canvas, area: Box) -> None:
    thick = canvas.real(1, 3.5) * canvas.unit
    marked = canvas.chance(0.4)
    for place in range(canvas.integer(1, 5)):
        colour = canvas.theme.accents[place]
        points = _places(_walk(canvas, canvas.pick([8, 15, 40, 200])), area)
        canvas.line(points, colour, thick)
        if marked and len(points) < 50:
            side = canvas.px(3)
            for x, y in points:
                dot = (round(x) - side, round(y) - side, round(x) + side + 1, round(y) + side + 1)
                canvas.ellipse(dot, colour)


def _areas(canvas: Canvas, area: Box) -> None:
    for place in range(canvas.integer(1, 3)):
        points = _places(_walk(canvas, canvas.pick([8, 30, 120])), area)
        outline = [*points, (area[2], area[3]), (area[0], area[3])]
        canvas.polygon(outline, canvas.theme.accents[place], canvas.pick([1.0, 0.6, 0.35]))
        canvas.line(points, canvas.theme.accents[place], canvas.px(1.5))


def _bars(canvas: Canvas, area: Box) -> None:
    groups, series = canvas.integer(3, 14), canvas.integer(1, 3)
    wide = (area[2] - area[0]) / groups
    lying = canvas.chance(0.25)
    for group in range(groups):
        for place in range(series):
            share = canvas.real(0.05, 0.98)
            start = (group + 0.12 + 0.76 * place / series) * wide
            stop = (group + 0.12 + 0.76 * (place + 1) / series) * wide
            if lying:
                high = (area[3] - area[1]) / (area[2] - area[0])
                box = (
                    area[0] + 1,
                    area[1] + round(start * high),
                    area[0] + round(share * (area[2] - area[0])),
                    max(area[1] + round(stop * high), area[1] + round(start * high) + 1),
                )
            else:
                top = area[3] - round(share * (area[3] - area[1]))
                box = (
                    area[0] + round(start),
                    top,
                    max(area[0] + round(stop), area[0] + round(start) + 1),
                    area[3],
                )
            if box[2] > box[0] and box[3] > box[1]:
                canvas.fill(box, canvas.theme.accents[place])


def _steps(canvas: Canvas, area: Box) -> None:
    values = np.exp(-(np.linspace(-2.5, 2.5, canvas.integer(12, 50)) ** 2))
    values = values * canvas.rng.uniform(0.7, 1, len(values))
    edges = np.linspace(area[0], area[2], len(values) + 1).round().astype(int).tolist()
    for left, right, value in zip(edges, edges[1:], values.tolist(), strict=False):
        top = area[3] - round(value * (area[3] - area[1]))
        canvas.fill((left, top, right, area[3]), canvas.theme.accents[0])
        canvas.outline((left, top, right + 1, area[3]), canvas.theme.surface)


def _points(canvas: Canvas, area: Box) -> None:
    for place in range(canvas.integer(1, 4)):
        colour = canvas.theme.accents[place]
        side = canvas.px(canvas.integer(2, 5))
        centre = canvas.rng.uniform(0.25, 0.75, 2)
        spread = canvas.rng.uniform(0.03, 0.2, 2)
        for x, y in np.clip(canvas.rng.normal(centre, spread, (canvas.integer(20, 120), 2)), 0, 1):
            left = area[0] + round(x * (area[2] - area[0]))
            top = area[1] + round(y * (area[3] - area[1]))
            canvas.ellipse((left - side, top - side, left + side, top + side), colour, 0.8)


def _squares(canvas: Canvas, area: Box) -> None:
    """A heat map with a colour for each value."""
    rows, columns = canvas.integer(4, 24), canvas.integer(4, 30)
    values = canvas.rng.random((rows, columns))
    if canvas.chance(0.6):
        values = 0.5 + 0.5 * soft_noise(canvas.rng, (columns, rows), 4)
    colours = [canvas.colour(vivid=False) for _ in range(3)]
    cells = Image.fromarray(ramp(np.clip(values, 0, 1), colours))
    size = (area[2] - area[0], area[3] - area[1])
    canvas.image.paste(cells.resize(size, Image.Resampling.NEAREST), area[:2])


def _pie(canvas: Canvas, area: Box) -> None:
    side = min(area[2] - area[0], area[3] - area[1])
    left = (area[0] + area[2] - side) // 2
    box = (left, area[1], left + side, area[1] + side)
    ends = np.cumsum(canvas.rng.dirichlet(np.ones(canvas.integer(3, 6)))) * 360
    start = 0.0
    for place, end in enumerate(ends.tolist()):
        _slice(canvas, box, start, end, canvas.theme.accents[place])
        start = end
    if canvas.chance(0.4):
        canvas.ellipse(inset(box, side // 4), canvas.theme.surface)


def _slice(
    canvas: Canvas, box: Box, start: float, end: float, colour: tuple[int, int, int]
) -> None:
    side = box[2] - box[0]
    canvas.shape(
        box,
        colour,
        lambda draw, fine: draw.pieslice(
            (0, 0, fine * side - 1, fine * side - 1), start, end, fill=255
        ),
    )


def diagram(canvas: Canvas) -> None:
    """Boxes and ellipses with words, joined by lines with arrow heads."""
    theme = canvas.theme
    columns, rows = canvas.integer(2, 5), canvas.integer(2, 5)
    wide, high = canvas.width / columns, canvas.height / rows
    size = canvas.px(canvas.integer(9, 15))
    nodes: list[Box] = []
    for row in range(rows):
        for column in range(columns):
            if canvas.chance(0.75):
                left = round(wide * (column + canvas.real(0.1, 0.25)))
                top = round(high * (row + canvas.real(0.15, 0.3)))
                nodes.append((left, top, left + round(0.6 * wide), top + round(0.5 * high)))
    thick = canvas.px(canvas.pick([1, 1, 2, 3]))
    for first, second in itertools.pairwise(nodes):
        start = ((first[0] + first[2]) // 2, (first[1] + first[3]) // 2)
        end = ((second[0] + second[2]) // 2, (second[1] + second[3]) // 2)
        corner = (end[0], start[1])
        if canvas.chance(0.5):
            tip = (end[0], (start[1] + end[1]) // 2)
            canvas.line([start, corner], theme.ink, thick)
            canvas.line([corner, end], theme.ink, thick)
        else:
            tip = ((start[0] + end[0]) // 2, (start[1] + end[1]) // 2)
            canvas.line([start, end], theme.ink, thick)
        side = 4 * thick + 2
        canvas.polygon(
            [
                (tip[0] - side, tip[1] - side),
                (tip[0] + side, tip[1]),
                (tip[0] - side, tip[1] + side),
            ],
            theme.ink,
        )
    filled = canvas.chance(0.6)
    radius = canvas.px(canvas.pick([0, 0, 6, 14]))
    for node in nodes:
        colour = (
            mixed(theme.surface, canvas.pick(theme.accents), canvas.real(0.2, 1))
            if filled
            else theme.surface
        )
        if canvas.chance(0.2):
            canvas.ellipse(node, theme.ink)
            canvas.ellipse(inset(node, thick), colour)
        else:
            canvas.rounded(node, colour, radius)
            canvas.outline(node, theme.ink, thick, radius)
        ink = WHITE if brightness(colour) < 130 else BLACK
        middle = ((node[0] + node[2]) // 2, (node[1] + node[3]) // 2 - round(0.7 * size))
        canvas.text(middle, canvas.writer.words(1, 2)[:14], canvas.face, size, ink, centre=True)


def squared_paper(canvas: Canvas) -> None:
    """A fine grid with a stronger one, and curves of a few functions."""
    paper, ink = canvas.theme.surface, mixed(canvas.theme.surface, canvas.theme.accent, 0.5)
    canvas.fill(canvas.box, paper)
    step = canvas.px(canvas.integer(5, 22))
    for place in range(0, max(canvas.width, canvas.height), step):
        strong = place // step % 5 == 0
        colour = ink if strong else mixed(paper, ink, 0.4)
        canvas.line([(place, 0), (place, canvas.height)], colour)
        canvas.line([(0, place), (canvas.width, place)], colour)
    x = np.linspace(0, canvas.width, 400)
    for place in range(canvas.integer(1, 4)):
        phase, rate = canvas.real(0, 6), canvas.real(1, 12)
        curve = np.sin(phase + rate * x / canvas.width) * np.exp(
            -canvas.real(0, 2) * x / canvas.width
        )
        y = canvas.height * (0.5 - 0.4 * canvas.real(0.3, 1) * curve)
        canvas.line(
            list(zip(x.tolist(), y.tolist(), strict=True)),
            canvas.theme.accents[place],
            canvas.px(2),
        )
