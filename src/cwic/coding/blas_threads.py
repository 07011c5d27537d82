"""Keeps the matrix products of numpy on one thread while a file is coded.

They are too small to be shared: on two cores a decode took 0.164 s with the threads of OpenBLAS and
0.127 s without, and ten times as long where another program was busy, because its threads wait for
each other by spinning. Large pictures use all cores by coding tiles side by side. What a product is
does not depend on any of this, see :mod:`cwic.coding.exact_arithmetic`.
"""

import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any

_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_one_from_the_start = False


class _State:
    """Of this process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside = 0
        self.limiter: Any = None
        # threadpoolctl obeys one thread of a process, the first that asks: always this one.
        self.asking = ThreadPoolExecutor(1, thread_name_prefix="cwic-blas")

    def enter(self) -> None:
        with self.lock:
            self.inside += 1
            if self.inside == 1:
                limit = _controller().limit
                self.limiter = self.asking.submit(limit, limits=1, user_api="blas").result()

    def leave(self) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                self.asking.submit(self.limiter.restore_original_limits).result()


_state = _State()


def _begin_anew() -> None:
    """A forked process has the memory of its parent and none of its threads."""
    global _state
    _state = _State()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


def one_from_the_start() -> None:
    """Before numpy is loaded: this process and those it starts never have more threads to be held.

    Whatever a variable of the environment says already stands.
    """
    global _one_from_the_start
    if "numpy" in sys.modules:
        return
    for name in _VARIABLES:
        os.environ.setdefault(name, "1")
    _one_from_the_start = all(os.environ[name] == "1" for name in _VARIABLES)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """The first one in takes the threads away, the last one out gives them back."""
    if _one_from_the_start:
        yield
        return
    state = _state
    state.enter()
    try:
        yield
    finally:
        state.leave()


@cache
def _controller() -> Any:
    """Of the libraries that are loaded; looking for them takes milliseconds."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
