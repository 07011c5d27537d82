"""What README and docs say is true: numbers are those of the bundled models, commands run."""

import importlib
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from conftest import script_module
from PIL import Image

from cwic.cli.main import main
from cwic.model_file import bundled_models

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
MEASUREMENTS = DOCS / "measurements"
INDEX = MEASUREMENTS / "README.md"
MEASURED = sorted(set(MEASUREMENTS.glob("*.md")) - {INDEX})
PAGES = (
    ROOT / "README.md",
    *(DOCS / f"{name}.md" for name in ("results", "gallery", "models")),
    *MEASURED,
)
EXERCISE = ROOT / "examples" / "autoencoder" / "README.md"
BLOCK = re.compile(r"<!-- results: (.*?) -->\n\n    (.*?)\n\n(.*?)\n\n<!-- end -->", re.DOTALL)
IDENTITY = re.compile(r"\b[0-9a-f]{16}\b")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_numbers_are_those_of_the_bundled_models(page: Path) -> None:
    """`make results` measures them again; a page may say for a time which are earlier."""
    text = page.read_text()
    blocks = BLOCK.findall(text)
    assert len(blocks) == text.count("<!-- results:") == text.count("<!-- end -->") > 0
    known = {(info.name, info.identity.hex()) for info in bundled_models()}
    known |= set(re.findall(r"^Earlier weights: `([\w-]+) ([0-9a-f]{16})`", text, re.MULTILINE))
    for command, shown, numbers in blocks:
        assert shown == command
        found = dict(re.findall(r"([\w-]+) ([0-9a-f]{16})\b", numbers))
        # Networks that are trained for a block are not bundled.
        assert found or "TRAIN" in command.split(), command
        assert found.items() <= known, command
    assert set(IDENTITY.findall(text)) <= {identity for _, identity in known}


def anchors_of(text: str) -> set[str]:
    """What links to the headings of a page end with."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "page",
    [*sorted({*PAGES, *DOCS.glob("*.md")}), INDEX, ROOT / "CONTRIBUTING.md", EXERCISE],
    ids=lambda page: f"{page.parent.name}-{page.name}",
)
def test_every_picture_page_and_heading_that_a_page_leads_to_is_there(page: Path) -> None:
    text = page.read_text()
    for link, _, heading in re.findall(r"\]\(([^)#\s]*)(#([^)\s]*))?\)", text):
        if "://" in link:
            continue
        target = page.parent / link if link else page
        assert target.exists(), link
        if heading:
            assert heading in anchors_of(target.read_text()), f"{link}#{heading}"


@pytest.fixture
def results() -> ModuleType:
    """`scripts/results`."""
    return script_module("results")


def test_results_puts_what_commands_print_in_place_and_trains_only_if_asked(
    tmp_path: Path, results: ModuleType
) -> None:
    page = tmp_path / "page.md"
    counted = "python -c 'import sys; print(len(sys.argv[1:]))' KODAK"
    trained = f"{counted} TRAIN"
    blocks = (f"<!-- results: {command} -->\nold\n<!-- end -->" for command in (counted, trained))
    page.write_text("before\n" + "\nbetween\n".join(blocks) + "\nafter\n")
    given = {"KODAK": str(tmp_path), "TRAIN": ""}
    results.__dict__["renew"](page, tuple(given.items()), "")
    text = page.read_text()
    assert f"<!-- results: {counted} -->\n\n    {counted}\n\n1\n\n<!-- end -->" in text
    assert text.count("old") == 1
    given["TRAIN"] = str(tmp_path)
    results.__dict__["renew"](page, tuple(given.items()), "")
    text = page.read_text()
    assert f"    {trained}\n\n2\n\n" in text
    assert text.startswith("before\n")
    assert text.count("between") == text.count("after") == 1


def test_results_of_one_folder_leave_those_of_another_as_they_are(
    tmp_path: Path, results: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    commands = [
        f"python -c 'import sys; print(sys.argv[1])' {word}" for word in ("KODAK", "EVERYDAY")
    ]
    page.write_text("".join(f"<!-- results: {c} -->\nas it was\n<!-- end -->\n" for c in commands))
    (tmp_path / "pages.toml").write_text("page = []\n")
    monkeypatch.setitem(results.__dict__, "MEASUREMENTS", tmp_path)
    monkeypatch.setitem(results.__dict__, "PAGES", (page,))
    monkeypatch.setattr(sys, "argv", ["results", "", "--everyday", str(tmp_path)])
    results.__dict__["main"]()
    assert page.read_text().count("as it was") == 1
    assert f"    {commands[1]}\n\n{tmp_path}\n\n<!-- end -->" in page.read_text()
    monkeypatch.setattr(sys, "argv", ["results", ""])
    with pytest.raises(SystemExit, match="KODAK, EVERYDAY or TRAIN"):
        results.__dict__["main"]()


def test_pages_of_measurements_hold_nothing_that_was_written_by_hand(results: ModuleType) -> None:
    listed = results.__dict__["measurements"]()
    assert [page.path for page in listed] != []
    assert {page.path for page in listed} == set(MEASURED)
    texts = {page.name: page.path.read_text() for page in listed}
    for page in listed:
        assert texts[page.name] == page.text(results.__dict__["blocks_of"](texts[page.name]))
        for output in re.findall(r"<!-- results: .*?<!-- end -->", texts[page.name], re.DOTALL):
            assert len(results.__dict__["DATE"].findall(output)) == 1, page.name
    assert INDEX.read_text() == results.__dict__["index"](listed, texts)


def test_a_page_of_measurements_says_when_and_leads_to_pictures_above_it(
    tmp_path: Path, results: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = "python -c 'print(\"![a](plots/a.png) [b](https://c.d)\")'"
    words = {"title": "A page", "question": "How many?", "about": "Counted."}
    page = words | {"name": "a", "commands": [command]}
    listed = "\n".join(f"{key} = {json.dumps(value)}" for key, value in page.items())
    (tmp_path / "pages.toml").write_text(f"[[page]]\n{listed}\n")
    monkeypatch.setitem(results.__dict__, "MEASUREMENTS", tmp_path)
    monkeypatch.setitem(results.__dict__, "PAGES", ())
    monkeypatch.setattr(sys, "argv", ["results", "--write"])
    results.__dict__["main"]()
    assert "Not measured yet." in (tmp_path / "a.md").read_text()
    assert "| How many? | [A page](a.md) |  | not yet |" in (tmp_path / "README.md").read_text()
    monkeypatch.setattr(sys, "argv", ["results", "", "--everyday", str(tmp_path)])
    results.__dict__["main"]()
    text = (tmp_path / "a.md").read_text()
    assert re.search(r"\n\nMeasured on \d{4}-\d\d-\d\d\.\n\n!\[a\]\(../plots/a.png\)", text)
    assert "[b](https://c.d)" in text
    assert "not yet" not in (tmp_path / "README.md").read_text()


SHORT = sorted(
    {
        (command, numbers)
        for page in (ROOT / "README.md", DOCS / "results.md", DOCS / "models.md")
        for command, _, numbers in BLOCK.findall(page.read_text())
        if "equal_size" not in command  # has a test of its own
    }
)


@pytest.mark.parametrize(("command", "numbers"), SHORT, ids=[command for command, _ in SHORT])
def test_a_short_table_says_what_its_command_prints(
    command: str,
    numbers: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script, *words = shlex.split(command)[1:]
    if "model_card" in script:
        pytest.importorskip("onnx")
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.setattr(sys, "argv", [script, *words])
    module = importlib.import_module(Path(script).stem)
    module.__dict__["main"]()
    assert capsys.readouterr().out.strip() == numbers


def test_the_short_table_marks_the_best_and_whose_files_are_much_too_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    summary = importlib.import_module("summary")
    of_codecs = {
        "cwic-visual": ("70.0", ""),
        "cwic-psnr": ("90.0", ""),  # not shown, so never the best
        "AVIF 4:4:4": ("80.0", "1"),
        "AVIF 4:2:0": ("80.0", ""),
        "JPEG 4:2:0": ("9.0", "2"),
    }
    head = "| kind | codec | SSIMULACRA2 | its worst picture | PSNR dB | files under 90% |"
    rows = [
        f"| {kind} (2) | {codec} | {score} | {kind}-a {score} | 30.00 | {small} |"
        for kind in summary.__dict__["KINDS"]
        for codec, (score, small) in of_codecs.items()
    ]
    inner = "\n".join(["Files of 0.5 bpp:", "", head, "|---|---|---|---|---|---|", *rows])
    (tmp_path / "everyday.md").write_text(
        f"<!-- results: x -->\ncwic-visual {'0' * 16}\n\n{inner}\n<!-- end -->\n"
    )
    monkeypatch.setattr(summary, "PAGES", tmp_path)
    summary.__dict__["everyday"]()
    out = capsys.readouterr().out
    assert "| photographs (2) | 70.0 | **80.0**† | **80.0** | 9.0† | 70.0 |  |" in out


def test_every_experiment_has_a_row_in_the_table_on_top() -> None:
    text = (DOCS / "experiments.md").read_text()
    sections = re.findall(r"^## (.*)$", text, re.MULTILINE)
    rows = re.findall(r"^\| (.+\?) \| (.+) \| \[(.*)\]\(#.*\) \|$", text, re.MULTILINE)
    assert [section for _, _, section in rows] == sections


def test_every_bundled_model_has_numbers() -> None:
    identities = {info.identity.hex() for info in bundled_models()}
    assert identities <= set(IDENTITY.findall(INDEX.read_text()))


def test_what_the_readme_says_to_make_and_to_install_is_there() -> None:
    text = (ROOT / "README.md").read_text() + (ROOT / "CONTRIBUTING.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^ {4}make (\w+)", text, re.MULTILINE))
    assert targets >= {"demo", "test", "results", "gallery"}
    assert targets <= set(re.findall(r"^(\w+):", makefile, re.MULTILINE))
    extras = {
        extra
        for named in re.findall(r"pip install '\.\[([\w,]+)\]'", text)
        for extra in named.split(",")
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert extras
    assert extras <= set(project["optional-dependencies"])


def readme_commands() -> list[list[str]]:
    """The words after `cwic` of every command of the README, one after the other."""
    lines = re.findall(
        r"^    (cwic .*?)(?:  +#.*)?$", (ROOT / "README.md").read_text(), re.MULTILINE
    )
    return [shlex.split(line)[1:] for line in lines]


def trains(words: list[str]) -> bool:
    return words[0] in ("train", "export") or "mine.cwicmodel" in words


def test_the_commands_of_the_readme_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Image.open(ROOT / "examples" / "samples" / "coffee.png") as sample:
        photo = sample.convert("RGB").resize((256, 170))
    photo.save(tmp_path / "photo.png")
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    photo.save(tmp_path / "photos" / "deep" / "one.png")
    mask = np.zeros((170, 256), np.uint8)
    mask[40:120, 60:200] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    monkeypatch.chdir(tmp_path)
    ran = 0
    for words in readme_commands():
        if trains(words) or words[0] == "evaluate":  # those have tests of their own
            continue
        assert main(words) == 0, (words, capsys.readouterr().err)
        ran += 1
    assert ran >= 10


@pytest.mark.slow
def test_the_training_of_the_readme_runs_with_its_recipe_made_small(
    tmp_path: Path,
    picture_folder: Path,
    one_torch_thread: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("onnx")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FOLDER").symlink_to(picture_folder)
    shutil.copy(picture_folder / "picture00.png", tmp_path / "photo.png")
    commands = [words for words in readme_commands() if trains(words)]
    assert [words[0] for words in commands] == ["train", "export", "encode", "decode"]
    small = {"steps": 2, "warmup_steps": 1, "batch": 2, "crop_px": 64, "groups": [2, 3]}
    small |= {"validation_crop_px": 64, "validation_count": 2, "validate_every": 2}
    small |= {"edge_channels": 4, "width_8": 8, "width_16": 8, "detail_channels": 2}
    small |= {"hyper_channels": 4, "hyper_width": 4, "mean_width": 6, "scale_width": 5}
    recipe = Path(commands[0][1])
    text = (ROOT / recipe).read_text()
    for key, value in small.items():
        text, count = re.subn(rf"(?m)^{key} = .*$", f"{key} = {value}", text)
        assert count, key
    recipe.parent.mkdir()
    recipe.write_text(text)
    for words in commands:
        assert main(words) == 0, (words, capsys.readouterr().err)
    with Image.open("photo.png") as photo, Image.open("mine.png") as decoded:
        assert decoded.size == photo.size


@pytest.mark.slow
def test_the_evaluation_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("scipy")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "KODAK").mkdir()
    with Image.open(ROOT / "examples" / "samples" / "coffee.png") as sample:
        sample.convert("RGB").resize((192, 170)).save(tmp_path / "KODAK" / "one.png")
    (words,) = (words for words in readme_commands() if words[0] == "evaluate")
    assert main(words) == 0, capsys.readouterr().err
    assert (tmp_path / "results" / "report.html").stat().st_size > 10_000


def test_the_picture_of_the_readme_is_made_by_the_command_beside_it(tmp_path: Path) -> None:
    command, _, shown = BLOCK.findall((ROOT / "README.md").read_text())[0]
    words = shlex.split(command)
    assert words == ["python", "benchmarks/equal_size.py"]
    out = tmp_path / "picture.jpg"
    done = subprocess.run(
        [sys.executable, ROOT / words[1], "--out", out], check=True, stdout=subprocess.PIPE
    )
    printed = done.stdout.decode()
    assert printed.splitlines()[2:] == shown.splitlines()[2:]  # but for the picture's place
    with Image.open(out) as made, Image.open(ROOT / "docs" / "pictures" / "equal-size.jpg") as kept:
        assert made.size == kept.size
    assert 20_000 < out.stat().st_size < 150_000


def test_the_python_blocks_of_the_readme_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = Image.open(ROOT / "examples" / "samples" / "coffee.png")
    sample.save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})  # the README is ours
