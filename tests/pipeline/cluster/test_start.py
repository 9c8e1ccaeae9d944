"""Starting Ray on a busy machine: a start that takes too long is ended and tried again."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext

import grpc
import psutil
import pytest
import ray
from ray.exceptions import AuthenticationError

from pipeline.cluster import room as cluster
from pipeline.cluster.errors import ClusterUnavailable, TokenWanted
from pipeline.cluster.room import START_TRIES, started
from tests.support.commands import GUARD, is_running
from tests.support.ray_nodes import kill
from tests.support.workshop import sentence

PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(flush=True)
time.sleep(600)
"""
TIMED_OUT = "The current node timed out during startup. This could happen because the GCS has become overloaded."


class SlowRay:
    """Stands in for ``ray.init``: starts a process as Ray does, and has the first ``failures`` starts time out."""

    def __init__(self, failures: int, error: Callable[[], Exception] = lambda: Exception(TIMED_OUT)) -> None:
        self._failures, self._error = failures, error
        self.processes: list[psutil.Process] = []

    def __call__(self, **_: object) -> str:
        process = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE)
        with process.stdout or nullcontext() as out:
            out.readline()  # by now its child is there
        own = psutil.Process(process.pid)
        self.processes += [own, *own.children()]
        if len(self.processes) <= 2 * self._failures:
            raise self._error()
        return "up"

    def running(self) -> list[psutil.Process]:
        return [process for process in self.processes if is_running(process)]

    def left(self, count: int) -> list[psutil.Process]:
        """Return what runs when no more than ``count`` do: a child of a process that was ended takes a moment to follow."""
        end = time.monotonic() + GUARD
        while len(self.running()) > count and time.monotonic() < end:
            time.sleep(0.02)
        return self.running()

    def end(self) -> None:
        for process in self.running():
            kill(process)
        psutil.wait_procs(self.processes)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here ends the Ray of others."""
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)


@pytest.mark.slow
def test_a_start_that_takes_too_long_is_tried_again() -> None:
    """Protects whoever has a busy laptop: the second start counts, the first one's processes are gone, and a line says so."""
    slow, said = SlowRay(1), list[str]()
    try:
        assert started(slow, said.append) == "up"
        assert [line.rpartition("; ")[2] for line in said] == [f"try 2 of {START_TRIES} follows"]
        assert slow.left(2) == slow.processes[2:], "only the start that counts is left"
    finally:
        slow.end()


@pytest.mark.slow
def test_it_is_tried_three_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects against waiting for ever: the last failure is told in the sentence that there was before."""
    slow, said = SlowRay(START_TRIES), list[str]()
    monkeypatch.setattr(ray, "init", slow)
    try:
        with pytest.raises(ClusterUnavailable, match="Ray could not be started here"):
            cluster.cluster(None, said.append).__enter__()
        assert len(said) == START_TRIES - 1
        assert slow.left(2) == slow.processes[-2:], "what the last try leaves is Ray's own to end, with this process"
    finally:
        slow.end()


@pytest.mark.slow
def test_other_failures_are_told_at_once() -> None:
    """Protects time: a folder that cannot be written will not be by trying again."""
    slow, said = SlowRay(1, lambda: PermissionError("/nowhere")), list[str]()
    try:
        with pytest.raises(PermissionError):
            started(slow, said.append)
        assert not said
    finally:
        slow.end()


@pytest.mark.slow
def test_a_cluster_that_is_joined_is_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects others' clusters: a time-out in joining is told, and nothing of this process is ended for it."""
    slow, said = SlowRay(1), list[str]()
    monkeypatch.setattr(ray, "init", slow)
    try:
        with pytest.raises(ClusterUnavailable, match="The Ray cluster at auto cannot be joined"):
            cluster.cluster("auto", said.append).__enter__()
        assert not said
        assert slow.running() == slow.processes
    finally:
        slow.end()


class Head(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc ships no types
    """Stands in for a cluster's head: ends each call with ``code``, and notes what was called."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self._code, self.called = code, list[str]()

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        self.called.append(call.method)
        return grpc.unary_unary_rpc_method_handler(lambda _, context: context.abort(self._code, "it was the token"))

    @contextmanager
    def at_work(self) -> Iterator[str]:
        """Answer calls; give the address."""
        with ThreadPoolExecutor(1) as threads:
            server = grpc.server(threads, handlers=[self])
            port = server.add_insecure_port("127.0.0.1:0")
            server.start()
            try:
                yield f"127.0.0.1:{port}"
            finally:
                server.stop(None).wait()


@pytest.mark.parametrize("prefix", ["", "ray://"])
def test_a_cluster_that_wants_its_token_is_told_at_once(monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    """Protects from twenty seconds of Ray's log lines and a sentence that nothing is there: the first call tells."""
    joined: list[object] = []
    monkeypatch.setattr(ray, "init", lambda **options: joined.append(options))
    head = Head(grpc.StatusCode.UNAUTHENTICATED)
    with head.at_work() as place, pytest.raises(TokenWanted) as caught:
        cluster.cluster(f"{prefix}{place}").__enter__()
    assert f"{prefix}{place} wants its token (it was the token). Set RAY_AUTH_MODE=token" in sentence(str(caught.value))
    assert (len(head.called), joined) == (1, [])


def test_whatever_else_a_cluster_answers_is_for_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects clusters of other versions: only the one answer is taken for a refusal."""
    joined: list[object] = []
    monkeypatch.setattr(ray, "init", lambda **options: joined.append(options))
    for code in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL):
        with Head(code).at_work() as place, cluster.cluster(place):
            pass
    assert len(joined) == 3


def test_what_ray_says_of_tokens_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects from Ray's own paragraph on tokens, wherever it comes from."""

    def refuse(**_: object) -> None:
        raise AuthenticationError("Token authentication is enabled but no authentication token was found")

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(TokenWanted) as caught:
        cluster.cluster(None).__enter__()
    assert caught.value.detail == "Token authentication is enabled but no authentication token was found"
