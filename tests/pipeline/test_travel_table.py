"""docs/what-travels.md is made here: what becomes of each part of each format, seen from the container and by exiftool."""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from pipeline.containers.account import WALKERS
from pipeline.containers.parts import Fate
from pipeline.core.records import Entry
from pipeline.decoders import decoding
from tests.support import workshop
from tests.support.containers import CARRIED, LOST, PLAIN
from tests.support.workshop import Sample

pytestmark = pytest.mark.slow

DOCUMENT = Path(__file__).parents[2] / "docs/what-travels.md"
BEGIN, END = "<!-- table -->\n", "<!-- /table -->"
FILES = {name: data for name, (data, _) in (CARRIED | LOST).items()} | PLAIN
WORDS = {Fate.UNDERSTOOD: "decoded, and written anew", Fate.CARRIED: "carried as they were", Fate.LOST: "kept with the file"}
LAYOUT = {
    "padding",
    "pixels",
    "header",
    "coding",
    "marker",
    "signature",
    "directory",
    "values",
    "end",
    "footer",
    "palette",
    "image",
}

WRITTEN_ANEW = {
    "ExifTool:", "System:", "File:", "Composite:", "JFIF:", "GIF:", "QuickTime:", "RIFF:", "Jpeg2000:", "Photoshop:",
}  # fmt: skip
"""Groups that tell the layout of a file, or what a writer of it always says."""

LAYOUT_TAGS = {
    "StripOffsets", "StripByteCounts", "RowsPerStrip", "Compression", "PhotometricInterpretation", "PlanarConfiguration",
    "BitsPerSample", "SamplesPerPixel", "ImageWidth", "ImageHeight", "Filter", "Interlace", "ColorType", "BitDepth",
    "Predictor", "SubfileType", "FillOrder", "SampleFormat", "ExtraSamples", "PixelsPerMeterX", "PixelsPerMeterY", "Warning",
}  # fmt: skip


def format_of(data: bytes) -> str:
    """Return the format of a file, by Pillow's name."""
    return decoding.decode(data, pixel_limit=10**6).format


def table() -> str:
    """Return the table: for each format what becomes of its parts, those of mere layout left out."""
    found: dict[tuple[str, Fate], set[str]] = {}
    for data in FILES.values():
        form = format_of(data)
        for part in WALKERS.get(form, lambda _: ())(data):
            if part.name not in LAYOUT:
                found.setdefault((form, part.fate), set()).add(part.name)
    lines = ["| format | parts | what becomes of them |", "|---|---|---|"]
    for (form, fate), names in sorted(found.items()):
        lines.append(f"| {form} | {', '.join(f'`{name}`' for name in sorted(names))} | {WORDS[fate]} |")
    return "\n".join(lines) + "\n"


@cache
def travelled(folder: Path) -> dict[str, tuple[Entry, bytes]]:
    """Rescale and restore all files, in the default tier; return entry and restored file of each."""
    names = {what: f"{number:03d}.bin.{format_of(data).lower()}" for number, (what, data) in enumerate(FILES.items())}
    extensions = {"jpeg2000": "jp2", "mpo": "jpg"}
    keys = {
        what: f"{name.partition('.')[0]}.{extensions.get(name.rpartition('.')[2], name.rpartition('.')[2])}"
        for what, name in names.items()
    }
    source = workshop.as_folder(folder / "source", [Sample(key=keys[what], data=data) for what, data in FILES.items()])
    result = workshop.rescale(source, folder / "archive")
    assert not result.failures
    workshop.restore(result, folder / "back")
    entries = {entry.key: entry for entry in result.entries}
    back = {name.partition(".")[0]: data for name, data in workshop.written(folder / "back").items()}
    return {what: (entries[key], back[key.partition(".")[0]]) for what, key in keys.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for all of this."""
    return tmp_path_factory.mktemp("travel")


def test_the_table_is_what_happens() -> None:
    """Protects the document: its table is the one that the containers' parts give."""
    found = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    assert found == table(), f"put this between the marks in {DOCUMENT.name}:\n{table()}"


@pytest.mark.parametrize("what", FILES)
def test_the_sum_holds(what: str, folder: Path) -> None:
    """Protects the sentence that nothing is lost in silence: a part is in the restored file, or the file is kept whole."""
    entry, restored = travelled(folder)[what]
    data = FILES[what]
    assert entry.lost == ()
    if entry.original is not None:
        assert restored == data
        return
    form = format_of(data)
    mine, theirs = (decoding.decode(each, pixel_limit=10**6) for each in (data, restored))
    assert (mine.icc, mine.xmp) == (theirs.icc, theirs.xmp) or form in {"GIF", "PSD", "PPM", "TGA", "BMP"}
    assert sorted((part.name, part.data) for part in mine.parts) == sorted((part.name, part.data) for part in theirs.parts)


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="needs exiftool (Debian libimage-exiftool-perl)")
def test_exiftool_finds_what_it_found(folder: Path) -> None:
    """Protects against a blind spot of our own: every tag that exiftool sees in a source it sees in the restored file."""
    before, after = folder / "before", folder / "after"
    for where in (before, after):
        where.mkdir(exist_ok=True)
    for number, (what, (_, restored)) in enumerate(travelled(folder).items()):
        if what != "TGA":  # which exiftool takes for sound
            (before / f"{number}").write_bytes(FILES[what])
            (after / f"{number}").write_bytes(restored)
    found, again = _tags(before), _tags(after)
    missing = {
        what: lost
        for number, what in enumerate(FILES)
        if (lost := found.get(f"{number}", {}).items() - again.get(f"{number}", {}).items())
    }
    assert not missing


def _tags(folder: Path) -> dict[str, dict[str, str]]:
    command = ["exiftool", "-a", "-G1", "-u", "-j", *map(str, sorted(folder.iterdir()))]
    told = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return {
        Path(tags["SourceFile"]).name: {
            name: str(value)
            for name, value in tags.items()
            if not name.startswith(tuple(WRITTEN_ANEW)) and name.partition(":")[2] not in LAYOUT_TAGS and name != "SourceFile"
        }
        for tags in json.loads(told)
    }
