"""Fetching public picture sets, from a server of our own."""

import http.server
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cwic.errors import CodecError
from cwic.evaluation.datasets import DATASETS, Dataset, fetch


def png(seed: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("valid/one.png", png(1))
        packed.writestr("valid/../../two.png", png(2))
        packed.writestr("valid/readme.txt", b"no picture")
    return file.getvalue()


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`, with ranges; breaks connections off after `limit` bytes."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {"/one.png": png(1), "/two.png": png(2), "/set.zip": archive()}
        self.limit: int | None = None
        self.requests: list[tuple[str, str | None]] = []

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.requests.append((self.path, wanted))
        data = self.server.files.get(self.path)
        if data is None:
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if start >= len(data):
            self.send_error(416)
            return
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        end = len(data) if self.server.limit is None else start + self.server.limit
        self.wfile.write(data[start:end])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def dataset(server: Server, *names: str) -> Dataset:
    return Dataset(tuple(server.url(name) for name in names), "a few", "ours")


def load(server: Server, folder: Path, *names: str) -> list[Path]:
    return fetch(dataset(server, *names), folder, show_progress=False)


def test_pictures_are_fetched_once_and_their_checksums_said(server: Server, tmp_path: Path) -> None:
    said: list[str] = []
    wanted = dataset(server, "one.png", "two.png")
    files = fetch(wanted, tmp_path / "set", say=said.append, show_progress=False)
    assert [file.read_bytes() for file in files] == [png(1), png(2)]
    assert len(said) == 2
    assert all("no published checksum" in text for text in said)
    assert set(json.loads((tmp_path / "set" / "sha256.json").read_text())) == {"one.png", "two.png"}
    assert fetch(wanted, tmp_path / "set", say=said.append, show_progress=False) == files
    assert len(server.requests) == len(said) == 2


def test_a_download_that_broke_off_goes_on(server: Server, tmp_path: Path) -> None:
    server.limit = 3000
    for _ in range(2):
        with pytest.raises(CodecError, match="cannot be loaded"):
            load(server, tmp_path, "one.png")
    assert not (tmp_path / "one.png").exists()
    server.limit = None
    assert load(server, tmp_path, "one.png")[0].read_bytes() == png(1)
    assert [wanted for _, wanted in server.requests] == [None, "bytes=3000-", "bytes=6000-"]


def test_a_partial_file_longer_than_the_real_one_is_thrown_away(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "one.png.part").write_bytes(bytes(10**6))
    assert load(server, tmp_path, "one.png")[0].read_bytes() == png(1)


def test_an_archive_is_unpacked_and_nothing_leaves_its_folder(
    server: Server, tmp_path: Path
) -> None:
    files = load(server, tmp_path / "in", "set.zip")
    assert sorted(file.relative_to(tmp_path).as_posix() for file in files) == [
        "in/set/one.png",
        "in/set/two.png",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_file_that_changed_on_the_server_is_refused(server: Server, tmp_path: Path) -> None:
    load(server, tmp_path, "one.png")
    (tmp_path / "one.png").unlink()
    server.files["/one.png"] = png(9)
    with pytest.raises(CodecError, match="another checksum"):
        load(server, tmp_path, "one.png")


def test_a_missing_file_and_a_missing_network_are_said_in_words(
    server: Server, tmp_path: Path
) -> None:
    with pytest.raises(CodecError, match="404"):
        load(server, tmp_path, "three.png")
    nowhere = Dataset(("http://127.0.0.1:9/x.png",), "", "")
    with pytest.raises(CodecError, match="is there a network"):
        fetch(nowhere, tmp_path, show_progress=False)


def test_a_damaged_table_of_checksums_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "sha256.json").write_text("[]")
    with pytest.raises(CodecError, match=r"sha256\.json: expected JSON"):
        load(server, tmp_path, "one.png")


def test_every_set_has_an_address() -> None:
    for found in DATASETS.values():
        assert found.urls
        assert all(url.startswith("https://") for url in found.urls)
