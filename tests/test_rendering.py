"""Rendered pictures for training: what decides them, and what is held out."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import script_module
from PIL import Image

from cwic.errors import TrainingError
from cwic.training.data import kind_of, list_pictures
from rendering.canvas import PhotoShelf
from rendering.fonts import (
    Face,
    FontShelf,
    find_faces,
    is_held_out,
    part_of_faces,
)
from rendering.pictures import (
    KINDS,
    MAX_SIDE_PX,
    MIN_SIDE_PX,
    TRAINING_ORDER,
    render_picture,
)

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "render_pictures"


def face(family: str) -> Face:
    return Face(Path(f"{family}.ttf"), 0, family, "Regular", frozenset({"latin"}), False)


@pytest.fixture(scope="module")
def font_folder() -> Path:
    """The fonts that come with matplotlib: on every machine that has the development tools."""
    matplotlib = pytest.importorskip("matplotlib")
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"


@pytest.fixture(scope="module")
def fonts(font_folder: Path) -> FontShelf:
    return FontShelf(find_faces([font_folder]))


@pytest.fixture(scope="module")
def photos(picture_folder: Path) -> PhotoShelf:
    return PhotoShelf(sorted(picture_folder.iterdir()))


@pytest.mark.parametrize("index", range(len(KINDS)))
def test_a_picture_is_a_function_of_seed_and_index(
    fonts: FontShelf, photos: PhotoShelf, index: int
) -> None:
    first, again = (render_picture(3, index, fonts, photos, held_out=True) for _ in range(2))
    other = render_picture(4, index, fonts, photos, held_out=True)
    assert first.kind == again.kind == other.kind == sorted(KINDS)[index]
    assert first.image.mode == "RGB"
    assert first.image.tobytes() == again.image.tobytes() != other.image.tobytes()
    assert all(MIN_SIDE_PX <= side <= MAX_SIDE_PX for side in first.image.size)


def test_pictures_before_one_do_not_change_it(fonts: FontShelf, photos: PhotoShelf) -> None:
    alone = render_picture(1, 9, fonts, photos)
    render_picture(1, 8, fonts, photos)
    assert render_picture(1, 9, fonts, photos).image.tobytes() == alone.image.tobytes()


def test_without_photographs_gradients_take_their_place(fonts: FontShelf) -> None:
    picture = render_picture(1, 0, fonts, PhotoShelf([]))
    assert picture.kind == "overlay"
    assert len(np.unique(np.asarray(picture.image))) > 20


def test_training_sees_every_kind_and_most_of_all_what_lies_over_photographs() -> None:
    assert set(TRAINING_ORDER) == set(KINDS)
    assert max(KINDS, key=TRAINING_ORDER.count) == "overlay"


def test_held_out_pictures_are_judged_by_what_they_show(tmp_path: Path) -> None:
    file_name = script_module("render_pictures").file_name
    for index in range(20):
        path = tmp_path / "pages" / file_name(index, "text", held_out=False)
        path.parent.mkdir(exist_ok=True)
        path.touch()
    for index, kind in enumerate(KINDS):
        path = tmp_path / "pages" / "held_out" / file_name(index, kind, held_out=True)
        path.parent.mkdir(parents=True)
        path.touch()
    held_out = list_pictures([tmp_path], 0.1).held_out
    assert {"pages", *KINDS} == {kind_of(file) for file in held_out}


def test_no_family_is_in_training_and_held_out() -> None:
    faces = [face(f"Family {number}") for number in range(200)]
    parts = [part_of_faces(faces, held_out=held_out) for held_out in (False, True)]
    training, held_out = ({face.family for face in part} for part in parts)
    assert not training & held_out
    assert len(training) + len(held_out) == 200
    assert 20 <= len(held_out) <= 60


def test_weights_of_a_family_stay_together(font_folder: Path) -> None:
    faces = [face for face in find_faces([font_folder]) if face.path.name.startswith("DejaVuSans")]
    assert len(faces) > 4
    assert {face.family for face in faces} == {"DejaVu Sans"}


def test_a_font_writes_only_what_it_has_letters_for(font_folder: Path) -> None:
    by_name = {face.path.name: face for face in find_faces([font_folder])}
    assert {"latin", "greek", "cyrillic"} <= by_name["DejaVuSerif.ttf"].scripts
    assert not {"han", "hangul", "thai"} & by_name["DejaVuSerif.ttf"].scripts
    assert by_name["DejaVuSansMono.ttf"].mono
    assert not by_name["DejaVuSans.ttf"].mono


def test_no_font_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "notes.ttf").write_bytes(b"this is no font")
    with pytest.raises(TrainingError, match="found no font, expected files of"):
        find_faces([tmp_path])
    with pytest.raises(TrainingError, match="expected a folder of fonts, found none"):
        find_faces([tmp_path / "missing"])


def test_too_few_fonts_to_hold_some_out_is_a_clear_error() -> None:
    name = next(f"Family {number}" for number in range(99) if not is_held_out(f"Family {number}"))
    with pytest.raises(TrainingError, match="held-out pictures among 1 families"):
        part_of_faces([face(name)], held_out=True)


@pytest.mark.slow
def test_the_command_writes_pictures_and_lists_its_fonts(
    font_folder: Path, picture_folder: Path, tmp_path: Path
) -> None:
    command = [sys.executable, SCRIPT, tmp_path / "out", "--photos", picture_folder, "--fonts"]
    command += [font_folder, "--count", "3", "--seed", "5"]
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    assert "DejaVu Sans" in run.stderr
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["00000-overlay.png", "00001-screen.png", "00002-lines.png"]
    for name in names:
        Image.open(tmp_path / "out" / name).verify()
    command[command.index(font_folder)] = picture_folder
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert run.returncode == 1
    assert "found no font, expected files of" in run.stderr
