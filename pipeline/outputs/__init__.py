"""Where restored assets go: files, tars or Parquet tables.

In: keys and bytes of restored assets. Out: objects in a store, nothing overwritten.
"""
