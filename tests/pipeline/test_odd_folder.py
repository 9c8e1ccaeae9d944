"""Some two hundred odd files, there and back: everything in each comes back, is kept with the file, or is named."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, combinations, product
from pathlib import Path

import numpy as np
import pytest

from pipeline.core.records import Entry, Stored, Tier
from tests.support import containers, pictures, workshop
from tests.support.containers import FILM, IPTC, PLAIN, chunk, segment
from tests.support.pictures import METADATA_FORMATS, ORIENTATIONS, XMP, decoded, exif, photo, saved, srgb_profile, with_metadata
from tests.support.workshop import Rescaled

pytestmark = pytest.mark.slow

LEAST_FILES = 200
MODES = (0o644, 0o640, 0o600, 0o664)
EXTENSIONS = {"JPEG": "jpg", "TIFF": "tif", "JPEG2000": "jp2", "MPO": "jpg"}


@dataclass(frozen=True, kw_only=True)
class Odd:
    """A file, and what was put into it: bytes that are somewhere in the file, by the word for their loss."""

    name: str
    data: bytes
    inside: Mapping[str, bytes] = field(default_factory=dict)


JPEG_PARTS = {
    "APP13": segment(0xED, IPTC),
    "COM": segment(0xFE, b"scan 117"),
    "APP1": segment(0xE1, b"FLIR\0" + bytes(range(40))),
    "XMP-extension": segment(0xE1, containers.EXTENSION),
    "APP7": segment(0xE7, b"a maker's own"),
    "mpf": segment(0xE2, b"MPF\0" + bytes(20)),
    "jumbf": segment(0xEB, b"JP\0\1" + bytes(20)),
}
PNG_PARTS = {
    "tEXt": chunk(b"tEXt", b"parameters\0Steps: 30"),
    "iTXt": chunk(b"iTXt", b"Title\0\0\0de\0Titel\0\xc3\x84"),
    "pHYs": chunk(b"pHYs", struct.pack(">IIB", 11811, 11811, 1)),
    "tIME": chunk(b"tIME", struct.pack(">H5B", 2001, 2, 3, 4, 5, 6)),
    "cICP": chunk(b"cICP", bytes((12, 13, 0, 1))),
    "gAMA": chunk(b"gAMA", struct.pack(">I", 100_000)),
    "prVt": chunk(b"prVt", b"may be copied"),
    "caBX": chunk(b"caBX", b"a signature"),
}
TIFF_TAGS: dict[str, tuple[int, int, object]] = {
    "tag-42112": (42112, 2, "<GDALMetadata/>"),
    "tag-33723": (33723, 7, b"\x1c\x02\x50\0\x0bMara Quill!"),
    "tag-65000": (65000, 2, "somebody's own"),
    "layers": (37724, 7, b"Adobe Photoshop Document Data Block\0"),
}


def some(names: Mapping[str, object]) -> Iterator[tuple[str, ...]]:
    """Yield none of the names, each alone, and each two of them."""
    return chain.from_iterable(combinations(names, count) for count in range(3))


def jpegs() -> Iterator[Odd]:
    """Yield JPEGs with segments, every other one with a film behind its end, some progressive."""
    for number, names in enumerate(some(JPEG_PARTS)):
        inside = {name: JPEG_PARTS[name] for name in names}
        behind = {"trailer": FILM} if number % 2 else {}
        data = containers.jpeg(*inside.values(), behind=behind.get("trailer", b""), seed=number, progressive=number % 4 > 1)
        yield Odd(name=f"{number}.jpg", data=data, inside=inside | behind)


def pngs() -> Iterator[Odd]:
    """Yield PNGs with chunks, of all modes in turn."""
    for number, names in enumerate(some(PNG_PARTS)):
        inside = {name: PNG_PARTS[name] for name in names}
        data = containers.png(*inside.values(), channels=(3, 4, 1, 2)[number % 4])
        yield Odd(name=f"{number}.png", data=data, inside=inside)


def tiffs() -> Iterator[Odd]:
    """Yield TIFFs with tags, in both orders of bytes, of three modes in turn."""
    for number, names in enumerate(some(TIFF_TAGS)):
        chosen = [TIFF_TAGS[name] for name in names]
        texts = (value.encode() if isinstance(value, str) else value for _, _, value in chosen)
        inside = {name: text for name, text in zip(names, texts, strict=True) if isinstance(text, bytes)}
        for order in ("little", "big"):
            tags = {tag: (kind, value) for tag, kind, value in chosen}
            data = containers.tiff(tags, big_endian=order == "big", channels=(3, 4, 1)[number % 3])
            yield Odd(name=f"{number}.{order}.tif", data=data, inside=inside)


def others() -> Iterator[Odd]:
    """Yield WebP, AVIF, BMP, GIF and PSD with and without each thing that they can have."""
    for number, (one, two, three) in enumerate(product((False, True), repeat=3)):
        film, inside = FILM * one, {"trailer": FILM} if one else {}
        data = containers.webp(*([(b"abcd", b"nobody's")] if two else []), behind=film, lossless=three)
        webp = inside | ({"abcd": b"nobody's"} if two else {}) | ({"VP8L": b"VP8L"} if three else {})
        yield Odd(name=f"{number}.webp", data=data, inside=webp)
        box = b"\0\0\0\x10mpvdabcdefgh"
        icc = srgb_profile() if three else None
        data = containers.avif(code_points=(12, 13) if two else None, behind=box * one, icc=icc)
        colours = {"nclx": b"colrnclx" + struct.pack(">HH", 12, 13)} if two else {}
        yield Odd(name=f"{number}.avif", data=data, inside=colours | ({"trailer": box} if one else {}))
        iptc = b"8BIM\x04\x04\0\0\0\0\0\4abcd"
        data = containers.psd(channels=3 + one, layers=(bytes(4) + b"\0\0\0\4abcd") * two, resources=iptc * three)
        yield Odd(name=f"{number}.psd", data=data, inside={"iptc": iptc} if three else {})
        if not three:
            density = struct.pack("<ii", 11811, 11811)
            data = containers.bmp(density=(11811, 11811) if two else None, behind=film)
            yield Odd(name=f"{number}.bmp", data=data, inside=inside | ({"density": density} if two else {}))
            data = containers.gif(comment=b"by hand" if two else None, behind=film)
            yield Odd(name=f"{number}.gif", data=data, inside=inside | ({"comment": b"by hand"} if two else {}))


def plain() -> Iterator[Odd]:
    """Yield files with metadata alone: each orientation, grey stored as RGB, further formats, and kinds that are only kept."""
    for format, orientation in product(METADATA_FORMATS, ORIENTATIONS):
        pixels = photo(24, 30, seed=orientation)
        data = with_metadata(pixels, format, exif=exif(orientation), icc=srgb_profile(), xmp=XMP)
        yield Odd(name=f"{orientation}.turned.{EXTENSIONS.get(format, format.lower())}", data=data)
    grey = np.repeat(photo(24, 31)[..., :1], 3, axis=2)
    for format in ("PNG", "JPEG", "TIFF", "BMP", "PPM"):
        yield Odd(name=f"grey.{EXTENSIONS.get(format, format.lower())}", data=saved(grey, format))
    yield Odd(name="grey.webp", data=saved(grey, "WEBP", lossless=True), inside={"VP8L": b"VP8L"})
    for format in ("SGI", "PCX", "ICO", "TGA", "JPEG2000"):
        yield Odd(name=f"other.{EXTENSIONS.get(format, format.lower())}", data=saved(photo(24, 32), format))
    yield Odd(name="profile.jp2", data=pictures.jpeg2000(photo(24, 31), srgb_profile()), inside={"colours": srgb_profile()})
    yield Odd(name="noted.ppm", data=b"P6 # by hand\n2 1 255\n" + bytes(6), inside={"comment": b"# by hand"})
    for number, data in enumerate(PLAIN.values()):
        yield Odd(name=f"plain.{number}.{EXTENSIONS.get(form := decoded(data).format, form.lower())}", data=data)
    for number, data in enumerate(pictures.unsupported().values()):
        yield Odd(name=f"kept.{number}.png", data=data)


@dataclass(frozen=True, kw_only=True)
class Folder:
    """The folder, and what came of it: each file by a number that its names begin with."""

    odd: dict[str, Odd]
    source: str
    tmp: Path

    def rescale(self, what: str, **settings: object) -> Rescaled:
        """Rescale the folder; nothing in it is a failure."""
        result = workshop.rescale(self.source, self.tmp / what, **settings)
        assert result.failures == []
        return result

    def there_and_back(self, what: str, **settings: object) -> dict[str, tuple[Odd, Entry, Path]]:
        """Return each file with its entry and its restored file."""
        result = self.rescale(what, **settings)
        assert not workshop.failures(workshop.restore(result, self.tmp / f"{what}-back"))
        entries = {entry.key.partition("-")[0]: entry for entry in result.entries}
        back = {path.name.partition("-")[0]: path for path in (self.tmp / f"{what}-back").iterdir() if path.is_file()}
        assert entries.keys() == back.keys() == self.odd.keys()
        return {number: (odd, entries[number], back[number]) for number, odd in self.odd.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The files in a folder, each of a time and a mode of its own."""
    tmp = tmp_path_factory.mktemp("odd")
    odd = {f"{number:03d}": each for number, each in enumerate((*jpegs(), *pngs(), *tiffs(), *others(), *plain()))}
    assert len(odd) >= LEAST_FILES
    (tmp / "source").mkdir()
    for number, each in odd.items():
        assert all(data in each.data for data in each.inside.values()), each.name
        path = tmp / "source" / f"{number}-{each.name}"
        path.write_bytes(each.data)
        path.chmod(MODES[int(number) % len(MODES)])
        os.utime(path, (981_173_106 + int(number), 981_173_106 + int(number)))
    return Folder(odd=odd, source=str(tmp / "source"), tmp=tmp)


def test_everything_comes_back_or_the_file_is_kept(folder: Folder) -> None:
    """Protects the sentence that nothing is lost in silence: each part is in the restored file, and so are time and mode."""
    for number, (odd, entry, path) in folder.there_and_back("balanced").items():
        restored, told = path.read_bytes(), f"{number}-{odd.name}: {entry.reason}"
        assert entry.lost == (), told
        assert (path.stat().st_mtime, path.stat().st_mode & 0o777) == (
            981_173_106 + int(number),
            MODES[int(number) % len(MODES)],
        ), told
        if entry.original is not None:
            assert restored == odd.data, told
            continue
        assert all(data in restored for data in odd.inside.values()), told
        before, after = decoded(odd.data), decoded(restored)
        assert {part.name for part in before.parts} == odd.inside.keys(), told
        assert (before.icc, before.xmp, before.orientation, before.alpha is None, before.pixels.shape) == (
            after.icc,
            after.xmp,
            after.orientation,
            after.alpha is None,
            after.pixels.shape,
        ), told
        assert before.parts == after.parts or sorted(map(str, before.parts)) == sorted(map(str, after.parts)), told
        assert entry.grey is before.grey, told


def test_what_is_not_kept_is_named(folder: Folder) -> None:
    """Protects the account where files are not kept: each part is in the restored file, or its word is in the entry."""
    for number, (odd, entry, path) in folder.there_and_back("named", tier=Tier.LEAN, keep_if_lossy=False).items():
        restored, told = path.read_bytes(), f"{number}-{odd.name}: {entry.lost}"
        if entry.original is not None:
            assert (entry.stored, restored, entry.lost) == (Stored.FILE, odd.data, ()), told
            continue
        gone = {word for word, data in odd.inside.items() if data not in restored}
        assert gone <= set(entry.lost), told
        assert set(entry.lost) <= {*odd.inside, "unknown-parts"}, told


def test_exact_gives_the_same_files(folder: Folder) -> None:
    """Protects the tier of masters: each file comes back to the byte, under its own name."""
    for odd, entry, path in folder.there_and_back("exact", tier=Tier.EXACT).values():
        assert (path.name, path.read_bytes(), entry.lost) == (entry.key, odd.data, ())
