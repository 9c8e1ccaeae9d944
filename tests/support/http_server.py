"""The service's HTTP server in a thread of this process, before whatever application."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jobs.web.front import server as http_server
from jobs.web.front.guard import App
from jobs.web.front.server import bind, serve_until
from jobs.web.front.tls import Certificate
from tests.support.commands import GUARD


@contextmanager
def http_server_of(app: App, certificate: Certificate | None = None) -> Iterator[int]:
    """Serve an application on a free port of 127.0.0.1; it is stopped at the end, with nothing under way."""
    listener, ready = bind("127.0.0.1", 0), threading.Event()
    stops: list[Any] = []

    async def run() -> None:
        stop = asyncio.Event()
        stops.append((asyncio.get_running_loop(), stop))
        await serve_until(stop, app, listener, ready.set, certificate)

    def loop() -> None:
        with asyncio.Runner(loop_factory=http_server._config(app).get_loop_factory()) as runner:
            runner.run(run())

    thread = threading.Thread(target=loop)
    thread.start()
    assert ready.wait(GUARD)
    yield listener.getsockname()[1]
    running, stop = stops[0]
    running.call_soon_threadsafe(stop.set)
    thread.join(GUARD)
    assert not thread.is_alive()
    listener.close()
