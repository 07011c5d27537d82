"""Muon: momentum whose update is orthogonalised, for convolutions; Adam for everything else.

PyTorch's own `torch.optim.Muon` takes matrices only; here a convolution's weight counts as a matrix
of output channels by everything else. A depthwise convolution's does not: its channels know nothing
of each other, and it is stepped like a bias.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

# Quintic Newton-Schulz iteration; its coefficients trade exactness (singular values end between
# about 0.7 and 1.2) for speed, as in K. Jordan's description of Muon.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5

# Sides of matrices are filled up to multiples of this, so that more of them share a shape: it is
# the number of products that costs, more so on an accelerator.
_CPU_MULTIPLE = 64
_ACCELERATOR_MULTIPLE = 128

# Step of biases relative to that of matrices: their updates are elementwise, of size one each.
_BIAS_SHARE = 0.2


class Muon(torch.optim.Optimizer):
    """Muon on matrices, see :func:`is_matrix`, Adam on everything else.

    Update of a matrix of shape (m, n): lr * sqrt(max(1, m / n)) * U V^T, where U S V^T is the
    momentum (Nesterov form).
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.95):
        """`lr` is the spectral norm of a square matrix's step; about 5e-3 suits these networks.

        A group's "lr" may be replaced by a scalar tensor on the parameters' device.
        """
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """One update."""
        for group in self.param_groups:
            trained = [p for p in group["params"] if p.grad is not None]
            self._step_matrices([p for p in trained if is_matrix(p)], group)
            self._step_vectors([p for p in trained if not is_matrix(p)], group["lr"] * _BIAS_SHARE)

    def _step_matrices(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        if not parameters:
            return
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
        gradients = [p.grad for p in parameters if p.grad is not None]
        momenta = [self.state[parameter]["momentum"] for parameter in parameters]
        torch._foreach_mul_(momenta, group["momentum"])
        torch._foreach_add_(momenta, gradients)
        updates = torch._foreach_add(gradients, momenta, alpha=group["momentum"])
        steps = _orthogonalized([update.reshape(update.shape[0], -1) for update in updates])
        torch._foreach_mul_(steps, [max(1.0, len(s) / s.shape[1]) ** 0.5 for s in steps])
        torch._foreach_mul_(steps, group["lr"])
        shaped = [step.reshape(p.shape) for step, p in zip(steps, parameters, strict=True)]
        torch._foreach_sub_(parameters, shaped)

    def _step_vectors(self, parameters: list[Tensor], lr: float | Tensor) -> None:
        """Adam, all at once: there are many of them, and each is small."""
        if not parameters:
            return
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros((), device=parameter.device)
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
        states = [self.state[parameter] for parameter in parameters]
        torch._foreach_add_([state["step"] for state in states], 1)
        torch._fused_adam_(
            parameters,
            [p.grad for p in parameters if p.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            lr=lr,
            beta1=0.9,
            beta2=0.99,
            weight_decay=0.0,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16; one that imitates it takes ten times as long."""
    return device.type != "cpu" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def is_matrix(parameter: Tensor) -> bool:
    """Whether a parameter maps channels to channels: not a vector, nor a depthwise convolution."""
    return parameter.ndim >= 2 and not (parameter.ndim == 4 and parameter.shape[1] == 1)


def _orthogonalized(matrices: list[Tensor]) -> list[Tensor]:
    """The nearest (semi-)orthogonal matrix of each, roughly, in bfloat16 where that is quick.

    Matrices of one shape go together: one by one they would be thousands of small products. Zeros
    around them make more shapes equal; they stay zeros.
    """
    by_shape: dict[tuple[int, int], list[int]] = {}
    for index, matrix in enumerate(matrices):
        multiple = _ACCELERATOR_MULTIPLE if matrix.is_cuda else _CPU_MULTIPLE
        rows, columns = (-(-side // multiple) * multiple for side in sorted(matrix.shape))
        by_shape.setdefault((rows, columns), []).append(index)
    results: dict[int, Tensor] = {}
    a, b, c = _COEFFICIENTS
    for (rows, columns), indices in by_shape.items():
        wide = [matrices[i] if _is_wide(matrices[i]) else matrices[i].mT for i in indices]
        padded = [
            nn.functional.pad(matrix, (0, columns - matrix.shape[1], 0, rows - matrix.shape[0]))
            for matrix in wide
        ]
        x = torch.stack(padded)
        x = x.bfloat16() if has_bfloat16(x.device) else x.float()
        x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
        for _ in range(_ITERATIONS):
            gram = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
        for index, matrix, step in zip(indices, wide, x, strict=True):
            found = step[: matrix.shape[0], : matrix.shape[1]].to(matrix.dtype)
            results[index] = found if _is_wide(matrices[index]) else found.mT
    return [results[index] for index in range(len(matrices))]


def _is_wide(matrix: Tensor) -> bool:
    return matrix.shape[0] <= matrix.shape[1]
