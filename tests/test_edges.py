"""Pictures of every size: borders and corners that are no worse than what lies inside them.

With the bundled models. The bar is an edge of 3 in the median of each kind of content (see
:mod:`cwic.evaluation.borders`). What the bundled weights do not reach is named below with its
number; new weights may only lower it.
"""

import io
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

import cwic
from cwic.codec import Codec, loaded
from cwic.evaluation.borders import corner_ratio, edge_ratio
from cwic.families.flagship.family import Flagship, FlagshipAnalysis

BAR = 3.0

KINDS = ("smooth", "textured", "flat")
MODELS = ("cwic-visual", "cwic-psnr", "cvpr2018")
Q_OF_FLAGSHIP = 64

# What the bundled weights reach where that is not the bar, in the worse one of the quick run and
# the slow one: median edge, median corner.
REACHED = {
    ("cwic-visual", "smooth"): (5.15, BAR),
    ("cwic-psnr", "smooth"): (3.67, BAR),
    ("cwic-psnr", "flat"): (5.07, 3.20),
    # The closed loop takes more from the inside than from the borders, which it halves as well.
    ("cvpr2018", "smooth"): (4.80, BAR),
    ("cvpr2018", "flat"): (3.52, BAR),
}
# Of a number in REACHED: other sizes, other machines.
TOLERANCE = 1.1


class Ratios(NamedTuple):
    """Of one decoded picture."""

    edge: float
    corner: float


@cache
def content(kind: str) -> np.ndarray:
    """(512, 512, 3) uint8 that a picture is cut from."""
    rng = np.random.default_rng(5)
    if kind == "flat":
        result = np.empty((512, 512, 3), np.uint8)
        colours = rng.integers(30, 226, (4, 3))
        for index, rows in enumerate((slice(0, 300), slice(300, 512))):
            for column, columns in enumerate((slice(0, 250), slice(250, 512))):
                result[rows, columns] = colours[2 * index + column]
        return result
    # Noise of several sizes: large and strong alone, or all of them.
    sides, strength = ((4, 8), 60.0) if kind == "smooth" else ((4, 16, 64, 128, 256), 22.0)
    total = np.full((512, 512, 3), 127.5)
    for side in sides:
        noise = rng.normal(0, 1, (side, side, 3)) + rng.normal(0, 1, (side, side, 1))
        planes = [
            np.asarray(
                Image.fromarray(plane.astype(np.float32)).resize(
                    (512, 512), Image.Resampling.BICUBIC
                )
            )
            for plane in np.moveaxis(noise, 2, 0)
        ]
        total += strength / len(sides) * np.stack(planes, axis=2)
    return total.clip(0, 255).round().astype(np.uint8)


def shown(codec: Codec, pixels: np.ndarray) -> np.ndarray:
    """What a decoder shows at a middling rate."""
    family = codec._family
    q = Q_OF_FLAGSHIP if isinstance(family, Flagship) else family.rates.of_quality(60)
    return family.analyze(pixels).code(q).pixels()


def ratios(reference: np.ndarray, decoded: np.ndarray) -> Ratios:
    return Ratios(edge_ratio(reference, decoded), corner_ratio(reference, decoded))


def check(model: str, kind: str, found: list[Ratios]) -> None:
    """The medians against the bar, or against what is known to be reached."""
    edges, corners = np.array(found).T
    report = (
        f"{model}, {kind}, {len(found)} pictures: edge {np.median(edges):.2f}, at most "
        f"{edges.max():.2f}; corner {np.median(corners):.2f}, at most {corners.max():.2f}"
    )
    print(report)  # noqa: T201 - what slow runs are for
    edge, corner = (
        bound if bound == BAR else TOLERANCE * bound
        for bound in REACHED.get((model, kind), (BAR, BAR))
    )
    assert np.median(edges) <= edge, report
    assert np.median(corners) <= corner, report


def remainders(step: int) -> Iterator[tuple[int, int]]:
    """Heights and widths; one side takes every `step`-th remainder by 64."""
    for remainder in range(0, 64, step):
        yield 128 + remainder, 112
        yield 112, 128 + (remainder + step // 2) % 64


def ratios_of_sizes(model: str, kind: str, sizes: Iterator[tuple[int, int]]) -> list[Ratios]:
    found = []
    for height, width in sizes:
        pixels = content(kind)[:height, -width:]
        found.append(ratios(pixels, shown(loaded(model), pixels)))
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", MODELS)
def test_borders_of_pictures_of_any_size_are_like_the_rest(model: str, kind: str) -> None:
    check(model, kind, ratios_of_sizes(model, kind, remainders(16)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", MODELS)
def test_borders_of_pictures_of_every_remainder_are_like_the_rest(model: str, kind: str) -> None:
    check(model, kind, ratios_of_sizes(model, kind, remainders(1)))


@pytest.mark.parametrize("kind", KINDS)
def test_borders_of_pictures_in_tiles_are_like_the_rest(kind: str) -> None:
    family = loaded("cwic-psnr")._family
    assert isinstance(family, Flagship)
    found = []
    for height, width in ((200, 304), (250, 131), (336, 176)):
        pixels = content(kind)[:height, -width:]
        analysis = FlagshipAnalysis(family, pixels, family.tiling(height, width, 128))
        found.append(ratios(pixels, analysis.code(Q_OF_FLAGSHIP).pixels()))
    check("cwic-psnr", kind, found)


@pytest.mark.slow
def test_a_side_above_the_longest_of_a_tile_has_good_borders_too() -> None:
    pixels = np.tile(content("textured")[:104], (1, 33, 1))[:, :16_500]
    codec = loaded("cwic-psnr")
    data = codec.encode(pixels, quality=60)
    assert cwic.read_header(data).tile_px == 1024
    check("cwic-psnr", "textured", [ratios(pixels, np.asarray(codec.decode(data)))])


# --- every way to a picture -----------------------------------------------------------------------

# As in the corner of a photograph of 320x240: both sides multiples of 16, neither of 64.
HEIGHT, WIDTH = 240, 336


@pytest.fixture(scope="module")
def file() -> tuple[np.ndarray, bytes]:
    pixels = content("textured")[:HEIGHT, :WIDTH]
    return pixels, loaded("cwic-visual").encode(pixels, quality=85)


def last_line_and_inside(reference: np.ndarray, decoded: np.ndarray) -> tuple[float, float]:
    """Mean squared errors of the worse of last row and last column, and 16 px inside."""
    squares = np.square(reference.astype(float) - decoded).mean(axis=2)
    return max(squares[-1].mean(), squares[:, -1].mean()), float(squares[16:-16, 16:-16].mean())


def test_last_lines_are_like_the_rest_through_the_codec_and_the_plugin(
    file: tuple[np.ndarray, bytes],
) -> None:
    pixels, data = file
    cwic.register_pillow_plugin()
    with Image.open(io.BytesIO(data)) as opened:
        by_plugin = np.asarray(opened)
    for decoded in (np.asarray(cwic.decode(data)), by_plugin):
        last, inside = last_line_and_inside(pixels, decoded)
        assert last <= 4 * inside + 12


def test_regions_at_each_border_are_parts_of_the_whole(file: tuple[np.ndarray, bytes]) -> None:
    _, data = file
    whole = np.asarray(cwic.decode(data)).astype(int)
    regions = [(0, 0, 40, HEIGHT), (WIDTH - 40, 0, 40, HEIGHT), (0, 0, WIDTH, 30)]
    for x, y, width, height in [*regions, (0, HEIGHT - 30, WIDTH, 30), (WIDTH - 1, 0, 1, 1)]:
        part = np.asarray(cwic.decode(data, region=(x, y, width, height)))
        assert np.abs(whole[y : y + height, x : x + width] - part).max() <= 1


@pytest.mark.parametrize("reduce", [2, 4, 8])
def test_last_lines_of_a_smaller_picture_are_like_the_rest(
    reduce: int, file: tuple[np.ndarray, bytes]
) -> None:
    pixels, data = file
    expected = np.asarray(Image.fromarray(pixels).reduce(reduce)).astype(float)
    squares = np.square(expected - np.asarray(cwic.decode(data, reduce=reduce))).mean(axis=2)
    inside = squares[2:-2, 2:-2].mean()
    assert max(squares[-1].mean(), squares[:, -1].mean()) <= 4 * inside + 12


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 15), (15, 1), (7, 13), (15, 15), (3, 150)])
def test_sides_below_a_cell_come_back_at_their_size(shape: tuple[int, int], model: str) -> None:
    pixels = content("smooth")[: shape[0], : shape[1]]
    codec = loaded(model)
    decoded = np.asarray(codec.decode(codec.encode(pixels, quality=90)))
    assert decoded.shape == pixels.shape


def test_a_thin_picture_comes_back_at_its_size() -> None:
    pixels = np.tile(content("smooth")[:1], (1, 40, 1))[:, :20_000]
    decoded = np.asarray(cwic.decode(cwic.encode(pixels, quality=50)))
    assert decoded.shape == pixels.shape
    assert np.abs(decoded.astype(int) - pixels).mean() < 12
