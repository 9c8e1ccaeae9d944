"""Restored images on demand: out of the cache, or from an engine; of equal requests at once only one is restored."""

from __future__ import annotations

import asyncio
import hashlib
from functools import partial
from typing import Protocol

from jobs.web.service_metrics import ServiceMetrics
from pipeline.core.byte_cache import ByteCache
from pipeline.core.errors import PipelineError
from pipeline.reading.errors import Overloaded, RanOutOfTime, ServiceError
from pipeline.reading.places import EntryPlace
from pipeline.reading.requests import ImageRequest, Restored
from pipeline.serving.stored import File


class Backend(Protocol):
    """Engines, wherever they are."""

    @property
    def device(self) -> str:
        """The kind of device that they are on."""

    async def restore(self, place: EntryPlace, request: ImageRequest) -> Restored:
        """Return an image; raises what ``Restorer.restore`` does, and Overloaded where there is no room or an engine died."""


class Images:
    """The images of a service; ``most`` may be under way at once, each waited for ``seconds``. For one event loop."""

    def __init__(self, backend: Backend, cache: ByteCache[File], metrics: ServiceMetrics, *, seconds: float, most: int) -> None:
        self._backend, self._cache, self._metrics = backend, cache, metrics
        self._seconds, self._most = seconds, most
        self._under_way: dict[str, asyncio.Task[File]] = {}

    @property
    def device(self) -> str:
        """The kind of device that images are restored on."""
        return self._backend.device

    async def get(self, digest: str, place: EntryPlace, request: ImageRequest) -> File:
        """Return the image that ``digest`` names; raises what the backend does, Overloaded, RanOutOfTime."""
        found = self._cache.get(digest)
        if found is not None:
            return found
        task = self._under_way.get(digest)
        if task is None:
            if len(self._under_way) >= self._most:
                self._metrics.restored("refused")
                raise Overloaded(f"{self._most} restores are under way or waiting")
            task = asyncio.create_task(self._restore(digest, place, request))
            self._under_way[digest] = task
            task.add_done_callback(partial(self._ended, digest))
        try:  # whoever goes away, or waits no longer, leaves it to the others and to the cache: an engine cannot be stopped
            async with asyncio.timeout(self._seconds):
                return await asyncio.shield(task)
        except TimeoutError:
            self._metrics.restored("late")
            raise RanOutOfTime(place.key, round(self._seconds)) from None

    def _ended(self, digest: str, task: asyncio.Task[File]) -> None:
        del self._under_way[digest]
        if not task.cancelled():
            task.exception()  # taken up, for perhaps nobody waits any more

    async def _restore(self, digest: str, place: EntryPlace, request: ImageRequest) -> File:
        try:
            restored = await self._backend.restore(place, request)
        except PipelineError as error:
            self._metrics.restored("refused" if isinstance(error, ServiceError) else "failed")
            raise
        self._metrics.restored("done", pixels=restored.pixels, seconds=restored.seconds)
        # On a GPU sums depend on what else is in a batch, so that a request does not tell the bytes: those do themselves.
        own = digest if self.device == "cpu" else hashlib.sha256(restored.data).hexdigest()
        file = File(data=restored.data, form=restored.form, digest=own)
        self._cache.put(digest, file, len(file.data))
        return file
