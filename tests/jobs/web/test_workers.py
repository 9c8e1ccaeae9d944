"""Several processes beside each other: which are started, started again, and ended, whatever becomes of them."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from jobs.web import workers
from jobs.web.front.server import bind
from jobs.web.service_metrics import ServiceMetrics, Shared
from jobs.web.workers import Workers
from pipeline.cluster.errors import WorkerNotStarted
from pipeline.core.byte_cache import CacheState
from pipeline.core.errors import InvalidOption
from tests.support.commands import GUARD, is_running
from tests.support.little_work import wait_for_end

NO_CACHE = CacheState(values=0, bytes=0, hits=0, misses=0)


def asked(listener: socket.socket) -> tuple[int, int]:
    """Return the number and the process of the worker that answers."""
    with socket.create_connection(listener.getsockname(), timeout=GUARD) as connection:
        number, process = connection.recv(100).split()
        return int(number), int(process)


def run(folder: Path, then: Callable[[], Any], *, count: int = 2, listener: socket.socket | None = None) -> list[Any]:
    """Run workers in this process until ``then``, called in a thread once they are ready, returns; return what was told."""
    told: list[Any] = []

    def say(event: str, **values: Any) -> None:
        told.append({"event": event, **values})

    def ready() -> None:
        told.append("ready")
        threading.Thread(target=meanwhile).start()

    def meanwhile() -> None:
        try:
            then()
        except BaseException as error:
            told.append(error)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    made = Workers(count, wait_for_end, (folder, listener), ended=lambda number: told.append(number), say=say)
    asyncio.run(made.run(ready))
    assert not [each for each in told if isinstance(each, BaseException)], told
    assert not multiprocessing.active_children()
    return told


@pytest.mark.slow
def test_one_that_dies_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the service: what waits at the socket goes to the others, another takes the place, and that is told; all end."""
    monkeypatch.setattr(workers, "LEAST_PAUSE", 0.1)
    first: dict[int, int] = {}
    with bind("127.0.0.1", 0) as listener:

        def kill_one() -> None:
            while set(first) != {1, 2}:
                first.update([asked(listener)])
            victim = psutil.Process(first[1])
            victim.kill()
            while is_running(victim):
                time.sleep(0.01)
            number, process = 0, 0
            while number != 1:
                number, process = asked(listener)
                assert (process == first[2]) == (number == 2)
            assert process != first[1]

        told = run(tmp_path, kill_one, listener=listener)
    assert told[0] == "ready"
    assert told[1] == 1
    assert told[2] == {"event": "worker ended", "worker": 1, "reason": "it was ended by SIGKILL", "again_in_seconds": 0.1}


@pytest.mark.slow
def test_one_that_dies_at_once_is_not_started_all_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the machine: each time that a worker does not live, the pause before the next is twice as long, to a bound."""
    monkeypatch.setattr(workers, "LEAST_PAUSE", 0.01)
    monkeypatch.setattr(workers, "MOST_PAUSE", 0.03)
    told: list[Any] = []

    def break_it() -> None:
        (tmp_path / "die-2").touch()
        for child in psutil.Process().children():
            if "spawn_main" in " ".join(child.cmdline()):
                child.kill()
        end = time.monotonic() + GUARD
        while len([each for each in told_of() if each["worker"] == 2]) < 4:
            assert time.monotonic() < end
            time.sleep(0.05)

    def told_of() -> list[dict[str, Any]]:
        return [each for each in told if isinstance(each, dict) and each["event"] == "worker ended"]

    def say(event: str, **values: Any) -> None:
        told.append({"event": event, **values})

    def ready() -> None:
        threading.Thread(target=lambda: (break_it(), os.kill(os.getpid(), signal.SIGTERM))).start()

    asyncio.run(Workers(2, wait_for_end, (tmp_path, None), ended=lambda _: None, say=say).run(ready))
    pauses = [each["again_in_seconds"] for each in told_of() if each["worker"] == 2]
    assert pauses[:4] == [0.01, 0.02, 0.03, 0.03]


@pytest.mark.slow
def test_what_keeps_one_from_its_first_start_is_told(tmp_path: Path) -> None:
    """Protects whoever starts a service: an error of a worker is the command's own, and the others end."""
    (tmp_path / "refuse-2").touch()
    with pytest.raises(InvalidOption, match="not wanted"):
        run(tmp_path, lambda: None)
    (tmp_path / "refuse-2").rename(tmp_path / "die-2")
    with pytest.raises(WorkerNotStarted, match="SIGKILL"):
        run(tmp_path, lambda: None)
    assert not multiprocessing.active_children()


PARENT = """
import asyncio, sys
from pathlib import Path
from jobs.web.workers import Workers
from tests.support.little_work import wait_for_end
if __name__ == "__main__":
    made = Workers(2, wait_for_end, (Path(sys.argv[1]), None), ended=print, say=print)
    asyncio.run(made.run(lambda: print("ready", flush=True)))
"""


@pytest.mark.slow
def test_workers_do_not_outlive_their_parent(tmp_path: Path) -> None:
    """Protects ports and memory: a parent that is killed outright takes its workers with it."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    root = str(Path(__file__).parents[3])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    with subprocess.Popen([sys.executable, script, tmp_path], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        children = psutil.Process(parent.pid).children()
        parent.kill()
    gone, alive = psutil.wait_procs(children, timeout=GUARD)
    assert (len(gone) >= 2, alive) == (True, [])
    assert not any(map(is_running, children))


COUNTING = """
import sys
from pathlib import Path
from jobs.web.service_metrics import ServiceMetrics, Shared
from pipeline.core.byte_cache import CacheState
state = CacheState(values=1, bytes=100, hits=3, misses=2)
metrics = ServiceMetrics(lambda: state, Shared(folder=Path(sys.argv[1]), worker=int(sys.argv[2])))
metrics.begin()
metrics.begin()
metrics.end("/lr", "GET", 200, seconds=0.1, sent=7)
sys.stdout.write(metrics.text().decode())
"""


@pytest.mark.slow
def test_figures_are_those_of_all_workers(tmp_path: Path) -> None:
    """Protects operations: whoever is asked tells the sum, a worker's counts outlive it, and its gauges do not."""

    def counted(worker: int) -> dict[str, float]:
        command = [sys.executable, "-c", COUNTING, str(tmp_path), str(worker)]
        text = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True).stdout
        lines = [each.rpartition(" ") for each in text.splitlines() if not each.startswith("#")]
        return {name: float(value) for name, _, value in lines}

    counted(1)
    both = counted(2)
    count = 'iarn_requests_total{method="GET",route="/lr",status="200"}'
    assert (both[count], both["iarn_sent_bytes_total"], both["iarn_cache_hits_total"]) == (2, 14, 6)
    assert both['iarn_request_seconds_bucket{le="+Inf",route="/lr"}'] == both['iarn_request_seconds_count{route="/lr"}'] == 2
    assert (both["iarn_workers"], both["iarn_requests_under_way"], both["iarn_cache_bytes"]) == (2, 2, 200)
    Shared(folder=tmp_path, worker=1).ended()
    again = counted(2)  # another in the place of the second
    assert (again[count], again["iarn_cache_hits_total"]) == (3, 9)
    assert (again["iarn_workers"], again["iarn_requests_under_way"], again["iarn_cache_bytes"]) == (1, 1, 100)


def test_one_process_counts_for_itself() -> None:
    """Protects the service of one process: it needs no folder, and has the same figures."""
    metrics = ServiceMetrics(lambda: NO_CACHE)
    metrics.begin()
    metrics.end("/lr", "GET", 200, seconds=0.1, sent=7)
    metrics.line_lost()
    text = metrics.text().decode()
    for line in (
        "iarn_workers 1.0",
        "iarn_sent_bytes_total 7.0",
        "iarn_access_log_lost_total 1.0",
        "iarn_requests_under_way 0.0",
    ):
        assert line in text
