"""The verbs of the command: words in, files and one line out, exit codes, and never a traceback."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import Run, expect_one_line, grained, page_with_photograph
from PIL import Image

import cwic
from cwic.errors import TrainingError
from cwic.model_file import bundled_models


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


def test_strict_is_a_bound_and_what_is_better_or_smaller_is_done(run: Run, photo: Path) -> None:
    for words in (("--psnr", "0.5"), ("--target-size", "500kB"), ("--bpp", "24")):
        for lossless in ("never", "auto"):
            command = ("encode", photo, *words, "--strict", "--lossless", lossless, "-f")
            code, _, err = run(*command)
            assert (code, [line for line in err.splitlines() if line[:4] != "note"]) == (0, [])
            assert photo.with_suffix(".cwic").stat().st_size < 500_000


def test_a_result_larger_than_its_source_says_so_in_one_line(
    run: Run, photo: Path, tmp_path: Path
) -> None:
    small, target = tmp_path / "small.jpg", tmp_path / "a.cwic"
    with Image.open(photo) as picture:
        picture.save(small, quality=2)
    code, _, err = run("encode", small, "-o", target, "-q", "100", "--lossless", "always")
    assert code == 0
    sizes = f"{target.stat().st_size:,} B, more than the {small.stat().st_size:,} B"
    assert err == f"note: {small}: the result has {sizes} of this file\n"
    words = ("encode", small, "-o", target, "-f", "--lossless", "always")
    assert run(*words, "--quiet") == (0, "", "")
    assert run("encode", small, "-o", target, "-f", "-q", "1")[2] == ""


@pytest.mark.parametrize(
    ("words", "end"),
    [
        (["--bpp", "0.8"], " (target 0.8 bpp)\n"),
        (["--target-size", "0.6 kB"], " (target 600 B)\n"),
        (["--psnr", "20"], " dB (target 20 dB)\n"),
        (["-q", "30"], " bpp\n"),
    ],
)
def test_the_result_line_repeats_what_was_asked_for(
    run: Run, photo: Path, words: list[str], end: str
) -> None:
    code, out, _ = run("encode", photo, "--lossless", "never", *words)
    assert code == 0
    assert out.endswith(end)


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
    for verb, name in (("decode", "photo.xyz"), ("view", "photo.xyz"), ("decode", "photo")):
        code, _, err = run(verb, encoded, "-o", encoded.with_name(name))
        assert code == 1
        assert err.startswith(f"error: {encoded.with_name(name)}: found ")
        assert "expected one of png, " in err


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


def test_a_file_under_the_others_name_is_what_it_holds(run: Run, photo: Path) -> None:
    assert run("encode", photo, "-q", "40")[0] == 0
    coded, picture = photo.with_name("coded.png"), photo.with_name("picture.cwic")
    photo.with_suffix(".cwic").rename(coded)
    picture.write_bytes(photo.read_bytes())

    code, _, err = run("encode", coded, "-o", photo.with_name("a.cwic"))
    assert (code, err.splitlines()[-1]) == (
        2,
        f"cwic encode: error: expected a picture: cwic decode {coded}?",
    )
    assert run("decode", coded, "-o", photo.with_name("a.png"))[0] == 0
    assert json.loads(run("info", coded, "--json")[1])["width"] == 96
    assert run("view", coded, "-o", photo.with_name("map.png"))[0] == 0

    assert run("encode", picture, "-q", "40", "-o", photo.with_name("b.cwic"))[0] == 0
    assert photo.with_name("b.cwic").read_bytes() == coded.read_bytes()
    for verb in ("decode", "info"):
        code, _, err = run(verb, picture)
        assert (code, "not a .cwic file: it begins with b'\\x89PNG" in err) == (1, True)


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
    assert "0 done, 1 existed already (-f makes them again), 1 failed" in out
    assert err == (
        "error: text.png: found no picture in a format that Pillow reads\n"
        f"error: 1 of 2 failed, listed in {target / 'batch.csv'}\n"
    )
    (source / "a.heic").write_bytes(b"whatever")
    (source / "text.png").unlink()
    assert run("batch", source, target, "-j", "1")[2] == (
        f"1 left alone (1 x HEIC is not read), listed in {target / 'batch.csv'}\n"
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
    for most in (count - 1, count // 9):
        expect_one_line(run("encode", photo, "--max-pixels", str(most)), f"at most {most}")
    assert not file.exists()
    assert run("encode", photo, "--max-pixels", str(count))[0] == 0
    small = photo.with_name("small.png")
    expect_one_line(
        run("decode", file, "-o", small, "--max-pixels", str(count - 1)), f"at most {count - 1}"
    )
    assert run("decode", file, "-o", small, "--max-pixels", str(count))[0] == 0


def test_a_picture_is_decoded_smaller(run: Run, photo: Path) -> None:
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
    of_file = photo.with_name("of-file.png")
    assert "note" not in run("view", file, "-o", of_file)[2]
    assert "coded already" in run("view", file, "-o", of_file, "-f", "-q", "10")[2]
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
    assert out.endswith(" bpp (target 1 bpp), kept whole\n")
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


def test_the_message_and_info_say_in_how_many_colours_a_picture_is_kept(
    run: Run, drawing: Path
) -> None:
    with Image.open(drawing) as image:
        grey = grained(np.asarray(image))
    Image.fromarray(grey).save(drawing)
    code, out, err = run("encode", drawing, "--target-size", "300", "-v")
    assert code == 0
    assert out.endswith(", kept in 3 colours\n")
    assert "drawing.png: kept in 3 colours, " in err
    file = drawing.with_suffix(".cwic")
    out = run("info", file)[1]
    assert "model     none, kept in 3 colours\n" in out
    assert "\nq " not in out
    facts = json.loads(run("info", file, "--json")[1])
    assert (facts["kept_whole"], facts["colours"], facts["mode"]) == (False, 3, "L")


def test_the_message_and_info_say_that_text_and_graphics_are_exact(run: Run, photo: Path) -> None:
    Image.fromarray(page_with_photograph()).save(photo)
    code, out, _ = run("encode", photo, "--bpp", "1.5")
    assert code == 0
    assert out.endswith(" bpp (target 1.5 bpp), text and graphics exact\n")
    facts = json.loads(run("info", photo.with_suffix(".cwic"), "--json")[1])
    assert (facts["kept_whole"], facts["exact_graphics"]) == (False, True)
    assert "exact" in facts["sections"]


def test_lossless_is_an_option_of_every_verb_that_encodes(
    run: Run, drawing: Path, tmp_path: Path
) -> None:
    for verb, target in (("encode", "a.cwic"), ("view", "a.png"), ("compare", "a.html")):
        for lossless in ("never", "always"):
            words = [drawing, "-o", tmp_path / target, "-f", "--lossless", lossless]
            code, out, err = run(verb, *words)
            assert code == 0
            assert ("more than the" in err) == (verb == "encode" and lossless == "never")
            assert ("kept whole" in out) == (lossless == "always")
    assert "exact" in (tmp_path / "a.html").read_text()
    (tmp_path / "in").mkdir()
    drawing.rename(tmp_path / "in" / "drawing.png")
    for lossless in ("never", "always"):
        words = [tmp_path / "in", tmp_path / "out", "-f", "-j", "1", "--lossless", lossless]
        code, out, err = run("batch", *words)
        assert ("note: 1 of 1 results larger than their sources" in err) == (lossless == "never")
        assert code == 0
        assert (", 1 kept whole" in out) == (lossless == "always")


def test_a_psnr_that_is_beyond_every_model_is_met_without_loss(run: Run, photo: Path) -> None:
    code, out, err = run("encode", photo, "--psnr", "90", "--strict")
    assert (code, err) == (0, "")
    assert out.endswith(" bpp (target 90 dB), kept whole\n")


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


def replace_train(monkeypatch: pytest.MonkeyPatch, train: Callable[..., None]) -> None:
    """Puts a function in place of the training, which takes seconds to import."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace())
    monkeypatch.setitem(sys.modules, "cwic.training.trainer", SimpleNamespace(train=train))


def test_train_passes_everything_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []
    replace_train(monkeypatch, lambda *args, **kwargs: calls.append((args, kwargs)))
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
    def train(*args: Any, **kwargs: Any) -> None:
        raise TrainingError("c.toml: unknown key 'lerning_rate'")

    replace_train(monkeypatch, train)
    expect_one_line(run("train", "c.toml", "--data", "a", "--out", "run"), "lerning_rate")


def test_a_checkpoint_that_is_not_there_is_named(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    words = ["-o", tmp_path / "m.cwicmodel"]
    expect_one_line(run("export", tmp_path / "gone.safetensors", *words), "gone.safetensors")
    assert not (tmp_path / "m.cwicmodel").exists()


# --- the process ----------------------------------------------------------------------------------


def test_the_module_runs_as_the_command_and_says_its_version() -> None:
    result = process("--version")
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout.decode().split() == ["cwic", cwic.__version__]


def test_help_and_info_load_no_library(encoded: Path) -> None:
    code = (
        "import sys; from cwic.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'numpy', 'PIL', 'onnxruntime', 'torch', 'tqdm'} & sys.modules.keys()\n"
        "assert main(['info', sys.argv[1]]) == 0\n"
        "assert not {'numpy', 'PIL', 'onnxruntime', 'torch', 'tqdm'} & sys.modules.keys()"
    )
    command = [sys.executable, "-c", code, str(encoded)]
    result = subprocess.run(command, capture_output=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, b"")


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")
@pytest.mark.parametrize("words", [["--help"], ["models"], ["decode", "-o", "-"]])
def test_a_reader_that_went_away_is_no_reason_for_a_traceback(
    words: list[str], run: Run, drawing: Path
) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    file = []
    if words[0] == "decode":
        # It is decoded without a model, which would take a second to load.
        assert run("encode", drawing)[0] == 0
        file = [str(drawing.with_suffix(".cwic"))]
    command = [sys.executable, "-m", "cwic", *words, *file]
    try:
        result = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, timeout=60)
    finally:
        os.close(write_end)
    assert result.returncode in (0, 1)
    assert b"Traceback" not in result.stderr
    assert b"Exception" not in result.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="names of other systems are text")
def test_a_file_name_that_is_no_text_can_be_named(run: Run, tmp_path: Path) -> None:
    expect_one_line(run("info", tmp_path / os.fsdecode(b"\xff.cwic")), "\\udcff.cwic")


def test_of_a_truncated_picture_every_verb_that_encodes_takes_what_is_there_if_asked(
    run: Run, photo: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    cut = folder / "cut.jpg"
    with Image.open(photo) as picture:
        picture.save(cut)
    cut.write_bytes(cut.read_bytes()[:-100])
    for verb, result in (("encode", "a.cwic"), ("view", "a.png"), ("compare", "a.html")):
        target = tmp_path / result
        code, _, err = run(verb, cut, "-o", target)
        assert (code, target.exists()) == (1, False)
        assert "--truncated" in err
        code, _, err = run(verb, cut, "-o", target, "--truncated")
        assert (code, target.exists()) == (0, True)
        assert err == f"warning: {cut}: it is truncated: what is missing is grey or black\n"
    for words, expected in (((), 1), (("--truncated",), 0)):
        assert run("batch", folder, tmp_path / "out", "-j", "1", "-f", *words)[0] == expected
    assert (tmp_path / "out" / "cut.cwic").exists()


def test_a_page_of_a_comparison_is_titled_with_the_name_of_the_file_alone(
    run: Run, photo: Path, tmp_path: Path
) -> None:
    code, _, err = run("compare", photo)
    assert (code, err) == (0, "")
    page = photo.with_suffix(".html").read_text()
    assert "<title>photo.png</title>" in page
    assert str(tmp_path) not in page


def test_what_transparency_hides_is_not_compared(run: Run, tmp_path: Path) -> None:
    drawn = np.full((40, 60, 4), 255, np.uint8)
    drawn[10:30, 20:40, :3] = 90
    hiding = drawn.copy()
    hiding[:8] = np.random.default_rng(1).integers(0, 256, (8, 60, 4))
    hiding[:8, :, 3] = 0
    pages = []
    for name, pixels in (("plain", drawn[..., :3]), ("hiding", hiding)):
        path = tmp_path / name / "a.png"
        path.parent.mkdir()
        Image.fromarray(pixels).save(path)
        code, _, err = run("compare", path)
        assert code == 0
        assert ("its transparency is laid on white" in err) == (name == "hiding")
        pages.append(path.with_suffix(".html").read_text())
    assert pages[0] == pages[1]


@pytest.mark.skipif(sys.platform != "linux", reason="names of bytes")
def test_a_file_whose_name_is_no_text_is_compared(run: Run, photo: Path) -> None:
    odd = photo.rename(os.fsdecode(os.fsencode(photo.parent) + b"/caf\xe9.png"))
    code, _, err = run("compare", odd)
    assert (code, err) == (0, "")
    assert "<title>caf\ufffd.png</title>" in odd.with_suffix(".html").read_text()
