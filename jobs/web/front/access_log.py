"""The log of requests: a JSON line each, written whole, and by a thread of its own: no answer waits for a disk or a pipe."""

from __future__ import annotations

import json
import os
import queue
import threading
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, unquote_plus

from pipeline.core.errors import InvalidOption

STANDARD_OUTPUT = "-"
MOST_WAITING = 10_000
"""Lines that wait for a disk; more are lost, and counted."""
MOST_TEXT_BYTES = 1500
"""Of a path and of a query, so that a line stays below 4,096 bytes: that many a pipe takes at once."""
CLOSE_SECONDS = 2.0


class AccessLog:
    """Where the lines of one worker go; several may write to one file, whose lines stay whole.

    A file that was renamed or removed is made anew with the next line, so a log may be rotated at any time. The token stands in
    no line, wherever a client had it and however encoded. ``lost`` is called for each line that was not written, by any thread.
    """

    def __init__(self, target: str, *, worker: int = 1, token: str | None = None) -> None:
        """Open a file to append to, or standard output by "-"; raises InvalidOption."""
        self._path = None if target == STANDARD_OUTPUT else Path(target)
        self._worker, self._token = worker, token
        self.lost: Callable[[], None] = lambda: None
        try:
            self._file = self._opened()
        except OSError as error:
            raise InvalidOption("--access-log", target, f"it cannot be written ({error.strerror}).") from None
        self._waiting: queue.Queue[bytes | None] = queue.Queue(MOST_WAITING)
        self._writer = threading.Thread(target=self._write_all, name="access-log", daemon=True)
        self._writer.start()

    def add(self, **values: Any) -> None:
        """Log a request."""
        try:
            self._waiting.put_nowait(line(values | {"worker": self._worker}, self._token))
        except queue.Full:
            self.lost()

    def close(self) -> None:
        """Write what waits, for some seconds at most."""
        try:
            self._waiting.put(None, timeout=CLOSE_SECONDS)
        except queue.Full:
            return
        self._writer.join(CLOSE_SECONDS)

    def _write_all(self) -> None:
        while (found := self._waiting.get()) is not None:
            try:
                self._follow()
                written = os.write(self._file, found)
            except OSError:  # a full disk, a reader that is gone: requests are answered all the same
                written = 0
            if written < len(found):
                self.lost()
        os.close(self._file)

    def _follow(self) -> None:
        """Open the file again where it is not the one at its path any more."""
        if self._path is None:
            return
        try:
            there, own = self._path.stat(), os.fstat(self._file)
            if (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino):
                return
        except FileNotFoundError:
            pass
        opened = self._opened()
        os.close(self._file)
        self._file = opened

    def _opened(self) -> int:
        if self._path is None:
            return os.dup(1)
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)


def line(values: dict[str, Any], token: str | None, now: datetime | None = None) -> bytes:
    """Return a line: ASCII, whatever a client sent, with the time in UTC before all else."""
    time = (now or datetime.now(UTC)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    texts = {name: _shown(value, token) if isinstance(value, str) else value for name, value in values.items()}
    return (json.dumps({"time": time, **texts}, separators=(",", ":")) + "\n").encode()


def known_query(query: bytes, known: Collection[str]) -> str:
    """Return a query as it came, without the values of parameters that the service does not have: they may be secrets."""
    parts = [part.partition("=") for part in query.decode("latin-1").split("&") if part]
    return "&".join(f"{name}{equals}{value if unquote_plus(name) in known else ''}" for name, equals, value in parts)


def _tells(text: str, token: str) -> bool:
    """Return whether a token stands in a text as it is, or percent-encoded once or twice."""
    return any(token in each for each in (text, unquote(text), unquote(unquote(text))))


def _shown(text: str, token: str | None) -> str:
    """Return a text, none of one that has the token in it, cut where it would take more than its bytes in JSON."""
    if token is not None and _tells(text, token):
        return "…"
    if len(text) * 6 > MOST_TEXT_BYTES:  # as many as an escape has
        while len(json.dumps(text)) > MOST_TEXT_BYTES:
            text = text[: len(text) * MOST_TEXT_BYTES // len(json.dumps(text))] if len(text) > 16 else text[:-1]
    return text
