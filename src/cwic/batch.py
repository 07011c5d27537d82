"""Folders of pictures to folders of `.cwic` files and back, on many processes or many machines.

Owns the plan (which file becomes which, and which are left alone), the workers, and the report:
progress, summary and table. What is done to one file is left to `Codec`, where files lie to
:mod:`cwic.folder`.

A batch can be stopped at any time, in any way, and run again: it skips results that exist, and no
result is ever half written. So the folder and the table end up the same as without the stop, and
two batches into one folder do not harm each other. The table keeps the names of results: a file
that comes later takes none away. Every worker computes on one thread: the number of workers changes
the time and not a byte.
"""

import contextlib
import csv
import errno
import io
import itertools
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
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from cwic.defaults import CODEC_SUFFIX, PICTURE_FORMATS, PICTURE_SUFFIXES, UNREAD_PICTURES
from cwic.errors import BitstreamError, CodecError, CodecWarning, ModelError, NotBuiltError, reason
from cwic.folder import Folder, folder_at, place_within
from cwic.request import Request
from cwic.workers import end_with_parent

if TYPE_CHECKING:
    from cwic.bitstream import Header

TABLE_NAME = "batch.csv"
# Where a file of somebody else's has that name.
_OTHER_TABLE_NAME = "cwic-batch.csv"
_COLUMNS = (
    *("width_px", "height_px", "input_bytes", "output_bytes", "rate_bpp"),
    *("kept_whole", "colours", "exact_graphics", "error"),
)
_HEAD = ["input", "output", *_COLUMNS, "left_alone"]
# So begin the tables of this command, those of earlier versions too.
_TABLE_BEGINS = b"input,output,width_px,height_px,"

# Enough to keep every worker busy, few enough to hold in memory.
_PENDING_PER_WORKER = 4
# Held while a result is written; who is told to end waits for it so long.
_WRITING = threading.Lock()
_WRITES_AT_MOST_S = 10.0
# Ray reports block by block: this many steps of the progress bar, or four for each worker.
_RAY_BLOCKS = 256
# On a busy machine, Ray may take longer to start than its processes wait for each other: 15 to
# 30 s, which no setting changes. So a start that took too long is repeated.
_LOCAL_TRIES = 5


@dataclass(frozen=True)
class Encoding:
    """Turns pictures into `.cwic` files."""

    request: Request = field(default_factory=Request)  # how to encode each picture
    model: str | None = None  # name of a bundled model or path of a model file; None: the default

    source_suffixes: ClassVar = PICTURE_SUFFIXES
    result_suffix: ClassVar = CODEC_SUFFIX

    def __call__(self, picture: bytes) -> bytes:
        """Encodes a picture file."""
        from cwic.codec import loaded

        codec = loaded(self.model, threads=1)
        return codec.encode_request(io.BytesIO(picture), self.request).data


@dataclass(frozen=True)
class Decoding:
    """Turns `.cwic` files into pictures."""

    file_format: str = PICTURE_FORMATS[0]  # extension of the pictures, without a dot
    model: str | None = None  # needed only for files of a model that is not part of the package
    fast: bool = False  # as of `Codec.decode`

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
        return encode_image(codec.decode(data, fast=self.fast), self.file_format)


@dataclass(frozen=True)
class Workers:
    """Who does the work."""

    jobs: int | None = None  # None: one for each processor, of this machine or of the cluster
    # None works in processes of this machine, "local" in a Ray that is started here, anything else
    # on the Ray cluster at this address.
    ray_address: str | None = None


@dataclass(frozen=True)
class Outcome:
    """The result of one file, or why there is none; numbers are None if there is an error."""

    source: str  # name of the file in the folder it comes from
    result: str = ""  # name of the result in the folder of results
    width_px: int | None = None
    height_px: int | None = None
    input_bytes: int | None = None
    output_bytes: int | None = None
    rate_bpp: float | None = None  # bits of the `.cwic` file per pixel
    kept_whole: bool | None = None  # whether nothing was lost in it
    colours: int | None = None  # to which the picture was reduced; None if it was not
    exact_graphics: bool | None = None  # whether its text and graphics are exact over coded pixels
    was_there: bool = False  # whether the result existed before, so that nothing was done
    error: str = ""  # why there is no result, in one line
    is_of_another: bool = False  # whether the result was made of another file; `input_bytes` of it
    stops_all: bool = False  # whether the error would be the same for every other file
    note: str = ""  # warnings, in one line


class LeftAlone(NamedTuple):
    """A file that a batch did not take."""

    source: str  # name of the file, or of a hidden folder with a `/` at its end
    why: str  # in a few words


@dataclass(frozen=True)
class Summary:
    """The outcomes of a batch."""

    outcomes: tuple[Outcome, ...]  # one for each file that was taken, in the order of their names
    seconds: float  # how long the batch took
    table: str  # path or URL of the table of outcomes
    left_alone: tuple[LeftAlone, ...] = ()  # all other files, in the order of their names

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
    def num_reduced(self) -> int:
        """How many results hold a picture in fewer colours."""
        return sum(outcome.colours is not None for outcome in self.outcomes)

    @property
    def num_with_exact_graphics(self) -> int:
        """How many results hold a coded picture whose text and graphics are exact."""
        return sum(bool(outcome.exact_graphics) for outcome in self.outcomes)

    @property
    def num_larger(self) -> int:
        """How many results are larger than their sources, as pictures always are."""
        return sum(
            outcome.output_bytes > outcome.input_bytes
            for outcome in self.outcomes
            if outcome.output_bytes is not None and outcome.input_bytes is not None
        )

    @property
    def num_done(self) -> int:
        """How many results are new."""
        return len(self.outcomes) - len(self.failed) - self.num_skipped

    @property
    def input_bytes(self) -> int:
        """Size of all sources with a result."""
        return sum(outcome.input_bytes or 0 for outcome in self.outcomes if not outcome.error)

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

    Folders are paths or URLs. Results keep their place in the tree; beside them goes their table
    `batch.csv`, or `cwic-batch.csv` if that is a file of somebody else's. Existing results are made
    again with `force`. A progress bar is shown on the standard error if that is a terminal.

    Raises:
        CodecError: there is nothing to do, or to continue is of no use: no such model, a full
            disk, a worker that was killed. Finished results stay.
    """
    start_s = time.monotonic()
    job = _Job(folder_at(source), folder_at(target), task, force)
    job.source.check()
    outcomes: list[Outcome] = []  # begins with the folders that cannot be read

    def note_unreadable(folder: str, error: OSError) -> None:
        if not _is_hidden(folder):
            outcomes.append(Outcome(folder, error=reason(error)))

    job.target.check_is_free_or_folder()
    names = list(job.source.files(note_unreadable))
    table = _table_name(job.target)
    rows = _rows(job.target, table)
    recorded = {name: row["output"] for name, row in rows.items()}
    pairs = plan(names, task.source_suffixes, task.result_suffix, recorded)
    left_alone = _left_alone(job, names, pairs)
    if not pairs and not outcomes:
        hint = f"; left alone: {counted(left_alone)}" if left_alone else ""
        if any(name.endswith(CODEC_SUFFIX) for name in names):
            hint = "; it has .cwic files, which --to png turns into pictures"
        raise nothing_found(job.source, task.source_suffixes, hint)
    job.target.remove_leftovers()
    new = [Outcome(*pair) for pair in pairs if recorded.get(pair[0]) != pair[1]]
    if new:
        # Names stay even if this batch is killed. Why it cannot be written, the first result says.
        with contextlib.suppress(CodecError, OSError):
            old = _without(rows, {outcome.source for outcome in new})
            job.target.write(table, _table(new, left_alone, old))
    results = [
        _Result(name, result, _recorded_bytes(rows.get(name), result)) for name, result in pairs
    ]
    outcomes += _outcomes(job, results, workers or Workers(), show_progress)
    outcomes.sort(key=lambda outcome: outcome.source)
    others = _without(_rows(job.target, table), set(names))
    others = {name: row for name, row in others.items() if job.target.exists(row["output"])}
    job.target.write(table, _table(outcomes, left_alone, others))
    seconds = time.monotonic() - start_s
    return Summary(tuple(outcomes), seconds, job.target.shown(table), tuple(left_alone))


class _Result(NamedTuple):
    """What is to be made."""

    source: str  # name of the file
    name: str  # of its result
    recorded_bytes: int | None  # of the file of which the table says that the result was made


def _outcomes(
    job: "_Job", results: Sequence[_Result], workers: Workers, show_progress: bool
) -> Iterator[Outcome]:
    """The outcomes as they come in, with a progress bar; notes of files become warnings."""
    # Not at the top: the command imports this module for folders, without any progress bar.
    from tqdm import tqdm

    if workers.ray_address is None:
        work = _work_here(job, results, min(workers.jobs or _num_processors(), len(results)))
    else:
        work = _work_on_ray(job, results, workers.jobs, workers.ray_address)
    bar = tqdm(total=len(results), unit="file", disable=None if show_progress else True)
    with bar, closing(work):
        for outcome in work:
            if outcome.stops_all:
                raise CodecError(
                    f"{outcome.error} (stopped after {bar.n} of {len(results)}; once this is "
                    "solved, the same command continues from there)"
                )
            if outcome.note:
                with bar.external_write_mode():
                    name = job.source.shown(outcome.source)
                    warnings.warn(f"{name}: {outcome.note}", CodecWarning, stacklevel=3)
            yield outcome
            bar.update()


def plan(
    names: Iterable[str],
    suffixes: frozenset[str],
    result_suffix: str,
    recorded: Mapping[str, str] | None = None,
) -> list[tuple[str, str]]:
    """Which files are taken, and the names of their results; hidden ones are not.

    `suffixes` are in lower case, with their dots; `recorded` as of `result_names`.
    """
    fitting = [
        name
        for name in names
        if PurePosixPath(name).suffix.lower() in suffixes and not _is_hidden(name)
    ]
    return list(zip(fitting, result_names(fitting, result_suffix, recorded), strict=True))


def _is_hidden(name: str) -> bool:
    """Whether a file, or a folder that it lies in, is hidden: by a dot, as `._a.jpg` of macOS."""
    return any(part.startswith(".") for part in name.split("/"))


def _left_alone(
    job: "_Job", names: Sequence[str], pairs: Sequence[tuple[str, str]]
) -> list[LeftAlone]:
    """The files of the source that are not taken, without those that the batch itself makes."""
    tables = {TABLE_NAME, _OTHER_TABLE_NAME} & set(names)
    done = {name for name, _ in pairs} | {name for name in tables if _is_table(job.source, name)}
    target = place_within(job.source, job.target)
    if target == "":
        done |= {result for _, result in pairs}
    found = {}
    for name in names:
        of_batch = PurePosixPath(name).match(".cwic-*.tmp")
        if name in done or of_batch or (target and name.startswith(f"{target}/")):
            continue
        parts = name.split("/")
        depth = next((index for index, part in enumerate(parts, 1) if part.startswith(".")), None)
        if depth is not None and depth < len(parts):
            found["/".join(parts[:depth]) + "/"] = "hidden folder"
        else:
            found[name] = _why_left_alone(name, job.task)
    return [LeftAlone(name, found[name]) for name in sorted(found)]


def _why_left_alone(name: str, task: "Encoding | Decoding") -> str:
    suffix = PurePosixPath(name).suffix.lower()
    if _is_hidden(name):
        return "hidden file"
    if isinstance(task, Decoding):
        return "no .cwic file"
    if suffix == CODEC_SUFFIX:
        return "a .cwic file"
    if suffix in UNREAD_PICTURES:
        return f"{UNREAD_PICTURES[suffix]} is not read"
    return "no extension of a picture" if suffix else "no extension"


def counted(left_alone: Sequence[LeftAlone]) -> str:
    """How many files were left alone for each reason, in words."""
    counts = Counter(file.why for file in left_alone)
    return ", ".join(f"{number} x {why}" for why, number in sorted(counts.items()))


def nothing_found(folder: Folder, suffixes: frozenset[str], hint: str = "") -> CodecError:
    """The error for a folder without any file to take; `hint` stands at its end."""
    expected = "a .cwic file" if suffixes == {CODEC_SUFFIX} else "a picture"
    return CodecError(
        f"{folder.shown()}: expected at least {expected} in this folder, found none{hint}"
    )


def result_names(
    names: Sequence[str], suffix: str, recorded: Mapping[str, str] | None = None
) -> list[str]:
    """The names of results: a.cwic for a.png, but a.png.cwic if there is an a.jpg too.

    No two are the same, not even for a file system that ignores case. `recorded` are names of
    results of earlier runs, by the names of their files: these stay, and no other file gets one of
    them.
    """
    stems = {name: name.removesuffix(PurePosixPath(name).suffix) for name in names}
    uses = Counter(text.casefold() for text in (*stems.values(), *names))
    recorded = recorded or {}
    results: dict[str, str] = {}
    taken = {result.casefold() for name, result in recorded.items() if name not in stems}
    for name, stem in stems.items():
        result = recorded.get(name, "")
        added = result.removeprefix(stem)
        # A table may have been edited, and is of another task if its results end otherwise.
        is_ours = result.startswith(stem) and result.endswith(suffix) and "/" not in added
        if is_ours and result.casefold() not in taken:
            results[name] = result
            taken.add(result.casefold())
    for name, stem in stems.items():
        if name in results:
            continue
        is_short = uses[stem.casefold()] == 1 and (stem + suffix).casefold() not in taken
        result = (stem if is_short else name) + suffix
        for number in itertools.count(2):
            if result.casefold() not in taken:
                break
            result = f"{name}.{number}{suffix}"
        results[name] = result
        taken.add(result.casefold())
    return [results[name] for name in names]


def _table_name(target: Folder) -> str:
    """The name of the table: another one if somebody else has a file of that name there."""
    for name in (TABLE_NAME, _OTHER_TABLE_NAME):
        if not target.exists(name) or _is_table(target, name):
            if name != TABLE_NAME:
                warnings.warn(
                    f"{target.shown(TABLE_NAME)} is no table of a batch and stays as it is: "
                    f"the table is {name}",
                    CodecWarning,
                    stacklevel=3,
                )
            return name
    raise CodecError(
        f"{target.shown()}: expected tables of a batch, found other files that are called "
        f"{TABLE_NAME} and {_OTHER_TABLE_NAME}"
    )


def _is_table(target: Folder, name: str) -> bool:
    try:
        return target.read(name).startswith(_TABLE_BEGINS)
    except CodecError:  # a folder
        return False


_Rows = Mapping[str, Mapping[str, str]]


def _rows(target: Folder, table: str) -> _Rows:
    """The rows of a table that have a result, by the names of their files."""
    if not target.exists(table):
        return {}
    text = io.StringIO(target.read(table).decode("utf-8", "surrogateescape"), newline="")
    found = csv.DictReader(text, restval="")
    return {row["input"]: row for row in found if row["output"]}


def _without(rows: _Rows, names: Set[str]) -> _Rows:
    return {name: row for name, row in rows.items() if name not in names}


def _recorded_bytes(row: Mapping[str, str] | None, result: str) -> int | None:
    """Size of the file that a result was made of; None if the table does not say."""
    if row is None or row["output"] != result:
        return None
    size = row.get("input_bytes", "")
    return int(size) if size.isdecimal() else None


def _table(
    outcomes: Sequence[Outcome],
    left_alone: Sequence[LeftAlone],
    others: _Rows,
) -> bytes:
    """The outcomes as comma-separated values; the same whichever run made a result.

    `others` are rows that stay: of other batches into the same folder, and of files that are gone.
    """
    rows: list[list[Any]] = [[row.get(name, "") for name in _HEAD] for row in others.values()]
    for outcome in outcomes:
        result = "" if outcome.error and not outcome.is_of_another else outcome.result
        facts = [getattr(outcome, name) for name in _COLUMNS]
        rows.append([outcome.source, result, *facts, ""])
    rows += [[file.source, "", *("" for _ in _COLUMNS), file.why] for file in left_alone]
    rows.sort(key=lambda row: row[0])
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([_HEAD, *rows])
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

    def do(self, wanted: _Result) -> Outcome:
        """Makes the result of a file, unless it exists."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", CodecWarning)
            try:
                outcome = self._do(*wanted)
            except (CodecError, OSError, MemoryError) as error:
                why = _without_placeholder(reason(error))
                stops_all = _concerns_all_files(error)
                outcome = Outcome(wanted.source, wanted.name, error=why, stops_all=stops_all)
        notes = [_without_placeholder(str(warning.message)) for warning in caught]
        return replace(outcome, note="; ".join(notes))

    def _do(self, name: str, result: str, recorded_bytes: int | None) -> Outcome:
        was_there = not self.force and self.target.exists(result)
        encodes = isinstance(self.task, Encoding)
        # Of a result that exists only the `.cwic` file is read.
        found = None if was_there and encodes else self.source.read(name)
        input_bytes = self.source.size_bytes(name) if found is None else len(found)
        if was_there and recorded_bytes not in (None, input_bytes):
            why = (
                f"{self.target.shown(result)} was made of a file of {recorded_bytes} bytes, found "
                f"one of {input_bytes}; -f makes it again, another OUT keeps both"
            )
            return Outcome(name, result, input_bytes=recorded_bytes, error=why, is_of_another=True)
        made = self.target.read(result) if was_there and encodes else None
        if not was_there:
            assert found is not None
            made = self.task(found)
            with _WRITING:
                self.target.write(result, made)
        coded = made if encodes else found
        assert coded is not None
        header = self._checked_header(coded, result, was_there)
        return Outcome(
            name,
            result,
            header.width,
            header.height,
            input_bytes,
            self.target.size_bytes(result) if made is None else len(made),
            round(8 * len(coded) / header.pixels, 6),
            header.is_whole,
            header.num_colours,
            header.has_exact_layer,
            was_there,
        )

    def _checked_header(self, coded: bytes, result: str, was_there: bool) -> "Header":
        """The header of a `.cwic` file, which must be complete.

        Of a result that exists all checksums are checked too: nothing else looks at it.
        """
        from cwic import bitstream

        try:
            header = bitstream.read_header(coded)
            bitstream.check_length(header, len(coded))
            if was_there and isinstance(self.task, Encoding):
                for section in header.sections:
                    bitstream.read_section(coded, section)
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
    numbers = (getattr(cause, "errno", None) for cause in (error, error.__cause__))
    return isinstance(error, ModelError) or any(number in full for number in numbers)


def _without_placeholder(text: str) -> str:
    """A message without the word for a picture of unknown name; the table has the name."""
    return text.removeprefix("picture: ")


# --- workers --------------------------------------------------------------------------------------


def _num_processors() -> int:
    """The number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _work_here(job: _Job, results: Sequence[_Result], jobs: int) -> Generator[Outcome, None, None]:
    """The outcomes of processes on this machine, as they come in."""
    if jobs <= 1:
        for result in results:
            yield job.do(result)
        return
    # Not by fork: the runtime of the networks has threads.
    context = multiprocessing.get_context("spawn")
    stop, stopping = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(
        jobs, mp_context=context, initializer=_begin_worker, initargs=(stop,)
    )
    try:
        pending = set()
        for result in results:
            pending.add(pool.submit(job.do, result))
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
    except BaseException:
        stopping.close()  # workers end in the middle of their files
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        stopping.close()
        stop.close()


def _begin_worker(stop: Connection) -> None:
    """Lets a process compute on one thread, ignore Ctrl-C, and end where its parent says or ends.

    The parent says so by closing the other end of `stop`.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A file that is being written is finished first: then nothing of it is left over.
    end_with_parent(stop, lambda: _WRITING.acquire(timeout=_WRITES_AT_MOST_S))


def _work_on_ray(
    job: _Job, results: Sequence[_Result], jobs: int | None, address: str
) -> Generator[Outcome, None, None]:
    """The outcomes of actors of Ray Data, block by block."""
    where: dict[str, Any] = {"address": address}
    if address == "local":
        jobs = min(jobs or _num_processors(), len(results))
        # One processor more than workers, for the tasks of Ray Data itself.
        where = {"num_cpus": jobs + 1, "include_dashboard": False}
    ray = _started_ray(address, where)
    try:
        jobs = jobs or max(1, int(ray.cluster_resources().get("CPU", 1)))
        settings = ray.data.DataContext.get_current()
        settings.enable_progress_bars = False  # this module shows its own
        files = ray.data.from_items(
            # As JSON, because Ray takes text only, and a name may be something else.
            [{"result": json.dumps(result)} for result in results],
            override_num_blocks=min(len(results), max(_RAY_BLOCKS, 4 * jobs)),
        )
        done = files.map(
            _RayWorker,
            fn_constructor_args=(job,),
            compute=ray.data.ActorPoolStrategy(size=min(jobs, len(results))),
            num_cpus=1,
        )
        for row in done.iter_rows():
            yield Outcome(**json.loads(row["outcome"]))
    finally:
        ray.shutdown()


def _started_ray(address: str, where: dict[str, Any]) -> Any:
    """The module `ray` after it has started a Ray with these arguments, or connected to one."""
    # What runs where is nobody else's business, unless the user says so.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
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
        outcome = self._job.do(_Result(*json.loads(row["result"])))
        return {"outcome": json.dumps(asdict(outcome))}
