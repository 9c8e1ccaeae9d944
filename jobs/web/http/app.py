"""The service over HTTP: its routes, and errors under the status that they mean.

A key is the end of a path, percent-encoded whole (a slash is %2F) or, as proxies leave it, with its slashes. Reads of archives
run in threads, restores in the backend's engines; nothing here waits for either with the event loop in hand.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from anyio.to_thread import run_sync
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from jobs.web import service_metrics
from jobs.web.front.account import Account
from jobs.web.front.guard import App, Guard
from jobs.web.http import docs as docs_page
from jobs.web.http.answers import add_route, file_answer, image_answer, problem
from jobs.web.http.negotiation import form_for, unchanged
from jobs.web.http.service import LIST_SECONDS, HttpOptions, Key, Name, Service, Shard, Version
from jobs.web.http.shapes import IMAGES, Archives, Asset, Assets, status_of
from jobs.web.iiif.cross_origin import PREFIX, CrossOrigin
from jobs.web.iiif.routes import add_iiif_routes, iiif_status
from jobs.web.library import Library
from jobs.web.on_demand import Backend
from pipeline.core.errors import PipelineError
from pipeline.core.records import EntryKind, Tier
from pipeline.entry_picture import renamed
from pipeline.pictures.region import Region
from pipeline.reading.catalogue import Filter
from pipeline.reading.errors import ServiceError
from pipeline.reading.places import EntryPlace
from pipeline.reading.requests import FORMS, ImageRequest
from pipeline.serving.shelf import Shelf
from pipeline.serving.stored import File, FileFigures, lr_figures, original_figures

ENTRY = "/archives/{archive}/assets/{key:path}"
GALLERY = Path(__file__).parents[1] / "gallery"
RETRY_SECONDS = 2


def create_app(library: Library, backend: Backend, options: HttpOptions) -> App:
    """Return the ASGI application that serves a library's archives, with restores by ``backend``."""
    service = Service(library, backend, options)
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
    add_iiif_routes(app, service)
    if GALLERY.is_dir():
        app.mount("/gallery", _GalleryFiles(directory=GALLERY, html=True), name="gallery")
    guarded: App = Guard(app, token=options.token, hosts=options.hosts)
    crossing = guarded if options.origin is None else CrossOrigin(guarded, options.origin)
    return Account(crossing, metrics=service.metrics, trusted=options.trusted, log=options.access_log)


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
        """Tell the service's figures, the sums of all its workers, in Prometheus' text format."""
        text, headers = await run_sync(service.metrics.text), {"Cache-Control": "no-store"}
        return Response(text, headers=headers, media_type=service_metrics.MEDIA_TYPE)

    async def docs() -> Response:
        """Show this description."""
        return Response(docs_page.page(app.openapi()), media_type="text/html")

    async def root() -> Response:
        """Lead to the gallery."""
        return RedirectResponse("gallery/", 307)  # below whatever path a proxy has the service at

    text = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
    add_route(app, "/healthz", healthz)
    add_route(app, "/metrics", metrics, response_class=Response, responses=text)
    add_route(app, "/docs", docs, include_in_schema=False)
    add_route(app, "/", root, include_in_schema=False)
    add_route(app, "/gallery", root, include_in_schema=False)


def _add_archive_routes(app: FastAPI, service: Service) -> None:
    async def archives(response: Response) -> dict[str, Any]:
        """List the archives that are served."""
        response.headers["Cache-Control"] = "no-cache"
        return {"archives": [shelf.describe() for shelf in service.shelves]}

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
            each["links"] = _links(each, "assets/", shelf.version, ambiguous=each.pop("holders") > 1)
        return JSONResponse(listed, headers={"Cache-Control": "no-cache"})

    add_route(app, "/archives", archives, response_model=Archives)
    add_route(app, "/archives/{archive}/assets", assets, responses={200: {"model": Assets}})


def _add_entry_route(app: FastAPI, service: Service) -> None:
    async def asset(archive: Name, key: Key, shard: Shard = None, version: Version = None) -> JSONResponse:
        """Tell all that is known of an entry."""
        shelf, place, _ = await service.find(archive, key, "", shard, version)
        return await _all_known(service, shelf, place, shard)

    add_route(app, ENTRY, asset, responses={200: {"model": Asset}})


async def _all_known(service: Service, shelf: Shelf, place: EntryPlace, shard: str | None) -> JSONResponse:
    found = await service.read(shelf.asset, place)
    found["links"] = _links(found, "", shelf.version, ambiguous=shard is not None)
    return JSONResponse(found, headers={"Cache-Control": "no-cache"})


def _add_stored_routes(app: FastAPI, service: Service) -> None:
    async def lr(request: Request, archive: Name, key: Key, shard: Shard = None, version: Version = None) -> Response:
        """Give an entry's LR, the very bytes that are stored."""
        shelf, place, part = await service.find(archive, key, "lr", shard, version)
        if not part:
            return await _all_known(service, shelf, place, shard)
        found: File | FileFigures | None = service.cache.get(name := f"lr of {place}")
        if found is None and "if-none-match" in request.headers:
            entry = await service.read(shelf.figures, place)
            form, digest = lr_figures(entry)
            if unchanged(request.headers, f'"{digest}"'):
                found = FileFigures(form=form, size=0, digest=digest)
        if found is None:
            found = await service.read(shelf.lr, place)
            if isinstance(found, File):
                service.cache.put(name, found, found.size)
        return _stored(service, request, found, renamed(place.key, found.form), version)

    async def original(request: Request, archive: Name, key: Key, shard: Shard = None, version: Version = None) -> Response:
        """Give the source's own bytes, where they are kept."""
        shelf, place, part = await service.find(archive, key, "original", shard, version)
        if not part:
            return await _all_known(service, shelf, place, shard)
        entry = await service.read(shelf.figures, place)
        form, digest = original_figures(entry)
        found: File | FileFigures = FileFigures(form=form, size=entry.byte_size, digest=digest)
        if request.method != "HEAD" and not unchanged(request.headers, f'"{digest}"'):
            found = await service.read(shelf.original, place)
        return _stored(service, request, found, place.key, version, own_bytes=True)

    for path, endpoint in (("lr", lr), ("original", original)):
        add_route(app, f"{ENTRY}/{path}", endpoint, response_class=Response, responses=IMAGES)


def _stored(
    service: Service, request: Request, found: File | FileFigures, key: str, version: str | None, *, own_bytes: bool = False
) -> Response:
    """Answer with a stored file, and with the digest by which parts of it that were put together are compared (RFC 9530)."""
    digest = base64.b64encode(bytes.fromhex(found.digest)).decode("ascii")
    told = {"Repr-Digest": f"sha-256=:{digest}:"}
    return file_answer(service, request, found, key=key, versioned=version is not None, headers=told, own_bytes=own_bytes)


def _add_image_route(app: FastAPI, service: Service) -> None:
    async def image(
        request: Request,
        archive: Name,
        key: Key,
        shard: Shard = None,
        version: Version = None,
        max_side: Annotated[int | None, Query(ge=1, le=1_000_000, description="Longest side, in pixels.")] = None,
        scale: Annotated[float | None, Query(gt=0, le=4, allow_inf_nan=False, description="Of the original size.")] = None,
        size: Annotated[str | None, Query(pattern=r"^[1-9][0-9]{0,6}x[1-9][0-9]{0,6}$", description="640x480.")] = None,
        region: Annotated[str | None, Query(max_length=60, description="Of the upright image: x,y,width,height.")] = None,
        format: Annotated[str | None, Query(pattern=f"^({'|'.join(FORMS)})$", description="Wins over Accept.")] = None,
        quality: Annotated[int, Query(ge=1, le=100, description="Of JPEG, WebP and AVIF.")] = 95,
        latent: Annotated[int, Query(ge=0, le=1, description="0: from the LR alone.")] = 1,
    ) -> Response:
        """Give a restored image or a region of it, at the original size or another: the bytes that `iarn restore` writes."""
        shelf, place, part = await service.find(archive, key, "image", shard, version)
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
        vary = {} if format else {"Vary": "Accept"}
        return await image_answer(service, request, shelf, place, wanted, versioned=version is not None, headers=vary)

    add_route(app, f"{ENTRY}/image", image, response_class=Response, responses=IMAGES)


def _links(asset: Mapping[str, Any], base: str, version: str, *, ambiguous: bool) -> dict[str, str | None]:
    """Return links relative to the address of an entry whose key is encoded whole, or of a list where ``base`` says so.

    They lead to this version of the archive, or to nothing.
    """
    base += quote(asset["key"], safe="")
    query = f"?v={version}" + (f"&shard={quote(asset['shard'], safe='')}" if ambiguous else "")
    there = {"lr": asset["kind"] == "lr", "image": True, "original": asset["has_original"]}
    return {part: f"{base}/{part}{query}" if kept else None for part, kept in there.items()}


async def _answer_error(request: Request, error: Exception) -> Response:
    """Answer with an error as a sentence, under the status that it means."""
    status, kind, message, headers = _told(error)
    if request.scope["path"].startswith(f"{PREFIX}/"):
        status = iiif_status(status, kind)
    return problem(status, kind, message, headers)


def _told(error: Exception) -> tuple[int, str, str, Mapping[str, str] | None]:
    """Return the status, the kind, the sentence and the headers that an error is answered with."""
    if isinstance(error, PipelineError):
        status, kind = status_of(error)
        retry = {"Retry-After": str(RETRY_SECONDS)} if isinstance(error, ServiceError) or status == 503 else {}
        return status, kind, str(error), retry
    if isinstance(error, RequestValidationError):
        found = [f"{each['loc'][-1]}: {each['msg']}" for each in error.errors()]
        return 422, "invalid-option", "; ".join(found), None
    assert isinstance(error, HTTPException)
    kinds = {400: "bad-request", 404: "not-found", 405: "method-not-allowed"}
    message = error.detail if error.status_code != 404 or error.detail != "Not Found" else "There is nothing at this address."
    return error.status_code, kinds.get(error.status_code, "refused"), message, error.headers
