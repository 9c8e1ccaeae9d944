"""Assets out of sources.

In: a store with images, tars or Parquet. Out: source shards, and of each its assets one at a time, under safe names.
"""
