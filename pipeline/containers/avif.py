"""AVIF: boxes, items and their properties.

Source: ISO/IEC 14496-12, 8.11 (meta, iinf, iref, iprp); ISO/IEC 23008-12, 6 (properties); AV1 Image File Format.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from pipeline.containers.parts import Fate, Part, is_padding
from pipeline.core.records import Carried

_TOP = {b"ftyp", b"mdat", b"free", b"skip"}
_META = {b"hdlr", b"pitm", b"iloc", b"iinf", b"iprp", b"iref", b"idat", b"free", b"skip", b"dinf"}
_PROPERTIES = {b"ispe", b"pixi", b"av1C", b"colr", b"auxC", b"irot", b"imir", b"a1op", b"a1lx", b"lsel", b"free", b"skip"}
_ITEMS = {b"av01", b"grid", b"Exif"}
_ALPHA = (b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", b"urn:mpeg:hevc:2015:auxid:1")
_SRGB = ((1, 13), (2, 2))  # BT.709 primaries and sRGB's curve, or nothing said: what a writer writes that is not told more


def boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int, int]]:
    """Yield type, start, start of the content, and end of each box between two offsets."""
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        body = start + 8
        if size == 1 and body + 8 <= end:
            (size,) = struct.unpack_from(">Q", data, body)
            body += 8
        stop = min(end, start + size) if size else end
        if stop < body:
            return
        yield kind, start, body, stop
        start = stop


def walk(data: bytes) -> Iterator[Part]:
    """Yield the parts of an AVIF file: its boxes in order and without gaps, those of ``meta`` by what is in them."""
    end = 0
    for kind, start, body, end in boxes(data, 0, len(data)):
        if kind == b"meta":
            yield Part("meta", start, body + 4, Fate.UNDERSTOOD)
            yield from _meta(data, body + 4, end)
        else:
            known = kind in _TOP or (kind == b"uuid" and is_padding(data[body + 16 : end]))
            yield Part(_word(kind), start, end, Fate.UNDERSTOOD if known else Fate.LOST)
    if end < len(data):
        yield Part("trailer", end, len(data), Fate.UNDERSTOOD if is_padding(data[end:]) else Fate.LOST)


def _meta(data: bytes, start: int, end: int) -> Iterator[Part]:
    for kind, begin, body, stop in boxes(data, start, end):
        if kind == b"iprp":
            yield from _properties(data, begin, body, stop)
        elif kind == b"iinf":
            yield from _items(data, begin, body, stop)
        else:
            yield Part(_word(kind), begin, stop, Fate.UNDERSTOOD if kind in _META else Fate.LOST)


def _items(data: bytes, begin: int, body: int, stop: int) -> Iterator[Part]:
    first = body + 4 + (2 if data[body] == 0 else 4)
    yield Part("iinf", begin, first, Fate.UNDERSTOOD)
    for _, start, inside, end in boxes(data, first, stop):
        version = data[inside]
        at = inside + 4 + (4 if version == 3 else 2) + 2
        kind, known = data[at : at + 4], False
        if kind == b"mime":
            known = b"application/rdf+xml" in data[at:end]
        yield Part(f"item-{_word(kind)}", start, end, Fate.UNDERSTOOD if known or kind in _ITEMS else Fate.LOST)


def _properties(data: bytes, begin: int, body: int, stop: int) -> Iterator[Part]:
    end = begin
    for kind, start, inside, finish in boxes(data, body, stop):
        if kind != b"ipco":
            yield Part(_word(kind), start, finish, Fate.UNDERSTOOD)
            end = finish
            continue
        yield Part("iprp", begin, inside, Fate.UNDERSTOOD)
        profile = any(
            name == b"colr" and data[at : at + 4] in (b"prof", b"rICC") for name, _, at, _ in boxes(data, inside, finish)
        )
        kinds = set()
        for name, own, at, end in boxes(data, inside, finish):
            kinds.add(name)
            yield _property(data, name, own, at, end, profile)
        if b"colr" not in kinds:  # then the pixels' own stream tells the colours, which no decoder here brings out
            yield Part("colours", end, end, Fate.LOST)
    if end < stop:
        yield Part("iprp", end, stop, Fate.UNDERSTOOD)


def _property(data: bytes, name: bytes, start: int, body: int, end: int, profile: bool) -> Part:
    if name == b"colr" and data[body : body + 4] == b"nclx":
        said = struct.unpack_from(">HH", data, body + 4)
        fate = Fate.UNDERSTOOD if profile or said in _SRGB else Fate.CARRIED
        return Part("nclx", start, end, fate, data[body + 4 : body + 11])
    if name == b"auxC":  # alpha, or a depth map
        return (
            Part("auxC", start, end, Fate.UNDERSTOOD)
            if data[body + 4 :].startswith(_ALPHA)
            else Part("depth", start, end, Fate.LOST)
        )
    return Part(_word(name), start, end, Fate.UNDERSTOOD if name in _PROPERTIES else Fate.LOST)


def put_back(data: bytes, carried: Sequence[Carried]) -> bytes:
    """Return a newly written AVIF whose colours are said to be its source's; the matrix stays the writer's."""
    for part in carried:
        at = data.find(b"colrnclx")
        if part.name == "nclx" and at >= 0:
            data = data[: at + 8] + part.data[:4] + data[at + 12 :]
    return data


def _word(kind: bytes) -> str:
    return "".join(chr(each) if 33 <= each < 127 else "_" for each in kind)
