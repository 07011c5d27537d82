"""Exact products of integers in digits of eight bits, which processors multiply many at a time.

A magnitude, 0 <= a < 2^15, is cut into digits of 0..127, a weight, |w| < 2^15, into up to three of
-128..127. Whichever way a kernel takes, nothing rounds and nothing saturates:

* x86 without VNNI adds pairs of products u8 * s8 in 16 bits and saturates. A pair lies in
  -2 * 127 * 128..2 * 127 * 127 = -32512..32258, within -32768..32767: that is why magnitudes have
  seven bits and not eight.
* Kernels that take weights as u8, w + 128, add pairs up to 2 * 127 * 255 = 64770 < 2^16, and take
  128 times the sum of magnitudes off in 32 bits, in which what is carried out at the top does not
  count.
* A sum of K products of digits is at most K * 127 * 128 < 2^31 as long as K < 2^17.

The sums of all digits are put together in float64. Digits of a weight sum up to less than 2^17 in
magnitude times place, so that a layer's own sums stay below 2^17 * 2^17 * 2^15 = 2^49; what is
added to a state is a layer's sum for a part of each magnitude, less than the sum that
:func:`cwic.coding.exact_arithmetic.check_exact` has shown to be exact. Owns digits and their
products; which layers there are is left to :mod:`.step_network`.
"""

from collections.abc import Iterator
from functools import cache

import numpy as np
import numpy.typing as npt

from cwic.engine import Session
from cwic.families.flagship.grid import Array

_ACTIVATION_DIGIT = 1 << 7
_WEIGHT_DIGIT = 1 << 8
_MAX_INPUTS = 1 << 17  # of a sum in 32 bits

# An ONNX model of one node: MatMulInteger of (n, k) uint8 and (k, m) int8 to (n, m) int32.
_PRODUCT = (
    b'\x08\x08:b\n\x18\n\x01a\n\x01b\x12\x01y"\rMatMulInteger\x12\x01pZ\x15\n\x01a\x12\x10\n\x0e'
    b"\x08\x02\x12\n\n\x03\x12\x01n\n\x03\x12\x01kZ\x15\n\x01b\x12\x10\n\x0e\x08\x03\x12\n\n\x03"
    b"\x12\x01k\n\x03\x12\x01mb\x15\n\x01y\x12\x10\n\x0e\x08\x06\x12\n\n\x03\x12\x01n\n\x03\x12"
    b"\x01mB\x04\n\x00\x10\n"
)


class DigitWeights:
    """Weights of a layer in digits.

    Attributes:
        digits: (taps, channels, digits of a weight * outputs) int8, the lowest digits first.
        outputs: of the layer.
    """

    def __init__(self, weight: Array):
        """`weight` (outputs, channels, taps), integers below 2^15 in magnitude.

        Raises:
            ValueError: an output has so many inputs that their sum could overflow.
        """
        if weight[0].size >= _MAX_INPUTS:
            raise ValueError(
                f"expected fewer than {_MAX_INPUTS:,} inputs, found {weight[0].size:,}"
            )
        rest = weight.astype(np.int64)
        digits: list[npt.NDArray[np.int8]] = []
        while rest.any() or not digits:
            digit = (rest + _WEIGHT_DIGIT // 2) % _WEIGHT_DIGIT - _WEIGHT_DIGIT // 2
            digits.append(digit.astype(np.int8))
            rest = (rest - digit) // _WEIGHT_DIGIT
        self.digits = np.ascontiguousarray(np.concatenate(digits).transpose(2, 1, 0))
        self.outputs = len(weight)

    def products(
        self,
        rows: npt.NDArray[np.uint8],
        channels: npt.NDArray[np.intp],
        unit: float,
    ) -> npt.NDArray[np.float64]:
        """Sums of the products with one digit of activations, exactly.

        Args:
            rows: (cells, taps * channels) digits, 0..127.
            channels: of the layer that they are of, ascending.
            unit: what a sum of 1 is worth, a power of two.

        Returns:
            (cells, outputs)
        """
        digits = self.digits
        if len(channels) < digits.shape[1]:
            digits = digits[:, channels]
        (by_digit,) = _session().run(rows, digits.reshape(-1, digits.shape[2]))
        sums: npt.NDArray[np.float64] = by_digit[:, : self.outputs] * unit
        for start in range(self.outputs, by_digit.shape[1], self.outputs):
            unit *= _WEIGHT_DIGIT
            sums += by_digit[:, start : start + self.outputs] * unit
        return sums


def activation_digits(
    activations: npt.NDArray[np.uint16],
) -> Iterator[tuple[npt.NDArray[np.uint8], float]]:
    """Digits of activations, and what one of each is worth; where all are zero there are none.

    Args:
        activations: any shape, 0..2^15 - 1.

    Yields:
        0..127 of the same shape, and a power of two.
    """
    worth = 1.0
    while activations.any():
        digit = (activations & np.uint16(_ACTIVATION_DIGIT - 1)).astype(np.uint8)
        if digit.any():
            yield digit, worth
        activations = activations // np.uint16(_ACTIVATION_DIGIT)
        worth *= _ACTIVATION_DIGIT


@cache
def _session() -> Session:
    return Session(_PRODUCT, threads=1)
