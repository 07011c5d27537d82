"""Latents of a tile in floating point: means, and what symbols make of them, beside the coder.

The mean network takes the same steps as the coder. An encoder's symbols come from the means, so
these run ahead of what is coded; a decoder's latents follow what is read. Neither ever chooses a
coding table, which is what lets them have a thread of their own. The order of coding is left to
:mod:`.coder`, the network to :mod:`.step_network`.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cwic.families.flagship.grid import Q_UNITS, Array, Checkerboard, Halves
from cwic.families.flagship.step_network import MeanNetwork

CONDITION_PLANES = 5  # of `condition`

MAX_SYMBOL = 255  # larger magnitudes are coded as an escape and a number
MAX_EXCESS_BITS = 16  # of what an escape adds to MAX_SYMBOL
MAX_CODED = MAX_SYMBOL + (1 << MAX_EXCESS_BITS) - 1

Symbols = npt.NDArray[np.int32]


class SideInformation(NamedTuple):
    """What is known of a tile before its latents."""

    q: int  # of the header, in 1/64 of a quarter octave
    level: npt.NDArray[np.int64]  # (h, w) in -8..8, of the grid with its padding
    hyper: npt.NDArray[np.int64]  # (hyper_channels, h / 4, w / 4) in -63..63


def condition(q: int, level: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """The step size as planes that networks in floating point take beside their other inputs.

    Args:
        q: of the header.
        level: (h, w).

    Returns:
        (5, h, w), magnitudes of about 1.
    """
    base = np.full(level.shape, q / Q_UNITS, np.float32)
    total = (base + level.astype(np.float32)) / 8
    step = np.exp2(-2 * total)
    return np.stack([total, total * total, step / 2, 1 / (2 * step), base / 8]).astype(np.float32)


class SecondThread:
    """Makes calls in the order in which they are handed in, while whoever hands them in goes on.

    Without a thread for it, each call is made at once. A context, left when all calls are made.
    """

    def __init__(self, in_use: bool):
        """`in_use`: whether there may be a thread."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cwic-means") if in_use else None

    def __enter__(self) -> "SecondThread":
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is not None:
            self._thread.shutdown()

    def submit(self, call: Callable[..., Any], *values: Any) -> Callable[[], Any]:
        """What waits for the call, and gives its result or raises its exception."""
        if self._thread is not None:
            return self._thread.submit(call, *values).result
        result = call(*values)
        return lambda: result


class Latents:
    """Means and latents of a tile, step after step.

    Attributes:
        prior: (mean width, h, w) what is known without the latents; there after `finish`.
        planes: (5, h, w), see `condition`.
    """

    prior: npt.NDArray[np.float32]

    def __init__(
        self,
        network: MeanNetwork,
        side: SideInformation,
        board: Checkerboard,
        num_steps: int,
        thread: SecondThread,
    ):
        """The network's first state is made at once.

        Args:
            network: of the model.
            side: of the tile.
            board: of its cells.
            num_steps: that are going to be taken.
            thread: in which the network computes.
        """
        self._network, self._board, self._num_steps = network, board, num_steps
        self._thread = thread
        groups = network.groups[: num_steps // 2]
        self._channels = [slice(*ends) for ends in pairwise(accumulate(groups, initial=0))]
        steps = side.level.astype(np.float32) + np.float32(side.q / Q_UNITS)
        gain = np.exp2(steps / 4).reshape(-1)
        self._gain = [gain[own] for own in board.cells]
        self.planes = condition(side.q, side.level)
        even, odd = (np.empty((sum(groups), len(own)), np.float32) for own in board.cells)
        self._decoded = (even, odd)
        self._state: Halves
        self._calls = [thread.submit(self._begin, side.hyper)]

    def symbols(self, step: int) -> Symbols:
        """What a coder is given in a step, (channels of the group, cells of the colour)."""
        raise NotImplementedError

    def take(self, step: int, symbols: Symbols) -> None:
        """What a coder made of it, in the same shape."""
        raise NotImplementedError

    def finish(self) -> npt.NDArray[np.float32]:
        """All latents of the steps that were taken, (channels, h, w), as a decoder has them."""
        for wait in self._calls:
            wait()
        return self._board.whole(self._decoded)

    def _begin(self, hyper: npt.NDArray[np.int64]) -> None:
        self._state = self._network.begin(hyper, self.planes, self._board)
        self.prior = self._network.activate(self._board.whole(self._state))

    def _decode(self, step: int, mean: Array, symbols: Symbols) -> None:
        group, colour = divmod(step, 2)
        latents = self._decoded[colour][self._channels[group]]
        latents[:] = mean + symbols.astype(np.float32) / self._gain[colour]
        self._network.absorb(self._state, step, latents, self._board, self._num_steps)


class Quantizer(Latents):
    """Of an encoder: all steps are quantized ahead of the coder."""

    def __init__(
        self,
        network: MeanNetwork,
        side: SideInformation,
        board: Checkerboard,
        y: npt.NDArray[np.float32],
        thread: SecondThread,
    ):
        """As of :class:`Latents`, with `y`, (M, h, w) of the analysis, in all its groups."""
        num_steps = 2 * len(network.groups)
        super().__init__(network, side, board, num_steps, thread)
        halves = board.halves(y)
        self._symbols = [
            thread.submit(self._quantize, step, halves[step % 2]) for step in range(num_steps)
        ]
        self._calls += self._symbols

    def symbols(self, step: int) -> Symbols:
        """Quantized; cells that have no pixels have symbol 0."""
        symbols: Symbols = self._symbols[step]()
        return symbols

    def take(self, step: int, symbols: Symbols) -> None:
        """Nothing is left to do."""

    def _quantize(self, step: int, half: Array) -> Symbols:
        group, colour = divmod(step, 2)
        mean = self._network.predict(self._state, step)
        inside = self._board.inside[colour]
        exact = (half[self._channels[group]] - mean) * self._gain[colour]
        np.clip(exact, -MAX_CODED, MAX_CODED, out=exact)
        symbols = np.zeros(mean.shape, np.int32)
        symbols[:, inside] = np.floor(exact[:, inside] + np.float32(0.5))
        self._decode(step, mean, symbols)
        return symbols


class Dequantizer(Latents):
    """Of a decoder: latents follow the symbols."""

    def symbols(self, step: int) -> Symbols:
        """Zeros, of which a decoder takes the number alone."""
        shape = (self._network.groups[step // 2], len(self._board.cells[step % 2]))
        return np.zeros(shape, np.int32)

    def take(self, step: int, symbols: Symbols) -> None:
        """Symbols as they were read."""
        self._calls.append(self._thread.submit(self._dequantize, step, symbols))

    def _dequantize(self, step: int, symbols: Symbols) -> None:
        self._decode(step, self._network.predict(self._state, step), symbols)
