"""Parts that graphs are made of: convolutions, what the windows of SSIM see, sums."""

from collections.abc import Sequence
from functools import reduce

import numpy as np

from cwic.families.distortion import SSIM_WINDOW_PX
from cwic.onnx_graph import Array, Graph

# Of SSIM (Wang et al. 2004).
_SSIM_SIGMA_PX = 1.5

# Channels of the maps that are seen through a window together; ONNX Runtime is quick with sixteens.
_WINDOW_CHANNELS = 16


def _gaussian_window() -> Array:
    """(11,), sum 1."""
    distance = np.arange(SSIM_WINDOW_PX) - SSIM_WINDOW_PX // 2
    weights = np.exp(-(distance**2) / (2 * _SSIM_SIGMA_PX**2))
    result: Array = weights / weights.sum()
    return result


def windowed(graph: Graph, *maps: str, middle_of: str = "", channels: int = 3) -> list[str]:
    """Means under the window, wherever that lies inside.

    Args:
        graph: is added to.
        maps: each (1, C, h, w).
        middle_of: another one, of which no means are taken: what is in the middle of the windows.
        channels: C; of all maps together at most 16.

    Returns:
        (1, C, h - 10, w - 10) of each map, that of `middle_of` last.
    """
    all_maps = (*maps, middle_of) if middle_of else maps
    together = ""
    for number, plane in enumerate(all_maps):
        kernel = np.zeros((_WINDOW_CHANNELS, channels, 1, 1), np.float32)
        for channel in range(channels):
            kernel[channels * number + channel, channel] = 1
        placed = convolution(graph, plane, kernel)
        together = graph.add("Add", together, placed) if together else placed
    windows = np.tile(_gaussian_window().astype(np.float32), (_WINDOW_CHANNELS, 1))
    windows[channels * len(maps) :] = np.arange(SSIM_WINDOW_PX) == SSIM_WINDOW_PX // 2
    for shape in ((SSIM_WINDOW_PX, 1), (1, SSIM_WINDOW_PX)):
        kernel = windows.reshape(_WINDOW_CHANNELS, 1, *shape)
        together = convolution(graph, together, kernel, group=_WINDOW_CHANNELS)
    result = []
    for number in range(len(all_maps)):
        kernel = np.zeros((channels, _WINDOW_CHANNELS, 1, 1), np.float32)
        for channel in range(channels):
            kernel[channel, channels * number + channel] = 1
        result.append(convolution(graph, together, kernel))
    return result


def convolution(
    graph: Graph, x: str, weight: Array, bias: Array | None = None, group: int = 1
) -> str:
    """A convolution; kernels of 3x3 are padded, all others are not."""
    pad = 1 if weight.shape[2:] == (3, 3) else 0
    return graph.add(
        "Conv",
        x,
        weight,
        *(() if bias is None else (bias,)),
        kernel_shape=weight.shape[2:],
        pads=(pad,) * 4,
        strides=(1, 1),
        dilations=(1, 1),
        group=group,
    )


def halved(graph: Graph, x: str) -> str:
    """(1, C, h, w) -> (1, C, h / 2, w / 2) means of squares."""
    return graph.add("AveragePool", x, kernel_shape=(2, 2), strides=(2, 2))


def total(graph: Graph, x: str, axes: tuple[int, ...]) -> str:
    """A sum over axes, which are kept."""
    return graph.add("ReduceSum", x, np.array(axes, np.int64), keepdims=1)


def summed(graph: Graph, parts: Sequence[str]) -> str:
    """The sum of tensors of one shape, at least one."""
    return reduce(lambda one, other: graph.add("Add", one, other), parts)
