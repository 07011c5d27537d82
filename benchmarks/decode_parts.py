"""Where the time of decoding and encoding goes, part by part, beside what the cores could do.

    python benchmarks/decode_parts.py KODAK [--model NAME] [--quality 50]

One Kodak picture, and one of 12 megapixels made of all; a call on one thread, everything warm. Of
each part its own seconds of the processor, without those of the parts that it calls, median of
five. The floor beside it is what its multiplications take at the peak of a matrix product in
float32, or its bytes, each read and written once, at the speed of a copy; both are measured first.
What a network need not multiply, because symbols are zero, it counts as if it did. A floor is for
one core, like the seconds. Then what a process spends before it decodes. Prints Markdown.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import onnx
from macs import kmacs_per_pixel
from PIL import Image
from speed import QUALITY, REPEATS, machine, wall, with_bytecode

from cwic import Codec, bitstream, choice, codec, encoder, engine, model_file
from cwic.coding import arithmetic_coder
from cwic.coding.blas_threads import one_blas_thread
from cwic.families.flagship import coder, grid, latents, step_network, tiles
from cwic.image import writer

LARGE_HEIGHT, LARGE_WIDTH = 3000, 4000

# What belongs to a part: where a function is found, and its name there.
PARTS: dict[str, list[tuple[Any, str]]] = {
    "levels of the importance map": [(coder, "visit_levels")],
    "symbols ordered by table": [(arithmetic_coder, "_by_table")],
    "range coder": [
        (arithmetic_coder.BitDecoder, "code"),
        (arithmetic_coder.BitDecoder, "code_symbols"),
        (arithmetic_coder.BitEncoder, "code"),
        (arithmetic_coder.BitEncoder, "code_symbols"),
    ],
    "cost of symbols": [
        (arithmetic_coder.BitCounter, "code"),
        (arithmetic_coder.BitCounter, "code_symbols"),
    ],
    "symbols and latents": [
        (coder, "_visit_symbols"),
        (latents.Latents, "_decode"),
        (latents.Quantizer, "_quantize"),
    ],
    "shuffles and copies": [
        (grid.Checkerboard, "__init__"),
        (grid.Checkerboard, "padded"),
        (grid.Checkerboard, "columns"),
        (grid.Checkerboard, "rows"),
        (grid.Checkerboard, "halves"),
        (grid.Checkerboard, "whole"),
        (step_network, "_columns_3x3"),
        (step_network, "_shuffled"),
        (tiles, "_gathered"),
    ],
    "file and its checksums": [(bitstream, "unpack"), (encoder, "pack_picture")],
    "to and from Pillow": [(codec, "shown"), (codec, "read_picture")],
    "kept whole: a glance, or a try": [(choice, "entropy_bpp"), (choice, "pack_whole")],
}
# Parts whose name depends on what they are called with.
NETWORKS: dict[type, str] = {
    step_network.MeanNetwork: "means",
    step_network.ScaleNetwork: "scales",
}
STEPS = ("begin", "predict", "table", "absorb", "activate")


class Clock:
    """Seconds of the processor of each part, those of the parts inside it not counted twice."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._inside = threading.local()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time that counts for a part."""
        stack: list[float] = self._inside.__dict__.setdefault("stack", [])
        stack.append(0.0)
        start_s = time.thread_time()
        try:
            yield
        finally:
            spent_s = time.thread_time() - start_s
            self.seconds[name] += spent_s - stack.pop()
            if stack:
                stack[-1] += spent_s

    def timed(self, act: Callable[..., Any], name: Callable[..., str]) -> Callable[..., Any]:
        """A function whose calls count; `name` of the part by its arguments."""

        @wraps(act)
        def call(*arguments: Any, **options: Any) -> Any:
            with self.part(name(*arguments)):
                return act(*arguments, **options)

        return call


@contextmanager
def watched(clock: Clock) -> Iterator[None]:
    """All parts tell the clock."""
    with ExitStack() as stack:

        def watch(owner: Any, function: str, name: Callable[..., str]) -> None:
            timed = clock.timed(getattr(owner, function), name)
            stack.enter_context(patch.object(owner, function, timed))

        for part, functions in PARTS.items():
            for owner, function in functions:
                watch(owner, function, lambda *_, part=part: part)
        for network, part in NETWORKS.items():
            for function in STEPS:
                if hasattr(network, function):
                    watch(network, function, lambda *_, part=part: part)
        watch(engine.Engine, "run", lambda _, graph, *__: f"`{graph}`")
        yield


class Peak(NamedTuple):
    """Of one core."""

    macs_per_s: float
    copied_bytes_per_s: float

    blas_macs_per_s: float

    @classmethod
    def measured(cls) -> "Peak":
        """A product of 1024 x 1024 in float32, a copy of 128 MB: the best of twenty.

        By ONNX Runtime and by numpy's BLAS, whose kernels need not be the widest that there are.
        """
        factor = np.random.default_rng(0).random((1024, 1024), np.float32)
        source = np.ones(2**25, np.float32)
        target = np.empty_like(source)
        session = engine.Session(_product().SerializeToString(), threads=1)
        with one_blas_thread():
            products_s = (
                min(seconds_of(lambda m=multiply: m(factor, factor)) for _ in range(20))  # type: ignore[misc]
                for multiply in (session.run, np.matmul)
            )
            by_runtime, by_blas = (len(factor) ** 3 / seconds for seconds in products_s)
        copy_s = min(seconds_of(lambda: np.copyto(target, source)) for _ in range(20))
        return cls(max(by_runtime, by_blas), source.nbytes / copy_s, by_blas)


def _product() -> onnx.ModelProto:
    """A graph of one matrix product."""
    node = onnx.helper.make_node("MatMul", ["a", "b"], ["product"])
    a, b, product = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1024, 1024])
        for name in ("a", "b", "product")
    )
    graph = onnx.helper.make_graph([node], "product", [a, b], [product])
    opset = onnx.helper.make_opsetid("", 17)
    return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)


def seconds_of(act: Callable[[], object]) -> float:
    """Of the processor, this thread's."""
    start_s = time.thread_time()
    act()
    return time.thread_time() - start_s


def macs_per_pixel(model: model_file.ModelFile) -> dict[str, float]:
    """Multiplications of each part for a pixel of the picture, zeros included."""
    of_graphs = kmacs_per_pixel(model)
    result = {f"`{name}`": 1e3 * of_graphs[name] for name in model.graphs}
    for part in NETWORKS.values():
        prefix = f"{part.removesuffix('s')}."
        arrays = {name: array for name, array in model.arrays.items() if name.startswith(prefix)}
        result[part] = 1e3 * kmacs_per_pixel(replace(model, arrays=arrays))["coder"]
    return result


def floor_s(
    part: str, picture: npt.NDArray[np.uint8], macs: dict[str, float], peak: Peak
) -> float | None:
    """What a part takes at the peak of one core."""
    pixels = picture.shape[0] * picture.shape[1]
    if part in macs:
        return float(macs[part] * pixels / peak.macs_per_s)
    if part == "to and from Pillow":
        return float(picture.nbytes / peak.copied_bytes_per_s)
    return None


def shares(title: str, act: Callable[[], object], floor: Callable[[str], float | None]) -> None:
    """Prints a table of the parts of a call."""
    act()
    clocks, totals, walls = [], [], []
    for _ in range(REPEATS):
        clock = Clock()
        start_s, start_wall_s = time.process_time(), time.perf_counter()
        with watched(clock):
            act()
        totals.append(time.process_time() - start_s)
        walls.append(time.perf_counter() - start_wall_s)
        clocks.append(clock)
    total_s = statistics.median(totals)
    print(f"\n| {title} | ms of the processor | share | floor, ms |\n|---|---|---|---|")
    parts = {
        part: statistics.median(clock.seconds[part] for clock in clocks)
        for part in set().union(*(clock.seconds for clock in clocks))
    }
    for part, seconds in sorted(parts.items(), key=lambda item: -item[1]):
        least = floor(part)
        beside = "" if least is None else f"{1e3 * least:.1f}"
        print(f"| {part} | {1e3 * seconds:.1f} | {seconds / total_s:.1%} | {beside} |")
    rest_s = total_s - sum(parts.values())
    print(f"| the rest | {1e3 * rest_s:.1f} | {rest_s / total_s:.1%} | |")
    by_the_clock = f"{1e3 * statistics.median(walls):.1f} ms by the clock"
    print(f"| **all**, {by_the_clock} | {1e3 * total_s:.1f} | | |")


def start_up(model: str | None, data: bytes) -> None:
    """Prints what processes spend before they decode, each row with what those above it do."""
    loaded = f"import cwic.codec; codec = cwic.codec.loaded({model!r}, 1, for_decoding=True)"
    rows = {
        "Python": "pass",
        "numpy and Pillow": "import numpy, PIL.Image",
        "ONNX Runtime": "import cwic.engine",
        "cwic": "import cwic.codec",
        "a model read, for decoding": loaded,
        "a small picture decoded": loaded + "; codec.decode(open({file!r}, 'rb').read())",
    }
    print("\n| a process, up to | ms of the processor, all cores |\n|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        environment = with_bytecode(Path(folder)) | {"OPENBLAS_NUM_THREADS": "1"}
        file = Path(folder, "small.cwic")
        file.write_bytes(data)
        for row, code in rows.items():
            command = [sys.executable, "-c", code.format(file=str(file))]
            times = []
            for _ in range(REPEATS + 1):
                before_s = _of_children_s()
                subprocess.run(command, check=True, env=environment)
                times.append(_of_children_s() - before_s)
            print(f"| {row} | {1e3 * statistics.median(times[1:]):.0f} |")


def _of_children_s() -> float:
    """Processor seconds of processes that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("kodak", type=Path, metavar="KODAK", help="folder of PNG pictures")
    parser.add_argument("--model")
    parser.add_argument("--quality", type=float, default=QUALITY)
    options = parser.parse_args()
    paths = sorted(options.kodak.glob("*.png"))
    if not paths:
        sys.exit(f"{options.kodak}: expected PNG pictures, found none")
    pictures = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    model = model_file.load(model_file.find(options.model))
    one = Codec(model, threads=1)
    macs, peak = macs_per_pixel(model), Peak.measured()
    print(f"{one.name} {one.identity.hex()}, quality {options.quality:g}, {machine()}.")
    print(
        f"One core: {2e-9 * peak.macs_per_s:.0f} GFLOP/s in a product of float32 "
        f"({2e-9 * peak.blas_macs_per_s:.0f} by numpy), "
        f"{1e-9 * peak.copied_bytes_per_s:.1f} GB/s copied."
    )
    counted = ", ".join(f"{part} {count / 1e3:.2f}" for part, count in macs.items())
    print(f"kMAC a pixel: {counted}.")
    for picture in (pictures[0], wall(pictures, LARGE_HEIGHT, LARGE_WIDTH)):
        height, width = picture.shape[:2]
        data = one.encode(picture, quality=options.quality)
        shown = one.decode(data)

        def floor(part: str, picture: npt.NDArray[np.uint8] = picture) -> float | None:
            return floor_s(part, picture, macs, peak)

        size = f"{width}x{height}, {8 * len(data) / (width * height):.2f} bpp"
        shares(f"decode {size}", lambda d=data: one.decode(d), floor)  # type: ignore[misc]
        shares(
            f"encode {size}",
            lambda p=picture: one.encode(p, quality=options.quality),  # type: ignore[misc]
            floor,
        )
        png_s = statistics.median(
            seconds_of(lambda s=shown: writer.encode_image(s, ".png"))  # type: ignore[misc]
            for _ in range(3)
        )
        print(f"\nThe picture as a PNG file, which `cwic decode` writes: {1e3 * png_s:.0f} ms.")
    start_up(options.model, one.encode(pictures[0][:64, :64], quality=options.quality))


if __name__ == "__main__":
    main()
