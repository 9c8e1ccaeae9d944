"""`iarn verify`: check every digest of an archive and restore a sample."""

from __future__ import annotations

from dataclasses import dataclass, field

from jobs.console import Reporter
from pipeline.archives.archive import Archive
from pipeline.cluster import pool
from pipeline.core.errors import InvalidOption
from pipeline.stores.store import open_store
from pipeline.verify import VerifyWork


@dataclass(frozen=True, kw_only=True)
class VerifyJob:
    """What one ``iarn verify`` was asked for."""

    archive: str
    sample: float = 0.05
    seed: int = 0
    device: str = "auto"
    pool: pool.PoolOptions = field(default_factory=pool.PoolOptions)
    json_lines: bool = False


def verify(job: VerifyJob) -> int:
    """Check an archive; return 0 where it is whole and complete, 1 where anything is damaged or missing."""
    if not 0 <= job.sample <= 1:
        raise InvalidOption("--sample", str(job.sample), "give a share from 0 to 1.")
    archive = Archive.open(open_store(job.archive))
    archive.model_bytes()
    count = archive.plan.shard_count
    committed = archive.done()
    reporter = Reporter("verify", len(committed), json_lines=job.json_lines)
    shards = (shard for shard in archive.shards() if shard.id in committed)
    work = VerifyWork(archive=archive.store.uri, sample=job.sample, seed=job.seed, device=job.device)
    compared = 0
    with reporter.running():
        if committed:
            for result in pool.run(work, shards, job.pool, reporter.snapshot, reporter.notice):
                reporter.done(result)
                compared += getattr(result, "compared", 0)
    missing = count - len(committed)
    reporter.summary(restores_compared_with_source=compared, shards_not_done=missing)
    return 1 if reporter.totals.failed or missing else 0
