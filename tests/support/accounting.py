"""The one question after every fault: is every asset of the source in the archive, exactly once, and nothing else?"""

from __future__ import annotations

import hashlib
import posixpath
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from pipeline.archives.archive import Archive
from pipeline.archives.commits import read_commit
from pipeline.assets.names import has_image_name
from pipeline.core.records import EntryKind, Failure, ShardKind, SourceShard
from pipeline.stores.store import Store, open_store
from pipeline.works import VerifyWork
from tests.support import workshop

BESIDE = ("left-out.jsonl", "plan", "FORMAT.md", "model/", "failures.jsonl", "report.json", "rollups/")
"""How the keys begin of what an archive may hold beside shards and commits."""


@dataclass(frozen=True, kw_only=True)
class Account:
    """What came of a job: entries, those kept as originals among them, what was told of them, and shards left undone."""

    entries: int
    originals: int
    failures: list[Failure]
    undone: list[str]


def planned(archive: Archive) -> list[SourceShard]:
    """Return the source shards of an archive's plan, in order."""
    return list(archive.shards())


def accounted_for(source: str, archive: str, *, undone: Collection[str] = (), sample: float = 0.3) -> Account:
    """Check that a finished job left nothing lost, nothing twice and nothing over; return the account.

    ``undone`` are the ids of shards that the job said it could not do: they must have neither commit nor object. Every other
    shard has one commit that names its object's very bytes, one entry for each asset of the source with that asset's digest,
    and passes what `iarn verify` checks, ``sample`` of the restores included. Whatever else lies in the archive fails it, and
    so does a file that is still being written.
    """
    opened, store = Archive.open(open_store(archive)), open_store(archive)
    shards = planned(opened)
    listed = [info.key for info in store.list()]
    strange = [key for key in listed if not key.startswith(("shards/", "commits/", *BESIDE))]
    assert not strange, f"nobody's objects: {strange}"
    assert sum(key.startswith("model/") for key in listed) == 1
    done = [shard for shard in shards if shard.id not in undone]
    for prefix, wanted in (
        ("commits/", [f"commits/{shard.id[:6]}/{shard.id}.json" for shard in done]),
        ("shards/", [f"shards/{shard.id}.parquet" for shard in done]),
    ):
        found = sorted(key for key in listed if key.startswith(prefix))
        assert found == sorted(wanted), f"{prefix} of {len(done)} shards: {found}"
    verifier = VerifyWork(archive=archive, sample=sample, device="cpu").start()
    entries = originals = 0
    failures: list[Failure] = []
    for shard in done:
        commit = read_commit(store, shard.id, opened.digest)
        assert hashlib.sha256(store.read(f"shards/{shard.id}.parquet")).hexdigest() == commit.sha256
        kinds = Counter[EntryKind]()
        digests = []
        for entry in opened.entries(shard.id):
            digests.append((entry.key, entry.sha256))
            kinds[entry.kind] += 1
        assert digests == _assets(open_store(source), shard), f"shard {shard.id}"
        assert (commit.report.entries, commit.report.originals) == (len(digests), kinds[EntryKind.ORIGINAL])
        assert not (told := verifier.run(shard).failures), told
        entries += len(digests)
        originals += kinds[EntryKind.ORIGINAL]
        failures += commit.report.failures
    return Account(entries=entries, originals=originals, failures=failures, undone=sorted(undone))


def _assets(source: Store, shard: SourceShard) -> list[tuple[str, str]]:
    """Return key and SHA-256 of every image of a tar or of loose files, in order, read without the pipeline's own readers."""
    assert shard.kind is not ShardKind.PARQUET
    if shard.kind is ShardKind.TAR:
        files = workshop.members_of(source.read(shard.objects[0].key))
    else:
        files = [(info.key, source.read(info.key)) for info in shard.objects]
    images = [(posixpath.normpath(name), data) for name, data in files if has_image_name(name)]
    return [(name, hashlib.sha256(data).hexdigest()) for name, data in images]
