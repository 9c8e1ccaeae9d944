"""Rows out of a Parquet file: streamed, one by one, or by their keys."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.errors import DamagedShard, PipelineError, UnsupportedShard
from pipeline.tables.damage import BROKEN, sentence
from pipeline.tables.pages import HEAD_BYTES, value_start
from pipeline.tables.schema import Place, binary_places, features_of, is_text, plain_type, values_at
from pipeline.tables.seal import Footers, checked_footer

_BATCH_BYTES = 8 * 2**20  # decoded at a time while streaming; a foreign file may be one row group of many gigabytes
_BUFFER_BYTES = 256 * 1024  # per column while streaming: without it pyarrow reads whole column chunks

PROBED_VALUES = 8
"""Values of a place that are looked at: a first picture may be damaged; eight that all are would be no picture column."""


class RowReader:
    """Read the rows of a Parquet file with bounded memory; ``file`` stays the caller's to close.

    ``sealed`` says that RowWriter wrote the file by column words, and that a footer without its check sum is damaged; where
    ``footers`` have one of the file's name and size, it is not read again. Raises DamagedShard, here and in every method,
    where the file is broken; errors of ``file`` itself pass through.
    """

    def __init__(self, file: BinaryIO, uri: str, *, sealed: bool = False, footers: Footers | None = None) -> None:
        self.uri, self.source = uri, file
        with self._guard():
            footer = _sealed_footer(file, uri, footers) if sealed else None
            self._file = pq.ParquetFile(
                file,
                metadata=footer,
                buffer_size=_BUFFER_BYTES,
                pre_buffer=False,
                page_checksum_verification=True,
            )
            self._schema = self._file.schema_arrow
            self._footer = self._file.metadata
            self.columns: tuple[str, ...] = tuple(self._schema.names)
            if repeated := sorted(name for name, count in Counter(self.columns).items() if count > 1):
                raise UnsupportedShard(uri, f"several of its columns are called {', '.join(repeated)}; give each its own name")
            self.num_rows: int = self._footer.num_rows
            self.num_row_groups: int = self._footer.num_row_groups
            self.schema_bytes: bytes = self._schema.serialize().to_pybytes()
            self.metadata: dict[str, str] = {
                key.decode("utf-8", "replace"): value.decode("utf-8", "replace")
                for key, value in (self._footer.metadata or {}).items()
                if key != b"ARROW:schema"
            }

    def image_places(self, looks_like_image: Callable[[bytes], bool]) -> tuple[Place, ...]:
        """Return where in a row pictures are: by shape, or in binary values of which one of the first begins as a picture."""
        return tuple(place for place, told in self.binary_places() if told or self._has_image(place, looks_like_image))

    def binary_places(self) -> list[tuple[Place, bool]]:
        """Return where in a row pictures could be, and whether their shape says that they are there."""
        return list(binary_places(self._schema, features_of(self.metadata)))

    def text_columns(self) -> dict[str, list[str]]:
        """Return the columns of text, each with its first values."""
        names = [each.name for each in self._schema if is_text(each.type)]
        return {name: list(_first(self.rows([name]), (name,), PROBED_VALUES)) for name in names}

    def _has_image(self, place: Place, looks_like_image: Callable[[bytes], bool]) -> bool:
        return any(looks_like_image(value) for value in _first(self.rows([place[0]]), place, PROBED_VALUES))

    def rows(self, columns: Sequence[str] | None = None, groups: Iterable[int] | None = None) -> Iterator[dict[str, Any]]:
        """Yield the rows of ``groups`` (all by default) in order, a few at a time, whatever the size of a row group.

        A column ``a.b`` is the field ``b`` of the struct ``a``, which then has no other.
        """
        for batch in self._batches(self._names(columns), groups):
            with self._guard():
                rows = _rows(batch)
            yield from rows

    def column_lists(self, columns: Sequence[str]) -> Iterator[tuple[list[Any], ...]]:
        """Yield the values of some columns, a list for each, some rows at a time: for files of many small rows."""
        for batch in self._batches(self._names(columns), None):
            with self._guard():
                lists = {name: _plain_values(array) for name, array in zip(batch.schema.names, batch.columns, strict=True)}
            yield tuple(lists[name] for name in columns)

    def row_group(self, group: int, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Return all rows of one row group."""
        return list(self.rows(columns, [group]))

    def key_ranges(self, column: str) -> list[tuple[Any, Any] | None]:
        """Return the least and greatest value of ``column`` in each row group, None where the file does not say."""
        ranges: list[tuple[Any, Any] | None] = []
        with self._guard():
            for group in range(self.num_row_groups):
                row_group = self._footer.row_group(group)
                chunks = (row_group.column(index) for index in range(row_group.num_columns))
                told = next((chunk.statistics for chunk in chunks if chunk.path_in_schema == column), None)
                ranges.append((told.min, told.max) if told is not None and told.has_min_max else None)
        return ranges

    def group_rows(self) -> list[int]:
        """Return how many rows each row group has."""
        with self._guard():
            return [self._footer.row_group(group).num_rows for group in range(self.num_row_groups)]

    def chunk_bytes(self, group: int) -> dict[str, int]:
        """Return the bytes that each column takes in a row group, as stored, by the column's name; structs are one column."""
        sizes: dict[str, int] = {}
        with self._guard():
            row_group = self._footer.row_group(group)
            for index in range(row_group.num_columns):
                chunk = row_group.column(index)
                name = chunk.path_in_schema.partition(".")[0]
                sizes[name] = sizes.get(name, 0) + chunk.total_compressed_size
        return sizes

    def value_range(self, group: int, column: str) -> tuple[int, int] | None:
        """Return where in the file the bytes of a binary column's value begin and end, so that they can be read in pieces.

        None where it is not told: of a group of several rows, of a null, and where the column is compressed. Reads a few bytes.
        """
        with self._guard():
            told = self._footer.row_group(group)
            chunks = (told.column(index) for index in range(told.num_columns))
            chunk = next((each for each in chunks if each.path_in_schema == column), None)
            if told.num_rows != 1 or chunk is None or chunk.compression != "UNCOMPRESSED" or chunk.has_dictionary_page:
                return None
            offset, size = chunk.data_page_offset, chunk.total_compressed_size
            self.source.seek(offset)
            start = value_start(self.source.read(min(HEAD_BYTES, size)), size)
            return None if start is None else (offset + start, offset + size)

    def table(self, columns: Sequence[str]) -> Any:
        """Return the named columns of all rows as one Arrow table, which is in memory as a whole."""
        names = self._names(columns)
        with self._guard():
            table = self._file.read(columns=names, use_threads=False).select([name.partition(".")[0] for name in names])
        if table.num_rows != self.num_rows:
            raise DamagedShard(self.uri, f"{table.num_rows} rows are there, its footer tells of {self.num_rows}")
        return table

    def _batches(self, names: list[str], groups: Iterable[int] | None) -> Iterator[Any]:
        for group in range(self.num_row_groups) if groups is None else groups:
            with self._guard():
                batches = self._file.iter_batches(
                    batch_size=self._batch_rows(group), row_groups=[group], columns=names, use_threads=False
                )
                missing: int = self._footer.row_group(group).num_rows
            while True:
                with self._guard():
                    batch = next(batches, None)
                if batch is None:
                    break
                missing -= batch.num_rows
                yield batch
            if missing and names:  # pages whose damaged header no longer says that they hold values are passed over
                raise DamagedShard(self.uri, f"row group {group} lacks {missing} of its rows")

    def _names(self, columns: Sequence[str] | None) -> list[str]:
        names = list(self.columns if columns is None else columns)
        if missing := [name for name in names if not {name, name.split(".")[0]} & set(self.columns)]:
            raise DamagedShard(self.uri, f"it has no column {', '.join(missing)}")
        return names

    def _batch_rows(self, group: int) -> int:
        # Not summed over the wanted columns: a damaged footer makes pyarrow's column metadata end the whole process.
        told = self._footer.row_group(group)
        rows: int = min(1024, told.num_rows, _BATCH_BYTES * told.num_rows // max(told.total_byte_size, 1))
        return max(1, rows)

    @contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except PipelineError:
            raise
        except BROKEN as error:
            raise DamagedShard(self.uri, sentence(error)) from None


def to_pandas(tables: Iterable[tuple[Any, Mapping[str, str]]], columns: Sequence[str]) -> Any:
    """Return tables of :meth:`RowReader.table`, each with the values of further text columns, as one pandas DataFrame."""
    parts = []
    for table, constants in tables:
        for name, value in constants.items():
            table = table.append_column(name, pa.array([value] * table.num_rows, pa.string()))
        parts.append(table.select(list(columns)).replace_schema_metadata(None))
    empty = pa.table({name: pa.array([], pa.null()) for name in columns})
    return (pa.concat_tables(parts) if parts else empty).to_pandas()


def _sealed_footer(file: BinaryIO, uri: str, footers: Footers | None) -> Any:
    size = file.seek(0, os.SEEK_END)
    footer = None if footers is None else footers.get((file.name, size))
    if footer is None:
        data = checked_footer(file, uri)
        footer = pq.read_metadata(pa.BufferReader(data))
        if footers is not None:
            footers.put((file.name, size), footer, len(data))
    return footer


def _rows(batch: Any) -> list[dict[str, Any]]:
    names = batch.schema.names
    values = map(_plain_values, batch.columns)
    return [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]


def _plain_values(array: Any) -> list[Any]:
    values: list[Any] = array.cast(plain_type(array.type)).to_pylist()
    return values


def _first(rows: Iterator[dict[str, Any]], place: Place, count: int) -> Iterator[Any]:
    values = (value for row in rows for _, value in values_at(row, place) if value)  # what is empty tells nothing
    return islice(values, count)
