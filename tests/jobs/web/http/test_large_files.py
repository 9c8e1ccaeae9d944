"""Large stored files over HTTP: sent in pieces with bounded memory, in part, by HEAD; what breaks off never looks whole."""

from __future__ import annotations

import hashlib
import http.client
import logging
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from jobs.web.http import service as http_service
from jobs.web.http.room import Room
from pipeline.reading.errors import Overloaded
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
def rooms(monkeypatch: pytest.MonkeyPatch) -> list[Room]:
    """The rooms of the services that a test makes."""
    found: list[Room] = []

    def made(most: int) -> Room:
        found.append(Room(most))
        return found[-1]

    monkeypatch.setattr(http_service, "Room", made)
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


def test_there_is_only_so_much_room(monkeypatch: pytest.MonkeyPatch, rescaled: Rescaled, rooms: list[Room]) -> None:
    """Protects memory: answers that would take more than there is room for are 503, and asked for again later."""
    monkeypatch.setattr(http_service, "SENT_BYTES", 100)
    site = Site(rescaled)
    with closing(site.library):
        with rooms[-1].taken(1):
            for path in (LARGE, LARGE.replace("large", "small")):
                answer = site.get(path)
                assert (answer.status_code, told(answer)) == (503, "overloaded")
                assert "retry-after" in answer.headers
            assert site.client.head(LARGE).status_code == 200
        assert site.get(LARGE).content == NOISE


def test_one_answer_alone_may_take_more() -> None:
    """Protects large images: what is above the bound is still sent when nothing else is; and what was taken is given back."""
    room = Room(10)
    with room.taken(50), pytest.raises(Overloaded), room.taken(1):
        pass
    with room.taken(5), room.taken(5):
        pass


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


def test_nothing_is_read_for_who_has_gone(rescaled: Rescaled, rooms: list[Room], monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects stores: who leaves in the middle of a large file stops its reading, and gives back its room."""
    read, pieces, gone = 0, LargeFile.pieces, threading.Event()

    def slow(file: LargeFile, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        nonlocal read
        for piece in pieces(file, start, stop):
            read += len(piece)
            if read > 1_000_000:
                assert gone.wait(GUARD)
                threading.Event().wait(0.1)
            yield piece

    monkeypatch.setattr(LargeFile, "pieces", slow)
    with served({"demo": rescaled.uri}) as address:
        client = http.client.HTTPConnection(urlsplit(address).netloc, timeout=GUARD)
        client.request("GET", LARGE)
        with client.getresponse() as answer:
            answer.read(1000)
        client.close()
        gone.set()
        for _ in range(int(100 * GUARD)):
            if rooms[-1]._taken == 0:
                break
            threading.Event().wait(0.01)
        assert rooms[-1]._taken == 0
        assert read < len(NOISE)
