"""The benchmark of held-out crops: what it takes of a folder, gains at equal size, its tables."""

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")
pytest.importorskip("ssimulacra2")

ROOT = Path(__file__).parent.parent


@pytest.fixture
def held_out(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    import held_out

    return held_out


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Ten photographs of a cat, the last of which is held out, and a rendered page, held out."""
    photos, pages = tmp_path / "data" / "cats", tmp_path / "data" / "held_out" / "page"
    for folder in (photos, pages):
        folder.mkdir(parents=True)
    with Image.open(ROOT / "examples" / "samples" / "chelsea.png") as sample:
        cat = sample.convert("RGB").crop((90, 20, 330, 250))
    for number in range(10):
        cat.save(photos / f"{number}.png")
    cat.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(pages / "page.png")
    cat.crop((0, 0, 100, 230)).save(pages / "small.png")
    return tmp_path / "data"


def test_crops_are_centres_of_what_training_holds_out(
    held_out: ModuleType, data: Path, tmp_path: Path
) -> None:
    paths = held_out.crops_of([data], 3, 225, tmp_path / "crops")
    assert [path.name for path in paths] == ["cats-9.png", "page-page.png"]
    crop, whole = (np.asarray(Image.open(p)) for p in (paths[0], data / "cats" / "9.png"))
    assert np.array_equal(crop, whole[2:227, 7:232])


def test_a_gain_is_that_at_equal_size_over_the_sizes_that_both_have(held_out: ModuleType) -> None:
    anchor = ([0.25, 0.5, 1.0, 2.0], [30.0, 33.0, 36.0, 39.0])
    # 3 dB a doubling: half the size at equal quality is 3 dB at equal size.
    halved = ([0.125, 0.25, 0.5, 1.0], [30.0, 33.0, 36.0, 39.0])
    assert held_out.gain(anchor, halved) == pytest.approx(3)
    assert held_out.gain(halved, anchor) == pytest.approx(-3)
    assert held_out.gain(anchor, ([0.5, 1.0], [33.5, 37.5])) == pytest.approx(1)
    assert np.isnan(held_out.gain(anchor, ([4.0, 5.0], [50.0, 60.0])))


def test_tables_have_a_row_for_each_kind_and_a_model_gains_nothing_over_itself(
    held_out: ModuleType,
    data: Path,
    tmp_path: Path,
    tiny_flagship_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    again = tmp_path / "again.cwicmodel"
    again.write_bytes(tiny_flagship_path.read_bytes())
    words = ["held_out", str(data), "--model", str(tiny_flagship_path), str(again)]
    words += ["--quality", "40", "90", "--count", "1", "--crop-px", "225"]
    monkeypatch.setattr(sys, "argv", [*words, "--out", str(tmp_path / "results")])
    held_out.main()
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert (
        "| cats (1) | +0.00 | +0.0000 | +0.00 | +0.00 | +0.0 % | +0.0 % | cats-9 +0.00 |" in lines
    )
    assert any(line.startswith("| mean of 2 kinds, all | +0.00 |") for line in lines)
    rows = [line.split(" | ") for line in lines if "| again |" in line]
    assert [(row[0], row[1]) for row in rows] == [
        ("| cats", "40"),
        ("| cats", "90"),
        ("| page", "40"),
        ("| page", "90"),
    ]
    assert float(rows[1][3]) > float(rows[0][3])

    monkeypatch.setattr(held_out, "measure_all", lambda jobs, _: iter(jobs))  # nothing is left
    held_out.main()
    assert capsys.readouterr().out == printed


def test_kinds_are_known_by_the_folder_that_was_given(
    held_out: ModuleType, data: Path, tmp_path: Path
) -> None:
    found = held_out.kinds_of_data([data / "cats", data])
    assert found == {"cats": ["cats"], "data": ["cats", "page"]}
    assert held_out.kinds_of_data([data]) == {}


def test_a_folder_whose_pictures_are_all_too_small_is_an_error(
    held_out: ModuleType, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["held_out", str(data), "--model", "cwic-psnr", "--crop-px", "300"]
    monkeypatch.setattr(sys, "argv", [*words, "--out", str(tmp_path / "results")])
    with pytest.raises(SystemExit, match="expected held-out pictures of 300 px a side, found none"):
        held_out.main()
