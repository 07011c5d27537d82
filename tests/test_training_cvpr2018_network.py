"""The `cvpr2018` network: shapes, and each proxy gradient against a loop from its formula."""

import math
from typing import get_args

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cwic.training.cvpr2018.binarizer import binarize  # noqa: E402
from cwic.training.cvpr2018.importance_map import (  # noqa: E402
    MaskGradient,
    kept_channels,
    prefix_mask,
    quantize_levels,
)
from cwic.training.cvpr2018.network import Cvpr2018Config, Cvpr2018Network  # noqa: E402

SMALL = 1 / 16


def test_the_binarizer_cuts_at_one_half_and_passes_gradients_inside_the_unit_interval() -> None:
    e = torch.tensor([-0.1, 0.0, 0.3, 0.5, 0.50001, 1.0, 1.2], requires_grad=True)
    bits = binarize(e)
    assert bits.tolist() == [0, 0, 0, 0, 1, 1, 1]
    weights = torch.arange(1.0, 8.0)
    (bits * weights).sum().backward()
    assert e.grad.tolist() == [0, 2, 3, 4, 5, 6, 0]


def test_levels_are_those_of_equation_4() -> None:
    p = torch.tensor([0.0, 0.0624, 0.0625, 0.5, 0.9374, 0.9375, 1.0])
    assert quantize_levels(p, 16).tolist() == [0, 0, 1, 8, 14, 15, 15]


@pytest.mark.parametrize("form", ["released", "paper"])
def test_the_mask_is_a_prefix_of_the_channels(form: str) -> None:
    p = torch.rand(2, 1, 4, 5)
    mask = prefix_mask(p, 12, 4, form)
    for b, y, x in np.ndindex(2, 4, 5):
        level = min(3, math.floor(4 * float(p[b, 0, y, x]) + 1e-5))
        kept = 3 * (level + 1) if form == "released" else 3 * level
        assert mask[b, :, y, x].tolist() == [1.0] * kept + [0.0] * (12 - kept)


def literal_mask_gradient(
    grad: np.ndarray, p: np.ndarray, n: int, levels: int, form: str, name: str
) -> np.ndarray:
    """The three gradients, number by number."""
    result = np.zeros_like(p)
    for b, _, y, x in np.ndindex(*p.shape):
        value = float(p[b, 0, y, x])
        level = min(levels - 1, math.floor(levels * value + 1e-5))
        kept = n // levels * (level + 1 if form == "released" else level)
        for k in range(1, n + 1):
            if name == "global":
                factor = 1.0
            elif name == "window":
                l_of_k = math.ceil(k * levels / n)
                factor = levels if levels * value - 1 <= l_of_k < levels * value + 2 else 0.0
            else:
                zero_based = k - 1
                first, last = max(0, kept - n // levels), min(n, kept + n // levels)
                factor = levels if first <= zero_based < last else 0.0
            result[b, 0, y, x] += factor * grad[b, k - 1, y, x]
    return result


@pytest.mark.parametrize("form", ["released", "paper"])
@pytest.mark.parametrize("name", get_args(MaskGradient))
@pytest.mark.parametrize(("n", "levels"), [(64, 16), (12, 4), (128, 32)])
def test_the_mask_gradient_equals_its_formula(form: str, name: str, n: int, levels: int) -> None:
    rng = np.random.default_rng(7)
    p = rng.random((2, 1, 3, 4)).astype(np.float32)
    p[0, 0, 0, :] = [0.0, 1.0, 0.5, 1 / levels]
    grad = rng.normal(size=(2, n, 3, 4)).astype(np.float32)
    tensor = torch.tensor(p, requires_grad=True)
    prefix_mask(tensor, n, levels, form, name).backward(torch.tensor(grad))
    expected = literal_mask_gradient(grad, p, n, levels, form, name)
    np.testing.assert_allclose(tensor.grad.numpy(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("variant", ["released", "paper"])
@pytest.mark.parametrize("size", [(16, 16), (24, 40)])
def test_the_network_returns_pictures_of_the_size_it_got(
    variant: str, size: tuple[int, int]
) -> None:
    network = Cvpr2018Network(Cvpr2018Config(width=SMALL, variant=variant))
    x = torch.rand(2, 3, *size) * 2 - 1
    output = network(x, 0.0)
    assert output.reconstruction.shape == x.shape
    assert output.code.shape == (2, 64, size[0] // 8, size[1] // 8)
    assert output.importance.shape == (2, 1, size[0] // 8, size[1] // 8)
    assert set(output.code.unique().tolist()) <= {0.0, 1.0}


def test_the_released_network_has_the_released_number_of_parameters() -> None:
    network = Cvpr2018Network(Cvpr2018Config())

    def millions(*parts: torch.nn.Module) -> float:
        return sum(p.numel() for part in parts for p in part.parameters()) / 1e6

    assert millions(network.analysis, network.to_code) == pytest.approx(2.63, abs=0.01)
    assert millions(network.importance_net) == pytest.approx(0.295, abs=0.001)
    assert millions(network.synthesis) == pytest.approx(5.91, abs=0.01)


def test_a_higher_rate_offset_never_keeps_fewer_bits() -> None:
    torch.manual_seed(0)
    network = Cvpr2018Network(Cvpr2018Config(width=SMALL))
    x = torch.rand(1, 3, 64, 64) * 2 - 1
    kept = [float(network(x, offset).kept_fraction.mean()) for offset in (-3, -1, 0, 1, 2)]
    assert kept == sorted(kept)
    assert kept[0] < kept[-1]


def test_switches_give_the_plain_autoencoder_and_the_binary_codec() -> None:
    x = torch.rand(1, 3, 16, 16) * 2 - 1
    plain = Cvpr2018Config(width=SMALL, binarizer=False, importance_map=False)
    output = Cvpr2018Network(plain)(x)
    assert output.importance is None
    assert len(output.code.unique()) > 2
    binary = Cvpr2018Config(width=SMALL, importance_map=False)
    output = Cvpr2018Network(binary)(x)
    assert output.importance is None
    assert set(output.code.unique().tolist()) <= {0.0, 1.0}
    full = Cvpr2018Network(Cvpr2018Config(width=SMALL))
    assert full(x, with_map=False).importance is None


def test_kept_channels_differ_by_one_level_between_paper_and_release() -> None:
    level = torch.arange(4.0)
    assert kept_channels(level, 8, 4, "paper").tolist() == [0, 2, 4, 6]
    assert kept_channels(level, 8, 4, "released").tolist() == [2, 4, 6, 8]


def test_levels_that_do_not_divide_the_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="divide"):
        Cvpr2018Config(code_channels=64, levels=10)


def test_codes_and_maps_are_the_same_under_autocast() -> None:
    torch.manual_seed(0)
    network = Cvpr2018Network(Cvpr2018Config(width=SMALL)).eval()
    x = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        code, logits = network.analyze(x)
        with torch.autocast("cpu", torch.bfloat16):
            code_there, logits_there = network.analyze(x)
            picture = network.synthesis((code_there > 0.5).float())
    assert logits is not None
    assert logits_there is not None
    assert torch.equal(code, code_there)
    assert torch.equal(logits, logits_there)
    assert picture.dtype == torch.bfloat16
