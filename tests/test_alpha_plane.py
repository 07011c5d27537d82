"""Alpha planes come back exactly, and damage shows."""

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cwic.alpha_plane import pack_alpha, unpack_alpha
from cwic.errors import BitstreamError

sides = st.integers(1, 70)
seeds = st.integers(0, 2**32 - 1)


def noise(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


@given(sides, sides, st.sampled_from(["noise", "constant", "columns", "rows", "planes"]), seeds)
def test_an_alpha_plane_is_unpacked_exactly(width: int, height: int, kind: str, seed: int) -> None:
    plane = noise(seed, height, width)
    if kind == "constant":
        plane[:] = plane[0, 0]
    elif kind == "columns":
        plane[:] = plane[:1]
    elif kind == "rows":
        plane[:] = plane[:, :1]
    elif kind == "planes":
        plane = (np.add.outer(np.arange(height) * 3, np.arange(width) * 7) % 256).astype(np.uint8)
    packed = pack_alpha(plane)
    np.testing.assert_array_equal(unpack_alpha(packed, width, height), plane)
    assert kind != "constant" or len(packed) == 2
    assert len(packed) <= plane.size + 20


def test_every_prediction_of_the_alpha_plane_is_read() -> None:
    plane = noise(0, 5, 4)
    for prediction, residual in enumerate(
        [
            plane,
            np.diff(plane, axis=1, prepend=np.uint8(0)),
            np.diff(plane, axis=0, prepend=np.uint8(0)),
            np.diff(np.diff(plane, axis=1, prepend=np.uint8(0)), axis=0, prepend=np.uint8(0)),
        ]
    ):
        data = bytes([prediction]) + zlib.compress(residual.tobytes())
        np.testing.assert_array_equal(unpack_alpha(data, 4, 5), plane)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\4",
        b"\4\1\1",
        b"\5" + zlib.compress(bytes(20)),
        b"\0",
        b"\0no zlib stream",
        b"\0" + zlib.compress(bytes(19)),
        b"\0" + zlib.compress(bytes(21)),
        b"\0" + zlib.compress(bytes(10**7)),
        b"\0" + zlib.compress(bytes(20))[:-1],
        b"\0" + zlib.compress(bytes(20)) + b"\0",
    ],
)
def test_a_damaged_alpha_plane_is_a_bitstream_error(data: bytes) -> None:
    with pytest.raises(BitstreamError, match="damaged alpha plane"):
        unpack_alpha(data, 4, 5)
