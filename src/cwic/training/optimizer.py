"""Muon: momentum whose update is orthogonalised, for convolutions; Adam for everything else.

PyTorch's own `torch.optim.Muon` takes matrices only; here a convolution's weight counts as a matrix
of output channels by everything else. A depthwise convolution's does not: its channels know nothing
of each other, and it is stepped like a bias.
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
    """Muon on matrices, see :func:`is_matrix`, Adam on everything else.

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
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if is_matrix(parameter):
                    by_shape.setdefault(parameter.shape, []).append(parameter)
                else:
                    self._step_vector(parameter, parameter.grad, group["lr"] * _BIAS_SHARE)
            for parameters in by_shape.values():
                self._step_matrices(parameters, group)
        return loss

    def _step_matrices(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """Matrices of one shape together: one by one they would be thousands of small products."""
        updates = []
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            momentum: Tensor = state["momentum"]
            assert parameter.grad is not None
            momentum.mul_(group["momentum"]).add_(parameter.grad)
            update = parameter.grad.add(momentum, alpha=group["momentum"])
            updates.append(update.reshape(update.shape[0], -1))
        rows, columns = updates[0].shape
        scale = max(1.0, rows / columns) ** 0.5
        for parameter, step in zip(parameters, _orthogonalized(torch.stack(updates)), strict=True):
            parameter.add_(step.reshape(parameter.shape), alpha=-group["lr"] * scale)

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


def is_matrix(parameter: Tensor) -> bool:
    """Whether a parameter maps channels to channels: not a vector, nor a depthwise convolution."""
    return parameter.ndim >= 2 and not (parameter.ndim == 4 and parameter.shape[1] == 1)


def _orthogonalized(matrices: Tensor) -> Tensor:
    """The nearest (semi-)orthogonal matrix of each of (N, m, n), roughly, in bfloat16."""
    x = matrices.bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = (x.mT if tall else x).to(matrices.dtype)
    return result
