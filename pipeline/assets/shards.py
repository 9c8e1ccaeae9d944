"""A source shard to its assets, one at a time, names kept: tars (WebDataset convention), Parquet files, loose files."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.assets.names import UniqueNames, has_image_name, safe_suffix, split_stem
from pipeline.assets.samples import common_stamp, named_asset
from pipeline.assets.tars import LARGEST_MEMBER, read_tar
from pipeline.core.records import Asset, ObjectInfo, ShardKind, SourceShard
from pipeline.stores.store import Store


def read_assets(store: Store, shard: SourceShard, *, image_column: str | None = None) -> Iterator[Asset]:
    """Yield every asset of ``shard``, in the shard's order, exactly once, with a key of its own.

    Memory is one sample and the buffers of one file, and 70 bytes a name, whatever the size of the shard. Where a tar or a
    Parquet file is broken all assets before the damage are yielded and DamagedShard is raised *at the end*: the caller keeps
    what it has and records the sentence. ``image_column`` names the column of a Parquet file, which otherwise has to have
    exactly one that holds images. Raises NoImageColumn, UnsupportedShard (before anything is yielded), and StoreError
    (SourceChanged where an object is no longer the one that was planned).
    """
    match shard.kind:
        case ShardKind.TAR:
            return read_tar(store, shard.objects[0])
        case ShardKind.PARQUET:
            from pipeline.assets.rows import read_rows  # training reads tars where pyarrow is not installed

            return read_rows(store, shard.objects[0], image_column)
        case ShardKind.FILES:
            return _read_files(store, shard.objects)


def _read_files(store: Store, objects: tuple[ObjectInfo, ...]) -> Iterator[Asset]:
    names = UniqueNames()
    stems: dict[str, list[ObjectInfo]] = {}
    for info in objects:
        stems.setdefault(split_stem(info.key)[0], []).append(info)
    for members in stems.values():
        images = [info for info in members if has_image_name(info.key)] or members[:1]
        owned: dict[str, list[ObjectInfo]] = {info.key: [] for info in images}
        for info in members:
            if info.key not in owned:
                owned[_owner(info.key, images)].append(info)
        for info in images:
            sidecars = {split_stem(each.key)[1]: each for each in owned[info.key]}
            yield _file_asset(store, names, info, sidecars)


def _owner(sidecar: str, images: list[ObjectInfo]) -> str:
    """Return the image a sidecar belongs to: ``shot.12.json`` to ``shot.12.jpg``, not to ``shot.11.jpg``; else the first."""
    bases = [(len(info.key), info.key) for info in images if sidecar.startswith(info.key.rpartition(".")[0] + ".")]
    longest = max((length for length, _ in bases), default=0)
    return next((key for length, key in bases if length == longest), images[0].key)


def _file_asset(store: Store, names: UniqueNames, info: ObjectInfo, sidecars: dict[str, ObjectInfo]) -> Asset:
    notes = []
    contents: dict[str, bytes] = {}
    for suffix, each in sidecars.items():
        if each.size > LARGEST_MEMBER:
            notes.append(f"its sidecar {each.key} was left out: {each.size} bytes are more than an entry can hold")
        else:
            contents[safe_suffix(suffix)] = _read_object(store, each)
    data = None
    if info.size > LARGEST_MEMBER:
        notes.append(f"its {info.size} bytes are more than an entry can hold, {LARGEST_MEMBER}")
    elif not has_image_name(info.key):
        notes.append("no image beside these files")
        contents[safe_suffix(split_stem(info.key)[1])] = _read_object(store, info)
    else:
        data = _read_object(store, info)
    stamp = common_stamp(info, *sidecars.values())
    return named_asset(names, info.key, data, contents, "; ".join(notes) or None, stamp=stamp)


def _read_object(store: Store, info: ObjectInfo) -> bytes:
    return store.read(info.key, 0, info.size, etag=info.etag)
