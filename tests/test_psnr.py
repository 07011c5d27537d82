"""PSNR of known errors."""

import math

import numpy as np
import pytest

from cwic.psnr import psnr_db


def test_psnr_of_known_errors() -> None:
    zero = np.zeros((4, 4, 3), np.uint8)
    assert psnr_db(zero, zero) == math.inf
    assert psnr_db(zero, zero + np.uint8(255)) == pytest.approx(0)
    assert psnr_db(zero + np.uint8(255), zero) == pytest.approx(0)
    one = zero.copy()
    one[0, 0, 0] = 1
    assert psnr_db(zero, one) == pytest.approx(10 * math.log10(255**2 * 48))


def test_a_picture_of_many_bands_is_measured_whole() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.integers(0, 256, (2, 701, 900), dtype=np.uint8)
    mse = np.square(a.astype(float) - b).mean()
    assert psnr_db(a, b) == pytest.approx(10 * math.log10(255**2 / mse), abs=1e-12)


def test_pictures_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="expected a picture of shape"):
        psnr_db(np.zeros((4, 4)), np.zeros((4, 5)))
