"""A site of viewers that open what a service has for the IIIF: pages of its own, and scripts as npm has them."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tests.support.commands import GUARD
from tests.support.handler_server import handled_by

KEPT = Path(__file__).parents[2] / "build" / "npm"
TYPES = {"html": "text/html; charset=utf-8", "js": "text/javascript"}


@dataclass(frozen=True, kw_only=True)
class Package:
    """A package of npm in one version; ``sha512`` is its tarball's, in base64, as a lock file has it."""

    name: str
    version: str
    sha512: str


MIRADOR = Package(
    name="mirador",
    version="4.0.0",
    sha512="uWsE9e2oqSc/lUu+vVwDGhTsycuhGsfZ2KfX6CLfXiT3wgGy6qT9+q5M3V9Zz72hkdIgsJugKesaowmRtYmvrA==",
)


def packed(package: Package, name: str) -> bytes:
    """Return a file of a package, which is kept below build/ once it has come; skips the test where npm cannot get it."""
    tarball = KEPT / f"{package.name}-{package.version}.tgz"
    if not tarball.exists():
        _get(package, tarball)
    found = base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()
    assert found == package.sha512, f"{tarball} is not {package.name} {package.version} as it is known: sha512-{found}"
    with tarfile.open(tarball) as tar:
        member = tar.extractfile(f"package/{name}")
        assert member is not None
        return member.read()


def _get(package: Package, tarball: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip(f"needs npm, to get {package.name}")
    KEPT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=KEPT) as folder:
        command = [npm, "pack", f"{package.name}@{package.version}", "--pack-destination", folder, "--fetch-retries=1"]
        ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=GUARD, check=False)
        if ran.returncode:
            pytest.skip(f"npm cannot get {package.name} {package.version}: {ran.stderr.strip().splitlines()[:1]}")
        Path(folder, tarball.name).rename(tarball)


@contextmanager
def viewer_site(files: Mapping[str, bytes]) -> Iterator[str]:
    """Serve files by their names on a port of their own, which makes it another origin than a service's; give its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.lstrip("/")
            if name not in files:
                self.send_response(204)  # a browser asks for an icon
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Type", TYPES[name.rpartition(".")[2]])
            self.send_header("Content-Length", str(len(files[name])))
            self.end_headers()
            self.wfile.write(files[name])

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with handled_by(Handler) as address:
        yield address
