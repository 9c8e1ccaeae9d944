"""A local folder as a store."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO

from pipeline.core.errors import AlreadyExists, InvalidKey, NotFound, SourceChanged
from pipeline.core.records import ObjectInfo
from pipeline.stores.base import (
    BUFFER_SIZE,
    ERRNO_MEANS_ABSENT,
    PART_NAME,
    UNSTAMPED,
    Stamp,
    check_new_key,
    check_path,
    check_range,
    from_os_error,
    local_errors,
    open_ranged,
    opened_source,
)

# What link() says on file systems without hard links (EPERM on FAT), or where a folder spans several.
_ERRNO_MEANS_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


PassedOver = Callable[[str, str], None]
"""Is told of a name, and why it is no object."""


class LocalStore:
    """A folder as a store; an ETag is made of a file's size and modification time.

    Symbolic links are followed, except to a folder that is being listed already. What is no regular file is no object. A name
    that is no UTF-8 is listed and read under what ``os.fsdecode`` makes of it, and never written.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.uri = str(root)

    def __repr__(self) -> str:
        return f"LocalStore({self.uri!r})"

    def list(self, prefix: str = "", passed_over: PassedOver | None = None) -> Iterator[ObjectInfo]:
        """Do what a store does; ``passed_over`` is told of each name that is no object, and why, folders with their slash.

        With it a folder below the root that may not be read is such a name; without, AccessDenied.
        """
        folder = prefix.rpartition("/")[0]
        start = self._root / folder
        with local_errors(self.uri):
            if not self._root.is_dir():
                raise NotFound(self.uri)
        # No key has an empty, . or .. part; such a prefix must not lead the walk out of the root either.
        if "\0" in prefix or (folder and any(part in ("", ".", "..") for part in folder.split("/"))):
            return
        yield from self._walk(start, f"{folder}/" if folder else "", prefix, (), passed_over)

    def folders(self) -> Iterator[str]:
        with local_errors(self.uri), os.scandir(self._root) as found:
            names = sorted(entry.name for entry in found if _is_folder(entry))
        yield from names

    def _walk(
        self, folder: Path, base: str, prefix: str, above: tuple[tuple[int, int], ...], passed_over: PassedOver | None
    ) -> Iterator[ObjectInfo]:
        uri = f"{self.uri}/{base}"
        try:
            status = folder.stat()
            with os.scandir(folder) as found:
                # A folder sorts with its slash, so that the order is that of whole keys: "a-b" before "a/b" before "a0".
                names = sorted(entry.name + "/" if _is_folder(entry) else entry.name for entry in found)
        except OSError as error:
            if error.errno in ERRNO_MEANS_ABSENT:
                return
            if above and passed_over is not None:
                passed_over(base, f"this folder cannot be read ({error.strerror})")
                return
            raise from_os_error(error, uri) from error
        here = (status.st_dev, status.st_ino)
        if here in above:
            if passed_over is not None:
                passed_over(base, "a link to a folder that it is in")
            return
        for name in names:
            key = base + name
            if name.endswith("/"):
                if key.startswith(prefix) or prefix.startswith(key):
                    yield from self._walk(folder / name, key, prefix, (*above, here), passed_over)
            elif key.startswith(prefix) and not (name.startswith(".") and PART_NAME.fullmatch(name)):
                try:
                    status = os.stat(f"{folder}/{name}")  # noqa: PTH116 - of a million files a Path each is most of the time
                except OSError as error:
                    if error.errno not in ERRNO_MEANS_ABSENT:
                        raise from_os_error(error, f"{self.uri}/{key}") from error
                    if passed_over is not None:
                        passed_over(key, "a link to nothing, or gone since")
                    continue
                if S_ISREG(status.st_mode):
                    yield _info_of(key, status)
                elif passed_over is not None:
                    passed_over(key, "a pipe, a socket or a device")

    def stat(self, key: str) -> ObjectInfo:
        with self._errors(key):
            return _info_of(key, self._regular(key))

    def exists(self, key: str) -> bool:
        try:
            self.stat(key)
        except NotFound as error:
            if error.uri == self.uri:
                raise
            return False
        return True

    def read(self, key: str, start: int = 0, stop: int | None = None, etag: str | None = None) -> bytes:
        check_range(start, stop)
        with self._errors(key):
            self._regular(key)  # opening a pipe would wait for its writer
            with (self._root / key).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(start)
                data = file.read(max(0, min(size, size if stop is None else stop) - start))
                found = _info_of(key, os.fstat(file.fileno())).etag
        if etag is not None and found != etag:
            raise SourceChanged(f"{self.uri}/{key}", etag, found)
        return data

    def open(self, key: str, etag: str | None = None, buffer_size: int = BUFFER_SIZE) -> BinaryIO:
        return open_ranged(self, key, etag, buffer_size)

    def create(self, key: str, data: bytes | Path, stamp: Stamp = UNSTAMPED) -> None:
        path = self._target(key)
        uri = f"{self.uri}/{key}"
        with self._errors(key):
            if os.path.lexists(path):
                raise AlreadyExists(uri)
            with self._written(path, data, stamp) as part:
                try:
                    os.link(part, path)
                except FileExistsError:
                    # On a network file system the link may be ours, made by a request whose answer was lost.
                    if not path.exists() or not path.samefile(part):
                        raise AlreadyExists(uri) from None
                except OSError as error:
                    if error.errno not in _ERRNO_MEANS_NO_LINKS:
                        raise
                    _rename_if_absent(part, path, uri)

    def replace(self, key: str, data: bytes | Path) -> None:
        path = self._target(key)
        with self._errors(key), self._written(path, data) as part:
            part.replace(path)

    def delete(self, key: str) -> None:
        self._check(key)
        # Not with _errors: a missing store has none of its objects either.
        try:
            (self._root / key).unlink()
        except OSError as error:
            if error.errno not in ERRNO_MEANS_ABSENT:
                raise from_os_error(error, f"{self.uri}/{key}") from error

    @contextlib.contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        self._check(key)
        try:
            with local_errors(f"{self.uri}/{key}"):
                yield
        except NotFound:
            with local_errors(self.uri):
                self._root.stat()
            raise

    def _check(self, key: str) -> None:
        """Refuse what is no path below the folder, or no name that a file can have. Raises InvalidKey."""
        check_path(self.uri, key)
        try:
            os.fsencode(key)
        except UnicodeEncodeError:
            raise InvalidKey(self.uri, key, "no file can have it as its name") from None

    def _regular(self, key: str) -> os.stat_result:
        status = (self._root / key).stat()
        if not S_ISREG(status.st_mode):
            raise FileNotFoundError(errno.ENOENT, "not a regular file")
        return status

    def _target(self, key: str) -> Path:
        """Return the path of an object to write, in a folder that exists."""
        check_new_key(self.uri, key)
        path = self._root / key
        with local_errors(self.uri):
            self._root.stat()  # never made here: on another machine it would be another folder
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise InvalidKey(self.uri, key, "a file stands where its folder would be") from None
        except OSError as error:
            raise from_os_error(error, f"{self.uri}/{key}") from error
        return path

    @contextlib.contextmanager
    def _written(self, path: Path, data: bytes | Path, stamp: Stamp = UNSTAMPED) -> Iterator[Path]:
        """Give a file beside ``path`` that holds the data, safely on the disk; gone at the end, whatever happens."""
        part = path.with_name(f".iarn-{secrets.token_hex(8)}.part")
        with opened_source(data) as (source, _):
            try:
                with part.open("xb") as file:
                    if stamp.permissions is not None:  # before its first byte
                        with contextlib.suppress(PermissionError):  # FAT has no such modes
                            part.chmod(stamp.permissions)
                    shutil.copyfileobj(source, file, 2**20)
                    file.flush()
                    os.fsync(file.fileno())
                if stamp.modified is not None:
                    os.utime(part, (stamp.modified, stamp.modified))
                yield part
            finally:
                part.unlink(missing_ok=True)
        _sync_folder(path.parent)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _info_of(key: str, status: os.stat_result) -> ObjectInfo:
    return ObjectInfo(
        key=key,
        size=status.st_size,
        etag=f"{status.st_size:x}-{status.st_mtime_ns:x}",
        modified=status.st_mtime,
        permissions=status.st_mode & 0o777,
    )


def _rename_if_absent(part: Path, path: Path, uri: str) -> None:
    """Rename where the file system has no hard links; a lock on the folder, which dies with its holder, keeps it exact.

    O_EXCL would be exact too, but would show an object half-written, and leave it so after a crash. On a file system that has
    no locks either this raises OSError rather than guess.
    """
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if os.path.lexists(path):
            raise AlreadyExists(uri)
        part.rename(path)
    finally:
        os.close(folder)


def _sync_folder(folder: Path) -> None:
    # The object is whole and visible by now, so a file system that cannot do this is no reason to call it failed.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
