"""What a picture's file says of it in words: a title, who made it, whose it is, under which licence.

EXIF is read here and not by Pillow, as its orientation is. Sources: CIPA DC-008 (Exif 2.32), 4.6.5; Adobe XMP part 1, 8.5
(xmpRights); ccREL (cc:license).
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from pipeline.pictures.orientation import JPEG_PREFIX

MOST_LETTERS = 1000
"""Of a text that is told."""

_TAGS = {0x010E: "title", 0x013B: "artist", 0x8298: "copyright"}
_ASCII = 2
_LICENCE = re.compile(
    rb"(?:cc:license|xmpRights:WebStatement)(?:\s+rdf:resource)?\s*(?:=\s*[\"']|>)\s*https?://"
    rb"(creativecommons\.org/licenses/[a-z-]{2,20}/\d\.\d(?:/(?:[a-z]{2}|igo|scotland))?"
    rb"|creativecommons\.org/publicdomain/(?:zero|mark)/1\.0|rightsstatements\.org/vocab/[A-Za-z-]{2,20}/1\.0)"
    rb"(?:/(?:deed|legalcode)(?:\.[\w-]+)?)?/?(?![\w./-])"  # what is shown of it in a language is not its URI
)


@dataclass(frozen=True, kw_only=True)
class Caption:
    """A picture's title, artist and copyright; ``licence`` is the URI of a Creative Commons licence or a RightsStatement."""

    title: str | None = None
    artist: str | None = None
    copyright: str | None = None
    licence: str | None = None


def caption_of(exif: bytes | None, xmp: bytes | None) -> Caption:
    """Return what an EXIF block (with or without the JPEG prefix) and XMP say; nothing of what is damaged or blank."""
    found = _LICENCE.search(xmp or b"")
    licence = None if found is None else f"http://{found[1].decode()}/"
    return Caption(**_texts(exif), licence=licence)


def _texts(exif: bytes | None) -> dict[str, str]:
    block, found = (exif or b"").removeprefix(JPEG_PREFIX), dict[str, str]()
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None:
        return found
    try:
        (start,) = struct.unpack_from(order + "I", block, 4)
        (count,) = struct.unpack_from(order + "H", block, start)
        for index in range(count):
            place = start + 2 + 12 * index
            tag, kind, length = struct.unpack_from(order + "HHI", block, place)
            if tag not in _TAGS or kind != _ASCII:
                continue
            first = place + 8 if length <= 4 else struct.unpack_from(order + "I", block, place + 8)[0]
            text = _text(block[first : first + min(length, 4 * MOST_LETTERS)])
            if text:
                found[_TAGS[tag]] = text
    except struct.error:  # an offset or a count that points outside the block
        pass
    return found


def _text(data: bytes) -> str:
    """Return a text, which is called ASCII and is UTF-8 or Latin-1 in many files, on one line."""
    data = data.partition(b"\0")[0]
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())[:MOST_LETTERS]
