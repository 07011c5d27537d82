"""The command `cwic`: from the words of a person to an exit code.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
"""

import os
import sys
from collections.abc import Sequence

from cwic.cli import arguments, verbs
from cwic.cli.messages import end_output, print_error, printing, text_of
from cwic.errors import CodecError


def main(words: Sequence[str] | None = None) -> int:
    """Runs one command; `words` stand after `cwic`, None takes those of the process.

    Returns:
        The exit code.

    Raises:
        SystemExit: from the parser: 0 after `--help` and `--version`, 2 for wrong usage.
    """
    words = list(sys.argv[1:] if words is None else words)
    _replace_closed_streams()
    try:
        try:
            options = arguments.parse(words)
        except SystemExit:
            sys.stdout.flush()  # see below
            raise
        with printing(quiet=options.quiet):
            code = verbs.VERBS[options.verb](options)
        # If the reader of a pipe has gone away, this line notices, and not the interpreter's end.
        end_output()
        return code
    except KeyboardInterrupt:
        print_error("interrupted")
        return 130
    except BrokenPipeError:
        _discard_unread_output()
        return 1
    except (CodecError, OSError, MemoryError) as error:
        print_error(text_of(error))
        _discard_unread_output()
        return 1


def _replace_closed_streams() -> None:
    """Opens a null device in place of each standard stream that the caller has closed.

    Otherwise the next file to be opened would get the number of the stream, and with it whatever
    is printed there. Reading and writing fail as on a closed stream; messages are lost.
    """
    for name, access, mode in (
        ("stdin", os.O_WRONLY, "r"),
        ("stdout", os.O_RDONLY, "w"),
        ("stderr", os.O_WRONLY, "w"),
    ):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, access), mode))


def _discard_unread_output() -> None:
    """Makes sure that the interpreter's last flush of the standard output cannot fail."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
