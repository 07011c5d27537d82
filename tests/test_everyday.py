"""The benchmark of pictures of every kind: equal sizes, a row of a kind and codec, what is kept."""

import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from conftest import seeded_picture
from PIL import Image

pytest.importorskip("torch")
pytest.importorskip("ssimulacra2")

ROOT = Path(__file__).parent.parent


@pytest.fixture
def everyday(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    import everyday

    monkeypatch.setattr(everyday, "ANCHORS", {"jpeg": everyday.ANCHORS["jpeg"]})
    return everyday


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A photograph that everything can be measured of, and small pictures of other modes."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    with Image.open(ROOT / "examples" / "samples" / "chelsea.png") as sample:
        sample.convert("RGB").crop((90, 20, 330, 245)).save(folder / "photo-cat.png")
    small = seeded_picture(5)
    Image.fromarray(small).convert("L").save(folder / "grey-small.png")
    Image.fromarray(small[:30]).save(folder / "photo-low.webp", lossless=True)
    alpha = np.full((*small.shape[:2], 1), 128, np.uint8)
    Image.fromarray(np.concatenate([small, alpha], axis=2)).save(folder / "icon-half-seen.png")
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_every_kind_and_codec_has_a_row_at_equal_size_and_is_measured_once(
    everyday: ModuleType,
    folder: Path,
    tiny_flagship_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = folder.parent / "results"
    words = ["everyday", str(folder), "--model", str(tiny_flagship_path), "--bpp", "1.5", "3"]
    monkeypatch.setattr(sys, "argv", [*words, "--out", str(out), "-j", "1"])
    everyday.main()
    printed = capsys.readouterr().out
    rows = [line.split(" | ") for line in printed.splitlines() if "| JPEG 4:2:0 |" in line]
    assert [row[0] for row in rows] == 2 * ["| grey (1)", "| icon (1)", "| photo (2)"]
    assert printed.count("cwic tiny-flagship | ") == len(rows)
    for row in rows:
        assert float(row[8].rstrip("%")) == pytest.approx(100, abs=6)  # the steps of JPEG
    photo = rows[2]
    assert re.fullmatch(r"photo-cat \d+\.\d", photo[3])
    assert photo[3].endswith(f" {photo[2]}")  # the only one that is large enough
    assert rows[5][2] > photo[2]
    assert "Too small for SSIMULACRA2: grey-small.png (" in printed
    assert "Too small for an edge: photo-low.webp (" in printed
    assert "notes" not in printed

    monkeypatch.setattr(everyday, "points_of", None)  # nothing is left to measure
    everyday.main()
    assert capsys.readouterr().out == printed


def test_a_codec_without_a_file_of_the_size_is_counted_but_not_a_picture_kept_whole(
    everyday: ModuleType,
    tmp_path: Path,
    tiny_flagship_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2, 0] = stripes[:, 1::2, 2] = 255  # of colour, which 4:2:0 loses
    (tmp_path / "pictures").mkdir()
    Image.fromarray(stripes).save(tmp_path / "pictures" / "flat-stripes.png")
    words = ["everyday", str(tmp_path / "pictures"), "--model", str(tiny_flagship_path)]
    words += ["--bpp", "16", "--out", str(tmp_path / "results"), "-j", "1"]
    monkeypatch.setattr(sys, "argv", words)
    everyday.main()
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if " | " in line]
    found = {row[1]: (row[5], row[rows[0].index("files under 90%")]) for row in rows}
    assert found["cwic tiny-flagship"] == ("1 exact", "")
    assert found["JPEG 4:2:0"][1] == "1"


def test_numbers_of_exact_pictures_are_counted_and_not_averaged(everyday: ModuleType) -> None:
    assert everyday._mean_db([30, 40]) == "35.00"
    assert everyday._mean_db([30, float("inf"), float("inf")]) == "30.00 (2 exact)"
    assert everyday._mean_db([float("inf")]) == "1 exact"


def test_a_folder_without_pictures_is_named(
    everyday: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["everyday", str(tmp_path)])
    with pytest.raises(SystemExit, match="expected pictures, found none"):
        everyday.main()
