"""`scripts/average_models`: weights of several models become those of one."""

import copy
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("torch")

from cwic import model_file

if TYPE_CHECKING:
    from cwic.training.cvpr2018.network import Cvpr2018Network

ROOT = Path(__file__).resolve().parent.parent
RECIPE = """
family = "cvpr2018"
[network]
width = 0.0625
[[stages]]
name = "main"
steps = 1
batch = 1
learning_rate = 1e-3
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def halved(tiny_network: "Cvpr2018Network", tmp_path: Path) -> Path:
    """The model of a network whose weights are half of those of `tiny_model`."""
    import torch

    from cwic.training.cvpr2018.export import build_model

    network = copy.deepcopy(tiny_network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(0.5)
    path = tmp_path / "halved.cwicmodel"
    model_file.save(build_model(network, "halved"), path)
    return path


def averaged(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "average_models"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_an_average_lies_between_its_models_and_follows_the_shares(
    recipe: Path, tiny_model_path: Path, halved: Path, tmp_path: Path
) -> None:
    out = tmp_path / "average.cwicmodel"
    found = averaged(recipe, tiny_model_path, halved, "--shares", 3, 1, "-o", out)
    assert (found.returncode, found.stderr) == (0, "")
    whole, half, average = map(model_file.load, (tiny_model_path, halved, out))
    assert (average.name, average.family) == ("average", "cvpr2018")
    for name, array in whole.arrays.items():
        expected = 0.75 * array.astype(float) + 0.25 * half.arrays[name]
        np.testing.assert_allclose(average.arrays[name], expected, atol=1.01, err_msg=name)


def test_a_share_for_each_model_is_expected(
    recipe: Path, tiny_model_path: Path, tmp_path: Path
) -> None:
    out = tmp_path / "average.cwicmodel"
    found = averaged(recipe, tiny_model_path, "--shares", 1, 1, "-o", out)
    assert found.returncode == 1
    assert "expected a share of at least 0 for each of 1 models, found [1.0, 1.0]" in found.stderr
    assert not out.exists()
