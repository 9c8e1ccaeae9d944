"""Ports for servers of tests, which keep them while they are started again."""

from __future__ import annotations

import random
import socket
from contextlib import closing, suppress

HOST = "127.0.0.1"
PORTS = range(12_000, 32_000)
"""Below those that the system gives away (Linux: from 32,768 on), which are somebody's connection a moment later."""


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback interface that nobody has now."""
    free: list[int] = []
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        with closing(socket.socket()) as tried, suppress(OSError):
            tried.bind((HOST, port))
            free.append(port)
        if len(free) == count:
            return free
    raise AssertionError(f"{len(free)} ports are free, not {count}")
