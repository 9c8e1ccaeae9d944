"""Rows of a Parquet file to assets, and back."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, cast

from pipeline.assets.names import UniqueNames, has_image_name, safe_suffix
from pipeline.assets.samples import begins_image, image_extension, named_asset, uri_of
from pipeline.core.errors import DamagedEntry, InvalidOption, NoImageColumn
from pipeline.core.records import Asset, ObjectInfo, ShardKind, SourceShard
from pipeline.stores.store import Store
from pipeline.tables.reader import PROBED_VALUES, RowReader
from pipeline.tables.schema import LISTED, MAPPED, Place, values_at

_EVERY = {LISTED, MAPPED}

KEY_COLUMNS = ("key", "__key__", "id", "name", "filename")
"""Columns of a Parquet file that may name its rows, the first one that holds text in a row winning."""


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
    """Return the column of a Parquet shard that ``read_assets`` takes the images from.

    None for other kinds, without rows, and where images are in several columns, in lists or deeper in structs.

    Raises NoImageColumn, DamagedShard and StoreError.
    """
    if shard.kind is not ShardKind.PARQUET:
        return None
    info = shard.objects[0]
    with store.open(info.key, etag=info.etag) as file:
        places = _image_places(RowReader(file, uri_of(store, info)), image_column)
    return places[0][0] if len(places) == 1 and len(places[0]) == 1 else None


def why_no_images(store: Store, info: ObjectInfo, image_column: str | None) -> str | None:
    """Return why a Parquet file is no source of images, None where it is one, or has no rows to tell it by.

    Raises InvalidOption where it has images, but not in the column that was named; DamagedShard and StoreError.
    """
    with store.open(info.key, etag=info.etag) as file:
        reader = RowReader(file, uri_of(store, info))
        if reader.num_rows == 0:
            return None
        try:
            _image_places(reader, image_column)
            return None
        except NoImageColumn as error:
            found = reader.image_places(begins_image)
            if found and image_column is not None:
                columns = ", ".join(map(_shown, found))
                raise InvalidOption("--image-column", image_column, f"{error.uri} has its images in {columns}.") from None
        for name, values in reader.text_columns().items():
            if values and all(re.match(r"https?://", value) for value in values):
                return f"its column {name} holds addresses of images, not images: fetch them first, as img2dataset does"
        places = ", ".join(_shown(place) for place, _ in reader.binary_places())
        first = f": the first {PROBED_VALUES} values in {places} begin as none; --image-column takes one all the same"
        return f"it is a table without images in any of its columns, {', '.join(reader.columns)}{first if places else ''}"


def read_rows(store: Store, info: ObjectInfo, image_column: str | None) -> Iterator[Asset]:
    uri = uri_of(store, info)
    names = UniqueNames()
    with store.open(info.key, etag=info.etag) as file:
        reader = RowReader(file, uri)
        places = _image_places(reader, image_column)
        if not places:
            return
        with closing(cast(Any, reader.rows())) as rows:
            for number, row in enumerate(rows):
                if len(places) == 1 and len(places[0]) == 1:
                    column = places[0][0]
                    yield _row_asset(names, number, row, column, row.pop(column), reader.columns)
                else:
                    yield from _row_assets(names, number, row, places, reader.columns)


def _image_places(reader: RowReader, wanted: str | None) -> tuple[Place, ...]:
    """Return where in a row images are; nothing where there are no rows to tell it by, and so nothing to lose."""
    if wanted is None:
        found = reader.image_places(begins_image)
        if not found and reader.num_rows == 0:
            return ()
    else:
        found = tuple(place for place, _ in reader.binary_places() if wanted in (place[0], _shown(place)))
    if not found:
        raise NoImageColumn(reader.uri, wanted, reader.columns)
    return found


def _shown(place: Place) -> str:
    return ".".join(name for name in place if name not in _EVERY)


def _row_assets(
    names: UniqueNames, number: int, row: dict[str, Any], places: Sequence[Place], columns: Sequence[str]
) -> Iterator[Asset]:
    """Yield an asset for each image of a row of several: ``key#column.jpg``, of a list ``key#column#0.jpg``, of a map by name.

    All have the sidecar with the row's text, the first one the binary columns as well. A row without any image is one asset.
    """
    found = [(way, value) for place in places for way, value in values_at(row, place) if _bytes_of(value) is not None]
    rest = _without(row, {way for way, _ in found})
    if not found:
        yield _row_asset(names, number, rest, "", None, columns)
        return
    binary = {safe_suffix(name): rest.pop(name) for name in list(rest) if isinstance(rest[name], bytes)}
    sidecars = {_text_sidecar(columns): _text_of(rest)} if rest else {}
    path = next((value.get("path") for _, value in found if isinstance(value, dict)), None)
    base = _row_name(number, row, path)
    stem = base.rpartition(".")[0] if has_image_name(base) else base
    single = len(places) == 1 and not _EVERY & set(places[0])
    for way, value in found:
        data = _bytes_of(value)
        assert data is not None
        name = stem if single else "#".join((stem, *way))
        extension = image_extension(data)
        name = name if extension is None else f"{name}.{extension}"
        yield named_asset(names, name, data, {**sidecars, **binary}, None, unique_sidecars=False)
        binary = {}


def _bytes_of(value: Any) -> bytes | None:
    data = value.get("bytes") if isinstance(value, dict) else value
    return data if isinstance(data, bytes) else None


def _without(value: Any, ways: set[tuple[str, ...]]) -> Any:
    """Return a row without the bytes of images at some places, of which it keeps what stands beside them."""
    if () in ways:
        return {name: each for name, each in value.items() if name != "bytes"} if isinstance(value, dict) else None
    if not ways:
        return value

    def behind(name: str) -> set[tuple[str, ...]]:
        return {way[1:] for way in ways if way[0] == name}

    if isinstance(value, dict):
        return {name: _without(each, behind(name)) for name, each in value.items()}
    if value and isinstance(value[0], tuple):  # a map's
        return [(name, _without(each, behind(str(name)))) for name, each in value]
    return [_without(each, behind(str(number))) for number, each in enumerate(value)]


def _text_sidecar(columns: Sequence[str]) -> str:
    """Return the sidecar that holds the text of a row: ``json``, or ``columns.json`` where the source has a column ``json``.

    The columns' names alone decide, so that every row of a source, and its restore, has the same.
    """
    taken = {safe_suffix(column) for column in columns}
    name = "json"
    while name in taken:
        name = f"columns.{name}"
    return name


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
        sidecars[_text_sidecar(columns)] = _text_of(row)
    return named_asset(names, _row_key(number, row, path, data), data, sidecars, note, unique_sidecars=False)


def _text_of(row: dict[str, Any]) -> bytes:
    text = json.dumps(row, sort_keys=True, ensure_ascii=False, default=lambda each: base64.b64encode(each).decode("ascii"))
    return text.encode("utf-8")


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


def _row_key(number: int, row: dict[str, Any], path: Any, data: bytes | None) -> str:
    key = _row_name(number, row, path)
    extension = None if has_image_name(key) or data is None else image_extension(data)
    return key if extension is None else f"{key}.{extension}"


def _row_name(number: int, row: dict[str, Any], path: Any) -> str:
    candidates = [*(row.get(name) for name in KEY_COLUMNS), path, f"{number:08d}"]
    return next(name for name in candidates if isinstance(name, str) and name)
