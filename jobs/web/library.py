"""The archives of a service by name, looked at again every so often: they grow, are made anew, and others come.

An address that is no archive is a folder of them: those directly below it are served, later ones as well. Looks are made in
threads of their own. What fails is told in a line, and what was known stays.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import islice

from pipeline.archives.errors import NotAnArchive
from pipeline.core.errors import InvalidOption, PipelineError
from pipeline.reading.errors import Replaced
from pipeline.serving.shelf import Shelf
from pipeline.stores.store import Access, Store, open_store

MOST_FOLDERS = 1000
"""Folders below one address that are looked at, by name."""

LOOKERS = 8
"""Archives looked at at once: one whose store does not answer holds up no other."""

_log = logging.getLogger(__name__)


class Library:
    """Archives by their names, and the folders that more may come into."""

    def __init__(self, archives: Mapping[str, str], *, access: Access = Access.SIGNED) -> None:
        """Open what is there; raises NotAnArchive where an address is none and has none below it, and what opening does."""
        self._access = access
        self._hand, self._stopped = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None
        self._folders: list[Store] = []
        self._told: dict[str, str] = {}
        self._begun = False
        self.shelves: Mapping[str, Shelf] = {}
        """What is served; a look puts another mapping in its place."""
        for name, uri in archives.items():
            try:
                self._put(Shelf(name, uri, access=access))
            except NotAnArchive:
                self._open_folder(name, uri)

    @classmethod
    def of(cls, *shelves: Shelf) -> Library:
        """Return a library of shelves that are open."""
        library = cls({})
        library.shelves = {shelf.name: shelf for shelf in shelves}
        return library

    @property
    def uris(self) -> list[str]:
        """Where the archives are."""
        return [shelf.reader.uri for shelf in self.shelves.values()]

    def begin(self, seconds: float = 0) -> None:
        """Begin to make the lists of entries, and to look at everything again every so many seconds; 0 for never."""
        self._begun = True
        for shelf in self.shelves.values():
            shelf.catalogue.begin()
        if seconds > 0:
            self._thread = threading.Thread(target=self._watch, args=(seconds,), name="library", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop looking, and stop reading."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
        for shelf in self.shelves.values():
            shelf.close()

    def look(self) -> None:
        """Look at everything once: what came to each archive, which came and went below the folders."""
        for look in self._looks().values():
            look()

    def _watch(self, seconds: float) -> None:
        under_way: dict[str, Future[None]] = {}
        with ThreadPoolExecutor(LOOKERS, thread_name_prefix="look") as threads:
            while not self._stopped.wait(seconds):
                for uri, look in self._looks().items():
                    if uri not in under_way or under_way[uri].done():
                        under_way[uri] = threads.submit(look)

    def _looks(self) -> dict[str, Callable[[], None]]:
        """Return the looks that are due, by what they look at; folders first, which tell what is gone."""
        looks = {folder.uri: partial(self._look_into, folder) for folder in self._folders}
        return {**looks, **{shelf.reader.uri: partial(self._look_at, shelf) for shelf in self.shelves.values()}}

    def _look_at(self, shelf: Shelf) -> None:
        with self._telling(shelf.reader.uri):
            if self._stopped.is_set() or self.shelves.get(shelf.name) is not shelf:
                return
            try:
                shelf.refresh()
            except Replaced:
                self._put(Shelf(shelf.name, shelf.reader.uri, access=self._access))
                shelf.catalogue.stop()  # not closed: a request may have it in hand

    def _look_into(self, folder: Store) -> None:
        with self._telling(folder.uri):
            below = {name: f"{folder.uri}/{name}" for name in islice(folder.folders(), MOST_FOLDERS)}
            self._forget(folder, below)
            for name, uri in below.items():
                if not self._stopped.is_set():
                    self._open_below(name, uri)

    def _open_below(self, name: str, uri: str) -> None:
        """Open an archive below a folder, if it is one and is not open yet."""
        with self._telling(uri):
            if name in self.shelves:
                if self.shelves[name].reader.uri != uri:
                    raise InvalidOption("archive", uri, f"it is not served, for another is called {name!r}.")
                return
            try:
                self._put(Shelf(name, uri, access=self._access))
            except NotAnArchive:
                return

    def _open_folder(self, name: str, uri: str) -> None:
        folder = open_store(uri, access=self._access)
        if name != uri.rstrip("/").rpartition("/")[2]:
            advice = "it is no archive, and those below it have names of their own; leave NAME= out."
            raise InvalidOption("archive", f"{name}={uri}", advice)
        before = len(self.shelves)
        self._look_into(folder)
        if len(self.shelves) == before:
            raise NotAnArchive(folder.uri)
        self._folders.append(folder)

    def _put(self, shelf: Shelf) -> None:
        if self._begun:
            shelf.catalogue.begin()
        with self._hand:
            self.shelves = {**self.shelves, shelf.name: shelf}

    def _forget(self, folder: Store, below: Mapping[str, str]) -> None:
        """Serve no more what was below a folder and is not any more."""
        with self._hand:
            here = {name for name, shelf in self.shelves.items() if shelf.reader.uri == f"{folder.uri}/{name}"}
            gone = [self.shelves[name] for name in here - below.keys()]
            self.shelves = {name: shelf for name, shelf in self.shelves.items() if shelf not in gone}
        for shelf in gone:
            shelf.catalogue.stop()

    @contextmanager
    def _telling(self, uri: str) -> Iterator[None]:
        """Tell in the log what kept something from being seen, once as long as it does, and when that is over."""
        try:
            yield
        except (PipelineError, sqlite3.Error) as error:
            if self._told.get(uri) != str(error):
                self._told[uri] = str(error)
                _log.warning("Nothing new is seen at %s: %s", uri, error)
        else:
            if self._told.pop(uri, None) is not None:
                _log.warning("%s is seen again.", uri)
