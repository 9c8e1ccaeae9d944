"""A proxy between a client and a real HTTP server that harms chosen answers, as networks do."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from tests.support.commands import GUARD


class Fault(Enum):
    """What becomes of one exchange."""

    LOSE_ANSWER = auto()  # the server has done it, the client never hears
    CUT_BODY = auto()
    FLIP_BIT = auto()
    NO_RANGE = auto()  # the answer of a server that has never heard of ranges
    CONFLICT = auto()  # two writers at one moment; the server is not asked
    BUSY = auto()
    SLOW_DOWN = auto()  # as S3 throttles
    RESET = auto()  # the connection is torn down before anything is asked
    FLIP_SENT = auto()  # the server gets other bytes than were sent
    EXPIRED = auto()  # temporary credentials whose time is over
    ECHO = auto()  # a gateway whose error page repeats what it was sent, secrets or not


_ERRORS = {
    Fault.CONFLICT: (409, "ConditionalRequestConflict"),
    Fault.BUSY: (503, ""),
    Fault.SLOW_DOWN: (503, "SlowDown"),
    Fault.EXPIRED: (400, "ExpiredToken"),
    Fault.ECHO: (500, "InternalError"),
}
"""Answers that the server is not asked for."""


@dataclass
class Hold:
    """One request that waits: ``arrived`` is set once it is there, and ``end`` says what becomes of it.

    It is held before the server hears of it or, where ``answered``, once the server has done it.
    """

    method: str
    fragment: str
    answered: bool = False
    arrived: threading.Event = field(default_factory=threading.Event)
    _ended: threading.Event = field(default_factory=threading.Event)
    _dropped: bool = False

    def end(self, *, dropped: bool) -> None:
        """Let the request go on, or tear its connection down."""
        self._dropped = dropped
        self._ended.set()

    def wait(self) -> bool:
        """Wait for the end, in the proxy; return whether the request goes on."""
        self.arrived.set()
        return self._ended.wait(GUARD) and not self._dropped


@dataclass
class FaultyProxy:
    """Its URL, the faults still to come (by method, used one at a time), and the requests seen so far."""

    endpoint: str = ""
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    """What each of the requests had as headers, their names in lower case."""
    choose: Callable[[str, str], Fault | None] = lambda _method, _path: None
    """Decides of every request for which no fault waits."""
    holds: list[Hold] = field(default_factory=list)

    def hold(self, method: str, fragment: str, *, answered: bool = False) -> Hold:
        """Have the next request of a method whose path has ``fragment`` wait."""
        self.holds.append(Hold(method, fragment, answered))
        return self.holds[-1]

    def next_hold(self, method: str, path: str) -> Hold | None:
        """Return what a request has to wait for."""
        for hold in list(self.holds):
            if hold.method == method and hold.fragment in path:
                self.holds.remove(hold)
                return hold
        return None

    def next_fault(self, method: str, path: str) -> Fault | None:
        """Note a request and return what is to go wrong with it."""
        self.requests.append((method, path))
        waiting = self.faults.get(method)
        return waiting.pop(0) if waiting else self.choose(method, path)


@contextmanager
def faulty_proxy(upstream: str) -> Iterator[FaultyProxy]:
    """Run a proxy to ``upstream`` on a free port."""
    proxy = FaultyProxy()
    target = urlsplit(upstream).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_exchange(self) -> None:
            proxy.headers.append({name.lower(): value for name, value in self.headers.items()})
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            fault, hold = proxy.next_fault(self.command, self.path), proxy.next_hold(self.command, self.path)
            if fault in _ERRORS:
                self._refuse(*_ERRORS[fault])
                return
            gone = hold is not None and not hold.answered and not hold.wait()
            if gone or fault is Fault.RESET:
                self._reset()
                return
            if fault is Fault.FLIP_SENT and body:
                body = bytes([body[0] ^ 1]) + body[1:]
            connection = http.client.HTTPConnection(target, timeout=GUARD)
            try:
                # The signature covers the Host header, so it stays the proxy's own.
                connection.request(self.command, self.path, body, dict(self.headers))
                answer = connection.getresponse()
                data, headers, status = answer.read(), dict(answer.headers), answer.status
            except (OSError, http.client.HTTPException):  # the server is gone, and so is the way to it
                self._reset()
                return
            finally:
                connection.close()
            if hold is not None and hold.answered and not hold.wait():
                self._reset()
                return
            if fault is Fault.LOSE_ANSWER:
                self.close_connection = True
                return
            if fault is Fault.FLIP_BIT and data:
                data = bytes([data[0] ^ 1]) + data[1:]
            if fault is Fault.NO_RANGE:
                status = 200
                headers = {name: value for name, value in headers.items() if name.lower() != "content-range"}
            if fault is Fault.CUT_BODY:
                data = data[: len(data) // 2]
                self.close_connection = True
            self._answer(status, headers, data)

        def _refuse(self, status: int, code: str) -> None:
            message = self.headers.get("Authorization", "") if code == "InternalError" else "as the test has it"
            text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>" if code else ""
            data = b"" if self.command == "HEAD" else text.encode()
            self._answer(status, {"Content-Length": str(len(data))}, data)

        def _reset(self) -> None:
            self.close_connection = True
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        def _answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_one_exchange  # noqa: N815 - names of the base class

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Say nothing of clients that were killed."""

    server = Server(("127.0.0.1", 0), Handler)
    proxy.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        for hold in proxy.holds:
            hold.end(dropped=True)
        server.shutdown()
        server.server_close()
        thread.join()
