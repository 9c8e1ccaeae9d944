"""Folders on the local disk for what is not uploaded yet, gone afterwards even where their process was killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "iarn-spool-"
YOUNG_SECONDS = 60.0
"""A folder may be this old before it is locked by who made it."""


@contextmanager
def spool() -> Iterator[Path]:
    """Give a folder of one's own, below TMPDIR, and remove it in the end.

    A process that is killed cannot remove its folder; the next one of this machine does, told by the lock that died with
    its holder. Else a job whose actors run out of memory, over and over, would fill the disk.
    """
    _sweep(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=PREFIX) as name:
        folder = Path(name)
        lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder
        finally:
            os.close(lock)


def _sweep(root: Path) -> None:
    for folder in root.glob(f"{PREFIX}*"):
        with suppress(OSError):  # another user's, one in use, or one that another sweep has just removed
            if time.time() - folder.stat().st_mtime > YOUNG_SECONDS:
                _remove_if_orphaned(folder)


def _remove_if_orphaned(folder: Path) -> None:
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    finally:
        os.close(lock)
