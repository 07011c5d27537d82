"""What training minimises: distortions and the thresholded rate loss of the paper."""

from typing import NamedTuple

import torch
from pytorch_msssim import ms_ssim, ssim
from torch import Tensor

from cwic.training.config import StageConfig
from cwic.training.model.network import Cvpr2018Config, Cvpr2018Output
from cwic.training.model.transforms import DOWNSAMPLING


def mean_squared_error(reference: Tensor, decoded: Tensor) -> Tensor:
    """Mean squared error of a batch.

    Args:
        reference: (B, 3, H, W) float in [-1, 1].
        decoded: same shape.

    Returns:
        scalar, in units where the range 0..1 of a pixel is 1 (PSNR = -10 log10 of it).
    """
    return (reference - decoded).float().square().mean() / 4


def structural_dissimilarity(reference: Tensor, decoded: Tensor) -> Tensor:
    """1 - SSIM, Gaussian window 11x11, sigma 1.5, mean over the channels R, G, B.

    Shapes and ranges as in :func:`mean_squared_error`; both sides at least 11 px.
    """
    value: Tensor = 1 - ssim(reference.float() + 1, decoded.float() + 1, data_range=2)
    return value


def multiscale_dissimilarity(reference: Tensor, decoded: Tensor) -> Tensor:
    """1 - MS-SSIM over five scales; both sides must be larger than 160 px."""
    value: Tensor = 1 - ms_ssim(reference.float() + 1, decoded.float() + 1, data_range=2)
    return value


def target_fraction(rate_offset: Tensor | float) -> Tensor:
    """Share of mask ones allowed at a rate offset: r = sigmoid(offset).

    This is what a map of logits 0 keeps there, so a centred map meets the threshold everywhere.
    """
    return torch.sigmoid(torch.as_tensor(rate_offset, dtype=torch.float32))


def thresholded_rate(p: Tensor, kept_fraction: Tensor, threshold: Tensor) -> Tensor:
    """Rate loss of the map: nothing at or below the threshold, mean(p) above it.

    The paper's L_R = max(sum p - r, 0) with the released layer's switch: whether the rate is
    above the threshold is decided on the quantized mask of the whole batch, and then every cell
    gets the same push. Per pixel, a weight gamma' here equals the paper's
    gamma = 2 gamma' for batches of 32 patches (its distortion is 6 times the mean squared error).

    Args:
        p: (B, 1, h, w) importance map in (0, 1).
        kept_fraction: (B,) share of mask ones of each picture.
        threshold: scalar in [0, 1].

    Returns:
        scalar, mean(p) above the threshold, else a zero that still has p's gradient graph.
    """
    above = (kept_fraction.mean() > threshold).to(p.dtype)
    return above * p.mean()


class Objective(NamedTuple):
    """The loss of one step and what the log says of it."""

    loss: Tensor  # scalar, to be minimised
    mse: Tensor  # scalar, pixel range 1
    kept_bpp: Tensor  # scalar, mask ones per picture pixel, before entropy coding


def distortion(reference: Tensor, decoded: Tensor, stage: StageConfig) -> tuple[Tensor, Tensor]:
    """Weighted distortion of a stage, and the mean squared error by itself (both scalars)."""
    mse = mean_squared_error(reference, decoded)
    total = stage.mse_weight * mse
    if stage.ssim_weight:
        total = total + stage.ssim_weight * structural_dissimilarity(reference, decoded)
    if stage.ms_ssim_weight:
        total = total + stage.ms_ssim_weight * multiscale_dissimilarity(reference, decoded)
    return total, mse


def cvpr2018_objective(
    output: Cvpr2018Output,
    config: Cvpr2018Config,
    x: Tensor,
    stage: StageConfig,
    rate_offset: float,
) -> Objective:
    """Distortion plus thresholded rate of one batch (eq. 9: L = sum of L_D + gamma L_R).

    Args:
        output: of the network for x.
        config: of the network.
        x: (B, 3, H, W) in [-1, 1].
        stage: the weights.
        rate_offset: that the output was computed with; sets the threshold.
    """
    loss, mse = distortion(x, output.reconstruction.float(), stage)
    if output.importance is not None:
        threshold = target_fraction(rate_offset).to(x.device)
        loss = loss + stage.rate_weight * thresholded_rate(
            output.importance, output.kept_fraction, threshold
        )
    kept_bpp = output.kept_fraction.mean() * config.code_channels / DOWNSAMPLING**2
    return Objective(loss, mse.detach(), kept_bpp.detach())
