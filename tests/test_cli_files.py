"""The files of the command: names, folders, pipes, and what must not be overwritten."""

import contextlib
import io
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run, expect_one_line
from PIL import Image

import cwic
from cwic.cli import files
from cwic.cli.main import main
from cwic.codec import Codec, Encoded
from cwic.errors import CodecWarning
from cwic.image import encode_image

Piped = Callable[..., tuple[int, bytes]]


class _PipeStandIn(io.BytesIO):
    """A standard stream that carries bytes."""

    @property
    def buffer(self) -> "_PipeStandIn":
        return self


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> Piped:
    """Runs the command between two pipes: exit code, and what came out."""

    def run_words(data: bytes, *words: str) -> tuple[int, bytes]:
        out = _PipeStandIn()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", _PipeStandIn(data))
            patch.setattr(sys, "stdout", out)
            code = main(list(words))
        return code, out.getvalue()

    return run_words


def test_nothing_is_overwritten_without_force(run: Run, photo: Path, encoded: Path) -> None:
    encoded.write_bytes(b"precious")
    code, out, err = run("encode", photo)
    assert (code, out) == (1, "")
    assert err == f"error: {encoded}: this file exists already; -f overwrites it\n"
    assert encoded.read_bytes() == b"precious"
    assert run("encode", photo, "-f")[0] == 0
    assert encoded.read_bytes() != b"precious"


def test_a_file_that_appears_meanwhile_stays_without_force(
    run: Run, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = photo.with_suffix(".cwic")
    encode = Codec.encode_request

    def slowly(*args: Any) -> Encoded:
        target.write_bytes(b"precious")
        return encode(*args)

    monkeypatch.setattr(Codec, "encode_request", slowly)
    code, out, err = run("encode", photo)
    assert (code, out) == (1, "")
    assert err == (
        f"error: cannot write {target}: somebody else made a file of this name meanwhile\n"
    )
    assert target.read_bytes() == b"precious"
    assert run("encode", photo, "-f")[0] == 0
    assert target.read_bytes() != b"precious"


def test_the_input_is_never_overwritten_not_even_by_force(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "a.odd"
    source.write_bytes(b"precious")
    code, _, err = run("encode", source, "-o", source, "-f")
    assert code == 1
    assert "input" in err
    assert source.read_bytes() == b"precious"


def test_an_output_folder_takes_the_name_of_the_input(
    run: Run, photo: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    assert run("encode", photo, "-o", tmp_path / "out")[0] == 0
    assert (tmp_path / "out" / "photo.cwic").is_file()


@pytest.mark.parametrize("output", ["nowhere/a.cwic", "nowhere/"])
def test_a_missing_output_folder_is_named_before_any_work(
    run: Run, photo: Path, output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photo.parent)
    monkeypatch.setattr(Codec, "encode_request", None)
    code, _, err = run("encode", photo, "-o", output)
    assert code == 1
    assert "nowhere" in err


def test_a_folder_in_gives_a_folder_out_and_failures_are_listed(
    run: Run, photo: Path, tmp_path: Path
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    photo.rename(pictures / "good.png")
    (pictures / "broken.jpg").write_bytes(b"no picture")
    (pictures / "notes.txt").write_text("not for encoding")
    files, back = tmp_path / "new" / "files", tmp_path / "back"

    code, out, err = run("encode", pictures, "-o", files)
    assert code == 1
    assert out.startswith(f"{pictures / 'good.png'} -> {files / 'good.cwic'} ")
    assert "broken.jpg" in err
    assert err.endswith("error: 1 of 2 failed: broken.jpg\n")
    assert [path.name for path in files.iterdir()] == ["good.cwic"]

    assert run("decode", files, "-o", back)[0] == 0
    assert [path.name for path in back.iterdir()] == ["good.png"]
    code, _, err = run("decode", files, "-o", back)
    assert code == 1
    assert "exists already" in err


def test_files_of_a_folder_that_differ_in_their_extension_do_not_collide(
    run: Run, photo: Path, tmp_path: Path
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    with Image.open(photo) as picture:
        (pictures / "._b.png").write_bytes(b"of macOS, and no picture")
        for name in ("a.png", "a.bmp", "b.png"):
            picture.save(pictures / name)
    assert run("encode", pictures, "-o", tmp_path / "out")[0] == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["a.bmp.cwic", "a.png.cwic", "b.cwic"]


def test_an_empty_folder_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, _, err = run("encode", tmp_path / "empty", "-o", tmp_path / "out")
    assert (code, err) == (
        1,
        f"error: {tmp_path / 'empty'}: expected at least a picture in this folder, found none\n",
    )


def test_standard_streams_carry_the_data_and_messages_stay_out_of_it(
    piped: Piped, photo: Path
) -> None:
    code, data = piped(photo.read_bytes(), "encode", "-")
    assert code == 0
    assert cwic.read_header(data).width == 96
    code, data = piped(data, "decode", "-", "-o", "-")
    assert code == 0
    with Image.open(io.BytesIO(data)) as picture:
        assert (picture.size, picture.format) == ((96, 64), "PNG")


@pytest.mark.parametrize("file_format", ["png", "jpg", "webp", "avif", "tiff", "ppm", "bmp"])
def test_a_picture_of_any_format_comes_from_a_pipe_and_goes_into_one(
    file_format: str, photo: Path, piped: Piped
) -> None:
    with Image.open(photo) as picture:
        data = encode_image(picture, file_format)
    _, coded = piped(data, "encode", "-", "-q", "90", "--lossless", "never")
    code, back = piped(coded, "decode", "-", "-o", "-", "--to", file_format)
    assert code == 0
    with Image.open(io.BytesIO(back)) as picture:
        pillow_name = {"jpg": "JPEG"}.get(file_format, file_format.upper())
        assert (picture.size, picture.format) == ((96, 64), pillow_name)
        difference = np.asarray(picture.convert("RGB")).astype(int) - np.asarray(Image.open(photo))
    assert np.abs(difference).mean() < 8


def test_a_folder_of_files_becomes_pictures_of_the_format_that_is_named(
    run: Run, encoded: Path, tmp_path: Path
) -> None:
    code, _, err = run("decode", tmp_path, "-o", tmp_path / "out", "--to", "webp")
    assert (code, err) == (0, "")
    with Image.open(tmp_path / "out" / "photo.webp") as picture:
        assert picture.format == "WEBP"
    code, _, err = run("decode", encoded, "-o", tmp_path / "x.png", "--to", "webp")
    assert code == 2
    assert "selects the format" in err


def test_data_is_not_thrown_at_a_terminal(
    run: Run, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    code, _, err = run("encode", photo, "-o", "-")
    assert code == 1
    assert "terminal" in err


@pytest.mark.parametrize("verb", ["encode", "decode", "info"])
@pytest.mark.parametrize("content", [None, b"", b"just text\n", b"\x00" * 100])
def test_what_is_no_picture_and_no_file_of_ours_gives_one_line(
    run: Run, tmp_path: Path, verb: str, content: bytes | None
) -> None:
    path = tmp_path / "odd.file"
    if content is not None:
        path.write_bytes(content)
    expect_one_line(run(verb, path), "odd.file")
    assert len(list(tmp_path.iterdir())) == (content is not None)


def test_damage_anywhere_gives_one_line_and_no_picture(run: Run, encoded: Path) -> None:
    data = encoded.read_bytes()
    damaged = encoded.with_name("damaged.cwic")
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 16
    for content in (data[:-1], data[: len(data) // 2], data[:9], bytes(flipped)):
        damaged.write_bytes(content)
        expect_one_line(run("decode", damaged), "damaged.cwic")
        assert not damaged.with_suffix(".png").exists()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_an_unwritable_folder_is_named(run: Run, photo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    expect_one_line(run("encode", photo, "-o", folder), "locked")


def test_the_file_is_named_before_a_warning_and_each_warning_is_one_line(
    run: Run, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode(*_: object) -> Encoded:
        warnings.warn("as near\nas it gets", CodecWarning, stacklevel=2)
        warnings.warn("photo.png is odd", CodecWarning, stacklevel=2)
        raise KeyboardInterrupt

    monkeypatch.setattr(Codec, "encode_request", encode)
    code, out, err = run("encode", photo)
    assert (code, out) == (130, "")
    assert err == (
        f"warning: {photo}: as near as it gets\nwarning: photo.png is odd\nerror: interrupted\n"
    )


def test_an_error_of_the_system_is_one_line(
    run: Run, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode(*_: object) -> Encoded:
        raise error

    monkeypatch.setattr(Codec, "encode_request", encode)
    error: BaseException = OSError(28, "No space left on device", "a.cwic")
    assert run("encode", photo) == (1, "", "error: a.cwic: No space left on device\n")
    error = MemoryError()
    assert run("encode", photo) == (1, "", "error: not enough memory\n")


# --- inputs that can be read once, outputs that are open ------------------------------------------

posix = pytest.mark.skipif(os.name != "posix", reason="names of descriptors and pipes of POSIX")


@contextmanager
def pipe_of(data: bytes) -> Iterator[str]:
    """The name that a shell gives to `<(command)`, whose output is `data`."""
    reader, writer = os.pipe()
    thread = threading.Thread(target=_fill, args=(writer, data))
    thread.start()
    try:
        yield f"/dev/fd/{reader}"
    finally:
        os.close(reader)
        thread.join()


def _fill(writer: int, data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError), open(writer, "wb") as file:
        file.write(data)


@posix
@pytest.mark.parametrize(
    "words",
    [
        ("encode", "--psnr", "35"),
        ("encode", "--bpp", "1"),
        ("view",),
        ("compare", "-q", "20"),
        ("decode",),
        ("info",),
        ("view", "of a file"),
    ],
)
def test_every_verb_reads_from_a_pipe_and_reads_it_once(
    run: Run, photo: Path, encoded: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    verb, *options = words
    takes_file = verb in ("decode", "info") or "of a file" in options
    options = [word for word in options if word != "of a file"]
    suffix = {"encode": "cwic", "compare": "html"}.get(verb, "png")
    source = encoded if takes_file else photo
    output = [] if verb == "info" else ["-f", "-o", tmp_path / f"of_file.{suffix}"]
    code, of_file, err = run(verb, source, *options, *output)
    assert (code, err) == (0, "")
    with pipe_of(source.read_bytes()) as name:
        if output:
            output = ["-f", "-o", tmp_path / f"of_pipe.{suffix}"]
        code, of_pipe, err = run(verb, name, *options, *output)
    assert (code, err) == (0, "")
    if verb == "info":
        assert of_pipe.splitlines()[1:] == of_file.splitlines()[1:]
    elif verb != "compare":  # which holds the name of the picture
        made = [(tmp_path / f"of_{kind}.{suffix}").read_bytes() for kind in ("file", "pipe")]
        assert made[0] == made[1]


@posix
def test_a_named_pipe_is_read_once(run: Run, photo: Path, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    thread = threading.Thread(target=lambda: fifo.write_bytes(photo.read_bytes()))
    thread.start()
    assert run("encode", fifo, "--psnr", "35")[0] == 0
    thread.join()
    with pipe_of(photo.read_bytes()) as name:
        of_pipe = cwic.encode(name, psnr_db=35)
    assert of_pipe == (tmp_path / "fifo.cwic").read_bytes()
    assert cwic.read_header((tmp_path / "fifo.cwic").read_bytes()).width == 96


@posix
def test_damage_in_a_pipe_is_named_by_the_pipe(run: Run, encoded: Path, tmp_path: Path) -> None:
    for verb in ("encode", "decode", "info", "view"):
        with pipe_of(b"no picture") as name:
            output = [] if verb == "info" else ["-o", tmp_path / "out.png"]
            if verb == "encode":
                output = ["-o", tmp_path / "out.cwic"]
            expect_one_line(run(verb, name, *output), name)


@posix
def test_inputs_that_can_be_read_once_are_copied_for_those_who_read_twice(
    photo: Path, tmp_path: Path
) -> None:
    with pipe_of(b"content") as name:
        with files.readable_again([photo, Path(name)]) as (same, copied):
            assert same == photo
            assert [copied.read_bytes(), copied.read_bytes()] == [b"content", b"content"]
        assert not copied.exists()


@posix
def test_a_mask_from_a_pipe_counts_for_every_picture_of_a_folder(
    run: Run, photo: Path, tmp_path: Path
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in ("a.png", "b.png"):
        (pictures / name).write_bytes(photo.read_bytes())
    mask = tmp_path / "mask.png"
    Image.linear_gradient("L").resize((96, 64)).save(mask)
    assert run("encode", photo, "--roi", mask)[0] == 0
    with pipe_of(mask.read_bytes()) as name:
        code, _, err = run("encode", pictures, "-o", tmp_path / "files", "--roi", name)
    assert (code, err) == (0, "")
    expected = photo.with_suffix(".cwic").read_bytes()
    assert expected != cwic.encode(photo)
    for name in ("a.cwic", "b.cwic"):
        assert (tmp_path / "files" / name).read_bytes() == expected


@pytest.mark.parametrize(
    "words", [("evaluate", "PHOTO", "--codecs", "jpeg", "--out"), ("data", "fetch", "kodak", "-o")]
)
def test_a_file_in_place_of_a_folder_for_results_is_named(
    run: Run, photo: Path, words: tuple[str, ...]
) -> None:
    for module in ("torch", "scipy", "ssimulacra2", "matplotlib"):
        pytest.importorskip(module)
    found = run(*(photo if word == "PHOTO" else word for word in words), photo)
    expect_one_line(found, "expected a folder for the results, found a file")


@posix
def test_evaluate_may_read_what_comes_from_a_pipe_twice(
    run: Run, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    for module in ("torch", "scipy", "ssimulacra2"):
        pytest.importorskip(module)
    from cwic.evaluation import benchmark

    found: list[list[bytes]] = []

    def evaluate(paths: list[Path], *_: object, **__: object) -> benchmark.Evaluation:
        found.extend([path.read_bytes() for _ in range(2)] for path in paths)
        return benchmark.Evaluation(0, 0, [], [])

    monkeypatch.setattr(benchmark, "evaluate", evaluate)
    content = photo.read_bytes()
    with pipe_of(content) as name:
        assert run("evaluate", photo, name, "--out", tmp_path / "out")[0] == 0
    assert found == [[content, content]] * 2


def _command(*words: str | Path, **streams: Any) -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, "-m", "cwic", *map(str, words)]
    return subprocess.run(command, stderr=subprocess.PIPE, timeout=60, check=False, **streams)


@posix
def test_what_is_open_for_appending_is_appended_to(encoded: Path, tmp_path: Path) -> None:
    target = tmp_path / "appended"
    target.write_bytes(b"HEAD")
    with target.open("ab") as out:
        done = _command("decode", encoded, "-o", "/dev/stdout", stdout=out)
    assert (done.returncode, done.stderr.count(b"-> stdout 96x64")) == (0, 1)
    data = target.read_bytes()
    assert data.startswith(b"HEAD\x89PNG")
    with Image.open(io.BytesIO(data[4:])) as picture:
        assert picture.size == (96, 64)


@posix
def test_a_pipe_of_the_shell_is_an_output_and_does_not_exist_already(
    run: Run, encoded: Path, tmp_path: Path
) -> None:
    with (tmp_path / "out").open("w+b") as file:
        code, out, err = run("decode", encoded, "-o", f"/dev/fd/{file.fileno()}")
        assert (code, err) == (0, "")
        assert out.endswith(f"-> /dev/fd/{file.fileno()} 96x64\n")
        file.seek(0)
        with Image.open(file) as picture:
            assert (picture.size, picture.format) == ((96, 64), "PNG")
    expect_one_line(run("decode", encoded, "-o", "/dev/fd/987"), "/dev/fd/987")


@posix
def test_the_input_is_not_overwritten_through_a_descriptor(run: Run, photo: Path) -> None:
    before = photo.read_bytes()
    with photo.open("ab") as file:
        expect_one_line(run("encode", photo, "-f", "-o", f"/dev/fd/{file.fileno()}"), "input")
        done = _command("encode", photo, "-o", "-", stdout=file)
    assert done.returncode == 1
    assert b"input" in done.stderr
    assert photo.read_bytes() == before


@posix
def test_an_input_that_is_a_descriptor_has_no_place_beside_it(piped: Piped, photo: Path) -> None:
    with pipe_of(photo.read_bytes()) as name:
        code, data = piped(b"", "encode", name)
    assert code == 0
    assert cwic.read_header(data).width == 96
