"""Folders in, batches of augmented crops out."""

import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cwic.errors import CodecWarning, TrainingError
from cwic.training import data
from cwic.training.data import (
    DataConfig,
    PictureStore,
    augmented_crop,
    batch_of_step,
    batches,
    centre_crops,
    kind_of,
    list_pictures,
)

SIDE = 16
PLAIN = DataConfig(crop_px=SIDE, flip=False)
EVERYTHING = DataConfig(crop_px=SIDE, flip=True, turn=True, downscale=0.5, colour_jitter=0.2)

# Every pixel says where it is: red is y, green is x.
ROWS, COLUMNS = np.mgrid[0:70, 0:90]
PLACES = np.stack([ROWS, COLUMNS, ROWS ^ COLUMNS], axis=-1).astype(np.uint8)


def crops_of_places(config: DataConfig, count: int = 60) -> list[np.ndarray]:
    rngs = map(np.random.default_rng, range(count))
    return [augmented_crop(PLACES, config, (SIDE, SIDE), rng) for rng in rngs]


def at_its_place(crop: np.ndarray) -> np.ndarray:
    """The part of the picture that a crop's smallest coordinates point to."""
    top, left = int(crop[..., 0].min()), int(crop[..., 1].min())
    return PLACES[top : top + SIDE, left : left + SIDE]


def store_of(folder: Path, cache_mb: int = 4096, min_side_px: int = SIDE) -> PictureStore:
    return PictureStore(sorted(folder.iterdir()), cache_mb, min_side_px)


# --- augmentations --------------------------------------------------------------------------------


def test_with_every_switch_off_a_crop_is_a_part_of_the_picture() -> None:
    crops = crops_of_places(PLAIN)
    for crop in crops:
        assert crop.dtype == np.uint8
        np.testing.assert_array_equal(crop, at_its_place(crop))
    places = {tuple(crop[0, 0, :2].tolist()) for crop in crops}
    assert len(places) > 50
    top, left = np.array(sorted(places)).T
    assert top.max() <= 70 - SIDE
    assert left.max() <= 90 - SIDE
    assert max(top) - min(top) > 40
    assert max(left) - min(left) > 55


def test_a_crop_of_a_picture_of_its_own_size_is_the_picture() -> None:
    picture = PLACES[:SIDE, :SIDE]
    np.testing.assert_array_equal(
        augmented_crop(picture, PLAIN, (SIDE, SIDE), np.random.default_rng(1)), PLACES[:SIDE, :SIDE]
    )


def test_flip_mirrors_half_of_the_crops_left_to_right() -> None:
    mirrored = 0
    for crop in crops_of_places(DataConfig(crop_px=SIDE, flip=True)):
        source = at_its_place(crop)
        if not np.array_equal(crop, source):
            np.testing.assert_array_equal(crop, source[:, ::-1])
            mirrored += 1
    assert 18 <= mirrored <= 42


def test_turn_gives_all_four_directions() -> None:
    turns = []
    for crop in crops_of_places(DataConfig(crop_px=SIDE, flip=False, turn=True)):
        source = at_its_place(crop)
        (turn,) = [k for k in range(4) if np.array_equal(crop, np.rot90(source, k))]
        turns.append(turn)
    assert min(turns.count(k) for k in range(4)) >= 5


def test_downscale_shrinks_its_share_of_the_crops_by_1_1_to_2() -> None:
    scales = []
    for crop in crops_of_places(DataConfig(crop_px=SIDE, flip=False, downscale=0.5)):
        assert crop.shape == (SIDE, SIDE, 3)
        # Pixels of the source per pixel of the crop, away from its border.
        scales.append(float(np.ptp(crop[4:-4, 4:-4, 1].astype(int)) / (SIDE - 9)))
    shrunk = [scale for scale in scales if scale > 1]
    assert 18 <= len(shrunk) <= 42
    assert 1 < min(shrunk) < 1.4
    assert 1.7 < max(shrunk) <= 2.2


def test_downscale_never_asks_for_more_than_a_small_picture_has() -> None:
    config = DataConfig(crop_px=SIDE, flip=False, downscale=0.99)
    for seed in range(10):
        crop = augmented_crop(PLACES[: SIDE + 2], config, (SIDE, SIDE), np.random.default_rng(seed))
        assert crop.shape == (SIDE, SIDE, 3)


def test_colour_jitter_changes_a_grey_picture_by_at_most_its_share() -> None:
    grey = np.full((SIDE, SIDE, 3), 100, np.uint8)
    config = DataConfig(crop_px=SIDE, flip=False, colour_jitter=0.2)
    values = set()
    for seed in range(40):
        crop = augmented_crop(grey, config, (SIDE, SIDE), np.random.default_rng(seed))
        assert crop.min() == crop.max()  # contrast and saturation leave an even grey alone
        values.add(int(crop[0, 0, 0]))
    assert 79 <= min(values) < 90
    assert 110 < max(values) <= 121


def test_colour_jitter_moves_nothing() -> None:
    edge = np.zeros((SIDE, SIDE, 3), np.uint8)
    edge[:, 5:] = (200, 120, 60)
    config = DataConfig(crop_px=SIDE, flip=False, colour_jitter=0.3)
    for seed in range(5):
        crop = augmented_crop(edge, config, (SIDE, SIDE), np.random.default_rng(seed))
        np.testing.assert_array_equal(crop[:, :5], np.broadcast_to(crop[0, 0], (SIDE, 5, 3)))
        np.testing.assert_array_equal(crop[:, 5:], np.broadcast_to(crop[0, 5], (SIDE, 11, 3)))
        assert crop[0, 5, 0] > crop[0, 0, 0]


def test_a_rectangle_keeps_its_sides_however_it_is_turned() -> None:
    config = DataConfig(crop_px=SIDE, max_crop_px=3 * SIDE, turn=True, downscale=0.5)
    for seed in range(20):
        crop = augmented_crop(PLACES, config, (3 * SIDE, SIDE), np.random.default_rng(seed))
        assert crop.shape == (3 * SIDE, SIDE, 3)


def test_a_share_of_the_crops_is_grey() -> None:
    crops = crops_of_places(DataConfig(crop_px=SIDE, grey=0.5))
    grey = [crop for crop in crops if (crop == crop[..., :1]).all()]
    assert 18 <= len(grey) <= 42


def test_repeated_edges_are_those_of_a_padded_picture() -> None:
    config = DataConfig(crop_px=32, flip=False, repeated_edges=0.9)
    ends = set()
    for seed in range(40):
        crop = augmented_crop(PLACES, config, (32, 32), np.random.default_rng(seed))
        height, width = (1 + int(np.ptp(crop[..., channel])) for channel in (0, 1))
        own = crop[:height, :width]
        top, left = own[0, 0, :2].tolist()
        np.testing.assert_array_equal(own, PLACES[top : top + height, left : left + width])
        beyond = ((0, 32 - height), (0, 32 - width), (0, 0))
        np.testing.assert_array_equal(crop, np.pad(own, beyond, mode="edge"))
        ends |= {height, width}
    assert min(ends) == 32 - 15
    assert max(ends) == 32


# --- which crop when ------------------------------------------------------------------------------


def test_shapes_of_crops_are_a_few_rectangles_the_same_for_a_whole_step() -> None:
    config = DataConfig(crop_px=192, max_crop_px=384)
    shapes = [config.shape(3, step) for step in range(300)]
    assert shapes == [config.shape(3, step) for step in range(300)]
    assert all(side % 16 == 0 and 192 <= side <= 384 for shape in shapes for side in shape)
    assert 8 <= len(set(shapes)) <= 16
    assert {(192, 192), (384, 384)} <= set(shapes)
    assert any(height % 64 or width % 64 for height, width in shapes)
    assert set(shapes) != {config.shape(4, step) for step in range(300)}


def test_a_crop_comes_from_a_picture_that_holds_it(tmp_path: Path) -> None:
    for name, shape in (("a", (40, 90, 3)), ("b", (90, 40, 3)), ("c", (100, 100, 3))):
        Image.fromarray(np.full(shape, ord(name), np.uint8)).save(tmp_path / f"{name}.png")
    store = store_of(tmp_path)
    found = {int(store.draw((32, 80), np.random.default_rng(seed))[0, 0, 0]) for seed in range(30)}
    assert found == {ord("a"), ord("c")}
    with pytest.raises(TrainingError, match="hold a crop of 128x16 px"):
        store.draw((16, 128), np.random.default_rng(1))


def test_a_crop_depends_on_seed_step_and_position_alone(picture_folder: Path) -> None:
    store = store_of(picture_folder)
    whole = batch_of_step(store, EVERYTHING, 5, 7, range(6))
    assert whole.shape == (6, SIDE, SIDE, 3)
    batch_of_step(store, EVERYTHING, 5, 8, range(3))  # what came before does not matter
    first = batch_of_step(store, EVERYTHING, 5, 7, range(3))
    second = batch_of_step(store, EVERYTHING, 5, 7, range(3, 6))
    np.testing.assert_array_equal(np.concatenate([first, second]), whole)
    assert len({crop.tobytes() for crop in whole}) == 6
    for seed, step in ((6, 7), (5, 8)):
        other = batch_of_step(store, EVERYTHING, seed, step, range(6))
        assert not any(np.array_equal(a, b) for a, b in zip(whole, other, strict=True))


def test_batches_come_in_order_and_start_anywhere(picture_folder: Path) -> None:
    store = store_of(picture_folder)
    expected = [batch_of_step(store, EVERYTHING, 1, step, range(2)) for step in range(5)]
    for start in range(6):
        found = list(batches(store, EVERYTHING, 1, range(start, 5), range(2)))
        assert len(found) == 5 - start
        for one, other in zip(found, expected[start:], strict=True):
            np.testing.assert_array_equal(one, other)


def test_batches_that_nobody_wants_any_more_leave_no_thread_behind(picture_folder: Path) -> None:
    threads = threading.active_count()
    stream = batches(store_of(picture_folder), EVERYTHING, 1, range(1000), range(2))
    next(stream)
    assert threading.active_count() == threads + 1
    stream.close()
    assert threading.active_count() == threads


# --- the store ------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"this is no picture", b"\x89PNG\r\n\x1a\n cut off"])
def test_a_broken_picture_is_skipped_with_a_warning_that_names_it(
    tmp_path: Path, content: bytes
) -> None:
    Image.fromarray(PLACES).save(tmp_path / "a.png")
    (tmp_path / "broken.png").write_bytes(content)
    Image.fromarray(PLACES[::-1]).save(tmp_path / "c.png")
    with pytest.warns(CodecWarning, match=r"skipped.*broken\.png") as caught:
        store = store_of(tmp_path)
    assert len(caught) == 1
    assert len(store) == 2
    np.testing.assert_array_equal(store[1], PLACES[::-1])


def test_a_truncated_picture_is_skipped_too(tmp_path: Path, picture_folder: Path) -> None:
    whole = (picture_folder / "picture00.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole)
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.warns(CodecWarning, match=r"cut\.png"):
        assert len(store_of(tmp_path)) == 1


def test_pictures_of_every_kind_come_as_rgb(tmp_path: Path) -> None:
    grey = PLACES[..., 0]
    Image.fromarray(grey).save(tmp_path / "a.png")
    Image.fromarray(grey.astype(np.uint16) * 256).save(tmp_path / "b.png")
    Image.fromarray(np.dstack([PLACES, grey])).save(tmp_path / "c.png")
    Image.fromarray(PLACES).save(tmp_path / "d.jpg")
    store = store_of(tmp_path)
    assert [store[index].shape for index in range(4)] == [(70, 90, 3)] * 4
    assert all(store[index].dtype == np.uint8 for index in range(4))


def test_pictures_smaller_than_a_crop_are_left_out(tmp_path: Path) -> None:
    Image.fromarray(PLACES[:15]).save(tmp_path / "a.png")
    Image.fromarray(PLACES[:16]).save(tmp_path / "b.png")
    store = store_of(tmp_path)
    assert len(store) == 1
    assert store[0].shape == (16, 90, 3)


def test_without_a_usable_picture_the_store_says_what_it_expects(tmp_path: Path) -> None:
    Image.fromarray(PLACES).save(tmp_path / "a.png")
    with pytest.raises(TrainingError, match="among 1 files, expected some of at least 71 px"):
        store_of(tmp_path, min_side_px=71)


def test_pictures_beyond_the_cache_are_read_again_and_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):  # 1.08 MB each
        pixels = np.full((600, 600, 3), 50 * number, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    read: list[str] = []
    original = data.read_picture

    def counted(path: Path, **options: bool) -> object:
        read.append(path.name)
        return original(path, **options)

    monkeypatch.setattr(data, "read_picture", counted)
    all_names = ["0.png", "1.png", "2.png"]
    for cache_mb, again in ((0, all_names), (2, all_names[1:]), (3, all_names[2:]), (4, [])):
        store = store_of(tmp_path, cache_mb=cache_mb)
        assert read == all_names
        read.clear()
        for number in range(3):
            assert store[number].shape == (600, 600, 3)
            assert (store[number] == 50 * number).all()
        assert read == [name for name in again for _ in range(2)]
        read.clear()


def test_the_cache_changes_no_crop(picture_folder: Path) -> None:
    cached, uncached = store_of(picture_folder), store_of(picture_folder, cache_mb=0)
    np.testing.assert_array_equal(
        batch_of_step(cached, EVERYTHING, 2, 3, range(8)),
        batch_of_step(uncached, EVERYTHING, 2, 3, range(8)),
    )


# --- folders --------------------------------------------------------------------------------------


def touch(folder: Path, count: int, suffix: str = ".png") -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:03}{suffix}" for number in range(count)]
    for path in reversed(paths):
        path.touch()
    return paths


def test_the_last_tenth_of_every_folder_is_held_out(tmp_path: Path) -> None:
    first = touch(tmp_path / "one", 20)
    second = touch(tmp_path / "two" / "deep", 30, ".JPG")
    few = touch(tmp_path / "few", 4)
    (tmp_path / "one" / "notes.txt").touch()
    (tmp_path / "one" / "folder.png").mkdir()
    split = list_pictures([tmp_path], 0.1)
    assert sorted(split.held_out) == sorted(first[18:] + second[27:])
    assert sorted(split.training) == sorted(first[:18] + second[:27] + few)
    assert list_pictures([tmp_path], 0.1) == split
    separate = list_pictures([tmp_path / "two", tmp_path / "one"], 0.1)
    assert separate.held_out == second[27:] + first[18:]


def test_nothing_is_held_out_if_the_share_is_zero(tmp_path: Path) -> None:
    paths = touch(tmp_path, 20)
    assert list_pictures([tmp_path], 0.0) == (paths, [])


def test_a_missing_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    file = tmp_path / "file.png"
    file.touch()
    for wrong in (tmp_path / "absent", file):
        with pytest.raises(TrainingError, match=rf"{wrong.name}: expected a folder"):
            list_pictures([tmp_path, wrong], 0.1)


def test_a_folder_without_pictures_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").touch()
    with pytest.raises(TrainingError, match=r"empty: found no picture, expected files of .*\.png"):
        list_pictures([tmp_path / "empty"], 0.1)


def test_pictures_that_lie_split_stay_so_and_have_the_kind_of_their_folder(tmp_path: Path) -> None:
    for name in ("pages/training/a.png", "pages/held_out/text/b.png", "pages/held_out/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PLACES).save(tmp_path / name)
    for folder in (tmp_path, tmp_path / "pages"):
        split = list_pictures([folder], 0.1)
        assert [path.name for path in split.training] == ["a.png"]
        assert sorted(path.name for path in split.held_out) == ["b.png", "c.png"]
        assert {path.name: kind_of(path) for path in split.held_out} == {
            "b.png": "text",
            "c.png": "pages",
        }


def test_centre_crops_are_centres_spread_over_the_store(picture_folder: Path) -> None:
    store = store_of(picture_folder)
    crops = centre_crops(store, 48, 3)
    assert crops.shape == (3, 48, 48, 3)
    for crop, index in zip(crops, (0, 6, 11), strict=True):
        height, width = store[index].shape[:2]
        top, left = (height - 48) // 2, (width - 48) // 2
        np.testing.assert_array_equal(crop, store[index][top : top + 48, left : left + 48])
    assert len(centre_crops(store, 48, 100)) == 12
    with pytest.raises(TrainingError, match="no held-out picture has 400 px"):
        centre_crops(store, 400, 3)


def test_a_pack_without_pictures_is_an_error_that_names_it(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
        archive.writestr("notes.txt", "nothing")
    with pytest.raises(TrainingError, match=r"empty\.zip: expected pictures under training/"):
        list_pictures([tmp_path / "empty.zip"], 0.1)
