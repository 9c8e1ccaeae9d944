"""Rows of a Parquet file, written and read a row group at a time; the only file that knows pyarrow.

Values are plain Python ones: None, bool, int, float, str, bytes, list, dict. Dates, timestamps and decimals are strings (ISO
8601, decimal notation) on both sides, times of day and durations integers in the column's unit: a row passes through JSON and
comes back exact.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import DamagedEntry, DamagedShard, PipelineError, StoreUnavailable
from pipeline.seal import add_seal, checked_footer

GROUP_BYTES = 256 * 1024
"""Payload of a row group. One entry is read by reading its row group, so a group holds one large picture or a few small
ones; the footer spends about 2 KB on a group, under 1 % of it."""

GROUP_ROWS = 32
"""Rows of a row group: bounds what is decoded beside a tiny entry."""

_BATCH_BYTES = 8 * 2**20  # decoded at a time while streaming; a foreign file may be one row group of many gigabytes
_BUFFER_BYTES = 256 * 1024  # per column while streaming: without it pyarrow reads whole column chunks
_PROBED_VALUES = 8  # a first picture may be damaged; eight that all are would be no picture column

_WORDS: dict[str, Any] = {
    "string": pa.string(),
    "bool": pa.bool_(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "binary": pa.binary(),
    "image": pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    # Not map<string, binary>: Hugging Face `datasets` refuses a file with a map column (its issue 5612).
    "sidecars": pa.list_(pa.struct([("name", pa.string()), ("data", pa.binary())])),
}
_FEATURES: dict[str, Any] = {
    "image": {"_type": "Image"},
    "sidecars": [{"name": {"dtype": "string", "_type": "Value"}, "data": {"dtype": "binary", "_type": "Value"}}],
}
# pyarrow raises these on a broken file: its own, OSError for Thrift, the others from values that its own types then refuse.
_BROKEN = (pa.ArrowException, OSError, ValueError, KeyError, IndexError, TypeError, OverflowError, MemoryError)


class RowWriter:
    """Write rows to a Parquet file with bounded memory; the same rows give the same bytes.

    ``columns`` map a name to one of ``string bool int32 int64 float64 binary image sidecars``; ``image`` is the Hugging Face
    struct ``{bytes, path}``, ``sidecars`` a mapping of names to bytes. ``metadata`` goes into the footer, which gets a check
    sum. Only ``key`` has statistics. Used as a context manager, an exception removes the file. Raises StoreUnavailable where
    the disk cannot be written.
    """

    def __init__(self, path: Path, columns: Mapping[str, str], metadata: Mapping[str, str], *, key: str = "key") -> None:
        features = {name: _FEATURES.get(word, {"dtype": word, "_type": "Value"}) for name, word in columns.items()}
        schema = pa.schema(
            [(name, _WORDS[word]) for name, word in columns.items()],
            metadata={b"huggingface": json.dumps({"info": {"features": features}}).encode()},
        )
        self._open(path, schema, [key] if key in columns else [], GROUP_BYTES, GROUP_ROWS)
        self._sealed = True
        self.add_metadata(metadata)

    @classmethod
    def from_schema(
        cls,
        path: Path,
        schema_bytes: bytes,
        metadata: Mapping[str, str] | None = None,
        *,
        group_bytes: int = 32 * 2**20,
        group_rows: int = 100,
    ) -> Self:
        """Return a writer of rows in the schema of another file (``RowReader.schema_bytes``), its metadata included.

        Columns that a row lacks become null; a string in a binary column is base64. Groups are larger than an archive's:
        the file is for training, not for single rows. Raises DamagedEntry where the schema, or later a value, does not fit.
        """
        try:
            schema = pa.ipc.read_schema(pa.py_buffer(schema_bytes))
        except _BROKEN as error:
            raise DamagedEntry(path.name, "Parquet schema", _sentence(error)) from None
        self = cls.__new__(cls)
        self._open(path, schema, [], group_bytes, group_rows)
        self.add_metadata(metadata or {})
        return self

    def _open(self, path: Path, schema: Any, statistics: list[str], group_bytes: int, group_rows: int) -> None:
        self._path, self._schema = path, schema
        self._group_bytes, self._group_rows = group_bytes, group_rows
        self._rows: list[Mapping[str, object]] = []
        self._sealed = False
        self._pending = 0
        leaves = dict(_leaves(schema))
        with _writing(path):
            self._writer = pq.ParquetWriter(
                str(path),
                schema,
                # Pictures, latents and originals are coded already; zstd on them costs time and gains nothing.
                compression={leaf: "none" if _is_binary(kind) else "zstd" for leaf, kind in leaves.items()},
                use_dictionary=False,  # groups are too short for it to pay
                write_statistics=statistics or False,
                write_page_checksum=True,
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns' names."""
        return tuple(self._schema.names)

    def append(self, row: Mapping[str, object]) -> None:
        """Add one row; unknown names raise ValueError, a value that does not fit another file's schema DamagedEntry."""
        if unknown := row.keys() - set(self._schema.names):
            raise ValueError(f"no column {', '.join(sorted(unknown))} among {', '.join(self._schema.names)}")
        if not self._sealed:  # tried alone, so that a row that does not fit is the one refused, and takes no other with it
            self._arrays([row])
        size = sum(_payload(value) for value in row.values())
        if self._rows and self._pending + size > self._group_bytes:
            self._flush()  # before the row that would not fit, so that a large entry has its row group to itself
        self._rows.append(row)
        self._pending += size
        if self._pending >= self._group_bytes or len(self._rows) >= self._group_rows:
            self._flush()

    def append_group(self, columns: Mapping[str, Sequence[object]]) -> None:
        """Add a row group of its own, by its columns, whose values are taken as they are: in a tenth of the rows' time."""
        if self._rows:
            self._flush()
        arrays = [pa.array(columns[field.name], field.type) for field in self._schema]
        with _writing(self._path):
            self._writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=self._schema))

    def add_metadata(self, metadata: Mapping[str, str]) -> None:
        """Put more into the footer: what is known only once the rows are."""
        with _writing(self._path):
            self._writer.add_key_value_metadata(dict(metadata))

    def close(self) -> None:
        """Write the rows left over and the footer."""
        if not self._writer.is_open:
            return
        if self._rows:
            self._flush()
        with _writing(self._path):
            self._writer.close()
            if self._sealed:
                add_seal(self._path)

    def discard(self) -> None:
        """Give up: remove the file."""
        self._rows = []
        if self._writer.is_open:
            with _writing(self._path):
                self._writer.close()
        self._path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def _flush(self) -> None:
        rows, self._rows, self._pending = self._rows, [], 0  # first: what fails must not stay for the next
        arrays = self._arrays(rows)
        with _writing(self._path):
            self._writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=self._schema))

    def _arrays(self, rows: Sequence[Mapping[str, object]]) -> list[Any]:
        arrays = []
        for field in self._schema:
            try:
                arrays.append(pa.array([_fit(row.get(field.name), field.type) for row in rows], field.type))
            except _BROKEN as error:
                what = f"{len(rows)} row{'s' * (len(rows) != 1)} of {self._path.name}"
                raise DamagedEntry(what, f"column {field.name}", _sentence(error)) from None
        return arrays


class RowReader:
    """Read the rows of a Parquet file with bounded memory; ``file`` stays the caller's to close.

    ``sealed`` says that RowWriter wrote the file by column words, and that a footer without its check sum is damaged.
    ``footer`` is that of an earlier reader of the same file, which then is not read again. Raises
    DamagedShard, here and in every method, where the file is broken; errors of ``file`` itself pass through.
    """

    def __init__(self, file: BinaryIO, uri: str, *, sealed: bool = False, footer: Any = None) -> None:
        self.uri = uri
        with self._guard():
            if footer is None and sealed:
                footer = pq.read_metadata(pa.BufferReader(checked_footer(file, uri)))
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
            self.num_rows: int = self._footer.num_rows
            self.num_row_groups: int = self._footer.num_row_groups
            self.schema_bytes: bytes = self._schema.serialize().to_pybytes()
            self.metadata: dict[str, str] = {
                key.decode("utf-8", "replace"): value.decode("utf-8", "replace")
                for key, value in (self._footer.metadata or {}).items()
                if key != b"ARROW:schema"
            }

    @property
    def footer(self) -> Any:
        """What the footer says, for other readers of this file; any thread may use it."""
        return self._footer

    @property
    def footer_bytes(self) -> int:
        """How many bytes the footer takes in the file."""
        return int(self._footer.serialized_size)

    def image_columns(self, looks_like_image: Callable[[bytes], bool]) -> tuple[str, ...]:
        """Return the columns that hold images: structs with binary ``bytes``, and binary columns that begin with images.

        A struct that the file's Hugging Face features call something else (Audio has the same shape) is none.
        """
        found = []
        features = _features(self.metadata)
        for field in self._schema:
            if _is_image_struct(field.type):
                feature = features.get(field.name)
                kind = feature.get("_type", "Image") if isinstance(feature, dict) else "Image"
                if kind == "Image":
                    found.append(field.name)
            elif _is_binary(field.type):
                values = _first(self.rows([field.name]), field.name, _PROBED_VALUES)
                if any(looks_like_image(value) for value in values):
                    found.append(field.name)
        return tuple(found)

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

    def table(self, columns: Sequence[str]) -> Any:
        """Return the named columns of all rows as one Arrow table, which is in memory as a whole."""
        names = self._names(columns)
        with self._guard():
            table = self._file.read(columns=names, use_threads=False).select([name.partition(".")[0] for name in names])
        if table.num_rows != self.num_rows:
            raise DamagedShard(self.uri, f"{table.num_rows} rows are there, its footer tells of {self.num_rows}")
        return table

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
        except _BROKEN as error:
            raise DamagedShard(self.uri, _sentence(error)) from None


def to_pandas(tables: Iterable[tuple[Any, Mapping[str, str]]], columns: Sequence[str]) -> Any:
    """Return tables of :meth:`RowReader.table`, each with the values of further text columns, as one pandas DataFrame."""
    parts = []
    for table, constants in tables:
        for name, value in constants.items():
            table = table.append_column(name, pa.array([value] * table.num_rows, pa.string()))
        parts.append(table.select(list(columns)).replace_schema_metadata(None))
    empty = pa.table({name: pa.array([], pa.null()) for name in columns})
    return (pa.concat_tables(parts) if parts else empty).to_pandas()


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        number = getattr(error, "errno", None)  # of a full disk, say; pyarrow's own text wraps it twice
        raise StoreUnavailable(str(path), os.strerror(number) if number else _sentence(error)) from None


def _sentence(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def _rows(batch: Any) -> list[dict[str, Any]]:
    names = batch.schema.names
    values = map(_plain_values, batch.columns)
    return [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]


def _plain_values(array: Any) -> list[Any]:
    values: list[Any] = array.cast(_plain(array.type)).to_pylist()
    return values


def _first(rows: Iterator[dict[str, Any]], column: str, count: int) -> Iterator[bytes]:
    for row in rows:
        if row[column] is not None:
            yield row[column]
            count -= 1
            if count == 0:
                return


def _features(metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        features = json.loads(metadata.get("huggingface", "{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return features if isinstance(features, dict) else {}


def _is_binary(kind: Any) -> bool:
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(test(kind) for test in tests)


def _is_image_struct(kind: Any) -> bool:
    return pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 and _is_binary(kind.field("bytes").type)


def _leaves(schema: Any) -> Iterator[tuple[str, Any]]:
    """Yield the Parquet path and the type of every leaf column."""
    for field in schema:
        yield from _type_leaves(field.name, field.type)


def _type_leaves(path: str, kind: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(kind, pa.BaseExtensionType):
        yield from _type_leaves(path, kind.storage_type)
    elif pa.types.is_struct(kind):
        for field in kind:
            yield from _type_leaves(f"{path}.{field.name}", field.type)
    elif pa.types.is_map(kind):
        yield from _type_leaves(f"{path}.key_value.key", kind.key_type)
        yield from _type_leaves(f"{path}.key_value.value", kind.item_type)
    elif _is_list(kind):
        yield from _type_leaves(f"{path}.list.element", kind.value_type)
    else:
        yield path, kind


def _is_list(kind: Any) -> bool:
    return any((pa.types.is_list(kind), pa.types.is_large_list(kind), pa.types.is_fixed_size_list(kind)))


def _plain(kind: Any) -> Any:
    """Return the type whose Python values are the plain ones: text for dates and decimals, whatever holds them."""
    if isinstance(kind, pa.BaseExtensionType):
        return _plain(kind.storage_type)
    if pa.types.is_duration(kind) or pa.types.is_time64(kind):
        return pa.int64()
    if pa.types.is_time32(kind):
        return pa.int32()
    if pa.types.is_temporal(kind) or pa.types.is_decimal(kind):
        return pa.string()
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_plain(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_plain(kind.key_type), _plain(kind.item_type))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(_plain(kind.value_type)), kind.list_size)
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_plain(kind.value_type)))
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_plain(kind.value_type)))
    return kind


def _fit(value: Any, kind: Any) -> Any:
    """Return a plain value as pyarrow takes it for ``kind``, the inverse of reading it as ``_plain(kind)``."""
    if value is None:
        return None
    if isinstance(value, str) and pa.types.is_decimal(kind):
        return Decimal(value)
    if isinstance(value, str) and pa.types.is_temporal(kind):
        moment: Any = pa.scalar(value).cast(kind)
        return moment.value  # an integer in the column's unit: datetime would cut off nanoseconds
    if isinstance(kind, pa.BaseExtensionType):
        return _fit(value, kind.storage_type)
    if _is_binary(kind) and isinstance(value, str):
        return base64.b64decode(value)
    if kind == _WORDS["sidecars"] and isinstance(value, Mapping):
        return [{"name": name, "data": value[name]} for name in sorted(value)]
    if pa.types.is_map(kind):
        pairs = value.items() if isinstance(value, Mapping) else value
        return [(_fit(key, kind.key_type), _fit(item, kind.item_type)) for key, item in pairs]
    if pa.types.is_dictionary(kind):
        return _fit(value, kind.value_type)
    if pa.types.is_struct(kind) and isinstance(value, Mapping):
        return {field.name: _fit(value.get(field.name), field.type) for field in kind}
    if _is_list(kind):
        return [_fit(item, kind.value_type) for item in value]
    return value


def _payload(value: object) -> int:
    if isinstance(value, (bytes, str)):
        return len(value)
    if isinstance(value, Mapping):
        return sum(_payload(part) for part in value.values())
    if isinstance(value, (list, tuple)):
        return sum(_payload(part) for part in value)
    return 8
