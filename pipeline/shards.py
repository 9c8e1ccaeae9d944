"""A source shard to its assets, one at a time, names kept: tars (WebDataset convention), Parquet files, loose files."""

from __future__ import annotations

import base64
import bz2
import gzip
import json
import lzma
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from pipeline.errors import DamagedEntry, DamagedShard, NoImageColumn, UnsupportedShard
from pipeline.names import UniqueNames, has_image_name, is_litter, safe_key, safe_suffix, split_stem
from pipeline.records import Asset, ObjectInfo, ShardKind, SourceShard
from pipeline.store import Store

if TYPE_CHECKING:
    from pipeline.parquet import RowReader

LARGEST_MEMBER = 2**31 - 1
"""Bytes of the largest image or sidecar: more does not fit one value of a Parquet column, nor safely into memory."""

LONGEST_PADDING = 2**30
"""Bytes of zeros that are read behind a tar's end mark: a compressed one may have as many as it likes, a thousand in one."""

KEY_COLUMNS = ("key", "__key__", "id", "name", "filename")
"""Columns of a Parquet file that may name its rows, the first one that holds text in a row winning."""

_MAGIC = (
    (b"\xff\xd8\xff", "jpg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"II*\x00", "tif"),
    (b"MM\x00*", "tif"),
    (b"II+\x00", "tif"),
    (b"MM\x00+", "tif"),
    (b"\xff\x0a", "jxl"),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "jxl"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "jp2"),
    (b"\xff\x4f\xff\x51", "j2k"),
    (b"8BPS\x00\x01", "psd"),
    (b"qoif", "qoi"),
)
_BRANDS = {b"avif": "avif", b"avis": "avif", b"heic": "heic", b"heix": "heic", b"mif1": "heif", b"msf1": "heif"}

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


def read_assets(store: Store, shard: SourceShard, *, image_column: str | None = None) -> Iterator[Asset]:
    """Yield every asset of ``shard``, in the shard's order, exactly once, with a key of its own.

    Memory is one sample and the buffers of one file, and 70 bytes a name, whatever the size of the shard. Where a tar or a
    Parquet file is broken all assets before the damage are yielded and DamagedShard is raised *at the end*: the caller keeps
    what it has and records the sentence. ``image_column`` names the column of a Parquet file, which otherwise has to have
    exactly one that holds images. Raises NoImageColumn, UnsupportedShard (before anything is yielded), and StoreError
    (SourceChanged where an object is no longer the one that was planned).
    """
    match shard.kind:
        case ShardKind.TAR:
            return _read_tar(store, shard.objects[0])
        case ShardKind.PARQUET:
            return _read_parquet(store, shard.objects[0], image_column)
        case ShardKind.FILES:
            return _read_files(store, shard.objects)


def source_schema(store: Store, shard: SourceShard) -> bytes | None:
    """Return the serialised Arrow schema of a Parquet shard, for a restore to the same columns; None for other kinds.

    Raises DamagedShard and StoreError.
    """
    if shard.kind is not ShardKind.PARQUET:
        return None
    from pipeline.parquet import RowReader  # not at the top: training reads tars on machines without pyarrow

    info = shard.objects[0]
    with store.open(info.key, etag=info.etag) as file:
        return RowReader(file, _uri(store, info)).schema_bytes


def source_image_column(store: Store, shard: SourceShard, *, image_column: str | None = None) -> str | None:
    """Return the column of a Parquet shard that ``read_assets`` takes the images from; None for other kinds or without rows.

    Raises NoImageColumn, DamagedShard and StoreError.
    """
    if shard.kind is not ShardKind.PARQUET:
        return None
    from pipeline.parquet import RowReader  # not at the top: training reads tars on machines without pyarrow

    info = shard.objects[0]
    with store.open(info.key, etag=info.etag) as file:
        return _image_column(RowReader(file, _uri(store, info)), image_column)


def image_extension(data: bytes) -> str | None:
    """Return the extension (no dot) that the first bytes of an image call for, None where they begin no image."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12])
    if data[:2] == b"BM" and data[14:18] in {size.to_bytes(4, "little") for size in (12, 40, 52, 56, 64, 108, 124)}:
        return "bmp"
    return next((extension for magic, extension in _MAGIC if data.startswith(magic)), None)


# Tar ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Member:
    """A file of a tar; ``data`` is None for what is none, and ``note`` says what it is instead."""

    name: str
    data: bytes | None
    note: str | None = None


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


def _read_tar(store: Store, info: ObjectInfo) -> Iterator[Asset]:
    names = UniqueNames()
    sample = _Sample("")
    with store.open(info.key, etag=info.etag) as file:
        try:
            for member in _tar_members(file, info, _uri(store, info)):
                stem, suffix = split_stem(member.name)
                suffix = safe_suffix(suffix)
                if member.data is None:
                    yield _asset(names, member.name, None, {}, member.note)
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
    image = sample.image()
    sidecars = {suffix: member.data for suffix, member in sample.members.items() if suffix != image and member.data is not None}
    if image is None:
        note = "no image beside these members; members of one sample must be adjacent in the tar"
        return _asset(names, next(iter(sample.members.values())).name, None, sidecars, note)
    chosen = sample.members[image]
    return _asset(names, chosen.name, chosen.data, sidecars, note)


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
    return _Member(name=name, data=data)


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


# Loose files ----------------------------------------------------------------------------------------------------------


def _read_files(store: Store, objects: tuple[ObjectInfo, ...]) -> Iterator[Asset]:
    names = UniqueNames()
    stems: dict[str, list[ObjectInfo]] = {}
    for info in objects:
        stems.setdefault(split_stem(info.key)[0], []).append(info)
    for members in stems.values():
        images = [info for info in members if has_image_name(info.key)] or members[:1]
        owned: dict[str, list[ObjectInfo]] = {info.key: [] for info in images}
        for info in members:
            if info.key not in owned:
                owned[_owner(info.key, images)].append(info)
        for info in images:
            sidecars = {split_stem(each.key)[1]: each for each in owned[info.key]}
            yield _file_asset(store, names, info, sidecars)


def _owner(sidecar: str, images: list[ObjectInfo]) -> str:
    """Return the image a sidecar belongs to: ``shot.12.json`` to ``shot.12.jpg``, not to ``shot.11.jpg``; else the first."""
    bases = [(len(info.key), info.key) for info in images if sidecar.startswith(info.key.rpartition(".")[0] + ".")]
    longest = max((length for length, _ in bases), default=0)
    return next((key for length, key in bases if length == longest), images[0].key)


def _file_asset(store: Store, names: UniqueNames, info: ObjectInfo, sidecars: dict[str, ObjectInfo]) -> Asset:
    notes = []
    contents: dict[str, bytes] = {}
    for suffix, each in sidecars.items():
        if each.size > LARGEST_MEMBER:
            notes.append(f"its sidecar {each.key} was left out: {each.size} bytes are more than an entry can hold")
        else:
            contents[safe_suffix(suffix)] = _read_object(store, each)
    data = None
    if info.size > LARGEST_MEMBER:
        notes.append(f"its {info.size} bytes are more than an entry can hold, {LARGEST_MEMBER}")
    elif not has_image_name(info.key):
        notes.append("no image beside these files")
        contents[safe_suffix(split_stem(info.key)[1])] = _read_object(store, info)
    else:
        data = _read_object(store, info)
    return _asset(names, info.key, data, contents, "; ".join(notes) or None)


def _read_object(store: Store, info: ObjectInfo) -> bytes:
    return store.read(info.key, 0, info.size, etag=info.etag)


# Parquet --------------------------------------------------------------------------------------------------------------


def _read_parquet(store: Store, info: ObjectInfo, image_column: str | None) -> Iterator[Asset]:
    from pipeline.parquet import RowReader  # not at the top: training reads tars on machines without pyarrow

    uri = _uri(store, info)
    names = UniqueNames()
    with store.open(info.key, etag=info.etag) as file:
        reader = RowReader(file, uri)
        column = _image_column(reader, image_column)
        if column is None:
            return
        with closing(cast(Any, reader.rows())) as rows:
            for number, row in enumerate(rows):
                value = row.pop(column)
                if not (value is None or isinstance(value, bytes) or (isinstance(value, dict) and "bytes" in value)):
                    raise NoImageColumn(uri, column, reader.columns)
                yield _row_asset(names, number, row, column, value, reader.columns)


def _image_column(reader: RowReader, wanted: str | None) -> str | None:
    """Return the column of images; None where there are no rows to tell it by, and so nothing to lose."""
    if wanted is None:
        found = reader.image_columns(lambda data: image_extension(data) is not None)
        if not found and reader.num_rows == 0:
            return None
    else:
        found = tuple(name for name in reader.columns if name == wanted)
    if len(found) != 1:
        raise NoImageColumn(reader.uri, wanted, reader.columns)
    return found[0]


def _text_sidecar(columns: Sequence[str]) -> str:
    """Return the sidecar that holds the text of a row: ``json``, or ``columns.json`` where the source has a column ``json``.

    The columns' names alone decide, so that every row of a source, and its restore, has the same.
    """
    taken = {safe_suffix(column) for column in columns}
    name = "json"
    while name in taken:
        name = f"columns.{name}"
    return name


def _row_asset(names: UniqueNames, number: int, row: dict[str, Any], column: str, value: Any, columns: Sequence[str]) -> Asset:
    """Return the asset of a row: further binary columns are sidecars by name, all other values one (``_text_sidecar``).

    In the JSON binary values inside lists and structs are base64; the image's struct keeps what it has beside the bytes.
    ``columns`` are the source's.
    """
    sidecars = {safe_suffix(name): row.pop(name) for name in list(row) if isinstance(row[name], bytes)}
    data, path = value, None
    if isinstance(value, dict):
        data, path = value["bytes"], value.get("path")
        row = {**row, column: {name: each for name, each in value.items() if name != "bytes"}}
    note = None
    if data is None:
        note = f"row {number} has the path {path} but no image" if path else f"row {number} has no image"
    if row:
        text = json.dumps(row, sort_keys=True, ensure_ascii=False, default=lambda each: base64.b64encode(each).decode("ascii"))
        sidecars[_text_sidecar(columns)] = text.encode("utf-8")
    return _asset(names, _row_key(number, row, path, data), data, sidecars, note, unique_sidecars=False)


def source_row(columns: Sequence[str], image_column: str, data: bytes | None, sidecars: Mapping[str, bytes]) -> dict[str, Any]:
    """Return the row of a Parquet source that an asset was made of, with ``data`` as its image; undoes ``_row_asset``.

    ``columns`` are the source's. Raises DamagedEntry where the sidecar that holds the other columns is no JSON.
    """
    name = _text_sidecar(columns)
    text = sidecars.get(name)
    try:
        row = dict(json.loads(text)) if text is not None else {}
    except (ValueError, TypeError) as error:
        raise DamagedEntry(str(sidecars.keys()), name, str(error)) from None
    for column in columns:
        if column not in row and safe_suffix(column) in sidecars:
            row[column] = sidecars[safe_suffix(column)]
    struct = row.pop(image_column, None)
    row[image_column] = {**struct, "bytes": data} if isinstance(struct, dict) else data
    return row


def _row_key(number: int, row: dict[str, Any], path: Any, data: bytes | None) -> str:
    candidates = [*(row.get(name) for name in KEY_COLUMNS), path, f"{number:08d}"]
    key = next(name for name in candidates if isinstance(name, str) and name)
    extension = None if has_image_name(key) or data is None else image_extension(data)
    return key if extension is None else f"{key}.{extension}"


def _asset(
    names: UniqueNames,
    name: str,
    data: bytes | None,
    sidecars: dict[str, bytes],
    note: str | None,
    *,
    unique_sidecars: bool = True,
) -> Asset:
    """Return an asset under a safe key of its own; the notes on its name come first."""
    safe, changed = safe_key(name)
    key, renamed = names.claim(safe, sidecars if unique_sidecars else ())
    return Asset(key=key, data=data, sidecars=sidecars, note="; ".join(filter(None, (changed, renamed, note))) or None)


def _uri(store: Store, info: ObjectInfo) -> str:
    return f"{store.uri.rstrip('/')}/{info.key}"
