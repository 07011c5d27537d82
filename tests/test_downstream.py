"""The benchmark of what networks still see: counts of agreement, intervals, and when it says so."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def downstream(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    import downstream

    return downstream


def boxes(downstream: ModuleType, *rows: tuple[float, float, float, float, int]) -> Any:
    """Left, top, right, bottom and class of each box, best score first."""
    table = np.array(rows, float).reshape(-1, 5)
    return downstream.Boxes(table[:, :4], table[:, 4].astype(np.int64))


def test_the_iou_of_boxes_is_its_closed_form(downstream: ModuleType) -> None:
    box = np.array([0.0, 0, 4, 2])
    others = np.array([[0.0, 0, 4, 2], [2, 0, 6, 2], [4, 0, 8, 2], [1, 0, 3, 2]])
    assert downstream.iou(box, others) == pytest.approx([1, 1 / 3, 0, 1 / 2])


def test_a_box_agrees_with_one_other_of_its_class_that_it_covers_by_half(
    downstream: ModuleType,
) -> None:
    expected = boxes(downstream, (0, 0, 10, 10, 1), (20, 0, 30, 10, 2))
    assert downstream.matches(expected, expected) == 2
    assert downstream.matches(expected, boxes(downstream)) == 0
    twice = boxes(downstream, (0, 0, 10, 10, 1), (0, 0, 10, 9, 1))
    assert downstream.matches(expected, twice) == 1
    of_another_class = boxes(downstream, (0, 0, 10, 10, 2))
    assert downstream.matches(expected, of_another_class) == 0
    for width, agree in ((5, 1), (4.9, 0)):
        assert downstream.matches(expected, boxes(downstream, (0, 0, width, 10, 1))) == agree


def test_agreement_counts_the_pixels_of_each_class(downstream: ModuleType) -> None:
    nothing = boxes(downstream)
    before, after = np.array([[0, 0, 15, 15]]), np.array([[0, 15, 15, 3]])
    point = downstream.agreement((before, nothing), (after, nothing), 0.5)
    counts = {kind: (point.shared[kind], point.either[kind]) for kind in (0, 3, 15)}
    assert counts == {0: (1, 2), 3: (0, 1), 15: (1, 3)}
    (mean_iou, *_), _ = downstream.estimates([point, point])
    # The class 3 is in no original, so that it counts only by what it took from another.
    assert mean_iou == pytest.approx((1 / 2 + 1 / 3) / 2)


def test_f1_counts_what_is_missing_and_what_is_too_much(downstream: ModuleType) -> None:
    classes = [1] + [0] * (downstream.CLASSES - 1)
    point = downstream.Point(0.1, classes, classes, classes, matched=2, found=3, expected=5)
    _, (f1, low, high) = downstream.estimates([point] * 4)
    assert f1 == low == high == pytest.approx(2 * 2 / (3 + 5))


def test_an_interval_holds_its_value_and_narrows_with_more_pictures(
    downstream: ModuleType,
) -> None:
    classes = [1] + [0] * (downstream.CLASSES - 1)
    rng = np.random.default_rng(3)

    def width(count: int) -> float:
        points = [
            downstream.Point(0.1, classes, classes, classes, int(matched), 4, 4)
            for matched in rng.integers(0, 5, count)
        ]
        _, (f1, low, high) = downstream.estimates(points)
        assert low <= f1 <= high
        return float(high - low)

    assert width(200) < width(12) / 2


@pytest.mark.parametrize(("matched", "said"), [(3, False), (4, True)])
def test_a_verdict_is_given_only_where_intervals_do_not_overlap(
    downstream: ModuleType, matched: int, said: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    classes = [1] + [0] * (downstream.CLASSES - 1)

    def points(counts: list[int]) -> list[Any]:
        return [downstream.Point(0.1, classes, classes, classes, n, 4, 4) for n in counts]

    engineered = ["JPEG", "JPEG 2000", "WebP", "AVIF"]
    codecs = [SimpleNamespace(label=label) for label in (*engineered, "cwic-visual")]
    table = {(label, 0.1): points([2, 3, 3, 2, 3, 4] * 4) for label in engineered}
    table["cwic-visual", 0.1] = points([matched] * 24)
    downstream.report("Pictures", table, codecs, [0.1])
    out = capsys.readouterr().out
    assert "24 pictures, 96 boxes and 1 classes" in out
    assert ("- 0.1 bpp, F1: cwic-visual above JPEG, JPEG 2000, WebP, AVIF" in out) == said
    assert ("All intervals overlap." in out) != said


def test_a_search_for_a_size_begins_where_the_last_picture_and_rate_left_off(
    downstream: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {0.1: 20.0, 0.2: 40.0}
    starts = []

    def nearest(codec: Any, image: Any, target_bytes: int, *, start: Any, tolerance: float) -> Any:
        starts.append(start)
        return SimpleNamespace(data=b"", setting=wanted[target_bytes / 1000] + image.busier)

    monkeypatch.setattr(downstream, "nearest_file", nearest)
    codec = downstream.anchor("jpeg")
    for busier in (0, 5):
        image = SimpleNamespace(width=80, height=100, busier=busier)
        for bpp in wanted:
            codec.encode(image, bpp)
    assert starts == [None, None, 20.0, 45.0]
