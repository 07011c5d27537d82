"""How busy a picture is, and what that does to a quality."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cwic import Codec
from cwic.families.flagship.activity import activity


@pytest.mark.parametrize("shape", [(1, 1), (3, 70), (8, 8), (41, 17)])
def test_an_even_picture_is_not_busy_at_all(shape: tuple[int, int]) -> None:
    assert activity(np.full((*shape, 3), 77, np.uint8)) == pytest.approx(0, abs=1e-6)


def test_stripes_of_known_contrast_have_a_known_activity() -> None:
    picture = np.full((16, 24, 3), 100, np.uint8)
    picture[:, ::2] = 108  # 4 to either side of the mean: a variance of 16
    assert activity(picture) == pytest.approx(1, abs=1e-4)
    picture[:8] = 100
    assert activity(picture) == pytest.approx(0.5, abs=1e-4)


def test_what_does_not_fill_a_square_is_left_out() -> None:
    picture = np.full((23, 31, 3), 50, np.uint8)
    picture[16:] = np.arange(31, dtype=np.uint8)[:, None]
    picture[:, 24:] = 200
    assert activity(picture) == pytest.approx(0, abs=1e-6)


def test_a_picture_of_many_bands_is_the_mean_of_its_squares() -> None:
    rng = np.random.default_rng(3)
    tile = rng.integers(0, 256, (64, 8, 3)).astype(np.uint8)
    assert activity(np.tile(tile, (20, 1, 1))) == pytest.approx(activity(tile), rel=1e-6)


def test_a_quality_takes_coarser_steps_for_busy_pictures_and_its_ends_are_the_models(
    tiny_flagship_codec: Codec,
) -> None:
    family = tiny_flagship_codec._family
    calm = np.full((16, 16, 3), 128, np.uint8)
    busy = np.random.default_rng(1).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    assert family.q_of_quality(50, busy) < family.rates.of_quality(50)
    assert family.rates.of_quality(50) < family.q_of_quality(50, calm)
    for picture in (calm, busy):
        assert family.q_of_quality(0, picture) == family.rates.min_q
        assert family.q_of_quality(100, picture) == family.rates.max_q


@given(
    contrast=st.integers(0, 127), quality=st.floats(0, 100), step=st.floats(0, 10, allow_nan=False)
)
def test_q_never_falls_when_quality_rises(
    contrast: int, quality: float, step: float, tiny_flagship_codec: Codec
) -> None:
    family = tiny_flagship_codec._family
    picture = np.full((8, 8, 3), 127 - contrast, np.uint8)
    picture[::2] = 127 + contrast
    higher = family.q_of_quality(min(quality + step, 100.0), picture)
    assert higher >= family.q_of_quality(quality, picture)
    assert family.rates.min_q <= higher <= family.rates.max_q
