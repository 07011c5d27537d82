"""Folders of pictures to folders of `.cwic` files and back, on many processes or many machines.

Owns the plan (which file becomes which), the workers, and the report: progress, summary and table.
What is done to one file is left to `Codec`, where files lie to :mod:`cwic.folder`.

A batch can be stopped at any time, in any way, and run again: it skips results that exist, and no
result is ever half written. So the folder and the table end up the same as without the stop, and
two batches into one folder do not harm each other. Every worker computes on one thread: the number
of workers changes the time and not a byte.
"""

import csv
import errno
import io
import json
import logging
import multiprocessing
import os
import signal
import socket
import threading
import time
import warnings
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar

from cwic.defaults import CODEC_SUFFIX, PICTURE_FORMATS, PICTURE_SUFFIXES
from cwic.errors import BitstreamError, CodecError, CodecWarning, ModelError, NotBuiltError, reason
from cwic.folder import Folder, folder_at
from cwic.request import Request

if TYPE_CHECKING:
    from cwic.bitstream import Header

__all__ = [
    "TABLE_NAME",
    "Decoding",
    "Encoding",
    "Outcome",
    "Summary",
    "Workers",
    "nothing_found",
    "plan",
    "result_names",
    "run",
]

TABLE_NAME = "batch.csv"

# Enough to keep every worker busy, few enough to hold in memory.
_PENDING_PER_WORKER = 4
# Ray reports block by block: this many steps of the progress bar, or four for each worker.
_RAY_BLOCKS = 256
# On a busy machine, Ray may take longer to start than its processes wait for each other: 15 to
# 30 s, which no setting changes. So a start that took too long is repeated.
_LOCAL_TRIES = 5


@dataclass(frozen=True)
class Encoding:
    """Turns pictures into `.cwic` files.

    Attributes:
        request: how to encode each picture.
        model: name of a bundled model or path of a model file; None is the default.
    """

    request: Request = field(default_factory=Request)
    model: str | None = None

    source_suffixes: ClassVar = PICTURE_SUFFIXES
    result_suffix: ClassVar = CODEC_SUFFIX

    def __call__(self, picture: bytes) -> bytes:
        """Encodes a picture file."""
        from cwic.codec import loaded

        codec = loaded(self.model, threads=1)
        return codec.encode_request(io.BytesIO(picture), self.request).data


@dataclass(frozen=True)
class Decoding:
    """Turns `.cwic` files into pictures.

    Attributes:
        file_format: extension of the pictures, without a dot.
        model: name or path, needed only for files of a model that is not part of the package.
    """

    file_format: str = PICTURE_FORMATS[0]
    model: str | None = None

    source_suffixes: ClassVar = frozenset({CODEC_SUFFIX})

    @property
    def result_suffix(self) -> str:
        """Suffix of the results."""
        return f".{self.file_format}"

    def __call__(self, data: bytes) -> bytes:
        """Decodes a `.cwic` file."""
        from cwic.codec import loaded_for
        from cwic.image import encode_image

        codec = loaded_for(data, self.model, threads=1)
        return encode_image(codec.decode(data), self.file_format)


@dataclass(frozen=True)
class Workers:
    """Who does the work.

    Attributes:
        jobs: number of workers; None: one for each processor, of this machine or of the cluster.
        ray_address: None works in processes of this machine, "local" in a Ray that is started
            here, anything else on the Ray cluster at this address.
    """

    jobs: int | None = None
    ray_address: str | None = None


@dataclass(frozen=True)
class Outcome:
    """The result of one file, or why there is none.

    Attributes:
        source: name of the file in the folder it comes from.
        result: name of the result in the folder of results.
        width_px: width of the picture; like all numbers None if there is an error.
        height_px: height of the picture.
        input_bytes: size of the source.
        output_bytes: size of the result.
        rate_bpp: bits of the `.cwic` file per pixel.
        kept_whole: whether nothing was lost in it.
        was_there: whether the result existed before, so that nothing was done.
        error: why there is no result, in one line.
        stops_all: whether the error would be the same for every other file.
        note: warnings, in one line.
    """

    source: str
    result: str = ""
    width_px: int | None = None
    height_px: int | None = None
    input_bytes: int | None = None
    output_bytes: int | None = None
    rate_bpp: float | None = None
    kept_whole: bool | None = None
    was_there: bool = False
    error: str = ""
    stops_all: bool = False
    note: str = ""


@dataclass(frozen=True)
class Summary:
    """The outcomes of a batch.

    Attributes:
        outcomes: one for each file, in the order of their names.
        seconds: how long the batch took.
        table: path or URL of the table of outcomes.
    """

    outcomes: tuple[Outcome, ...]
    seconds: float
    table: str

    @property
    def failed(self) -> list[Outcome]:
        """The outcomes without a result."""
        return [outcome for outcome in self.outcomes if outcome.error]

    @property
    def num_skipped(self) -> int:
        """How many results existed before."""
        return sum(outcome.was_there for outcome in self.outcomes)

    @property
    def num_whole(self) -> int:
        """How many results hold a picture that is kept whole."""
        return sum(bool(outcome.kept_whole) for outcome in self.outcomes)

    @property
    def num_done(self) -> int:
        """How many results are new."""
        return len(self.outcomes) - len(self.failed) - self.num_skipped

    @property
    def input_bytes(self) -> int:
        """Size of all sources with a result."""
        return sum(outcome.input_bytes or 0 for outcome in self.outcomes)

    @property
    def output_bytes(self) -> int:
        """Size of all results."""
        return sum(outcome.output_bytes or 0 for outcome in self.outcomes)


def run(
    source: str,
    target: str,
    task: Encoding | Decoding,
    workers: Workers | None = None,
    *,
    force: bool = False,
    show_progress: bool = True,
) -> Summary:
    """Does a task to every fitting file of a folder and of the folders in it.

    Args:
        source: path or URL of the folder with the files.
        target: path or URL of the folder for the results, which keep their place in the tree, and
            for their table `batch.csv`. May be `source`.
        task: what to do to each file.
        workers: who does it; None: processes of this machine, one for each processor.
        force: whether existing results are made again.
        show_progress: whether to show a bar on the standard error, if that is a terminal.

    Raises:
        CodecError: there is nothing to do, or to continue is of no use: no such model, a full
            disk, a worker that was killed. Finished results stay.
    """
    start_s = time.monotonic()
    job = _Job(folder_at(source), folder_at(target), task, force)
    job.source.check()
    outcomes: list[Outcome] = []  # begins with the folders that cannot be read
    names = job.source.files(
        lambda folder, error: outcomes.append(Outcome(folder, error=reason(error)))
    )
    pairs = plan(names, task.source_suffixes, task.result_suffix)
    if not pairs and not outcomes:
        has_coded = any(name.endswith(CODEC_SUFFIX) for name in job.source.files(_ignore))
        hint = "; it has .cwic files, which --to png turns into pictures" if has_coded else ""
        raise nothing_found(job.source, task.source_suffixes, hint)
    job.target.remove_leftovers()
    outcomes += _outcomes(job, pairs, workers or Workers(), show_progress)
    outcomes.sort(key=lambda outcome: outcome.source)
    job.target.write(TABLE_NAME, _table(outcomes))
    return Summary(tuple(outcomes), time.monotonic() - start_s, job.target.shown(TABLE_NAME))


def _outcomes(
    job: "_Job", pairs: Sequence[tuple[str, str]], workers: Workers, show_progress: bool
) -> Iterator[Outcome]:
    """The outcomes as they come in, with a progress bar; notes of files become warnings."""
    # Not at the top: the command imports this module for folders, without any progress bar.
    from tqdm import tqdm

    if workers.ray_address is None:
        work = _work_here(job, pairs, min(workers.jobs or _num_processors(), len(pairs)))
    else:
        work = _work_on_ray(job, pairs, workers.jobs, workers.ray_address)
    bar = tqdm(total=len(pairs), unit="file", disable=None if show_progress else True)
    with bar, closing(work):
        for outcome in work:
            if outcome.stops_all:
                raise CodecError(
                    f"{outcome.error} (stopped after {bar.n} of {len(pairs)}; once this is solved, "
                    "the same command continues from there)"
                )
            if outcome.note:
                with bar.external_write_mode():
                    name = job.source.shown(outcome.source)
                    warnings.warn(f"{name}: {outcome.note}", CodecWarning, stacklevel=3)
            yield outcome
            bar.update()


def plan(
    names: Iterable[str], suffixes: frozenset[str], result_suffix: str
) -> list[tuple[str, str]]:
    """Which files are taken, and the names of their results.

    Args:
        names: names of all files of a folder.
        suffixes: suffixes of the files to take, in lower case, with their dots.
        result_suffix: suffix of the results.
    """
    fitting = [name for name in names if PurePosixPath(name).suffix.lower() in suffixes]
    return list(zip(fitting, result_names(fitting, result_suffix), strict=True))


def nothing_found(folder: Folder, suffixes: frozenset[str], hint: str = "") -> CodecError:
    """The error for a folder without any file to take; `hint` stands at its end."""
    expected = "a .cwic file" if suffixes == {CODEC_SUFFIX} else "a picture"
    return CodecError(
        f"{folder.shown()}: expected at least {expected} in this folder, found none{hint}"
    )


def result_names(names: Sequence[str], suffix: str) -> list[str]:
    """The names of results: a.cwic for a.png, but a.png.cwic if there is an a.jpg too.

    Args:
        names: names of the files, each once.
        suffix: suffix of the results.

    Returns:
        As many names, no two the same, not even for a file system that ignores case.
    """
    stems = [name.removesuffix(PurePosixPath(name).suffix) for name in names]
    taken = Counter(text.casefold() for text in (*stems, *names))
    return [
        (stem if taken[stem.casefold()] == 1 else name) + suffix
        for stem, name in zip(stems, names, strict=True)
    ]


def _ignore(folder: str, error: OSError) -> None:
    """Does nothing about a folder that cannot be read."""


def _table(outcomes: Sequence[Outcome]) -> bytes:
    """The outcomes as comma-separated values; the same whichever run made a result."""
    columns = "width_px height_px input_bytes output_bytes rate_bpp kept_whole error".split()
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["input", "output", *columns])
    for outcome in outcomes:
        result = "" if outcome.error else outcome.result
        rows.writerow([outcome.source, result, *(getattr(outcome, name) for name in columns)])
    # The name of a file may hold bytes that are no text.
    return text.getvalue().encode("utf-8", "surrogateescape")


# --- one file -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    """What a worker needs to know; it is sent to other processes and machines."""

    source: Folder
    target: Folder
    task: Encoding | Decoding
    force: bool

    def do(self, name: str, result: str) -> Outcome:
        """Makes the result of a file, unless it exists."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", CodecWarning)
            try:
                outcome = self._do(name, result)
            except (CodecError, OSError, MemoryError) as error:
                why = _without_placeholder(reason(error))
                outcome = Outcome(name, result, error=why, stops_all=_concerns_all_files(error))
        notes = [_without_placeholder(str(warning.message)) for warning in caught]
        return replace(outcome, note="; ".join(notes))

    def _do(self, name: str, result: str) -> Outcome:
        was_there = not self.force and self.target.exists(result)
        if isinstance(self.task, Encoding):
            if was_there:
                coded = self.target.read(result)
                input_bytes = self.source.size_bytes(name)
            else:
                picture = self.source.read(name)
                coded = self.task(picture)
                input_bytes = len(picture)
                self.target.write(result, coded)
            output_bytes = len(coded)
        else:
            coded = self.source.read(name)
            input_bytes = len(coded)
            if was_there:
                output_bytes = self.target.size_bytes(result)
            else:
                decoded = self.task(coded)
                output_bytes = len(decoded)
                self.target.write(result, decoded)

        header = self._checked_header(coded, result, was_there)
        return Outcome(
            name,
            result,
            header.width,
            header.height,
            input_bytes,
            output_bytes,
            round(8 * len(coded) / header.pixels, 6),
            header.is_whole,
            was_there,
        )

    def _checked_header(self, coded: bytes, result: str, was_there: bool) -> "Header":
        """The header of a `.cwic` file, which must be complete."""
        from cwic import bitstream

        try:
            header = bitstream.read_header(coded)
            bitstream.check_length(header, len(coded))
        except BitstreamError as error:
            if not was_there or isinstance(self.task, Decoding):
                raise
            raise CodecError(
                f"{self.target.shown(result)} exists but is no complete .cwic file ({error}); "
                "-f makes it again"
            ) from error
        return header


def _concerns_all_files(error: BaseException) -> bool:
    """Whether every other file would fail for the same reason."""
    full = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
    causes = (error, error.__cause__)
    return isinstance(error, ModelError) or any(
        isinstance(cause, OSError) and cause.errno in full for cause in causes
    )


def _without_placeholder(text: str) -> str:
    """A message without the word for a picture of unknown name; the table has the name."""
    return text.removeprefix("picture: ")


# --- workers --------------------------------------------------------------------------------------


def _num_processors() -> int:
    """The number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _work_here(
    job: _Job, pairs: Sequence[tuple[str, str]], jobs: int
) -> Generator[Outcome, None, None]:
    """The outcomes of processes on this machine, as they come in."""
    if jobs <= 1:
        for pair in pairs:
            yield job.do(*pair)
        return
    # Not by fork: the runtime of the networks has threads.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin_worker)
    try:
        pending = set()
        for pair in pairs:
            pending.add(pool.submit(job.do, *pair))
            if len(pending) >= _PENDING_PER_WORKER * jobs:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        for future in as_completed(pending):
            yield future.result()
    except BrokenProcessPool as error:
        raise CodecError(
            "a worker was killed, perhaps for lack of memory; the same command with a smaller -j "
            "continues where this one stopped"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin_worker() -> None:
    """Lets a process compute on one thread, ignore Ctrl-C, and end together with its parent."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work_on_ray(
    job: _Job, pairs: Sequence[tuple[str, str]], jobs: int | None, address: str
) -> Generator[Outcome, None, None]:
    """The outcomes of actors of Ray Data, block by block."""
    where: dict[str, Any] = {"address": address}
    if address == "local":
        jobs = min(jobs or _num_processors(), len(pairs))
        # One processor more than workers, for the tasks of Ray Data itself.
        where = {"num_cpus": jobs + 1, "include_dashboard": False}
    ray = _started_ray(address, where)
    try:
        jobs = jobs or max(1, int(ray.cluster_resources().get("CPU", 1)))
        settings = ray.data.DataContext.get_current()
        settings.enable_progress_bars = False  # this module shows its own
        files = ray.data.from_items(
            # As JSON, because Ray takes text only, and a name may be something else.
            [{"pair": json.dumps(pair)} for pair in pairs],
            override_num_blocks=min(len(pairs), max(_RAY_BLOCKS, 4 * jobs)),
        )
        done = files.map(
            _RayWorker,
            fn_constructor_args=(job,),
            compute=ray.data.ActorPoolStrategy(size=min(jobs, len(pairs))),
            num_cpus=1,
        )
        for row in done.iter_rows():
            yield Outcome(**json.loads(row["outcome"]))
    finally:
        ray.shutdown()


def _started_ray(address: str, where: dict[str, Any]) -> Any:
    """The module `ray` after it has started a Ray, or connected to one.

    Args:
        address: as in `Workers`.
        where: arguments of `ray.init`.
    """
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise NotBuiltError(
            f"--ray needs Ray, found no {error.name}: pip install 'cwic[ray]'"
        ) from error
    # Ray logs much about itself; what matters comes as an exception.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        _check_reachable(address)
        for further in reversed(range(_LOCAL_TRIES if address == "local" else 1)):
            try:
                ray.init(**where, log_to_driver=False, logging_level="error")
                break
            except Exception:  # Ray has no class of its own for a start that took too long
                ray.shutdown()
                if not further:
                    raise
    except Exception as error:  # ConnectionError, ValueError, RuntimeError and more
        raise CodecError(
            f"no Ray at {address}: {reason(error)}; `ray start --head` starts a cluster"
        ) from error
    return ray


def _check_reachable(address: str) -> None:
    """Fails within seconds if nothing answers at host:port; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if port.isdigit() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()


class _RayWorker:
    """An actor: a process of the cluster that keeps its codec loaded."""

    def __init__(self, job: _Job):
        self._job = job

    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        outcome = self._job.do(*json.loads(row["pair"]))
        return {"outcome": json.dumps(asdict(outcome))}
