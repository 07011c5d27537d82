"""The words of the command: options, types, help, and hints after wrong usage."""

import argparse
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import Run

from cwic.cli import arguments


@pytest.mark.parametrize("size", ["9" * 400, "1" + "0" * 30 + "MB", "0.1"])
def test_sizes_beyond_reason_are_wrong_usage(run: Run, photo: Path, size: str) -> None:
    code, _, err = run("encode", photo, "--target-size", size)
    assert code == 2
    assert "expected 1 byte to" in err


def test_an_empty_name_is_wrong_usage_and_not_this_folder(run: Run, tmp_path: Path) -> None:
    for words in (
        ("encode", "", "-o", tmp_path / "out"),
        ("encode", "a.png", "-o", ""),
        ("encode", "a.png", "--roi", ""),
        ("decode", "a.cwic", "--model", ""),
    ):
        code, _, err = run(*words)
        assert code == 2
        assert "found nothing" in err


def test_two_dashes_end_the_options(run: Run, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = run("info", "--", "-missing.cwic")
    assert code == 1
    assert "-missing.cwic" in err


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
        ["encode", "-", "--roi", "-"],
        ["encode", "a.png", "--roi-strength", "2"],
        ["encode", "a.png", "-q", "40", "--strict"],
        ["batch", "a", "b", "--strict"],
        ["compare", "a.png", "-o", "b.png"],
        ["compare", "a.png", "-o", "b.cwic"],
        ["batch", "a"],
        ["batch", "a", "b", "--to", "gif"],
        ["batch", "a", "b", "--to", "png", "-q", "50"],
        ["batch", "a", "b", "--fast"],
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
        (["batch", "a", "b", "--roi", "m.png"], "--help lists the options"),
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
    assert arguments.size_bytes(text) == size_bytes


@pytest.mark.parametrize("text", ["", "kB", "-1kB", "1e3", "0", "0.4", "1,5MB", "40 k B", "٤kB"])
def test_a_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected"):
        arguments.size_bytes(text)


def verb_parsers() -> dict[str, argparse.ArgumentParser]:
    parser = arguments.build_parser()
    return next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction)).choices


def test_the_options_of_every_verb_are_frozen() -> None:
    found = {
        name: {word for action in verb._actions for word in action.option_strings}
        - {"-h", "--help", "--quiet", "-v", "--verbose"}
        for name, verb in verb_parsers().items()
    }
    output = {"-o", "--output", "-f", "--force"}
    rate = {"-q", "--quality", "--bpp", "--target-size", "--psnr", "--ssimulacra2"}
    rate |= {"-e", "--effort"}
    assert found == {
        "encode": output
        | rate
        | {"--strict", "--roi", "--roi-strength", "--saliency", "--strip", "--model"}
        | {"--lossless", "--max-pixels", "--truncated"},
        "decode": output | {"--to", "--model", "--region", "--reduce", "--fast", "--max-pixels"},
        "view": output
        | {"-q", "--quality", "--bpp", "--lossless", "--roi", "--saliency", "--model"}
        | {"--truncated"},
        "compare": output
        | rate
        | {"--strict", "--lossless", "--roi", "--saliency", "--model", "--truncated"},
        "batch": rate
        | {"--lossless", "--truncated", "--fast"}
        | {"--to", "--strict", "--strip", "--model", "-j", "--jobs", "--ray", "-f", "--force"},
        "serve": {"--host", "--port", "--max-upload", "--model"},
        "info": {"--json"},
        "models": {"--json", "--web", "--model"},
        "train": {"--data", "--out", "--init-from", "--max-seconds", "--threads", "--device"},
        "export": output | {"--identity-of"},
        "evaluate": {"--codecs", "--out", "-j", "--jobs"},
        "data": {"-o", "--output"},
        "completion": set(),
    }


def test_the_help_of_every_verb_ends_with_examples_that_are_true(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, verb in {"": arguments.build_parser(), **verb_parsers()}.items():
        lines = verb.format_help().partition("examples:\n")[2].splitlines()
        assert lines
        for line in lines:
            command = re.split(r"  +|>", line.strip())[0].split()
            assert command[:2] == ["cwic", name or command[1]]
            if command[-1] != "--help":
                arguments.parse(command[1:])


def test_the_help_has_a_line_for_each_verb_and_none_breaks_on_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    lines = arguments.build_parser().format_help().splitlines()
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
