"""Runs `iarn` as a user does: in processes of their own, with an empty home and nothing of these tests' environment."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

KEPT = ("PATH", "PYTHONPATH", "TMPDIR", "LANG")
IARN = str(Path(sys.executable).with_name("iarn"))
GUARD = 600.0  # seconds
"""A test that waits this long hangs; no speed is meant."""


@contextmanager
def home() -> Iterator[dict[str, str]]:
    """Give an environment with an empty home and a folder for Ray, both removed afterwards; boto3's variables stay.

    Not below pytest's folder: Ray's sockets lie there, and their paths may have 107 characters.
    """
    folder = Path(tempfile.mkdtemp(prefix="iarn-test-"))
    kept = {name: value for name, value in os.environ.items() if name in KEPT or name.startswith("AWS_")}
    (folder / "home").mkdir()
    kept["PATH"] = f"{Path(IARN).parent}:{kept['PATH']}"  # a job of a cluster finds `iarn` as on a node
    try:
        places = {"HOME": str(folder / "home"), "RAY_TMPDIR": str(folder / "ray")}
        yield kept | places | {"OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Logged:
    """A command whose standard error is ``err``."""

    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        """The JSON lines on standard error; every line has to be one."""
        return [json.loads(line) for line in self.err.splitlines()]

    def event(self, name: str) -> dict[str, Any]:
        """Return the one event of a name."""
        (found,) = [event for event in self.events if event["event"] == name]
        return found


class Running(Logged):
    """A command under way; on leaving ``with`` it and all its descendants are ended."""

    def __init__(self, folder: Path, environment: dict[str, str], *command: object, terminal: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.environment = environment
        self._out, self._err = folder / "out.txt", folder / "err.txt"
        self._terminal: int | None = None
        self._seen: dict[int, psutil.Process] = {}
        with self._out.open("wb") as out, self._err.open("wb") as err:
            inner = -1
            if terminal:
                self._terminal, inner = pty.openpty()
            self._process = subprocess.Popen(
                [str(part) for part in command],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=inner if terminal else err,
                start_new_session=True,
            )
            if terminal:
                os.close(inner)
                os.set_blocking(self._terminal or 0, False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.end()

    def end(self) -> None:
        """Kill the command and all its descendants at once."""
        self.look()
        for process in self._seen.values():
            _end(process)
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        if self._terminal is not None:
            os.close(self._terminal)
            self._terminal = None

    @property
    def pid(self) -> int:
        """The command's own process."""
        return self._process.pid

    @property
    def out(self) -> str:
        """Standard output so far."""
        return self._out.read_text()

    @property
    def err(self) -> str:
        """Standard error so far, on a terminal what that would show."""
        if self._terminal is not None:
            with self._err.open("ab") as file:
                while chunk := _read(self._terminal):
                    file.write(chunk)
        return self._err.read_text()

    def look(self) -> None:
        """Remember the descendants there are now: once their parent is gone, nobody can tell whose they were."""
        try:
            for process in psutil.Process(self.pid).children(recursive=True):
                self._seen.setdefault(process.pid, process)
        except psutil.NoSuchProcess:
            return

    def until(self, reached: Callable[[], bool], seconds: float = GUARD) -> None:
        """Wait until something has happened while the command still runs."""
        end = time.monotonic() + seconds
        while not reached():
            assert self._process.poll() is None, f"it ended with {self._process.returncode}:\n{self.err}"
            assert time.monotonic() < end, f"nothing happened:\n{self.err}"
            time.sleep(0.02)

    def kill(self) -> None:
        """End the command's own process at once, as a machine that runs out of memory does."""
        self.look()
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def interrupt(self) -> None:
        """Do what Ctrl-C on a terminal does: SIGINT to the command and to whatever is in its process group."""
        self.look()
        os.killpg(self.pid, signal.SIGINT)

    def terminate(self) -> None:
        """Do what a cluster does that wants its machine back."""
        self.look()
        self._process.terminate()

    def poll(self) -> int | None:
        """Return the command's status, None while it runs."""
        self.look()
        return self._process.poll()

    def ended(self, seconds: float = GUARD) -> int:
        """Wait for the command to end; return its status."""
        end = time.monotonic() + seconds
        while self._process.poll() is None:
            assert time.monotonic() < end, f"it does not end:\n{self.err}"
            _ = self.err if self._terminal is not None else None  # or the terminal fills up
            time.sleep(0.05)
        return self._process.returncode

    def left_behind(self, *besides: str, seconds: float = GUARD) -> list[str]:
        """Return the names of descendants, ``besides`` some, that do not end with the command."""
        names = {process: _name(process) for process in self._seen.values()}
        _, alive = psutil.wait_procs([process for process, name in names.items() if name not in besides], timeout=seconds)
        return [names[process] for process in alive]


def run(folder: Path, environment: dict[str, str], *arguments: object) -> Running:
    """Run a whole `iarn` command; return it ended."""
    with Running(folder, environment, IARN, *arguments) as running:
        running.ended()
    return running


def is_running(process: psutil.Process) -> bool:
    """Return whether a process still runs; it may end between any two questions to it."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def ray_logs(environment: dict[str, str]) -> dict[str, bytes]:
    """Return what Ray wrote for commands of this environment, file by file; of what still runs, files come and go."""
    found = {}
    for folder, _, names in os.walk(environment["RAY_TMPDIR"]):
        for path in (Path(folder, name) for name in names):
            with suppress(FileNotFoundError):
                if path.is_file() and not path.is_symlink():
                    found[str(path)] = path.read_bytes()
    return found


def _end(process: psutil.Process) -> None:
    try:
        process.kill()  # by start time as well, so never a stranger with the same number
    except psutil.NoSuchProcess:
        return


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except (BlockingIOError, OSError):  # nothing there, or nobody at the other end
        return b""
