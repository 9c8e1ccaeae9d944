"""The archive: its plan, shards, commits and rollups, and how entries are found again.

In: entries of a shard. Out: a Parquet object and a commit, once; entries by shard or key. An entry's columns are in
``entries``, the format is described in FORMAT.md.
"""
