"""Perceptual distances: against another implementation, and as losses."""

import sys
import types

import numpy as np
import pytest
import reference_haarpsi
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from cwic.errors import NotBuiltError  # noqa: E402
from cwic.evaluation.perceptual import haar_distance, haarpsi, load_distance  # noqa: E402
from cwic.evaluation.ssimulacra2_distance import ssimulacra2_distance  # noqa: E402
from cwic.ssimulacra2 import ssimulacra2  # noqa: E402
from cwic.ssimulacra2_sum import WEIGHTS  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def noisy(shape: tuple[int, ...], seed: int) -> tuple["torch.Tensor", "torch.Tensor"]:
    """A soft picture and one with errors, in [0, 255]."""
    generator = torch.Generator().manual_seed(seed)
    x = 255 * torch.rand(shape, generator=generator)
    x = torch.nn.functional.avg_pool2d(x, 5, 1, 2)
    return x, (x + 12 * torch.randn(shape, generator=generator)).clamp(0, 255)


@settings(max_examples=25, deadline=None)
@given(height=st.integers(2, 40), width=st.integers(2, 40), seed=st.integers(0, 99))
def test_haarpsi_is_that_of_an_implementation_by_running_sums(
    height: int, width: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    b = (a // 2 + rng.integers(0, 128, a.shape)).astype(np.uint8)
    assert haarpsi(a, b) == pytest.approx(reference_haarpsi.haarpsi(a, b), abs=1e-9)


def test_two_black_pictures_are_alike() -> None:
    black = np.zeros((32, 32, 3), np.uint8)
    assert haarpsi(black, black) == pytest.approx(1)


def test_equal_pictures_have_no_distance_and_worse_ones_more() -> None:
    distance = haar_distance
    x, y = noisy((2, 3, 64, 64), 1)
    worse = (x + 3 * (y - x)).clamp(0, 255)
    near, far = distance(x, y), distance(x, worse)
    assert near.shape == (2,)
    assert torch.allclose(distance(x, x), torch.zeros(2), atol=1e-5)
    assert (near > 1e-4).all()
    assert (far > near).all()


def test_a_step_down_the_gradient_brings_a_picture_nearer() -> None:
    distance = haar_distance
    x, y = noisy((1, 3, 64, 64), 2)
    y.requires_grad_()
    before = distance(x, y).sum()
    before.backward()
    gradient = y.grad
    assert torch.isfinite(gradient).all()
    with torch.no_grad():
        after = distance(x, y - 20 * gradient / gradient.abs().max())
    assert float(after) < float(before.detach())


def test_the_gradient_is_that_of_finite_differences() -> None:
    x, y = (t.double() for t in noisy((1, 3, 16, 16), 3))
    y.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: haar_distance(x, z), (y,), eps=1e-4, atol=1e-5)


def test_an_even_weight_is_none_and_a_place_of_weight_0_does_not_count() -> None:
    distance = haar_distance
    x, y = noisy((2, 3, 128, 128), 4)
    plain = distance(x, y)
    assert torch.allclose(distance(x, y, torch.full((2, 1, 8, 8), 0.3)), plain, rtol=1e-3)
    right = torch.zeros(2, 1, 8, 8)
    right[..., 4:] = 1
    only_left = torch.cat([y[..., :32], x[..., 32:]], dim=3)
    assert (distance(x, only_left, right) < 0.05 * distance(x, only_left)).all()


def test_the_real_lpips_is_used_where_its_package_works(monkeypatch: pytest.MonkeyPatch) -> None:
    class Network(torch.nn.Module):
        def __init__(self, net: str, spatial: bool, verbose: bool):
            super().__init__()
            assert (net, spatial, verbose) == ("alex", True, False)

        def forward(self, x: "torch.Tensor", y: "torch.Tensor") -> "torch.Tensor":
            assert x.min() >= -1
            assert x.max() <= 1
            return (x - y).square().mean(dim=1, keepdim=True)

    package = types.ModuleType("lpips")
    package.LPIPS = Network  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lpips", package)
    x, y = noisy((2, 3, 16, 16), 6)
    expected = ((x - y) / 127.5).square().mean(dim=(1, 2, 3))
    assert torch.allclose(load_distance("lpips")(x, y), expected)


def test_without_its_package_lpips_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(NotBuiltError, match="expected the package lpips"):
        load_distance("lpips")


def score_of(distance: float) -> float:
    """SSIMULACRA2 of the sum that it goes by."""
    cubic = 2.326765642916932 * distance
    cubic += -0.020884521182843837 * distance**2 + 6.248496625763138e-05 * distance**3
    return float(100 - 10 * cubic**0.6276336467831387)


def test_the_distance_of_ssimulacra2_is_what_the_package_has_its_score_from() -> None:
    pytest.importorskip("ssimulacra2")
    rng = np.random.default_rng(5)
    smooth = np.kron(rng.uniform(60, 190, (8, 9, 3)), np.ones((32, 32, 1)))
    x = (smooth + rng.normal(0, 6, smooth.shape)).round().clip(0, 255).astype(np.uint8)
    for noise in (4, 20):
        y = x.copy()
        # Inside: the package lets two borders fade to black.
        inside = np.s_[48:-48, 48:-48]
        y[inside] = (y[inside] + rng.normal(0, noise, y[inside].shape)).clip(0, 255)
        of = (torch.from_numpy(z.copy()).permute(2, 0, 1)[None].double() for z in (x, y))
        assert score_of(float(ssimulacra2_distance(*of))) == pytest.approx(
            ssimulacra2(x, y), abs=0.6
        )


def test_weights_of_ssimulacra2_are_those_of_the_package() -> None:
    package = pytest.importorskip("ssimulacra2.ssimulacra2")
    found: list[dict[tuple[int, int, int], float]] = [{} for _ in range(6)]
    for (channel, scale, way, kind), weight in np.ndenumerate(package.weights.reshape(3, 6, 2, 3)):
        if weight > 0.1:
            found[scale][channel, way, kind] = weight
    assert found == [*WEIGHTS, {}]


@pytest.mark.parametrize("side", [64, 200])
def test_the_distance_of_ssimulacra2_has_a_gradient_everywhere(side: int) -> None:
    x, y = noisy((2, 3, side, side), 3)
    y = torch.cat([y[:1], x[1:]])  # the second is equal, which is where roots have no slope
    y[:, :, :20] = -30  # decoded pictures leave the range of colours
    y.requires_grad_()
    distance = ssimulacra2_distance(x, y)
    distance.sum().backward()
    assert y.grad is not None
    assert torch.isfinite(y.grad).all()
    assert torch.allclose(ssimulacra2_distance(x, x), torch.zeros(2))
    with torch.no_grad():
        assert (ssimulacra2_distance(x, y - 0.5 * (y - x)) < distance).all()


def test_a_weight_moves_the_distance_of_ssimulacra2() -> None:
    x, y = noisy((1, 3, 64, 64), 4)
    y[..., :32] = x[..., :32]
    weight = torch.zeros(1, 1, 64, 64)
    weight[..., :16] = 1
    even = ssimulacra2_distance(x, y)
    assert ssimulacra2_distance(x, y, weight) < even / 2
    assert torch.allclose(ssimulacra2_distance(x, y, torch.ones_like(weight)), even)
