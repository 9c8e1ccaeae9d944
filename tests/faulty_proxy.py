"""A proxy between a client and a real HTTP server that harms chosen answers, as networks do."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_CONFLICT = b"<?xml version='1.0'?><Error><Code>ConditionalRequestConflict</Code><Message>again</Message></Error>"


class Fault(Enum):
    """What becomes of one exchange."""

    LOSE_ANSWER = auto()  # the server has done it, the client never hears
    CUT_BODY = auto()
    FLIP_BIT = auto()
    NO_RANGE = auto()  # the answer of a server that has never heard of ranges
    CONFLICT = auto()  # two writers at one moment; the server is not asked
    BUSY = auto()


@dataclass
class FaultyProxy:
    """Its URL, the faults still to come (by method, used one at a time), and the requests seen so far."""

    endpoint: str = ""
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)

    def next_fault(self, method: str, path: str) -> Fault | None:
        """Note a request and return what is to go wrong with it."""
        self.requests.append((method, path))
        waiting = self.faults.get(method)
        return waiting.pop(0) if waiting else None


@contextmanager
def faulty_proxy(upstream: str) -> Iterator[FaultyProxy]:
    """Run a proxy to ``upstream`` on a free port."""
    proxy = FaultyProxy()
    target = urlsplit(upstream).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_exchange(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            fault = proxy.next_fault(self.command, self.path)
            if fault in (Fault.CONFLICT, Fault.BUSY):
                status = 409 if fault is Fault.CONFLICT else 503
                self._answer(status, {"Content-Length": str(len(_CONFLICT))}, _CONFLICT if fault is Fault.CONFLICT else b"")
                return
            connection = http.client.HTTPConnection(target, timeout=30)
            try:
                # The signature covers the Host header, so it stays the proxy's own.
                connection.request(self.command, self.path, body, dict(self.headers))
                answer = connection.getresponse()
                data, headers, status = answer.read(), dict(answer.headers), answer.status
            finally:
                connection.close()
            if fault is Fault.LOSE_ANSWER:
                self.close_connection = True
                return
            if fault is Fault.FLIP_BIT:
                data = bytes([data[0] ^ 1]) + data[1:]
            if fault is Fault.NO_RANGE:
                status = 200
                headers = {name: value for name, value in headers.items() if name.lower() != "content-range"}
            if fault is Fault.CUT_BODY:
                data = data[: len(data) // 2]
                self.close_connection = True
            self._answer(status, headers, data)

        def _answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
            if status == 503:
                headers = {"Content-Length": "0"}
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_one_exchange  # noqa: N815 - names of the base class

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    proxy.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
