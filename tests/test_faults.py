"""A disk that fills up in the middle of a file, for every verb that writes one.

Python sees a limit on the size of files as it sees a full disk: a write that comes so far and no
further. The real disk, and batches on it, are in `test_batch`; kills are in `test_endurance`.
"""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import seeded_picture
from PIL import Image

from cwic import model_file
from cwic.codec import Codec

GOLDEN = Path(__file__).parent / "data" / "golden"
MODEL = str(GOLDEN / "cwic.cwicmodel")
OLD = b"what was there before"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")

COMMAND = """
import resource, sys
from cwic import cli
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
sys.exit(cli.main(sys.argv[2:]))
"""


def limited(limit_bytes: int, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", COMMAND, str(limit_bytes), *map(str, words)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def check_refused(result: subprocess.CompletedProcess[str], target: Path) -> None:
    """In one line, with the old file in place and nothing beside it that was not there."""
    assert result.returncode == 1, result.stderr
    assert result.stderr.startswith("error: "), result.stderr
    assert "File too large" in result.stderr
    assert result.stderr.count("\n") == 1
    assert target.read_bytes() == OLD
    assert not list(target.parent.glob(".cwic-*"))


@pytest.mark.parametrize("limit_bytes", [0, 1, 100])
def test_encode_keeps_the_old_file_when_the_disk_is_full(limit_bytes: int, tmp_path: Path) -> None:
    photo, target = tmp_path / "photo.png", tmp_path / "photo.cwic"
    Image.fromarray(seeded_picture(1)).save(photo)
    target.write_bytes(OLD)
    words = ("encode", photo, "-o", target, "-f", "--model", MODEL)
    check_refused(limited(limit_bytes, *words), target)
    assert limited(2**20, *words).returncode == 0
    Codec.load(MODEL, threads=1).decode(target.read_bytes())


@pytest.mark.parametrize("suffix", [".png", ".ppm", ".jpg"])
def test_decode_keeps_the_old_file_when_the_disk_is_full(suffix: str, tmp_path: Path) -> None:
    target = tmp_path / f"shown{suffix}"
    target.write_bytes(OLD)
    words = ("decode", GOLDEN / "cwic-low.cwic", "-o", target, "-f", "--model", MODEL)
    check_refused(limited(200, *words), target)
    assert limited(2**20, *words).returncode == 0
    with Image.open(target) as shown:
        assert shown.size == (130, 90)


@pytest.mark.slow
def test_training_and_export_keep_what_they_had_when_the_disk_is_full(
    tiny_model: model_file.ModelFile, picture_folder: Path, tmp_path: Path
) -> None:
    from test_endurance import _train_little, _train_words

    from cwic.training.checkpoint import load_checkpoint

    run, target = tmp_path / "run", tmp_path / "a.cwicmodel"
    _train_little(run, picture_folder, tmp_path)
    before = {path.name: path.read_bytes() for path in run.glob("*.safetensors")}
    result = limited(2**14, *_train_words(run, picture_folder, tmp_path))
    assert result.returncode == 1, result.stderr
    assert "File too large" in result.stderr
    assert {path.name: path.read_bytes() for path in run.glob("*.safetensors")} == before
    load_checkpoint(run / "checkpoint.safetensors")
    target.write_bytes(OLD)
    check_refused(limited(2**10, "export", run / "best.safetensors", "-o", target, "-f"), target)
