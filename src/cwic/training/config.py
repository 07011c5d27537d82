"""The training configuration: a TOML file read into frozen dataclasses; unknown keys are errors.

What `network` and `stages` are is left to the families, whose types the reader is given.
"""

import dataclasses
import math
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeVar

from cwic.errors import TrainingError, reason
from cwic.training.data import DataConfig

T = TypeVar("T")

_WEIGHTS = ("mse_weight", "ssim_weight", "ms_ssim_weight", "rate_weight")


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes and switches of a network; each family has its own."""

    multiple_px: ClassVar[int]  # sides of training pictures are multiples of this


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
    rate_weight: float = 0.04  # gamma of the family cvpr2018, see thresholded_rate
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

    @property
    def trains_a_part(self) -> bool:
        """Whether most of the network stays as it is."""
        return self.entropy_only

    @property
    def trains_the_encoder(self) -> bool:
        """Whether what an encoder makes of a picture changes."""
        return not self.entropy_only


class FamilyTypes(Protocol):
    """What `network` and each of `stages` hold in the configuration of a family."""

    @property
    def network_type(self) -> type[NetworkConfig]:
        """Of `network`."""
        ...

    @property
    def stage_type(self) -> type[StageConfig]:
        """Of each of `stages`."""
        ...


@dataclass(frozen=True)
class TrainConfig:
    """Everything a run depends on besides its pictures."""

    family: str
    stages: tuple[StageConfig, ...]
    network: NetworkConfig
    data: DataConfig = field(default_factory=DataConfig)
    seed: int = 1
    init_from: str | None = None  # checkpoint whose averaged weights a fresh run starts from
    optimizer: Literal["adam", "muon"] = "adam"
    ema_decay: float = 0.999  # of the moving average of the weights, which is what gets exported
    clip_norm: float = 1.0  # largest norm of the whole gradient
    # Autocast of the transforms, where the device has it. Its error has a direction, which near an
    # optimum is longer than what is left to learn: False for a run from good weights.
    bf16: bool = True
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
        multiple_px = self.network.multiple_px
        if self.validation_crop_px < 16 or self.validation_crop_px % multiple_px:
            raise ValueError(
                f"validation_crop_px must be at least 16 and a multiple of {multiple_px}, "
                f"found {self.validation_crop_px}"
            )
        for stage in self.stages:
            crop_px = self.data_of(stage).crop_px
            if (stage.micro_batch or stage.batch) < 1 or stage.batch % (stage.micro_batch or 1):
                raise ValueError(
                    f"batch must be a multiple of micro_batch, found {stage.batch} and "
                    f"{stage.micro_batch}"
                )
            if stage.ms_ssim_weight and crop_px <= 160:
                raise ValueError(f"ms_ssim_weight needs crop_px above 160, found {crop_px}")
            if crop_px % multiple_px:
                raise ValueError(f"crop_px must be a multiple of {multiple_px}, found {crop_px}")

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


def load_config(path: Path, families: Mapping[str, FamilyTypes]) -> TrainConfig:
    """Read a TOML file; `families` are those that it may name.

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
    return config_from_table(table, str(path), families)


def config_from_table(
    table: dict[str, Any], origin: str, families: Mapping[str, FamilyTypes]
) -> TrainConfig:
    """Build the configuration from parsed TOML; `origin` names it in errors."""
    family = families.get(str(table.get("family")))
    if family is None:
        known = " or ".join(f'"{name}"' for name in families)
        raise TrainingError(f"{origin}: expected family = {known}, found {table.get('family')!r}")
    types_of_family = {"network": family.network_type, "stages": tuple[family.stage_type, ...]}  # type: ignore[name-defined]
    return _build(TrainConfig, {"network": {}} | table, origin, types_of_family)


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
    kind: type[T], table: dict[str, Any], where: str, replaced: Mapping[str, Any] | None = None
) -> T:
    """A dataclass from a table; `replaced` are types in place of those of its fields."""
    assert dataclasses.is_dataclass(kind)
    names = {field.name for field in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind) | dict(replaced or {})
    hints = {name: hint for name, hint in hints.items() if name in names}
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
