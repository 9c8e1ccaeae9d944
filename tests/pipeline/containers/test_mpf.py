"""JPEGs with further pictures behind the first: gain maps, previews, films; put back where a viewer finds them."""

from __future__ import annotations

import shutil
import struct
import subprocess
from io import BytesIO
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.containers import mpf
from pipeline.containers.account import account
from pipeline.core.records import EntryKind, Stored
from pipeline.pictures import writing
from tests.support import workshop
from tests.support.containers import FILM, segment
from tests.support.pictures import decoded, photo, saved
from tests.support.workshop import Sample

GAIN_MAP = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf:Description hdrgm:Version='1.0'/></x:xmpmeta>"


def ultra_hdr() -> bytes:
    """Return what libultrahdr writes: a JPEG with a gain map, by MPF, XMP and ISO 21496-1."""
    light = np.ones((128, 192, 4), np.float16)
    light[..., :3] = (photo(128, 192) / 255.0) ** 2.2 * 4
    return bytes(imagecodecs.ultrahdr_encode(light))


def index(entries: list[tuple[int, int, int]], order: str) -> bytes:
    """Return an MPF segment of attributes, sizes and offsets, in an order of bytes, ``<`` or ``>``."""
    table = b"".join(struct.pack(order + "IIIHH", *entry, 0, 0) for entry in entries)
    tags = struct.pack(order + "HHI4s", 0xB000, 7, 4, b"0100") + struct.pack(order + "HHII", 0xB001, 4, 1, len(entries))
    tags += struct.pack(order + "HHII", 0xB002, 7, len(table), 8 + 2 + 36 + 4)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    return segment(0xE2, b"MPF\0" + head + struct.pack(order + "H", 3) + tags + bytes(4) + table)


def with_pictures(*behind: bytes, order: str = ">", film: bytes = b"", shift: int = 0) -> bytes:
    """Return a JPEG with further ones behind it and their index, ``shift`` bytes wrong, and perhaps a film at the very end."""
    first = saved(photo(120, 160), "JPEG", quality=90)
    length = len(index([(0, 0, 0)] * (1 + len(behind)), order))
    end, base = len(first) + length, 2 + mpf.HEADER
    entries, position = [(0x030000, end, 0)], end
    for picture in behind:
        entries.append((0, len(picture), position - base + shift))
        position += len(picture)
    return first[:2] + index(entries, order) + first[2:] + b"".join(behind) + film


def apple() -> bytes:
    """Return a JPEG as Apple's phones export them: big-endian MPF, a gain map of half the size with XMP of its own."""
    grey = saved(photo(60, 80, 1), "JPEG")
    return with_pictures(grey[:2] + segment(0xE1, GAIN_MAP) + grey[2:])


def camera() -> bytes:
    """Return a JPEG as cameras write them: little-endian MPF, two previews, padding between file and film."""
    return with_pictures(saved(photo(60, 80), "JPEG"), saved(photo(30, 40), "JPEG"), order="<", film=FILM)


MAKERS = {"Ultra HDR": ultra_hdr(), "Apple": apple(), "a camera with previews and a film": camera()}


def pictures_in(data: bytes) -> list[np.ndarray]:
    """Return every picture of a file, as Pillow finds them by the index."""
    image = Image.open(BytesIO(data))
    found = []
    for number in range(getattr(image, "n_frames", 1)):
        image.seek(number)
        found.append(np.array(image))
    return found


@pytest.mark.parametrize("maker", MAKERS)
def test_further_pictures_come_back_where_they_are_looked_for(maker: str, tmp_path: Path) -> None:
    """Protects gain maps, previews and films: after a default restore the index leads to the very bytes again."""
    data = MAKERS[maker]
    source = workshop.as_folder(tmp_path / "source", [Sample(key="a.jpg", data=data)])
    result = workshop.rescale(source, tmp_path / "archive", max_ratio=None)
    (entry,) = result.entries
    assert (entry.kind, entry.stored, entry.lost) == (EntryKind.RESCALED, Stored.LATENT, ())
    workshop.restore(result, tmp_path / "back")
    back = workshop.written(tmp_path / "back")["a.jpg"]
    before, after = pictures_in(data), pictures_in(back)
    assert len(before) == len(after) > 1
    for one, other in zip(before[1:], after[1:], strict=True):
        assert np.array_equal(one, other)
    assert back.endswith(data[-200:])


def test_a_viewer_of_hdr_finds_the_gain_map() -> None:
    """Protects HDR: libultrahdr, whose format it is, makes the same light of the restored file as of the source."""
    data = MAKERS["Ultra HDR"]
    back = writing.encode(decoded(data), format="JPEG", quality=95)
    before, after = (imagecodecs.ultrahdr_decode(each).astype(np.float64) for each in (data, back))
    assert before.max() > 3, "brighter than any plain JPEG"
    assert np.abs(np.log2(before[..., :3] + 0.1) - np.log2(after[..., :3] + 0.1)).mean() < 0.1


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed")
@pytest.mark.parametrize("maker", ["Apple", "a camera with previews and a film"])
def test_exiftool_finds_them(maker: str, tmp_path: Path) -> None:
    """Protects other programs: a judge that is not ours takes the second picture out of the restored file, byte for byte."""
    found = []
    for name, data in (("a", MAKERS[maker]), ("b", writing.encode(decoded(MAKERS[maker]), format="JPEG", quality=95))):
        (tmp_path / name).write_bytes(data)
        words = ("exiftool", "-b", "-MPImage2", str(tmp_path / name))
        found.append(subprocess.run(words, capture_output=True, check=True, timeout=600).stdout)
    assert found[0] == found[1] != b""


@pytest.mark.parametrize(
    "data",
    [
        with_pictures(saved(photo(60, 80), "JPEG"), shift=10**6),
        with_pictures(saved(photo(60, 80), "JPEG"), shift=-1000),
        with_pictures(saved(photo(60, 80), "JPEG"), shift=2**31),
        with_pictures(saved(photo(60, 80), "JPEG")).replace(struct.pack(">H", 0xB002), struct.pack(">H", 0xB009), 1),
        with_pictures(saved(photo(60, 80), "JPEG")).replace(b"MM\0*", b"XX\0*", 1),
    ],
    ids=["beyond the file", "inside the first", "far away", "no entries", "no header"],
)
def test_an_index_that_leads_nowhere_keeps_the_file(data: bytes) -> None:
    """Protects what stands behind the end: where the index cannot be trusted, it and that are named, so the file is kept."""
    assert set(account(data, "JPEG").lost) == {"mpf", "trailer"}


@given(st.binary(max_size=200), st.integers(0, 2**32), st.integers(0, 2**32), st.integers(0, 2**32))
def test_no_index_gives_an_error(body: bytes, start: int, end: int, size: int) -> None:
    """Protects jobs from forged files: an index is loosened or refused, and what is loosened can be fastened."""
    data = segment(0xE2, b"MPF\0" + body)
    for given_bytes in (data, index([(0, 1, 0), (0, size % 2**31, start % 2**31)], "<")):
        loose = mpf.loosened(given_bytes, start, end, size)
        if loose is not None:
            assert len(mpf.fastened(loose, 2, 100)) == len(given_bytes)
