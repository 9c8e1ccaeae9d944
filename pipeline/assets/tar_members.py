"""The files of a tar, one after the other; plain, or compressed as a whole, or several joined by ``cat``."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import tempfile
import zlib
from array import array
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import BinaryIO, cast

from pipeline.assets.names import is_litter, safe_key
from pipeline.assets.samples import common_stamp, uri_of
from pipeline.core.errors import DamagedShard, UnsupportedShard
from pipeline.core.records import ObjectInfo
from pipeline.stores.base import UNSTAMPED, Stamp, local_errors
from pipeline.stores.store import Store

LARGEST_MEMBER = 2**31 - 1
"""Bytes of the largest image or sidecar: more does not fit one value of a Parquet column, nor safely into memory."""

LONGEST_PADDING = 2**30
"""Bytes of zeros that are read behind a tar's end mark: a compressed one may have as many as it likes, a thousand in one."""

_ODD_MEMBERS = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a character device",
    tarfile.BLKTYPE: "a block device",
    tarfile.FIFOTYPE: "a named pipe",
}

_NO_FILES = {b"V", b"D"}
"""Of GNU tar: the label of a volume, and what a folder held at an incremental backup."""

_EXTENSIONS = {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
_LARGEST_EXTENSION = 2**20  # bytes of a header that holds a long name or attributes; tarfile reads it at once

# A broken file shows as one of these, by its compression; a store's own errors are none of them.
_BROKEN = (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError)


@dataclass(frozen=True, kw_only=True)
class Member:
    """A file of a tar; ``data`` is None for what is none, and ``note`` says what it is instead."""

    name: str
    data: bytes | None
    note: str | None = None
    stamp: Stamp = UNSTAMPED


class _StrictTarInfo(tarfile.TarInfo):
    """Raises ReadError where tarfile takes a broken header for the end of the tar, or believes any size in it."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _StrictTarInfo:
        info = super().frombuf(buf, encoding, errors)
        if info.size < 0 or (info.type in _EXTENSIONS and info.size > _LARGEST_EXTENSION):
            raise tarfile.ReadError(f"a header claims {info.size} bytes")
        return info

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> _StrictTarInfo:
        assert tarfile_.fileobj is not None
        start = tarfile_.fileobj.tell()
        try:
            info = super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # typeshed lacks it; this one is the regular end
            raise
        except (tarfile.HeaderError, ValueError, IndexError, OverflowError) as error:
            empty = isinstance(error, tarfile.EmptyHeaderError)  # type: ignore[attr-defined]
            if start == 0:
                raise tarfile.ReadError("it is empty" if empty else "it is no tar") from None
            if empty or isinstance(error, tarfile.TruncatedHeaderError):  # type: ignore[attr-defined]
                raise tarfile.ReadError(f"cut off at byte {start}: no end-of-archive mark") from None
            raise tarfile.ReadError(f"no member begins at byte {start}, where one must") from None
        if info.size < 0 or tarfile_.offset <= start:  # by a pax header; going on would read the same member for ever
            raise tarfile.ReadError(f"the member at byte {start} has a size below zero")
        return info


def tar_members(store: Store, info: ObjectInfo) -> Iterator[Member]:
    """Yield the files of a tar, and what stands where files could; raise DamagedShard at the damage, StoreError."""
    uri = uri_of(store, info)
    with store.open(info.key, etag=info.etag) as file, closing(_Links(store, info)) as links:
        plain = _decompressed(file, uri)
        start: int | None = 0
        try:
            while start is not None:
                tar = _open_tar(plain)
                while (header := tar.next()) is not None:
                    tar.members.clear()  # type: ignore[attr-defined]  # else it keeps every header it has seen
                    name = _plain_name(header.name)
                    if header.isdir() or header.type in _NO_FILES:
                        continue
                    stored = None if plain is not file else info.size - header.offset_data
                    member = _member(tar, header, name, stored, links)
                    if not is_litter(name, member.data):
                        yield member
                start = _next_tar(plain, start)
        except _BROKEN as error:
            raise DamagedShard(uri, str(error) or type(error).__name__) from None


def _open_tar(plain: BinaryIO) -> tarfile.TarFile:
    return tarfile.TarFile("", fileobj=plain, tarinfo=_StrictTarInfo, encoding="utf-8", errors="surrogateescape")


def _plain_name(name: str) -> str:
    while name.startswith("./"):  # `tar -c .` puts it before every name
        name = name[2:]
    return name


def _next_tar(plain: BinaryIO, start: int) -> int | None:
    """Go behind the zeros that end the tar which began at ``start``; return where another begins, None at the end.

    ``cat`` joins whole tars, whose lengths are multiples of a record, or which have the least of end marks. Anything else
    behind an end mark is damage: zeros inside a tar look like one.
    """
    marked = end = plain.tell()
    while block := plain.read(tarfile.BLOCKSIZE):
        if block.count(0) != len(block):
            break
        end += len(block)
        if end - marked > LONGEST_PADDING:
            raise tarfile.ReadError(f"more than {LONGEST_PADDING} bytes of padding follow its end-of-archive mark")
    else:
        return None
    joined = (end - start) % tarfile.RECORDSIZE == 0 or end - marked == tarfile.BLOCKSIZE
    if not joined or not _is_header(block):
        raise tarfile.ReadError("more follows its end-of-archive mark, and was not read")
    plain.seek(end)
    return end


def _is_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return False
    return True


def _member(tar: tarfile.TarFile, header: tarfile.TarInfo, name: str, stored: int | None, links: _Links) -> Member:
    if header.islnk():
        return links.member(header, name)
    if not header.isreg():
        what = _ODD_MEMBERS.get(header.type, f"a member of type {header.type!r}")
        return Member(name=name, data=None, note=f"the tar holds {what} here, not a file; only files are read")
    if header.size > LARGEST_MEMBER:
        return _too_large(name, header)
    if stored is not None and not header.issparse() and header.size > stored:  # told before a buffer is filled in vain
        raise tarfile.ReadError(f"cut off inside {safe_key(name)[0]}: {max(stored, 0)} of its {header.size} bytes are there")
    links.passed(header)
    return Member(name=name, data=_bytes_of(tar, header, name), stamp=_stamp(header))


def _stamp(header: tarfile.TarInfo) -> Stamp:
    # No mode at all is one that was not told: programs fill in what they know.
    return Stamp(modified=float(header.mtime), permissions=header.mode & 0o777 or None)


def _too_large(name: str, header: tarfile.TarInfo) -> Member:
    return Member(name=name, data=None, note=f"its {header.size} bytes are more than an entry can hold, {LARGEST_MEMBER}")


def _bytes_of(tar: tarfile.TarFile, header: tarfile.TarInfo, name: str) -> bytes:
    with cast(BinaryIO, tar.extractfile(header)) as member:
        data = member.read()
    if len(data) != header.size:
        raise tarfile.ReadError(f"cut off inside {safe_key(name)[0]}: {len(data)} of its {header.size} bytes are there")
    return data


class _Links:
    """What the hard links of a tar stand for: the bytes of an earlier member, whose other names they are.

    Of a tar without them only the places of its members are kept, 8 bytes each. At the first link the tar is opened once more,
    unpacked to the local disk where it is compressed, and the names at those places are read, some 150 bytes each.
    """

    def __init__(self, store: Store, info: ObjectInfo) -> None:
        self._store, self._info = store, info
        self._held = ExitStack()
        self._tar: tarfile.TarFile | None = None
        self._places = array("Q")
        self._named = 0
        self._by_name: dict[str, int] = {}

    def passed(self, header: tarfile.TarInfo) -> None:
        """Note a file, which links behind it may mean."""
        self._places.append(header.offset)

    def member(self, link: tarfile.TarInfo, name: str) -> Member:
        """Return the member that a link is; one without bytes where no such file is before it."""
        tar = self._tar = self._tar or self._open()
        for place in self._places[self._named :]:
            self._by_name[_plain_name(self._header(tar, place).name)] = place
        self._named = len(self._places)
        target = _plain_name(link.linkname)
        place = self._by_name.get(target, -1)
        if place < 0:
            note = f"the tar holds a hard link here, to {safe_key(target)[0]}, which is no file before it in the tar"
            return Member(name=name, data=None, note=note)
        self._by_name[name] = place
        header = self._header(tar, place)
        # Most writers tell of a link what they tell of its file; some leave all of it out.
        stamp = common_stamp(_stamp(link), _stamp(header)) if link.mtime else _stamp(header)
        return Member(name=name, data=_bytes_of(tar, header, name), stamp=stamp)

    def close(self) -> None:
        """Let go of the second reading, and of what was unpacked."""
        self._held.close()

    def _header(self, tar: tarfile.TarFile, place: int) -> tarfile.TarInfo:
        assert tar.fileobj is not None
        tar.fileobj.seek(place)
        tar.offset = place
        return _StrictTarInfo.fromtarfile(tar)

    def _open(self) -> tarfile.TarFile:
        file = self._held.enter_context(self._store.open(self._info.key, etag=self._info.etag))
        plain = _decompressed(file, uri_of(self._store, self._info))
        if plain is not file:
            plain = self._unpacked(plain)
        return _open_tar(plain)

    def _unpacked(self, packed: BinaryIO) -> BinaryIO:
        folder = tempfile.gettempdir()
        with local_errors(folder):
            copy = self._held.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - it is one
        try:
            while chunk := packed.read(2**20):
                with local_errors(folder):
                    copy.write(chunk)
        except _BROKEN:
            pass  # whatever is damaged lies behind the link, or has been told
        with local_errors(folder):
            copy.seek(0)
        return cast(BinaryIO, copy)


def _decompressed(file: BinaryIO, uri: str) -> BinaryIO:
    """Return the plain tar in ``file``, told by its first bytes; the same object where it is not compressed."""
    magic = file.read(6)
    file.seek(0)
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        raise UnsupportedShard(uri, "it is compressed with Zstandard; store it as .tar, .tar.gz, .tar.bz2 or .tar.xz")
    if magic.startswith(b"\x1f\x8b"):
        return cast(BinaryIO, gzip.GzipFile(fileobj=file, mode="rb"))
    if magic.startswith(b"BZh"):
        return cast(BinaryIO, bz2.BZ2File(file))
    if magic == b"\xfd7zXZ\x00":
        return cast(BinaryIO, lzma.LZMAFile(file))
    return file
