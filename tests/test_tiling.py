"""Large pictures in tiles: no seams, regions, and every pixel in its place."""

from pathlib import Path

import numpy as np
import pytest
from conftest import seeded_picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import cwic
from cwic import bitstream, model_file
from cwic.codec import Codec
from cwic.defaults import REDUCTIONS
from cwic.errors import BitstreamError, TargetError
from cwic.families.flagship import family as flagship
from cwic.families.flagship.family import Flagship, FlagshipAnalysis, FlagshipCoded
from cwic.families.flagship.tiles import in_pipeline
from cwic.families.protocol import TileStream
from cwic.families.tiling import Rectangle, Tiling


def large_picture(height: int, width: int) -> np.ndarray:
    """Shapes and texture at any size."""
    return np.asarray(Image.fromarray(seeded_picture(21)).resize((width, height)))


@pytest.fixture
def tiled(tiny_flagship_path: Path, monkeypatch: pytest.MonkeyPatch) -> Codec:
    """A codec that divides all but the smallest pictures."""
    monkeypatch.setattr(flagship, "MAX_UNDIVIDED_PIXELS", 64 * 64)
    monkeypatch.setattr(flagship, "TILE_PX", 128)
    return Codec.load(tiny_flagship_path, threads=2)


@given(
    height=st.integers(1, 400),
    width=st.integers(1, 400),
    tile_px=st.sampled_from([None, 64, 128, 256]),
)
@settings(deadline=None)
def test_tiles_partition_the_picture(height: int, width: int, tile_px: int | None) -> None:
    tiling = Tiling(height, width, tile_px, 64)
    count = np.zeros((height, width), int)
    for tile in tiling.tiles:
        count[tile.slices(tiling.picture)] += 1
        assert tile.height > 0 < tile.width
        window = tiling.around(tile, 100)
        assert window.cut(tiling.around(tiling.picture)) == window
        assert not any(side % 64 for side in window)
        assert tile.cut(window) == tile
    assert (count == 1).all()
    if tile_px is None:
        assert len(tiling.tiles) == 1


def test_a_window_beyond_the_picture_repeats_its_last_pixels() -> None:
    picture = large_picture(70, 100)
    tiling = Tiling(70, 100, None, 64)
    whole = tiling.pixels(picture, tiling.around(tiling.picture))
    assert whole.shape == (128, 128, 3)
    np.testing.assert_array_equal(whole[:70, :100], picture)
    np.testing.assert_array_equal(whole[70:, :100], np.broadcast_to(picture[-1], (58, 100, 3)))
    np.testing.assert_array_equal(whole[:, 100:], np.repeat(whole[:, 99:100], 28, axis=1))


@pytest.mark.parametrize(("height", "width"), [(128, 128), (129, 300), (300, 70), (259, 515)])
def test_a_picture_in_tiles_comes_back_at_its_size(height: int, width: int, tiled: Codec) -> None:
    picture = large_picture(height, width)
    data = tiled.encode(picture, quality=60)
    header = cwic.read_header(data)
    assert header.tile_px == 128
    assert header.num_tiles == -(-height // 128) * -(-width // 128)
    assert tiled.decode(data).size == (width, height)


def test_the_same_latents_give_the_same_picture_in_tiles_or_in_one_piece(
    tiny_flagship_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = Flagship(model_file.load(tiny_flagship_path), threads=2)
    picture = large_picture(300, 460)
    tiling = family.tiling(300, 460, 128)
    analysis = FlagshipAnalysis(family, picture, tiling)
    whole_analysis = FlagshipAnalysis(family, picture, family.tiling(300, 460, None))
    found, expected = (of.at(100).importance for of in (analysis, whole_analysis))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    coded = analysis.code(100)
    tiles = [coded.tile(number)[1] for number in range(len(tiling.tiles))]
    in_tiles = family.transforms.synthesize(lambda number: tiles[number], tiling, tiling.picture)

    def joined(name: str) -> np.ndarray:
        rows = [
            np.concatenate([getattr(tile, name) for tile in tiles[start : start + 4]], axis=2)
            for start in range(0, len(tiles), 4)
        ]
        return np.concatenate(rows, axis=1)

    whole = tiles[0]._replace(
        decoded=joined("decoded"), prior=joined("prior"), planes=joined("planes")
    )
    one = family.tiling(300, 460, None)
    in_one_piece = family.transforms.synthesize(lambda _: whole, one, one.picture)
    difference = np.abs(in_tiles.astype(int) - in_one_piece)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3
    monkeypatch.setattr(flagship, "_MAX_KEPT_PIXELS", 1)
    again = FlagshipAnalysis(family, picture, tiling).code(100)
    assert again.payloads() == coded.payloads()
    assert again.size_bytes() == coded.size_bytes()


@pytest.mark.parametrize(
    "region",
    [(0, 0, 300, 259), (0, 0, 1, 1), (120, 100, 20, 60), (299, 258, 1, 1), (5, 140, 200, 9)],
)
def test_a_region_is_that_part_of_the_whole(
    region: tuple[int, int, int, int], tiled: Codec
) -> None:
    data = tiled.encode(large_picture(259, 300), quality=70)
    whole = np.asarray(tiled.decode(data)).astype(int)
    x, y, width, height = region
    part = np.asarray(tiled.decode(data, region=region))
    assert part.shape == (height, width, 3)
    assert np.abs(part - whole[y : y + height, x : x + width]).max() <= 1


@pytest.mark.parametrize("region", [(0, 0, 0, 5), (-1, 0, 5, 5), (0, 0, 301, 5), (299, 0, 2, 1)])
def test_a_region_beyond_the_picture_is_refused(
    region: tuple[int, int, int, int], tiled: Codec
) -> None:
    data = tiled.encode(large_picture(259, 300))
    with pytest.raises(TargetError, match="within 300x259"):
        tiled.decode(data, region=region)


def test_a_region_takes_no_more_tiles_than_it_meets(tiled: Codec) -> None:
    data = tiled.encode(large_picture(128, 700), quality=50)
    header = cwic.read_header(data)
    last = header.tiles[-1]
    family = tiled._family
    tiling = family.tiling(128, 700, 128)
    payloads = [data[tile.offset : tile.offset + tile.length] for tile in header.tiles]
    payloads[-1] = b"\x00"
    assert last.length > 1
    part = Rectangle(0, 0, 128, 100)
    stream = TileStream(payloads, header.q, tiling)
    assert family.decode(stream, part).shape == (128, 100, 3)
    with pytest.raises(BitstreamError):
        family.decode(stream, tiling.picture)


def test_what_a_size_was_estimated_of_is_not_coded_again_for_its_bytes(
    tiled: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    coded = tiled._family.analyze(large_picture(128, 300)).code(50)
    assert isinstance(coded, FlagshipCoded)
    size_bytes = coded.size_bytes()
    monkeypatch.setattr(FlagshipCoded, "tile", None)
    payloads = coded.payloads()
    assert len(payloads) == 3
    assert sum(map(len, payloads)) == pytest.approx(size_bytes, abs=12)


def test_regions_keep_the_alpha_of_their_pixels(tiled: Codec) -> None:
    picture = np.dstack(
        [large_picture(150, 200), np.arange(200, dtype=np.uint8) * np.ones((150, 1), np.uint8)]
    )
    data = tiled.encode(picture)
    part = np.asarray(tiled.decode(data, region=(40, 100, 50, 20)))
    np.testing.assert_array_equal(part[..., 3], picture[100:120, 40:90, 3])


def test_rectangles_are_cut_to_the_pixels_that_they_share() -> None:
    one = Rectangle(0, 0, 4, 4)
    assert one.cut(Rectangle(2, 1, 9, 9)) == Rectangle(2, 1, 4, 4)


# --- hostile sizes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("height", "width", "tile_px"),
    [(13376, 13376, None), (1, 100_000_000, None), (10_000, 10_000, 8192), (20_000, 64, 32768)],
)
def test_a_file_whose_tiles_no_encoder_writes_is_refused(
    height: int, width: int, tile_px: int | None, tiny_flagship_codec: Codec
) -> None:
    """An empty payload is a valid tile: a few bytes must not ask for gigabytes."""
    count = 1 if tile_px is None else -(-height // tile_px) * -(-width // tile_px)
    data = bitstream.pack(
        identity=tiny_flagship_codec.identity,
        width=width,
        height=height,
        mode=0,
        q=0,
        tiles=[b""] * count,
        tile_px=tile_px,
    )
    with pytest.raises(BitstreamError, match="found a tile of"):
        tiny_flagship_codec.decode(data)


def test_a_thin_picture_is_divided(tiny_flagship_codec: Codec) -> None:
    pixels = np.zeros((1, 2**14 + 1, 3), np.uint8)
    data = tiny_flagship_codec.encode(pixels, lossless="never")
    assert cwic.read_header(data).tile_px == flagship.TILE_PX
    assert tiny_flagship_codec.decode(data).size == (2**14 + 1, 1)


@given(
    height=st.integers(1, 500),
    width=st.integers(1, 500),
    tile_px=st.sampled_from([None, 64, 128]),
    corner=st.tuples(st.integers(0, 499), st.integers(0, 499)),
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
)
@settings(deadline=None)
def test_the_tiles_that_meet_a_part_are_found_without_asking_each(
    height: int,
    width: int,
    tile_px: int | None,
    corner: tuple[int, int],
    size: tuple[int, int],
) -> None:
    tiling = Tiling(height, width, tile_px, 64)
    top, left = min(corner[0], height - 1), min(corner[1], width - 1)
    part = Rectangle(top, left, min(top + size[0], height), min(left + size[1], width))
    shared = [tile.cut(part) for tile in tiling.tiles]
    expected = [number for number, cut in enumerate(shared) if cut.height > 0 and cut.width > 0]
    assert tiling.meeting(part) == expected


@given(
    rows=st.integers(1, 5),
    columns=st.integers(1, 5),
    threads=st.integers(1, 6),
    some=st.data(),
)
@settings(deadline=None)
def test_tiles_are_shown_once_when_their_neighbours_are_decoded_and_soon_forgotten(
    rows: int, columns: int, threads: int, some: st.DataObject
) -> None:
    tiling = Tiling(64 * rows, 64 * columns, 64, 64)
    wanted = some.draw(st.sets(st.integers(0, rows * columns - 1), min_size=1))
    needs = {
        number: frozenset(tiling.meeting(tiling.around(tiling.tiles[number], 16)))
        for number in sorted(wanted)
    }
    decoded: set[int] = set()
    kept: set[int] = set()
    shown: list[int] = []
    most = 0

    def decode(number: int) -> None:
        nonlocal most
        assert number not in decoded
        decoded.add(number)
        kept.add(number)
        most = max(most, len(kept))

    def show(number: int) -> None:
        assert needs[number] <= kept
        shown.append(number)

    in_pipeline(needs, decode, show, kept.remove, threads)
    assert sorted(shown) == sorted(wanted)
    assert decoded == set().union(*needs.values())
    assert not kept
    if threads == 1:
        assert most <= 2 * columns + 3


def test_what_goes_wrong_in_a_tile_ends_the_pipeline() -> None:
    needs = {number: {number} for number in range(50)}
    calls = []

    def show(number: int) -> None:
        calls.append(number)
        raise BitstreamError("damaged")

    for threads in (1, 3):
        calls.clear()
        with pytest.raises(BitstreamError, match="damaged"):
            in_pipeline(needs, lambda _: None, show, lambda _: None, threads)
        assert len(calls) <= threads


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("region", [None, (0, 0, 1, 1), (120, 100, 21, 60), (295, 250, 5, 9)])
def test_a_reduced_region_is_that_part_of_the_reduced_picture(
    region: tuple[int, int, int, int] | None, reduce: int, tiled: Codec
) -> None:
    data = tiled.encode(large_picture(259, 300), quality=70)
    whole = np.asarray(tiled.decode(data, reduce=reduce)).astype(int)
    assert whole.shape == (-(-259 // reduce), -(-300 // reduce), 3)
    x, y, width, height = region or (0, 0, 300, 259)
    part = np.asarray(tiled.decode(data, region=region, reduce=reduce))
    expected = whole[
        y // reduce : -(-(y + height) // reduce), x // reduce : -(-(x + width) // reduce)
    ]
    assert part.shape == expected.shape
    assert np.abs(part - expected).max() <= 1


def test_a_picture_reduced_by_little_is_the_mean_of_its_pixels(tiled: Codec) -> None:
    data = tiled.encode(large_picture(256, 300), quality=70)
    whole = np.asarray(tiled.decode(data)).astype(float)
    means = whole.reshape(64, 4, 75, 4, 3).mean(axis=(1, 3))
    assert np.abs(np.asarray(tiled.decode(data, reduce=4)) - means).max() <= 0.51


def test_a_preview_reads_the_first_group_of_latents_alone(tiled: Codec) -> None:
    data = tiled.encode(large_picture(128, 700), quality=90, lossless="never")
    family = tiled._family
    assert isinstance(family, Flagship)
    tiling = family.tiling(128, 700, 128)
    header = cwic.read_header(data)
    payloads = [data[tile.offset : tile.offset + tile.length] for tile in header.tiles]
    stream = TileStream(payloads, header.q, tiling)
    whole = family.decode(stream, tiling.picture, 8)
    assert whole.shape == (16, 88, 3)
    # Noise in place of the second half would be noticed by whoever read it.
    halves = [payload[: len(payload) // 2 // 4 * 4] for payload in payloads]
    of_halves = family.decode(stream._replace(payloads=halves), tiling.picture, 8)
    np.testing.assert_array_equal(of_halves, whole)


@pytest.mark.parametrize("reduce", [0, 3, 16, -1])
def test_a_reduction_that_is_none_is_refused(reduce: int, tiled: Codec) -> None:
    data = tiled.encode(large_picture(20, 20))
    with pytest.raises(ValueError, match="reduce"):
        tiled.decode(data, reduce=reduce)


def test_reduced_pictures_keep_their_alpha(tiled: Codec) -> None:
    alpha = np.arange(200, dtype=np.uint8) * np.ones((150, 1), np.uint8)
    data = tiled.encode(np.dstack([large_picture(150, 200), alpha]))
    small = np.asarray(tiled.decode(data, reduce=8))
    assert small.shape == (19, 25, 4)
    np.testing.assert_allclose(small[0, :, 3], np.arange(25) * 8 + 3.5, atol=0.6)
