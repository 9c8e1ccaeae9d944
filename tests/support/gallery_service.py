"""A service in this process, without Ray, for a browser to look at; and a listing longer than any archive made in a test."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, quote

import uvicorn

from jobs.web.http.app import create_app
from jobs.web.http.service import HttpOptions
from jobs.web.library import Library
from pipeline import open_archive
from pipeline.reading.places import EntryPlace
from pipeline.reading.requests import ImageRequest, Restored
from pipeline.reading.service import Restorer
from tests.support.commands import GUARD


class InProcess:
    """A backend whose engine is in this process."""

    device = "cpu"

    def __init__(self, uris: Mapping[str, str]) -> None:
        self._restorer = Restorer(list(uris.values()), device="cpu")

    async def restore(self, place: EntryPlace, request: ImageRequest) -> Restored:
        """Return an image."""
        return await asyncio.to_thread(self._restorer.restore, place, request)


@dataclass(frozen=True, kw_only=True)
class LongListing:
    """Stands before a service, and answers for its lists as if there were ``count`` entries, each like one that is there."""

    app: Any
    count: int
    like: Mapping[str, Any]

    def key(self, index: int) -> str:
        """Return the key at an index."""
        return f"{index // 1000:03d}/{index:06d}.jpg"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if not scope["path"].endswith("/assets"):
            await self.app(scope, receive, send)
            return
        query = parse_qs(scope["query_string"].decode())
        limit, after = int(query["limit"][0]), query.get("after", [""])[0]
        first = int(after[4:10]) + 1 if after else 0
        last = min(first + limit, self.count)
        assets = [{**self.like, "key": self.key(index)} for index in range(first, last)] if 1 <= limit <= 1000 else []
        body = {"assets": assets, "next": self.key(last - 1) if last < self.count else None, "total": self.count}
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": json.dumps(body).encode()})


@contextmanager
def served(
    uris: Mapping[str, str], *, token: str | None = None, origin: str | None = None, count: int | None = None
) -> Iterator[str]:
    """Serve archives by their names on loopback, with ``count`` entries in their lists where given; yield the address."""
    library = Library(uris)
    library.begin()
    app: Any = create_app(library, InProcess(uris), HttpOptions(token=token, origin=origin, seconds=GUARD))
    if count is not None:
        shelf = next(iter(library.shelves.values()))
        key = next(open_archive(shelf.uri).keys("trips/"))
        like = {**shelf.asset(shelf.place(key)), "links": _links(shelf.name, key)}
        app = LongListing(app=app, count=count, like=like)
    config = uvicorn.Config(app, port=0, lifespan="off", log_config=None, ws="none", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the service did not start"
            thread.join(0.02)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(GUARD)
        library.close()


def _links(archive: str, key: str) -> dict[str, str | None]:
    base = f"/archives/{archive}/assets/{quote(key, safe='')}"  # from the root, so right wherever it is told
    return {"lr": f"{base}/lr", "image": f"{base}/image", "original": None}
