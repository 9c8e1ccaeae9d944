"""What a request was asked at, and by whom, as proxies in front tell it: RFC 7239's Forwarded, or X-Forwarded-*.

Each proxy adds itself at the right end, and what stands further left is what it was told, by anybody. So these headers are read
from the right, and only as far as trusted proxies wrote them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

Network = IPv4Network | IPv6Network
Networks = Collection[Network]

HOST = re.compile(r"[A-Za-z0-9._~-]+(:\d{1,5})?|\[[0-9A-Fa-f:.]+\](:\d{1,5})?", re.ASCII)

_FOR, _PROTO, _HOST, _PREFIX = "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-prefix"
_PAIR = re.compile(r"""\s*([!#$%&'*+.^`|~\w-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s",;]+))\s*""", re.ASCII)
_SEGMENT = r"/(?!\.{1,2}(?:/|$))(?:[A-Za-z0-9._~!$&'()*+;=:@-]|%[0-9A-Fa-f]{2})+"
PATH = re.compile(rf"(?:{_SEGMENT})*/?", re.ASCII)
_WITH_PORT = re.compile(r"\[([^\]]*)\](?::\w+)?|([^:]*):\w+", re.ASCII)


class Misforwarded(Exception):
    """What a trusted proxy tells makes no address; the sentence says which header, and why."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Who asked, an IP address, and at which address: scheme, host with its port, the path that the service lies below.

    ``prefix`` is None where no proxy told it; it has no slash at its end.
    """

    client: str
    scheme: str
    host: str
    prefix: str | None = None

    @property
    def root(self) -> str | None:
        """The service's address as the client has it, without a slash at its end; None where the host is none."""
        return f"{self.scheme}://{self.host}{self.prefix or ''}" if HOST.fullmatch(self.host) else None


def asked_of(scope: Mapping[str, Any], trusted: Networks) -> Asked:
    """Return what a request was asked at: what it says itself, or what proxies say where a trusted one sent it.

    Raises Misforwarded.
    """
    given: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1").strip()
        given[name] = f"{given[name]},{value}" if given.get(name) else value
    peer = (scope.get("client") or ("", 0))[0]
    own = Asked(client=peer, scheme=scope["scheme"], host=given.get("host", ""))
    if not _is_trusted(peer, trusted):
        return own
    if not given.get("forwarded"):
        return _by_x_forwarded(own, given, trusted)
    if any(given.get(name) for name in (_FOR, _PROTO, _HOST)):  # the proxy set one of them, and perhaps the client the other
        raise Misforwarded(
            "A request came with both Forwarded and X-Forwarded headers: have the proxy remove what it does not set."
        )
    return _by_forwarded(own, given, trusted)


def _by_forwarded(own: Asked, given: Mapping[str, str], trusted: Networks) -> Asked:
    elements = _elements(given["forwarded"])
    client, count = _way(own.client, [each.get("for", "") for each in elements], trusted)
    told = elements[-count]
    prefix = _told_by(given, _PREFIX, count)
    return _with(replace(own, client=client), told.get("proto"), told.get("host"), prefix)


def _by_x_forwarded(own: Asked, given: Mapping[str, str], trusted: Networks) -> Asked:
    client, count = _way(own.client, _list(given, _FOR), trusted)
    proto, host, prefix = (_told_by(given, name, count) for name in (_PROTO, _HOST, _PREFIX))
    return _with(replace(own, client=client), proto, host, prefix)


def _way(peer: str, claims: Sequence[str], trusted: Networks) -> tuple[str, int]:
    """Return who asked the outermost trusted proxy, and how many of those there are from ``peer`` on.

    ``claims`` are whom each proxy had the request from. Where one tells no address, the client is the proxy itself.
    """
    client, count = peer, 0
    for claim in reversed(claims):
        if not _is_trusted(client, trusted):
            break
        count += 1
        address = _address(claim)
        if address is None:
            break
        client = str(address)
    return client, max(count, 1)


def _told_by(given: Mapping[str, str], name: str, count: int) -> str | None:
    """Return what the outermost of ``count`` proxies says, who add a value each, or pass on what the outermost set."""
    values = _list(given, name)
    if len(values) < 2:
        return values[0] if values else None
    if len(values) < count:
        raise Misforwarded(
            f"{name} has {len(values)} values from {count} trusted proxies: have each add one, or the first alone."
        )
    return values[-count]


def _list(given: Mapping[str, str], name: str) -> list[str]:
    text = given.get(name, "")
    return [each.strip() for each in text.split(",")] if text else []


def _with(asked: Asked, proto: str | None, host: str | None, prefix: str | None) -> Asked:
    """Return what was asked with what proxies say of it; raises Misforwarded where that is no part of an address."""
    if proto is not None:
        if proto.lower() not in ("http", "https"):
            raise Misforwarded("A trusted proxy tells a scheme that is neither http nor https.")
        asked = replace(asked, scheme=proto.lower())
    if host is not None:
        if not HOST.fullmatch(host):
            raise Misforwarded("A trusted proxy tells a host that is no name and no address.")
        asked = replace(asked, host=host)
    if prefix is not None:
        if not PATH.fullmatch(prefix):
            raise Misforwarded("A trusted proxy tells a prefix that is no plain path, as in /img.")
        asked = replace(asked, prefix=prefix.rstrip("/"))
    return asked


def _elements(text: str) -> list[dict[str, str]]:
    """Return the elements of a Forwarded header (RFC 7239, 4), left to right; raises Misforwarded."""
    elements: list[dict[str, str]] = [{}]
    at = 0
    while True:
        match = _PAIR.match(text, at)
        name = match[1].lower() if match else ""
        if match is None or name in elements[-1]:
            raise Misforwarded(
                "The Forwarded header is none by RFC 7239, as in for=192.0.2.1;proto=https;host=archive.example."
            )
        elements[-1][name] = match[3] if match[2] is None else re.sub(r"\\(.)", r"\1", match[2])
        at = match.end()
        if at == len(text):
            return elements
        if text[at] == ",":
            elements.append({})
        elif text[at] != ";":
            raise Misforwarded("The Forwarded header has something behind a value that is neither a comma nor a semicolon.")
        at += 1


def _is_trusted(address: str, trusted: Networks) -> bool:
    found = _address(address)
    return found is not None and any(found in network for network in trusted)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """Return an IP address that is told with or without a port, None where it is none; of an IPv4 one in an IPv6 one, that."""
    match = _WITH_PORT.fullmatch(text)
    try:
        address = ipaddress.ip_address((match[1] or match[2] or "") if match else text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
