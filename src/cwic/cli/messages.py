"""What the command prints: results, warnings and errors, one line each.

Results go to the standard output unless it carries the data, everything else to the standard error.
"""

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from cwic.errors import CodecWarning, reason

__all__ = [
    "print_error",
    "print_line",
    "print_note",
    "progress_bar",
    "text_of",
    "warnings_as_messages",
]

# Work that takes less has no progress bar.
_SILENT_S = 2.0


def print_line(text: str, stream: TextIO | None = None) -> None:
    """Prints a line, to the standard output if no stream is given."""
    stream = stream or sys.stdout
    # The name of a file may hold bytes that are no text in this terminal.
    encoding = stream.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream)


def print_note(text: str) -> None:
    """Prints a line to the standard error."""
    print_line(text, sys.stderr)


def print_error(text: str) -> None:
    """Prints an error to the standard error."""
    print_note(f"error: {text}")


def text_of(error: BaseException) -> str:
    """The line for an exception; an error of the system gets the name of its file."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {reason(error)}"
    return reason(error)


@contextmanager
def progress_bar(*, quiet: bool) -> Iterator[Callable[[float], None]]:
    """A bar on the standard error, if that is a terminal, for work of more than two seconds.

    Args:
        quiet: no bar.

    Yields:
        What is told the share of the work that is done; less than before means another attempt.
    """
    if quiet:
        yield lambda share: None
        return
    from tqdm import tqdm

    form = "{percentage:3.0f}% |{bar}| {elapsed} < {remaining}"
    with tqdm(total=1.0, delay=_SILENT_S, bar_format=form, leave=False, disable=None) as bar:

        def show(share: float) -> None:
            if share < bar.n:
                bar.reset()
            bar.update(share - bar.n)

        yield show


@contextmanager
def warnings_as_messages(*, quiet: bool) -> Iterator[None]:
    """Prints warnings as lines on the standard error, or drops them if `quiet`."""

    def show(message: Warning | str, *_where: Any, **_more: Any) -> None:
        if not quiet:
            print_note(f"warning: {' '.join(str(message).split())}")

    with warnings.catch_warnings():
        # Each file gets its own warning, even if another file had the same.
        warnings.simplefilter("always", CodecWarning)
        warnings.showwarning = show
        yield
