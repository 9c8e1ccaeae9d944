"""`iarn serve` on Ray Serve: two replicas under load, one killed, the end by a signal; and what it refuses to start with."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import ssl
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest

from benchmarks.serve import Expected, expected, load, replicas_of, workers_of
from jobs.web.replicas import deployment, most_restores
from jobs.web.serve import cluster_address
from jobs.web.serve_job import ServeJob, is_loopback, names_of, read_token
from pipeline.cluster.room import Request
from pipeline.core.errors import InvalidOption
from tests.support.certificates import trusting, write_certificate
from tests.support.commands import GUARD, IARN, Running, home, is_running
from tests.support.in_process import refused
from tests.support.workshop import Rescaled, as_tar, rescale, samples, sentence

TOKEN = "0123456789abcdef-token"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Rescaled:
    """An archive of eight pictures."""
    folder = tmp_path_factory.mktemp("serve")
    return rescale(as_tar(folder / "source", samples(8, folder="a b/")), folder / "archive")


@pytest.fixture(scope="module")
def right(archive: Rescaled) -> Expected:
    """What the right answers are."""
    return expected(archive.uri, "archive", entries=8, seed=1)


@pytest.fixture(scope="module")
def running(archive: Rescaled, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Running]]:
    """`iarn serve` with two replicas on a Ray of its own, and its address."""
    with home() as environment:
        options = ("--port", 0, "--device", "cpu", "--replicas", 2, "--cpus-per-replica", 0.5, "--seconds", GUARD)
        folder = tmp_path_factory.mktemp("running")
        with Running(folder, environment, IARN, "serve", archive.uri, f"twin={archive.uri}", *options) as command:
            command.until(lambda: "Serving" in command.out)
            match = re.fullmatch(r"Serving archive, twin at (http://127\.0\.0\.1:\d+)/\n", command.out)
            assert match is not None
            yield match[1], command


def get(url: str, tls: ssl.SSLContext | None = None) -> bytes:
    """Return what is at an address."""
    with urllib.request.urlopen(url, timeout=GUARD, context=tls) as answer:
        data: bytes = answer.read()
        return data


def has_torch(process: psutil.Process) -> bool:
    """Return whether a process has loaded PyTorch."""
    return any("torch" in Path(each.path).name for each in process.memory_maps())


@pytest.mark.ray
def test_it_serves_several_archives(running: tuple[str, Running], right: Expected) -> None:
    """Protects the whole: the command says where it is, and both archives' files come through Ray as they are."""
    base, command = running
    assert [each["name"] for each in json.loads(get(f"{base}/archives"))["archives"]] == ["archive", "twin"]
    for path, data in list(right.images.items())[:5]:
        assert get(base + path) == data
        assert get(base + path.replace("/archive/", "/twin/", 1)) == data
    command.until(lambda: len(replicas_of(psutil.Process(command.pid))) == 2)


@pytest.mark.ray
def test_a_killed_replica_loses_nothing(running: tuple[str, Running], right: Expected, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects clients: 32 at once, a replica killed under them; every answer is right or a clear 503, and none is missing."""
    monkeypatch.setattr("benchmarks.serve.TIMEOUT", GUARD)
    base, command = running
    victim = replicas_of(psutil.Process(command.pid))[0]

    async def run() -> None:
        loading = asyncio.create_task(load(base, right, clients=32, seconds=6, seed=3, lrs=0.3))
        await asyncio.sleep(1)
        victim.send_signal(signal.SIGKILL)
        accounts = [await loading]
        while sum(account.statuses[200] for account in accounts) <= 32:
            accounts.append(await load(base, right, clients=32, seconds=6, seed=3 + len(accounts), lrs=0.3))
        for account in accounts:
            assert (account.wrong, account.unclear, account.lost) == ([], [], [])
            assert set(account.statuses) <= {200, 503}

    asyncio.run(run())
    assert not is_running(victim)
    command.until(lambda: len(replicas_of(psutil.Process(command.pid))) == 2)  # Serve starts another in its place


@pytest.mark.ray
def test_a_signal_ends_it(running: tuple[str, Running]) -> None:
    """Protects restarts: SIGTERM ends the command with 0, and nothing that it started is left."""
    _, command = running
    command.terminate()
    assert command.ended() == 0
    assert command.left_behind() == []
    assert "Traceback" not in command.err


@pytest.mark.ray
def test_several_workers_are_one_service(
    archive: Rescaled, right: Expected, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects clients of several workers: one is killed under 16 at once, by HTTPS, and every answer is right or a clear 503.

    Connections that are reset are the only harm. Another comes in its place, which is told; the figures are those of all; every
    line of the log is whole; and a signal ends all that was started.
    """
    monkeypatch.setattr("benchmarks.serve.TIMEOUT", GUARD)
    certificate, key = write_certificate(tmp_path / "tls")
    log, tls = tmp_path / "access.log", trusting(certificate)
    options = ("--port", 0, "--device", "cpu", "--cpus-per-replica", 0.5, "--seconds", GUARD, "--workers", 2)
    options += ("--tls-cert", certificate, "--tls-key", key, "--access-log", log)
    with home() as environment, Running(tmp_path / "running", environment, IARN, "serve", archive.uri, *options) as command:
        command.until(lambda: "Serving" in command.out)
        base = command.out.split()[-1].rstrip("/")
        assert base.startswith("https://127.0.0.1:")
        service = psutil.Process(command.pid)
        first = workers_of(service)
        assert len(first) == 2

        async def run() -> None:
            loading = asyncio.create_task(load(base, right, clients=16, seconds=6, seed=3, tls=tls))
            await asyncio.sleep(1)
            first[0].send_signal(signal.SIGKILL)
            account = await loading
            assert (account.wrong, account.unclear, account.lost) == ([], [], [])
            assert set(account.statuses) <= {200, 503}
            told = get(f"{base}/metrics", tls).decode()
            found = re.findall(r'^iarn_requests_total\{.*status="200"\} (\S+)$', told, re.MULTILINE)
            assert sum(map(float, found)) >= account.statuses[200]

        asyncio.run(run())
        command.until(lambda: "worker started again" in command.err)
        command.until(lambda: "iarn_workers 2.0" in get(f"{base}/metrics", tls).decode())
        assert first[1] in workers_of(service)
        assert not [each.pid for each in (service, *workers_of(service)) if has_torch(each)]
        replicas = replicas_of(service)
        assert replicas
        assert all(map(has_torch, replicas))
        (ended,) = [line for line in command.err.splitlines() if "worker ended" in line]  # Ray may have its own to say
        assert "SIGKILL" in json.loads(ended)["reason"]
        command.terminate()
        assert command.ended() == 0
        assert command.left_behind() == []
        assert "Traceback" not in command.err
    lines = [json.loads(line) for line in log.read_text("ascii").splitlines()]
    assert {line["worker"] for line in lines} == {1, 2}
    assert {line["status"] for line in lines} <= {200, 503}


def test_it_runs_on_a_cluster_that_is_there(archive: Rescaled, ray_cluster: None, right: Expected) -> None:  # noqa: ARG001
    """Protects clusters: within one that is there the replicas start, answer, and are gone with the service."""
    from ray import serve as ray_serve

    from jobs.web.replicas import started
    from pipeline.core.options import Limits
    from pipeline.reading.requests import ImageRequest
    from pipeline.serving.shelf import Shelf

    shelf = Shelf("archive", archive.uri)
    job = ServeJob(archives={"archive": archive.uri}, device="cpu")
    try:
        with started(job, [shelf.uri], Limits()) as replicas:
            path = f"/archives/archive/assets/{quote('a b/003.tif', safe='')}/image?format=png"
            found = asyncio.run(replicas.restore(shelf.place("a b/003.tif"), ImageRequest()))
            assert found.data == right.images[path]
            assert replicas.device == "cpu"
        assert not ray_serve.status().applications
    finally:
        shelf.close()
        ray_serve.shutdown()


def test_names_of_archives() -> None:
    """Protects addresses: the last part of a URI names its archive, another name may be given, and none is given twice."""
    assert names_of(["/data/small/", "s3://bucket/a/b", "x=/data/small", "y=s3://bucket"]) == {
        "small": "/data/small/", "b": "s3://bucket/a/b", "x": "/data/small", "y": "s3://bucket",
    }  # fmt: skip
    assert names_of(["/data/a=b"]) == {"a=b": "/data/a=b"}
    for wrong in (["/a/x", "/b/x"], ["/"], ["=x"], [".."]):
        with pytest.raises(InvalidOption) as caught:
            names_of(wrong)
        sentence(str(caught.value))


def test_a_token_is_read_from_a_file_or_the_environment(tmp_path: Path) -> None:
    """Protects the token: never on a command line, long enough, and what a header can hold."""
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    assert read_token(path, {}) == TOKEN
    assert read_token(None, {"IARN_TOKEN": TOKEN}) == TOKEN
    assert read_token(None, {}) is None
    for wrong in ("", "short", "with a blank in the middle", "ümlauts-and-what-not"):
        with pytest.raises(InvalidOption) as caught:
            read_token(None, {"IARN_TOKEN": wrong})
        assert wrong not in sentence(str(caught.value)) or not wrong
    with pytest.raises(InvalidOption) as caught:
        read_token(tmp_path / "none", {})
    sentence(str(caught.value))


def test_only_loopback_is_open(archive: Rescaled, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects archives: an address that others can reach is refused without a token, and so are options without sense."""
    monkeypatch.delenv("IARN_TOKEN", raising=False)
    assert all(map(is_loopback, ("127.0.0.1", "127.8.8.8", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.0.2.1", "example.org", "")))
    assert "IARN_TOKEN" in refused(2, "serve", archive.uri, "--host", "0.0.0.0")
    for option, value in (("--replicas", 0), ("--seconds", "inf"), ("--cache-mb", -1), ("--workers", 0), ("--max-replicas", 0)):
        assert option in refused(2, "serve", archive.uri, option, value)
    assert "as in https://viewer.example" in refused(2, "serve", archive.uri, "--allow-origin", "viewer.example/page")
    assert "as in 10.0.0.0/8" in refused(
        2, "serve", archive.uri, "--trusted-proxy", "127.0.0.1", "--trusted-proxy", "10.0.0.1/8"
    )
    assert "--tls-cert" in refused(2, "serve", archive.uri, "--tls-key", archive.uri)
    assert "--tls-cert" in refused(2, "serve", archive.uri, "--tls-key", archive.uri, "--tls-cert", archive.uri)
    assert "--access-log" in refused(2, "serve", archive.uri, "--access-log", archive.uri)
    assert "https://archive.example/img" in refused(2, "serve", archive.uri, "--public-address", "archive.example")
    refused(3, "serve", str(Path(archive.uri) / "shards"))
    assert "--refresh" in refused(2, "serve", archive.uri, "--refresh", 0.5)
    assert "NAME=" in refused(2, "serve", f"name={Path(archive.uri).parent}")


def test_a_public_address_is_one() -> None:
    """Protects the addresses in documents: they begin as others ask, without query, fragment or credentials of anybody."""
    for given in ("https://archive.example", "https://archive.example/img", "http://[::1]:8080/a%20b/c"):
        for slash in ("", "/"):
            assert ServeJob(archives={}, public_address=given + slash).root == given
    assert ServeJob(archives={}).root is None
    wrong_ends = ("?x", "#x", "a b", '>;rel="x"', "%", "/evil.example", "a/../b")
    for wrong in ("", "archive.example", "ftp://a.example", "https://", "https://me:secret@a.example", "http://a:٨٠",
                  *(f"https://a.example/{end}" for end in wrong_ends)):  # fmt: skip
        with pytest.raises(InvalidOption, match="public-address"):
            ServeJob(archives={}, public_address=wrong)


def test_what_serve_is_asked_for() -> None:
    """Protects devices and back-pressure: replicas have the CPUs and GPUs asked for, a bounded queue, and grow if they may."""
    room = Request(actors=1, cpus=2, gpus=0.5)
    fixed = deployment(ServeJob(archives={"x": "x"}, replicas=3, queue=7), room)
    assert (fixed.num_replicas, fixed.max_queued_requests) == (3, 7)
    assert deployment(ServeJob(archives={"x": "x"}, queue=7, workers=3), room).max_queued_requests == 3
    assert {"num_cpus": 2, "num_gpus": 0.5}.items() <= fixed.ray_actor_options.items()
    growing = deployment(ServeJob(archives={"x": "x"}, replicas=1, max_replicas=4), room)._deployment_config.autoscaling_config
    assert (growing.min_replicas, growing.max_replicas) == (1, 4)


def test_where_a_cluster_is() -> None:
    """Protects users of Ray's own variable: an address is joined, a dashboard's is none, and without one Ray starts here."""
    assert cluster_address({"RAY_ADDRESS": "10.0.0.1:6379"}) == "10.0.0.1:6379"
    assert cluster_address({"RAY_ADDRESS": "http://head:8265"}) is None
    assert cluster_address(os.environ | {"RAY_ADDRESS": ""}) is None
    assert most_restores(ServeJob(archives={"x": "x"}, replicas=1, max_replicas=3, queue=10)) == 22
    assert most_restores(ServeJob(archives={"x": "x"}, replicas=1, max_replicas=3, queue=10, workers=4)) == 6
