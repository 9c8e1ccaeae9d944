"""The account of all answers, those of refusals included: metrics, the log of requests, headers of security. Plain ASGI.

Outermost, so it also settles what all others look at: the raw path, and what the request was asked at.
"""

from __future__ import annotations

import time
from collections.abc import MutableMapping
from typing import Any

from jobs.web.front.access_log import AccessLog, known_query
from jobs.web.front.forwarded import Asked, Misforwarded, Networks, asked_of
from jobs.web.front.guard import App, Receive, Scope, Send, refuse
from jobs.web.service_metrics import ServiceMetrics

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECURITY = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'self'; img-src 'self' blob: data:; style-src 'self' 'unsafe-inline'"),
]


class Account:
    """Counts and logs what became of each request. ``scope["asked"]`` tells the others what it was asked at.

    ``trusted`` are proxies whose word is taken for that.
    """

    def __init__(self, app: App, *, metrics: ServiceMetrics, trusted: Networks = (), log: AccessLog | None = None) -> None:
        self._app, self._metrics, self._trusted, self._log = app, metrics, trusted, log
        if log is not None:
            log.lost = metrics.line_lost

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
            try:
                scope["asked"] = asked_of(scope, self._trusted)
            except Misforwarded as error:
                await refuse(counted, 400, "misforwarded", str(error))
            else:
                await self._app(scope, receive, counted)
        finally:
            self._ended(scope, status, sent, time.monotonic() - began)

    def _ended(self, scope: Scope, status: int, sent: int, seconds: float) -> None:
        route = scope.get("route")
        path, method = getattr(route, "path_format", "other"), scope["method"]
        self._metrics.end(path, method if method in _METHODS else "other", status, seconds=seconds, sent=sent)
        if self._log is None:
            return
        known = {each.alias for each in getattr(getattr(route, "dependant", None), "query_params", ())}
        asked: Asked | None = scope.get("asked")
        self._log.add(
            client=asked.client if asked else (scope.get("client") or ("",))[0],
            method=method,
            path=scope["path"],
            query=known_query(scope.get("query_string", b""), known),
            status=status,
            bytes=sent,
            seconds=round(seconds, 4),
            route=path,
        )
