"""Camera raw files: the preview is the picture, the file is kept, and neither is needed to be sound for a job to go on."""

from __future__ import annotations

import importlib.util
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.errors import ImageError, ImageTooLarge, UnsupportedImage
from pipeline.core.records import EntryKind, Stored
from pipeline.decoders import decoding
from pipeline.decoders.raw import is_raw
from tests.support import workshop
from tests.support.pictures import decoded, photo, saved
from tests.support.raw import dng
from tests.support.workshop import Sample

needs_libraw = pytest.mark.skipif(importlib.util.find_spec("rawpy") is None, reason="rawpy is not installed")

JPEG = saved(photo(96, 128), "JPEG", quality=95)


@needs_libraw
@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_the_preview_is_the_picture_upright(orientation: int, turns: int) -> None:
    """Protects LRs of raw files: the camera's own picture and not the thumbnail that a TIFF reader takes, the right way up."""
    picture = decoded(dng(JPEG, orientation=orientation))
    assert np.array_equal(picture.pixels, np.rot90(decoded(JPEG).pixels, turns))
    assert picture.format == "RAW"
    assert "camera raw" in (picture.beyond or "")


@needs_libraw
def test_a_raw_file_has_an_lr_and_comes_back(tmp_path: Path) -> None:
    """Protects negatives: beside its small picture the file is kept, and comes back to the byte; so does one without."""
    files = {"a.dng": dng(JPEG), "b.dng": dng(None), "a.jpg": JPEG}
    source = workshop.as_folder(tmp_path / "source", [Sample(key=name, data=data) for name, data in files.items()])
    result = workshop.rescale(source, tmp_path / "archive", max_ratio=1.0)
    found = {entry.key: entry for entry in result.entries}
    assert not result.failures
    assert (found["a.dng"].kind, found["a.dng"].stored) == (EntryKind.RESCALED, Stored.FILE)
    assert (found["a.dng"].lr_width, found["a.dng"].lr_height) == (64, 48)
    assert (found["b.dng"].kind, found["b.dng"].lr) == (EntryKind.ORIGINAL, None)
    assert "without a preview" in (found["b.dng"].reason or "")
    workshop.restore(result, tmp_path / "out")
    back = workshop.written(tmp_path / "out")
    assert {name: back[name] for name in ("a.dng", "b.dng")} == {name: files[name] for name in ("a.dng", "b.dng")}


def test_who_lacks_the_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects users without the extra: the file is no failure, and the reason says what to install."""
    monkeypatch.setitem(sys.modules, "rawpy", None)
    with pytest.raises(UnsupportedImage, match=r"iarn\[raw\]"):
        decoded(dng(JPEG))


@pytest.mark.parametrize(
    "head",
    [b"FUJIFILMCCD-RAW 0201", b"IIRO\x08\0\0\0", b"IIU\0\x18\0\0\0", b"II*\0\x10\0\0\0CR\2\0", b"\0\0\0\x18ftypcrx \0\0\0\1"],
    ids=["RAF", "ORF", "RW2", "CR2", "CR3"],
)
def test_makers_formats_are_known_by_their_first_bytes(head: bytes) -> None:
    """Protects against a negative taken for the thumbnail in it."""
    assert is_raw(head + bytes(64))


def test_a_tiff_is_no_raw_file() -> None:
    """Protects scans from being kept as negatives."""
    assert not is_raw(saved(photo(8, 9), "TIFF"))


@needs_libraw
def test_a_preview_beyond_the_limit_is_refused() -> None:
    """Protects memory."""
    with pytest.raises(ImageTooLarge):
        decoding.decode(dng(JPEG), pixel_limit=96 * 128 - 1)


@needs_libraw
@given(st.floats(0, 1), st.binary(max_size=8))
def test_any_damage_is_a_picture_or_a_reason(at: float, noise: bytes) -> None:
    """Protects jobs from damaged negatives."""
    data = dng(JPEG)
    place = int(at * len(data))
    for harmed in (data[:place], data[:place] + noise + data[place + len(noise) :]):
        with suppress(ImageError):
            decoded(harmed)
