"""Where a `.cwic` file comes from, and its bytes. Imports nothing heavy: reading a header is quick.

What the bytes mean is left to :mod:`cwic.bitstream`.
"""

import os
from typing import TypeAlias

from cwic.bitstream import MAGIC
from cwic.errors import ImageError, reason

# Where a `.cwic` file comes from: its path, or all of its bytes.
EncodedSource: TypeAlias = str | os.PathLike[str] | bytes


def content_of(file: EncodedSource) -> bytes:
    """The bytes of a `.cwic` file, given by its path or as they are.

    Raises:
        ImageError: the path cannot be read, or this is neither.
    """
    if not isinstance(file, str | os.PathLike):
        try:
            memoryview(file).release()
        except TypeError as error:
            raise ImageError(
                f"found {type(file).__name__}, expected the bytes of a .cwic file or its path"
            ) from error
        return file
    try:
        with open(file, "rb") as opened:
            return opened.read()
    except FileNotFoundError as error:
        raise ImageError(f"no such file: {os.fsdecode(file)}") from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise ImageError(f"cannot read {os.fsdecode(file)}: {reason(error)}") from error


def begins_coded(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as a `.cwic` file does, whatever its name.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        return file.read(len(MAGIC)) == MAGIC
