"""Shards of any kind to assets; tars and Parquet files have tests of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.assets.samples import image_extension
from pipeline.assets.shards import read_assets
from pipeline.core.errors import SourceChanged
from pipeline.core.records import Asset, ShardKind
from tests.support.shards import JPEG, PNG, shard_of


def test_files_are_assets_with_their_sidecars(tmp_path: Path) -> None:
    """Protects folders: a key per image, sidecars read along, other dotted names not mixed up."""
    files = {
        "a/x.jpg": JPEG,
        "a/x.png": PNG,
        "a/x.seg.json": b"{}",
        "a/x.txt": b"1",
        "a/z.12.jpg": JPEG,
        "a/z.13.jpg": PNG,
        "a/z.13.json": b"13",
        "empty.jpg": b"",
    }
    assets = list(read_assets(*shard_of(tmp_path, ShardKind.FILES, files)))
    assert assets == [
        Asset(key="a/x.jpg", data=JPEG, sidecars={"seg.json": b"{}", "txt": b"1"}),
        Asset(key="a/x.png", data=PNG),
        Asset(key="a/z.12.jpg", data=JPEG),
        Asset(key="a/z.13.jpg", data=PNG, sidecars={"13.json": b"13"}),
        Asset(key="empty.jpg", data=b""),
    ]


@pytest.mark.parametrize("kind", list(ShardKind))
def test_object_that_changed_since_the_plan_is_refused(tmp_path: Path, kind: ShardKind) -> None:
    """Protects the plan: what it names by ETag is what is read, or nothing is."""
    store, shard = shard_of(tmp_path, kind, {"x.jpg": JPEG})
    (tmp_path / "x.jpg").write_bytes(JPEG + b"other")
    with pytest.raises(SourceChanged):
        list(read_assets(store, shard))


def test_extensions_are_told_by_content() -> None:
    """Protects the names of unnamed rows: the formats that turn up in datasets are recognised, text is not."""
    begin = {
        "jpg": JPEG,
        "png": PNG,
        "gif": b"GIF89a",
        "webp": b"RIFF\0\0\0\0WEBPVP8L",
        "tif": b"II*\0\0\0",
        "avif": b"\0\0\0\x20ftypavif",
        "jxl": b"\xff\x0a",
        "jp2": b"\0\0\0\x0cjP  \r\n\x87\n",
        "bmp": b"BM" + bytes(12) + (40).to_bytes(4, "little"),
    }
    assert {extension: image_extension(data) for extension, data in begin.items()} == {name: name for name in begin}
    assert [image_extension(data) for data in (b"", b"text", b"BMW", b"RIFF\0\0\0\0WAVE")] == [None] * 4
