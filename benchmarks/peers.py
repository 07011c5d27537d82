"""Time, memory and weight of our models beside Pillow's codecs and CompressAI's, in one run.

    python benchmarks/peers.py KODAK [--whole] [--compressai-python PYTHON] [--pictures N]

CompressAI lives in an environment of its own, whose interpreter is named:

    python -m venv peers
    peers/bin/pip install torch==2.13.0 scipy einops tqdm pytorch-msssim pillow
    peers/bin/pip install --no-deps compressai

(torch from an index of CPU builds). Its weights are freshly initialised, which is no matter to the
time, see `compressai_worker.py`; without `--compressai-python` its rows are left out.

In process: uint8 array to bytes and back, warm. The codecs take turns, five rounds on each picture;
ratios are taken round by round. With `--whole`: processes from the start of an interpreter to the
written file, three rounds on the first picture after one that does not count, with compiled
bytecode at hand as after an installation, and the most memory that one of them took. Either takes
two to three minutes on two slow cores.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from compressai_worker import installed_bytes, seconds_of
from macs import kmacs_per_pixel
from PIL import Image, features
from speed import machine, with_bytecode

from cwic import Codec, model_file

Pixels = npt.NDArray[np.uint8]

QUALITY = 50
ROUNDS = 5
WHOLE_ROUNDS = 3
WORKER = Path(__file__).with_name("compressai_worker.py")

# Architecture, quality (which chooses the width N), label.
ARCHITECTURES = (
    ("bmshj2018-hyperprior", 4, "bmshj2018-hyperprior, N = 128"),
    ("mbt2018-mean", 4, "mbt2018-mean, N = 128"),
    ("mbt2018-mean", 5, "mbt2018-mean, N = 192"),
)
# Each position of its latents waits for those before it: minutes a picture.
SLOW_ARCHITECTURES = (("cheng2020-anchor", 4, "cheng2020-anchor, N = 128"),)
PILLOW: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 50, "optimize": True, "progressive": True},
    "JPEG2000": {"quality_mode": "rates", "quality_layers": [48], "irreversible": True, "mct": 1},
    "WEBP": {"quality": 50, "method": 6},
    "AVIF": {"quality": 50, "speed": 4},
}


@dataclass
class Row:
    """What is known of a codec; seconds round by round."""

    label: str
    kmacs: float | None = None
    bytes: int = 0
    encode_s: list[float] = field(default_factory=list)
    decode_s: list[float] = field(default_factory=list)
    peak_mb: tuple[float, float] = (0.0, 0.0)  # of whole processes, both ways


class Ours(NamedTuple):
    """A model, and which of its syntheses decodes."""

    codec: Codec
    fast: bool


class Peer:
    """A process of CompressAI that answers."""

    def __init__(self, python: str, architecture: str, quality: int, threads: int):
        self.python, self.architecture, self.threads = python, architecture, threads
        command = [python, str(WORKER), "serve", architecture, str(quality), str(threads)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, **what: object) -> dict[str, Any]:
        """One line there and back."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{self.architecture}: the process of CompressAI ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """Ends the process, if it has not ended."""
        if self._process.poll() is None:
            self._process.communicate()

    def words(self, verb: str, weights: Path, source: Path, target: Path) -> list[str]:
        """The command of a whole process."""
        command = [self.python, str(WORKER), verb, self.architecture, str(weights)]
        return [*command, str(self.threads), str(source), str(target)]


class Launcher:
    """Runs commands from a process of its own, which is small.

    What Linux calls the peak of a process begins with that of the process it was forked from.
    """

    CODE = """
import json, os, subprocess, sys, time
for line in sys.stdin:
    start_s = time.perf_counter()
    process = subprocess.Popen(json.loads(line))
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start_s
    print(json.dumps([os.waitstatus_to_exitcode(status), seconds, usage.ru_maxrss]), flush=True)
"""

    def __init__(self) -> None:
        self._bytecode = tempfile.TemporaryDirectory()
        self._process = subprocess.Popen(
            [sys.executable, "-c", self.CODE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=with_bytecode(Path(self._bytecode.name)),
        )

    def run(self, command: Sequence[str]) -> tuple[float, float]:
        """Seconds, and the peak of memory in MB."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        code, seconds, peak_kb = json.loads(self._process.stdout.readline())
        if code:
            sys.exit(f"{' '.join(command)} failed")
        return seconds, peak_kb / 1e3

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()
        self._bytecode.cleanup()


def opened(data: bytes) -> None:
    """Decodes what Pillow wrote."""
    with Image.open(BytesIO(data)) as image:
        image.load()


def saved(picture: Pixels, kind: str) -> bytes:
    """Encodes with Pillow."""
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, kind, **PILLOW[kind])
    return buffer.getvalue()


def contestants(
    names: list[str | None],
    python: str | None,
    threads: int,
    architectures: Sequence[tuple[str, int, str]],
) -> tuple[dict[str, Ours], dict[str, str], dict[str, Peer], list[Row], str]:
    """Ours, Pillow's and CompressAI's by their labels, their rows in this order, and versions."""
    codecs, kinds, peers, rows = {}, {}, {}, []
    own_bytes, pillow_bytes = installed_bytes(["cwic"]), installed_bytes(["pillow"])
    for name in names:
        codec = Codec.load(name, threads=threads)
        label = f"{codec.name} {codec.identity.hex()}"
        parts = kmacs_per_pixel(model_file.load(model_file.find(codec.name)))
        for synthesis in ("synthesis", "fast"):
            if synthesis not in parts:
                continue
            fast = synthesis == "fast"
            of_this = f"{label}, fast decode" if fast else label
            kmacs = parts["analysis"] + parts[synthesis]  # of others the transforms alone as well
            codecs[of_this] = Ours(codec, fast)
            rows.append(Row(of_this, kmacs, own_bytes))
    for kind, feature in _FEATURE.items():
        if features.check(feature):
            kinds[f"Pillow {kind}"] = kind
            rows.append(Row(f"Pillow {kind}", bytes=pillow_bytes))
    facts = "CompressAI was not measured: no `--compressai-python`"
    if python is not None:
        for architecture, quality, label in architectures:
            peers[label] = Peer(python, architecture, quality, threads)
            found = peers[label].ask(do="facts")
            rows.append(Row(label, found["kmacs"], found["bytes"]))
            facts = (
                f"CompressAI {found['compressai']} with torch {found['torch']}, "
                "its weights freshly initialised"
            )
    return codecs, kinds, peers, rows, facts


def measure_in_process(
    pictures: list[Pixels],
    codecs: dict[str, Ours],
    kinds: dict[str, str],
    peers: dict[str, Peer],
    rows: list[Row],
) -> None:
    """Adds a number for each picture to every row."""
    with tempfile.TemporaryDirectory() as folder:
        pixels = Path(folder, "pixels.npy")
        for picture in pictures:
            np.save(pixels, picture)
            for number in range(1 + ROUNDS):
                for row in rows:
                    if row.label in codecs:
                        codec, fast = codecs[row.label]
                        encode = partial(codec.encode, picture, quality=QUALITY)
                        times = _both_ways(encode, partial(codec.decode, fast=fast))
                    elif row.label in kinds:
                        times = _both_ways(partial(saved, picture, kinds[row.label]), opened)
                    else:
                        times = peers[row.label].ask(do="measure", pixels=str(pixels))["times"]
                    if number:  # the first round warms up
                        row.encode_s.append(times[0])
                        row.decode_s.append(times[1])


def _both_ways(encode: Callable[[], bytes], decode: Callable[[bytes], object]) -> list[float]:
    encode_s, data = seconds_of(encode)
    decode_s, _ = seconds_of(partial(decode, data))
    return [encode_s, decode_s]


def measure_whole(
    picture: Path,
    codecs: dict[str, Ours],
    kinds: dict[str, str],
    peers: dict[str, Peer],
    rows: list[Row],
    launcher: Launcher,
) -> None:
    """Gives every row the times of its processes and their memory."""
    with tempfile.TemporaryDirectory() as folder:
        commands = {}
        for number, row in enumerate(rows):
            weights, file, shown = (
                Path(folder, f"{number}{name}") for name in (".weights", ".file", ".png")
            )
            if row.label in codecs:
                cwic = [sys.executable, "-m", "cwic"]
                codec, fast = codecs[row.label]
                named = ["-q", str(QUALITY), "--model", codec.name]
                encode = [*cwic, "encode", str(picture), "-o", str(file), *named, "--quiet", "-f"]
                decode = [*cwic, "decode", str(file), "-o", str(shown), "--quiet", "-f"]
                decode += ["--fast"] if fast else []
            elif row.label in kinds:
                kind = kinds[row.label]
                load = f"from PIL import Image; image = Image.open({str(picture)!r})\n"
                save = f"image.convert('RGB').save({str(file)!r}, {kind!r}, **{PILLOW[kind]!r})"
                back = f"from PIL import Image; Image.open({str(file)!r}).save({str(shown)!r})"
                encode, decode = ([sys.executable, "-c", code] for code in (load + save, back))
            else:
                peer = peers[row.label]
                peer.ask(do="save", weights=str(weights))
                peer.close()
                encode = peer.words("encode", weights, picture, file)
                decode = peer.words("decode", weights, file, shown)
            commands[row.label] = encode, decode
        for number in range(1 + WHOLE_ROUNDS):
            for row in rows:
                (encode_s, encode_mb), (decode_s, decode_mb) = map(
                    launcher.run, commands[row.label]
                )
                if number == 0:  # compiles modules to bytecode
                    continue
                row.encode_s.append(encode_s)
                row.decode_s.append(decode_s)
                row.peak_mb = max(row.peak_mb[0], encode_mb), max(row.peak_mb[1], decode_mb)


_FEATURE = {"JPEG": "jpg", "JPEG2000": "jpg_2000", "WEBP": "webp", "AVIF": "avif"}


def spread(ratios: Sequence[float]) -> str:
    """Median, smallest and largest."""
    middle = statistics.median(ratios)
    return f"{middle:.2g} ({min(ratios):.2g} to {max(ratios):.2g})"


def print_rows(rows: list[Row], whole: bool) -> None:
    """The table, as Markdown; ratios are to the first row."""
    first = rows[0]
    memory = "| peak MB, both ways " if whole else ""
    print(
        f"| | kMAC/pixel | installed MB | encode s | decode s {memory}| encode, times as long | "
        f"decode, times as long |\n|---|---|---|---|---|---|---|{'---|' if whole else ''}"
    )
    for row in rows:
        ratios = [
            spread([theirs / own for theirs, own in zip(*pair, strict=True)])
            for pair in ((row.encode_s, first.encode_s), (row.decode_s, first.decode_s))
        ]
        cells = [
            row.label,
            "" if row.kmacs is None else f"{row.kmacs:.1f}",
            f"{row.bytes / 1e6:.0f}",
            *(f"{statistics.median(seconds):.3f}" for seconds in (row.encode_s, row.decode_s)),
            *([" / ".join(f"{peak:.0f}" for peak in row.peak_mb)] if whole else []),
            *(["", ""] if row is first else ratios),
        ]
        print(f"| {' | '.join(cells)} |")


def main() -> None:
    """Runs what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("kodak", type=Path, help="folder of PNG pictures")
    parser.add_argument("--compressai-python", help="interpreter of an environment with compressai")
    parser.add_argument("--model", nargs="+", default=[None, "cvpr2018"])
    parser.add_argument("--whole", action="store_true", help="whole processes and their memory")
    parser.add_argument("--pictures", type=int, default=1, help="how many, evenly chosen")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--slow", action="store_true", help="cheng2020-anchor too")
    options = parser.parse_args()
    launcher = Launcher()
    paths = sorted(options.kodak.glob("*.png"))
    paths = paths[:: -(-len(paths) // options.pictures)]
    # A whole process of the first is as long as one of the second.
    architectures = ARCHITECTURES[1 if options.whole else 0 :]
    if options.slow:
        architectures += SLOW_ARCHITECTURES
    codecs, kinds, peers, rows, facts = contestants(
        options.model, options.compressai_python, options.threads, architectures
    )
    if options.whole:
        paths = paths[:1]
        measure_whole(paths[0], codecs, kinds, peers, rows, launcher)
    else:
        pictures = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
        measure_in_process(pictures, codecs, kinds, peers, rows)
    launcher.close()
    for peer in peers.values():
        peer.close()
    where = "Whole processes" if options.whole else "In process"
    print(
        f"{where}, {' and '.join(path.stem for path in paths)}, quality {QUALITY}, "
        f"{options.threads} threads on {machine()}; {facts}. "
        f"Seconds are medians; times as long as {rows[0].label}: median and range over the rounds."
        "\n"
    )
    print_rows(rows, options.whole)


if __name__ == "__main__":
    main()
