"""Who runs which shard: actors, windows, retries, quarantine; the only ray, beside the jobs that submit and serve.

In: picklable work and source shards. Out: a report of each shard, or the failure it is quarantined with. Knows nothing of
images. A retry is decided in ``crew``.
"""
