"""A source shard to its assets: every asset once, names kept, whatever is wrong with the shard."""

from __future__ import annotations

import base64
import bz2
import contextlib
import csv
import gzip
import hashlib
import io
import json
import lzma
import random
import subprocess
import sys
import tarfile
import tracemalloc
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.assets.rows import source_image_column, source_row, source_schema
from pipeline.assets.samples import image_extension
from pipeline.assets.shards import read_assets
from pipeline.core.errors import DamagedShard, NoImageColumn, SourceChanged, UnsupportedShard
from pipeline.core.records import Asset, ObjectInfo, ShardKind, SourceShard
from pipeline.stores.store import Store, open_store
from pipeline.tables.writer import RowWriter

JPEG = b"\xff\xd8\xff\xe0 a jpeg"
PNG = b"\x89PNG\r\n\x1a\n a png"
REAL_TARS = Path(__file__).parents[4] / "shared" / "data" / "train"


def make_tar(members: list[tuple[str, bytes]], format_: int = tarfile.PAX_FORMAT) -> bytes:
    """Return a tar of regular files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format_) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


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


# Tar ------------------------------------------------------------------------------------------------------------------


def test_tar_members_of_a_stem_are_one_asset(tmp_path: Path) -> None:
    """Protects the WebDataset convention: images and sidecars of adjacent members, keys as they are."""
    members = [
        ("a/x.seg.png", PNG),
        ("a/x.jpg", JPEG),
        ("a/x.txt", b"cap"),
        ("b/x.PNG", PNG),
        ("b/y.seg.png", PNG),
        ("b/z.jpg", b""),
    ]
    assets = read_tar(tmp_path, make_tar(members))
    assert assets == [
        Asset(key="a/x.seg.png", data=PNG),
        Asset(key="a/x.jpg", data=JPEG, sidecars={"txt": b"cap"}),
        Asset(key="b/x.PNG", data=PNG),
        Asset(key="b/y.seg.png", data=PNG),
        Asset(key="b/z.jpg", data=b""),
    ]


def test_tar_samples_without_image_keep_their_members(tmp_path: Path) -> None:
    """Protects sidecars whose image is missing or not adjacent: they are an asset of their own that says so."""
    assets = read_tar(
        tmp_path, make_tar([("x.jpg", JPEG), ("y.jpg", JPEG), ("x.txt", b"1"), ("x.json", b"{}"), ("README", b"r")])
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
    assets = read_tar(tmp_path, make_tar(members))
    assert keys(assets) == ["a.jpg", "a~2.jpg", "b.jpg", "a~3.png"]
    assert [asset.sidecars.get("txt") for asset in assets] == [b"1", b"2", None, b"3"]
    assert assets[0].note is None
    assert "a.jpg" in str(assets[1].note)


@pytest.mark.parametrize(
    "name", ["../x.jpg", "/etc/x.jpg", "a/../../x.jpg", r"..\x.jpg", "C:/x.jpg", "a\x01b.jpg", "y" * 300 + ".jpg"]
)
def test_tar_names_that_are_not_safe_are_changed_and_told(tmp_path: Path, name: str) -> None:
    """Protects destinations against members with absolute, parent or otherwise unsafe names."""
    (asset,) = read_tar(tmp_path, make_tar([(name, JPEG)]))
    assert asset.data == JPEG
    assert asset.key.endswith("jpg")
    assert not asset.key.startswith("/")
    assert ".." not in asset.key.split("/")
    assert f"stored under {asset.key}" in str(asset.note)


@pytest.mark.parametrize("format_", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tar_long_and_foreign_names_are_kept(tmp_path: Path, format_: int) -> None:
    """Protects names beyond the 100 ASCII bytes of the old header, and the leading ./ of `tar -c .`, which is no name."""
    name = "Straße/" + "/".join(["folder"] * 30) + "/☀.jpg"
    assert keys(read_tar(tmp_path, make_tar([(name, JPEG), ("./b.jpg", JPEG)], format_))) == [name, "b.jpg"]


def test_tar_name_that_is_no_utf8_is_encoded(tmp_path: Path) -> None:
    """Protects tars of old systems: a Latin-1 byte in a name stays distinct and breaks nothing behind it."""
    data = make_tar([("caf\udce9.jpg", JPEG), ("caf\udce8.jpg", JPEG)], tarfile.GNU_FORMAT)
    assert keys(read_tar(tmp_path, data)) == ["caf%E9.jpg", "caf%E8.jpg"]


def test_tar_links_and_devices_are_told_and_not_followed(tmp_path: Path) -> None:
    """Protects the machine that reads: a link of a stranger's tar is reported, nothing is opened."""
    buffer = io.BytesIO()
    kinds = {
        b"1": "hard link here, to %2F/etc/passwd, which is no file before it",
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


def linked_tar(*members: tuple[str, bytes | str]) -> bytes:
    """Return a tar of files, and of hard links to where text says."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            if isinstance(data, str):
                info.type, info.linkname = tarfile.LNKTYPE, data
                tar.addfile(info)
            else:
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize("compress", [bytes, gzip.compress, lzma.compress], ids=["plain", "gz", "xz"])
def test_tar_hard_links_are_other_names_of_earlier_members(tmp_path: Path, compress: Any) -> None:
    """Protects albums without duplicates: a link has its target's bytes, also one to a link, or to a name that came twice."""
    long = "folder/" * 30 + "long.jpg"
    data = linked_tar(
        ("./a.jpg", JPEG),
        (long, PNG * 500),
        ("./album/1.jpg", "./a.jpg"),
        ("./album/1.txt", b"caption"),
        ("album/2.jpg", long),
        ("album/3.jpg", "album/1.jpg"),
        ("a.jpg", PNG),
        ("album/4.jpg", "a.jpg"),
        ("album/5.jpg", "later.jpg"),
        ("later.jpg", JPEG),
    )
    assets = read_tar(tmp_path, compress(data))
    assert [(asset.key, asset.data) for asset in assets] == [
        ("a.jpg", JPEG),
        (long, PNG * 500),
        ("album/1.jpg", JPEG),
        ("album/2.jpg", PNG * 500),
        ("album/3.jpg", JPEG),
        ("a~2.jpg", PNG),
        ("album/5.jpg", None),  # told at once, the sample before it once that is whole
        ("album/4.jpg", PNG),
        ("later.jpg", JPEG),
    ]
    assert assets[2].sidecars == {"txt": b"caption"}
    assert "to later.jpg, which is no file before it" in str(assets[6].note)


def test_tars_joined_by_cat_are_read_to_their_end(tmp_path: Path) -> None:
    """Protects what stands behind an end mark where a header follows, whatever the tars were padded to."""
    full = make_tar([("a.jpg", JPEG), ("a.txt", b"1")])
    short = make_tar([("b.jpg", PNG)])[: 2 * 512 + 1024]
    last = linked_tar(("c.jpg", JPEG), ("d.jpg", "a.jpg"))
    for number, data in enumerate((full + short + last, gzip.compress(full) + gzip.compress(short + last))):
        assets = read_tar(tmp_path / str(number), data)
        assert [(asset.key, asset.data) for asset in assets] == list(
            zip(("a.jpg", "b.jpg", "c.jpg", "d.jpg"), (JPEG, PNG, JPEG, JPEG), strict=True)
        )
    assets, error = read_damaged(*shard_of(tmp_path / "x", ShardKind.TAR, {"x.tar": full + random.Random(1).randbytes(2048)}))
    assert keys(assets) == ["a.jpg"]
    assert "more follows" in str(error)


def test_tar_images_whose_names_have_dots_are_assets_of_their_own(tmp_path: Path) -> None:
    """Protects screenshots and versions: no image is another's sidecar, and each has the caption that begins like it."""
    members = [
        ("s/Shot 2024-05-01 at 10.20.30.png", PNG),
        ("s/Shot 2024-05-01 at 10.20.30.txt", b"first"),
        ("s/Shot 2024-05-01 at 10.21.07.png", JPEG),
        ("s/Shot 2024-05-01 at 10.21.07.txt", b"second"),
        ("s/track 2.0 (clean).jpg", JPEG),
        ("s/track 2.0 (raw).jpg", PNG),
        ("s/track 2.json", b"{}"),
    ]
    assert read_tar(tmp_path, make_tar(members)) == [
        Asset(key=members[0][0], data=PNG, sidecars={"20.30.txt": b"first"}),
        Asset(key=members[2][0], data=JPEG, sidecars={"21.07.txt": b"second"}),
        Asset(key=members[4][0], data=JPEG, sidecars={"json": b"{}"}),
        Asset(key=members[5][0], data=PNG),
    ]


def test_tar_images_are_told_by_their_first_bytes_where_names_do_not(tmp_path: Path) -> None:
    """Protects tars of blobs: an image without an extension, or with an odd one, is no failure."""
    members = [("blobs/c0ffee", JPEG), ("blobs/x.jpg_large", PNG), ("blobs/x.txt", b"1"), ("blobs/y", b"text"), ("z.dng", PNG)]
    assets = read_tar(tmp_path, make_tar(members))
    assert [(asset.key, asset.data) for asset in assets] == [
        ("blobs/c0ffee", JPEG),
        ("blobs/x.jpg_large", PNG),
        ("blobs/y", None),
        ("z.dng", None),
    ]
    assert assets[1].sidecars == {"txt": b"1"}


def test_tar_files_of_macos_are_no_assets(tmp_path: Path) -> None:
    """Protects samples of a tar made on macOS, where a ._ file stands before every member."""
    members = [("._x.jpg", b"\0"), ("x.jpg", JPEG), ("._x.txt", b"\0"), ("x.txt", b"1"), (".DS_Store", b"\0")]
    assert read_tar(tmp_path, make_tar(members)) == [Asset(key="x.jpg", data=JPEG, sidecars={"txt": b"1"})]


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress], ids=["gz", "bz2", "xz"])
def test_compressed_tars_are_read_whatever_their_name(tmp_path: Path, compress: Any) -> None:
    """Protects .tar.gz and its like, several streams in one file included, and the good assets of one that is cut."""
    data = make_tar([(f"{number}.jpg", random.Random(number).randbytes(100_000)) for number in range(8)])
    streams = b"".join(compress(data[start : start + 99_999]) for start in range(0, len(data), 99_999))
    assert len(read_tar(tmp_path, streams)) == 8
    store, shard = shard_of(tmp_path / "cut", ShardKind.TAR, {"x.tar": streams[: len(streams) // 2]})
    assets, error = read_damaged(store, shard)
    assert 2 <= len(assets) <= 4
    assert "x.tar is damaged" in str(error)


def test_damage_in_a_gzip_is_told_at_the_latest_by_its_checksum(tmp_path: Path) -> None:
    """Protects against pictures that came out of a flipped bit: tarfile alone would not look at the checksum."""
    data = bytearray(gzip.compress(make_tar([("a.jpg", random.Random(0).randbytes(50_000))])))
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
    data = make_tar(members)
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
    data = make_tar([("a.jpg", JPEG), ("a.txt", b"1" * 600)])
    assets, _ = read_damaged(*shard_of(tmp_path, ShardKind.TAR, {"x.tar": data[:1600]}))
    assert [(asset.key, dict(asset.sidecars)) for asset in assets] == [("a.jpg", {})]
    assert "sidecars may be missing" in str(assets[0].note)
    data = make_tar([("a.txt", b"1"), ("a.jpg", JPEG * 100)])
    assets, _ = read_damaged(*shard_of(tmp_path / "b", ShardKind.TAR, {"x.tar": data[:1700]}))
    assert assets == []


def test_garbage_inside_a_tar_ends_it_with_a_sentence(tmp_path: Path) -> None:
    """Protects against tarfile's habit of taking a broken header for the regular end of the tar."""
    data = bytearray(make_tar([(f"{number}.jpg", JPEG) for number in range(5)]))
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
    """Protects the job: whatever bytes are in a tar, the reader ends, with assets and at most DamagedShard."""
    members = [("a/x.jpg", JPEG), ("a/x.txt", b"1"), ("long" * 60 + ".jpg", JPEG), ("ü.jpg", JPEG * 50)]
    data = bytearray(make_tar(members, tarfile.GNU_FORMAT if gnu else tarfile.PAX_FORMAT))
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
            yield make_tar([(f"{number:08d}.jpg", bytes(size)), (f"{number:08d}.txt", b"x")])[: size + 512 * 3]
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


# Loose files ----------------------------------------------------------------------------------------------------------


def test_files_are_assets_with_their_sidecars(tmp_path: Path) -> None:
    """Protects folders: a key per image, sidecars read along, other dotted names not mixed up."""
    files = {
        "a/x.jpg": JPEG,
        "a/x.png": PNG,
        "a/x.seg.json": b"{}",
        "a/x.txt": b"1",
        "a/z.12.jpg": JPEG,
        "a/z.13.jpg": PNG,
        "a/z.13.json": b"13",
        "empty.jpg": b"",
    }
    assets = list(read_assets(*shard_of(tmp_path, ShardKind.FILES, files)))
    assert assets == [
        Asset(key="a/x.jpg", data=JPEG, sidecars={"seg.json": b"{}", "txt": b"1"}),
        Asset(key="a/x.png", data=PNG),
        Asset(key="a/z.12.jpg", data=JPEG),
        Asset(key="a/z.13.jpg", data=PNG, sidecars={"13.json": b"13"}),
        Asset(key="empty.jpg", data=b""),
    ]


@pytest.mark.parametrize("kind", list(ShardKind))
def test_object_that_changed_since_the_plan_is_refused(tmp_path: Path, kind: ShardKind) -> None:
    """Protects the plan: what it names by ETag is what is read, or nothing is."""
    store, shard = shard_of(tmp_path, kind, {"x.jpg": JPEG})
    (tmp_path / "x.jpg").write_bytes(JPEG + b"other")
    with pytest.raises(SourceChanged):
        list(read_assets(store, shard))


# Parquet --------------------------------------------------------------------------------------------------------------


def parquet_shard(folder: Path, columns: dict[str, Any], **options: Any) -> tuple[Store, SourceShard]:
    """Write columns to a Parquet file and return it as a shard."""
    return shard_of(folder, ShardKind.PARQUET, {"x.parquet": parquet_bytes(pa.table(columns), **options)})


def parquet_bytes(table: pa.Table, **options: Any) -> bytes:
    """Return a Parquet file that holds a table."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


def test_parquet_rows_are_assets_with_their_columns(tmp_path: Path) -> None:
    """Protects Hugging Face's layout: the image struct is found, the path is the name, every other column travels."""
    store, shard = parquet_shard(
        tmp_path,
        {
            "image": [{"bytes": JPEG, "path": "a/1.jpg"}, {"bytes": PNG, "path": None}, None, {"bytes": None, "path": "4.jpg"}],
            "label": [1, None, 3, 4],
            "score": [float("nan"), 0.5, 1.5, 2.5],
            "day": [date(2024, 2, 29)] * 4,
            "price": [Decimal("1.50")] * 4,
            "tags": [["ä", "b"], [], None, ["c"]],
            "depth": [b"\x00\x01", None, b"", b"3"],
            "parts": [[{"mask": b"\xff", "n": 1}], [], [], []],
        },
    )
    assets = list(read_assets(store, shard))
    assert keys(assets) == ["a/1.jpg", "00000001.png", "00000002", "4.jpg"]
    assert [asset.data for asset in assets] == [JPEG, PNG, None, None]
    assert [asset.note for asset in assets] == [None, None, "row 2 has no image", "row 3 has the path 4.jpg but no image"]
    assert assets[0].sidecars["depth"] == b"\x00\x01"
    text = assets[0].sidecars["json"].decode("utf-8")
    assert '"score": NaN' in text
    assert "ä" in text
    row = json.loads(text)
    assert list(row) == sorted(row)
    assert row["image"] == {"path": "a/1.jpg"}
    assert row["label"] == 1
    assert row["day"] == "2024-02-29"
    assert row["price"] == "1.50"
    assert row["parts"] == [{"mask": base64.b64encode(b"\xff").decode(), "n": 1}]
    assert "depth" not in row
    assert "depth" not in assets[1].sidecars


@pytest.mark.parametrize("column", ["key", "__key__", "id", "name", "filename"])
def test_parquet_rows_are_named_by_their_key_column(tmp_path: Path, column: str) -> None:
    """Protects names: a text column names the row, its image's kind the extension where the name has none."""
    store, shard = parquet_shard(tmp_path, {"picture": [JPEG, PNG, PNG], column: ["cat", "v1.5", "dog.jpg"]})
    assets = list(read_assets(store, shard))
    assert keys(assets) == ["cat.jpg", "v1.5.png", "dog.jpg"]
    assert json.loads(assets[0].sidecars["json"]) == {column: "cat"}


def test_parquet_keys_are_unique_and_safe(tmp_path: Path) -> None:
    """Protects rows of one name and rows with a name that leads out of the destination."""
    store, shard = parquet_shard(tmp_path, {"image": [JPEG, JPEG, JPEG], "id": ["a", "a", "../a"], "json": [b"1", b"2", b"3"]})
    assets = list(read_assets(store, shard))
    assert keys(assets) == ["a.jpg", "a~2.jpg", "%2E%2E/a.jpg"]
    assert [asset.sidecars["json"] for asset in assets] == [b"1", b"2", b"3"]
    assert json.loads(assets[0].sidecars["columns.json"]) == {"id": "a"}


JSON_COLUMNS = {
    "string": pa.array(["{}", None, '{"id": 1}']),
    "struct": pa.array([{"a": 1}, None, {"a": None}]),
    "binary": pa.array([b"[1]", None, b""]),
}
IMAGES = {
    "struct": pa.array([{"bytes": JPEG, "path": "1.jpg"}, {"bytes": PNG, "path": None}, None]),
    "plain": pa.array([JPEG, PNG, None]),
}


@pytest.mark.parametrize("named", [["json"], ["json", "columns.json"]])
@pytest.mark.parametrize("images", list(IMAGES))
@pytest.mark.parametrize("kind", list(JSON_COLUMNS))
def test_a_parquet_column_called_json_goes_there_and_back(tmp_path: Path, kind: str, images: str, named: list[str]) -> None:
    """Protects a restore to the source's columns where one is called like the sidecar that holds them, null or not."""
    table = pa.table({"id": ["a", "b", "c"], **dict.fromkeys(named, JSON_COLUMNS[kind]), "image": IMAGES[images]})
    store, shard = shard_of(tmp_path, ShardKind.PARQUET, {"x.parquet": parquet_bytes(table)})
    schema = source_schema(store, shard)
    assert schema is not None
    with RowWriter.from_schema(tmp_path / "back.parquet", schema) as writer:
        for asset in read_assets(store, shard, image_column="image"):
            writer.append(source_row(table.column_names, "image", asset.data, asset.sidecars))
    assert pq.read_table(tmp_path / "back.parquet").equals(table)


def test_parquet_image_columns_are_found_or_named(tmp_path: Path) -> None:
    """Protects the choice of columns: all that hold images are found, or one is named, or it is refused in one sentence."""
    columns = {"left": [JPEG], "right": [PNG], "text": ["x"], "blob": [b"none"]}
    store, shard = parquet_shard(tmp_path, columns)
    assert keys(list(read_assets(store, shard))) == ["00000000#left.jpg", "00000000#right.png"]
    (asset,) = read_assets(store, shard, image_column="right")
    assert asset.data == PNG
    assert asset.sidecars["left"] == JPEG
    for name in ("middle", "text"):
        with pytest.raises(NoImageColumn, match="Name it with --image-column"):
            list(read_assets(store, shard, image_column=name))
    with pytest.raises(NoImageColumn):
        list(read_assets(*parquet_shard(tmp_path / "none", {"text": ["x"], "blob": [b"none"]})))


STRUCT = {"bytes": JPEG, "path": "p/1.jpg"}
PLACES: dict[str, tuple[dict[str, Any], dict[str, bytes], dict[str, Any]]] = {
    "columns": (
        {"id": ["r"], "image": [STRUCT], "mask": [{"bytes": PNG, "path": None}], "none": pa.array([None], pa.binary())},
        {"r#image.jpg": JPEG, "r#mask.png": PNG},
        {"id": "r", "image": {"path": "p/1.jpg"}, "mask": {"path": None}, "none": None},
    ),
    "list": (
        {"images": [[STRUCT, {"bytes": None, "path": "gone.jpg"}, {"bytes": PNG, "path": None}]], "text": ["t"]},
        {"p/1#images#0.jpg": JPEG, "p/1#images#2.png": PNG},
        {"images": [{"path": "p/1.jpg"}, {"bytes": None, "path": "gone.jpg"}, {"path": None}], "text": "t"},
    ),
    "plain list": (
        {"pages": [[JPEG, PNG]]},
        {"00000000#pages#0.jpg": JPEG, "00000000#pages#1.png": PNG},
        {"pages": [None, None]},
    ),
    "struct": (
        {"id": ["r.jpg"], "sample": [{"image": STRUCT, "label": 3}]},
        {"r.jpg": JPEG},
        {"id": "r.jpg", "sample": {"image": {"path": "p/1.jpg"}, "label": 3}},
    ),
    "dictionary": ({"id": ["r"], "img": pa.array([PNG]).dictionary_encode()}, {"r.png": PNG}, {"id": "r"}),
}
"""Images where people have them in a table: its columns, the assets of its one row, and the text beside each."""


@pytest.mark.parametrize("case", PLACES)
def test_parquet_images_are_found_wherever_they_are(tmp_path: Path, case: str) -> None:
    """Protects tables of several images in a row, in lists, in structs or encoded by a dictionary: each is an asset."""
    columns, found, text = PLACES[case]
    assets = list(read_assets(*parquet_shard(tmp_path, columns)))
    assert {asset.key: asset.data for asset in assets} == found
    assert [asset.note for asset in assets] == [None] * len(found)
    assert [json.loads(asset.sidecars["json"]) for asset in assets] == [text] * len(found)
    if case == "dictionary":
        store, shard = parquet_shard(tmp_path, columns)
        schema = source_schema(store, shard)
        assert schema is not None
        with RowWriter.from_schema(tmp_path / "back.parquet", schema) as writer:
            writer.append(source_row(tuple(columns), "img", PNG, assets[0].sidecars))
        assert pq.read_table(tmp_path / "back.parquet").equals(pa.table(columns))


def test_parquet_row_of_several_columns_without_an_image_is_told(tmp_path: Path) -> None:
    """Protects the count of rows: one without any image is an asset that says so, one with some has those."""
    rows = {"left": pa.array([JPEG, None, None]), "right": pa.array([None, None, PNG]), "raw": [b"1", b"2", b"3"]}
    assets = list(read_assets(*parquet_shard(tmp_path, rows)))
    assert keys(assets) == ["00000000#left.jpg", "00000001", "00000002#right.png"]
    assert [asset.note for asset in assets] == [None, "row 1 has no image", None]
    assert [asset.sidecars["raw"] for asset in assets] == [b"1", b"2", b"3"]


def test_parquet_without_rows_has_no_assets(tmp_path: Path) -> None:
    """Protects datasets with an empty part: it is done, not refused."""
    store, shard = parquet_shard(tmp_path, {"image": pa.array([], pa.binary())})
    assert list(read_assets(store, shard)) == []


def test_tars_are_read_without_pyarrow(tmp_path: Path) -> None:
    """Protects training, which reads tars on machines where pyarrow is not installed."""
    (tmp_path / "x.tar").write_bytes(make_tar([("a.jpg", JPEG)]))
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


def test_parquet_schema_is_handed_on(tmp_path: Path) -> None:
    """Protects restores to Parquet, which write the source's own columns again."""
    store, shard = parquet_shard(tmp_path, {"image": [JPEG], "label": pa.array([1], pa.int8())})
    schema = source_schema(store, shard)
    assert schema is not None
    assert pa.ipc.read_schema(pa.py_buffer(schema)).field("label").type == pa.int8()
    assert source_image_column(store, shard) == "image"
    assert source_image_column(*shard_of(tmp_path / "s", ShardKind.TAR, {"x.tar": b""})) is None
    assert source_schema(*shard_of(tmp_path / "t", ShardKind.TAR, {"x.tar": b""})) is None


def test_damaged_parquet_gives_the_rows_before_the_damage(tmp_path: Path) -> None:
    """Protects the good row groups of a Parquet file with a broken one, and tells of a file that is cut or none at all."""
    images = [JPEG + random.Random(number).randbytes(5000) for number in range(10)]
    buffer = io.BytesIO()
    pq.write_table(
        pa.table({"image": images}),
        buffer,
        row_group_size=2,
        compression="zstd",
        use_dictionary=False,
        write_page_checksum=True,
    )
    data = bytearray(buffer.getvalue())
    at = bytes(data).find(images[6][:200])
    data[at + 100] ^= 0xFF
    assets, error = read_damaged(*shard_of(tmp_path, ShardKind.PARQUET, {"x.parquet": bytes(data)}))
    assert [asset.data for asset in assets] == images[:6]
    assert "x.parquet is damaged" in str(error)
    for number, other in enumerate((b"", b"PAR1", JPEG * 10, bytes(data[: len(data) // 2]))):
        assets, _ = read_damaged(*shard_of(tmp_path / str(number), ShardKind.PARQUET, {"x.parquet": other}))
        assert assets == []


def test_extensions_are_told_by_content() -> None:
    """Protects the names of unnamed rows: the formats that turn up in datasets are recognised, text is not."""
    begin = {
        "jpg": JPEG,
        "png": PNG,
        "gif": b"GIF89a",
        "webp": b"RIFF\0\0\0\0WEBPVP8L",
        "tif": b"II*\0\0\0",
        "avif": b"\0\0\0\x20ftypavif",
        "jxl": b"\xff\x0a",
        "jp2": b"\0\0\0\x0cjP  \r\n\x87\n",
        "bmp": b"BM" + bytes(12) + (40).to_bytes(4, "little"),
    }
    assert {extension: image_extension(data) for extension, data in begin.items()} == {name: name for name in begin}
    assert [image_extension(data) for data in (b"", b"text", b"BMW", b"RIFF\0\0\0\0WAVE")] == [None] * 4
