"""The account of a file: which of its parts are carried, which are lost; and a restored file with the carried ones again."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from pipeline.containers import avif, bmp, gif, jpeg, jpeg2000, plain, png, psd, tiff, webp
from pipeline.containers.parts import MOST_PARTS, Fate, Part
from pipeline.core.records import Carried

WALKERS: dict[str, Callable[[bytes], Iterable[Part]]] = {
    "JPEG": jpeg.walk,
    "MPO": jpeg.walk,
    "PNG": png.walk,
    "WEBP": webp.walk,
    "AVIF": avif.walk,
    "TIFF": tiff.walk,
    "BMP": bmp.walk,
    "GIF": gif.walk,
    "JPEG2000": jpeg2000.walk,
    "PSD": psd.walk,
    "PPM": plain.walk_pnm,
    "TGA": plain.walk_tga,
    "QOI": plain.walk_qoi,
}
"""What tells the parts of a file, by Pillow's name of its format."""

_WRITERS: dict[str, Callable[[bytes, Sequence[Carried]], bytes]] = {
    "JPEG": jpeg.put_back,
    "PNG": png.put_back,
    "WEBP": webp.put_back,
    "AVIF": avif.put_back,
    "TIFF": tiff.put_back,
    "BMP": bmp.put_back,
}

_MOST_NAMES = 200
"""Of the parts of a file, that can be told: what is lost is told by name, in sentences and in counts."""

UNKNOWN = "unknown-parts"
"""The word for a file whose parts cannot be told."""


@dataclass(frozen=True, kw_only=True)
class Account:
    """What a restored file gets back as it was, and one word for each kind of thing that it lacks, in order of the words."""

    carried: tuple[Carried, ...] = ()
    lost: tuple[str, ...] = ()
    understood: frozenset[str] = frozenset()
    """The names of the parts that a decoder is to bring out."""


def account(data: bytes, format: str) -> Account:
    """Account for every byte of a file that was decoded; of a format without a walker nothing beside the picture is known."""
    walk = WALKERS.get(format)
    if walk is None:
        return Account(lost=(UNKNOWN,))
    try:
        parts = list(islice(walk(data), MOST_PARTS + 1))
    except (struct.error, IndexError, ValueError, OverflowError):  # offsets that lead nowhere: a decoder may not need them
        return Account(lost=(UNKNOWN,))
    if len(parts) > MOST_PARTS or len({part.name for part in parts}) > _MOST_NAMES:
        return Account(lost=(UNKNOWN,))
    carried = [
        Carried(name=part.name, data=data[part.start : part.end] if part.data is None else part.data)
        for part in parts
        if part.fate is Fate.CARRIED
    ]
    named = {fate: {part.name for part in parts if part.fate is fate} for fate in Fate}
    return Account(carried=tuple(carried), lost=tuple(sorted(named[Fate.LOST])), understood=frozenset(named[Fate.UNDERSTOOD]))


def put_back(data: bytes, format: str, carried: Sequence[Carried]) -> bytes:
    """Return a newly written file with the parts that were carried from a file of the same format."""
    return _WRITERS[format](data, carried) if carried and format in _WRITERS else data
