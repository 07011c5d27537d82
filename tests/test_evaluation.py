"""Evaluation: metrics and BD-rate against closed forms, and `cwic evaluate` from words to files."""

import csv
import io
import json
import math
import re
import sys
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
from conftest import seeded_picture
from PIL import Image, JpegImagePlugin

torch = pytest.importorskip("torch")
pytest.importorskip("scipy")
pytest.importorskip("matplotlib")
pytest.importorskip("ssimulacra2")

from cwic.cli import main as cli  # noqa: E402
from cwic.errors import CodecError, NotBuiltError  # noqa: E402
from cwic.evaluation import anchors, report  # noqa: E402
from cwic.evaluation.anchors import ANCHORS, Contestant, contestant  # noqa: E402
from cwic.evaluation.benchmark import evaluate  # noqa: E402
from cwic.evaluation.measurement import Job, Measured  # noqa: E402
from cwic.evaluation.metrics import measure  # noqa: E402
from cwic.evaluation.perceptual import haarpsi  # noqa: E402
from cwic.evaluation.quality import METRICS, decibel  # noqa: E402
from cwic.evaluation.rate_distortion import bd_rate, published_curves  # noqa: E402
from cwic.ssimulacra2 import ssimulacra2  # noqa: E402

SAMPLES = Path(__file__).parent.parent / "examples" / "samples"

PILLOW_ANCHORS = ("jpeg", "jpeg2000", "webp", "avif", "avif-444")

# --- metrics --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pattern() -> np.ndarray:
    """(176, 168, 3) uint8 that every machine computes alike: integers only."""
    y, x = np.mgrid[0:176, 0:168]
    planes = [(x * x + 3 * y) // 7 % 256, (x * y) // 31 % 256, (5 * x + 2 * y) % 256]
    return np.stack(planes, axis=-1).astype(np.uint8)


def test_a_picture_is_perfectly_like_itself(pattern: np.ndarray, one_torch_thread: None) -> None:
    quality = measure(pattern, pattern)
    assert quality.psnr_rgb_db == quality.psnr_y_db == math.inf
    for value in (quality.ssim_rgb, quality.ssim_y, quality.ms_ssim_rgb, quality.haarpsi):
        assert value == pytest.approx(1, abs=1e-6)
    assert quality.grid_ratio == 1
    assert quality.block_color_error == 0


def test_the_psnr_of_a_constant_error_is_its_closed_form(one_torch_thread: None) -> None:
    grey = np.full((64, 128, 3), 100, np.uint8)
    quality = measure(grey, grey + np.array([6, 0, 0], np.uint8))
    assert quality.psnr_rgb_db == pytest.approx(10 * math.log10(255**2 / (36 / 3)), abs=1e-6)
    assert quality.psnr_y_db == pytest.approx(20 * math.log10(255 / (0.299 * 6)), abs=1e-6)
    assert quality.block_color_error == 6


def test_the_ssim_of_two_flat_pictures_is_its_luminance_term(one_torch_thread: None) -> None:
    flat = np.full((32, 32, 3), 100, np.uint8)
    c1 = (0.01 * 255) ** 2
    expected = (2 * 100 * 120 + c1) / (100**2 + 120**2 + c1)
    quality = measure(flat, np.full_like(flat, 120))
    assert quality.ssim_rgb == pytest.approx(expected, abs=1e-6)
    assert quality.ssim_y == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("width", "ssim", "ms_ssim"), [(168, 0.8599928, 0.9804880), (163, 0.8589871, 0.9808938)]
)
def test_ssim_and_ms_ssim_are_those_of_pytorch_msssim(
    pattern: np.ndarray, width: int, ssim: float, ms_ssim: float, one_torch_thread: None
) -> None:
    # By pytorch-msssim 1.0.0 in double precision; its window is in single precision.
    quality = measure(pattern[:, :width], pattern[:, :width] // 24 * 24 + 12)
    assert quality.ssim_rgb == pytest.approx(ssim, abs=2e-6)
    assert quality.ms_ssim_rgb == pytest.approx(ms_ssim, abs=2e-6)


def test_what_a_small_picture_cannot_have_is_nan_and_not_an_error(one_torch_thread: None) -> None:
    small = np.full((8, 8, 3), 100, np.uint8)
    quality = measure(small, small + np.uint8(1))
    assert math.isnan(quality.ssim_rgb)
    assert math.isnan(quality.ms_ssim_rgb)
    assert math.isnan(quality.ssimulacra2)
    assert math.isnan(quality.edge_ratio)
    assert math.isnan(quality.corner_ratio)
    assert math.isnan(quality.grid_ratio)
    assert quality.block_color_error == 1


def test_pictures_of_two_sizes_are_refused(pattern: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"\(176, 168, 3\), found \(100, 168, 3\)"):
        measure(pattern, pattern[:100])


@pytest.mark.parametrize(
    ("distort", "expected"),
    [
        (lambda x: x // 32 * 32 + 16, 0.83913),
        (lambda x: np.roll(x, 1, axis=1), 0.63475),
        (lambda x: x[:, :, ::-1], 0.59120),
    ],
)
def test_haarpsi_is_that_of_piq(
    pattern: np.ndarray, distort: Callable[[np.ndarray], np.ndarray], expected: float
) -> None:
    # By piq 0.8.0, whose own test compares it with the authors' MATLAB to 1e-4; its YIQ matrix has
    # a fourth decimal, ours is the authors'.
    assert haarpsi(pattern, distort(pattern)) == pytest.approx(expected, abs=2e-4)


def test_haarpsi_is_symmetric_and_falls_with_the_error(pattern: np.ndarray) -> None:
    coarse, coarser = pattern // 16 * 16 + 8, pattern // 64 * 64 + 32
    assert haarpsi(pattern, coarse) == pytest.approx(haarpsi(coarse, pattern))
    assert 1 > haarpsi(pattern, coarse) > haarpsi(pattern, coarser) > 0


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """(225, 240, 3) uint8: as small as SSIMULACRA2 takes it."""
    with Image.open(SAMPLES / "chelsea.png") as file:
        return np.asarray(file.convert("RGB"))[20:245, 90:330]


def test_ssimulacra2_rises_with_the_quality_of_jpeg_up_to_100_for_the_picture_itself(
    photo: np.ndarray,
) -> None:
    jpeg, image = contestant("jpeg"), Image.fromarray(photo)
    of_quality = [
        ssimulacra2(photo, np.asarray(jpeg.decode(jpeg.encode(image, quality))))
        for quality in (5, 20, 50, 80, 95)
    ]
    assert of_quality == sorted(of_quality)
    assert of_quality[0] < 10
    assert 85 < of_quality[-1] < 100
    assert ssimulacra2(photo, photo) == 100


def test_ssimulacra2_needs_sides_for_all_of_its_six_scales(photo: np.ndarray) -> None:
    other = photo // 16 * 16
    assert math.isfinite(ssimulacra2(photo, other))
    assert math.isnan(ssimulacra2(photo[:-1], other[:-1]))
    with pytest.raises(ValueError, match=r"\(225, 240, 3\), found \(225, 239, 3\)"):
        ssimulacra2(photo, other[:, :-1])


def test_without_its_package_ssimulacra2_says_so(
    photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ssimulacra2", None)
    with pytest.raises(NotBuiltError, match=r"found none: pip install 'cwic\[evaluate\]'"):
        ssimulacra2(photo, photo)


# --- BD-rate --------------------------------------------------------------------------------------

RATES = np.array([0.1, 0.2, 0.3, 0.5, 0.7, 1.0])
PSNR = 30 + 6 * np.log2(RATES)


def test_files_smaller_by_a_tenth_at_every_quality_are_minus_ten_percent() -> None:
    rate = bd_rate((RATES, PSNR), (0.9 * RATES, PSNR))
    assert rate is not None
    assert rate.percent == pytest.approx(-10, abs=1e-6)
    assert (rate.low_bpp, rate.high_bpp) == pytest.approx((0.1, 1.0))


def test_a_shift_in_quality_is_worth_its_rate_on_a_straight_line() -> None:
    rate = bd_rate((RATES, PSNR), (RATES, PSNR + 1))  # 6 dB for each doubling
    assert rate is not None
    assert rate.percent == pytest.approx(100 * (2 ** (-1 / 6) - 1), abs=1e-6)


def test_the_numbers_of_points_and_their_order_do_not_matter() -> None:
    dense = np.geomspace(0.05, 2, 40)[::-1]
    rate = bd_rate((RATES, PSNR), (0.9 * dense, 30 + 6 * np.log2(dense)))
    assert rate is not None
    assert rate.percent == pytest.approx(-10, abs=1e-6)


def test_nothing_outside_the_anchors_tenth_to_one_bpp_counts() -> None:
    rates = np.array([0.02, 0.05, 0.1, 0.3, 0.6, 1.0, 2.0, 4.0])
    psnr = 30 + 6 * np.log2(rates)
    worse_outside = np.where((rates < 0.1) | (rates > 1), 3.0, 0.9) * rates
    order = np.argsort(worse_outside)
    inside = bd_rate((rates, psnr), (worse_outside[order][1:-1], psnr[order][1:-1]))
    assert inside is not None
    assert inside.low_bpp == pytest.approx(0.1)
    assert inside.high_bpp == pytest.approx(1.0)


def test_curves_without_a_common_range_have_no_bd_rate() -> None:
    assert bd_rate((RATES, PSNR), (RATES, PSNR + 100)) is None
    assert bd_rate((RATES, PSNR), (RATES[:1], PSNR[:1])) is None


def test_a_point_that_a_cheaper_one_beats_does_not_count() -> None:
    rates, psnr = np.append(RATES, 0.6), np.append(PSNR, 20)
    assert bd_rate((RATES, PSNR), (rates, psnr)) == bd_rate((RATES, PSNR), (RATES, PSNR))


def test_bd_rate_is_that_of_the_bjontegaard_package() -> None:
    bjontegaard = pytest.importorskip("bjontegaard")
    bpg, vtm = (
        next(curve for curve in published_curves() if curve.label == label)
        for label in ("BPG 4:4:4", "VTM")
    )
    psnr = METRICS[0]
    anchor, test = (tuple(np.array(c.of(psnr))[:, 1:5]) for c in (bpg, vtm))
    inside = anchor[0] <= 1
    anchor = (anchor[0][inside], anchor[1][inside])
    expected = bjontegaard.bd_rate(
        *anchor, *test, method="pchip", require_matching_points=False, min_overlap=0
    )
    rate = bd_rate(anchor, test)
    assert rate is not None
    assert rate.percent == pytest.approx(expected, abs=1e-6)


def test_decibels_of_ms_ssim_have_their_closed_form() -> None:
    assert decibel(0.99) == pytest.approx(20)
    assert decibel(1) == math.inf


def test_published_curves_rise_and_name_their_source() -> None:
    curves = published_curves()
    drawn = {curve.label.partition(" (")[0] for curve in curves if curve.drawn}
    assert drawn == set(
        "BPG 4:4:4,VTM,hyperprior,mean-scale,cheng2020,ELIC,TPAMI 2020,CCN".split(",")
    )
    for curve in curves:
        assert curve.source
        assert curve.licence
        assert list(curve.rates_bpp) == sorted(curve.rates_bpp)
        assert curve.of(METRICS[0])[0] or curve.of(METRICS[4])[0]


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of two small pictures."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(2):
        Image.fromarray(seeded_picture(number)[: 60 + 2 * number]).save(
            folder / f"{'ab'[number]}.png"
        )
    return folder


@pytest.fixture
def few_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """JPEG at three qualities only."""

    def jpeg() -> Contestant:
        full = _JPEG()
        return Contestant(**{**vars(full), "settings": full.settings[::3]})

    monkeypatch.setitem(ANCHORS, "jpeg", jpeg)


_JPEG = ANCHORS["jpeg"]


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of tests that look at points: curves of all metrics take longer than these."""
    monkeypatch.setattr("cwic.evaluation.benchmark.measured_metrics", lambda _: METRICS[:1])


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.mark.parametrize("name", ANCHORS)
def test_an_anchor_writes_larger_files_at_higher_settings(name: str) -> None:
    if name not in anchors.default_names():
        pytest.skip(f"{name} is not installed")
    codec = contestant(name)
    assert len(codec.settings) >= 7
    image = Image.fromarray(seeded_picture(3))
    low, high = (codec.encode(image, codec.settings[place]) for place in (0, -1))
    assert len(low) < len(high)
    decoded = codec.decode(high)
    assert (decoded.size, decoded.mode) == (image.size, "RGB")
    versions = json.loads(codec.facts)
    assert versions["pillow" if name in PILLOW_ANCHORS else anchors._MODULES[name]]


@pytest.mark.parametrize("name", ["jpeg", "webp", "avif", "avif-444"])
def test_the_label_of_an_anchor_says_the_subsampling_of_its_files(name: str) -> None:
    if name not in anchors.default_names():
        pytest.skip(f"{name} is not installed")
    codec = contestant(name)
    data = codec.encode(Image.fromarray(seeded_picture(3)), codec.settings[-1])
    found = {"jpeg": subsampling_of_jpeg, "webp": subsampling_of_webp}.get(
        name, subsampling_of_avif
    )(data)
    assert codec.label.endswith(f" {found}")


def subsampling_of_jpeg(data: bytes) -> str:
    with Image.open(io.BytesIO(data)) as image:
        return ("4:4:4", "4:2:2", "4:2:0")[JpegImagePlugin.get_sampling(image)]


def subsampling_of_webp(data: bytes) -> str:
    assert data[12:16] == b"VP8 "  # with losses, which is 4:2:0 by RFC 6386
    return "4:2:0"


def subsampling_of_avif(data: bytes) -> str:
    flags = data[data.index(b"av1C") + 6]
    return {0b00: "4:4:4", 0b10: "4:2:2", 0b11: "4:2:0"}[flags >> 2 & 0b11]


def test_an_unknown_codec_is_answered_with_the_known_ones() -> None:
    with pytest.raises(CodecError, match="gif: expected one of jpeg, jpeg2000"):
        contestant("gif")


def test_an_effort_is_part_of_a_models_name() -> None:
    plain, refined = (contestant(f"cwic:cwic-psnr{end}") for end in ("", "@effort=3"))
    assert (plain.effort, refined.effort) == (0, 3)
    assert refined.label == "cwic-psnr, effort 3"
    assert plain.facts != refined.facts
    assert contestant("jpeg").effort is None
    for wrong in ("cwic:cwic-psnr@effort=0", "cwic:cwic-psnr@effort=10"):
        with pytest.raises(CodecError, match="expected an effort from 1 to 9"):
            contestant(wrong)
    with pytest.raises(CodecError, match="cwic:MODEL@effort=1 to 9"):
        contestant("jpeg@effort=3")


def test_a_run_compares_an_effort_with_the_model_without(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anchors, "_QUALITIES", (10.0, 40.0))
    picture = next(pictures.iterdir())
    names = ["cwic:cwic-psnr", "cwic:cwic-psnr@effort=3"]
    evaluate([picture], tmp_path, codecs=names)
    assert [point["effort"] for point in rows_of(tmp_path / "points.csv")] == ["0", "0", "3", "3"]
    averages = rows_of(tmp_path / "averages.csv")
    assert {(row["codec"], row["effort"]) for row in averages} == {(names[0], "0"), (names[1], "3")}
    (psnr,) = (
        row
        for row in rows_of(tmp_path / "bd_rate.csv")
        if row["metric"] == "psnr_rgb_db" and row["anchor"] == "cwic-psnr"
    )
    assert psnr["codec"] == "cwic-psnr, effort 3"
    assert float(psnr["bd_rate_percent"]) < 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "cwic-psnr, effort 3" in page


def test_an_anchor_that_is_not_installed_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(anchors, "find_spec", lambda name: None)
    with pytest.raises(NotBuiltError, match="pip install imagecodecs"):
        contestant("jpegxl")
    assert "jpegxl" not in anchors.default_names()


def test_a_run_writes_tables_curves_and_a_page(
    pictures: Path,
    tmp_path: Path,
    tiny_model_path: Path,
    few_settings: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, ours = tmp_path / "results", f"cwic:{tiny_model_path}"
    words = ["evaluate", str(pictures), "--codecs", "jpeg", ours, "--out", str(out), "--quiet"]
    assert cli.main(words) == 0
    points = rows_of(out / "points.csv")
    assert len(points) == 2 * (3 + 8)
    for point in points:
        pixels = int(point["width_px"]) * int(point["height_px"])
        assert float(point["bpp"]) == pytest.approx(8 * int(point["file_bytes"]) / pixels)
        assert -1 < float(point["ssim_rgb"]) <= 1
        assert float(point["encode_s"]) > 0
    averages = rows_of(out / "averages.csv")
    assert {row["codec"] for row in averages} == {"jpeg", ours}
    first = [p for p in points if (p["codec"], p["setting"]) == ("jpeg", "2.0")]
    mean = next(r for r in averages if (r["codec"], r["setting"]) == ("jpeg", "2.0"))
    assert float(mean["psnr_y_db"]) == pytest.approx(
        sum(float(point["psnr_y_db"]) for point in first) / 2
    )
    assert float(mean["block_color_error"]) == max(float(p["block_color_error"]) for p in first)
    schema = json.loads((out / "compressai" / "jpeg.json").read_text())
    assert {"name", "description", "results"} <= set(schema)
    assert {"bpp", "psnr-rgb", "encoding_time", "decoding_time"} <= set(schema["results"])
    assert len({len(values) for values in schema["results"].values()}) == 1
    found = {row["metric"] for row in rows_of(out / "bd_rate.csv")}  # too small for the others
    assert found == {"psnr_rgb_db", "psnr_y_db", "ssim_rgb", "ssim_y", "haarpsi"}
    assert "against JPEG" in (out / "bd_rate.md").read_text()
    assert {path.suffix for path in (out / "curves").iterdir()} == {".png", ".svg"}
    page = (out / "report.html").read_text()
    assert "cwic evaluate" in page
    assert page.count('class="comparison"') == 2
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)

    def never(*_: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr("cwic.evaluation.measurement._measure", never)
    assert cli.main([word for word in words if word != "--quiet"]) == 0
    assert "0 points measured, 22 from before, 0 failed" in capsys.readouterr().out


def test_a_point_is_measured_again_if_what_it_depends_on_has_changed(
    pictures: Path,
    tmp_path: Path,
    few_settings: None,
    no_plots: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, out = pictures / "a.png", tmp_path / "results"
    assert evaluate([path], out, codecs=["jpeg"]).measured == 3
    path = path.rename(pictures / "renamed.png")
    assert evaluate([path], out, codecs=["jpeg"]).measured == 0
    Image.fromarray(seeded_picture(9)).save(path)
    assert evaluate([path], out, codecs=["jpeg"]).measured == 3
    before = ANCHORS["jpeg"]
    monkeypatch.setitem(
        ANCHORS, "jpeg", lambda: Contestant(**{**vars(before()), "facts": '{"pillow": "next"}'})
    )
    monkeypatch.setattr("cwic.evaluation.measurement._warm_contestant", contestant)
    assert evaluate([path], out, codecs=["jpeg"]).measured == 3


def test_an_interrupted_line_of_the_points_is_measured_again(
    pictures: Path, tmp_path: Path, few_settings: None, no_plots: None
) -> None:
    path, out = pictures / "a.png", tmp_path / "results"
    evaluate([path], out, codecs=["jpeg"])
    points = out / "points.jsonl"
    points.write_text(points.read_text()[:-40])
    assert evaluate([path], out, codecs=["jpeg"]).measured == 1
    assert evaluate([path], out, codecs=["jpeg"]).measured == 0


def test_what_fails_is_named_and_the_rest_goes_on(
    pictures: Path,
    tmp_path: Path,
    few_settings: None,
    no_plots: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (pictures / "broken.png").write_bytes(b"not a picture")
    with Image.open(pictures / "a.png") as unlucky:
        unlucky_size = unlucky.size

    def encode(image: Image.Image, setting: float) -> bytes:
        if image.size == unlucky_size:
            raise RuntimeError("no such luck")
        return ANCHORS["jpeg"]().encode(image, setting)

    moody = Contestant(**{**vars(ANCHORS["jpeg"]()), "name": "moody", "encode": encode})
    monkeypatch.setitem(ANCHORS, "moody", lambda: moody)
    words = ["evaluate", str(pictures), str(tmp_path / "none.png"), "--out", str(tmp_path / "out")]
    assert cli.main([*words, "--codecs", "jpeg", "moody", "--quiet"]) == 1
    err = capsys.readouterr().err
    assert "none.png: no such file" in err
    assert f"error: {pictures / 'broken.png'}: found no picture" in err
    assert "a.png, moody: no such luck" in err
    assert len(rows_of(tmp_path / "out" / "points.csv")) == 3 * 3
    assert {row["pictures"] for row in rows_of(tmp_path / "out" / "averages.csv")} == {"1"}
    assert "no such luck" in (tmp_path / "out" / "report.html").read_text()


def test_a_setting_that_fails_does_not_take_the_others_along(
    pictures: Path,
    tmp_path: Path,
    few_settings: None,
    no_plots: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jpeg = ANCHORS["jpeg"]()
    with Image.open(pictures / "a.png") as unlucky:
        unlucky_size = unlucky.size

    def encode(image: Image.Image, setting: float) -> bytes:
        if image.size == unlucky_size and setting == jpeg.settings[1]:
            raise RuntimeError("not this one")
        return jpeg.encode(image, setting)

    picky = Contestant(**{**vars(jpeg), "name": "picky", "encode": encode})
    monkeypatch.setitem(ANCHORS, "picky", lambda: picky)
    out = tmp_path / "out"
    words = ["evaluate", str(pictures), "--out", str(out), "--codecs", "jpeg", "picky"]
    assert cli.main(words) == 1
    said = capsys.readouterr()
    assert f"a.png, picky at {jpeg.settings[1]:g}: not this one" in said.err
    assert "11 points measured, 0 from before, 1 failed" in said.out
    assert len(rows_of(out / "points.csv")) == 2 * 3 + 3 + 2
    assert {row["pictures"] for row in rows_of(out / "averages.csv")} == {"1"}
    # Only what failed is tried again.
    assert cli.main(words) == 1
    assert "0 points measured, 11 from before, 1 failed" in capsys.readouterr().out


def test_without_a_picture_that_all_codecs_share_the_points_are_still_written(
    pictures: Path,
    tmp_path: Path,
    few_settings: None,
    no_plots: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = []
    for name in ("a.png", "b.png"):
        with Image.open(pictures / name) as image:
            sizes.append(image.size)
    assert sizes[0] != sizes[1]

    def refusing(size: tuple[int, int]) -> Contestant:
        jpeg = ANCHORS["jpeg"]()

        def encode(image: Image.Image, setting: float) -> bytes:
            # The picture that warms a codec up is of a third size.
            if image.size == size:
                raise RuntimeError("not mine")
            return jpeg.encode(image, setting)

        return Contestant(**{**vars(jpeg), "name": f"not-{size}", "encode": encode})

    codecs = [refusing(size) for size in sizes]
    for codec in codecs:
        monkeypatch.setitem(ANCHORS, codec.name, lambda codec=codec: codec)
    out = tmp_path / "out"
    words = ["evaluate", str(pictures), "--out", str(out), "--codecs", *(c.name for c in codecs)]
    assert cli.main(words) == 1
    assert capsys.readouterr().err.count("not mine") == 2
    assert len(rows_of(out / "points.csv")) == 2 * 3
    assert "no picture that all codecs share" in (out / "report.html").read_text()


class FragilePool:
    """Stands for a pool of processes, one of which a codec takes down: then all of it is lost."""

    def __init__(self, deadly: str):
        self._deadly, self._broken = deadly, False

    def __enter__(self) -> "FragilePool":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, measure_job: Callable[[Job], Measured], job: Job) -> "Future[Measured]":
        future: Future[Measured] = Future()
        self._broken = self._broken or job.codec == self._deadly
        if self._broken:
            future.set_exception(BrokenProcessPool("a process ended"))
        else:
            future.set_result(measure_job(job))
        return future

    def shutdown(self, cancel_futures: bool) -> None:
        pass


def test_a_codec_that_takes_its_process_down_is_named_and_the_rest_goes_on(
    pictures: Path,
    tmp_path: Path,
    few_settings: None,
    no_plots: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jpeg = ANCHORS["jpeg"]()
    monkeypatch.setitem(ANCHORS, "deadly", lambda: Contestant(**{**vars(jpeg), "name": "deadly"}))
    monkeypatch.setattr(
        "cwic.evaluation.measurement._pool", lambda processes: FragilePool("deadly")
    )
    found = evaluate(
        sorted(pictures.iterdir()), tmp_path / "out", codecs=["deadly", "jpeg"], processes=2
    )
    assert [Path(f.image).name for f in found.failures] == ["a.png", "b.png"]
    assert {f.codec for f in found.failures} == {"deadly"}
    assert "found its process ended" in str(found.failures[0])
    assert found.measured == 2 * 3


def test_the_slider_page_escapes_names_and_needs_nothing_from_elsewhere() -> None:
    pixels = np.zeros((4, 6, 3), np.uint8)
    versions = (report.Version("<b>", pixels, "1 B"), report.Version("other", pixels, "2 B"))
    html = report.page("a & b", [("c", report.comparison(report.Comparison("<i>", versions)))])
    assert "<b>" not in html
    assert "<i>" not in html
    assert "a &amp; b" in html
    assert 'type="range"' in html
    assert "http" not in html


@pytest.mark.slow
def test_processes_give_what_one_process_gives(pictures: Path, tmp_path: Path) -> None:
    paths = sorted(pictures.iterdir())
    evaluate(paths, tmp_path / "one", codecs=["jpeg"])
    evaluate(paths, tmp_path / "two", codecs=["jpeg"], processes=2)
    one, two = (rows_of(tmp_path / name / "averages.csv") for name in ("one", "two"))
    for row in one + two:
        # Processes of their own know nothing of the fixture that hides Butteraugli's program.
        del row["encode_s"], row["decode_s"], row["butteraugli"]
    assert one == two
