"""The binarizer: sigmoid outputs to bits, with a straight-through gradient (section 3.2)."""

from typing import Any

import torch
from torch import Tensor


class _Binarize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, e: Tensor) -> Tensor:
        ctx.save_for_backward(e)
        return (e > 0.5).to(e.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        (e,) = ctx.saved_tensors
        inside: Tensor = (e >= 0) & (e <= 1)
        return grad_outputs[0] * inside.to(e.dtype)


def binarize(e: Tensor) -> Tensor:
    """B(e) = 1 if e > 0.5 else 0 (eq. 1 of the paper), of any shape, outputs of a sigmoid.

    The gradient is that of the proxy, the identity clipped to [0, 1]: 1 for 0 <= e <= 1, else 0.
    """
    result: Tensor = _Binarize.apply(e)  # type: ignore[no-untyped-call]
    return result
