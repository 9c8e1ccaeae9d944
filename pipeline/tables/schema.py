"""Types of columns: which hold pictures, what their leaves are, and values that fit them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

import pyarrow as pa

WORDS: dict[str, Any] = {
    "string": pa.string(),
    "bool": pa.bool_(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "binary": pa.binary(),
    "words": pa.list_(pa.string()),
    "image": pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    # Not map<string, binary>: Hugging Face `datasets` refuses a file with a map column (its issue 5612).
    "sidecars": pa.list_(pa.struct([("name", pa.string()), ("data", pa.binary())])),
}
"""The types of an archive's columns, by the words that RowWriter takes."""

FEATURES: dict[str, Any] = {
    "image": {"_type": "Image"},
    "words": [{"dtype": "string", "_type": "Value"}],
    "sidecars": [{"name": {"dtype": "string", "_type": "Value"}, "data": {"dtype": "binary", "_type": "Value"}}],
}
"""What Hugging Face calls the columns that are not of one plain value."""


def features_of(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return the Hugging Face features in a file's metadata, by column; empty where there are none that can be read."""
    try:
        features = json.loads(metadata.get("huggingface", "{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return features if isinstance(features, dict) else {}


def is_text(kind: Any) -> bool:
    """Return whether a type's values are text."""
    return any(test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))


Place = tuple[str, ...]
"""Where in a row pictures are: a column, a field of its struct and so on, ``LISTED`` standing for every element of a list, and
``MAPPED`` for every value of a map."""

LISTED, MAPPED = "[]", "{}"


def binary_places(schema: Any, features: Mapping[str, Any]) -> Iterator[tuple[Place, bool]]:
    """Yield the places of a row that could hold pictures, and whether their shape says that they do.

    Those are structs with binary ``bytes``, and binary values, in columns, structs, lists and maps. A struct that the file's
    Hugging Face features call something else (Audio has the same shape) is none.
    """
    for each in schema:
        yield from _places((each.name,), each.type, features.get(each.name))


def _places(place: Place, kind: Any, feature: Any) -> Iterator[tuple[Place, bool]]:
    named = feature if isinstance(feature, Mapping) else {}
    if isinstance(kind, pa.BaseExtensionType):
        yield from _places(place, kind.storage_type, feature)
    elif is_image_struct(kind):
        if named.get("_type", "Image") == "Image":
            yield place, True
    elif pa.types.is_struct(kind):
        for each in kind:
            yield from _places((*place, each.name), each.type, named.get(each.name))
    elif _is_list(kind):
        inner = feature[0] if isinstance(feature, list) and feature else named.get("feature")
        yield from _places((*place, LISTED), kind.value_type, inner)
    elif pa.types.is_map(kind):
        yield from _places((*place, MAPPED), kind.item_type, None)
    elif is_binary(kind.value_type if pa.types.is_dictionary(kind) else kind):
        yield place, False


def values_at(value: Any, place: Place) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield each value that a place has in a plain row, with the names and numbers that lead to it; nothing for null ones."""
    if value is None:
        return
    if not place:
        yield (), value
    elif place[0] == LISTED:
        for number, each in enumerate(value):
            yield from (((str(number), *way), found) for way, found in values_at(each, place[1:]))
    elif place[0] == MAPPED:
        for name, each in value:
            yield from (((str(name), *way), found) for way, found in values_at(each, place[1:]))
    else:
        yield from (((place[0], *way), found) for way, found in values_at(value.get(place[0]), place[1:]))


def leaves_of(schema: Any) -> Iterator[tuple[str, Any]]:
    """Yield the Parquet path and the type of every leaf column."""
    for field in schema:
        yield from _type_leaves(field.name, field.type)


def is_binary(kind: Any) -> bool:
    """Return whether a type's values are bytes."""
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(test(kind) for test in tests)


def is_image_struct(kind: Any) -> bool:
    """Return whether a type is a struct with binary ``bytes``, as Hugging Face's Image is, and its Audio."""
    return pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 and is_binary(kind.field("bytes").type)


def plain_type(kind: Any) -> Any:
    """Return the type whose Python values are the plain ones: text for dates and decimals, whatever holds them."""
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    if pa.types.is_duration(kind) or pa.types.is_time64(kind):
        return pa.int64()
    if pa.types.is_time32(kind):
        return pa.int32()
    if pa.types.is_temporal(kind) or pa.types.is_decimal(kind):
        return pa.string()
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(plain_type(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(plain_type(kind.key_type), plain_type(kind.item_type))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(plain_type(kind.value_type)), kind.list_size)
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(plain_type(kind.value_type)))
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(plain_type(kind.value_type)))
    return kind


def fitted(value: Any, kind: Any) -> Any:
    """Return a plain value as pyarrow takes it for ``kind``, the inverse of reading it as ``plain_type(kind)``."""
    if value is None:
        return None
    if isinstance(value, str) and pa.types.is_decimal(kind):
        return Decimal(value)
    if isinstance(value, str) and pa.types.is_temporal(kind):
        moment: Any = pa.scalar(value).cast(kind)
        return moment.value  # an integer in the column's unit: datetime would cut off nanoseconds
    if isinstance(kind, pa.BaseExtensionType):
        return fitted(value, kind.storage_type)
    if is_binary(kind) and isinstance(value, str):
        return base64.b64decode(value)
    if kind == WORDS["sidecars"] and isinstance(value, Mapping):
        return [{"name": name, "data": value[name]} for name in sorted(value)]
    if pa.types.is_map(kind):
        pairs = value.items() if isinstance(value, Mapping) else value
        return [(fitted(key, kind.key_type), fitted(item, kind.item_type)) for key, item in pairs]
    if pa.types.is_dictionary(kind):
        return fitted(value, kind.value_type)
    if pa.types.is_struct(kind) and isinstance(value, Mapping):
        return {field.name: fitted(value.get(field.name), field.type) for field in kind}
    if _is_list(kind):
        return [fitted(item, kind.value_type) for item in value]
    return value


def payload_of(value: object) -> int:
    """Return roughly how many bytes a plain value takes: those of its texts and bytes, and 8 for anything else."""
    if isinstance(value, (bytes, str)):
        return len(value)
    if isinstance(value, Mapping):
        return sum(payload_of(part) for part in value.values())
    if isinstance(value, (list, tuple)):
        return sum(payload_of(part) for part in value)
    return 8


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
