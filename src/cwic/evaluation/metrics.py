"""How near a decoded picture is to its original, in numbers that other people can reproduce.

Needs torch, as :mod:`.perceptual` does, so it is imported where something is measured and not
before; :mod:`.ssimulacra2` and :mod:`.borders` need none. Pictures are compared after rounding to
8 bits. Luma is 0.299 R + 0.587 G + 0.114 B, not rounded. SSIM has a Gaussian window of 11x11, sigma
1.5, and no padding; MS-SSIM its five scales with the weights of Wang et al. 2003. Both are computed
in double precision: in flat areas the variances of SSIM are small differences of large numbers, and
single precision was seen to err by 0.0001. The numbers are those of pytorch-msssim, which a test
compares with; its convolutions in double precision took four times as long, which was most of an
evaluation.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cwic.evaluation.borders import corner_ratio, edge_ratio
from cwic.evaluation.perceptual import haarpsi
from cwic.evaluation.quality import Quality
from cwic.evaluation.ssimulacra2 import ssimulacra2

__all__ = ["grid_ratio", "line_gradients", "measure", "one_thread"]

Pixels = npt.NDArray[np.uint8]  # (H, W, 3) R, G, B

_LUMA = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
_BLOCK_PX = 64
_SSIM_PX = 11
_SSIM_SIGMA_PX = 1.5
_SSIM_C1, _SSIM_C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
_MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_MS_SSIM_PX = 161  # five scales
_GRID_PX = 24
_NEITHER = (math.nan, math.nan)


def measure(original: Pixels, decoded: Pixels) -> Quality:
    """All metrics of a decoded picture.

    Args:
        original: (H, W, 3).
        decoded: same shape.
    """
    if original.shape != decoded.shape:
        raise ValueError(f"expected a picture of shape {original.shape}, found {decoded.shape}")
    a, b = (
        torch.from_numpy(np.moveaxis(pixels, 2, 0).astype(np.float64, order="C"))[None]
        for pixels in (original, decoded)
    )
    luma_a, luma_b = (_luma(x) for x in (a, b))
    side = min(original.shape[:2])
    scales = len(_MS_SSIM_WEIGHTS) if side >= _MS_SSIM_PX else 1
    ssim_rgb, ms_ssim_rgb = ssim_and_ms_ssim(a[0], b[0], scales) if side >= _SSIM_PX else _NEITHER
    ssim_y, _ = ssim_and_ms_ssim(luma_a, luma_b, 1) if side >= _SSIM_PX else _NEITHER
    return Quality(
        psnr_rgb_db=_psnr_db(a, b),
        psnr_y_db=_psnr_db(luma_a, luma_b),
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


@contextmanager
def one_thread() -> Iterator[None]:
    """Lets torch use one thread: several pictures are measured at the same time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def line_gradients(x: Tensor) -> Tensor:
    """Mean absolute luma gradient across the pixel lines of each phase, both directions together.

    Args:
        x: (B, 3, H, W), H and W multiples of 8, R, G, B.

    Returns:
        (B, 8); entry p is of the lines between pixels 8 k + p - 1 and 8 k + p, so entry 0 is of
        every eighth line, where blocks of 8 meet.
    """
    luma = 0.299 * x[:, 0] + 0.587 * x[:, 1] + 0.114 * x[:, 2]  # (B, H, W)
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


def ssim_and_ms_ssim(a: Tensor, b: Tensor, scales: int) -> tuple[float, float]:
    """Structural similarity (Wang et al. 2004) and its form over scales (2003), means over planes.

    Args:
        a: (N, H, W) float64 in [0, 255], both sides at least 11, with five scales 161.
        b: same shape.
        scales: 1 or 5; MS-SSIM is nan with 1.
    """
    product = a.new_ones(len(a))
    first = a
    for scale, weight in enumerate(_MS_SSIM_WEIGHTS[:scales]):
        similarity, contrast = _similarity(a, b)
        if scale == 0:
            first = similarity
        last = scale + 1 == len(_MS_SSIM_WEIGHTS)
        product = product * (similarity if last else contrast).clamp(min=0) ** weight
        if scale + 1 < scales:
            # An odd side gets a line of zeros in front, as in the library compared with.
            odd = [side % 2 for side in a.shape[1:]]
            a, b = (nn.functional.avg_pool2d(x[None], 2, padding=odd)[0] for x in (a, b))
    ms_ssim = float(product.mean()) if scales == len(_MS_SSIM_WEIGHTS) else math.nan
    return float(first.mean()), ms_ssim


def _similarity(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) means over the windows of SSIM and of its contrast and structure term."""
    a_mean, b_mean, aa, bb, ab = _windowed(torch.cat([a, b, a * a, b * b, a * b])).chunk(5)
    covariance = ab - a_mean * b_mean
    variances = aa - a_mean.square() + bb - b_mean.square()
    contrast = (2 * covariance + _SSIM_C2) / (variances + _SSIM_C2)
    luminance = (2 * a_mean * b_mean + _SSIM_C1) / (a_mean.square() + b_mean.square() + _SSIM_C1)
    return (luminance * contrast).mean(dim=(1, 2)), contrast.mean(dim=(1, 2))


def _windowed(x: Tensor) -> Tensor:
    """(N, H, W) -> (N, H - 10, W - 10) means under the Gaussian window, by banded products."""
    n, height, width = x.shape
    tall, wide = height - _SSIM_PX + 1, width - _SSIM_PX + 1
    rows = x.new_empty(n, tall, width)
    for start in range(0, tall, _BAND_PX):
        end = min(start + _BAND_PX, tall)
        band = _BAND[: end - start, : end - start + _SSIM_PX - 1]
        rows[:, start:end] = band @ x[:, start : end + _SSIM_PX - 1]
    both = x.new_empty(n, tall, wide)
    for start in range(0, wide, _BAND_PX):
        end = min(start + _BAND_PX, wide)
        band = _BAND[: end - start, : end - start + _SSIM_PX - 1]
        both[:, :, start:end] = rows[:, :, start : end + _SSIM_PX - 1] @ band.T
    return both


def _banded_window(length: int) -> Tensor:
    """(length, length + 10) whose product with a column is its mean under the window."""
    place = torch.arange(_SSIM_PX, dtype=torch.float64) - _SSIM_PX // 2
    window = torch.exp(-place.square() / (2 * _SSIM_SIGMA_PX**2))
    band = torch.zeros(length, length + _SSIM_PX - 1, dtype=torch.float64)
    for line in range(length):
        band[line, line : line + _SSIM_PX] = window / window.sum()
    return band


_BAND_PX = 64
_BAND = _banded_window(_BAND_PX)


def _luma(x: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, H, W)."""
    return torch.einsum("bchw,c->bhw", x, _LUMA)


def _psnr_db(a: Tensor, b: Tensor) -> float:
    mse = float((a - b).square().mean())
    return math.inf if mse == 0 else 10 * math.log10(255**2 / mse)


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
