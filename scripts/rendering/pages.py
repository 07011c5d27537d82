"""Rendered pages: documents as printed, and as scanned."""

import numpy as np
from PIL import Image, ImageFilter

from rendering.canvas import (
    BLACK,
    WHITE,
    Canvas,
    hue_colour,
    inset,
    mixed,
    new_theme,
    soft_noise,
)
from rendering.charts import plot
from rendering.screens import table


def page(canvas: Canvas) -> None:
    """A page of text on white, on coloured paper, or as a scanner saw it."""
    canvas.theme = new_theme(canvas.rng, dark=False)
    chance = canvas.rng.random()
    paper = (
        WHITE
        if chance < 0.5
        else hue_colour(canvas.real(0.05, 0.2), canvas.real(0, 0.2), canvas.real(0.8, 1))
    )
    ink = (
        BLACK
        if canvas.chance(0.6)
        else hue_colour(canvas.real(0, 1), canvas.real(0, 0.8), canvas.real(0, 0.35))
    )
    if chance > 0.93:
        paper, ink = ink, paper
    canvas.fill(canvas.box, paper)
    if canvas.chance(0.15):
        _receipt(canvas, ink)
    else:
        _columns(canvas, paper, ink)
    if canvas.chance(0.4):
        _scan(canvas)


def _columns(canvas: Canvas, paper: tuple[int, int, int], ink: tuple[int, int, int]) -> None:
    size = canvas.px(canvas.pick([8, 9, 10, 11, 12, 14, 16, 20, 28]))
    margin = round(canvas.width * canvas.real(0.03, 0.14))
    y = margin
    left, right = margin, canvas.width - margin
    if canvas.chance(0.4):
        canvas.text(
            (left, margin // 3),
            canvas.writer.words(2, 4),
            canvas.face,
            max(6, round(0.8 * size)),
            ink,
        )
        canvas.text(
            (right, margin // 3),
            str(canvas.integer(1, 999)),
            canvas.latin_face,
            size,
            ink,
            right=True,
        )
    if canvas.chance(0.6):
        big = round(size * canvas.real(1.6, 3.5))
        for _ in range(canvas.integer(1, 2)):
            middle, text = (left + right) // 2, canvas.writer.title()
            fitted = canvas.fitting(text, canvas.head_face, big, right - left)
            canvas.text((middle, y), text, canvas.head_face, fitted, ink, centre=True)
            y += round(1.3 * big)
        if canvas.chance(0.5):
            canvas.line([(left, y), (right, y)], ink, canvas.px(1))
        y += size
    count = max(1, min(canvas.pick([1, 1, 2, 2, 3]), (right - left) // (14 * size)))
    gap = 2 * size
    wide = (right - left - gap * (count - 1)) // count
    justified, spacing = canvas.chance(0.6), canvas.real(1.2, 1.7)
    bottom = canvas.height - margin
    for column in range(count):
        x = left + column * (wide + gap)
        row = y
        while row < bottom - 2 * size:
            chance = canvas.rng.random()
            if chance < 0.15:
                head = round(size * canvas.real(1.1, 1.6))
                canvas.text((x, row), canvas.writer.title(), canvas.head_face, head, ink)
                row += round(1.6 * head)
            elif chance < 0.24 and bottom - row > 8 * size:
                high = min(bottom - row, round(wide * canvas.real(0.4, 0.8)))
                figure = (x, row, x + wide, row + high)
                kind = canvas.integer(0, 2)
                if kind == 0:
                    canvas.photo(figure)
                elif kind == 1:
                    canvas.inside(figure, plot)
                else:
                    canvas.inside(figure, table)
                row += high + size // 2
                canvas.text(
                    (x, row), canvas.writer.words(3, 6), canvas.face, max(6, round(0.8 * size)), ink
                )
                row += 2 * size
            elif chance < 0.3:
                for _ in range(canvas.integer(2, 5)):
                    canvas.text(
                        (x + size, row), "- " + canvas.writer.words(2, 5), canvas.face, size, ink
                    )
                    row += round(spacing * size)
                row += size // 2
            else:
                row = canvas.paragraph(
                    (x, row, x + wide, bottom),
                    canvas.face,
                    size,
                    mixed(ink, paper, 0.1),
                    spacing=spacing,
                    justified=justified,
                )
                row += round(size * canvas.real(0.3, 1))


def _receipt(canvas: Canvas, ink: tuple[int, int, int]) -> None:
    """Lines of words and prices in a fixed pitch."""
    size = canvas.px(canvas.integer(11, 22))
    left, right = canvas.width // 8, canvas.width - canvas.width // 8
    y = size
    canvas.text(
        ((left + right) // 2, y),
        canvas.latin.title().upper(),
        canvas.mono_face,
        2 * size,
        ink,
        centre=True,
    )
    y += 4 * size
    while y < canvas.height - 2 * size:
        if canvas.chance(0.12):
            canvas.text((left, y), "-" * 60, canvas.mono_face, size // 2, ink)
        else:
            canvas.text((left, y), canvas.latin.words(1, 3), canvas.mono_face, size, ink)
            canvas.text(
                (right, y), f"{canvas.real(0, 99):.2f}", canvas.mono_face, size, ink, right=True
            )
        y += round(1.4 * size)


def _scan(canvas: Canvas) -> None:
    """Turn a little, blur, light unevenly and add noise, as a scanner or a camera does."""
    image = canvas.image
    if canvas.chance(0.7):
        corner = image.getpixel((0, 0))
        image = image.rotate(canvas.real(-2, 2), Image.Resampling.BICUBIC, fillcolor=corner)
    if canvas.chance(0.8):
        image = image.filter(ImageFilter.GaussianBlur(canvas.real(0.3, 1.2)))
    pixels = np.asarray(image, np.float32)
    light = 1 - canvas.real(0, 0.2) * np.abs(soft_noise(canvas.rng, image.size, image.width / 2))
    if canvas.chance(0.3):
        x = np.arange(image.width, dtype=np.float32) / image.width
        light = light * (
            1 - canvas.real(0.1, 0.5) * np.exp(-(((x - canvas.pick([0, 0.5, 1])) / 0.08) ** 2))
        )
    noise = canvas.rng.standard_normal(pixels.shape[:2], dtype=np.float32)[..., None]
    pixels = pixels * light[..., None] + canvas.real(0.5, 6) * noise
    canvas.image = Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8))
    if canvas.chance(0.2):
        canvas.outline(inset(canvas.box, canvas.px(3)), (60, 60, 60), canvas.px(2))
