"""Objects by key: a local folder and S3 behind one contract (``Store``); which one, a URI says.

Keys are relative and separated by ``/``. Listing is in byte order of whole keys. An object appears whole or not at all, and
``create`` has exactly one winner. Nothing here knows what the objects are.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

from pipeline.core.errors import InvalidOption, NotFound
from pipeline.stores.base import Access, Store, local_errors, without_secrets
from pipeline.stores.local import LocalStore

__all__ = ["Access", "LocalStore", "Store", "is_local", "open_store", "split_uri"]


def open_store(uri: str, create: bool = False, access: Access = Access.SIGNED) -> Store:
    """Return the store at a local path, ``file://`` URI or ``s3://bucket/prefix``.

    ``create`` makes a local folder that is missing; a bucket is never made. ``access`` is how a bucket is asked. Nothing is
    asked of S3 before the first use. Raises InvalidOption for a URI that makes no sense, and for a local path with any access
    but the usual; NotFound for a local folder that is missing.
    """
    scheme, rest = _parse_uri(uri)
    if scheme == "s3":
        from pipeline.stores.s3 import S3Store  # not at the top: training reads local files on machines without boto3

        bucket, _, prefix = rest.partition("/")
        return S3Store(bucket, prefix, access)
    if access is not Access.SIGNED:
        raise InvalidOption("access", access, f"it is for s3:// alone; leave it out for {rest}.")
    root = Path(rest).absolute()
    with local_errors(str(root)):
        if create and not root.exists():
            root.mkdir(parents=True, exist_ok=True)
        if not root.exists():
            raise NotFound(str(root))
        if not root.is_dir():
            raise InvalidOption("store", str(root), "is a file; give the folder that it is in.")
    return LocalStore(root)


def is_local(uri: str) -> bool:
    """Return whether a URI names a place on a local disk. Raises InvalidOption for one that makes no sense."""
    return _parse_uri(uri)[0] == "file"


def split_uri(uri: str) -> tuple[str, str]:
    """Return the parent store's URI and the key of the object that a URI names. Raises InvalidOption where it has no parent."""
    scheme, rest = _parse_uri(uri)
    if scheme == "s3":
        parent, _, key = rest.rpartition("/")
        parent = f"s3://{parent}" if parent else ""
    else:
        path = Path(rest).absolute()
        parent, key = str(path.parent), path.name
    if not parent or key in ("", ".", ".."):
        raise InvalidOption("object", uri, "has no name below a folder or bucket; give one.")
    return parent, key


def _parse_uri(uri: str) -> tuple[str, str]:
    """Return ("s3", bucket/prefix) or ("file", path), without a slash at the end."""
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", uri)
    scheme = match[1].lower() if match else "file"
    rest = uri[match.end() :] if match else uri
    shown = without_secrets(uri)
    if scheme == "file" and match:
        host, slash, rest = rest.partition("/")
        if host not in ("", "localhost"):
            raise InvalidOption("store", shown, "names a host; give file:///path for a path of this machine.")
        rest = slash + unquote(rest)
    if not rest or "\0" in rest:
        raise InvalidOption("store", repr(shown), "give a local path, or s3://bucket/prefix.")
    if scheme == "file":
        return scheme, rest
    if scheme != "s3":
        raise InvalidOption("store", shown, f"{scheme}:// is not supported; give a local path, file:// or s3://bucket/prefix.")
    bucket, *segments = rest.rstrip("/").split("/")
    if not re.fullmatch(r"[A-Za-z0-9._-]{3,255}", bucket):
        raise InvalidOption("store", shown, "has no valid bucket name; give s3://bucket/prefix.")
    if any(segment in ("", ".", "..") for segment in segments):
        raise InvalidOption("store", shown, "has an empty, . or .. part in its prefix; leave it out.")
    return scheme, "/".join((bucket, *segments))
