"""A Parquet file to its assets: every image of every row, its other columns beside it."""

from __future__ import annotations

import base64
import io
import json
import random
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.assets.rows import source_image_column, source_row, source_schema, why_no_images
from pipeline.assets.shards import read_assets
from pipeline.core.errors import NoImageColumn
from pipeline.core.records import ShardKind, SourceShard
from pipeline.stores.store import Store
from pipeline.tables.writer import RowWriter
from tests.support.shards import JPEG, PNG, keys, read_damaged, shard_of


def parquet_shard(folder: Path, columns: dict[str, Any], **options: Any) -> tuple[Store, SourceShard]:
    """Write columns to a Parquet file and return it as a shard."""
    return shard_of(folder, ShardKind.PARQUET, {"x.parquet": parquet_bytes(pa.table(columns), **options)})


def parquet_bytes(table: pa.Table, **options: Any) -> bytes:
    """Return a Parquet file that holds a table."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


def test_parquet_rows_are_assets_with_their_columns(tmp_path: Path) -> None:
    """Protects Hugging Face's layout: the image struct is found, the path is the name, every other column travels."""
    store, shard = parquet_shard(
        tmp_path,
        {
            "image": [{"bytes": JPEG, "path": "a/1.jpg"}, {"bytes": PNG, "path": None}, None, {"bytes": None, "path": "4.jpg"}],
            "label": [1, None, 3, 4],
            "score": [float("nan"), 0.5, 1.5, 2.5],
            "day": [date(2024, 2, 29)] * 4,
            "price": [Decimal("1.50")] * 4,
            "tags": [["ä", "b"], [], None, ["c"]],
            "depth": [b"\x00\x01", None, b"", b"3"],
            "parts": [[{"mask": b"\xff", "n": 1}], [], [], []],
        },
    )
    assets = list(read_assets(store, shard))
    assert keys(assets) == ["a/1.jpg", "00000001.png", "00000002", "4.jpg"]
    assert [asset.data for asset in assets] == [JPEG, PNG, None, None]
    assert [asset.note for asset in assets] == [None, None, "row 2 has no image", "row 3 has the path 4.jpg but no image"]
    assert assets[0].sidecars["depth"] == b"\x00\x01"
    text = assets[0].sidecars["json"].decode("utf-8")
    assert '"score": NaN' in text
    assert "ä" in text
    row = json.loads(text)
    assert list(row) == sorted(row)
    assert row["image"] == {"path": "a/1.jpg"}
    assert row["label"] == 1
    assert row["day"] == "2024-02-29"
    assert row["price"] == "1.50"
    assert row["parts"] == [{"mask": base64.b64encode(b"\xff").decode(), "n": 1}]
    assert "depth" not in row
    assert "depth" not in assets[1].sidecars


@pytest.mark.parametrize("column", ["key", "__key__", "id", "name", "filename"])
def test_parquet_rows_are_named_by_their_key_column(tmp_path: Path, column: str) -> None:
    """Protects names: a text column names the row, its image's kind the extension where the name has none."""
    store, shard = parquet_shard(tmp_path, {"picture": [JPEG, PNG, PNG], column: ["cat", "v1.5", "dog.jpg"]})
    assets = list(read_assets(store, shard))
    assert keys(assets) == ["cat.jpg", "v1.5.png", "dog.jpg"]
    assert json.loads(assets[0].sidecars["json"]) == {column: "cat"}


def test_parquet_keys_are_unique_and_safe(tmp_path: Path) -> None:
    """Protects rows of one name and rows with a name that leads out of the destination."""
    store, shard = parquet_shard(tmp_path, {"image": [JPEG, JPEG, JPEG], "id": ["a", "a", "../a"], "json": [b"1", b"2", b"3"]})
    assets = list(read_assets(store, shard))
    assert keys(assets) == ["a.jpg", "a~2.jpg", "%2E%2E/a.jpg"]
    assert [asset.sidecars["json"] for asset in assets] == [b"1", b"2", b"3"]
    assert json.loads(assets[0].sidecars["columns.json"]) == {"id": "a"}


JSON_COLUMNS = {
    "string": pa.array(["{}", None, '{"id": 1}']),
    "struct": pa.array([{"a": 1}, None, {"a": None}]),
    "binary": pa.array([b"[1]", None, b""]),
}
IMAGES = {
    "struct": pa.array([{"bytes": JPEG, "path": "1.jpg"}, {"bytes": PNG, "path": None}, None]),
    "plain": pa.array([JPEG, PNG, None]),
}


@pytest.mark.parametrize("named", [["json"], ["json", "columns.json"]])
@pytest.mark.parametrize("images", list(IMAGES))
@pytest.mark.parametrize("kind", list(JSON_COLUMNS))
def test_a_parquet_column_called_json_goes_there_and_back(tmp_path: Path, kind: str, images: str, named: list[str]) -> None:
    """Protects a restore to the source's columns where one is called like the sidecar that holds them, null or not."""
    table = pa.table({"id": ["a", "b", "c"], **dict.fromkeys(named, JSON_COLUMNS[kind]), "image": IMAGES[images]})
    store, shard = shard_of(tmp_path, ShardKind.PARQUET, {"x.parquet": parquet_bytes(table)})
    schema = source_schema(store, shard)
    assert schema is not None
    with RowWriter.from_schema(tmp_path / "back.parquet", schema) as writer:
        for asset in read_assets(store, shard, image_column="image"):
            writer.append(source_row(table.column_names, "image", asset.data, asset.sidecars))
    assert pq.read_table(tmp_path / "back.parquet").equals(table)


def test_parquet_image_columns_are_found_or_named(tmp_path: Path) -> None:
    """Protects the choice of columns: all that hold images are found, or one is named, or it is refused in one sentence."""
    columns = {"left": [JPEG], "right": [PNG], "text": ["x"], "blob": [b"none"]}
    store, shard = parquet_shard(tmp_path, columns)
    assert keys(list(read_assets(store, shard))) == ["00000000#left.jpg", "00000000#right.png"]
    (asset,) = read_assets(store, shard, image_column="right")
    assert asset.data == PNG
    assert asset.sidecars["left"] == JPEG
    for name in ("middle", "text"):
        with pytest.raises(NoImageColumn, match="Name it with --image-column"):
            list(read_assets(store, shard, image_column=name))
    with pytest.raises(NoImageColumn):
        list(read_assets(*parquet_shard(tmp_path / "none", {"text": ["x"], "blob": [b"none"]})))


STRUCT = {"bytes": JPEG, "path": "p/1.jpg"}
PLACES: dict[str, tuple[dict[str, Any], dict[str, bytes], dict[str, Any]]] = {
    "columns": (
        {"id": ["r"], "image": [STRUCT], "mask": [{"bytes": PNG, "path": None}], "none": pa.array([None], pa.binary())},
        {"r#image.jpg": JPEG, "r#mask.png": PNG},
        {"id": "r", "image": {"path": "p/1.jpg"}, "mask": {"path": None}, "none": None},
    ),
    "list": (
        {"images": [[STRUCT, {"bytes": None, "path": "gone.jpg"}, {"bytes": PNG, "path": None}]], "text": ["t"]},
        {"p/1#images#0.jpg": JPEG, "p/1#images#2.png": PNG},
        {"images": [{"path": "p/1.jpg"}, {"bytes": None, "path": "gone.jpg"}, {"path": None}], "text": "t"},
    ),
    "plain list": (
        {"pages": [[JPEG, PNG]]},
        {"00000000#pages#0.jpg": JPEG, "00000000#pages#1.png": PNG},
        {"pages": [None, None]},
    ),
    "struct": (
        {"id": ["r.jpg"], "sample": [{"image": STRUCT, "label": 3}]},
        {"r.jpg": JPEG},
        {"id": "r.jpg", "sample": {"image": {"path": "p/1.jpg"}, "label": 3}},
    ),
    "map": (
        {"id": ["r"], "views": pa.array([[("left", JPEG), ("b/right", PNG)]], pa.map_(pa.string(), pa.binary()))},
        {"r#views#left.jpg": JPEG, "r#views#b/right.png": PNG},
        {"id": "r", "views": [["left", None], ["b/right", None]]},
    ),
    "dictionary": ({"id": ["r"], "img": pa.array([PNG]).dictionary_encode()}, {"r.png": PNG}, {"id": "r"}),
}
"""Images where people have them in a table: its columns, the assets of its one row, and the text beside each."""


@pytest.mark.parametrize("case", PLACES)
def test_parquet_images_are_found_wherever_they_are(tmp_path: Path, case: str) -> None:
    """Protects tables of several images in a row, in lists, structs or maps, or encoded by a dictionary: each is an asset."""
    columns, found, text = PLACES[case]
    assets = list(read_assets(*parquet_shard(tmp_path, columns)))
    assert {asset.key: asset.data for asset in assets} == found
    assert [asset.note for asset in assets] == [None] * len(found)
    assert [json.loads(asset.sidecars["json"]) for asset in assets] == [text] * len(found)
    if case == "dictionary":
        store, shard = parquet_shard(tmp_path, columns)
        schema = source_schema(store, shard)
        assert schema is not None
        with RowWriter.from_schema(tmp_path / "back.parquet", schema) as writer:
            writer.append(source_row(tuple(columns), "img", PNG, assets[0].sidecars))
        assert pq.read_table(tmp_path / "back.parquet").equals(pa.table(columns))


def test_images_that_come_late_in_a_column_are_told(tmp_path: Path) -> None:
    """Protects a column whose first values are no images: the table is left out with what was looked at, and can be named."""
    store, shard = parquet_shard(tmp_path, {"blob": [b"none"] * 9 + [JPEG], "text": ["t"] * 10})
    why = why_no_images(store, shard.objects[0], None) or ""
    assert "the first 8 values in blob begin as none; --image-column takes one all the same" in why
    assert why_no_images(store, shard.objects[0], "blob") is None
    assert [asset.data for asset in read_assets(store, shard, image_column="blob")][-1] == JPEG
    table = parquet_shard(tmp_path / "text", {"text": ["t"]})
    assert "begin as none" not in (why_no_images(table[0], table[1].objects[0], None) or "")


def test_parquet_row_of_several_columns_without_an_image_is_told(tmp_path: Path) -> None:
    """Protects the count of rows: one without any image is an asset that says so, one with some has those."""
    rows = {"left": pa.array([JPEG, None, None]), "right": pa.array([None, None, PNG]), "raw": [b"1", b"2", b"3"]}
    assets = list(read_assets(*parquet_shard(tmp_path, rows)))
    assert keys(assets) == ["00000000#left.jpg", "00000001", "00000002#right.png"]
    assert [asset.note for asset in assets] == [None, "row 1 has no image", None]
    assert [asset.sidecars["raw"] for asset in assets] == [b"1", b"2", b"3"]


def test_parquet_without_rows_has_no_assets(tmp_path: Path) -> None:
    """Protects datasets with an empty part: it is done, not refused."""
    store, shard = parquet_shard(tmp_path, {"image": pa.array([], pa.binary())})
    assert list(read_assets(store, shard)) == []


def test_parquet_schema_is_handed_on(tmp_path: Path) -> None:
    """Protects restores to Parquet, which write the source's own columns again."""
    store, shard = parquet_shard(tmp_path, {"image": [JPEG], "label": pa.array([1], pa.int8())})
    schema = source_schema(store, shard)
    assert schema is not None
    assert pa.ipc.read_schema(pa.py_buffer(schema)).field("label").type == pa.int8()
    assert source_image_column(store, shard) == "image"
    assert source_image_column(*shard_of(tmp_path / "s", ShardKind.TAR, {"x.tar": b""})) is None
    assert source_schema(*shard_of(tmp_path / "t", ShardKind.TAR, {"x.tar": b""})) is None


def test_damaged_parquet_gives_the_rows_before_the_damage(tmp_path: Path) -> None:
    """Protects the good row groups of a Parquet file with a broken one, and tells of a file that is cut or none at all."""
    images = [JPEG + random.Random(number).randbytes(5000) for number in range(10)]
    buffer = io.BytesIO()
    pq.write_table(
        pa.table({"image": images}),
        buffer,
        row_group_size=2,
        compression="zstd",
        use_dictionary=False,
        write_page_checksum=True,
    )
    data = bytearray(buffer.getvalue())
    at = bytes(data).find(images[6][:200])
    data[at + 100] ^= 0xFF
    assets, error = read_damaged(*shard_of(tmp_path, ShardKind.PARQUET, {"x.parquet": bytes(data)}))
    assert [asset.data for asset in assets] == images[:6]
    assert "x.parquet is damaged" in str(error)
    for number, other in enumerate((b"", b"PAR1", JPEG * 10, bytes(data[: len(data) // 2]))):
        assets, _ = read_damaged(*shard_of(tmp_path / str(number), ShardKind.PARQUET, {"x.parquet": other}))
        assert assets == []
