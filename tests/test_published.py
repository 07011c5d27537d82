"""Our measurements of Kodak against numbers that others measured.

KODAK=FOLDER pytest -m slow tests/test_published.py
"""

import csv
import io
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("scipy")

from cwic.evaluation.metrics import measure  # noqa: E402
from cwic.evaluation.quality import decibel  # noqa: E402
from cwic.evaluation.rate_distortion import published_curves  # noqa: E402

KODAK = os.environ.get("KODAK")
CROPS = Path(__file__).parent / "data" / "kodak_crops.csv"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(KODAK is None, reason="KODAK names no folder of the 24 pictures"),
    pytest.mark.usefixtures("one_torch_thread"),
]


@cache
def pictures() -> tuple[Image.Image, ...]:
    assert KODAK is not None
    paths = sorted(Path(KODAK).glob("*.png"))
    assert len(paths) == 24
    return tuple(Image.open(path).convert("RGB") for path in paths)


def middle(picture: Image.Image) -> Image.Image:
    """The crop of the paper's authors: 752x496, the same number of pixels cut on each side."""
    width, height = (752, 496) if picture.width > picture.height else (496, 752)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


def means_of(images: list[Image.Image], kind: str, **options: object) -> dict[str, float]:
    """Means over pictures of what Pillow writes with these options."""
    rows = []
    for image in images:
        file = io.BytesIO()
        image.save(file, kind, **options)  # type: ignore[arg-type]
        decoded = Image.open(file).convert("RGB")
        quality = measure(np.asarray(image), np.asarray(decoded))._asdict()
        bpp = 8 * len(file.getvalue()) / (image.width * image.height)
        rows.append({"bpp": bpp, **quality})
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


@pytest.mark.parametrize(
    "row",
    list(csv.DictReader(CROPS.read_text().splitlines())),
    ids=lambda row: f"{row['codec']}-{row['setting']}",
)
def test_the_anchors_on_the_authors_crops_have_the_published_numbers(row: dict[str, str]) -> None:
    setting = float(row["setting"])
    crops = [middle(picture) for picture in pictures()]
    if row["codec"] == "jpeg":
        found = means_of(crops, "JPEG", quality=int(setting), optimize=True)
    else:
        found = means_of(
            crops,
            "JPEG2000",
            quality_mode="rates",
            quality_layers=[24 / setting],
            irreversible=True,
            mct=1,
        )
    # The last digit that was published, and what another version of a library may move.
    for column, tolerance in (("bpp", 0.002), ("psnr_rgb_db", 0.03), ("psnr_y_db", 0.03)):
        assert found[column] == pytest.approx(float(row[column]), abs=tolerance), column
    for column in ("ssim_y", "ms_ssim_rgb"):
        assert found[column] == pytest.approx(float(row[column]), abs=0.001), column


@pytest.mark.parametrize("quality", [10, 30, 70])
@pytest.mark.parametrize(
    ("kind", "label", "tolerance_db"),
    [
        # Newer libraries round the colours of 4:2:0 better when they decode.
        ("JPEG", "JPEG (Pillow 7.1.2)", 0.15),
        ("WEBP", "WebP (Pillow 7.1.2)", 0.01),
    ],
    ids=["jpeg", "webp"],
)
def test_jpeg_and_webp_have_the_numbers_that_were_published_of_them(
    kind: str, label: str, tolerance_db: float, quality: int
) -> None:
    curve = next(curve for curve in published_curves() if curve.label == label)
    place = quality // 5 - 1  # published for 5, 10, 15, ...
    found = means_of(list(pictures()), kind, quality=quality)
    assert found["bpp"] == pytest.approx(curve.rates_bpp[place], rel=0.002)
    assert found["psnr_rgb_db"] == pytest.approx(curve.psnr_rgb_db[place], abs=tolerance_db)
    assert decibel(found["ms_ssim_rgb"]) == pytest.approx(
        decibel(curve.ms_ssim_rgb[place]), abs=2 * tolerance_db
    )
