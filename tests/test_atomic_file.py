import os
import stat
from pathlib import Path

import pytest

from cwic.atomic_file import write_file
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
