"""Which store a URI means."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.core.errors import InvalidOption, NotFound
from pipeline.stores.store import open_store, split_uri


@pytest.mark.parametrize(
    ("uri", "store", "parent", "key"),
    [
        ("s3://bucket/a/b.tar", "s3://bucket/a/b.tar", "s3://bucket/a", "b.tar"),
        ("s3://bucket/a b/", "s3://bucket/a b", "s3://bucket", "a b"),
        ("S3://bucket/q?#%20", "s3://bucket/q?#%20", "s3://bucket", "q?#%20"),
    ],
)
def test_s3_uris(uri: str, store: str, parent: str, key: str) -> None:
    """A URI means one store, and one object in one parent, and a store's own URI opens it again."""
    assert open_store(uri).uri == store
    assert open_store(store).uri == store
    assert split_uri(uri) == (parent, key)


def test_local_uris(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths and file URIs name the same folder, relative ones too."""
    folder = tmp_path / "a b%20"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    spelled = (
        str(folder),
        f"{folder}/",
        "a b%20",
        "./a b%20/",
        f"file://{tmp_path}/a%20b%2520",
        f"file://localhost{tmp_path}/a b%2520",
    )
    for uri in spelled:
        assert open_store(uri).uri == str(folder)
        assert split_uri(uri) == (str(tmp_path), "a b%20")


@pytest.mark.parametrize(
    "uri",
    ["", "\0", "s3://", "s3:///key", "s3://b", "s3://bad bucket/x", "s3://bucket//x", "s3://bucket/../x", "gs://bucket/x",
     "http://host/x", "file://host/x", "file://", "s3://AKIAABCDEFGHIJKLMNOP:hunter2@bucket/x", "ftp://me:hunter2@host/x"],
)  # fmt: skip
def test_other_uris_are_refused(uri: str) -> None:
    """A URI that means nothing here gives one sentence, without a password that was in it."""
    for use in (open_store, split_uri):
        with pytest.raises(InvalidOption) as caught:
            use(uri)
        assert "hunter2" not in str(caught.value)
        assert "AKIA" not in str(caught.value)


def test_an_object_needs_a_parent() -> None:
    """A bucket or the root folder is no object."""
    for uri in ("s3://bucket", "s3://bucket/", "/", "file:///"):
        with pytest.raises(InvalidOption):
            split_uri(uri)


def test_missing_folder_and_file_as_store(tmp_path: Path) -> None:
    """A folder is made only where that was asked for, and a file is not taken for one."""
    with pytest.raises(NotFound) as caught:
        open_store(str(tmp_path / "absent"))
    assert caught.value.uri == str(tmp_path / "absent")
    assert not (tmp_path / "absent").exists()
    assert list(open_store(str(tmp_path / "new" / "er"), create=True).list()) == []
    (tmp_path / "file").write_bytes(b"")
    for create in (False, True):
        with pytest.raises(InvalidOption, match="is a file"):
            open_store(str(tmp_path / "file"), create=create)
