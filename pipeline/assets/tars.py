"""A tar of the WebDataset convention to its assets, one at a time; plain, or compressed as a whole."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, cast

from pipeline.assets.names import UniqueNames, has_image_name, is_litter, safe_key, safe_suffix, split_stem
from pipeline.assets.samples import common_stamp, named_asset, uri_of
from pipeline.core.errors import DamagedShard, UnsupportedShard
from pipeline.core.records import Asset, ObjectInfo
from pipeline.stores.base import UNSTAMPED, Stamp
from pipeline.stores.store import Store

LARGEST_MEMBER = 2**31 - 1
"""Bytes of the largest image or sidecar: more does not fit one value of a Parquet column, nor safely into memory."""

LONGEST_PADDING = 2**30
"""Bytes of zeros that are read behind a tar's end mark: a compressed one may have as many as it likes, a thousand in one."""

_ODD_MEMBERS = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a character device",
    tarfile.BLKTYPE: "a block device",
    tarfile.FIFOTYPE: "a named pipe",
}

_EXTENSIONS = {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
_LARGEST_EXTENSION = 2**20  # bytes of a header that holds a long name or attributes; tarfile reads it at once

# A broken file shows as one of these, by its compression; a store's own errors are none of them.
_BROKEN = (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError)


@dataclass(frozen=True, kw_only=True)
class _Member:
    """A file of a tar; ``data`` is None for what is none, and ``note`` says what it is instead."""

    name: str
    data: bytes | None
    note: str | None = None
    stamp: Stamp = UNSTAMPED


@dataclass
class _Sample:
    """Adjacent members of one stem, by suffix."""

    stem: str
    members: dict[str, _Member] = field(default_factory=dict)
    size: int = 0

    def image(self) -> str | None:
        """Return the suffix of the image: the first plain extension (``jpg`` before ``seg.png``), else the first image."""
        images = [suffix for suffix in self.members if has_image_name(f"x.{suffix}")]
        return next((suffix for suffix in images if "." not in suffix), images[0] if images else None)


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


def read_tar(store: Store, info: ObjectInfo) -> Iterator[Asset]:
    names = UniqueNames()
    sample = _Sample("")
    with store.open(info.key, etag=info.etag) as file:
        try:
            for member in _tar_members(file, info, uri_of(store, info)):
                stem, suffix = split_stem(member.name)
                suffix = safe_suffix(suffix)
                if member.data is None:
                    yield named_asset(names, member.name, None, {}, member.note)
                    continue
                if sample.members and (
                    stem != sample.stem or suffix in sample.members or sample.size + len(member.data) > LARGEST_MEMBER
                ):
                    yield _sample_asset(names, sample)
                    sample = _Sample("")
                sample.stem = stem
                sample.members[suffix] = member
                sample.size += len(member.data)
        except DamagedShard:
            # The image of a sample without one may lie behind the damage: that sample is lost with it, not half kept.
            if sample.image() is not None:
                yield _sample_asset(names, sample, "the tar is damaged behind it, sidecars may be missing")
            raise
        if sample.members:
            yield _sample_asset(names, sample)


def _sample_asset(names: UniqueNames, sample: _Sample, note: str | None = None) -> Asset:
    image, stamps = sample.image(), [member.stamp for member in sample.members.values()]
    sidecars = {suffix: member.data for suffix, member in sample.members.items() if suffix != image and member.data is not None}
    if image is None:
        note = "no image beside these members; members of one sample must be adjacent in the tar"
        first = next(iter(sample.members.values()))
        return named_asset(names, first.name, None, sidecars, note, stamp=common_stamp(first.stamp, *stamps))
    chosen = sample.members[image]
    return named_asset(names, chosen.name, chosen.data, sidecars, note, stamp=common_stamp(chosen.stamp, *stamps))


def _tar_members(file: BinaryIO, info: ObjectInfo, uri: str) -> Iterator[_Member]:
    """Yield the files of a tar, and what stands where files could; raise DamagedShard at the damage."""
    plain = _decompressed(file, uri)
    try:
        tar = tarfile.TarFile("", fileobj=plain, tarinfo=_StrictTarInfo, encoding="utf-8", errors="surrogateescape")
        while (header := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # else it keeps every header it has seen
            name = header.name
            while name.startswith("./"):  # `tar -c .` puts it before every name
                name = name[2:]
            if not header.isdir() and not is_litter(name):
                stored = None if plain is not file else info.size - header.offset_data
                yield _member(tar, header, name, stored)
        _check_padding(plain)
    except _BROKEN as error:
        raise DamagedShard(uri, str(error) or type(error).__name__) from None


def _check_padding(plain: BinaryIO) -> None:
    padding = 0
    while rest := plain.read(2**20):
        padding += len(rest)
        if rest.count(0) != len(rest):
            raise tarfile.ReadError("more follows its end-of-archive mark, and was not read")
        if padding > LONGEST_PADDING:
            raise tarfile.ReadError(f"more than {LONGEST_PADDING} bytes of padding follow its end-of-archive mark")


def _member(tar: tarfile.TarFile, header: tarfile.TarInfo, name: str, stored: int | None) -> _Member:
    if not header.isreg():
        what = _ODD_MEMBERS.get(header.type, f"a member of type {header.type!r}")
        return _Member(name=name, data=None, note=f"the tar holds {what} here, not a file; only files are read")
    if header.size > LARGEST_MEMBER:
        return _Member(name=name, data=None, note=f"its {header.size} bytes are more than an entry can hold, {LARGEST_MEMBER}")
    if stored is not None and not header.issparse() and header.size > stored:  # told before a buffer is filled in vain
        raise tarfile.ReadError(f"cut off inside {safe_key(name)[0]}: {max(stored, 0)} of its {header.size} bytes are there")
    with cast(BinaryIO, tar.extractfile(header)) as member:
        data = member.read()
    if len(data) != header.size:
        raise tarfile.ReadError(f"cut off inside {safe_key(name)[0]}: {len(data)} of its {header.size} bytes are there")
    return _Member(name=name, data=data, stamp=Stamp(modified=float(header.mtime), permissions=header.mode & 0o777))


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
