"""An analysis that sees q: two graphs, what a search repeats of it, and the decoder it leaves."""

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import seeded_picture

torch = pytest.importorskip("torch")

from flagship_training import TINY_TOML, recipe  # noqa: E402
from flagship_training import run as train  # noqa: E402

from cwic import model_file  # noqa: E402
from cwic.codec import Codec  # noqa: E402
from cwic.engine import Engine  # noqa: E402
from cwic.errors import TrainingError  # noqa: E402
from cwic.families.flagship.family import Flagship  # noqa: E402
from cwic.families.flagship.tiles import Analyzed, TileTransforms  # noqa: E402
from cwic.training.checkpoint import load_weights  # noqa: E402
from cwic.training.export import export_checkpoint  # noqa: E402
from cwic.training.flagship.export import analysis_graphs  # noqa: E402
from cwic.training.flagship.network import FlagshipNetwork  # noqa: E402
from cwic.training.flagship.restore import restored_weights  # noqa: E402
from cwic.training.flagship.transforms import normalized  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def deeper(network: FlagshipNetwork, path: Path) -> FlagshipNetwork:
    """The network of a model file with an analysis that sees q and has a block more at 1/8."""
    sizes = dataclasses.replace(network.config, analysis_sees_q=True, analysis_blocks_8=2)
    result = FlagshipNetwork(sizes)
    result.load_state_dict(restored_weights(path, result))
    return result.eval()


@pytest.fixture(scope="module")
def steered(tiny_flagship_network: FlagshipNetwork, tiny_flagship_path: Path) -> FlagshipNetwork:
    """The tiny network with such an analysis, q's influence as lively as if it were trained."""
    network = deeper(tiny_flagship_network, tiny_flagship_path)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(7)
        for layer in (network.analysis.from_q, network.analysis.move_details):
            assert layer is not None
            torch.nn.init.xavier_uniform_(layer.weight)
        torch.nn.init.kaiming_uniform_(network.analysis.blocks_8[1].last.weight, a=2)
        for parameter in network.analysis.parameters():  # as a model file holds them
            parameter.copy_(parameter.half())
    return network


@pytest.fixture(scope="module")
def steered_model(steered: FlagshipNetwork, tiny_flagship_path: Path) -> model_file.ModelFile:
    """The tiny model with that analysis."""
    model = model_file.load(tiny_flagship_path)
    return dataclasses.replace(
        model, graphs={**model.graphs, **analysis_graphs(steered)}, path=None
    )


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each graph was run."""
    counts: Counter[str] = Counter()
    run = Engine.run

    def counted(self: Engine, graph: str, *inputs: Any) -> Any:
        counts[graph] += 1
        return run(self, graph, *inputs)

    monkeypatch.setattr(Engine, "run", counted)
    return counts


def test_a_deeper_analysis_that_sees_q_begins_as_the_one_of_its_model(
    tiny_flagship_network: FlagshipNetwork, tiny_flagship_path: Path
) -> None:
    network = deeper(tiny_flagship_network, tiny_flagship_path)
    before = FlagshipNetwork(tiny_flagship_network.config)
    before.load_state_dict(restored_weights(tiny_flagship_path, before))
    x = normalized(torch.from_numpy(seeded_picture(1)[None, :64, :80]))
    for q in (-6.0, 5.0):
        found, expected = (of.analysis(x, torch.tensor([q])) for of in (network, before))
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])


def test_a_shallower_analysis_than_the_model_has_is_refused(
    tiny_flagship_network: FlagshipNetwork, tiny_flagship_path: Path
) -> None:
    sizes = dataclasses.replace(tiny_flagship_network.config, analysis_blocks_16=0)
    with pytest.raises(TrainingError, match="analysis_blocks_16 of at least 1, found 0"):
        restored_weights(tiny_flagship_path, FlagshipNetwork(sizes))


def test_two_graphs_make_the_files_that_the_network_itself_would(
    steered: FlagshipNetwork,
    steered_model: model_file.ModelFile,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pixels = seeded_picture(3)
    by_graphs = [Codec(steered_model, threads=1).encode(pixels, quality=q) for q in (20, 80)]
    found = []

    def by_network(
        self: TileTransforms, q: int, front: np.ndarray, tiling: Any, number: int
    ) -> Analyzed:
        rows, columns = (-(-side // 16) * 16 for side in pixels.shape[:2])
        beyond = ((0, rows - pixels.shape[0]), (0, columns - pixels.shape[1]), (0, 0))
        padded = np.pad(pixels, beyond, mode="edge")
        with torch.no_grad():
            x = normalized(torch.from_numpy(padded[None]))
            y, features = steered.analysis(x, torch.tensor([q / 64]))
            importance = steered.importance_net(features)
        found.append((y[0].numpy(), graphs(self, q, front, tiling, number).latents))
        return Analyzed(y[0].numpy(), importance[0, 0].numpy())

    graphs = TileTransforms.analyze_at
    monkeypatch.setattr(TileTransforms, "analyze_at", by_network)
    by_torch = [Codec(steered_model, threads=1).encode(pixels, quality=q) for q in (20, 80)]
    assert by_torch == by_graphs
    for expected, latents in found:
        np.testing.assert_allclose(latents, expected, atol=1e-4)
    assert np.abs(found[0][0] - found[1][0]).mean() > 0.01  # q does something


def test_a_search_runs_once_what_does_not_depend_on_q(
    steered_model: model_file.ModelFile, runs: Counter[str]
) -> None:
    codec = Codec(steered_model, threads=1)
    pixels = seeded_picture(4)
    ends = [len(codec.encode(pixels, quality=q, lossless="never")) for q in (0, 100)]
    targets = np.linspace(*ends, 6)[1:-1].astype(int).tolist()  # a first guess may hit one of them
    runs.clear()
    for target in targets:
        data = codec.encode(pixels, target_bytes=target, lossless="never")
        assert len(data) == pytest.approx(target, rel=0.05)
        assert codec.decode(data).size == pixels.shape[1::-1]
    assert runs["analysis"] == len(targets)
    assert runs["analysis_at_q"] > 2 * len(targets)


def test_an_effort_starts_from_the_latents_of_its_q(
    steered_model: model_file.ModelFile, runs: Counter[str]
) -> None:
    codec, pixels = Codec(steered_model, threads=1), seeded_picture(4)
    plain, refined = (codec.encode(pixels, effort=effort, lossless="never") for effort in (0, 1))
    assert len(refined) <= len(plain)
    assert runs["analysis"] == runs["analysis_at_q"] == 2


@pytest.mark.parametrize("kept", [True, False])
def test_tiles_see_their_neighbours_in_both_halves(
    kept: bool,
    steered_model: model_file.ModelFile,
    runs: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pixels = np.tile(seeded_picture(5), (3, 3, 1))[:190, :230]
    family = Flagship(steered_model, 1)
    (whole,) = (family.analyze(pixels).at(64).latents(number) for number in (0,))
    for name, value in (("MAX_UNDIVIDED_PIXELS", 64 * 64), ("TILE_PX", 64)):
        monkeypatch.setattr(f"cwic.families.flagship.family.{name}", value)
    if not kept:
        monkeypatch.setattr("cwic.families.flagship.family._MAX_KEPT_PIXELS", 0)
    runs.clear()
    divided = family.analyze(pixels)
    assert len(divided.tiling.tiles) == 12
    at_q = divided.at(64)
    assert runs["analysis"] == 12
    for number, tile in enumerate(divided.tiling.tiles):
        rows, columns = (
            slice(start // 16, -(-stop // 16))
            for start, stop in ((tile.top, tile.bottom), (tile.left, tile.right))
        )
        np.testing.assert_allclose(at_q.latents(number), whole[:, rows, columns], atol=1e-4)


ENCODER_STAGE = """\
[[stages]]
name = "analysis"
steps = 3
batch = 2
learning_rate = 2e-2
analysis_only = true
"""


def recipe_of(network: FlagshipNetwork, **changes: Any) -> str:
    """A recipe of a network, its stages to be added."""
    sizes = dataclasses.asdict(network.config) | changes
    fast = sizes.pop("fast")

    def lines(values: dict[str, Any]) -> str:
        return "".join(
            f"{key} = {str(list(value) if isinstance(value, tuple) else value).lower()}\n"
            for key, value in values.items()
        )

    head = TINY_TOML.partition("[network]")[0]
    return f"{head}[network]\n{lines(sizes)}[network.fast]\n{lines(fast)}[data]\ncrop_px = 64\n"


@pytest.fixture
def encoder_recipe(tiny_flagship_network: FlagshipNetwork) -> str:
    """That of the tiny network with such an analysis."""
    return recipe_of(tiny_flagship_network, analysis_sees_q=True, analysis_blocks_8=2)


def test_the_stage_of_the_analysis_trains_what_no_decoder_has(
    tiny_flagship_network: FlagshipNetwork,
    tiny_flagship_path: Path,
    encoder_recipe: str,
    picture_folder: Path,
    tmp_path: Path,
) -> None:
    config = recipe(tmp_path, ENCODER_STAGE, encoder_recipe)
    train(config, picture_folder, tmp_path / "run", init_from=tiny_flagship_path)
    after = load_weights(tmp_path / "run" / "checkpoint.safetensors")[2]
    before = deeper(tiny_flagship_network, tiny_flagship_path).state_dict()
    changed = {
        name.partition(".")[0] for name in after if not torch.equal(after[name], before[name])
    }
    assert changed == {"analysis", "hyper_analysis", "importance_net"}


@pytest.mark.slow
def test_an_encoder_trained_alone_keeps_the_identity_and_every_picture(
    tiny_flagship_path: Path, encoder_recipe: str, picture_folder: Path, tmp_path: Path
) -> None:
    config = recipe(tmp_path, ENCODER_STAGE, encoder_recipe)
    train(config, picture_folder, tmp_path / "run", init_from=tiny_flagship_path)
    checkpoint = tmp_path / "run" / "checkpoint.safetensors"
    exported = export_checkpoint(checkpoint, "better", identity_of=tiny_flagship_path)
    model = model_file.load(tiny_flagship_path)
    assert exported.identity == model.identity
    assert exported.graphs.keys() == model.graphs.keys() | {"analysis_at_q"}
    assert exported.graphs["fast"] == model.graphs["fast"]
    pixels = seeded_picture(6)
    data = Codec(exported, threads=1).encode(pixels, quality=60, lossless="never")
    assert data != Codec(model, threads=1).encode(pixels, quality=60, lossless="never")
    shown = [np.asarray(Codec(of, threads=1).decode(data)) for of in (exported, model)]
    assert np.array_equal(*shown)

    other = recipe(tmp_path, ENCODER_STAGE.replace("analysis_only = true\n", ""), encoder_recipe)
    train(other, picture_folder, tmp_path / "other", init_from=tiny_flagship_path)
    checkpoint = tmp_path / "other" / "checkpoint.safetensors"
    with pytest.raises(TrainingError, match=r"expected the decoder of .*, found another mean_"):
        export_checkpoint(checkpoint, "better", identity_of=tiny_flagship_path)


def test_a_light_synthesis_trained_alone_leaves_what_an_effort_minimises(
    tiny_flagship_network: FlagshipNetwork,
    tiny_flagship_path: Path,
    picture_folder: Path,
    tmp_path: Path,
) -> None:
    model = model_file.load(tiny_flagship_path)
    refined = dataclasses.replace(
        model, encoding=model.encoding | {"distortion": {"mse": 540.0, "ssim": 2.6}}, path=None
    )
    model_file.save(refined, tmp_path / "refined.cwicmodel")
    stage = ENCODER_STAGE.replace("analysis_only", "fast_only") + "ssim_weight = 9.0\n"
    config = recipe(tmp_path, stage, recipe_of(tiny_flagship_network))
    train(config, picture_folder, tmp_path / "run", init_from=tmp_path / "refined.cwicmodel")
    exported = export_checkpoint(
        tmp_path / "run" / "checkpoint.safetensors",
        "lighter",
        identity_of=tmp_path / "refined.cwicmodel",
    )
    assert exported.encoding == refined.encoding
    assert exported.identity == refined.identity
    assert exported.graphs["fast"] != model.graphs["fast"]
