"""Models for the decoder in a browser."""

import hashlib
import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from cwic import model_file
from cwic.cli.main import main
from cwic.errors import CodecError, ModelError
from cwic.web_model import write_web_models

GOLDEN = Path(__file__).parent / "data" / "golden"
MODEL = GOLDEN / "flagship.cwicmodel"


@pytest.fixture
def with_fast(tmp_path: Path) -> Path:
    """The golden model with its synthesis as a light one, too."""
    model = model_file.load(MODEL)
    path = tmp_path / "fast.cwicmodel"
    graphs = {**model.graphs, "fast": model.graphs["synthesis"]}
    model_file.save(replace(model, graphs=graphs), path)
    return path


def entries(path: Path) -> set[str]:
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as file:
        return set(file.namelist())


def test_a_model_without_a_light_synthesis_is_one_part(tmp_path: Path) -> None:
    part, index = write_web_models([MODEL], tmp_path)
    listed = json.loads(index.read_text())["models"]
    identity = model_file.read_info(MODEL).identity.hex()
    assert listed[identity]["first"] == {
        "file": part.name,
        "bytes": part.stat().st_size,
        "graphs": ["synthesis"],
    }
    assert "full" not in listed[identity]


def test_the_light_synthesis_comes_first_and_the_full_one_apart(
    with_fast: Path, tmp_path: Path
) -> None:
    first, full, _ = write_web_models([with_fast], tmp_path / "web")
    assert {"manifest.json", "fast.onnx", "symbol_tables.npy"} <= entries(first)
    assert not {"synthesis.onnx", "analysis.onnx", "hyper_analysis.onnx"} & entries(first)
    assert entries(full) == {"manifest.json", "synthesis.onnx"}


def test_a_part_is_named_by_identity_and_bytes_and_is_the_same_again(tmp_path: Path) -> None:
    part, _ = write_web_models([MODEL], tmp_path / "a")
    again, _ = write_web_models([MODEL], tmp_path / "b")
    digest = hashlib.sha256(part.read_bytes()).hexdigest()
    identity = model_file.read_info(MODEL).identity.hex()
    assert part.name == again.name == f"{identity}-first-{digest[:16]}.cwicmodel"


def test_models_that_a_folder_has_stay_in_its_index(tmp_path: Path) -> None:
    model = model_file.load(MODEL)
    other = model_file.build(
        "other",
        model.family,
        decoding=model.decoding,
        encoding=model.encoding,
        graphs=model.graphs,
        arrays={**model.arrays, "magnitudes": model.arrays["magnitudes"] // 2},
    )
    model_file.save(other, tmp_path / "other.cwicmodel")
    write_web_models([MODEL], tmp_path)
    *_, index = write_web_models([tmp_path / "other.cwicmodel"], tmp_path)
    assert len(json.loads(index.read_text())["models"]) == 2


def test_a_model_of_another_family_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="found one of cvpr2018"):
        write_web_models([GOLDEN / "cvpr2018.cwicmodel"], tmp_path / "web")
    assert not (tmp_path / "web").exists()


def test_an_index_of_something_else_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text("{}")
    with pytest.raises(CodecError, match="expected an index of models"):
        write_web_models([MODEL], tmp_path)
    assert (tmp_path / "index.json").read_text() == "{}"


def test_the_command_writes_them_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "--web", str(tmp_path), "--model", str(MODEL)]) == 0
    said = capsys.readouterr().out
    assert len(said.splitlines()) == 2
    assert all(line.startswith(str(tmp_path)) for line in said.splitlines())


def test_a_model_without_a_folder_is_wrong_usage() -> None:
    with pytest.raises(SystemExit):
        main(["models", "--model", str(MODEL)])
