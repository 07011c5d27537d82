"""The model file of a flagship network."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cwic import model_file
from cwic.errors import TrainingError
from cwic.families.flagship.family import FAMILY
from cwic.families.flagship.grid import HYPER_LATENTS, LATENT_PX, Q_UNITS
from cwic.families.flagship.latents import CONDITION_PLANES
from cwic.families.protocol import RateRange
from cwic.training.flagship.entropy import MeanNetwork, coding_tables, magnitude_table
from cwic.training.flagship.network import FlagshipConfig, FlagshipNetwork
from cwic.training.flagship.transforms import EDGE_PX, normalized, to_bytes
from cwic.training.onnx_graph import Input, onnx_graph


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
    network: FlagshipNetwork, name: str, *, with_map: bool = True, with_fast: bool = False
) -> model_file.ModelFile:
    """A model file in memory.

    Args:
        network: trained.
        name: of the model.
        with_map: False leaves the network's own importance map out; what a mask adds remains.
        with_fast: whether the light synthesis is trained, and goes into the model.
    """
    network = network.eval().float().cpu()
    config = network.config
    if config.analysis_sees_q:
        raise TrainingError("expected a network whose analysis does not see q, found one that does")
    height, width = HYPER_LATENTS, 2 * HYPER_LATENTS

    def example(name: str, channels: int) -> Input:
        return Input(name, torch.zeros(1, channels, height, width), (2, 3))

    pixels = torch.zeros(1, LATENT_PX * height, LATENT_PX * width, 3, dtype=torch.uint8)
    latents = config.latent_channels
    latent_inputs = [
        example("decoded", latents),
        example("prior", config.mean_width),
        example("condition", CONDITION_PLANES),
    ]
    graphs = {
        "analysis": onnx_graph(
            AnalysisGraph(network, with_map),
            [Input("pixels", pixels, (1, 2))],
            ["latents", "importance"],
        ),
        "hyper_analysis": onnx_graph(
            network.hyper_analysis,
            [example("latents", latents), example("condition", CONDITION_PLANES)],
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
                example("group", config.groups[0]),
                example("prior", config.mean_width),
                example("condition", CONDITION_PLANES),
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
        encoding=rate_range(config)._asdict(),
        graphs=graphs,
        arrays=coder_arrays(network),
    )


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
