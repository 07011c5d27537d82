"""The model file of a flagship network."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cwic import model_file
from cwic.families.distortion import Distortion
from cwic.families.flagship.family import FAMILY
from cwic.families.flagship.grid import HYPER_LATENTS, LATENT_PX, Q_UNITS
from cwic.families.flagship.latents import CONDITION_PLANES
from cwic.families.flagship.tiles import ANALYSIS, ANALYSIS_AT_Q
from cwic.families.protocol import RateRange
from cwic.training.flagship.entropy import MeanNetwork, coding_tables, magnitude_table
from cwic.training.flagship.network import FlagshipConfig, FlagshipNetwork
from cwic.training.flagship.transforms import EDGE_PX, normalized, to_bytes
from cwic.training.onnx_graph import Input, onnx_graph

# Rows and columns of latents that graphs are exported with; both are free in them.
_EXAMPLE_CELLS = (HYPER_LATENTS, 2 * HYPER_LATENTS)


class AnalysisGraph(nn.Module):
    """(1, 16 h, 16 w, 3) uint8 -> latents (1, M, h, w), importance (1, 1, h, w), float32."""

    def __init__(self, network: FlagshipNetwork, with_map: bool):
        super().__init__()
        self.network = network
        self.with_map = with_map and network.config.importance_map

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """What the encoder needs of a picture, whatever its rate."""
        y, features = self.network.analysis(normalized(pixels))
        if self.with_map:
            return y, self.network.importance_net(features)
        return y, torch.zeros_like(y[:, :1])


class AnalysisFrontGraph(nn.Module):
    """(1, 16 h, 16 w, 3) uint8 -> what the second half takes, (1, C, h, w) float32."""

    def __init__(self, network: FlagshipNetwork):
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        """What does not depend on the rate."""
        features, details = self.network.analysis.front(normalized(pixels))
        return features if details is None else torch.cat([features, details], dim=1)


class AnalysisAtQGraph(nn.Module):
    """What the first half gives, condition -> latents (1, M, h, w), importance (1, 1, h, w)."""

    def __init__(self, network: FlagshipNetwork, with_map: bool):
        super().__init__()
        self.network = network
        self.with_map = with_map and network.config.importance_map

    def forward(self, front: Tensor, planes: Tensor) -> tuple[Tensor, Tensor]:
        """What the encoder needs of a picture at one q."""
        analysis = self.network.analysis
        features, details = front[:, : analysis.width_16], None
        if analysis.to_details is not None:
            details = front[:, analysis.width_16 :]
        y, features = analysis.rest(features, details, planes)
        if self.with_map:
            return y, self.network.importance_net(features)
        return y, torch.zeros_like(y[:, :1])


class SynthesisGraph(nn.Module):
    """Latents (1, M, h, w), prior, condition, float32 -> (1, 16 h, 16 w, 3) uint8."""

    def __init__(self, network: FlagshipNetwork, *, fast: bool = False):
        super().__init__()
        self.network = network  # whole, so that weights are named as there
        self.fast = fast

    def forward(self, decoded: Tensor, prior: Tensor, planes: Tensor) -> Tensor:
        """The decoded picture."""
        # Bytes are shuffled in a quarter of the time of floats.
        synthesis = self.network.fast if self.fast else self.network.synthesis
        x = to_bytes(synthesis.subpixels(decoded, prior, planes))
        return nn.functional.pixel_shuffle(x, EDGE_PX).permute(0, 2, 3, 1)


class PreviewGraph(nn.Module):
    """First group (1, G, h, w), prior, condition, float32 -> (1, 2 h, 2 w, 3) uint8."""

    def __init__(self, network: FlagshipNetwork):
        super().__init__()
        self.network = network

    def forward(self, group: Tensor, prior: Tensor, planes: Tensor) -> Tensor:
        """The decoded picture at 1/8 of its size."""
        return to_bytes(self.network.preview(group, prior, planes)).permute(0, 2, 3, 1)


def build_model(
    network: FlagshipNetwork,
    name: str,
    *,
    with_map: bool = True,
    with_fast: bool = False,
    distortion: Distortion | None = None,
) -> model_file.ModelFile:
    """A model file in memory.

    Args:
        network: trained.
        name: of the model.
        with_map: False leaves the network's own importance map out; what a mask adds remains.
        with_fast: whether the light synthesis is trained, and goes into the model.
        distortion: that `--effort` minimises; None: the file says nothing of it.
    """
    encoding: dict[str, object] = rate_range(network.config)._asdict()
    if distortion is not None:
        encoding["distortion"] = asdict(distortion)
    network = network.eval().float().cpu()
    config = network.config
    latents = config.latent_channels
    latent_inputs = [
        _example("decoded", latents),
        _example("prior", config.mean_width),
        _example("condition", CONDITION_PLANES),
    ]
    graphs = analysis_graphs(network, with_map=with_map) | {
        "hyper_analysis": onnx_graph(
            network.hyper_analysis,
            [_example("latents", latents), _example("condition", CONDITION_PLANES)],
            ["hyper"],
        ),
        "synthesis": onnx_graph(
            SynthesisGraph(network),
            latent_inputs,
            ["pixels"],
        ),
        "preview": onnx_graph(
            PreviewGraph(network),
            [
                _example("group", config.groups[0]),
                _example("prior", config.mean_width),
                _example("condition", CONDITION_PLANES),
            ],
            ["pixels"],
        ),
    }
    if with_fast:
        graphs["fast"] = onnx_graph(SynthesisGraph(network, fast=True), latent_inputs, ["pixels"])
    return model_file.build(
        name,
        FAMILY,
        decoding={"groups": list(config.groups), "padding_px": LATENT_PX},
        encoding=encoding,
        graphs=graphs,
        arrays=coder_arrays(network),
    )


def analysis_graphs(network: FlagshipNetwork, *, with_map: bool = True) -> dict[str, bytes]:
    """The graphs of the analysis, one, or two if it sees q, by their names.

    Args:
        network: in evaluation mode, on the CPU.
        with_map: as of :func:`build_model`.
    """
    config = network.config
    sides = (LATENT_PX * side for side in _EXAMPLE_CELLS)
    pixels = [Input("pixels", torch.zeros(1, *sides, 3, dtype=torch.uint8), (1, 2))]
    outputs = ["latents", "importance"]
    if not config.analysis_sees_q:
        return {ANALYSIS: onnx_graph(AnalysisGraph(network, with_map), pixels, outputs)}
    front = _example("front", config.width_16 + config.detail_channels)
    return {
        ANALYSIS: onnx_graph(AnalysisFrontGraph(network), pixels, ["front"]),
        ANALYSIS_AT_Q: onnx_graph(
            AnalysisAtQGraph(network, with_map),
            [front, _example("condition", CONDITION_PLANES)],
            outputs,
        ),
    }


def _example(name: str, channels: int) -> Input:
    return Input(name, torch.zeros(1, channels, *_EXAMPLE_CELLS), (2, 3))


def coder_arrays(network: FlagshipNetwork) -> dict[str, npt.NDArray[Any]]:
    """Tables and the two networks of the coding steps, as the runtime's coder takes them."""
    arrays: dict[str, npt.NDArray[Any]] = {
        "symbol_tables": coding_tables().astype(np.int32),
        "hyper_tables": network.hyper_model.tables().astype(np.int32),
        "level_tables": network.level_model.tables().astype(np.int32),
        "magnitudes": magnitude_table().astype(np.int16),
    }
    for layer_name, layer in network.scale_network.quantized().items():
        arrays[f"scale.{layer_name}.weight"] = layer.weight.astype(np.int16)
        arrays[f"scale.{layer_name}.bias"] = layer.bias
    for layer_name, convolution in _layers(network.mean_network):
        assert convolution.bias is not None
        weight, bias = convolution.weight.detach().numpy(), convolution.bias.detach().numpy()
        arrays[f"mean.{layer_name}.weight"] = weight.astype(np.float16)
        arrays[f"mean.{layer_name}.bias"] = bias.astype(np.float32)
    return arrays


def rate_range(config: FlagshipConfig) -> RateRange:
    """The range that a network is trained for, in the header's units."""
    return RateRange(round(Q_UNITS * config.min_q), round(Q_UNITS * config.max_q))


def _layers(network: MeanNetwork) -> Iterator[tuple[str, nn.Conv2d]]:
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            yield name, module
