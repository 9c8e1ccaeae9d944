"""Assets out of source shards.

In: a store with images, tars or Parquet, and a source shard. Out: its assets one at a time, under safe names.
"""
