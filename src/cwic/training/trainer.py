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
from cwic.training.cvpr2018 import Cvpr2018Family
from cwic.training.data import (
    DeviceStore,
    PictureFile,
    PictureStore,
    batches,
    centre_crops,
    device_batches,
    kind_of,
    list_pictures,
    to_device,
    uses_device,
)
from cwic.training.family import Drawn, Family, Place, StepLoss
from cwic.training.flagship import FlagshipFamily
from cwic.training.optimizer import Muon, has_bfloat16
from cwic.training.restore import restore_weights
from cwic.training.step import Step

FAMILIES: dict[str, Family] = {"cvpr2018": Cvpr2018Family(), "cwic": FlagshipFamily()}

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

    Returns:
        The counters reached.

    Raises:
        TrainingError: bad configuration, pictures or checkpoint, or the loss is no longer finite.
    """
    config = load_config(Path(config_path))
    if threads is not None:
        torch.set_num_threads(threads)
    with _process_group(device) as process:
        folders = [Path(folder) for folder in data]
        start = init_from or config.init_from
        trainer = _Trainer(config, folders, Path(run_dir), process, Path(start) if start else None)
        return trainer.run(max_seconds, show_progress and process.rank == 0)


@contextlib.contextmanager
def _process_group(device: str | None) -> Iterator[Process]:
    name = device or ("cuda" if torch.cuda.is_available() else "cpu")
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        if name.startswith("cuda:"):
            torch.cuda.set_device(name)
        yield Process(0, 1, torch.device(name))
        return
    rank = int(os.environ["RANK"])
    if name == "cuda":
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(name)
    dist.init_process_group("nccl" if name.startswith("cuda") else "gloo")
    try:
        yield Process(rank, world, torch.device(name))
    finally:
        dist.destroy_process_group()


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
        self.family = family = FAMILIES[config.family]
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
        network = family.build(config).to(process.device)
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = _optimizer(config, self.network)
        self.average = {name: p.detach().clone() for name, p in self.network.named_parameters()}
        self.bad_steps = torch.zeros((), dtype=torch.int64, device=process.device)
        self.progress = Progress()
        if (run_dir / CHECKPOINT_NAME).exists():
            self._resume(run_dir / CHECKPOINT_NAME)
        elif init_from is not None:
            self._start_from(init_from)
        if process.rank == 0:
            step = self.progress.step
            _drop_rows_after(run_dir / LOG_NAME, self._log_columns, step)
            _drop_rows_after(run_dir / VALIDATION_NAME, self._validation_columns, step)
        split = list_pictures(folders, config.data.held_out)
        smallest_px = min(config.data_of(stage).crop_px for stage in config.stages)
        self.store: PictureStore | DeviceStore
        if uses_device(config.data, process.device):
            self.store = DeviceStore(split.training, smallest_px, config.data, process.device)
        else:
            self.store = PictureStore(split.training, config.data.cache_mb, smallest_px)
        self.validation: dict[str, np.ndarray] = {}
        if process.rank == 0:
            by_kind: dict[str, list[PictureFile]] = {}
            for file in split.held_out:
                by_kind.setdefault(kind_of(file), []).append(file)
            for kind, files in sorted(by_kind.items()):
                held_out = PictureStore(files, 0, config.validation_crop_px)
                self.validation[kind] = centre_crops(
                    held_out, config.validation_crop_px, config.validation_count
                )
        self.model: nn.Module = self.network
        if process.world > 1:
            # A stage may leave a part of the network without gradients.
            self.model = DistributedDataParallel(self.network, find_unused_parameters=True)

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
            weights = restore_weights(path, self.network)
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
        config, progress = self.config, self.progress
        stopping: list[int] = []
        previous = signal.getsignal(signal.SIGTERM)
        with contextlib.suppress(ValueError):  # only the main thread may set handlers
            signal.signal(signal.SIGTERM, lambda number, frame: stopping.append(number))
        writer = _tensorboard_writer(self.run_dir) if self.process.rank == 0 else None
        start_wall, start_cpu = time.monotonic(), time.process_time()
        wall_before, cpu_before = progress.wall_s, progress.cpu_s
        bar = tqdm(
            total=config.total_steps,
            initial=progress.step,
            unit="step",
            disable=not show_progress,
            mininterval=0.5 if sys.stderr.isatty() else 30,
        )
        log_time, log_pixels = time.monotonic(), 0
        bad_steps = 0
        # Without a graph, and among processes, each step is waited for anyway.
        waits = self.process.device.type == "cpu" or self.process.world > 1
        last_saved = progress.step
        try:
            while progress.step < config.total_steps:
                stage_index, stage, first = config.stage_at(progress.step)
                share = stage.batch // self.process.world
                positions = range(self.process.rank * share, (self.process.rank + 1) * share)
                steps = range(progress.step, progress.step - first + stage.steps)
                self.family.begin_stage(self.network, stage)
                update = self._step_of(stage)
                if stage.entropy_only and first == 0:
                    # Expectations are trained on what the exported weights will code.
                    self._load(self.average)
                for batch in self._batches(stage, steps, positions):
                    step = progress.step
                    learning_rate = _learning_rate(stage, step - steps.stop + stage.steps)
                    place = Place(step, positions)
                    # The average follows quickly at first, so that early weights do not linger in
                    # it; what only the last stage trains starts out there.
                    part_alone = stage.entropy_only or getattr(stage, "fast_only", False)
                    age = step - (steps.stop - stage.steps) if part_alone else step
                    decay = min(config.ema_decay, (1 + age) / (10 + age))
                    result = update(self._drawn(batch, stage, place), learning_rate, decay)
                    done = step + 1 == config.total_steps
                    logs, validates, saves = (
                        (step + 1) % every == 0 or done
                        for every in (
                            config.log_every,
                            config.validate_every,
                            config.checkpoint_every,
                        )
                    )
                    if waits or logs or validates or saves:
                        bad_steps = int(self.bad_steps)
                    if bad_steps >= _MAX_BAD_STEPS:
                        raise TrainingError(
                            f"{self.run_dir}: the gradient was not finite for {bad_steps} steps up "
                            f"to step {step}; lower the learning rate and start again"
                        )
                    progress.step += 1
                    progress.wall_s = wall_before + time.monotonic() - start_wall
                    progress.cpu_s = cpu_before + time.process_time() - start_cpu
                    log_pixels += batch.shape[0] * batch.shape[1] * batch.shape[2]
                    bar.update()
                    if logs:
                        figures = dict(
                            zip(self.family.log_columns, result.figures.tolist(), strict=True)
                        )
                        loss, norm = float(result.loss), float(result.norm)
                        now = time.monotonic()
                        mpx_per_s = self.process.world * log_pixels / 1e6 / (now - log_time)
                        log_time, log_pixels = now, 0
                        row = {
                            "step": progress.step,
                            "stage": stage.name,
                            "wall_s": round(progress.wall_s, 1),
                            "cpu_s": round(progress.cpu_s, 1),
                            "learning_rate": learning_rate,
                            "loss": loss,
                            **figures,
                            "grad_norm": norm,
                            "mpx_per_s": round(mpx_per_s, 3),
                        }
                        self._log(LOG_NAME, self._log_columns, row, writer)
                        rate_bpp = figures[self.family.rate_column]
                        bar.set_postfix_str(
                            f"{mpx_per_s:.2f} Mpx/s, {rate_bpp:.3f} bpp, "
                            f"{figures['psnr_db']:.2f} dB"
                        )
                    if validates:
                        self._validate(stage_index, stage, writer)
                        log_time, log_pixels = time.monotonic(), 0
                    if saves:
                        self._save()
                        last_saved = progress.step
                    elapsed = time.monotonic() - start_wall
                    if self._any_process(
                        bool(stopping) or (max_seconds is not None and elapsed >= max_seconds)
                    ):
                        bad_steps = int(self.bad_steps)
                        return progress
        finally:
            # A run that broke on a gradient that is not finite keeps its last good checkpoint.
            if progress.step != last_saved and bad_steps < _MAX_BAD_STEPS:
                self._save()
            bar.close()
            if writer is not None:
                writer.close()
            with contextlib.suppress(ValueError):
                signal.signal(signal.SIGTERM, previous)
        return progress

    def _any_process(self, flag: bool) -> bool:
        """Whether any process says so: all must leave the loop at the same step."""
        if self.process.world == 1:
            return flag
        votes = torch.tensor(float(flag), device=self.process.device)
        dist.all_reduce(votes)
        return bool(votes > 0)

    def _batches(self, stage: StageConfig, steps: range, positions: range) -> Iterator[Tensor]:
        """(B, S, S, 3) uint8 on the device for each step, prepared there or in memory."""
        data, seed = self.config.data_of(stage), self.config.seed
        if isinstance(self.store, DeviceStore):
            return device_batches(self.store, data, seed, steps, positions)
        in_memory = batches(self.store, data, seed, steps, positions)
        return (to_device(batch, self.process.device) for batch in in_memory)

    def _drawn(self, batch: Tensor, stage: StageConfig, place: Place) -> list[Drawn]:
        """What the family draws for each part of a batch that is worked on at once."""
        size, first = stage.micro_batch or len(batch), place.positions.start
        result = []
        for start in range(0, len(batch), size):
            part = batch[start : start + size]
            positions = range(first + start, first + start + len(part))
            of_part = place._replace(positions=positions)
            result.append(self.family.draw(part, self.computing, stage, of_part))
        return result

    def _step_of(self, stage: StageConfig) -> Step:
        """What every step of a stage does."""
        config, process = self.config, self.process

        def objective(drawn: Drawn) -> StepLoss:
            return self.family.objective(self.model, drawn, self.computing, stage)

        if config.compile:
            objective = torch.compile(objective, dynamic=self.family.dynamic_shapes)
        alone_on_cuda = process.device.type == "cuda" and process.world == 1
        captured = config.cuda_graph and alone_on_cuda and config.optimizer == "muon"
        return Step(
            objective,
            self.network,
            self.average,
            self.optimizer,
            self.bad_steps,
            config.clip_norm,
            captured,
        )

    # -- validation ----------------------------------------------------------------------------

    def _validate(self, stage_index: int, stage: StageConfig, writer: Any) -> None:
        """Measure the averaged weights on the held-out crops; keep them if they are the best."""
        if not self.validation:
            return
        current = {name: p.detach().clone() for name, p in self.network.named_parameters()}
        self._load(self.average)
        try:
            found = {
                kind: self.family.validate(
                    self.network, self.config, stage, crops, self.process.device
                )
                for kind, crops in self.validation.items()
            }
        finally:
            self._load(current)
        for kind, validation in found.items():
            head = {"step": self.progress.step, "stage": stage.name, "kind": kind}
            for point in validation.rows:
                row = {**head, **point, "score_db": validation.score_db}
                self._log(VALIDATION_NAME, self._validation_columns, row, None)
        score_db = sum(validation.score_db for validation in found.values()) / len(found)
        if writer is not None:
            writer.add_scalar("validation/score_db", score_db, self.progress.step)
        progress = self.progress
        if stage_index > progress.best_stage or score_db > progress.best_score_db:
            progress.best_stage, progress.best_score_db = stage_index, score_db
            path = self.run_dir / BEST_NAME
            save_checkpoint(path, self.config, progress, {"average": self.average})

    def _load(self, values: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.network.named_parameters():
                parameter.copy_(values[name])

    def _log(self, name: str, columns: list[str], row: dict[str, Any], writer: Any) -> None:
        if self.process.rank != 0:
            return
        path = self.run_dir / name
        fresh = not path.exists()
        with path.open("a", newline="") as file:
            table = csv.DictWriter(file, columns)
            if fresh:
                table.writeheader()
            table.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
        if writer is not None:
            for key in ("loss", *self.family.log_columns, "learning_rate", "mpx_per_s"):
                if math.isfinite(row[key]):  # a stage need not have every figure
                    writer.add_scalar(f"training/{key}", row[key], row["step"])


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
