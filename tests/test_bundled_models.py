"""The models of the package: whole, and their output is finite."""

import numpy as np
import pytest

from cwic import model_file
from cwic.codec import Codec
from cwic.model_file import bundled_models


@pytest.mark.parametrize("info", bundled_models(), ids=lambda info: info.name)
def test_bundled_models_are_whole_and_their_output_is_finite(info: model_file.ModelInfo) -> None:
    """That the identity is the stored one is checked by `load`."""
    model = model_file.load(info.path)
    assert model.identity == info.identity
    assert model.name == info.name == info.path.stem
    codec = Codec(model, threads=1)
    assert codec.identity == info.identity
    rng = np.random.default_rng(6)
    y, x = np.mgrid[0:64, 0:96]
    smooth = np.stack([2 * x, 3 * y, 255 - x - y], axis=-1).astype(np.uint8)
    for pixels in (smooth, rng.integers(0, 256, smooth.shape).astype(np.uint8), 0 * smooth):
        for quality in (0, 50, 100):
            data = codec.encode(pixels, quality=quality, lossless="never")
            decoded = np.asarray(codec.decode(data))
            assert decoded.shape == pixels.shape
    # A graph that gives NaN gives an even picture of some value.
    data = codec.encode(smooth, quality=80, lossless="never")
    decoded = np.asarray(codec.decode(data)).astype(float)
    assert np.abs(decoded - smooth).mean() < 30
