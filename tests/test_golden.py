"""Files that people have must decode for ever, to the same symbols on every machine."""

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cwic.bitstream import read_header
from cwic.codec import Codec, loaded_for
from cwic.errors import BitstreamError
from cwic.families.cvpr2018 import coder as cvpr2018_coder
from cwic.model_file import bundled_models
from cwic.whole import WholeReader

FOLDER = Path(__file__).parent / "data" / "golden"
FILES = sorted(FOLDER.glob("*.cwic"))
WHOLE = [file for file in FILES if file.name.startswith("whole-")]
RELEASED = sorted((FOLDER.parent / "released").glob("*.cwic"))

# What numpy and OpenBLAS can be told to do without, or to pretend to be.
MACHINES = {
    "one thread": {"OPENBLAS_NUM_THREADS": "1"},
    "two threads": {"OPENBLAS_NUM_THREADS": "2"},
    "Prescott": {"OPENBLAS_CORETYPE": "Prescott"},
    "Haswell": {"OPENBLAS_CORETYPE": "Haswell"},
    "SkylakeX": {"OPENBLAS_CORETYPE": "SkylakeX"},
    "numpy without AVX2 and AVX512": {"NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 AVX512F AVX512_SKX"},
}
NEEDS = {"Haswell": "avx2", "SkylakeX": "avx512f"}


def codec_of(file: Path) -> Codec | WholeReader:
    if file in WHOLE:
        return WholeReader()
    if file in RELEASED:  # by the identity in the file, as a person's files are read
        return loaded_for(file.read_bytes(), threads=1)
    return Codec.load(FOLDER / f"{file.name.partition('-')[0]}.cwicmodel", threads=1)


def hashes(file: Path) -> list[str]:
    symbols = codec_of(file).symbols(file.read_bytes())
    return [hashlib.sha256(tile.astype("<i4")).hexdigest() for tile in symbols]


def expected_hashes(file: Path) -> list[str]:
    found: list[str] = json.loads(file.with_suffix(".json").read_text())["symbols"]
    return found


def test_there_are_golden_files_and_they_are_small() -> None:
    assert len(FILES) >= 24
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 450_000
    assert sum(file.stat().st_size for file in RELEASED) < 20_000
    assert all(path.stat().st_size < 150_000 for path in FOLDER.iterdir())


@pytest.mark.parametrize("file", [*FILES, *RELEASED], ids=lambda file: file.stem)
def test_a_golden_file_decodes_to_its_symbols(file: Path) -> None:
    assert hashes(file) == expected_hashes(file)


@pytest.mark.parametrize("file", [*FILES, *RELEASED], ids=lambda file: file.stem)
def test_a_golden_file_decodes_to_its_picture_within_one(file: Path) -> None:
    decoded = codec_of(file).decode(file.read_bytes())
    with Image.open(file.with_suffix(".png")) as expected:
        assert decoded.mode == expected.mode
        difference = np.abs(np.asarray(decoded).astype(int) - np.asarray(expected))
    assert difference.max() <= 1


@pytest.mark.parametrize("kind", ["flagship", "cvpr2018", "whole"])
def test_a_golden_file_gives_its_metadata_to_the_byte(kind: str) -> None:
    file = FOLDER / f"{kind}-metadata.cwic"
    expected = json.loads(file.with_suffix(".json").read_text())["metadata"]
    assert expected.keys() == {"icc_profile", "exif", "xmp"}
    decoded = codec_of(file).decode(file.read_bytes())
    found = {kind: hashlib.sha256(decoded.info[kind]).hexdigest() for kind in expected}
    assert found == expected


def test_every_bundled_model_has_golden_files_of_its_release() -> None:
    """Before a release, `scripts/golden_files tests/data/released released` makes them."""
    found = {read_header(file.read_bytes()).identity for file in RELEASED}
    assert {model.identity for model in bundled_models()} <= found


@pytest.mark.parametrize("family", ["flagship", "cvpr2018"])
def test_the_half_of_a_model_that_decodes_reads_its_files(family: str, tmp_path: Path) -> None:
    """What stays available of a model that a release replaces, see CONTRIBUTING.md."""
    half = tmp_path / "half.cwicmodel"
    with (
        zipfile.ZipFile(FOLDER / f"{family}.cwicmodel") as whole,
        zipfile.ZipFile(half, "w", zipfile.ZIP_DEFLATED) as kept,
    ):
        for name in whole.namelist():
            if name not in ("analysis.onnx", "hyper_analysis.onnx"):
                kept.writestr(name, whole.read(name))
    assert half.stat().st_size < (FOLDER / f"{family}.cwicmodel").stat().st_size
    for file in (FOLDER / f"{family}-high.cwic", FOLDER / f"{family}-alpha.cwic"):
        codec = loaded_for(file.read_bytes(), str(half), threads=1)
        decoded = np.asarray(codec.decode(file.read_bytes()))
        assert np.array_equal(decoded, codec_of(file).decode(file.read_bytes()))


def test_a_golden_file_of_a_picture_kept_whole_is_exactly_its_picture() -> None:
    assert len(WHOLE) >= 6
    for file in WHOLE:
        with Image.open(file.with_suffix(".png")) as expected:
            assert np.array_equal(codec_of(file).decode(file.read_bytes()), expected)


def test_a_golden_file_says_how_many_colours_are_left() -> None:
    header = read_header((FOLDER / "whole-fewer-colours.cwic").read_bytes())
    assert (header.has_model, header.is_whole, header.num_colours) == (False, False, 12)


@pytest.mark.parametrize("machine", MACHINES)
def test_another_kind_of_machine_reads_the_same_symbols(machine: str) -> None:
    """In a process of its own: a BLAS chooses its kernels when it is loaded."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"]
    if "OPENBLAS_CORETYPE" in MACHINES[machine] and "openblas" not in blas:
        pytest.skip(f"this numpy computes with {blas}, which has no {machine} kernels")
    needed = NEEDS.get(machine)
    if needed is not None and needed not in _cpu_flags():
        pytest.skip(f"this processor has no {needed}: no {machine} kernels")
    code = (
        "import sys, warnings; warnings.simplefilter('ignore'); sys.path.insert(0, sys.argv[1])\n"
        "from test_golden import FILES, hashes\n"
        "print([hashes(file) for file in FILES])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent)],
        env=os.environ | MACHINES[machine],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str([expected_hashes(file) for file in FILES])


def test_one_float_in_the_path_of_the_tables_would_be_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The network that chooses tables, evaluated in float32, loses its way."""
    from cwic.families.flagship import step_network

    monkeypatch.setattr(step_network.ScaleNetwork, "dtype", np.float32)
    monkeypatch.setattr(
        step_network.ScaleNetwork,
        "activate",
        lambda _, x: np.clip(x - np.float32(0.5), 0, 32767),
    )

    assert sum(not as_expected(file) for file in FILES) >= 2


def test_one_float_in_the_path_of_the_bits_would_be_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Activations that are not rounded, in float32."""
    monkeypatch.setattr(
        cvpr2018_coder,
        "rectified",
        lambda sums: np.clip(sums.astype(np.float32) / np.float32(4096), 0, 32767),
    )
    files = [file for file in FILES if file.stem.startswith("cvpr2018-")]
    assert sum(not as_expected(file) for file in files) >= 2


def as_expected(file: Path) -> bool:
    try:
        return hashes(file) == expected_hashes(file)
    except BitstreamError:
        return False


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return {flag for line in lines if line.startswith("flags") for flag in line.split()}
