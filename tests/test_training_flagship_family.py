"""Runs of the flagship through the one trainer: recipes, stages, logs, packs."""

import dataclasses
import zipfile
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from flagship_training import THREE_STAGES, TINY_TOML, recipe, rows, run  # noqa: E402

from cwic.errors import TrainingError  # noqa: E402
from cwic.training.checkpoint import load_checkpoint, load_weights  # noqa: E402
from cwic.training.config import load_config  # noqa: E402
from cwic.training.data import (  # noqa: E402
    list_pictures,
)
from cwic.training.families import FAMILIES  # noqa: E402
from cwic.training.flagship.network import (  # noqa: E402
    FlagshipConfig,
)
from cwic.training.flagship.objective import FlagshipStage  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")

CONFIGS = Path(__file__).parent.parent / "configs"


@pytest.mark.parametrize("size", ["", "-gpu"])
def test_the_recipes_of_a_size_share_a_network_each_with_its_range_of_rates(size: str) -> None:
    of_psnr, of_visual = (
        load_config(CONFIGS / f"cwic-{tune}{size}.toml", FAMILIES) for tune in ("psnr", "visual")
    )
    assert isinstance(of_psnr.network, FlagshipConfig)
    assert isinstance(of_visual.network, FlagshipConfig)
    rates = {"min_q": of_visual.network.min_q, "max_q": of_visual.network.max_q}
    assert of_visual.network == dataclasses.replace(of_psnr.network, **rates)
    for config in (of_psnr, of_visual):
        assert isinstance(config.stages[-1], FlagshipStage)
        assert config.stages[-1].hard
        assert config.stages[-1].entropy_only


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (TINY_TOML.replace("[2, 3]", "[1, 1, 1, 1, 1, 1]"), "network: groups must be 1 to 5"),
        (TINY_TOML.replace("[2, 3]", "3"), "network, groups: expected an array, found 3"),
        (TINY_TOML.replace("crop_px = 64\n", "crop_px = 72\n", 2), "multiple of 16, found 72"),
        (TINY_TOML.replace("width_8 = 8", "width_8 = 7"), "width_8 and width_16 even"),
        (TINY_TOML.replace("width_8", "width"), "network: unknown key width"),
    ],
)
def test_errors_name_their_key(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text + '[[stages]]\nname = "one"\nsteps = 1\n')
    with pytest.raises(TrainingError, match=r"recipe\.toml") as caught:
        load_config(path, FAMILIES)
    assert named in str(caught.value)


@pytest.mark.parametrize(("optimizer", "rate"), [("adam", 5e-3), ("muon", 2e-2)])
def test_ten_steps_lower_the_loss(
    optimizer: str, rate: float, picture_folder: Path, tmp_path: Path
) -> None:
    stage = f'[[stages]]\nname = "one"\nsteps = 10\nbatch = 4\nlearning_rate = {rate}\n'
    config = recipe(tmp_path, stage, f'optimizer = "{optimizer}"\n' + TINY_TOML)
    run(config, picture_folder, tmp_path / "run")
    losses = [float(row["loss"]) for row in rows(tmp_path / "run" / "log.csv")]
    assert len(losses) == 10
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])


def test_a_run_with_saliency_and_perception_lowers_its_loss(
    picture_folder: Path, tmp_path: Path
) -> None:
    stage = (
        '[[stages]]\nname = "one"\nsteps = 10\nbatch = 4\nlearning_rate = 5e-3\n'
        "saliency_weight = 0.5\nperceptual_weight = 3.0\n"
    )
    run(recipe(tmp_path, stage), picture_folder, tmp_path / "run")
    losses = [float(row["loss"]) for row in rows(tmp_path / "run" / "log.csv")]
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])


def test_a_resumed_run_equals_an_unbroken_one(picture_folder: Path, tmp_path: Path) -> None:
    config = recipe(tmp_path, THREE_STAGES, 'optimizer = "muon"\n' + TINY_TOML)
    assert run(config, picture_folder, tmp_path / "whole").step == 9
    for _ in range(9):
        broken = run(config, picture_folder, tmp_path / "broken", max_seconds=1e-9)
    assert broken.step == 9
    _, _, whole = load_checkpoint(tmp_path / "whole" / "checkpoint.safetensors")
    _, _, resumed = load_checkpoint(tmp_path / "broken" / "checkpoint.safetensors")
    for group, tensors in whole.items():
        for name, tensor in tensors.items():
            assert torch.equal(tensor, resumed[group][name]), f"{group}/{name}"


def test_the_logs_have_the_columns_of_the_family(picture_folder: Path, tmp_path: Path) -> None:
    run(recipe(tmp_path, THREE_STAGES), picture_folder, tmp_path / "run")
    log = rows(tmp_path / "run" / "log.csv")
    assert (
        list(log[0])
        == (
            "step stage wall_s cpu_s learning_rate loss psnr_db bpp hyper_bpp level_bpp grad_norm "
            "mpx_per_s"
        ).split()
    )
    assert float(log[4]["level_bpp"]) < 0.1 * max(float(row["level_bpp"]) for row in log[:4])
    validation = rows(tmp_path / "run" / "validation.csv")
    assert [float(row["q"]) for row in validation[:5]] == [-11, -5.75, -0.5, 4.75, 10]
    assert {row["step"] for row in validation} == {"6", "9"}
    for row in validation:
        assert float(row["grid_ratio"]) > 0
        assert float(row["bpp"]) > float(row["hyper_bpp"])


def test_the_entropy_stage_leaves_the_transforms_alone(
    picture_folder: Path, tmp_path: Path
) -> None:
    config = recipe(tmp_path, THREE_STAGES)
    run(config, picture_folder, tmp_path / "run")
    _, _, after = load_checkpoint(tmp_path / "run" / "checkpoint.safetensors")
    shorter = recipe(tmp_path, THREE_STAGES.partition('[[stages]]\nname = "entropy"')[0])
    run(shorter, picture_folder, tmp_path / "short")
    _, _, before = load_checkpoint(tmp_path / "short" / "checkpoint.safetensors")
    changed = {
        name.partition(".")[0]
        for name in before["weights"]
        if not torch.equal(before["average"][name], after["weights"][name])
    }
    assert changed == {"mean_network", "scale_network", "hyper_model", "level_model", "preview"}


FAST_STAGE = """\
[[stages]]
name = "fast"
steps = 20
batch = 4
learning_rate = 2e-2
crop_px = 48
max_crop_px = 64
fast_only = true
distill_weight = 200.0
cut_share = 0.5
"""


def test_the_fast_stage_trains_the_light_synthesis_alone(
    picture_folder: Path, tmp_path: Path
) -> None:
    main = THREE_STAGES.partition('[[stages]]\nname = "map off"')[0] + "preview_weight = 100.0\n"
    text = 'optimizer = "muon"\n' + TINY_TOML
    run(recipe(tmp_path, main, text), picture_folder, tmp_path / "run")
    before = load_checkpoint(tmp_path / "run" / "checkpoint.safetensors")[2]["weights"]
    run(recipe(tmp_path, main + FAST_STAGE, text), picture_folder, tmp_path / "run")
    after = load_checkpoint(tmp_path / "run" / "checkpoint.safetensors")[2]["weights"]
    changed = {
        name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])
    }
    assert changed == {"fast"}
    log = [row for row in rows(tmp_path / "run" / "log.csv") if row["stage"] == "fast"]
    losses = [float(row["loss"]) for row in log]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    for row in rows(tmp_path / "run" / "validation.csv"):
        assert np.isfinite(float(row["fast_db"])) == (row["stage"] == "fast")


def test_a_run_starts_from_the_averaged_weights_of_another(
    picture_folder: Path, tmp_path: Path
) -> None:
    one = '[[stages]]\nname = "one"\nsteps = 3\nbatch = 2\nlearning_rate = 2e-3\n'
    run(recipe(tmp_path, one), picture_folder, tmp_path / "first")
    checkpoint = tmp_path / "first" / "checkpoint.safetensors"
    _, _, start = load_weights(checkpoint)
    still = '[[stages]]\nname = "two"\nsteps = 1\nbatch = 2\nlearning_rate = 1e-30\n'
    given_there = recipe(tmp_path, still, f'init_from = "{checkpoint}"\n' + TINY_TOML, "b.toml")
    given_here = recipe(tmp_path, still, name="c.toml")
    run(given_there, picture_folder, tmp_path / "there")
    run(given_here, picture_folder, tmp_path / "here", init_from=checkpoint)
    for name in ("there", "here"):
        progress_config, progress, weights = load_weights(
            tmp_path / name / "checkpoint.safetensors"
        )
        assert progress.step == 1
        assert progress_config.family == "flagship"
        for key, value in weights.items():
            torch.testing.assert_close(value, start[key], rtol=0, atol=1e-6)
    other = recipe(tmp_path, still, TINY_TOML.replace("mean_width = 6", "mean_width = 8"), "d.toml")
    with pytest.raises(TrainingError, match="expected the network of the configuration"):
        run(other, picture_folder, tmp_path / "other", init_from=checkpoint)


def test_a_run_with_its_pictures_on_the_device_trains(picture_folder: Path, tmp_path: Path) -> None:
    text = TINY_TOML + 'on_device = "always"\n'
    stage = '[[stages]]\nname = "one"\nsteps = 2\nbatch = 2\n'
    assert run(recipe(tmp_path, stage, text), picture_folder, tmp_path / "run").step == 2


def pack(path: Path, folder: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        pictures = sorted(folder.iterdir())
        for index, picture in enumerate(pictures):
            part = "held_out" if index >= len(pictures) - 2 else "training"
            archive.write(picture, f"{part}/{index:03}.png")
    return path


def test_a_pack_stands_for_a_folder(picture_folder: Path, tmp_path: Path) -> None:
    file = pack(tmp_path / "pictures.zip", picture_folder)
    split = list_pictures([file, picture_folder], 0.1)
    assert len(split.training) == 10 + 11
    assert len(split.held_out) == 2 + 1
    stage = '[[stages]]\nname = "one"\nsteps = 2\nbatch = 2\n'
    assert run(recipe(tmp_path, stage), file, tmp_path / "run").step == 2
    assert rows(tmp_path / "run" / "validation.csv")
