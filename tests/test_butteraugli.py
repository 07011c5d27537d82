"""Butteraugli by libjxl's program: asked for its 3-norm where it is, nan where it is not."""

import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from conftest import seeded_picture

from cwic.errors import NotBuiltError
from cwic.evaluation import butteraugli as module
from cwic.evaluation.butteraugli import butteraugli
from cwic.evaluation.measurement import Point
from cwic.evaluation.metrics import measure
from cwic.evaluation.quality import METRICS
from cwic.evaluation.rate_distortion import mean_curves, measured_metrics

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a script stands for the program")


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Puts a program there that does what some lines of Python say, or none."""

    def put(lines: str) -> None:
        folder = tmp_path / "bin"
        folder.mkdir()
        if lines:
            path = folder / "butteraugli_main"
            path.write_text(f"#!{sys.executable}\n{lines}")
            path.chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))
        module._program.cache_clear()

    yield put
    module._program.cache_clear()


MEAN_ERROR = """
import sys
import numpy as np
from PIL import Image
a, b = (np.asarray(Image.open(path), float) for path in sys.argv[1:])
print(f"7.5\\n3-norm: {abs(a - b).mean():f}")
"""


def test_the_program_is_given_both_pictures_and_its_norm_is_read(
    program: Callable[[str], None],
) -> None:
    program(MEAN_ERROR)
    pixels = seeded_picture(1)[:40, :50]
    other = pixels ^ 4
    assert butteraugli(pixels, pixels) == 0
    assert butteraugli(pixels, other) == measure(pixels, other).butteraugli == 4


def test_without_the_program_nothing_is_said(program: Callable[[str], None]) -> None:
    program("")
    pixels = seeded_picture(1)[:40, :50]
    quality = measure(pixels, pixels)
    assert math.isnan(quality.butteraugli)
    point = Point("a.png", "jpeg", 1.0, 50, 40, 99, 0.1, 0.1, quality, "", "")
    curves, _ = mean_curves([point], {"jpeg": "JPEG"}, {"jpeg": (1.0,)})
    assert "butteraugli" not in {metric.column for metric in measured_metrics(curves)}
    measured = point.quality._replace(butteraugli=2.5)
    curves, _ = mean_curves(
        [Point(**{**vars(point), "quality": measured})], {"jpeg": "JPEG"}, {"jpeg": (1.0,)}
    )
    (metric,) = (m for m in measured_metrics(curves) if m.column == "butteraugli")
    assert metric == METRICS[-1]
    assert curves[0].of(metric)[1] == [-2.5]  # rises with quality


def test_a_program_that_fails_is_named_with_what_it_said(program: Callable[[str], None]) -> None:
    program("import sys; sys.exit('no such colour space')")
    with pytest.raises(NotBuiltError, match="3-norm, found 'no such colour space'"):
        butteraugli(*(np.zeros((2, 20, 20, 3), np.uint8)))
    with pytest.raises(ValueError, match="expected a picture of shape"):
        butteraugli(np.zeros((20, 20, 3), np.uint8), np.zeros((20, 21, 3), np.uint8))
