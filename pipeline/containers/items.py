"""The items of an AVIF: of what kind each is, where its bytes are, and which make up the picture that is shown.

Source: ISO/IEC 14496-12, 8.11.3 (iloc), 8.11.4 (pitm), 8.11.6 (iinf), 8.11.12 (iref); ISO/IEC 23008-12, 6.4 (references).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from pipeline.containers.boxes import boxes
from pipeline.containers.parts import MOST_PARTS

Span = tuple[int, int]
"""Where bytes begin and end."""

_STEPS = 3  # from a picture to its alpha, that one's tiles, and what belongs to them
_MOST_EXTENTS = 10_000  # they are gone through for each box with bytes of items

IN_FILE, IN_BOX = 0, 1
"""What places count from: the file's start, or that of the content of ``idat``."""


@dataclass(frozen=True, kw_only=True)
class Items:
    """Items by their numbers."""

    listed: dict[int, tuple[bytes, int, int]] = field(default_factory=dict)
    """Kind of each, and where its box stands in ``iinf``."""
    shown: set[int] = field(default_factory=set)
    """The picture, its tiles, its thumbnail, and what is auxiliary to them."""
    extents: dict[int, list[Span]] = field(default_factory=dict)
    """Where the bytes of listed ones are, by what these places count from."""


class _Numbers:
    """Reads big-endian numbers one after the other; raises ValueError at the end."""

    def __init__(self, data: bytes, start: int, end: int) -> None:
        self._data, self._at, self._end = data, start, end

    def take(self, size: int) -> int:
        at, self._at = self._at, self._at + size
        if self._at > self._end:
            raise ValueError("a box is cut off")
        return int.from_bytes(self._data[at : self._at], "big")


def items_of(data: bytes, start: int, end: int) -> Items:
    """Return the items that the content of a ``meta`` box tells of; raises ValueError where it is cut off or endless."""
    found = _boxes(data, start, end)
    listed = dict(islice(_listed(data, *found[b"iinf"]), MOST_PARTS + 1)) if b"iinf" in found else {}
    shown = _shown(data, found)
    extents: dict[int, list[Span]] = {}
    if b"iloc" in found:
        for number, base, place, length in _places(data, *found[b"iloc"]):
            if number in listed:
                extents.setdefault(base, []).append((place, place + length if length else len(data)))
    return Items(listed=listed, shown=shown, extents=extents)


def effort_of(data: bytes, start: int, end: int, profiles: int) -> tuple[int, int]:
    """Return how many items a ``meta`` box has, and what a reader holds that gives each its metadata, and ``profiles`` bytes.

    Raises ValueError where it is cut off or endless.
    """
    found = _boxes(data, start, end)
    count = sum(1 for _ in boxes(data, first_item(data, found[b"iinf"][0]), found[b"iinf"][1])) if b"iinf" in found else 0
    sizes = Counter[int]()
    for number, _, _, length in _places(data, *found[b"iloc"]) if b"iloc" in found else ():
        sizes[number] += min(length or len(data), len(data))
    references = _references(data, *found[b"iref"]) if b"iref" in found else ()
    described = sum(sizes[source] * len(targets) for kind, source, targets in references if kind == b"cdsc")
    return count, count * profiles + described


def _boxes(data: bytes, start: int, end: int) -> dict[bytes, Span]:
    """Return where the content of each kind of box is, of several the first; raises ValueError where there are too many."""
    found: dict[bytes, Span] = {}
    for count, (kind, _, body, stop) in enumerate(boxes(data, start, end)):
        if count == MOST_PARTS:
            raise ValueError("it has more boxes than a file can be told")
        found.setdefault(kind, (body, stop))
    return found


def first_item(data: bytes, body: int) -> int:
    """Return where the first item stands in an ``iinf`` box whose content begins at ``body``."""
    return body + 4 + (2 if data[body] == 0 else 4)


def _listed(data: bytes, body: int, stop: int) -> Iterator[tuple[int, tuple[bytes, int, int]]]:
    for _, start, inside, end in boxes(data, first_item(data, body), stop):
        numbers = _Numbers(data, inside, end)
        wide = numbers.take(4) >> 24 == 3
        number, _, kind = numbers.take(4 if wide else 2), numbers.take(2), numbers.take(4)
        yield number, (kind.to_bytes(4, "big"), start, end)


def _shown(data: bytes, found: dict[bytes, Span]) -> set[int]:
    if b"pitm" not in found:
        return set()
    numbers = _Numbers(data, *found[b"pitm"])
    shown = {numbers.take(2 if numbers.take(4) >> 24 == 0 else 4)}
    references = list(_references(data, *found[b"iref"])) if b"iref" in found else []
    for _ in range(_STEPS):
        for kind, source, targets in references:
            if kind in (b"thmb", b"auxl") and shown.intersection(targets):
                shown.add(source)
            elif kind == b"dimg" and source in shown:
                shown.update(targets)
    return shown


def _references(data: bytes, body: int, stop: int) -> Iterator[tuple[bytes, int, list[int]]]:
    size = 2 if data[body] == 0 else 4
    for kind, _, inside, end in boxes(data, body + 4, stop):
        numbers = _Numbers(data, inside, end)
        source, count = numbers.take(size), numbers.take(2)
        yield kind, source, [numbers.take(size) for _ in range(count)]


def _places(data: bytes, body: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield item, what its place counts from, place and length (0: to the end) of each extent."""
    numbers = _Numbers(data, body, stop)
    version, sizes = numbers.take(4) >> 24, numbers.take(2)
    place_size, length_size, base_size = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    index_size = sizes & 15 if version else 0
    left = _MOST_EXTENTS
    for _ in range(numbers.take(2 if version < 2 else 4)):
        number = numbers.take(2 if version < 2 else 4)
        origin = numbers.take(2) & 15 if version else IN_FILE
        numbers.take(2)
        base = numbers.take(base_size)
        count = numbers.take(2)
        left -= count + 1
        if left < 0:
            raise ValueError("it has more places than a file can be told")
        for _ in range(count):
            numbers.take(index_size)
            yield number, origin, base + numbers.take(place_size), numbers.take(length_size)


def gaps(start: int, end: int, extents: Iterable[Span]) -> Iterator[Span]:
    """Yield the spans between two places that are in no extent."""
    for begin, stop in sorted(extents):
        if start < min(begin, end):
            yield start, min(begin, end)
        start = max(start, stop)
    if start < end:
        yield start, end
