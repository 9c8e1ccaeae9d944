"""What lets pages of other sites ask for images (Image API 3.0, 7.1), and read refusals as well. Plain ASGI."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from jobs.web.front.guard import App, Receive, Scope, Send

PREFIX = "/iiif/3"

_EXPOSED = (b"access-control-expose-headers", b"Content-Range, ETag, Link, Retry-After")
_EMBEDDED = (b"cross-origin-resource-policy", b"cross-origin")
"""Lets any page at all show an image that it may not read: it asks for that without CORS, so no page can be told apart."""
_PREFLIGHT = [
    (b"access-control-allow-methods", b"GET, HEAD, OPTIONS"),
    (b"access-control-allow-headers", b"Accept, Authorization, If-None-Match, If-Range, Range"),
    (b"access-control-max-age", b"86400"),
    (b"allow", b"GET, HEAD, OPTIONS"),
]


class CrossOrigin:
    """Answers OPTIONS below ``PREFIX``, where a token is not to be sent yet, and opens all other answers there.

    ``origin`` is whose pages may read them, with CORS; ``*`` for all, which may embed images without it as well.
    """

    def __init__(self, app: App, origin: str) -> None:
        self._app, self._open = app, [(b"access-control-allow-origin", origin.encode()), _EXPOSED]
        if origin == "*":
            self._open.append(_EMBEDDED)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or not scope["path"].startswith(f"{PREFIX}/"):
            await self._app(scope, receive, send)
            return
        if scope["method"] == "OPTIONS":
            await send({"type": "http.response.start", "status": 204, "headers": [*self._open, *_PREFLIGHT]})
            await send({"type": "http.response.body", "body": b""})
            return
        names = {name for name, _ in self._open}

        async def opened(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*(each for each in message["headers"] if each[0].lower() not in names), *self._open]
            await send(message)

        await self._app(scope, receive, opened)
