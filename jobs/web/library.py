"""The archives of a service by name, looked at again every so often: they grow, are made anew, and others come.

An address that is no archive is a folder of them: those directly below it are served, later ones as well. Looks are made in
threads of their own. What fails is told in a line, and what was known stays.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from queue import SimpleQueue

from pipeline.archives.archive import PLAN_KEY
from pipeline.archives.errors import NotAnArchive
from pipeline.core.errors import InvalidOption, PipelineError, StoreUnavailable
from pipeline.reading.errors import Replaced
from pipeline.serving.shelf import Shelf
from pipeline.stores.base import check_text
from pipeline.stores.store import Access, Store, open_store

MOST_FOLDERS = 1000
"""Folders below one address that are looked at, by name."""

ASKED_EVERY = 6
"""Of this many looks one asks a folder that was no archive whether it is one by now."""

LOOKERS = 8
"""Archives looked at at once: one whose store does not answer holds up no other."""

CLOSE_SECONDS = 5.0
"""How long closing waits for what is under way: a store that does not answer keeps no process from ending."""

Look = Callable[[], None]

_log = logging.getLogger(__name__)


@dataclass
class _Folder:
    """Archives are directly below it; ``others`` are no archives, and for how many looks more that is taken for granted."""

    store: Store
    others: dict[str, int] = field(default_factory=dict)


class Library:
    """Archives by their names, and the folders that more may come into."""

    def __init__(self, archives: Mapping[str, str], *, access: Access = Access.SIGNED, patient: bool = False) -> None:
        """Open what is there; raises NotAnArchive where an address is none and has none below it, and what opening does.

        A ``patient`` one raises nothing: what cannot be opened is told in the log, and opened by a later look.
        """
        self._access = access
        self._hand, self._stopped = threading.Lock(), threading.Event()
        self._threads: list[threading.Thread] = []
        self._due: SimpleQueue[tuple[str, Look] | None] = SimpleQueue()
        self._under_way: set[str] = set()
        self._folders: list[_Folder] = []
        self._awaited: dict[str, str] = {}
        self._told: dict[tuple[str, str], str] = {}
        self._begun = False
        self.shelves: Mapping[str, Shelf] = {}
        """What is served; a look puts another mapping in its place."""
        for name, uri in archives.items():
            (self._open_in_time if patient else self._open)(name, uri)

    @classmethod
    def of(cls, *shelves: Shelf) -> Library:
        """Return a library of shelves that are open."""
        library = cls({})
        library.shelves = {shelf.name: shelf for shelf in shelves}
        return library

    @property
    def uris(self) -> list[str]:
        """Where the archives are."""
        return [shelf.uri for shelf in self.shelves.values()]

    def begin(self, seconds: float = 0) -> None:
        """Begin to make the lists of entries, and to look at everything again every so many seconds; 0 for never."""
        self._begun = True
        for shelf in self.shelves.values():
            shelf.catalogue.begin()
        if seconds > 0:
            # Daemons, and no pool, whose threads Python waits for at its end.
            self._threads = [threading.Thread(target=self._work, name="look", daemon=True) for _ in range(LOOKERS)]
            self._threads.append(threading.Thread(target=self._watch, args=(seconds,), name="library", daemon=True))
            for thread in self._threads:
                thread.start()

    def close(self) -> None:
        """Stop looking, and stop reading, and let go of everything; takes CLOSE_SECONDS at most."""
        until = time.monotonic() + CLOSE_SECONDS
        self._stopped.set()
        shelves, self.shelves = self.shelves, {}
        for shelf in shelves.values():
            shelf.catalogue.stop()
        for _ in self._threads:
            self._due.put(None)
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        for shelf in shelves.values():
            shelf.catalogue.close(max(0.0, until - time.monotonic()))

    def look(self) -> None:
        """Look at everything once, in this thread and in the order of the others."""
        for look in self._looks().values():
            look()

    def _watch(self, seconds: float) -> None:
        while not self._stopped.wait(seconds):
            for what, look in self._looks().items():
                if what not in self._under_way:
                    self._under_way.add(what)
                    self._due.put((what, look))

    def _work(self) -> None:
        while (due := self._due.get()) is not None and not self._stopped.is_set():
            what, look = due
            look()
            self._under_way.discard(what)

    def _looks(self) -> dict[str, Look]:
        """Return the looks that are due, by a folder's URI or an archive's name; folders first, which tell what is gone."""
        looks: dict[str, Look] = {folder.store.uri: partial(self._look_into, folder) for folder in self._folders}
        looks |= {name: partial(self._open_in_time, name, uri) for name, uri in self._awaited.copy().items()}
        return {**looks, **{name: partial(self._look_at, shelf) for name, shelf in self.shelves.items()}}

    def _look_at(self, shelf: Shelf) -> None:
        def served() -> bool:
            return not self._stopped.is_set() and self.shelves.get(shelf.name) is shelf

        with self._telling(shelf.name, shelf.uri, of_use=served):
            if not served():
                return
            try:
                shelf.refresh()
            except Replaced:
                self._put(Shelf(shelf.name, shelf.uri, access=self._access))

    def _look_into(self, folder: _Folder) -> None:
        with self._telling("", folder.store.uri):
            below = list(islice(folder.store.folders(), MOST_FOLDERS))
            self._forget(folder, below)
            for name in below:
                if not self._stopped.is_set():
                    self._open_below(folder, name)

    def _open_below(self, folder: _Folder, name: str) -> None:
        """Open an archive below a folder, if it is one and is not open yet."""
        uri = f"{folder.store.uri}/{name}"
        if name in self.shelves and self.shelves[name].uri == uri:
            return
        if folder.others.get(name, 0) > 0:
            folder.others[name] -= 1
            return
        with self._telling(name, uri):
            if not folder.store.exists(f"{name}/{PLAN_KEY}"):
                folder.others[name] = ASKED_EVERY - 1
                return
            check_text(folder.store.uri, name)
            if name in self.shelves or name in self._awaited:
                raise InvalidOption("archive", uri, f"it is not served, for another is called {name!r}.")
            self._put(Shelf(name, uri, access=self._access))

    def _open(self, name: str, uri: str) -> None:
        """Open what an address is of, an archive or a folder of them."""
        try:
            self._put(Shelf(name, uri, access=self._access))
        except NotAnArchive:
            self._open_folder(name, uri)

    def _open_in_time(self, name: str, uri: str) -> None:
        """Open what an address is of, now or at a later look."""
        with self._telling(name, uri):
            try:
                self._open(name, uri)
            except Exception:
                self._awaited[name] = uri
                raise
            self._awaited.pop(name, None)

    def _open_folder(self, name: str, uri: str) -> None:
        folder = _Folder(open_store(uri, access=self._access))
        if name != uri.rstrip("/").rpartition("/")[2]:
            advice = "it is no archive, and those below it have names of their own; leave NAME= out."
            raise InvalidOption("archive", f"{name}={uri}", advice)
        self._awaited.pop(name, None)  # one below it may be called the same
        before = len(self.shelves)
        self._look_into(folder)
        if len(self.shelves) == before:
            raise NotAnArchive(folder.store.uri)
        self._folders.append(folder)

    def _put(self, shelf: Shelf) -> None:
        """Serve an archive, in the place of what its name was of."""
        with self._hand:
            if self._begun and not self._stopped.is_set():
                shelf.catalogue.begin()
            before = self.shelves.get(shelf.name)
            self.shelves = {**self.shelves, shelf.name: shelf}
        if before is not None:
            before.catalogue.stop()  # not closed: a request may have it in hand

    def _forget(self, folder: _Folder, below: list[str]) -> None:
        """Serve no more what was below a folder and is not any more, and know nothing more of it."""
        here, names = folder.store.uri, set(below)
        with self._hand:
            gone = [shelf for name, shelf in self.shelves.items() if shelf.uri == f"{here}/{name}" and name not in names]
            self.shelves = {name: shelf for name, shelf in self.shelves.items() if shelf not in gone}
        for shelf in gone:
            shelf.catalogue.stop()
        folder.others = {name: looks for name, looks in folder.others.items() if name in names}
        for name, uri in list(self._told):
            if uri == f"{here}/{name}" and name not in names:
                self._told.pop((name, uri), None)

    @contextmanager
    def _telling(self, name: str, uri: str, of_use: Callable[[], bool] = lambda: True) -> Iterator[None]:
        """Tell in the log what kept something from being seen, once as long as it does, and when that is over.

        Any error is told and goes no further. Nothing is told where it is of no use to anybody any more.
        """
        try:
            yield
        except Exception as error:
            if of_use() and self._told.get((name, uri)) != (why := _why(error)):
                self._told[name, uri] = why
                _log.warning("Nothing new is seen at %s: %s", _shown(uri), why)
        else:
            if self._told.pop((name, uri), None) is not None:
                _log.warning("%s is seen again.", _shown(uri))


def _why(error: Exception) -> str:
    """Return what a look met, in words; a service goes on by itself, so what a job's error advises is left out."""
    if isinstance(error, StoreUnavailable):
        return f"{error.uri} could not be reached or read ({error.detail})."
    return str(error) if isinstance(error, PipelineError) else f"{type(error).__name__}: {error}"


def _shown(uri: str) -> str:
    """Return a URI as text that any log takes; names of folders need not be UTF-8."""
    return uri.encode(errors="backslashreplace").decode()
