"""A source shard to its assets: what holds for every kind, and loose files."""

from __future__ import annotations

import csv
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.assets.samples import image_extension
from pipeline.assets.shards import read_assets
from pipeline.core.errors import SourceChanged
from pipeline.core.records import Asset, ShardKind, SourceShard
from pipeline.stores.store import open_store
from tests.support.shards import JPEG, PNG, shard_of
from tests.support.workshop import tar_of

REAL_TARS = Path(__file__).parents[4] / "shared" / "data" / "train"


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


def test_tars_are_read_without_pyarrow(tmp_path: Path) -> None:
    """Protects training, which reads tars on machines where pyarrow is not installed."""
    (tmp_path / "x.tar").write_bytes(tar_of([("a.jpg", JPEG)]))
    script = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from pipeline.assets.shards import read_assets\n"
        "from pipeline.planning.sources import find_source\n"
        "source = find_source(sys.argv[1])\n"
        "print([asset.key for asset in read_assets(source.store, next(source.shards))])"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "x.tar")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    assert done.stdout.strip() == "['a.jpg']"


@pytest.mark.skipif(not REAL_TARS.is_dir(), reason="the training tars are not beside the checkout")
def test_real_tars_come_out_as_their_manifest_says() -> None:
    """Protects reality: every image of a real WebDataset tar, once, under its name, with its digest."""
    with (REAL_TARS / "MANIFEST.tsv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["shard"] == "train-00.tar"]
    store = open_store(str(REAL_TARS))
    shard = SourceShard(id="0", name="train-00.tar", kind=ShardKind.TAR, objects=(store.stat("train-00.tar"),))
    found = {asset.key: hashlib.sha256(asset.data or b"").hexdigest() for asset in read_assets(store, shard)}
    assert found == {row["name"]: row["sha256"] for row in rows}


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
