"""The archive: its plan and what was added to that, its shards, commits and rollups.

In: entries of a shard. Out: a Parquet object and a commit, once; entries of a shard, all or those wanted. An entry's columns
are in ``entries``, the format is described in FORMAT.md.
"""
