"""The training configuration: a TOML file read into frozen dataclasses; unknown keys are errors."""

import dataclasses
import math
import tomllib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from cwic.errors import TrainingError, reason
from cwic.training.data import DataConfig
from cwic.training.model.flagship import PICTURE_MULTIPLE, FlagshipConfig
from cwic.training.model.network import Cvpr2018Config

T = TypeVar("T")

FamilyName = Literal["cvpr2018", "cwic"]

_WEIGHTS = ("mse_weight", "ssim_weight", "ms_ssim_weight", "rate_weight")


@dataclass(frozen=True)
class StageConfig:
    """One stage of a staged schedule; stages follow each other and count their own steps."""

    name: str  # for the log
    steps: int  # optimiser steps
    with_map: bool = True  # False trains the network without its importance map
    crop_px: int | None = None  # side of a crop in this stage; None: that of the data
    max_crop_px: int | None = None  # largest side of a crop that need not be square, likewise
    batch: int = 32  # crops a step, over all processes
    micro_batch: int | None = None  # of them worked on at once in a process; None: all
    learning_rate: float = 1e-4  # of the optimizer; muon wants about 50 times that of adam
    final_learning_rate: float | None = None  # reached at the end; None: constant
    fall: Literal["cosine", "sqrt"] = "cosine"  # on the way there; sqrt: by 1 - sqrt(share done)
    warmup_steps: int = 0  # linear rise at the start of the stage
    mse_weight: float = 6.0  # weight of the mean squared error (pixel range 1); 6 is the paper's
    ssim_weight: float = 0.0  # weight of 1 - SSIM
    ms_ssim_weight: float = 0.0  # weight of 1 - MS-SSIM; needs crops of more than 160 px
    rate_weight: float = 0.04  # gamma, see loss.thresholded_rate
    entropy_only: bool = False  # train nothing but the decoder's expectations

    def __post_init__(self) -> None:
        for name in ("steps", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, found {getattr(self, name)}")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate must be above 0, found {self.learning_rate}")
        for name in ("final_learning_rate", "warmup_steps", *_WEIGHTS):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"{name} must not be negative, found {value}")


@dataclass(frozen=True)
class FlagshipStage(StageConfig):
    """One stage of the `cwic` family: bits per pixel plus 2^(q / 2) times the distortion.

    The weights are those at q = 0; there, 845 times the mean squared error is 0.013 times that in
    squared steps of a byte, which is about half a bit per pixel.
    """

    mse_weight: float = 845.0  # weight of the mean squared error (pixel range 1)
    rate_weight: float = 1.0  # weight of the rate in bits per pixel
    low_frequency_weight: float = 0.0  # weight of the error of the pictures shrunk by 16
    preview_weight: float = 0.0  # weight of the error of previews, at 1/8 of the pictures' size
    grid_weight: float = 0.0  # weight of what repeats every 8 pixels, whatever q
    saliency_weight: float = 0.0  # share of the distortion that counts by saliency, see loss
    distill_weight: float = 0.0  # with fast_only: weight of its error beside the full synthesis
    perceptual_weight: float = 0.0  # weight of the perceptual distance
    perceptual: str = "haarpsi"  # or "lpips", the package, or a path of SqueezeNet v1.1's weights
    random_maps: float = 0.3  # share of pictures with a random offset on their importance map
    often_q: tuple[float, float] | None = None  # the range that four of five q are drawn from
    cut_share: float = 0.0  # share of steps whose entropy model is cut, as at a tile's border
    hard: bool = False  # rates of rounded values in place of noise
    fast_only: bool = False  # train nothing but the light synthesis

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("random_maps", "saliency_weight", "cut_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], found {getattr(self, name)}")
        if self.fast_only and self.entropy_only:
            raise ValueError("expected at most one of fast_only and entropy_only, found both")
        for name in (
            "low_frequency_weight",
            "preview_weight",
            "grid_weight",
            "distill_weight",
            "perceptual_weight",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, found {getattr(self, name)}")
        often_q = self.often_q
        if often_q is not None and not (len(often_q) == 2 and often_q[0] < often_q[1]):
            raise ValueError(f"often_q must be two numbers that rise, found {often_q}")


# What `network` and `stages` hold in the configuration of each family.
_KINDS: dict[str, dict[str, Any]] = {
    "cvpr2018": {"network": Cvpr2018Config, "stages": tuple[StageConfig, ...]},
    "cwic": {"network": FlagshipConfig, "stages": tuple[FlagshipStage, ...]},
}


@dataclass(frozen=True)
class TrainConfig:
    """Everything a run depends on besides its pictures."""

    family: FamilyName
    stages: tuple[StageConfig, ...]
    network: Cvpr2018Config | FlagshipConfig = field(default_factory=Cvpr2018Config)
    data: DataConfig = field(default_factory=DataConfig)
    seed: int = 1
    init_from: str | None = None  # checkpoint whose averaged weights a fresh run starts from
    optimizer: Literal["adam", "muon"] = "adam"
    ema_decay: float = 0.999  # of the moving average of the weights, which is what gets exported
    clip_norm: float = 1.0  # largest norm of the whole gradient
    bf16: bool = True  # autocast of the transforms
    compile: bool = False  # torch.compile, of the loss with all that it depends on
    cuda_graph: bool = True  # on CUDA, with muon and one process, a step is one graph
    validation_crop_px: int = 256
    validation_count: int = 32  # held-out crops of each kind
    validate_every: int = 2000  # steps
    checkpoint_every: int = 500  # steps
    log_every: int = 50  # steps

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("expected at least one [[stages]] table, found none")
        for name in ("validate_every", "checkpoint_every", "log_every", "validation_count"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, found {getattr(self, name)}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, found {self.seed}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must lie in [0, 1), found {self.ema_decay}")
        if self.clip_norm <= 0:
            raise ValueError(f"clip_norm must be above 0, found {self.clip_norm}")
        if self.validation_crop_px < 16 or self.validation_crop_px % 8:
            raise ValueError(
                f"validation_crop_px must be a multiple of 8, at least 16, "
                f"found {self.validation_crop_px}"
            )
        for stage in self.stages:
            data = self.data_of(stage)
            crop_px = data.crop_px
            if (stage.micro_batch or stage.batch) < 1 or stage.batch % (stage.micro_batch or 1):
                raise ValueError(
                    f"batch must be a multiple of micro_batch, found {stage.batch} and "
                    f"{stage.micro_batch}"
                )
            if stage.ms_ssim_weight and crop_px <= 160:
                raise ValueError(f"ms_ssim_weight needs crop_px above 160, found {crop_px}")
            if self.family == "cwic" and crop_px % PICTURE_MULTIPLE:
                raise ValueError(
                    f"crop_px must be a multiple of {PICTURE_MULTIPLE}, found {crop_px}"
                )
        if self.family == "cwic" and self.validation_crop_px % PICTURE_MULTIPLE:
            raise ValueError(
                f"validation_crop_px must be a multiple of {PICTURE_MULTIPLE}, "
                f"found {self.validation_crop_px}"
            )

    @property
    def total_steps(self) -> int:
        """Steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    def data_of(self, stage: StageConfig) -> DataConfig:
        """Where the crops of a stage come from."""
        if stage.crop_px is None:
            return self.data
        return dataclasses.replace(self.data, crop_px=stage.crop_px, max_crop_px=stage.max_crop_px)

    def stage_at(self, step: int) -> tuple[int, StageConfig, int]:
        """Index of the stage that global `step` lies in, the stage, and the step within it."""
        for index, stage in enumerate(self.stages):
            if step < stage.steps:
                return index, stage, step
            step -= stage.steps
        raise IndexError(f"step lies {step} behind the last stage")


def load_config(path: Path) -> TrainConfig:
    """Read a TOML file.

    Raises:
        TrainingError: the file is missing, is not TOML, has an unknown key or a value out of range.
    """
    try:
        with path.open("rb") as file:
            table = tomllib.load(file)
    except OSError as error:
        raise TrainingError(f"{path}: cannot read the configuration: {reason(error)}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path}: expected TOML, found {error}") from error
    return config_from_table(table, str(path))


def config_from_table(table: dict[str, Any], origin: str) -> TrainConfig:
    """Build the configuration from parsed TOML; `origin` names it in errors."""
    kinds = _KINDS.get(str(table.get("family")))
    if kinds is None:
        known = " or ".join(f'"{name}"' for name in _KINDS)
        raise TrainingError(f"{origin}: expected family = {known}, found {table.get('family')!r}")
    return _build(TrainConfig, {"network": {}} | table, origin, kinds)


def config_to_table(config: TrainConfig) -> dict[str, Any]:
    """The inverse of :func:`config_from_table`, with every default written out, as JSON types."""

    def without_none(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without_none(item) for key, item in value.items() if item is not None}
        if isinstance(value, list | tuple):
            return [without_none(item) for item in value]
        return value

    result: dict[str, Any] = without_none(dataclasses.asdict(config))
    return result


def _build(
    kind: type[T], table: dict[str, Any], where: str, kinds: dict[str, Any] | None = None
) -> T:
    """A dataclass from a table; `kinds` are types that replace those of its fields."""
    hints = typing.get_type_hints(kind) | (kinds or {})
    unknown = sorted(set(table) - set(hints))
    if unknown:
        raise TrainingError(
            f"{where}: unknown key {', '.join(unknown)}; known: {', '.join(sorted(hints))}"
        )
    values = {key: _convert(hints[key], value, f"{where}, {key}") for key, value in table.items()}
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise TrainingError(f"{where}: {error}") from error


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, dict):
            raise TrainingError(f"{where}: expected a table, found {value!r}")
        return _build(hint, value, where)
    if origin is tuple:
        item = typing.get_args(hint)[0]
        if not isinstance(value, list):
            of = " of tables" if dataclasses.is_dataclass(item) else ""
            raise TrainingError(f"{where}: expected an array{of}, found {value!r}")
        return tuple(_convert(item, entry, f"{where}[{i}]") for i, entry in enumerate(value))
    if origin is Literal:
        if value not in typing.get_args(hint):
            known = ", ".join(repr(choice) for choice in typing.get_args(hint))
            raise TrainingError(f"{where}: expected one of {known}, found {value!r}")
        return value
    if origin is types.UnionType:
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
        return _convert(hint, value, where)
    if hint is float and type(value) is int:
        return float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise TrainingError(f"{where}: expected a finite number, found {value}")
    if type(value) is not hint:
        raise TrainingError(f"{where}: expected {hint.__name__}, found {value!r}")
    return value
