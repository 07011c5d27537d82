"""The importance map: its network, its quantizer and the mask it cuts out of the code.

Sections 3.1 and 3.3 of the paper. The quantizer comes in the paper's form (a cell may keep no
bit) and in the form of the authors' released model (a cell keeps one level more). The mask is a
step function of the map, so its gradient is a choice; the three that exist are here by name.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from cwic.families.cvpr2018.family import LEVEL_EPSILON

MaskGradient = Literal["window", "local", "global"]
QuantizerForm = Literal["released", "paper"]


class ImportanceMapNet(nn.Module):
    """F(x) -> logits of the importance map p, one value a cell of the code.

    The released net has two convolutions (3x3 to `hidden`, 1x1 to one), the paper's text three
    (3x3, 3x3, 3x3). The closing sigmoid is left to the caller, who may add a rate offset first.
    """

    def __init__(self, in_channels: int, hidden: int, variant: Literal["released", "paper"]):
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(in_channels, hidden, 3, padding=1), nn.ReLU()]
        if variant == "paper":
            layers += [nn.Conv2d(hidden, hidden, 3, padding=1), nn.ReLU()]
            layers += [nn.Conv2d(hidden, 1, 3, padding=1)]
        else:
            layers += [nn.Conv2d(hidden, 1, 1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, C, h, w) -> logits (B, 1, h, w)."""
        logits: Tensor = self.layers(features)
        return logits


def quantize_levels(p: Tensor, levels: int) -> Tensor:
    """Q(p) = l - 1 if (l - 1) / L <= p < l / L, l = 1..L (eq. 4).

    p in [0, 1], any shape -> same shape, float holding integers 0..L - 1.
    """
    return torch.floor(p * levels + LEVEL_EPSILON).clamp(0, levels - 1)


def kept_channels(level: Tensor, code_channels: int, levels: int, form: QuantizerForm) -> Tensor:
    """Number of leading code channels that a cell keeps, from its level 0..L - 1.

    Paper: (n / L) Q(p), from 0 to n - n / L. Released model: (n / L) (Q(p) + 1), from n / L to n.
    """
    per_level = code_channels // levels
    return per_level * (level + 1) if form == "released" else per_level * level


class _Mask(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        p: Tensor,
        code_channels: int,
        levels: int,
        form: QuantizerForm,
        gradient: MaskGradient,
    ) -> Tensor:
        ctx.save_for_backward(p)
        ctx.settings = (code_channels, levels, form, gradient)
        kept = kept_channels(quantize_levels(p, levels), code_channels, levels, form)
        k = torch.arange(1, code_channels + 1, device=p.device).view(1, -1, 1, 1)
        return (k <= kept).to(p.dtype)  # (B, n, h, w)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None, None]:
        (grad,) = grad_outputs
        (p,) = ctx.saved_tensors
        code_channels, levels, form, gradient = ctx.settings
        if gradient == "global":
            return grad.sum(dim=1, keepdim=True), None, None, None, None
        k = torch.arange(1, code_channels + 1, device=p.device).view(1, -1, 1, 1)
        if gradient == "window":
            scaled = levels * p
            # ceil(k L / n) without floating point: k and L / n are integers up to a division.
            level_of_k = -((-k * levels) // code_channels)
            inside = (scaled - 1 <= level_of_k) & (level_of_k < scaled + 2)
        else:
            per_level = code_channels // levels
            kept = kept_channels(quantize_levels(p, levels), code_channels, levels, form)
            inside = (k - 1 >= kept - per_level) & (k - 1 < kept + per_level)
        windowed = (grad * inside.to(grad.dtype)).sum(dim=1, keepdim=True)
        return levels * windowed, None, None, None, None


def prefix_mask(
    p: Tensor,
    code_channels: int,
    levels: int,
    form: QuantizerForm = "released",
    gradient: MaskGradient = "window",
) -> Tensor:
    """The mask m_k = 1 if k <= K else 0, K the kept channels of the cell (eq. 5 and 6).

    Args:
        p: (B, 1, h, w) float in [0, 1].
        code_channels: n, a multiple of `levels`.
        levels: L.
        form: which K, see :func:`kept_channels`.
        gradient: dL/dp from g_k = dL/dm_k, k = 1..n:
            "window" (eq. 7): L * sum of g_k over k with L p - 1 <= ceil(k L / n) < L p + 2;
            "local" (released layer, LOCAL): L * sum over zero-based k in [K - n/L, K + n/L);
            "global" (released layer, GLOBAL): the sum over all k, factor 1.

    Returns:
        (B, n, h, w), dtype of p, values in {0, 1}.
    """
    mask: Tensor = _Mask.apply(p, code_channels, levels, form, gradient)  # type: ignore[no-untyped-call]
    return mask
