"""More work of the encoder gives smaller files of the paper's codec, which decode as before."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import seeded_picture

from cwic import model_file
from cwic.codec import Codec
from cwic.engine import Engine, Session
from cwic.errors import ModelError
from cwic.evaluation.structural_similarity import ssim
from cwic.families.cvpr2018.coder import CodedPicture
from cwic.families.cvpr2018.family import Cvpr2018, analyze
from cwic.families.cvpr2018.refine import DISTORTION, most_passes
from cwic.families.distortion_graphs import distortion_graph, reference_graph
from cwic.families.protocol import steps_of
from cwic.psnr import psnr_db
from cwic.request import Request
from cwic.training.cvpr2018.network import Cvpr2018Network

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def model() -> model_file.ModelFile:
    return model_file.load(model_file.find("cvpr2018"))


@pytest.fixture(scope="module")
def family(model: model_file.ModelFile) -> Cvpr2018:
    return Cvpr2018(model, threads=1)


@pytest.fixture(scope="module")
def codec(model: model_file.ModelFile) -> Codec:
    return Codec(model, threads=1)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return seeded_picture(3)


def decibels(codec: Codec, data: bytes, picture: np.ndarray) -> float:
    return psnr_db(picture, np.asarray(codec.decode(data)))


def test_a_file_of_some_effort_is_smaller_and_no_worse(
    family: Cvpr2018, codec: Codec, picture: np.ndarray
) -> None:
    told: list[float] = []
    request = Request(quality=40, lossless="never")
    plain = codec.encode_request(picture, request).data
    request = Request(quality=40, lossless="never", effort=4)
    refined = codec.encode_request(picture, request, told.append).data
    assert len(refined) < 0.9 * len(plain)
    analyzed = family.analyze(picture)
    worse, better = (
        analyzed.distortion(np.asarray(codec.decode(data)), None) for data in (plain, refined)
    )
    # Rounding to bytes is not part of what is kept.
    assert better < 1.01 * worse
    assert told == sorted(told)
    assert told[-1] == 1


def test_the_same_effort_gives_the_same_file(codec: Codec, picture: np.ndarray) -> None:
    one, other = (codec.encode(picture, quality=30, lossless="never", effort=2) for _ in range(2))
    assert one == other


@pytest.mark.parametrize("target", [{"target_bytes": 400}, {"psnr_db": 20.0}], ids=str)
def test_a_target_is_met_with_a_better_picture_or_a_smaller_file(
    codec: Codec, picture: np.ndarray, target: dict[str, Any]
) -> None:
    plain, refined = (
        codec.encode(picture, **target, strict=True, lossless="never", effort=effort)
        for effort in (0, 2)
    )
    if "psnr_db" in target:
        assert len(refined) < 0.9 * len(plain)
        assert decibels(codec, refined, picture) >= 20
    else:
        assert len(refined) <= 400
        assert decibels(codec, refined, picture) > decibels(codec, plain, picture) + 0.3


@pytest.mark.parametrize("shape", [(1, 1, 3), (17, 33, 4), (20, 40)], ids=str)
def test_pictures_of_any_size_and_mode_are_refined(codec: Codec, shape: tuple[int, ...]) -> None:
    samples = np.random.default_rng(1).integers(0, 255, shape).astype(np.uint8)
    plain, refined = (codec.encode(samples, effort=effort, lossless="never") for effort in (0, 1))
    assert len(refined) <= len(plain)
    assert codec.decode(refined).size == codec.decode(plain).size


@pytest.mark.parametrize("keeps_quality", [True, False])
def test_a_refinement_that_finds_nothing_gives_the_plain_code(
    family: Cvpr2018, picture: np.ndarray, keeps_quality: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    analyzed = family.analyze(picture)
    plain = analyzed.code(-100)
    # Up, where it should go down.
    monkeypatch.setattr("cwic.families.cvpr2018.refine._LENGTH", -0.5)
    refined = analyzed.refine(-100, None, 3, keeps_quality=keeps_quality)
    assert refined.payloads() == plain.payloads()


def test_a_mask_still_moves_bits_with_an_effort(codec: Codec, picture: np.ndarray) -> None:
    mask = np.zeros(picture.shape[:2], bool)
    mask[:, : mask.shape[1] // 2] = True
    gaps = []
    for roi in (None, mask):
        data = codec.encode(picture, bpp=0.5, roi=roi, roi_strength=3, lossless="never", effort=1)
        shown = np.asarray(codec.decode(data))
        inside, outside = (
            psnr_db(picture[:, part], shown[:, part]) for part in (slice(32), slice(48, None))
        )
        gaps.append(inside - outside)
    assert gaps[1] > gaps[0] + 1


def test_a_picture_in_blocks_loses_what_it_loses_as_a_whole(
    family: Cvpr2018, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = np.tile(picture, (2, 2, 1))
    analyzed = family.analyze(large)
    shown = analyzed.code(-100).pixels()
    whole = analyzed.distortion(shown, None)
    plain = len(analyzed.code(-100).payloads()[0])
    for name, value in (("_WHOLE_PIXELS", 64 * 64), ("_BLOCK_PX", 96)):
        monkeypatch.setattr(f"cwic.families.original.{name}", value)
    assert analyzed.distortion(shown, None) == pytest.approx(whole, rel=0.05)
    refined = analyzed.refine(-100, None, 2, keeps_quality=True)
    assert len(refined.payloads()[0]) < plain


@pytest.mark.parametrize("keeps_quality", [True, False])
def test_a_refinement_takes_no_more_passes_than_it_says(
    family: Cvpr2018, picture: np.ndarray, keeps_quality: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    analyzed = family.analyze(picture)
    passes: list[int] = []
    run = Engine.run

    def counted(engine: Engine, graph: str, *inputs: np.ndarray) -> list[np.ndarray]:
        passes.append({"slope": 2, "distortion": 1}.get(graph, 0))
        return run(engine, graph, *inputs)

    monkeypatch.setattr(Engine, "run", counted)
    analyzed.refine(-100, None, 2, keeps_quality=keeps_quality)
    assert sum(passes) == most_passes(steps_of(2), keeps_quality=keeps_quality)


def test_prices_are_what_flipping_the_last_bit_costs(family: Cvpr2018, picture: np.ndarray) -> None:
    """Of the last bit that is coded, no other bit's probability depends on it."""
    analysis = analyze(family.engine, picture)
    level = np.full(analysis.map_logits.shape, 15, np.uint8)
    code = (analysis.activation > 0.5).astype(np.uint8)
    bits, prices = family.coder.priced(CodedPicture(code, level))
    assert bits == family.coder.counted(CodedPicture(code, level)).bits
    costs = []
    for bit in (0, 1):
        code[-1, -1, -1] = bit
        costs.append(family.coder.counted(CodedPicture(code, level)).bits)
    assert costs[1] - costs[0] == pytest.approx(prices[-1, -1, -1], rel=1e-4)


def test_the_gradient_of_a_distortion_is_that_of_autograd(
    tiny_network: Cvpr2018Network, tiny_model: model_file.ModelFile
) -> None:
    height, width = 5, 6
    rng = np.random.default_rng(1)
    code = rng.integers(0, 2, (1, 64, height, width)).astype(np.float32)
    picture = rng.uniform(0, 1, (1, 3, 8 * height, 8 * width)).astype(np.float32)
    shares = np.full((1, 1, 8 * height, 8 * width), 1 / (64 * height * width), np.float32)
    found = Session(reference_graph(DISTORTION, 1), 1).run(picture)
    counts = np.full((1, 1, *found[1].shape[2:]), 1 / found[1][0, 0].size, np.float32)
    graph = distortion_graph(tiny_model.graphs["synthesis"], DISTORTION, 1)
    feeds = [code, picture - np.float32(0.5), shares, shares[:, :, ::16, ::16], *found, counts]
    value, gradient = Session(graph, 1).run(*feeds)

    known = torch.from_numpy(code).requires_grad_()
    reference = torch.from_numpy(picture)
    network = copy.deepcopy(tiny_network)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim >= 2:  # as a model file stores them
                parameter.copy_(parameter.half().float())
    shown = (network.synthesis(known) / 2 + 0.5).clamp(0, 1)
    expected = DISTORTION.mse * (shown - reference).square().mean()
    expected = expected + DISTORTION.ssim * (1 - ssim(reference, shown)[0])
    expected.backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-3)
    assert known.grad is not None
    largest = known.grad.abs().max().item()
    assert largest > 0
    assert np.abs(gradient - known.grad.numpy()).max() < 1e-3 * largest


def test_a_synthesis_without_a_known_gradient_is_an_error_of_the_model(
    model: model_file.ModelFile,
) -> None:
    synthesis = model.graphs["synthesis"].replace(b"Relu", b"Tanh", 1)
    changed = replace(model, graphs={**model.graphs, "synthesis": synthesis})
    with pytest.raises(ModelError, match="model cvpr2018: its synthesis allows no effort"):
        Codec(changed, threads=1).encode(seeded_picture(1), effort=1, lossless="never")
