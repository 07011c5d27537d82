"""From a network to a model file and back to weights: what went in comes out."""

import copy
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch

from cwic import model_file
from cwic.errors import TrainingError
from cwic.training.cvpr2018 import export as export_cvpr2018
from cwic.training.cvpr2018 import restore as restore_cvpr2018
from cwic.training.cvpr2018.network import Cvpr2018Network
from cwic.training.flagship import export as export_flagship
from cwic.training.flagship import restore as restore_flagship
from cwic.training.flagship.network import FlagshipNetwork
from cwic.training.flagship.restore import preset_of

pytestmark = pytest.mark.usefixtures("one_torch_thread")

Network = TypeVar("Network", Cvpr2018Network, FlagshipNetwork)


def with_biases(network: Network) -> Network:
    """With biases that differ: those of an untrained network are all zero."""
    result = copy.deepcopy(network)
    with torch.no_grad():
        for name, parameter in result.named_parameters():
            if name.endswith("bias"):
                parameter.add_(0.01 * torch.randn_like(parameter))
    return result


def restored_weights(path: Path, network: Network) -> dict[str, torch.Tensor]:
    if isinstance(network, FlagshipNetwork):
        return restore_flagship.restored_weights(path, network)
    return restore_cvpr2018.restored_weights(path, network)


def restored(path: Path, network: Network) -> Network:
    """The network of a model file, nothing of the given one's weights left."""
    result = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in result.parameters():
            parameter.fill_(0.125)
    result.load_state_dict(restored_weights(path, result))
    return result


def test_a_paper_model_that_is_restored_and_exported_again_is_the_same_model(
    tiny_network: Cvpr2018Network, tmp_path: Path
) -> None:
    network = with_biases(tiny_network)
    path = tmp_path / "tiny.cwicmodel"
    before = export_cvpr2018.build_model(network, "tiny")
    model_file.save(before, path)
    again = restored(path, network)
    assert export_cvpr2018.build_model(again, "again").identity == before.identity


def test_a_flagship_that_is_restored_and_exported_again_differs_in_fitted_statistics_alone(
    tiny_flagship_network: FlagshipNetwork, tiny_flagship_path: Path, tmp_path: Path
) -> None:
    lively = with_biases(tiny_flagship_network)
    with torch.no_grad():
        for module in (lively.hyper_model, lively.level_model):
            for parameter in module.parameters():
                parameter.uniform_(-0.1, 0.1)
    path = tmp_path / "lively.cwicmodel"
    before = export_flagship.build_model(lively, "lively", with_fast=True)
    model_file.save(before, path)
    again = restored(path, lively)
    after = export_flagship.build_model(again, "lively", with_fast=True)
    assert before.graphs == after.graphs
    for name, array in before.arrays.items():
        if name in ("hyper_tables", "level_tables"):
            p, found = (model.arrays[name] / 2.0**16 for model in (before, after))
            # Bits that the fitted tables cost more, of each table's mean.
            extra = (p * np.log2((p + 1e-9) / (found + 2.0**-16))).sum(axis=1)
            assert extra.max() < 0.01
        else:
            np.testing.assert_array_equal(array, after.arrays[name], err_msg=name)


def test_a_model_of_other_sizes_of_another_family_or_with_holes_is_refused(
    tiny_flagship_network: FlagshipNetwork,
    tiny_network: Cvpr2018Network,
    tiny_model_path: Path,
    tiny_flagship_path: Path,
    tmp_path: Path,
) -> None:
    untrained = tmp_path / "untrained.cwicmodel"
    model_file.save(export_cvpr2018.build_model(tiny_network, "untrained"), untrained)
    with pytest.raises(TrainingError, match=r"expected weights of .* found none"):
        restored_weights(untrained, tiny_network)
    with pytest.raises(TrainingError, match="expected a model of family flagship, found cvpr2018"):
        restored_weights(tiny_model_path, tiny_flagship_network)
    with pytest.raises(TrainingError, match="expected a model of family cvpr2018, found flagship"):
        restored_weights(tiny_flagship_path, tiny_network)
    network = with_biases(tiny_flagship_network)
    model_file.save(export_flagship.build_model(network, "right"), tmp_path / "right.cwicmodel")
    network.synthesis.edge = torch.nn.Conv2d(5, 48, 3)
    with pytest.raises(TrainingError, match=r"expected synthesis\.edge\.weight of shape"):
        restored_weights(tmp_path / "right.cwicmodel", network)


@pytest.mark.parametrize("name", ["cwic-psnr", "cwic-visual"])
def test_a_bundled_flagship_goes_into_the_network_of_its_preset(name: str) -> None:
    path = model_file.find(name)
    model = model_file.load(path)
    network = FlagshipNetwork(preset_of(model))
    weights = restored_weights(path, network)
    # A light synthesis that a model does not have keeps the values that it has.
    kept = torch.equal(weights["fast.edge.weight"], network.fast.edge.weight)
    assert kept == ("fast" not in model.graphs)
    network.load_state_dict(weights, strict=False)


def test_no_preset_has_other_groups(tiny_flagship_path: Path) -> None:
    with pytest.raises(TrainingError, match="groups"):
        preset_of(model_file.load(tiny_flagship_path))
