"""How the service answers: files, ranges of them and restored images, with what tells caches about them; errors as JSON."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from jobs.web.http.negotiation import ANY_BYTES, MEDIA_TYPES, byte_range_of, unchanged
from jobs.web.http.service import Service
from jobs.web.http.shapes import ERRORS
from pipeline.entry_picture import renamed
from pipeline.reading.service import EntryPlace, File, ImageRequest, Shelf

FOREVER = "max-age=31536000, immutable"
CHUNK_BYTES = 256 * 1024


def add_route(app: FastAPI, path: str, endpoint: Callable[..., Awaitable[Any]], **options: Any) -> None:
    """Add a route for GET, and for HEAD, which is no part of the description."""
    options["responses"] = {**ERRORS, **options.get("responses", {})}
    app.add_api_route(path, endpoint, methods=["GET"], **options)
    app.add_api_route(path, endpoint, methods=["HEAD"], **{**options, "include_in_schema": False})


class _Bytes(Response):
    """A body that is sent in pieces, each when the client has taken most of those before."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG002
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        body = b"" if scope["method"] == "HEAD" else bytes(self.body)
        for start in range(0, len(body), CHUNK_BYTES):
            await send({"type": "http.response.body", "body": body[start : start + CHUNK_BYTES], "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def image_answer(
    service: Service,
    request: Request,
    shelf: Shelf,
    place: EntryPlace,
    wanted: ImageRequest,
    *,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Answer with a restored image; raises what the backend does, and InvalidOption before anything is restored."""
    digest = await service.read(shelf.image_digest, place, wanted, service.images.device)
    if unchanged(request.headers, f'"{digest}"'):
        return not_modified(service, f'"{digest}"', headers)
    await service.read(shelf.check, place, wanted, service.options.limits)
    found = await service.images.get(digest, place, wanted)
    return file_answer(service, request, found, key=renamed(place.key, found.form), headers=headers)


def file_answer(
    service: Service,
    request: Request,
    found: File,
    *,
    key: str,
    headers: Mapping[str, str] | None = None,
    own_bytes: bool = False,
) -> Response:
    """Answer with a file, or with the range of it that is asked for; ``own_bytes`` are a stranger's, not to be shown."""
    tag = f'"{found.digest}"'
    if unchanged(request.headers, tag):
        return not_modified(service, tag, headers)
    shown = "attachment" if own_bytes else "inline"
    answer = {
        **lasting(service, tag),
        "Accept-Ranges": "bytes",
        "Content-Type": MEDIA_TYPES.get(found.form, ANY_BYTES),
        "Content-Disposition": f"{shown}; filename*=UTF-8''{quote(key.rpartition('/')[2], safe='')}",
        **(headers or {}),
    }
    if own_bytes:
        answer["Content-Security-Policy"] = "sandbox; default-src 'none'"
    byte_range = byte_range_of(request.headers, tag, len(found.data))
    if byte_range is None:
        return _Bytes(found.data, headers=answer)
    answer["Content-Range"] = byte_range.header
    if byte_range.start is None:
        return problem(416, "range", f"There are {byte_range.size} bytes.", {"Content-Range": byte_range.header})
    return _Bytes(found.data[byte_range.start : byte_range.stop], 206, headers=answer)


def lasting(service: Service, tag: str) -> dict[str, str]:
    """Return the headers of what never changes; what needs a token is for the client's own cache alone."""
    return {"ETag": tag, "Cache-Control": f"{'public' if service.options.token is None else 'private'}, {FOREVER}"}


def not_modified(service: Service, tag: str, headers: Mapping[str, str] | None = None) -> Response:
    return Response(status_code=304, headers={**lasting(service, tag), **(headers or {})})


def problem(status: int, kind: str, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": {"kind": kind, "message": message}}, status, headers=dict(headers or {}))
