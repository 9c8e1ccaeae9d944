"""Little shards for tests of readers, and what is read of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.assets.shards import read_assets
from pipeline.core.errors import DamagedShard
from pipeline.core.records import Asset, ShardKind, SourceShard
from pipeline.stores.store import Store, open_store

JPEG = b"\xff\xd8\xff\xe0 a jpeg"
PNG = b"\x89PNG\r\n\x1a\n a png"


def shard_of(folder: Path, kind: ShardKind, files: dict[str, bytes]) -> tuple[Store, SourceShard]:
    """Write files to a folder, and return them as one shard."""
    for key, data in files.items():
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(data)
    store = open_store(str(folder))
    objects = tuple(store.stat(key) for key in sorted(files))
    return store, SourceShard(id="000000000-x", name=objects[0].key, kind=kind, objects=objects)


def read_tar(folder: Path, data: bytes) -> list[Asset]:
    """Return all assets of a tar."""
    return list(read_assets(*shard_of(folder, ShardKind.TAR, {"x.tar": data})))


def read_damaged(store: Store, shard: SourceShard) -> tuple[list[Asset], DamagedShard]:
    """Return the assets before the damage, and the damage."""
    assets: list[Asset] = []
    with pytest.raises(DamagedShard) as caught:
        assets.extend(read_assets(store, shard))
    return assets, caught.value


def keys(assets: list[Asset]) -> list[str]:
    """Return the keys of assets."""
    return [asset.key for asset in assets]
