"""Processes that work for another one, and end with it."""

import multiprocessing
import os
import threading
from collections.abc import Callable
from multiprocessing import connection
from multiprocessing.connection import Connection


def end_with_parent(
    stop: Connection | None = None, before_end: Callable[[], object] = lambda: None
) -> None:
    """From now on this process ends, at once, when the one that started it has ended.

    A killed process tells its workers nothing; they would wait for work for ever. To be called in
    each process of a pool when it begins.

    Args:
        stop: this process ends too when the other end of this is closed.
        before_end: called just before the end, in a thread of its own.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "expected a process of a pool"
    signs: list[int | Connection] = [parent.sentinel]
    if stop is not None:
        signs.append(stop)

    def watch() -> None:
        connection.wait(signs)
        before_end()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
