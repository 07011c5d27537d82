"""From a network to a model file and back to weights: what went in comes out."""

import copy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch

from cwic import model_file
from cwic.codec import Codec
from cwic.errors import TrainingError
from cwic.families.distortion import Distortion, distortion_of
from cwic.training.config import load_config
from cwic.training.cvpr2018 import export as export_cvpr2018
from cwic.training.cvpr2018.network import Cvpr2018Network
from cwic.training.families import FAMILIES
from cwic.training.flagship import export as export_flagship
from cwic.training.flagship.family import _refined_for
from cwic.training.flagship.network import FlagshipConfig, FlagshipNetwork

CONFIGS = Path(__file__).parent.parent / "configs"

pytestmark = pytest.mark.usefixtures("one_torch_thread")

Network = TypeVar("Network", Cvpr2018Network, FlagshipNetwork)


def restored_weights(path: Path, network: Network) -> dict[str, torch.Tensor]:
    family = FAMILIES["flagship" if isinstance(network, FlagshipNetwork) else "cvpr2018"]
    return family.restored(path, network)


def restored(path: Path, network: Network) -> Network:
    """The network of a model file, nothing of the given one's weights left."""
    result = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in result.parameters():
            parameter.fill_(0.125)
    result.load_state_dict(restored_weights(path, result))
    return result


def assert_stored(network: Network, again: Network, modules: tuple[str, ...]) -> None:
    """Parameters of the float transforms came back as a model file stores them."""
    expected = dict(network.named_parameters())
    for name, found in again.named_parameters():
        if name.startswith(modules):
            value = expected[name].half().float() if found.ndim >= 2 else expected[name]
            assert torch.equal(found, value), name


def assert_close_tables(
    before: dict[str, np.ndarray], after: dict[str, np.ndarray], fitted: tuple[str, ...]
) -> None:
    """Arrays are equal but for fitted tables, which cost hardly more."""
    assert before.keys() == after.keys()
    for name, array in before.items():
        if name in fitted:
            p, found = (arrays[name] / 2.0**16 for arrays in (before, after))
            # Bits that the fitted tables cost more, of each table's mean.
            extra = (p * np.log2((p + 1e-9) / (found + 2.0**-16))).sum(axis=1)
            assert extra.max() < 0.01
        else:
            np.testing.assert_array_equal(array, after[name], err_msg=name)


def test_what_a_paper_model_stores_comes_back(
    tiny_network: Cvpr2018Network, tiny_model: model_file.ModelFile, tiny_model_path: Path
) -> None:
    again = restored(tiny_model_path, tiny_network)
    assert_stored(tiny_network, again, ("analysis.", "to_code.", "importance_net.", "synthesis."))
    assert_close_tables(tiny_model.arrays, export_cvpr2018.coder_arrays(again), ())


def test_what_a_flagship_stores_comes_back_but_for_fitted_statistics(
    tiny_flagship_network: FlagshipNetwork, tiny_flagship_path: Path
) -> None:
    again = restored(tiny_flagship_path, tiny_flagship_network)
    parts = ("analysis.", "importance_net.", "hyper_analysis.", "synthesis.", "fast.", "preview.")
    assert_stored(tiny_flagship_network, again, parts)
    before = model_file.load(tiny_flagship_path).arrays
    after = export_flagship.coder_arrays(again)
    assert_close_tables(before, after, ("hyper_tables", "level_tables"))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("campaign-visual", Distortion(260.0, 1.9, 14.5, 900.0, ssimulacra2=0.12)),
        ("campaign-fast-visual", None),  # what it goes on from says it
        ("campaign-psnr", None),
    ],
)
def test_an_exported_model_says_what_it_is_refined_for(
    config: str,
    expected: Distortion | None,
    tiny_flagship_network: FlagshipNetwork,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built = model_file.ModelFile("mine", "flagship", {}, {}, {}, {}, bytes(8))

    def build(network: FlagshipNetwork, name: str, **options: Any) -> model_file.ModelFile:
        found = options["distortion"]
        return replace(built, encoding={"distortion": asdict(found)} if found else {})

    monkeypatch.setattr("cwic.training.flagship.family.build_model", build)
    read = load_config(CONFIGS / f"{config}.toml", FAMILIES)
    model = FAMILIES["flagship"].model(tiny_flagship_network, read, "mine")
    assert ("distortion" in model.encoding) == (expected is not None)
    assert distortion_of(model) == (expected or Distortion())


def test_what_a_model_is_refined_for_follows_what_it_was_trained_for() -> None:
    (stage,) = load_config(CONFIGS / "campaign-visual.toml", FAMILIES).stages
    without = replace(stage, perceptual="haarpsi")
    assert _refined_for([without]) == Distortion(130.0, 1.9, 14.5, 900.0)
    squares = replace(without, ssim_weight=0.0, ms_ssim_weight=0.0)
    assert _refined_for([squares]) == Distortion(26.0, low_frequencies=900.0)
    assert _refined_for([replace(stage, fast_only=True)]) is None


@pytest.mark.slow
def test_a_models_distortion_is_in_its_file(
    tiny_flagship_network: FlagshipNetwork, tmp_path: Path
) -> None:
    distortion = Distortion(mse=7.0, ssim=1.0)
    made = export_flagship.build_model(tiny_flagship_network, "mine", distortion=distortion)
    model_file.save(made, tmp_path / "mine.cwicmodel")
    model = model_file.load(tmp_path / "mine.cwicmodel")
    assert distortion_of(model) == distortion
    assert Codec(model, threads=1).identity == made.identity


@pytest.mark.slow
def test_a_model_that_is_restored_and_exported_again_is_the_same_model(
    tiny_network: Cvpr2018Network,
    tiny_model: model_file.ModelFile,
    tiny_model_path: Path,
    tiny_flagship_network: FlagshipNetwork,
    tiny_flagship_path: Path,
) -> None:
    again = restored(tiny_model_path, tiny_network)
    assert export_cvpr2018.build_model(again, "again").identity == tiny_model.identity
    before = model_file.load(tiny_flagship_path)
    flagship = restored(tiny_flagship_path, tiny_flagship_network)
    after = export_flagship.build_model(flagship, "again", with_fast=True)
    assert before.graphs == after.graphs


def test_a_model_of_other_sizes_of_another_family_or_with_holes_is_refused(
    tiny_flagship_network: FlagshipNetwork,
    tiny_network: Cvpr2018Network,
    tiny_model: model_file.ModelFile,
    tiny_model_path: Path,
    tiny_flagship_path: Path,
    tmp_path: Path,
) -> None:
    holes = tmp_path / "holes.cwicmodel"
    arrays = {k: v for k, v in tiny_model.arrays.items() if k != "level.out.bias"}
    model_file.save(
        model_file.build(
            "holes",
            tiny_model.family,
            decoding=tiny_model.decoding,
            encoding=tiny_model.encoding,
            graphs=tiny_model.graphs,
            arrays=arrays,
        ),
        holes,
    )
    with pytest.raises(TrainingError, match=r"expected weights of level_context\.out\.bias, found"):
        restored_weights(holes, tiny_network)
    with pytest.raises(TrainingError, match="expected a model of family flagship, found cvpr2018"):
        restored_weights(tiny_model_path, tiny_flagship_network)
    with pytest.raises(TrainingError, match="expected a model of family cvpr2018, found flagship"):
        restored_weights(tiny_flagship_path, tiny_network)
    network = copy.deepcopy(tiny_flagship_network)
    network.synthesis.edge = torch.nn.Conv2d(5, 48, 3)
    with pytest.raises(TrainingError, match=r"expected synthesis\.edge\.weight of shape"):
        restored_weights(tiny_flagship_path, network)


@pytest.mark.parametrize("name", ["cwic-psnr", "cwic-visual"])
def test_a_bundled_flagship_goes_into_the_network_of_its_recipe(name: str) -> None:
    path = model_file.find(name)
    model = model_file.load(path)
    sizes = load_config(CONFIGS / f"{name}-gpu.toml", FAMILIES).network
    assert isinstance(sizes, FlagshipConfig)
    network = FlagshipNetwork(sizes)
    weights = restored_weights(path, network)
    # A light synthesis that a model does not have keeps the values that it has.
    kept = torch.equal(weights["fast.edge.weight"], network.fast.edge.weight)
    assert kept == ("fast" not in model.graphs)
    network.load_state_dict(weights, strict=False)
