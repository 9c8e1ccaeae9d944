"""Bad images, all the way to the archive and back: each is kept, told in one clear sentence, and costs no other.

Bad sources and archives are tested beside what reads those, options and credentials in the tests of the command line.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.archives.entries import source_bytes
from pipeline.core.records import EntryKind, Settings, Stored
from tests.support import pictures, workshop
from tests.support.workshop import Sample, back, by_key

DAMAGED, UNSUPPORTED = pictures.damaged(), pictures.unsupported()
LIMIT = Settings(target=workshop.HALF).pixel_limit


def around(bad: Sample) -> list[Sample]:
    """Return a sample between two good ones."""
    before, after = workshop.samples(2)
    return [replace(before, key="a.png"), bad, replace(after, key="z.jpg")]


@pytest.mark.slow
@pytest.mark.parametrize("what", [*DAMAGED, "bomb"])
def test_a_damaged_image_is_kept_and_told(tmp_path: Path, what: str) -> None:
    """Protects the rest of a shard from damaged, cut and zero-byte images and from a bomb: each is kept, told once."""
    bad = Sample(key="b.png", data=pictures.bomb() if what == "bomb" else DAMAGED[what], sidecars={"txt": b"caption"})
    result = workshop.rescale(workshop.as_tar(tmp_path / "source", around(bad)), tmp_path / "archive", pixel_limit=LIMIT)
    entries = by_key(result)
    assert [entry.kind for entry in entries.values()] == [EntryKind.RESCALED, EntryKind.ORIGINAL, EntryKind.RESCALED]
    entry = entries["b.png"]
    assert (source_bytes(entry), entry.sha256) == (bad.data, hashlib.sha256(bad.data).hexdigest())
    (failure,) = result.failures
    assert (failure.key, failure.reason) == ("b.png", entry.reason)
    assert ("--pixel-limit" if what == "bomb" else "cannot be decoded") in workshop.sentence(failure.reason)
    files = back(result, tmp_path / "out")
    assert (files["b.png"], files["b.txt"]) == (bad.data, b"caption")
    assert {"a.png", "z.jpg"} < files.keys()


@pytest.mark.parametrize("source", [workshop.as_folder, workshop.as_parquet])
def test_zero_bytes_are_kept_and_told_in_other_sources(tmp_path: Path, source: Any) -> None:
    """Protects folders and tables: an empty file, and an empty value, is an entry with its reason there as well."""
    result = workshop.rescale(source(tmp_path / "source", around(Sample(key="b.png", data=b""))), tmp_path / "archive")
    assert source_bytes(by_key(result)["b.png"]) == b""
    (failure,) = result.failures
    assert (failure.key, failure.reason) == ("b.png", "cannot be decoded: the file is empty")
    assert back(result, tmp_path / "out")["b.png"] == b""


@pytest.mark.slow
@pytest.mark.parametrize("what", UNSUPPORTED)
def test_what_cannot_be_rescaled_faithfully_is_kept(tmp_path: Path, what: str) -> None:
    """Protects animated, CMYK, float and other pictures: their files are kept with the reason, no failure."""
    odd = Sample(key="b.png", data=UNSUPPORTED[what])
    result = workshop.rescale(workshop.as_tar(tmp_path / "source", around(odd)), tmp_path / "archive")
    entry = by_key(result)["b.png"]
    assert (entry.stored, source_bytes(entry)) == (Stored.FILE, odd.data)
    assert re.search(r"^its file is kept: .*, which no restore brings back$", entry.reason or "")
    assert not result.failures
    assert back(result, tmp_path / "out")["b.png"] == odd.data


def test_a_mislabelled_image_is_read_by_its_content(tmp_path: Path) -> None:
    """Protects against names that lie: a JPEG called b.png is rescaled, a text called c.jpg is kept and told."""
    samples = [*around(Sample(key="b.png", data=workshop.picture(20, 30, "JPEG"))), Sample(key="zz.jpg", data=b"a caption")]
    result = workshop.rescale(workshop.as_folder(tmp_path / "source", samples), tmp_path / "archive")
    entries = by_key(result)
    assert (entries["b.png"].kind, entries["b.png"].format) == (EntryKind.RESCALED, "JPEG")
    assert [failure.key for failure in result.failures] == ["zz.jpg"]
    assert back(result, tmp_path / "out")["zz.jpg"] == b"a caption"


def test_the_limit_is_the_users(tmp_path: Path) -> None:
    """Protects --pixel-limit: what has more pixels is kept, and the sentence names the option that would let it in."""
    result = workshop.rescale(
        workshop.as_folder(tmp_path / "source", [Sample(key="a.png", data=workshop.picture(20, 21))]),
        tmp_path / "archive",
        pixel_limit=419,
    )
    (failure,) = result.failures
    assert "--pixel-limit" in workshop.sentence(failure.reason)
