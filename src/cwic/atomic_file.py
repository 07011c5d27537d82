"""Writing a file so that a reader finds the old content or the new, never a part of either.

Owns that one guarantee. It stands on a layer of its own between `errors` and the modules that make
the bytes (`image`, `bitstream`), because those may not import one another. What the bytes mean and
whether an existing file may be replaced is left to the caller.
"""

import contextlib
import os
import secrets
import stat
import time
from pathlib import Path

from cwic.errors import CodecError, reason

__all__ = ["remove_leftovers", "write_file"]

# Nobody takes this long to write what is in memory already.
_LEFTOVER_AGE_S = 600


def write_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a file in one step: whatever happens, `path` holds the old bytes or all of the new.

    A new file gets the permissions that any other new file would get (mode 0666 less the umask); a
    file that is replaced keeps those it had. A symbolic link stays, and its target is replaced. A
    device or a pipe cannot be replaced, so it is simply written to.

    Args:
        path: where to write; the folder must exist.
        data: the whole content of the file.

    Raises:
        CodecError: the file cannot be written; nothing is left behind.
    """
    try:
        target = Path(os.path.realpath(path))
        mode = _existing_mode(target)
        if mode is not None and not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            target.write_bytes(data)
        else:
            _replace(target, data, mode)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise CodecError(f"cannot write {os.fspath(path)}: {reason(error)}") from error


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Removes the temporary files of writers that were killed, here and in all folders below.

    Those of the last ten minutes stay: somebody may be writing them.
    """
    newest_s = time.time() - _LEFTOVER_AGE_S
    for path in Path(folder).rglob(".cwic-*.tmp"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < newest_s:
                path.unlink()


def _existing_mode(target: Path) -> int | None:
    """Type and permission bits of what stands at `target`; None where nothing does."""
    try:
        return target.stat().st_mode
    except FileNotFoundError:
        return None


def _replace(target: Path, data: bytes, mode: int | None) -> None:
    if mode is not None and stat.S_ISDIR(mode):
        raise IsADirectoryError(0, "it is a folder")
    # In the same folder, because a rename is only atomic within one file system. The name does not
    # contain the target's: that may already be as long as the file system allows.
    temporary = target.with_name(f".cwic-{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            # Without it a power cut could leave the new name on an empty file.
            os.fsync(file.fileno())
        if mode is not None:
            os.chmod(temporary, stat.S_IMODE(mode))
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
