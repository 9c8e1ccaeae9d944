"""Rows into a Parquet file, in row groups small enough to read one entry without the rest."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.errors import DamagedEntry, StoreUnavailable
from pipeline.tables.damage import BROKEN, sentence
from pipeline.tables.schema import FEATURES, WORDS, fitted, is_binary, leaves_of, payload_of
from pipeline.tables.seal import add_seal

GROUP_BYTES = 256 * 1024
"""Payload of a row group. One entry is read by reading its row group, so a group holds one large picture or a few small
ones; the footer spends about 2 KB on a group, under 1 % of it."""

GROUP_ROWS = 32
"""Rows of a row group: bounds what is decoded beside a tiny entry."""


class RowWriter:
    """Write rows to a Parquet file with bounded memory; the same rows give the same bytes.

    ``columns`` map a name to one of ``string bool int32 int64 float64 binary words image sidecars``; ``image`` is the Hugging
    Face struct ``{bytes, path}``, ``sidecars`` a mapping of names to bytes. ``metadata`` goes into the footer, which gets a
    check sum. Only ``key`` has statistics. Used as a context manager, an exception removes the file. Raises StoreUnavailable
    where the disk cannot be written.
    """

    def __init__(self, path: Path, columns: Mapping[str, str], metadata: Mapping[str, str], *, key: str = "key") -> None:
        features = {name: FEATURES.get(word, {"dtype": word, "_type": "Value"}) for name, word in columns.items()}
        schema = pa.schema(
            [(name, WORDS[word]) for name, word in columns.items()],
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
        except BROKEN as error:
            raise DamagedEntry(path.name, "Parquet schema", sentence(error)) from None
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
        leaves = dict(leaves_of(schema))
        with _writing(path):
            self._writer = pq.ParquetWriter(
                str(path),
                schema,
                # Pictures, latents and originals are coded already; zstd on them costs time and gains nothing. What stands in
                # lists, captions and parts of files, is not.
                compression={
                    leaf: "none" if is_binary(kind) and ".list." not in leaf else "zstd" for leaf, kind in leaves.items()
                },
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
        size = sum(payload_of(value) for value in row.values())
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
                arrays.append(pa.array([fitted(row.get(field.name), field.type) for row in rows], field.type))
            except BROKEN as error:
                what = f"{len(rows)} row{'s' * (len(rows) != 1)} of {self._path.name}"
                raise DamagedEntry(what, f"column {field.name}", sentence(error)) from None
        return arrays


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        number = getattr(error, "errno", None)  # of a full disk, say; pyarrow's own text wraps it twice
        raise StoreUnavailable(str(path), os.strerror(number) if number else sentence(error)) from None
