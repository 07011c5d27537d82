"""The training loop: a loop, resumable to the bit, on one process or several.

Leaves to others: which pictures (:mod:`.data`), which network, what is minimised and what is
measured (:mod:`.family`), the file of a run's state (:mod:`.checkpoint`).
"""

import contextlib
import csv
import io
import math
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from cwic import model_file
from cwic.atomic_file import write_file
from cwic.errors import TrainingError, reason
from cwic.training.checkpoint import Progress, load_checkpoint, load_weights, save_checkpoint
from cwic.training.config import StageConfig, TrainConfig, load_config
from cwic.training.data import (
    PictureFile,
    PictureStore,
    batches,
    centre_crops,
    kind_of,
    list_pictures,
    to_device,
)
from cwic.training.device_store import DeviceStore, device_batches, uses_device
from cwic.training.families import FAMILIES
from cwic.training.family import Drawn, Place, StepLoss
from cwic.training.optimizer import Muon, has_bfloat16
from cwic.training.step import State, Step, StepResult

CHECKPOINT_NAME = "checkpoint.safetensors"
BEST_NAME = "best.safetensors"
LOG_NAME = "log.csv"
VALIDATION_NAME = "validation.csv"

# Updates with a non-finite gradient are skipped; this many in a row end the run.
_MAX_BAD_STEPS = 20


class Process(NamedTuple):
    """This process among those of the run (one unless started by torchrun)."""

    rank: int
    world: int
    device: torch.device


def train(
    config_path: str | os.PathLike[str],
    data: Sequence[str | os.PathLike[str]],
    run_dir: str | os.PathLike[str],
    *,
    max_seconds: float | None = None,
    device: str | None = None,
    threads: int | None = None,
    init_from: str | os.PathLike[str] | None = None,
    show_progress: bool = True,
) -> Progress:
    """Train as a configuration says, resuming by itself what `run_dir` already holds.

    Started by torchrun, every process calls this and owns an equal share of each batch.

    Args:
        config_path: TOML file, see :mod:`cwic.training.config`.
        data: folders of pictures, or packs of them.
        run_dir: gets checkpoint.safetensors, best.safetensors, log.csv, validation.csv.
        max_seconds: stop after this much wall time, with a checkpoint.
        device: "cpu", "cuda", ...; None: CUDA if there is one.
        threads: torch threads; None: torch's choice.
        init_from: checkpoint whose averaged weights a fresh run starts from, or a model file
            (`.cwicmodel`); None: what the configuration says.
        show_progress: a bar on standard error.

    Raises:
        TrainingError: bad configuration, pictures or checkpoint, or the loss is no longer finite.
    """
    config = load_config(Path(config_path), FAMILIES)
    if threads is not None:
        torch.set_num_threads(threads)
    with _process_group(device) as process:
        folders = [Path(folder) for folder in data]
        start = init_from or config.init_from
        trainer = _Trainer(config, folders, Path(run_dir), process, Path(start) if start else None)
        return trainer.run(max_seconds, show_progress and process.rank == 0)


def _check_device(name: str) -> None:
    """Raises TrainingError where torch knows no such device, or this machine has none."""
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise TrainingError(
            f"expected a device that this machine has, found {name!r}: {reason(error)}"
        ) from error


@contextlib.contextmanager
def _process_group(device: str | None) -> Iterator[Process]:
    name = device or ("cuda" if torch.cuda.is_available() else "cpu")
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1 and name == "cuda":
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(name)
    _check_device(name)
    if world == 1:
        if name.startswith("cuda:"):
            torch.cuda.set_device(name)
        yield Process(0, 1, torch.device(name))
        return
    rank = int(os.environ["RANK"])
    dist.init_process_group("nccl" if name.startswith("cuda") else "gloo")
    try:
        yield Process(rank, world, torch.device(name))
    finally:
        dist.destroy_process_group()


class _Clock:
    """Times of a run over all its resumptions, and its speed since the last restart."""

    def __init__(self, progress: Progress, max_seconds: float | None):
        self._progress, self._max_seconds = progress, max_seconds
        self._start_s = time.monotonic()
        self._wall_before = progress.wall_s - self._start_s
        self._cpu_before = progress.cpu_s - time.process_time()
        self.restart()

    def restart(self) -> None:
        """What was done since does not count for the speed."""
        self._speed_since_s, self._pixels = time.monotonic(), 0

    def count(self, pixels: int) -> None:
        """After a step of so many pixels."""
        self._progress.wall_s = self._wall_before + time.monotonic()
        self._progress.cpu_s = self._cpu_before + time.process_time()
        self._pixels += pixels

    def mpx_per_s(self) -> float:
        """Of this process, since the last restart, which this is too."""
        speed = self._pixels / 1e6 / (time.monotonic() - self._speed_since_s)
        self.restart()
        return speed

    def is_over(self) -> bool:
        """Whether the time of this resumption is spent."""
        elapsed_s = time.monotonic() - self._start_s
        return self._max_seconds is not None and elapsed_s >= self._max_seconds


class _Trainer:
    def __init__(
        self,
        config: TrainConfig,
        folders: list[Path],
        run_dir: Path,
        process: Process,
        init_from: Path | None,
    ):
        for stage in config.stages:
            if stage.batch % process.world:
                raise TrainingError(
                    f"batch of stage {stage.name!r} must be a multiple of the {process.world} "
                    f"processes, found {stage.batch}"
                )
        self.config = config
        # What a run is does not depend on the machine that goes on with it; its precision does.
        self.computing = replace(config, bf16=config.bf16 and has_bfloat16(process.device))
        self.family = FAMILIES[config.family]
        self.process = process
        self.run_dir = run_dir
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(
                f"{run_dir}: expected a folder for the run: {reason(error)}"
            ) from error
        torch.manual_seed(config.seed)
        if process.device.type == "cuda":
            # Not TF32: its ten bits are too few for latents of a hundred steps, and for SSIM.
            torch.backends.cudnn.allow_tf32 = False
            torch.backends.cudnn.benchmark = True  # a stage has one shape
        network = self.family.build(config).to(process.device)
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = _optimizer(config, self.network)
        self.average = {name: p.detach().clone() for name, p in self.network.named_parameters()}
        self.bad_steps = torch.zeros((), dtype=torch.int64, device=process.device)
        self.progress = Progress()
        if (run_dir / CHECKPOINT_NAME).exists():
            self._resume(run_dir / CHECKPOINT_NAME)
        elif init_from is not None:
            self._start_from(init_from)
        self.saved_step = self.progress.step
        self.writer: Any = None
        split = list_pictures(folders, config.data.held_out)
        self.store = self._open_store(split.training)
        self.held_out: dict[str, np.ndarray] = {}  # crops by their kind
        if process.rank == 0:
            _drop_rows_after(run_dir / LOG_NAME, self._log_columns, self.saved_step)
            _drop_rows_after(run_dir / VALIDATION_NAME, self._validation_columns, self.saved_step)
            self.held_out = self._held_out_crops(split.held_out)
            self.writer = _tensorboard_writer(run_dir)
        self.model: nn.Module = self.network
        if process.world > 1:
            # A stage may leave a part of the network without gradients.
            self.model = DistributedDataParallel(self.network, find_unused_parameters=True)

    def _open_store(self, files: Sequence[PictureFile]) -> PictureStore | DeviceStore:
        config, device = self.config, self.process.device
        smallest_px = min(config.data_of(stage).crop_px for stage in config.stages)
        if uses_device(config.data, device):
            return DeviceStore(files, smallest_px, config.data, device)
        return PictureStore(files, config.data.cache_mb, smallest_px)

    def _held_out_crops(self, files: Sequence[PictureFile]) -> dict[str, np.ndarray]:
        by_kind: dict[str, list[PictureFile]] = {}
        for file in files:
            by_kind.setdefault(kind_of(file), []).append(file)
        crop_px, count = self.config.validation_crop_px, self.config.validation_count
        return {
            kind: centre_crops(PictureStore(of_kind, 0, crop_px), crop_px, count)
            for kind, of_kind in sorted(by_kind.items())
        }

    @property
    def _log_columns(self) -> list[str]:
        before = "step stage wall_s cpu_s learning_rate loss".split()
        return [*before, *self.family.log_columns, "grad_norm", "mpx_per_s"]

    @property
    def _validation_columns(self) -> list[str]:
        return ["step", "stage", "kind", *self.family.validation_columns, "score_db"]

    # -- state ---------------------------------------------------------------------------------

    def _resume(self, path: Path) -> None:
        config, progress, groups = load_checkpoint(path)
        if config.network != self.config.network or config.seed != self.config.seed:
            raise TrainingError(
                f"{path}: expected the network and seed of the configuration, found another's; "
                f"choose a fresh run folder"
            )
        try:
            self.network.load_state_dict(groups["weights"])
            for name, average in self.average.items():
                average.copy_(groups["average"][name])
        except (KeyError, RuntimeError) as error:
            raise TrainingError(f"{path}: does not fit the network: {reason(error)}") from error
        for name, parameter in self.network.named_parameters():
            for key, value in groups.get("optimizer", {}).items():
                if key.rpartition("/")[0] != name:
                    continue
                if value.shape not in (parameter.shape, ()):
                    raise TrainingError(
                        f"{path}: expected {key} of shape {tuple(parameter.shape)}, "
                        f"found {tuple(value.shape)}"
                    )
                self.optimizer.state[parameter][key.rpartition("/")[2]] = _like(value, parameter)
        self.progress = progress

    def _start_from(self, path: Path) -> None:
        """Take the averaged weights of another run, or those of a model, and nothing else."""
        if path.suffix == model_file.EXTENSION:
            weights = self.family.restored(path, self.network)
        else:
            config, _, weights = load_weights(path)
            if config.network != self.config.network:
                raise TrainingError(
                    f"{path}: expected the network of the configuration to start from, "
                    f"found another's"
                )
        try:
            self._load(weights)
        except (KeyError, RuntimeError) as error:
            raise TrainingError(f"{path}: does not fit the network: {reason(error)}") from error
        for name, parameter in self.network.named_parameters():
            self.average[name].copy_(parameter.detach())

    def _save(self) -> None:
        self.saved_step = self.progress.step
        if self.process.rank != 0:
            return
        optimizer = {
            f"{name}/{key}": value
            for name, parameter in self.network.named_parameters()
            for key, value in self.optimizer.state.get(parameter, {}).items()
        }
        groups = {
            "weights": self.network.state_dict(),
            "average": self.average,
            "optimizer": optimizer,
        }
        save_checkpoint(self.run_dir / CHECKPOINT_NAME, self.config, self.progress, groups)

    # -- the loop ------------------------------------------------------------------------------

    def run(self, max_seconds: float | None, show_progress: bool) -> Progress:
        """Take the steps that are left, or as many as the time allows."""
        config, progress = self.config, self.progress
        clock = _Clock(progress, max_seconds)
        bar = tqdm(
            total=config.total_steps,
            initial=progress.step,
            unit="step",
            disable=not show_progress,
            mininterval=0.5 if sys.stderr.isatty() else 30,
        )
        # Without a graph, and among processes, each step is waited for anyway.
        waits = self.process.device.type == "cpu" or self.process.world > 1
        with _sigterm() as stopping:
            try:
                while progress.step < config.total_steps:
                    stage_index, stage, done_in_stage = config.stage_at(progress.step)
                    begin = progress.step - done_in_stage
                    update = self._begin_stage(stage, done_in_stage)
                    for batch in self._batches(stage, range(progress.step, begin + stage.steps)):
                        step = progress.step
                        learning_rate = _learning_rate(stage, step - begin)
                        # The average follows quickly at first, so that early weights do not linger
                        # in it; what only the last stage trains starts out there.
                        age = step - begin if stage.trains_a_part else step
                        decay = min(config.ema_decay, (1 + age) / (10 + age))
                        result = update(self._drawn(batch, stage, step), learning_rate, decay)
                        logs, validates, saves = (
                            (step + 1) % every == 0 or step + 1 == config.total_steps
                            for every in (
                                config.log_every,
                                config.validate_every,
                                config.checkpoint_every,
                            )
                        )
                        if waits or logs or validates or saves:
                            self._check_finite()
                        progress.step += 1
                        clock.count(batch.shape[0] * batch.shape[1] * batch.shape[2])
                        bar.update()
                        if logs:
                            speed = self.process.world * clock.mpx_per_s()
                            bar.set_postfix_str(self._log_step(stage, learning_rate, result, speed))
                        if validates:
                            self._validate(stage_index, stage)
                            clock.restart()
                        if saves:
                            self._save()
                        if self._any_process(bool(stopping) or clock.is_over()):
                            return progress
            finally:
                # A run that broke on a gradient that is not finite keeps its last good checkpoint.
                if progress.step != self.saved_step and int(self.bad_steps) < _MAX_BAD_STEPS:
                    self._save()
                bar.close()
                if self.writer is not None:
                    self.writer.close()
        return progress

    def _begin_stage(self, stage: StageConfig, done: int) -> Step:
        """What every step of a stage does, `done` of which are done."""
        config, process = self.config, self.process
        self.family.begin_stage(self.network, stage)
        if stage.entropy_only and not done:
            # Expectations are trained on what the exported weights will code.
            self._load(self.average)

        def objective(drawn: Drawn) -> StepLoss:
            return self.family.objective(self.model, drawn, self.computing, stage)

        if config.compile:
            objective = torch.compile(objective, dynamic=self.family.dynamic_shapes)
        alone_on_cuda = process.device.type == "cuda" and process.world == 1
        captured = config.cuda_graph and alone_on_cuda and config.optimizer == "muon"
        state = State(self.network, self.average, self.optimizer, self.bad_steps)
        return Step(objective, state, clip_norm=config.clip_norm, captured=captured)

    def _check_finite(self) -> None:
        bad_steps = int(self.bad_steps)
        if bad_steps >= _MAX_BAD_STEPS:
            raise TrainingError(
                f"{self.run_dir}: the gradient was not finite for {bad_steps} steps up "
                f"to step {self.progress.step}; lower the learning rate and start again"
            )

    def _log_step(
        self, stage: StageConfig, learning_rate: float, result: StepResult, mpx_per_s: float
    ) -> str:
        """Write a row of the log; returns what the bar shows of it."""
        figures = dict(zip(self.family.log_columns, result.figures.tolist(), strict=True))
        row = {
            "step": self.progress.step,
            "stage": stage.name,
            "wall_s": round(self.progress.wall_s, 1),
            "cpu_s": round(self.progress.cpu_s, 1),
            "learning_rate": learning_rate,
            "loss": float(result.loss),
            **figures,
            "grad_norm": float(result.norm),
            "mpx_per_s": round(mpx_per_s, 3),
        }
        self._write_row(LOG_NAME, self._log_columns, row)
        if self.writer is not None:
            for key in ("loss", *self.family.log_columns, "learning_rate", "mpx_per_s"):
                if math.isfinite(row[key]):  # a stage need not have every figure
                    self.writer.add_scalar(f"training/{key}", row[key], row["step"])
        rate_bpp = figures[self.family.rate_column]
        return f"{mpx_per_s:.2f} Mpx/s, {rate_bpp:.3f} bpp, {figures['psnr_db']:.2f} dB"

    def _positions(self, stage: StageConfig) -> range:
        """Which samples of a batch are this process' own."""
        share = stage.batch // self.process.world
        return range(self.process.rank * share, (self.process.rank + 1) * share)

    def _any_process(self, flag: bool) -> bool:
        """Whether any process says so: all must leave the loop at the same step."""
        if self.process.world == 1:
            return flag
        votes = torch.tensor(float(flag), device=self.process.device)
        dist.all_reduce(votes)
        return bool(votes > 0)

    def _batches(self, stage: StageConfig, steps: range) -> Iterator[Tensor]:
        """(B, H, W, 3) uint8 on the device for each step, prepared there or in memory."""
        data, seed, positions = self.config.data_of(stage), self.config.seed, self._positions(stage)
        if isinstance(self.store, DeviceStore):
            return device_batches(self.store, data, seed, steps, positions)
        in_memory = batches(self.store, data, seed, steps, positions)
        return (to_device(batch, self.process.device) for batch in in_memory)

    def _drawn(self, batch: Tensor, stage: StageConfig, step: int) -> list[Drawn]:
        """What the family draws for each part of a batch that is worked on at once."""
        size, first = stage.micro_batch or len(batch), self._positions(stage).start
        result = []
        for start in range(0, len(batch), size):
            part = batch[start : start + size]
            place = Place(step, range(first + start, first + start + len(part)))
            result.append(self.family.draw(part, self.computing, stage, place))
        return result

    # -- validation ----------------------------------------------------------------------------

    def _validate(self, stage_index: int, stage: StageConfig) -> None:
        """Measure the averaged weights on the held-out crops; keep them if they are the best."""
        if not self.held_out:
            return
        current = {name: p.detach().clone() for name, p in self.network.named_parameters()}
        self._load(self.average)
        try:
            found = {
                kind: self.family.validate(
                    self.network, self.config, stage, crops, self.process.device
                )
                for kind, crops in self.held_out.items()
            }
        finally:
            self._load(current)
        for kind, validation in found.items():
            head = {"step": self.progress.step, "stage": stage.name, "kind": kind}
            for point in validation.rows:
                row = {**head, **point, "score_db": validation.score_db}
                self._write_row(VALIDATION_NAME, self._validation_columns, row)
        score_db = sum(validation.score_db for validation in found.values()) / len(found)
        if self.writer is not None:
            self.writer.add_scalar("validation/score_db", score_db, self.progress.step)
        progress = self.progress
        if stage_index > progress.best_stage or score_db > progress.best_score_db:
            progress.best_stage, progress.best_score_db = stage_index, score_db
            path = self.run_dir / BEST_NAME
            save_checkpoint(path, self.config, progress, {"average": self.average})

    def _load(self, values: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.network.named_parameters():
                parameter.copy_(values[name])

    def _write_row(self, name: str, columns: list[str], row: dict[str, Any]) -> None:
        if self.process.rank != 0:
            return
        path = self.run_dir / name
        fresh = not path.exists()
        with path.open("a", newline="") as file:
            table = csv.DictWriter(file, columns)
            if fresh:
                table.writeheader()
            table.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})


@contextlib.contextmanager
def _sigterm() -> Iterator[list[int]]:
    """A list that is no longer empty once this process got SIGTERM."""
    received: list[int] = []
    previous = signal.getsignal(signal.SIGTERM)
    with contextlib.suppress(ValueError):  # only the main thread may set handlers
        signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    try:
        yield received
    finally:
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGTERM, previous)


def _optimizer(config: TrainConfig, network: nn.Module) -> torch.optim.Optimizer:
    """The learning rate is set before each step."""
    if config.optimizer == "muon":
        return Muon(network.parameters(), lr=0.0)
    return torch.optim.Adam(network.parameters(), lr=0.0, betas=(0.9, 0.99))


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    """A saved moment with the device and memory order of its parameter; counters stay as they are.

    The order matters: a resumed run equals an unbroken one only if sums run in the same order.
    """
    if value.shape != parameter.shape:
        return value.to(parameter.device, copy=True)
    return torch.empty_like(parameter, requires_grad=False).copy_(value)


def _learning_rate(stage: StageConfig, step: int) -> float:
    """Linear warm-up, then constant or down to the final rate."""
    if step < stage.warmup_steps:
        return stage.learning_rate * (step + 1) / stage.warmup_steps
    if stage.final_learning_rate is None:
        return stage.learning_rate
    done = (step - stage.warmup_steps) / max(1, stage.steps - stage.warmup_steps)
    fall = stage.learning_rate - stage.final_learning_rate
    left = 1 - math.sqrt(done) if stage.fall == "sqrt" else (1 + math.cos(math.pi * done)) / 2
    return stage.final_learning_rate + fall * left


def _tensorboard_writer(run_dir: Path) -> Any:
    """A TensorBoard writer when the package is there, else None."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(run_dir))


def _drop_rows_after(path: Path, columns: list[str], step: int) -> None:
    """Forget log rows of steps that the checkpoint resumed from does not have.

    So too a last row, or head of the table, that a kill or a full disk cut short.
    """
    if not path.exists():
        return
    text = io.StringIO()
    table = csv.DictWriter(text, columns)
    table.writeheader()
    try:
        with path.open(newline="") as file:
            whole = (line for line in file if line.endswith("\n"))
            table.writerows(row for row in csv.DictReader(whole) if int(row["step"]) <= step)
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise TrainingError(
            f"{path}: expected the log of this run with columns {', '.join(columns)}, "
            f"found another table; move it away to go on"
        ) from error
    write_file(path, text.getvalue().encode())
