"""Times of encoding and decoding, in process and as whole processes, and of a large picture.

    python benchmarks/speed.py KODAK [--model NAME] [--threads N] [--large]

In process: from a uint8 array to bytes and back at a fixed quality, sessions warm, median of five
for each picture, mean over the pictures. Whole processes: `cwic encode` and `cwic decode`, median
of five, with compiled bytecode at hand as after an installation. `--large` adds pictures of 12 and
24 megapixels made of the others, with the peak of memory. A fast decode and a preview are those of
`--fast` and `--reduce 8`; a model without a light synthesis has no fast one.
"""

import argparse
import contextlib
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from cwic import Codec
from cwic.errors import TargetError

QUALITY = 50
REPEATS = 5
LARGE = ((3000, 4000), (4000, 6000))  # height and width
DECODES: tuple[dict[str, Any], ...] = ({}, {"fast": True}, {"reduce": 8})
NONE = "-"


def median_s(act: Callable[[], object]) -> float:
    """Seconds of a call, median of five after one that does not count."""
    act()
    times = []
    for _ in range(REPEATS):
        start_s = time.perf_counter()
        act()
        times.append(time.perf_counter() - start_s)
    return statistics.median(times)


def in_process(codec: Codec, pictures: list[npt.NDArray[np.uint8]]) -> None:
    """Prints means over the pictures."""
    encode_s: list[float] = []
    decode_s: dict[int, list[float]] = defaultdict(list)  # by the place in DECODES
    for picture in pictures:
        data = codec.encode(picture, quality=QUALITY)
        encode_s.append(median_s(partial(codec.encode, picture, quality=QUALITY)))
        for number, how in enumerate(DECODES):
            with contextlib.suppress(TargetError):
                decode_s[number].append(median_s(partial(codec.decode, data, **how)))
    height, width = pictures[0].shape[:2]
    name = f"in process, {width}x{height}, mean over {len(pictures)} of medians of {REPEATS}"
    times = (encode_s, *(decode_s[number] for number in range(len(DECODES))))
    cells = (f"{statistics.mean(seconds):.3f} s" if seconds else NONE for seconds in times)
    print(f"| {name} | {' | '.join(cells)} | |")


def with_bytecode(folder: Path) -> dict[str, str]:
    """An environment whose interpreters keep compiled bytecode in a folder.

    An installed package brings its own; a working tree, or a variable that forbids to write any,
    would have each process compile all modules again.
    """
    environment = os.environ | {"PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


def whole_processes(path: Path, model: str | None) -> None:
    """Prints times of the command."""
    named = ["--model", model] if model else []
    with tempfile.TemporaryDirectory() as folder:
        file, decoded = Path(folder) / "a.cwic", Path(folder) / "a.png"

        environment = with_bytecode(Path(folder))

        def cwic(*words: object) -> None:
            command = [sys.executable, "-m", "cwic", *map(str, words), "--quiet", "-f"]
            subprocess.run(command, check=True, env=environment)

        encode_s = median_s(lambda: cwic("encode", path, "-o", file, "-q", QUALITY, *named))
        decode_s = median_s(lambda: cwic("decode", file, "-o", decoded, *named))
    print(f"| whole processes, {path.stem} | {encode_s:.2f} s | {decode_s:.2f} s | | | |")


def wall(pictures: list[npt.NDArray[np.uint8]], height: int, width: int) -> npt.NDArray[np.uint8]:
    """A picture of any size, made of others."""
    upright = [p if p.shape[0] < p.shape[1] else p.transpose(1, 0, 2) for p in pictures]
    columns = -(-width // upright[0].shape[1])
    rows = -(-height // upright[0].shape[0])
    whole = np.concatenate(
        [
            np.concatenate([upright[(x + y) % len(upright)] for x in range(columns)], axis=1)
            for y in range(rows)
        ]
    )
    return np.ascontiguousarray(whole[:height, :width])


def large(picture: npt.NDArray[np.uint8], model: str | None, threads: int | None) -> None:
    """Prints time and memory of a large picture, each way in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        pixels, file = Path(folder, "pixels.npy"), Path(folder, "large.cwic")
        np.save(pixels, picture)
        times, peaks = [], []
        acts = (partial(_encode, pixels), *(partial(_decode, how) for how in DECODES))
        for act in acts:
            # Spawned: a fork would begin with the memory of this process.
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                try:
                    seconds, peak_mb = process.submit(act, file, model, threads).result()
                except TargetError:
                    times.append(NONE)
                    peaks.append(NONE)
                else:
                    times.append(f"{seconds:.1f} s")
                    peaks.append(f"{peak_mb / 1000:.2f}")
    name = f"{picture.shape[0] * picture.shape[1] / 1e6:.0f} megapixels"
    memory = f"{' / '.join(peaks)} GB"
    print(f"| {name}, each in a process of its own | {' | '.join(times)} | {memory} |")


def _encode(
    pixels: Path, file: Path, model: str | None, threads: int | None
) -> tuple[float, float]:
    codec, picture = Codec.load(model, threads=threads), np.load(pixels)
    start_s = time.perf_counter()
    data = codec.encode(picture, quality=QUALITY)
    seconds = time.perf_counter() - start_s
    file.write_bytes(data)
    return seconds, peak_of_memory_mb()


def _decode(
    how: dict[str, Any], file: Path, model: str | None, threads: int | None
) -> tuple[float, float]:
    codec, data = Codec.load(model, threads=threads), file.read_bytes()
    start_s = time.perf_counter()
    codec.decode(data, **how)
    seconds = time.perf_counter() - start_s
    return seconds, peak_of_memory_mb()


def peak_of_memory_mb() -> float:
    """Of this process, as Linux tells it; `ru_maxrss` would begin with that of the parent."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (kibibytes,) = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(kibibytes) * 1024 / 1e6


def machine() -> str:
    """Its cores and their name, as Linux gives it."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} cores of {names[0] if names else 'an unknown processor'}"


def main() -> None:
    """Runs what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("kodak", type=Path, help="folder of PNG pictures")
    parser.add_argument("--model")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--large", action="store_true")
    options = parser.parse_args()
    paths = sorted(options.kodak.glob("*.png"))
    pictures = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    codec = Codec.load(options.model, threads=options.threads)
    print(f"{codec.name} {codec.identity.hex()}, quality {QUALITY}, {machine()}.\n")
    print(
        "| | encode | decode | fast decode | preview | peak of memory |\n|---|---|---|---|---|---|"
    )
    in_process(codec, pictures)
    whole_processes(paths[0], options.model)
    if options.large:
        for height, width in LARGE:
            large(wall(pictures, height, width), options.model, options.threads)


if __name__ == "__main__":
    main()
