"""Large stored files over HTTP: sent in pieces with bounded memory, in part, by HEAD; what breaks off never looks whole."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import logging
import threading
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from jobs.web.http import service as http_service
from jobs.web.http.outgoing import SMALL_BYTES, Outgoing
from jobs.web.http.service import Service
from pipeline.reading.errors import Overloaded, RanOutOfTime
from pipeline.serving import stored
from pipeline.serving.stored import LargeFile
from tests.support.commands import GUARD
from tests.support.gallery_service import served
from tests.support.http_site import Site, told
from tests.support.workshop import Rescaled, Sample, as_folder, rescale

NOISE = np.random.default_rng(5).bytes(3_000_000)
LARGE = "/archives/demo/assets/large.jpg/original"


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is large, and what is a piece, are less than usual."""
    monkeypatch.setattr(stored, "LARGE_BYTES", 500_000)
    monkeypatch.setattr(stored, "PIECE_BYTES", 100_000)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Service]:
    """The services that a test makes."""
    found: list[Service] = []
    begin = Service.__init__

    def begun(service: Service, *arguments: Any) -> None:
        begin(service, *arguments)
        found.append(service)

    monkeypatch.setattr(Service, "__init__", begun)
    return found


@pytest.fixture
def rescaled(tmp_path: Path) -> Rescaled:
    """An archive of a large file that is no picture, and a small one."""
    kept = [Sample(key="large.jpg", data=NOISE), Sample(key="small.jpg", data=NOISE[:1000])]
    return rescale(as_folder(tmp_path / "source", kept), tmp_path / "archive")


@pytest.fixture
def big(rescaled: Rescaled) -> Iterator[Site]:
    """A service of it."""
    site = Site(rescaled)
    with closing(site.library):
        yield site


def damage(rescaled: Rescaled) -> None:
    """Flip a bit in the large file."""
    for path in Path(rescaled.uri, "shards").iterdir():
        data = bytearray(path.read_bytes())
        if (place := data.find(NOISE)) > 0:
            data[place + 2_000_000] ^= 1
            path.write_bytes(data)


def test_a_large_file_is_sent_whole_and_in_part(big: Site) -> None:
    """Protects downloads: all of it, any range, as unchanged; its digest goes along, for who puts parts together."""
    whole = big.get(LARGE)
    assert (whole.status_code, whole.content, whole.headers["content-length"]) == (200, NOISE, str(len(NOISE)))
    assert whole.headers["etag"] == f'"{hashlib.sha256(NOISE).hexdigest()}"'
    assert whole.headers["repr-digest"].startswith("sha-256=:")
    assert whole.headers["content-disposition"].startswith("attachment")
    for asked, part in (("0-0", NOISE[:1]), ("-5", NOISE[-5:]), ("1500000-1699999", NOISE[1_500_000:1_700_000])):
        answer = big.get(LARGE, range=f"bytes={asked}")
        assert (answer.status_code, answer.content, answer.headers["content-length"]) == (206, part, str(len(part)))
    assert big.get(LARGE, range=f"bytes={len(NOISE)}-").status_code == 416
    assert big.get(LARGE, if_none_match=whole.headers["etag"]).status_code == 304
    small = big.get(LARGE.replace("large", "small"))
    assert (small.content, set(small.headers)) == (NOISE[:1000], set(whole.headers))


def test_only_figures_are_read_for_head(big: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects stores: HEAD, and a condition that holds, are answered without any byte of the original; a range of it is of no
    account to HEAD."""
    whole = big.get(LARGE)

    def none(*_: object) -> object:
        raise AssertionError("the original was read")

    monkeypatch.setattr("pipeline.serving.shelf.read_original", none)
    for headers in ({}, {"range": "bytes=0-9"}):
        answer = big.client.head(LARGE, headers=headers)
        assert (answer.status_code, answer.content, dict(answer.headers)) == (200, b"", dict(whole.headers))
    assert big.get(LARGE, if_none_match=whole.headers["etag"]).status_code == 304


def test_only_so_much_is_sent_at_once(monkeypatch: pytest.MonkeyPatch, rescaled: Rescaled, made: list[Service]) -> None:
    """Protects memory, and small files: a large answer beside others is 503, and asked for again later; a small one comes."""
    monkeypatch.setattr(http_service, "SENT_BYTES", 100)
    site = Site(rescaled)
    with closing(site.library):
        with made[-1].outgoing.sending(object(), 50):
            answer = site.get(LARGE)
            assert (answer.status_code, told(answer)) == (503, "overloaded")
            assert "retry-after" in answer.headers
            assert site.get(LARGE.replace("large", "small")).content == NOISE[:1000]
            assert site.client.head(LARGE).status_code == 200
        assert site.get(LARGE).content == NOISE
        assert made[-1].outgoing.bytes == 0


def test_what_is_sent_is_given_back() -> None:
    """Protects whoever comes beside a slow client: what that one has is of no account, and one value for several counts once;
    the only answer may take more than there is."""
    large, outgoing = 10 * SMALL_BYTES, Outgoing(20 * SMALL_BYTES)
    one, two, three = object(), object(), object()
    with outgoing.sending(one, 3 * large) as first:
        with pytest.raises(Overloaded), outgoing.sending(two, large):
            pass
        first.rest -= 2 * large
        with outgoing.sending(one, large), outgoing.sending(two, large), outgoing.sending(three, SMALL_BYTES):
            assert outgoing.bytes == 2 * large + SMALL_BYTES
            with pytest.raises(Overloaded), outgoing.sending(three, large):
                pass
    assert outgoing.bytes == 0


def test_damage_breaks_a_file_off(big: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Protects clients: a large file whose digest is not the one that it should have comes without its end, which the length
    told; the log says why. A small one is 502, as ever."""
    damage(big.rescaled)
    with caplog.at_level(logging.ERROR, "jobs.web"):
        answer = big.get(LARGE)
    assert (answer.status_code, answer.headers["content-length"]) == (200, str(len(NOISE)))
    assert 0 < len(answer.content) < len(NOISE)
    (record,) = caplog.records
    assert "original of large.jpg is damaged" in record.getMessage()


def test_over_a_connection_what_breaks_off_is_seen(rescaled: Rescaled) -> None:
    """Protects clients that look at nothing but the connection: it ends before the length that was told."""
    damage(rescaled)
    with served({"demo": rescaled.uri}) as address:
        client = http.client.HTTPConnection(urlsplit(address).netloc, timeout=GUARD)
        client.request("GET", LARGE)
        with closing(client), client.getresponse() as answer, pytest.raises(http.client.IncompleteRead):
            answer.read()


def test_nothing_is_read_for_who_has_gone(rescaled: Rescaled, made: list[Service], monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects stores and memory: who leaves in the middle of a large file stops its reading; what it took is given back when
    the thread that reads is done, and no sooner."""
    read, pieces = 0, LargeFile.pieces
    waiting, gone, closed = threading.Event(), threading.Event(), threading.Event()

    def slow(file: LargeFile, start: int = 0, stop: int | None = None) -> Generator[bytes]:
        nonlocal read
        try:
            for piece in pieces(file, start, stop):
                read += len(piece)
                if read > 1_000_000:
                    waiting.set()
                    assert gone.wait(GUARD)
                yield piece
        finally:
            closed.set()

    monkeypatch.setattr(LargeFile, "pieces", slow)
    with served({"demo": rescaled.uri}) as address:
        client = http.client.HTTPConnection(urlsplit(address).netloc, timeout=GUARD)
        client.request("GET", LARGE)
        with client.getresponse() as answer:
            answer.read(1000)
            assert waiting.wait(GUARD)
        client.close()
        threading.Event().wait(0.2)
        assert made[-1].outgoing.bytes > 0
        gone.set()
        assert closed.wait(GUARD)
        for _ in range(int(100 * GUARD)):
            if made[-1].outgoing.bytes == 0:
                break
            threading.Event().wait(0.01)
        assert made[-1].outgoing.bytes == 0
        assert read < len(NOISE)


def test_a_thread_is_taken_until_it_is_done(rescaled: Rescaled, made: list[Service], monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the machine: a read that nobody waits for any more has its thread still, so there are never more of them."""
    monkeypatch.setattr(http_service, "READERS", 2)
    site = Site(rescaled, seconds=0.05)
    begun, go = threading.Semaphore(0), threading.Event()

    def stuck() -> None:
        begun.release()
        assert go.wait(GUARD)

    async def ask() -> None:
        for _ in range(4):
            with pytest.raises(RanOutOfTime):
                await made[-1].read(stuck)
        go.set()
        assert await made[-1].in_thread(int, "7") == 7

    with closing(site.library):
        asyncio.run(ask())
    assert [begun.acquire(blocking=False) for _ in range(3)] == [True, True, False]
