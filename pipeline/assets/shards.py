"""A source shard to its assets, one at a time, names kept: tars (WebDataset convention), Parquet files, loose files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pipeline.assets.folders import loose_samples
from pipeline.assets.names import UniqueNames, has_image_name, is_of_another_kind, safe_key, safe_suffix, split_stem
from pipeline.assets.samples import SNIFFED, common_stamp, is_image, named_asset, sidecar_suffix
from pipeline.assets.tar_members import LARGEST_MEMBER
from pipeline.assets.tars import read_tar
from pipeline.core.errors import AccessDenied, InvalidKey, NotFound
from pipeline.core.records import Asset, ObjectInfo, ShardKind, SourceShard
from pipeline.stores.store import LocalStore, Store

KEPT = "kept as it is: no image"
"""The note of a file that is carried for its own sake."""


def read_assets(
    store: Store, shard: SourceShard, *, image_column: str | None = None, all_files: bool = False
) -> Iterator[Asset]:
    """Yield every asset of ``shard``, in the shard's order, exactly once, with a key of its own.

    Memory is one sample and the buffers of one file, and 70 bytes a name, whatever the size of the shard. Where a tar or a
    Parquet file is broken all assets before the damage are yielded and DamagedShard is raised *at the end*: the caller keeps
    what it has and records the sentence. ``image_column`` names the column of a Parquet file, which otherwise has to have
    exactly one that holds images; of loose files ``all_files`` gives those that are no images as well. Raises NoImageColumn,
    UnsupportedShard (before anything is yielded), and StoreError (SourceChanged where an object is no longer the one that was
    planned).
    """
    match shard.kind:
        case ShardKind.TAR:
            return read_tar(store, shard.objects[0])
        case ShardKind.PARQUET:
            from pipeline.assets.rows import read_rows  # training reads tars where pyarrow is not installed

            return read_rows(store, shard.objects[0], image_column)
        case ShardKind.FILES:
            return _read_files(store, shard.objects, all_files=all_files)


def _read_files(store: Store, objects: tuple[ObjectInfo, ...], *, all_files: bool) -> Iterator[Asset]:
    names = UniqueNames()
    samples, others = loose_samples(objects, {info.key for info in objects if _is_image(store, info)})
    for sample in samples:
        yield _file_asset(store, names, sample.image, sample.sidecars)
    for info in others:
        yield _other_asset(store, names, info, kept=all_files)


def _is_image(store: Store, info: ObjectInfo) -> bool:
    """Return whether a file is an image; a name that does not tell costs a read of its first bytes."""
    asked = not has_image_name(info.key) and not is_of_another_kind(info.key) and info.size > 0
    head, _ = _read_object(store, info, SNIFFED) if asked else (b"", None)
    return is_image(info.key, head or b"")


def _file_asset(store: Store, names: UniqueNames, info: ObjectInfo, sidecars: list[ObjectInfo]) -> Asset:
    notes = []
    contents: dict[str, bytes] = {}
    for each in sidecars:
        if each.size > LARGEST_MEMBER:
            name = safe_key(each.key)[0]
            notes.append(f"its sidecar {name} was left out: {each.size} bytes are more than an entry can hold")
            continue
        content, fault = _read_object(store, each)
        if content is not None:
            contents[sidecar_suffix(info.key, each.key)] = content
        else:
            notes.append(f"its sidecar {safe_key(each.key)[0]} was left out: {fault}")
    data, fault = _read_object(store, info)
    notes += [fault] if fault is not None else []
    return named_asset(names, info.key, data, contents, "; ".join(notes) or None, stamp=common_stamp(info, *sidecars))


def _other_asset(store: Store, names: UniqueNames, info: ObjectInfo, *, kept: bool) -> Asset:
    """Return the asset of a file that is no image and beside none."""
    data, fault = _read_object(store, info)
    stamp = common_stamp(info)
    if data is None:
        return named_asset(names, info.key, None, {}, fault, stamp=stamp)
    if kept:
        return replace(named_asset(names, info.key, data, {}, KEPT, stamp=stamp), kept=True)
    contents = {safe_suffix(split_stem(info.key)[1]): data}
    return named_asset(names, info.key, None, contents, "no image beside this file", stamp=stamp)


def _read_object(store: Store, info: ObjectInfo, size: int | None = None) -> tuple[bytes | None, str | None]:
    """Return the bytes of an object, or only the first ``size``; None, and why, where it alone can never be read.

    That is one too large, and one whose key the store lists and does not take: a part of it is empty, ``.`` or ``..``. Raises
    StoreError where the store fails, or has another object than the planned one.
    """
    stop = info.size if size is None else min(size, info.size)
    if stop > LARGEST_MEMBER:
        return None, f"its {info.size} bytes are more than an entry can hold, {LARGEST_MEMBER}"
    try:
        return store.read(info.key, 0, stop, etag=info.etag), None
    except AccessDenied as error:  # of one file; where a bucket refuses, it refuses more, and the job has to hear of it
        if not isinstance(store, LocalStore):
            raise
        return None, str(error)
    except (InvalidKey, NotFound) as error:
        if isinstance(error, NotFound) and not {"", ".", ".."} & set(info.key.split("/")):
            raise
        return None, f"the store lists this object and does not give it: {error}"
