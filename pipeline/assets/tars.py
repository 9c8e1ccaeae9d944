"""A tar of the WebDataset convention to its assets, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from pipeline.assets.folders import owner_of
from pipeline.assets.names import UniqueNames, safe_suffix, split_stem
from pipeline.assets.samples import SNIFFED, common_stamp, is_image, named_asset
from pipeline.assets.tar_members import LARGEST_MEMBER, Member, tar_members
from pipeline.core.errors import DamagedShard
from pipeline.core.records import Asset, ObjectInfo
from pipeline.stores.store import Store


@dataclass
class _Sample:
    """Adjacent members of one stem, by suffix; ``images`` are the suffixes of those that are images, in order."""

    stem: str
    members: dict[str, Member] = field(default_factory=dict)
    images: list[str] = field(default_factory=list)
    size: int = 0

    def add(self, suffix: str, member: Member, data: bytes) -> None:
        self.members[suffix] = member
        self.size += len(data)
        if is_image(member.name, data[:SNIFFED]):
            self.images.append(suffix)


def read_tar(store: Store, info: ObjectInfo) -> Iterator[Asset]:
    """Yield the assets of a tar as :func:`pipeline.assets.shards.read_assets` does, with what that raises."""
    names = UniqueNames()
    sample = _Sample("")
    try:
        for member in tar_members(store, info):
            if member.data is None:
                yield named_asset(names, member.name, None, {}, member.note)
                continue
            stem, suffix = split_stem(member.name)
            suffix = safe_suffix(suffix)
            if sample.members and (
                stem != sample.stem or suffix in sample.members or sample.size + len(member.data) > LARGEST_MEMBER
            ):
                yield from _sample_assets(names, sample)
                sample = _Sample("")
            sample.stem = stem
            sample.add(suffix, member, member.data)
    except DamagedShard:
        # The image of a sample without one may lie behind the damage: that sample is lost with it, not half kept.
        if sample.images:
            yield from _sample_assets(names, sample, "the tar is damaged behind it, sidecars may be missing")
        raise
    if sample.members:
        yield from _sample_assets(names, sample)


def _sample_assets(names: UniqueNames, sample: _Sample, note: str | None = None) -> Iterator[Asset]:
    """Yield each image of a sample with the members that belong to it by name, as in a folder; ``note`` is the last one's."""
    if not sample.images:
        note = "no image beside these members; members of one sample must be adjacent in the tar"
        sidecars = {suffix: member.data for suffix, member in sample.members.items() if member.data is not None}
        first, *others = sample.members.values()
        stamp = common_stamp(first.stamp, *(member.stamp for member in others))
        yield named_asset(names, first.name, None, sidecars, note, stamp=stamp)
        return
    # What belongs to none by name goes with the one that WebDataset takes for the sample's image: jpg before seg.png.
    images = {sample.members[suffix].name: suffix for suffix in sorted(sample.images, key=lambda suffix: "." in suffix)}
    owned: dict[str, dict[str, bytes]] = {suffix: {} for suffix in sample.images}
    for suffix, member in sample.members.items():
        owner = owner_of(member.name, list(images))
        if suffix not in owned and owner is not None and member.data is not None:
            owned[images[owner]][suffix] = member.data
    for suffix, sidecars in owned.items():
        chosen = sample.members[suffix]
        stamp = common_stamp(chosen.stamp, *(sample.members[each].stamp for each in sidecars))
        own_note = note if suffix == sample.images[-1] else None
        yield named_asset(names, chosen.name, chosen.data, sidecars, own_note, stamp=stamp)
