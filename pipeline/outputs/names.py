"""Names of what is written of a shard's entries: the same whatever else is selected, and no entry's own given to another.

An entry in its own form has its own name. In another form its extension is that form's; where another key of the shard is the
same without its extension, or is that very name, the form's stands behind its own: ``same.gif.png`` beside ``same.png``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import cached_property
from itertools import chain, count

from pipeline.assets.names import (
    UniqueNames,
    digest_number,
    has_image_name,
    member_name,
    safe_key,
    safe_suffix,
    split_stem,
    with_extension,
)


class ShardNames:
    """Names by the keys of a whole shard, which are asked for when the first name needs them; 200 bytes each are kept.

    ``own_stems`` gives each asset a stem (the name up to its first dot) of its own.
    """

    def __init__(self, keys: Callable[[], Iterable[str]], *, own_stems: bool = False) -> None:
        self._keys, self._own_stems = keys, own_stems

    def written_as(self, key: str, extension: str | None) -> str:
        """Return the name of the entry ``key``, written in the form of an extension, or None in its own."""
        name = safe_key(key)[0]
        if extension is not None:
            own, bares, _ = self._known
            bare = _bare(name)
            name = with_extension(name, extension)
            if bares[digest_number(bare)] > 1 or digest_number(bare) in own or digest_number(name) in own:
                name = f"{key}.{extension}"
            while digest_number(name) in own:
                name = f"{name}.{extension}"
            name = safe_key(name)[0]
        if self._own_stems:
            stem = self._known[2].get(key)
            name = name if stem is None else stem + name[len(split_stem(name)[0]) :]
        return name

    @cached_property
    def _known(self) -> tuple[set[int], Counter[int], dict[str, str]]:
        """The keys, how many are each without its extension, and the stems of those that share theirs; names as numbers."""
        own: set[int] = set()
        bares: Counter[int] = Counter()
        stems: dict[str, str] = {}
        taken = UniqueNames()
        for key in self._keys():
            own.add(digest_number(key))
            bares[digest_number(_bare(key))] += 1
            if self._own_stems and (stem := split_stem(key)[0]) != (given := taken.claim(stem)[0]):
                stems[key] = given
        return own, bares, stems


def _bare(key: str) -> str:
    return key.rpartition(".")[0] if has_image_name(key) else key


def root_name(key: str) -> str:
    """Return a key without any extension of an image at its end: what keys share whose names might meet in other forms."""
    while has_image_name(key):
        key = key.rpartition(".")[0]
    return key


class MemberNames:
    """Names of the files that assets of one shard are written as, each given once and safe as a relative path.

    ``own_stems`` gives each asset a stem (the name up to its first dot) of its own, and its sidecars the same; ``whole_names``
    calls a sidecar of v1.2.jpg v1.2.json and not v1.json.
    """

    def __init__(self, *, own_stems: bool = False, whole_names: bool = False) -> None:
        self._names, self._stems = UniqueNames(), UniqueNames() if own_stems else None
        self._whole_names = whole_names

    def members(self, key: str, data: bytes | None, sidecars: Mapping[str, bytes]) -> list[tuple[str, bytes]]:
        """Return the image, where there is one, and the sidecars of an asset, by name."""
        sidecars = {safe_suffix(suffix): content for suffix, content in sidecars.items()}
        key = safe_key(key)[0]
        middle = split_stem(key)[1]
        middle = middle.rpartition(".")[0] if has_image_name(key) else middle
        if self._whole_names and middle:
            sidecars = {f"{middle}.{suffix}": content for suffix, content in sidecars.items()}
        if self._stems is not None:  # a sidecar with a stem of its own would be another sample's
            sidecars = dict(zip(_own_suffixes(sidecars), sidecars.values(), strict=True))
        while data is not None and key in {member_name(key, suffix) for suffix in sidecars}:
            key = f"{key}.{key.rpartition('.')[2]}"  # a.jpg beside the sidecar a.png, written as PNG
        if self._stems is not None:
            stem = split_stem(key)[0]
            key = safe_key(self._stems.claim(stem)[0] + key[len(stem) :])[0]
        if data is None:
            key = self._names.claim(key, sidecars)[0]
            return [(safe_key(member_name(key, suffix))[0], content) for suffix, content in sidecars.items()]
        key = self._names.claim(key)[0]
        return [(key, data), *((self._sidecar(key, suffix), content) for suffix, content in sidecars.items())]

    def _sidecar(self, key: str, suffix: str) -> str:
        """Return the name of a sidecar: with the image's whole name before it where another asset of its stem has one."""
        name = safe_key(member_name(key, suffix))[0]
        if self._names.take(name):
            return name
        return self._names.claim(safe_key(f"{key}.{suffix.removeprefix('/')}")[0])[0]


def _own_suffixes(suffixes: Collection[str]) -> Iterator[str]:
    """Yield suffixes behind one stem, each once; one with a stem of its own keeps that where its suffix is taken."""
    taken = {suffix for suffix in suffixes if not suffix.startswith("/")}
    for suffix in suffixes:
        base = suffix[1:]
        if not suffix.startswith("/"):
            yield suffix
            continue
        names = chain((split_stem(base)[1] or base, base), (f"{number}.{base}" for number in count(2)))
        found = next(name for name in names if name not in taken)
        taken.add(found)
        yield found
