"""SSIM and MS-SSIM of batches of pictures, as metrics and as losses: differentiable, in torch.

Gaussian window of 11x11, sigma 1.5, no padding; five scales with the weights of Wang, Simoncelli
and Bovik 2003. The numbers are those of pytorch-msssim, which a test has on record. In flat areas
the variances are small differences of large numbers: single precision was seen to err by 0.0001,
so that metrics are taken in double precision. On a processor the window is a product with a banded
matrix, which takes a quarter to half of the time of torch's convolution.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cwic.evaluation.array_similarity import C1, C2, SIGMA_PX, WINDOW_PX

SSIM_PX = WINDOW_PX  # least side of a picture
MS_SSIM_PX = 161  # likewise for five scales

_EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the five scales, from fine to coarse
_BAND_PX = 64


class _Scale(NamedTuple):
    """What one scale of two pictures says of each place, (B, C, h, w)."""

    contrast: Tensor  # contrast and structure
    reference_mean: Tensor
    decoded_mean: Tensor
    shares: Tensor | None  # (B, 1, h, w)

    def mean_contrast(self) -> Tensor:
        """(B, C) over the places."""
        return self._mean(self.contrast)

    def mean_similarity(self) -> Tensor:
        """(B, C) over the places."""
        square = self.reference_mean.square() + self.decoded_mean.square()
        product = 2 * self.reference_mean * self.decoded_mean
        return self._mean(self.contrast * (product + C1) / (square + C1))

    def _mean(self, places: Tensor) -> Tensor:
        if self.shares is None:
            return places.mean(dim=(2, 3))
        total = self.shares.sum(dim=(2, 3)).clamp(min=1e-6)
        return (places * self.shares).sum(dim=(2, 3)) / total


def ssim(reference: Tensor, decoded: Tensor, shares: Tensor | None = None) -> Tensor:
    """Structural similarity of each picture (Wang et al. 2004), mean over the channels.

    Two (B, C, H, W) float in [0, 1], sides at least 11 px -> (B,), at most 1. `shares`
    (B, 1, H, W), at least 0, is how much a place counts; None: all alike.
    """
    return next(_scales(reference, decoded, shares)).mean_similarity().mean(dim=1)


def ms_ssim(reference: Tensor, decoded: Tensor, shares: Tensor | None = None) -> Tensor:
    """Likewise over five scales (Wang, Simoncelli and Bovik 2003); sides at least 161 px."""
    return _product(_scales(reference, decoded, shares))


def ssim_and_ms_ssim(
    reference: Tensor, decoded: Tensor, shares: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Both of :func:`ssim` and :func:`ms_ssim`, with the finest scale computed once."""
    scales = list(_scales(reference, decoded, shares))
    return scales[0].mean_similarity().mean(dim=1), _product(scales)


def _product(scales: Iterable[_Scale]) -> Tensor:
    """(B,) over all five scales."""
    total: Tensor | float = 1.0
    for scale, exponent in zip(scales, _EXPONENTS, strict=True):
        coarsest = exponent == _EXPONENTS[-1]
        mean = scale.mean_similarity() if coarsest else scale.mean_contrast()
        total = total * mean.relu() ** exponent
    assert isinstance(total, Tensor)
    return total.mean(dim=1)


def _scales(reference: Tensor, decoded: Tensor, shares: Tensor | None) -> Iterator[_Scale]:
    """The five scales from fine to coarse, each computed when it is asked for."""
    x, y = reference, decoded
    margin = SSIM_PX // 2
    for scale in range(len(_EXPONENTS)):
        if scale:
            # An odd side gets a line of zeros in front, as in the library compared with.
            odd = [side % 2 for side in x.shape[2:]]
            x, y = (nn.functional.avg_pool2d(planes, 2, padding=odd) for planes in (x, y))
            if shares is not None:
                shares = nn.functional.avg_pool2d(shares, 2, padding=odd)
        mean_x, mean_y = windowed(x), windowed(y)
        variances = windowed(x * x) - mean_x.square() + windowed(y * y) - mean_y.square()
        covariance = windowed(x * y) - mean_x * mean_y
        contrast = (2 * covariance + C2) / (variances + C2)
        inside = None if shares is None else shares[:, :, margin:-margin, margin:-margin]
        yield _Scale(contrast, mean_x, mean_y, inside)


def windowed(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, H - 10, W - 10) means under the Gaussian window."""
    if x.device.type == "cpu":
        band = _band(x)
        of_rows, of_columns = (_pieces(side) for side in x.shape[2:])
        rows = [band[:means, : means + SSIM_PX - 1] @ x[:, :, lines] for means, lines in of_rows]
        x = torch.cat(rows, dim=2)
        columns = [
            x[..., lines] @ band[:means, : means + SSIM_PX - 1].T for means, lines in of_columns
        ]
        return torch.cat(columns, dim=3)
    window = _window(x.device, x.dtype).view(1, 1, 1, -1).expand(x.shape[1], 1, 1, -1)
    for kernel in (window, window.transpose(2, 3)):
        x = nn.functional.conv2d(x, kernel, groups=x.shape[1])
    return x


def _window(device: torch.device, dtype: torch.dtype) -> Tensor:
    """(11,), sum 1."""
    place = torch.arange(SSIM_PX, device=device, dtype=dtype) - SSIM_PX // 2
    window = torch.exp(-place.square() / (2 * SIGMA_PX**2))
    return window / window.sum()


def _pieces(length: int) -> Iterator[tuple[int, slice]]:
    """The means of a line of so many pixels by pieces: how many, and the pixels they are of."""
    for start in range(0, length - SSIM_PX + 1, _BAND_PX):
        means = min(_BAND_PX, length - SSIM_PX + 1 - start)
        yield means, slice(start, start + means + SSIM_PX - 1)


def _band(like: Tensor) -> Tensor:
    """(64, 74): the matrix that takes 74 pixels of a line to 64 means."""
    window = _window(like.device, like.dtype)
    columns = torch.arange(_BAND_PX + SSIM_PX - 1, device=like.device)
    place = columns - columns[:_BAND_PX, None]
    inside = (place >= 0) & (place < SSIM_PX)
    return window[place.clamp(0, SSIM_PX - 1)] * inside
