"""`iarn inspect`: what it prints of an archive, whole or unfinished."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.support.in_process import iarn, refused


def test_inspect_tells_what_is_there(standing: str) -> None:
    """Protects the user's view of an archive: totals, shards, entries and one entry, as text and as JSON."""
    summary = json.loads(iarn("inspect", standing, "--json").out)
    assert (summary["shards"], summary["shards_done"], summary["entries"], summary["originals"]) == (3, 3, 12, 1)
    assert (summary["failures"], summary["target"], summary["tier"]) == (1, "scale 2x2", "balanced")
    assert "scale 2x2" in iarn("inspect", standing).out
    shards = [json.loads(line) for line in iarn("inspect", standing, "--shards", "--json").out.splitlines()]
    assert [row["name"] for row in shards] == ["a.tar", "b.tar", "c.tar"]
    assert "000000001-b  tar  b.tar  4 entries" in iarn("inspect", standing, "--shards").out
    entries = [json.loads(line) for line in iarn("inspect", standing, "--entries", "--json").out.splitlines()]
    assert [row["key"] for row in entries][3:6] == ["a/003.tif", "b/000.png", "b/001.jpg"]
    assert "b/001.jpg  original  10 B  cannot be decoded" in iarn("inspect", standing, "--entries").out
    entry = json.loads(iarn("inspect", standing, "c/002.webp", "--json").out)
    assert (entry["shard"], entry["source"]["width"], entry["lr"]["width"]) == ("000000002-c", 29, 15)
    assert entry["sidecars"] == {"cls.json": 12, "txt": 9}
    assert "c/002.webp" in iarn("inspect", standing, "c/002.webp").out
    assert "No entry of" in refused(2, "inspect", standing, "c/nothing.png")


def test_inspect_of_an_unfinished_archive(tmp_path: Path, standing: str) -> None:
    """Protects against a shard without its commit being taken for done: it is neither listed nor counted."""
    copy = tmp_path / "copy"
    shutil.copytree(standing, copy)
    (copy / "commits" / "000000" / "000000001-b.json").unlink()
    summary = json.loads(iarn("inspect", copy, "--json").out)
    assert (summary["shards"], summary["shards_done"], summary["entries"]) == (3, 2, 8)
    assert "000000001-b  tar  b.tar  not done" in iarn("inspect", copy, "--shards").out
    assert len(iarn("inspect", copy, "--entries").out.splitlines()) == 8
    (copy / "shards" / "000000002-c.parquet").unlink()
    outcome = iarn("inspect", copy, "--entries")
    assert outcome.status == 3
    assert "000000002-c.parquet does not exist" in outcome.err
