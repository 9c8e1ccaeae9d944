"""A bucket whose keys are opaque, as Amazon's are: SeaweedFS takes them for paths, so it cannot stand in for that."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, unquote
from xml.sax.saxutils import escape

from tests.support.handler_server import handled_by


@contextmanager
def opaque_bucket(objects: dict[str, bytes], *, refused: frozenset[str] = frozenset()) -> Iterator[str]:
    """Serve ``objects`` by key as the bucket ``opaque``, those ``refused`` only in its listing; give the endpoint's URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            _, _, key = path.removeprefix("/").partition("/")
            if "list-type=2" in query:
                self._answer(200, _listing(objects, parse_qs(query).get("prefix", [""])[0]))
                return
            data = objects.get(unquote(key))
            if not key:
                self._answer(200, b"")
            elif unquote(key) in refused:
                self._answer(400, b"<Error><Code>InvalidRequest</Code><Message>no</Message></Error>")
            elif data is None:
                self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
            else:
                first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
                stop = min(int(last) + 1 if last else len(data), len(data))
                headers = {"ETag": f'"{_etag(data)}"', "Content-Range": f"bytes {first}-{stop - 1}/{len(data)}"}
                self._answer(206 if "Range" in self.headers else 200, data[int(first) : stop], headers)

        do_HEAD = do_GET  # noqa: N815 - as http.server calls it

        def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def version_string(self) -> str:
            return "AmazonS3"

        def log_message(self, format: str, *args: object) -> None:
            pass

    with handled_by(Handler) as address:
        yield address


def _etag(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _listing(objects: dict[str, bytes], prefix: str) -> bytes:
    found = sorted(key for key in objects if key.startswith(prefix))
    rows = (
        f"<Contents><Key>{escape(key)}</Key><Size>{len(objects[key])}</Size><ETag>{_etag(objects[key])}</ETag></Contents>"
        for key in found
    )
    return f"<ListBucketResult><IsTruncated>false</IsTruncated>{''.join(rows)}</ListBucketResult>".encode()
