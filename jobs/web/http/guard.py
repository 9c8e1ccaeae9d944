"""What stands before every route of the service: the raw path, the host, the token, the account of answers. Plain ASGI."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

from jobs.web.service_metrics import ServiceMetrics

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

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECURITY = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'self'; img-src 'self' blob: data:; style-src 'self' 'unsafe-inline'"),
]


class Guard:
    """Lets through what may pass, and counts what became of it.

    ``token`` is what requests have to bear, None for none; then only ``hosts`` are answered to, so that no web page reaches
    a service on loopback by a name of its own (DNS rebinding).
    """

    def __init__(self, app: App, *, metrics: ServiceMetrics, token: str | None, hosts: Collection[str]) -> None:
        self._app, self._metrics, self._hosts = app, metrics, frozenset(hosts)
        self._token = None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status, sent = time.monotonic(), 500, 0

        async def counted(message: MutableMapping[str, Any]) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                own = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(each for each in _SECURITY if each[0] not in own)]
            else:
                sent += len(message.get("body", b""))
            await send(message)

        self._metrics.begin()
        try:
            if scope.get("raw_path"):  # an encoded slash is part of a key, and no slash
                scope["path"] = scope["raw_path"].decode("latin-1")
            refusal = self._refusal(scope)
            if refusal is None:
                await self._app(scope, receive, counted)
            else:
                await _refuse(counted, *refusal)
        finally:
            route = getattr(scope.get("route"), "path_format", "other")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.end(route, method, status, seconds=time.monotonic() - began, sent=sent)

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


async def _refuse(send: Send, status: int, kind: str, message: str) -> None:
    body = json.dumps({"error": {"kind": kind, "message": message}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
