"""Who may talk to the page, and what its answers tell, through the ASGI protocol."""

import asyncio
import json
import socket
from collections.abc import Sequence
from typing import Any

import pytest

from cwic.page_guard import PageGuard

FOLDER = "/somewhere/on/the/server"
Headers = Sequence[tuple[str, str]]


class Page:
    """An application that answers what it was told, in pieces, and remembers what it was asked."""

    def __init__(self, answer: bytes = b"answer", kind: str = "application/json"):
        self.answer, self.kind = answer, kind
        self.scope: dict[str, Any] | None = None
        self.body = b""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scope = dict(scope)
        if scope["type"] == "lifespan":
            return
        message = await receive()
        while message.get("more_body"):
            self.body += message["body"]
            message = await receive()
        self.body += message.get("body", b"")
        headers = [(b"content-type", self.kind.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self.answer, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def ask(
    page: Page,
    headers: Headers = (("Host", "localhost"),),
    *,
    host: str = "127.0.0.1",
    path: str = "/",
    query: bytes = b"",
    pieces: Sequence[bytes] = (b"",),
    kind: str = "http",
    folder: str = FOLDER,
) -> list[dict[str, Any]]:
    """What comes out for one request."""
    sent: list[dict[str, Any]] = []
    left = list(pieces)

    async def receive() -> dict[str, Any]:
        body = left.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(left)}

    async def send(message: Any) -> None:
        sent.append(dict(message))

    scope = {
        "type": kind,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
    }
    asyncio.run(PageGuard(page, host=host, folder=folder)(scope, receive, send))
    return sent


def status(headers: Headers, host: str = "127.0.0.1") -> int:
    page = Page()
    code = int(ask(page, headers, host=host)[0]["status"])
    assert (page.scope is None) == (code == 403)
    return code


@pytest.mark.parametrize(
    ("listens_on", "own", "foreign"),
    [
        (
            "127.0.0.1",
            ["localhost", "LOCALHOST:7860", "127.0.0.1", "127.0.0.1:7860", "[::1]", "[::1]:7860"],
            ["evil.example", "localhost.evil.example", "192.168.1.5:7860", "127.0.0.2", "::1", ""],
        ),
        ("192.168.1.5", ["192.168.1.5:80", "localhost:80"], ["evil.example", "192.168.1.6"]),
        ("photos.example", ["photos.example", "Photos.Example:80"], ["evil.example"]),
        ("0.0.0.0", ["192.168.1.5:80", "[fe80::1]:80", "localhost"], ["evil.example", "0x7f.1"]),
        ("::", ["192.168.1.5:80", "[fe80::1]"], ["evil.example"]),
    ],
)
def test_the_page_answers_to_its_own_names_only(
    listens_on: str, own: list[str], foreign: list[str]
) -> None:
    for name in own:
        assert status([("Host", name)], listens_on) == 200, name
    for name in (*foreign, "[", "me@localhost", "localhost/evil.example", "localhost#", "a b"):
        assert status([("Host", name)], listens_on) == 403, name
    assert status([], listens_on) == 403
    assert status([("Host", own[0]), ("Host", own[0])], listens_on) == 403


def test_a_page_for_other_machines_answers_to_the_name_of_this_one() -> None:
    name = [("Host", f"{socket.gethostname()}:7860")]
    assert status(name, "0.0.0.0") == 200
    assert status(name, "192.168.1.5") == 200


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "https://localhost.evil.example:7860",
        "http://localhost:3000",
        "http://localhost",
        "http://127.0.0.1:7860",
        "null",
        "",
    ],
)
def test_a_request_from_another_origin_is_refused(origin: str) -> None:
    host = ("Host", "localhost:7860")
    assert status([host, ("Origin", origin)]) == 403
    assert status([host, ("Origin", "http://localhost:7860"), ("Origin", origin)]) == 403
    assert status([host, ("Origin", "http://localhost:7860")]) == 200


def test_a_refusal_says_what_was_expected() -> None:
    page = Page()
    start, body = ask(page, [("Host", "evil.example")])
    assert body["body"] == b"found a request for evil.example, expected one for this page"
    assert dict(start["headers"])[b"content-length"] == str(len(body["body"])).encode()
    headers = [("Host", "localhost"), ("Origin", "http://evil.example")]
    assert b"from http://evil.example, expected one from" in ask(page, headers)[1]["body"]
    (close,) = ask(page, [("Host", "evil.example")], kind="websocket")
    assert close["type"] == "websocket.close"
    assert page.scope is None
    ask(page, kind="lifespan")
    assert page.scope is not None


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream", "text/html; charset=a"])
def test_answers_do_not_tell_where_uploads_lie_and_requests_need_not(kind: str) -> None:
    said = json.dumps([f"{FOLDER}/0123/photo.png", f"{FOLDER}/b"]).encode()
    answer = ask(Page(said, kind))[1]["body"]
    assert FOLDER.encode() not in answer
    assert b"server" not in answer
    assert len(answer) == len(said)  # which the answer's head has told already
    # The browser sends back what it got: in a path, in a query, in JSON that comes in pieces.
    shown = json.loads(answer)[0]
    page = Page()
    headers = [("Host", "localhost"), ("Content-Type", "application/json")]
    ask(
        page,
        headers,
        path=f"/file={shown}",
        query=f"path={shown}".encode(),
        pieces=[answer[:9], answer[9:15], answer[15:]],
    )
    assert page.body == said
    assert page.scope is not None
    assert page.scope["path"] == f"/file={FOLDER}/0123/photo.png"
    assert page.scope["raw_path"] == page.scope["path"].encode()
    assert page.scope["query_string"] == f"path={FOLDER}/0123/photo.png".encode()


@pytest.mark.parametrize("folder", ["/d", "/tmp", "/tmp/up", "/uploads", "/srv/data", FOLDER])
def test_addresses_of_the_page_pass_wherever_uploads_lie(folder: str) -> None:
    page = Page()
    ask(page, path="/gradio_api/upload", query=b"upload_id=1", folder=folder)
    assert page.scope is not None
    assert (page.scope["path"], page.scope["query_string"]) == (
        "/gradio_api/upload",
        b"upload_id=1",
    )
    shown = ask(Page(f"{folder}/a.png".encode()), folder=folder)[1]["body"].decode()
    assert not shown.startswith(folder)
    ask(page, path=f"/file={shown}", folder=folder)
    assert page.scope["path"] == f"/file={folder}/a.png"


def test_pictures_pass_as_they_are_in_both_directions() -> None:
    said = f"PNG {FOLDER}".encode()
    assert ask(Page(said, "image/png"))[1]["body"] == said
    shown = ask(Page(said))[1]["body"]
    page = Page()
    ask(page, [("Host", "localhost"), ("Content-Type", "multipart/form-data")], pieces=[shown])
    assert page.body == shown
