"""Archives that are open: those that cannot be opened hold up nobody else, and what nobody has open any more is let go."""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.core.errors import InvalidWeights, NotFound, PipelineError
from pipeline.reading import open_archives
from pipeline.reading.errors import Replaced
from pipeline.reading.open_archives import OpenArchives
from tests.support.commands import GUARD


class Stores:
    """Stand-ins of archives by URI, (plan, model), and how often each was opened; ``meet`` is called by every opening."""

    def __init__(self, **archives: tuple[str, str]) -> None:
        self.archives, self.opened = archives, Counter[str]()
        self.meet: Callable[[str], object] = lambda _: None

    def open(self, uri: str, **_: Any) -> Any:
        """Return a stand-in of the reader of an archive; raises NotFound."""
        self.opened[uri] += 1
        self.meet(uri)
        if uri not in self.archives:
            raise NotFound(uri)
        plan, model = self.archives[uri]
        archive = SimpleNamespace(model_bytes=model.encode)
        return SimpleNamespace(uri=uri, digest=plan, plan=SimpleNamespace(model=model), archive=archive)


@pytest.fixture
def stores(monkeypatch: pytest.MonkeyPatch) -> Stores:
    """Archives a and b of one model."""
    found = Stores(a=("plan a", "model"), b=("plan b", "model"))
    monkeypatch.setattr(open_archives, "open_archive", found.open)
    return found


def load(weights: bytes) -> Any:
    """Return a stand-in of an engine; weights of the name "broken" are none."""
    if weights == b"broken":
        raise InvalidWeights("broken", "they are broken")
    return SimpleNamespace(batch_pixels=1)


def test_an_archive_that_is_gone_does_not_keep_a_service_from_starting(stores: Stores) -> None:
    """Protects new replicas: one archive that cannot be opened, or has no model, is passed over, and tried when asked for."""
    stores.archives["c"] = ("plan c", "broken")
    archives = OpenArchives(["gone", "c", "a"], load)
    assert archives.of("a", "plan a").reader.uri == "a"
    assert stores.opened["a"] == 1, "it was opened at the start"
    for uri, error in (("gone", NotFound), ("c", InvalidWeights)):
        with pytest.raises(error):
            archives.of(uri, f"plan {uri}")
    stores.archives |= {"gone": ("plan gone", "model"), "c": ("plan c", "mended")}
    assert [archives.of(uri, f"plan {uri}").reader.uri for uri in ("gone", "c")] == ["gone", "c"]


def test_a_start_that_cannot_work_says_so(stores: Stores) -> None:
    """Protects operators: where no archive can be opened, the first one's error is raised; a start without any is none."""
    with pytest.raises(PipelineError, match="first"):
        OpenArchives(["first", "second"], load)
    assert stores.opened == {"first": 1, "second": 1}
    assert OpenArchives([], load).of("a", "plan a").reader.uri == "a"


def test_a_store_that_hangs_holds_up_its_own_archive_alone(stores: Stores) -> None:
    """Protects the others: while one archive is being opened another is opened and used; whoever asks for it shares that."""
    archives, begun, go_on = OpenArchives([], load), threading.Event(), threading.Event()

    def hang(uri: str) -> None:
        if uri == "a":
            begun.set()
            assert go_on.wait(GUARD)

    stores.meet = hang
    with ThreadPoolExecutor(4) as threads:
        try:
            waiting = [threads.submit(archives.of, "a", "plan a") for _ in range(3)]
            assert begun.wait(GUARD)
            assert threads.submit(archives.of, "b", "plan b").result(GUARD).reader.uri == "b"
        finally:
            go_on.set()
        assert {future.result(GUARD).reader.uri for future in waiting} == {"a"}
    archives.of("a", "plan a")
    assert stores.opened == {"a": 1, "b": 1}


def test_an_engine_that_is_long_in_loading_holds_up_its_own_model_alone(stores: Stores) -> None:
    """Protects the others: archives of another model are opened meanwhile, those of the same share the one engine."""
    stores.archives["c"] = ("plan c", "other")
    begun, go_on, loaded = threading.Event(), threading.Event(), list[bytes]()

    def slow(weights: bytes) -> Any:
        loaded.append(weights)
        if weights == b"model":
            begun.set()
            assert go_on.wait(GUARD)
        return load(weights)

    archives = OpenArchives([], slow)
    with ThreadPoolExecutor(4) as threads:
        try:
            waiting = [threads.submit(archives.of, uri, f"plan {uri}") for uri in "ab"]
            assert begun.wait(GUARD)
            assert threads.submit(archives.of, "c", "plan c").result(GUARD).reader.uri == "c"
        finally:
            go_on.set()
        assert len({id(future.result(GUARD).batcher) for future in waiting}) == 1
    assert sorted(loaded) == [b"model", b"other"]


def test_a_request_of_an_older_plan_takes_nothing_from_the_newer(stores: Stores) -> None:
    """Protects requests that know the archive as it is: those of an older plan are refused, and it stays open for the rest."""
    archives = OpenArchives(["a"], load)
    stores.archives["a"] = ("plan new", "model")
    new = archives.of("a", "plan new")
    with pytest.raises(Replaced):
        archives.of("a", "plan a")
    assert archives.of("a", "plan new") is new


def wait_for(count: int, others: set[threading.Thread]) -> None:
    """Wait until there are so many threads of engines besides ``others``, which may end at any time; fails after the guard."""
    until, found = threading.Event(), -1
    for _ in range(int(GUARD * 100)):
        found = sum(thread.name.startswith("engine") for thread in threading.enumerate() if thread not in others)
        if found == count:
            return
        until.wait(0.01)
    raise AssertionError(f"{found} threads of engines, not {count}")


def test_an_engine_goes_with_the_last_archive_of_its_model(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects memory: of an archive made anew with other weights, or closed for others, the engine and its thread go, but not
    before a restore that is under way is done; an engine that could not be made leaves no thread either."""
    others = set(threading.enumerate())  # of tests before this one, whose engines go when they go
    monkeypatch.setattr(open_archives, "MOST_ARCHIVES", 2)
    archives = OpenArchives(["a", "b"], load)
    held = archives.of("a", "plan a")
    engine = weakref.ref(held.batcher)
    for number in range(5):
        for uri in "ab":
            stores.archives[uri] = (f"plan {number}", f"model {number}")
            archives.of(uri, f"plan {number}")
    wait_for(2, others)  # the one that is held, and the last one
    assert held.batcher.__dict__["_thread"].call(lambda: 5) == 5
    del held
    assert engine() is None
    wait_for(1, others)
    stores.archives["c"] = ("plan c", "broken")
    with pytest.raises(InvalidWeights):
        archives.of("c", "plan c")
    wait_for(1, others)
