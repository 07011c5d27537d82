"""The seam: a torch network and the model file made of it say the same."""

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from cwic import model_file
from cwic.codec import Codec
from cwic.engine import Engine
from cwic.errors import TrainingError
from cwic.families.cvpr2018.coder import CodeLayout
from cwic.families.cvpr2018.family import analyze, code_of_picture, synthesize
from cwic.model_file import ModelFile

if TYPE_CHECKING:
    from cwic.training.cvpr2018.network import Cvpr2018Network

# A value this close to a decision may fall on either side of it.
NEAR = 1e-3

SIZES = [(8, 8), (8, 200), (200, 8), (64, 48)]


def stored_network(network: "Cvpr2018Network") -> "Cvpr2018Network":
    """The network as a model file stores it: convolution weights rounded to float16."""
    import torch

    result = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in result.parameters():
            if parameter.ndim >= 2:
                parameter.copy_(parameter.half().float())
    return result


def pictures_of(folder: Path) -> list[np.ndarray]:
    """(H, W, 3) uint8 each; the fixture's sides are multiples of 8."""
    return [np.asarray(Image.open(path)) for path in sorted(folder.iterdir())]


def torch_analysis(network: "Cvpr2018Network", pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Activations (n, h, w) and map logits (h, w), float32."""
    import torch

    with torch.no_grad():
        x = (torch.tensor(pixels).permute(2, 0, 1)[None].float() - 127.5) / 127.5
        activation, logits = network.analyze(x)
    assert logits is not None
    return activation[0].numpy(), logits[0, 0].numpy()


def torch_pixels(network: "Cvpr2018Network", code: np.ndarray) -> np.ndarray:
    """(8 h, 8 w, 3), integers in float."""
    import torch

    with torch.no_grad():
        x = network.synthesis(torch.tensor(code)[None].float())[0].permute(1, 2, 0)
    return (x * 127.5 + 127.5).clamp(0, 255).round().numpy()


def assert_same_decisions(
    network: "Cvpr2018Network", model: ModelFile, pictures: list[np.ndarray], near: float
) -> tuple[float, float]:
    """Bits and levels agree at several rates, but for values within `near` of a decision.

    Returns:
        Shares of the activations and of the map that lie so close.
    """
    engine, layout = Engine(model, 1), CodeLayout(**model.decoding)
    close_bits, close_levels = [], []
    for pixels in pictures:
        activation, logits = torch_analysis(network, pixels)
        analysis = analyze(engine, pixels)
        for q in (-192, 0, 64):
            p = 1 / (1 + np.exp(-(logits.astype(np.float64) + q / 64)))
            scaled = p * layout.levels
            level = np.clip(np.floor(scaled + 1e-5), 0, layout.levels - 1)
            close_bit = np.abs(activation - 0.5) <= near
            close_level = np.abs(scaled - np.round(scaled)) <= near * layout.levels
            found = code_of_picture(analysis, q, layout)
            np.testing.assert_array_equal(found.level[~close_level], level[~close_level])
            assert np.abs(found.level - level).max() <= 1
            # The mask follows from the level, so bits are compared under the mask that was found.
            k = np.arange(layout.code_channels)[:, None, None]
            bits = (activation > 0.5) & (k < layout.kept(found.level))
            np.testing.assert_array_equal(found.code[~close_bit], bits[~close_bit])
            close_bits.append(close_bit.mean())
            close_levels.append(close_level.mean())
    return float(np.mean(close_bits)), float(np.mean(close_levels))


# --- the seam -------------------------------------------------------------------------------------


def test_network_and_model_decide_alike_but_for_values_near_a_decision(
    tiny_network: "Cvpr2018Network", tiny_model: ModelFile, picture_folder: Path
) -> None:
    """Against the network with its convolution weights in float16, as the model file stores them.

    Counted: 16 levels have 15 boundaries, each with 2e-3 of the map's range around it, so about 3 %
    of an even map lie near one. Of the activations fewer than 1 % do.
    """
    close_bits, close_levels = assert_same_decisions(
        stored_network(tiny_network), tiny_model, pictures_of(picture_folder), NEAR
    )
    assert close_bits < 0.01
    assert close_levels < 0.05


def test_the_network_in_float32_decides_alike_within_the_rounding_of_its_weights(
    tiny_network: "Cvpr2018Network", tiny_model: ModelFile, picture_folder: Path
) -> None:
    """Rounding weights to 11 bits moves activations by some 1e-3, so the margin is 3e-3."""
    close_bits, close_levels = assert_same_decisions(
        tiny_network, tiny_model, pictures_of(picture_folder), 3 * NEAR
    )
    assert close_bits < 0.03
    assert close_levels < 0.15


def test_the_whole_forward_pass_masks_the_code_as_the_codec_does(
    tiny_network: "Cvpr2018Network", tiny_model: ModelFile, picture_folder: Path
) -> None:
    """Binarizer, quantizer and mask of training against the runtime's own."""
    import torch

    network = stored_network(tiny_network)
    layout, engine = CodeLayout(**tiny_model.decoding), Engine(tiny_model, 1)
    differing = total = 0
    for pixels in pictures_of(picture_folder):
        x = (torch.tensor(pixels).permute(2, 0, 1)[None].float() - 127.5) / 127.5
        for q in (-100, 0, 90):
            with torch.no_grad():
                expected = network(x, q / 64).code[0].numpy()
            found = code_of_picture(analyze(engine, pixels), q, layout).code
            differing += int((expected != found).sum())
            total += found.size
    assert differing <= 1e-3 * total


@pytest.mark.parametrize("weights", ["as stored", "float32"])
def test_from_the_same_code_pixels_are_within_one(
    weights: str, tiny_network: "Cvpr2018Network", tiny_model: ModelFile, picture_folder: Path
) -> None:
    """Within 1 either way; in weights as stored only where rounding to uint8 is a tie, or nearly.

    Against the weights before they were rounded to float16 some more pixels differ.
    """
    network = stored_network(tiny_network) if weights == "as stored" else tiny_network
    engine, layout = Engine(tiny_model, 1), CodeLayout(**tiny_model.decoding)
    rng = np.random.default_rng(4)
    codes = [rng.integers(0, 2, (layout.code_channels, 6, 7)).astype(np.uint8)]
    codes += [
        code_of_picture(analyze(engine, pixels), 0, layout).code
        for pixels in pictures_of(picture_folder)
    ]
    off = np.concatenate(
        [
            np.abs(torch_pixels(network, code) - synthesize(engine, code).astype(float)).ravel()
            for code in codes
        ]
    )
    assert off.max() <= 1
    assert (off > 0).mean() < (1e-3 if weights == "as stored" else 0.1)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_graphs_take_any_size(
    height: int, width: int, tiny_network: "Cvpr2018Network", tiny_model: ModelFile
) -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (height, width, 3)).astype(np.uint8)
    network, engine = stored_network(tiny_network), Engine(tiny_model, 1)
    analysis = analyze(engine, pixels)
    activation, logits = torch_analysis(network, pixels)
    assert analysis.activation.shape == (64, height // 8, width // 8)
    np.testing.assert_allclose(analysis.activation, activation, atol=1e-4)
    np.testing.assert_allclose(analysis.map_logits, logits, atol=1e-4)
    code = (activation > 0.5).astype(np.uint8)
    decoded = synthesize(engine, code)
    assert decoded.dtype == np.uint8
    assert decoded.shape == pixels.shape
    assert np.abs(decoded - torch_pixels(network, code)).max() <= 1


# --- the file -------------------------------------------------------------------------------------


def test_graphs_hold_no_paths_and_no_stack_traces(tiny_model: ModelFile) -> None:
    here = Path(__file__).parent.parent
    for graph in tiny_model.graphs.values():
        for trace in (b"File ", b".py", b"site-packages", b"line ", b"/home", b"/tmp", b"stack"):
            assert trace not in graph
        for path in (here, Path.cwd(), Path.home(), Path(sys.prefix)):
            assert len(path.parts) < 3 or os.fsencode(path) not in graph


def test_weights_are_stored_in_half_precision(
    tiny_network: "Cvpr2018Network", tiny_model: ModelFile
) -> None:
    count = sum(parameter.numel() for parameter in tiny_network.parameters())
    assert sum(map(len, tiny_model.graphs.values())) < 2 * count + 30_000


def test_a_shuffle_before_a_residual_block_is_followed_by_a_pooling(
    tiny_flagship_path: Path,
) -> None:
    """Without it the runtime leaves its own layout for the addition; what is last has no branch."""
    import onnx

    synthesis = model_file.load(tiny_flagship_path).graphs["synthesis"]
    nodes = onnx.load_model_from_string(synthesis).graph.node
    after = [
        [node.op_type for node in nodes if shuffle.output[0] in node.input]
        for shuffle in nodes
        if shuffle.op_type == "DepthToSpace"
    ]
    assert after == [["MaxPool"], ["MaxPool"], ["Transpose"]]


@pytest.mark.slow
def test_another_process_exports_the_same_model_from_a_checkpoint(
    tiny_network: "Cvpr2018Network",
    tiny_model: ModelFile,
    tiny_model_path: Path,
    tmp_path: Path,
) -> None:
    """The identity is a function of the weights and of nothing else."""
    from cwic.training.checkpoint import Progress, save_checkpoint
    from cwic.training.config import config_from_table
    from cwic.training.families import FAMILIES

    table = {"family": "cvpr2018", "stages": [{"name": "none", "steps": 1}]}
    config = config_from_table(table | {"network": {"width": 1 / 16}}, "test", FAMILIES)
    weights = {name: p.detach() for name, p in tiny_network.named_parameters()}
    save_checkpoint(tmp_path / "trained.safetensors", config, Progress(), {"average": weights})

    def export(output: str) -> tuple[bytes, str]:
        result = subprocess.run(
            [sys.executable, "-m", "cwic", "export", "trained.safetensors", "-o", output],
            cwd=tmp_path,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "7"},
            capture_output=True,
            timeout=120,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout, result.stderr.decode()

    said, warned = export("tiny.cwicmodel")
    assert warned == ""
    assert f"identity {tiny_model.identity.hex()}" in said.decode()
    assert (tmp_path / "tiny.cwicmodel").read_bytes() == tiny_model_path.read_bytes()
    # On the standard output the model is alone.
    for output in ("-", "/dev/stdout"):
        data, said_elsewhere = export(output)
        assert f"identity {tiny_model.identity.hex()}" in said_elsewhere
        (tmp_path / "piped").write_bytes(data)
        model = model_file.load(tmp_path / "piped")
        assert (model.name, model.identity) == ("trained", tiny_model.identity)


@pytest.mark.parametrize("switch", ["binarizer", "importance_map"])
def test_a_network_whose_code_cannot_be_coded_is_not_exported(switch: str, tmp_path: Path) -> None:
    from cwic.training.checkpoint import Progress, save_checkpoint
    from cwic.training.config import config_from_table
    from cwic.training.export import export_checkpoint
    from cwic.training.families import FAMILIES

    table = {
        "family": "cvpr2018",
        "stages": [{"name": "none", "steps": 1}],
        "network": {switch: False, "width": 1 / 16},
    }
    path = tmp_path / "plain.safetensors"
    config = config_from_table(table, "test", FAMILIES)
    weights = dict(FAMILIES["cvpr2018"].build(config).named_parameters())
    save_checkpoint(path, config, Progress(), {"average": weights})
    with pytest.raises(TrainingError, match=r"plain\.safetensors: expected a network with"):
        export_checkpoint(path, "model")


def test_the_fixture_codes_a_picture_and_decodes_its_size(
    tiny_codec: Codec, picture_folder: Path
) -> None:
    sizes = []
    for quality in (0, 50, 100):
        data = tiny_codec.encode(picture_folder / "picture03.png", quality=quality)
        sizes.append(len(data))
        with Image.open(picture_folder / "picture03.png") as picture:
            assert tiny_codec.decode(data).size == picture.size
    assert sizes == sorted(set(sizes))
