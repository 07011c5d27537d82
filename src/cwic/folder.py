"""A folder of files, here or behind a URL: list, read, write by relative name.

Owns the difference between local folders and `s3://`-like URLs, and the promise that a file is
complete or absent. Which files to take and what to make of them is left to :mod:`cwic.batch`.

Names are relative to the folder, with `/` between their parts. URLs go through fsspec, and where
fsspec would need one more package (S3, Google) through the file systems inside pyarrow.
"""

import contextlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from cwic.atomic_file import remove_leftovers, write_file
from cwic.errors import CodecError, NotBuiltError, reason

# Stores that show an object only when all of it has arrived: no temporary name, no second copy.
_WHOLE_OBJECTS = frozenset("s3 s3a gs gcs az abfs abfss memory".split())


@dataclass(frozen=True)
class LocalFolder:
    """A folder with a path, the same on every machine that works on it."""

    path: Path

    def shown(self, name: str = "") -> str:
        """The name of the folder, or of a file in it, for messages."""
        return str(self.path / name)

    def check(self) -> None:
        """Raises CodecError if there is no such folder."""
        if not self.path.is_dir():
            found = "a file" if self.path.exists() else "nothing"
            raise CodecError(f"{self.path}: expected a folder, found {found}")

    def check_is_free_or_folder(self) -> None:
        """Raises CodecError if something else than a folder has this name."""
        if self.path.exists() and not self.path.is_dir():
            raise CodecError(f"{self.path}: expected a folder for the results, found a file")

    def own_files(self) -> list[str]:
        """Names of the regular files that lie in the folder itself, in order."""
        return sorted(path.name for path in self.path.iterdir() if path.is_file())

    def files(self, on_error: Callable[[str, OSError], None]) -> Iterator[str]:
        """Names of all files below, in order.

        Links are followed, except one that leads back to a folder it stands in.

        Args:
            on_error: called with the name of each folder that cannot be read, and the error.
        """

        def name_of(path: str | Path) -> str:
            return Path(path).relative_to(self.path).as_posix()

        def below(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[str]:
            try:
                status = folder.stat()
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except OSError as error:
                on_error(name_of(folder), error)
                return
            identity = (status.st_dev, status.st_ino)
            for entry in entries if identity not in above else ():
                if _is_folder(entry):
                    yield from below(Path(entry.path), above | {identity})
                else:
                    yield name_of(entry.path)

        return below(self.path, frozenset())

    def exists(self, name: str) -> bool:
        """Whether a file or folder of this name exists."""
        return (self.path / name).exists()

    def size_bytes(self, name: str) -> int:
        """Size of a file."""
        return (self.path / name).stat().st_size

    def read(self, name: str) -> bytes:
        """The content of a file."""
        path = self.path / name
        # Reading from a pipe could wait for ever.
        if not stat.S_ISREG(path.stat().st_mode):
            raise CodecError("expected a file, found a folder, a pipe or a device")
        return path.read_bytes()

    def write(self, name: str, data: bytes) -> None:
        """Writes a file in one step, and creates the folders it needs."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, data)

    def remove_leftovers(self) -> None:
        """Removes temporary files that killed writers left."""
        remove_leftovers(self.path)


@dataclass(frozen=True)
class UrlFolder:
    """A folder behind a URL; the methods are those of `LocalFolder`."""

    url: str

    def shown(self, name: str = "") -> str:
        """The name of the folder, or of a file in it, for messages."""
        return f"{self.url}/{name}" if name else self.url

    def check(self) -> None:
        """Raises CodecError if the URL is of no known kind. A store has no empty folders."""
        _file_system(self.url)

    def check_is_free_or_folder(self) -> None:
        """Does nothing: a store has no empty folders."""

    def files(self, on_error: Callable[[str, OSError], None]) -> Iterator[str]:  # noqa: ARG002
        """Names of all files below, in order."""
        system, root = _file_system(self.url)
        with _codec_errors(self.url):
            paths = sorted(system.find(root))
        for path in paths:
            yield path[len(root) :].lstrip("/")

    def exists(self, name: str) -> bool:
        """Whether a file or folder of this name exists."""
        with self._file(name) as (system, path):
            return bool(system.exists(path))

    def size_bytes(self, name: str) -> int:
        """Size of a file."""
        with self._file(name) as (system, path):
            return int(system.size(path))

    def read(self, name: str) -> bytes:
        """The content of a file."""
        with self._file(name) as (system, path):
            return bytes(system.cat_file(path))

    def write(self, name: str, data: bytes) -> None:
        """Writes a file in one step, and creates the folders it needs."""
        with self._file(name) as (system, path):
            if self.url.partition("://")[0] in _WHOLE_OBJECTS:
                system.pipe_file(path, data)
                return
            parent = path.rpartition("/")[0]
            temporary = f"{parent}/.cwic-{secrets.token_hex(8)}.tmp"
            system.makedirs(parent, exist_ok=True)
            try:
                system.pipe_file(temporary, data)
                system.mv(temporary, path)
            except BaseException:
                with contextlib.suppress(Exception):
                    system.rm_file(temporary)
                raise

    @contextlib.contextmanager
    def _file(self, name: str) -> Iterator[tuple[Any, str]]:
        """The file system and a path in it; whatever is raised inside becomes a `CodecError`."""
        system, root = _file_system(self.url)
        with _codec_errors(self.shown(name)):
            yield system, f"{root}/{name}"

    def remove_leftovers(self) -> None:
        """Does nothing: the clock of another machine does not show the age of a file."""


Folder = LocalFolder | UrlFolder


def folder_at(location: str) -> Folder:
    """The folder of a path or a URL."""
    if "://" not in location:
        return LocalFolder(Path(location))
    parts = urlsplit(location)
    if parts.scheme == "file":
        return LocalFolder(Path(url2pathname(parts.path)))
    return UrlFolder(location.rstrip("/"))


def place_within(folder: Folder, other: Folder) -> str | None:
    """The name of another folder in this one: empty if it is the same, None if it is not in it."""
    if isinstance(folder, LocalFolder) and isinstance(other, LocalFolder):
        outer, inner = (Path(os.path.realpath(each.path)) for each in (folder, other))
        if not inner.is_relative_to(outer):
            return None
        name = inner.relative_to(outer).as_posix()
        return "" if name == "." else name
    if isinstance(folder, UrlFolder) and isinstance(other, UrlFolder):
        if not f"{other.url}/".startswith(f"{folder.url}/"):
            return None
        return other.url[len(folder.url) :].strip("/")
    return None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


@cache
def _file_system(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path of the folder in it."""
    try:
        import fsspec
    except ModuleNotFoundError as error:
        raise NotBuiltError(
            f"{url}: URLs need fsspec, found none: pip install 'cwic[ray]'"
        ) from error
    with _codec_errors(url):
        try:
            system, root = fsspec.core.url_to_fs(url)
        except ImportError:
            try:
                from fsspec.implementations.arrow import ArrowFSWrapper
                from pyarrow.fs import FileSystem
            except ModuleNotFoundError as error:
                raise NotBuiltError(
                    f"{url}: this store needs pyarrow, found none: pip install 'cwic[ray]'"
                ) from error
            inner, root = FileSystem.from_uri(url)
            system = ArrowFSWrapper(inner)
    return system, root.rstrip("/")


@contextlib.contextmanager
def _codec_errors(name: str) -> Iterator[None]:
    """Turns errors of the clients of stores, which share no public base, into `CodecError`."""
    try:
        yield
    except (CodecError, OSError):
        raise
    except Exception as error:
        raise CodecError(f"{name}: {reason(error)}") from error
