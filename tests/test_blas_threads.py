"""Matrix products on one thread while a file is coded, and as before after it."""

import os
import subprocess
import sys

import pytest

# In a process of its own, in which nobody has asked for threads before.
BEGIN = """
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
import numpy as np
from threadpoolctl import threadpool_info
from cwic.coding.blas_threads import one_blas_thread

def count():
    found = [info["num_threads"] for info in threadpool_info() if info["user_api"] == "blas"]
    return max(found, default=0)

before = count()
if before < 2:
    raise SystemExit("skip")
"""


def run(code: str) -> None:
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-c", BEGIN + code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    if "skip" in done.stderr:
        pytest.skip("no BLAS here with threads that can be counted")
    assert done.returncode == 0, done.stderr


def test_the_threads_are_away_inside_and_back_outside_even_after_an_error() -> None:
    run(
        """
with one_blas_thread():
    assert count() == 1
assert count() == before
try:
    with one_blas_thread():
        raise KeyError
except KeyError:
    pass
assert count() == before
"""
    )


def test_of_several_at_the_same_time_the_last_one_gives_them_back() -> None:
    run(
        """
barrier = Barrier(4)
def work(number):
    with one_blas_thread():
        barrier.wait(timeout=20)
        inside = count()
        if number % 2:
            barrier.wait(timeout=20)
    if number % 2 == 0:
        barrier.wait(timeout=20)
    return inside

for _ in range(2):
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [1] * 4
    assert count() == before
with one_blas_thread():
    assert count() == 1
"""
    )


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="forks as Linux does")
def test_a_forked_process_does_not_wait_for_a_thread_that_is_not_there() -> None:
    run(
        """
import os, warnings
with one_blas_thread():
    pass
warnings.simplefilter("ignore")
child = os.fork()
if child == 0:
    with one_blas_thread():
        pass
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
    )


@pytest.mark.parametrize("asked", [None, "2"])
def test_a_process_that_asks_before_numpy_has_one_thread_unless_told_otherwise(
    asked: str | None,
) -> None:
    """Where the environment asks for more, they are taken away inside, as ever."""
    code = """
from cwic.coding.blas_threads import one_blas_thread, one_from_the_start
one_from_the_start()
import numpy as np
from threadpoolctl import threadpool_info

def count():
    return [info["num_threads"] for info in threadpool_info() if info["user_api"] == "blas"]

before = count()
with one_blas_thread():
    assert set(count()) <= {1}
assert count() == before
print(*before)
"""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    if asked is not None:
        environment |= dict.fromkeys(names, asked)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    if not done.stdout.strip():
        pytest.skip("no BLAS here with threads that can be counted")
    if asked is None:
        assert set(done.stdout.split()) == {"1"}
