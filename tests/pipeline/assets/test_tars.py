"""Tars to assets: the WebDataset convention, odd names, links, compressions, damage, and memory."""

from __future__ import annotations

import bz2
import contextlib
import csv
import gzip
import hashlib
import io
import lzma
import random
import subprocess
import sys
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
from pipeline.stores.store import Store, open_store
from tests.support.shards import JPEG, PNG, keys, read_damaged, shard_of
from tests.support.workshop import tar_of

REAL_TARS = Path(__file__).parents[4] / "shared" / "data" / "train"


def read_tar(folder: Path, data: bytes) -> list[Asset]:
    """Return all assets of a tar."""
    return list(read_assets(*shard_of(folder, ShardKind.TAR, {"x.tar": data})))


def test_tar_members_of_a_stem_are_one_asset(tmp_path: Path) -> None:
    """Protects the WebDataset convention: image and sidecars of adjacent members, keys as they are."""
    members = [
        ("a/x.seg.png", PNG),
        ("a/x.jpg", JPEG),
        ("a/x.txt", b"cap"),
        ("b/x.PNG", PNG),
        ("b/y.seg.png", PNG),
        ("b/z.jpg", b""),
    ]
    assets = read_tar(tmp_path, tar_of(members))
    assert assets == [
        Asset(key="a/x.jpg", data=JPEG, sidecars={"seg.png": PNG, "txt": b"cap"}),
        Asset(key="b/x.PNG", data=PNG),
        Asset(key="b/y.seg.png", data=PNG),
        Asset(key="b/z.jpg", data=b""),
    ]


def test_tar_samples_without_image_keep_their_members(tmp_path: Path) -> None:
    """Protects sidecars whose image is missing or not adjacent: they are an asset of their own that says so."""
    assets = read_tar(
        tmp_path, tar_of([("x.jpg", JPEG), ("y.jpg", JPEG), ("x.txt", b"1"), ("x.json", b"{}"), ("README", b"r")])
    )
    assert keys(assets) == ["x.jpg", "y.jpg", "x.txt", "README"]
    assert assets[2].data is None
    assert assets[2].sidecars == {"txt": b"1", "json": b"{}"}
    assert "adjacent" in str(assets[2].note)
    assert assets[3].sidecars == {"": b"r"}


def test_tar_keys_are_unique(tmp_path: Path) -> None:
    """Protects all assets of one name in one tar, adjacent or not, and all their sidecars."""
    members = [
        ("a.jpg", JPEG),
        ("a.txt", b"1"),
        ("a.jpg", PNG),
        ("a.txt", b"2"),
        ("b.jpg", JPEG),
        ("a.png", PNG),
        ("a.txt", b"3"),
    ]
    assets = read_tar(tmp_path, tar_of(members))
    assert keys(assets) == ["a.jpg", "a~2.jpg", "b.jpg", "a~3.png"]
    assert [asset.sidecars.get("txt") for asset in assets] == [b"1", b"2", None, b"3"]
    assert assets[0].note is None
    assert "a.jpg" in str(assets[1].note)


@pytest.mark.parametrize(
    "name", ["../x.jpg", "/etc/x.jpg", "a/../../x.jpg", r"..\x.jpg", "C:/x.jpg", "a\x01b.jpg", "y" * 300 + ".jpg"]
)
def test_tar_names_that_are_not_safe_are_changed_and_told(tmp_path: Path, name: str) -> None:
    """Protects destinations against members with absolute, parent or otherwise unsafe names."""
    (asset,) = read_tar(tmp_path, tar_of([(name, JPEG)]))
    assert asset.data == JPEG
    assert asset.key.endswith("jpg")
    assert not asset.key.startswith("/")
    assert ".." not in asset.key.split("/")
    assert f"stored under {asset.key}" in str(asset.note)


@pytest.mark.parametrize("format_", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tar_long_and_foreign_names_are_kept(tmp_path: Path, format_: int) -> None:
    """Protects names beyond the 100 ASCII bytes of the old header, and the leading ./ of `tar -c .`, which is no name."""
    name = "Straße/" + "/".join(["folder"] * 30) + "/☀.jpg"
    assert keys(read_tar(tmp_path, tar_of([(name, JPEG), ("./b.jpg", JPEG)], format_))) == [name, "b.jpg"]


def test_tar_name_that_is_no_utf8_is_encoded(tmp_path: Path) -> None:
    """Protects tars of old systems: a Latin-1 byte in a name stays distinct and breaks nothing behind it."""
    data = tar_of([("caf\udce9.jpg", JPEG), ("caf\udce8.jpg", JPEG)], tarfile.GNU_FORMAT)
    assert keys(read_tar(tmp_path, data)) == ["caf%E9.jpg", "caf%E8.jpg"]


def test_tar_links_and_devices_are_told_and_not_followed(tmp_path: Path) -> None:
    """Protects the machine that reads: a link of a stranger's tar is reported, nothing is opened."""
    buffer = io.BytesIO()
    kinds = {
        b"1": "hard link",
        b"2": "symbolic link",
        b"3": "character device",
        b"4": "block device",
        b"6": "pipe",
        b"V": "type",
    }
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for kind in kinds:
            info = tarfile.TarInfo(f"{kind.decode()}.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        folder = tarfile.TarInfo("folder.jpg")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
    assets = read_tar(tmp_path, buffer.getvalue())
    assert [asset.data for asset in assets] == [None] * len(kinds)
    assert all(what in str(asset.note) for asset, what in zip(assets, kinds.values(), strict=True))


def test_tar_files_of_macos_are_no_assets(tmp_path: Path) -> None:
    """Protects samples of a tar made on macOS, where a ._ file stands before every member."""
    members = [("._x.jpg", b"\0"), ("x.jpg", JPEG), ("._x.txt", b"\0"), ("x.txt", b"1"), (".DS_Store", b"\0")]
    assert read_tar(tmp_path, tar_of(members)) == [Asset(key="x.jpg", data=JPEG, sidecars={"txt": b"1"})]


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress], ids=["gz", "bz2", "xz"])
def test_compressed_tars_are_read_whatever_their_name(tmp_path: Path, compress: Any) -> None:
    """Protects .tar.gz and its like, several streams in one file included, and the good assets of one that is cut."""
    data = tar_of([(f"{number}.jpg", random.Random(number).randbytes(100_000)) for number in range(8)])
    streams = b"".join(compress(data[start : start + 99_999]) for start in range(0, len(data), 99_999))
    assert len(read_tar(tmp_path, streams)) == 8
    store, shard = shard_of(tmp_path / "cut", ShardKind.TAR, {"x.tar": streams[: len(streams) // 2]})
    assets, error = read_damaged(store, shard)
    assert 2 <= len(assets) <= 4
    assert "x.tar is damaged" in str(error)


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
    data[2048:3072] = bytes(1024)
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
    """Protects the job: whatever bytes are in a tar, the reader ends, with assets and at most DamagedShard."""
    members = [("a/x.jpg", JPEG), ("a/x.txt", b"1"), ("long" * 60 + ".jpg", JPEG), ("ü.jpg", JPEG * 50)]
    data = bytearray(tar_of(members, tarfile.GNU_FORMAT if gnu else tarfile.PAX_FORMAT))
    data[at : at + len(noise)] = noise
    store, shard = shard_of(tmp_path_factory.mktemp("noise"), ShardKind.TAR, {"x.tar": bytes(data)})
    assets: list[Asset] = []
    with contextlib.suppress(DamagedShard):
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


@pytest.mark.skipif(not REAL_TARS.is_dir(), reason="the training tars are not beside the checkout")
def test_real_tars_come_out_as_their_manifest_says() -> None:
    """Protects reality: every image of a real WebDataset tar, once, under its name, with its digest."""
    with (REAL_TARS / "MANIFEST.tsv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["shard"] == "train-00.tar"]
    store = open_store(str(REAL_TARS))
    shard = SourceShard(id="0", name="train-00.tar", kind=ShardKind.TAR, objects=(store.stat("train-00.tar"),))
    found = {asset.key: hashlib.sha256(asset.data or b"").hexdigest() for asset in read_assets(store, shard)}
    assert found == {row["name"]: row["sha256"] for row in rows}


def test_tars_are_read_without_pyarrow(tmp_path: Path) -> None:
    """Protects training, which reads tars on machines where pyarrow is not installed."""
    (tmp_path / "x.tar").write_bytes(tar_of([("a.jpg", JPEG)]))
    script = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from pipeline.assets.shards import read_assets\n"
        "from pipeline.assets.sources import find_source\n"
        "source = find_source(sys.argv[1])\n"
        "print([asset.key for asset in read_assets(source.store, next(source.shards))])"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "x.tar")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    assert done.stdout.strip() == "['a.jpg']"
