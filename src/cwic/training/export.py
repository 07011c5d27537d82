"""From a checkpoint to a model file: the only way from torch to the runtime.

Writes the float transforms as ONNX graphs, with uint8 pictures at their outer ends, and counts the
coding tables by walking the runtime's own traversal over codes of real pictures.
"""

import logging
import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from cwic import latent_coder, model_file
from cwic.codec import FAMILY, Cvpr2018Rate, code_of_picture
from cwic.engine import Engine
from cwic.errors import TrainingError
from cwic.training.checkpoint import load_weights
from cwic.training.data import PictureStore, list_pictures
from cwic.training.model.network import Cvpr2018Config, Cvpr2018Network

_OPSET = 18

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


def export_checkpoint(
    checkpoint: str | os.PathLike[str],
    output: str | os.PathLike[str],
    data: Sequence[str | os.PathLike[str]],
    *,
    name: str | None = None,
    max_pictures: int = 200,
) -> model_file.ModelInfo:
    """Write a model file from the averaged weights of a checkpoint.

    Args:
        checkpoint: of a training run.
        output: where to write, `.cwicmodel` by custom.
        data: folders of pictures to count the coding tables on; their held-out share is left out.
        name: of the model; None: the output's stem.
        max_pictures: number of pictures to count on.

    Raises:
        TrainingError: the checkpoint or the pictures cannot be used.
    """
    output = Path(output)
    config, _, weights = load_weights(Path(checkpoint))
    if not isinstance(config.network, Cvpr2018Config):
        raise TrainingError(
            f"{checkpoint}: expected a run of family cvpr2018, found {config.family}: "
            f"its export is not built yet"
        )
    if not (config.network.binarizer and config.network.importance_map):
        raise TrainingError(
            f"{checkpoint}: expected a network with binarizer and importance map, "
            f"found one without: its code is not what the coder codes"
        )
    network = Cvpr2018Network(config.network)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise TrainingError(f"{checkpoint}: does not fit its network: {reason}") from error
    split = list_pictures([Path(folder) for folder in data], config.data.held_out)
    spacing = max(1, len(split.training) // max_pictures)
    store = PictureStore(split.training[::spacing], 0, 16)
    model = build_model(network, name or output.stem, (store[index] for index in range(len(store))))
    model_file.save(model, output)
    return model_file.read_info(output)


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
    analysis = _onnx_graph(
        AnalysisGraph(network), pixels, "pixels", ["activation", "map_logits"], (1, 2)
    )
    synthesis = _onnx_graph(SynthesisGraph(network), code, "code", ["pixels"], (2, 3))
    layout = code_layout(config)
    rate = Cvpr2018Rate(
        min_q=round(64 * config.min_rate_offset), max_q=round(64 * config.max_rate_offset)
    )

    def with_table(table: latent_coder.Probabilities) -> model_file.ModelFile:
        return model_file.build(
            name,
            FAMILY,
            decoding=layout._asdict(),
            encoding=rate._asdict(),
            analysis=analysis,
            synthesis=synthesis,
            arrays={"bit_table": table},
        )

    engine = Engine(with_table(np.full(layout.num_contexts, 32768, np.uint16)))
    counts = np.zeros((layout.num_contexts, 2), np.int64)
    for picture in pictures:
        analyzed = engine.analyze(picture[: picture.shape[0] // 8 * 8, : picture.shape[1] // 8 * 8])
        for share in _COUNTED_SHARES:
            coded = code_of_picture(analyzed, rate.of_quality(100 * share), layout)
            counts += latent_coder.count_contexts(coded, layout)
    return with_table(latent_coder.probability_table(counts, layout))


def code_layout(config: Cvpr2018Config) -> latent_coder.CodeLayout:
    """The coder's numbers of a network."""
    per_level = config.code_channels // config.levels
    return latent_coder.CodeLayout(
        code_channels=config.code_channels,
        levels=config.levels,
        first_kept=per_level if config.quantizer == "released" else 0,
    )


def _onnx_graph(
    module: nn.Module,
    example: Tensor,
    input_name: str,
    output_names: list[str],
    dynamic_axes: tuple[int, int],
) -> bytes:
    """A checked ONNX graph with free height and width and its weights in half precision."""
    height, width = torch.export.Dim("height", min=1), torch.export.Dim("width", min=1)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own notes on its internals
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            opset_version=_OPSET,
            input_names=[input_name],
            output_names=output_names,
            dynamic_shapes=({dynamic_axes[0]: height, dynamic_axes[1]: width},),
            verbose=False,
        )
    assert program is not None
    graph = onnx.load_model_from_string(program.model_proto.SerializeToString())
    _strip_notes(graph)
    _halve_weights(graph)
    onnx.checker.check_model(graph)
    data: bytes = graph.SerializeToString(deterministic=True)
    return data


def _strip_notes(graph: onnx.ModelProto) -> None:
    """Drop the exporter's notes: they hold source lines and would make the identity wander."""
    del graph.metadata_props[:]
    del graph.graph.metadata_props[:]
    del graph.graph.value_info[:]
    graph.producer_version = ""
    for part in (*graph.graph.node, *graph.graph.input, *graph.graph.output):
        part.doc_string = ""
        del part.metadata_props[:]


def _halve_weights(graph: onnx.ModelProto) -> None:
    """Store float32 weights as float16 with a cast behind them; folded when a session starts."""
    casts = []
    for tensor in graph.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        name = tensor.name
        halved = numpy_helper.from_array(
            numpy_helper.to_array(tensor).astype(np.float16), name + "_half"
        )
        tensor.CopyFrom(halved)
        casts.append(
            onnx.helper.make_node("Cast", [name + "_half"], [name], to=onnx.TensorProto.FLOAT)
        )
    for cast in reversed(casts):
        graph.graph.node.insert(0, cast)
