"""ONNX Runtime tells nobody that it runs, and what a forked process inherits is left alone."""

import copy
import os
import pickle
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from cwic import model_file
from cwic.codec import Codec
from cwic.engine import Engine
from cwic.errors import ModelError

from conftest import seeded_picture  # isort: skip

if TYPE_CHECKING:
    from subprocess import CompletedProcess

GOLDEN = Path(__file__).resolve().parent / "data" / "golden"
MODEL = GOLDEN / "flagship.cwicmodel"

# Encodes on two threads of ONNX Runtime, then says which sockets are open.
USE = f"""
import os, sys
import numpy as np
from cwic.codec import Codec

pixels = np.arange(64 * 96 * 3, dtype=np.uint8).reshape(64, 96, 3)
codec = Codec.load({os.fspath(MODEL)!r}, threads=2)
data = codec.encode(pixels, lossless="never")
"""
SOCKETS = """
links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
print([link for link in links if os.path.islink(link) and "socket" in os.readlink(link)])
"""


def run(script: str, home: Path | str) -> "CompletedProcess[str]":
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-c", script], env={**kept, "HOME": os.fspath(home)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_nothing_is_written_into_the_home_folder_and_no_socket_is_opened(tmp_path: Path) -> None:
    result = run(USE + SOCKETS, tmp_path)
    assert (result.stdout, result.stderr) == ("[]\n", "")
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_a_home_folder_that_cannot_be_written_is_not_worth_a_word() -> None:
    result = run(USE, "/proc/none")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("child", ["pass", "assert codec.encode(pixels, lossless='never') == data"])
def test_a_forked_process_ends_normally_whether_it_used_the_codec_or_not(
    tmp_path: Path, child: str
) -> None:
    script = f"""
import signal
pid = os.fork()
if pid == 0:
    signal.alarm(30)
    {child}
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
assert codec.encode(pixels, lossless="never") == data
"""
    result = run(USE + script, tmp_path)
    assert (result.returncode, result.stdout) == (0, "7\n"), result.stderr


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_after_a_tiled_picture_and_its_own_fork_end_normally(tmp_path: Path) -> None:
    script = """
import signal
large = np.tile(pixels, (33, 22, 1))
data = codec.encode(large, lossless="never")
codec.decode(data)
pid = os.fork()
if pid == 0:
    signal.alarm(120)
    codec.decode(data, region=(0, 0, 1100, 100))
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        codec.decode(data, region=(0, 0, 1100, 100))
        sys.exit(5)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) + 1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    result = run(USE + script, tmp_path)
    assert (result.returncode, result.stdout) == (0, "6\n"), result.stderr


@pytest.mark.parametrize("again", [copy.deepcopy, lambda codec: pickle.loads(pickle.dumps(codec))])
def test_a_codec_is_copied_and_pickled_by_the_path_of_its_model(again) -> None:
    codec = Codec.load(MODEL, threads=1)
    pixels = seeded_picture(1)
    copied = again(codec)
    assert (copied.name, copied.identity) == (codec.name, codec.identity)
    assert copied.encode(pixels) == codec.encode(pixels)
    assert len(pickle.dumps(codec)) < 1000


def test_a_bundled_model_is_pickled_by_its_name() -> None:
    pickled = pickle.dumps(Codec.load())
    assert b"cwic-visual" in pickled
    assert b"cwicmodel" not in pickled
    assert pickle.loads(pickled).identity == Codec.load().identity


def test_a_codec_built_in_memory_is_pickled_with_its_model() -> None:
    codec = Codec(replace(model_file.load(MODEL), path=None), threads=1)
    copied = pickle.loads(pickle.dumps(codec))
    pixels = seeded_picture(1)
    assert np.array_equal(copied.decode(codec.encode(pixels)), codec.decode(codec.encode(pixels)))


def test_a_pickle_of_a_model_that_has_changed_is_a_model_error(tmp_path: Path) -> None:
    path = tmp_path / "mine.cwicmodel"
    path.write_bytes(MODEL.read_bytes())
    pickled = pickle.dumps(Codec.load(path))
    path.write_bytes((GOLDEN / "cvpr2018.cwicmodel").read_bytes())
    with pytest.raises(ModelError, match="expected model"):
        pickle.loads(pickled)


def test_a_released_session_gives_its_memory_back_and_is_made_again() -> None:
    engine = Engine(model_file.load(MODEL), 1)
    pixels = seeded_picture(1)[None, :64, :64]
    before = engine.run("analysis", pixels)
    session = weakref.ref(engine._sessions["analysis"])
    engine.release()
    assert session() is None
    for once, again in zip(before, engine.run("analysis", pixels), strict=True):
        assert np.array_equal(once, again)
