"""A target in SSIMULACRA2: met, out of reach, and where it cannot be measured."""

import io
import sys
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import cwic
from cwic import ssimulacra2 as measure
from cwic.codec import Codec, loaded
from cwic.errors import CodecWarning, NotBuiltError, TargetError
from cwic.request import Request

from conftest import seeded_picture  # isort: skip

pytest.importorskip("ssimulacra2")


@pytest.fixture(scope="module")
def codec() -> Codec:
    """A trained one: what an untrained one decodes has no SSIMULACRA2 above 0."""
    return loaded()


@pytest.fixture(scope="module")
def photo() -> npt.NDArray[np.uint8]:
    """(225, 240, 3): smooth, with a little noise, so that it has every quality."""
    image = Image.fromarray(seeded_picture(3)).resize((240, 225), Image.Resampling.BICUBIC)
    noise = np.random.default_rng(0).normal(0, 3, (225, 240, 3))
    return np.clip(np.asarray(image.convert("RGB")) + noise, 0, 255).astype(np.uint8)


def of_decoded(codec: Codec, data: bytes, pixels: npt.NDArray[np.uint8]) -> float:
    return measure.ssimulacra2(pixels, np.asarray(codec.decode(data).convert("RGB")))


def test_a_target_is_met_and_what_was_reached_is_said(
    codec: Codec, photo: npt.NDArray[np.uint8]
) -> None:
    sizes = []
    for target in (45, 60):
        encoded = codec.encode_request(photo, Request(ssimulacra2=target, lossless="never"))
        assert encoded.reached == pytest.approx(target, abs=0.25)
        assert encoded.reached == pytest.approx(of_decoded(codec, encoded.data, photo), abs=1e-9)
        sizes.append(len(encoded.data))
    assert sizes[0] < sizes[1]


def test_strict_never_gives_a_worse_picture(codec: Codec, photo: npt.NDArray[np.uint8]) -> None:
    data = codec.encode(photo, ssimulacra2=60, strict=True, lossless="never")
    assert 60 <= of_decoded(codec, data, photo) <= 60.5


def test_a_target_out_of_reach_is_said_as_of_psnr(
    codec: Codec, photo: npt.NDArray[np.uint8]
) -> None:
    said = "the target is SSIMULACRA2 100, but the nearest .* of this picture is SSIMULACRA2 [0-9.]"
    with pytest.warns(CodecWarning, match=said):
        codec.encode(photo, ssimulacra2=100, lossless="never")
    said = r"the target is at least SSIMULACRA2 99\.5, but the best of .* is SSIMULACRA2 [0-9.]+$"
    with pytest.raises(TargetError, match=said):
        codec.encode(photo, ssimulacra2=99.5, strict=True, lossless="never")
    # What the model cannot do, nothing lost can.
    data = codec.encode(photo, ssimulacra2=99.5, strict=True)
    assert cwic.read_header(data).is_whole


def test_transparency_is_kept_and_what_it_hides_does_not_count(
    codec: Codec, photo: npt.NDArray[np.uint8]
) -> None:
    alpha = np.where(np.arange(240) < 60, 0, 255).astype(np.uint8)
    hidden = photo.copy()
    hidden[:, :60] = np.random.default_rng(1).integers(0, 256, (225, 60, 3))
    found = []
    for pixels in (photo, hidden):
        picture = np.dstack([pixels, np.broadcast_to(alpha, photo.shape[:2])])
        data = codec.encode(picture, ssimulacra2=60, lossless="never")
        np.testing.assert_array_equal(codec.decode(data).getchannel("A"), picture[..., 3])
        found.append(data)
    assert found[0] == found[1]


def test_a_drawing_is_kept_whole_where_that_is_no_larger(codec: Codec) -> None:
    drawing = np.zeros((240, 240), np.uint8)
    drawing[::16] = drawing[:, ::16] = 255
    assert cwic.read_header(codec.encode(drawing, ssimulacra2=80)).is_whole


def test_a_side_that_is_too_short_is_named(codec: Codec) -> None:
    pixels = np.zeros((300, 224, 3), np.uint8)
    said = "SSIMULACRA2: found a picture of 224x300 pixels, expected at least 225 on each side"
    with pytest.raises(TargetError, match=said):
        codec.encode(pixels, ssimulacra2=70, lossless="never")
    assert codec.encode(pixels, ssimulacra2=70, lossless="always")  # nothing to measure


def test_without_the_package_its_extra_is_named(
    codec: Codec, photo: npt.NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ssimulacra2", None)
    with pytest.raises(NotBuiltError, match=r"SSIMULACRA2 needs.*found none.*cwic\[evaluate\]"):
        codec.encode(photo, ssimulacra2=70, lossless="never")


def test_large_pictures_are_measured_in_parts_that_cover_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured: list[tuple[int, int]] = []

    def mean_difference(reference: npt.NDArray[Any], decoded: npt.NDArray[Any]) -> float:
        measured.append(reference.shape[:2])
        return float((decoded.astype(int) - reference).mean())

    pixels = np.zeros((100, 61, 3), np.uint8)
    decoded = np.random.default_rng(2).integers(0, 256, pixels.shape, dtype=np.uint8)
    monkeypatch.setattr(measure, "ssimulacra2", mean_difference)
    monkeypatch.setattr(measure, "_PART_PX", 30)
    assert measure.ssimulacra2_in_parts(pixels, decoded) == pytest.approx(decoded.mean())
    assert measured == [(100, 61)]
    monkeypatch.setattr(measure, "_MAX_PIXELS_AT_ONCE", 6000)
    measured.clear()
    assert measure.ssimulacra2_in_parts(pixels, decoded) == pytest.approx(decoded.mean())
    assert len(measured) == 12
    heights = sorted({height for height, _ in measured})
    assert all(larger - smaller <= 1 for smaller, larger in pairwise(heights))


def test_pillow_saves_with_it(photo: npt.NDArray[np.uint8]) -> None:
    cwic.register_pillow_plugin()
    file = io.BytesIO()
    Image.fromarray(photo).save(file, "CWIC", ssimulacra2=50, lossless="never")
    with Image.open(file) as picture:
        shown = np.asarray(picture)
    assert measure.ssimulacra2(photo, shown) == pytest.approx(50, abs=0.25)
