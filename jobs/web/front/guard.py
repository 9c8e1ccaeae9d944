"""What stands before every route of the service: the host and the token. Plain ASGI."""

from __future__ import annotations

import json
import secrets
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MOST_PATH_BYTES = 8 * 1024
MOST_QUERY_BYTES = 16 * 1024
LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
OPEN_PATHS = ("/", "/healthz", "/docs", "/openapi.json")
"""What needs no token, as do files of the gallery: nothing of an archive is in them."""
OPEN_PREFIX = "/gallery"


class Guard:
    """Lets through what may pass.

    ``token`` is what requests have to bear, None for none; then only ``hosts`` are answered to, so that no web page reaches
    a service on loopback by a name of its own (DNS rebinding). The host is the request's own, whatever proxies say of it: a
    page could say the same.
    """

    def __init__(self, app: App, *, token: str | None, hosts: Collection[str]) -> None:
        self._app, self._hosts = app, frozenset(hosts)
        self._token = None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await refuse(send, *refusal)

    def _refusal(self, scope: Scope) -> tuple[int, str, str] | None:
        """Return the status, kind and sentence that a request is refused with."""
        path = scope["path"]
        if len(path) > MOST_PATH_BYTES or len(scope.get("query_string", b"")) > MOST_QUERY_BYTES:
            return 414, "uri-too-long", f"The path may have {MOST_PATH_BYTES} bytes, the query {MOST_QUERY_BYTES}."
        headers = {name: value for name, value in scope["headers"] if name in (b"host", b"authorization")}
        if self._token is None:
            host = headers.get(b"host", b"").decode("latin-1").lower()
            name = host if host.endswith("]") else host.rpartition(":")[0] or host
            if name not in self._hosts:
                return (
                    421,
                    "wrong-host",
                    f"This service answers as {', '.join(sorted(self._hosts))} alone, unless it has a token.",
                )
        elif path not in OPEN_PATHS and path != OPEN_PREFIX and not path.startswith(f"{OPEN_PREFIX}/"):
            scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
            if scheme.lower() != b"bearer" or not secrets.compare_digest(given.strip(), self._token):
                return 401, "unauthorized", "Send the service's token, as in `Authorization: Bearer TOKEN`."
        return None


async def refuse(send: Send, status: int, kind: str, message: str) -> None:
    """Answer with a sentence, which no cache keeps."""
    body = json.dumps({"error": {"kind": kind, "message": message}}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
