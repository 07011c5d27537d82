"""What a step of the flagship draws, and what its loss is made of."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from flagship_training import TINY, recipe  # noqa: E402

from cwic.errors import TrainingError  # noqa: E402
from cwic.evaluation.metrics import grid_ratio, line_gradients  # noqa: E402
from cwic.evaluation.structural_similarity import ms_ssim, ssim  # noqa: E402
from cwic.training.config import load_config  # noqa: E402
from cwic.training.distortion import (  # noqa: E402
    border_error,
    grid_variation,
    luma_and_chroma_squares,
)
from cwic.training.families import FAMILIES  # noqa: E402
from cwic.training.flagship.family import draw_choices, draw_cut  # noqa: E402
from cwic.training.flagship.objective import (  # noqa: E402
    FlagshipStage,
    distortion,
)
from cwic.training.saliency import saliency_shares, spectral_residual  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def test_a_share_of_the_steps_cuts_the_entropy_model_at_a_line_of_its_shape() -> None:
    stage = FlagshipStage(name="one", steps=1, batch=4, cut_share=0.25)
    cuts = [draw_cut(stage, 3, step, 12, 23) for step in range(200)]
    assert cuts == [draw_cut(stage, 3, step, 12, 23) for step in range(200)]
    assert 30 < len([cut for cut in cuts if cut is not None]) < 70
    assert len(set(cuts)) == 2  # a graph for each of a few shapes, not for every line
    lines = {draw_cut(stage, 3, step, rows, 12) for step in range(40) for rows in range(4, 25)}
    found = [cut for cut in lines if cut is not None]
    assert {cut.horizontal for cut in found} == {False, True}
    assert all(cut.cell % 4 == 0 and cut.cell > 0 for cut in found)
    assert all(draw_cut(stage, 3, step, 4, 3) is None for step in range(40))
    assert draw_cut(dataclasses.replace(stage, cut_share=0.0), 3, 1, 12, 23) is None


def test_a_step_draws_q_over_the_whole_range_and_maps_for_a_share() -> None:
    stage = FlagshipStage(name="one", steps=1, batch=10, random_maps=0.4)
    shares = []
    for step in range(40):
        drawn = draw_choices(TINY, stage, 3, step, 4, 6)
        assert drawn.q.shape == (10,)
        assert np.array_equal(drawn.q * 64, np.rint(drawn.q * 64))
        part = np.floor((drawn.q - TINY.min_q) / (TINY.max_q - TINY.min_q) * 10).clip(0, 9)
        assert len(set(part.tolist())) >= 8
        shares.append(np.mean(np.abs(drawn.offset).max(axis=(1, 2, 3)) > 0))
        again = draw_choices(TINY, stage, 3, step, 4, 6)
        assert np.array_equal(drawn.q, again.q)
        assert np.array_equal(drawn.offset, again.offset)
    assert 0.25 < np.mean(shares) < 0.5


def test_a_stage_may_draw_four_of_five_q_from_a_part_of_the_range() -> None:
    stage = FlagshipStage(name="one", steps=1, batch=10, often_q=(-2.0, 1.0))
    drawn = np.concatenate([draw_choices(TINY, stage, 3, step, 4, 6).q for step in range(200)])
    outside = 1 - 3 / (TINY.max_q - TINY.min_q)
    assert np.mean((drawn < -2) | (drawn > 1)) == pytest.approx(0.2 * outside, abs=0.02)
    assert drawn.min() < TINY.min_q + 1
    assert drawn.max() > TINY.max_q - 1


def test_the_grid_ratio_sees_a_grid_of_8_and_nothing_else() -> None:
    generator = torch.Generator().manual_seed(7)
    x = torch.rand(2, 3, 64, 64, generator=generator) / 4
    assert grid_ratio(x, x) == 1
    assert float(grid_variation(x, x).max()) == 0
    squares = (torch.arange(64) // 8 % 2).float()
    grid = x + 0.1 * (squares[:, None] + squares)
    assert grid_ratio(x, grid) > 1.2
    assert float(grid_variation(x, grid).min()) > 0.005
    shifted = x + 0.1 * torch.roll((squares[:, None] + squares), (3, 3), (0, 1))
    assert grid_ratio(x, shifted) < 1
    phases = line_gradients(grid)
    assert phases.shape == (2, 8)
    assert (phases.argmax(dim=1) == 0).all()


def two_pictures() -> "tuple[torch.Tensor, torch.Tensor]":
    """A dark ground with a bright spot, in [-0.5, 0.5], and the same with errors."""
    generator = torch.Generator().manual_seed(4)
    x = 0.02 * torch.randn((2, 3, 64, 64), generator=generator) - 0.3
    x[:, :, 8:20, 40:52] = 0.4
    return x, x + 0.05 * torch.randn(x.shape, generator=generator)


def test_what_stands_out_is_salient_and_counts_for_more() -> None:
    x, _ = two_pictures()
    found = spectral_residual(x)
    assert found.shape == (2, 1, 64, 64)
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    spot, ground = found[..., 8:20, 40:52].mean(), found[..., 40:, :20].mean()
    assert float(spot) > 2 * float(ground)
    shares = saliency_shares(x, 0.6)
    assert torch.allclose(shares.mean(dim=(1, 2, 3)), torch.ones(2), atol=1e-4)
    assert float(shares.min()) >= 0.4 - 1e-4
    assert float(shares.max()) <= 0.4 + 0.6 * 4 * 2


def test_a_flat_picture_has_finite_shares() -> None:
    shares = saliency_shares(torch.zeros(1, 3, 64, 64), 1.0)
    assert torch.isfinite(shares).all()


def test_errors_on_what_stands_out_cost_more_with_a_saliency_weight() -> None:
    x, noisy = two_pictures()
    on_spot, off_spot = x.clone(), x.clone()
    on_spot[..., 8:20, 40:52] = noisy[..., 8:20, 40:52]
    off_spot[..., 40:52, 8:20] = noisy[..., 40:52, 8:20]
    plain = FlagshipStage(name="one", steps=1, ssim_weight=5.0, perceptual_weight=5.0)
    salient = dataclasses.replace(plain, saliency_weight=0.8)

    def ratio(stage: FlagshipStage) -> float:
        on, off = (distortion(x, y, stage).sum() for y in (on_spot, off_spot))
        return float(on / off)

    assert ratio(salient) > 1.2 * ratio(plain)


@pytest.mark.parametrize("similarity", [ssim, ms_ssim])
def test_even_shares_change_no_similarity(similarity: Callable[..., "torch.Tensor"]) -> None:
    generator = torch.Generator().manual_seed(8)
    x = torch.rand((1, 3, 192, 192), generator=generator)
    x = torch.nn.functional.avg_pool2d(x, 5, 1, 2)
    y = x + 0.03 * torch.randn(x.shape, generator=generator)
    plain = similarity(x, y)
    assert torch.allclose(similarity(x, y, torch.full((1, 1, 192, 192), 0.7)), plain, atol=1e-5)
    # In double precision by another way.
    assert torch.allclose(similarity(x.double(), y.double()).float(), plain, atol=1e-5)
    assert float(plain) < 0.99


def test_weights_of_0_load_nothing_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise AssertionError("asked for with a weight of 0")

    monkeypatch.setattr("cwic.training.flagship.objective.saliency_shares", refused)
    monkeypatch.setattr("cwic.training.flagship.objective._distance", refused)
    x, y = two_pictures()
    stage = FlagshipStage(name="one", steps=1, mse_weight=100.0)
    expected = 100 * (x - y).square().mean(dim=(1, 2, 3))
    assert torch.allclose(distortion(x, y, stage), expected)


def test_luma_and_chroma_are_those_of_jpeg() -> None:
    rng = np.random.default_rng(6)
    pixels = rng.integers(0, 256, (2, 16, 24, 3), np.uint8)
    x, y = (torch.from_numpy(part).permute(2, 0, 1)[None].float() / 255 for part in pixels)
    planes = [np.asarray(Image.fromarray(part).convert("YCbCr"), float) / 255 for part in pixels]
    squares = np.square(planes[0] - planes[1])
    luma, chroma = (found[0, 0].numpy() for found in luma_and_chroma_squares(x, y))
    np.testing.assert_allclose(luma, squares[..., 0], atol=0.01)  # Pillow rounds
    np.testing.assert_allclose(chroma, squares[..., 1:].mean(axis=2), atol=0.01)


def test_errors_of_luma_and_of_colour_have_weights_of_their_own() -> None:
    x, noisy = two_pictures()
    grey = x + (noisy - x).mean(dim=1, keepdim=True)
    stage = FlagshipStage(name="one", steps=1, mse_weight=0.0, luma_weight=50.0)
    in_colour = dataclasses.replace(stage, luma_weight=0.0, chroma_weight=50.0)
    expected = 50 * (x - grey).square()[:, 0].mean(dim=(1, 2))
    assert torch.allclose(distortion(x, grey, stage), expected)
    assert float(distortion(x, grey, in_colour).max()) < 1e-9
    assert float(distortion(x, noisy, in_colour).min()) > 1e-3
    # As the squared error itself, it counts by what a map asks for.
    doubled = torch.full((2, 1, 4, 4), 2.0)
    assert torch.allclose(distortion(x, grey, stage, doubled), 2 * expected)


@pytest.mark.parametrize(
    "line",
    [
        "chroma_weight = -1.0",
        "saliency_weight = 1.5",
        "perceptual_weight = -1.0",
        "saliency_weight = -0.1",
    ],
)
def test_weights_out_of_range_are_refused(line: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=line.partition(" ")[0]):
        load_config(recipe(tmp_path, f'[[stages]]\nname = "one"\nsteps = 1\n{line}\n'), FAMILIES)


def test_the_border_is_the_two_outermost_lines_of_each_side() -> None:
    reference = torch.zeros(2, 3, 40, 60)
    decoded = torch.full_like(reference, 0.1)
    decoded[1, :, 2:-2, 2:-2] = 0.7
    torch.testing.assert_close(border_error(reference, decoded), torch.tensor([0.01, 0.01]))
    decoded[0, :, 0] = 0.3  # 60 places of 4 * 60 + 4 * 36
    share = 60 / (4 * 60 + 4 * 36)
    expected = 0.01 + share * (0.09 - 0.01)
    assert border_error(reference, decoded)[0].item() == pytest.approx(expected, rel=1e-4)
    stage = FlagshipStage("one", 1, mse_weight=0.0, border_weight=100.0)
    torch.testing.assert_close(
        distortion(reference, decoded, stage), 100 * border_error(reference, decoded)
    )
    with pytest.raises(ValueError, match="border_weight must not be negative, found -1"):
        FlagshipStage("one", 1, border_weight=-1.0)
