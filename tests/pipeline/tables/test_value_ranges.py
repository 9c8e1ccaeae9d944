"""Values in pieces: where in a file the bytes of a value are, and Zstandard as a stream; kept footers are of one version."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.core.errors import DamagedShard
from pipeline.pictures import codecs
from pipeline.stores.store import LocalStore
from pipeline.tables.pages import value_start
from pipeline.tables.reader import RowReader
from pipeline.tables.seal import Footers
from pipeline.tables.writer import GROUP_BYTES, RowWriter
from pipeline.tables.zstandard import decompressed

COLUMNS = {"key": "string", "data": "binary", "lr": "image", "sidecars": "sidecars"}


def written(path: Path, *rows: dict[str, object]) -> bytes:
    """Return a sealed file of these rows."""
    path.unlink(missing_ok=True)
    with RowWriter(path, COLUMNS, {}) as writer:
        for row in rows:
            writer.append({"key": "k", "data": None, "lr": None, "sidecars": {}, **row})
    return path.read_bytes()


@settings(suppress_health_check=list(HealthCheck))
@given(size=st.sampled_from([0, 1, 3, 255, 2**16, GROUP_BYTES]) | st.integers(0, 2 * GROUP_BYTES), seed=st.integers(0, 9))
def test_the_value_of_a_row_is_found(tmp_path: Path, size: int, seed: int) -> None:
    """Protects ranges: whatever its length and its bytes, the value is exactly those bytes of the file, in a struct as well."""
    value = np.random.default_rng(seed).bytes(size) if seed else b"\4\0\0\0" * (size // 4)
    data = written(tmp_path / "a.parquet", {"data": value, "lr": {"bytes": value[::-1], "path": "x"}})
    reader = RowReader(io.BytesIO(data), "a", sealed=True)
    for column, expected in (("data", value), ("lr.bytes", value[::-1])):
        found = reader.value_range(0, column)
        assert found is not None
        assert data[slice(*found)] == expected


def test_what_has_no_place_of_its_own_has_none(tmp_path: Path) -> None:
    """Protects readers from wrong bytes: of nulls, of several rows, of compressed columns and of none nothing is told."""
    path = tmp_path / "a.parquet"
    one = RowReader(io.BytesIO(written(path, {"sidecars": {"txt": b"x" * 1000}})), "a", sealed=True)
    for column in ("data", "lr.bytes", "sidecars", "sidecars.list.element.data", "none"):
        assert one.value_range(0, column) is None
    two = RowReader(io.BytesIO(written(path, {"data": b"x"}, {"data": b"y"})), "a", sealed=True)
    assert two.value_range(0, "data") is None


@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
def test_frames_are_a_stream(size: int) -> None:
    """Protects memory and bytes: several frames come as one run of pieces, and what stands behind them is not asked for."""
    source = np.random.default_rng(3).integers(0, 4, size, np.uint8).tobytes()
    parts = [source[start : start + 1_000_000] for start in range(0, size, 1_000_000)]
    coded = b"".join(codecs.compress_zstd(part, level=3) for part in parts)
    pieces = list(decompressed(io.BytesIO(coded + b"what is behind"), "a", size=size, piece=100_000))
    assert b"".join(pieces) == source
    assert max(map(len, pieces), default=0) <= 100_000


def test_damaged_frames_are_told() -> None:
    """Protects readers: frames that end early, or are none, are damage."""
    coded = codecs.compress_zstd(b"some bytes" * 1000, level=3)
    for data in (coded, coded[:-4], b"no frame at all", b""):
        with pytest.raises(DamagedShard):
            list(decompressed(io.BytesIO(data), "a", size=20_000, piece=1000))


def test_a_kept_footer_is_of_one_version(tmp_path: Path) -> None:
    """Protects against a mix of old footer and new bytes: of a file of the same size that took another's place it is read."""
    store, footers = LocalStore(tmp_path), Footers(10**6)
    for value in (b"first", b"other"):
        written(tmp_path / "a.parquet", {"key": value.decode(), "data": value})
        for _ in range(2):
            with store.open("a.parquet") as file:
                reader = RowReader(file, "a", sealed=True, footers=footers)
                assert reader.key_ranges("key") == [(value.decode(), value.decode())]
    assert (footers.state.values, footers.state.hits) == (2, 2)


@given(st.binary(max_size=60), st.integers(0, 300))
def test_any_bytes_are_read_as_a_page(head: bytes, size: int) -> None:
    """Protects the service: bytes that are no page have no value, or one within the page, and no error comes of them."""
    start = value_start(head, size)
    assert start is None or 8 <= start <= size
