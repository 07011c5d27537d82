"""The discretised logistic distribution: what a symbol costs, and integer tables of it."""

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cwic.coding.symbol_tables import FREQUENCY_BITS

LN2 = math.log(2)


def logistic_bits(distance: Tensor, inverse_scale: Tensor) -> Tensor:
    """Information in an integer under a discretised logistic distribution, in bits, at least 0.

    P = S((1/2 - a) / s) - S((-1/2 - a) / s), S the sigmoid, a the distance from the mean in units
    of the integers, as a product that neither cancels nor underflows.
    """
    a = distance.abs()
    log_p = (
        nn.functional.logsigmoid((0.5 - a) * inverse_scale)
        + nn.functional.logsigmoid((0.5 + a) * inverse_scale)
        + torch.log(-torch.expm1(-inverse_scale))
    )
    return -log_p / LN2


def logistic_masses(
    mean: npt.NDArray[np.float64], scale: npt.NDArray[np.float64], low: int, high: int
) -> npt.NDArray[np.float64]:
    """Probabilities of the integers low..high, (T, high - low + 1), of T logistic laws (T,)."""
    edges = (np.arange(low - 0.5, high + 1) - mean[:, None]) / scale[:, None]
    with np.errstate(over="ignore"):
        masses: npt.NDArray[np.float64] = np.diff(1 / (1 + np.exp(-edges)), axis=1)
    return masses


def frequencies(p: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """(T, S) probabilities as integers whose rows sum to 2^FREQUENCY_BITS."""
    total = 1 << FREQUENCY_BITS
    tables = np.rint(p * total).astype(np.int64)
    # What rounding leaves over goes to the likeliest symbol.
    rows = np.arange(len(tables))
    tables[rows, p.argmax(axis=1)] += total - tables.sum(axis=1)
    return tables
