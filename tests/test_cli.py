"""The command: words in, files and one line out, exit codes, and never a traceback."""

import argparse
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cwic
from cwic.cli import main as cli
from cwic.codec import Codec, Encoded
from cwic.errors import CodecWarning, TrainingError
from cwic.families.tiling import REDUCTIONS
from cwic.image import encode_image
from cwic.model_file import bundled_models
from cwic.request import LOSSLESS

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command in this process: exit code, standard output, standard error."""

    def run_words(*words: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as usage:
            code = usage.code if isinstance(usage.code, int) else -1
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return run_words


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A smooth picture with some edges, 96x64."""
    y, x = np.mgrid[0:64, 0:96]
    pixels = np.stack([2 * x, 3 * y, 128 + 90 * np.sin(x / 9) * np.cos(y / 7)], axis=-1)
    pixels[20:40, 30:60] = (230, 40, 40)
    path = tmp_path / "photo.png"
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


@pytest.fixture
def encoded(run: Run, photo: Path) -> Path:
    assert run("encode", photo, "--quiet") == (0, "", "")
    return photo.with_suffix(".cwic")


class _PipeStandIn(io.BytesIO):
    """A standard stream that carries bytes."""

    @property
    def buffer(self) -> "_PipeStandIn":
        return self


def process(*words: str | Path) -> subprocess.CompletedProcess[bytes]:
    """Runs the command as a person does."""
    command = [sys.executable, "-m", "cwic", *map(str, words)]
    return subprocess.run(command, capture_output=True, timeout=60)


# --- encode and decode ----------------------------------------------------------------------------


def test_a_picture_goes_into_a_file_beside_it_and_back(run: Run, photo: Path) -> None:
    code, out, err = run("encode", photo)
    data = photo.with_suffix(".cwic").read_bytes()
    rate_bpp = 8 * len(data) / (96 * 64)
    assert (code, err) == (0, "")
    assert out == f"{photo} -> {photo.with_suffix('.cwic')} {len(data):,} B, {rate_bpp:.3f} bpp\n"

    back = photo.with_name("back.png")
    code, out, err = run("decode", photo.with_suffix(".cwic"), "-o", back)
    assert (code, err) == (0, "")
    assert out == f"{photo.with_suffix('.cwic')} -> {back} 96x64\n"
    with Image.open(back) as picture:
        assert (picture.size, picture.format) == ((96, 64), "PNG")


def test_info_refuses_a_file_that_is_too_short_or_too_long(run: Run, encoded: Path) -> None:
    data = encoded.read_bytes()
    for damaged in (data[:-20], data + b"more"):
        encoded.write_bytes(damaged)
        code, out, err = run("info", encoded)
        assert (code, out) == (1, "")
        assert f"found {len(damaged)} bytes, expected {len(data)}" in err


def test_strict_fails_below_the_worst_quality_too(run: Run, photo: Path) -> None:
    code, _, err = run("encode", photo, "--psnr", "0.5", "--strict", "--lossless", "never")
    assert code == 1
    assert "the worst of this picture is" in err
    assert not photo.with_suffix(".cwic").exists()


@pytest.mark.parametrize("size", ["9" * 400, "1" + "0" * 30 + "MB", "0.1"])
def test_sizes_beyond_reason_are_wrong_usage(run: Run, photo: Path, size: str) -> None:
    code, _, err = run("encode", photo, "--target-size", size)
    assert code == 2
    assert "expected 1 byte to" in err


def test_an_empty_name_is_wrong_usage_and_not_this_folder(run: Run, tmp_path: Path) -> None:
    code, _, err = run("encode", "", "-o", tmp_path / "out")
    assert code == 2
    assert "found nothing" in err


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["--bpp", "0.8"], " (asked 0.8)\n"),
        (["--target-size", "0.6 kB"], " (asked 600 B)\n"),
        (["--psnr", "20"], " dB (asked 20)\n"),
        (["-q", "30"], " bpp\n"),
    ],
)
def test_the_result_line_repeats_what_was_asked_for(
    run: Run, photo: Path, words: list[str], asked: str
) -> None:
    code, out, _ = run("encode", photo, "--lossless", "never", *words)
    assert code == 0
    assert out.endswith(asked)


def test_a_rate_that_is_within_reach_is_met_within_five_percent(run: Run, photo: Path) -> None:
    sizes = []
    for quality in ("0", "100"):
        run("encode", photo, "-q", quality, "-f", "--lossless", "never")
        sizes.append(photo.with_suffix(".cwic").stat().st_size)
    target = sum(sizes) // 2
    code, _, err = run("encode", photo, "--target-size", str(target), "-f", "--lossless", "never")
    assert (code, err) == (0, "")
    assert photo.with_suffix(".cwic").stat().st_size == pytest.approx(target, rel=0.05)


def test_a_target_out_of_reach_warns_and_with_strict_fails_without_a_file(
    run: Run, photo: Path
) -> None:
    code, _, err = run("encode", photo, "--target-size", "1")
    assert code == 0
    assert err.startswith("warning: ")
    assert err.count("\n") == 1
    assert "photo.png" in err
    assert run("encode", photo, "--target-size", "1", "-f", "--quiet") == (0, "", "")

    photo.with_suffix(".cwic").unlink()
    code, out, err = run("encode", photo, "--target-size", "1", "--strict")
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert "photo.png" in err
    assert not photo.with_suffix(".cwic").exists()


def test_the_extension_says_the_format_of_the_decoded_picture(run: Run, encoded: Path) -> None:
    for suffix, name in ((".jpg", "JPEG"), (".webp", "WEBP"), (".tif", "TIFF")):
        target = encoded.with_suffix(suffix)
        assert run("decode", encoded, "-o", target)[0] == 0
        with Image.open(target) as picture:
            assert picture.format == name
    code, _, err = run("decode", encoded, "-o", encoded.with_suffix(".xyz"))
    assert code == 1
    assert "xyz" in err


def test_strip_leaves_metadata_out(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "tagged.png"
    exif = Image.Exif()
    exif[0x010E] = "a description"
    Image.new("RGB", (16, 16), "red").save(source, exif=exif)
    for words, kept in (([], True), (["--strip", "-f"], False)):
        assert run("encode", source, *words)[0] == 0
        _, out, _ = run("info", tmp_path / "tagged.cwic", "--json")
        assert ("exif" in json.loads(out)["sections"]) == kept


def test_verbose_adds_the_model_and_the_time_on_stderr(run: Run, photo: Path) -> None:
    code, out, err = run("encode", photo, "-v")
    assert code == 0
    assert out.count("\n") == 1
    assert bundled_models()[0].name in err


def test_a_model_file_of_ones_own_encodes_and_decodes(
    run: Run, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = bundled_models()[0].path
    assert run("encode", photo, "--model", model)[0] == 0
    # To be unknown is what distinguishes one's own model from those of the package.
    monkeypatch.setattr(cwic, "decode", None)
    target = photo.with_name("back.png")
    code, out, _ = run("decode", photo.with_suffix(".cwic"), "--model", model, "-o", target)
    assert code == 0
    assert out.endswith(" 96x64\n")


# --- overwriting and folders ----------------------------------------------------------------------


def test_nothing_is_overwritten_without_force(run: Run, photo: Path, encoded: Path) -> None:
    encoded.write_bytes(b"precious")
    code, out, err = run("encode", photo)
    assert (code, out) == (1, "")
    assert err == f"error: {encoded}: exists already; -f overwrites it\n"
    assert encoded.read_bytes() == b"precious"
    assert run("encode", photo, "-f")[0] == 0
    assert encoded.read_bytes() != b"precious"


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


# --- standard streams -----------------------------------------------------------------------------


def test_standard_streams_carry_the_data_and_messages_stay_out_of_it(
    run: Run, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def piped(data: bytes, *words: str) -> tuple[int, bytes]:
        out = _PipeStandIn()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", _PipeStandIn(data))
            patch.setattr(sys, "stdout", out)
            code = cli.main(list(words))
        return code, out.getvalue()

    code, data = piped(photo.read_bytes(), "encode", "-")
    assert code == 0
    assert cwic.read_header(data).width == 96
    code, data = piped(data, "decode", "-", "-o", "-")
    assert code == 0
    with Image.open(io.BytesIO(data)) as picture:
        assert (picture.size, picture.format) == ((96, 64), "PNG")


@pytest.mark.parametrize("file_format", ["png", "jpg", "webp", "avif", "tiff", "ppm", "bmp"])
def test_a_picture_of_any_format_comes_from_a_pipe_and_goes_into_one(
    file_format: str, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def piped(data: bytes, *words: str) -> bytes:
        out = _PipeStandIn()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", _PipeStandIn(data))
            patch.setattr(sys, "stdout", out)
            assert cli.main(list(words)) == 0
        return out.getvalue()

    with Image.open(photo) as picture:
        data = encode_image(picture, file_format)
    coded = piped(data, "encode", "-", "-q", "90", "--lossless", "never")
    back = piped(coded, "decode", "-", "-o", "-", "--to", file_format)
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
    assert "says the format itself" in err


def test_data_is_not_thrown_at_a_terminal(
    run: Run, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    code, _, err = run("encode", photo, "-o", "-")
    assert code == 1
    assert "terminal" in err


def test_two_dashes_end_the_options(run: Run, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = run("info", "--", "-missing.cwic")
    assert code == 1
    assert "-missing.cwic" in err


# --- info and models ------------------------------------------------------------------------------


def test_info_says_what_is_in_a_file(run: Run, encoded: Path) -> None:
    size_bytes = encoded.stat().st_size
    code, out, err = run("info", encoded, "--json")
    facts = json.loads(out)
    assert (code, err) == (0, "")
    assert facts["bytes"] == size_bytes
    assert facts["bpp"] == pytest.approx(8 * size_bytes / (96 * 64), abs=1e-6)
    assert (facts["width"], facts["height"], facts["mode"]) == (96, 64, "RGB")
    assert facts["model"] == bundled_models()[0].name
    assert facts["identity"] == bundled_models()[0].identity.hex()
    assert 0 < facts["sections"]["tile"] < size_bytes

    _, out, _ = run("info", encoded)
    for fact in (f"{size_bytes:,} B", "96x64 RGB", facts["model"], facts["identity"]):
        assert fact in out


def test_info_loads_no_network_and_no_runtime(encoded: Path) -> None:
    code = (
        "import sys; from cwic.cli.main import main; main(sys.argv[1:]);"
        "sys.exit('onnxruntime' in sys.modules or 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, "info", str(encoded)]
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 0


def test_models_lists_what_comes_with_the_program(run: Run) -> None:
    code, out, _ = run("models")
    assert code == 0
    assert sum(line.endswith("default") for line in out.splitlines()) == 1
    code, out, _ = run("models", "--json")
    assert [model["identity"] for model in json.loads(out)] == [
        model.identity.hex() for model in bundled_models()
    ]


# --- batch and completion -------------------------------------------------------------------------


def test_a_batch_ends_with_a_summary_and_one_where_a_file_failed_with_one(
    run: Run, photo: Path
) -> None:
    source, target = photo.parent, photo.parent / "files"
    code, out, err = run("batch", source, target, "-j", "1")
    assert (code, err) == (0, "")
    sizes = f"{photo.stat().st_size:,} B -> {(target / 'photo.cwic').stat().st_size:,} B"
    assert out.startswith(f"{source} -> {target} 1 done, 0 failed, {sizes}, ")

    (source / "text.png").write_text("no picture")
    code, out, err = run("batch", source, target, "-j", "1")
    assert code == 1
    assert "0 done, 1 there before (-f makes them again), 1 failed" in out
    assert err == (
        "error: text.png: found no picture in a format that Pillow reads\n"
        f"error: 1 of 2 failed, listed in {target / 'batch.csv'}\n"
    )
    assert run("batch", target, source / "back", "--to", "jpg", "-j", "1", "--quiet") == (0, "", "")
    assert (source / "back" / "photo.jpg").exists()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_verb(run: Run, shell: str) -> None:
    pytest.importorskip("shtab")
    code, out, err = run("completion", shell)
    assert (code, err) == (0, "")
    for word in ("encode", "batch", "target-size", "avif"):
        assert word in out
    if shutil.which(shell):
        assert subprocess.run([shell, "-n"], input=out.encode(), timeout=60).returncode == 0


def test_bash_completes_verbs_options_and_files(run: Run, photo: Path) -> None:
    pytest.importorskip("shtab")
    if not shutil.which("bash"):
        pytest.skip("no bash")
    _, script, _ = run("completion", "bash")

    def completed(*words: str) -> list[str]:
        ask = f"COMP_WORDS=({' '.join(words)} ''); COMP_CWORD={len(words) - 1}; COMPREPLY=()\n"
        code = script + ask + '_shtab_cwic; printf "%s\\n" "${COMPREPLY[@]}"'
        command = ["bash", "--norc", "-c", code]
        done = subprocess.run(command, cwd=photo.parent, capture_output=True, timeout=60, text=True)
        return done.stdout.split()

    assert completed("cwic", "enc") == ["encode"]
    assert completed("cwic", "encode", "--ta") == ["--target-size"]
    assert completed("cwic", "encode", "pho") == ["photo.png"]
    assert "webp" in completed("cwic", "batch", "a", "b", "--to", "we")


def test_completion_without_shtab_names_the_extra_to_install(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    expect_one_line(run("completion", "bash"), "pip install 'cwic[completion]'")


# --- bad input ------------------------------------------------------------------------------------


def expect_one_line(result: tuple[int, str, str], name: str) -> None:
    code, out, err = result
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert name in err


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


def test_a_region_is_decoded(run: Run, photo: Path) -> None:
    assert run("encode", photo)[0] == 0
    file = photo.with_suffix(".cwic")
    assert run("decode", file, "-o", photo.with_name("part.png"), "--region", "3,5,20,10")[0] == 0
    with Image.open(photo.with_name("part.png")) as part:
        assert part.size == (20, 10)
    expect_one_line(
        run("decode", file, "-o", photo.with_name("b.png"), "--region", "0,0,9999,1"), "within"
    )
    code, _, err = run("decode", file, "--region", "1,2,3")
    assert code == 2
    assert "X,Y,W,H" in err


def test_the_limit_on_pixels_is_an_option(
    run: Run, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    with Image.open(photo) as image:
        count = image.width * image.height
    file = photo.with_suffix(".cwic")
    expect_one_line(run("encode", photo, "--max-pixels", str(count - 1)), f"at most {count - 1}")
    assert not file.exists()
    assert run("encode", photo, "--max-pixels", str(count))[0] == 0
    small = photo.with_name("small.png")
    expect_one_line(
        run("decode", file, "-o", small, "--max-pixels", str(count - 1)), f"at most {count - 1}"
    )
    assert run("decode", file, "-o", small, "--max-pixels", str(count))[0] == 0


def test_a_picture_is_decoded_smaller(run: Run, photo: Path) -> None:
    assert cli._REDUCTIONS == REDUCTIONS
    assert cli._LOSSLESS == LOSSLESS
    assert run("encode", photo)[0] == 0
    file, small = photo.with_suffix(".cwic"), photo.with_name("small.png")
    assert run("decode", file, "-o", small, "--reduce", "8")[0] == 0
    with Image.open(photo) as whole, Image.open(small) as picture:
        assert picture.size == (-(-whole.width // 8), -(-whole.height // 8))
    code, _, err = run("decode", file, "--reduce", "3")
    assert code == 2
    assert "1, 2, 4, 8" in err


def test_view_shows_where_the_bits_of_a_picture_or_of_its_file_go(run: Run, photo: Path) -> None:
    assert run("encode", photo, "-q", "40")[0] == 0
    code, out, err = run("view", photo, "-q", "40")
    assert (code, err) == (0, "")
    assert "photo.map.png" in out
    file = photo.with_suffix(".cwic")
    assert run("view", file, "-o", photo.with_name("of-file.png"))[0] == 0
    with (
        Image.open(photo.with_suffix(".map.png")) as one,
        Image.open(photo.with_name("of-file.png")) as other,
    ):
        assert one.size == other.size
        assert one.width > 2 * 96
        assert one.tobytes() == other.tobytes()


def test_an_unknown_model_is_named(run: Run, photo: Path) -> None:
    expect_one_line(run("encode", photo, "--model", "no-such-model"), "no-such-model")


def test_a_bundled_model_is_found_by_its_name(run: Run, photo: Path) -> None:
    code, _, err = run("encode", photo, "--model", bundled_models()[0].name)
    assert (code, err) == (0, "")


def test_a_mask_moves_bits_and_keeps_the_size(run: Run, photo: Path, tmp_path: Path) -> None:
    mask = tmp_path / "mask.png"
    with Image.open(photo) as picture:
        shape = (picture.height, picture.width)
    white = np.zeros(shape, np.uint8)
    white[:, : shape[1] // 2] = 255
    Image.fromarray(white).save(mask)
    sizes = []
    for words in ([], ["--roi", mask], ["--roi", mask, "--roi-strength", "2"]):
        code, _, err = run("encode", photo, "-f", "-q", "60", "--lossless", "never", *words)
        assert (code, err) == (0, "")
        sizes.append(photo.with_suffix(".cwic").stat().st_size)
    assert max(sizes) <= 1.03 * min(sizes) + 8
    expect_one_line(run("encode", photo, "-f", "--roi", tmp_path / "none.png"), "none.png")
    Image.fromarray(white[:, :9]).save(mask)
    expect_one_line(run("encode", photo, "-f", "--roi", mask), "mask.png: found a mask of 9x")


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


# --- kept whole -----------------------------------------------------------------------------------


@pytest.fixture
def drawing(tmp_path: Path) -> Path:
    """A picture of three colours, 96x64."""
    y, x = np.mgrid[0:64, 0:96]
    path = tmp_path / "drawing.png"
    Image.fromarray(((x + 2 * y) // 7 % 3 * 100).astype(np.uint8)).save(path)
    return path


def test_the_message_and_info_say_that_a_picture_is_kept_whole(run: Run, drawing: Path) -> None:
    code, out, err = run("encode", drawing, "--bpp", "1", "-v")
    assert code == 0
    assert out.endswith(" bpp (asked 1), kept whole\n")
    assert "drawing.png: kept whole, " in err
    file = drawing.with_suffix(".cwic")
    code, out, _ = run("info", file)
    assert code == 0
    assert "model     none, kept whole\n" in out
    facts = json.loads(run("info", file, "--json")[1])
    assert (facts["kept_whole"], facts["model"], facts["mode"]) == (True, None, "L")
    assert set(facts["sections"]) == {"whole"}
    assert (
        run("decode", file, "-o", drawing.with_name("back.png"), "-v")[2].count("kept whole") == 1
    )
    with Image.open(drawing) as before, Image.open(drawing.with_name("back.png")) as after:
        assert np.array_equal(before, after)


def test_lossless_is_an_option_of_every_verb_that_encodes(
    run: Run, drawing: Path, tmp_path: Path
) -> None:
    for verb, target in (("encode", "a.cwic"), ("view", "a.png"), ("compare", "a.html")):
        for lossless in ("never", "always"):
            words = [drawing, "-o", tmp_path / target, "-f", "--lossless", lossless]
            code, out, err = run(verb, *words)
            assert (code, err) == (0, "")
            assert ("kept whole" in out) == (lossless == "always")
    assert "exact" in (tmp_path / "a.html").read_text()
    (tmp_path / "in").mkdir()
    drawing.rename(tmp_path / "in" / "drawing.png")
    for lossless in ("never", "always"):
        words = [tmp_path / "in", tmp_path / "out", "-f", "-j", "1", "--lossless", lossless]
        code, out, _ = run("batch", *words)
        assert code == 0
        assert (", 1 kept whole" in out) == (lossless == "always")


def test_a_psnr_that_is_beyond_every_model_is_met_without_loss(run: Run, photo: Path) -> None:
    code, out, err = run("encode", photo, "--psnr", "90", "--strict")
    assert (code, err) == (0, "")
    assert out.endswith(" bpp (asked 90 dB), kept whole\n")


# --- train and export -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["train", "c.toml", "--data", "pictures", "--out", "run"],
        ["export", "run/checkpoint", "-o", "m.cwicmodel"],
    ],
)
def test_training_without_torch_names_the_extra_to_install(
    run: Run, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    code, _, err = run(*words)
    assert code == 1
    assert "pip install 'cwic[train]'" in err


def test_train_passes_everything_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = pytest.importorskip("cwic.training.trainer")
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(trainer, "train", lambda *args, **kwargs: calls.append((args, kwargs)))
    words = "train c.toml --data a b --out run --max-seconds 60 --threads 2 --device cpu --quiet"
    assert run(*words.split()) == (0, "", "")
    assert calls == [
        (
            (Path("c.toml"),),
            {
                "data": [Path("a"), Path("b")],
                "run_dir": Path("run"),
                "max_seconds": 60.0,
                "threads": 2,
                "device": "cpu",
                "init_from": None,
                "show_progress": False,
            },
        )
    ]


def test_a_training_error_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = pytest.importorskip("cwic.training.trainer")

    def train(*args: Any, **kwargs: Any) -> None:
        raise TrainingError("c.toml: unknown key 'lerning_rate'")

    monkeypatch.setattr(trainer, "train", train)
    expect_one_line(run("train", "c.toml", "--data", "a", "--out", "run"), "lerning_rate")


def test_a_checkpoint_that_is_not_there_is_named(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    words = ["-o", tmp_path / "m.cwicmodel"]
    expect_one_line(run("export", tmp_path / "gone.safetensors", *words), "gone.safetensors")
    assert not (tmp_path / "m.cwicmodel").exists()


# --- usage ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["frobnicate"],
        ["encode"],
        ["encode", "a.png", "-q", "101"],
        ["encode", "a.png", "-q", "nan"],
        ["encode", "a.png", "--bpp", "0"],
        ["encode", "a.png", "--bpp", "inf"],
        ["encode", "a.png", "--bpp", "0.5", "-q", "50"],
        ["encode", "a.png", "--psnr", "30", "--target-size", "40kB"],
        ["encode", "a.png", "--target-size", "40 parsecs"],
        ["encode", "a.png", "--target", "40kB"],
        ["encode", "a.png", "-o", "b.png"],
        ["batch", "a"],
        ["batch", "a", "b", "--to", "gif"],
        ["batch", "a", "b", "--to", "png", "-q", "50"],
        ["batch", "a", ""],
        ["completion", "csh"],
        ["encode", "."],
        ["decode", ".", "-o", "-"],
        ["train", "c.toml"],
        ["train", "c.toml", "--data", "a", "--out", "b", "--threads", "0"],
        ["export", "checkpoint"],
        ["serve", "--port", "99999"],
        ["compare", "a.cwic"],
    ],
)
def test_wrong_usage_ends_with_two_and_a_hint(run: Run, words: list[str]) -> None:
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert err.startswith("usage: cwic")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["photo.png"], "cwic encode photo.png?"),
        (["photo.cwic"], "cwic decode photo.cwic?"),
        (["enocde"], "cwic encode?"),
        (["frobnicate"], "cwic --help"),
        (["encode", "photo.cwic"], "cwic decode photo.cwic?"),
        (["decode", "photo.png"], "cwic encode photo.png?"),
        (["info", "photo.png"], "cwic encode photo.png?"),
        (["encode", "photo.png", "--size", "40kB"], "--target-size?"),
        (["encode", "photo.png", "--qualty=5"], "--quality?"),
        (["encode", "a.png", "b.png"], "takes one file, or a folder with -o FOLDER"),
        (["encode", "s3://a/b.png"], "cwic batch takes URLs"),
    ],
)
def test_a_wrong_word_is_answered_with_the_likely_one(
    run: Run, words: list[str], hint: str
) -> None:
    code, _, err = run(*words)
    assert code == 2
    assert hint in err


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("40kB", 40_000),
        ("40 kB", 40_000),
        ("40000", 40_000),
        ("40000B", 40_000),
        ("1.5MB", 1_500_000),
        ("40KiB", 40_960),
        ("40k", 40_000),
        (" .5 mib ", 524_288),
        ("0.29kB", 290),
    ],
)
def test_a_size_is_read_as_people_write_it(text: str, size_bytes: int) -> None:
    assert cli._size_bytes(text) == size_bytes


@pytest.mark.parametrize("text", ["", "kB", "-1kB", "1e3", "0", "0.4", "1,5MB", "40 k B", "٤kB"])
def test_a_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected"):
        cli._size_bytes(text)


def verb_parsers() -> dict[str, argparse.ArgumentParser]:
    parser = cli._parser()
    return next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction)).choices


def test_the_options_of_every_verb_are_frozen() -> None:
    found = {
        name: {word for action in verb._actions for word in action.option_strings}
        - {"-h", "--help", "--quiet", "-v", "--verbose"}
        for name, verb in verb_parsers().items()
    }
    output = {"-o", "--output", "-f", "--force"}
    rate = {"-q", "--quality", "--bpp", "--target-size", "--psnr"}
    assert found == {
        "encode": output
        | rate
        | {"--strict", "--roi", "--roi-strength", "--saliency", "--strip", "--model"}
        | {"--lossless", "--max-pixels"},
        "decode": output | {"--to", "--model", "--region", "--reduce", "--max-pixels"},
        "view": output
        | {"-q", "--quality", "--bpp", "--lossless", "--roi", "--saliency", "--model"},
        "compare": output | rate | {"--strict", "--lossless", "--roi", "--saliency", "--model"},
        "batch": rate
        | {"--lossless"}
        | {"--to", "--strict", "--strip", "--model", "-j", "--jobs", "--ray", "-f", "--force"},
        "serve": {"--host", "--port", "--max-upload", "--model"},
        "info": {"--json"},
        "models": {"--json"},
        "train": {"--data", "--out", "--init-from", "--max-seconds", "--threads", "--device"},
        "export": output,
        "evaluate": {"--codecs", "--out", "-j", "--jobs"},
        "data": {"-o", "--output"},
        "completion": set(),
    }


def test_the_help_of_every_verb_ends_with_examples_that_are_true() -> None:
    for name, verb in {"": cli._parser(), **verb_parsers()}.items():
        lines = verb.format_help().partition("examples:\n")[2].splitlines()
        assert lines
        for line in lines:
            command = re.split(r"  +|>", line.strip())[0].split()
            assert command[:2] == ["cwic", name or command[1]]
            if command[-1] != "--help":
                cli._parser().parse_args(command[1:])


def test_the_help_has_a_line_for_each_verb_and_none_breaks_on_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    lines = cli._parser().format_help().splitlines()
    for name in verb_parsers():
        (line,) = [line for line in lines if line.split()[:1] == [name]]
        assert len(line.split()) > 2, line


def test_the_command_page_describes_every_verb_and_option() -> None:
    page = (Path(__file__).parent.parent / "docs" / "command.md").read_text()
    for name, verb in verb_parsers().items():
        section = page.partition(f"## cwic {name}\n")[2].partition("\n## ")[0]
        assert section, name
        options = {word for action in verb._actions for word in action.option_strings}
        missing = options - {"-h", "--help", "--quiet", "-v", "--verbose"}
        assert not {word for word in missing if f"`{word}" not in section}, name


# --- the process ----------------------------------------------------------------------------------


def test_the_module_runs_as_the_command_and_says_its_version() -> None:
    result = process("--version")
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout.decode().split() == ["cwic", cwic.__version__]


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from cwic.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(bool({'numpy', 'PIL', 'onnxruntime', 'torch'} & sys.modules.keys()))"
    )
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")
@pytest.mark.parametrize("words", [["--help"], ["models"], ["encode", "-o", "-"]])
def test_a_reader_that_went_away_is_no_reason_for_a_traceback(
    words: list[str], photo: Path
) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    picture = [str(photo)] if words[0] == "encode" else []
    command = [sys.executable, "-m", "cwic", *words, *picture]
    try:
        result = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, timeout=60)
    finally:
        os.close(write_end)
    assert result.returncode in (0, 1)
    assert b"Traceback" not in result.stderr
    assert b"Exception" not in result.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="names of other systems are text")
def test_a_file_name_that_is_no_text_can_be_named(tmp_path: Path) -> None:
    result = process("info", tmp_path / os.fsdecode(b"\xff.cwic"))
    assert result.returncode == 1
    assert result.stderr.startswith(b"error: ")
    assert b"Traceback" not in result.stderr
