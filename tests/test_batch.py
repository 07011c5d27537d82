"""Folders in, folders out: trees, resuming, interruption, and everything that can be wrong."""

import csv
import errno
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
import types
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import cwic
from cwic import batch, folder
from cwic.batch import Decoding, Encoding, Summary, Workers
from cwic.errors import CodecError, CodecWarning, NotBuiltError
from cwic.request import Request

from conftest import grained, page_with_photograph, seeded_picture  # isort: skip

LOW = Encoding(Request(quality=20))
# Ray takes seconds to begin where it is alone, and minutes beside busy programs.
RAY_LIMIT_S = 1800


def save_picture(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(seeded_picture(seed)[:24, :32]).save(path)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three pictures in two folders, and a text."""
    source = tmp_path / "pictures"
    for number, name in enumerate(["a.png", "deep/er/b.png", "deep/c.JPG"]):
        save_picture(source / name, number)
    (source / "notes.txt").write_text("no picture")
    return source


def encode(
    source: Path | str,
    target: Path | str,
    task: Encoding = LOW,
    *,
    ray_address: str | None = None,
    **more: Any,
) -> Summary:
    return batch.run(str(source), str(target), task, Workers(1, ray_address), **more)


def contents(target: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    paths = sorted(path for path in target.rglob("*") if path.is_file())
    return {path.relative_to(target).as_posix(): path.read_bytes() for path in paths}


def rows(target: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((target / "batch.csv").read_text().splitlines()))


def errors(summary: Summary) -> dict[str, str]:
    return {outcome.source: outcome.error for outcome in summary.failed}


# --- what comes out -------------------------------------------------------------------------------


def test_a_tree_of_pictures_becomes_the_same_tree_of_files(pictures: Path, tmp_path: Path) -> None:
    target = tmp_path / "new" / "files"
    summary = encode(pictures, target)
    assert (summary.num_done, summary.num_skipped, summary.failed) == (3, 0, [])
    files = contents(target)
    assert list(files) == ["a.cwic", "batch.csv", "deep/c.cwic", "deep/er/b.cwic"]
    assert files["a.cwic"] == cwic.Codec.load(threads=1).encode(pictures / "a.png", quality=20)


def test_the_table_says_size_and_rate_of_every_file_with_units(
    pictures: Path, tmp_path: Path
) -> None:
    summary = encode(pictures, tmp_path)
    assert summary.table == str(tmp_path / "batch.csv")
    size_bytes = (tmp_path / "a.cwic").stat().st_size
    assert rows(tmp_path)[0] == {
        "input": "a.png",
        "output": "a.cwic",
        "width_px": "32",
        "height_px": "24",
        "input_bytes": str((pictures / "a.png").stat().st_size),
        "output_bytes": str(size_bytes),
        "rate_bpp": str(round(8 * size_bytes / (32 * 24), 6)),
        "kept_whole": "False",
        "colours": "",
        "exact_graphics": "False",
        "error": "",
        "left_alone": "",
    }
    done = [row for row in rows(tmp_path) if row["output"]]
    assert summary.output_bytes == sum(int(row["output_bytes"]) for row in done)


def test_pictures_in_fewer_colours_are_counted(tmp_path: Path) -> None:
    stripes = np.mgrid[0:64, 0:96].sum(0) // 7 % 3 * 100
    (tmp_path / "pictures").mkdir()
    Image.fromarray(grained(stripes)).save(tmp_path / "pictures" / "a.png")
    request = Request(target_bytes=300, lossless="auto")
    summary = encode(tmp_path / "pictures", tmp_path / "files", Encoding(request))
    assert (summary.num_whole, summary.num_reduced) == (0, 1)
    (row,) = rows(tmp_path / "files")
    assert (row["kept_whole"], row["colours"]) == ("False", "3")


def test_pages_with_exact_graphics_are_counted(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    Image.fromarray(page_with_photograph()).save(tmp_path / "pictures" / "a.png")
    request = Request(bpp=1.5, lossless="auto")
    summary = encode(tmp_path / "pictures", tmp_path / "files", Encoding(request))
    assert (summary.num_whole, summary.num_reduced, summary.num_with_exact_graphics) == (0, 0, 1)
    (row,) = rows(tmp_path / "files")
    assert (row["kept_whole"], row["exact_graphics"]) == ("False", "True")


def test_pictures_that_are_kept_whole_are_counted_and_come_back_exactly(tmp_path: Path) -> None:
    source = tmp_path / "pictures"
    save_picture(source / "photo.png")
    drawing = Image.fromarray(np.arange(64 * 96).reshape(64, 96).astype(np.uint8) // 40 * 40)
    drawing.save(source / "drawing.png")
    summary = encode(source, tmp_path / "files", Encoding(Request(lossless="always")))
    assert summary.num_whole == 2
    summary = encode(
        source, tmp_path / "files", Encoding(Request(bpp=1, lossless="auto")), force=True
    )
    assert [row["kept_whole"] for row in rows(tmp_path / "files")] == ["True", "False"]
    assert summary.num_whole == 1
    batch.run(str(tmp_path / "files"), str(tmp_path / "back"), Decoding(), Workers(1))
    with Image.open(tmp_path / "back" / "drawing.png") as back:
        assert np.array_equal(back, drawing)


def test_a_tree_of_files_becomes_pictures_again(pictures: Path, tmp_path: Path) -> None:
    encode(pictures, tmp_path / "files")
    summary = batch.run(
        str(tmp_path / "files"), str(tmp_path / "back"), Decoding("webp"), Workers(1)
    )
    assert (summary.num_done, summary.failed) == (3, [])
    with Image.open(tmp_path / "back" / "deep" / "er" / "b.webp") as picture:
        assert (picture.size, picture.format) == ((32, 24), "WEBP")
    encoded, decoded = rows(tmp_path / "files"), rows(tmp_path / "back")
    rates = [row["rate_bpp"] for row in encoded if not row["left_alone"]]
    assert rates == [row["rate_bpp"] for row in decoded]


def test_results_may_lie_beside_their_sources(pictures: Path) -> None:
    assert encode(pictures, pictures).num_done == 3
    assert encode(pictures, pictures).num_skipped == 3


def test_a_model_of_ones_own_encodes_and_decodes(
    pictures: Path, tmp_path: Path, tiny_model_path: Path
) -> None:
    model = str(tiny_model_path)
    assert not encode(pictures, tmp_path / "files", Encoding(model=model)).failed
    for task, num_failed in [(Decoding(), 3), (Decoding(model=model), 0)]:
        summary = batch.run(str(tmp_path / "files"), str(tmp_path / "back"), task, Workers(1))
        assert len(summary.failed) == num_failed


@given(st.lists(st.text("aA./", min_size=1), unique_by=str.casefold))
def test_no_two_results_have_the_same_name(names: list[str]) -> None:
    results = batch.result_names(names, ".cwic")
    assert len({result.casefold() for result in results}) == len(names)


def test_names_stay_short_where_they_can() -> None:
    names = ["x/a.png", "a.png", "a.jpg", "b.png", "b.png.webp"]
    expected = ["x/a.cwic", "a.png.cwic", "a.jpg.cwic", "b.cwic", "b.png.webp.cwic"]
    assert batch.result_names(names, ".cwic") == expected


# --- again, and interrupted -----------------------------------------------------------------------


def test_what_is_finished_is_skipped_and_force_makes_it_again(
    pictures: Path, tmp_path: Path
) -> None:
    encode(pictures, tmp_path)
    first = contents(tmp_path)
    (tmp_path / "deep" / "c.cwic").unlink()
    summary = encode(pictures, tmp_path)
    assert (summary.num_done, summary.num_skipped) == (1, 2)
    assert contents(tmp_path) == first
    summary = encode(pictures, tmp_path, Encoding(Request(quality=80)), force=True)
    assert (summary.num_done, summary.num_skipped) == (3, 0)
    assert contents(tmp_path).keys() == first.keys()
    assert contents(tmp_path)["a.cwic"] != first["a.cwic"]


@pytest.mark.parametrize("end", [b"", bytes(5)], ids=["short", "zeroed"])
def test_a_damaged_result_is_neither_trusted_nor_destroyed(
    pictures: Path, tmp_path: Path, end: bytes
) -> None:
    encode(pictures, tmp_path)
    whole = (tmp_path / "a.cwic").read_bytes()
    damaged = whole[:-5] + end
    (tmp_path / "a.cwic").write_bytes(damaged)
    summary = encode(pictures, tmp_path)
    assert "-f makes it again" in errors(summary)["a.png"]
    assert (tmp_path / "a.cwic").read_bytes() == damaged
    assert not encode(pictures, tmp_path, force=True).failed
    assert (tmp_path / "a.cwic").read_bytes() == whole


def test_a_result_of_another_file_is_not_taken_for_its_own(pictures: Path, tmp_path: Path) -> None:
    other, target = tmp_path / "other", tmp_path / "files"
    save_picture(other / "a.png", 9)
    save_picture(other / "new.png", 8)
    encode(pictures, target)
    first, table = contents(target), rows(target)
    for _ in range(2):  # what the table says stays
        summary = encode(other, target)
        assert summary.num_done + summary.num_skipped == 1
        sizes = [(folder / "a.png").stat().st_size for folder in (pictures, other)]
        assert errors(summary)["a.png"] == (
            f"{target / 'a.cwic'} was made of a file of {sizes[0]} bytes, found one of {sizes[1]}; "
            "-f makes it again, another OUT keeps both"
        )
        assert (target / "a.cwic").read_bytes() == first["a.cwic"]
        assert {row["input"]: row["output"] for row in rows(target)} == {
            "a.png": "a.cwic",
            "deep/c.JPG": "deep/c.cwic",
            "deep/er/b.png": "deep/er/b.cwic",
            "new.png": "new.cwic",
        }
    assert [row for row in rows(target) if "/" in row["input"]] == [
        row for row in table if "/" in row["input"]
    ]
    assert not encode(other, target, force=True).failed
    assert (target / "a.cwic").read_bytes() != first["a.cwic"]
    assert encode(other, target).num_skipped == 2


def test_a_row_goes_with_its_result(pictures: Path, tmp_path: Path) -> None:
    encode(pictures, tmp_path)
    for path in (pictures / "a.png", tmp_path / "a.cwic"):
        path.unlink()
    encode(pictures, tmp_path)
    assert "a.png" not in {row["input"] for row in rows(tmp_path)}


def start(*words: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "cwic", "batch", *map(str, words), "--quiet"]
    return subprocess.Popen(command, start_new_session=True)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """Thirty pictures, and what a batch makes of them without interruption."""
    source = tmp_path_factory.mktemp("many")
    for number in range(30):
        save_picture(source / f"{number % 3}" / f"{number}.png", number)
    target = tmp_path_factory.mktemp("unbroken")
    encode(source, target)
    return source, contents(target)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_killed_batch_leaves_whole_files_and_goes_on_to_the_same_end(
    many: tuple[Path, dict[str, bytes]], tmp_path: Path
) -> None:
    source, expected = many
    process = start(source, tmp_path, "-q", 20, "-j", 2)
    while process.poll() is None and len(list(tmp_path.rglob("*.cwic"))) < 3:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    # The workers notice that they are alone; until then they may write, but whole files only.
    for name, data in contents(tmp_path).items():
        # The table has the names of all results by then.
        is_other = name == "batch.csv" or Path(name).name.startswith(".cwic-")
        assert is_other or data == expected[name]
    assert start(source, tmp_path, "-q", 20, "-j", 2).wait(300) == 0
    finished = contents(tmp_path)
    assert {name: finished[name] for name in expected} == expected


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_an_interrupt_ends_the_workers_in_the_middle_of_their_files(tmp_path: Path) -> None:
    source, target = tmp_path / "pictures", tmp_path / "files"
    source.mkdir()
    for number in range(3):
        big = np.tile(seeded_picture(number), (12, 12, 1))[:768, :1024]
        Image.fromarray(big).save(source / f"{number}.png")
    # A shell that runs these tests in the background has them ignore it, and what they start.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = start(source, target, "-j", 2, "--effort", 9)
    signal.signal(signal.SIGINT, before)
    while process.poll() is None and not (target / "batch.csv").exists():
        time.sleep(0.01)
    time.sleep(3)  # minutes of work have begun
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(30) == 130
    assert list(contents(target)) == ["batch.csv"]


def test_two_batches_into_one_folder_at_once_end_like_one(
    many: tuple[Path, dict[str, bytes]], tmp_path: Path
) -> None:
    source, expected = many
    both = [start(source, tmp_path, "-q", 20, "-j", 1) for _ in range(2)]
    assert [process.wait(300) for process in both] == [0, 0]
    assert contents(tmp_path) == expected


def test_what_a_killed_writer_left_is_removed_once_it_is_old(
    pictures: Path, tmp_path: Path
) -> None:
    old, new = tmp_path / "files" / "deep" / ".cwic-0.tmp", tmp_path / "files" / ".cwic-1.tmp"
    old.parent.mkdir(parents=True)
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    encode(pictures, tmp_path / "files")
    assert (old.exists(), new.exists()) == (False, True)


# --- names that stay, files that are left alone ---------------------------------------------------


def left_alone(target: Path) -> dict[str, str]:
    return {row["input"]: row["left_alone"] for row in rows(target) if row["left_alone"]}


def test_every_file_that_is_left_alone_is_listed_with_the_reason(
    pictures: Path, tmp_path: Path
) -> None:
    expected = {
        ".hidden.png": "hidden file",
        "._a.jpg": "hidden file",
        ".git/": "hidden folder",
        "deep/.cache/": "hidden folder",
        "a.HEIC": "HEIC is not read",
        "deep/a.jxl": "JPEG XL is not read",
        "a.cr2": "camera raw is not read",
        "a.dng": "camera raw is not read",
        "README": "no extension",
        "old.cwic": "a .cwic file",
        "notes.txt": "no extension of a picture",
    }
    for name in expected:
        path = pictures / (f"{name}some/picture.png" if name.endswith("/") else name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"whatever")
    (pictures / ".cwic-0.tmp").write_bytes(b"ours")
    summary = encode(pictures, tmp_path / "files")
    assert (summary.num_done, summary.failed) == (3, [])
    assert left_alone(tmp_path / "files") == expected
    assert [file.source for file in summary.left_alone] == sorted(expected)
    inputs = [row["input"] for row in rows(tmp_path / "files")]
    assert inputs == sorted([*expected, "a.png", "deep/er/b.png", "deep/c.JPG"])


def test_what_decoding_leaves_alone_is_listed_but_for_the_table_of_the_files(
    pictures: Path, tmp_path: Path
) -> None:
    encode(pictures, tmp_path / "files")
    (tmp_path / "files" / "deep" / "a.png").write_bytes(b"whatever")
    batch.run(str(tmp_path / "files"), str(tmp_path / "back"), Decoding(), Workers(1))
    assert left_alone(tmp_path / "back") == {"deep/a.png": "no .cwic file"}


@pytest.mark.parametrize("place", ["", "files"])
def test_results_within_the_source_are_not_left_alone(pictures: Path, place: str) -> None:
    """So that the table is the same in every run."""
    encode(pictures, pictures / place)
    first = contents(pictures)
    encode(pictures, pictures / place)
    assert contents(pictures) == first
    assert left_alone(pictures / place) == {"notes.txt": "no extension of a picture"}


def test_a_folder_of_nothing_but_what_is_not_read_says_so(tmp_path: Path) -> None:
    for name in ("a.heic", "b.heic", "._c.jpg"):
        (tmp_path / name).write_bytes(b"whatever")
    with pytest.raises(
        CodecError, match=r"found none; left alone: 2 x HEIC is not read, 1 x hidden file$"
    ):
        encode(tmp_path, tmp_path / "files")


@pytest.mark.parametrize(
    ("extension", "file_format"),
    [
        ("apng", "PNG"),
        ("dds", "DDS"),
        ("dib", "DIB"),
        ("icns", "ICNS"),
        ("ico", "ICO"),
        ("jpx", "JPEG2000"),
        ("jpf", "JPEG2000"),
        ("mpo", "MPO"),
        ("pcx", "PCX"),
        ("sgi", "SGI"),
        ("xbm", "XBM"),
    ],
)
def test_formats_that_pillow_reads_are_taken(
    extension: str, file_format: str, tmp_path: Path
) -> None:
    picture = Image.fromarray(seeded_picture(0)[:64, :64])
    picture = picture.convert("1") if file_format == "XBM" else picture
    picture.save(tmp_path / f"a.{extension}", file_format)
    summary = encode(tmp_path, tmp_path / "files")
    assert (summary.num_done, summary.failed, summary.left_alone) == (1, [], ())


def test_a_table_of_somebody_else_stays_and_ours_has_another_name(
    pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "batch.csv").write_text("mine")
    for _ in range(2):
        with pytest.warns(CodecWarning, match=r"batch.csv is no table of a batch.*cwic-batch.csv"):
            summary = encode(pictures, tmp_path)
        assert (tmp_path / "batch.csv").read_text() == "mine"
        assert summary.table == str(tmp_path / "cwic-batch.csv")
        assert (tmp_path / "cwic-batch.csv").read_text().startswith("input,output,")
    (tmp_path / "cwic-batch.csv").write_text("mine too")
    with pytest.raises(CodecError, match="expected tables of a batch, found other files"):
        encode(pictures, tmp_path)
    assert (tmp_path / "cwic-batch.csv").read_text() == "mine too"


def test_a_result_keeps_its_name_when_another_picture_of_that_name_comes(tmp_path: Path) -> None:
    source, target = tmp_path / "pictures", tmp_path / "files"
    save_picture(source / "a.jpg", 0)
    encode(source, target)
    save_picture(source / "a.png", 1)
    summary = encode(source, target)
    assert (summary.num_done, summary.num_skipped) == (1, 1)
    named = {outcome.source: outcome.result for outcome in summary.outcomes}
    assert named == {"a.jpg": "a.cwic", "a.png": "a.png.cwic"}
    # The first one goes, and the second keeps its name too.
    (source / "a.jpg").unlink()
    summary = encode(source, target)
    assert [outcome.result for outcome in summary.outcomes] == ["a.png.cwic"]


def test_a_new_picture_is_not_taken_for_one_that_went(tmp_path: Path) -> None:
    source, target = tmp_path / "pictures", tmp_path / "files"
    save_picture(source / "a.jpg", 0)
    save_picture(source / "b.jpg", 0)
    encode(source, target)
    (source / "a.jpg").rename(tmp_path / "gone.jpg")
    save_picture(source / "a.png", 1)
    summary = encode(source, target)
    assert {outcome.source: outcome.result for outcome in summary.outcomes} == {
        "a.png": "a.png.cwic",
        "b.jpg": "b.cwic",
    }


def test_names_stay_after_a_batch_that_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "pictures", tmp_path / "files"
    for number, name in enumerate(["a.jpg", "b.jpg"]):
        save_picture(source / name, number)
    write_file = folder.write_file

    def stop(path: Path, data: bytes) -> None:
        if path.name == "b.cwic":
            raise KeyboardInterrupt
        write_file(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(folder, "write_file", stop)
        with pytest.raises(KeyboardInterrupt):
            encode(source, target)
    save_picture(source / "a.png", 2)
    summary = encode(source, target)
    assert [outcome.result for outcome in summary.outcomes] == ["a.cwic", "a.png.cwic", "b.cwic"]


@given(
    st.lists(
        st.sampled_from(["a.png", "a.jpg", "a.JPG", "a.jpg.png", "a", "b/a.png"]), unique=True
    ),
    st.dictionaries(
        st.sampled_from(["a.png", "a.jpg", "a.jpg.png", "gone.png"]),
        st.sampled_from(["a.cwic", "a.jpg.cwic", "a.png.cwic", "../a.cwic", "a.png", "gone.cwic"]),
    ),
)
def test_no_two_results_have_the_same_name_whatever_the_table_says(
    names: list[str], recorded: dict[str, str]
) -> None:
    results = batch.result_names(names, ".cwic", recorded)
    assert len({result.casefold() for result in results}) == len(names)
    for name, result in zip(names, results, strict=True):
        assert result.startswith(name.rpartition(".")[0] or name)
        assert result.endswith(".cwic")
        assert ".." not in result
    gone = {result for name, result in recorded.items() if name not in names}
    assert gone.isdisjoint(results)
    again = dict(zip(names, results, strict=True))
    assert batch.result_names(names, ".cwic", again) == results


# --- bad input ------------------------------------------------------------------------------------


def png_that_lies(width_px: int, height_px: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width_px, height_px, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def test_files_that_cannot_be_read_are_listed_and_the_others_are_done(
    pictures: Path, tmp_path: Path
) -> None:
    (pictures / "text.png").write_text("no picture")
    (pictures / "empty.png").touch()
    (pictures / "short.png").write_bytes((pictures / "a.png").read_bytes()[:60])
    (pictures / "lies.png").write_bytes(png_that_lies(2**20, 2**20))
    (pictures / "lies-a-little.png").write_bytes(png_that_lies(64, 64))
    (pictures / "folder.png").mkdir()
    summary = encode(pictures, tmp_path)
    assert summary.num_done == 3
    failed = errors(summary)
    assert sorted(failed) == [
        "empty.png", "lies-a-little.png", "lies.png", "short.png", "text.png",
    ]  # fmt: skip
    assert failed["text.png"] == "found no picture in a format that Pillow reads"
    assert {row["input"]: row["error"] for row in rows(tmp_path) if row["error"]} == failed
    assert not (tmp_path / "text.cwic").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes of POSIX")
def test_links_are_followed_but_not_in_circles_and_pipes_are_not_waited_for(
    pictures: Path, tmp_path: Path
) -> None:
    (pictures / "deep" / "up").symlink_to(pictures)
    (pictures / "again").symlink_to(pictures / "deep" / "er")
    (pictures / "itself.png").symlink_to("itself.png")
    (pictures / "nowhere.png").symlink_to("nothing")
    os.mkfifo(pictures / "pipe.png")
    summary = encode(pictures, tmp_path)
    assert sorted(errors(summary)) == ["itself.png", "nowhere.png", "pipe.png"]
    done = [outcome.source for outcome in summary.outcomes if not outcome.error]
    assert done == ["a.png", "again/b.png", "deep/c.JPG", "deep/er/b.png"]


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
def test_a_folder_that_cannot_be_read_is_listed(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pictures / "deep").chmod(0)
    if os.access(pictures / "deep", os.R_OK):  # root may read all; it is refused as others are
        scandir = os.scandir

        def refuse(path: Any) -> Any:
            if os.fspath(path) == str(pictures / "deep"):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return scandir(path)

        monkeypatch.setattr(os, "scandir", refuse)
    try:
        summary = encode(pictures, tmp_path)
    finally:
        (pictures / "deep").chmod(0o700)
    assert errors(summary) == {"deep": "Permission denied"}
    assert summary.num_done == 1


def test_a_full_disk_stops_the_batch_and_says_how_to_go_on(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def write_file(path: Path, data: bytes) -> None:
        if path.suffix == ".cwic":
            tried.append(path)
        raise CodecError("cannot write: No space left") from OSError(errno.ENOSPC, "No space left")

    with monkeypatch.context() as patch:
        patch.setattr(folder, "write_file", write_file)
        with pytest.raises(CodecError, match=r"No space left.*stopped after 0 of 3.*same command"):
            encode(pictures, tmp_path)
    assert len(tried) == 1
    assert encode(pictures, tmp_path).num_done == 3


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("mount"),
    reason="a small disk takes root",
)
def test_a_disk_that_is_really_full_holds_whole_files_only(pictures: Path, tmp_path: Path) -> None:
    for number in range(60):
        save_picture(pictures / f"{number:02}.png", number)
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount")
    try:
        with pytest.raises(CodecError, match="No space left on device"):
            encode(pictures, disk)
        files = contents(disk)
        files.pop("batch.csv", None)
        assert files
        for data in files.values():
            cwic.decode(data)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_model_that_is_not_there_is_said_once(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(CodecError, match=r"no-such-model.*stopped after 0 of 3"):
        encode(pictures, tmp_path, Encoding(model="no-such-model"))


def test_a_folder_without_work_says_what_it_was_looking_for(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(CodecError, match="expected a folder, found nothing"):
        encode(tmp_path / "gone", tmp_path)
    with pytest.raises(CodecError, match="expected a folder, found a file"):
        encode(pictures / "a.png", tmp_path)
    encode(pictures, tmp_path / "files")
    with pytest.raises(CodecError, match=r"expected at least a picture.*--to png"):
        encode(tmp_path / "files", tmp_path)
    with pytest.raises(CodecError, match=r"expected at least a \.cwic file"):
        batch.run(str(pictures), str(tmp_path), Decoding(), Workers(1))


def test_a_result_that_cannot_be_had_is_a_failure_of_its_own(
    pictures: Path, tmp_path: Path
) -> None:
    summary = encode(pictures, tmp_path, Encoding(Request(target_bytes=10, strict=True)))
    assert len(summary.failed) == 3
    (tmp_path / "a.cwic").mkdir()
    assert "expected a file, found a folder" in errors(encode(pictures, tmp_path))["a.png"]


def test_warnings_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    Image.new("I;16", (24, 16), 30_000).save(path)
    with pytest.warns(CodecWarning, match=r"deep\.png: 8 bits per channel"):
        encode(tmp_path, tmp_path / "files")


# --- URLs and Ray ---------------------------------------------------------------------------------


def test_a_url_is_a_folder_like_any_other(pictures: Path, tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    encode(pictures, tmp_path / "files")
    encode(pictures, "memory://batch/files")
    expected = contents(tmp_path / "files")
    system = fsspec.filesystem("memory")
    stored = {path: system.cat_file(path) for path in system.find("/batch/files")}
    assert stored == {f"/batch/files/{name}": data for name, data in expected.items()}

    again = encode(pictures, "memory://batch/files")
    assert (again.num_done, again.num_skipped) == (0, 3)
    # A file system that shows half of a file gets it by another name first.
    summary = batch.run("memory://batch/files", f"local://{tmp_path}/back", Decoding(), Workers(1))
    assert (summary.num_done, summary.failed) == (3, [])
    names = ["a.png", "batch.csv", "deep/c.png", "deep/er/b.png"]
    assert list(contents(tmp_path / "back")) == names
    assert encode(pictures, (tmp_path / "files").as_uri()).num_skipped == 3


def test_a_store_that_fsspec_needs_one_more_package_for_is_reached_through_pyarrow(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsspec = pytest.importorskip("fsspec")
    pytest.importorskip("pyarrow")

    def needs_more(url: str) -> None:
        raise ImportError(f"install a package for {url}")

    monkeypatch.setattr(fsspec.core, "url_to_fs", needs_more)
    source, target = (
        folder.UrlFolder(path.as_uri()) for path in (pictures, tmp_path / "there" / "files")
    )
    names = ["a.png", "deep/c.JPG", "deep/er/b.png", "notes.txt"]
    assert list(source.files(lambda name, error: None)) == names
    data = source.read("a.png")
    assert data == (pictures / "a.png").read_bytes()
    assert source.size_bytes("a.png") == len(data)
    assert not target.exists("deep/a.png")
    target.write("deep/a.png", data)
    assert target.exists("deep/a.png")
    assert contents(tmp_path / "there") == {"files/deep/a.png": data}


def test_a_store_that_needs_pyarrow_says_so_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("fsspec")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(NotBuiltError, match=r"s3://nosuch.* needs pyarrow.*cwic\[ray\]"):
        list(folder.UrlFolder("s3://nosuch").files(lambda name, error: None))


def test_a_url_of_an_unknown_kind_is_named(pictures: Path) -> None:
    pytest.importorskip("fsspec")
    with pytest.raises(CodecError, match="nonsense://out"):
        encode(pictures, "nonsense://out")


@pytest.mark.parametrize(
    ("module", "more"), [("ray", {"ray_address": "local"}), ("fsspec", {"source": "memory://in"})]
)
def test_what_is_not_installed_is_named_with_the_extra(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, more: Any
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    folder._file_system.cache_clear()
    with pytest.raises(NotBuiltError, match=r"pip install 'cwic\[ray\]'"):
        encode(**{"source": pictures, "target": tmp_path, **more})


@pytest.mark.parametrize(("address", "tries"), [("local", 5), ("auto", 1)])
def test_a_ray_of_this_machine_that_is_slow_to_begin_is_begun_again(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, tries: int
) -> None:
    begun: list[object] = []

    class SlowRay(types.ModuleType):
        def init(self, **options: object) -> None:
            begun.append(options)
            raise RuntimeError("The current node timed out during startup.")

        def shutdown(self) -> None:
            begun.append(None)

    monkeypatch.setitem(sys.modules, "ray", SlowRay("ray"))
    monkeypatch.setitem(sys.modules, "ray.data", types.ModuleType("ray.data"))
    monkeypatch.setenv("RAY_BACKEND_LOG_LEVEL", "fatal")
    with pytest.raises(CodecError, match=f"no Ray at {address}: The current node timed out"):
        encode(pictures, tmp_path, ray_address=address)
    assert len(begun) == 2 * tries
    assert begun[1::2] == [None] * tries


@pytest.mark.parametrize(("of_user", "expected"), [(None, "0"), ("1", "1")])
def test_ray_sends_no_usage_statistics_unless_the_user_says_so(
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    of_user: str | None,
    expected: str,
) -> None:
    found: list[str | None] = []

    class NoRay(types.ModuleType):
        def init(self, **_: object) -> None:
            found.append(os.environ.get("RAY_USAGE_STATS_ENABLED"))
            raise RuntimeError("enough")

        def shutdown(self) -> None:
            pass

    monkeypatch.setitem(sys.modules, "ray", NoRay("ray"))
    monkeypatch.setitem(sys.modules, "ray.data", types.ModuleType("ray.data"))
    monkeypatch.setenv("RAY_BACKEND_LOG_LEVEL", "fatal")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", of_user or "")
    if of_user is None:
        monkeypatch.delenv("RAY_USAGE_STATS_ENABLED")
    with pytest.raises(CodecError, match="enough"):
        encode(pictures, tmp_path, ray_address="auto")
    assert found == [expected]


@pytest.mark.slow
def test_ray_does_the_same_as_this_process(
    many: tuple[Path, dict[str, bytes]], tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    source, expected = many
    (source / "text.png").write_text("no picture")
    try:
        assert start(source, tmp_path, "-q", 20, "-j", 2, "--ray", "local").wait(RAY_LIMIT_S) == 1
    finally:
        (source / "text.png").unlink()
    assert rows(tmp_path)[-1]["error"] == "found no picture in a format that Pillow reads"
    assert start(source, tmp_path, "-q", 20, "-j", 2, "--ray", "local").wait(RAY_LIMIT_S) == 0
    assert contents(tmp_path) == expected


@pytest.mark.slow
def test_a_cluster_that_does_not_answer_is_named_at_once(pictures: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    words = ["batch", str(pictures), str(tmp_path), "--ray", "127.0.0.1:1"]
    command = [sys.executable, "-m", "cwic", *words]
    done = subprocess.run(command, capture_output=True, timeout=100)
    assert done.returncode == 1
    assert b"no Ray at 127.0.0.1:1: Connection refused; `ray start --head`" in done.stderr
