"""Seconds and peak of memory of each effort, with one thread and two.

    python benchmarks/effort_times.py KODAK [--model NAME ...] [--effort N ...] [--threads N ...]
        [--megapixels M]

The first picture of KODAK, or one of so many megapixels made of all, is encoded at quality 50,
once for each effort and number of threads, each time in a process of its own. Seconds hold neither
the start of the process nor the loading of the model.
"""

import argparse
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
from PIL import Image
from speed import QUALITY, machine, peak_of_memory_mb, wall

from cwic import Codec


def encoded(pixels: Path, model: str, effort: int, threads: int) -> tuple[float, float, int]:
    """Seconds, peak of memory in MB, and bytes of the file."""
    codec, picture = Codec.load(model, threads=threads), np.load(pixels)
    start_s = time.perf_counter()
    data = codec.encode(picture, quality=QUALITY, effort=effort, lossless="never")
    return time.perf_counter() - start_s, peak_of_memory_mb(), len(data)


def main() -> None:
    """Prints a table in Markdown for each model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("kodak", type=Path, help="folder of PNG pictures")
    parser.add_argument("--model", nargs="+", default=["cwic-psnr", "cwic-visual"])
    parser.add_argument("--effort", nargs="+", type=int, default=range(10))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--megapixels", type=float)
    options = parser.parse_args()
    paths = sorted(options.kodak.glob("*.png"))
    pictures = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    picture = pictures[0]
    if options.megapixels:
        height = round((options.megapixels * 1e6 * 3 / 4) ** 0.5)
        picture = wall(pictures, height, height * 4 // 3)
    height, width = picture.shape[:2]
    for model in options.model:
        codec = Codec.load(model)
        print(
            f"\n{codec.name} {codec.identity.hex()}, {width}x{height} at quality {QUALITY}, "
            f"{machine()}.\n"
        )
        columns = [f"s/MP, threads: {number} | GB" for number in options.threads]
        print(f"| effort | bytes | {' | '.join(columns)} |")
        print(f"|{'---|' * (2 + 2 * len(columns))}")
        for effort in options.effort:
            print_row(picture, model, effort, options.threads)


def print_row(picture: npt.NDArray[np.uint8], model: str, effort: int, threads: list[int]) -> None:
    """One effort, in processes that are spawned: a fork would begin with the memory of this one."""
    cells: list[str] = []
    sizes = set()
    with TemporaryDirectory() as folder:
        pixels = Path(folder, "pixels.npy")
        np.save(pixels, picture)
        for number in threads:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                seconds, peak_mb, size = process.submit(
                    encoded, pixels, model, effort, number
                ).result()
            sizes.add(size)
            megapixels = picture.shape[0] * picture.shape[1] / 1e6
            cells += [f"{seconds / megapixels:.1f}", f"{peak_mb / 1000:.2f}"]
    files = ", ".join(f"{size:,}" for size in sorted(sizes))
    print(f"| {effort} | {files} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
