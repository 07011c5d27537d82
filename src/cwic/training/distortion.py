"""Distortions that the losses of both families are made of."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from cwic.evaluation.metrics import line_gradients
from cwic.evaluation.structural_similarity import ms_ssim, ssim, ssim_and_ms_ssim
from cwic.image import LUMA
from cwic.training.config import StageConfig

_LOW_FREQUENCY_PX = 16
_BORDER_PX = 2


def similarity_terms(
    reference: Tensor, decoded: Tensor, stage: StageConfig, shares: Tensor | None = None
) -> Iterator[Tensor]:
    """1 - SSIM and 1 - MS-SSIM, (B,) each, times their weights of the stage, where these are not 0.

    Of (B, 3, H, W) float32 in [0, 1]; `shares` as of :func:`ssim`.
    """
    if stage.ssim_weight and stage.ms_ssim_weight:
        similarity, of_scales = ssim_and_ms_ssim(reference, decoded, shares)
        yield stage.ssim_weight * (1 - similarity)
        yield stage.ms_ssim_weight * (1 - of_scales)
    elif stage.ssim_weight:
        yield stage.ssim_weight * (1 - ssim(reference, decoded, shares))
    elif stage.ms_ssim_weight:
        yield stage.ms_ssim_weight * (1 - ms_ssim(reference, decoded, shares))


def low_frequency_error(reference: Tensor, decoded: Tensor) -> Tensor:
    """(B,) mean squared error of pictures (B, 3, H, W) shrunk by 16."""
    shrunk = nn.functional.avg_pool2d(reference - decoded, _LOW_FREQUENCY_PX)
    return shrunk.square().mean(dim=(1, 2, 3))


def border_error(reference: Tensor, decoded: Tensor) -> Tensor:
    """(B,) mean squared error of the two outermost lines of each side of (B, C, H, W).

    There a network knows one side alone, and has a few percent of the pixels to learn it by.
    """
    squares = (reference - decoded).square()
    inside = squares[..., _BORDER_PX:-_BORDER_PX, _BORDER_PX:-_BORDER_PX]
    of_border = squares[0].numel() - inside[0].numel()
    return (squares.sum(dim=(1, 2, 3)) - inside.sum(dim=(1, 2, 3))) / of_border


def luma_and_chroma_squares(reference: Tensor, decoded: Tensor) -> tuple[Tensor, Tensor]:
    """Squared errors of pictures (B, 3, H, W), R, G, B, in luma and in colour.

    Returns:
        (B, 1, H, W) each: of Y, and the mean of Cb's and Cr's (BT.601, as JPEG has them).
    """
    difference = reference - decoded
    red, green, blue = (difference[:, i : i + 1] for i in range(3))
    luma = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    # All three span the range of length 1 that R, G and B have.
    cb, cr = ((part - luma) / (2 - 2 * of) for part, of in ((blue, LUMA[2]), (red, LUMA[0])))
    return luma.square(), (cb.square() + cr.square()) / 2


def grid_variation(reference: Tensor, decoded: Tensor) -> Tensor:
    """How much an 8-pixel grid shows, whatever its phase, in (B, 3, H, W) in a range of length 1.

    (B,) variance over the eight phases of log gradient relative to the original's.
    """
    floor = 0.25 / 255
    log_ratio = torch.log((line_gradients(decoded) + floor) / (line_gradients(reference) + floor))
    return log_ratio.var(dim=1, unbiased=False)
