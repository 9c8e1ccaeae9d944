"""`iarn verify`: check every digest of an archive and restore a sample."""

from __future__ import annotations

from jobs.console import Reporter
from jobs.requests import VerifyJob
from pipeline.archives.archive import Archive
from pipeline.cluster import pool
from pipeline.stores.store import open_store
from pipeline.works import VerifyWork


def verify(job: VerifyJob) -> int:
    """Check an archive; return 0 where it is whole and complete, 1 where anything is damaged or missing."""
    archive = Archive.open(open_store(job.archive, access=job.archive_access))
    archive.model_bytes()
    count = archive.plan.shard_count
    committed = archive.done()
    reporter = Reporter("verify", len(committed), json_lines=job.json_lines)
    shards = (shard for shard in archive.shards() if shard.id in committed)
    work = VerifyWork(
        archive=archive.store.uri,
        archive_access=job.archive_access,
        source_access=job.source_access,
        sample=job.sample,
        seed=job.seed,
        device=job.device,
    )
    with reporter.running():
        if committed:
            for result in pool.run(work, shards, job.pool, reporter.snapshot, reporter.notice):
                reporter.done(result)
    missing = count - len(committed)
    reporter.summary(restores_compared_with_source=reporter.totals.compared, shards_not_done=missing)
    return 1 if reporter.totals.failed or missing else 0
