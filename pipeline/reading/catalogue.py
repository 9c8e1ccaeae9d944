"""A list of all entries of an archive by their figures, to filter and to page through.

It is a table in a temporary file, filled in the background from the small columns of the shards; memory is a page cache. The
questions for one key need none of it (see keys.py), so an archive of a million entries can be asked before its list is there.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from pipeline.archives.archive import Archive
from pipeline.core.errors import ArchiveError, DamagedObject, PipelineError, StoreUnavailable
from pipeline.core.overlap import ahead
from pipeline.core.records import Entry, EntryKind, OriginalCoding, Tier
from pipeline.reading.keys import LAST, number_of

FIGURES = (
    "key", "kind", "tier", "reason", "width", "height", "byte_size", "lr_width", "lr_height", "psnr", "psnr_y", "ssim",
    "original_coding",
)  # fmt: skip
"""What is listed of an entry; the columns of the same names."""

MOST_TOTALS = 256
RETRY_SECONDS = 5.0
"""How long a store that is out of reach is left alone."""

_THREADS = 8
_UNDER_WAY = 32
_SCHEMA = """
CREATE TABLE shards (number INTEGER PRIMARY KEY, id TEXT NOT NULL);
CREATE TABLE entries (
    key TEXT NOT NULL, kind TEXT NOT NULL, tier TEXT NOT NULL, reason TEXT, width INTEGER, height INTEGER,
    byte_size INTEGER NOT NULL, lr_width INTEGER, lr_height INTEGER, psnr REAL, psnr_y REAL, ssim REAL,
    original_coding TEXT, shard INTEGER NOT NULL, PRIMARY KEY (key, shard)
) WITHOUT ROWID;
"""


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which entries are listed: those that all that is given here is true of. PSNR is in dB, over RGB."""

    prefix: str = ""
    contains: str = ""
    kind: EntryKind | None = None
    tier: Tier | None = None
    psnr_min: float | None = None
    psnr_max: float | None = None

    def condition(self) -> tuple[str, list[Any]]:
        """Return it as SQL, with its values."""
        tests: list[tuple[str, Any]] = [("key >= ?", self.prefix), ("key <= ?", self.prefix + LAST)]
        tests += [("instr(key, ?) > 0", self.contains)] if self.contains else []
        named = {"kind = ?": self.kind, "tier = ?": self.tier, "psnr >= ?": self.psnr_min, "psnr <= ?": self.psnr_max}
        tests += [(test, value) for test, value in named.items() if value is not None]
        return " AND ".join(test for test, _ in tests), [value for _, value in tests]


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One entry in a list: its figures by name, the id of its shard, and how many shards have an entry of its key."""

    figures: dict[str, Any]
    shard: str
    holders: int

    @property
    def entry(self) -> Entry:
        """The entry with what is listed of it."""
        coding = self.figures["original_coding"]
        words = {"kind": EntryKind(self.figures["kind"]), "tier": Tier(self.figures["tier"])}
        return Entry(
            **{**self.figures, **words, "original_coding": coding and OriginalCoding(coding)},
            sha256=None,
        )


class Catalogue:
    """The list of one archive's entries; any thread may ask.

    Shards that are added are read by a thread of its own, from :meth:`begin` on; those that come after the first ones appear
    in the list one by one. ``damaged`` is told of each shard that cannot be read, and what is wrong with it.
    """

    def __init__(self, archive: Archive, *, damaged: Callable[[str, ArchiveError], object] = lambda *_: None) -> None:
        self._archive, self._damaged = archive, damaged
        self._turn, self._complete, self._stopped = threading.Lock(), threading.Event(), threading.Event()
        self._waiting: deque[str] = deque()
        self._hand = threading.Lock()  # on what waits, and whether a thread is at it
        self._thread: threading.Thread | None = None
        self._begun = False
        self._fault: PipelineError | None = None
        self._totals: dict[Filter, int] = {}
        self.shards = self.shards_read = 0
        self._base = sqlite3.connect("", check_same_thread=False)  # a file without a name, gone with the connection
        self._base.executescript(_SCHEMA)

    def begin(self) -> None:
        """Begin to fill the list."""
        self._begun = True
        self.add(())

    def add(self, shard_ids: Iterable[str]) -> None:
        """Have further shards listed, and those tried again that could not be read."""
        added = list(shard_ids)
        with self._hand:
            self._waiting.extend(added)
            self.shards += len(added)
            if self._begun and self._thread is None and (self._waiting or not self._complete.is_set()):
                self._thread = threading.Thread(target=self._fill, name="catalogue", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """Stop filling it; what is in it can be asked for."""
        self._stopped.set()

    def close(self, seconds: float | None = None) -> None:
        """Stop filling it, wait until that is over, ``seconds`` at most, and let its file go."""
        self.stop()
        if (thread := self._thread) is not None:
            thread.join(seconds)
        with self._turn:
            self._base.close()

    def ready(self, seconds: float) -> bool:
        """Wait until all entries are in the list, ``seconds`` at most; return whether they are. Raises what reading met."""
        done = self._complete.wait(seconds)
        if self._fault is not None:
            raise self._fault
        return done

    def total(self, wanted: Filter) -> int:
        """Return how many keys a filter lets through; counted once for each of the latest filters."""
        with self._turn:
            if wanted not in self._totals:
                condition, values = wanted.condition()
                query = f"SELECT count(DISTINCT key) FROM entries WHERE {condition}"
                if len(self._totals) >= MOST_TOTALS:
                    self._totals.pop(next(iter(self._totals)))
                self._totals[wanted] = int(self._base.execute(query, values).fetchone()[0])
            return self._totals[wanted]

    def page(self, wanted: Filter, *, after: str = "", limit: int = 100) -> list[Listed]:
        """Return the first entries, by key, that come after the key ``after``; of several with one key the first shard's."""
        condition, values = wanted.condition()
        columns = ", ".join(FIGURES)
        query = (
            f"SELECT {columns}, id, (SELECT count(*) FROM entries AS others WHERE others.key = entries.key), min(shard)"
            f" FROM entries JOIN shards ON number = shard WHERE {condition} AND key > ? GROUP BY key ORDER BY key LIMIT ?"
        )
        with self._turn:
            rows = self._base.execute(query, (*values, after, limit)).fetchall()
        width = len(FIGURES)
        return [Listed(figures=dict(zip(FIGURES, row, strict=False)), shard=row[width], holders=row[width + 1]) for row in rows]

    def _fill(self) -> None:
        fault: PipelineError | None = None
        try:
            while batch := self._batch():
                running = (shard_id for shard_id in batch if not self._stopped.is_set())
                with ThreadPoolExecutor(_THREADS) as threads:
                    for shard_id, rows in ahead(threads, self._rows, running, limit=_UNDER_WAY):
                        self._insert(shard_id, rows)
                        self._waiting.popleft()
                        self.shards_read += 1
            return
        except PipelineError as error:
            fault = error
        except sqlite3.Error as error:
            fault = DamagedObject(self._archive.store.uri, f"its entries cannot be listed: {error}")
        with self._hand:
            self._thread = None
            if not self._complete.is_set():  # else there is a list, which waits for some shards
                self._fault = fault
                self._complete.set()

    def _batch(self) -> list[str]:
        """Return the shards that wait; where none does the list is complete, and the thread ends."""
        with self._hand:
            batch = [] if self._stopped.is_set() else list(self._waiting)
            if not batch:
                self._thread = None
            if not (batch or self._stopped.is_set()):
                self._fault = None
                self._complete.set()
            return batch

    def _insert(self, shard_id: str, rows: list[tuple[Any, ...]]) -> None:
        number, places = number_of(shard_id), ", ".join("?" * (len(FIGURES) + 1))
        with self._turn, self._base:
            self._base.execute("INSERT OR IGNORE INTO shards VALUES (?, ?)", (number, shard_id))
            self._base.executemany(f"INSERT OR IGNORE INTO entries VALUES ({places})", ((*row, number) for row in rows))
            self._totals.clear()

    def _rows(self, shard_id: str) -> tuple[str, list[tuple[Any, ...]]]:
        while True:
            try:
                return shard_id, self._read(shard_id)
            except StoreUnavailable:  # for a while, perhaps; until then the list is in the making
                if self._stopped.wait(RETRY_SECONDS):
                    raise

    def _read(self, shard_id: str) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = []
        try:
            with self._archive.shard_rows(shard_id) as reader:
                for lists in reader.column_lists(FIGURES):
                    rows.extend(zip(*lists, strict=True))
        except ArchiveError as error:  # what could be read is listed; whoever asks for one of its keys is told
            self._damaged(shard_id, error)
        return rows
