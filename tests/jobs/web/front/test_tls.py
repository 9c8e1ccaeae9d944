"""HTTPS: certificates that are read, renewed and refused, and what a client may keep waiting before it is encrypted, too."""

from __future__ import annotations

import select
import shutil
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.web.front import server as http_server
from jobs.web.front import tls
from jobs.web.front.server import BoundedProtocol
from jobs.web.front.tls import Certificate
from jobs.web.serve_job import ServeJob
from pipeline.core.errors import InvalidOption
from tests.jobs.web.front.test_server import LARGE, REQUEST, connected, large, rest, small
from tests.support.certificates import trusting, write_certificate
from tests.support.commands import GUARD
from tests.support.http_server import http_server_of
from tests.support.workshop import sentence

SMALL = REQUEST.replace(b"/ ", b"/small ", 1)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate and its key."""
    return write_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def port(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a server with TLS that has all patience."""
    monkeypatch.setattr(BoundedProtocol, "head_seconds", GUARD)
    monkeypatch.setattr(BoundedProtocol, "stall_seconds", GUARD)
    with http_server_of(large, Certificate(*files)) as found:
        yield found


def encrypted(port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Return an encrypted connection."""
    return context.wrap_socket(connected(port), server_hostname="127.0.0.1")


def test_answers_come_encrypted(port: int, files: tuple[Path, Path]) -> None:
    """Protects the answers: whole, many on one connection, many bytes; TLS 1.2 or later, and the scheme is https."""
    with encrypted(port, trusting(files[0])) as connection:
        assert connection.version() in ("TLSv1.2", "TLSv1.3")
        for _ in range(3):
            connection.sendall(SMALL)
            assert small(connection, 1).endswith(b"small")
        connection.sendall(SMALL * 3)
        small(connection, 3)
        connection.sendall(REQUEST.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
        assert len(rest(connection)) > len(LARGE)
    with connected(port) as plain:
        plain.sendall(REQUEST)
        assert not rest(plain).startswith(b"HTTP")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
def test_what_is_broken_is_not_spoken(port: int, files: tuple[Path, Path]) -> None:
    """Protects clients that are talked down to it: TLS 1.1 gets no handshake."""
    old = trusting(files[0])
    old.minimum_version = ssl.TLSVersion.TLSv1_1
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        encrypted(port, old)
    assert Certificate(*files).context().minimum_version is ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00\x01\x00"])
def test_a_handshake_that_does_not_come_is_not_waited_for(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    """Protects connections: silence, or the beginning of a handshake, ends as an unfinished request does."""
    monkeypatch.setattr(BoundedProtocol, "head_seconds", 0.4)
    with http_server_of(large, Certificate(*files)) as port, connected(port) as connection:
        connection.sendall(sent)
        assert rest(connection) == b""


def test_handshakes_count_as_connections(port: int, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the process: who begins no handshake takes a place as everybody does, and beyond the places nobody is let in."""
    monkeypatch.setattr(http_server, "MOST_CONNECTIONS", 2)
    with connected(port), encrypted(port, trusting(files[0])) as second:
        with connected(port) as third:
            assert rest(third) == b""
        second.sendall(SMALL)
        small(second, 1)


def test_bounds_hold_behind_the_handshake(port: int, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects memory: who is encrypted and asks half, or does not read, is let go as without encryption."""
    monkeypatch.setattr(BoundedProtocol, "stall_seconds", 0.4)
    with encrypted(port, trusting(files[0])) as connection:
        connection.sendall(REQUEST)
        cut_off = select.poll()
        cut_off.register(connection, 0)
        assert cut_off.poll(1000 * GUARD)
    monkeypatch.setattr(BoundedProtocol, "head_seconds", 0.4)
    with encrypted(port, trusting(files[0])) as connection:
        connection.sendall(b"GET / HT")
        assert rest(connection).startswith(b"HTTP/1.1 408")


def test_a_renewed_certificate_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects services that run for months: new files are used for new connections, half of a renewal never is."""
    monkeypatch.setattr(tls, "LOOK_SECONDS", -1.0)
    old, new = write_certificate(tmp_path / "old"), write_certificate(tmp_path / "new")
    live = tmp_path / "cert.pem", tmp_path / "key.pem"
    for source, target in zip(old, live, strict=True):
        shutil.copy(source, target)
    certificate = Certificate(*live)
    with http_server_of(large, certificate) as port:

        def works(with_certificate: Path) -> bool:
            try:
                with encrypted(port, trusting(with_certificate)) as connection:
                    connection.sendall(SMALL)
                    return small(connection, 1).endswith(b"small")
            except ssl.SSLCertVerificationError:
                return False

        assert (works(old[0]), works(new[0])) == (True, False)
        shutil.copy(new[0], live[0])
        assert works(old[0])
        shutil.copy(new[1], live[1])
        assert (works(old[0]), works(new[0])) == (False, True)
        live[1].unlink()
        assert works(new[0])


def test_files_that_are_no_certificate_are_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    """Protects whoever starts a service: each wrong file is told by its option in a sentence, and nobody is asked anything."""
    other = write_certificate(tmp_path / "other")
    locked = write_certificate(tmp_path / "locked", passphrase="a long passphrase")
    damaged = tmp_path / "damaged.pem"
    damaged.write_text(files[1].read_text().replace("M", "*"))
    for pair, option, words in (
        ((tmp_path / "none", files[1]), "--tls-cert", "cannot be read"),
        ((files[0], tmp_path), "--tls-key", "cannot be read"),
        ((files[1], files[1]), "--tls-cert", "no certificate"),
        ((files[0], files[0]), "--tls-key", "no private key"),
        ((files[0], other[1]), "--tls-key", "not the key of"),
        (locked, "--tls-key", "passphrase"),
        ((files[0], damaged), "--tls-key", "cannot be used"),
    ):
        with pytest.raises(InvalidOption, match=f"^{option} .*{words}") as caught:
            Certificate(*pair)
        sentence(str(caught.value))
    for alone in ({"tls_cert": files[0]}, {"tls_key": files[1]}):
        with pytest.raises(InvalidOption, match="as well") as caught:
            ServeJob(archives={}, **alone)  # type: ignore[arg-type]
        sentence(str(caught.value))


def test_a_client_that_breaks_off_does_no_harm(port: int, files: tuple[Path, Path]) -> None:
    """Protects everybody else: connections that are reset in the middle of a handshake leave the server as it is."""
    for _ in range(20):
        connection = connected(port)
        connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()
    with encrypted(port, trusting(files[0])) as connection:
        connection.sendall(SMALL)
        small(connection, 1)
