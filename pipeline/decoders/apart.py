"""Decoding in a process apart: a picture that ends its decoder, or never ends, costs itself and not the worker.

Only for shards under which a worker has died: each picture takes a trip through a pipe, one at a time.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from multiprocessing.connection import Connection, Pipe
from types import TracebackType
from typing import Self

from pipeline.core.errors import DecoderDied, ImageError
from pipeline.decoders import decoding
from pipeline.pictures import originals
from pipeline.pictures.picture import Picture

DECODE_SECONDS = 600
"""How long one picture may take to be decoded."""


class DecoderApart:
    """A process that decodes, started at the first use and again after each death; any thread may call it.

    Used as a context manager it ends with the block. Where its owner is killed it ends by itself.
    """

    def __init__(self, seconds: int = DECODE_SECONDS) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None

    def decode(self, data: bytes, *, pixel_limit: int) -> Picture:
        """Return what ``decoding.decode`` does, having tried ``originals.pack`` as well, whose codecs read the file too.

        Raises what ``decoding.decode`` does, and DecoderDied where the process ended or took too long.
        """
        with self._lock:
            pipe = self._started()
            try:
                pipe.send((data, pixel_limit))
                answer: Picture | ImageError = pipe.recv()
            except (EOFError, OSError):
                raise DecoderDied(self._cause_of_death()) from None
        if isinstance(answer, ImageError):
            raise answer
        return answer

    def close(self) -> None:
        """End the process."""
        if self._process is not None and self._pipe is not None:
            self._pipe.close()
            self._process.kill()
            self._process.wait()
            self._process = self._pipe = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _started(self) -> Connection:
        if self._pipe is None:
            # Not a fork, which of a process with threads may never come to itself, nor what multiprocessing calls spawn, which
            # runs the owner's main script once more.
            self._pipe, other = Pipe()
            with other:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", __name__, str(other.fileno()), str(self._seconds)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[other.fileno()],
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
                )
            self._pipe.recv()  # it is up; where it is not, EOFError is no word about a picture
        return self._pipe

    def _cause_of_death(self) -> str:
        assert self._process is not None
        status = self._process.wait()
        self.close()
        if -status == signal.SIGALRM:
            return f"its decoding took more than {self._seconds} s"
        ending = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        return f"its decoding ends the process ({ending})"


def _serve(pipe: Connection, seconds: int) -> None:
    """Decode what comes until the owner is gone; a timer of the system ends even what never returns to Python."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the owner, with whom this ends
    pipe.send(None)
    while True:
        try:
            data, pixel_limit = pipe.recv()
        except EOFError:
            return
        signal.alarm(seconds)
        pipe.send(_tried(data, pixel_limit))
        signal.alarm(0)


def _tried(data: bytes, pixel_limit: int) -> Picture | ImageError:
    originals.pack(data)
    try:
        return decoding.decode(data, pixel_limit=pixel_limit)
    except ImageError as error:
        return error


if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])), int(sys.argv[2]))
