"""Sources with odd files, there and back: each is an entry or told of, under a name that can be written."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support import workshop
from tests.support.pictures import photo, saved

PHOTO = saved(photo(24, 32), "JPEG")


def source_of(folder: Path, files: dict[str, bytes]) -> str:
    """Write files below a folder, whatever their names; return the source's URI."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return str(folder)


def test_names_that_are_not_utf8_go_there_and_come_back_encoded(tmp_path: Path) -> None:
    """Protects photographs of old systems: read under a percent-encoded key, with a note, as in a tar."""
    names = (b"caf\xe9.jpg", b"\xdcberlingen 1998/see.jpg", b"\x8e\xca\x90^.jpg", b"plain.jpg")
    source = source_of(tmp_path / "source", {os.fsdecode(name): PHOTO for name in names})
    result = workshop.rescale(source, tmp_path / "archive")
    assert not result.failures
    keys = {entry.key for entry in result.entries}
    assert keys == {"caf%E9.jpg", "%DCberlingen 1998/see.jpg", "%8Eʐ^.jpg", "plain.jpg"}
    assert {entry.key for entry in result.entries if entry.reason} == keys - {"plain.jpg"}
    assert all("is not a safe relative path" in str(entry.reason) for entry in result.entries if entry.reason)
    assert not workshop.failures(workshop.verify(result))
    assert not workshop.failures(workshop.restore(result, tmp_path / "out"))
    assert workshop.written(tmp_path / "out").keys() == keys
