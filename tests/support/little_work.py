"""What workers do in tests: they note that they are there, and wait for the end, or die as they are told."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from pipeline.core.errors import InvalidOption


def wait_for_end(folder: Path, listener: socket.socket | None, number: int, ready: Callable[[], None]) -> None:
    """Answer each connection with the worker's number and process, until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if (folder / f"refuse-{number}").exists():
        raise InvalidOption("number", str(number), "this one is not wanted.")
    if (folder / f"die-{number}").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    ready()
    if listener is None:
        signal.pause()
        return
    listener.setblocking(True)
    while True:
        connection, _ = listener.accept()
        connection.sendall(f"{number} {os.getpid()}".encode())
        connection.close()
