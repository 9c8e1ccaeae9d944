"""Entries of a shard: written, read whole, in parts and by key, with the source's schema and their own digests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.archives.archive import PARTS, Archive, check_entry
from pipeline.archives.commits import create_commit
from pipeline.archives.errors import NothingSelected
from pipeline.core.errors import DamagedEntry
from pipeline.core.records import Carried, Entry, EntryKind, Tier
from pipeline.stores.store import LocalStore
from tests.support.archives import ENTRIES, SHARDS, begin, entry, original, report, write


class CountingStore(LocalStore):
    """Counts the bytes that are read."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.count = 0

    def read(self, key: str, start: int = 0, stop: int | None = None, etag: str | None = None) -> bytes:
        data = super().read(key, start, stop, etag)
        self.count += len(data)
        return data


def test_entries_come_back_in_order(archive: Archive, spool: Path) -> None:
    """Protects every field of every kind of entry, and that an attempt leaves nothing on the local disk."""
    commit = write(archive, ENTRIES, spool)
    assert list(archive.entries(SHARDS[0].id)) == ENTRIES
    assert (commit.shard_id, commit.plan, commit.report.originals) == (SHARDS[0].id, archive.digest, 2)
    assert commit.byte_size == commit.report.bytes_out == archive.store.stat(f"shards/{SHARDS[0].id}.parquet").size
    archive.check_shard(SHARDS[0].id, commit)
    assert list(spool.iterdir()) == []
    with archive.writer(SHARDS[1], spool) as writer:
        writer.append(ENTRIES[0])
        with pytest.raises(ValueError, match="about 4 entries, 1 were written"):
            writer.finish(report(SHARDS[1], ENTRIES))
    assert list(spool.iterdir()) == []


BLOBS = st.none() | st.binary(max_size=5)
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6)
ANY_ENTRIES = st.lists(
    st.builds(
        Entry,
        key=NAMES,
        kind=st.sampled_from(EntryKind),
        tier=st.sampled_from(Tier),
        reason=st.none() | NAMES,
        sha256=st.none() | NAMES,
        byte_size=st.integers(0, 2**40),
        width=st.none() | st.integers(1, 2**31 - 1),
        psnr=st.none() | st.floats(allow_nan=False),
        latent=BLOBS,
        original=BLOBS,
        xmp=BLOBS,
        grey=st.none() | st.booleans(),
        parts=st.lists(st.builds(Carried, name=NAMES, data=st.binary(max_size=3)), max_size=2).map(tuple),
        lost=st.lists(NAMES, max_size=2).map(tuple),
        modified=st.none() | st.floats(allow_nan=False),
        permissions=st.none() | st.integers(0, 0o777),
        sidecars=st.dictionaries(NAMES, st.binary(max_size=3), max_size=2),
    ).flatmap(lambda each: BLOBS.map(lambda lr: replace(each, lr=lr, lr_path=None if lr is None else "a.webp"))),
    max_size=40,
    unique_by=lambda each: each.key,
)


@pytest.mark.slow
@given(entries=ANY_ENTRIES, data=st.data())
def test_any_entries_come_back_whole_in_parts_and_by_key(
    entries: list[Entry], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Protects one row per asset, and that reading some parts or some keys gives the same as reading all."""
    folder = tmp_path_factory.mktemp("archive")
    archive = begin(LocalStore(folder))
    write(archive, entries, tmp_path_factory.mktemp("spool"))
    assert list(archive.entries(SHARDS[0].id)) == entries
    parts = data.draw(st.sets(st.sampled_from(sorted(PARTS))))
    left_out = {name: {"sidecars": {}, "parts": ()}.get(name) for name in PARTS - parts}
    assert list(archive.entries(SHARDS[0].id, parts=parts)) == [replace(each, **left_out) for each in entries]
    keys = data.draw(st.sets(st.sampled_from([each.key for each in entries] or ["none"])))
    assert list(archive.entries(SHARDS[0].id, keys)) == [each for each in entries if each.key in keys]
    assert list(archive.entries(SHARDS[0].id, lambda key: key in keys)) == [each for each in entries if each.key in keys]


def test_the_same_entries_are_the_same_bytes(archive: Archive, spool: Path, tmp_path: Path) -> None:
    """Protects the repeat of a shard: it has to agree with the attempt before it."""
    (tmp_path / "other").mkdir()
    other = begin(LocalStore(tmp_path / "other"))
    assert write(archive, ENTRIES, spool) == write(other, ENTRIES, spool)


def test_a_source_schema_is_kept(archive: Archive, spool: Path) -> None:
    """Protects a restore to the columns that a Parquet source had."""
    schema = pa.schema({"image": pa.binary(), "label": pa.int8()}).serialize().to_pybytes()
    with archive.writer(SHARDS[0], spool, source_schema=schema, image_column="image") as writer:
        writer.finish(report(SHARDS[0], []))
    assert archive.source_columns(SHARDS[0].id) == (schema, "image")
    write(archive, [], spool, SHARDS[1])
    assert archive.source_columns(SHARDS[1].id) == (None, None)


def test_one_entry_is_read_without_the_rest(tmp_path: Path, spool: Path) -> None:
    """Protects the cost of restoring one asset: its own bytes and the footer, whatever else the shard holds."""
    (tmp_path / "archive").mkdir()
    store = CountingStore(tmp_path / "archive")
    archive = begin(store)
    entries = [entry(f"{index:03}.jpg", size=200_000) for index in range(60)]
    write(archive, entries, spool)
    path = tmp_path / "archive" / "shards" / f"{SHARDS[0].id}.parquet"
    footer = int.from_bytes(path.read_bytes()[-8:-4], "little")
    for index in (0, 31, 59):
        store.count = 0
        assert archive.read_entry(SHARDS[0].id, f"{index:03}.jpg") == entries[index]
        assert store.count - footer < 3 * 200_000
    store.count = 0
    assert archive.read_entry(SHARDS[0].id, "031.jpg", parts=()).lr_path == "031.webp"
    assert store.count - footer < 300_000
    store.count = 0
    with pytest.raises(NothingSelected, match=r"031\.png in shard 000000000-a"):
        archive.read_entry(SHARDS[0].id, "031.png")
    assert store.count - footer < 100_000


def test_find_goes_through_the_shards_that_are_done(archive: Archive, spool: Path) -> None:
    """Protects globs, key lists and predicates over a whole archive; a shard without a commit is not there."""
    for shard in SHARDS:
        entries = [entry(f"{shard.id[-1]}/{index:02}.{'jpg' if index % 2 else 'png'}") for index in range(50)]
        commit = write(archive, entries, spool, shard)
        if shard is not SHARDS[1]:
            create_commit(archive.store, commit)

    def found(wanted: Any) -> list[tuple[str, str]]:
        return [(shard_id, each.key) for shard_id, each in archive.find(wanted, parts=())]

    assert found(["a/07.jpg", "b/07.jpg", "c/33.jpg", "z"]) == [("000000000-a", "a/07.jpg"), ("000000002-c", "c/33.jpg")]
    assert found("*/07.*") == [("000000000-a", "a/07.jpg"), ("000000002-c", "c/07.jpg")]
    assert found("a/4[13].jpg") == [("000000000-a", "a/41.jpg"), ("000000000-a", "a/43.jpg")]
    assert len(found("*.png")) == 50
    assert found("A/07.jpg") == []
    assert found(lambda key: key.endswith("49.jpg")) == [("000000000-a", "a/49.jpg"), ("000000002-c", "c/49.jpg")]


def test_unknown_parts_are_refused(archive: Archive, spool: Path) -> None:
    """Protects against a typo that reads nothing."""
    write(archive, ENTRIES, spool)
    with pytest.raises(ValueError, match="no parts LR among alpha"):
        list(archive.entries(SHARDS[0].id, parts=["LR"]))


def test_a_rows_own_digests_are_compared() -> None:
    """Protects an LR and an original by their digests, wherever they were read from."""
    check_entry(entry("a.jpg"))
    check_entry(original("a.jpg", b"a"))
    check_entry(original("a.jpg", None))
    with pytest.raises(DamagedEntry, match=r"The LR of a\.jpg is damaged"):
        check_entry(replace(entry("a.jpg"), lr=b"other"))
    with pytest.raises(DamagedEntry, match=r"The original of a\.jpg is damaged"):
        check_entry(replace(original("a.jpg", b"a"), original=b"b"))
