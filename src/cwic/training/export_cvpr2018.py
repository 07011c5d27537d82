"""The model file of a `cvpr2018` network.

Its coding tables are counted by walking the runtime's own traversal over codes of real pictures.
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from cwic import cvpr2018_coder, model_file
from cwic.cvpr2018 import FAMILY, analyze, code_of_picture
from cwic.engine import Engine
from cwic.family import RateRange
from cwic.training.model.network import Cvpr2018Config, Cvpr2018Network
from cwic.training.onnx_graph import Input, onnx_graph

# Rate offsets, as shares of the model's range, that tables are counted over.
_COUNTED_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


class AnalysisGraph(nn.Module):
    """(1, 8 h, 8 w, 3) uint8 -> sigmoid code (1, n, h, w) and map logits (1, 1, h, w), float32."""

    def __init__(self, network: Cvpr2018Network):
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """What the encoder needs of a picture."""
        x = (pixels.permute(0, 3, 1, 2).float() - 127.5) / 127.5
        activation, map_logits = self.network.analyze(x)
        assert map_logits is not None
        return activation, map_logits


class SynthesisGraph(nn.Module):
    """Masked code (1, n, h, w) uint8 in {0, 1} -> (1, 8 h, 8 w, 3) uint8."""

    def __init__(self, network: Cvpr2018Network):
        super().__init__()
        self.network = network

    def forward(self, code: Tensor) -> Tensor:
        """The decoded picture."""
        x = self.network.synthesize(code.float())
        pixels = torch.round(torch.clamp(x * 127.5 + 127.5, 0, 255))
        return pixels.to(torch.uint8).permute(0, 2, 3, 1)


def build_model(
    network: Cvpr2018Network, name: str, pictures: Iterable[np.ndarray]
) -> model_file.ModelFile:
    """A model file in memory.

    Args:
        network: trained.
        name: of the model.
        pictures: (H, W, 3) uint8 each, to count the coding tables on.
    """
    network = network.eval().float().cpu()
    config = network.config
    pixels = torch.zeros(1, 64, 48, 3, dtype=torch.uint8)
    code = torch.zeros(1, config.code_channels, 8, 6, dtype=torch.uint8)
    graphs = {
        "analysis": onnx_graph(
            AnalysisGraph(network),
            [Input("pixels", pixels, (1, 2))],
            ["activation", "map_logits"],
        ),
        "synthesis": onnx_graph(SynthesisGraph(network), [Input("code", code, (2, 3))], ["pixels"]),
    }
    layout = code_layout(config)
    rate = RateRange(
        min_q=round(64 * config.min_rate_offset), max_q=round(64 * config.max_rate_offset)
    )

    def with_table(table: cvpr2018_coder.Probabilities) -> model_file.ModelFile:
        return model_file.build(
            name,
            FAMILY,
            decoding=layout._asdict(),
            encoding=rate._asdict(),
            graphs=graphs,
            arrays={"bit_table": table},
        )

    engine = Engine(with_table(np.full(layout.num_contexts, 32768, np.uint16)))
    counts = np.zeros((layout.num_contexts, 2), np.int64)
    for picture in pictures:
        analyzed = analyze(
            engine, picture[: picture.shape[0] // 8 * 8, : picture.shape[1] // 8 * 8]
        )
        for share in _COUNTED_SHARES:
            coded = code_of_picture(analyzed, rate.of_quality(100 * share), layout)
            counts += cvpr2018_coder.count_contexts(coded, layout)
    return with_table(cvpr2018_coder.probability_table(counts, layout))


def code_layout(config: Cvpr2018Config) -> cvpr2018_coder.CodeLayout:
    """The coder's numbers of a network."""
    per_level = config.code_channels // config.levels
    return cvpr2018_coder.CodeLayout(
        code_channels=config.code_channels,
        levels=config.levels,
        first_kept=per_level if config.quantizer == "released" else 0,
    )
