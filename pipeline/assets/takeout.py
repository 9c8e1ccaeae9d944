"""Which photograph a JSON file of a Google Photos export is about, whose name Takeout has cut or numbered its own way.

photo.jpg       photo.jpg.supplemental-metadata.json, or the first 46 characters of that and .json, or photo.jpg.json
photo(1).jpg    photo.jpg.supplemental-metadata(1).json, or photo.jpg(1).json
"""

from __future__ import annotations

import re
from collections.abc import Iterable

CUT = 41
"""Characters that every cut name keeps at least: the whole is 46 to 51 long, ".json" included."""

LAST = "\U0010ffff"

_ABOUT = re.compile(r"(.+?)(\(\d+\))?\.json", re.IGNORECASE | re.DOTALL)
_NUMBERED = re.compile(r"(.+)(\(\d+\))((?:\.[^.]*)?)", re.DOTALL)
_SUFFIX = ".supplemental-metadata"


def described(about: str, images: Iterable[str]) -> str | None:
    """Return the key among ``images`` of the photograph that the file ``about`` is about, None where there is none."""
    folder, base = _split(about)
    match = _ABOUT.fullmatch(base)
    if match is None:
        return None
    found = [key for key in images if _split(key)[0] == folder and _is_about(match[1], match[2], _split(key)[1])]
    return min(found, key=lambda key: (len(key), key), default=None)


def _is_about(name: str, number: str | None, image: str) -> bool:
    forms: list[tuple[str, str | None]] = [(image, None)]
    if numbered := _NUMBERED.fullmatch(image):
        forms.append((numbered[1] + numbered[3], numbered[2]))
    return any(
        number == own and (form + _SUFFIX).startswith(name) and (len(name) >= len(form) or len(name) >= CUT)
        for form, own in forms
    )


def end_of(stem: str) -> str:
    """Return a bound of the keys that may belong to a file of this stem: in a sorted listing none does from there on.

    Those are ``stem.…``, and where Takeout would have cut or numbered the name of what is about it, what begins like that.
    """
    base = stem.rfind("/") + 1
    if len(stem) - base > CUT:
        return stem[: base + CUT] + LAST
    if stem.endswith(")") and (number := stem.rfind("(")) > base and stem[number + 1 : -1].isdecimal():
        return f"{stem[:number]}/"
    return f"{stem}/"  # the character behind the dot


def _split(key: str) -> tuple[str, str]:
    folder, _, base = key.rpartition("/")
    return folder, base
