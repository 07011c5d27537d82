"""Who may talk to the page of `cwic serve`, and what its answers tell of the server.

Owns two rules around an ASGI application. A request must name the page by a name of its own and
must not come from the page of another site: otherwise any site could reach a page that only this
machine reaches, by a name that it lets point here. And no answer tells where uploads lie on the
server: the path of their folder goes out, and is taken back, as another word.
"""

import ipaddress
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from cwic.defaults import LOOPBACK_HOSTS

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[_Message, _Receive, _Send], Awaitable[None]]

_EVERY_ADDRESS = frozenset(("", "0.0.0.0", "::"))

# What may have the path of a file in it; pictures, scripts and styles pass as they are.
_TEXTS = ("application/json", "text/event-stream", "text/html", "text/plain")
_WORD = "/uploads-"


class PageGuard:
    """An ASGI application around another one, a page that listens on `host`.

    Uploads and results lie in `folder`, an absolute path.
    """

    def __init__(self, app: _App, *, host: str, folder: str):
        self._app = app
        self._takes_addresses = host in _EVERY_ADDRESS
        self._names = LOOPBACK_HOSTS
        if host not in LOOPBACK_HOSTS:
            own = (host, socket.gethostname(), socket.getfqdn())
            self._names |= {name.lower() for name in own if name}
        self._folder = folder.encode()
        # As long as the path, because the length of an answer is told before it.
        # A part of it would be one of the page's own addresses, /upload.
        word = _WORD if len(_WORD) <= len(self._folder) else "/"
        self._word = word.ljust(len(self._folder), "-").encode()

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Handles one request."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is None:
            scope = {**scope, "path": self._inwards(scope["path"].encode()).decode()}
            for name in ("raw_path", "query_string"):
                if scope.get(name):
                    scope[name] = self._inwards(scope[name])
            await self._app(scope, self._receiving(scope, receive), self._sending(send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            text = refusal.encode("utf-8", "backslashreplace")
            headers = [(b"content-type", b"text/plain; charset=utf-8")]
            headers.append((b"content-length", str(len(text)).encode()))
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": text})

    def _refusal(self, scope: _Message) -> str | None:
        """Why a request is refused; None if it is not."""
        hosts, origins = _values(scope, b"host"), _values(scope, b"origin")
        if len(hosts) != 1 or not self._is_own(hosts[0]):
            return (
                f"found a request for {', '.join(hosts) or 'no host'}, expected one for this page"
            )
        own = hosts[0].lower()
        if any(origin.lower().partition("://")[2] != own for origin in origins):
            return f"found a request from {', '.join(origins)}, expected one from this page"
        return None

    def _is_own(self, host: str) -> bool:
        """Whether a host, with or without its port, is this page."""
        try:
            parts = urlsplit(f"//{host}")
            name = parts.hostname or ""
        except ValueError:
            return False
        if parts.netloc != host or "@" in host:
            return False
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self._takes_addresses  # an address cannot be made to point here

    def _inwards(self, data: bytes) -> bytes:
        return data.replace(self._word, self._folder)

    def _receiving(self, scope: _Message, receive: _Receive) -> _Receive:
        """`receive` with paths instead of words, where the body is JSON."""
        if not any(
            value.startswith("application/json") for value in _values(scope, b"content-type")
        ):
            return receive
        is_read = False

        async def receive_whole() -> _Message:
            nonlocal is_read
            if is_read:
                return await receive()
            body = b""
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    return message
                body += message.get("body", b"")
                if not message.get("more_body", False):
                    break
            is_read = True
            return {"type": "http.request", "body": self._inwards(body), "more_body": False}

        return receive_whole

    def _sending(self, send: _Send) -> _Send:
        """`send` with words instead of paths, where the answer is text."""
        is_text = False

        async def send_outwards(message: _Message) -> None:
            nonlocal is_text
            if message["type"] == "http.response.start":
                kinds = _values(message, b"content-type")
                is_text = any(kind.startswith(_TEXTS) for kind in kinds)
            elif message["type"] == "http.response.body" and is_text and message.get("body"):
                body = bytes(message["body"]).replace(self._folder, self._word)
                message = {**message, "body": body}
            await send(message)

        return send_outwards


def _values(message: _Message, name: bytes) -> list[str]:
    """The values of a header."""
    return [value.decode("latin-1") for key, value in message["headers"] if key.lower() == name]
