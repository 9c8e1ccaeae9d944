"""The archive: begun once, written shard by shard, read an entry at a time, and never read wrong."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import random
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.archives.archive import (
    FORMAT_VERSION,
    PARTS,
    Archive,
    check_entry,
    decode_plan,
    encode_plan,
    format_text,
    plan_digest,
)
from pipeline.archives.commits import create_commit
from pipeline.archives.errors import ChecksumMismatch, NotAnArchive, NothingSelected, UnsupportedFormat
from pipeline.core.errors import (
    AlreadyExists,
    DamagedEntry,
    DamagedObject,
    InvalidWeights,
    NotFound,
    PlanConflict,
    StoreUnavailable,
)
from pipeline.core.records import (
    Commit,
    Entry,
    EntryKind,
    FloorMetric,
    LrCodec,
    ObjectInfo,
    OriginalCoding,
    Plan,
    PlanPart,
    Settings,
    ShardKind,
    ShardReport,
    SourceShard,
    TargetSize,
    Tier,
    Verification,
)
from pipeline.stores.store import LocalStore, Store, open_store
from tests.support.pictures import photo, saved

MODEL = b"weights" * 100
SHARDS = tuple(
    SourceShard(
        id=f"{index:09}-{name}",
        name=f"{name}.tar",
        kind=ShardKind.TAR,
        objects=(ObjectInfo(key=f"{name}.tar", size=5, etag=f'"{name}"'),),
    )
    for index, name in enumerate(("a", "b", "c"))
)
PLAN = Plan(
    source="s3://bucket/photos",
    settings=Settings(target=TargetSize(scale=(2.5, 2.0)), image_column="Bild"),
    model=hashlib.sha256(MODEL).hexdigest(),
    parts=(PlanPart(sha256="ab" * 32, shards=3, objects=3),),
)


class CountingStore(LocalStore):
    """Counts the bytes that are read."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.count = 0

    def read(self, key: str, start: int = 0, stop: int | None = None, etag: str | None = None) -> bytes:
        data = super().read(key, start, stop, etag)
        self.count += len(data)
        return data


def begin(store: Store, shards: Iterable[SourceShard] = SHARDS, *, model: bytes = MODEL, **other: Any) -> Archive:
    """Begin an archive of these shards under the settings of PLAN, or ``other`` ones."""
    values = {"source": PLAN.source, "settings": PLAN.settings, **other}
    return Archive.begin(store, model=model, shards=iter(shards), **values)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def entry(key: str, *, size: int = 300, **other: Any) -> Entry:
    """Return an entry whose LR are ``size`` random bytes."""
    lr = random.Random(key).randbytes(size)
    values = {
        "key": key,
        "kind": EntryKind.RESCALED,
        "tier": Tier.BALANCED,
        "reason": None,
        "sha256": digest(key.encode()),
        "byte_size": 4 * size,
        "format": "JPEG",
        "mode": "RGB",
        "width": 30,
        "height": 20,
        "orientation": 6,
        "lr": lr,
        "lr_path": key.rpartition(".")[0] + ".webp",
        "lr_width": 12,
        "lr_height": 10,
        "lr_sha256": digest(lr),
        "psnr": 40.5,
        "ssim": 0.99,
        "sidecars": {"json": b"{}", "txt": b""},
        **other,
    }
    return Entry(**values)


def original(key: str, data: bytes | None) -> Entry:
    return Entry(
        key=key,
        kind=EntryKind.ORIGINAL,
        tier=Tier.LEAN,
        reason="cannot be decoded: it is empty",
        sha256=None if data is None else digest(data),
        byte_size=len(data or b""),
        original=data,
        original_coding=None if data is None else OriginalCoding.BYTES,
    )


ENTRIES = [
    entry(
        "1.jpg",
        latent=b"latent",
        alpha=b"alpha",
        icc=b"icc",
        exif=b"exif",
        xmp=b"<x/>",
        original=b"1.jpg",
        psnr=float("inf"),
        original_coding=OriginalCoding.BYTES,
        clean=True,
        psnr_y=50.0,
    ),
    original("2/ü.jpg", b"GIF89a"),
    original("3.jpg", None),
    entry("4.tar.jpg", size=0, sidecars={}),
]


def report(shard: SourceShard, entries: list[Entry]) -> ShardReport:
    count = sum(each.kind is EntryKind.ORIGINAL for each in entries)
    return ShardReport(shard_id=shard.id, entries=len(entries), originals=count, pixels=7, bytes_in=8, bytes_out=0)


def write(archive: Archive, entries: list[Entry], directory: Path, shard: SourceShard = SHARDS[0]) -> Commit:
    with archive.writer(shard, directory) as writer:
        for each in entries:
            writer.append(each)
        return writer.finish(report(shard, entries))


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    (tmp_path / "archive").mkdir()
    return LocalStore(tmp_path / "archive")


@pytest.fixture
def archive(store: LocalStore) -> Archive:
    return begin(store)


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    (tmp_path / "spool").mkdir()
    return tmp_path / "spool"


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(bytes(data))


# The plan -------------------------------------------------------------------------------------------------------------

TEXT = st.text(max_size=12)
TARGETS = st.one_of(
    st.tuples(st.floats(1, 4), st.floats(1, 4)).map(lambda scale: TargetSize(scale=scale)),
    st.integers(1, 10**6).map(lambda count: TargetSize(max_side=count)),
    st.integers(1, 10**9).map(lambda count: TargetSize(max_pixels=count)),
    st.tuples(st.integers(1, 9999), st.integers(1, 9999)).map(lambda size: TargetSize(size=size)),
)
LEVELS = st.one_of(
    st.fixed_dictionaries({"tier": st.sampled_from([tier for tier in Tier if tier is not Tier.FLOOR])}),
    st.fixed_dictionaries(
        {"tier": st.just(Tier.FLOOR), "floor": st.floats(0.01, 0.99), "floor_metric": st.sampled_from(FloorMetric)}
    ),
)
SETTINGS = st.builds(
    lambda level, **rest: Settings(**level, **rest),
    level=LEVELS,
    target=TARGETS,
    max_ratio=st.none() | st.floats(0.01, 100),
    lr_codec=st.sampled_from(LrCodec),
    pixel_limit=st.integers(1, 10**10),
    image_column=st.none() | TEXT,
)
SETTINGS |= st.builds(Settings, target=TARGETS, tier=st.just(Tier.LEAN), verify=st.sampled_from(Verification))
PARTS_OF_PLANS = st.builds(
    PlanPart, sha256=st.binary().map(digest), shards=st.integers(1, 2**40), objects=st.integers(1, 2**40)
)
PLANS = st.builds(Plan, source=TEXT, settings=SETTINGS, model=TEXT, parts=st.lists(PARTS_OF_PLANS, max_size=3).map(tuple))


@given(plan=PLANS)
def test_any_plan_comes_back_with_the_same_bytes(plan: Plan) -> None:
    """Protects the digest that names an archive: decode and encode give the very same plan.json."""
    data = encode_plan(plan)
    assert decode_plan(data, "plan") == plan
    assert encode_plan(decode_plan(data, "plan")) == data


def test_the_plan_is_canonical_json() -> None:
    """Protects the digest against a change of the JSON's form, and names that are no Unicode."""
    odd = replace(PLAN, source="/\udce4/ü")
    assert decode_plan(encode_plan(odd), "plan") == odd
    value = json.loads(encode_plan(PLAN))
    assert value["format_version"] == FORMAT_VERSION == 4
    assert list(value) == sorted(value)
    assert plan_digest(encode_plan(PLAN)) == "af34f30d95c97ee1527e23b0fa52543c56690ffaba98e4d2fa3bd77f3b1ecc04"


@pytest.mark.parametrize(
    "data",
    [b"", b"no", b"[]", b'{"format_version":3}', b'{"format_version":3,"source":1,"settings":{},"model":"","parts":[]}'],
)
def test_junk_is_no_plan(store: LocalStore, data: bytes) -> None:
    """Protects against a traceback where plan.json is something else."""
    store.create("plan.json", data)
    with pytest.raises(DamagedObject, match=r"plan\.json is damaged"):
        Archive.open(store)


def test_changed_fields_make_no_plan() -> None:
    """Protects against a plan with a field too many, too few, or of another kind: settings would silently be defaults."""
    value = json.loads(encode_plan(PLAN))
    for change in (
        {"settings": {**value["settings"], "tire": "lean"}},
        {"settings": {name: part for name, part in value["settings"].items() if name != "max_ratio"}},
        {"settings": {**value["settings"], "floor": 40.0}},
        {"settings": {**value["settings"], "tier": "rich"}},
        {"settings": {**value["settings"], "target": {"scale": None}}},
        {"parts": [{**value["parts"][0], "shards": 0}]},
        {"parts": [{**value["parts"][0], "sha256": "../../evil"}]},
        {"parts": None},
        {"model": None},
    ):
        with pytest.raises(DamagedObject):
            decode_plan(json.dumps({**value, **change}).encode(), "plan")


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


# Shards ---------------------------------------------------------------------------------------------------------------


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
        sidecars=st.dictionaries(NAMES, st.binary(max_size=3), max_size=2),
    ).flatmap(lambda each: BLOBS.map(lambda lr: replace(each, lr=lr, lr_path=None if lr is None else "a.webp"))),
    max_size=40,
    unique_by=lambda each: each.key,
)


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
    assert store.count - footer < 250_000
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


def test_a_rows_own_digests_are_compared() -> None:
    """Protects an LR and an original by their digests, wherever they were read from."""
    check_entry(entry("a.jpg"))
    check_entry(original("a.jpg", b"a"))
    check_entry(original("a.jpg", None))
    with pytest.raises(DamagedEntry, match=r"The LR of a\.jpg is damaged"):
        check_entry(replace(entry("a.jpg"), lr=b"other"))
    with pytest.raises(DamagedEntry, match=r"The original of a\.jpg is damaged"):
        check_entry(replace(original("a.jpg", b"a"), original=b"b"))


# Other programs, other stores -----------------------------------------------------------------------------------------


@pytest.fixture
def shard_of_pictures(archive: Archive, spool: Path, tmp_path: Path) -> tuple[str, dict[str, Any]]:
    """The path of a shard with two WebP pictures and an original, and the pictures by key."""
    pictures = {f"{name}.jpg": photo(20, 30, seed=seed) for seed, name in enumerate("ab")}
    entries = [entry(key, lr=saved(pixels, "WEBP", lossless=True), lr_sha256=None) for key, pixels in pictures.items()]
    write(archive, [*entries, original("c.gif", b"GIF")], spool)
    return str(tmp_path / "archive" / "shards" / f"{SHARDS[0].id}.parquet"), pictures


def shown(data: bytes) -> Any:
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGB"))


def test_duckdb_opens_a_shard(shard_of_pictures: tuple[str, dict[str, Any]]) -> None:
    """Protects the promise that anybody's tools show the LRs: here by SQL."""
    path, pictures = shard_of_pictures
    with duckdb.connect() as connection:
        query = "SELECT key, lr.bytes, lr.path, psnr FROM read_parquet(?) WHERE kind = 'rescaled' ORDER BY key"
        rows = connection.execute(query, [path]).fetchall()
        counted = connection.execute(
            "SELECT kind, count(*) FROM read_parquet(?) GROUP BY kind ORDER BY kind", [path]
        ).fetchall()
    assert [(row[0], row[2], row[3]) for row in rows] == [("a.jpg", "a.webp", 40.5), ("b.jpg", "b.webp", 40.5)]
    assert all((shown(row[1]) == pictures[row[0]]).all() for row in rows)
    assert counted == [("original", 1), ("rescaled", 2)]


def test_pandas_opens_a_shard(shard_of_pictures: tuple[str, dict[str, Any]]) -> None:
    """Protects the promise that anybody's tools show the LRs: here as a data frame."""
    path, pictures = shard_of_pictures
    frame = pandas.read_parquet(path).set_index("key")
    assert list(frame.index) == ["a.jpg", "b.jpg", "c.gif"]
    for key, pixels in pictures.items():
        assert (shown(frame.loc[key, "lr"]["bytes"]) == pixels).all()
    assert frame.loc["c.gif", "lr"] is None
    assert frame.loc["c.gif", "original"] == b"GIF"


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
