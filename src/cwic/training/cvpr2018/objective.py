"""What training minimises in the `cvpr2018` family: distortion plus the thresholded rate loss."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch.distributed as dist
from torch import Tensor

from cwic.families.cvpr2018.family import CELL_PX
from cwic.training.config import StageConfig
from cwic.training.cvpr2018.network import Cvpr2018Config, Cvpr2018Output
from cwic.training.distortion import low_frequency_error, similarity_terms


@dataclass(frozen=True)
class Cvpr2018Stage(StageConfig):
    """One stage of the training of `cvpr2018`: distortion plus the thresholded rate."""

    low_frequency_weight: float = 0.0  # weight of the error of the pictures shrunk by 16
    upper_weight: float = 0.0  # e^this times as much counts a batch at the highest offset as one
    # at the lowest, whose distortion is several times as large

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low_frequency_weight < 0:
            raise ValueError(
                f"low_frequency_weight must not be negative, found {self.low_frequency_weight}"
            )


class Cvpr2018Loss(NamedTuple):
    """The loss of a batch and its parts."""

    loss: Tensor  # scalar, to be minimised
    mse: Tensor  # scalar, pixel range 1
    kept_bpp: Tensor  # scalar, mask ones per picture pixel, before entropy coding


def mean_squared_error(reference: Tensor, decoded: Tensor) -> Tensor:
    """Mean squared error of two (B, 3, H, W) in [-1, 1], a scalar.

    In units where the range 0..1 of a pixel is 1 (PSNR = -10 log10 of it).
    """
    return (reference - decoded).float().square().mean() / 4


def distortion(reference: Tensor, decoded: Tensor, stage: Cvpr2018Stage) -> tuple[Tensor, Tensor]:
    """Weighted distortion of a stage, and the mean squared error by itself (both scalars)."""
    mse = mean_squared_error(reference, decoded)
    total = stage.mse_weight * mse
    for term in similarity_terms(reference.float() / 2 + 0.5, decoded.float() / 2 + 0.5, stage):
        total = total + term.mean()
    if stage.low_frequency_weight:
        # In the range of length 1 of a pixel, as the mean squared error.
        shrunk = low_frequency_error(reference.float() / 2, decoded.float() / 2)
        total = total + stage.low_frequency_weight * shrunk.mean()
    return total, mse


def offset_weight(rate_offset: float, config: Cvpr2018Config, stage: Cvpr2018Stage) -> float:
    """How much a batch at a rate offset counts; 1 in the middle of the range."""
    span = config.max_rate_offset - config.min_rate_offset
    share = (rate_offset - config.min_rate_offset) / span if span else 0.5
    return math.exp(stage.upper_weight * (share - 0.5))


def target_fraction(rate_offset: float, config: Cvpr2018Config) -> float:
    """Share of mask ones allowed at a rate offset: what a map of logits 0 keeps there, r.

    sigmoid(offset), plus half a level for the released quantizer, less half a level for the
    paper's: a map that is centred on the average meets the threshold at every offset.
    """
    half_level = 0.5 / config.levels
    fraction = 1 / (1 + math.exp(-rate_offset))
    return fraction + (half_level if config.quantizer == "released" else -half_level)


def thresholded_rate(p: Tensor, kept_fraction: Tensor, threshold: Tensor | float) -> Tensor:
    """Rate loss of the map: nothing at or below the threshold, mean(p) / r above it, a scalar.

    The paper's L_R = max(sum p - r, 0) with the released layer's switch: whether the rate is
    above the threshold is decided on the quantized mask of the whole batch, over all processes,
    and then every cell gets the same push. The paper has one r for each model, and a gamma for
    each r; the division by r lets one weight serve all of them.

    p (B, 1, h, w) in (0, 1), `kept_fraction` (B,) the share of mask ones, `threshold` r in (0, 1).
    At or below the threshold the zero still has p's gradient graph.
    """
    mean_kept = kept_fraction.detach().mean()
    if dist.is_initialized():
        dist.all_reduce(mean_kept)
        mean_kept = mean_kept / dist.get_world_size()
    above = (mean_kept > threshold).to(p.dtype)
    return above * p.mean() / threshold


def rate_distortion_loss(
    output: Cvpr2018Output,
    config: Cvpr2018Config,
    x: Tensor,
    stage: Cvpr2018Stage,
    threshold: Tensor,
) -> Cvpr2018Loss:
    """Distortion plus thresholded rate of one batch (eq. 9: L = sum of L_D + gamma L_R).

    `output` is the network's for x (B, 3, H, W) in [-1, 1]; `threshold` is a scalar, r, see
    :func:`target_fraction`.
    """
    loss, mse = distortion(x, output.reconstruction.float(), stage)
    if output.importance is not None:
        loss = loss + stage.rate_weight * thresholded_rate(
            output.importance, output.kept_fraction, threshold
        )
    kept_bpp = output.kept_fraction.mean() * config.code_channels / CELL_PX**2
    return Cvpr2018Loss(loss, mse.detach(), kept_bpp.detach())
