"""What the service's routes work with: archives by name, threads that read them, images on demand, and whom a path means."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Annotated, Any, TypeVar
from urllib.parse import unquote_to_bytes

from anyio import CapacityLimiter
from fastapi import Path as Segment
from fastapi import Query
from starlette.exceptions import HTTPException

from jobs.web.front.access_log import AccessLog
from jobs.web.front.forwarded import Networks
from jobs.web.front.guard import LOOPBACK_HOSTS
from jobs.web.http.outgoing import Outgoing
from jobs.web.library import Library
from jobs.web.on_demand import Backend, Images
from jobs.web.service_metrics import ServiceMetrics, Shared
from pipeline.core.byte_cache import ByteCache
from pipeline.core.errors import InvalidOption
from pipeline.core.options import Limits
from pipeline.reading.errors import NoSuchEntry, RanOutOfTime
from pipeline.reading.places import EntryPlace
from pipeline.serving.shelf import VERSION_DIGITS, Shelf
from pipeline.serving.stored import File

READERS = 16
LISTERS = 4
SENT_BYTES = 512 * 2**20
"""Bytes of answers that may wait in memory to be sent."""
LIST_SECONDS = 1.0
"""How long a request for a list waits for one that is still being made."""

MOST_NAMED = 20
"""Archives that are named to who asks for another."""

_VERSIONED = re.compile(rf"(.+)(?:@|%40)([0-9a-f]{{{VERSION_DIGITS}}})", re.IGNORECASE)

Result = TypeVar("Result")
Name = Annotated[str, Segment(max_length=1024, description="The archive's name.")]
Key = Annotated[str, Segment(max_length=8192, description="The key, percent-encoded: best as a whole, a slash as %2F.")]
Version = Annotated[
    str | None,
    Query(
        alias="v",
        pattern=f"^[0-9a-f]{{{VERSION_DIGITS}}}$",
        description="The first digits of the plan's digest, as links have them: that archive or none, and for ever.",
    ),
]
Shard = Annotated[str | None, Query(max_length=300, description="The shard's id, where several have the key.")]


@dataclass(frozen=True, kw_only=True)
class HttpOptions:
    """How a service answers: its token (None for none), the hosts it answers as without one, bounds of each answer.

    ``origin`` is whose pages, of other sites, may read what is below ``/iiif/3/``: ``*`` for all, None for none.
    ``public_address`` begins the absolute addresses there, without a slash at its end; None for what each request asked at.
    ``trusted`` are proxies that may say what that was. ``shared`` is where a worker counts beside others, None for one alone.
    """

    token: str | None = None
    origin: str | None = None
    public_address: str | None = None
    hosts: frozenset[str] = LOOPBACK_HOSTS
    cache_bytes: int = 256 * 2**20
    limits: Limits = field(default_factory=Limits)
    seconds: float = 60.0
    most_restores: int = 64
    trusted: Networks = ()
    access_log: AccessLog | None = None
    shared: Shared | None = None


class Service:
    """What the routes work with."""

    def __init__(self, library: Library, backend: Backend, options: HttpOptions) -> None:
        self._library, self.options = library, options
        self.cache: ByteCache[File] = ByteCache(options.cache_bytes)
        self.metrics = ServiceMetrics(lambda: self.cache.state, options.shared)
        self.images = Images(backend, self.cache, self.metrics, seconds=options.seconds, most=options.most_restores)
        self.outgoing = Outgoing(SENT_BYTES)
        self.listers = CapacityLimiter(LISTERS)
        self._readers = ThreadPoolExecutor(READERS, "reader")

    @property
    def shelves(self) -> list[Shelf]:
        """The archives that are served now."""
        return list(self._library.shelves.values())

    def shelf(self, name: str, version: str | None = None) -> Shelf:
        """Return the archive of a name, as it stands in a path; where a version is given that one or none."""
        shelves = self._library.shelves
        shelf = shelves.get(text_of(name))
        if shelf is None:
            some = ", ".join([*islice(shelves, MOST_NAMED), *["…"] * (len(shelves) > MOST_NAMED)])
            raise HTTPException(404, f"No archive here has this name; there are {some}.")
        if version not in (None, shelf.version):
            raise HTTPException(404, f"{shelf.name} is not {version} now but {shelf.version}: it was made anew. List it again.")
        return shelf

    def versioned(self, name: str) -> tuple[str, str | None]:
        """Return the name and the version that a segment NAME@VERSION has; an archive that is called so comes first."""
        match = _VERSIONED.fullmatch(name)
        return (name, None) if match is None or text_of(name) in self._library.shelves else (match[1], match[2])

    async def find(
        self, name: str, key: str, part: str, shard: str | None, version: str | None = None
    ) -> tuple[Shelf, EntryPlace, str]:
        """Return the archive, the place of an entry, and what of it an address means: ``part``, or "" for all that is known."""
        shelf, missing = self.shelf(name, version), dict[str, NoSuchEntry]()
        for own, wanted in _meanings(key, part):
            try:
                return shelf, await self.read(shelf.place, text_of(own), shard), wanted
            except NoSuchEntry as error:
                missing[wanted] = error
        raise missing[part]

    async def read(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Run what reads an archive in a thread, within the seconds of a request; raises RanOutOfTime."""
        try:
            async with asyncio.timeout(self.options.seconds):
                return await self.in_thread(function, *arguments)
        except TimeoutError:
            raise RanOutOfTime("the entry", round(self.options.seconds)) from None

    def in_thread(self, function: Callable[..., Result], *arguments: Any) -> asyncio.Future[Result]:
        """Run what reads an archive in one of READERS threads, which is taken until the function returns, awaited or not."""
        return asyncio.get_running_loop().run_in_executor(self._readers, function, *arguments)


def text_of(segment: str) -> str:
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
