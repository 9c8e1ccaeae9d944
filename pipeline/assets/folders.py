"""Loose files to samples, an image and what is beside it; the plan and whoever reads its shards tell them apart alike."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from pipeline.assets.names import split_stem
from pipeline.assets.takeout import described
from pipeline.core.records import ObjectInfo


@dataclass(kw_only=True)
class LooseSample:
    """An image and its sidecars."""

    image: ObjectInfo
    sidecars: list[ObjectInfo] = field(default_factory=list)


def loose_samples(objects: Iterable[ObjectInfo], images: Collection[str]) -> tuple[list[LooseSample], list[ObjectInfo]]:
    """Return a sample for each of the ``images`` (keys), and the files that belong to none of them.

    A sidecar has its image's stem, WebDataset's; of several images of that stem it belongs to the one whose name it begins
    with, else to the first. What Google Takeout says of a photograph belongs to that one, however its name was cut.
    """
    stems: dict[str, list[ObjectInfo]] = {}
    for info in objects:
        stems.setdefault(split_stem(info.key)[0], []).append(info)
    samples = {info.key: LooseSample(image=info) for members in stems.values() for info in members if info.key in images}
    others = []
    for members in stems.values():
        own = [info.key for info in members if info.key in images]
        for info in members:
            if info.key in images:
                continue
            owner, name = owner_of(info.key, own), info.key.lower()
            if name.endswith(".json" if owner is None else ").json"):
                owner = described(info.key, images) or owner
            if owner is None:
                others.append(info)
            else:
                samples[owner].sidecars.append(info)
    return list(samples.values()), others


def owner_of(sidecar: str, images: list[str]) -> str | None:
    """Return the image a sidecar belongs to: ``shot.12.json`` to ``shot.12.jpg``, not to ``shot.11.jpg``; else the first."""
    bases = [(len(key), key) for key in images if sidecar.startswith(key.rpartition(".")[0] + ".")]
    longest = max((length for length, _ in bases), default=0)
    return next((key for length, key in bases if length == longest), images[0] if images else None)
