"""What a request's headers ask of a file (RFC 9110, 12 to 14): which format, only if it changed, which range of bytes.

Entity tags are strong ones, in quotes, as headers have them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.reading.requests import FORMS

MEDIA_TYPES = {
    "png": "image/png", "jpeg": "image/jpeg", "jpg": "image/jpeg", "webp": "image/webp", "avif": "image/avif",
    "jxl": "image/jxl", "gif": "image/gif", "tif": "image/tiff", "tiff": "image/tiff", "bmp": "image/bmp",
}  # fmt: skip
ANY_BYTES = "application/octet-stream"

_RANGE = re.compile(r"bytes\s*=\s*(\d{0,19})\s*-\s*(\d{0,19})", re.IGNORECASE)
_TAG = re.compile(r'(?:W/)?"[^"]*"')


@dataclass(frozen=True, kw_only=True)
class ByteRange:
    """Bytes from ``start`` to ``stop`` (exclusive) of ``size``; ``start`` is None where the range asked for is not there."""

    start: int | None
    stop: int
    size: int

    @property
    def header(self) -> str:
        """The value of Content-Range."""
        return f"bytes */{self.size}" if self.start is None else f"bytes {self.start}-{self.stop - 1}/{self.size}"


def unchanged(headers: Mapping[str, str], tag: str) -> bool:
    """Return whether the client has the representation with this tag already (If-None-Match, compared weakly)."""
    asked = headers.get("if-none-match")
    if asked is None:
        return False
    return asked.strip() == "*" or tag in (found.removeprefix("W/") for found in _TAG.findall(asked))


def byte_range_of(headers: Mapping[str, str], tag: str, size: int) -> ByteRange | None:
    """Return the single range of bytes that is asked for, or None for the whole.

    The whole is also what comes where If-Range has another tag (or a date), and for several ranges at once or another unit.
    """
    asked = headers.get("range")
    if asked is None or headers.get("if-range", tag).strip() != tag:
        return None
    match = _RANGE.fullmatch(asked.strip())
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:  # the last so many bytes
        count = min(int(match[2]), size)
        return ByteRange(start=size - count if count else None, stop=size, size=size)
    first, last = int(match[1]), int(match[2]) if match[2] else size - 1
    if match[2] and last < first:
        return None
    if first >= size:
        return ByteRange(start=None, stop=size, size=size)
    return ByteRange(start=first, stop=min(last + 1, size), size=size)


def form_for(accept: str) -> str:
    """Return the format that an Accept header likes best, PNG where it does not say or likes none; of equals the first here."""
    best, liking, ranges = "png", 0.0, _ranges(accept)
    for form in FORMS:
        weight = ranges.get(MEDIA_TYPES[form], 0.0)
        if weight > liking:
            best, liking = form, weight
    return best


def prefers_json(accept: str | None) -> bool:
    """Return whether an Accept header likes plain JSON better than JSON-LD; what it does not name it may like by a wildcard."""
    ranges = _ranges(accept or "")
    names = ("application/json", "application/ld+json")
    plain, linked = (next((ranges[each] for each in (name, "application/*", "*/*") if each in ranges), 0.0) for name in names)
    return plain > linked


def _ranges(accept: str) -> dict[str, float]:
    """Return the weight of each media range of an Accept header, the larger where one stands there twice."""
    found: dict[str, float] = {}
    for name, parameters in re.findall(r"([\w.+*/-]+)((?:\s*;[^,;]*)*)", accept):
        found[name.lower()] = max(_weight(parameters), found.get(name.lower(), 0.0))
    return found


def _weight(parameters: str) -> float:
    match = re.search(r";\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*(?:;|$)", parameters, re.IGNORECASE)
    return float(match[1]) if match else 1.0
