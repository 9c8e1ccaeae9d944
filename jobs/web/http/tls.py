"""TLS: a certificate that is read again when it is renewed, and handshakes that are bounded as requests are."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.core.errors import InvalidOption

LOOK_SECONDS = 10.0
"""How long a renewed certificate may go unseen."""
SHUTDOWN_SECONDS = 5.0
"""To take part in the end of a connection."""


class Certificate:
    """A certificate chain with its key, both PEM files, for TLS 1.2 and later."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Read both; raises InvalidOption where they cannot be, or do not belong together."""
        self._files = (certificate, key)
        self._seen = self._looks()
        self._looked = time.monotonic()
        self._context = _context(certificate, key)

    def context(self) -> ssl.SSLContext:
        """Return what a new connection is encrypted by. Where the files have changed and cannot be used, it stays as it was."""
        now = time.monotonic()
        if now - self._looked > LOOK_SECONDS:
            self._looked = now
            looks = self._looks()
            if looks != self._seen:
                self._seen = looks
                try:
                    self._context = _context(*self._files)
                except InvalidOption as error:
                    logging.getLogger(__name__).warning("The certificate before is used further: %s", error)
        return self._context

    def _looks(self) -> list[tuple[int, int, int] | None]:
        """Return what tells the files of one time from those of another."""
        found: list[tuple[int, int, int] | None] = []
        for path in self._files:
            try:
                stat = path.stat()
            except OSError:
                found.append(None)
            else:
                found.append((stat.st_ino, stat.st_mtime_ns, stat.st_size))
        return found


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    for option, path, mark, what in (
        ("--tls-cert", certificate, b"-----BEGIN CERTIFICATE-----", "certificate"),
        ("--tls-key", key, b"PRIVATE KEY-----", "private key"),
    ):
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InvalidOption(option, str(path), f"it cannot be read ({error.strerror}).") from None
        if mark not in data:
            raise InvalidOption(option, str(path), f"it holds no {what} in PEM.")
    encrypted: list[str] = []

    def password() -> str:  # without it OpenSSL would ask at the terminal
        encrypted.append("")
        return ""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key, password)
    except (ssl.SSLError, OSError, ValueError) as error:
        if encrypted:
            reason = "it needs a passphrase; give a key without one, readable by the service alone."
        elif getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            reason = f"it is not the key of {certificate}."
        else:
            reason = f"it cannot be used with {certificate} ({getattr(error, 'reason', None) or 'damaged PEM'})."
        raise InvalidOption("--tls-key", str(key), reason) from None
    return context


class Handshake(asyncio.Protocol):
    """A new connection until it is encrypted, within ``seconds``; then it is that of the protocol which ``following`` makes.

    ``under_way`` are all handshakes of the server; where ``refused`` says that there are too many connections it is closed.
    """

    def __init__(
        self,
        certificate: Certificate,
        following: Callable[[], asyncio.Protocol],
        under_way: set[asyncio.Task[None]],
        *,
        seconds: float,
        refused: Callable[[], bool],
    ) -> None:
        self._certificate, self._following, self._under_way = certificate, following, under_way
        self._seconds, self._refused = seconds, refused
        self._early = b""
        self._lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake."""
        assert isinstance(transport, asyncio.Transport)
        if self._refused():
            transport.abort()  # nobody could read what it was told
            return
        transport.pause_reading()
        task = asyncio.get_running_loop().create_task(self._shake_hands(transport))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    def data_received(self, data: bytes) -> None:
        """Keep what comes with the handshake's last bytes."""
        self._early += data

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Pass on nothing any more."""
        self._lost = True

    async def _shake_hands(self, transport: asyncio.Transport) -> None:
        loop: Any = asyncio.get_running_loop()
        bounds = {"ssl_handshake_timeout": self._seconds, "ssl_shutdown_timeout": SHUTDOWN_SECONDS}
        try:
            encrypted = await loop.start_tls(transport, self, self._certificate.context(), server_side=True, **bounds)
        except (OSError, TimeoutError):  # ssl.SSLError among them
            transport.abort()
            return
        if encrypted is None or self._lost:
            return
        following = self._following()
        encrypted.set_protocol(following)
        following.connection_made(encrypted)
        if self._early:
            following.data_received(self._early)
