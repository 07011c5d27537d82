"""Training through its public surface: `train`, `cwic train`, and the files of a run."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cwic.errors import TrainingError

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from cwic.cli import main as cli  # noqa: E402
from cwic.training.checkpoint import (  # noqa: E402
    Progress,
    load_checkpoint,
    load_weights,
    save_checkpoint,
)
from cwic.training.config import load_config  # noqa: E402
from cwic.training.export import export_checkpoint  # noqa: E402
from cwic.training.families import FAMILIES  # noqa: E402
from cwic.training.trainer import _Trainer, train  # noqa: E402

ENTROPY = ("code_context", "level_context")
CHECKPOINT = "checkpoint.safetensors"
BEST = "best.safetensors"

# So little time that a run stops after one step.
ONE_STEP_S = 1e-9

TIME_COLUMNS = frozenset({"wall_s", "cpu_s", "mpx_per_s"})

STAGES: list[dict[str, Any]] = [
    {
        "name": "binary",
        "with_map": False,
        "steps": 6,
        "batch": 4,
        "learning_rate": 2e-3,
        "warmup_steps": 2,
    },
    {
        "name": "map",
        "steps": 5,
        "batch": 2,
        "learning_rate": 1e-3,
        "final_learning_rate": 1e-4,
        "ssim_weight": 0.1,
        "rate_weight": 0.1,
    },
]

pytestmark = pytest.mark.usefixtures("one_torch_thread")

WriteConfig = Callable[..., Path]


@pytest.fixture
def write_config(tmp_path: Path) -> WriteConfig:
    """Writes the recipe of a small run; keys replace those of the same name."""

    def write(name: str = "recipe.toml", **changes: Any) -> Path:
        table: dict[str, Any] = {
            "family": "cvpr2018",
            "seed": 3,
            "validation_crop_px": 48,
            "validation_count": 2,
            "validate_every": 4,
            "checkpoint_every": 3,
            "log_every": 1,
            "network": {"width": 1 / 16},
            "data": {"crop_px": 16, "turn": True, "downscale": 0.3, "colour_jitter": 0.1},
            "stages": STAGES,
        } | changes
        # A JSON value is a TOML value, but for tables.
        lines = [
            f"{key} = {json.dumps(value)}"
            for key, value in table.items()
            if not isinstance(value, dict | list)
        ]
        for key in ("network", "data"):
            lines += [f"[{key}]", *(f"{k} = {json.dumps(v)}" for k, v in table[key].items())]
        for stage in table["stages"]:
            lines += ["[[stages]]", *(f"{k} = {json.dumps(v)}" for k, v in stage.items())]
        path = tmp_path / name
        path.write_text("\n".join(lines))
        return path

    return write


def run(config: Path, folder: Path, run_dir: Path, **options: Any) -> Progress:
    return train(config, [folder], run_dir, device="cpu", show_progress=False, **options)


def log_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a log without what differs from run to run."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k not in TIME_COLUMNS} for row in rows]


def assert_same_run(one: Path, other: Path) -> None:
    """Weights, average, the optimizer's state, counters and logs are the same to the bit."""
    for name in (CHECKPOINT, BEST):
        config, progress, groups = load_checkpoint(one / name)
        other_config, other_progress, other_groups = load_checkpoint(other / name)
        assert config == other_config
        assert progress.step == other_progress.step
        assert progress.best_stage == other_progress.best_stage
        assert progress.best_score_db == other_progress.best_score_db
        assert groups.keys() == other_groups.keys()
        for group, tensors in groups.items():
            assert tensors.keys() == other_groups[group].keys()
            for key, tensor in tensors.items():
                assert torch.equal(tensor, other_groups[group][key]), f"{name}, {group}/{key}"
    for name in ("log.csv", "validation.csv"):
        assert log_rows(one / name) == log_rows(other / name)


# --- learning -------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
@pytest.mark.parametrize("with_map", [False, True])
def test_a_dozen_steps_lower_the_loss(
    optimizer: str, with_map: bool, write_config: WriteConfig, picture_folder: Path, tmp_path: Path
) -> None:
    """On one crop, which is the whole of one picture, so that no step is easier than another."""
    (tmp_path / "data").mkdir()
    with Image.open(picture_folder / "picture00.png") as picture:
        picture.crop((8, 8, 56, 56)).save(tmp_path / "data" / "only.png")
    stage = {
        "name": "only",
        "with_map": with_map,
        "steps": 12,
        "batch": 1,
        "learning_rate": 2e-3 if optimizer == "adam" else 5e-2,
        "rate_weight": 0.0,
    }
    data = {"crop_px": 48, "flip": False}
    config = write_config(optimizer=optimizer, stages=[stage], data=data)
    run(config, tmp_path / "data", tmp_path / "run")
    loss = [float(row["loss"]) for row in log_rows(tmp_path / "run" / "log.csv")]
    assert len(loss) == 12
    assert loss[-1] < 0.9 * loss[0]


def test_the_rate_loss_lowers_the_rate(
    write_config: WriteConfig, picture_folder: Path, tmp_path: Path
) -> None:
    stage = {"name": "only", "steps": 15, "batch": 8, "learning_rate": 5e-3, "rate_weight": 30.0}
    network = {"width": 1 / 16, "min_rate_offset": 0.0, "max_rate_offset": 0.01}
    config = write_config(stages=[stage], network=network)
    run(config, picture_folder, tmp_path / "run")
    kept_bpp = [float(row["kept_bpp"]) for row in log_rows(tmp_path / "run" / "log.csv")]
    assert kept_bpp[0] > 0.5  # a fresh map keeps about half of the bits, the threshold
    assert kept_bpp[-1] < 0.7 * kept_bpp[0]


def test_every_weight_learns(
    write_config: WriteConfig, picture_folder: Path, tmp_path: Path
) -> None:
    run(write_config(), picture_folder, tmp_path / "run", max_seconds=ONE_STEP_S)
    start = load_checkpoint(tmp_path / "run" / CHECKPOINT)[2]["weights"]
    run(write_config(), picture_folder, tmp_path / "run")
    end = load_checkpoint(tmp_path / "run" / CHECKPOINT)[2]["weights"]
    same = [name for name, tensor in start.items() if torch.equal(tensor, end[name])]
    assert [name for name in same if not name.startswith(ENTROPY)] == []


def test_the_entropy_stage_trains_the_coder_and_nothing_else(
    write_config: WriteConfig, picture_folder: Path, tmp_path: Path
) -> None:
    stages = [
        {"name": "map", "steps": 2, "batch": 2, "learning_rate": 1e-3},
        {
            "name": "entropy",
            "steps": 12,
            "batch": 2,
            "learning_rate": 5e-3,
            "entropy_only": True,
        },
    ]
    run(write_config(stages=stages[:1]), picture_folder, tmp_path / "short")
    before = load_checkpoint(tmp_path / "short" / CHECKPOINT)[2]["average"]
    run(write_config(stages=stages), picture_folder, tmp_path / "run")
    after = load_checkpoint(tmp_path / "run" / CHECKPOINT)[2]["weights"]
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert changed == {name for name in before if name.startswith(ENTROPY)}


def test_a_run_writes_its_logs_and_two_checkpoints(
    write_config: WriteConfig, picture_folder: Path, tmp_path: Path
) -> None:
    path = write_config()
    progress = run(path, picture_folder, tmp_path / "run")
    assert progress.step == 11
    assert progress.wall_s > 0
    assert progress.cpu_s > 0
    files = {file.name for file in (tmp_path / "run").iterdir()}
    assert files == {CHECKPOINT, BEST, "log.csv", "validation.csv"}
    rows = log_rows(tmp_path / "run" / "log.csv")
    assert [int(row["step"]) for row in rows] == list(range(1, 12))
    assert [row["stage"] for row in rows] == ["binary"] * 6 + ["map"] * 5
    rates = [float(row["learning_rate"]) for row in rows]
    assert rates[:7] == [1e-3, 2e-3, 2e-3, 2e-3, 2e-3, 2e-3, 1e-3]
    assert rates[7:] == sorted(rates[7:], reverse=True)
    assert {float(row["kept_bpp"]) for row in rows[:6]} == {1.0}
    validated = log_rows(tmp_path / "run" / "validation.csv")
    assert [int(row["step"]) for row in validated] == [4] + 5 * [8] + 5 * [11]
    config, stored, weights = load_weights(tmp_path / "run" / CHECKPOINT)
    assert config == load_config(path, FAMILIES)
    assert stored == progress
    assert set(weights) == set(load_checkpoint(tmp_path / "run" / CHECKPOINT)[2]["weights"])


def test_without_held_out_pictures_there_is_no_validation(
    write_config: WriteConfig, picture_folder: Path, tmp_path: Path
) -> None:
    run(write_config(data={"crop_px": 16, "held_out": 0.0}), picture_folder, tmp_path / "run")
    assert {file.name for file in (tmp_path / "run").iterdir()} == {CHECKPOINT, "log.csv"}


def test_a_broken_picture_does_not_end_a_run(
    write_config: WriteConfig, picture_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(picture_folder, tmp_path / "data")
    (tmp_path / "data" / "broken.png").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match=r"skipped.*broken\.png"):
        assert run(write_config(), tmp_path / "data", tmp_path / "run").step == 11


# --- resuming -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [{}, {"optimizer": "muon"}, {"bf16": False, "checkpoint_every": 100, "validate_every": 100}],
    ids=["adam", "muon", "float32"],
)
def test_a_run_resumed_at_every_step_equals_an_unbroken_one(
    changes: dict[str, Any], write_config: WriteConfig, picture_folder: Path, tmp_path: Path
) -> None:
    """Among them the step at which the second stage begins."""
    config = write_config(**changes)
    run(config, picture_folder, tmp_path / "unbroken")
    for step in range(1, 12):
        progress = run(config, picture_folder, tmp_path / "broken", max_seconds=ONE_STEP_S)
        assert progress.step == step
    assert_same_run(tmp_path / "unbroken", tmp_path / "broken")


def test_what_a_killed_run_logged_beyond_its_checkpoint_is_done_again(
    write_config: WriteConfig, picture_folder: Path, tmp_path: Path
) -> None:
    config = write_config()
    run(config, picture_folder, tmp_path / "unbroken")
    killed = tmp_path / "killed"
    for _ in range(5):
        run(config, picture_folder, killed, max_seconds=ONE_STEP_S)
    checkpoint = (killed / CHECKPOINT).read_bytes()
    for _ in range(4):
        run(config, picture_folder, killed, max_seconds=ONE_STEP_S)
    (killed / CHECKPOINT).write_bytes(checkpoint)
    run(config, picture_folder, killed)
    assert_same_run(tmp_path / "unbroken", killed)


def test_a_log_that_a_full_disk_cut_short_anywhere_does_not_keep_a_run_from_going_on(
    write_config: WriteConfig, picture_folder: Path, tmp_path: Path
) -> None:
    config, log = write_config(), tmp_path / "run" / "log.csv"
    for _ in range(2):
        run(config, picture_folder, log.parent, max_seconds=ONE_STEP_S)
    whole = log.read_bytes()
    head, first, _ = whole.splitlines(keepends=True)
    for length, steps in ((0, ""), (7, ""), (len(head), ""), (len(head + first) + 1, "1")):
        log.write_bytes(whole[:length])
        progress = run(config, picture_folder, log.parent, max_seconds=ONE_STEP_S)
        assert [row["step"] for row in log_rows(log)] == [*steps, str(progress.step)]


def test_what_was_logged_before_the_first_checkpoint_is_begun_again(
    write_config: WriteConfig, picture_folder: Path, tmp_path: Path
) -> None:
    config = write_config()
    for _ in range(2):
        run(config, picture_folder, tmp_path / "run", max_seconds=ONE_STEP_S)
        (tmp_path / "run" / CHECKPOINT).unlink()
    run(config, picture_folder, tmp_path / "run", max_seconds=ONE_STEP_S)
    assert [row["step"] for row in log_rows(tmp_path / "run" / "log.csv")] == ["1"]


def test_a_finished_run_is_left_as_it_is(
    write_config: WriteConfig, picture_folder: Path, tmp_path: Path
) -> None:
    config = write_config()
    run(config, picture_folder, tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    assert run(config, picture_folder, tmp_path / "run").step == 11
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_a_finished_run_goes_on_if_its_recipe_grew_a_stage(
    write_config: WriteConfig, picture_folder: Path, tmp_path: Path
) -> None:
    run(write_config(stages=STAGES[:1]), picture_folder, tmp_path / "grown")
    run(write_config(), picture_folder, tmp_path / "grown")
    run(write_config(), picture_folder, tmp_path / "at-once")
    for name in ("weights", "optimizer"):
        grown = load_checkpoint(tmp_path / "grown" / CHECKPOINT)[2][name]
        at_once = load_checkpoint(tmp_path / "at-once" / CHECKPOINT)[2][name]
        assert all(torch.equal(tensor, at_once[key]) for key, tensor in grown.items())


def test_max_seconds_stops_with_a_checkpoint(
    write_config: WriteConfig, picture_folder: Path, tmp_path: Path
) -> None:
    config = write_config(stages=[STAGES[0] | {"steps": 10**6}], checkpoint_every=10**6)
    start = time.monotonic()
    progress = run(config, picture_folder, tmp_path / "run", max_seconds=0.3)
    assert time.monotonic() - start < 20
    assert 0 < progress.step < 10**6
    assert load_checkpoint(tmp_path / "run" / CHECKPOINT)[1] == progress


# --- signals --------------------------------------------------------------------------------------


def start_long_run(config: Path, folder: Path, run_dir: Path) -> subprocess.Popen[bytes]:
    """A process that trains for ever; returns once it has written a checkpoint."""
    words = "train", config, "--data", folder, "--out", run_dir, "--threads", "1", "--quiet"
    process = subprocess.Popen(
        [sys.executable, "-m", "cwic", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    limit = time.monotonic() + 60
    while not (run_dir / CHECKPOINT).exists():
        if process.poll() is not None or time.monotonic() > limit:
            process.kill()
            pytest.fail(f"no checkpoint: {process.communicate()[0].decode()}")
        time.sleep(0.02)
    return process


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_sigterm_stops_in_good_order(
    write_config: WriteConfig,
    picture_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seldom = write_config(stages=[STAGES[0] | {"steps": 10**6}], checkpoint_every=10**6)
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    write_row = _Trainer._write_row

    def stopped_at_the_third(trainer: _Trainer, name: str, *rest: Any) -> None:
        write_row(trainer, name, *rest)
        if trainer.progress.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(_Trainer, "_write_row", stopped_at_the_third)
    try:
        progress = run(seldom, picture_folder, tmp_path / "run")
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
    stopped = load_checkpoint(tmp_path / "run" / CHECKPOINT)[1]
    assert stopped.step == progress.step == 3
    assert [row["step"] for row in log_rows(tmp_path / "run" / "log.csv")] == ["1", "2", "3"]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_in_its_own_process_sigterm_stops_in_good_order_and_sigkill_leaves_a_whole_checkpoint(
    write_config: WriteConfig, picture_folder: Path, tmp_path: Path
) -> None:
    endless = [STAGES[0] | {"steps": 10**6}]
    run_dir = tmp_path / "run"

    # Only the signal can be why there is a later checkpoint than that of the first step.
    seldom = write_config(stages=endless, checkpoint_every=10**6)
    run(seldom, picture_folder, run_dir, max_seconds=ONE_STEP_S)
    process = start_long_run(seldom, picture_folder, run_dir)
    limit = time.monotonic() + 60
    while len((run_dir / "log.csv").read_text().splitlines()) < 4 and time.monotonic() < limit:
        time.sleep(0.02)
    process.terminate()
    said, _ = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, b"")
    stopped = load_checkpoint(run_dir / CHECKPOINT)[1]
    rows = log_rows(run_dir / "log.csv")
    assert stopped.step >= 3
    assert [int(row["step"]) for row in rows] == list(range(1, stopped.step + 1))

    # This one is nearly always about to write.
    (run_dir / CHECKPOINT).unlink()
    process = start_long_run(
        write_config(stages=endless, checkpoint_every=1), picture_folder, run_dir
    )
    time.sleep(0.2)
    process.kill()
    process.communicate(timeout=60)
    killed = load_checkpoint(run_dir / CHECKPOINT)[1]
    assert killed.step > 0
    resumed = run(seldom, picture_folder, run_dir, max_seconds=ONE_STEP_S)
    assert resumed.step == killed.step + 1


# --- several processes ----------------------------------------------------------------------------


def test_a_device_that_is_not_here_is_named_and_nothing_is_made(
    write_config: WriteConfig, tmp_path: Path
) -> None:
    for name in ("nonsense", "meta"):
        with pytest.raises(TrainingError, match=f"a device that this machine has, found '{name}'"):
            train(write_config(), [tmp_path], tmp_path / "run", device=name)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_two_processes_train_as_one_does(
    write_config: WriteConfig, picture_folder: Path, tmp_path: Path
) -> None:
    """Each gets half of the batch and the gradients are averaged.

    What is guaranteed: the same crops, and in a loss that is a mean over pictures the same
    gradients up to the order of float summation. That holds without the map, and with it as long as
    the threshold of the rate is not in play: which half of a batch lies above it need not be
    decided as for the whole.
    """
    stages = [STAGES[0], STAGES[1] | {"rate_weight": 0.0}]
    config = write_config(stages=stages, bf16=False, checkpoint_every=6)
    run(config, picture_folder, tmp_path / "one")
    words = "train", config, "--data", picture_folder, "--out", tmp_path / "two", "--quiet"
    launcher = "-m torch.distributed.run --standalone --nproc-per-node 2 -m cwic".split()
    result = subprocess.run(
        [sys.executable, *launcher, *map(str, words), "--device", "cpu", "--threads", "1"],
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr.decode()
    one = load_checkpoint(tmp_path / "one" / CHECKPOINT)
    two = load_checkpoint(tmp_path / "two" / CHECKPOINT)
    assert one[1].step == two[1].step == 11
    assert one[2].keys() == two[2].keys()
    for group, tensors in one[2].items():
        assert tensors.keys() == two[2][group].keys()
        for name, tensor in tensors.items():
            torch.testing.assert_close(two[2][group][name], tensor, rtol=1e-3, atol=1e-5)
    rows = log_rows(tmp_path / "two" / "log.csv")
    assert [int(row["step"]) for row in rows] == list(range(1, 12))


# --- bad input ------------------------------------------------------------------------------------


def one_line_error(act: Callable[[], object]) -> str:
    with pytest.raises(TrainingError) as caught:
        act()
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def finished(write_config: WriteConfig, picture_folder: Path, tmp_path: Path) -> Path:
    """The folder of a run that is done."""
    run(write_config(), picture_folder, tmp_path / "run")
    return tmp_path / "run"


def readers(
    write_config: WriteConfig, picture_folder: Path, checkpoint: Path
) -> list[Callable[[], object]]:
    """Everything that reads a checkpoint."""
    return [
        lambda: load_checkpoint(checkpoint),
        lambda: load_weights(checkpoint),
        lambda: export_checkpoint(checkpoint, "model"),
        lambda: run(write_config(), picture_folder, checkpoint.parent),
    ]


@pytest.mark.parametrize("group", ["weights", "average", "optimizer"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_checkpoint_that_is_not_finite_is_refused_by_name(
    group: str,
    value: float,
    finished: Path,
    write_config: WriteConfig,
    picture_folder: Path,
) -> None:
    path = finished / CHECKPOINT
    config, progress, groups = load_checkpoint(path)
    name, tensor = next((k, v) for k, v in groups[group].items() if v.numel() > 1)
    tensor.view(-1)[1] = value
    save_checkpoint(path, config, progress, groups)
    for read in readers(write_config, picture_folder, path):
        message = one_line_error(read)
        assert message.startswith(f"{path}: expected finite numbers, found NaN or infinity in ")
        assert name in message
    assert not (finished / "model").exists()


@pytest.mark.parametrize("content", [b"", b"a text file\n", b"\x89PNG\r\n\x1a\n", b"\0" * 100])
def test_a_foreign_file_is_refused_by_name(
    content: bytes, finished: Path, write_config: WriteConfig, picture_folder: Path
) -> None:
    path = finished / CHECKPOINT
    path.write_bytes(content)
    for read in readers(write_config, picture_folder, path):
        assert one_line_error(read).startswith(f"{path}: expected a safetensors checkpoint, found ")


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.999])
def test_a_truncated_checkpoint_is_refused_by_name(
    share: float, finished: Path, write_config: WriteConfig, picture_folder: Path
) -> None:
    path = finished / CHECKPOINT
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    for read in readers(write_config, picture_folder, path):
        assert one_line_error(read).startswith(f"{path}: expected a safetensors checkpoint, found ")


@pytest.mark.parametrize(
    ("metadata", "named"),
    [
        (None, "found None"),
        ({"format": "pt"}, "found 'pt'"),
        ({"format": "cwic-checkpoint-1"}, "damaged metadata"),
        ({"config": "{", "progress": "{}"}, "damaged metadata"),
        ({"config": "[" * 10**5, "progress": "{}"}, "damaged metadata"),
        ({"config": "[]", "progress": "{}"}, "damaged metadata"),
        ({"config": "{}", "progress": "[]"}, "damaged metadata"),
        ({"config": "{}", "progress": '{"steps": 3}'}, "damaged metadata"),
        ({"config": "{}", "progress": '{"step": "3"}'}, "damaged metadata"),
        ({"config": "{}", "progress": '{"step": 3}'}, "family"),
    ],
)
def test_safetensors_of_another_program_are_refused_by_name(
    metadata: dict[str, str] | None,
    named: str,
    tmp_path: Path,
    write_config: WriteConfig,
    picture_folder: Path,
) -> None:
    path = tmp_path / CHECKPOINT
    if metadata is not None:
        metadata = {"format": "cwic-checkpoint-1"} | metadata
    save_file({"weights/x": torch.zeros(3)}, path, metadata)
    for read in readers(write_config, picture_folder, path):
        message = one_line_error(read)
        assert message.startswith(str(path))
        assert named in message


def test_a_missing_checkpoint_is_named(tmp_path: Path, picture_folder: Path) -> None:
    path = tmp_path / "absent.safetensors"
    assert one_line_error(lambda: load_weights(path)) == f"{path}: no such checkpoint"
    assert str(tmp_path) in one_line_error(lambda: load_weights(tmp_path))


def test_weights_that_do_not_fit_their_network_are_refused(
    finished: Path, write_config: WriteConfig, picture_folder: Path
) -> None:
    path = finished / CHECKPOINT
    config, progress, groups = load_checkpoint(path)
    name = next(iter(groups["average"]))
    damaged = {group: dict(tensors) for group, tensors in groups.items()}
    del damaged["average"][name]
    save_checkpoint(path, config, progress, damaged)
    for read in readers(write_config, picture_folder, path)[2:]:
        message = one_line_error(read)
        assert message.startswith(f"{path}: does not fit ")
        assert name in message
    save_checkpoint(path, config, progress, {"weights": groups["weights"]})
    assert "expected averaged weights, found weights" in one_line_error(lambda: load_weights(path))


@pytest.mark.parametrize(
    "changes",
    [{"seed": 4}, {"network": {"width": 1 / 8}}, {"network": {"width": 1 / 16, "levels": 8}}],
)
def test_the_folder_of_another_run_is_refused(
    changes: dict[str, Any], finished: Path, write_config: WriteConfig, picture_folder: Path
) -> None:
    before = {path: path.read_bytes() for path in finished.iterdir()}
    config = write_config("other.toml", **changes)
    message = one_line_error(lambda: run(config, picture_folder, finished))
    assert message.startswith(str(finished / CHECKPOINT))
    assert "choose a fresh run folder" in message
    assert {path: path.read_bytes() for path in finished.iterdir()} == before


def test_pictures_too_small_for_validation_are_an_error(
    write_config: WriteConfig, picture_folder: Path, tmp_path: Path
) -> None:
    config = write_config(validation_crop_px=400)
    message = one_line_error(lambda: run(config, picture_folder, tmp_path / "run"))
    assert "expected some of at least 400 px a side" in message


def test_the_command_says_each_failure_in_one_line(
    finished: Path,
    write_config: WriteConfig,
    picture_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = write_config()
    (finished / CHECKPOINT).write_bytes(b"damaged")
    for where, pictures, named in (
        (finished, picture_folder, CHECKPOINT),
        (tmp_path / "new", tmp_path / "absent", "absent"),
        (config, picture_folder, config.name),
    ):
        words = ["train", config, "--data", pictures, "--out", where, "--quiet"]
        assert cli.main(list(map(str, words))) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert named in err


def test_a_loss_that_is_no_longer_finite_ends_the_run_and_keeps_the_checkpoint(
    write_config: WriteConfig, picture_folder: Path, tmp_path: Path
) -> None:
    config = write_config()
    run(config, picture_folder, tmp_path / "run", max_seconds=ONE_STEP_S)
    # As large as a float can be: the first sum overflows.
    path = tmp_path / "run" / CHECKPOINT
    stored, progress, groups = load_checkpoint(path)
    for tensor in groups["weights"].values():
        tensor.fill_(3e38)
    save_checkpoint(path, stored, progress, groups)
    before = path.read_bytes()
    longer = write_config(stages=[STAGES[0] | {"steps": 100}], checkpoint_every=100)
    message = one_line_error(lambda: run(longer, picture_folder, tmp_path / "run"))
    assert "the gradient was not finite for 20 steps" in message
    assert path.read_bytes() == before


# --- TensorBoard ----------------------------------------------------------------------------------


def test_training_does_without_tensorboard(
    write_config: WriteConfig,
    picture_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert run(write_config(), picture_folder, tmp_path / "run").step == 11


def test_tensorboard_gets_the_scalars_when_it_is_there(
    write_config: WriteConfig,
    picture_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: list[tuple[str, int]] = []

    class SummaryWriter:
        def __init__(self, folder: str):
            assert folder == str(tmp_path / "run")

        def add_scalar(self, name: str, value: float, step: int) -> None:
            assert np.isfinite(value)
            written.append((name, step))

        def close(self) -> None:
            written.append(("closed", 0))

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    run(write_config(), picture_folder, tmp_path / "run")
    assert [step for name, step in written if name == "training/loss"] == list(range(1, 12))
    assert [step for name, step in written if name == "validation/score_db"] == [4, 8, 11]
    assert written[-1] == ("closed", 0)
