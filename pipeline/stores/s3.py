"""A bucket of S3, or of a server that speaks it, as a store; with its errors the only home of boto3 and botocore."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO

import boto3
from botocore import UNSIGNED
from botocore import exceptions as vendor
from botocore.config import Config

from pipeline.core.errors import (
    AccessDenied,
    AlreadyExists,
    CredentialsMissing,
    CredentialsRefused,
    InvalidKey,
    InvalidOption,
    NotFound,
    SourceChanged,
    StoreUnavailable,
)
from pipeline.core.records import ObjectInfo
from pipeline.stores.base import (
    BUFFER_SIZE,
    UNSTAMPED,
    Access,
    Stamp,
    check_new_key,
    check_path,
    check_range,
    check_text,
    local_errors,
    open_ranged,
    opened_source,
    without_secrets,
)
from pipeline.stores.s3_errors import VENDOR_ERRORS, code_of, from_vendor_error, status_of

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

# The last one: the object was removed between the condition and the write.
_CONFLICT_CODES = {"ConditionalRequestConflict", "OperationAborted", "NoSuchKey"}


def _info(key: str, size: int, told: Mapping[str, Any]) -> ObjectInfo:
    modified = told.get("LastModified")
    return ObjectInfo(
        key=key, size=size, etag=told.get("ETag", "").strip('"'), modified=None if modified is None else modified.timestamp()
    )


class S3Store:
    """A bucket, or a prefix in one, as a store, on any server that honours If-Match and If-None-Match.

    Credentials, region and endpoint come by boto3's own means (environment, profiles, roles, AWS_ENDPOINT_URL) in the process
    that uses the store; none of them is pickled, only the ``access``, which says whether credentials are used at all and who
    pays. The client is made at the first use, and anew after refused credentials.
    """

    LIST_PAGE = 1000
    MULTIPART_THRESHOLD = 5 * 10**9
    """Bytes above which an object goes in parts; as much as S3 takes in one request, which is streamed as well.

    Only there is create-only exact on every server: SeaweedFS 4.48 let several uploads in parts win 7 races of 12.
    """
    PART_SIZE = 64 * 2**20
    MAX_PARTS = 10_000
    ATTEMPTS = 5
    BACKOFF = 0.2
    CONNECT_TIMEOUT = 10.0
    READ_TIMEOUT = 60.0
    CONNECTIONS = 64
    ORDERED_SERVERS = ("AmazonS3",)
    """Servers that list in byte order, as S3 documents; SeaweedFS lists a folder before its siblings."""

    def __init__(self, bucket: str, prefix: str = "", access: Access = Access.SIGNED) -> None:
        self._bucket, self._prefix, self._access = bucket, prefix, access
        self._bucket_uri = f"s3://{bucket}"
        self._base = f"{prefix}/" if prefix else ""
        self.uri = f"{self._bucket_uri}/{prefix}" if prefix else self._bucket_uri
        self._lock = threading.Lock()
        self._made: S3Client | None = None
        self._bucket_seen = False

    def __reduce__(self) -> tuple[type[S3Store], tuple[str, str, Access]]:
        return type(self), (self._bucket, self._prefix, self._access)

    def __repr__(self) -> str:
        return f"S3Store({self.uri!r})"

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        wanted = self._base + prefix
        held: list[ObjectInfo] = []
        # SeaweedFS takes "a//" for "a/", and then gives keys that are not there; so no more than "a" is asked for.
        for page in self._pages(Prefix=wanted.partition("//")[0]):
            infos = [
                _info(found["Key"][len(self._base) :], found["Size"], found)
                for found in page.get("Contents", ())
                # The empty object that some tools make for a folder is nobody's asset.
                if found["Key"].startswith(wanted) and not (found["Key"].endswith("/") and found["Size"] == 0)
            ]
            server = page["ResponseMetadata"]["HTTPHeaders"].get("server", "")
            if server.startswith(self.ORDERED_SERVERS) and not self._bucket.endswith("--x-s3"):
                yield from infos
            else:  # Any later page may hold an earlier key, so the order costs the memory of the whole listing.
                held.extend(infos)
        yield from sorted(held, key=lambda info: info.key)

    def folders(self) -> Iterator[str]:
        pages = self._pages(Prefix=self._base, Delimiter="/")
        found = {each["Prefix"][len(self._base) : -1] for page in pages for each in page.get("CommonPrefixes", ())}
        yield from sorted(found - {""})

    def _pages(self, **asked: Any) -> Iterator[Any]:
        """Yield the pages of a listing as they are read."""
        with self._calling(self.uri) as client:
            pages = iter(
                client.get_paginator("list_objects_v2").paginate(
                    Bucket=self._bucket, PaginationConfig={"PageSize": self.LIST_PAGE}, **asked
                )
            )
        while True:
            with self._calling(self.uri):
                page = next(pages, None)
            if page is None:
                return
            yield page

    def stat(self, key: str) -> ObjectInfo:
        self._check(key)
        uri = f"{self.uri}/{key}"
        try:
            with self._calling(uri) as client:
                head = client.head_object(Bucket=self._bucket, Key=self._base + key)
        except NotFound:
            self._check_bucket()
            raise
        except AccessDenied:
            self._ask_why(key)
            raise
        return _info(key, head["ContentLength"], head)

    def exists(self, key: str) -> bool:
        try:
            self.stat(key)
        except NotFound as error:
            if error.uri == self._bucket_uri:
                raise
            return False
        return True

    def read(self, key: str, start: int = 0, stop: int | None = None, etag: str | None = None) -> bytes:
        self._check(key)
        check_range(start, stop)
        if stop is not None and stop <= start:
            return self._nothing(key, etag)
        uri = f"{self.uri}/{key}"
        asked: dict[str, Any] = {} if etag is None else {"IfMatch": f'"{etag}"'}
        if start or stop is not None:
            asked["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
        detail = ""
        for attempt in range(self.ATTEMPTS):
            with self._calling(uri) as client:
                try:
                    response = client.get_object(Bucket=self._bucket, Key=self._base + key, **asked)
                except vendor.ClientError as error:
                    if status_of(error) == 416:
                        return self._nothing(key, etag)
                    if status_of(error) == 412 and etag is not None:
                        raise SourceChanged(uri, etag, self.stat(key).etag) from None
                    raise
            if "Range" in asked and not response.get("ContentRange", "").startswith(f"bytes {start}-"):
                raise StoreUnavailable(uri, "the server does not honour ranges")
            # botocore repeats requests, but not the reading of an answer's body.
            try:
                with contextlib.closing(response["Body"]) as body:
                    return body.read()
            except (*VENDOR_ERRORS, OSError) as error:
                detail = f"{type(error).__name__}: {without_secrets(str(error))}"
                self._wait(attempt)
        raise StoreUnavailable(uri, detail)

    def open(self, key: str, etag: str | None = None, buffer_size: int = BUFFER_SIZE) -> BinaryIO:
        return open_ranged(self, key, etag, buffer_size)

    def create(self, key: str, data: bytes | Path, stamp: Stamp = UNSTAMPED) -> None:  # noqa: ARG002 - none are kept
        check_new_key(self.uri, key)
        uri = f"{self.uri}/{key}"
        # Tells an object written by a request of ours whose answer was lost from another writer's, even of the same bytes.
        token = secrets.token_hex(16)
        # An OSError in here is the local file's: the client wraps the network's.
        with (
            opened_source(data) as (body, size),
            local_errors(uri if isinstance(data, bytes) else str(data)),
            self._calling(uri) as client,
        ):
            if size > self.MULTIPART_THRESHOLD and self.exists(key):
                raise AlreadyExists(uri)
            for attempt in range(self.ATTEMPTS):
                body.seek(0)
                try:
                    if size > self.MULTIPART_THRESHOLD:
                        self._put_parts(client, key, body, size, token)
                    else:
                        client.put_object(
                            Bucket=self._bucket,
                            Key=self._base + key,
                            Body=body,
                            IfNoneMatch="*",
                            Metadata={"iarn-write": token},
                        )
                    return
                except vendor.ClientError as error:
                    if status_of(error) == 412 or code_of(error) == "NoSuchUpload":
                        if self._written_by(client, key, token):
                            return
                        if status_of(error) == 412:
                            raise AlreadyExists(uri) from None
                    if code_of(error) not in _CONFLICT_CODES:
                        raise
                # Two writers at one moment: S3 asks for the whole upload again, and the loser then finds the object.
                self._wait(attempt)
        raise StoreUnavailable(uri, "other writers of the same key were in the way")

    def replace(self, key: str, data: bytes | Path) -> None:
        check_new_key(self.uri, key)
        with opened_source(data) as (body, _), self._calling(f"{self.uri}/{key}") as client:
            client.put_object(Bucket=self._bucket, Key=self._base + key, Body=body)

    def delete(self, key: str) -> None:
        check_path(self.uri, key)
        check_text(self.uri, key)
        with contextlib.suppress(NotFound), self._calling(f"{self.uri}/{key}") as client:
            client.delete_object(Bucket=self._bucket, Key=self._base + key)

    def _put_parts(self, client: S3Client, key: str, body: IO[bytes], size: int, token: str) -> None:
        """Upload in parts, one of them in memory at a time; nothing is visible, or left, unless all are."""
        where: dict[str, Any] = {"Bucket": self._bucket, "Key": self._base + key}
        upload = client.create_multipart_upload(**where, Metadata={"iarn-write": token})["UploadId"]
        length = max(self.PART_SIZE, -(-size // self.MAX_PARTS))
        done = False
        try:
            parts: list[Any] = []
            while chunk := body.read(length):
                number = len(parts) + 1
                answer = client.upload_part(**where, UploadId=upload, PartNumber=number, Body=chunk)
                checks = {"ChecksumCRC32": answer["ChecksumCRC32"]} if "ChecksumCRC32" in answer else {}
                parts.append({"PartNumber": number, "ETag": answer["ETag"], **checks})
            client.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": parts}, IfNoneMatch="*")
            done = True
        finally:
            if not done:
                # What cannot be removed now stays invisible; a bucket's lifecycle rule clears it.
                with contextlib.suppress(*VENDOR_ERRORS):
                    client.abort_multipart_upload(**where, UploadId=upload)

    def _written_by(self, client: S3Client, key: str, token: str) -> bool:
        try:
            head = client.head_object(Bucket=self._bucket, Key=self._base + key)
        except vendor.ClientError as error:
            if status_of(error) == 404:
                return False
            raise
        return head["Metadata"].get("iarn-write") == token

    def _nothing(self, key: str, etag: str | None) -> bytes:
        """Return no bytes of an object that is there, and is the one asked for."""
        found = self.stat(key).etag
        if etag is not None and found != etag:
            raise SourceChanged(f"{self.uri}/{key}", etag, found)
        return b""

    def _ask_why(self, key: str) -> None:
        """Raise what a GET's answer says, which has a body: that of a HEAD is a bare 400 or 403, credentials or not."""
        with contextlib.suppress(NotFound, StoreUnavailable), self._calling(f"{self.uri}/{key}") as client:
            client.get_object(Bucket=self._bucket, Key=self._base + key, Range="bytes=0-0")["Body"].close()

    def _check_bucket(self) -> None:
        """Raise NotFound with the bucket's URI if it is the bucket that is missing, which a HEAD's answer does not tell."""
        if self._bucket_seen:
            return
        # Who may read objects may still not be allowed to ask about the bucket.
        with contextlib.suppress(AccessDenied), self._calling(self._bucket_uri) as client:
            client.head_bucket(Bucket=self._bucket)
        self._bucket_seen = True

    def _check(self, key: str) -> None:
        """Refuse what is no key at all; any other is opaque here, ``a//b`` and ``../x`` included. Raises InvalidKey."""
        if not key or "\0" in key:
            raise InvalidKey(self.uri, key, "it has to be text, and not empty")
        check_text(self.uri, key)

    def _wait(self, attempt: int) -> None:
        if attempt + 1 < self.ATTEMPTS:
            time.sleep(self.BACKOFF * 2**attempt * (0.5 + secrets.randbelow(1000) / 1000))

    @contextlib.contextmanager
    def _calling(self, uri: str) -> Iterator[S3Client]:
        """Give the client, and turn its errors into ours."""
        try:
            yield self._client()
        except VENDOR_ERRORS as error:
            found = from_vendor_error(error, uri, self._bucket_uri)
            if isinstance(found, CredentialsMissing | CredentialsRefused):
                self._made = None  # the next use reads them anew, where a file or a role may have others by then
            if isinstance(found, AccessDenied) and self._access is Access.UNSIGNED:
                found = AccessDenied(uri, f"{found.detail}, asked without credentials")
            raise found from None

    def _client(self) -> S3Client:
        # A client may be shared by threads; making one may not.
        with self._lock:
            client = self._made
            if client is None:
                config = Config(
                    retries={"mode": "standard", "total_max_attempts": self.ATTEMPTS},
                    max_pool_connections=self.CONNECTIONS,
                    connect_timeout=self.CONNECT_TIMEOUT,
                    read_timeout=self.READ_TIMEOUT,
                    signature_version=UNSIGNED if self._access is Access.UNSIGNED else None,
                )
                try:
                    client = boto3.session.Session().client("s3", config=config)
                except ValueError as error:  # botocore's word for an endpoint that is no URL
                    raise InvalidOption("AWS configuration", "endpoint", without_secrets(str(error))) from None
                if self._access is Access.REQUESTER_PAYS:  # on every request there is, before it is signed
                    client.meta.events.register("before-call.s3", _offer_to_pay)
                self._made = client
            return client


def _offer_to_pay(params: dict[str, Any], **_: object) -> None:
    params["headers"]["x-amz-request-payer"] = "requester"
