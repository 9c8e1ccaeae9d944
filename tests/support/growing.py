"""Archives that grow and stores that fail, for what is looked at again and again."""

from __future__ import annotations

import threading
from pathlib import Path

from pipeline.archives.archive import Archive
from pipeline.core.errors import StoreUnavailable
from pipeline.core.records import SourceShard
from pipeline.reading.catalogue import Filter
from pipeline.serving.shelf import Shelf
from pipeline.stores.store import LocalStore
from tests.support.commands import GUARD
from tests.support.workshop import as_tar, begin, samples


def begun(folder: Path) -> tuple[Archive, list[SourceShard]]:
    """Begin an archive of two tars, of two and three samples; return it and its shards."""
    as_tar(folder / "source", samples(2, folder="a/"), "a.tar")
    archive = begin(as_tar(folder / "source", samples(3, folder="b/"), "b.tar"), folder / "archive")
    return archive, list(archive.shards())


def total(shelf: Shelf) -> int:
    """Return how many entries the list has, once it has all that were seen."""
    for _ in range(int(100 * GUARD)):
        if shelf.catalogue.ready(GUARD) and shelf.catalogue.shards_read == shelf.catalogue.shards:
            return int(shelf.list(Filter(), after="", limit=1, seconds=GUARD)["total"])
        threading.Event().wait(0.01)
    raise AssertionError("the list does not become complete")


def unplugged(store: LocalStore, *_: object, **__: object) -> None:
    """Do what a store does that is out of reach."""
    raise StoreUnavailable(store.uri, "it was unplugged")
