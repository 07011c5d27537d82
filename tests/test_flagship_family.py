"""The `flagship` family at run time: exact tables, one traversal, and the seam to torch."""

import copy
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from conftest import seeded_picture
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cwic import model_file
from cwic.codec import Codec
from cwic.coding.arithmetic_coder import BitCounter, BitEncoder
from cwic.errors import BitstreamError, ModelError
from cwic.families.flagship.coder import CodedLatents
from cwic.families.flagship.family import Flagship, FlagshipAnalysis, FlagshipCoded
from cwic.families.flagship.grid import LATENT_PX, Cells, Checkerboard, cells_of, taps
from cwic.families.flagship.latents import SideInformation, condition
from cwic.families.flagship.levels import MAX_LEVEL, centred_levels
from cwic.families.flagship.step_network import MAX_HYPER
from cwic.families.protocol import TileStream

if TYPE_CHECKING:
    from cwic.training.flagship.network import FlagshipNetwork

# A value this close to a decision may fall on either side of it.
NEAR = 1e-3

session_fixtures = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="session")
def family(tiny_flagship_path: Path) -> Flagship:
    return Flagship(model_file.load(tiny_flagship_path), threads=1)


@pytest.fixture(scope="session")
def stored(tiny_flagship_network: "FlagshipNetwork") -> "FlagshipNetwork":
    """The network as a model file stores it: weights in floating point rounded to float16."""
    import torch

    result = copy.deepcopy(tiny_flagship_network)
    with torch.no_grad():
        for name, parameter in result.named_parameters():
            if parameter.ndim == 4 and not name.startswith("scale_network"):
                parameter.copy_(parameter.half().float())
    return result


def padded(pixels: np.ndarray) -> np.ndarray:
    """To the picture's own cells, as both transforms see it."""
    rows, columns = (-side % LATENT_PX for side in pixels.shape[:2])
    return np.pad(pixels, ((0, rows), (0, columns), (0, 0)), mode="edge")


def random_coded(family: Flagship, seed: int, height: int, width: int, loud: float) -> Any:
    """Latents that no picture has, of any magnitude, and what codes them."""
    rng = np.random.default_rng(seed)
    cells = cells_of(height, width)
    shape = (cells.padded_height, cells.padded_width)
    y = rng.standard_normal((6, *shape)).astype(np.float32) * np.float32(loud)
    level = np.zeros(shape, np.int64)
    level[: cells.height, : cells.width] = rng.integers(
        -MAX_LEVEL, MAX_LEVEL + 1, (cells.height, cells.width)
    ) * rng.integers(0, 2)
    level = np.pad(
        level[: cells.height, : cells.width],
        ((0, shape[0] - cells.height), (0, shape[1] - cells.width)),
        mode="edge",
    )
    hyper = rng.integers(-MAX_HYPER, MAX_HYPER + 1, (3, shape[0] // 4, shape[1] // 4))
    q = int(rng.integers(-900, 900))
    counter = BitCounter()
    coded = family.coder.encode(counter, y, SideInformation(q, level, hyper), cells)
    return coded, counter, cells


def side_of(coded: CodedLatents) -> SideInformation:
    """What is known before the latents, in arrays of its own."""
    return SideInformation(coded.q, coded.level.copy(), coded.hyper.copy())


# --- the seam -------------------------------------------------------------------------------------


@pytest.mark.parametrize("q", [-500, 0, 250])
def test_torch_and_the_runtime_decide_alike_but_for_values_near_a_decision(
    q: int, stored: "FlagshipNetwork", family: Flagship
) -> None:
    """Step by step, from the same decisions before: the same tables, the same symbols."""
    import torch

    pixels = padded(seeded_picture(3))
    coded = family.analyze(pixels).code(q).tile(0)[1]
    with torch.no_grad():
        x = torch.tensor(pixels).permute(2, 0, 1)[None].float() / 255 - 0.5
        y, features = stored.analysis(x)
        importance = stored.importance_net(features)[0, 0].numpy()
        level, header_q = centred_levels(importance, q)
        close = np.abs((importance - importance.mean()) % 1 - 0.5) < NEAR
        cells = cells_of(*pixels.shape[:2])
        own = coded.level[: cells.height, : cells.width]
        np.testing.assert_array_equal(own[~close], level[~close])
        beyond = (cells.padded_height - cells.height, cells.padded_width - cells.width)
        assert max(beyond) > 0
        y = torch.nn.functional.pad(y, (0, beyond[1], 0, beyond[0]), "replicate")
        assert close.mean() < 0.05
        assert abs(header_q - coded.q) <= 64 * close.mean() + 1
        assert coded.level.any()

        planes = torch.tensor(condition(coded.q, coded.level))[None]
        z = stored.hyper_analysis(y, planes).clamp(-MAX_HYPER, MAX_HYPER)[0].numpy()
        close = np.abs(z % 1 - 0.5) < NEAR
        np.testing.assert_array_equal(coded.hyper[~close], np.floor(z + 0.5)[~close])

        z = torch.tensor(coded.hyper)[None].float()
        s = torch.tensor(coded.level)[None, None].float()
        told = torch.cat([s, torch.full_like(s, coded.q / 64)], dim=1)
        means, scales = stored.mean_network, stored.scale_network
        mean_state, scale_state = means.begin(z, planes), scales.begin(z, told)
        prior = means.activate(mean_state)
        np.testing.assert_allclose(coded.prior, prior[0].numpy(), atol=1e-4)
        colour = np.add.outer(np.arange(s.shape[2]), np.arange(s.shape[3])) % 2
        has_pixels = np.zeros(colour.shape, bool)
        has_pixels[: cells.height, : cells.width] = True
        gain = np.exp2((coded.level + coded.q / 64) / 4)
        total_bits = near = 0.0
        end = 0
        for group, channels in enumerate(stored.config.groups):
            end += channels
            own = slice(end - channels, end)
            for second in (0, 1):
                here = colour == second
                mean = means.predict(mean_state, group, second)[0].numpy()
                table = scales.table(scale_state, told, group, second)
                exact = (y[0, own].numpy() - mean) * gain
                close = np.abs(exact % 1 - 0.5) < NEAR * np.maximum(1, gain)
                wanted = np.floor(exact + 0.5)
                same = here & ~close & has_pixels
                np.testing.assert_array_equal(coded.symbols[own][same], wanted[same])
                near += float((here & close & has_pixels).sum())
                index = np.floor(table[0].clamp(0, 63).numpy() + 0.5).astype(int)
                symbols = coded.symbols[own]
                bits = family.coder._symbol_tables.bits
                inside = np.abs(symbols) <= 255
                assert inside.all()
                total_bits += float(bits[index, symbols + 255][:, here & has_pixels].sum())
                symbol = torch.where(torch.tensor(here), torch.tensor(symbols)[None].float(), 0)
                decoded = torch.where(torch.tensor(here), torch.tensor(coded.decoded[own])[None], 0)
                known = stored.magnitudes[symbol.abs().long()]
                known = torch.where(torch.tensor(here), known, 0.0)
                mean_state = means.absorb(mean_state, group, decoded)
                scale_state = scales.absorb(scale_state, group, known)
        assert near < 0.02 * coded.symbols.size

        cells = cells_of(*pixels.shape[:2])
        counter, everything = BitCounter(), BitCounter()
        family.coder.visit_side(counter, side_of(coded), cells)
        family.coder.encode(everything, y[0].numpy(), side_of(coded), cells)
        # The same number for every table, or the sum of the bits would differ.
        assert everything.bits == pytest.approx(counter.bits + total_bits, rel=1e-5)

        own = (..., slice(cells.height), slice(cells.width))
        decoded = torch.tensor(coded.decoded)[None]
        picture = stored.synthesis(decoded[own], prior[own], planes[own])[0]
        picture = picture.permute(1, 2, 0).numpy()
    expected = np.clip(picture * 255 + 127.5, 0, 255).round()
    tiling = family.tiling(*pixels.shape[:2], None)
    found = family.transforms.synthesize(lambda _: coded, tiling, tiling.picture).astype(float)
    assert np.abs(found - expected).max() <= 1
    assert (found != expected).mean() < 1e-2


def test_torch_and_the_runtime_show_the_same_preview(
    stored: "FlagshipNetwork", family: Flagship
) -> None:
    import torch

    pixels = seeded_picture(3)
    height, width = pixels.shape[:2]
    tiling = family.tiling(height, width, None)
    analyzed = family.analyze(pixels)
    coded = analyzed.code(200)
    payload = coded.payloads()
    found = family.decode(TileStream(payload, coded.q, tiling), tiling.picture, 8)
    with torch.no_grad():
        latents = coded.tile(0)[1]
        cells = cells_of(height, width)
        group, prior, planes = (
            torch.tensor(array)[None, :, : cells.height, : cells.width]
            for array in (latents.decoded[: stored.config.groups[0]], latents.prior, latents.planes)
        )
        picture = stored.preview(group, prior, planes)[0].permute(1, 2, 0).numpy()
    expected = np.clip(picture * 255 + 127.5, 0, 255).round()
    expected = expected[: -(-height // 8), : -(-width // 8)]
    assert found.std() > 1
    assert np.abs(found - expected).max() <= 1


def test_training_estimates_what_the_coder_spends(
    stored: "FlagshipNetwork", family: Flagship
) -> None:
    """Latents exactly; of an untrained network, levels and hyper-latents are full of surprises."""
    import torch

    pixels = padded(seeded_picture(5))
    x = torch.tensor(pixels).permute(2, 0, 1)[None].float() / 255 - 0.5
    for q in (-300, 200):
        with torch.no_grad():
            cells = torch.zeros(1, 1, pixels.shape[0] // 16, pixels.shape[1] // 16)
            output = stored(x, torch.tensor([q / 64]), cells)
        counter, coded = family.analyze(pixels).code(q).tile(0)
        cells = cells_of(*pixels.shape[:2])
        side, hyper = BitCounter(), BitCounter()
        family.coder.visit_side(side, side_of(coded), cells)
        family.coder.visit_hyper(hyper, coded.hyper.copy(), coded.q)
        latent_bits, level_bits = counter.bits - side.bits, side.bits - hyper.bits
        assert latent_bits == pytest.approx(float(output.latent_bits), rel=1e-3)
        # A table has at most 24 bits for a symbol, the law behind it any number.
        assert 0.6 * float(output.level_bits) < level_bits < 1.1 * float(output.level_bits)
        assert 0.6 * float(output.hyper_bits) < hyper.bits < 1.1 * float(output.hyper_bits)


@pytest.mark.parametrize("horizontal", [False, True])
def test_a_cut_entropy_model_is_that_of_tiles(
    horizontal: bool, stored: "FlagshipNetwork", family: Flagship
) -> None:
    """Transforms see across the line, latents of either side are coded without the other."""
    import torch

    from cwic.training.flagship.network import Cut

    height, width = (112, 64) if horizontal else (64, 112)
    pixels = np.tile(seeded_picture(21), (2, 2, 1))[:height, :width]
    tiling = family.tiling(height, width, 64)
    assert len(tiling.tiles) == 2
    coded = FlagshipAnalysis(family, pixels, tiling).code(-200)
    of_tiles = [coded.tile(number) for number in range(2)]
    x = torch.tensor(pixels).permute(2, 0, 1)[None].float() / 255 - 0.5
    q, flat = torch.tensor([-200 / 64]), torch.zeros(1, 1, height // 16, width // 16)
    with torch.no_grad():
        cut = stored(x, q, flat, cut=Cut(horizontal, 4))
        whole = stored(x, q, flat)
    latent_bits = 0.0
    for (counter, latents), tile in zip(of_tiles, tiling.tiles, strict=True):
        shared = BitCounter()
        cells = cells_of(tile.height, tile.width)
        family.coder.visit_side(shared, side_of(latents), cells)
        latent_bits += counter.bits - shared.bits
    assert latent_bits == pytest.approx(float(cut.latent_bits), rel=1e-3)
    assert latent_bits != pytest.approx(float(whole.latent_bits), rel=1e-3)
    picture = cut.reconstruction[0].permute(1, 2, 0).numpy()
    expected = np.clip(picture * 255 + 127.5, 0, 255).round()
    assert np.abs(coded.pixels() - expected).max() <= 1


# --- one traversal --------------------------------------------------------------------------------


@session_fixtures
@given(
    seed=st.integers(0, 2**32),
    height=st.integers(1, 150),
    width=st.integers(1, 150),
    loud=st.sampled_from([0.0, 0.1, 3.0, 200.0, 1e7]),
)
def test_what_is_coded_is_decoded_whatever_the_size_and_the_latents(
    seed: int, height: int, width: int, loud: float, family: Flagship
) -> None:
    coded, counter, cells = random_coded(family, seed, height, width, loud)
    payload = counter.payload()
    decoded = family.coder.decode(payload, coded.q, cells)
    for name in ("level", "hyper", "symbols", "decoded", "prior", "planes"):
        np.testing.assert_array_equal(getattr(decoded, name), getattr(coded, name))
    assert len(payload) <= counter.bits / 8 * 1.001 + 6
    assert not coded.symbols[:, cells.height :].any()
    assert not coded.symbols[:, :, cells.width :].any()


def test_counting_first_and_coding_at_once_give_the_same_bytes(family: Flagship) -> None:
    coded, counter, cells = random_coded(family, 7, 90, 120, 40.0)
    encoder = BitEncoder()
    again = family.coder.encode(encoder, coded.decoded, side_of(coded), cells)
    np.testing.assert_array_equal(again.symbols, coded.symbols)
    assert encoder.finish() == counter.payload()


def test_the_largest_symbols_are_coded_and_larger_ones_are_clipped(family: Flagship) -> None:
    cells = cells_of(64, 64)
    hyper, level = np.zeros((3, 1, 1), np.int64), np.zeros((4, 4), np.int64)
    y = np.zeros((6, 4, 4), np.float32)
    y[0, 0, 0], y[1, 0, 0], y[2, 1, 1] = 1e9, -1e9, 400
    counter = BitCounter()
    coded = family.coder.encode(counter, y, SideInformation(0, level, hyper), cells)
    assert (coded.symbols[0, 0, 0], coded.symbols[1, 0, 0]) == (65790, -65790)
    decoded = family.coder.decode(counter.payload(), 0, cells)
    np.testing.assert_array_equal(decoded.symbols, coded.symbols)


def test_a_flat_map_costs_a_bit(family: Flagship) -> None:
    counter, hyper_alone = BitCounter(), BitCounter()
    side = SideInformation(0, np.zeros((8, 8), np.int64), np.zeros((3, 2, 2), np.int64))
    family.coder.visit_side(counter, side, cells_of(128, 128))
    family.coder.visit_hyper(hyper_alone, side.hyper, side.q)
    assert counter.bits - hyper_alone.bits == pytest.approx(1)


@session_fixtures
@given(data=st.binary(max_size=300), q=st.integers(-4096, 4096))
def test_garbage_is_an_error_or_some_picture(data: bytes, q: int, family: Flagship) -> None:
    try:
        coded = family.coder.decode(data, q, cells_of(70, 130))
    except BitstreamError:
        return
    assert coded.symbols.shape == (6, 8, 12)
    assert np.abs(coded.level).max() <= MAX_LEVEL


@pytest.mark.parametrize("cut", [0.3, 0.7, 0.99])
def test_a_payload_cut_short_never_gives_the_same_symbols(cut: float, family: Flagship) -> None:
    coded, counter, cells = random_coded(family, 11, 64, 64, 30.0)
    payload = counter.payload()
    try:
        decoded = family.coder.decode(payload[: int(cut * len(payload))], coded.q, cells)
    except BitstreamError:
        return
    assert (decoded.symbols != coded.symbols).any()


def test_neighbourhoods_of_two_halves_are_those_of_the_grid() -> None:
    rng = np.random.default_rng(1)
    for height, width in ((4, 4), (4, 8), (12, 8)):
        board = Checkerboard(Cells(height, width, height, width))
        grid = rng.standard_normal((3, height, width))
        halves = board.halves(grid)
        np.testing.assert_array_equal(board.whole(halves), grid)
        kernel = rng.standard_normal((2, 3, 9))
        around = np.pad(grid, ((0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(around, (3, 3), axis=(1, 2))
        expected = board.halves(
            np.einsum("ock,chwk->ohw", kernel, windows.reshape(3, height, width, 9))
        )
        for to in (0, 1):
            found = sum(
                kernel[:, :, taps(colour, to)].reshape(2, -1)
                @ board.columns(board.padded(halves[colour]), colour, to)
                for colour in (0, 1)
            )
            np.testing.assert_allclose(found, expected[to], atol=1e-12)


def test_one_thread_and_two_give_the_same_bytes_and_the_same_pixels(
    tiny_flagship_path: Path,
) -> None:
    model = model_file.load(tiny_flagship_path)
    alone, two = (Flagship(model, threads) for threads in (1, 2))
    pixels = seeded_picture(11)
    tiling = alone.tiling(*pixels.shape[:2], None)
    assert two.transforms.two_threads(tiling)
    assert not alone.transforms.two_threads(tiling)
    coded, coded_by_two = (family.analyze(pixels).code(100) for family in (alone, two))
    assert coded.payloads() == coded_by_two.payloads()
    stream = TileStream(coded.payloads(), coded.q, tiling)
    decoded = [family.decode(stream, tiling.picture) for family in (alone, two)]
    np.testing.assert_array_equal(*decoded)
    np.testing.assert_array_equal(decoded[0], coded_by_two.pixels())
    with pytest.raises(BitstreamError):
        two.decode(stream._replace(payloads=[b"\xff" * 40]), tiling.picture)


def test_levels_keep_the_mean_that_was_asked_for() -> None:
    rng = np.random.default_rng(2)
    importance = (rng.standard_normal((9, 7)) * 5 + 40).astype(np.float32)
    level, q = centred_levels(importance, 100)
    assert np.abs(level).max() <= MAX_LEVEL
    assert abs(q + 64 * level.mean() - 100) <= 0.5


# --- the codec ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 5), (64, 64), (65, 130)])
def test_a_picture_of_any_size_comes_back_at_its_size(
    height: int, width: int, tiny_flagship_codec: Codec
) -> None:
    pixels = np.asarray(Image.fromarray(seeded_picture(2)).resize((width, height)))
    for quality in (0, 50, 100):
        data = tiny_flagship_codec.encode(pixels, quality=quality, lossless="never")
        assert tiny_flagship_codec.decode(data).size == (width, height)


def test_what_the_encoder_expects_is_what_the_decoder_shows(family: Flagship) -> None:
    pixels = seeded_picture(4)
    coded = family.analyze(pixels).code(77)
    assert isinstance(coded, FlagshipCoded)
    tiling = family.tiling(*pixels.shape[:2], None)
    stream = TileStream(coded.payloads(), coded.q, tiling)
    shown = family.decode(stream, tiling.picture)
    np.testing.assert_array_equal(shown, coded.pixels())
    assert shown.shape == pixels.shape


def test_sizes_that_were_asked_for_are_met(tiny_flagship_codec: Codec) -> None:
    pixels = seeded_picture(6)
    small = len(tiny_flagship_codec.encode(pixels, quality=0))
    large = len(tiny_flagship_codec.encode(pixels, quality=100))
    assert small < large
    wanted = round((small * large) ** 0.5)
    found = len(tiny_flagship_codec.encode(pixels, target_bytes=wanted))
    assert found == pytest.approx(wanted, rel=0.01, abs=8)
    assert len(tiny_flagship_codec.encode(pixels, target_bytes=wanted, strict=True)) <= wanted


def test_a_model_without_its_own_map_takes_masks(
    tiny_flagship_network: "FlagshipNetwork", tiny_flagship_path: Path
) -> None:
    import torch

    from cwic.training.flagship.export import AnalysisGraph
    from cwic.training.onnx_graph import Input, onnx_graph

    model = model_file.load(tiny_flagship_path)
    pixels = Input("pixels", torch.zeros(1, 64, 128, 3, dtype=torch.uint8), (1, 2))
    flat = AnalysisGraph(tiny_flagship_network, with_map=False)
    graphs = model.graphs | {"analysis": onnx_graph(flat, [pixels], ["latents", "importance"])}
    family = Flagship(dataclasses.replace(model, graphs=graphs), threads=1)
    pixels = seeded_picture(14)
    analysis = family.analyze(pixels)
    assert not analysis.code(0).level.any()
    emphasis = np.zeros(analysis.at(0).importance.shape, np.float32)
    emphasis[:, 0] = 1
    assert analysis.code(0, emphasis).level[:, 0].min() > 2


# --- damaged models -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean.to_16.weight": None}, "mean: expected a layer to_16"),
        ({"scale.head.3.bias": None}, "scale: expected a layer head.3"),
        ({"scale.head.3.weight": np.zeros((4, 7, 1, 1), np.int16)}, "head.3: expected"),
        ({"mean.hyper_64.weight": np.zeros((6, 3), np.float16)}, "hyper_64: expected"),
        ({"hyper_tables": None}, "hyper_tables"),
        ({"symbol_tables": np.zeros((64, 512), np.int32)}, "symbol_tables"),
        ({"level_tables": np.zeros((3, 41), np.int32)}, "level_tables"),
        ({"magnitudes": np.full(256, -1, np.int16)}, "magnitudes"),
        ({"magnitudes": np.full(256, 0.5, np.float32)}, "magnitudes"),
        ({"scale.head.0.weight": np.full((2, 8, 1, 1), 0.3, np.float32)}, "expected integers"),
        ({"scale.head.0.bias": np.full(2, 2**60)}, "not exact"),
        ({"scale.head.0.weight": np.full((2, 8, 1, 1), -(2**15), np.int16)}, "expected weights"),
        ({"mean.hyper_64.weight": np.zeros((6, 4, 3, 3), np.float16)}, "hyper-latents"),
        ({"scale.from_planes.weight": np.zeros((8, 3, 1, 1), np.int16)}, "planes"),
    ],
)
def test_a_model_whose_arrays_do_not_fit_is_refused(
    changes: dict[str, Any], message: str, tiny_flagship_path: Path
) -> None:
    model = model_file.load(tiny_flagship_path)
    arrays = {**model.arrays, **changes}
    broken = model_file.build(
        "broken",
        model.family,
        decoding=model.decoding,
        encoding=model.encoding,
        graphs=model.graphs,
        arrays={name: array for name, array in arrays.items() if array is not None},
    )
    with pytest.raises(ModelError, match=message):
        Codec(broken)


def test_a_model_of_the_family_by_its_former_name_is_refused(tiny_flagship_path: Path) -> None:
    """Whose files have identities that no model has any more."""
    model = model_file.load(tiny_flagship_path)
    assert model.family == "flagship"
    former = dataclasses.replace(model, family="cwic")
    with pytest.raises(ModelError, match="expected family cvpr2018 or flagship, found 'cwic'"):
        Codec(former)


def test_a_model_of_damaged_groups_is_refused(tiny_flagship_path: Path) -> None:
    model = model_file.load(tiny_flagship_path)
    for groups in ([], [0], ["a"], 3, [1] * 9):
        broken = model_file.build(
            "broken",
            model.family,
            decoding={"groups": groups, "padding_px": 16},
            encoding=model.encoding,
            graphs=model.graphs,
            arrays=model.arrays,
        )
        with pytest.raises(ModelError, match="groups"):
            Codec(broken)


def test_a_model_of_another_rule_for_borders_is_refused(tiny_flagship_path: Path) -> None:
    """As before own cells, when pictures were padded to multiples of 64 pixels."""
    model = model_file.load(tiny_flagship_path)
    for padding, found in (({}, "none"), ({"padding_px": 64}, "64")):
        old = model_file.build(
            "old",
            model.family,
            decoding={"groups": model.decoding["groups"], **padding},
            encoding=model.encoding,
            graphs=model.graphs,
            arrays=model.arrays,
        )
        assert old.identity != model.identity
        with pytest.raises(ModelError, match=f"expected padding_px 16, .* found {found}"):
            Codec(old)
