"""The training loop: a loop, resumable to the bit, on one process or several.

Leaves to others: which pictures (:mod:`.data`), what is minimised (:mod:`.loss`), the file of a
run's state (:mod:`.checkpoint`).
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
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from cwic.atomic_file import write_file
from cwic.errors import TrainingError
from cwic.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from cwic.training.config import StageConfig, TrainConfig, load_config
from cwic.training.data import PictureStore, batches, centre_crops, list_pictures
from cwic.training.loss import cvpr2018_objective, distortion
from cwic.training.model.network import Cvpr2018Network
from cwic.training.optimizer import Muon

CHECKPOINT_NAME = "checkpoint.safetensors"
BEST_NAME = "best.safetensors"
LOG_NAME = "log.csv"
VALIDATION_NAME = "validation.csv"

_LOG_COLUMNS = (
    "step stage wall_s cpu_s learning_rate loss psnr_db kept_bpp grad_norm mpx_per_s"
).split()
_VALIDATION_COLUMNS = "step stage rate_offset kept_bpp psnr_db distortion score_db".split()

# Updates with a non-finite gradient are skipped; this many in a row end the run.
_MAX_BAD_STEPS = 20

# Kept bits per pixel at which validation compares checkpoints.
_SCORE_BPP = (0.15, 0.3, 0.6)


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
    show_progress: bool = True,
) -> Progress:
    """Train as a configuration says, resuming by itself what `run_dir` already holds.

    Started by torchrun, every process calls this and owns an equal share of each batch.

    Args:
        config_path: TOML file, see :mod:`cwic.training.config`.
        data: folders of pictures.
        run_dir: gets checkpoint.safetensors, best.safetensors, log.csv, validation.csv.
        max_seconds: stop after this much wall time, with a checkpoint.
        device: "cpu", "cuda", ...; None: CUDA if there is one.
        threads: torch threads; None: torch's choice.
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
        trainer = _Trainer(config, [Path(folder) for folder in data], Path(run_dir), process)
        return trainer.run(max_seconds, show_progress and process.rank == 0)


@contextlib.contextmanager
def _process_group(device: str | None) -> Iterator[Process]:
    name = device or ("cuda" if torch.cuda.is_available() else "cpu")
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
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
    def __init__(self, config: TrainConfig, folders: list[Path], run_dir: Path, process: Process):
        for stage in config.stages:
            if stage.batch % process.world:
                raise TrainingError(
                    f"batch of stage {stage.name!r} must be a multiple of the {process.world} "
                    f"processes, found {stage.batch}"
                )
        self.config = config
        self.process = process
        self.run_dir = run_dir
        run_dir.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(config.seed)
        network = Cvpr2018Network(config.network).to(process.device)
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = _optimizer(config, self.network)
        self.average = {name: p.detach().clone() for name, p in self.network.named_parameters()}
        self.progress = Progress()
        if (run_dir / CHECKPOINT_NAME).exists():
            self._resume(run_dir / CHECKPOINT_NAME)
        split = list_pictures(folders, config.data.held_out)
        self.store = PictureStore(split.training, config.data.cache_mb, config.data.crop_px)
        self.validation = None
        if split.held_out and process.rank == 0:
            held_out = PictureStore(split.held_out, 0, config.validation_crop_px)
            self.validation = centre_crops(
                held_out, config.validation_crop_px, config.validation_count
            )
        model: nn.Module = self.network
        if config.compile:
            model = torch.compile(model)  # type: ignore[assignment]
        if process.world > 1:
            # The first stage leaves the map net without gradients.
            model = DistributedDataParallel(model, find_unused_parameters=True)
        self.model = model

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
            raise TrainingError(f"{path}: does not fit the network: {error}") from error
        for name, parameter in self.network.named_parameters():
            for key, value in groups.get("optimizer", {}).items():
                if key.rpartition("/")[0] == name:
                    self.optimizer.state[parameter][key.rpartition("/")[2]] = _like(
                        value, parameter
                    )
        self.progress = progress
        for name, columns in ((LOG_NAME, _LOG_COLUMNS), (VALIDATION_NAME, _VALIDATION_COLUMNS)):
            _drop_rows_after(self.run_dir / name, columns, progress.step)

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
        last_saved = progress.step
        try:
            while progress.step < config.total_steps:
                stage_index, stage, first = config.stage_at(progress.step)
                share = stage.batch // self.process.world
                positions = range(self.process.rank * share, (self.process.rank + 1) * share)
                steps = range(progress.step, progress.step - first + stage.steps)
                for batch in batches(self.store, config.data, config.seed, steps, positions):
                    step = progress.step
                    learning_rate = _learning_rate(stage, step - steps.stop + stage.steps)
                    loss, mse, kept_bpp, norm = self._step(batch, stage, step, learning_rate)
                    bad_steps = 0 if math.isfinite(norm) else bad_steps + 1
                    if bad_steps == _MAX_BAD_STEPS:
                        raise TrainingError(
                            f"{self.run_dir}: the gradient was not finite for {bad_steps} steps up "
                            f"to step {step}; lower the learning rate and start again"
                        )
                    progress.step += 1
                    progress.wall_s = wall_before + time.monotonic() - start_wall
                    progress.cpu_s = cpu_before + time.process_time() - start_cpu
                    log_pixels += batch.shape[0] * batch.shape[1] * batch.shape[2]
                    bar.update()
                    done = progress.step == config.total_steps
                    if progress.step % config.log_every == 0 or done:
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
                            "psnr_db": -10 * math.log10(max(mse, 1e-12)),
                            "kept_bpp": kept_bpp,
                            "grad_norm": norm,
                            "mpx_per_s": round(mpx_per_s, 3),
                        }
                        self._log(LOG_NAME, _LOG_COLUMNS, row, writer)
                        bar.set_postfix_str(
                            f"{mpx_per_s:.2f} Mpx/s, {kept_bpp:.3f} bpp, {row['psnr_db']:.2f} dB"
                        )
                    if progress.step % config.validate_every == 0 or done:
                        self._validate(stage_index, stage, writer)
                        log_time, log_pixels = time.monotonic(), 0
                    if progress.step % config.checkpoint_every == 0 or done:
                        self._save()
                        last_saved = progress.step
                    elapsed = time.monotonic() - start_wall
                    if self._any_process(
                        bool(stopping) or (max_seconds is not None and elapsed >= max_seconds)
                    ):
                        return progress
        finally:
            # A run that broke on a non-finite loss keeps its last good checkpoint.
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

    def _step(
        self, batch: np.ndarray, stage: StageConfig, step: int, learning_rate: float
    ) -> tuple[float, float, float, float]:
        """One optimiser step; loss, MSE, kept bits per pixel, gradient norm."""
        config = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        x = _to_network(batch, self.process.device)
        # One offset a step, the same in every process: the threshold belongs to a whole batch.
        rate_offset = np.random.default_rng((config.seed, step, 1 << 30)).uniform(
            config.network.min_rate_offset, config.network.max_rate_offset
        )
        autocast = torch.autocast(self.process.device.type, torch.bfloat16, enabled=config.bf16)
        with_map = stage.with_map and config.network.importance_map
        with autocast:
            output = self.model(x, rate_offset, with_map)
        # Outside: the windows of SSIM subtract nearly equal numbers.
        objective = cvpr2018_objective(output, config.network, x, stage, rate_offset)
        self.optimizer.zero_grad(set_to_none=True)
        objective.loss.backward()  # type: ignore[no-untyped-call]
        norm = float(nn.utils.clip_grad_norm_(self.network.parameters(), config.clip_norm))
        if math.isfinite(norm):
            self.optimizer.step()
            # The average follows quickly at first, so that early weights do not linger in it.
            decay = min(config.ema_decay, (1 + step) / (10 + step))
            with torch.no_grad():
                torch._foreach_lerp_(
                    list(self.average.values()), list(self.network.parameters()), 1 - decay
                )
        return float(objective.loss.detach()), float(objective.mse), float(objective.kept_bpp), norm

    # -- validation ----------------------------------------------------------------------------

    def _validate(self, stage_index: int, stage: StageConfig, writer: Any) -> None:
        """Measure the averaged weights on the held-out crops; keep them if they are the best."""
        if self.validation is None:
            return
        current = {name: p.detach().clone() for name, p in self.network.named_parameters()}
        self._load(self.average)
        try:
            curve = validation_curve(
                self.network, self.config, stage, self.validation, self.process.device
            )
        finally:
            self._load(current)
        score_db = _score_db(curve)
        for point in curve:
            row = {
                "step": self.progress.step,
                "stage": stage.name,
                "rate_offset": round(point.rate_offset, 3),
                "kept_bpp": point.kept_bpp,
                "psnr_db": point.psnr_db,
                "distortion": point.distortion,
                "score_db": score_db,
            }
            self._log(VALIDATION_NAME, _VALIDATION_COLUMNS, row, None)
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
            for key in ("loss", "psnr_db", "kept_bpp", "learning_rate", "mpx_per_s"):
                writer.add_scalar(f"training/{key}", row[key], row["step"])


class ValidationPoint(NamedTuple):
    """One rate of a network on held-out crops."""

    rate_offset: float
    kept_bpp: float
    psnr_db: float  # of the mean squared error over all crops
    distortion: float  # weighted as the stage says


def validation_curve(
    network: Cvpr2018Network,
    config: TrainConfig,
    stage: StageConfig,
    crops: np.ndarray,
    device: torch.device,
) -> list[ValidationPoint]:
    """Rate-distortion points of a network at five offsets (one without the map).

    Args:
        network: in float32; run under autocast if the configuration says so.
        config: of the run.
        stage: weights of the distortion, and whether the map is in use.
        crops: (N, S, S, 3) uint8.
        device: of the network.
    """
    with_map = stage.with_map and config.network.importance_map
    low, high = config.network.min_rate_offset, config.network.max_rate_offset
    points = []
    for rate_offset in np.linspace(low, high, 5) if with_map else [0.0]:
        sums = np.zeros(3)
        for crop in crops:
            x = _to_network(crop[None], device)
            with (
                torch.no_grad(),
                torch.autocast(device.type, torch.bfloat16, enabled=config.bf16),
            ):
                output = network(x, float(rate_offset), with_map)
            weighted, mse = distortion(x, output.reconstruction.float().clamp(-1, 1), stage)
            sums += [float(output.kept_fraction.mean()), float(mse), float(weighted)]
        kept_fraction, mse_mean, distortion_mean = sums / len(crops)
        points.append(
            ValidationPoint(
                rate_offset=float(rate_offset),
                kept_bpp=kept_fraction * config.network.code_channels / 64,
                psnr_db=-10 * math.log10(max(mse_mean, 1e-12)),
                distortion=distortion_mean,
            )
        )
    return points


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
        return value.clone()
    return torch.empty_like(parameter, requires_grad=False).copy_(value)


def _score_db(curve: list[ValidationPoint]) -> float:
    """-10 log10 of the distortion, read off the curve at fixed rates and averaged."""
    score = [-10 * math.log10(max(point.distortion, 1e-12)) for point in curve]
    if len(curve) == 1:
        return score[0]
    log_bpp = [math.log(max(point.kept_bpp, 1e-6)) for point in curve]
    # Outside the range the end points count, lowered by the usual 6 dB a doubling of the rate, so
    # that a network which cannot reach a rate gains nothing by it.
    values = []
    for wanted in np.log(_SCORE_BPP):
        inside = float(np.interp(wanted, log_bpp, score))
        excess = max(0.0, log_bpp[0] - wanted)
        values.append(inside - 6 / math.log(2) * excess)
    return float(np.mean(values))


def _learning_rate(stage: StageConfig, step: int) -> float:
    """Linear warm-up, then constant or a cosine down to the final rate."""
    if step < stage.warmup_steps:
        return stage.learning_rate * (step + 1) / stage.warmup_steps
    if stage.final_learning_rate is None:
        return stage.learning_rate
    done = (step - stage.warmup_steps) / max(1, stage.steps - stage.warmup_steps)
    fall = stage.learning_rate - stage.final_learning_rate
    return stage.final_learning_rate + fall * (1 + math.cos(math.pi * done)) / 2


def _to_network(pixels: np.ndarray, device: torch.device) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 in [-1, 1], channels last in memory."""
    x = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2)
    return (x.float() - 127.5) / 127.5


def _tensorboard_writer(run_dir: Path) -> Any:
    """A TensorBoard writer when the package is there, else None."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(run_dir))


def _drop_rows_after(path: Path, columns: list[str], step: int) -> None:
    """Forget log rows of steps that the checkpoint resumed from does not have."""
    if not path.exists():
        return
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
    text = io.StringIO()
    table = csv.DictWriter(text, columns)
    table.writeheader()
    table.writerows(rows)
    write_file(path, text.getvalue().encode())
