"""Where restored assets go: files, tars or Parquet tables.

In: the assets of a source shard, one at a time, and all its keys. Out: objects in a store under names that are nobody else's,
nothing overwritten, and a list of the names that changed.
"""
