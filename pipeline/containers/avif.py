"""AVIF: boxes, items and their properties.

Source: ISO/IEC 14496-12, 8.1 (mdat, free), 8.11 (meta, iinf, iprp); ISO/IEC 23008-12, 6 (properties); AV1 Image File Format.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from pipeline.containers.boxes import boxes
from pipeline.containers.items import IN_BOX, IN_FILE, Items, Span, effort_of, first_item, gaps, items_of
from pipeline.containers.parts import Fate, Part, behind, is_padding, word
from pipeline.core.records import Carried

_MOST_BOXES = 1000  # of a file itself; a picture has five
_FREE = {b"free", b"skip"}
_META = {b"hdlr", b"pitm", b"iloc", b"iinf", b"iprp", b"iref", b"dinf"}
_PROPERTIES = {b"ispe", b"pixi", b"av1C", b"auxC", b"irot", b"imir", b"a1op", b"a1lx", b"lsel"}
_PICTURES = {b"av01", b"grid"}
_ITEMS = {*_PICTURES, b"Exif"}
_SINGLE = {b"Exif": "second-exif", b"mime": "second-xmp"}
_PROFILES = {b"prof", b"rICC"}
_ALPHA = (b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", b"urn:mpeg:hevc:2015:auxid:1")
_SRGB = ((1, 13), (2, 2))  # BT.709 primaries and sRGB's curve, or nothing said: what a writer writes that is not told more


def walk(data: bytes) -> Iterator[Part]:
    """Yield the parts of an AVIF file: its boxes in order and without gaps, those of ``meta`` by what is in them.

    The picture ends with the last box that it has need of, or that is padding.
    """
    top = list(islice(boxes(data, 0, len(data)), _MOST_BOXES + 1))
    if len(top) > _MOST_BOXES:
        raise ValueError("it has more boxes than can be told")
    first = next((start for kind, start, _, _ in top if kind == b"meta"), None)
    items = next((items_of(data, body + 4, end) for _, start, body, end in top if start == first), Items())
    extents = items.extents.get(IN_FILE, [])
    own = {
        start: end
        for kind, start, body, end in top
        if start in (0, first)
        or (kind == b"mdat" and any(body <= place < end for place, _ in extents))
        or _is_filling(data, kind, body, end)
    }
    stop = max(own.values(), default=0)
    for kind, start, body, end in top:
        if start >= stop:
            break
        if start == first:
            yield Part("meta", start, body + 4, Fate.UNDERSTOOD)
            yield from _meta(data, body + 4, end, items)
        else:
            whole = start in own and (kind != b"mdat" or _is_used(data, body, end, extents))
            yield Part(word(kind), start, end, Fate.UNDERSTOOD if whole else Fate.LOST)
    yield from behind(data, stop, Fate.LOST)


def properties(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start of the content and end of each property that a file has for its items."""
    place = (0, len(data))
    for kind, skipped in ((b"meta", 4), (b"iprp", 0), (b"ipco", 0)):
        found = next(((body + skipped, end) for each, _, body, end in boxes(data, *place) if each == kind), None)
        if found is None:
            return
        place = found
    yield from ((kind, body, end) for kind, _, body, end in boxes(data, *place))


def effort(data: bytes) -> tuple[int, int]:
    """Return what ``items.effort_of`` does of an AVIF or HEIF file, and raise what it does."""
    metas = [(body + 4, end) for kind, _, body, end in islice(boxes(data, 0, len(data)), _MOST_BOXES) if kind == b"meta"]
    profiles = sum(end - body for kind, body, end in properties(data) if kind == b"colr")
    return effort_of(data, *metas[0], profiles) if metas else (0, 0)


def _is_filling(data: bytes, kind: bytes, body: int, end: int) -> bool:
    """Return whether a box says nothing."""
    return (kind in _FREE and is_padding(data[body:end])) or (kind == b"uuid" and is_padding(data[body + 16 : end]))


def _is_used(data: bytes, body: int, end: int, extents: Iterable[Span]) -> bool:
    """Return whether all of a box's content is some item's, padding excepted."""
    return all(is_padding(data[start:stop]) for start, stop in gaps(body, end, extents))


def _meta(data: bytes, start: int, end: int, items: Items) -> Iterator[Part]:
    for kind, begin, body, stop in boxes(data, start, end):
        if kind == b"iprp":
            yield from _properties(data, begin, body, stop)
        elif kind == b"iinf":
            yield from _items(data, begin, body, items)
        else:
            known = kind in _META or _is_filling(data, kind, body, stop)
            if kind == b"idat":
                known = _is_used(data, body, stop, [(body + at, body + to) for at, to in items.extents.get(IN_BOX, [])])
            yield Part(word(kind), begin, stop, Fate.UNDERSTOOD if known else Fate.LOST)


def _items(data: bytes, begin: int, body: int, items: Items) -> Iterator[Part]:
    yield Part("iinf", begin, first_item(data, body), Fate.UNDERSTOOD)
    seen: set[bytes] = set()
    for number, (kind, start, end) in items.listed.items():
        name, known = f"item-{word(kind)}", kind in _ITEMS or (kind == b"mime" and b"application/rdf+xml" in data[start:end])
        if kind in _PICTURES and number not in items.shown:
            name, known = "pictures", False
        elif kind in _SINGLE and known and kind in seen:
            name, known = _SINGLE[kind], False
        seen.add(kind)
        yield Part(name, start, end, Fate.UNDERSTOOD if known else Fate.LOST)


def _properties(data: bytes, begin: int, body: int, stop: int) -> Iterator[Part]:
    end = begin
    for kind, start, inside, finish in boxes(data, body, stop):
        if kind != b"ipco":
            known = kind == b"ipma" or _is_filling(data, kind, inside, finish)
            yield Part(word(kind), start, finish, Fate.UNDERSTOOD if known else Fate.LOST)
            end = finish
            continue
        yield Part("iprp", begin, inside, Fate.UNDERSTOOD)
        kinds = set()
        for name, own, at, end in boxes(data, inside, finish):
            kinds.add(name)
            yield _property(data, name, own, at, end)
        if b"colr" not in kinds:  # then the pixels' own stream tells the colours, which no decoder here brings out
            yield Part("colours", end, end, Fate.LOST)
    if end < stop:
        yield Part("iprp", end, stop, Fate.UNDERSTOOD)


def _property(data: bytes, name: bytes, start: int, body: int, end: int) -> Part:
    if name == b"colr" and data[body : body + 4] == b"nclx":
        fate = Fate.UNDERSTOOD if struct.unpack_from(">HH", data, body + 4) in _SRGB else Fate.CARRIED
        return Part("nclx", start, end, fate, data[body + 4 : body + 11])
    if name == b"auxC" and not data.startswith(_ALPHA, body + 4):
        return Part("depth", start, end, Fate.LOST)
    profile = name == b"colr" and data[body : body + 4] in _PROFILES
    known = profile or name in _PROPERTIES or _is_filling(data, name, body, end)
    return Part(word(name), start, end, Fate.UNDERSTOOD if known else Fate.LOST)


def put_back(data: bytes, carried: Sequence[Carried]) -> bytes:
    """Return a newly written AVIF whose colours are said to be its source's; the matrix stays the writer's."""
    for part in carried:
        at = data.find(b"colrnclx")
        if part.name == "nclx" and at >= 0:
            data = data[: at + 8] + part.data[:4] + data[at + 12 :]
    return data
