"""The archive: begun once, written shard by shard, read an entry at a time, and never read wrong."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.archives.archive import Archive, format_text, plan_digest
from pipeline.archives.commits import create_commit
from pipeline.archives.errors import ChecksumMismatch, NotAnArchive, UnsupportedFormat
from pipeline.core.errors import AlreadyExists, DamagedObject, InvalidWeights, NotFound, PlanConflict, StoreUnavailable
from pipeline.core.records import Entry, Tier
from pipeline.core.target import TargetSize
from pipeline.stores.store import LocalStore, Store, open_store
from tests.support.archives import ENTRIES, MODEL, PLAN, SHARDS, begin, digest, entry, flip, write

# Begin and open -------------------------------------------------------------------------------------------------------


def test_an_archive_is_begun_and_opened(store: LocalStore, archive: Archive) -> None:
    """Protects what a new archive consists of, and that it travels to other processes."""
    (part,) = archive.plan.parts
    keys = {"plan.json", "FORMAT.md", f"model/{PLAN.model}.safetensors", f"plan/{part.sha256}.parquet"}
    assert {info.key for info in store.list()} == keys
    for found in (Archive.open(store), pickle.loads(pickle.dumps(archive))):
        assert (found.plan, found.digest) == (replace(PLAN, parts=(part,)), plan_digest(store.read("plan.json")))
        assert tuple(found.shards()) == SHARDS
        assert found.model_bytes() == MODEL


def test_the_plan_is_written_last(tmp_path: Path) -> None:
    """Protects against a plan whose model never arrived: what dies before the plan has begun nothing."""

    class Dying(LocalStore):
        keys: tuple[str, ...] = ()

        def create(self, key: str, data: bytes | Path) -> None:
            super().create(key, data)
            self.keys += (key,)
            if len(self.keys) == 3:
                raise KeyboardInterrupt

    store = Dying(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        begin(store)
    with pytest.raises(NotAnArchive):
        Archive.open(store)
    assert begin(store).model_bytes() == MODEL
    assert store.keys[-1] == "plan.json"


def test_the_same_plan_resumes_and_another_is_told_apart(store: LocalStore, archive: Archive) -> None:
    """Protects a begun archive from other settings, another source or another model, each named in the sentence."""
    assert begin(store).digest == archive.digest
    changed = replace(SHARDS[1], objects=(replace(SHARDS[1].objects[0], etag="new"),))
    cases: dict[str, dict[str, Any]] = {
        "tier balanced, not lean": {"settings": replace(PLAN.settings, tier=Tier.LEAN)},
        "target scale 2.5x2, not max-side 9": {"settings": replace(PLAN.settings, target=TargetSize(max_side=9))},
        "source s3://bucket/photos, not /photos": {"source": "/photos"},
        r"2 source shards gone from the source since \(b.tar, c.tar\)": {"shards": SHARDS[:1]},
        r"1 source shards new in the source since \(d.tar\)": {
            "shards": (*SHARDS, replace(SHARDS[0], id="000000003-d", name="d.tar"))
        },
        r"1 source shards changed in the source since \(b.tar\)": {"shards": (SHARDS[0], changed, SHARDS[2])},
        f"model {PLAN.model[:16]}…, not {digest(b'other')[:16]}…": {"model": b"other"},
    }
    for sentence, other in cases.items():
        with pytest.raises(PlanConflict, match=sentence):
            begin(store, **other)
    assert Archive.open(store).plan == archive.plan


def test_two_jobs_that_begin_at_once_agree_or_one_is_refused(tmp_path: Path) -> None:
    """Protects the window between looking for a plan and writing one."""

    class Late(LocalStore):
        def exists(self, key: str) -> bool:  # noqa: ARG002 - the contract's
            return False

    store = Late(tmp_path)
    first = begin(store)
    assert begin(store).digest == first.digest
    for other in ({"source": "/other"}, {"shards": SHARDS[:2]}):
        with pytest.raises(PlanConflict):
            begin(store, **other)
        assert tuple(Archive.open(store).shards()) == SHARDS


def test_what_is_no_archive_is_told(store: LocalStore, tmp_path: Path) -> None:
    """Protects the sentence for a wrong path, and its difference from a store that is missing."""
    with pytest.raises(NotAnArchive, match="is not an archive"):
        Archive.open(store)
    with pytest.raises(NotFound):
        Archive.open(LocalStore(tmp_path / "missing"))


def test_another_format_version_is_refused(store: LocalStore, archive: Archive, spool: Path) -> None:
    """Protects data of later releases from being read by rules that are no longer true."""
    write(archive, ENTRIES, spool)
    value = json.loads(store.read("plan.json"))
    store.replace("plan.json", json.dumps({**value, "format_version": 1}).encode())
    for act in (lambda: Archive.open(store), lambda: begin(store)):
        with pytest.raises(UnsupportedFormat, match="has format version 1; this program reads 3"):
            act()


def test_a_missing_or_damaged_model_is_told(archive: Archive, tmp_path: Path) -> None:
    """Protects restores from weights that are not the ones that made the archive."""
    path = tmp_path / "archive" / "model" / f"{PLAN.model}.safetensors"
    flip(path, 5)
    with pytest.raises(ChecksumMismatch, match=r"safetensors is damaged: SHA-256"):
        archive.model_bytes()
    path.unlink()
    with pytest.raises(InvalidWeights, match="lacks its model"):
        archive.model_bytes()


def test_format_md_is_the_documentation_and_names_every_column(archive: Archive) -> None:
    """Protects the description inside each archive from drifting off the documentation and the code."""
    text = (Path(__file__).parents[3] / "docs" / "format.md").read_text(encoding="utf-8")
    assert archive.store.read("FORMAT.md").decode() == format_text() == text
    for field in fields(Entry):
        name = "path" if field.name == "lr_path" else field.name
        assert f"`{name}`" in text


# Attempts that died, and second writers -------------------------------------------------------------------------------


def test_a_shard_left_without_a_commit_is_adopted(archive: Archive, spool: Path) -> None:
    """Protects the crash between shard and commit: the next attempt commits what stands, even where its own differs."""
    first = write(archive, ENTRIES, spool)
    assert not archive.done()
    assert write(archive, ENTRIES, spool) == first
    assert write(archive, [*ENTRIES[:-1], entry("4.tar.jpg", size=9)], spool) == first
    assert create_commit(archive.store, first) == first
    archive.check_shard(SHARDS[0].id, first)
    assert list(spool.iterdir()) == []


def test_a_shard_of_another_plan_is_not_adopted(archive: Archive, spool: Path, tmp_path: Path) -> None:
    """Protects against a commit for somebody else's bytes, and that these are left as they are."""
    (tmp_path / "other").mkdir()
    other = begin(LocalStore(tmp_path / "other"), source="/other")
    write(other, ENTRIES, spool)
    key = f"shards/{SHARDS[0].id}.parquet"
    foreign = other.store.read(key)
    archive.store.create(key, foreign)
    with pytest.raises(AlreadyExists, match="exists already and was not overwritten"):
        write(archive, ENTRIES, spool)
    with pytest.raises(ChecksumMismatch, match=r"iarn\.plan"):
        list(archive.entries(SHARDS[0].id))
    assert archive.store.read(key) == foreign


def test_a_full_disk_while_adopting_is_ours(archive: Archive, spool: Path) -> None:
    """Protects the retry of a shard whose adoption failed on the local disk, which says nothing about the shard."""
    first = write(archive, ENTRIES, spool)
    full = spool / "standing.parquet"
    full.symlink_to("/dev/full")  # a file on a disk that is full
    with pytest.raises(StoreUnavailable, match="No space left"):
        write(archive, ENTRIES, spool)
    assert list(spool.iterdir()) == []
    assert write(archive, ENTRIES, spool) == first


def test_a_broken_shard_is_not_adopted(archive: Archive, spool: Path, tmp_path: Path) -> None:
    """Protects against a commit for a shard that cannot be read, in its footer, its pages, or at all."""
    path = tmp_path / "archive" / "shards" / f"{SHARDS[0].id}.parquet"
    write(archive, ENTRIES, spool)
    for position in (300, -100):
        flip(path, position)
        with pytest.raises(DamagedObject, match="remove it and repeat the command"):
            write(archive, ENTRIES, spool)
        flip(path, position)
    pq.write_table(pa.table({"key": ["a"]}), path)
    with pytest.raises(DamagedObject, match="remove it and repeat the command"):
        write(archive, ENTRIES, spool)


# Damage ---------------------------------------------------------------------------------------------------------------


def test_a_flipped_byte_in_a_shard_is_told(archive: Archive, spool: Path, tmp_path: Path) -> None:
    """Protects against decoding damage, and the error tree: whatever is flipped, the errors are ours."""
    commit = write(archive, ENTRIES, spool)
    path = tmp_path / "archive" / "shards" / f"{SHARDS[0].id}.parquet"
    dice = random.Random(3)
    refused = 0
    for position in dice.sample(range(path.stat().st_size), 150):
        flip(path, position)
        with pytest.raises(ChecksumMismatch, match="SHA-256"):
            archive.check_shard(SHARDS[0].id, commit)
        try:
            assert list(archive.entries(SHARDS[0].id)) == ENTRIES  # a bit that means nothing
        except DamagedObject as error:
            refused += path.name in str(error)
        flip(path, position)
    assert refused > 140


def test_a_foreign_or_missing_shard_is_told(archive: Archive, spool: Path) -> None:
    """Protects the sentences for a shard that is not there, is not ours, or is another shard's."""
    with pytest.raises(NotFound):
        list(archive.entries(SHARDS[0].id))
    commit = write(archive, ENTRIES, spool)
    archive.store.create(f"shards/{SHARDS[1].id}.parquet", archive.store.read(f"shards/{SHARDS[0].id}.parquet"))
    with pytest.raises(ChecksumMismatch, match=r"iarn\.shard"):
        list(archive.entries(SHARDS[1].id))
    file = io.BytesIO()
    pq.write_table(pa.table({"key": ["a"]}), file)
    archive.store.create(f"shards/{SHARDS[2].id}.parquet", file.getvalue())
    with pytest.raises(DamagedObject, match="check sum"):
        list(archive.entries(SHARDS[2].id))
    with pytest.raises(NotFound):
        archive.check_shard("000000009-z", commit)


def end_to_end(store: Store, spool: Path) -> None:
    archive = begin(store)
    for shard in SHARDS[:2]:
        create_commit(store, write(archive, ENTRIES, spool, shard))
    again = Archive.open(store)
    assert tuple(again.shards_done()) == SHARDS[:2]
    assert write(again, ENTRIES, spool, SHARDS[1]).report.entries == len(ENTRIES)
    assert [each for _, each in again.find("2/*")] == [ENTRIES[1]] * 2
    assert again.read_entry(SHARDS[1].id, "1.jpg") == ENTRIES[0]
    assert again.model_bytes() == MODEL
    with pytest.raises(PlanConflict):
        begin(store, source="/other")


def test_an_archive_lives_on_s3(s3_bucket: str, spool: Path) -> None:
    """Protects the archive on a real S3 server: begun, written, adopted, found and read there."""
    end_to_end(open_store(f"{s3_bucket}/deep/archive"), spool)


def test_an_archive_survives_a_full_folder_name(tmp_path: Path, spool: Path) -> None:
    """Protects local paths with spaces and letters of any script."""
    folder = tmp_path / "Fotos & Bilder, ä 写真"
    folder.mkdir()
    end_to_end(open_store(os.fspath(folder)), spool)
