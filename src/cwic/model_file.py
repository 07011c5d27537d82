"""A model on disk: load, save, identity, and which models there are.

A model file is a zip archive of a manifest (JSON), ONNX graphs (the float transforms) and arrays
(`.npy`, pickle refused): integers for everything that reaches the arithmetic coder, half or single
precision for what else a decoder computes. It is the seam between training, which writes it, and
the runtime, which reads it. What they mean belongs to the families, :mod:`cwic.families`. Which
models there are is known before anything heavy is imported.
"""

import io
import json
import math
import os
import zipfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from cwic.errors import ModelError, UnknownModelError, reason
from cwic.onnx_check import check_graph

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    import numpy.typing as npt

EXTENSION = ".cwicmodel"
DEFAULT_MODEL = "cwic-visual"
IDENTITY_BYTES = 8

_FORMAT = "cwic-model-1"
_MANIFEST = "manifest.json"
_GRAPH = ".onnx"
_ARRAY = ".npy"
_SYNTHESIS = "synthesis"  # the graph that decoding depends on
_BUNDLED = Path(__file__).parent / "models"

# Of all entries together, unpacked: a model from a stranger must not exhaust the memory.
_MAX_BYTES = 256 * 1024 * 1024

Array: TypeAlias = "npt.NDArray[Any]"


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a model file without loading its networks."""

    name: str
    family: str
    identity: bytes  # 8 bytes, stands in every file that the model writes
    path: Path
    size_bytes: int
    is_default: bool
    graphs: frozenset[str]  # names


@dataclass(frozen=True)
class ModelFile:
    """A model, loaded and checked.

    `decoding` and `encoding` hold the family's numbers. All that decoding depends on (family,
    `decoding`, the synthesis graph and the arrays) makes up the identity; what only the encoder
    uses may change without touching it.
    """

    name: str
    family: str
    decoding: dict[str, Any]
    encoding: dict[str, Any]
    graphs: Mapping[str, bytes]  # ONNX, by name; "analysis" and "synthesis" among them
    arrays: dict[str, Array]
    identity: bytes  # 8 bytes
    path: Path | None = None  # where it was loaded from


def build(
    name: str,
    family: str,
    *,
    decoding: Mapping[str, Any],
    encoding: Mapping[str, Any],
    graphs: Mapping[str, bytes],
    arrays: Mapping[str, Array],
) -> ModelFile:
    """A model from its parts; computes the identity."""
    return ModelFile(
        name=name,
        family=family,
        decoding=dict(decoding),
        encoding=dict(encoding),
        graphs=graphs,
        arrays=dict(arrays),
        identity=_identity(family, decoding, graphs[_SYNTHESIS], arrays),
    )


def save(model: ModelFile, path: Path) -> None:
    """Write a model file, atomically; the same model gives the same bytes."""
    from cwic.atomic_file import write_file

    write_file(path, packed(model))


def packed(model: ModelFile) -> bytes:
    """A model file in memory; the same model gives the same bytes."""
    import numpy as np

    manifest = {
        "format": _FORMAT,
        "name": model.name,
        "family": model.family,
        "identity": model.identity.hex(),
        "decoding": model.decoding,
        "encoding": model.encoding,
    }
    entries = {_MANIFEST: json.dumps(manifest, indent=1, sort_keys=True).encode()}
    for graph_name, graph in sorted(model.graphs.items()):
        entries[graph_name + _GRAPH] = graph
    for array_name, array in sorted(model.arrays.items()):
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        entries[array_name + _ARRAY] = buffer.getvalue()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for entry_name, data in entries.items():
            # A fixed time stamp keeps the bytes a function of the model.
            info = zipfile.ZipInfo(entry_name, (1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(info, data)
    return archive.getvalue()


def load(path: Path, *, for_decoding: bool = False) -> ModelFile:
    """Read a model file and check it against its identity.

    With `for_decoding`, graphs that do not belong to the identity are unpacked and checked only
    when they are needed, with the same error.

    Raises:
        ModelError: the file is missing, damaged, or no model file of this program.
    """
    content = _content(path)
    with _opened(path, content) as file, ThreadPoolExecutor(1) as beside:
        manifest = _read_manifest(file, path)
        graphs = _Graphs(file, content, path)
        # Graphs and arrays take about as long to unpack.
        needed = (_SYNTHESIS,) if for_decoding else tuple(graphs)
        unpacking = beside.submit(lambda: {name: graphs[name] for name in needed})
        arrays = {
            name: _read_array(_read_entry(file, name + _ARRAY, path), name + _ARRAY, path)
            for name in _names(file, _ARRAY)
        }
        unpacked = unpacking.result()
    model = build(
        manifest["name"],
        manifest["family"],
        decoding=manifest["decoding"],
        encoding=manifest["encoding"],
        graphs=graphs if for_decoding else unpacked,
        arrays=arrays,
    )
    if model.identity.hex() != manifest["identity"]:
        raise ModelError(
            f"{path}: damaged: expected identity {manifest['identity']}, "
            f"found {model.identity.hex()}"
        )
    return replace(model, path=path)


def read_info(path: Path) -> ModelInfo:
    """Name, family and identity of a model file, from its manifest alone.

    Raises:
        ModelError: as :func:`load`.
    """
    content = _content(path) if _is_packed(path) else None
    with _opened(path, content) as file:
        manifest = _read_manifest(file, path)
        graphs = frozenset(_names(file, _GRAPH))
        size_bytes = path.stat().st_size if content is None else len(content)
    return ModelInfo(
        name=manifest["name"],
        family=manifest["family"],
        identity=bytes.fromhex(manifest["identity"]),
        path=path,
        size_bytes=size_bytes,
        is_default=path == _BUNDLED / (DEFAULT_MODEL + EXTENSION),
        graphs=graphs,
    )


@cache
def bundled_models() -> tuple[ModelInfo, ...]:
    """The models inside the package, the default first."""
    found = [read_info(path) for path in sorted(_bundled_paths())]
    return tuple(sorted(found, key=lambda info: (not info.is_default, info.name)))


def find(name_or_path: str | os.PathLike[str] | None) -> Path:
    """The model file of a bundled name, or the path itself; None is the default model.

    Raises:
        ModelError: neither a bundled name nor a file.
        ValueError: this is neither text nor a path.
    """
    if name_or_path is None:
        name_or_path = DEFAULT_MODEL
    if not isinstance(name_or_path, str | os.PathLike):
        raise ValueError(f"model: expected a name or a path, found {name_or_path!r}")
    for info in bundled_models():
        if info.name == name_or_path:
            return info.path
    path = Path(name_or_path)
    if path.is_file() or any(info.path == path for info in bundled_models()):
        return path
    names = ", ".join(info.name for info in bundled_models()) or "none"
    raise ModelError(f"{name_or_path}: expected a model file or a bundled model ({names})")


def bundled_name(identity: bytes) -> str:
    """Of the bundled model of this identity; "" where there is none."""
    return next((info.name for info in bundled_models() if info.identity == identity), "")


def find_identity(identity: bytes) -> Path:
    """The bundled model that wrote a file.

    Raises:
        UnknownModelError: none of the bundled models has this identity.
    """
    for info in bundled_models():
        if info.identity == identity:
            return info.path
    known = ", ".join(f"{info.name} {info.identity.hex()}" for info in bundled_models()) or "none"
    raise UnknownModelError(
        f"the file was made by model {identity.hex()}, which is not here; "
        f"bundled: {known}; a model of your own is named with --model or Codec.load"
    )


def _identity(
    family: str, decoding: Mapping[str, Any], synthesis: bytes, arrays: Mapping[str, Array]
) -> bytes:
    import hashlib

    digest = hashlib.sha256()

    def add(data: bytes) -> None:
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)

    add(family.encode())
    add(json.dumps(decoding, sort_keys=True).encode())
    add(synthesis)
    for array_name, array in sorted(arrays.items()):
        add(array_name.encode())
        add(f"{array.dtype.newbyteorder('<').str} {array.shape}".encode())
        add(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.digest()[:IDENTITY_BYTES]


class _Graphs(Mapping[str, bytes]):
    """The graphs of a model file, each unpacked and checked when it is first needed."""

    def __init__(self, file: zipfile.ZipFile, content: bytes, path: Path):
        self._content, self._path = content, path
        self._names = {"analysis", _SYNTHESIS, *_names(file, _GRAPH)}
        self._read: dict[str, bytes] = {}

    def __getitem__(self, name: str) -> bytes:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._read:
            entry = name + _GRAPH
            with _opened(self._path, self._content) as file:
                data = _read_entry(file, entry, self._path)
            try:
                check_graph(data)
            except ValueError as error:
                raise ModelError(f"{self._path}: {entry}: {error}") from error
            self._read[name] = data
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _is_packed(path: Path) -> bool:
    """Whether a model is bundled, and the package lies in a zip archive that Python imports from.

    Its path then goes through the archive, and only the importer can open it.
    """
    return path.parent == _BUNDLED and not _BUNDLED.is_dir()


def _bundled_paths() -> list[Path]:
    if _BUNDLED.is_dir():
        return list(_BUNDLED.glob("*" + EXTENSION))
    names = [entry.name for entry in _packed_models().iterdir()]
    return [_BUNDLED / name for name in names if name.endswith(EXTENSION)]


def _packed_models() -> "Traversable":
    from importlib.resources import files  # takes a while to load, and is rarely needed

    return files("cwic") / "models"


def _content(path: Path) -> bytes:
    """A file as it is now, whatever becomes of it."""
    try:
        with (_packed_models() / path.name if _is_packed(path) else path).open("rb") as file:
            # In one piece: a read of `_MAX_BYTES` would ask for as much memory, however small the
            # file, and pieces that are put together take ten times as long.
            size_bytes = 0 if _is_packed(path) else os.fstat(file.fileno()).st_size
            pieces: list[bytes] = []
            while sum(map(len, pieces)) <= _MAX_BYTES and (
                piece := file.read(max(2**20, min(size_bytes, _MAX_BYTES) + 1))
            ):
                pieces.append(piece)
            content = b"".join(pieces)
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such model file") from error
    except OSError as error:
        raise ModelError(f"{path}: expected a model file, found {reason(error)}") from error
    if len(content) > _MAX_BYTES:
        raise ModelError(f"{path}: expected at most {_MAX_BYTES} B, found more")
    return content


@contextmanager
def _opened(path: Path, content: bytes | None = None) -> Iterator[zipfile.ZipFile]:
    """The archive, or what was read of it; whatever reading it raises becomes a `ModelError`."""
    try:
        with zipfile.ZipFile(path if content is None else io.BytesIO(content)) as file:
            size_bytes = sum(info.file_size for info in file.infolist())
            if size_bytes > _MAX_BYTES:
                raise ModelError(
                    f"{path}: expected at most {_MAX_BYTES} B unpacked, found {size_bytes} B"
                )
            yield file
    except ModelError:
        raise
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such model file") from error
    except Exception as error:  # zipfile and zlib raise nearly anything on damaged bytes
        raise ModelError(f"{path}: expected a model file, found {reason(error)}") from error


def _names(file: zipfile.ZipFile, suffix: str) -> list[str]:
    """Entries with a suffix, without it."""
    return [name.removesuffix(suffix) for name in file.namelist() if name.endswith(suffix)]


def _read_entry(file: zipfile.ZipFile, name: str, path: Path) -> bytes:
    try:
        info = file.getinfo(name)
    except KeyError as error:
        raise ModelError(f"{path}: expected an entry {name}, found none") from error
    return file.read(info)


def _read_manifest(file: zipfile.ZipFile, path: Path) -> dict[str, Any]:
    data = _read_entry(file, _MANIFEST, path)
    try:
        manifest = json.loads(data)
    except ValueError as error:
        raise ModelError(f"{path}: expected a JSON manifest, found {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
        raise ModelError(f"{path}: expected a model of format {_FORMAT}, found {found!r}")
    kinds = dict.fromkeys(("name", "family", "identity"), str)
    for key, kind in {**kinds, "decoding": dict, "encoding": dict}.items():
        if not isinstance(manifest.get(key), kind):
            raise ModelError(
                f"{path}: manifest: expected {key} to be a {kind.__name__}, "
                f"found a {type(manifest.get(key)).__name__}"
            )
    try:
        length = len(bytes.fromhex(manifest["identity"]))
    except ValueError:
        length = -1
    if length != IDENTITY_BYTES:
        raise ModelError(
            f"{path}: manifest: expected an identity of {2 * IDENTITY_BYTES} hexadecimal digits, "
            f"found {manifest['identity'][:40]!r}"
        )
    return manifest


def _read_array(data: bytes, name: str, path: Path) -> Array:
    """Of an entry in numpy's format; the array cannot be written to."""
    import numpy as np

    buffer = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(buffer)
        if version != (1, 0):
            raise ValueError(f"version {version}")
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(buffer)
        # The header is checked before anything of its size is allocated.
        fits = all(0 <= side <= len(data) for side in shape)
        allowed = dtype.kind in "iu" or dtype in (np.float16, np.float32)
        if not allowed or not fits or math.prod(shape) * dtype.itemsize > len(data):
            raise ValueError(f"shape {shape} of {dtype} in {len(data)} B")
        array: Array = np.frombuffer(data, dtype, math.prod(shape), buffer.tell())
    except Exception as error:  # numpy evaluates the header as Python, so nearly anything
        raise ModelError(
            f"{path}: {name}: expected an array of numbers, found {reason(error)}"
        ) from error
    return array.reshape(shape, order="F" if is_fortran else "C")
