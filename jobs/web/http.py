"""The service over HTTP: routes, negotiation, headers, errors; the only importer of fastapi.

A key is the end of a path, percent-encoded whole (a slash is %2F) or, as proxies leave it, with its slashes. Reads of archives
run in threads, restores in the backend's engines; nothing here waits for either with the event loop in hand.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import quote, unquote_to_bytes

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import FastAPI, Query, Request
from fastapi import Path as Segment
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from jobs.web import http_docs, service_metrics
from jobs.web.http_guard import LOOPBACK_HOSTS, App, Guard
from jobs.web.http_shapes import ERRORS, IMAGES, Archives, Asset, Assets, status_of
from jobs.web.negotiation import ANY_BYTES, MEDIA_TYPES, byte_range_of, form_for, unchanged
from jobs.web.on_demand import Backend, Images
from jobs.web.service_metrics import ServiceMetrics
from pipeline.core.byte_cache import ByteCache
from pipeline.core.errors import InvalidOption, PipelineError
from pipeline.core.options import Limits
from pipeline.core.records import EntryKind, Tier
from pipeline.entry_picture import renamed
from pipeline.pictures.region import Region
from pipeline.reading.catalogue import Filter
from pipeline.reading.errors import NoSuchEntry, RanOutOfTime, ServiceError
from pipeline.reading.service import FORMS, EntryPlace, File, ImageRequest, Shelf

ENTRY = "/archives/{archive}/assets/{key:path}"
FOREVER = "max-age=31536000, immutable"
GALLERY = Path(__file__).with_name("gallery")
CHUNK_BYTES = 256 * 1024
RETRY_SECONDS = 2
READERS = 16
LISTERS = 4
LIST_SECONDS = 1.0
"""How long a request for a list waits for one that is still being made."""

Result = TypeVar("Result")
Name = Annotated[str, Segment(max_length=1024, description="The archive's name.")]
Key = Annotated[str, Segment(max_length=8192, description="The key, percent-encoded: best as a whole, a slash as %2F.")]
Shard = Annotated[str | None, Query(max_length=300, description="The shard's id, where several have the key.")]


@dataclass(frozen=True, kw_only=True)
class HttpOptions:
    """How a service answers: its token (None for none), the hosts it answers as without one, bounds of each answer."""

    token: str | None = None
    hosts: frozenset[str] = LOOPBACK_HOSTS
    cache_bytes: int = 256 * 2**20
    limits: Limits = field(default_factory=Limits)
    seconds: float = 60.0
    most_restores: int = 64


class Service:
    """What the routes work with."""

    def __init__(self, shelves: Sequence[Shelf], backend: Backend, options: HttpOptions) -> None:
        self.shelves = {shelf.name: shelf for shelf in shelves}
        self.options = options
        self.metrics = ServiceMetrics()
        self.cache: ByteCache[File] = ByteCache(options.cache_bytes)
        self.images = Images(backend, self.cache, self.metrics, seconds=options.seconds, most=options.most_restores)
        self.readers, self.listers = CapacityLimiter(READERS), CapacityLimiter(LISTERS)

    def shelf(self, name: str) -> Shelf:
        """Return the archive of a name, as it stands in a path."""
        shelf = self.shelves.get(_text(name))
        if shelf is None:
            raise HTTPException(404, f"No archive here has this name; there are {', '.join(self.shelves)}.")
        return shelf

    async def find(self, name: str, key: str, part: str, shard: str | None) -> tuple[Shelf, EntryPlace, str]:
        """Return the archive, the place of an entry, and what of it an address means: ``part``, or "" for all that is known."""
        shelf, missing = self.shelf(name), dict[str, NoSuchEntry]()
        for own, wanted in _meanings(key, part):
            try:
                return shelf, await self.read(shelf.place, _text(own), shard), wanted
            except NoSuchEntry as error:
                missing[wanted] = error
        raise missing[part]

    async def read(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Run what reads an archive in a thread, within the seconds of a request; there are READERS of them."""
        try:
            async with asyncio.timeout(self.options.seconds):
                return await run_sync(function, *arguments, limiter=self.readers, abandon_on_cancel=True)
        except TimeoutError:
            raise RanOutOfTime("the entry", round(self.options.seconds)) from None


def create_app(shelves: Sequence[Shelf], backend: Backend, options: HttpOptions) -> App:
    """Return the ASGI application that serves some archives, with restores by ``backend``."""
    service = Service(shelves, backend, options)
    summary, here = "Archives of images, restored on demand.", [{"url": "./"}]
    app = FastAPI(title="iarn", summary=summary, servers=here, docs_url=None, redoc_url=None)
    app.router.redirect_slashes = False
    for kind in (PipelineError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _answer_error)
    _add_plain_routes(app, service)
    _add_archive_routes(app, service)
    _add_stored_routes(app, service)
    _add_image_route(app, service)
    _add_entry_route(app, service)  # the last: a key may have any form
    if GALLERY.is_dir():
        app.mount("/gallery", _GalleryFiles(directory=GALLERY, html=True), name="gallery")
    return Guard(app, metrics=service.metrics, token=options.token, hosts=options.hosts)


class _GalleryFiles(StaticFiles):
    """The gallery's files; a browser asks each time whether they have changed, or it would mix those of two versions."""

    def file_response(self, *args: Any, **options: Any) -> Response:
        response = super().file_response(*args, **options)
        response.headers["Cache-Control"] = "no-cache"
        return response


def _add_plain_routes(app: FastAPI, service: Service) -> None:
    async def healthz() -> dict[str, str]:
        """Say that the service is up."""
        return {"status": "ok"}

    async def metrics() -> Response:
        """Tell the figures of this process in Prometheus' text format."""
        return Response(service.metrics.text(service.cache.state), media_type=service_metrics.MEDIA_TYPE)

    async def docs() -> Response:
        """Show this description."""
        return Response(http_docs.page(app.openapi()), media_type="text/html")

    async def root() -> Response:
        """Lead to the gallery."""
        return RedirectResponse("gallery/", 307)  # below whatever path a proxy has the service at

    text = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
    _route(app, "/healthz", healthz)
    _route(app, "/metrics", metrics, response_class=Response, responses=text)
    _route(app, "/docs", docs, include_in_schema=False)
    _route(app, "/", root, include_in_schema=False)
    _route(app, "/gallery", root, include_in_schema=False)


def _add_archive_routes(app: FastAPI, service: Service) -> None:
    async def archives() -> dict[str, Any]:
        """List the archives that are served."""
        return {"archives": [shelf.describe() for shelf in service.shelves.values()]}

    async def assets(
        archive: Name,
        prefix: Annotated[str, Query(max_length=4096, description="Keys that begin so.")] = "",
        contains: Annotated[str, Query(max_length=4096, description="Keys that have this in them.")] = "",
        kind: Annotated[str | None, Query(pattern="^(lr|original)$", description="lr or original.")] = None,
        tier: Annotated[Tier | None, Query(description="What is kept beside the LR.")] = None,
        psnr_min: Annotated[float | None, Query(allow_inf_nan=False, description="In dB, over RGB.")] = None,
        psnr_max: Annotated[float | None, Query(allow_inf_nan=False, description="In dB, over RGB.")] = None,
        after: Annotated[str, Query(max_length=8192, description="Keys behind this one.")] = "",
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> JSONResponse:
        """List entries by key, a page at a time; the bytes of their parts are told by each entry itself."""
        shelf = service.shelf(archive)
        kinds = {"lr": EntryKind.RESCALED, "original": EntryKind.ORIGINAL}
        wanted = Filter(
            prefix=prefix,
            contains=contains,
            kind=None if kind is None else kinds[kind],
            tier=tier,
            psnr_min=psnr_min,
            psnr_max=psnr_max,
        )
        listed = await run_sync(
            lambda: shelf.list(wanted, after=after, limit=limit, seconds=LIST_SECONDS), limiter=service.listers
        )
        for each in listed["assets"]:
            each["links"] = _links(each, "assets/", ambiguous=each.pop("holders") > 1)
        return JSONResponse(listed, headers={"Cache-Control": "no-cache"})

    _route(app, "/archives", archives, response_model=Archives)
    _route(app, "/archives/{archive}/assets", assets, responses={200: {"model": Assets}})


def _add_entry_route(app: FastAPI, service: Service) -> None:
    async def asset(archive: Name, key: Key, shard: Shard = None) -> JSONResponse:
        """Tell all that is known of an entry."""
        shelf, place, _ = await service.find(archive, key, "", shard)
        return await _all_known(service, shelf, place, shard)

    _route(app, ENTRY, asset, responses={200: {"model": Asset}})


async def _all_known(service: Service, shelf: Shelf, place: EntryPlace, shard: str | None) -> JSONResponse:
    found = await service.read(shelf.asset, place)
    found["links"] = _links(found, "", ambiguous=shard is not None)
    return JSONResponse(found, headers={"Cache-Control": "no-cache"})


def _add_stored_routes(app: FastAPI, service: Service) -> None:
    async def lr(request: Request, archive: Name, key: Key, shard: Shard = None) -> Response:
        """Give an entry's LR, the very bytes that are stored."""
        name = json.dumps(["lr", archive, key, shard])
        found = service.cache.get(name)
        if found is None:
            shelf, place, part = await service.find(archive, key, "lr", shard)
            if not part:
                return await _all_known(service, shelf, place, shard)
            found = await service.read(shelf.lr, place)
            service.cache.put(name, found, len(found.data))
        return _picture(service, request, found, key=renamed(_text(key), found.form))

    async def original(request: Request, archive: Name, key: Key, shard: Shard = None) -> Response:
        """Give the source's own bytes, where they are kept."""
        shelf, place, part = await service.find(archive, key, "original", shard)
        if not part:
            return await _all_known(service, shelf, place, shard)
        found = await service.read(shelf.original, place)
        return _picture(service, request, found, key=place.key, own_bytes=True)

    for path, endpoint in (("lr", lr), ("original", original)):
        _route(app, f"{ENTRY}/{path}", endpoint, response_class=Response, responses=IMAGES)


def _add_image_route(app: FastAPI, service: Service) -> None:
    async def image(
        request: Request,
        archive: Name,
        key: Key,
        shard: Shard = None,
        max_side: Annotated[int | None, Query(ge=1, le=1_000_000, description="Longest side, in pixels.")] = None,
        scale: Annotated[float | None, Query(gt=0, le=4, allow_inf_nan=False, description="Of the original size.")] = None,
        size: Annotated[str | None, Query(pattern=r"^[1-9][0-9]{0,6}x[1-9][0-9]{0,6}$", description="640x480.")] = None,
        region: Annotated[str | None, Query(max_length=60, description="Of the upright image: x,y,width,height.")] = None,
        format: Annotated[str | None, Query(pattern=f"^({'|'.join(FORMS)})$", description="Wins over Accept.")] = None,
        quality: Annotated[int, Query(ge=1, le=100, description="Of JPEG, WebP and AVIF.")] = 95,
        latent: Annotated[int, Query(ge=0, le=1, description="0: from the LR alone.")] = 1,
    ) -> Response:
        """Give a restored image or a region of it, at the original size or another: the bytes that `iarn restore` writes."""
        shelf, place, part = await service.find(archive, key, "image", shard)
        if not part:
            return await _all_known(service, shelf, place, shard)
        width, _, height = (size or "").partition("x")
        wanted = ImageRequest(
            form=format or form_for(request.headers.get("accept", "")),
            quality=quality,
            max_side=max_side,
            scale=scale,
            size=(int(height), int(width)) if size else None,
            region=None if region is None else Region.parse(region),
            use_latent=latent == 1,
        )
        digest = await service.read(shelf.image_digest, place, wanted, service.images.device)
        vary = {} if format else {"Vary": "Accept"}
        if unchanged(request.headers, f'"{digest}"'):
            return _not_modified(service, f'"{digest}"', vary)
        await service.read(shelf.check, place, wanted, service.options.limits)
        found = await service.images.get(digest, place, wanted)
        return _picture(service, request, found, key=renamed(place.key, found.form), headers=vary)

    _route(app, f"{ENTRY}/image", image, response_class=Response, responses=IMAGES)


def _route(app: FastAPI, path: str, endpoint: Callable[..., Awaitable[Any]], **options: Any) -> None:
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


def _picture(
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
        return _not_modified(service, tag, headers)
    shown = "attachment" if own_bytes else "inline"
    answer = {
        **_lasting(service, tag),
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
        return _problem(416, "range", f"There are {byte_range.size} bytes.", {"Content-Range": byte_range.header})
    return _Bytes(found.data[byte_range.start : byte_range.stop], 206, headers=answer)


def _lasting(service: Service, tag: str) -> dict[str, str]:
    """Return the headers of what never changes; what needs a token is for the client's own cache alone."""
    return {"ETag": tag, "Cache-Control": f"{'public' if service.options.token is None else 'private'}, {FOREVER}"}


def _not_modified(service: Service, tag: str, headers: Mapping[str, str] | None = None) -> Response:
    return Response(status_code=304, headers={**_lasting(service, tag), **(headers or {})})


def _text(segment: str) -> str:
    """Return what a segment of a path, as it came, stands for; raises InvalidOption where that is no text."""
    try:
        return unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        raise InvalidOption("path", segment[:100], "percent-encode it as UTF-8.") from None


def _meanings(key: str, part: str) -> Iterator[tuple[str, str]]:
    """Yield what an address ``key/part`` may mean, a key and which part of it, in the order in which it is looked for.

    A key that is encoded whole is one segment. One with slashes may end as a part is called, so the longest comes first. A
    segment with an encoded slash is a whole key whatever stands before it: a link, followed from an address with slashes.
    """
    whole = [segment for segment in key.split("/") if "%2f" in segment.lower()]
    readings = [(key, part), (f"{key}/{part}", "")] if part and not whole else [((whole or [key])[-1], part)]
    yield from reversed(readings) if "/" in key else readings


def _links(asset: Mapping[str, Any], base: str, *, ambiguous: bool) -> dict[str, str | None]:
    """Return links relative to the address of an entry whose key is encoded whole, or of a list where ``base`` says so."""
    base += quote(asset["key"], safe="")
    shard = f"?shard={quote(asset['shard'], safe='')}" if ambiguous else ""
    lr = f"{base}/lr{shard}" if asset["kind"] == "lr" else None
    return {"lr": lr, "image": f"{base}/image{shard}", "original": f"{base}/original{shard}" if asset["has_original"] else None}


def _problem(status: int, kind: str, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": {"kind": kind, "message": message}}, status, headers=dict(headers or {}))


async def _answer_error(_: Request, error: Exception) -> Response:
    """Answer with an error as a sentence, under the status that it means."""
    if isinstance(error, PipelineError):
        status, kind = status_of(error)
        retry = {"Retry-After": str(RETRY_SECONDS)} if isinstance(error, ServiceError) or status == 503 else {}
        return _problem(status, kind, str(error), retry)
    if isinstance(error, RequestValidationError):
        found = [f"{each['loc'][-1]}: {each['msg']}" for each in error.errors()]
        return _problem(422, "invalid-option", "; ".join(found))
    assert isinstance(error, HTTPException)
    kinds = {404: "not-found", 405: "method-not-allowed"}
    message = error.detail if error.status_code != 404 or error.detail != "Not Found" else "There is nothing at this address."
    return _problem(error.status_code, kinds.get(error.status_code, "refused"), message, error.headers)
