"""How much of answers may be in memory at once: who asks beyond that is told to come back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.reading.errors import Overloaded


class Room:
    """So many bytes, for one event loop. One answer alone may take more."""

    def __init__(self, most: int) -> None:
        self._most, self._taken = most, 0

    @contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """Take bytes for as long as the context lasts; raises Overloaded where there are not as many."""
        if self._taken and self._taken + size > self._most:
            raise Overloaded(f"answers of {self._taken >> 20} MiB are being sent")
        self._taken += size
        try:
            yield
        finally:
            self._taken -= size
