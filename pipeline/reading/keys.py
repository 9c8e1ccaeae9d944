"""Which shards hold a key: an index in a temporary file, made from the shards' footers, made exact where it is asked.

A footer tells the least and the greatest key of each row group: a span. A group of one large entry tells its very key; the
keys of others are read when a question falls into their span, and stand in its place from then on. Memory is a page cache.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby

from pipeline.archives.archive import Archive
from pipeline.core.errors import ArchiveError
from pipeline.core.overlap import ahead, together

LAST = "\U0010ffff"
"""Sorts behind every key: the last code point is none of a text."""

PAGE = 1000  # keys fetched at a time while listing
_THREADS = 16  # footers read at once: a request each, and little else
_UNDER_WAY = 64
_EXPANDED = 64  # spans whose keys are read before a listing looks again whether it has enough
_KEYS_BUFFER = 8 * 1024  # bytes; the keys of a row group are a page of one or two kB

_SCHEMA = """
CREATE TABLE shards (number INTEGER PRIMARY KEY, id TEXT NOT NULL);
CREATE TABLE spans (low TEXT NOT NULL, high TEXT NOT NULL, shard INTEGER NOT NULL, row_group INTEGER NOT NULL);
CREATE INDEX spans_by_low ON spans (low, high);
CREATE INDEX spans_to_read ON spans (low, high) WHERE low < high;
"""


class KeyIndex:
    """The keys of some shards of an archive; any thread may ask. SQLite compares text by its UTF-8 bytes, as Parquet does."""

    def __init__(
        self, archive: Archive, shard_ids: Iterable[str], *, lost: Callable[[ArchiveError], None] | None = None
    ) -> None:
        """Read the footers of shards, which are told in the plan's order.

        Where ``lost`` is given it is told of each shard whose footer is damaged, and the others are read; else that is raised.
        """
        self._archive, self._turn, self._lost = archive, threading.Lock(), lost
        self._base = sqlite3.connect("", check_same_thread=False)  # a file without a name, gone with the connection
        self._base.executescript(_SCHEMA)
        self.add(shard_ids)

    def add(self, shard_ids: Iterable[str]) -> None:
        """Read the footers of further shards; those that are known are passed over. Who asks for a key does not wait."""
        unknown = (shard_id for shard_id in shard_ids if not self._knows(shard_id))
        with ThreadPoolExecutor(_THREADS) as threads:
            found = ahead(threads, self._spans, unknown, limit=_UNDER_WAY)
            for some in together(found, limit=_UNDER_WAY, weigh=lambda _: 1):
                with self._turn, self._base:
                    for shard_id, spans in some:
                        number = number_of(shard_id)
                        self._base.execute("INSERT INTO shards VALUES (?, ?)", (number, shard_id))
                        rows = ((low, high, number, group) for low, high, group in spans)
                        self._base.executemany("INSERT INTO spans VALUES (?, ?, ?, ?)", rows)

    def _knows(self, shard_id: str) -> bool:
        with self._turn:
            return bool(self._base.execute("SELECT 1 FROM shards WHERE number = ?", (number_of(shard_id),)).fetchone())

    def shards_of(self, key: str) -> list[str]:
        """Return the ids of the shards that have an entry of this key."""
        return [shard_id for shard_id, _ in self.places_of(key)]

    def places_of(self, key: str) -> list[tuple[str, int]]:
        """Return the ids of the shards that have an entry of this key, each with the row group that it is in."""
        with self._turn:
            while self._expand("low <= ? AND high >= ?", (key, key)):
                pass
            query = "SELECT DISTINCT id, row_group FROM spans JOIN shards ON number = shard WHERE low = ? AND high = low"
            return self._base.execute(f"{query} ORDER BY number", (key,)).fetchall()

    def keys(self, prefix: str = "", after: str = "", limit: int | None = None) -> Iterator[str]:
        """Yield keys in byte order, each once: those that begin with ``prefix`` and come after ``after``, at most ``limit``."""
        while limit is None or limit > 0:
            count = PAGE if limit is None else min(PAGE, limit)
            with self._turn:
                page = self._page(prefix, after, count)
            yield from page
            if len(page) < count:
                return
            after, limit = page[-1], None if limit is None else limit - count

    def _page(self, prefix: str, after: str, count: int) -> list[str]:
        bounds = (prefix, after, prefix + LAST)
        query = "SELECT DISTINCT low FROM spans WHERE low >= ? AND low > ? AND low <= ? AND high = low ORDER BY low LIMIT ?"
        while True:
            page = [key for (key,) in self._base.execute(query, (*bounds, count))]
            last = page[-1] if len(page) == count else prefix + LAST
            # Only spans that begin before the last key found may hold one that belongs before it.
            if not self._expand("high >= ? AND high > ? AND low <= ?", (prefix, after, last)):
                return page

    def _expand(self, condition: str, values: tuple[str, ...]) -> bool:
        """Put the keys of some spans in their place, those first that begin first; return whether there were any."""
        query = "SELECT number, id, row_group, spans.rowid FROM spans JOIN shards ON number = shard WHERE low < high AND"
        found = self._base.execute(f"{query} {condition} ORDER BY low LIMIT {_EXPANDED}", values).fetchall()
        for (number, shard_id), spans in groupby(sorted(found), key=lambda row: row[:2]):
            groups, row_ids = zip(*((group, (row_id,)) for _, _, group, row_id in spans), strict=True)
            with self._archive.shard_rows(shard_id, buffer_size=_KEYS_BUFFER) as reader:
                rows = [(row["key"], row["key"], number, group) for group in groups for row in reader.rows(["key"], [group])]
            with self._base:
                self._base.executemany("DELETE FROM spans WHERE rowid = ?", row_ids)
                self._base.executemany("INSERT INTO spans VALUES (?, ?, ?, ?)", rows)
        return bool(found)

    def _spans(self, shard_id: str) -> tuple[str, list[tuple[str, str, int]]]:
        try:
            with self._archive.shard_rows(shard_id) as reader:
                told = [each or ("", LAST) for each in reader.key_ranges("key")]
        except ArchiveError as error:
            if self._lost is None:
                raise
            self._lost(error)
            told = []
        return shard_id, [(low, high, group) for group, (low, high) in enumerate(told)]


def number_of(shard_id: str) -> int:
    """Return a shard's number in the plan, which its id begins with."""
    return int(shard_id.partition("-")[0])
