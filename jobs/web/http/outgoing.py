"""How much of answers may wait in memory to be sent: who asks beyond that is told to come back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.reading.errors import Overloaded

SMALL_BYTES = 2**20
"""Up to so many an answer is always sent, however much others have to be."""


@dataclass(eq=False)
class Sending:
    """An answer on its way, and how many of its bytes the client has still to take."""

    value: object
    rest: int


class Outgoing:
    """The answers that are being sent, for one event loop: ``most`` bytes of them, but a small one or the only one always.

    A value that goes to several clients, as out of a cache, counts once, as for the one who has most of it to take.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._under_way: set[Sending] = set()

    @property
    def bytes(self) -> int:
        """Bytes that are still to be sent."""
        return sum(self._rests().values())

    @contextmanager
    def sending(self, value: object, size: int) -> Iterator[Sending]:
        """Count a value of ``size`` bytes for as long as the context lasts; raises Overloaded where there are too many."""
        rests = self._rests()
        others = sum(rests.values()) - rests.get(id(value), 0)
        if size > SMALL_BYTES and others and others + size > self._most:
            raise Overloaded(f"answers of {others >> 20} MiB are being sent")
        sending = Sending(value, size)
        self._under_way.add(sending)
        try:
            yield sending
        finally:
            self._under_way.remove(sending)

    def _rests(self) -> dict[int, int]:
        rests: dict[int, int] = {}
        for each in self._under_way:
            rests[id(each.value)] = max(each.rest, rests.get(id(each.value), 0))
        return rests
