"""Input made to harm: names, links, bombs of pixels and bytes, giant metadata, pickles.

What is merely broken or odd stands in test_bad_input.py, test_tars.py and test_decoding.py, any damage in test_any_damage.py.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
import tarfile
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from jobs.rescale import read_weights
from pipeline.archives.entries import source_bytes
from pipeline.assets import shards, tar_members, tars
from pipeline.core.errors import DamagedShard, ImageError, InvalidWeights, PipelineError
from pipeline.core.records import EntryKind, ObjectInfo, ShardKind, SourceShard
from pipeline.decoders import decoding
from pipeline.outputs.outputs import OutputKind
from pipeline.stores.store import LocalStore
from tests.support import pictures, workshop
from tests.support.accounting import accounted_for
from tests.support.workshop import Sample

PICTURE = workshop.picture(20, 31)


def tar_of(*headers: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """Return a tar of members with the very headers given."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for header, data in headers:
            tar.addfile(header, io.BytesIO(data))
    return buffer.getvalue()


def rescaled(tmp_path: Path, tar: bytes, name: str = "photos.tar") -> workshop.Rescaled:
    """Rescale one tar."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / name).write_bytes(tar)
    return workshop.rescale(str(tmp_path / "source"), tmp_path / "archive")


def tar_shard(folder: Path, data: bytes) -> tuple[LocalStore, SourceShard]:
    """Write a tar to a folder; return it as a shard of a store."""
    (folder / "x.tar").write_bytes(data)
    store = LocalStore(folder)
    return store, SourceShard(id="000000-x", name="x.tar", kind=ShardKind.TAR, objects=(store.stat("x.tar"),))


# Names ----------------------------------------------------------------------------------------------------------------

NAMES = {
    "parent": "../../../../../../tmp/up.png",
    "hidden parent": "a/b/../../../up.png",
    "absolute": "/etc/cron.d/x.png",
    "4 kB": "d" * 4000 + ".png",
    "4 kB of folders": "d/" * 2000 + "x.png",
    "device of Windows": "CON.png",
    "device with suffix": "aux.tar.png",
    "stream of Windows": "a.png:evil.png",
    "drive": "C:evil.png",
    "share": "\\\\server\\share\\x.png",
    "line feeds": "a\nb\r.png",
    "escape codes": "\x1b[2J.png",
    "right to left": "gpj\u202e.png",
    "home": "~/x.png",
    "option": "-rf.png",
    "surrogate": "caf\udce9.png",
}


@pytest.mark.slow
@pytest.mark.parametrize("what", NAMES)
def test_a_hostile_name_stays_below_the_destination(tmp_path: Path, what: str) -> None:
    """Protects the machine that restores: whatever a member is called, it is one entry, verified, and comes back as one file
    below the destination, with a name that file systems take."""
    header = tarfile.TarInfo(NAMES[what])
    header.size = len(PICTURE)
    result = rescaled(tmp_path, tar_of((header, PICTURE)))
    (entry,) = result.entries
    assert entry.kind is EntryKind.RESCALED
    assert not workshop.failures(workshop.verify(result))
    for output in (OutputKind.FILES, OutputKind.TAR):
        assert not workshop.failures(workshop.restore(result, tmp_path / "a/b/c/out", output=output))
    outside = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*")}
    assert outside == {"source", "archive", "a", "tiny.safetensors"}
    assert not [path for path in (tmp_path / "a").rglob("*") if path.is_file() and "out" not in path.parts]
    assert entry.reason is None or entry.key in entry.reason


def test_a_name_with_a_nul_ends_nothing(tmp_path: Path) -> None:
    """Protects against names that C would end early: tar has them end there as well, pax and Parquet have them whole."""
    header = tarfile.TarInfo("plain.png")
    header.size, header.pax_headers = len(PICTURE), {"path": "evil.png\0.txt.png"}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(header, io.BytesIO(PICTURE))
    (tmp_path / "source").mkdir()
    (tmp_path / "source/a.tar").write_bytes(buffer.getvalue())
    pq.write_table(pa.table({"key": ["evil.png\0.txt"], "image": [PICTURE]}), tmp_path / "source/b.parquet")
    result = workshop.rescale(str(tmp_path / "source"), tmp_path / "archive")
    assert len(result.entries) == 2
    assert not any("\0" in entry.key for entry in result.entries)
    assert not workshop.failures(workshop.restore(result, tmp_path / "out"))


def test_a_folder_of_pipes_devices_and_loops_is_read_past(tmp_path: Path) -> None:
    """Protects jobs over a folder of anybody's: a pipe with an image's name, a device, a socket's place, a link to itself and
    one to nowhere neither hang nor fail it, and are listed with what is left out."""
    source = tmp_path / "source"
    workshop.as_folder(source, workshop.samples(2))
    os.mkfifo(source / "pipe.png")
    (source / "zero.png").symlink_to("/dev/zero")
    (source / "itself.png").symlink_to(source / "itself.png")
    (source / "nowhere.png").symlink_to(tmp_path / "nowhere")
    (source / "folder").symlink_to(source)
    result = workshop.rescale(str(source), tmp_path / "archive")
    assert [entry.key for entry in result.entries] == ["000.png", "001.jpg"]
    assert accounted_for(str(source), result.uri).entries == 2
    listed = [json.loads(line)["key"] for line in (tmp_path / "archive/left-out.jsonl").read_text().splitlines()]
    assert sorted(listed) == ["folder/", "itself.png", "nowhere.png", "pipe.png", "zero.png"]


# Bombs ----------------------------------------------------------------------------------------------------------------


def sparse_tar(size: int) -> bytes:
    """Return a tar of one old GNU sparse member: ``size`` bytes, of which the first 512 are there."""
    header = bytearray(tarfile.TarInfo("a.png").tobuf(tarfile.GNU_FORMAT))
    number = b"\x80" + size.to_bytes(11, "big")
    header[124:136] = b"%011o\0" % 512
    header[156:157] = b"S"
    header[386:410] = b"%011o\0%011o\0" % (0, 512)
    header[482:483] = b"\0"
    header[483:495] = number
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + PICTURE[:512].ljust(512, b"\0") + bytes(1024)


def test_a_sparse_member_of_a_terabyte_is_told(tmp_path: Path) -> None:
    """Protects memory from a member of holes: it is told with its size and not expanded; a small one is read as it is."""
    store, shard = tar_shard(tmp_path, sparse_tar(2**40))
    tracemalloc.start()
    (asset,) = shards.read_assets(store, shard)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert asset.data is None
    assert f"its {2**40} bytes are more than an entry can hold" in (asset.note or "")
    assert peak < 20 * 2**20
    (asset,) = shards.read_assets(*tar_shard(tmp_path, sparse_tar(4096)))
    assert asset.data == PICTURE[:512].ljust(4096, b"\0")


def test_a_sample_larger_than_memory_is_several_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects memory from a sample of sidecars without end, a few kilobytes when compressed: what goes beyond the bound is
    an entry of its own, and nothing is lost."""
    monkeypatch.setattr(tars, "LARGEST_MEMBER", 2**20)
    members = [("a.png", PICTURE), *((f"a.{index:03d}", bytes(300_000)) for index in range(20))]
    store, shard = tar_shard(tmp_path, gzip.compress(workshop.tar_of(members)))
    sizes = []
    found: list[bytes] = []
    for asset in shards.read_assets(store, shard):
        sizes.append(sum(map(len, asset.sidecars.values())))
        found += asset.sidecars.values()
        assert asset.data == PICTURE or "adjacent" in (asset.note or "")
    assert max(sizes) <= 2**20
    assert found == [bytes(300_000)] * 20


class Endless(io.RawIOBase):
    """A gzip of a tar's end mark and zeros without end."""

    def __init__(self, tar: bytes) -> None:
        super().__init__()
        pack = zlib.compressobj(9, zlib.DEFLATED, 31)
        self._left = pack.compress(tar) + pack.flush(zlib.Z_FULL_FLUSH)
        zeros = zlib.compressobj(9, zlib.DEFLATED, -15)
        self._zeros = zeros.compress(bytes(2**24)) + zeros.flush(zlib.Z_FULL_FLUSH)
        self.read_so_far = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        assert (offset, whence) == (0, 0)
        return 0

    def readinto(self, buffer: Any) -> int:
        while len(self._left) < len(buffer):
            self._left += self._zeros
        count = len(buffer)
        buffer[:count], self._left = self._left[:count], self._left[count:]
        self.read_so_far += count
        return count


def test_padding_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Protects a worker from a compressed tar whose end mark goes on for ever: its assets are kept, and that is told."""
    endless = Endless(workshop.tar_of([("a.png", PICTURE)]))

    class OneFile(LocalStore):
        def open(self, key: str, etag: str | None = None, buffer_size: int = 0) -> Any:
            assert (key, etag, buffer_size) == ("x.tar", "e", 0)
            magic = endless._left[:6]

            class Again(io.BufferedReader):
                def seek(self, offset: int, whence: int = 0) -> int:
                    assert (offset, whence) == (0, 0)
                    endless._left = magic + endless._left
                    return 0

                def read(self, size: int | None = -1) -> bytes:
                    assert size is not None
                    buffer = bytearray(max(size, 0))
                    endless.readinto(buffer)
                    return bytes(buffer)

            return Again(endless)

    monkeypatch.setattr(tar_members, "LONGEST_PADDING", 50 * 2**20)
    shard = SourceShard(id="0", name="x.tar", kind=ShardKind.TAR, objects=(ObjectInfo(key="x.tar", size=1, etag="e"),))
    assets = shards.read_assets(OneFile(tmp_path), shard)
    assert next(assets).key == "a.png"
    with pytest.raises(DamagedShard, match=r"more than \d+ bytes of padding follow"):
        next(assets)
    assert endless.read_so_far < 2**20


def chunk_bomb(name: bytes, head: bytes, *, megabytes: int) -> bytes:
    """Return a PNG with a compressed chunk that expands to so many megabytes."""
    pack = zlib.compressobj(9)
    body = b"".join(pack.compress(bytes(2**20)) for _ in range(megabytes)) + pack.flush()
    return pictures.png(2, 2, depth=8, colour=2, rows=bytes(14), chunks=((name, head + body),))


BOMBS = {
    "text": lambda: chunk_bomb(b"zTXt", b"Comment\0\0", megabytes=200),
    "international text": lambda: chunk_bomb(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0", megabytes=200),
    "profile": lambda: chunk_bomb(b"iCCP", b"icc\0\0", megabytes=200),
    "pixels": pictures.bomb,
    "rows": lambda: pictures.png(10, 10, depth=8, colour=2, rows=bytes(100 * 2**20)),
    "GIF": lambda: b"GIF89a\xff\xff\xff\xff\x80\0\0" + bytes(6) + b",\0\0\0\0\xff\xff\xff\xff\0\x02\x02\x4c\x01\0;",
    "TIFF": lambda: pictures.tiff(50_000, 50_000, bits=8, samples=3, photometric=2, body=b"\0" * 12),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", BOMBS)
def test_a_bomb_costs_no_more_than_its_limits(what: str) -> None:
    """Protects memory and time from files that are a thousand times as large inside: each is refused or read within bounds."""
    data = BOMBS[what]()
    assert len(data) < 300_000
    tracemalloc.start()
    try:
        picture = decoding.decode(data, pixel_limit=10_000_000)
        assert picture.pixels.size <= 3 * 10_000_000
    except ImageError as error:
        workshop.sentence(str(error))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 70 * 2**20


@pytest.mark.slow
@pytest.mark.parametrize(("form", "megabytes"), [("WEBP", 50), ("TIFF", 5), ("PNG", 5)])
def test_metadata_of_a_hundred_megabytes_is_kept(tmp_path: Path, form: str, megabytes: int) -> None:
    """Protects both the file and the worker: EXIF and a profile of 50 MB each end nothing and are not lost."""
    big = os.urandom(2**20) * megabytes
    exif, icc = pictures.exif(make=big), pictures.srgb_profile() + big
    if form == "PNG":  # Pillow writes no chunk of that size; a reader may meet one
        data = pictures.png(9, 8, depth=8, colour=2, rows=bytes(28 * 8), chunks=((b"eXIf", exif), (b"tEXt", b"a\0" + icc)))
    else:
        data = pictures.with_metadata(pictures.photo(60, 70), form, exif=None if form == "TIFF" else exif, icc=icc, xmp=None)
    source = workshop.as_folder(tmp_path / "source", [Sample(key=f"a.{form.lower()}", data=data)])
    result = workshop.rescale(source, tmp_path / "archive", max_ratio=1)
    assert accounted_for(source, result.uri).entries == 1
    assert not workshop.failures(workshop.restore(result, tmp_path / "out"))
    (entry,) = result.entries
    if entry.kind is EntryKind.ORIGINAL:
        assert source_bytes(entry) == data
    else:
        assert form == "TIFF" or entry.exif == exif
        assert form == "PNG" or entry.icc == icc


def test_xml_is_never_parsed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Protects against a billion laughs in XMP: it is bytes that travel, and no parser of XML is ever made for it."""
    laughs = b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "ha">' + b"".join(
        b'<!ENTITY %c "%s">' % (98 + level, (b"&%c;" % (97 + level)) * 10) for level in range(9)
    ) + b']><x:xmpmeta xmlns:x="adobe:ns:meta/">&j;</x:xmpmeta>'  # fmt: skip

    def never(*_: object, **__: object) -> None:
        raise AssertionError("XML was parsed")

    monkeypatch.setattr("xml.etree.ElementTree.XMLParser", never)
    monkeypatch.setattr("xml.etree.ElementTree.fromstring", never)
    monkeypatch.setattr("xml.parsers.expat.ParserCreate", never)
    samples = [
        Sample(
            key=f"{index}.{form.lower()}",
            data=pictures.with_metadata(pictures.photo(40, 50), form, exif=None, icc=None, xmp=laughs),
        )
        for index, form in enumerate(("JPEG", "PNG", "WEBP", "TIFF"))
    ]
    result = workshop.rescale(workshop.as_folder(tmp_path / "source", samples), tmp_path / "archive")
    assert [entry.xmp for entry in result.entries] == [laughs] * 4
    assert not workshop.failures(workshop.restore(result, tmp_path / "out"))


def test_a_parquet_page_of_absurd_size_is_told(tmp_path: Path) -> None:
    """Protects memory from a page that says it is larger than it can be, in whatever place: the file is damaged, or read."""
    pq.write_table(pa.table({"image": [PICTURE] * 3}), tmp_path / "x.parquet", compression="none", use_dictionary=False)
    data = (tmp_path / "x.parquet").read_bytes()
    sizes = 3 * (len(PICTURE) + 4)
    varint = bytes([sizes * 2 & 0x7F | 0x80, sizes * 2 >> 7 & 0x7F | 0x80, sizes * 2 >> 14])
    plain = bytes([sizes * 2 & 0x7F | 0x80, sizes * 2 >> 7])
    places = [at for needle in (varint, plain) for at in range(len(data)) if data.startswith(needle, at)]
    for at in [*places, *range(4, 60, 5)]:
        (tmp_path / "x.parquet").write_bytes(data[:at] + b"\xfe\xff\xff\xff\x0f" + data[at + 5 :])
        store = LocalStore(tmp_path)
        shard = SourceShard(id="0", name="x", kind=ShardKind.PARQUET, objects=(store.stat("x.parquet"),))
        try:
            list(shards.read_assets(store, shard))
        except PipelineError as error:
            workshop.sentence(str(error))


# Weights --------------------------------------------------------------------------------------------------------------


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path(self.path).touch, ()


@pytest.mark.parametrize("form", ["pickle", "torch", "safetensors and pickle"])
def test_a_pickle_is_no_weights_file(tmp_path: Path, form: str) -> None:
    """Protects the machine from weights of a stranger: a pickle named .safetensors is refused, and nothing in it runs."""
    trap, path = Trap(str(tmp_path / "sprung")), tmp_path / "weights.safetensors"
    data = pickle.dumps(trap)
    if form == "torch":
        torch.save({"trap": trap}, path)
        data = path.read_bytes()
    if form == "safetensors and pickle":
        header = b'{"__metadata__":{"config":"{}","digest":"x"},"t":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}'
        header %= (len(data), len(data))
        data = struct.pack("<Q", len(header)) + header + data
    path.write_bytes(data)
    with pytest.raises(InvalidWeights) as caught:
        read_weights(path)
    assert path.name in workshop.sentence(str(caught.value))
    assert not (tmp_path / "sprung").exists()
