"""The server below the routes: what a client may keep waiting is bounded, by seconds and by bytes."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from jobs.web.front import server as http_server
from jobs.web.front.server import MOST_HEAD_BYTES, BoundedProtocol, bind
from pipeline.core.errors import InvalidOption
from tests.support.commands import GUARD
from tests.support.http_server import http_server_of
from tests.support.workshop import sentence

LARGE = bytes(40_000_000)
REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


async def large(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001
    """Answer with many bytes, or few at /small."""
    body = b"small" if scope["path"] == "/small" else LARGE
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for start in range(0, len(body), 2**18):
        await send({"type": "http.response.body", "body": body[start : start + 2**18], "more_body": True})
    await send({"type": "http.response.body", "body": b""})


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a server that has all patience; it is stopped at the end, with nothing under way."""
    monkeypatch.setattr(BoundedProtocol, "head_seconds", GUARD)
    monkeypatch.setattr(BoundedProtocol, "stall_seconds", GUARD)
    with http_server_of(large) as found:
        yield found


@pytest.fixture
def impatient(port: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """The port of a server that does not wait long for a request."""
    monkeypatch.setattr(BoundedProtocol, "head_seconds", 0.4)
    return port


def connected(port: int) -> socket.socket:
    """Return a connection that gives up in the end."""
    return socket.create_connection(("127.0.0.1", port), timeout=GUARD)


def rest(connection: socket.socket) -> bytes:
    """Read until the server ends the connection."""
    parts = []
    try:
        while part := connection.recv(2**16):
            parts.append(part)
    except ConnectionResetError:
        parts.append(b"")
    return b"".join(parts)


def small(connection: socket.socket, count: int) -> bytes:
    """Read so many answers that are small."""
    found = b""
    while found.count(b"small") < count:
        part = connection.recv(4096)
        assert part, found
        found += part
    return found


@pytest.mark.slow
@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nhost: x\r\n"])
def test_a_request_that_does_not_come_is_not_waited_for(impatient: int, sent: bytes) -> None:
    """Protects connections: silence, half a line or half of the headers are answered with 408 and the end."""
    with connected(impatient) as connection:
        connection.sendall(sent)
        told = rest(connection)
        assert told.startswith(b"HTTP/1.1 408")
        assert b"\r\ncache-control: no-store\r\n" in told


def test_a_request_that_comes_in_drops_is_not_waited_for(impatient: int) -> None:
    """Protects connections: a byte now and then does not extend the time."""
    head = b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 2000  # never whole, never too large, and minutes long
    with connected(impatient) as connection:
        try:
            for byte in head:
                connection.sendall(bytes([byte]))
                time.sleep(0.05)
        except (BrokenPipeError, ConnectionResetError):
            return
        raise AssertionError("the server listened to all of it")


def test_a_body_that_does_not_come_is_not_waited_for(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects connections: who announces a body and does not send it is answered, and let go."""
    with connected(port) as connection:
        connection.sendall(REQUEST.replace(b"/ ", b"/small ", 1))
        small(connection, 1)
        monkeypatch.setattr(BoundedProtocol, "head_seconds", 0.4)  # counted from the next bytes that come
        connection.sendall(b"POST /small HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n")
        assert rest(connection).startswith(b"HTTP/1.1 200")


def test_a_head_without_end_is_refused(port: int) -> None:
    """Protects memory: a line or headers of more bytes than any request has are 431."""
    for sent in (b"GET /" + b"x" * MOST_HEAD_BYTES, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * (MOST_HEAD_BYTES // 6 + 1)):
        with connected(port) as connection:
            connection.sendall(sent[: MOST_HEAD_BYTES + 1])  # bytes that nobody reads would tear the answer away
            assert rest(connection).startswith(b"HTTP/1.1 431")


def test_an_answer_that_is_not_taken_is_given_up(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects memory: who asks and does not read is cut off, long before all is sent."""
    monkeypatch.setattr(BoundedProtocol, "stall_seconds", 0.4)
    with connected(port) as connection:
        connection.sendall(REQUEST)
        cut_off = select.poll()
        cut_off.register(connection, 0)  # its end is told without being asked for
        assert cut_off.poll(1000 * GUARD)
        assert len(rest(connection)) < len(LARGE)


def test_who_reads_gets_all_on_one_connection(port: int) -> None:
    """Protects everyone else: whole answers, many requests on one connection, also some at once."""
    with connected(port) as connection:
        for _ in range(3):
            connection.sendall(REQUEST.replace(b"/ ", b"/small ", 1))
            assert small(connection, 1).endswith(b"small")
        connection.sendall(REQUEST.replace(b"/ ", b"/small ", 1) * 3)
        small(connection, 3)
        connection.sendall(REQUEST.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
        assert len(rest(connection)) > len(LARGE)


def test_connections_are_bounded(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the process: beyond so many connections a new one gets 503 with Retry-After."""
    monkeypatch.setattr(http_server, "MOST_CONNECTIONS", 2)
    with connected(port), connected(port), connected(port) as third:
        answer = rest(third)
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"retry-after" in answer


def test_a_port_that_is_taken_is_told() -> None:
    """Protects users: a port that cannot be had, or a host that is none, is a sentence."""
    with bind("127.0.0.1", 0) as listener:
        for host, port in (("127.0.0.1", listener.getsockname()[1]), ("no.such.host.invalid", 1), ("127.0.0.1", 99999)):
            with pytest.raises(InvalidOption) as caught:
                bind(host, port)
            sentence(str(caught.value))
