"""Parquet rows: what goes in comes out, in bounded memory, and damage is told and never decoded."""

from __future__ import annotations

import base64
import datetime
import decimal
import io
import json
import os
import random
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.errors import DamagedEntry, DamagedShard, PipelineError, StoreUnavailable, UnsupportedShard
from pipeline.tables.reader import RowReader
from pipeline.tables.writer import GROUP_BYTES, GROUP_ROWS, RowWriter

COLUMNS = {
    "key": "string",
    "count": "int32",
    "size": "int64",
    "psnr": "float64",
    "data": "binary",
    "lr": "image",
    "sidecars": "sidecars",
}
ROW: dict[str, Any] = {
    "key": "ä/1.jpg",
    "count": -3,
    "size": 2**40,
    "psnr": float("inf"),
    "data": b"\0\1",
    "lr": {"bytes": b"RIFF", "path": "ä/1.webp"},
    "sidecars": [{"name": "json", "data": b"{}"}, {"name": "txt", "data": b""}],
}
WIDE = "\U0001f5bc"  # beyond the first plane: where UTF-8 and UTF-16 order differ


def write(path: Path, rows: list[dict[str, Any]], columns: dict[str, str] = COLUMNS) -> bytes:
    with RowWriter(path, columns, {"who": "the test"}) as writer:
        for row in rows:
            writer.append(row)
    return path.read_bytes()


def read(data: bytes, *, sealed: bool = True) -> list[dict[str, Any]]:
    reader = RowReader(io.BytesIO(data), "shard", sealed=sealed)
    reader.key_ranges("key")
    return list(reader.rows())


def foreign(tmp_path: Path, table: pa.Table, **options: Any) -> bytes:
    pq.write_table(table, tmp_path / "foreign.parquet", **options)
    return (tmp_path / "foreign.parquet").read_bytes()


def test_rows_come_back_with_nulls_metadata_and_types(tmp_path: Path) -> None:
    """Protects every type word, nulls in each, and the footer's names, early and late."""
    path = tmp_path / "a.parquet"
    empty = dict.fromkeys(COLUMNS)
    with RowWriter(path, COLUMNS, {"early": "1"}) as writer:
        writer.append({**ROW, "sidecars": {"txt": b"", "json": b"{}"}})
        writer.append({})
        writer.add_metadata({"late": "ü"})
    with path.open("rb") as file:
        reader = RowReader(file, "a", sealed=True)
        assert list(reader.rows()) == [ROW, empty]
        assert reader.columns == tuple(COLUMNS)
        assert reader.num_rows == 2
        assert reader.metadata["early"] == "1"
        assert reader.metadata["late"] == "ü"
        features = json.loads(reader.metadata["huggingface"])["info"]["features"]
        assert features["lr"] == {"_type": "Image"}
        assert features["psnr"] == {"dtype": "float64", "_type": "Value"}


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "key": st.text(st.characters(codec="utf-8"), max_size=9) | st.just(WIDE),
            "data": st.none() | st.binary(max_size=40),
            "sidecars": st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=3), st.binary(max_size=3), max_size=3),
        }
    ),
    max_size=70,
)


@given(rows=ROWS)
def test_any_rows_come_back_and_the_bytes_are_determined(rows: list[dict[str, Any]], tmp_path_factory: Any) -> None:
    """Protects the round trip, and that the same rows are the same file: a repeated shard has to have the same digest."""
    folder = tmp_path_factory.mktemp("rows")
    columns = {"key": "string", "data": "binary", "sidecars": "sidecars"}
    data = write(folder / "a.parquet", rows, columns)
    assert data == write(folder / "b.parquet", rows, columns)
    found = read(data)
    assert [{**row, "sidecars": {s["name"]: s["data"] for s in row["sidecars"]}} for row in found] == rows
    ranges = RowReader(io.BytesIO(data), "a").key_ranges("key")
    for group, told in enumerate(ranges):
        keys = [row["key"] for row in rows[group * GROUP_ROWS : (group + 1) * GROUP_ROWS]]
        assert told is None or told == (min(keys), max(keys))


def test_row_groups_hold_one_large_row_or_a_few_small_ones(tmp_path: Path) -> None:
    """Protects the cost of reading one entry: its row group."""
    sizes = [10] * 40 + [200_000] * 3 + [100_000] * 4 + [3 * GROUP_BYTES, 10]
    rows = [{"key": f"{index:03}", "data": bytes(size)} for index, size in enumerate(sizes)]
    data = write(tmp_path / "a.parquet", rows, {"key": "string", "data": "binary"})
    reader = RowReader(io.BytesIO(data), "a", sealed=True)
    groups = [[len(row["data"]) for row in reader.row_group(group)] for group in range(reader.num_row_groups)]
    assert groups == [
        [10] * 32,
        [10] * 8 + [200_000],
        [200_000],
        [200_000],
        [100_000] * 2,
        [100_000] * 2,
        [3 * GROUP_BYTES],
        [10],
    ]
    assert reader.key_ranges("key")[-1] == ("048", "048")
    assert reader.key_ranges("data")[0] is None


def test_only_text_is_compressed(tmp_path: Path) -> None:
    """Protects the time that compressing compressed pictures would take."""
    data = write(tmp_path / "a.parquet", [ROW])
    group = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0)
    found = {group.column(i).path_in_schema: group.column(i).compression for i in range(group.num_columns)}
    assert {name for name, codec in found.items() if codec == "UNCOMPRESSED"} == {
        "data",
        "lr.bytes",
    }
    assert set(found.values()) == {"UNCOMPRESSED", "ZSTD"}


def test_columns_and_fields_are_selected(tmp_path: Path) -> None:
    """Protects reading a struct's small field without its large one, and the error for a column that is not there."""
    reader = RowReader(io.BytesIO(write(tmp_path / "a.parquet", [ROW, ROW])), "a")
    assert list(reader.rows(["key", "lr.path"])) == [{"key": "ä/1.jpg", "lr": {"path": "ä/1.webp"}}] * 2
    with pytest.raises(DamagedShard, match="it has no column nothing"):
        list(reader.rows(["nothing"]))


def test_an_unknown_column_and_an_exception_leave_no_file(tmp_path: Path) -> None:
    """Protects against a typo that drops a field, and against half a file that looks whole."""
    with pytest.raises(ValueError, match="no column kye among"), RowWriter(tmp_path / "a.parquet", COLUMNS, {}) as writer:
        writer.append({"kye": "a"})
    assert not (tmp_path / "a.parquet").exists()


def test_a_full_disk_is_ours(tmp_path: Path) -> None:
    """Protects the translation of what pyarrow raises when it cannot write."""
    with pytest.raises(StoreUnavailable, match="missing"):
        RowWriter(tmp_path / "missing" / "a.parquet", COLUMNS, {})


@pytest.mark.slow
def test_no_flipped_byte_changes_a_row(tmp_path: Path) -> None:
    """Protects against decoding damage, in pages, their headers and the footer, and against pyarrow ending the process.

    Some bits of a page's header mean nothing to a reader: the rows are the same then, and only then.
    """
    data = write(tmp_path / "a.parquet", [{**ROW, "data": random.Random(0).randbytes(500)}, ROW])
    whole = read(data)
    dice = random.Random(1)
    refused = 0
    for position in range(4, len(data)):  # the mark at the beginning is read by nothing
        damaged = bytearray(data)
        damaged[position] ^= 1 << dice.randrange(8)
        try:
            assert read(bytes(damaged)) == whole
        except DamagedShard:
            refused += 1
    assert refused > 0.97 * len(data)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    """Protects against taking a part of a file for a whole, ours or another's."""
    data = write(tmp_path / "a.parquet", [ROW])
    for length in [*range(0, len(data), 37), len(data) - 1]:
        for sealed in (True, False):
            with pytest.raises(DamagedShard):
                read(data[:length], sealed=sealed)


def test_a_long_footer_is_checked_too(tmp_path: Path) -> None:
    """Protects shards of so many row groups that their footer is not in the first read."""
    with RowWriter(tmp_path / "a.parquet", COLUMNS, {"long": "x" * 200_000}) as writer:
        writer.append(ROW)
    data = (tmp_path / "a.parquet").read_bytes()
    assert read(data) == [ROW]
    damaged = bytearray(data)
    damaged[-150_000] ^= 1
    with pytest.raises(DamagedShard, match="check sum"):
        read(bytes(damaged))


def test_foreign_damage_is_ours(tmp_path: Path) -> None:
    """Protects the error tree when a source is damaged that has no check sums; values may differ there, nothing else."""
    table = pa.table({"key": ["a", "b"] * 50, "image": [b"x" * 100] * 100, "when": [datetime.datetime(2020, 1, 2)] * 100})
    data = foreign(tmp_path, table)
    dice = random.Random(2)
    refused = 0
    for position in dice.sample(range(4, len(data)), 700):
        damaged = bytearray(data)
        damaged[position] ^= 1 << dice.randrange(8)
        try:
            list(RowReader(io.BytesIO(damaged), "source").rows())
        except PipelineError:
            refused += 1
    assert refused > 100
    with pytest.raises(DamagedShard, match="check sum"):
        RowReader(io.BytesIO(data), "source", sealed=True)


def test_errors_of_the_file_pass_through(tmp_path: Path) -> None:
    """Protects the difference between a store that fails and a file that is broken: only one of them may be tried again."""

    class Failing(io.BytesIO):
        broken = False

        def read(self, size: int | None = -1) -> bytes:
            if self.broken:
                raise StoreUnavailable("s3://bucket/a", "it hung up")
            return super().read(size)

    file = Failing(write(tmp_path / "a.parquet", [ROW]))
    reader = RowReader(file, "a", sealed=True)
    file.broken = True
    with pytest.raises(StoreUnavailable):
        list(reader.rows())
    with pytest.raises(StoreUnavailable):
        RowReader(file, "a")


def every_type() -> pa.Table:
    day, moment = datetime.date(2020, 1, 2), datetime.datetime(2020, 1, 2, 3, 4, 5, 6)
    number = decimal.Decimal("-1.20")
    return pa.table(
        {
            "ns": pa.array([1, None, 1700000000123456789], pa.timestamp("ns", "Europe/Paris")),
            "us": pa.array([moment, None, datetime.datetime(1, 1, 1)], pa.timestamp("us")),
            "date": pa.array([day, None, datetime.date(9999, 12, 31)]),
            "time": pa.array([datetime.time(1, 2, 3, 4), None, datetime.time(0)]),
            "decimal": pa.array([number, None, decimal.Decimal("3.00")]),
            "duration": pa.array([1, None, -3], pa.duration("ms")),
            "dictionary": pa.array(["a", None, "b"]).dictionary_encode(),
            "fixed": pa.array([b"ab", None, b"cd"], pa.binary(2)),
            "dates": pa.array([[day, None], [], None]),
            "map": pa.array([[("a", number)], [], None], pa.map_(pa.string(), pa.decimal128(5, 2))),
            "struct": pa.array([{"n": number, "t": moment}, None, {"n": None, "t": None}]),
            "uuid": pa.array([uuid.UUID(int=5).bytes, None, uuid.UUID(int=6).bytes], pa.uuid()),
            "large": pa.array([b"1", None, b""], pa.large_binary()),
            "half": pa.array([1.5, None, -2], pa.float16()),
            "pair": pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int8(), 2)),
            "flag": pa.array([True, None, False]),
            "null": pa.nulls(3),
            "image": pa.array([{"bytes": b"PNG", "path": "x"}, None, {"bytes": b"", "path": None}]),
        }
    ).replace_schema_metadata({"huggingface": "{}"})


def test_another_files_rows_come_back_in_its_own_schema(tmp_path: Path) -> None:
    """Protects a restore to Parquet: nanoseconds, time zones, decimals and nested types survive the way through JSON."""
    data = foreign(tmp_path, every_type())
    reader = RowReader(io.BytesIO(data), "source")
    with RowWriter.from_schema(tmp_path / "b.parquet", reader.schema_bytes) as writer:
        for row in reader.rows():
            text = json.dumps(row, default=lambda data: base64.b64encode(data).decode())
            writer.append(json.loads(text))
    assert pq.read_table(tmp_path / "b.parquet").equals(pq.read_table(io.BytesIO(data)), check_metadata=True)


def test_values_that_do_not_fit_a_schema_are_ours(tmp_path: Path) -> None:
    """Protects the error tree when a sidecar was edited by hand, or a stored schema is broken."""
    schema = pa.schema({"when": pa.date32(), "count": pa.int8()}).serialize().to_pybytes()
    for row in ({"when": "yesterday"}, {"count": 1000}, {"count": "many"}):
        with pytest.raises(DamagedEntry, match="column"), RowWriter.from_schema(tmp_path / "a.parquet", schema) as writer:
            writer.append(row)
    with pytest.raises(DamagedEntry, match="Parquet schema"):
        RowWriter.from_schema(tmp_path / "a.parquet", schema[:40])


@pytest.mark.parametrize("group_rows", [1, 2, 100])
def test_a_row_that_does_not_fit_costs_no_other(tmp_path: Path, group_rows: int) -> None:
    """Protects the rows around a bad one, whatever row group it would be in: it alone is refused, when it is added."""
    schema = pa.schema({"count": pa.int8()}).serialize().to_pybytes()
    with RowWriter.from_schema(tmp_path / "a.parquet", schema, group_rows=group_rows) as writer:
        writer.append({"count": 1})
        with pytest.raises(DamagedEntry, match="count"):
            writer.append({"count": 1000})
        writer.append({"count": 2})
        writer.append({"count": 3})
    assert pq.read_table(tmp_path / "a.parquet").column("count").to_pylist() == [1, 2, 3]


def test_a_failed_flush_does_not_poison_the_next(tmp_path: Path) -> None:
    """Protects later row groups: what could not be written is let go of, and is not tried again with them."""
    with RowWriter(tmp_path / "a.parquet", {"count": "int32"}, {}) as writer:
        for _ in range(GROUP_ROWS - 1):
            writer.append({"count": 0})
        with pytest.raises(DamagedEntry, match="count"):
            writer.append({"count": "many"})
        writer.append({"count": 1})
    assert pq.read_table(tmp_path / "a.parquet").column("count").to_pylist() == [1]


def test_image_columns_are_told_by_shape_feature_and_content(tmp_path: Path) -> None:
    """Protects the choice of a source's image column: structs, plain binary, and what only looks like one."""
    struct = [{"bytes": b"PNG", "path": None}]
    features = {"struct": {"_type": "Image"}, "sound": {"_type": "Audio"}}
    table = pa.table(
        {
            "key": ["a"] * 3,
            "plain": pa.array([None, b"broken", b"PNG"]),
            "large": pa.array([None, None, b"PNG"], pa.large_binary()),
            "other": [b"zip"] * 3,
            "none": pa.nulls(3, pa.binary()),
            "struct": struct * 3,
            "sound": struct * 3,
            "bare": struct * 3,
        }
    ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    reader = RowReader(io.BytesIO(foreign(tmp_path, table)), "a")
    assert reader.image_places(lambda data: data == b"PNG") == (("plain",), ("large",), ("struct",), ("bare",))


STREAM = """
import resource, sys
from pipeline.tables.reader import RowReader
with open(sys.argv[1], "rb") as file:
    rows = RowReader(file, "a").rows()
    next(rows)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    total = sum(len(row["image"]) for row in rows)
    print(total, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_one_huge_row_group_is_streamed(tmp_path: Path) -> None:
    """Protects bounded memory on sources that others wrote as a single row group."""
    image = pa.array([os.urandom(2**20)] * 200)
    pq.write_table(pa.table({"image": image}), tmp_path / "a.parquet", use_dictionary=False, compression="none")
    assert pq.ParquetFile(tmp_path / "a.parquet").num_row_groups == 1
    run = [sys.executable, "-c", STREAM, str(tmp_path / "a.parquet")]
    total, growth = map(int, subprocess.run(run, check=True, capture_output=True, text=True).stdout.split())
    assert total == 199 * 2**20
    assert growth < 64 * 1024  # KiB


def test_columns_of_one_name_are_refused() -> None:
    """Protects tables with a name twice, as pyarrow writes them: a row by names would hold one of the two."""
    file = io.BytesIO()
    pq.write_table(pa.Table.from_arrays([pa.array([b"a"]), pa.array(["b"]), pa.array(["c"])], names=["image", "t", "t"]), file)
    with pytest.raises(UnsupportedShard, match="several of its columns are called t;"):
        RowReader(file, "x.parquet")


def test_empty_values_tell_nothing_of_a_column() -> None:
    """Protects tables whose first rows have no picture yet."""
    file = io.BytesIO()
    pq.write_table(pa.table({"image": pa.array([b""] * 20 + [b"picture"])}), file)
    assert RowReader(file, "x.parquet").image_places(lambda data: data == b"picture") == (("image",),)
