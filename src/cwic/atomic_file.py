"""Writing a file so that whatever happens the old content is there or all of the new.

Owns that one guarantee. A file is replaced by a rename, so that a reader finds the old content or
the new, never a part of either. Where a rename would take away the owner or the identity of a file,
or is impossible, the file is written in place while a copy of its old content lies beside it. An
output that is open already (a pipe, a device, a descriptor) is simply written to.
What the bytes mean and whether an existing file may be replaced is left to the caller.
"""

import contextlib
import errno
import os
import re
import secrets
import stat
import tempfile
import time
from pathlib import Path

from cwic.errors import CodecError, reason

# Nobody takes this long to write what is in memory already.
_LEFTOVER_AGE_S = 600

# Names of the open files of this process: those of a shell's `>(command)` among them.
_DESCRIPTOR = re.compile(r"/(?:dev|proc/(?:self|thread-self|(?P<process>\d+)))/fd/(?P<number>\d+)")
_STANDARD_STREAMS = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
_MOST_LINKS = 40

# What the system says where this file cannot be replaced, but perhaps be written to: no right to
# the folder, a folder where everybody may only remove his own, a mount point, a read-only disk.
_NO_RENAME = frozenset((errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.EXDEV))

_APPEARED = "somebody else made a file of this name meanwhile"


def write_file(path: str | os.PathLike[str], data: bytes, *, replaces: bool = True) -> None:
    """Writes a file so that whatever happens its old bytes or all of the new are there.

    A new file gets the permissions that any other new file would get (mode 0666 less the umask); a
    file that is replaced keeps its permissions and its owner. A symbolic link stays, and its target
    is replaced. A file with further names (hard links), one of another owner, one that is mounted
    by itself and one in a folder that is not writable are written in place. Until all is written a
    copy of the old content, `cwic-*.old`, lies beside the file, or in the folder for temporary
    files. A device, a pipe and what is open already (`/dev/stdout`) are written to, a file that is
    open for appending at its end.

    Args:
        path: where to write; the folder must exist.
        data: the whole content of the file.
        replaces: whether a regular file that is there may go; False also spares one that somebody
            makes meanwhile.

    Raises:
        CodecError: the file cannot be written; what was there is there, and nothing else.
    """
    try:
        descriptor = descriptor_at(path)
        if descriptor is not None:
            with open(os.dup(descriptor), "wb") as stream:
                stream.write(data)
            return
        target = Path(os.path.realpath(path))
        status = None
        with contextlib.suppress(FileNotFoundError):
            status = target.stat()
        if status is not None and stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(0, "it is a folder")
        if status is not None and stat.S_ISREG(status.st_mode) and not replaces:
            raise FileExistsError(0, _APPEARED)
        if status is not None and not stat.S_ISREG(status.st_mode):
            target.write_bytes(data)
        elif (status is not None and status.st_nlink > 1) or not _replaced(
            target, data, status, replaces=replaces
        ):
            _write_in_place(target, data)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise CodecError(f"cannot write {os.fspath(path)}: {reason(error)}") from error


def descriptor_at(path: str | os.PathLike[str]) -> int | None:
    """The number of the open file of this process that a path stands for; None if for none.

    `/dev/stdout` and `/dev/fd/63` are such paths, and links to them. To open one of them anew would
    begin at the file's first byte instead of where its descriptor stands.
    """
    if os.name != "posix":
        return None
    name = os.path.abspath(path)
    for _ in range(_MOST_LINKS):
        if name in _STANDARD_STREAMS:
            return _STANDARD_STREAMS[name]
        found = _DESCRIPTOR.fullmatch(name)
        if found is not None and found["process"] in (None, str(os.getpid())):
            return int(found["number"])
        try:
            name = os.path.normpath(os.path.join(os.path.dirname(name), os.readlink(name)))
        except (OSError, ValueError):  # no link
            return None
    return None


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Removes the temporary files of writers that were killed, here and in all folders below.

    Those of the last ten minutes stay: somebody may be writing them.
    """
    newest_s = time.time() - _LEFTOVER_AGE_S
    for path in Path(folder).rglob(".cwic-*.tmp"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < newest_s:
                path.unlink()


def _replaced(target: Path, data: bytes, status: os.stat_result | None, *, replaces: bool) -> bool:
    """Writes a new file and gives it the name of the old; False: that is impossible for this one.

    `status` is of the old file; None if there was none, and then one that appeared since stays
    unless `replaces`.
    """
    # In the same folder, because a rename is only atomic within one file system. The name does not
    # contain the target's: that may already be as long as the file system allows.
    temporary = target.with_name(f".cwic-{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            if status is not None:
                _give_owner(file.fileno(), status)
            file.write(data)
            file.flush()
            # Without it a power cut could leave the new name on an empty file.
            os.fsync(file.fileno())
        if status is not None:
            os.chmod(temporary, stat.S_IMODE(status.st_mode))
        if replaces:
            os.replace(temporary, target)
        else:
            _rename_to_new(temporary, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        is_hindered = isinstance(error, OSError) and error.errno in _NO_RENAME
        if status is not None and is_hindered:
            return False
        raise
    return True


def _rename_to_new(temporary: Path, target: Path) -> None:
    """Gives a file a name that no file has; FileExistsError if one has it."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise FileExistsError(0, _APPEARED) from None
    except OSError:  # a file system without links: nearly as good
        if os.path.lexists(target):
            raise FileExistsError(0, _APPEARED) from None
        os.replace(temporary, target)
    else:
        temporary.unlink()


def _give_owner(descriptor: int, status: os.stat_result) -> None:
    """Gives an open file the owner and group of another; PermissionError if it may not."""
    own = os.fstat(descriptor)
    if (own.st_uid, own.st_gid) != (status.st_uid, status.st_gid):
        os.chown(descriptor, status.st_uid, status.st_gid)


def _write_in_place(target: Path, data: bytes) -> None:
    """Writes over the content of a file; puts the old content back if that fails."""
    with open(target, "r+b", buffering=0) as file:
        old = file.read()
        copy = _copy_of(old, target.parent)
        try:
            _overwrite(file.fileno(), data)
        except BaseException as error:
            try:
                # No block of the file was given back, so this needs no room on the disk.
                _overwrite(file.fileno(), old)
            except OSError:
                raise OSError(f"{reason(error)}; its old content is in {copy}") from error
            copy.unlink()
            raise
        copy.unlink()


def _copy_of(content: bytes, folder: Path) -> Path:
    """A new file with this content, that only its owner reads, in a folder or else elsewhere."""
    try:
        descriptor, name = tempfile.mkstemp(".old", "cwic-", folder)
    except OSError as error:
        if error.errno not in _NO_RENAME:
            raise
        descriptor, name = tempfile.mkstemp(".old", "cwic-")
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        os.unlink(name)
        raise
    return Path(name)


def _overwrite(descriptor: int, data: bytes) -> None:
    """Makes `data` the whole content of an open file."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    os.ftruncate(descriptor, len(data))
    os.fsync(descriptor)
