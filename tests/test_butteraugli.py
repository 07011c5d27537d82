"""Butteraugli by libjxl's program: asked for its 3-norm where it is, nan where it is not."""

import math
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import seeded_picture

from cwic.errors import CodecError
from cwic.evaluation.butteraugli import BUTTERAUGLI_PX, butteraugli, butteraugli_program
from cwic.evaluation.measurement import Point, Store
from cwic.evaluation.quality import METRICS, Quality
from cwic.evaluation.rate_distortion import mean_curves, measured_metrics

REAL = shutil.which("butteraugli_main")

needs_scripts = pytest.mark.skipif(
    sys.platform == "win32", reason="a script stands for the program"
)


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes a program the one that is installed: a path, or a name on the search path."""

    def used(program: str) -> None:
        monkeypatch.setattr("cwic.evaluation.butteraugli._PROGRAM", program)
        butteraugli_program.cache_clear()

    return used


@pytest.fixture
def script(tmp_path: Path, use: Callable[[str], None]) -> Callable[[str], None]:
    """Puts a program there that does what some lines of shell say."""

    def put(lines: str) -> None:
        path = tmp_path / "butteraugli_main"
        path.write_text(f"#!/bin/sh\n{lines}\n")
        path.chmod(0o755)
        use(str(path))

    return put


def pictures() -> tuple[np.ndarray, np.ndarray]:
    pixels = seeded_picture(1)[:40, :50]
    return pixels, pixels ^ 4


def point() -> Point:
    values = dict.fromkeys(Quality._fields, 1.0) | {"butteraugli": math.nan}
    return Point("a.png", "jpeg", 1.0, 50, 40, 99, 0.1, 0.1, Quality(**values), "", "")


@needs_scripts
def test_the_program_is_given_both_pictures_and_its_norm_is_read(
    script: Callable[[str], None],
) -> None:
    script('cmp -s "$1" "$2" && echo "3-norm: 0.0" && exit; echo 7.5; echo "3-norm: 1.25"')
    reference, decoded = pictures()
    assert butteraugli(reference, reference) == 0
    assert butteraugli(reference, decoded) == 1.25
    small = reference[: BUTTERAUGLI_PX - 1]  # of which the program says 0, whatever they are
    assert math.isnan(butteraugli(small, small))


def test_without_the_program_nothing_is_said() -> None:
    assert math.isnan(butteraugli(*pictures()))
    with pytest.raises(ValueError, match="expected a picture of shape"):
        butteraugli(np.zeros((20, 20, 3), np.uint8), np.zeros((20, 21, 3), np.uint8))


@needs_scripts
@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("echo no memory >&2; exit 3", "found exit code 3 and 'no memory'"),
        ("echo '3-norm: 1.0'; exit 1", "found exit code 1"),
        ("echo 5.25", "found exit code 0 and '5.25'"),
    ],
)
def test_a_program_that_fails_is_named_with_what_it_said(
    lines: str, message: str, script: Callable[[str], None]
) -> None:
    script(lines)
    with pytest.raises(CodecError, match=message):
        butteraugli(*pictures())


@needs_scripts
def test_a_program_that_does_not_run_is_named(
    tmp_path: Path, script: Callable[[str], None]
) -> None:
    script("exit 0")
    (tmp_path / "butteraugli_main").write_bytes(b"\x7fELF of another machine")
    with pytest.raises(CodecError, match="butteraugli_main: expected a program that runs"):
        butteraugli(*pictures())


@pytest.mark.skipif(REAL is None, reason="libjxl's butteraugli_main is not installed")
def test_the_real_program_says_more_of_worse_pictures(use: Callable[[str], None]) -> None:
    assert REAL is not None
    use(REAL)
    reference, decoded = pictures()
    found = [butteraugli(reference, of) for of in (reference, decoded, reference ^ 16)]
    assert found[0] == 0 < found[1] < found[2]


def test_a_metric_that_nobody_measured_is_no_metric_of_the_curves() -> None:
    plain = point()
    curves, _ = mean_curves([plain], {"jpeg": "JPEG"}, {"jpeg": (1.0,)})
    assert "butteraugli" not in {metric.column for metric in measured_metrics(curves)}
    measured = replace(plain, quality=plain.quality._replace(butteraugli=2.5))
    curves, _ = mean_curves([measured], {"jpeg": "JPEG"}, {"jpeg": (1.0,)})
    assert [metric.column for metric in measured_metrics(curves)][-1] == "butteraugli"
    (metric,) = (metric for metric in METRICS if metric.column == "butteraugli")
    assert curves[0].of(metric)[1] == [-2.5]  # rises with quality


@needs_scripts
def test_a_point_without_it_is_measured_anew_where_the_program_is_now(
    tmp_path: Path, script: Callable[[str], None]
) -> None:
    path = tmp_path / "points.jsonl"
    Store(path).add([point()])
    assert Store(path).has(point().key)
    script("echo 3-norm: 1.0")
    assert not Store(path).has(point().key)
    Store(path).add([replace(point(), quality=point().quality._replace(butteraugli=2.5))])
    assert Store(path).has(point().key)
