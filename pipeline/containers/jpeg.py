"""JPEG: marker segments, and what stands behind the end of the picture.

Source: ITU-T T.81, Annex B; JFIF 1.02; CIPA DC-008 (APP1), DC-007 (MPF); Adobe XMP part 3, 1.1.3; ISO/IEC 19566-5 (APP11).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from pipeline.containers import mpf
from pipeline.containers.parts import MOST_PARTS, Fate, Part, behind, trailers
from pipeline.core.records import Carried

_SOI, _EOI, _SOS, _COM = 0xD8, 0xD9, 0xDA, 0xFE
_BARE = {0x01, *range(0xD0, 0xD8)}  # markers without a length
_TABLES = {0xC4, 0xCC, 0xDA, 0xDB, 0xDC, 0xDD, *range(0xC0, 0xC4)}
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")

_FILL = re.compile(rb"\xff+(?=\xff)")

_PLAIN_JFIF = b"JFIF\0\1\1\0\0\1\0\1\0\0"
"""The segment that says nothing, which is what an encoder writes that is not told more."""

_SIGNATURES: dict[tuple[int, bytes], tuple[str, Fate]] = {
    (0xE0, b"JFIF\0"): ("JFIF", Fate.CARRIED),
    (0xE1, b"Exif\0\0"): ("EXIF", Fate.UNDERSTOOD),
    (0xE1, b"http://ns.adobe.com/xap/1.0/\0"): ("XMP", Fate.UNDERSTOOD),
    (0xE1, b"http://ns.adobe.com/xmp/extension/\0"): ("XMP-extension", Fate.CARRIED),
    (0xE2, b"ICC_PROFILE\0"): ("ICC", Fate.UNDERSTOOD),
    (0xE2, b"MPF\0"): ("mpf", Fate.LOST),  # unless its offsets are those of what stands behind the end
    (0xEB, b"JP"): ("jumbf", Fate.LOST),  # C2PA signs the file as it was; others change the picture
    (0xEE, b"Adobe"): ("Adobe", Fate.UNDERSTOOD),  # which transform the colours went through
}


def walk(data: bytes) -> Iterator[Part]:
    """Yield the parts of a JPEG file, in order and without gaps."""
    held: list[Part] = []  # from an index of pictures on: whether it can be carried shows where the first picture ends
    for part in _parts(data):
        if part.name == "mpf" or 0 < len(held) <= MOST_PARTS:
            held.append(part)
        else:
            yield from held
            held.clear()
            yield part
    yield from _with_index(data, held)


def effort(data: bytes) -> tuple[int, int]:
    """Return how many scans there are, and how many segments and fill bytes: decoders go through these one by one."""
    scans = others = 0
    for part in islice(_parts(data), MOST_PARTS + 1):
        scans += part.name == "coding" and data[part.start + 1] == _SOS
        others += part.end - part.start if part.name == "marker" else 1
    return scans, others


def _with_index(data: bytes, held: list[Part]) -> list[Part]:
    """Return the parts from an index of pictures on: carried, with what is behind the end, where it tells that rightly."""
    if [part.name for part in held].count("mpf") != 1 or held[-1].name != "trailer":
        return held
    index, trailer = held[0], held[-1]
    moved = mpf.loosened(data[index.start : index.end], index.start, trailer.start, len(data))
    if moved is None:
        return held
    return [replace(index, name="MPF", fate=Fate.CARRIED, data=moved), *held[1:-1], replace(trailer, fate=Fate.CARRIED)]


def _parts(data: bytes) -> Iterator[Part]:
    position, after = 0, Fate.CARRIED
    seen: set[str] = set()
    while position < len(data):
        marker = data[position + 1] if data[position] == 0xFF and position + 1 < len(data) else None
        if marker is None or marker == 0xFF or marker in _BARE or marker in (_SOI, _EOI):
            end = _end_of_run(data, position) if marker in (None, 0xFF) else position + 2
            yield Part("stray" if marker is None else "marker", position, end, Fate.LOST if marker is None else Fate.UNDERSTOOD)
            if marker == _EOI:
                yield from behind(data, end, after)
                return
            position = end
            continue
        end = min(len(data), position + 2 + max(2, int.from_bytes(data[position + 2 : position + 4], "big")))
        name, fate = _segment(marker, data[position + 4 : end])
        if name in ("XMP", "EXIF") and name in seen:
            name, fate = f"second-{name.lower()}", Fate.LOST
        seen.add(name)
        if name == "mpf":
            after = Fate.LOST
        if marker == _SOS:
            found = _NEXT_MARKER.search(data, end)
            end = found.start() if found else len(data)
        yield Part(name, position, end, fate)
        position = end


def _end_of_run(data: bytes, position: int) -> int:
    """Return the end of fill bytes before a marker, or of bytes that are none."""
    if data[position] != 0xFF:
        found = data.find(b"\xff", position)
        return found if found >= 0 else len(data)
    fill = _FILL.match(data, position)
    return fill.end() if fill else position + 1


def _segment(marker: int, body: bytes) -> tuple[str, Fate]:
    if marker in _TABLES or 0xC0 <= marker <= 0xCF:
        return "coding", Fate.UNDERSTOOD
    for (own, signature), found in _SIGNATURES.items():
        if marker == own and body.startswith(signature):
            return ("JFIF", Fate.UNDERSTOOD) if body == _PLAIN_JFIF else found
    if marker == _COM:
        return "COM", Fate.CARRIED
    if 0xE0 <= marker <= 0xEF:
        return f"APP{marker - 0xE0}", Fate.CARRIED
    return f"marker-{marker:02x}", Fate.LOST


def put_back(data: bytes, carried: Sequence[Carried]) -> bytes:
    """Return a newly written JPEG with segments and trailer that its source had; a JFIF segment replaces its own.

    An index of pictures tells where they are now.
    """
    start, end = 2, 2
    own = b""
    while data[end] == 0xFF and (0xE0 <= data[end + 1] <= 0xEF or data[end + 1] == _COM):
        length = 2 + int.from_bytes(data[end + 2 : end + 4], "big")
        if data[end + 4 : end + 9] == b"JFIF\0":
            own, start = data[end : end + length], end + length
        end += length
    first = b"".join(part.data for part in carried if part.name == "JFIF") or own
    rest = [part for part in carried if part.name not in ("JFIF", "trailer")]
    made = bytearray(b"".join((data[:2], first, data[start:end])))
    stop = len(made) + sum(len(part.data) for part in rest) + len(data) - end
    for part in rest:
        made += mpf.fastened(part.data, len(made), stop) if part.name == "MPF" else part.data
    return b"".join((made, data[end:], trailers(carried)))
