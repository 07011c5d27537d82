"""Public picture sets, fetched into a folder: `cwic data fetch`.

A download resumes where it broke off. No checksum is invented: that of a file that nobody published
one for is written down at its first download, beside the pictures, and later downloads are held
against it.
"""

import hashlib
import json
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from cwic import atomic_file
from cwic.defaults import DATASET_NAMES
from cwic.errors import CodecError

_HASHES = "sha256.json"
_PARTIAL = ".part"
_CHUNK_BYTES = 1 << 20
_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Dataset:
    """Where a set lies and what it is."""

    urls: tuple[str, ...]  # pictures, or zip archives of them
    about: str  # what, how many, how large
    licence: str
    # Whether this project has ever loaded it from there; an address may be right all the same.
    is_tried: bool = False


_ETH = "https://data.vision.ee.ethz.ch/cvl/"

# In the order of `DATASET_NAMES`.
_SETS = (
    Dataset(
        tuple(f"https://r0k.us/graphics/kodak/kodak/kodim{n:02}.png" for n in range(1, 25)),
        "24 photographs of 768x512, 15 MB",
        "released by Kodak for unrestricted use",
    ),
    Dataset(
        (_ETH + "DIV2K/DIV2K_valid_HR.zip",),
        "100 pictures of 2 megapixels and more, 0.4 GB",
        "academic research only",
    ),
    Dataset(
        (_ETH + "DIV2K/DIV2K_train_HR.zip",),
        "800 pictures of 2 megapixels and more, 3.5 GB",
        "academic research only",
    ),
    Dataset(
        (_ETH + "clic/professional_valid_2020.zip",),
        "CLIC 2020, 41 professional photographs, 0.13 GB",
        "Unsplash licence",
    ),
)
DATASETS = dict(zip(DATASET_NAMES, _SETS, strict=True))


def fetch(
    dataset: Dataset,
    folder: Path,
    *,
    say: Callable[[str], None] = lambda _: None,
    show_progress: bool = True,
) -> list[Path]:
    """Download what is missing of a set; archives are unpacked beside themselves.

    `say` is told of checksums that were recorded and not compared.

    Returns:
        The files of the set, archives replaced by the pictures in them.

    Raises:
        CodecError: there is no network, no such file, or a checksum differs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    known = _read_hashes(folder)
    found: list[Path] = []
    for url in dataset.urls:
        name = url.rpartition("/")[2]
        path = _retrieved(url, folder, known.get(name), show_progress)
        if name not in known:
            known[name] = _sha256(path)
            content = json.dumps(known, indent=1, sort_keys=True) + "\n"
            atomic_file.write_file(folder / _HASHES, content.encode())
            say(f"{name}: no published checksum; recorded sha256 {known[name]}")
        found += _unpacked(path) if path.suffix == ".zip" else [path]
    return found


def _retrieved(url: str, folder: Path, sha256: str | None, show_progress: bool) -> Path:
    """A file of a set, downloaded if it is not there or has another checksum."""
    path = folder / url.rpartition("/")[2]
    if path.exists() and sha256 in (None, _sha256(path)):
        return path
    partial = path.with_name(path.name + _PARTIAL)
    try:
        _download(url, partial, show_progress)
    except urllib.error.HTTPError as error:
        raise CodecError(f"{url}: the server says {error.code} {error.reason}") from error
    except OSError as error:
        raise CodecError(
            f"{url}: cannot be loaded: {getattr(error, 'reason', error)}; is there a network? "
            f"What is here already is kept, the same command continues"
        ) from error
    if sha256 not in (None, _sha256(partial)):
        partial.unlink()
        raise CodecError(
            f"{url}: found another checksum than {sha256}, which {folder / _HASHES} holds"
        )
    return partial.replace(path)


def _download(url: str, partial: Path, show_progress: bool) -> None:
    """Goes on where an earlier download stopped (HTTP ranges)."""
    start = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not start:  # there is less than was here
            raise
        partial.unlink()
        _download(url, partial, show_progress)
        return
    with closing(response):
        resumed = response.status == 206
        length = response.headers.get("Content-Length")
        done = start if resumed else 0
        with (
            partial.open("ab" if resumed else "wb") as file,
            tqdm(
                desc=partial.stem,
                total=done + int(length) if length else None,
                initial=done,
                unit="B",
                unit_scale=True,
                disable=None if show_progress else True,
            ) as bar,
        ):
            while chunk := response.read(_CHUNK_BYTES):
                file.write(chunk)
                bar.update(len(chunk))
    if length and partial.stat().st_size != done + int(length):
        raise OSError(f"the connection broke after {partial.stat().st_size:,} B")


def _unpacked(archive: Path) -> list[Path]:
    """The pictures of an archive, in a folder of its name."""
    target = archive.with_suffix("")
    try:
        with zipfile.ZipFile(archive) as file:
            names = [name for name in file.namelist() if name.lower().endswith((".png", ".jpg"))]
            paths = [target / Path(name).name for name in names]
            target.mkdir(exist_ok=True)
            for name, path in zip(names, paths, strict=True):
                if not path.exists():
                    atomic_file.write_file(path, file.read(name))
    except zipfile.BadZipFile as error:
        raise CodecError(f"{archive}: expected a zip archive: {error}") from error
    return paths


def _read_hashes(folder: Path) -> dict[str, str]:
    path = folder / _HASHES
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text())
        if not isinstance(found, dict) or any(not isinstance(v, str) for v in found.values()):
            raise ValueError("no table of checksums")
    except ValueError as error:
        raise CodecError(f"{path}: expected JSON with a checksum for each file: {error}") from error
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
