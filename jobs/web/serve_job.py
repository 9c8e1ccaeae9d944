"""What `iarn serve` was asked for, parsed and checked; light to import."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jobs.web.front.forwarded import HOST, PATH, Network
from pipeline.core.errors import InvalidOption
from pipeline.core.options import Limits
from pipeline.stores.base import Access

TOKEN_VARIABLE = "IARN_TOKEN"
LEAST_TOKEN = 16

_ORIGIN = re.compile(r"\*|https?://[A-Za-z0-9.\[\]:-]+")
_PUBLIC = re.compile(rf"https?://(?:{HOST.pattern})(?:{PATH.pattern})", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class ServeJob:
    """What one ``iarn serve`` was asked for; ``archives`` are URIs by the names they are served under."""

    archives: Mapping[str, str]
    host: str = "127.0.0.1"
    port: int = 8080
    token: str | None = field(default=None, repr=False)
    allow_origin: str | None = None
    public_address: str | None = None
    archive_access: Access = Access.SIGNED
    refresh: float = 10.0
    address: str | None = None
    device: str = "auto"
    replicas: int = 1
    max_replicas: int | None = None
    cpus_per_replica: float = 1.0
    gpus_per_replica: float | None = None
    queue: int = 64
    cache_mb: int = 256
    seconds: float = 60.0
    largest_side: int = Limits.largest_side
    max_pixels: int = Limits.most_pixels
    workers: int = 1
    tls_cert: Path | None = None
    tls_key: Path | None = None
    trusted_proxies: tuple[str, ...] = ()
    access_log: str | None = None

    def __post_init__(self) -> None:
        for option in ("replicas", "workers", "queue", "largest_side", "max_pixels"):
            if getattr(self, option) < 1:
                raise InvalidOption(f"--{option.replace('_', '-')}", str(getattr(self, option)), "give a number from 1.")
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise InvalidOption("--max-replicas", str(self.max_replicas), f"give {self.replicas} (--replicas) or more.")
        if not 0 < self.seconds <= 3600:
            raise InvalidOption("--seconds", f"{self.seconds:g}", "give seconds above 0, an hour at most.")
        if self.refresh and not 1 <= self.refresh <= 86_400:
            raise InvalidOption("--refresh", f"{self.refresh:g}", "give seconds from 1 to 86400, or 0 for never.")
        if self.cache_mb < 0:
            raise InvalidOption("--cache-mb", str(self.cache_mb), "give megabytes from 0.")
        if self.allow_origin is not None and not _ORIGIN.fullmatch(self.allow_origin):
            raise InvalidOption("--allow-origin", self.allow_origin, "give an origin, as in https://viewer.example, or *.")
        if self.public_address is not None and not _PUBLIC.fullmatch(self.public_address):
            raise InvalidOption("--public-address", self.public_address, "give an address, as in https://archive.example/img.")
        if self.token is None and not is_loopback(self.host):
            raise InvalidOption("--host", self.host, f"others can reach it: set {TOKEN_VARIABLE}, or give a --token-file.")
        if (self.tls_cert is None) != (self.tls_key is None):
            given, missing = ("--tls-cert", "--tls-key") if self.tls_key is None else ("--tls-key", "--tls-cert")
            raise InvalidOption(given, str(self.tls_cert or self.tls_key), f"give {missing} as well.")
        self.trusted  # noqa: B018 - parsed

    @property
    def trusted(self) -> tuple[Network, ...]:
        """The networks of proxies that are believed; raises InvalidOption for what is none."""
        return tuple(map(_network, self.trusted_proxies))

    @property
    def origin(self) -> str | None:
        """Whose pages may read images: any page's with a token, which it has to know, none without, unless one is named."""
        return self.allow_origin or (None if self.token is None else "*")

    @property
    def root(self) -> str | None:
        """The address that the service is known by, without a slash at its end; None where each request tells it."""
        return None if self.public_address is None else self.public_address.rstrip("/")


def names_of(archives: Sequence[str]) -> dict[str, str]:
    """Return the URI of each archive by its name: the last part of the URI, or as given; raises InvalidOption."""
    named: dict[str, str] = {}
    for given in archives:
        name, equals, uri = given.partition("=")
        if not equals or "/" in name:
            name, uri = given.rstrip("/").rpartition("/")[2], given
        if not name or name in (".", ".."):
            raise InvalidOption("archive", given, "its address ends with no name; give NAME=URI.")
        if name in named:
            raise InvalidOption("archive", given, f"another is called {name!r} already; give NAME=URI.")
        named[name] = uri
    return named


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        advice = "give the address of a proxy, as in 192.0.2.7, or a network of them, as in 10.0.0.0/8."
        raise InvalidOption("--trusted-proxy", text, advice) from None


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_token(path: Path | None, environment: Mapping[str, str]) -> str | None:
    """Return the token of a file or of the environment, None where there is neither; raises InvalidOption."""
    if path is not None:
        try:
            token, where = path.read_text(encoding="utf-8").strip(), f"--token-file {path}"
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise InvalidOption("--token-file", str(path), f"it cannot be read ({reason}).") from None
    elif TOKEN_VARIABLE in environment:
        token, where = environment[TOKEN_VARIABLE].strip(), TOKEN_VARIABLE
    else:
        return None
    if len(token) < LEAST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise InvalidOption("token", f"of {where}", f"it needs {LEAST_TOKEN} characters or more, ASCII without spaces.")
    return token
