"""Whatever is wrong with a tar: what is before the damage comes out, with a sentence, in bounded memory."""

from __future__ import annotations

import contextlib
import gzip
import io
import random
import tarfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.assets.shards import read_assets
from pipeline.core.errors import DamagedShard, UnsupportedShard
from pipeline.core.records import Asset, ObjectInfo, ShardKind, SourceShard
from pipeline.stores.store import Store
from tests.support.shards import JPEG, keys, read_damaged, read_tar, shard_of
from tests.support.workshop import tar_of


def test_damage_in_a_gzip_is_told_at_the_latest_by_its_checksum(tmp_path: Path) -> None:
    """Protects against pictures that came out of a flipped bit: tarfile alone would not look at the checksum."""
    data = bytearray(gzip.compress(tar_of([("a.jpg", random.Random(0).randbytes(50_000))])))
    data[25_000] ^= 1
    _, error = read_damaged(*shard_of(tmp_path, ShardKind.TAR, {"x.tar": bytes(data)}))
    assert "CRC" in str(error)


def test_zstandard_is_named(tmp_path: Path) -> None:
    """Protects a user with .tar.zst from being told that the file is broken."""
    with pytest.raises(UnsupportedShard, match="Zstandard; store it as"):
        read_tar(tmp_path, b"\x28\xb5\x2f\xfd" + b"\0" * 600)


def test_tar_cut_anywhere_gives_the_assets_before_the_cut(tmp_path: Path) -> None:
    """Protects the other assets of a tar cut in half: whole images only, and one sentence at the end."""
    members = [(f"{number}.{suffix}", bytes([number]) * 700) for number in range(4) for suffix in ("jpg", "txt")]
    data = tar_of(members)
    contents = len(members) * 1536
    for stop in [0, 1, 511, 512, 600, 1212, 1535, 1536, 2000, 2100, 3071, 3072, 3073, 5000, 7777, contents - 1, contents]:
        store, shard = shard_of(tmp_path / str(stop), ShardKind.TAR, {"x.tar": data[:stop]})
        assets, error = read_damaged(store, shard)
        whole = sum(stop >= number * 3072 + 1212 for number in range(4))
        assert keys(assets) == [f"{number}.jpg" for number in range(whole)], stop
        assert all(asset.data is not None and len(asset.data) == 700 for asset in assets)
        assert all(asset.sidecars == {"txt": asset.data} for asset in assets[:-1])
        assert "Assets before the damage are kept" in str(error)
        assert shard.objects[0].key in error.uri
    assert read_tar(tmp_path, data[: contents + 512])


def test_sample_at_the_damage_says_that_sidecars_may_be_missing(tmp_path: Path) -> None:
    """Protects against taking a sample for whole whose caption lies behind the cut; one without its image is not yielded."""
    data = tar_of([("a.jpg", JPEG), ("a.txt", b"1" * 600)])
    assets, _ = read_damaged(*shard_of(tmp_path, ShardKind.TAR, {"x.tar": data[:1600]}))
    assert [(asset.key, dict(asset.sidecars)) for asset in assets] == [("a.jpg", {})]
    assert "sidecars may be missing" in str(assets[0].note)
    data = tar_of([("a.txt", b"1"), ("a.jpg", JPEG * 100)])
    assets, _ = read_damaged(*shard_of(tmp_path / "b", ShardKind.TAR, {"x.tar": data[:1700]}))
    assert assets == []


def test_garbage_inside_a_tar_ends_it_with_a_sentence(tmp_path: Path) -> None:
    """Protects against tarfile's habit of taking a broken header for the regular end of the tar."""
    data = bytearray(tar_of([(f"{number}.jpg", JPEG) for number in range(5)]))
    data[2048:2560] = random.Random(0).randbytes(512)
    assets, error = read_damaged(*shard_of(tmp_path, ShardKind.TAR, {"x.tar": bytes(data)}))
    assert keys(assets) == ["0.jpg", "1.jpg"]
    assert "byte 2048" in str(error)
    data[2048:4096] = bytes(2048)
    assets, error = read_damaged(*shard_of(tmp_path / "zero", ShardKind.TAR, {"x.tar": bytes(data)}))
    assert keys(assets) == ["0.jpg", "1.jpg"]
    assert "more follows" in str(error)


@pytest.mark.parametrize(("data", "words"), [(b"", "it is empty"), (JPEG * 100, "it is no tar"), (b"<html>", "it is no tar")])
def test_file_that_is_no_tar_is_told(tmp_path: Path, data: bytes, words: str) -> None:
    """Protects against an empty or mislabelled tar that would pass as one without assets."""
    assets, error = read_damaged(*shard_of(tmp_path, ShardKind.TAR, {"x.tar": data}))
    assert assets == []
    assert words in str(error)


@given(st.integers(0, 9000), st.binary(min_size=1, max_size=40), st.booleans())
@settings(max_examples=150, deadline=None)
def test_no_damage_gives_another_error_or_no_end(
    tmp_path_factory: pytest.TempPathFactory, at: int, noise: bytes, gnu: bool
) -> None:
    """Protects the job: whatever bytes are in a tar, the reader ends, with assets, and says what kind of damage it is."""
    members = [("a/x.jpg", JPEG), ("a/x.txt", b"1"), ("long" * 60 + ".jpg", JPEG), ("ü.jpg", JPEG * 50)]
    data = bytearray(tar_of(members, tarfile.GNU_FORMAT if gnu else tarfile.PAX_FORMAT))
    data[at : at + len(noise)] = noise
    store, shard = shard_of(tmp_path_factory.mktemp("noise"), ShardKind.TAR, {"x.tar": bytes(data)})
    assets: list[Asset] = []
    with contextlib.suppress(DamagedShard, UnsupportedShard):
        assets.extend(read_assets(store, shard))
    assert len(set(keys(assets))) == len(assets)


def test_forged_sizes_neither_hang_nor_fill_memory(tmp_path: Path) -> None:
    """Protects workers from a header that claims a negative or an enormous size."""
    for number, (size, kind) in enumerate(
        [(-512, b"0"), (-1, b"0"), (2**40, b"0"), (2**45, b"L"), (2**45, b"x"), (-512, b"x")]
    ):
        info = tarfile.TarInfo("a.jpg")
        info.size, info.type = size, kind
        header = info.tobuf(tarfile.GNU_FORMAT)
        store, shard = shard_of(tmp_path / str(number), ShardKind.TAR, {"x.tar": header + bytes(2048)})
        assets, error = read_damaged(store, shard)
        assert all(asset.data is None for asset in assets)
        assert str(error)


class TarOfAnySize(io.RawIOBase):
    """A tar that is made while it is read: ``count`` samples of one image and one caption, then the end mark."""

    def __init__(self, count: int, size: int) -> None:
        super().__init__()
        self._parts = self._made(count, size)
        self._left = b""
        self._position = 0

    @staticmethod
    def _made(count: int, size: int) -> Iterator[bytes]:
        for number in range(count):
            yield tar_of([(f"{number:08d}.jpg", bytes(size)), (f"{number:08d}.txt", b"x")])[: size + 512 * 3]
        yield bytes(1024)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        assert whence == 0
        assert offset >= self._position, "the reader went back"
        while self._position < offset and self.read(offset - self._position):
            pass
        return self._position

    def readinto(self, buffer: Any) -> int:
        self._left = self._left or next(self._parts, b"")
        data, self._left = self._left[: len(buffer)], self._left[len(buffer) :]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


class OneFileStore:
    """A store of one endless file."""

    uri = "test://store"

    def __init__(self, file: io.RawIOBase) -> None:
        self._file = file

    def open(self, key: str, etag: str | None = None, buffer_size: int = 2**16) -> BinaryIO:
        assert key == "x.tar"
        assert etag == "e"
        return cast(BinaryIO, io.BufferedReader(self._file, buffer_size))


@pytest.mark.slow
def test_memory_is_one_sample_whatever_the_size_of_the_tar() -> None:
    """Protects the bound on memory: a tar 100 times the cap streams through; header after header is let go."""
    count, size, cap = 800, 2**19, 2**22
    store = cast(Store, OneFileStore(TarOfAnySize(count, size)))
    info = ObjectInfo(key="x.tar", size=count * (size + 1536) + 1024, etag="e")
    shard = SourceShard(id="0", name="x.tar", kind=ShardKind.TAR, objects=(info,))
    tracemalloc.start()
    try:
        seen = sum(asset.data is not None and len(asset.data) == size for asset in read_assets(store, shard))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert seen == count
    assert count * size > 90 * cap
    assert peak < cap
