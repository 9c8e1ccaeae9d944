"""Images restored on demand: once for all who ask, so many at a time, within a time, and kept."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from typing import Any

import pytest

from jobs.web.on_demand import Images
from tests.support.commands import GUARD
from tests.support.http_site import ENTRY, Site, told
from tests.support.workshop import Rescaled


def test_equal_requests_at_once_are_restored_once(fresh: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects engines from a crowd: ten who ask for one image share its restore, and the eleventh finds it in the cache."""
    fresh.backend.gate.clear()
    ask, asked, found = Images.get, list[str](), list[bytes]()

    async def get(images: Images, digest: str, *more: Any) -> Any:
        asked.append(digest)
        if len(asked) == 10:
            fresh.backend.gate.set()  # it is seen once this one waits as well
        return await ask(images, digest, *more)

    monkeypatch.setattr(Images, "get", get)
    threads = [threading.Thread(target=lambda: found.append(fresh.get(f"{ENTRY}/image").content)) for _ in range(10)]
    with fresh.client:  # one event loop for all of them
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found.append(fresh.get(f"{ENTRY}/image").content)
    assert len(set(found)) == 1
    assert len(found) == 11
    assert fresh.backend.restored == 1


def test_too_many_restores_are_refused_at_once(fresh: Site) -> None:
    """Protects the service under load: beyond what may wait 503 with Retry-After, while LRs are answered as ever."""
    fresh.backend.gate.clear()
    answers: list[Any] = []
    with fresh.client:
        threads = [
            threading.Thread(target=lambda n=n: answers.append(fresh.get(f"{ENTRY}/image?max_side={n}"))) for n in range(5, 11)
        ]
        for thread in threads:
            thread.start()
        assert fresh.get(f"{ENTRY}/lr").status_code == 200
        end = time.monotonic() + GUARD
        while len(answers) < 4 and time.monotonic() < end:
            time.sleep(0.01)
        assert [answer.status_code for answer in answers] == [503] * 4, "while the others wait"
        fresh.backend.gate.set()
        for thread in threads:
            thread.join()
    refused = [answer for answer in answers if answer.status_code == 503]
    assert sorted(answer.status_code for answer in answers) == [200] * 2 + [503] * 4
    for answer in refused:
        assert told(answer) == "overloaded"
        assert int(answer.headers["retry-after"]) > 0


def test_a_restore_has_its_time(archive: Rescaled) -> None:
    """Protects clients from waiting for ever: a restore that takes too long is given up with a sentence."""
    site = Site(archive, seconds=0.1)
    site.backend.gate.clear()
    with closing(site.shelf):
        answer = site.get(f"{ENTRY}/image")
        assert (answer.status_code, told(answer)) == (503, "overloaded")
        assert "retry-after" in answer.headers


def test_a_read_has_its_time(archive: Rescaled, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects clients from a store that hangs: what is not read in time is given up with a sentence."""
    site, released = Site(archive, seconds=0.1), threading.Event()
    monkeypatch.setattr(site.shelf, "lr", lambda _: released.wait(GUARD))
    with closing(site.shelf):
        answer = site.get(f"{ENTRY}/lr")
        released.set()
        assert (answer.status_code, told(answer)) == (503, "overloaded")


def test_a_cache_of_nothing_still_serves(archive: Rescaled) -> None:
    """Protects small machines: without a cache each image is restored anew, to the same bytes."""
    site = Site(archive, cache_bytes=0)
    with closing(site.shelf):
        assert site.get(f"{ENTRY}/image").content == site.get(f"{ENTRY}/image").content
        assert site.backend.restored == 2
