"""Where the viewer looks: masks and detectors -> an emphasis on the importance map.

Encoder's side only; neither the decoder nor the format know of it. What an emphasis does to a
picture's levels is left to the families.
"""

import os
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from cwic.engine import Session
from cwic.errors import CodecWarning, ImageError, ModelError, NotBuiltError, reason
from cwic.families.protocol import Emphasis
from cwic.image import Source, pad_to_multiple, read_picture
from cwic.onnx_check import DETECTOR_OPERATORS, check_graph

Mask = npt.NDArray[np.float32]  # (H, W) in [0, 1], the larger the more it matters

# (H, W, 3) uint8 -> (h, w) in [0, 1] of any size with the picture's shape.
Detector = Callable[[npt.NDArray[np.uint8]], npt.NDArray[Any]]

# A mask may deviate from the picture's ratio of sides by what rounding a small one takes.
_RATIO_TOLERANCE = 0.02

# An emphasis that varies by less is none.
_EVEN = 1e-3

# The built-in detector marks edges; what is looked at is around them, this share of a side wide.
_BLUR_SHARE = 0.03


def emphasis_of(
    pixels: npt.NDArray[np.uint8],
    cell_px: int,
    *,
    roi: Source | None,
    roi_strength: float,
    saliency: bool | Source | Detector | None,
) -> Emphasis | None:
    """What masks add to the importance map of a picture; None if there are none, or they are even.

    `pixels` (H, W, 3), `cell_px` is the side of a cell of the map; the others are as of `Request`.
    The masks of `roi`, times its strength, and of `saliency` are added up.

    Raises:
        ImageError: a mask cannot be read, or is none for this picture.
        ModelError: a detector cannot be loaded, or fails.
        NotBuiltError: the built-in detector's library is not installed.
    """
    height, width = pixels.shape[:2]
    total: Mask | None = None
    if roi is not None:
        total = np.float32(roi_strength) * read_mask(roi, width, height)
    if saliency is not None and saliency is not False:
        if saliency is True:
            found = detect(pixels)
        elif callable(saliency):
            found = detect(pixels, saliency)
        elif isinstance(saliency, str | os.PathLike) and Path(saliency).suffix.lower() == ".onnx":
            found = detect(pixels, load_detector(saliency))
        else:
            found = read_mask(saliency, width, height)
        total = found if total is None else total + found
    if total is None:
        return None
    emphasis = emphasis_of_cells(total, cell_px)
    return emphasis if np.abs(emphasis).max() > _EVEN else None


def read_mask(source: Source, width: int, height: int) -> Mask:
    """A mask at the size of a picture; `source` is a mask as of `Request.roi`.

    Raises:
        ImageError: it cannot be read, is of another shape, or holds numbers outside [0, 1].
    """
    if isinstance(source, np.ndarray) and source.dtype.kind == "f":
        mask = _checked(source)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CodecWarning)  # 8 bits are plenty
            pixels = read_picture(source, keep_metadata=False).pixels
        mask = pixels.mean(axis=2, dtype=np.float32) / 255
    found_height, found_width = mask.shape
    expected_height = found_width * height / width
    if abs(found_height - expected_height) > max(1.0, _RATIO_TOLERANCE * expected_height):
        raise ImageError(
            f"{_name(source)}: found a mask of {found_width}x{found_height}, expected the ratio of "
            f"sides of the picture, {width}x{height}"
        )
    if mask.shape != (height, width):
        resized = Image.fromarray(mask).resize((width, height), Image.Resampling.BILINEAR)
        mask = np.asarray(resized, np.float32)
    result: Mask = mask
    return result


def detect(pixels: npt.NDArray[np.uint8], detector: Detector | None = None) -> Mask:
    """The saliency of a picture (H, W, 3) by a detector.

    None is the built-in one, OpenCV's fine-grained static saliency made smooth.

    Raises:
        ImageError: the detector's map is none.
        NotBuiltError: the built-in detector's library is not installed.
    """
    height, width = pixels.shape[:2]
    found = np.asarray((detector or _fine_grained)(pixels))
    if found.ndim != 2:
        raise ImageError(f"found a saliency map of shape {found.shape}, expected (H, W)")
    return read_mask(found, width, height)


def load_detector(path: str | os.PathLike[str]) -> Detector:
    """A detector from an ONNX file.

    Its graph takes one float32 array (1, 3, H, W), the picture in R, G, B, in [0, 1]. Where the
    graph fixes H and W the picture is resized to them. Its first output is the map, values in
    [0, 1], of shape (h, w), or with ones before that, of any size; it covers the whole picture.
    What else a network wants, such as a mean to be subtracted, belongs into the graph. Only
    operators of `onnx_check.DETECTOR_OPERATORS` are taken, and no file beside the graph.

    Raises:
        ModelError: the file cannot be read, or its graph is none of this kind.
    """
    name = os.fspath(path)
    try:
        graph = Path(path).read_bytes()
        check_graph(graph, DETECTOR_OPERATORS)
        session = Session(graph)
    except OSError as error:
        raise ModelError(f"{name}: cannot be read: {reason(error)}") from error
    except ValueError as error:
        raise ModelError(f"{name}: {error}") from error
    except Exception as error:  # ONNX Runtime's exceptions share no public base
        raise ModelError(f"{name}: no graph that can be run: {reason(error)[:200]}") from error
    inputs = session.inputs
    shape = inputs[0].shape if inputs else []
    fits = (
        len(inputs) == 1
        and inputs[0].type == "tensor(float)"
        and len(shape) == 4
        and shape[1] == 3
        and (shape[0] == 1 or not isinstance(shape[0], int))
    )
    if not fits:
        found = ", ".join(f"{entry.type} {entry.shape}" for entry in inputs)
        raise ModelError(f"{name}: expected one input tensor(float) [1, 3, H, W], found {found}")

    def detector(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        image = Image.fromarray(pixels)
        height, width = (
            fixed if isinstance(fixed, int) else side
            for fixed, side in zip(shape[2:], pixels.shape[:2], strict=True)
        )
        resized = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), np.float32)
        planes = np.ascontiguousarray(resized.transpose(2, 0, 1)[None]) / 255
        try:
            found = np.asarray(session.run(planes)[0], np.float32)
        except Exception as error:  # ONNX Runtime's exceptions share no public base
            raise ModelError(
                f"{name}: failed on a picture of {width}x{height}: {reason(error)[:200]}"
            ) from error
        while found.ndim > 2 and found.shape[0] == 1:
            found = found[0]
        if found.ndim == 2 and found.size:
            found = np.asarray(Image.fromarray(found).resize(image.size, Image.Resampling.BILINEAR))
        return found

    return detector


def emphasis_of_cells(mask: Mask, cell_px: int) -> Emphasis:
    """What a mask (H, W) adds to an importance map of cells, for a strength of 1.

    (ceil(H / cell_px), ceil(W / cell_px)): the mean of the mask over each cell, less that over all.
    """
    padded = pad_to_multiple(mask[:, :, None], cell_px)
    rows, columns = padded.shape[0] // cell_px, padded.shape[1] // cell_px
    cells = padded.reshape(rows, cell_px, columns, cell_px).mean(axis=(1, 3), dtype=np.float64)
    emphasis: Emphasis = (cells - cells.mean()).astype(np.float32)
    return emphasis


def has_detector() -> bool:
    """Whether the library of the built-in detector is installed."""
    return find_spec("cv2") is not None


def _fine_grained(pixels: npt.NDArray[np.uint8]) -> Mask:
    try:
        import cv2
    except ImportError as error:
        raise NotBuiltError(
            "saliency: expected OpenCV with its saliency module, found none; "
            "install the extra: pip install 'cwic[saliency]'"
        ) from error
    # OpenCV's own type information leaves the contributed modules out.
    saliency_module: Any = cv2.saliency
    found, saliency = saliency_module.StaticSaliencyFineGrained_create().computeSaliency(
        np.ascontiguousarray(pixels[:, :, ::-1])
    )
    if not found:
        raise ImageError(f"no saliency can be computed of a picture of shape {pixels.shape}")
    smooth = cv2.GaussianBlur(saliency, (0, 0), max(1.0, _BLUR_SHARE * max(pixels.shape[:2])))
    result: Mask = np.clip(smooth / max(float(smooth.max()), 1e-6), 0, 1).astype(np.float32)
    return result


def _checked(array: npt.NDArray[Any]) -> Mask:
    if array.ndim != 2 or not array.size:
        raise ImageError(f"found a mask of shape {array.shape}, expected (H, W)")
    if not np.isfinite(array).all():
        raise ImageError("found a mask with NaN or infinity in it, expected numbers in [0, 1]")
    if array.min() < 0 or array.max() > 1:
        raise ImageError(
            f"found a mask of {array.min():g} to {array.max():g}, expected numbers in [0, 1]"
        )
    return array.astype(np.float32)


def _name(source: Source) -> str:
    return os.fspath(source) if isinstance(source, str | os.PathLike) else "mask"
