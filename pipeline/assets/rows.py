"""Rows of a Parquet file to assets, and back."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, cast

from pipeline.assets.names import UniqueNames, has_image_name, safe_suffix
from pipeline.assets.samples import image_extension, named_asset, uri_of
from pipeline.core.errors import DamagedEntry, NoImageColumn
from pipeline.core.records import Asset, ObjectInfo, ShardKind, SourceShard
from pipeline.stores.store import Store
from pipeline.tables.reader import RowReader

KEY_COLUMNS = ("key", "__key__", "id", "name", "filename")
"""Columns of a Parquet file that may name its rows, the first one that holds text in a row winning."""


def read_rows(store: Store, info: ObjectInfo, image_column: str | None) -> Iterator[Asset]:
    """Yield the assets of a Parquet file as :func:`pipeline.assets.shards.read_assets` does, with what that raises."""
    uri = uri_of(store, info)
    names = UniqueNames()
    with store.open(info.key, etag=info.etag) as file:
        reader = RowReader(file, uri)
        column = _image_column(reader, image_column)
        if column is None:
            return
        with closing(cast(Any, reader.rows())) as rows:
            for number, row in enumerate(rows):
                value = row.pop(column)
                if not (value is None or isinstance(value, bytes) or (isinstance(value, dict) and "bytes" in value)):
                    raise NoImageColumn(uri, column, reader.columns)
                yield _row_asset(names, number, row, column, value, reader.columns)


def source_schema(store: Store, shard: SourceShard) -> bytes | None:
    """Return the serialised Arrow schema of a Parquet shard, for a restore to the same columns; None for other kinds.

    Raises DamagedShard and StoreError.
    """
    if shard.kind is not ShardKind.PARQUET:
        return None
    info = shard.objects[0]
    with store.open(info.key, etag=info.etag) as file:
        return RowReader(file, uri_of(store, info)).schema_bytes


def source_image_column(store: Store, shard: SourceShard, *, image_column: str | None = None) -> str | None:
    """Return the column of a Parquet shard that ``read_assets`` takes the images from; None for other kinds or without rows.

    Raises NoImageColumn, DamagedShard and StoreError.
    """
    if shard.kind is not ShardKind.PARQUET:
        return None
    info = shard.objects[0]
    with store.open(info.key, etag=info.etag) as file:
        return _image_column(RowReader(file, uri_of(store, info)), image_column)


def source_row(columns: Sequence[str], image_column: str, data: bytes | None, sidecars: Mapping[str, bytes]) -> dict[str, Any]:
    """Return the row of a Parquet source that an asset was made of, with ``data`` as its image; undoes ``_row_asset``.

    ``columns`` are the source's. Raises DamagedEntry where the sidecar that holds the other columns is no JSON.
    """
    name = _text_sidecar(columns)
    text = sidecars.get(name)
    try:
        row = dict(json.loads(text)) if text is not None else {}
    except (ValueError, TypeError) as error:
        raise DamagedEntry(str(sidecars.keys()), name, str(error)) from None
    for column in columns:
        if column not in row and safe_suffix(column) in sidecars:
            row[column] = sidecars[safe_suffix(column)]
    struct = row.pop(image_column, None)
    row[image_column] = {**struct, "bytes": data} if isinstance(struct, dict) else data
    return row


def _image_column(reader: RowReader, wanted: str | None) -> str | None:
    """Return the column of images; None where there are no rows to tell it by, and so nothing to lose."""
    if wanted is None:
        found = reader.image_columns(lambda data: image_extension(data) is not None)
        if not found and reader.num_rows == 0:
            return None
    else:
        found = tuple(name for name in reader.columns if name == wanted)
    if len(found) != 1:
        raise NoImageColumn(reader.uri, wanted, reader.columns)
    return found[0]


def _row_asset(names: UniqueNames, number: int, row: dict[str, Any], column: str, value: Any, columns: Sequence[str]) -> Asset:
    """Return the asset of a row: further binary columns are sidecars by name, all other values one (``_text_sidecar``).

    In the JSON binary values inside lists and structs are base64; the image's struct keeps what it has beside the bytes.
    ``columns`` are the source's.
    """
    sidecars = {safe_suffix(name): row.pop(name) for name in list(row) if isinstance(row[name], bytes)}
    data, path = value, None
    if isinstance(value, dict):
        data, path = value["bytes"], value.get("path")
        row = {**row, column: {name: each for name, each in value.items() if name != "bytes"}}
    note = None
    if data is None:
        note = f"row {number} has the path {path} but no image" if path else f"row {number} has no image"
    if row:
        text = json.dumps(row, sort_keys=True, ensure_ascii=False, default=lambda each: base64.b64encode(each).decode("ascii"))
        sidecars[_text_sidecar(columns)] = text.encode("utf-8")
    return named_asset(names, _row_key(number, row, path, data), data, sidecars, note, unique_sidecars=False)


def _row_key(number: int, row: dict[str, Any], path: Any, data: bytes | None) -> str:
    candidates = [*(row.get(name) for name in KEY_COLUMNS), path, f"{number:08d}"]
    key = next(name for name in candidates if isinstance(name, str) and name)
    extension = None if has_image_name(key) or data is None else image_extension(data)
    return key if extension is None else f"{key}.{extension}"


def _text_sidecar(columns: Sequence[str]) -> str:
    """Return the sidecar that holds the text of a row: ``json``, or ``columns.json`` where the source has a column ``json``.

    The columns' names alone decide, so that every row of a source, and its restore, has the same.
    """
    taken = {safe_suffix(column) for column in columns}
    name = "json"
    while name in taken:
        name = f"columns.{name}"
    return name
