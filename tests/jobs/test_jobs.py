"""Whole jobs by the `iarn` command, in processes of their own, as a user runs them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import ray

from tests.support import workshop
from tests.support.commands import IARN, Running, run


@pytest.mark.usefixtures("ray_cluster")
def test_a_job_that_is_stopped_resumes(tmp_path: Path, clean_environment: dict[str, str]) -> None:
    """Protects a user with nothing set up: a terminal shows progress, Ctrl-C and SIGTERM end cleanly with status 130, the same
    command goes on where it stopped, on a cluster as well, and where nobody looks there are JSON lines and nothing else."""
    (tmp_path / "weights").write_bytes(workshop.weights())
    shards = [f"{index:02d}" for index in range(24)]
    for shard in shards:
        workshop.as_tar(tmp_path / "source", [bulky(f"{shard}.png", int(shard))], f"{shard}.tar")
    source, archive = tmp_path / "source", tmp_path / "archive"
    command = ("rescale", source, archive, "--scale", "2", "--weights", tmp_path / "weights", "--window", "1", "--actors", "1")
    with Running(tmp_path / "first", clean_environment, IARN, *command, terminal=True) as first:
        first.until(lambda: bool(first.err) and any(archive.glob("commits/*/*.json")))
        first.interrupt()
        assert first.ended() == 130
        assert not first.left_behind()
    shown = first.err
    assert "Traceback" not in shown
    assert "arning" not in shown
    assert shown.rstrip().endswith("Stopped. The same command resumes.")
    assert re.search(r"rescale .* \d+/24 shards", re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown)), shown
    done = {path.stem for path in archive.glob("commits/*/*.json")}
    assert 0 < len(done) < len(shards)
    with Running(tmp_path / "second", clean_environment, IARN, *command) as second:
        second.until(lambda: '"shard"' in second.err)
        second.terminate()
        assert second.ended() == 130
        assert not second.left_behind()
    assert second.err.splitlines()[-1] == "Stopped. The same command resumes."
    stopped = {path.stem for path in archive.glob("commits/*/*.json")}
    assert done < stopped
    there = ("--address", ray.get_runtime_context().gcs_address)
    third = run(tmp_path / "third", joining(clean_environment), *command, *there)
    assert third.ended() == 0, third.err
    assert "\x1b" not in third.err
    assert third.out == ""
    assert third.event("start")["shards_done"] == len(stopped) < len(shards)
    assert third.event("end")["entries"] == len(shards)
    assert not stopped & {event["shard"] for event in third.events if event["event"] == "shard"}


def bulky(key: str, seed: int) -> workshop.Sample:
    """Return a sample that keeps the network at work for a while."""
    return workshop.Sample(key=key, data=workshop.picture(320, 300, seed=seed))


def joining(environment: dict[str, str]) -> dict[str, str]:
    """Return an environment in which commands may join the cluster of these tests."""
    return environment | {"RAY_AUTH_MODE": "disabled"}


@pytest.mark.usefixtures("ray_cluster")
def test_a_job_joins_a_cluster_by_its_address(tmp_path: Path, clean_environment: dict[str, str]) -> None:
    """Protects users with a cluster: `--address` runs the job there and leaves the cluster as it was."""
    archive = workshop.rescale(workshop.as_tar(tmp_path / "source", workshop.samples(2)), tmp_path / "archive").uri
    address = ray.get_runtime_context().gcs_address
    job = run(tmp_path / "job", joining(clean_environment), "verify", archive, "--address", address, "--cpus-per-actor", "1")
    assert job.ended() == 0, job.err
    assert job.event("end")["entries"] == 2
    assert not (Path(clean_environment["RAY_TMPDIR"])).exists(), "no Ray was started beside the cluster"
    assert ray.cluster_resources()["CPU"] == 4


def test_a_reader_that_stops_early_is_no_error(tmp_path: Path, clean_environment: dict[str, str]) -> None:
    """Protects `iarn inspect --entries | head`: no traceback when nobody reads on."""
    archive = workshop.rescale(workshop.as_tar(tmp_path / "source", workshop.samples(2)), tmp_path / "archive").uri
    script = f"{IARN} inspect {archive} --entries --json | true"
    with Running(tmp_path / "job", clean_environment, "bash", "-c", script) as job:
        assert job.ended() == 0
    assert job.err == ""
