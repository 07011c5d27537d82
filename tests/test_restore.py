"""From a model file back to weights: what went in comes out."""

import copy
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch

from cwic import model_file
from cwic.errors import TrainingError
from cwic.training import export_cvpr2018, export_flagship
from cwic.training.model.flagship import FlagshipNetwork
from cwic.training.model.network import Cvpr2018Config, Cvpr2018Network
from cwic.training.restore import preset_of, restore_weights

GOLDEN = Path(__file__).parent / "data" / "golden"

Network = TypeVar("Network", Cvpr2018Network, FlagshipNetwork)


def told_apart(network: Network) -> Network:
    """With biases that differ: those of an untrained network are all zero."""
    result = copy.deepcopy(network)
    with torch.no_grad():
        for name, parameter in result.named_parameters():
            if name.endswith("bias"):
                parameter.add_(0.01 * torch.randn_like(parameter))
    return result


def restored(path: Path, network: Network) -> Network:
    """The network of a model file, nothing of the given one's weights left."""
    result = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in result.parameters():
            parameter.fill_(0.125)
    result.load_state_dict(restore_weights(path, result))
    return result


def test_a_paper_model_that_is_restored_and_exported_again_is_the_same_model(
    tiny_network: Cvpr2018Network, tmp_path: Path
) -> None:
    network = told_apart(tiny_network)
    path = tmp_path / "tiny.cwicmodel"
    before = export_cvpr2018.build_model(network, "tiny")
    model_file.save(before, path)
    again = restored(path, network)
    assert export_cvpr2018.build_model(again, "again").identity == before.identity


def test_a_paper_model_with_an_older_network_of_levels_leaves_that_one_as_it_is() -> None:
    path = GOLDEN / "cvpr2018steps.cwicmodel"
    assert "level_tables" in model_file.load(path).arrays
    sizes = Cvpr2018Config(
        width=1 / 16, code_channels=8, levels=4, context_maps=2, context_reach=1, context_width=16
    )
    network = Cvpr2018Network(sizes)
    weights = restore_weights(path, network)
    for name, parameter in network.named_parameters():
        as_it_was = torch.equal(weights[name], parameter)
        assert as_it_was == name.startswith("level_context."), name


def test_a_flagship_that_is_restored_and_exported_again_differs_in_fitted_statistics_alone(
    tiny_flagship_network: FlagshipNetwork, tiny_flagship_path: Path, tmp_path: Path
) -> None:
    lively = told_apart(tiny_flagship_network)
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
        restore_weights(untrained, tiny_network)
    with pytest.raises(TrainingError, match="expected a model of family cwic, found cvpr2018"):
        restore_weights(tiny_model_path, tiny_flagship_network)
    with pytest.raises(TrainingError, match="expected a model of family cvpr2018, found cwic"):
        restore_weights(tiny_flagship_path, tiny_network)
    network = told_apart(tiny_flagship_network)
    model_file.save(export_flagship.build_model(network, "right"), tmp_path / "right.cwicmodel")
    network.synthesis.edge = torch.nn.Conv2d(5, 48, 3)
    with pytest.raises(TrainingError, match=r"expected synthesis\.edge\.weight of shape"):
        restore_weights(tmp_path / "right.cwicmodel", network)


@pytest.mark.parametrize("name", ["cwic-psnr", "cwic-visual"])
def test_a_bundled_flagship_goes_into_the_network_of_its_preset(name: str) -> None:
    path = model_file.find(name)
    model = model_file.load(path)
    network = FlagshipNetwork(preset_of(model))
    weights = restore_weights(path, network)
    # A light synthesis that a model does not have keeps the values that it has.
    kept = torch.equal(weights["fast.edge.weight"], network.fast.edge.weight)
    assert kept == ("fast" not in model.graphs)
    network.load_state_dict(weights, strict=False)


def test_no_preset_has_other_groups(tiny_flagship_path: Path) -> None:
    with pytest.raises(TrainingError, match="groups"):
        preset_of(model_file.load(tiny_flagship_path))
