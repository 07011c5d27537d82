"""One optimiser step: loss, gradient, clipping, update of the weights and of their average.

Nothing in it waits for the device, so on CUDA a whole step can be one graph: networks of this size
are a few thousand small kernels a step, and launching them one by one takes several times as long
as computing them. Leaves to others what is minimised (:mod:`.family`) and when (:mod:`.trainer`).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cwic.training.family import StepLoss

Objective = Callable[[tuple[Tensor, ...]], StepLoss]

# Steps before a graph is captured: kernels are compiled and chosen, states of the optimizer made.
_WARM_UP_STEPS = 3


class StepResult(NamedTuple):
    """What a step found; tensors that the next step may overwrite."""

    loss: Tensor  # scalar
    figures: Tensor  # (K,) the family's log columns
    norm: Tensor  # scalar, of the gradient before it is clipped


class Step:
    """The step of one stage: weights, their average and the optimizer's state change in place.

    Where the gradient is not finite, weights and average stay. Moments decay then in a graph, which
    has no branches; outside one they stay as well.
    """

    def __init__(
        self,
        objective: Objective,
        network: nn.Module,
        average: dict[str, Tensor],
        optimizer: torch.optim.Optimizer,
        bad_steps: Tensor,
        clip_norm: float,
        captured: bool,
    ):
        """What to step.

        Args:
            objective: of what the family draws; the shapes of that never change.
            network: in training mode.
            average: of its parameters, by name.
            optimizer: of its parameters; for a graph, one whose learning rate may be a tensor.
            bad_steps: scalar, integer, on the device: how many steps in a row, up to the last one,
                had a gradient that was not finite.
            clip_norm: largest norm of the whole gradient.
            captured: whether steps become a CUDA graph.
        """
        self._objective = objective
        self._parameters: list[Tensor] = list(network.parameters())
        self._bad_steps = bad_steps
        self._average = [average[name] for name, _ in network.named_parameters()]
        self._optimizer = optimizer
        self._clip_norm = clip_norm
        self._captured = captured
        device = self._average[0].device
        self._share = torch.zeros((), device=device)  # of new weights in the average
        self._learning_rate = torch.zeros((), device=device)
        self._stream = torch.cuda.Stream(device) if captured else None  # type: ignore[no-untyped-call]
        self._warm_ups = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: list[Tensor] = []
        self._result: StepResult | None = None

    def __call__(self, drawn: tuple[Tensor, ...], learning_rate: float, decay: float) -> StepResult:
        """One step with what the family drew; `decay` is that of the average."""
        self._share.fill_(1 - decay)
        self._learning_rate.fill_(learning_rate)
        for group in self._optimizer.param_groups:
            group["lr"] = self._learning_rate if self._captured else learning_rate
        if not self._captured:
            return self._run(drawn)
        if self._graph is None:
            if self._warm_ups < _WARM_UP_STEPS:
                return self._warm_up(drawn)
            self._capture(drawn)
        for place, value in zip(self._inputs, drawn, strict=True):
            place.copy_(value)
        assert self._graph is not None
        assert self._result is not None
        self._graph.replay()
        return self._result

    def _run(self, drawn: tuple[Tensor, ...]) -> StepResult:
        self._optimizer.zero_grad(set_to_none=True)
        loss, figures = self._objective(drawn)
        loss.backward()  # type: ignore[no-untyped-call]
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        good = torch.isfinite(norm)
        self._bad_steps.add_(1).mul_(~good)
        if self._captured:
            # A step of length zero. Muon's is as long as its rate, whatever the gradient.
            self._learning_rate.mul_(good)
            self._share.mul_(good)
        elif not good:
            return StepResult(loss.detach(), figures, norm)
        nn.utils.clip_grads_with_norm_(self._parameters, self._clip_norm, norm)
        if self._captured:
            # Of a norm that is not finite a product is none either.
            for gradient in gradients:
                gradient.nan_to_num_(0, 0, 0)
        self._optimizer.step()
        with torch.no_grad():
            moves = torch._foreach_sub(self._parameters, self._average)
            torch._foreach_mul_(moves, self._share)
            torch._foreach_add_(self._average, moves)
        return StepResult(loss.detach(), figures, norm)

    def _warm_up(self, drawn: tuple[Tensor, ...]) -> StepResult:
        """A step like any other, on the stream that the graph is captured on."""
        self._warm_ups += 1
        assert self._stream is not None
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            result = self._run(drawn)
        current.wait_stream(self._stream)
        return result

    def _capture(self, drawn: tuple[Tensor, ...]) -> None:
        """Record a step without running it."""
        self._inputs = [torch.empty_like(value).copy_(value) for value in drawn]
        self._optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            self._result = self._run(tuple(self._inputs))
        self._graph = graph
