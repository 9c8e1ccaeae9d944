"""A Ray cluster of several nodes on this machine, each `ray start` in processes of its own, with a dashboard and a token.

with LittleCluster(folder, environment) as cluster:
    node = cluster.add(cpus=1)
    node.end()  # as when a machine is taken away
"""

from __future__ import annotations

import json
import secrets
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.commands import Running
from tests.support.ports import HOST, free_ports

RAY = str(Path(sys.executable).with_name("ray"))
MEMORY = 80 * 2**20
TRIES = 6
STARTED = "will now block forever"
"""What `ray start` says when it has done so."""

SETTINGS = {
    "RAY_AUTH_MODE": "token",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_metrics_report_interval_ms": "1000",
    # A node that is gone is noticed in seconds and not in a minute.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "5",
}


class LittleCluster:
    """A head without CPUs, and nodes that come and are lost; all of it ends with the block."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.token = secrets.token_hex(16)
        self.environment = environment | SETTINGS | {"RAY_AUTH_TOKEN": self.token}
        self._folder = folder
        self._nodes: list[Running] = []
        self._port, dashboard, *others = free_ports(5)
        self.address, self.dashboard = f"{HOST}:{self._port}", f"http://{HOST}:{dashboard}"
        self.metrics = f"http://{HOST}:{others[2]}/metrics"
        self._head = (
            *("--head", f"--port={self._port}", "--include-dashboard=true", f"--dashboard-port={dashboard}"),
            *(f"--ray-client-server-port={others[0]}", f"--dashboard-agent-listen-port={others[1]}"),
            f"--metrics-export-port={others[2]}",
        )

    def __enter__(self) -> Self:
        try:
            self._up(lambda: answers(f"{self.dashboard}/api/version", self.token), *self._head, "--num-cpus=0")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for node in reversed(self._nodes):
            node.end()

    def add(self, cpus: int = 1) -> Running:
        """Start a node, and wait until it has joined."""
        before = self._joined()
        agent = f"--dashboard-agent-listen-port={free_ports(1)[0]}"
        return self._up(lambda: bool(self._joined() - before), f"--address={HOST}:{self._port}", f"--num-cpus={cpus}", agent)

    def _up(self, joined: Callable[[], bool], *options: str) -> Running:
        """Start a node and wait for it; Ray gives it half a minute, which on a busy machine is not enough.

        A node that has joined may still give up its start, and is then lost again.
        """
        for left in reversed(range(TRIES)):
            node = self._start(*options)
            try:
                node.until(lambda node=node: STARTED in node.out and joined())
                return node
            except AssertionError:
                node.end()
                if not left:
                    raise
        raise AssertionError("unreachable")

    def _joined(self) -> set[str]:
        """Return the ids of all nodes that ever joined."""
        answer = json.loads(fetched(f"{self.dashboard}/nodes?view=summary", self.token))
        return {node["raylet"]["nodeId"] for node in answer["data"]["summary"] if "nodeId" in node.get("raylet", {})}

    def _start(self, *options: str) -> Running:
        shared = (f"--node-ip-address={HOST}", f"--object-store-memory={MEMORY}", "--disable-usage-stats", "--block")
        ports = ("--min-worker-port=0", "--max-worker-port=0")
        folder = self._folder / f"node-{len(self._nodes)}"
        self._nodes.append(Running(folder, self.environment, RAY, "start", *options, *shared, *ports))
        return self._nodes[-1]


def fetched(url: str, token: str) -> bytes:
    """Return what a server of the cluster answers; a busy one is asked again."""
    for _ in range(60):
        with suppress(OSError):
            return _asked(url, token)
        time.sleep(0.5)
    return _asked(url, token)


def answers(url: str, token: str) -> bool:
    """Return whether a server answers at a URL."""
    with suppress(OSError):
        return bool(_asked(url, token))
    time.sleep(0.1)
    return False


def _asked(url: str, token: str) -> bytes:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return bytes(answer.read())
