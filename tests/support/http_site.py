"""A service of one archive over HTTP, in this process, and a client of it."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from starlette.testclient import TestClient

from jobs.web.front.guard import App
from jobs.web.http.app import create_app
from jobs.web.http.service import HttpOptions
from jobs.web.library import Library
from pipeline.core.errors import PipelineError
from pipeline.reading.places import EntryPlace
from pipeline.reading.requests import ImageRequest, Restored
from pipeline.reading.service import Restorer
from pipeline.serving.shelf import Shelf
from tests.support.commands import GUARD
from tests.support.pictures import photo, saved
from tests.support.workshop import Rescaled, Sample, picture, samples, sentence

TOKEN = "a token of many characters"[:24].replace(" ", "-")
ENTRY = "/archives/demo/assets/a%20b%2F001.jpg"


class Threads:
    """A backend of this process."""

    def __init__(self, uri: str) -> None:
        self.restorer = Restorer([uri], device="cpu")
        self.device = self.restorer.device
        self.restored = 0
        self.gate = threading.Event()
        self.gate.set()
        self.fault: PipelineError | None = None

    async def restore(self, place: EntryPlace, request: ImageRequest) -> Restored:
        """Restore in a thread, once the gate is open, or fail as told."""
        self.restored += 1
        while not self.gate.is_set():
            await asyncio.sleep(0.01)
        if self.fault is not None:
            raise self.fault
        return await asyncio.to_thread(self.restorer.restore, place, request)


class Site:
    """A service of one archive, and a client of it."""

    def __init__(self, rescaled: Rescaled, *, client: tuple[str, int] = ("testclient", 50000), **options: Any) -> None:
        self.rescaled = rescaled
        self.shelf = Shelf("demo", rescaled.uri)
        self.backend = Threads(rescaled.uri)
        self.library = Library.of(self.shelf)
        self.library.begin()
        self.app: App = create_app(self.library, self.backend, HttpOptions(**{"seconds": GUARD, **options}))
        self.client = TestClient(
            self.app, base_url="http://127.0.0.1", raise_server_exceptions=True, follow_redirects=False, client=client
        )

    def get(self, path: str, **headers: str) -> Any:
        """Ask for a path; underscores in names of headers are dashes."""
        return self.client.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})


def told(answer: Any) -> str:
    """Return the kind of an error that is answered as one should be, and kept by no cache."""
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()) == {"error"}
    sentence(answer.json()["error"]["message"])
    kind = answer.json()["error"]["kind"]
    assert isinstance(kind, str)
    return kind


SAMPLES = [
    *samples(4, folder="a b/"),
    Sample(key="alpha.png", data=picture(26, 33, "PNG", channels=4, seed=1)),
    Sample(key="é ü/100%/#?&.jpg", data=saved(photo(24, 35, 3, 3), "JPEG")),
    Sample(key="page.html.jpg", data=b"<script>alert(1)</script>"),
]
