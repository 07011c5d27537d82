"""What training minimises: distortions, the thresholded rate loss of the paper, and the grid."""

import math
from functools import cache
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from cwic.evaluation.metrics import line_gradients
from cwic.evaluation.perceptual import PerceptualDistance, load_distance
from cwic.families.flagship.coder import PREVIEW_PX
from cwic.training.config import FlagshipStage, StageConfig
from cwic.training.model.flagship import FlagshipOutput
from cwic.training.model.network import Cvpr2018Config, Cvpr2018Output
from cwic.training.model.transforms import DOWNSAMPLING
from cwic.training.saliency import saliency_shares

# Of the five scales, from fine to coarse: Wang, Simoncelli and Bovik, 2003.
_MS_SSIM_EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


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
    return 1 - multiscale_similarity(reference.float() / 2, decoded.float() / 2, None, 1).mean()


def multiscale_dissimilarity(reference: Tensor, decoded: Tensor) -> Tensor:
    """1 - MS-SSIM over five scales; both sides must be larger than 160 px."""
    return 1 - multiscale_similarity(reference.float() / 2, decoded.float() / 2, None).mean()


def target_fraction(rate_offset: float, config: Cvpr2018Config) -> float:
    """Share of mask ones allowed at a rate offset: what a map of logits 0 keeps there, r.

    sigmoid(offset), plus half a level for the released quantizer, less half a level for the
    paper's: a map that is centred on the average meets the threshold at every offset.
    """
    half_level = 0.5 / config.levels
    fraction = 1 / (1 + math.exp(-rate_offset))
    return fraction + (half_level if config.quantizer == "released" else -half_level)


def thresholded_rate(p: Tensor, kept_fraction: Tensor, threshold: Tensor | float) -> Tensor:
    """Rate loss of the map: nothing at or below the threshold, mean(p) / r above it.

    The paper's L_R = max(sum p - r, 0) with the released layer's switch: whether the rate is
    above the threshold is decided on the quantized mask of the whole batch, over all processes,
    and then every cell gets the same push. The paper has one r for each model, and a gamma for
    each r; the division by r lets one weight serve all of them.

    Args:
        p: (B, 1, h, w) importance map in (0, 1).
        kept_fraction: (B,) share of mask ones of each picture.
        threshold: r in (0, 1).

    Returns:
        scalar, mean(p) / r above the threshold, else a zero that still has p's gradient graph.
    """
    mean_kept = kept_fraction.detach().mean()
    if dist.is_initialized():
        dist.all_reduce(mean_kept)
        mean_kept = mean_kept / dist.get_world_size()
    above = (mean_kept > threshold).to(p.dtype)
    return above * p.mean() / threshold


class Cvpr2018Loss(NamedTuple):
    """The loss of a batch and its parts."""

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
    threshold: Tensor,
) -> Cvpr2018Loss:
    """Distortion plus thresholded rate of one batch (eq. 9: L = sum of L_D + gamma L_R).

    Args:
        output: of the network for x.
        config: of the network.
        x: (B, 3, H, W) in [-1, 1].
        stage: the weights.
        threshold: scalar, r, see :func:`target_fraction`.
    """
    loss, mse = distortion(x, output.reconstruction.float(), stage)
    if output.importance is not None:
        loss = loss + stage.rate_weight * thresholded_rate(
            output.importance, output.kept_fraction, threshold
        )
    kept_bpp = output.kept_fraction.mean() * config.code_channels / DOWNSAMPLING**2
    return Cvpr2018Loss(loss, mse.detach(), kept_bpp.detach())


def multiscale_similarity(
    reference: Tensor, decoded: Tensor, shares: Tensor | None, scales: int = 5
) -> Tensor:
    """MS-SSIM of each picture (Wang, Simoncelli and Bovik, 2003), mean over the channels.

    Args:
        reference: (B, 3, H, W) in [-0.5, 0.5].
        decoded: same shape.
        shares: (B, 1, H, W), at least 0, how much a place counts; None: all alike.
        scales: 5, for sides above 160 px, or 1, which is SSIM.

    Returns:
        (B,)
    """
    x, y = reference + 0.5, decoded + 0.5
    line = torch.arange(11, device=x.device, dtype=x.dtype) - 5
    window = torch.exp(-line.square() / (2 * 1.5**2))
    window = (window / window.sum()).view(1, 1, 1, -1).expand(x.shape[1], 1, 1, -1)

    def blurred(planes: Tensor) -> Tensor:
        for kernel in (window, window.transpose(2, 3)):
            planes = nn.functional.conv2d(planes, kernel, groups=planes.shape[1])
        return planes

    exponents = _MS_SSIM_EXPONENTS if scales == 5 else (1.0,)
    total = x.new_ones(x.shape[:2])
    for scale, exponent in enumerate(exponents):
        mean_x, mean_y = blurred(x), blurred(y)
        variances = blurred(x * x) - mean_x.square() + blurred(y * y) - mean_y.square()
        covariance = blurred(x * y) - mean_x * mean_y
        local = (2 * covariance + 0.03**2) / (variances + 0.03**2)
        if scale == len(exponents) - 1:
            square = mean_x.square() + mean_y.square()
            local = local * (2 * mean_x * mean_y + 0.01**2) / (square + 0.01**2)
        if shares is None:
            mean = local.mean(dim=(2, 3))
        else:
            here = shares[:, :, 5:-5, 5:-5]
            mean = (local * here).sum(dim=(2, 3)) / here.sum(dim=(2, 3)).clamp(min=1e-6)
        total = total * (mean.relu() if scales > 1 else mean) ** exponent
        if scale + 1 < len(exponents):
            pad = [side % 2 for side in x.shape[2:]]
            x, y = (nn.functional.avg_pool2d(planes, 2, padding=pad) for planes in (x, y))
            if shares is not None:
                shares = nn.functional.avg_pool2d(shares, 2, padding=pad)
    return total.mean(dim=1)


@torch.compiler.disable  # type: ignore[untyped-decorator]
@cache
def _distance(name: str, device: torch.device) -> PerceptualDistance:
    """Kept: a trunk is read once a run."""
    return load_distance(name, device)


def flagship_distortion(
    reference: Tensor, decoded: Tensor, stage: FlagshipStage, weight: Tensor | None = None
) -> Tensor:
    """Weighted distortion of each picture at q = 0.

    With `saliency_weight`, places that stand out count for more in the squared error, in SSIM,
    MS-SSIM and the perceptual distance; the mean over a picture of what they count stays 1.

    Args:
        reference: (B, 3, H, W) float32 in [-0.5, 0.5].
        decoded: same shape.
        stage: the weights.
        weight: (B, 1, H / 16, W / 16) of the squared error in each latent's place; None: 1.

    Returns:
        (B,)
    """
    shares = None
    if stage.saliency_weight:
        shares = saliency_shares(reference, stage.saliency_weight)
    error = (reference - decoded).square()
    if shares is not None:
        error = error * shares
    if weight is None:
        mse = error.mean(dim=(1, 2, 3))
    else:
        side = reference.shape[3] // weight.shape[3]
        mse = (nn.functional.avg_pool2d(error, side) * weight).mean(dim=(1, 2, 3))
    total = stage.mse_weight * mse
    if stage.ssim_weight:
        similarity = multiscale_similarity(reference, decoded, shares, scales=1)
        total = total + stage.ssim_weight * (1 - similarity)
    if stage.ms_ssim_weight:
        similarity = multiscale_similarity(reference, decoded, shares)
        total = total + stage.ms_ssim_weight * (1 - similarity)
    if stage.perceptual_weight:
        distance = _distance(stage.perceptual, reference.device)
        of_bytes = (255 * (reference + 0.5), 255 * (decoded + 0.5))
        total = total + stage.perceptual_weight * distance(*of_bytes, shares)
    if stage.low_frequency_weight:
        shrunk = nn.functional.avg_pool2d(reference - decoded, 16).square().mean(dim=(1, 2, 3))
        total = total + stage.low_frequency_weight * shrunk
    return total


def shrunk_to_preview(pictures: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 3, H / 8, W / 8): what a preview should show."""
    return nn.functional.avg_pool2d(pictures, PREVIEW_PX)


def grid_variation(reference: Tensor, decoded: Tensor) -> Tensor:
    """(B,) variance over the eight phases of log gradient relative to the original's."""
    floor = 0.25 / 255
    log_ratio = torch.log((line_gradients(decoded) + floor) / (line_gradients(reference) + floor))
    return log_ratio.var(dim=1, unbiased=False)


def flagship_loss(
    reference: Tensor,
    output: FlagshipOutput,
    stage: FlagshipStage,
    q: Tensor,
    weight: Tensor | None,
) -> Tensor:
    """Rate plus distortion of one batch, each picture at its own point of the curve.

    The multiplier of the distortion follows the step size, 2^(q / 2), where a uniform quantizer of
    step 2^(-q / 4) is best; the whole of a picture is weighed by 2^(-q / 4), so that neither end of
    the range rules the gradient.

    Args:
        reference: (B, 3, H, W) float32 in [-0.5, 0.5].
        output: of the network for it.
        stage: the weights.
        q: (B,) that was asked for, in quarter octaves.
        weight: see :func:`flagship_distortion`.

    Returns:
        scalar.
    """
    decoded = output.reconstruction.float()
    bpp = output.bits / (reference.shape[2] * reference.shape[3])
    distorted = flagship_distortion(reference, decoded, stage, weight)
    total = stage.rate_weight * bpp + torch.exp2(q / 2) * distorted
    if output.fast is not None:
        # Of its own loss, and of what the full synthesis makes of the same latents.
        fast = output.fast.float()
        distorted = flagship_distortion(reference, fast, stage, weight)
        apart = (fast - decoded).square().mean(dim=(1, 2, 3))
        return (torch.exp2(q / 4) * (distorted + stage.distill_weight * apart)).mean()
    if stage.preview_weight:
        shrunk = shrunk_to_preview(reference)
        error = (shrunk - output.preview.float()).square().mean(dim=(1, 2, 3))
        total = total + torch.exp2(q / 2) * stage.preview_weight * error
    if stage.grid_weight:
        total = total + stage.grid_weight * grid_variation(reference, decoded)
    return (torch.exp2(-q / 4) * total).mean()
