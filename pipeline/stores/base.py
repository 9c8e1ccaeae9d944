"""The contract of a store, and what both kinds share: the rule for keys, files that read ranges, local errors."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, Any, BinaryIO, Protocol, cast

from pipeline.core.errors import AccessDenied, InvalidKey, NotFound, PipelineError, SourceChanged, StoreUnavailable
from pipeline.core.records import ObjectInfo

_FURTHEST = 2.0**34
"""Seconds before and after 1970, to the year 2514, that a file's time may be."""


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """What a written file gets beside its bytes, where that is known: its time, and who may read it."""

    modified: float | None = None
    permissions: int | None = None

    def __post_init__(self) -> None:
        if self.modified is not None and not abs(self.modified) < _FURTHEST:  # not a number, or beyond what a disk can tell
            object.__setattr__(self, "modified", None)


UNSTAMPED = Stamp()
"""A file as it is made: of now, and as wide as its maker's umask lets it."""

BUFFER_SIZE = 4 * 2**20
"""Bytes that ``Store.open`` fetches at a time unless told."""


class Access(StrEnum):
    """How a bucket is asked: with credentials, without any where it is public, or with credentials whose owner then pays."""

    SIGNED = "signed"
    UNSIGNED = "unsigned"
    REQUESTER_PAYS = "requester-pays"


class Store(Protocol):
    """Objects below one URI; may be pickled, and used by many threads at once.

    Any method may raise AccessDenied, CredentialsMissing, CredentialsRefused, StoreUnavailable, and NotFound with the store's
    own URI (S3: the bucket's) where that is missing. A method with a key raises InvalidKey for one that cannot be this store's.
    A key is the object's own name: of a file whose name is no UTF-8 it is what ``os.fsdecode`` makes of it.
    """

    uri: str

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield every object whose key starts with ``prefix``, in byte order of the keys, while reading the listing."""

    def folders(self) -> Iterator[str]:
        """Yield the first part of each key that has more parts, once, in byte order: a listing of one level, and no deeper."""

    def stat(self, key: str) -> ObjectInfo:
        """Return size in bytes and ETag of an object. Raises NotFound."""

    def exists(self, key: str) -> bool:
        """Return whether there is an object."""

    def read(self, key: str, start: int = 0, stop: int | None = None, etag: str | None = None) -> bytes:
        """Return bytes ``start`` to ``stop`` (exclusive; clipped to the object, as a slice is).

        Raises NotFound, and SourceChanged where ``etag`` is given and is not the object's.
        """

    def open(self, key: str, etag: str | None = None, buffer_size: int = BUFFER_SIZE) -> BinaryIO:
        """Open an object as a seekable, read-only file that fetches ``buffer_size`` bytes at a time.

        All reads see one version of the object: SourceChanged if it is another than at the opening, or than ``etag``.
        Raises NotFound. Its ``name`` is that of the version.
        """

    def create(self, key: str, data: bytes | Path, stamp: Stamp = UNSTAMPED) -> None:
        """Write bytes, or a local file's contents, as a new object; of several writers one succeeds.

        A store whose files have times and modes of their own gives it those of ``stamp``.

        Raises AlreadyExists (and leaves the object as it was), NotFound for a local file that is missing.
        """

    def replace(self, key: str, data: bytes | Path) -> None:
        """Write bytes, or a local file's contents, as an object in place of whatever there is; NotFound as for ``create``."""

    def delete(self, key: str) -> None:
        """Remove an object; none there is fine."""


PART_NAME = re.compile(r"\.iarn-[0-9a-f]+\.part")
"""A file that LocalStore is still writing; never listed, never a key."""


def check_path(uri: str, key: str) -> None:
    """Refuse a key that is no path within a folder: absolute, empty, or one that leads out. Raises InvalidKey."""
    if not key or key.startswith("/") or "\0" in key or any(segment in (".", "..") for segment in key.split("/")):
        raise InvalidKey(uri, key, "it has to be relative and not empty, without . or .. parts")


def check_text(uri: str, key: str) -> None:
    """Refuse a key that is no Unicode text. Raises InvalidKey."""
    try:
        key.encode()
    except UnicodeEncodeError:
        raise InvalidKey(uri, key, "it is no Unicode text (UTF-8); rename it") from None


def check_new_key(uri: str, key: str) -> None:
    """Refuse a key for a new object that not every store can hold. Raises InvalidKey."""
    check_path(uri, key)
    check_text(uri, key)
    segments = key.split("/")
    # A server may take a backslash for a slash, and an empty part for none (SeaweedFS does both), and a local store has to.
    if "\\" in key or "" in segments or any(map(PART_NAME.fullmatch, segments)):
        raise InvalidKey(uri, key, "a new object's key has no backslash, no empty part and no name of a file being written")


def check_range(start: int, stop: int | None) -> None:
    """Refuse a range that would count from the end, as a slice does. Raises ValueError."""
    if start < 0 or (stop is not None and stop < 0):
        raise ValueError(f"a range counts from 0; found {start} to {stop}")


class _RangedReader(io.RawIOBase):
    """One version of an object as a raw file over ``Store.read``."""

    def __init__(self, store: Store, info: ObjectInfo) -> None:
        super().__init__()
        self._store, self._info, self._position = store, info, 0
        self.etag = info.etag
        self.name = f"{store.uri}/{info.key} {info.etag}"

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._info.size}[whence]
        if base + offset < 0:
            raise ValueError(f"position {base + offset} is before the start of {self.name}")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        data = self._fetch(self._position + len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        # The inherited one would fetch 8 KiB at a time.
        return self._fetch(self._info.size)

    def _fetch(self, stop: int) -> bytes:
        stop = min(stop, self._info.size)
        if self._position >= stop:
            return b""
        data = self._store.read(self._info.key, self._position, stop, self._info.etag)
        self._position += len(data)
        return data


def open_ranged(store: Store, key: str, etag: str | None, buffer_size: int) -> BinaryIO:
    """Do what ``Store.open`` says by the store's own ``stat`` and ``read``."""
    info = store.stat(key)
    if etag is not None and info.etag != etag:
        raise SourceChanged(f"{store.uri}/{key}", etag, info.etag)
    return io.BufferedReader(_RangedReader(store, info), buffer_size)


def version_of(file: BinaryIO) -> str:
    """Return the ETag of the version of an object that a file of ``Store.open`` reads."""
    return cast(_RangedReader, cast(io.BufferedReader, file).raw).etag


ERRNO_MEANS_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
_ERRNO_MEANS_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextlib.contextmanager
def local_errors(uri: str) -> Iterator[None]:
    """Turn an OSError about the file at ``uri`` into ours, as ``from_os_error`` does."""
    try:
        yield
    except OSError as error:
        raise from_os_error(error, uri) from error


def from_os_error(error: OSError, uri: str) -> PipelineError:
    """Return our error for a file system's: NotFound, AccessDenied, InvalidKey, or StoreUnavailable (as for a full disk)."""
    if error.errno in ERRNO_MEANS_ABSENT:
        return NotFound(uri)
    detail = error.strerror or type(error).__name__
    if error.errno in _ERRNO_MEANS_DENIED:
        return AccessDenied(uri, detail)
    if error.errno in (errno.ENAMETOOLONG, errno.EISDIR, errno.EINVAL, errno.EILSEQ):  # as for a:b.jpg on exFAT or NTFS
        parent, _, name = uri.rpartition("/")
        return InvalidKey(parent, name, detail)
    return StoreUnavailable(uri, detail)


# A header or a query of a signed request, a line of a credentials file, an element of an error's XML. The scope behind a
# credential's slash is no secret, but a token or a secret may have slashes in it.
_NAMED_SECRET = re.compile(
    r"((?:Credential|AccessKey(?:Id)?|access_key_id)\s*[=:>]\s*)(?!\s)[^\s,&</%]+(?:%2F[^\s,&<]*)?"
    r"|((?:Signature|Token|Secret(?:AccessKey)?|secret_access_key)\s*[=:>]\s*)(?!\s)[^\s,&<]+",
    re.IGNORECASE,
)


@contextlib.contextmanager
def opened_source(data: bytes | Path) -> Iterator[tuple[IO[bytes], int]]:
    """Give what is to be written as a file, and its size in bytes."""
    if isinstance(data, bytes):
        yield io.BytesIO(data), len(data)
        return
    with contextlib.ExitStack() as stack:
        with local_errors(str(data)):
            file = stack.enter_context(data.open("rb"))
            size = os.fstat(file.fileno()).st_size
        yield file, size


def without_secrets(text: str) -> str:
    """Return text of others without the user and password of a URL, and without what is named as, or looks like, a secret."""
    text = re.sub(r"//(?:[^/\s]*|[^/:\s]+:\S+)@", "//…@", text)  # Amazon's secrets may have slashes
    text = _NAMED_SECRET.sub(lambda match: f"{match[1] or match[2]}…", text)
    return re.sub(r"\bA[KS]IA[A-Z0-9]{12,}", "…", text)
