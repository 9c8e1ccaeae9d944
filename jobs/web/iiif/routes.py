"""The routes below /iiif/3/: images, info.json, manifests and collections of the archives that are served.

    /iiif/3/ARCHIVE                                       a collection, a page at a time
    /iiif/3/ARCHIVE/KEY                                   leads to info.json
    /iiif/3/ARCHIVE/KEY/info.json, …/manifest.json
    /iiif/3/ARCHIVE/KEY/REGION/SIZE/ROTATION/QUALITY.FORMAT

What a path with slashes in its key means is decided as for all other addresses of entries.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote, urlsplit

from anyio.to_thread import run_sync
from fastapi import FastAPI, Query, Request
from fastapi import Path as Segment
from fastapi.responses import RedirectResponse, Response
from starlette.exceptions import HTTPException

from jobs.web.front.forwarded import Asked
from jobs.web.http.answers import add_route, image_answer
from jobs.web.http.negotiation import prefers_json, unchanged
from jobs.web.http.service import LIST_SECONDS, Key, Name, Service, text_of
from jobs.web.http.shapes import IMAGES, Problem
from jobs.web.iiif import documents
from jobs.web.iiif.cross_origin import PREFIX
from jobs.web.iiif.documents import IMAGE_CONTEXT, PRESENTATION_CONTEXT, PROFILE, ImageFigures
from jobs.web.iiif.parameters import Bounds, understand
from jobs.web.iiif.request import TurnedRequest, is_given
from pipeline.core.records import Entry, Size
from pipeline.pictures.region import Region
from pipeline.reading.catalogue import Filter
from pipeline.reading.errors import NotKept
from pipeline.reading.places import EntryPlace
from pipeline.reading.requests import ImageRequest
from pipeline.serving.shelf import Shelf

IMAGE = f"{PREFIX}/{{archive}}/{{key:path}}"
_SMALLEST = ImageRequest(size=(1, 1))
PAGE = 500
"""Entries in a page of a collection."""

_JSON_LD = {"schema": {"type": "object"}}
_DOCUMENT: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/ld+json": _JSON_LD, "application/json": _JSON_LD}, "description": "The document."},
    304: {"description": "The client has it."},
    400: {"model": Problem, "description": "The request is none of the specification's, or beyond the limits."},
}
_REDIRECT: dict[int | str, dict[str, Any]] = {
    303: {"description": "The address of info.json."},
    400: _DOCUMENT[400],
}

Part = Annotated[str, Segment(max_length=200)]


def iiif_status(status: int, kind: str) -> int:
    """Return the status that the specification has for what the service calls ``status`` (4.1 to 4.5, 7.3)."""
    if kind == "no-image":
        return 404
    return 400 if status == 422 else status


def add_iiif_routes(app: FastAPI, service: Service) -> None:
    """Add all routes below ``PREFIX``, the more special ones first."""
    _add_collection_route(app, service)
    _add_document_routes(app, service)
    _add_image_route(app, service)
    _add_base_route(app, service)  # the last: a key may have any form


def _add_collection_route(app: FastAPI, service: Service) -> None:
    async def collection(
        request: Request,
        archive: Name,
        after: Annotated[str, Query(max_length=8192, description="Keys behind this one.")] = "",
    ) -> Response:
        """Give an archive as a collection of the IIIF Presentation API 3.0: manifests, a page at a time."""
        shelf = service.shelf(*service.versioned(archive))
        listed, last = await run_sync(
            lambda: shelf.page(Filter(), after=after, limit=PAGE, seconds=LIST_SECONDS), limiter=service.listers
        )
        address = f"{_root_of(service, request)}{PREFIX}/{quote(shelf.name, safe='')}"
        keys = [each.entry.key for each in listed if each.holders == 1 and _is_shown(service, shelf, each.entry)]
        page = [(key, f"{address}/{quote(key, safe='')}/manifest.json") for key in keys]
        following = last and f"{address}?after={quote(last, safe='')}"
        own = f"{address}?after={quote(after, safe='')}" if after else address
        found = documents.collection(own, shelf.name, page, following, damaged=len(shelf.damaged))
        return _document(request, found, PRESENTATION_CONTEXT, shelf)

    add_route(app, f"{PREFIX}/{{archive}}", collection, response_class=Response, responses=_DOCUMENT)


def _add_document_routes(app: FastAPI, service: Service) -> None:
    async def info(request: Request, archive: Name, key: Key) -> Response:
        """Give what the IIIF Image API 3.0 tells of an image: its sizes, its tiles, what may be asked for."""
        shelf, place, part, version = await _find(service, archive, key, "info.json")
        if not part:
            return _to_info(service, request, shelf, place, version)
        entry = await service.read(shelf.figures, place)
        figures, bounds = _image_of(service, shelf, entry)
        caption = await service.read(shelf.caption, place)

        def given(region: Region, size: Size) -> bool:
            return is_given(entry, ImageRequest(region=region, size=size), service.options.limits, _pixel_limit(shelf))

        found = documents.info(_base_of(service, request, shelf, place, version), figures, bounds, caption, given)
        return _document(request, found, IMAGE_CONTEXT, shelf)

    async def manifest(request: Request, archive: Name, key: Key) -> Response:
        """Give an entry as a manifest of the IIIF Presentation API 3.0."""
        shelf, place, part, version = await _find(service, archive, key, "manifest.json")
        if not part:
            return _to_info(service, request, shelf, place, version)
        figures, bounds = _image_of(service, shelf, await service.read(shelf.figures, place))
        root, name = _root_of(service, request), quote(shelf.name, safe="")
        found = documents.manifest(
            _base_of(service, request, shelf, place),
            _base_of(service, request, shelf, place, shelf.version),
            place.key,
            figures,
            bounds,
            await service.read(shelf.caption, place),
            collection=f"{root}{PREFIX}/{name}",
            entry=f"{root}/archives/{name}/assets/{quote(place.key, safe='')}",
        )
        return _document(request, found, PRESENTATION_CONTEXT, shelf)

    responses = {**_DOCUMENT, **_REDIRECT}
    add_route(app, f"{IMAGE}/info.json", info, response_class=Response, responses=responses)
    add_route(app, f"{IMAGE}/manifest.json", manifest, response_class=Response, responses=responses)


def _add_image_route(app: FastAPI, service: Service) -> None:
    async def iiif_image(
        request: Request, archive: Name, key: Key, region: Part, size: Part, rotation: Part, quality: Part, format: Part
    ) -> Response:
        """Give an image by the IIIF Image API 3.0: `full/max/0/default.jpg` is all of it."""
        asked = [text_of(each) for each in (region, size, rotation, quality, format)]
        asked_for = f"{region}/{size}/{rotation}/{quality}.{format}"
        shelf, place, part, version = await _find(service, archive, key, asked_for)
        if not part:
            return _to_info(service, request, shelf, place, version)
        figures, bounds = _image_of(service, shelf, await service.read(shelf.figures, place))
        wanted = understand(*asked, of=figures.size, bounds=bounds)
        canonical = f"{_base_of(service, request, shelf, place, version)}/{wanted.canonical}"
        links = {"Link": f'<{canonical}>;rel="canonical", <{PROFILE}>;rel="profile"'}
        wanted_image, versioned = TurnedRequest.of(wanted), version is not None
        return await image_answer(service, request, shelf, place, wanted_image, versioned=versioned, headers=links)

    path = f"{IMAGE}/{{region}}/{{size}}/{{rotation}}/{{quality}}.{{format}}"
    add_route(app, path, iiif_image, response_class=Response, responses={**IMAGES, **_REDIRECT})


def _add_base_route(app: FastAPI, service: Service) -> None:
    async def base(request: Request, archive: Name, key: Key) -> Response:
        """Lead from an image's own address to its info.json."""
        shelf, place, _, version = await _find(service, archive, key, "")
        return _to_info(service, request, shelf, place, version)

    add_route(app, IMAGE, base, response_class=Response, status_code=303, responses=_REDIRECT)


async def _find(service: Service, archive: str, key: str, part: str) -> tuple[Shelf, EntryPlace, str, str | None]:
    """Return what :meth:`Service.find` does for an address NAME/KEY/PART or NAME@VERSION/KEY/PART, and the version, if any."""
    name, version = service.versioned(archive)
    return *await service.find(name, key, part, None, version), version


def _image_of(service: Service, shelf: Shelf, entry: Entry) -> tuple[ImageFigures, Bounds]:
    """Return the figures of an entry's image, and what is given of it.

    Raises NotKept for an entry that is none, and for one of which nothing is given.
    """
    figures, limits = ImageFigures.of(entry), service.options.limits
    if figures is None:
        raise NotKept(entry.key, "image", "no size is known of it; its original has its bytes")
    if not _is_shown(service, shelf, entry):
        reason = f"any view of it takes more than the {limits.most_pixels} pixels that the service restores"
        raise NotKept(entry.key, "image to zoom into", reason)
    return figures, figures.bounds(limits, _pixel_limit(shelf))


def _is_shown(service: Service, shelf: Shelf, entry: Entry) -> bool:
    """Return whether an entry is an image of which something is given, by what is listed of it."""
    limits, pixel_limit = service.options.limits, _pixel_limit(shelf)
    return ImageFigures.of(entry) is not None and is_given(entry, _SMALLEST, limits, pixel_limit)


def _pixel_limit(shelf: Shelf) -> int:
    return shelf.archive.plan.settings.pixel_limit


def _root_of(service: Service, request: Request) -> str:
    """Return the address of the service, without a slash at its end: its public one, or as the client has it."""
    if service.options.public_address is not None:
        return service.options.public_address
    asked: Asked = request.scope["asked"]
    if asked.root is None:
        raise HTTPException(400, "The request's Host is no name and no address.")
    return asked.root


def _prefix_of(service: Service, request: Request) -> str | None:
    """Return the path that clients have the service below, without a slash at its end; None where nobody told it."""
    if service.options.public_address is not None:
        return urlsplit(service.options.public_address).path
    asked: Asked = request.scope["asked"]
    return asked.prefix


def _base_of(service: Service, request: Request, shelf: Shelf, place: EntryPlace, version: str | None = None) -> str:
    """Return an image's own address: that of one version of the archive, or of whichever there is."""
    return _root_of(service, request) + _path_of(shelf, place, version)


def _path_of(shelf: Shelf, place: EntryPlace, version: str | None) -> str:
    """Return the path of an image's own address below the service."""
    name = quote(shelf.name, safe="") + ("" if version is None else f"@{version}")
    return f"{PREFIX}/{name}/{quote(place.key, safe='')}"


def _to_info(service: Service, request: Request, shelf: Shelf, place: EntryPlace, version: str | None) -> Response:
    """Lead to info.json: by its path where the client's is known, else from the address as it was written.

    A proxy may have decoded that, so that nobody knows how many segments the key has to the client. No host is told: a proxy
    may pass on one that somebody else wrote.
    """
    prefix = _prefix_of(service, request)
    if prefix is not None:
        return RedirectResponse(f"{prefix}{_path_of(shelf, place, version)}/info.json", 303)
    return RedirectResponse(f"./{request.scope['path'].rpartition('/')[2]}/info.json", 303)


def _document(request: Request, content: Mapping[str, Any], context: str, shelf: Shelf) -> Response:
    """Answer with a document, as JSON-LD unless plain JSON is liked better (Image API 3.0, 5.1)."""
    body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    media_type = (
        "application/json" if prefers_json(request.headers.get("accept")) else f'application/ld+json;profile="{context}"'
    )
    tag = f'"{hashlib.sha256(shelf.archive.digest.encode() + media_type.encode() + body).hexdigest()}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache", "Vary": "Accept"}
    if context == IMAGE_CONTEXT:
        headers["Link"] = f'<{PROFILE}>;rel="profile"'
    if unchanged(request.headers, tag):
        return Response(status_code=304, headers=headers)
    return Response(body, headers={**headers, "Content-Type": media_type})
