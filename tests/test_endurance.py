"""Long runs: threads, memory, and processes that are killed at any moment."""

import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import seeded_picture
from PIL import Image

from cwic.codec import Codec
from cwic.training.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow

THREADS, PICTURES, ROUND_TRIPS = 16, 200, 2000

# Kills of each verb and model; 200 in all. A process begins the verb again and again and says when.
KILLS = {
    ("encode", "tiny"): 50,
    ("encode", "bundled"): 10,
    ("decode", "tiny"): 50,
    ("decode", "bundled"): 10,
    ("batch", "tiny"): 40,
    ("train", "tiny"): 20,
    ("export", "tiny"): 20,
}
LOOP = """
import sys
from cwic.cli import main as cli
print("begins", flush=True)
while True:
    for words in {commands!r}:
        assert cli.main(words) == 0
"""


@pytest.mark.parametrize("family", ["tiny_codec", "tiny_flagship_codec"])
def test_many_threads_give_the_bytes_of_one(family: str, request: pytest.FixtureRequest) -> None:
    codec: Codec = request.getfixturevalue(family)
    pictures = [seeded_picture(number) for number in range(PICTURES)]
    alone = [codec.encode(picture) for picture in pictures]
    shown = [np.asarray(codec.decode(data)) for data in alone]
    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(codec.encode, pictures)) == alone
        for one, other in zip(pool.map(codec.decode, alone), shown, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_memory_does_not_grow_with_what_is_done(tiny_flagship_codec: Codec) -> None:
    def resident_bytes() -> int:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    picture = seeded_picture(1)
    sizes = []
    for number in range(ROUND_TRIPS):
        tiny_flagship_codec.decode(tiny_flagship_codec.encode(picture, quality=number % 101))
        if number % 100 == 99:
            sizes.append(resident_bytes())
    assert sizes[-1] - sizes[3] < 4 * 2**20, sizes


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize(("verb", "model"), KILLS, ids="-".join)
def test_a_killed_process_leaves_the_old_file_or_the_new_one(
    verb: str,
    model: str,
    tiny_flagship_path: Path,
    tiny_flagship_codec: Codec,
    picture_folder: Path,
    tmp_path: Path,
) -> None:
    photo, file, shown = tmp_path / "a.png", tmp_path / "a.cwic", tmp_path / "a.ppm"
    Image.fromarray(seeded_picture(5)).resize((400, 300)).save(photo)
    named = ["--model", str(tiny_flagship_path)] if model == "tiny" else []
    codec = tiny_flagship_codec if model == "tiny" else Codec.load()
    low, high = (codec.encode(photo, quality=quality) for quality in (10, 90))
    run = tmp_path / "run"
    if verb in ("train", "export"):
        _train_little(run, picture_folder, tmp_path)
    other = tmp_path / "other.cwic"
    file.write_bytes(low)
    other.write_bytes(high)
    exported = tmp_path / "a.cwicmodel"
    commands = {
        "encode": [
            ["encode", str(photo), "-o", str(file), "-f", "-q", quality, *named]
            for quality in ("90", "10")
        ],
        "decode": [
            ["decode", str(source), "-o", str(shown), "-f", *named] for source in (file, other)
        ],
        "batch": [
            ["batch", str(tmp_path), str(tmp_path / "out"), "-f", "-q", quality, "-j", "1", *named]
            for quality in ("90", "10")
        ],
        "train": [_train_words(run, picture_folder, tmp_path)],
        "export": [["export", str(run / "best.safetensors"), "-o", str(exported), "-f"]],
    }[verb]
    whole: set[bytes] = set()
    if verb == "decode":
        for data in (low, high):
            codec.decode(data).save(tmp_path / "whole.ppm")
            whole.add((tmp_path / "whole.ppm").read_bytes())
    target = {
        "encode": file,
        "decode": shown,
        "batch": tmp_path / "out" / "a.cwic",
        "train": run / "checkpoint.safetensors",
        "export": exported,
    }[verb]
    rng = random.Random(3)
    for number in range(KILLS[verb, model]):
        before = _written_ns(target)
        process = subprocess.Popen(
            [sys.executable, "-c", LOOP.format(commands=commands)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "begins\n"
        # Most at a moment of the work itself, which goes round and round; some before it.
        while number % 5 and _written_ns(target) == before:
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.6))
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if verb == "encode":
            assert file.read_bytes() in (low, high)
        elif verb == "decode":
            assert not shown.exists() or shown.read_bytes() in whole
        elif verb == "batch":
            for result in (tmp_path / "out").glob("*.cwic"):
                assert result.read_bytes() in (low, high)
        elif verb == "train":
            load_checkpoint(run / "checkpoint.safetensors")
        elif exported.exists():
            Codec.load(exported)


def _written_ns(path: Path) -> int:
    """When a file was written last; 0: never."""
    return path.stat().st_mtime_ns if path.exists() else 0


def _train_words(run: Path, pictures: Path, folder: Path) -> list[str]:
    config = str(folder / "recipe.toml")
    return ["train", config, "--data", str(pictures), "--out", str(run), "--threads", "1"]


def _train_little(run: Path, pictures: Path, folder: Path) -> None:
    """A run with a checkpoint at every step, of which the first is done."""
    (folder / "recipe.toml").write_text(
        'family = "cvpr2018"\nseed = 3\ncheckpoint_every = 1\nvalidate_every = 1\n'
        "validation_crop_px = 64\nvalidation_count = 1\n[network]\nwidth = 0.0625\n"
        "[data]\ncrop_px = 64\n"
        '[[stages]]\nname = "one"\nsteps = 100000\nbatch = 1\n'
    )
    words = _train_words(run, pictures, folder)
    subprocess.run([sys.executable, "-m", "cwic", *words, "--max-seconds", "0.01"], check=True)
