"""Exact evaluation of the networks that choose probabilities.

Everything here is an integer held in a float64: an activation a, 0 <= a < 2^15, that means
a / 2^8; a weight w, |w| < 2^15, that means w / 2^12; sums in units of 2^-20. Between layers

    a' = clip((sum + 2^11) >> 12, 0, 2^15 - 1).

:func:`check_exact` checks from the weights that no sum can reach 2^53. So every partial sum is an
integer that float64 holds, and neither the order of summation nor the BLAS, its threads or its
kernels can change a result. There are matrix products and nothing else: a convolution routine may
choose an algorithm that is not exact. Where signs go in, -1, 0 and 1, sums may be short enough for
float32 as well: :func:`dtype_for_signs`. Which layers there are is left to the callers.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

ACTIVATION_BITS = 8  # fractional bits of an activation
WEIGHT_BITS = 12  # fractional bits of a weight
SUM_BITS = ACTIVATION_BITS + WEIGHT_BITS  # fractional bits of a sum or bias
MAX_INTEGER = 2**15 - 1  # of activations and weights

# Of sums with the half added that rounds them.
_EXACT_LIMIT = 2**53 - 2 ** (WEIGHT_BITS - 1)

# No sum of integers below it rounds in float32.
_EXACT_LIMIT_FLOAT32 = 2**24


def rectified(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums as the next layer's activations: shift and round, ReLU and clip in one.

    Args:
        sums: any shape, integers below 2^53 in magnitude.

    Returns:
        same shape, integers 0..2^15 - 1.
    """
    # A product with a power of two and a half added to it are exact below 2^52 / 2^12.
    result: NDArray[np.float64] = sums * 2.0**-WEIGHT_BITS
    result += 0.5
    np.floor(result, out=result)
    return np.clip(result, 0, MAX_INTEGER, out=result)


def check_exact(*layers: tuple[NDArray[Any], NDArray[Any]], max_input: int = MAX_INTEGER) -> None:
    """Check that the sum of the layers' outputs is exact in float64 whatever the order of terms.

    Args:
        layers: weight (out, ...) and bias (out,) of each; their outputs are added up before the
            next activation.
        max_input: largest magnitude of an integer that goes in.

    Raises:
        ValueError: it is not, or these are no integers.
    """
    largest = 0
    for weight, bias in layers:
        if weight.dtype.kind not in "iu" or bias.dtype.kind not in "iu":
            raise ValueError(f"expected integers, found {weight.dtype} and {bias.dtype}")
        low, high = int(weight.min(initial=0)), int(weight.max(initial=0))
        if low < -MAX_INTEGER or high > MAX_INTEGER:
            raise ValueError(f"expected weights of at most {MAX_INTEGER}, found {low} to {high}")
        wide = np.abs(weight.astype(np.int64)).reshape(len(weight), -1)
        reach = [int(row) * max_input for row in wide.sum(axis=1)]
        largest += max(r + abs(int(b)) for r, b in zip(reach, bias, strict=True))
    if largest >= _EXACT_LIMIT:
        raise ValueError(f"sums of up to {largest} are not exact in float64")


def dtype_for_signs(weights: NDArray[Any]) -> type[np.float32 | np.float64]:
    """In what to multiply signs with weights: float32, at half the cost, wherever that is exact.

    It is if the magnitudes of an output's weights sum up to less than 2^24, and if a BLAS
    multiplies float32 as float32, which those of numpy do; what shortens it to bf16 or TF32 does
    so only where it is told to.

    Args:
        weights: (inputs, outputs), integers below 2^53 in magnitude, of any dtype.
    """
    largest = np.abs(weights).sum(axis=0).max(initial=0)
    return np.float32 if largest < _EXACT_LIMIT_FLOAT32 else np.float64
