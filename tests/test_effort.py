"""More work of the encoder gives smaller files of the same quality, which decode as before."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import seeded_picture

from cwic import model_file
from cwic.codec import Codec
from cwic.engine import Engine
from cwic.errors import CodecWarning, ModelError, TargetError
from cwic.families.distortion import Distortion, distortion_of
from cwic.families.flagship.family import FlagshipAnalysis
from cwic.families.flagship.refine.descent import Candidate, Problem, most_passes
from cwic.families.flagship.refine.picture import RefinedTile, Refiner, Task
from cwic.families.protocol import steps_of
from cwic.onnx_graph import read_graph, write_graph
from cwic.psnr import psnr_db
from cwic.request import Request


@pytest.fixture(scope="module")
def psnr_codec() -> Codec:
    return Codec.load("cwic-psnr", threads=1)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return seeded_picture(3)


@pytest.fixture(scope="module")
def plain(psnr_codec: Codec, picture: np.ndarray) -> bytes:
    return psnr_codec.encode(picture, quality=40, lossless="never")


def decibels(codec: Codec, data: bytes, picture: np.ndarray) -> float:
    return psnr_db(picture, np.asarray(codec.decode(data)))


def test_a_file_of_some_effort_is_smaller_and_no_worse(psnr_codec: Codec) -> None:
    plain_bytes = refined_bytes = 0
    for seed in range(3):
        picture = seeded_picture(seed)
        told: list[float] = []
        plain = psnr_codec.encode(picture, quality=40, lossless="never")
        request = Request(quality=40, lossless="never", effort=4)
        refined = psnr_codec.encode_request(picture, request, told.append).data
        plain_bytes, refined_bytes = plain_bytes + len(plain), refined_bytes + len(refined)
        # Rounding to bytes is not part of what is kept.
        least_db = decibels(psnr_codec, plain, picture) - 0.03
        assert decibels(psnr_codec, refined, picture) > least_db
        assert told == sorted(told)
        assert told[-1] == 1
    assert refined_bytes < 0.97 * plain_bytes


def test_the_lowest_qualities_gain_too() -> None:
    """There the descent ends far above the distortion that is to be kept."""
    codec = Codec.load("cwic-visual", threads=1)
    # Of four, since one may gain nothing: which one differs from processor to processor.
    plain, refined = (
        sum(
            len(codec.encode(seeded_picture(seed), quality=5, lossless="never", effort=effort))
            for seed in range(4)
        )
        for effort in (0, 5)
    )
    assert refined < 0.95 * plain


def test_the_same_effort_gives_the_same_file(psnr_codec: Codec, picture: np.ndarray) -> None:
    one, other = (
        psnr_codec.encode(picture, quality=30, lossless="never", effort=1) for _ in range(2)
    )
    assert one == other


def test_a_size_is_met_with_a_better_picture(psnr_codec: Codec, picture: np.ndarray) -> None:
    target_bytes = 1200
    files = [
        psnr_codec.encode(
            picture, target_bytes=target_bytes, strict=True, lossless="never", effort=effort
        )
        for effort in (0, 3)
    ]
    assert all(0.97 * target_bytes < len(data) <= target_bytes for data in files)
    worse, better = (decibels(psnr_codec, data, picture) for data in files)
    assert better > worse + 0.1


def test_a_size_out_of_reach_may_be_met_with_an_effort(
    psnr_codec: Codec, picture: np.ndarray
) -> None:
    with pytest.warns(CodecWarning, match="the nearest"):
        smallest = len(psnr_codec.encode(picture, target_bytes=1, lossless="never"))
    target_bytes = int(0.9 * smallest)
    request = Request(target_bytes=target_bytes, lossless="never", strict=True)
    with pytest.raises(TargetError, match="smallest file"):
        psnr_codec.encode_request(picture, request)
    data = psnr_codec.encode_request(picture, replace(request, effort=2)).data
    assert 0.8 * target_bytes < len(data) <= target_bytes


def test_a_size_far_out_of_reach_comes_nearer_with_an_effort(
    psnr_codec: Codec, picture: np.ndarray
) -> None:
    sizes = []
    for effort in (0, 2):
        with pytest.warns(CodecWarning, match="the nearest"):
            data = psnr_codec.encode(picture, target_bytes=1, lossless="never", effort=effort)
        sizes.append(len(data))
    assert sizes[1] < 0.95 * sizes[0]


def test_a_size_that_transparency_takes_is_met_with_a_better_picture(
    psnr_codec: Codec, picture: np.ndarray
) -> None:
    noise = np.random.default_rng(3).integers(1, 256, picture.shape[:2], dtype=np.uint8)
    shown = np.dstack([picture, noise])
    sizes, qualities = [], []
    for effort in (0, 3):
        with pytest.warns(CodecWarning, match="transparency takes"):
            data = psnr_codec.encode(shown, target_bytes=2400, lossless="never", effort=effort)
        sizes.append(len(data))
        decoded = np.asarray(psnr_codec.decode(data))
        assert np.array_equal(decoded[..., 3], noise)
        qualities.append(psnr_db(picture, decoded[..., :3]))
    assert sizes[1] == pytest.approx(sizes[0], rel=0.01)
    assert qualities[1] > qualities[0] + 0.1


def made_to_fail(problem: Problem, *_: object, **options: object) -> Candidate:
    """What a descent gives that went astray."""
    noise = np.random.default_rng(4).normal(size=problem.latents.shape)
    latents = problem.latents + (0.2 * noise / problem.gain).astype(np.float32)
    bits, coded = problem.encode(latents)
    return Candidate(latents, bits, problem.distortion(coded.decoded), coded)


@pytest.mark.parametrize("target", [{"target_bytes": 1200}, {"psnr_db": 24.0}], ids=str)
def test_a_refinement_that_fails_leaves_the_plain_file(
    psnr_codec: Codec,
    picture: np.ndarray,
    target: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request = Request(**target, strict=True, lossless="never")
    plain = psnr_codec.encode_request(picture, request).data
    request = replace(request, effort=1)
    refined = psnr_codec.encode_request(picture, request).data
    assert refined != plain
    monkeypatch.setattr("cwic.families.flagship.refine.picture.descend", made_to_fail)
    assert psnr_codec.encode_request(picture, request).data == plain


def test_a_refined_file_of_a_quality_is_smaller_than_the_plain_one(
    psnr_codec: Codec, picture: np.ndarray
) -> None:
    plain, refined = (
        psnr_codec.encode(picture, psnr_db=24, strict=True, lossless="never", effort=effort)
        for effort in (0, 2)
    )
    assert len(refined) < len(plain)
    assert decibels(psnr_codec, refined, picture) >= 24


class _Larger:
    """A coding of the same pixels whose payloads are larger."""

    def __init__(self, coded: Any):
        self.q, self.pixels = coded.q, coded.pixels
        self._payloads = [payload + bytes(64) for payload in coded.payloads()]

    def size_bytes(self) -> float:
        return sum(map(len, self._payloads))

    def payloads(self) -> list[bytes]:
        return self._payloads


def test_of_two_files_that_meet_a_psnr_the_smaller_is_the_answer(
    psnr_codec: Codec, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refine(self: FlagshipAnalysis, q: int, emphasis: Any, effort: int, **_: Any) -> _Larger:
        assert effort == 1
        return _Larger(self.code(q, emphasis))

    monkeypatch.setattr(FlagshipAnalysis, "refine", refine)
    plain, refined = (
        psnr_codec.encode(picture, psnr_db=24, effort=effort, lossless="never") for effort in (0, 1)
    )
    assert refined == plain


@pytest.mark.parametrize("name", ["cwic-psnr", "cwic-visual"])
@pytest.mark.parametrize("shape", [(1, 1, 3), (17, 33, 4), (20, 40)], ids=str)
def test_pictures_of_any_size_and_mode_are_refined(name: str, shape: tuple[int, ...]) -> None:
    codec = Codec.load(name, threads=1)
    samples = np.random.default_rng(1).integers(0, 255, shape).astype(np.uint8)
    plain, refined = (codec.encode(samples, effort=effort, lossless="never") for effort in (0, 1))
    assert len(refined) <= len(plain)
    assert codec.decode(refined).size == codec.decode(plain).size


def test_tiles_are_refined_and_threads_change_no_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("MAX_UNDIVIDED_PIXELS", 64 * 64), ("TILE_PX", 64)):
        monkeypatch.setattr(f"cwic.families.flagship.family.{name}", value)
    picture = seeded_picture(5)[:40]
    codec = Codec.load("cwic-psnr", threads=1)
    plain, one = (codec.encode(picture, effort=effort, lossless="never") for effort in (0, 1))
    other = Codec.load("cwic-psnr", threads=2).encode(picture, effort=1, lossless="never")
    assert len(one) < len(plain)
    assert one == other


def test_a_mask_still_moves_bits_with_an_effort(psnr_codec: Codec, picture: np.ndarray) -> None:
    mask = np.zeros(picture.shape[:2], bool)
    mask[:, : mask.shape[1] // 2] = True
    gaps = []
    for roi in (None, mask):
        data = psnr_codec.encode(
            picture, bpp=0.8, roi=roi, roi_strength=3, lossless="never", effort=2
        )
        shown = np.asarray(psnr_codec.decode(data))
        inside, outside = (
            psnr_db(picture[:, part], shown[:, part]) for part in (slice(32), slice(48, None))
        )
        gaps.append(inside - outside)
    assert gaps[1] > gaps[0] + 2


@pytest.mark.parametrize("keeps_quality", [True, False])
def test_a_descent_takes_no_more_passes_than_it_says(
    psnr_codec: Codec, picture: np.ndarray, keeps_quality: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    run = Engine.run

    def counted(engine: Engine, graph: str, *inputs: np.ndarray) -> list[np.ndarray]:
        passes.append({"slope": 2, "distortion": 1}.get(graph, 0))
        return run(engine, graph, *inputs)

    attempts: list[int] = []
    refine = Refiner.refine

    def told(refiner: Refiner, task: Task, num_steps: int, **options: Any) -> list[RefinedTile]:
        attempts.append(num_steps)
        return refine(refiner, task, num_steps, **options)

    monkeypatch.setattr(Engine, "run", counted)
    monkeypatch.setattr(Refiner, "refine", told)
    target: dict[str, Any] = {"quality": 5} if keeps_quality else {"target_bytes": 1200}
    psnr_codec.encode(picture, **target, lossless="never", effort=1)
    # What begins with what the last one found has a third of the steps.
    assert attempts == [steps_of(1), *[steps_of(1, again=True)] * (len(attempts) - 1)]
    most = sum(most_passes(num_steps, keeps_quality=keeps_quality) for num_steps in attempts)
    assert 0 < sum(passes) <= most


def test_the_page_says_how_many_passes_an_effort_takes_at_most() -> None:
    page = (Path(__file__).parent.parent / "docs" / "command.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([1-9]) \| (\d+) \| [^|]+ \| (\d+) \| (\d+) \|", page, re.MULTILINE)
    assert [int(row[0]) for row in rows] == list(range(1, 10))
    for row in rows:
        effort, num_steps, kept, free = map(int, row)
        assert num_steps == steps_of(effort)
        assert kept == most_passes(num_steps, keeps_quality=True)
        assert free == most_passes(num_steps, keeps_quality=False)


@pytest.mark.parametrize("operator", ["Sigmoid", "Clip"])
def test_a_synthesis_without_a_known_gradient_is_an_error_of_the_model(operator: str) -> None:
    model = model_file.load(model_file.find("cwic-psnr"))
    graph = read_graph(model.graphs["synthesis"])
    place = {"Sigmoid": 0, "Clip": -1}[operator]
    node = [node for node in graph.nodes if node.operator in ("LeakyRelu", "Add")][place]
    graph.nodes[graph.nodes.index(node)] = replace(node, operator=operator)
    graphs = {**model.graphs, "synthesis": write_graph(graph)}
    codec = Codec(replace(model, graphs=graphs), threads=1)
    with pytest.raises(ModelError, match="model cwic-psnr: its synthesis allows no effort"):
        codec.encode(seeded_picture(1), effort=1, lossless="never")


@pytest.mark.parametrize("effort", [-1, 10, 2.0, True])
def test_an_effort_out_of_range_is_refused(effort: object) -> None:
    with pytest.raises(ValueError, match="effort: expected a whole number, 0 to 9"):
        Request(effort=effort)  # type: ignore[arg-type]


def model_with(distortion: object, name: str = "mine") -> model_file.ModelFile:
    return model_file.ModelFile(
        name, "flagship", {}, {"distortion": distortion} if distortion else {}, {}, {}, bytes(8)
    )


def test_a_model_file_says_what_its_distortion_is() -> None:
    assert distortion_of(model_with({"mse": 3, "ssim": 0.5})) == Distortion(mse=3, ssim=0.5)
    assert distortion_of(model_with(None)) == Distortion()
    for wrong in ({"mse": -1}, {"colour": 1}, {"mse": "much"}, 3):
        with pytest.raises(ModelError, match="expected a distortion of weights"):
            distortion_of(model_with(wrong))


def test_a_graph_that_was_read_is_written_again() -> None:
    graph = read_graph(model_file.load(model_file.find("cwic-psnr")).graphs["synthesis"])
    again = read_graph(write_graph(graph))
    assert (again.nodes, again.inputs, again.outputs) == (graph.nodes, graph.inputs, graph.outputs)
    assert again.arrays.keys() == graph.arrays.keys()
    assert all((again.arrays[name] == array).all() for name, array in graph.arrays.items())
