"""The comparison page: every codec near the size of ours, nothing loaded from elsewhere."""

import re

import numpy as np
import pytest
from conftest import seeded_picture
from PIL import Image, features

from cwic.codec import Codec
from cwic.compare import CODECS, compared, compared_page, of_size, psnr_db
from cwic.evaluation.anchors import contestant


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.fromarray(seeded_picture(17)).resize((192, 128))


@pytest.mark.parametrize("name", ["jpeg", "jpeg2000", "webp"])
def test_a_codec_comes_near_a_size(name: str, photo: Image.Image) -> None:
    codec = contestant(name)
    for wanted in (1500, 4000):
        assert len(of_size(codec, photo, wanted)) == pytest.approx(wanted, rel=0.08)


def test_all_codecs_are_shown_at_the_size_of_the_file(
    photo: Image.Image, tiny_flagship_codec: Codec
) -> None:
    data = tiny_flagship_codec.encode(photo, quality=90)
    shown, rows = compared("photo.png", photo, data, tiny_flagship_codec.decode(data))
    installed = [
        name
        for name in CODECS
        if features.check({"jpeg": "libjpeg_turbo", "jpeg2000": "jpg_2000"}.get(name, name))
    ]
    assert len(rows) == 1 + len(installed)
    assert [version.label for version in shown.versions[:2]] == ["cwic", "JPEG"]
    assert {version.pixels.shape for version in shown.versions} == {(128, 192, 3)}
    assert rows[0]["bytes"] == len(data)
    for row in rows[1:]:
        assert row["bytes"] == pytest.approx(len(data), rel=0.15), row["codec"]


def test_a_page_needs_no_other_file(photo: Image.Image, tiny_flagship_codec: Codec) -> None:
    data = tiny_flagship_codec.encode(photo)
    html = compared_page("<b>.png", photo, data, tiny_flagship_codec.decode(data), ["jpeg"])
    assert "<b>.png" not in html
    assert "&lt;b&gt;.png" in html
    assert not re.search(r"(src|href)=[\"'](?!data:)", html)


def test_psnr_of_known_errors() -> None:
    zero = np.zeros((4, 4, 3), np.uint8)
    assert psnr_db(zero, zero) == float("inf")
    assert psnr_db(zero, zero + np.uint8(255)) == pytest.approx(0)
