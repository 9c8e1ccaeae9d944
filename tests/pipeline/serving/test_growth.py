"""What came to an archive since, told by listings: nothing twice, nothing left out, few requests, another archive noticed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.archives.additions import create_addition
from pipeline.archives.archive import Archive
from pipeline.archives.errors import NotAnArchive
from pipeline.core.errors import StoreUnavailable
from pipeline.core.records import ObjectInfo, PlanPart, ShardKind, SourceShard
from pipeline.reading.errors import Replaced
from pipeline.serving import growth as growing
from pipeline.serving.growth import Growth
from pipeline.stores.store import LocalStore
from tests.support.archives import begin

COUNT = 2500


class Asked(LocalStore):
    """Remembers what is listed, and answers nothing while it is out of reach."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.listed: list[str] = []
        self.reachable = True

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:  # type: ignore[override]
        if not self.reachable:
            raise StoreUnavailable(self.uri, "it was unplugged")
        self.listed.append(prefix)
        return super().list(prefix)


def shards(count: int) -> Iterator[SourceShard]:
    """Yield source shards of no account."""
    for index in range(count):
        info = ObjectInfo(key=f"{index}.tar", size=5, etag=f"{index}")
        yield SourceShard(id=f"{index:09}-x", name=f"{index}.tar", kind=ShardKind.TAR, objects=(info,))


@pytest.fixture
def store(tmp_path: Path) -> Asked:
    """A store with an archive of many shards, none of them done."""
    (tmp_path / "archive").mkdir()
    store = Asked(tmp_path / "archive")
    begin(store, shards(COUNT))
    return store


def commit(store: Asked, *indices: int) -> list[str]:
    """Have shards done; return their ids."""
    for index in indices:
        path = Path(store.uri, "commits", f"{index:09}"[:6], f"{index:09}-x.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"{}")
    return [f"{index:09}-x" for index in indices]


def test_each_shard_is_told_until_it_is_taken(store: Asked) -> None:
    """Protects an archive that grows: what is done is told in the plan's order, and again as long as nobody has taken it."""
    growth = Growth(Archive.open(store))
    assert growth.look() == []
    first = commit(store, 0, 3, 1002)
    assert growth.look() == growth.look() == first
    growth.take(first[:2])
    later = commit(store, 1, 2499)
    assert growth.look() == [later[0], first[2], later[1]]
    growth.take([*later, first[2]])
    assert growth.look() == []


def test_what_is_whole_is_not_listed_again(store: Asked) -> None:
    """Protects stores and bills: of a finished archive a look is one listing; a group is listed until all of it is done."""
    growth = Growth(Archive.open(store))
    commit(store, *range(1000), *range(1000, 1500))
    growth.take(growth.look())
    store.listed.clear()
    commit(store, *range(1500, COUNT))
    growth.take(growth.look())
    assert store.listed == ["plan", "commits/000001/", "commits/000002/"]
    store.listed.clear()
    assert (growth.look(), store.listed) == ([], ["plan"])


def test_groups_behind_the_last_are_not_listed(store: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects a plan of millions at its beginning: groups are listed as far as there is something, and not all of them."""
    monkeypatch.setattr(growing, "LISTERS", 1)
    growth = Growth(Archive.open(store))
    assert (growth.look(), store.listed[-1]) == ([], "commits/000000/")
    first = commit(store, *range(999))
    assert (growth.look(), store.listed[-1]) == (first, "commits/000001/")


def test_additions_are_seen(store: Asked) -> None:
    """Protects sources that were added later: shards beyond the plan that was opened are told once they are done."""
    archive = Archive.open(store)
    growth = Growth(archive)
    commit(store, *range(COUNT))
    growth.take(growth.look())
    beyond = commit(store, COUNT, COUNT + 1)
    assert growth.look() == [], "a commit of no shard that is planned is nobody's"
    create_addition(store, archive.digest, 1, (PlanPart(sha256="ab" * 32, shards=2, objects=2),))
    assert growth.look() == beyond
    growth.take(beyond)
    store.listed.clear()
    assert (growth.look(), store.listed) == ([], ["plan"])


def test_another_archive_is_noticed(store: Asked) -> None:
    """Protects against a mix of two: a plan of other bytes, one that was written again, and commits that are gone are told."""
    archive = Archive.open(store)
    plan = Path(store.uri, "plan.json")
    growth = Growth(archive)
    commit(store, 0, 1)
    growth.take(growth.look())
    os.utime(plan, (1, 1))
    with pytest.raises(Replaced):
        growth.look()
    growth = Growth(archive)
    growth.take(growth.look())
    Path(store.uri, "commits", "000000", "000000001-x.json").unlink()
    with pytest.raises(Replaced):
        growth.look()
    plan.write_bytes(plan.read_bytes().replace(b"photos", b"others"))
    with pytest.raises(Replaced):
        Growth(archive).look()
    plan.unlink()
    for _ in range(2):
        with pytest.raises(NotAnArchive):
            growth.look()


def test_a_store_that_fails_costs_nothing(store: Asked) -> None:
    """Protects what was seen: a look that fails changes nothing, and the next one tells what this one would have."""
    growth = Growth(Archive.open(store))
    growth.take(growth.look())
    first = commit(store, 4)
    store.reachable = False
    with pytest.raises(StoreUnavailable):
        growth.look()
    store.reachable = True
    assert growth.look() == first
    shutil.rmtree(Path(store.uri, "plan"))  # parts of the plan are not asked for
    assert growth.look() == first
