"""Checkpoints: the full state of a run in one safetensors file, no pickle anywhere.

A checkpoint holds the weights, their moving average, the optimizer's moments, and as JSON metadata
the configuration and the counters. A release file holds the moving average alone. Both are read by
:func:`load_weights`, which is all that export needs.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from cwic.atomic_file import write_file
from cwic.errors import TrainingError
from cwic.training.config import TrainConfig, config_from_table, config_to_table
from cwic.training.families import FAMILIES

_FORMAT = "cwic-checkpoint-1"


@dataclass
class Progress:
    """Counters of a run."""

    step: int = 0  # optimiser steps done
    wall_s: float = 0.0  # spent training, over all its resumptions
    cpu_s: float = 0.0  # processor seconds of this process, likewise
    best_stage: int = -1  # stage that `best_score_db` was reached in
    best_score_db: float = float("-inf")  # on held-out pictures, higher is better


def save_checkpoint(
    path: Path, config: TrainConfig, progress: Progress, groups: dict[str, dict[str, Tensor]]
) -> None:
    """Write groups of tensors ("weights", "average", "optimizer") and the counters, atomically."""
    flat = {
        f"{group}/{name}": tensor.detach().contiguous().cpu()
        for group, tensors in groups.items()
        for name, tensor in tensors.items()
    }
    metadata = {
        "format": _FORMAT,
        "config": json.dumps(config_to_table(config)),
        "progress": json.dumps(asdict(progress)),
    }
    write_file(path, safetensors.torch.save(flat, metadata))


def load_checkpoint(path: Path) -> tuple[TrainConfig, Progress, dict[str, dict[str, Tensor]]]:
    """Read what :func:`save_checkpoint` wrote.

    Raises:
        TrainingError: the file is missing, damaged, no checkpoint of this program, or holds a
            number that is NaN or infinite.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            flat: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise TrainingError(f"{path}: no such checkpoint") from error
    except (OSError, safetensors.SafetensorError) as error:
        raise TrainingError(f"{path}: expected a safetensors checkpoint, found {error}") from error
    if metadata.get("format") != _FORMAT:
        raise TrainingError(
            f"{path}: expected a checkpoint of format {_FORMAT}, found {metadata.get('format')!r}"
        )
    try:
        table: dict[str, Any] = json.loads(metadata["config"])
        progress = Progress(**json.loads(metadata["progress"]))
        if not isinstance(table, dict) or type(progress.step) is not int:
            raise TypeError("expected a table and a number of steps")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise TrainingError(f"{path}: damaged metadata: {error}") from error
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in flat.items():
        if not torch.isfinite(tensor).all():
            raise TrainingError(f"{path}: expected finite numbers, found NaN or infinity in {name}")
        group, _, key = name.partition("/")
        groups.setdefault(group, {})[key] = tensor
    return config_from_table(table, str(path), FAMILIES), progress, groups


def load_weights(path: Path) -> tuple[TrainConfig, Progress, dict[str, Tensor]]:
    """Configuration, counters and the averaged weights of a checkpoint.

    Raises:
        TrainingError: as :func:`load_checkpoint`, or there are no averaged weights.
    """
    config, progress, groups = load_checkpoint(path)
    weights = groups.get("average")
    if weights is None:
        raise TrainingError(f"{path}: expected averaged weights, found {', '.join(groups)}")
    return config, progress, weights
