"""A list of all entries of an archive by their figures, to filter and to page through.

It is a table in a temporary file, filled in the background from the small columns of the shards; memory is a page cache. The
questions for one key need none of it (see keys.py), so an archive of a million entries can be asked before its list is there.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pipeline.archives.archive import Archive
from pipeline.core.errors import ArchiveError, DamagedObject, PipelineError, StoreUnavailable
from pipeline.core.overlap import ahead
from pipeline.core.records import EntryKind, Tier
from pipeline.reading.keys import LAST

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


class Catalogue:
    """The list of one archive's entries; any thread may ask. It is filled by a thread of its own, from :meth:`begin` on."""

    def __init__(self, archive: Archive, shard_ids: Sequence[str]) -> None:
        self._archive, self._shard_ids = archive, shard_ids
        self._turn, self._complete = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._fill, name="catalogue", daemon=True)
        self._stopped = threading.Event()
        self._fault: PipelineError | None = None
        self._totals: dict[Filter, int] = {}
        self.shards_read = 0
        self._base = sqlite3.connect("", check_same_thread=False)  # a file without a name, gone with the connection
        self._base.executescript(_SCHEMA)

    def begin(self) -> None:
        """Begin to fill the list."""
        self._thread.start()

    def close(self) -> None:
        """Stop filling it, and let its file go."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
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
        try:
            with ThreadPoolExecutor(_THREADS) as threads:
                for number, rows in enumerate(ahead(threads, self._rows, self._running(), limit=_UNDER_WAY)):
                    with self._turn, self._base:
                        self._base.execute("INSERT INTO shards VALUES (?, ?)", (number, self._shard_ids[number]))
                        places = ", ".join("?" * (len(FIGURES) + 1))
                        self._base.executemany(f"INSERT INTO entries VALUES ({places})", ((*row, number) for row in rows))
                    self.shards_read = number + 1
            if self._stopped.is_set():
                return
        except PipelineError as error:
            self._fault = error
        except sqlite3.Error as error:
            self._fault = DamagedObject(self._archive.store.uri, f"its entries cannot be listed: {error}")
        self._complete.set()

    def _running(self) -> Iterator[str]:
        return (shard_id for shard_id in self._shard_ids if not self._stopped.is_set())

    def _rows(self, shard_id: str) -> list[tuple[Any, ...]]:
        while True:
            try:
                return self._read(shard_id)
            except StoreUnavailable:  # for a while, perhaps; until then the list is in the making
                if self._stopped.wait(RETRY_SECONDS):
                    raise

    def _read(self, shard_id: str) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = []
        # Of a damaged shard what could be read is listed; whoever asks for one of its keys is told.
        with suppress(ArchiveError), self._archive.shard_rows(shard_id) as reader:
            for lists in reader.column_lists(FIGURES):
                rows.extend(zip(*lists, strict=True))
        return rows
