"""Assets out of sources, and restored ones into outputs.

In: a store with images, tars or Parquet. Out: source shards, and of each its assets one at a time, under safe names; and on
the way back files, tars or Parquet.
"""
