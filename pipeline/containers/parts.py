"""A part of a file, and what becomes of it; reading numbers without running off the end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from pipeline.core.records import Carried

MOST_PARTS = 200_000
"""Of a file that can be told; a PNG of 1.6 GB in chunks of 8 kB has as many, more are made to cost memory."""


class Fate(StrEnum):
    """What becomes of a part: it is decoded and written anew, put back as it was, or a restore lacks it."""

    UNDERSTOOD = "understood"
    CARRIED = "carried"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes ``start`` to ``end`` of a file, under the name that its format gives them; lost ones under the word for the loss.

    ``data`` is what is carried, where that is not these very bytes.
    """

    name: str
    start: int
    end: int
    fate: Fate
    data: bytes | None = None


def is_padding(data: bytes) -> bool:
    """Return whether bytes say nothing: zeros, spaces, line ends, or FF."""
    return not data.strip(b"\0\xff \r\n")


def behind(data: bytes, start: int, fate: Fate) -> Iterable[Part]:
    """Return what stands behind the end of a picture, padding excepted, as the part ``trailer``."""
    if start < len(data):
        padding = is_padding(data[start:])
        yield Part("padding" if padding else "trailer", start, len(data), Fate.UNDERSTOOD if padding else fate)


def trailers(parts: Iterable[Carried]) -> bytes:
    """Return the carried bytes that belong behind a picture's end."""
    return b"".join(part.data for part in parts if part.name == "trailer")


def word(kind: bytes) -> str:
    """Return the name of a chunk or box as a word that can be shown, whatever its bytes are."""
    return "".join(chr(each) if 33 <= each < 127 else "_" for each in kind.rstrip(b" "))
