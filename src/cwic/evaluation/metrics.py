"""How near a decoded picture is to its original, in numbers that other people can reproduce.

Needs torch, as :mod:`.perceptual` does, so it is imported where something is measured and not
before; `cwic.ssimulacra2` and :mod:`.borders` need none. Pictures are compared after rounding to
8 bits. Luma is 0.299 R + 0.587 G + 0.114 B, not rounded. SSIM and MS-SSIM are those of
:mod:`.structural_similarity` in double precision.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cwic.evaluation.borders import corner_ratio, edge_ratio
from cwic.evaluation.perceptual import haarpsi
from cwic.evaluation.quality import Quality
from cwic.evaluation.structural_similarity import MS_SSIM_PX, SSIM_PX, ssim, ssim_and_ms_ssim
from cwic.image import LUMA
from cwic.psnr import psnr_db
from cwic.ssimulacra2 import ssimulacra2

Pixels = npt.NDArray[np.uint8]  # (H, W, 3) R, G, B

_LUMA = torch.tensor(LUMA, dtype=torch.float64)
_BLOCK_PX = 64
_GRID_PX = 24


@contextmanager
def _one_thread() -> Iterator[None]:
    """Lets torch use one thread: several wait for each other, most of all where others work too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@_one_thread()
def measure(original: Pixels, decoded: Pixels) -> Quality:
    """All metrics of a decoded picture, of the original's shape, but Butteraugli.

    That one takes a process and its threads: `butteraugli` is asked for it where it is shown.
    """
    if original.shape != decoded.shape:
        raise ValueError(f"expected a picture of shape {original.shape}, found {decoded.shape}")
    a, b = (
        torch.from_numpy(np.moveaxis(pixels, 2, 0).astype(np.float64, order="C"))[None]
        for pixels in (original, decoded)
    )
    luma_a, luma_b = (_luma(x) for x in (a, b))
    side = min(original.shape[:2])
    ssim_rgb = ssim_y = ms_ssim_rgb = math.nan
    if side >= MS_SSIM_PX:
        ssim_rgb, ms_ssim_rgb = (float(value) for value in ssim_and_ms_ssim(a / 255, b / 255))
    elif side >= SSIM_PX:
        ssim_rgb = float(ssim(a / 255, b / 255))
    if side >= SSIM_PX:
        ssim_y = float(ssim(luma_a[:, None] / 255, luma_b[:, None] / 255))
    return Quality(
        psnr_rgb_db=psnr_db(original, decoded),
        psnr_y_db=psnr_db(luma_a[0].numpy(), luma_b[0].numpy()),
        ssim_rgb=ssim_rgb,
        ssim_y=ssim_y,
        ms_ssim_rgb=ms_ssim_rgb,
        haarpsi=haarpsi(original, decoded),
        ssimulacra2=ssimulacra2(original, decoded),
        edge_ratio=edge_ratio(original, decoded),
        corner_ratio=corner_ratio(original, decoded),
        grid_ratio=grid_ratio(_whole_cells(a), _whole_cells(b)) if side >= _GRID_PX else math.nan,
        block_color_error=_block_color_error(original, decoded),
    )


def line_gradients(x: Tensor) -> Tensor:
    """Mean absolute luma gradient across the pixel lines of each phase, both directions together.

    (B, 3, H, W), sides multiples of 8 -> (B, 8). Entry p is of the lines between pixels 8 k + p - 1
    and 8 k + p, so entry 0 is of every eighth line, where blocks of 8 meet.
    """
    red, green, blue = LUMA
    luma = red * x[:, 0] + green * x[:, 1] + blue * x[:, 2]  # (B, H, W)
    total = x.new_zeros(len(x), 8)
    for y in (luma, luma.transpose(1, 2)):
        lines = (y[:, 1:] - y[:, :-1]).abs().mean(dim=2)  # (B, H - 1), line 1 first
        # The first and the last lines of a picture are left out: whole periods of 8 remain.
        total = total + lines[:, 7:-8].reshape(len(x), -1, 8).mean(dim=1)
    return total / 2


def grid_ratio(reference: Tensor, decoded: Tensor) -> float:
    """How much an 8-pixel grid shows: 1 not at all, more than about 1.1 to the eye in skies.

    Gradient across every eighth line over that across the others, relative to the original's.
    Shapes as of :func:`line_gradients`, both sides at least 24 px.
    """
    of_reference, of_decoded = (line_gradients(x.float()).mean(dim=0) for x in (reference, decoded))
    ratio = of_decoded[0] / of_decoded[1:].mean()
    return float(ratio / (of_reference[0] / of_reference[1:].mean()).clamp(min=1e-9))


def _luma(x: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, H, W)."""
    return torch.einsum("bchw,c->bhw", x, _LUMA)


def _whole_cells(x: Tensor) -> Tensor:
    return x[..., : x.shape[2] // 8 * 8, : x.shape[3] // 8 * 8]


def _block_color_error(original: Pixels, decoded: Pixels) -> float:
    """Largest difference of a block's mean in a channel; a smaller picture is one block.

    The rows and columns that fill no whole block are left out.
    """
    height, width = (min(side, _BLOCK_PX) for side in original.shape[:2])
    rows, columns = original.shape[0] // height, original.shape[1] // width
    difference = original.astype(np.float64) - decoded
    blocks = difference[: rows * height, : columns * width].reshape(rows, height, columns, width, 3)
    return float(np.abs(blocks.mean(axis=(1, 3))).max())
