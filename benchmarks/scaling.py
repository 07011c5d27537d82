"""How time grows with the picture, from 64x64 to 24 megapixels, on one thread and on two.

    python benchmarks/scaling.py KODAK [--compressai-python PYTHON] [--plot docs/plots/scaling.png]

Within a process, warm, the least of two for pictures of less than a megapixel, once for larger
ones, which are made of the others. CompressAI's mbt2018-mean (N = 128, see `peers.py`) goes along
up to the size of a Kodak picture; at 24 megapixels it would take tens of gigabytes.
"""

import argparse
import os
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from compressai_worker import seconds_of
from peers import Peer
from PIL import Image
from speed import machine, wall

from cwic import Codec

ROOT = Path(__file__).resolve().parent.parent
QUALITY = 50
SIZES = ((64, 64), (256, 256), (512, 768), (1024, 1536), (4000, 6000))
REPEATED_PIXELS = 1_000_000
PEER_PIXELS = 400_000
THREADS = (1, 2)

Pixels = npt.NDArray[np.uint8]
Curves = dict[str, list[tuple[int, float]]]  # (pixels, seconds) by label


def of_ours(codec: Codec, picture: Pixels, repeats: int) -> tuple[float, float]:
    """Seconds each way."""
    times = []
    for _ in range(repeats):
        encode_s, data = seconds_of(partial(codec.encode, picture, quality=QUALITY))
        decode_s, _ = seconds_of(partial(codec.decode, data))
        times.append((encode_s, decode_s))
    return min(one for one, _ in times), min(one for _, one in times)


def of_peer(peer: Peer, picture: Pixels, repeats: int) -> tuple[float, float]:
    """Likewise."""
    with tempfile.TemporaryDirectory() as folder:
        pixels = Path(folder, "pixels.npy")
        np.save(pixels, picture)
        times = [peer.ask(do="measure", pixels=str(pixels))["times"] for _ in range(repeats)]
    return min(one for one, _ in times), min(one for _, one in times)


def measured(pictures: list[Pixels], model: str | None, python: str | None) -> tuple[Curves, str]:
    """A curve for each codec, direction and number of threads, and which model it was."""
    curves: Curves = {}
    codec = Codec.load(model)
    for threads in THREADS:
        codec = Codec.load(model, threads=threads)
        peer = Peer(python, "mbt2018-mean", 4, threads) if python else None
        codec.decode(codec.encode(wall(pictures, 64, 64)))
        for height, width in SIZES:
            picture = wall(pictures, height, width)
            repeats = 2 if height * width < REPEATED_PIXELS else 1
            found = {codec.name: of_ours(codec, picture, repeats)}
            if peer is not None and height * width < PEER_PIXELS:
                found["mbt2018-mean, N = 128"] = of_peer(peer, picture, repeats)
            for name, both in found.items():
                for way, seconds in zip(("encode", "decode"), both, strict=True):
                    label = f"{name}, {way}, {threads} thread{'s' if threads > 1 else ''}"
                    curves.setdefault(label, []).append((height * width, seconds))
        if peer is not None:
            peer.close()
    return curves, f"{codec.name} {codec.identity.hex()}"


def plot(curves: Curves, path: Path) -> None:
    """Both axes logarithmic; our curves in blue, those of others in orange."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    for label, points in curves.items():
        axes.plot(
            *zip(*points, strict=True),
            color="tab:orange" if "mbt2018" in label else "tab:blue",
            linestyle="-" if "decode" in label else "--",
            marker="o" if label.endswith("2 threads") else "x",
            markersize=4,
            label=label,
        )
    axes.set(xscale="log", yscale="log", xlabel="pixels", ylabel="seconds")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})


def main() -> None:
    """Prints Markdown and draws the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("kodak", type=Path, help="folder of PNG pictures")
    parser.add_argument("--model")
    parser.add_argument("--compressai-python", help="interpreter of an environment with compressai")
    parser.add_argument("--plot", type=Path, help="a picture file")
    options = parser.parse_args()
    paths = sorted(options.kodak.glob("*.png"))
    pictures = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    curves, model = measured(pictures, options.model, options.compressai_python)
    if options.plot:
        plot(curves, options.plot)
    print(f"{model}, quality {QUALITY}, on {machine()}; seconds.\n")
    print(f"| | {' | '.join(f'{width}x{height}' for height, width in SIZES)} |")
    print(f"|---|{'---|' * len(SIZES)}")
    for label, points in curves.items():
        cells = [f"{seconds:.3f}" for _, seconds in points] + [""] * (len(SIZES) - len(points))
        print(f"| {label} | {' | '.join(cells)} |")
    if options.plot:
        where = Path(os.path.relpath(options.plot, ROOT / "docs")).as_posix()
        print(f"\n![Seconds over the number of pixels, for one thread and two]({where})")


if __name__ == "__main__":
    main()
