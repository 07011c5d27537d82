"""One optimiser step: loss, gradient, clipping, update of the weights and of their average.

Nothing in it waits for the device, so on CUDA a whole step can be one graph: networks of this size
are a few thousand small kernels a step, and launching them one by one takes several times as long
as computing them. Leaves to others what is minimised (:mod:`.family`) and when (:mod:`.trainer`).
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cwic.training.family import Drawn, StepLoss

Objective = Callable[[Drawn], StepLoss]

# Steps before a graph is captured: kernels are compiled and chosen, states of the optimizer made.
_WARM_UP_STEPS = 3


class State(NamedTuple):
    """What steps change in place, in all stages of a run."""

    network: nn.Module  # in training mode
    average: dict[str, Tensor]  # of its parameters, by name
    optimizer: torch.optim.Optimizer  # for a graph, one whose learning rate may be a tensor
    bad_steps: Tensor  # scalar, integer: how many of the last steps had a gradient not finite


class StepResult(NamedTuple):
    """What a step found; tensors that the next step may overwrite."""

    loss: Tensor  # scalar
    figures: Tensor  # (K,) the family's log columns
    norm: Tensor  # scalar, of the gradient before it is clipped


class _Graph(NamedTuple):
    graph: torch.cuda.CUDAGraph
    drawn: Sequence[Drawn]  # what it reads
    result: StepResult  # what it writes


class Step:
    """The step of one stage: weights, their average and the optimizer's state change in place.

    Where the gradient is not finite, weights and average stay. Moments decay then in a graph, which
    has no branches; outside one they stay as well.
    """

    def __init__(self, objective: Objective, state: State, *, clip_norm: float, captured: bool):
        """`clip_norm` is the largest norm of the whole gradient.

        `captured`: whether steps become CUDA graphs, one for each layout and shapes drawn.
        """
        self._objective = objective
        self._parameters: list[Tensor] = list(state.network.parameters())
        self._bad_steps = state.bad_steps
        self._average = [state.average[name] for name, _ in state.network.named_parameters()]
        self._optimizer = state.optimizer
        self._clip_norm = clip_norm
        self._captured = captured
        device = self._average[0].device
        self._share = torch.zeros((), device=device)  # of new weights in the average
        self._learning_rate = torch.zeros((), device=device)
        self._stream = torch.cuda.Stream(device) if captured else None  # type: ignore[no-untyped-call]
        self._warm_ups = 0
        self._graphs: dict[Hashable, _Graph] = {}
        self._pool: Any = None  # of memory, one for all graphs: one runs at a time

    def __call__(self, drawn: Sequence[Drawn], learning_rate: float, decay: float) -> StepResult:
        """One step, of what is drawn for each of the equal parts that a batch is worked on in.

        `decay` is of the average.
        """
        self._share.fill_(1 - decay)
        self._learning_rate.fill_(learning_rate)
        for group in self._optimizer.param_groups:
            group["lr"] = self._learning_rate if self._captured else learning_rate
        if not self._captured:
            return self._run(drawn)
        key = tuple((part.layout, tuple(tensor.shape for tensor in part.tensors)) for part in drawn)
        graph = self._graphs.get(key)
        if graph is None:
            if self._warm_ups < _WARM_UP_STEPS:
                return self._warm_up(drawn)
            graph = self._graphs[key] = self._capture(drawn)
        for own, given in zip(graph.drawn, drawn, strict=True):
            for place, value in zip(own.tensors, given.tensors, strict=True):
                place.copy_(value)
        graph.graph.replay()
        return graph.result

    def _run(self, drawn: Sequence[Drawn]) -> StepResult:
        self._optimizer.zero_grad(set_to_none=True)
        losses, all_figures = [], []
        for part in drawn:
            loss, figures = self._objective(part)
            (loss / len(drawn)).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
            all_figures.append(figures)
        loss, figures = (torch.stack(values).mean(dim=0) for values in (losses, all_figures))
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        good = torch.isfinite(norm)
        self._bad_steps.add_(1).mul_(~good)
        if self._captured:
            # A step of length zero. Muon's is as long as its rate, whatever the gradient.
            self._learning_rate.mul_(good)
            self._share.mul_(good)
        elif not good:
            return StepResult(loss, figures, norm)
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
        return StepResult(loss, figures, norm)

    def _warm_up(self, drawn: Sequence[Drawn]) -> StepResult:
        """A step like any other, on the stream that graphs are captured on."""
        self._warm_ups += 1
        assert self._stream is not None
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            result = self._run(drawn)
        current.wait_stream(self._stream)
        return result

    def _capture(self, drawn: Sequence[Drawn]) -> _Graph:
        """Record a step without running it."""
        own = [
            part._replace(tensors=tuple(torch.empty_like(value) for value in part.tensors))
            for part in drawn
        ]
        for empty, given in zip(own, drawn, strict=True):
            for place, value in zip(empty.tensors, given.tensors, strict=True):
                place.copy_(value)
        self._optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            result = self._run(own)
        self._pool = graph.pool()
        return _Graph(graph, own, result)
