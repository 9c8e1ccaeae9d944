"""The server below the routes: uvicorn, with bounds on what a client may keep waiting; the only importer of uvicorn.

A request's head has to be there within seconds and may have so many bytes; a client that takes next to nothing of its answer
is cut off. So a connection costs a bounded time, whatever the client does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from jobs.web.front.guard import App
from jobs.web.front.tls import Certificate, Handshake
from pipeline.core.errors import InvalidOption

HEAD_SECONDS = 10.0
"""To send a request's line and headers, and after that any body."""
STALL_SECONDS = 20.0
"""To take what has been sent down to some kilobytes: about 10 kB/s at least."""
MOST_HEAD_BYTES = 64 * 1024
MOST_CONNECTIONS = 1000
KEEP_ALIVE_SECONDS = 30
SHUTDOWN_SECONDS = 10


class BoundedProtocol(HttpToolsProtocol):
    """One connection, with its bounds."""

    head_seconds = HEAD_SECONDS
    stall_seconds = STALL_SECONDS
    _head_bytes = 0
    _gone = False
    _timer: asyncio.TimerHandle | None = None
    _stall: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for a request."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            self._refuse(503, "overloaded", f"There are {MOST_CONNECTIONS} connections already.")
        else:
            self._await_request()

    def data_received(self, data: bytes) -> None:
        """Take a piece of a request."""
        if self._timer is None and (self.cycle is None or self.cycle.response_complete):
            self._await_request()
        if self._timer is not None:
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD_BYTES:
                self._refuse(431, "head-too-large", f"A request's line and headers may have {MOST_HEAD_BYTES} bytes.")
                return
        super().data_received(data)

    def on_message_complete(self) -> None:
        """Stop waiting: the request is there."""
        self._forget_timers(self._timer)
        self._timer = None
        super().on_message_complete()

    def pause_writing(self) -> None:
        """Begin to wait for the client to take what is sent."""
        super().pause_writing()
        self._stall = self.loop.call_later(self.stall_seconds, self._cut_off)

    def resume_writing(self) -> None:
        """Go on sending."""
        self._forget_timers(self._stall)
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._gone = True
        self._forget_timers(self._timer, self._stall)
        super().connection_lost(exc)

    def _await_request(self) -> None:
        self._head_bytes = 0
        self._timer = self.loop.call_later(
            self.head_seconds, self._refuse, 408, "timeout", f"A request has to be there within {self.head_seconds:g} s."
        )

    def _refuse(self, status: int, kind: str, message: str) -> None:
        if self.transport.is_closing():
            return
        body = json.dumps({"error": {"kind": kind, "message": message}}).encode()
        head = (
            f"HTTP/1.1 {status} Refused\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
            "cache-control: no-store\r\n"
        ).encode()
        retry = b"retry-after: 2\r\n" if status == 503 else b""
        if self.cycle is None or not self.cycle.response_started or self.cycle.response_complete:
            self.transport.write(head + retry + b"connection: close\r\n\r\n" + body)
        self.transport.close()
        self.loop.call_later(self.stall_seconds, self._cut_off)  # who does not take even that

    def _cut_off(self) -> None:
        connection = self.transport.get_extra_info("socket")
        if connection is not None and not self._gone:  # without a linger the system would hold what it has for hours
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    @staticmethod
    def _forget_timers(*timers: asyncio.TimerHandle | None) -> None:
        for timer in timers:
            if timer is not None:
                timer.cancel()


class _Server(uvicorn.Server):
    """Leaves signals to whoever runs it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens; raises InvalidOption where that cannot be."""
    if not 0 <= port <= 65535:  # the system would take the rest of a division
        raise InvalidOption("--port", str(port), "give 0 to 65535.")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.create_server(address[:2], family=family, backlog=1024)
    except OSError as error:
        number = error.errno or 0
        reason = os.strerror(number) if number > 0 else error.strerror or str(error)
        raise InvalidOption("--port", f"{host}:{port}", f"it cannot be bound ({reason}).") from None
    listener.setblocking(False)
    return listener


def serve_http(app: App, listener: socket.socket, ready: Callable[[], None], certificate: Certificate | None = None) -> None:
    """Answer requests, by HTTPS with a certificate, until SIGINT or SIGTERM; then finish those under way, for some seconds."""

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await serve_until(stop, app, listener, ready, certificate)

    with asyncio.Runner(loop_factory=_config(app).get_loop_factory()) as runner:
        runner.run(run())


async def serve_until(
    stop: asyncio.Event,
    app: App,
    listener: socket.socket,
    ready: Callable[[], None],
    certificate: Certificate | None = None,
) -> None:
    """Answer requests until ``stop`` is set; ``ready`` is called once they are answered."""
    server = _Server(_config(app, BoundedProtocol if certificate is None else _encrypted(certificate)))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    if server.started:
        ready()
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    server.should_exit = True
    await serving


def _encrypted(certificate: Certificate) -> Callable[..., asyncio.BaseProtocol]:
    """Return what makes the protocol of a new connection: a handshake first, as bounded in number and time as what follows."""
    open_ones: set[Handshake] = set()

    def begin(**arguments: Any) -> asyncio.BaseProtocol:
        following, seconds = BoundedProtocol(**arguments), BoundedProtocol.head_seconds
        return Handshake(certificate, following, open_ones, most=MOST_CONNECTIONS, seconds=seconds)

    return begin


def _config(app: App, protocol: Callable[..., asyncio.BaseProtocol] = BoundedProtocol) -> uvicorn.Config:
    return uvicorn.Config(
        app=app,
        http=protocol,  # type: ignore[arg-type]  # called with what makes a protocol, no more
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
