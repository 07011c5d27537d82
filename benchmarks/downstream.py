"""How much of what networks see in a picture is left in its compressed file.

    python benchmarks/downstream.py KODAK [--nets NETS] [--held-out FOLDER ...] [--limit N] [-j 2]

A segmentation network (DeepLabV3, 21 classes of PASCAL VOC) and a detector (NanoDet-m, 80 classes
of COCO) look at the original and at what each codec makes of it at equal size. Their results on the
original stand for the truth, so the numbers are agreement of a network with itself, and neither
COCO AP nor the PASCAL score: no labels take part.

- mean IoU: of every class that the network finds in the originals, over all their pixels.
- F1: boxes of score 0.35 and more on both sides, matched one to one, best score first, where the
  class is the same and the boxes' IoU is at least 0.5.
- Intervals: 95 % of 2,000 bootstrap draws of whole pictures. Where those of two codecs overlap, no
  verdict is given.

NETS, or what the variable CWIC_NETS names, holds `deeplabv3_mnv2_pascal_quant.tflite`
(google-coral/test_data), `nanodet_m_ncnn.param` and `nanodet_m_ncnn_fp16.bin` (nihui/ncnn-assets).
Needs `pip install --no-deps ai-edge-litert ncnn` and the extras `evaluate` and `saliency`. Points
are kept in a file, by all that they depend on: a new model only measures its own. With --held-out,
the last tenth of the sorted pictures of these folders, which training has not seen, make a second
table.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from tqdm import tqdm

from cwic import Codec
from cwic.errors import CodecWarning
from cwic.evaluation.anchors import contestant
from cwic.evaluation.compare import nearest_file
from cwic.evaluation.measurement import pixels_of
from cwic.saliency import Mask, detect

Pixels = npt.NDArray[np.uint8]  # (H, W, 3) R, G, B

RATES_BPP = (0.1, 0.2, 0.4, 0.8)
ANCHORS = ("jpeg", "jpeg2000", "webp", "avif")
MODELS = ("cwic-psnr", "cwic-visual")

SEGMENTATION = "deeplabv3_mnv2_pascal_quant.tflite"
DETECTOR = ("nanodet_m_ncnn.param", "nanodet_m_ncnn_fp16.bin")

CLASSES = 21
MIN_SCORE = 0.35
MIN_IOU = 0.5
DRAWS = 2000
SIZE_TOLERANCE = 0.03  # one step of an anchor's quality is about as much

# Raised when the way of measuring changes: older points are then measured anew.
METHOD = 1


class Segmentation:
    """DeepLabV3 in LiteRT: (H, W, 3) uint8 -> (h, w) classes at the network's resolution."""

    def __init__(self, path: Path):
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(str(path), num_threads=1)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]
        self._output = self._interpreter.get_output_details()[0]

    def __call__(self, pixels: Pixels) -> npt.NDArray[np.int64]:
        """The longer side fills the network's square; only what the picture covers is returned."""
        side = int(self._input["shape"][1])
        height, width = pixels.shape[:2]
        share = side / max(height, width)
        rows, columns = max(1, round(share * height)), max(1, round(share * width))
        square = np.full((1, side, side, 3), 128, np.uint8)  # the network's zero
        resized = Image.fromarray(pixels).resize((columns, rows), Image.Resampling.BILINEAR)
        square[0, :rows, :columns] = np.asarray(resized)
        self._interpreter.set_tensor(self._input["index"], square)
        self._interpreter.invoke()
        found: npt.NDArray[np.int64] = self._interpreter.get_tensor(self._output["index"])
        return found.reshape(side, side)[:rows, :columns]


class Boxes(NamedTuple):
    """What a detector found, best score first."""

    corners: npt.NDArray[np.float64]  # (N, 4) left, top, right, bottom, px of the network's input
    classes: npt.NDArray[np.int64]  # (N,)


class Detector:
    """NanoDet-m in ncnn: (H, W, 3) uint8 -> boxes."""

    _SIDE_PX = 320
    _BLOBS = ((8, "792", "795"), (16, "814", "817"), (32, "836", "839"))  # stride, classes, sides
    _MEAN = (103.53, 116.28, 123.675)  # B, G, R
    _GAIN = (0.017429, 0.017507, 0.017125)
    _NMS_IOU = 0.5

    def __init__(self, parameters: Path, weights: Path):
        import ncnn

        self._ncnn: Any = ncnn
        self._net = ncnn.Net()
        self._net.opt.num_threads = 1
        self._net.opt.use_vulkan_compute = False
        if self._net.load_param(str(parameters)) or self._net.load_model(str(weights)):
            sys.exit(f"{parameters}: expected a network of ncnn")

    def __call__(self, pixels: Pixels) -> Boxes:
        """Boxes of at least the smallest score, after suppression of doubles within a class."""
        height, width = pixels.shape[:2]
        share = self._SIDE_PX / max(height, width)
        rows, columns = max(1, round(share * height)), max(1, round(share * width))
        padded = np.zeros((-rows % 32 + rows, -columns % 32 + columns, 3), np.uint8)
        resized = Image.fromarray(pixels).resize((columns, rows), Image.Resampling.BILINEAR)
        padded[:rows, :columns] = np.asarray(resized)
        image = self._ncnn.Mat.from_pixels(
            padded, self._ncnn.Mat.PixelType.PIXEL_RGB2BGR, padded.shape[1], padded.shape[0]
        )
        image.substract_mean_normalize(list(self._MEAN), list(self._GAIN))
        extractor = self._net.create_extractor()
        extractor.input("input.1", image)
        corners, scores, classes = [], [], []
        for stride, class_blob, side_blob in self._BLOBS:
            score = np.array(extractor.extract(class_blob)[1], np.float64)  # (cells, 80)
            bins = np.array(extractor.extract(side_blob)[1], np.float64)  # (cells, 4 * 8)
            best = score.argmax(axis=1)
            kept = np.flatnonzero(score[np.arange(len(score)), best] >= MIN_SCORE)
            cells = padded.shape[1] // stride
            x, y = (kept % cells + 0.5) * stride, (kept // cells + 0.5) * stride
            # A side's distance is the mean of a distribution over 0 to 7 strides.
            share_of_bin = np.exp(bins[kept].reshape(-1, 4, 8))
            share_of_bin /= share_of_bin.sum(axis=2, keepdims=True)
            left, top, right, bottom = (share_of_bin @ np.arange(8) * stride).T
            corners.append(np.stack([x - left, y - top, x + right, y + bottom], axis=1))
            scores.append(score[kept, best[kept]])
            classes.append(best[kept])
        order = np.argsort(-np.concatenate(scores), kind="stable")
        corner, kind = np.concatenate(corners)[order], np.concatenate(classes)[order]
        chosen: list[int] = []
        for index in range(len(corner)):
            rivals = [other for other in chosen if kind[other] == kind[index]]
            if not rivals or iou(corner[index], corner[rivals]).max() <= self._NMS_IOU:
                chosen.append(index)
        return Boxes(corner[chosen], kind[chosen])


def iou(box: npt.NDArray[np.float64], others: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Intersection over union of a box (4,) with each of (N, 4)."""
    overlap = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = np.prod(np.maximum(overlap, 0), axis=1)
    areas = np.prod(others[:, 2:] - others[:, :2], axis=1) + np.prod(box[2:] - box[:2])
    result: npt.NDArray[np.float64] = shared / np.maximum(areas - shared, 1e-9)
    return result


def matches(expected: Boxes, found: Boxes) -> int:
    """How many boxes agree, one to one."""
    free = set(range(len(expected.corners)))
    for corner, kind in zip(found.corners, found.classes, strict=True):
        rivals = [index for index in sorted(free) if expected.classes[index] == kind]
        if not rivals:
            continue
        overlaps = iou(corner, expected.corners[rivals])
        if overlaps.max() >= MIN_IOU:
            free.remove(rivals[int(overlaps.argmax())])
    return len(expected.corners) - len(free)


@dataclass(frozen=True)
class Compressor:
    """A codec that is asked for a rate."""

    label: str
    facts: str  # what its files depend on
    encode: Callable[[Image.Image, float], bytes]  # picture, bits per pixel -> whole file
    decode: Callable[[bytes], Image.Image]


def anchor(name: str) -> Compressor:
    """An engineered codec, at the setting whose file comes nearest to a rate."""
    codec = contestant(name)
    # Every file that is not tried saves AVIF three seconds. The last picture says which setting a
    # rate takes, and the rate before this one how much this picture differs from that.
    starts: dict[float, float] = {}
    last: Image.Image | None = None
    drift = 0.0

    def encode(image: Image.Image, bpp: float) -> bytes:
        nonlocal last, drift
        if image is not last:
            last, drift = image, 0.0
        target_bytes = round(bpp * image.width * image.height / 8)
        expected = starts.get(bpp)
        start = None if expected is None else expected + drift
        found = nearest_file(codec, image, target_bytes, start=start, tolerance=SIZE_TOLERANCE)
        if expected is not None:
            drift = found.setting - expected
        starts[bpp] = found.setting
        return found.data

    return Compressor(codec.label, codec.facts, encode, codec.decode)


class Onlooker:
    """The built-in detector of saliency, which looks at a picture once for all models and rates."""

    def __init__(self) -> None:
        self._pixels: Pixels | None = None
        self._found: Mask | None = None

    def __call__(self, pixels: Pixels) -> Mask:
        """As of `cwic.saliency.detect`."""
        if self._found is None or self._pixels is None or not np.array_equal(pixels, self._pixels):
            self._pixels, self._found = pixels, detect(pixels)
        return self._found


def ours(name: str, saliency: Onlooker | None) -> Compressor:
    """A model of this package, with saliency or without."""
    codec = Codec.load(name, threads=1)

    def encode(image: Image.Image, bpp: float) -> bytes:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CodecWarning)  # a rate out of reach shows in the table
            return codec.encode(image, bpp=bpp, saliency=saliency)

    opencv = metadata.version("opencv-contrib-python-headless") if saliency else None
    facts = json.dumps([contestant(f"cwic:{name}").facts, opencv])
    label = f"{codec.name}, saliency" if saliency else codec.name
    return Compressor(label, facts, encode, codec.decode)


class Point(NamedTuple):
    """What is left in one file of one picture."""

    bpp: float
    shared: list[int]  # for each class, pixels where both results say so
    either: list[int]  # where one of them does
    original: list[int]  # where the original's does
    matched: int  # boxes
    found: int
    expected: int


class Store:
    """Points by their keys in a file of JSON lines; only ever appended to."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._points: dict[str, Point] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    key, values = json.loads(line)
                    self._points[key] = Point(*values)
                except (ValueError, TypeError):
                    continue  # an interrupted line: measured anew

    def get(self, key: str) -> Point | None:
        """The point of a key, if it is there."""
        return self._points.get(key)

    def add(self, key: str, point: Point) -> None:
        """Keeps a point."""
        self._points[key] = point
        with self._path.open("a", encoding="utf-8") as file:
            # The newline before it ends a line that was interrupted.
            file.write("\n" + json.dumps([key, point]) + "\n")


class Networks:
    """Both networks and what they say of the picture at hand."""

    def __init__(self, folder: Path):
        paths = [folder / name for name in (SEGMENTATION, *DETECTOR)]
        for path in paths:
            if not path.is_file():
                sys.exit(f"{path}: no such file; --nets must hold the networks")
        self.facts = [hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in paths]
        self._segmentation = Segmentation(paths[0])
        self._detector = Detector(paths[1], paths[2])

    def see(self, pixels: Pixels) -> tuple[npt.NDArray[np.int64], Boxes]:
        """Classes of pixels and boxes of a picture."""
        return self._segmentation(pixels), self._detector(pixels)


def agreement(
    original: tuple[npt.NDArray[np.int64], Boxes],
    decoded: tuple[npt.NDArray[np.int64], Boxes],
    bpp: float,
) -> Point:
    """Counts of what two results have in common."""

    def count(classes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.bincount(classes.ravel(), minlength=CLASSES)

    shared = count(original[0][original[0] == decoded[0]])
    before, after = count(original[0]), count(decoded[0])
    return Point(
        bpp,
        shared.tolist(),
        (before + after - shared).tolist(),
        before.tolist(),
        matches(original[1], decoded[1]),
        len(decoded[1].classes),
        len(original[1].classes),
    )


class Bench:
    """All codecs and networks of a run; every process has its own."""

    def __init__(self, models: Sequence[str], nets: Path):
        self.codecs = [anchor(name) for name in ANCHORS]
        onlooker = Onlooker()
        self.codecs += [ours(name, saliency) for name in models for saliency in (None, onlooker)]
        self._networks = Networks(nets)

    def keys(self, path: Path, rates_bpp: Sequence[float]) -> dict[tuple[str, float], str]:
        """For each codec and rate, what a point of a picture depends on."""
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        keys = {}
        for codec in self.codecs:
            for bpp in rates_bpp:
                facts = [METHOD, digest, codec.facts, codec.label, bpp, self._networks.facts]
                keys[codec.label, bpp] = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
        return keys

    def points(
        self, path: Path, missing: Sequence[tuple[str, float]]
    ) -> Iterator[tuple[tuple[str, float], Point]]:
        """The points of a picture by these codecs at these rates."""
        pixels = pixels_of(path)
        image = Image.fromarray(pixels)
        original = self._networks.see(pixels)
        codecs = {codec.label: codec for codec in self.codecs}
        for label, bpp in missing:
            data = codecs[label].encode(image, bpp)
            decoded = self._networks.see(np.asarray(codecs[label].decode(data).convert("RGB")))
            rate_bpp = 8 * len(data) / (image.width * image.height)
            yield (label, bpp), agreement(original, decoded, rate_bpp)


_bench: Bench | None = None  # of a process


def _begin(models: Sequence[str], nets: Path) -> None:
    global _bench
    _bench = Bench(models, nets)


def _measure(
    path: Path, missing: Sequence[tuple[str, float]]
) -> list[tuple[tuple[str, float], Point]]:
    assert _bench is not None
    return list(_bench.points(path, missing))


def measured(
    paths: Sequence[Path],
    bench: Bench,
    rates_bpp: Sequence[float],
    store: Store,
    pool: ProcessPoolExecutor,
) -> dict[tuple[str, float], list[Point]]:
    """Points of all pictures, for each codec and rate."""
    keys = {path: bench.keys(path, rates_bpp) for path in paths}
    pending = {}
    for path, of_path in keys.items():
        missing = [what for what, key in of_path.items() if store.get(key) is None]
        if missing:
            pending[pool.submit(_measure, path, missing)] = path
    for done in tqdm(as_completed(pending), total=len(pending), unit="picture"):
        for what, point in done.result():
            store.add(keys[pending[done]][what], point)
    points: dict[tuple[str, float], list[Point]] = {}
    for of_path in keys.values():
        for what, key in of_path.items():
            point = store.get(key)
            assert point is not None
            points.setdefault(what, []).append(point)
    return points


class Estimate(NamedTuple):
    """A number and its interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def estimates(points: Sequence[Point]) -> tuple[Estimate, Estimate]:
    """Mean IoU and F1 over pictures, with bootstrap intervals."""
    shared, either, original = (
        np.array([getattr(point, name) for point in points], np.float64)
        for name in ("shared", "either", "original")
    )
    present = original.sum(axis=0) > 0
    boxes = np.array([(point.matched, point.found, point.expected) for point in points], float)

    def mean_iou(times: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """(draws, pictures) how often each picture counts -> (draws,)."""
        union = (times @ either)[:, present]
        with np.errstate(invalid="ignore"):
            of_class = np.where(union > 0, (times @ shared)[:, present] / union, np.nan)
        return np.asarray(np.nanmean(of_class, axis=1))

    def f1(times: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        matched, found, expected = (times @ boxes).T
        return np.asarray(2 * matched / np.maximum(found + expected, 1))

    draws = np.random.default_rng(1).multinomial(
        len(points), np.full(len(points), 1 / len(points)), DRAWS
    )
    return (_estimate(mean_iou, draws), _estimate(f1, draws))


def _estimate(
    statistic: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]],
    draws: npt.NDArray[np.int64],
) -> Estimate:
    value = statistic(np.ones((1, draws.shape[1])))[0]
    low, high = np.quantile(statistic(draws.astype(np.float64)), (0.025, 0.975))
    return Estimate(float(value), float(low), float(high))


def report(
    title: str,
    points: dict[tuple[str, float], list[Point]],
    codecs: Sequence[Compressor],
    rates_bpp: Sequence[float],
) -> None:
    """Prints a table, and of each of our models what can be said against the engineered codecs."""
    engineered = [codec.label for codec in codecs[: len(ANCHORS)]]
    some = next(iter(points.values()))
    classes = int((np.array([point.original for point in some]).sum(axis=0) > 0).sum())
    print(
        f"{title}: {len(some)} pictures, {sum(point.expected for point in some)} boxes and "
        f"{classes} classes (one of them the background) in the originals.\n"
    )
    print("| asked bpp | codec | bpp | mean IoU | F1 |\n|---|---|---|---|---|")
    verdicts = []
    for bpp in rates_bpp:
        rows = {codec.label: estimates(points[codec.label, bpp]) for codec in codecs}
        for label, (of_iou, of_f1) in rows.items():
            rate_bpp = np.mean([point.bpp for point in points[label, bpp]])
            print(f"| {bpp:g} | {label} | {rate_bpp:.3f} | {of_iou} | {of_f1} |")
        for label, row in rows.items():
            if label in engineered:
                continue
            for name, mine, theirs in (
                (measure, row[number], {other: rows[other][number] for other in engineered})
                for number, measure in enumerate(("mean IoU", "F1"))
            ):
                above = [other for other, it in theirs.items() if mine.low > it.high]
                below = [other for other, it in theirs.items() if mine.high < it.low]
                if above or below:
                    said = [
                        f"{word} {', '.join(others)}"
                        for word, others in (("above", above), ("below", below))
                        if others
                    ]
                    verdicts.append(f"- {bpp:g} bpp, {name}: {label} {'; '.join(said)}")
    print("\nIntervals that do not overlap:" if verdicts else "\nAll intervals overlap.")
    print("\n" + "\n".join(verdicts) if verdicts else "")


def held_out(folders: Sequence[Path]) -> list[Path]:
    """The pictures that training keeps back."""
    from cwic.training.data import list_pictures

    return [path for path in list_pictures(folders, 0.1).held_out if isinstance(path, Path)]


def spread(paths: Sequence[Path], limit: int | None) -> Sequence[Path]:
    """At most so many of them, evenly spread."""
    if limit is None or limit >= len(paths):
        return paths
    return [paths[round(index * (len(paths) - 1) / (limit - 1))] for index in range(limit)]


def main() -> None:
    """Prints a Markdown table for each set of pictures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kodak", type=Path, help="folder of PNG pictures")
    parser.add_argument("--nets", type=Path, default=os.environ.get("CWIC_NETS"))
    parser.add_argument("--held-out", type=Path, nargs="+", default=[], metavar="FOLDER")
    parser.add_argument(
        "--limit", type=int, help="at most so many pictures of a set, evenly spread"
    )
    parser.add_argument("--model", nargs="+", default=MODELS, metavar="NAME|PATH")
    parser.add_argument("--bpp", type=float, nargs="+", default=RATES_BPP)
    parser.add_argument("--cache", type=Path, default=Path("results/downstream.jsonl"))
    parser.add_argument("-j", "--jobs", type=int, default=1, help="processes")
    options = parser.parse_args()
    if options.nets is None:
        parser.error("expected --nets or the variable CWIC_NETS, the folder of the networks")
    bench = Bench(options.model, options.nets)
    store = Store(options.cache)
    models = [Codec.load(name) for name in options.model]
    print(
        "Agreement of networks with themselves, whole files. "
        + ", ".join(f"{codec.name} {codec.identity.hex()}" for codec in models)
        + f"; Pillow {metadata.version('pillow')}, "
        + ", ".join(f"{name} {metadata.version(name)}" for name in ("ai-edge-litert", "ncnn"))
        + ".\n"
    )
    sets = {"Kodak": sorted(options.kodak.glob("*.png"))}
    if options.held_out:
        sets["Held-out pictures"] = held_out(options.held_out)
    # A fork would inherit the locks of ONNX Runtime's threads.
    with ProcessPoolExecutor(
        options.jobs,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(options.model, options.nets),
    ) as pool:
        for title, paths in sets.items():
            if not paths:
                sys.exit(f"{title}: expected pictures, found none")
            chosen = spread(paths, options.limit)
            points = measured(chosen, bench, options.bpp, store, pool)
            report(title, points, bench.codecs, options.bpp)


if __name__ == "__main__":
    main()
