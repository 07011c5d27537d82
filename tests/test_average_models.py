"""`scripts/average_models`: weights of several models become those of one."""

import copy
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from conftest import script_module

pytest.importorskip("torch")

from cwic import model_file

if TYPE_CHECKING:
    from cwic.training.cvpr2018.network import Cvpr2018Network

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


def average_models(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    """Runs the program with these arguments."""
    monkeypatch.setattr(sys, "argv", ["average_models", *map(str, words)])
    script_module("average_models").main()


def test_an_average_lies_between_its_models_and_follows_the_shares(
    recipe: Path,
    tiny_model_path: Path,
    halved: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "average.cwicmodel"
    average_models(monkeypatch, recipe, tiny_model_path, halved, "--shares", 3, 1, "-o", out)
    whole, half, average = map(model_file.load, (tiny_model_path, halved, out))
    assert (average.name, average.family) == ("average", "cvpr2018")
    for name, array in whole.arrays.items():
        expected = 0.75 * array.astype(float) + 0.25 * half.arrays[name]
        np.testing.assert_allclose(average.arrays[name], expected, atol=1.01, err_msg=name)


def test_a_share_for_each_model_is_expected(
    recipe: Path, tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "average.cwicmodel"
    expected = r"expected a share of at least 0 for each of 1 models, found \[1\.0, 1\.0\]"
    with pytest.raises(SystemExit, match=expected):
        average_models(monkeypatch, recipe, tiny_model_path, "--shares", 1, 1, "-o", out)
    assert not out.exists()
