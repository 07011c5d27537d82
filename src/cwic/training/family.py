"""What a model family brings to the training loop; the loop itself is the same for all.

Which families there are is left to :mod:`.families`.
"""

import math
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from cwic import model_file
from cwic.training.config import FamilyTypes, StageConfig, TrainConfig

# 120 dB: nothing is scored as exact.
_LEAST_DISTORTION = 1e-12


class Place(NamedTuple):
    """Which step this is, and which samples of its batch this process owns."""

    step: int
    positions: range


class Drawn(NamedTuple):
    """All that the loss of a step depends on besides the weights."""

    tensors: tuple[Tensor, ...]  # on the device; the pixels first
    layout: Hashable = None  # what is no tensor; steps alike in it and in shapes are one graph


class StepLoss(NamedTuple):
    """The loss of one step and what the log says of it."""

    loss: Tensor  # scalar, to be minimised
    figures: Tensor  # (K,) the family's log columns, without gradient


class Validation(NamedTuple):
    """What held-out pictures say of a network."""

    rows: list[dict[str, Any]]  # one a rate, the family's validation columns
    score_db: float  # higher is better


class Family(FamilyTypes, Protocol):
    """One model family."""

    log_columns: tuple[str, ...]  # of `figures`, two of which are psnr_db and the rate
    rate_column: str  # the one that is the rate, in bits per pixel
    validation_columns: tuple[str, ...]  # of `rows`
    dynamic_shapes: bool | None  # of torch.compile
    encoder_graphs: frozenset[str]  # of a model file, that no decoder runs
    decoder_prefixes: tuple[str, ...]  # of parameters that a model's identity depends on

    def build(self, config: TrainConfig) -> nn.Module:
        """A fresh network."""
        ...

    def begin_stage(self, network: nn.Module, stage: StageConfig) -> None:
        """Before the first step of a stage, and after resuming inside one."""
        ...

    def draw(self, pixels: Tensor, config: TrainConfig, stage: StageConfig, place: Place) -> Drawn:
        """All that the loss of a step depends on besides the weights, on the device of the pixels.

        `pixels` (B, H, W, 3) uint8. Random choices are a function of `place` and the run's seed.
        """
        ...

    def objective(
        self, model: nn.Module, drawn: Drawn, config: TrainConfig, stage: StageConfig
    ) -> StepLoss:
        """The loss of a batch: nothing is drawn here, and nothing waits for the device.

        `model` is the network, perhaps distributed.
        """
        ...

    def validate(
        self,
        network: nn.Module,
        config: TrainConfig,
        stage: StageConfig,
        crops: np.ndarray,
        device: torch.device,
    ) -> Validation:
        """Measure a network on (N, S, S, 3) uint8."""
        ...

    def model(self, network: nn.Module, config: TrainConfig, name: str) -> model_file.ModelFile:
        """A model file in memory of a trained network; the inverse of :meth:`restored`.

        Raises:
            TrainingError: it is a network that no coder codes for.
        """
        ...

    def restored(self, path: Path, network: nn.Module) -> dict[str, Tensor]:
        """Weights of a model file, see :mod:`cwic.training.restore`."""
        ...


def decibels(distortion: float) -> float:
    """-10 log10 of a distortion: of a mean squared error, pixel range 1, that is the PSNR."""
    return -10 * math.log10(max(distortion, _LEAST_DISTORTION))


def psnr_db_tensor(mse: Tensor) -> Tensor:
    """Of a mean squared error, a scalar tensor, pixel range 1, without waiting for its value."""
    return -10 * torch.log10(mse.clamp(min=_LEAST_DISTORTION))


def score_db(bpp: Sequence[float], distortion: Sequence[float], at_bpp: Sequence[float]) -> float:
    """-10 log10 of the distortion, read off a curve at the rates that count, and averaged.

    `distortion` is at the rates `bpp`, which rise.
    """
    score = [decibels(value) for value in distortion]
    if len(score) == 1:
        return score[0]
    log_bpp = [math.log(max(value, 1e-6)) for value in bpp]
    # Outside the range the end points count, lowered by the usual 6 dB a doubling of the rate, so
    # that a network which cannot reach a rate gains nothing by it.
    values = []
    for rate in np.log(at_bpp):
        inside = float(np.interp(rate, log_bpp, score))
        excess = max(0.0, log_bpp[0] - rate)
        values.append(inside - 6 / math.log(2) * excess)
    return float(np.mean(values))
