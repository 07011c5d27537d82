"""Masks and detectors: bits move, the size stays, and what is no mask is refused."""

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import seeded_picture
from PIL import Image

from cwic.codec import Codec
from cwic.errors import ImageError, ModelError, NotBuiltError
from cwic.saliency import detect, emphasis_of_cells, load_detector, read_mask


@pytest.fixture(params=["cvpr2018", "cwic"])
def codec(request: pytest.FixtureRequest) -> Codec:
    """The trained model of the paper, and an untrained one of the flagship's family."""
    if request.param == "cvpr2018":
        return Codec.load("cvpr2018", threads=1)
    found: Codec = request.getfixturevalue("tiny_flagship_codec")
    return found


def left_half(pixels: np.ndarray) -> np.ndarray:
    mask = np.zeros(pixels.shape[:2], bool)
    mask[:, : pixels.shape[1] // 2] = True
    return mask


def test_a_mask_may_be_an_array_of_any_kind_a_picture_or_a_path(tmp_path: Path) -> None:
    mask = left_half(np.zeros((40, 60, 3)))
    image = Image.fromarray(mask)
    image.save(tmp_path / "mask.png")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    buffer.seek(0)
    grey = mask.astype(np.uint8) * np.uint8(255)
    for source in (mask, grey, mask.astype(np.float64), image, tmp_path / "mask.png", buffer):
        found = read_mask(source, 60, 40)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, mask.astype(np.float32))


def test_a_mask_of_another_size_is_resampled() -> None:
    found = read_mask(left_half(np.zeros((20, 30))), 60, 40)
    assert found.shape == (40, 60)
    assert found[:, :25].min() > 0.99
    assert found[:, 35:].max() < 0.01


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((40, 40)), "ratio of sides"),
        (np.full((40, 60), np.nan), "NaN"),
        (np.full((40, 60), 1.5), "to 1.5"),
        (np.zeros((40, 60, 2, 2)), "shape"),
        (np.zeros((0, 60)), "shape"),
        (np.zeros((40, 60), np.int64), "int64"),
        (io.BytesIO(b""), "no picture"),
        ("nowhere.png", "nowhere.png"),
    ],
)
def test_what_is_no_mask_is_refused(mask: Any, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        read_mask(mask, 60, 40)


def test_offsets_are_centred_means_of_cells() -> None:
    offset = emphasis_of_cells(left_half(np.zeros((33, 64))).astype(np.float32), 16)
    np.testing.assert_array_equal(offset, np.tile([0.5, 0.5, -0.5, -0.5], (3, 1)))


@pytest.mark.parametrize("model", ["cwic-visual", "cwic-psnr", "cvpr2018"])
def test_bits_move_to_a_region_and_the_size_stays(model: str) -> None:
    """Of trained models: what an untrained one shows has little to do with its bits."""
    codec = Codec.load(model, threads=1)
    pixels = np.asarray(Image.fromarray(seeded_picture(8)).resize((256, 192)))
    mask = left_half(pixels)

    def errors(data: bytes) -> tuple[float, float]:
        error = np.square(pixels.astype(float) - np.asarray(codec.decode(data)))
        return float(error[mask].mean()), float(error[~mask].mean())

    plain = codec.encode(pixels, quality=50)
    masked = codec.encode(pixels, quality=50, roi=mask)
    assert len(masked) == pytest.approx(len(plain), rel=0.05, abs=8)
    inside, outside = errors(plain)
    inside_masked, outside_masked = errors(masked)
    assert inside_masked / outside_masked < inside / outside


def test_saliency_is_a_mask_or_what_gives_one(codec: Codec) -> None:
    pixels = seeded_picture(8)
    mask = left_half(pixels)
    masked = codec.encode(pixels, quality=50, roi=mask)
    assert masked != codec.encode(pixels, quality=50)
    assert codec.encode(pixels, quality=50, saliency=lambda _: mask.astype(float)) == masked
    assert codec.encode(pixels, quality=50, saliency=mask) == masked


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_an_even_mask_changes_nothing(value: float, codec: Codec) -> None:
    pixels = seeded_picture(9)
    even = np.full(pixels.shape[:2], value)
    assert codec.encode(pixels, roi=even) == codec.encode(pixels)


def test_a_strength_out_of_range_is_refused(tiny_codec: Codec) -> None:
    for strength in (-1.0, 5.0, float("nan")):
        with pytest.raises(ValueError, match="roi_strength"):
            tiny_codec.encode(seeded_picture(1), roi_strength=strength)


def test_a_detector_that_gives_no_map_is_refused() -> None:
    with pytest.raises(ImageError, match="saliency map of shape"):
        detect(seeded_picture(1), lambda pixels: pixels)


def test_the_builtin_detector_finds_what_stands_out() -> None:
    pytest.importorskip("cv2")
    pixels = np.full((128, 192, 3), 90, np.uint8)
    pixels[50:70, 100:130] = (250, 220, 30)
    found = detect(pixels)
    assert found.shape == (128, 192)
    assert 0 <= found.min() <= found.max() <= 1
    assert found[50:70, 100:130].mean() > 3 * found[:, :60].mean()


def test_without_its_library_the_builtin_detector_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(NotBuiltError, match=r"cwic\[saliency\]"):
        detect(seeded_picture(1))


# --- detectors as ONNX files ----------------------------------------------------------------------


def write_detector(
    path: Path,
    shape: tuple[Any, ...] = (1, 3, "h", "w"),
    operator: str = "MaxPool",
    input_type: int = 1,
) -> Path:
    """Writes a graph whose map is how red a place is, at a quarter of the size."""
    onnx = pytest.importorskip("onnx")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    weight = np.zeros((1, 3, 1, 1), np.float32)
    weight[0, 0] = 1
    attributes = {"kernel_shape": [4, 4], "strides": [4, 4]} if operator == "MaxPool" else {}
    nodes = [
        helper.make_node("Conv", ["picture", "weight"], ["red"]),
        helper.make_node(operator, ["red"], ["map"], **attributes),
    ]
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("picture", input_type, shape)],
        [helper.make_tensor_value_info("map", 1, (1, 1, "y", "x"))],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def red_corner() -> np.ndarray:
    pixels = np.full((64, 96, 3), 20, np.uint8)
    pixels[:32, :48, 0] = 255
    return pixels


@pytest.mark.parametrize("shape", [(1, 3, "h", "w"), ("n", 3, None, None), (1, 3, 32, 32)])
def test_an_onnx_file_finds_what_its_graph_finds(tmp_path: Path, shape: tuple[Any, ...]) -> None:
    detector = load_detector(write_detector(tmp_path / "red.onnx", shape))
    found = detect(red_corner(), detector)
    assert found.shape == (64, 96)
    assert found[4:24, 4:36].min() > 0.9
    assert found[40:, 60:].max() < 0.1


def test_encode_takes_the_path_of_an_onnx_file(codec: Codec, tmp_path: Path) -> None:
    path = write_detector(tmp_path / "red.onnx")
    pixels = red_corner()

    def coded(saliency: object) -> bytes:
        return codec.encode(pixels, saliency=saliency, lossless="never")

    by_path = coded(path)
    assert by_path == coded(str(path))
    assert by_path == coded(load_detector(path))
    assert by_path != coded(None)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"shape": (1, 1, "h", "w")}, r"expected one input tensor\(float\) \[1, 3, H, W\]"),
        ({"shape": (4, 3, "h", "w")}, "expected one input"),
        ({"operator": "RandomNormalLike"}, "RandomNormalLike"),
    ],
)
def test_a_graph_that_is_no_detector_is_refused(
    tmp_path: Path, keywords: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        load_detector(write_detector(tmp_path / "red.onnx", **keywords))


def test_files_that_are_no_graph_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").write_bytes(b"")
    for name in ("empty.onnx", "nowhere.onnx"):
        with pytest.raises(ModelError, match=name):
            load_detector(tmp_path / name)


def test_a_map_outside_0_to_1_is_refused(tmp_path: Path) -> None:
    path = write_detector(tmp_path / "red.onnx", operator="Exp")
    with pytest.raises(ImageError, match="numbers in"):
        detect(red_corner(), load_detector(path))
