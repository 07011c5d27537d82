"""Folders of pictures to folders of `.cwic` files and back, on many processes or many machines.

Owns the plan (which file becomes which), the workers, and the account of it all: progress, summary
and table. What is done to one file is left to `Codec`, where files lie to :mod:`cwic.folder`.

A batch can be stopped at any time, in any way, and be run again: a result that is there is skipped,
and none is ever there in part. So the folder, and the table too, end up the same as without the
stop, and two batches into one folder do not harm each other. Every worker computes on one thread:
how many there are changes the time and not a byte.
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
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from cwic.errors import BitstreamError, CodecError, CodecWarning, ModelError, NotBuiltError
from cwic.folder import Folder, folder_at
from cwic.request import Request

if TYPE_CHECKING:
    from cwic.bitstream import Header

__all__ = ["TABLE_NAME", "Decoding", "Encoding", "Outcome", "Summary", "result_names", "run"]

TABLE_NAME = "batch.csv"

# Enough to keep every worker busy, few enough to hold in memory.
_PENDING_PER_WORKER = 4
# Ray reports block by block: this many steps of the progress bar, or four for each worker.
_RAY_BLOCKS = 256
# Beside busy programs a Ray of this machine takes longer to begin than its processes wait for each
# other: 15 to 30 s, which no setting changes. So it is begun again.
_LOCAL_TRIES = 5


@dataclass(frozen=True)
class Encoding:
    """Pictures become `.cwic` files.

    Attributes:
        request: what is asked for of each.
        model: name of a bundled model or path of a model file; None is the default.
    """

    request: Request = field(default_factory=Request)
    model: str | None = None

    @property
    def suffix(self) -> str:
        """Of the results."""
        return ".cwic"

    def __call__(self, picture: bytes) -> bytes:
        """A picture file to a `.cwic` file."""
        from cwic.codec import loaded

        codec = loaded(self.model, threads=1)
        return codec.encode_request(io.BytesIO(picture), self.request).data


@dataclass(frozen=True)
class Decoding:
    """`.cwic` files become pictures.

    Attributes:
        file_format: extension of the pictures, without a dot.
        model: only for files of a model that is not part of the package.
    """

    file_format: str = "png"
    model: str | None = None

    @property
    def suffix(self) -> str:
        """Of the results."""
        return f".{self.file_format}"

    def __call__(self, data: bytes) -> bytes:
        """A `.cwic` file to a picture file."""
        from cwic.codec import loaded_for
        from cwic.image import encode_image

        codec = loaded_for(data, self.model, threads=1)
        return encode_image(codec.decode(data), self.file_format)


@dataclass(frozen=True)
class Outcome:
    """What became of one file.

    Attributes:
        source: its name in the folder it comes from.
        result: the name of what it becomes.
        width_px: of the picture; like all numbers None where there is an error.
        height_px: of the picture.
        input_bytes: size of the source.
        output_bytes: size of the result.
        rate_bpp: bits of the `.cwic` file per pixel.
        kept_whole: nothing was lost in it.
        was_there: the result was finished before, and nothing was done.
        error: why there is no result, in one line.
        stops_all: it would be the same for every other file.
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
    """What became of a folder.

    Attributes:
        outcomes: of every file, in the order of their names.
        seconds: that the batch took.
        table: where the table of the outcomes was written.
    """

    outcomes: tuple[Outcome, ...]
    seconds: float
    table: str

    @property
    def failed(self) -> list[Outcome]:
        """Those without a result."""
        return [outcome for outcome in self.outcomes if outcome.error]

    @property
    def num_skipped(self) -> int:
        """How many results were there before."""
        return sum(outcome.was_there for outcome in self.outcomes)

    @property
    def num_whole(self) -> int:
        """How many pictures are kept whole, of all with a result."""
        return sum(bool(outcome.kept_whole) for outcome in self.outcomes)

    @property
    def num_done(self) -> int:
        """How many results are new."""
        return len(self.outcomes) - len(self.failed) - self.num_skipped

    @property
    def input_bytes(self) -> int:
        """Of all sources with a result."""
        return sum(outcome.input_bytes or 0 for outcome in self.outcomes)

    @property
    def output_bytes(self) -> int:
        """Of all results."""
        return sum(outcome.output_bytes or 0 for outcome in self.outcomes)


def run(
    source: str,
    target: str,
    task: Encoding | Decoding,
    *,
    suffixes: frozenset[str],
    jobs: int | None = None,
    ray_address: str | None = None,
    force: bool = False,
    show_progress: bool = True,
) -> Summary:
    """Does a task to every fitting file of a folder and of the folders in it.

    Args:
        source: path or URL of the folder with the files.
        target: path or URL of the folder for the results, which keep their place in the tree, and
            for their table `batch.csv`. May be `source`.
        task: what to do to each file.
        suffixes: of the files to take, in lower case, with their dots.
        jobs: number of workers; by default one for each processor, of this machine or of the
            cluster.
        ray_address: None works on processes of this machine, "local" on a Ray of its own, anything
            else on the Ray cluster at this address.
        force: makes results that are there again.
        show_progress: a bar on the standard error, if that is a terminal.

    Raises:
        CodecError: there is nothing to do, or going on is of no use: no such model, a full disk, a
            worker that was killed. What is finished stays.
    """
    # Not at the top: the command imports this module for its help.
    from tqdm import tqdm

    start_s = time.monotonic()
    job = _Job(folder_at(source), folder_at(target), task, force)
    outcomes: list[Outcome] = []
    pairs = _plan(job, suffixes, outcomes)
    job.target.remove_leftovers()
    if ray_address is not None:
        work = _work_on_ray(job, pairs, jobs, ray_address)
    else:
        work = _work_here(job, pairs, min(jobs or _num_processors(), len(pairs)))
    bar = tqdm(total=len(pairs), unit="file", disable=None if show_progress else True)
    with bar, closing(work):
        for outcome in work:
            if outcome.stops_all:
                raise CodecError(
                    f"{outcome.error} (stopped after {bar.n} of {len(pairs)}; once this is mended, "
                    "the same command goes on from there)"
                )
            if outcome.note:
                with bar.external_write_mode():
                    name = job.source.shown(outcome.source)
                    warnings.warn(f"{name}: {outcome.note}", CodecWarning, stacklevel=2)
            outcomes.append(outcome)
            bar.update()
    outcomes.sort(key=lambda outcome: outcome.source)
    job.target.write(TABLE_NAME, _table(outcomes))
    return Summary(tuple(outcomes), time.monotonic() - start_s, job.target.shown(TABLE_NAME))


def result_names(names: Sequence[str], suffix: str) -> list[str]:
    """What the results of files are called: a.cwic for a.png, but a.png.cwic if there is an a.jpg.

    Args:
        names: of the files, each once.
        suffix: of the results.

    Returns:
        As many names, no two the same, not even for a file system that ignores case.
    """
    stems = [name.removesuffix(PurePosixPath(name).suffix) for name in names]
    taken = Counter(text.casefold() for text in (*stems, *names))
    return [
        (stem if taken[stem.casefold()] == 1 else name) + suffix
        for stem, name in zip(stems, names, strict=True)
    ]


def _plan(job: "_Job", suffixes: frozenset[str], outcomes: list[Outcome]) -> list[tuple[str, str]]:
    """Each file and its result; folders that cannot be read are outcomes already."""
    job.source.check()
    others: Counter[str] = Counter()
    names = []
    for name in job.source.files(
        lambda folder, error: outcomes.append(Outcome(folder, error=_reason(error)))
    ):
        suffix = PurePosixPath(name).suffix.lower()
        if suffix in suffixes:
            names.append(name)
        others[suffix] += 1
    if not names and not outcomes:
        expected = "a .cwic file" if suffixes == {".cwic"} else "a picture"
        hint = ""
        if others[".cwic"]:
            hint = "; it has .cwic files, and --to png makes pictures of them"
        raise CodecError(
            f"{job.source.shown()}: expected at least {expected} in this folder, found none{hint}"
        )
    return list(zip(names, result_names(names, job.task.suffix), strict=True))


def _table(outcomes: Sequence[Outcome]) -> bytes:
    """Comma-separated values; they say what is in the folder, not which run made it."""
    columns = "width_px height_px input_bytes output_bytes rate_bpp kept_whole error".split()
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["input", "output", *columns])
    for outcome in outcomes:
        result = "" if outcome.error else outcome.result
        rows.writerow([outcome.source, result, *(getattr(outcome, name) for name in columns)])
    # Names of files need not be text.
    return text.getvalue().encode("utf-8", "surrogateescape")


# --- one file -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    """All that a worker has to know; it travels to other processes and machines."""

    source: Folder
    target: Folder
    task: Encoding | Decoding
    force: bool

    def do(self, name: str, result: str) -> Outcome:
        """Makes the result of a file, unless it is there."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", CodecWarning)
            try:
                outcome = self._do(name, result)
            except (CodecError, OSError, MemoryError) as error:
                outcome = Outcome(
                    name, result, error=_reason(error), stops_all=_is_the_same_for_all(error)
                )
        notes = [_without_stand_in(str(warning.message)) for warning in caught]
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
        """The header of a `.cwic` file that is complete."""
        from cwic import bitstream

        try:
            header = bitstream.read_header(coded)
            bitstream.check_length(header, len(coded))
        except BitstreamError as error:
            if not was_there or isinstance(self.task, Decoding):
                raise
            raise CodecError(
                f"{self.target.shown(result)} is there and no complete .cwic file ({error}); "
                "-f makes it again"
            ) from error
        return header


def _is_the_same_for_all(error: BaseException) -> bool:
    full = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
    causes = (error, error.__cause__)
    return isinstance(error, ModelError) or any(
        isinstance(cause, OSError) and cause.errno in full for cause in causes
    )


def _reason(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "not enough memory"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return _without_stand_in(" ".join(text.split()))


def _without_stand_in(text: str) -> str:
    """Without what messages call a picture whose file they do not know; the list names it."""
    return text.removeprefix("picture: ")


# --- workers --------------------------------------------------------------------------------------


def _num_processors() -> int:
    """That this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _work_here(
    job: _Job, pairs: Sequence[tuple[str, str]], jobs: int
) -> Generator[Outcome, None, None]:
    """The outcomes, as they come in, of processes on this machine."""
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
            "a worker was killed, for want of memory perhaps; the same command with a smaller -j "
            "goes on where this one stopped"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin_worker() -> None:
    """Makes a process compute on one thread, leave Ctrl-C to its parent, and end with it."""
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
    """The outcomes, block by block, of actors of Ray Data."""
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise NotBuiltError(
            f"--ray needs Ray, found no {error.name}: pip install 'cwic[ray]'"
        ) from error
    # Reports of Ray's inner life; what matters comes as an exception.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    where: dict[str, Any] = {"address": address}
    if address == "local":
        jobs = min(jobs or _num_processors(), len(pairs))
        # One more for the tasks of Ray Data itself.
        where = {"num_cpus": jobs + 1, "include_dashboard": False}
    try:
        _check_reachable(address)
        _begin_ray(where, tries=_LOCAL_TRIES if address == "local" else 1)
    except Exception as error:  # ConnectionError, ValueError, RuntimeError and more
        raise CodecError(
            f"no Ray at {address}: {_reason(error)}; `ray start --head` begins a cluster"
        ) from error
    try:
        jobs = jobs or max(1, int(ray.cluster_resources().get("CPU", 1)))
        settings = ray.data.DataContext.get_current()
        settings.enable_progress_bars = False  # ours is there
        files = ray.data.from_items(
            # As JSON, because Ray takes text only and a name need not be any.
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


def _begin_ray(where: dict[str, Any], tries: int) -> None:
    """Begins a Ray, or connects to one; raises what the last try raised."""
    import ray

    for further in reversed(range(tries)):
        try:
            ray.init(**where, log_to_driver=False, logging_level="error")
            return
        except Exception:  # Ray knows no kind for a start that took too long
            ray.shutdown()
            if not further:
                raise


def _check_reachable(address: str) -> None:
    """Asks for a moment what Ray would ask for minutes: whether anything answers at host:port."""
    host, _, port = address.rpartition(":")
    if port.isdigit() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()


class _RayWorker:
    """An actor: a process of the cluster that keeps its codec."""

    def __init__(self, job: _Job):
        self._job = job

    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        outcome = self._job.do(*json.loads(row["pair"]))
        return {"outcome": json.dumps(asdict(outcome))}
