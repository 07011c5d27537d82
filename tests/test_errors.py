"""An exception becomes one line."""

import errno
import os

import pytest

from cwic.errors import CodecError, reason


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (CodecError("found this,\n\texpected  that"), "found this, expected that"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a.cwic"), os.strerror(errno.ENOSPC)),
        (OSError("a text of its own"), "a text of its own"),
        (MemoryError(), "not enough memory"),
        (ValueError(), "ValueError"),
        (ValueError(" \n"), "ValueError"),
    ],
)
def test_an_exception_becomes_one_line_that_names_no_file(error: Exception, line: str) -> None:
    assert reason(error) == line
