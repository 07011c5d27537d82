"""Full disks, read-only folders and readers that go away, for every verb that writes a file.

Python sees a limit on the size of files as it sees a full disk: a write that comes so far and no
further. The real disk, and batches on it, are in `test_batch`; kills are in `test_endurance`.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import seeded_picture
from PIL import Image

from cwic import model_file
from cwic.codec import Codec

GOLDEN = Path(__file__).parent / "data" / "golden"
MODEL = str(GOLDEN / "flagship.cwicmodel")
OLD = b"what was there before"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")

COMMAND = """
import resource, sys
from cwic.cli import main as cli
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


@contextmanager
def read_only(folder: Path, *names: str) -> Iterator[None]:
    """Nothing can be made in a folder with these files, and nothing is."""
    for name in names:
        (folder / name).write_bytes(OLD)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    for path in (*before, folder):
        path.chmod(0o500)
    try:
        yield
        assert {path: path.read_bytes() for path in folder.iterdir()} == before
    finally:
        folder.chmod(0o700)


def check_locked(*words: object) -> None:
    """Refused by a process that has no rights beyond those of its user."""
    prefix = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"] if os.geteuid() == 0 else []
    if prefix and not shutil.which("setpriv"):
        pytest.skip("root may write anywhere, and setpriv is not here to take that right away")
    result = subprocess.run(
        [*prefix, sys.executable, "-m", "cwic", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 1, result.stderr
    assert "Permission denied" in result.stderr
    assert "Traceback" not in result.stderr


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
    words = ("decode", GOLDEN / "flagship-low.cwic", "-o", target, "-f", "--model", MODEL)
    check_refused(limited(200, *words), target)
    assert limited(2**20, *words).returncode == 0
    with Image.open(target) as shown:
        assert shown.size == (130, 90)


@pytest.mark.parametrize("verb", ["encode", "decode", "batch"])
def test_a_read_only_folder_is_named_and_left_as_it_was(verb: str, tmp_path: Path) -> None:
    photo, folder = tmp_path / "in" / "photo.png", tmp_path / "out"
    photo.parent.mkdir()
    folder.mkdir()
    Image.fromarray(seeded_picture(1)).save(photo)
    words: list[object] = {
        "encode": ["encode", photo, "-o", folder / "photo.cwic"],
        "decode": ["decode", GOLDEN / "flagship-low.cwic", "-o", folder / "photo.png"],
        "batch": ["batch", photo.parent, folder, "-j", 1],
    }[verb]
    with read_only(folder, "photo.cwic", "photo.png"):
        check_locked(*words, "-f", "--model", MODEL)


@pytest.mark.slow
def test_training_and_export_leave_a_read_only_folder_as_it_was(
    picture_folder: Path, tmp_path: Path
) -> None:
    from test_endurance import _train_little, _train_words

    run, folder = tmp_path / "run", tmp_path / "out"
    _train_little(run, picture_folder, tmp_path)
    folder.mkdir()
    with read_only(folder, "a.cwicmodel"):
        check_locked("export", run / "best.safetensors", "-o", folder / "a.cwicmodel", "-f")
    with read_only(run):
        check_locked(*_train_words(run, picture_folder, tmp_path), "--max-seconds", 60)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_one_line_and_no_number_for_a_file(closed: str, tmp_path: Path) -> None:
    """Were the file opened as number 1 or 2, what is printed would stand in it."""
    photo, target = tmp_path / "photo.png", tmp_path / "photo.cwic"
    Image.fromarray(seeded_picture(1)).save(photo)
    source, result = ("-" if closed == "<&-" else photo), ("-" if closed == ">&-" else target)
    words = ["encode", source, "-o", result, "--model", MODEL]
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "cwic", *map(str, words)],
        capture_output=True,
        timeout=300,
    )
    assert (done.returncode, done.stdout) == (1, b"")
    if "2" in closed:  # only the line that says so could not be written
        Codec.load(MODEL, threads=1).decode(target.read_bytes())
    else:
        stream = b"read stdin" if closed == "<&-" else b"write stdout"
        assert done.stderr == b"error: cannot %s: Bad file descriptor\n" % stream
        assert not target.exists()


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_leaves_in_the_middle_of_a_picture_ends_the_command_quietly(
    unbuffered: str, tmp_path: Path
) -> None:
    file = tmp_path / "a.cwic"
    picture = Image.fromarray(seeded_picture(1)).resize((300, 200))  # more than a pipe holds
    file.write_bytes(Codec.load(MODEL, threads=1).encode(picture))
    words = ["decode", str(file), "-o", "-", "--to", "ppm", "--model", MODEL]
    with subprocess.Popen(
        [sys.executable, "-m", "cwic", *words],
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(2) == b"P6"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_disk_that_is_full_for_standard_output_is_one_line(unbuffered: str) -> None:
    with open("/dev/full", "wb") as full:
        result = subprocess.run(
            [sys.executable, "-m", "cwic", "info", GOLDEN / "flagship-low.cwic"],
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=300,
        )
    assert (result.returncode, result.stderr) == (
        1,
        b"error: cannot write stdout: No space left on device\n",
    )


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
