"""Where a crop stands out, for losses: nothing but torch, on any device, a batch at a time.

The spectral residual of Hou and Zhang (CVPR 2007): what is left of the log amplitude of a small
picture's spectrum once its local mean is taken away, with the phases as they were. The detector
that `cwic encode --saliency` uses is another one, in :mod:`cwic.saliency`.
"""

import torch
from torch import Tensor, nn

from cwic.image import LUMA

_SIDE_PX = 64  # of the small picture, the paper's
_BLUR_SIGMA_PX = 3.0
_BLUR_RADIUS_PX = 8

# The most that a place counts, so that a single spot does not rule a crop.
_MAX_SHARE = 4.0


def spectral_residual(pictures: Tensor) -> Tensor:
    """Saliency of pictures (B, 3, H, W) in any range: (B, 1, H, W) in [0, 1], smooth, largest 1."""
    with torch.no_grad():
        red, green, blue = LUMA
        luma = red * pictures[:, :1] + green * pictures[:, 1:2] + blue * pictures[:, 2:]
        small = nn.functional.adaptive_avg_pool2d(luma.float(), _SIDE_PX)
        spectrum = torch.fft.fft2(small)
        log_amplitude = torch.log(spectrum.abs() + 1e-6)
        around = nn.functional.pad(log_amplitude, (1, 1, 1, 1), mode="circular")
        residual = log_amplitude - nn.functional.avg_pool2d(around, 3, stride=1)
        phase = spectrum / spectrum.abs().clamp(min=1e-12)
        found = torch.fft.ifft2(torch.exp(residual) * phase).abs().square()
        line = torch.arange(-_BLUR_RADIUS_PX, _BLUR_RADIUS_PX + 1, device=found.device)
        kernel = torch.exp(-(line.float() / _BLUR_SIGMA_PX).square() / 2)
        kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
        for axis in (kernel, kernel.transpose(2, 3)):
            padding = (axis.shape[3] // 2,) * 2 + (axis.shape[2] // 2,) * 2
            padded = nn.functional.pad(found, padding, mode="replicate")
            found = nn.functional.conv2d(padded, axis)
        found = found / found.amax(dim=(2, 3), keepdim=True).clamp(min=1e-12)
        size = pictures.shape[2:]
        return nn.functional.interpolate(found, size=size, mode="bilinear", align_corners=False)


def saliency_shares(pictures: Tensor, weight: float) -> Tensor:
    """How much each place of pictures (B, 3, H, W) counts in their distortion, (B, 1, H, W).

    At least 1 - `weight`, which lies in [0, 1]; 0: all places alike, 1: in proportion to their
    saliency, at most four times the mean. The mean over each picture is 1.
    """
    found = spectral_residual(pictures)
    relative = found / found.mean(dim=(2, 3), keepdim=True).clamp(min=1e-12)
    relative = relative.clamp(max=_MAX_SHARE)
    relative = relative / relative.mean(dim=(2, 3), keepdim=True).clamp(min=1e-12)
    return 1 - weight + weight * relative
