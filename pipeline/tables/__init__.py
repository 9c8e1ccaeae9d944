"""Parquet files of plain Python rows; the only pyarrow.

In: rows, or a file. Out: a sealed file, or rows, streamed or found by key.
"""
