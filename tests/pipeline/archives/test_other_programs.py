"""Shards as other programs open them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas
import pytest
from PIL import Image

from pipeline.archives.archive import Archive
from tests.support.archives import SHARDS, entry, original, write
from tests.support.pictures import photo, saved


@pytest.fixture
def shard_of_pictures(archive: Archive, spool: Path, tmp_path: Path) -> tuple[str, dict[str, Any]]:
    """The path of a shard with two WebP pictures and an original, and the pictures by key."""
    pictures = {f"{name}.jpg": photo(20, 30, seed=seed) for seed, name in enumerate("ab")}
    entries = [entry(key, lr=saved(pixels, "WEBP", lossless=True), lr_sha256=None) for key, pixels in pictures.items()]
    write(archive, [*entries, original("c.gif", b"GIF")], spool)
    return str(tmp_path / "archive" / "shards" / f"{SHARDS[0].id}.parquet"), pictures


def shown(data: bytes) -> Any:
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGB"))


def test_duckdb_opens_a_shard(shard_of_pictures: tuple[str, dict[str, Any]]) -> None:
    """Protects the promise that anybody's tools show the LRs: here by SQL."""
    path, pictures = shard_of_pictures
    with duckdb.connect() as connection:
        query = "SELECT key, lr.bytes, lr.path, psnr FROM read_parquet(?) WHERE kind = 'rescaled' ORDER BY key"
        rows = connection.execute(query, [path]).fetchall()
        counted = connection.execute(
            "SELECT kind, count(*) FROM read_parquet(?) GROUP BY kind ORDER BY kind", [path]
        ).fetchall()
    assert [(row[0], row[2], row[3]) for row in rows] == [("a.jpg", "a.webp", 40.5), ("b.jpg", "b.webp", 40.5)]
    assert all((shown(row[1]) == pictures[row[0]]).all() for row in rows)
    assert counted == [("original", 1), ("rescaled", 2)]


def test_pandas_opens_a_shard(shard_of_pictures: tuple[str, dict[str, Any]]) -> None:
    """Protects the promise that anybody's tools show the LRs: here as a data frame."""
    path, pictures = shard_of_pictures
    frame = pandas.read_parquet(path).set_index("key")
    assert list(frame.index) == ["a.jpg", "b.jpg", "c.gif"]
    for key, pixels in pictures.items():
        assert (shown(frame.loc[key, "lr"]["bytes"]) == pixels).all()
    assert frame.loc["c.gif", "lr"] is None
    assert frame.loc["c.gif", "original"] == b"GIF"
