"""What a restore tells of the keys that it was asked for."""

from __future__ import annotations

import shutil
from pathlib import Path

from jobs.restore import _keys_not_found
from pipeline.archives.archive import Archive
from pipeline.core.options import RestoreOptions
from pipeline.stores.store import open_store
from tests.support import workshop


def not_found(archive: str, *keys: str) -> list[str]:
    """Return the keys that no entry of an archive has."""
    return _keys_not_found(Archive.open(open_store(archive)), RestoreOptions(keys=frozenset(keys)))


def test_keys_that_no_entry_has_are_told(standing: str) -> None:
    """Protects a list of wanted keys: each that is no entry's is told, in order, also a sidecar's name or a part of a key."""
    assert not_found(standing, "a/000.png", "b/001.jpg", "c/003.tif") == []  # the second is kept as it is, for it is damaged
    wrong = ["a/000", "a/000.txt", "b/000", "x/none.png"]
    assert not_found(standing, "c/000.png", *reversed(wrong)) == wrong
    assert _keys_not_found(Archive.open(open_store(standing)), RestoreOptions()) == []


def test_a_key_is_found_in_any_shard_that_is_done(tmp_path: Path, standing: str) -> None:
    """Protects keys that several tars share, and whoever asks for one whose shard is not done: it is not there yet."""
    for name in ("x.tar", "y.tar"):
        workshop.as_tar(tmp_path / "source", workshop.samples(1), name)
    assert not_found(workshop.rescale(str(tmp_path / "source"), tmp_path / "shared").uri, "000.png", "001.jpg") == ["001.jpg"]
    copy = tmp_path / "copy"
    shutil.copytree(standing, copy)
    (copy / "commits/000000/000000002-c.json").unlink()
    assert not_found(str(copy), "a/000.png", "c/000.png") == ["c/000.png"]
