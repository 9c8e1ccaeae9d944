"""Restored assets to files, tars or Parquet.

In: the assets of a source shard, one at a time, and all its keys. Out: outputs under names that are nobody else's, and a list
of those that changed.
"""
