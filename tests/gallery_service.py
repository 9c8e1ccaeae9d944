"""A service in this process, without Ray, for a browser to look at; and a listing longer than any archive made in a test."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import uvicorn

from jobs.http import HttpOptions, create_app
from pipeline.service import ImageRequest, Place, Restored, Restorer, Shelf


class InProcess:
    """A backend whose engine is in this process."""

    device = "cpu"

    def __init__(self, uris: Mapping[str, str]) -> None:
        self._restorer = Restorer(list(uris.values()), device="cpu")

    async def restore(self, place: Place, request: ImageRequest) -> Restored:
        """Return an image."""
        return await asyncio.to_thread(self._restorer.restore, place, request)


@contextmanager
def served(uris: Mapping[str, str], *, token: str | None = None) -> Iterator[str]:
    """Serve archives by their names on loopback; yield the service's address."""
    shelves = [Shelf(name, uri, number=number) for number, (name, uri) in enumerate(uris.items())]
    app = create_app(shelves, InProcess(uris), HttpOptions(token=token))
    config = uvicorn.Config(app, host="127.0.0.1", port=0, lifespan="off", log_config=None, ws="none", timeout_graceful_shutdown=2)
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
        thread.join(10)
        for shelf in shelves:
            shelf.close()


@dataclass(frozen=True, kw_only=True)
class LongListing:
    """Answers as the service does for a listing of so many entries, each of which has the links of one that is there."""

    count: int
    like: Mapping[str, Any]

    def key(self, index: int) -> str:
        """Return the key at an index."""
        return f"{index // 1000:03d}/{index:06d}.jpg"

    def answer(self, route: Any) -> None:
        """Answer one request of a browser."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(route.request.url).query).items()}
        limit = int(query["limit"])
        assert 1 <= limit <= 1000
        after = query.get("after", "")
        first = int(after[4:10]) + 1 if after else 0
        last = min(first + limit, self.count)
        assets = [{**self.like, "key": self.key(index)} for index in range(first, last)]
        body = {"assets": assets, "next": self.key(last - 1) if last < self.count else None, "total": self.count}
        route.fulfill(status=200, content_type="application/json", body=json.dumps(body))
