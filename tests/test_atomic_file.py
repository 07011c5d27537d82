import contextlib
import errno
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cwic.atomic_file import descriptor_at, write_file
from cwic.errors import CodecError

posix = pytest.mark.skipif(os.name != "posix", reason="permission bits and devices of POSIX")


def test_a_new_file_holds_the_data_and_nothing_else_appears(tmp_path: Path) -> None:
    write_file(tmp_path / "new.cwic", b"data")
    assert (tmp_path / "new.cwic").read_bytes() == b"data"
    assert os.listdir(tmp_path) == ["new.cwic"]


def test_an_existing_file_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"a longer old content")
    write_file(os.fspath(target), b"new")
    assert target.read_bytes() == b"new"


def _refuse(*args: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


@pytest.mark.parametrize("has_links", [True, False])
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_file_that_is_not_to_be_replaced_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, has_links: bool
) -> None:
    target = tmp_path / "file"

    def appear(*args: object) -> None:
        target.write_bytes(b"precious")

    if when == "before":
        appear()
    monkeypatch.setattr(os, "fsync", appear)
    if not has_links:
        monkeypatch.setattr(os, "link", _refuse)
    with pytest.raises(CodecError, match="somebody else made a file of this name meanwhile"):
        write_file(target, b"new", replaces=False)
    assert target.read_bytes() == b"precious"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("has_links", [True, False])
def test_a_new_file_that_is_not_to_replace_any_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    if not has_links:
        monkeypatch.setattr(os, "link", _refuse)
    write_file(tmp_path / "file", b"new", replaces=False)
    assert (tmp_path / "file").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_at_any_step_keeps_the_old_file_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")

    def fail(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(CodecError, match=r"cannot write .*file: No space left on device"):
        write_file(target, b"new")
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_an_interrupt_keeps_the_old_file_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")

    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_file(target, b"new")
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_reader_never_sees_a_part_of_the_new_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    seen = []
    for step in ("fsync", "replace"):
        original = getattr(os, step)

        def look(*args: object, original: object = original) -> object:
            seen.append(target.read_bytes())
            assert callable(original)
            return original(*args)

        monkeypatch.setattr(os, step, look)
    write_file(target, b"new")
    assert seen == [b"old", b"old"]
    assert target.read_bytes() == b"new"


def test_a_missing_folder_is_a_codec_error_that_names_the_path(tmp_path: Path) -> None:
    with pytest.raises(CodecError, match=r"cannot write .*absent.*file: No such file or directory"):
        write_file(tmp_path / "absent" / "file", b"")


def test_a_folder_in_place_of_the_file_is_a_codec_error(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(CodecError, match="it is a folder"):
        write_file(tmp_path / "folder", b"data")
    assert os.listdir(tmp_path) == ["folder"]


def test_a_name_with_a_null_byte_is_a_codec_error(tmp_path: Path) -> None:
    with pytest.raises(CodecError, match="null"):
        write_file(f"{tmp_path}/a\0b", b"data")


@posix
def test_an_unwritable_folder_is_a_codec_error(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o500)
    if os.access(folder, os.W_OK):
        pytest.skip("this user may write everywhere")
    with pytest.raises(CodecError, match="Permission denied"):
        write_file(folder / "file", b"data")
    assert os.listdir(folder) == []


@posix
@pytest.mark.parametrize(("umask", "expected"), [(0o022, 0o644), (0o077, 0o600), (0, 0o666)])
def test_a_new_file_gets_the_permissions_of_the_umask(
    tmp_path: Path, umask: int, expected: int
) -> None:
    previous = os.umask(umask)
    try:
        write_file(tmp_path / "file", b"data")
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == expected


@posix
def test_a_replaced_file_keeps_its_permissions(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    target.chmod(0o640)
    write_file(target, b"new")
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


@posix
def test_a_symbolic_link_stays_a_link_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to("target")
    write_file(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"new"


@posix
def test_a_device_is_written_to_and_not_replaced() -> None:
    write_file("/dev/null", b"data")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@posix
def test_a_name_as_long_as_the_file_system_allows_can_be_written(tmp_path: Path) -> None:
    name = "n" * os.pathconf(tmp_path, "PC_NAME_MAX")
    write_file(tmp_path / name, b"data")
    assert os.listdir(tmp_path) == [name]


# --- files that a rename would take apart ---------------------------------------------------------


@posix
def test_all_names_of_a_file_get_the_new_content(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"a longer old content")
    os.link(target, tmp_path / "other")
    write_file(target, b"new")
    assert (tmp_path / "other").read_bytes() == b"new"
    assert sorted(os.listdir(tmp_path)) == ["file", "other"]


@posix
@pytest.mark.parametrize("data", [b"", b"new", bytes(100_000)])
@pytest.mark.parametrize("error", [errno.EBUSY, errno.EPERM, errno.EXDEV])
def test_a_file_that_cannot_be_renamed_over_is_written_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int, data: bytes
) -> None:
    """As where the file is a mount of its own."""
    target = tmp_path / "file"
    target.write_bytes(b"old content")
    before = target.stat().st_ino

    def refuse(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "replace", refuse)
    write_file(target, data)
    assert target.read_bytes() == data
    assert target.stat().st_ino == before
    assert os.listdir(tmp_path) == ["file"]
    with pytest.raises(CodecError, match=os.strerror(error)):
        write_file(tmp_path / "new", data)
    assert os.listdir(tmp_path) == ["file"]


@posix
def test_a_copy_of_the_old_content_lies_beside_the_file_until_all_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old content")
    os.link(target, tmp_path / "other")
    seen: list[list[bytes]] = []
    original = os.ftruncate

    def look(*args: int) -> None:
        seen.append([path.read_bytes() for path in tmp_path.glob("cwic-*.old")])
        original(*args)

    monkeypatch.setattr(os, "ftruncate", look)
    write_file(target, b"new")
    assert seen == [[b"old content"]]
    assert sorted(os.listdir(tmp_path)) == ["file", "other"]


@posix
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_in_place_puts_the_old_content_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old content")
    os.link(target, tmp_path / "other")
    failures = iter([error])
    original = os.ftruncate

    def fail_once(*args: int) -> None:
        for failure in failures:
            raise failure
        original(*args)

    monkeypatch.setattr(os, "ftruncate", fail_once)
    with pytest.raises((CodecError, KeyboardInterrupt)):
        write_file(target, b"new content that is longer")
    assert target.read_bytes() == b"old content"
    assert sorted(os.listdir(tmp_path)) == ["file", "other"]


@posix
def test_where_the_old_content_cannot_be_put_back_the_error_says_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old content")
    os.link(target, tmp_path / "other")

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "ftruncate", fail)
    with pytest.raises(CodecError, match="Input/output error; its old content is in ") as caught:
        write_file(target, b"new")
    assert Path(str(caught.value).rpartition(" in ")[2]).read_bytes() == b"old content"


@contextlib.contextmanager
def nobody() -> Iterator[Path]:
    """A folder, while this process has no rights beyond those of an ordinary user."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o777)
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(65534)
        try:
            yield Path(name)
        finally:
            if is_root:
                os.seteuid(0)
            os.chmod(name, 0o700)


@posix
def test_a_writable_file_in_a_folder_that_is_not_is_written_in_place() -> None:
    with nobody() as folder:
        closed = folder / "closed"
        closed.mkdir()
        target = closed / "file"
        target.write_bytes(b"old content")
        closed.chmod(0o500)
        write_file(target, b"new")
        assert target.read_bytes() == b"new"
        assert os.listdir(closed) == ["file"]
        with pytest.raises(CodecError, match="Permission denied"):
            write_file(closed / "another", b"new")
        target.chmod(0o400)
        with pytest.raises(CodecError, match="Permission denied"):
            write_file(target, b"newer")
        closed.chmod(0o700)


@posix
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs two owners")
@pytest.mark.parametrize("as_root", [True, False])
def test_a_file_of_another_owner_stays_his(as_root: bool) -> None:
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(nobody())
        target = folder / "file"
        os.seteuid(0)
        target.write_bytes(b"old content")
        target.chmod(0o666)
        os.chown(target, 1234, 5678)
        if not as_root:
            os.seteuid(65534)
        write_file(target, b"new")
        found = target.stat()
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1234, 5678, 0o666)
        assert target.read_bytes() == b"new"
        assert os.listdir(folder) == ["file"]


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0 or not shutil.which("mount"),
    reason="to mount takes root",
)
def test_a_file_that_is_a_mount_of_its_own_stays_one(tmp_path: Path) -> None:
    outside, target = tmp_path / "outside", tmp_path / "folder" / "file"
    outside.write_bytes(b"old content")
    target.parent.mkdir()
    target.touch()
    mount = ["mount", "--bind", str(outside), str(target)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount")
    try:
        write_file(target, b"new")
        assert target.read_bytes() == outside.read_bytes() == b"new"
        assert os.listdir(target.parent) == ["file"]
    finally:
        subprocess.run(["umount", str(target)], check=True)


# --- what is open already -------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("form", ["/dev/fd/{}", "/proc/self/fd/{}", "{}/link"])
def test_an_open_file_is_written_to_where_it_stands(tmp_path: Path, form: str) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"HEAD")
    with target.open("ab") as file:
        (tmp_path / "link").symlink_to(f"/dev/fd/{file.fileno()}")
        number = tmp_path if "link" in form else file.fileno()
        if form.startswith("/proc") and not os.path.exists("/proc/self/fd"):
            pytest.skip("no /proc here")
        write_file(form.format(number), b"data")
    assert target.read_bytes() == b"HEADdata"


@posix
def test_a_pipe_is_written_to_by_its_descriptor() -> None:
    reader, writer = os.pipe()
    write_file(f"/dev/fd/{writer}", b"data")
    os.close(writer)
    with open(reader, "rb") as file:
        assert file.read() == b"data"
    with pytest.raises(CodecError, match="Bad file descriptor"):
        write_file(f"/dev/fd/{writer}", b"data")


@posix
def test_only_names_of_open_files_are_descriptors(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for name in (
        "/dev/null",
        "/dev/fd",
        "/proc/1/fd/1",
        tmp_path / "circle",
        tmp_path / "fd" / "1",
    ):
        assert descriptor_at(name) is None
    assert descriptor_at("/dev/stdout") == 1
    assert descriptor_at(f"/proc/{os.getpid()}/fd/7") == 7
