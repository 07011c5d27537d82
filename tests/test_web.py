"""The decoder for browsers: its own tests, and what it says of files that this package writes.

They need node and `make web`; those in a browser are slow and need Chromium as well.
"""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cwic import model_file
from cwic.codec import Codec
from cwic.web_model import usable_models

WEB = Path(__file__).parents[1] / "web"
NODE = shutil.which("node")
GOLDEN_MODEL = Path(__file__).parent / "data" / "golden" / "flagship.cwicmodel"

pytestmark = [
    pytest.mark.skipif(NODE is None, reason="node is not installed"),
    pytest.mark.skipif(not (WEB / "node_modules").is_dir(), reason="`make web` was not run"),
]


@pytest.fixture(scope="module")
def built() -> None:
    """What is tested is what the sources say."""
    sources = [*(WEB / "src").iterdir(), *(WEB / "assembly").iterdir(), WEB / "build.mjs"]
    program = WEB / "build" / "cwic-node.js"
    newest = max(source.stat().st_mtime for source in sources)
    if not program.exists() or program.stat().st_mtime < newest:
        run("build.mjs")


def run(*words: str, **environment: str) -> str:
    assert NODE is not None
    result = subprocess.run(
        [NODE, *words],
        cwd=WEB,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.usefixtures("built")
def test_golden_files_decode_to_their_symbols_and_pictures() -> None:
    output = run("--test", "test/golden.test.mjs")
    assert "# pass 0" not in output


@pytest.mark.slow
@pytest.mark.usefixtures("built")
def test_the_program_is_of_the_types_that_it_says() -> None:
    run("node_modules/typescript/bin/tsc", "--noEmit")


@pytest.mark.slow
@pytest.mark.usefixtures("built")
def test_ten_thousand_damaged_files_end_in_an_error_of_ours() -> None:
    run("--test", "test/damage.test.mjs", DAMAGED_FILES="10000")


@pytest.mark.slow
@pytest.mark.usefixtures("built")
def test_the_doors_of_a_page_work_in_a_browser() -> None:
    output = run("--test", "test/browser.test.mjs")
    if "# SKIP" in output:
        pytest.skip("no Chromium here")


@pytest.mark.slow
@pytest.mark.usefixtures("built")
def test_both_decoders_refuse_the_same_damaged_files(tmp_path: Path) -> None:
    from cwic.bitstream import Limits
    from cwic.errors import CodecError

    run("--test", "test/damage.test.mjs", DAMAGED_FILES="2000", DAMAGED_FOLDER=str(tmp_path))
    paths = sorted(tmp_path.glob("*.cwic"))
    expected = {}
    codec = Codec.load(GOLDEN_MODEL, threads=1)
    limits = Limits(max_pixels=160**2, max_metadata_bytes=65536, max_sections=64)
    for path in paths:
        try:
            codec.decode(path.read_bytes(), limits=limits)
            expected[path.name] = hashes(codec, path.read_bytes())
        except CodecError:
            expected[path.name] = None
    assert answers(GOLDEN_MODEL, paths, maxPixels=160**2) == expected


@pytest.mark.slow
@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("model", [GOLDEN_MODEL, *usable_models()], ids=lambda path: path.stem)
def test_both_decoders_read_the_same_symbols_and_pictures(model: Path, tmp_path: Path) -> None:
    codec, graphs = Codec.load(model, threads=1), model_file.load(model).graphs.keys()
    assert "synthesis" in graphs
    expected = {}
    for number, (picture, wishes) in enumerate(pictures()):
        path = tmp_path / f"{number:02}.cwic"
        path.write_bytes(codec.encode(picture, **wishes))
        expected[path.name] = hashes(codec, path.read_bytes())
        for graph in {"synthesis", "fast"} & graphs:
            shown = codec.decode(path.read_bytes(), fast=graph == "fast")
            np.asarray(shown.convert("RGBA")).tofile(path.with_suffix(f".{graph}.rgba"))
    paths = sorted(tmp_path.glob("*.cwic"))
    assert answers(model, paths) == expected


def pictures() -> Iterator[tuple[Image.Image, dict[str, Any]]]:
    """Noise, which no model expects: symbols beyond the tables, at all qualities and odd sizes."""
    rng = np.random.default_rng(1)
    for number in range(16):
        width, height = (int(side) for side in rng.integers(1, 150, 2))
        mode = ("RGB", "L", "RGBA", "LA")[number % 4]
        samples = rng.integers(0, 256, (height, width, len(mode)), dtype=np.uint8)
        if number % 3 == 0:
            samples = np.where(samples > 128, 255, 0).astype(np.uint8)
        picture = Image.fromarray(samples[..., 0] if mode == "L" else samples)
        wishes: dict[str, Any] = {"quality": float(rng.choice([0, 50, 100])), "lossless": "never"}
        if number % 2:
            wishes["roi"] = Image.fromarray(rng.integers(0, 256, (height, width), dtype=np.uint8))
        yield picture, wishes


def hashes(codec: Codec, data: bytes) -> list[str]:
    return [hashlib.sha256(tile.astype("<i4")).hexdigest() for tile in codec.symbols(data)]


def answers(model: Path, paths: list[Path], **limits: int) -> dict[str, list[str] | None]:
    """What the other decoder says of files: hashes of symbols, or None for an error of its own."""
    listed = "\n".join(str(path) for path in paths)
    words = ["test/answers.mjs", str(model), json.dumps(limits)]
    assert NODE is not None
    result = subprocess.run(
        [NODE, *words], cwd=WEB, input=listed, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    found: dict[str, list[str] | None] = json.loads(result.stdout)
    return found
