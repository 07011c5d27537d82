"""The model file of a `cvpr2018` network."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cwic import model_file
from cwic.errors import TrainingError
from cwic.families.cvpr2018.coder import CodeLayout
from cwic.families.cvpr2018.family import FAMILY
from cwic.families.protocol import RateRange
from cwic.training.cvpr2018.context import probability_table
from cwic.training.cvpr2018.network import Cvpr2018Config, Cvpr2018Network
from cwic.training.cvpr2018.transforms import normalized, to_bytes
from cwic.training.integer_layers import IntegerConv2d
from cwic.training.onnx_graph import Input, onnx_graph


class AnalysisGraph(nn.Module):
    """(1, 8 h, 8 w, 3) uint8 -> sigmoid code (1, n, h, w) and map logits (1, 1, h, w), float32."""

    def __init__(self, network: Cvpr2018Network):
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """What the encoder needs of a picture."""
        activation, map_logits = self.network.analyze(normalized(pixels))
        assert map_logits is not None
        return activation, map_logits


class SynthesisGraph(nn.Module):
    """Masked code (1, n, h, w) uint8 in {0, 1} -> (1, 8 h, 8 w, 3) uint8."""

    def __init__(self, network: Cvpr2018Network):
        super().__init__()
        self.network = network

    def forward(self, code: Tensor) -> Tensor:
        """The decoded picture."""
        return to_bytes(self.network.synthesis(code.float()))


def build_model(network: Cvpr2018Network, name: str) -> model_file.ModelFile:
    """A model file in memory of a trained network.

    Raises:
        TrainingError: it has no binarizer or no importance map.
    """
    network = network.eval().float().cpu()
    config = network.config
    if not (config.binarizer and config.importance_map):
        raise TrainingError(
            "expected a network with binarizer and importance map, found one without: "
            "its code is not what the coder codes"
        )
    pixels = torch.zeros(1, 64, 48, 3, dtype=torch.uint8)
    code = torch.zeros(1, config.code_channels, 8, 6, dtype=torch.uint8)
    graphs = {
        "analysis": onnx_graph(
            AnalysisGraph(network), [Input("pixels", pixels, (1, 2))], ["activation", "map_logits"]
        ),
        "synthesis": onnx_graph(SynthesisGraph(network), [Input("code", code, (2, 3))], ["pixels"]),
    }
    return model_file.build(
        name,
        FAMILY,
        decoding=code_layout(config)._asdict(),
        encoding=RateRange(
            min_q=round(64 * config.min_rate_offset), max_q=round(64 * config.max_rate_offset)
        )._asdict(),
        graphs=graphs,
        arrays=coder_arrays(network),
    )


def coder_arrays(network: Cvpr2018Network) -> dict[str, npt.NDArray[Any]]:
    """What :class:`cwic.families.cvpr2018.coder.CodeCoder` takes."""
    arrays: dict[str, npt.NDArray[Any]] = {
        "code.place": network.code_context.places(),
        "probabilities": probability_table().astype(np.uint16),
    }
    for prefix, context in (("code", network.code_context), ("level", network.level_context)):
        for layer_name, layer in context.named_modules():
            if not isinstance(layer, IntegerConv2d):
                continue
            weight, bias = layer.quantized()
            arrays[f"{prefix}.{layer_name}.weight"] = weight.astype(np.int16)
            if layer.bias is not None:
                arrays[f"{prefix}.{layer_name}.bias"] = bias
    return arrays


def code_layout(config: Cvpr2018Config) -> CodeLayout:
    """The coder's numbers of a network."""
    per_level = config.code_channels // config.levels
    return CodeLayout(
        code_channels=config.code_channels,
        levels=config.levels,
        first_kept=per_level if config.quantizer == "released" else 0,
        channel_delay=config.channel_delay,
    )
