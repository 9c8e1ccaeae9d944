"""How the service answers: files, ranges of them and restored images, with what tells caches about them; errors as JSON."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from anyio import CancelScope, create_task_group
from anyio.lowlevel import checkpoint
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from jobs.web.http.negotiation import ANY_BYTES, MEDIA_TYPES, byte_range_of, unchanged
from jobs.web.http.outgoing import Outgoing
from jobs.web.http.service import Service
from jobs.web.http.shapes import ERRORS
from pipeline.core.errors import PipelineError
from pipeline.entry_picture import renamed
from pipeline.reading.places import EntryPlace
from pipeline.reading.requests import ImageRequest
from pipeline.serving.shelf import Shelf
from pipeline.serving.stored import PIECE_BYTES, File, FileFigures, LargeFile

FOREVER = "max-age=31536000, immutable"
CHUNK_BYTES = 256 * 1024
PIECES_HELD = 3
"""Of a large file that is being sent: one that is read, one that is given, one that the connection has."""

_log = logging.getLogger(__name__)


def add_route(app: FastAPI, path: str, endpoint: Callable[..., Awaitable[Any]], **options: Any) -> None:
    """Add a route for GET, and for HEAD, which is no part of the description; queries are those that the endpoint declares."""
    options["responses"] = {**ERRORS, **options.get("responses", {})}
    options["dependencies"] = [Depends(check_query)]
    app.add_api_route(path, endpoint, methods=["GET"], **options)
    app.add_api_route(path, endpoint, methods=["HEAD"], **{**options, "include_in_schema": False})


async def check_query(request: Request) -> None:
    """Refuse parameters that a route does not have, and those that are given twice."""
    known = [each.alias for each in request.scope["route"].dependant.query_params]
    for name, count in Counter(name for name, _ in request.query_params.multi_items()).items():
        if name not in known:
            there = f"there are {', '.join(known)}" if known else "there are none here"
            raise HTTPException(400, f"No parameter is called {name[:100]!r}; {there}.")
        if count > 1:
            raise HTTPException(400, f"The parameter {name!r} is given {count} times; give it once.")


class _Bytes(Response):
    """A body in memory that is sent in pieces, each when the client has taken most of those before."""

    def __init__(self, outgoing: Outgoing, data: bytes, start: int, stop: int, status: int, headers: Mapping[str, str]) -> None:
        super().__init__(memoryview(data)[start:stop], status, headers)
        self._outgoing, self._data = outgoing, data

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG002
        body = memoryview(b"" if scope["method"] == "HEAD" else self.body)
        with self._outgoing.sending(self._data, len(self._data) if body else 0) as sending:  # all of it stays for a part
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            for start in range(0, len(body), CHUNK_BYTES):
                chunk = body[start : start + CHUNK_BYTES]
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                sending.rest -= len(chunk)
            await send({"type": "http.response.body", "body": b""})


class _Pieces(Response):
    """A body that is read while it is sent. What goes wrong then is told in the log, and to the client by the missing end."""

    def __init__(
        self, service: Service, found: FileFigures, start: int, stop: int, status: int, headers: Mapping[str, str]
    ) -> None:
        super().__init__(None, status, {**headers, "Content-Length": str(stop - start)})
        self._service, self._found, self._start, self._stop = service, found, start, stop

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "HEAD" or not isinstance(self._found, LargeFile):
            await super().__call__(scope, receive, send)
            return
        pieces = self._found.pieces(self._start, self._stop)
        with self._service.outgoing.sending(self, PIECES_HELD * PIECE_BYTES):
            try:
                first = await self._next(pieces)  # what cannot be read at all is an error like any other
                async with create_task_group() as group:
                    group.start_soon(_until_gone, receive, group.cancel_scope)
                    try:
                        await self._send(first, pieces, send)
                    except PipelineError as error:
                        _log.error("A file was sent in part, %s: %s", self._found.digest, error)
                    group.cancel_scope.cancel()
            finally:
                with CancelScope(shield=True):
                    await self._service.in_thread(pieces.close)

    async def _next(self, pieces: Iterator[bytes]) -> bytes | None:
        """Return the next piece, None behind the last; who goes meanwhile is noticed when the thread that reads is done."""
        await checkpoint()
        with CancelScope(shield=True):
            piece: bytes | None = await self._service.in_thread(next, pieces, None)
        return piece

    async def _send(self, piece: bytes | None, pieces: Iterator[bytes], send: Any) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        while piece is not None:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            piece = await self._next(pieces)
        await send({"type": "http.response.body", "body": b""})


async def _until_gone(receive: Any, scope: CancelScope) -> None:
    """Cancel a scope when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def image_answer(
    service: Service,
    request: Request,
    shelf: Shelf,
    place: EntryPlace,
    wanted: ImageRequest,
    *,
    versioned: bool,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Answer with a restored image; raises what the backend does, and InvalidOption before anything is restored."""
    digest = await service.read(shelf.image_digest, place, wanted, service.images.device)
    if unchanged(request.headers, f'"{digest}"'):
        return Response(status_code=304, headers={**caching(service, digest, versioned=versioned), **(headers or {})})
    await service.read(shelf.check, place, wanted, service.options.limits)
    found = await service.images.get(digest, place, wanted)
    key = renamed(place.key, found.form)
    return file_answer(service, request, found, key=key, versioned=versioned, headers=headers)


def file_answer(
    service: Service,
    request: Request,
    found: File | FileFigures,
    *,
    key: str,
    versioned: bool,
    headers: Mapping[str, str] | None = None,
    own_bytes: bool = False,
) -> Response:
    """Answer with a file, or with the range of it that is asked for; ``own_bytes`` are a stranger's, not to be shown.

    What is told by its figures alone is for HEAD, and for who has it.
    """
    answer = {**caching(service, found.digest, versioned=versioned), **(headers or {})}
    if unchanged(request.headers, answer["ETag"]):
        return Response(status_code=304, headers=answer)
    shown = "attachment" if own_bytes else "inline"
    answer |= {
        "Accept-Ranges": "bytes",
        "Content-Type": MEDIA_TYPES.get(found.form, ANY_BYTES),
        "Content-Disposition": f"{shown}; filename*=UTF-8''{quote(key.rpartition('/')[2], safe='')}",
    }
    if own_bytes:
        answer["Content-Security-Policy"] = "sandbox; default-src 'none'"
    byte_range = None if request.method == "HEAD" else byte_range_of(request.headers, answer["ETag"], found.size)
    if byte_range is None:
        return _body(service, found, 0, found.size, 200, answer)
    answer["Content-Range"] = byte_range.header
    if byte_range.start is None:
        return problem(416, "range", f"There are {byte_range.size} bytes.", {"Content-Range": byte_range.header})
    return _body(service, found, byte_range.start, byte_range.stop, 206, answer)


def _body(
    service: Service, found: File | FileFigures, start: int, stop: int, status: int, headers: Mapping[str, str]
) -> Response:
    if isinstance(found, File):
        return _Bytes(service.outgoing, found.data, start, stop, status, headers)
    return _Pieces(service, found, start, stop, status, headers)


def caching(service: Service, digest: str, *, versioned: bool) -> dict[str, str]:
    """Return what tells caches how long a file is good: for ever at an address with a version, else as long as its ETag is.

    What needs a token is for the client's own cache alone.
    """
    whose = "public" if service.options.token is None else "private"
    return {"ETag": f'"{digest}"', "Cache-Control": f"{whose}, {FOREVER if versioned else 'no-cache'}"}


def problem(status: int, kind: str, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Answer with an error, which no cache keeps: it may be another archive's by the next request."""
    told = {"Cache-Control": "no-store", **(headers or {})}
    return JSONResponse({"error": {"kind": kind, "message": message}}, status, headers=told)
