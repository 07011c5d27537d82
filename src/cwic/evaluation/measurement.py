"""The points of each picture, codec and setting: measured once, kept in a file, taken up again.

A point is measured anew when the picture's bytes, the setting, the codec's `facts` or the way of
measuring have changed. What the numbers mean is left to `metrics`, which is imported by the
processes that measure.
"""

import json
import math
import multiprocessing
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from cwic.errors import CodecError, reason
from cwic.evaluation.anchors import Contestant, contestant
from cwic.evaluation.butteraugli import BUTTERAUGLI_PX, butteraugli, butteraugli_program
from cwic.evaluation.quality import Quality
from cwic.image import read_picture
from cwic.workers import end_with_parent

# Raised when a metric or the way of timing changes: older points are then measured anew.
_METHOD = 3


@dataclass(frozen=True)
class Point:
    """One picture by one codec at one setting."""

    image: str  # name of the file
    codec: str
    setting: float
    width: int
    height: int
    file_bytes: int
    encode_s: float  # of processor time, one run with one thread: what else runs does not count
    decode_s: float
    quality: Quality
    image_sha256: str
    facts: str
    method: int = _METHOD

    @property
    def bpp(self) -> float:
        """Bits of the whole file per pixel."""
        return 8 * self.file_bytes / (self.width * self.height)

    @property
    def key(self) -> tuple[Any, ...]:
        """What makes another measurement superfluous."""
        return self.image_sha256, self.codec, self.setting, self.facts, self.method

    def row(self) -> dict[str, Any]:
        """For tables; units in the names."""
        return {
            "image": self.image,
            "codec": self.codec,
            "setting": self.setting,
            "width_px": self.width,
            "height_px": self.height,
            "file_bytes": self.file_bytes,
            "bpp": self.bpp,
            **self.quality._asdict(),
            "encode_s": self.encode_s,
            "decode_s": self.decode_s,
        }


class Job(NamedTuple):
    """What one process does in one go: a picture by a codec at the settings that are missing."""

    path: Path
    image_sha256: str
    codec: str
    settings: tuple[float, ...]
    facts: str


class Failure(NamedTuple):
    """What could not be measured, and why."""

    image: str
    codec: str | None  # None: the picture itself
    reason: str
    settings: tuple[float, ...] = ()  # that failed, of several; empty: all

    def __str__(self) -> str:
        where = self.image if self.codec is None else f"{self.image}, {self.codec}"
        if self.settings:
            where += f" at {', '.join(f'{setting:g}' for setting in self.settings)}"
        return f"{where}: {self.reason}"


class Measured(NamedTuple):
    """What came of a job: what failed does not take the rest along."""

    job: Job
    points: list[Point]
    failures: list[Failure]


class Store:
    """Points on disk, one JSON object a line; only ever appended to."""

    def __init__(self, path: Path):
        self._path = path
        self._points = {point.key: point for point in _read_points(path)}

    def has(self, key: tuple[Any, ...]) -> bool:
        """Whether a point of this key is there."""
        return key in self._points

    def select(self, jobs: Iterable[Job]) -> list[Point]:
        """The points of these jobs as far as they are there, under the names of now."""
        return [
            replace(self._points[key], image=job.path.name)
            for job in jobs
            for setting in job.settings
            if (key := point_key(job, setting)) in self._points
        ]

    def add(self, points: Sequence[Point]) -> None:
        """Appends, and is on the disk before it returns."""
        with self._path.open("a+b") as file:
            if file.tell() and not _ends_in_newline(file):  # an interrupted line
                file.write(b"\n")
            for point in points:
                fields = {**vars(point), "quality": point.quality._asdict()}
                file.write(json.dumps(fields).encode() + b"\n")
                self._points[point.key] = point


def _ends_in_newline(file: BinaryIO) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _read_points(path: Path) -> Iterator[Point]:
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            fields = json.loads(line)
            point = Point(**{**fields, "quality": Quality(**fields["quality"])})
        except (ValueError, TypeError, KeyError):
            continue  # an interrupted line, or one of another version: measured anew
        is_measurable = min(point.width, point.height) >= BUTTERAUGLI_PX
        if math.isnan(point.quality.butteraugli) and is_measurable and butteraugli_program():
            continue  # the program was not there: measured anew
        yield point


def point_key(job: Job, setting: float) -> tuple[Any, ...]:
    """The key that a point of a job will have."""
    return job.image_sha256, job.codec, setting, job.facts, _METHOD


def jobs_of(
    paths: Sequence[Path], contestants: Sequence[Contestant]
) -> tuple[list[Job], list[Failure]]:
    """A job for each picture and codec, with all settings; and the pictures that cannot be read."""
    jobs: list[Job] = []
    failures: list[Failure] = []
    for path in paths:
        try:
            digest = sha256(path.read_bytes()).hexdigest()
            pixels_of(path)
        except FileNotFoundError:
            failures.append(Failure(str(path), None, "no such file"))
            continue
        except (CodecError, OSError, MemoryError) as error:
            why = reason(error).removeprefix(f"{path}: ")
            failures.append(Failure(str(path), None, why))
            continue
        jobs.extend(Job(path, digest, c.name, c.settings, c.facts) for c in contestants)
    return jobs, failures


def measure_all(jobs: Sequence[Job], processes: int) -> Iterator[Measured]:
    """Measures; results come as they are ready."""
    if processes == 1 or len(jobs) <= 1:
        yield from map(_measure, jobs)
        return
    left = list(jobs)
    while left:
        done = set()
        try:
            for result in _in_processes(left, processes):
                done.add(result.job)
                yield result
        except BrokenProcessPool:
            # A codec took its process down, and with it all that were at work. Each of the first
            # ones, which were, gets a process of its own, until the one is found.
            waiting = [job for job in left if job not in done]
            for job in waiting[:processes]:
                done.add(job)
                yield _in_own_process(job)
        left = [job for job in left if job not in done]


def _in_processes(jobs: Sequence[Job], processes: int) -> Iterator[Measured]:
    with _pool(min(processes, len(jobs))) as pool:
        try:
            for done in as_completed([pool.submit(_measure, job) for job in jobs]):
                yield done.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _in_own_process(job: Job) -> Measured:
    with _pool(1) as pool:
        try:
            return pool.submit(_measure, job).result()
        except BrokenProcessPool:
            reason = "expected a codec that returns, found its process ended"
            return Measured(job, [], [Failure(str(job.path), job.codec, reason)])


def _pool(processes: int) -> ProcessPoolExecutor:
    # A fork would inherit the locks of ONNX Runtime's threads.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(processes, mp_context=context, initializer=end_with_parent)


def _measure(job: Job) -> Measured:
    """The points of a job; any failure of the codec is an answer, not an end."""
    points: list[Point] = []
    failed: dict[str, list[float]] = defaultdict(list)  # settings by the reason of their failure
    try:
        codec = _warm_contestant(job.codec)
        pixels = pixels_of(job.path)
    except Exception as error:  # a codec of others raises whatever it likes
        return Measured(job, [], [Failure(str(job.path), job.codec, reason(error))])
    for setting in job.settings:
        try:
            points.append(_point(job, codec, pixels, setting))
        except Exception as error:
            failed[reason(error)].append(setting)
    failures = []
    for why, settings in failed.items():
        some = () if len(settings) == len(codec.settings) else tuple(settings)
        failures.append(Failure(str(job.path), job.codec, why, some))
    return Measured(job, points, failures)


def quality_of(original: npt.NDArray[np.uint8], decoded: npt.NDArray[np.uint8]) -> Quality:
    """What a point holds of a decoded picture: all metrics, Butteraugli among them."""
    from cwic.evaluation.metrics import measure

    return measure(original, decoded)._replace(butteraugli=butteraugli(original, decoded))


def _point(job: Job, codec: Contestant, pixels: npt.NDArray[np.uint8], setting: float) -> Point:
    image = Image.fromarray(pixels)
    start_s = time.process_time()
    data = codec.encode(image, setting)
    encoded_s = time.process_time()
    decoded = np.asarray(codec.decode(data))
    decoded_s = time.process_time()
    return Point(
        image=job.path.name,
        codec=job.codec,
        setting=setting,
        width=image.width,
        height=image.height,
        file_bytes=len(data),
        encode_s=encoded_s - start_s,
        decode_s=decoded_s - encoded_s,
        quality=quality_of(pixels, decoded),
        image_sha256=job.image_sha256,
        facts=job.facts,
    )


@cache
def _warm_contestant(name: str) -> Contestant:
    """A codec that has encoded and decoded once, so that no set-up is timed."""
    codec = contestant(name)
    ground = Image.fromarray(np.tile(np.arange(64, dtype=np.uint8)[:, None, None], (1, 64, 3)))
    codec.decode(codec.encode(ground, codec.settings[len(codec.settings) // 2]))
    return codec


def pixels_of(path: Path) -> npt.NDArray[np.uint8]:
    """(H, W, 3) R, G, B of a picture; transparency does not take part."""
    return read_picture(path, keep_metadata=False).pixels
