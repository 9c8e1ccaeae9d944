"""TLS: a certificate that is read again when it is renewed, and handshakes that are bounded as requests are.

The loop's own server would let a client wait a minute before it is counted, and keep a certificate for good."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from asyncio.sslproto import SSLProtocol
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


class Handshake(SSLProtocol):
    """A connection that is encrypted below ``following``, which hears of it once that is so, or never.

    A handshake has its ``seconds``. ``open_ones`` are all connections of the server, those without one yet among them; where
    ``most`` are open a new one is closed.
    """

    def __init__(
        self, certificate: Certificate, following: asyncio.Protocol, open_ones: set[Handshake], *, most: int, seconds: float
    ) -> None:
        super().__init__(
            asyncio.get_running_loop(),
            following,
            certificate.context(),
            waiter=None,  # type: ignore[arg-type]  # nobody waits
            server_side=True,
            ssl_handshake_timeout=seconds,  # type: ignore[arg-type]  # seconds of any kind
            ssl_shutdown_timeout=SHUTDOWN_SECONDS,
        )
        self._open, self._most = open_ones, most

    def connection_made(self, transport: Any) -> None:
        """Begin the handshake."""
        if len(self._open) >= self._most:
            transport.abort()  # nobody could read what it was told
            return
        self._open.add(self)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Make room for another."""
        self._open.discard(self)
        super().connection_lost(exc)
