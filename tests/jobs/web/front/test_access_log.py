"""The log of requests: one line each, whole, with nothing in it that a client could break it by, or that is secret."""

from __future__ import annotations

import json
import os
import re
import threading
from contextlib import closing
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.web.front import access_log
from jobs.web.front.access_log import AccessLog, known_query, line
from pipeline.core.errors import InvalidOption
from tests.support.http_site import ENTRY, TOKEN, Site
from tests.support.workshop import Rescaled, sentence

PIPE_BYTES = 4096
"""What a pipe takes at once (POSIX)."""


def lines(path: Path) -> list[dict[str, Any]]:
    """Return what a log has."""
    return [json.loads(each) for each in path.read_text("ascii").splitlines()]


@given(path=st.text(max_size=9000), query=st.text(max_size=9000), method=st.text(max_size=3000))
def test_a_line_is_a_line(path: str, query: str, method: str) -> None:
    """Protects readers of logs: whatever a client sends, it is one line of ASCII, JSON, and no longer than a pipe takes."""
    written = line({"path": path, "query": query, "method": method[:50], "status": 200, "worker": 1}, TOKEN)
    assert written.isascii()
    assert (written.count(b"\n"), written[-1:]) == (1, b"\n")
    assert len(written) <= PIPE_BYTES
    told = json.loads(written)
    assert path.startswith(told["path"]) or TOKEN in path
    assert (len(path) > 200) or told["path"] == path


def test_no_secret_is_in_a_line() -> None:
    """Protects tokens: the service's own is nowhere, and of parameters that it does not have no value is told."""
    for token in (TOKEN, "aB3+/dEf9+hIj0LmN/oPqR=="):
        for sent in (token, quote(token, safe=""), quote(quote(token, safe=""), safe=""), f"%{ord(token[0]):02x}{token[1:]}"):
            told = json.loads(line({"path": f"/archives/{sent}", "query": f"prefix={sent}", "method": "GET"}, token))
            assert (told["path"], told["query"], told["method"]) == ("…", "…", "GET"), sent
    assert (
        known_query(b"max_side=9&token=secret&sig=a=b&max%5Fside=8&&x", {"max_side"}) == "max_side=9&token=&sig=&max%5Fside=8&x"
    )
    assert json.loads(line({}, None, datetime(2026, 1, 2, 3, 4, 5, 6789, UTC)))["time"] == "2026-01-02T03:04:05.006Z"


def test_every_answer_has_its_line(archive: Rescaled, tmp_path: Path) -> None:
    """Protects operators: who asked what, and what came of it, refusals and preflights too, by who proxies say asked."""
    path = tmp_path / "access.log"
    with closing(AccessLog(str(path), worker=3, token=TOKEN)) as log:
        proxies = (ip_network("127.0.0.1"),)
        site = Site(archive, token=TOKEN, origin="*", access_log=log, trusted=proxies, client=("127.0.0.1", 9))
        with closing(site.shelf):
            bearer = {"authorization": f"Bearer {TOKEN}", "x_forwarded_for": "192.0.2.7"}
            body = site.get(f"{ENTRY}/image?max_side=9&format=png", **bearer).content
            site.get(f"{ENTRY}/lr?{TOKEN}=1")
            site.client.options("/iiif/3/demo/x/info.json")
            site.get("/archives", x_forwarded_proto="ftp")
            site.get("/no%0Asuch%1B%5B31mplace", **bearer)
    asked = lines(path)
    image = "/archives/{archive}/assets/{key}/image"
    first = asked[0]
    assert (first["status"], first["bytes"]) == (200, len(body))
    assert {name: first[name] for name in ("client", "method", "path", "query", "route", "worker")} == {
        "client": "192.0.2.7",
        "method": "GET",
        "path": f"{ENTRY}/image",
        "query": "max_side=9&format=png",
        "route": image,
        "worker": 3,
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first["time"])
    assert 0 < first["seconds"] < 1000
    assert [each["status"] for each in asked[1:]] == [401, 204, 400, 404]
    assert [each["client"] for each in asked[1:]] == ["127.0.0.1"] * 3 + ["192.0.2.7"]
    assert TOKEN not in path.read_text()


def test_lines_of_several_are_whole(tmp_path: Path) -> None:
    """Protects a file that all workers write to: no line is in the middle of another, and none is lost."""
    path, count = tmp_path / "log", 500
    logs = [AccessLog(str(path), worker=number) for number in range(4)]

    def write(log: AccessLog) -> None:
        for number in range(count):
            log.add(path="x" * (number % 300), number=number)

    threads = [threading.Thread(target=write, args=(log,)) for log in logs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for log in logs:
        log.close()
    found = lines(path)
    for worker in range(4):
        assert [each["number"] for each in found if each["worker"] == worker] == list(range(count))


def test_a_log_may_be_rotated(tmp_path: Path) -> None:
    """Protects disks: after a file was renamed, or emptied where it is, lines go to the one at the path."""
    path, old = tmp_path / "log", tmp_path / "log.1"
    log = AccessLog(str(path))
    log.add(number=1)
    wait_for(path, 1)
    path.rename(old)
    log.add(number=2)
    wait_for(path, 1)
    os.truncate(path, 0)
    log.add(number=3)
    log.close()
    assert [each["number"] for each in lines(old)] == [1]
    assert [each["number"] for each in lines(path)] == [3]


def wait_for(path: Path, count: int) -> None:
    """Wait until a log has so many lines."""
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        threading.Event().wait(0.01)


def test_no_answer_waits_for_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects answers: where nobody takes the lines, here a pipe that is full, they are lost, counted, and nothing hangs."""
    monkeypatch.setattr(access_log, "MOST_WAITING", 10)
    monkeypatch.setattr(access_log, "CLOSE_SECONDS", 0.1)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    log, lost = AccessLog(str(fifo)), list[int]()
    log.lost = lambda: lost.append(1)
    for _ in range(2000):
        log.add(path="x" * 200)
    assert 0 < len(lost) <= 1990
    log.close()
    os.close(reader)


def test_lines_that_cannot_be_written_are_counted(archive: Rescaled) -> None:
    """Protects operators: a disk that is full costs lines and no answers, and the metrics tell how many."""
    log = AccessLog("/dev/full")
    site = Site(archive, access_log=log)
    with closing(site.shelf):
        assert [site.get("/healthz").status_code for _ in range(3)] == [200] * 3
        log.close()
        assert "iarn_access_log_lost_total 3.0" in site.get("/metrics").text


def test_a_log_that_cannot_be_is_refused(tmp_path: Path) -> None:
    """Protects whoever starts a service: a file that cannot be written is told before anything else."""
    for target in (tmp_path, tmp_path / "none" / "log"):
        with pytest.raises(InvalidOption, match="access-log") as caught:
            AccessLog(str(target))
        sentence(str(caught.value))
