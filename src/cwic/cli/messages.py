"""What the command prints: results, notes, warnings and errors, one line each.

Results go to the standard output unless it carries the data, everything else to the standard error.
With `--quiet` only errors and the answers of `info` and its like are printed.
"""

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from cwic.errors import CodecError, CodecWarning, reason

# Work that takes less has no progress bar.
_SILENT_S = 2.0

_is_quiet = False


def print_answer(text: str) -> None:
    """Prints what was asked for to the standard output, with `--quiet` too."""
    with naming_stream("cannot write stdout"):
        _print_line(text, sys.stdout)


def print_result(text: str, stream: TextIO | None = None) -> None:
    """Prints a line to a stream; None is the standard output."""
    if _is_quiet:
        return
    if stream is None:
        print_answer(text)
    else:
        _print_line(text, stream)


def print_note(text: str) -> None:
    """Prints a line to the standard error."""
    print_result(text, sys.stderr)


def print_error(text: str) -> None:
    """Prints an error to the standard error."""
    _print_line(f"error: {text}", sys.stderr)


def text_of(error: BaseException) -> str:
    """The line for an exception; an error of the system gets the name of its file."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {reason(error)}"
    return reason(error)


def end_output() -> None:
    """Writes out what was printed; whatever hinders that is an error, and not lost at the end."""
    with naming_stream("cannot write stdout"):
        sys.stdout.flush()


@contextmanager
def naming_stream(what: str) -> Iterator[None]:
    """Says what could not be done with a stream; a reader that has gone away is its own case."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CodecError(f"{what}: {reason(error)}") from error


@contextmanager
def progress_bar() -> Iterator[Callable[[float], None]]:
    """A bar on the standard error, if that is a terminal, for work of more than two seconds.

    Yields:
        What is told the share of the work that is done; less than before means another attempt.
    """
    if _is_quiet:
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
def printing(*, quiet: bool) -> Iterator[None]:
    """Prints warnings as lines on the standard error; if `quiet`, nothing but errors is printed."""
    global _is_quiet

    def show(message: Warning | str, *_where: Any, **_more: Any) -> None:
        print_note(f"warning: {' '.join(str(message).split())}")

    before, _is_quiet = _is_quiet, quiet
    try:
        with warnings.catch_warnings():
            # Each file gets its own warning, even if another file had the same.
            warnings.simplefilter("always", CodecWarning)
            warnings.showwarning = show
            yield
    finally:
        _is_quiet = before


def _print_line(text: str, stream: TextIO) -> None:
    # The name of a file may hold bytes that are no text in this terminal.
    encoding = stream.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream)
