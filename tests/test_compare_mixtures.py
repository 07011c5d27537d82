"""The comparison of mixtures of a loss: recipes that differ in what a mixture says, no more."""

import dataclasses
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from conftest import script_module

pytest.importorskip("torch")

from flagship_training import THREE_STAGES, recipe

from cwic import model_file
from cwic.errors import TrainingError
from cwic.training.config import load_config
from cwic.training.families import FAMILIES
from cwic.training.flagship.objective import FlagshipStage

ROOT = Path(__file__).parent.parent
VISUAL = ROOT / "configs" / "campaign-visual.toml"
MIXTURES = ROOT / "configs" / "mixtures" / "visual.toml"


@pytest.fixture
def compare() -> ModuleType:
    """`scripts/compare_mixtures`."""
    return script_module("compare_mixtures")


def test_published_mixtures_are_recipes_that_differ_in_their_loss_alone(
    compare: ModuleType, tmp_path: Path
) -> None:
    base = load_config(VISUAL, FAMILIES)
    mixtures = tomllib.loads(MIXTURES.read_text())
    assert len(mixtures) >= 4
    found = set()
    for name, changes in mixtures.items():
        assert all(key.endswith("_weight") or key == "perceptual" for key in changes)
        config = compare.recipe_of(base, name, changes, 400, 5e-5)
        assert (config.total_steps, config.network, config.data) == (400, base.network, base.data)
        (stage,) = config.stages
        for key, value in changes.items():
            assert getattr(stage, key) == value
        found.add(dataclasses.replace(stage, name=""))
        path = tmp_path / f"{name}.toml"
        path.write_text(compare.toml_of(config))
        assert load_config(path, FAMILIES) == config
    assert len(found) == len(mixtures)


def test_what_no_stage_has_is_refused_by_the_name_of_its_mixture(compare: ModuleType) -> None:
    base = load_config(VISUAL, FAMILIES)
    with pytest.raises(TrainingError, match=r"mixture red.*unknown key redness_weight"):
        compare.recipe_of(base, "red", {"redness_weight": 1.0}, 400, 5e-5)


@pytest.mark.slow
def test_mixtures_are_trained_exported_and_not_trained_again(
    compare: ModuleType,
    one_torch_thread: None,
    picture_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stages = THREE_STAGES.replace(
        "grid_weight = 0.5\n", "grid_weight = 0.5\npreview_weight = 9.0\n"
    )
    base = recipe(tmp_path, stages)
    mixtures = tmp_path / "mixtures.toml"
    mixtures.write_text("[plain]\n[colour]\nchroma_weight = 500.0\n")
    start = compare.trained(
        compare.recipe_of(load_config(base, FAMILIES), "start", {}, 4, 1e-3),
        [picture_folder],
        None,
        tmp_path / "first",
        1,
    )
    out = tmp_path / "out"
    words = [str(base), str(mixtures), "--data", str(picture_folder), "--init-from", str(start)]
    words += ["--out", str(out), "--steps", "2", "--count", "0"]
    monkeypatch.setattr(sys, "argv", ["compare_mixtures", *words])
    compare.main()
    models = [out / f"{name}{model_file.EXTENSION}" for name in ("plain", "colour")]
    identities = {model_file.read_info(model).identity for model in models}
    assert len(identities) == 2
    assert isinstance(
        load_config(out / "colour" / "recipe.toml", FAMILIES).stages[0], FlagshipStage
    )
    monkeypatch.setattr(compare, "train", None)
    compare.main()
