"""The comparison page: every codec near the size of ours, nothing loaded from elsewhere."""

import base64
import io
import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import seeded_picture
from PIL import Image, features

from cwic.codec import Codec
from cwic.evaluation import array_similarity, report
from cwic.evaluation.anchors import contestant, default_names
from cwic.evaluation.compare import CODECS, compared, compared_page, installed, of_size
from cwic.evaluation.report import Comparison, Version
from cwic.image import profiles


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.fromarray(seeded_picture(17)).resize((192, 128))


@pytest.mark.parametrize("name", [*CODECS, "avif-444", "jpegxl"])
def test_a_codec_comes_near_a_size(name: str, photo: Image.Image) -> None:
    if name not in default_names():
        pytest.skip(f"{name} is not installed")
    codec = contestant(name)
    for wanted in (1500, 4000):
        assert len(of_size(codec, photo, wanted)) == pytest.approx(wanted, rel=0.08)


def test_our_models_search_a_size_themselves(photo: Image.Image, tiny_flagship_path: Path) -> None:
    codec = contestant(f"cwic:{tiny_flagship_path}")
    smallest, largest = (len(codec.encode(photo, quality)) for quality in (0, 100))
    for share in (0.3, 0.7):
        wanted = round(smallest + share * (largest - smallest))
        assert len(of_size(codec, photo, wanted)) == pytest.approx(wanted, rel=0.01, abs=8)
    assert len(of_size(codec, photo, 2 * largest)) == largest  # as far as it goes, and no warning


def test_all_codecs_are_shown_at_the_size_of_the_file(
    photo: Image.Image, tiny_flagship_codec: Codec
) -> None:
    data = tiny_flagship_codec.encode(photo, quality=90)
    shown = compared("photo.png", photo, data, tiny_flagship_codec.decode(data))
    assert [version.label for version in shown.versions[3:]] == [
        codec.label for codec in installed()[1:]
    ]
    assert [version.label for version in shown.versions[:2]] == ["cwic", "JPEG 4:2:0"]
    assert {version.pixels.shape for version in shown.versions} == {(128, 192, 3)}
    assert shown.versions[0].caption.startswith(f"{len(data):,} B, ")
    assert shown.versions[2].caption == "192x128"
    for version in (shown.versions[1], *shown.versions[3:]):
        size_bytes = int(version.caption.partition(" B")[0].replace(",", ""))
        assert size_bytes == pytest.approx(len(data), rel=0.15), version.label


def test_codecs_that_this_pillow_lacks_are_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    has = features.check
    monkeypatch.setattr(features, "check", lambda name: name != "webp" and has(name))
    names = [codec.name for codec in installed()]
    assert "webp" not in names
    assert set(names) < set(CODECS)


def test_of_a_large_picture_the_middle_is_shown(
    photo: Image.Image, tiny_flagship_codec: Codec
) -> None:
    data = tiny_flagship_codec.encode(photo)
    decoded = tiny_flagship_codec.decode(data)
    shown = compared("photo.png", photo, data, decoded, [], largest_px=100)
    whole = compared("photo.png", photo, data, decoded, [])
    for part, all_of_it in zip(shown.versions, whole.versions, strict=True):
        np.testing.assert_array_equal(part.pixels, all_of_it.pixels[14:114, 46:146])
    assert shown.versions[0].caption == "192x128, shown: the middle 100 px"
    assert shown.versions[1].caption == whole.versions[1].caption


def test_a_page_needs_no_other_file(photo: Image.Image, tiny_flagship_codec: Codec) -> None:
    data = tiny_flagship_codec.encode(photo)
    decoded = tiny_flagship_codec.decode(data)
    html = compared_page(compared("<b>.png", photo, data, decoded, ["jpeg"]))
    assert "<b>.png" not in html
    assert "&lt;b&gt;.png" in html
    assert not re.search(r"(src|href)=[\"'](?!data:)", html)


def pictures_of(html: str) -> list[Image.Image]:
    found = [base64.b64decode(data) for data in re.findall(r"base64,([A-Za-z0-9+/=]+)", html)]
    return [Image.open(io.BytesIO(data)) for data in found]


@pytest.mark.parametrize("kind", ["RGB", "grey", "none"])
def test_every_version_is_shown_with_the_profile_of_the_original(
    kind: str, photo: Image.Image, tiny_flagship_codec: Codec
) -> None:
    data = tiny_flagship_codec.encode(photo)
    profiled = photo.copy()
    expected = None
    if kind != "none":
        curve = profiles.gamma_curve(1.8)
        given = profiles.profile_of_rgb(profiles.SRGB_PRIMARIES, curve)
        expected = given
        if kind == "grey":
            given = profiles.profile_of_grey(curve)
            expected = profiles.profile_of_rgb(profiles.SRGB_PRIMARIES, curve)
        profiled.info["icc_profile"] = given
    decoded = tiny_flagship_codec.decode(data)
    shown = compared("a", profiled, data, decoded, ["jpeg", "webp"])
    found = pictures_of(compared_page(shown))
    assert len(found) == 4
    assert [picture.info.get("icc_profile") for picture in found] == 4 * [expected]
    # The others hold the picture alone, as ours does.
    plain = compared("a", photo, data, decoded, ["jpeg", "webp"])
    assert [one.caption for one in shown.versions] == [one.caption for one in plain.versions]
    alone = report.picture("a", np.asarray(photo), expected)
    assert pictures_of(alone)[0].info.get("icc_profile") == expected


def test_ssim_of_arrays_is_that_of_tensors(photo: Image.Image) -> None:
    torch = pytest.importorskip("torch")
    from cwic.evaluation import structural_similarity

    rng = np.random.default_rng(5)
    original = np.tile(np.asarray(photo), (2, 1, 1))  # more rows than are computed at a time
    noise = rng.integers(-20, 21, original.shape)
    for decoded in (original, (original + noise).clip(0, 255).astype(np.uint8)):
        one, other = (
            torch.from_numpy(pixels / 255.0).permute(2, 0, 1)[None]
            for pixels in (original, decoded)
        )
        expected = structural_similarity.ssim(one, other).item()
        assert array_similarity.ssim(original, decoded) == pytest.approx(expected, abs=1e-9)
    assert math.isnan(array_similarity.ssim(original[:10], original[:10]))


def test_captions_say_what_can_be_measured(
    photo: Image.Image, tiny_flagship_codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ssimulacra2")
    large = photo.resize((240, 230))

    def caption(picture: Image.Image, **options: bool) -> str:
        data = tiny_flagship_codec.encode(picture, lossless="never")
        decoded = tiny_flagship_codec.decode(data)
        return compared("a", picture, data, decoded, [], **options).versions[1].caption

    both = r"bpp, PSNR \d+\.\d\d dB, SSIM 0\.\d{4}"
    assert re.search(both + r", SSIMULACRA2 -?\d+\.\d$", caption(large, with_ssimulacra2=True))
    assert re.search(both + "$", caption(large))
    assert re.search(both + "$", caption(photo, with_ssimulacra2=True))  # too small
    assert caption(photo.resize((8, 8))).endswith(" dB")
    monkeypatch.setitem(sys.modules, "ssimulacra2", None)
    assert re.search(both + "$", caption(large, with_ssimulacra2=True))


@pytest.mark.slow
def test_the_slider_moves_the_edge_between_two_pictures(browser: Any, tmp_path: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select

    black, white = (np.full((100, 200, 3), value, np.uint8) for value in (0, 255))
    red = np.broadcast_to(np.array([255, 0, 0], np.uint8), (100, 200, 3))
    versions = (Version("ours", black, ""), Version("JPEG", white, ""), Version("WebP", red, ""))
    path = tmp_path / "page.html"
    path.write_text(compared_page(Comparison("photo.png", versions)))
    browser.get(path.as_uri())
    stage = browser.find_element(By.CSS_SELECTOR, ".stage")

    def shares() -> tuple[float, float]:
        """Of columns that are dark, and that are red, in what is on the screen."""
        shown = np.asarray(Image.open(io.BytesIO(stage.screenshot_as_png)).convert("RGB"))
        row = shown[len(shown) // 8].astype(int)  # above the handle
        red = (row[:, 0] > 200) & (row[:, 1] < 60)
        return float((row.max(axis=1) < 60).mean()), float(red.mean())

    assert shares() == (pytest.approx(0.5, abs=0.03), 0)
    slider = stage.find_element(By.TAG_NAME, "input")
    slider.send_keys(Keys.HOME)
    assert shares()[0] == pytest.approx(0, abs=0.03)
    slider.send_keys(Keys.END)
    assert shares()[0] == pytest.approx(1, abs=0.03)
    slider.send_keys(Keys.HOME)
    Select(browser.find_element(By.CSS_SELECTOR, "[data-side=right]")).select_by_visible_text(
        "WebP"
    )
    assert shares()[1] == pytest.approx(1, abs=0.03)
