"""Archives that a service has open, each with its network: what several threads want at once is opened once, for all of them.

A store that does not answer holds up those who ask for its archive, and nobody else.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

from pipeline.core.errors import PipelineError
from pipeline.engines.batching import Batcher
from pipeline.engines.engine import Engine
from pipeline.reading.errors import Replaced
from pipeline.reading.reader import ArchiveReader, open_archive
from pipeline.stores.store import Access

MOST_ARCHIVES = 64
"""Archives that a process which restores has open."""

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class OpenArchive:
    """An archive and the network that restores its entries, which stays as long as this is held."""

    reader: ArchiveReader
    batcher: Batcher


class OpenArchives:
    """The archives asked for last, MOST_ARCHIVES of them; those of one model share its engine, which goes with the last one.

    At the start those of ``uris`` are opened, but for the ones that cannot be: these are tried again when they are asked for.
    Where none can be, the first error is raised. ``load`` makes an engine of a weights file.
    """

    def __init__(self, uris: Collection[str], load: Callable[[bytes], Engine], *, access: Access = Access.SIGNED) -> None:
        self._load, self._access = load, access
        self._archives: OrderedDict[str, OpenArchive] = OrderedDict()
        self._batchers: WeakValueDictionary[str, Batcher] = WeakValueDictionary()
        self._turn = threading.Lock()  # of the two, and never held while a store or an engine is waited for
        self._opening, self._loading = _Once[OpenArchive](), _Once[Batcher]()
        faults = list[PipelineError]()
        for uri in uris:
            try:
                self._keep(self._open(open_archive(uri, access=access)))
            except PipelineError as error:
                faults.append(error)
        if faults and not self._archives:
            raise faults[0]

    def of(self, uri: str, plan: str) -> OpenArchive:
        """Return the archive, opened where it came later or was made anew; raises Replaced where it is not of this plan.

        Raises what :func:`open_archive` and ``model_bytes`` do.
        """
        with self._turn:
            found = self._archives.get(uri)
            if found is not None and found.reader.digest == plan:
                self._archives.move_to_end(uri)
                return found

        def opened() -> OpenArchive:
            reader = open_archive(uri, access=self._access)
            if reader.digest != plan:
                raise Replaced(uri)
            return self._keep(self._open(reader))

        return self._opening.call((uri, plan), opened)

    def _open(self, reader: ArchiveReader) -> OpenArchive:
        model = reader.plan.model
        with self._turn:
            batcher = self._batchers.get(model)
        if batcher is None:
            weights = reader.archive.model_bytes()  # each archive's own, so that one store's fault is no other archive's

            def load() -> Batcher:
                with self._turn:
                    loaded = self._batchers.get(model)
                if loaded is None:
                    loaded = Batcher(lambda: self._load(weights))
                    with self._turn:
                        self._batchers[model] = loaded
                return loaded

            batcher = self._loading.call(model, load)
        return OpenArchive(reader=reader, batcher=batcher)

    def _keep(self, archive: OpenArchive) -> OpenArchive:
        with self._turn:
            self._archives[archive.reader.uri] = archive
            self._archives.move_to_end(archive.reader.uri)
            if len(self._archives) > MOST_ARCHIVES:
                self._archives.popitem(last=False)
        return archive


class _Once(Generic[Value]):
    """What several threads ask for at the same time is made by the first of them; its error is raised in all."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._under_way: dict[Hashable, Future[Value]] = {}

    def call(self, name: Hashable, make: Callable[[], Value]) -> Value:
        """Return ``make()``, or what it gives to whoever is at it under this name."""
        with self._turn:
            awaited = self._under_way.get(name)
            future = self._under_way.setdefault(name, Future())
        if awaited is None:
            try:
                future.set_result(make())
            except BaseException as error:
                future.set_exception(error)
            finally:
                with self._turn:
                    del self._under_way[name]
        try:
            return future.result()
        finally:
            del future  # which an error would keep, and the error it: what it failed with goes at once
