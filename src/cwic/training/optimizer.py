"""Muon: momentum whose update is orthogonalised, for convolutions; Adam for everything else.

PyTorch's own `torch.optim.Muon` takes matrices only; here a convolution's weight counts as a matrix
of output channels by everything else.
"""

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor, nn

# Quintic Newton-Schulz iteration; its coefficients trade exactness (singular values end between
# about 0.7 and 1.2) for speed, as in K. Jordan's description of Muon.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5

# Step of biases relative to that of matrices: their updates are elementwise, of size one each.
_BIAS_SHARE = 0.2


class Muon(torch.optim.Optimizer):
    """Muon on tensors of two or more dimensions, Adam on the others.

    Update of a matrix of shape (m, n): lr * sqrt(max(1, m / n)) * U V^T, where U S V^T is the
    momentum (Nesterov form).
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.95):
        """`lr` is the spectral norm of a square matrix's step; about 5e-3 suits these networks."""
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update; a closure, if given, is run first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if parameter.ndim >= 2:
                    self._step_matrix(parameter, parameter.grad, group)
                else:
                    self._step_vector(parameter, parameter.grad, group["lr"] * _BIAS_SHARE)
        return loss

    def _step_matrix(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum: Tensor = state["momentum"]
        momentum.mul_(group["momentum"]).add_(gradient)
        update = gradient.add(momentum, alpha=group["momentum"])
        matrix = update.reshape(update.shape[0], -1)
        scale = max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
        step = _orthogonalized(matrix).reshape(update.shape)
        parameter.add_(step, alpha=-group["lr"] * scale)

    def _step_vector(self, parameter: Tensor, gradient: Tensor, lr: float) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] += 1
        step = int(state["step"])
        state["exp_avg"].lerp_(gradient, 0.1)
        state["exp_avg_sq"].lerp_(gradient.square(), 0.01)
        mean = state["exp_avg"] / (1 - 0.9**step)
        scale = (state["exp_avg_sq"] / (1 - 0.99**step)).sqrt() + 1e-8
        parameter.addcdiv_(mean, scale, value=-lr)


def _orthogonalized(matrix: Tensor) -> Tensor:
    """The nearest (semi-)orthogonal matrix, roughly, in bfloat16."""
    x = matrix.bfloat16()
    x = x / (x.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = (x.T if tall else x).to(matrix.dtype)
    return result
