"""Files in and out: standard streams, the names of results, and what must not be overwritten.

Which files of a folder are taken, and what their results are called, is left to :mod:`cwic.batch`.
"""

import argparse
import io
import os
import re
import stat
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cwic import errors
from cwic.cli.messages import naming_stream, print_error, text_of
from cwic.defaults import CODEC_SUFFIX
from cwic.errors import CodecError, reason

STDIO = Path("-")

_Act = Callable[[Path, Path, argparse.Namespace], None]


def for_each(
    options: argparse.Namespace, act: _Act, suffixes: frozenset[str], result_suffix: str
) -> int:
    """Acts on the input that the options name, or on each fitting file of a folder.

    `act` makes a result; it is called with source, target and options. `result_suffix` is that of
    results that the options do not name. The exit code is 1 if a file of the folder failed.
    """
    source: Path = options.input
    mask: Path | None = getattr(options, "roi", None)
    if mask is not None:
        options.roi = picture_source(mask)  # a pipe has it once, and a folder many pictures
    if source == STDIO or not source.is_dir():
        _act_checked(act, source, _target(source, options.output, result_suffix), options)
        return 0
    target = Path(options.output)
    pairs = of_folder(source, suffixes, result_suffix)
    make_folder(target)
    failed = []
    for name, result in pairs:
        try:
            _act_checked(act, source / name, target / result, options)
        except (CodecError, OSError, MemoryError) as error:
            if isinstance(error, errors.ModelError | errors.NotBuiltError | BrokenPipeError):
                raise  # it would be the same for each file
            print_error(text_of(error))
            failed.append(name)
    if failed:
        print_error(f"{len(failed)} of {len(pairs)} failed: {', '.join(failed)}")
    return 1 if failed else 0


def named_target(output: str) -> Path:
    """Where an output is; `STDIO` also by the names that the system has for it."""
    try:
        is_standard_output = _descriptor_at(output) == sys.stdout.fileno()
    except (OSError, ValueError):  # a stream of Python without a descriptor
        is_standard_output = False
    return STDIO if is_standard_output else Path(output)


def make_folder(folder: Path) -> None:
    """Makes a folder for results; one that is there is taken.

    Raises:
        CodecError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise CodecError(f"{folder}: expected a folder for the results, found a file") from None
    except OSError as error:
        raise CodecError(f"{folder}: cannot create this folder: {reason(error)}") from error


def of_folder(
    folder: Path, suffixes: frozenset[str], result_suffix: str = ""
) -> list[tuple[str, str]]:
    """The fitting files of a folder, without its subfolders, each with the name of its result."""
    from cwic import batch
    from cwic.folder import LocalFolder

    pairs = batch.plan(LocalFolder(folder).own_files(), suffixes, result_suffix)
    if not pairs:
        raise batch.nothing_found(LocalFolder(folder), suffixes)
    return pairs


def _target(source: Path, output: str | None, result_suffix: str) -> Path:
    """Where the result of one file goes; `STDIO` also by the names that the system has for it."""
    own_name = Path(display_name(source)).with_suffix(result_suffix).name
    if output is None:  # beside the source, if that is a place
        is_open = source == STDIO or _descriptor_at(source) is not None
        return STDIO if is_open else source.with_name(own_name)
    if named_target(output) == STDIO:
        return STDIO
    is_folder = output.endswith(("/", os.sep)) or Path(output).is_dir()
    return Path(output) / own_name if is_folder else Path(output)


def _act_checked(act: _Act, source: Path, target: Path, options: argparse.Namespace) -> None:
    check_target(target, options.force, source)
    with naming(source):
        act(source, target, options)


def check_target(target: Path, force: bool, source: Path) -> None:
    """Refuses, before any work is done, a result that cannot be written or would destroy a file.

    Raises:
        CodecError: the target cannot be written, is the source, or exists and `force` is not given.
    """
    if target == STDIO:
        if sys.stdout.isatty():
            raise CodecError("stdout is a terminal, expected a file or a pipe; -o FILE names one")
        if _is_same_file(source, target):
            raise CodecError(f"{source}: stdout goes into the input, expected another output")
        return
    if not target.parent.is_dir():
        raise CodecError(
            f"{target}: expected an existing folder, found none: mkdir -p {target.parent}?"
        )
    if target.is_dir():
        raise CodecError(f"{target}: expected a file, found a folder")
    if _is_same_file(source, target):
        raise CodecError(f"{target}: this is the input too, expected another output")
    if _descriptor_at(target) is not None:
        # Opened by somebody who wants it written to.
        if not target.exists():
            raise CodecError(f"{target}: expected an open file, found none")
        return
    # Nothing is lost by writing to a device or a pipe.
    if not force and (target.is_file() or (target.is_symlink() and not target.exists())):
        raise CodecError(f"{target}: this file exists already; -f overwrites it")


def _is_same_file(source: Path, target: Path) -> bool:
    """Whether to write to the target would destroy the source: both are the same regular file."""
    try:
        read = os.fstat(sys.stdin.fileno()) if source == STDIO else source.stat()
        written = os.fstat(sys.stdout.fileno()) if target == STDIO else target.stat()
    except (OSError, ValueError):  # there is none, or a stream of Python without a descriptor
        return False
    return stat.S_ISREG(read.st_mode) and os.path.samestat(read, written)


def _descriptor_at(path: str | Path) -> int | None:
    from cwic.atomic_file import descriptor_at

    return descriptor_at(path)


def picture_format(target: Path, otherwise: str) -> str:
    """The extension of the picture to write; `otherwise` for a pipe without an extension.

    Raises:
        CodecError: it names no format that can be written.
    """
    from cwic.image import check_format

    is_pipe = not target.suffix and target.exists() and not target.is_file()
    if target == STDIO or is_pipe or _descriptor_at(target) is not None:
        return otherwise
    try:
        check_format(target.suffix)
    except errors.ImageError as error:
        # Of this type it is not taken for one about the input.
        raise CodecError(f"{target}: {error}") from None
    return target.suffix


def picture_source(source: Path) -> Any:
    """What `cwic.encode` reads the picture from; a pipe, which can be read once, by its content."""
    return _NamedContent(read(source), display_name(source)) if is_stream(source) else source


def is_stream(source: Path) -> bool:
    """Whether this is read or written only once: a standard stream, a pipe, a device."""
    return source == STDIO or (source.exists() and not source.is_file() and not source.is_dir())


def coded_content(picture: Any) -> bytes | None:
    """The `.cwic` file that `picture_source` found; None if it is to be read as a picture."""
    from cwic.bitstream import MAGIC
    from cwic.encoded_source import begins_coded

    if isinstance(picture, _NamedContent):
        content = picture.getvalue()
        return content if content.startswith(MAGIC) else None
    if picture.suffix.lower() == CODEC_SUFFIX or (picture.is_file() and begins_coded(picture)):
        return read(picture)
    return None


@contextmanager
def readable_again(sources: Sequence[Path]) -> Iterator[list[Path]]:
    """The inputs, with a temporary copy of each that can be read only once."""
    with tempfile.TemporaryDirectory(prefix="cwic-") as folder:
        paths = []
        for source in sources:
            path = source
            if is_stream(source):
                path = Path(folder, Path(display_name(source)).name)
                path.write_bytes(read(source))
            paths.append(path)
        yield paths


class _NamedContent(io.BytesIO):
    """The content of a pipe, with the name that messages use."""

    def __init__(self, content: bytes, name: str):
        super().__init__(content)
        self.name = name


def read(source: Path) -> bytes:
    """The content of a file or of the standard input."""
    if source == STDIO:
        with naming_stream("cannot read stdin"):
            return sys.stdin.buffer.read()
    if source.is_dir():
        raise CodecError(f"{source}: expected a file, found a folder")
    return source.read_bytes()


def write(data: bytes, target: Path, *, force: bool) -> None:
    """Writes a file in one step, or to the standard output.

    Without `force` a file that was made since `check_target` stays, and that is an error.
    """
    from cwic.atomic_file import write_file

    if target != STDIO:
        write_file(target, data, replaces=force)
        return
    rest = memoryview(data)
    with naming_stream("cannot write stdout"):
        while rest:  # an unbuffered stream may take a part and return its length
            rest = rest[sys.stdout.buffer.write(rest) :]
        sys.stdout.buffer.flush()


def display_name(path: Path, standard_stream: str = "stdin") -> str:
    """The name of a file, or of a standard stream, in messages."""
    return standard_stream if path == STDIO else str(path)


@contextmanager
def naming(source: Path) -> Iterator[None]:
    """Puts the name of the file before errors and warnings that do not mention it themselves."""
    name = "stdin" if source == STDIO else source.name

    def named(text: str) -> str:
        mentioned = re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text)
        return text if mentioned else f"{display_name(source)}: {text}"

    with warnings.catch_warnings():
        show = warnings.showwarning

        def show_named(message: Warning | str, *where: Any, **more: Any) -> None:
            show(named(str(message)), *where, **more)

        warnings.showwarning = show_named
        try:
            yield
        except (errors.BitstreamError, errors.ImageError, errors.TargetError) as error:
            raise type(error)(named(str(error))) from error
