"""nginx and Caddy in front of `iarn serve`, by the very configurations of docs/serving.md but for ports and paths."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin

import httpx2 as httpx
import pytest

from pipeline.core.records import Tier
from tests.project.test_docs import ROOT, blocks
from tests.support.certificates import trusting, write_certificate
from tests.support.commands import GUARD, IARN, Running, home
from tests.support.pictures import photo, saved
from tests.support.ports import free_ports
from tests.support.workshop import Sample, as_tar, rescale

NAME = "archive.example"
PUBLIC = f"https://{NAME}/img"
"""Where the page has the service."""

KEYS = ("odd/ä b#%?&+ 100%.png", "plain.png", "cached.png")
PAGE = ROOT / "docs" / "serving.md"

pytestmark = pytest.mark.ray


@dataclass(frozen=True, kw_only=True)
class Service:
    """`iarn serve` that trusts 127.0.0.1, its address, its log, the version of its archive."""

    base: str
    log: Path
    version: str

    def requests(self, address: str) -> list[dict[str, Any]]:
        """Return the log's lines of the requests for a path and query that have been answered."""
        mark = f"/{secrets.token_hex(8)}"
        httpx.get(f"{self.base}{mark}", timeout=GUARD)
        end = time.monotonic() + GUARD
        while True:
            lines = [json.loads(line) for line in self.log.read_text().splitlines()]
            if any(line["path"] == mark for line in lines):
                return [line for line in lines if "?".join(filter(None, (line["path"], line["query"]))) == address]
            assert time.monotonic() < end
            time.sleep(0.02)


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """A proxy on a port of loopback, which is archive.example to its clients."""

    port: int
    tls: ssl.SSLContext

    def get(self, path: str, *, host: str = NAME, client: str = "127.0.0.1", **headers: str) -> httpx.Response:
        """Return what it answers a client at an address of loopback; names of headers have underlines."""
        told = {"Host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
        with httpx.Client(transport=httpx.HTTPTransport(local_address=client, verify=self.tls), timeout=GUARD) as asking:
            address = f"https://127.0.0.1:{self.port}{path}"
            return asking.get(address, headers=told, extensions={"sni_hostname": NAME})


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of an archive that has all parts of its entries."""
    folder = tmp_path_factory.mktemp("served")
    files = [Sample(key=key, data=saved(photo(90, 120, 3, number), "PNG")) for number, key in enumerate(KEYS)]
    archive, log = rescale(as_tar(folder / "source", files), folder / "small", tier=Tier.EXACT).uri, folder / "access.log"
    options = ("--port", 0, "--device", "cpu", "--cpus-per-replica", 0.5, "--seconds", GUARD)
    options += ("--trusted-proxy", "127.0.0.1", "--access-log", log)
    with home() as environment, Running(folder / "running", environment, IARN, "serve", archive, *options) as command:
        command.until(lambda: "Serving" in command.out)
        base = command.out.split()[-1].rstrip("/")
        digest = httpx.get(f"{base}/archives", timeout=GUARD).json()["archives"][0]["digest"]
        yield Service(base=base, log=log, version=digest[:12])


@pytest.fixture(scope="module")
def nginx(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """nginx as the page has it, with its cache."""
    found = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        pytest.skip("nginx is not installed (on Debian: apt-get install nginx)")
    server = next(block for block in blocks(PAGE, "nginx") if "ssl_certificate" in block)
    cache = next(block for block in blocks(PAGE, "nginx") if "proxy_cache" in block)
    beside, inside = cache.split("# in the location\n")
    folder, (port,) = tmp_path_factory.mktemp("nginx"), free_ports(1)
    server = replaced(
        server,
        {
            "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
            "127.0.0.1:8080": service.base.removeprefix("http://"),
            f"/etc/ssl/{NAME}.pem": f"{folder}/tls/cert.pem",
            f"/etc/ssl/{NAME}.key": f"{folder}/tls/key.pem",
            "proxy_read_timeout": f"{inside}proxy_read_timeout",
        },
    )
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in TEMPORARY)
    around = f"pid {folder}/nginx.pid; daemon off; error_log stderr; {'user root;' if os.geteuid() == 0 else ''} events {{}}"
    beside = replaced(beside, {"/var/cache/iarn": f"{folder}/cache"})
    (folder / "nginx.conf").write_text(f"{around}\nhttp {{ access_log off;\n{temporary}{beside}{server}}}")
    with proxy(folder, port, found, "-e", "stderr", "-c", folder / "nginx.conf") as running:
        yield running


@pytest.fixture(scope="module")
def caddy(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Caddy as the page has it, but with a certificate that is there."""
    found = shutil.which("caddy")
    if found is None:
        pytest.skip("caddy is not installed")
    (site,) = blocks(PAGE, "caddyfile")
    folder, (port,) = tmp_path_factory.mktemp("caddy"), free_ports(1)
    named = {f"{NAME} {{": f"https://{NAME}:{port} {{\n    tls {folder}/tls/cert.pem {folder}/tls/key.pem"}
    site = replaced(site, {**named, "127.0.0.1:8080": service.base.removeprefix("http://")})
    apart = "{\n    admin off\n    auto_https off\n    default_bind 127.0.0.1\n}\n"
    (folder / "Caddyfile").write_text(apart + site)
    with proxy(folder, port, found, "run", "--config", folder / "Caddyfile") as running:
        yield running


@pytest.fixture(params=["nginx", "caddy"])
def either(request: pytest.FixtureRequest) -> Proxy:
    """Each of them."""
    found: Proxy = request.getfixturevalue(request.param)
    return found


TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
"""What nginx has folders for."""


def replaced(text: str, changes: dict[str, str]) -> str:
    """Return a configuration with other ports and paths; each has to be there."""
    for old, new in changes.items():
        assert old in text, f"docs/serving.md has no {old!r} any more"
        text = text.replace(old, new)
    return text


@contextmanager
def proxy(folder: Path, port: int, *command: object) -> Iterator[Proxy]:
    """Run a proxy until the block ends; its certificate is in tls/ below the folder."""
    certificate, _ = write_certificate(folder / "tls", NAME)
    with home() as environment, Running(folder / "running", environment, *command) as running:

        def answers() -> bool:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return True
            return False

        running.until(answers)
        yield Proxy(port=port, tls=trusting(certificate))
        running.terminate()  # nginx would start killed workers again
        running.ended()
        assert running.left_behind() == []


def address_of(key: str, name: str = "small") -> str:
    """Return an image's own path below a service."""
    return f"/iiif/3/{name}/{quote(key, safe='')}"


@pytest.mark.parametrize("key", KEYS[:2])
def test_what_is_told_is_at_the_public_address(either: Proxy, service: Service, key: str) -> None:
    """Protects clients behind either: all addresses in documents, links and redirects are those that they asked at."""
    own, get = PUBLIC + address_of(key), either.get
    assert get(f"/img{address_of(key)}/info.json").json()["id"] == own
    image = get(f"/img{address_of(key)}/full/40,/0/default.png")
    assert image.headers["link"].startswith(f'<{own}/full/40,30/0/default.png>;rel="canonical"')
    assert urljoin(own, get(f"/img{address_of(key)}").headers["location"]) == f"{own}/info.json"
    entry = f"/img/archives/small/assets/{quote(key, safe='')}"
    told = get(entry).json()
    assert told["key"] == key
    lr = get(urljoin(entry, told["links"]["lr"])).content
    assert lr == httpx.get(f"{service.base}{entry.removeprefix('/img')}/lr", timeout=GUARD).content
    assert get("/img/").headers["location"] in ("./gallery/", "gallery/")
    assert get("/img").headers["location"] == "/img/"


def test_only_the_proxy_is_believed(either: Proxy, service: Service) -> None:
    """Protects documents and the log: what clients tell of themselves is not passed on, and only 127.0.0.1 is trusted."""
    told = {"X_Forwarded_Host": "evil.example", "X_Forwarded_Prefix": "/evil", "X_Forwarded_For": "6.6.6.6"}
    path = f"{address_of('plain.png')}/info.json"
    for headers in (told, {"Forwarded": "for=6.6.6.6;host=evil.example;proto=http"}):
        answer = either.get(f"/img{path}", client="127.0.0.7", **headers)
        assert answer.json()["id"] == PUBLIC + address_of("plain.png")
        assert either.get(f"/img{address_of('plain.png')}", **headers).headers["location"] == f"/img{path}"
    assert [line["client"] for line in service.requests(path)[-2:]] == ["127.0.0.7"] * 2
    assert either.get("/img", host="evil.example").headers.get("location", "/img/") == "/img/"  # Caddy has no site of that name
    sent = {name.replace("_", "-"): value for name, value in told.items()}
    for client, root in (("127.0.0.1", "http://evil.example/evil"), ("127.0.0.7", service.base)):
        with httpx.Client(transport=httpx.HTTPTransport(local_address=client), timeout=GUARD) as asking:
            assert asking.get(service.base + path, headers=sent).json()["id"] == root + address_of("plain.png")


@pytest.mark.parametrize("part", ["original", "lr", "image?format=png"])
def test_files_without_a_version_are_asked_for_again(either: Proxy, part: str) -> None:
    """Protects bandwidth: whoever has the file gets 304, and a range is the bytes that it has, each from the service."""
    path = f"/img/archives/small/assets/plain.png/{part}"
    whole = either.get(path)
    assert whole.headers["cache-control"] == "public, no-cache"
    again = either.get(path, If_None_Match=whole.headers["etag"])
    assert (again.status_code, again.content) == (304, b"")
    some = either.get(path, Range="bytes=100-199")
    assert (some.status_code, some.content) == (206, whole.content[100:200])


def test_files_with_a_version_come_from_the_cache(nginx: Proxy, service: Service) -> None:
    """Protects the service: it is asked once; then the cache has the file, ranges of it and 304, with the public address.

    So it is where somebody else asked first, by a host that nobody has.
    """
    version = service.version
    parts = (f"original?v={version}", f"lr?v={version}", f"image?format=webp&v={version}")
    image = f"{address_of('cached.png', f'small@{version}')}/0,0,50,50/max/0/default.jpg"
    for path in (*(f"/archives/small/assets/cached.png/{part}" for part in parts), image):
        first = nginx.get(f"/img{path}", host="evil.example")
        assert first.headers["cache-control"] == "public, max-age=31536000, immutable"
        again = nginx.get(f"/img{path}")
        assert (again.status_code, again.content) == (200, first.content)
        assert nginx.get(f"/img{path}", If_None_Match=first.headers["etag"]).status_code == 304
        some = nginx.get(f"/img{path}", Range="bytes=100-199")
        assert (some.status_code, some.content) == (206, first.content[100:200])
        assert [line["status"] for line in service.requests(path)] == [200]
    assert again.headers["link"].startswith(f"<{PUBLIC}{image.rpartition('/0,0')[0]}/")


def test_what_must_not_be_kept_goes_past_the_cache(nginx: Proxy, service: Service) -> None:
    """Protects bandwidth: documents, and files for whoever has a token, are asked for with what the client has of them.

    For what it might keep nginx would ask without, and the service would send all of it.
    """
    own = address_of("plain.png", f"small@{service.version}")
    files = (f"/archives/small/assets/plain.png/original?v={service.version}", f"{own}/0,0,9,9/max/0/default.png")
    documents = (f"{own}/info.json", f"{own}/manifest.json")
    for path, token in (
        *((path, {}) for path in documents),
        *((path, {"Authorization": "Bearer of-a-token"}) for path in files),
    ):
        first = nginx.get(f"/img{path}", **token)
        again = nginx.get(f"/img{path}", If_None_Match=first.headers["etag"], **token)
        assert (first.status_code, again.status_code) == (200, 304)
        assert [line["status"] for line in service.requests(path)] == [200, 304]
        if token:
            assert nginx.get(f"/img{path}", Range="bytes=10-19", **token).content == first.content[10:20]
            assert service.requests(path)[-1]["status"] == 206
