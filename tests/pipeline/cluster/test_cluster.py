"""A night on a real cluster: a job is submitted, a node is lost, another joins, and the morning finds everything told.

One job serves all tests of this file.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from pipeline.archives.archive import Archive
from pipeline.cluster.instruments import METRICS
from pipeline.core.records import EntryKind
from pipeline.stores.spool import PREFIX
from pipeline.stores.store import open_store
from tests.jobs.test_jobs import bulky
from tests.project.test_deploy import shown_metrics
from tests.support import workshop
from tests.support.commands import IARN, Logged, Running, home, ray_logs, run
from tests.support.little_cluster import LittleCluster, fetched
from tests.support.pictures import unsupported

pytestmark = pytest.mark.ray

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"  # the one that Amazon's documents give as an example
SHARDS = 10
ODD = 5
"""The shard with a damaged image and an unsupported one; none of the first, which are held."""

LOOKS = 100
"""How often the actors of a node are looked at before they are looked for again."""


class Lines(Logged):
    """The log of a job, as it was handed on, without the lines that Ray adds."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.err = "\n".join(line for line in text.splitlines() if line.startswith("{"))


@dataclass(kw_only=True)
class Night:
    """What the morning finds."""

    status: int
    log: Lines
    archive: Path
    metrics: str
    listed: list[dict[str, str]]
    again: Running
    strangers: list[Running]
    """Commands without the cluster's token: one that joins, one that asks the dashboard."""
    token: str
    told: dict[str, bytes]
    """What Ray wrote, by file, and what the commands printed."""


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    """Run a job on two nodes, one of which is lost on the way and replaced by a third."""
    folder = tmp_path_factory.mktemp("night")
    (folder / "weights").write_bytes(workshop.weights())
    for index in range(SHARDS):
        samples = [bulky(f"{index:02d}.png", index)]
        if index == ODD:
            samples.append(workshop.Sample(key="damaged.png", data=b"no picture"))
            samples.append(workshop.Sample(key="deep.png", data=unsupported()["10-bit PPM"]))
        workshop.as_tar(folder / "source", samples, f"{index:02d}.tar")
    options = ("--scale", "2", "--weights", folder / "weights", "--cpus-per-actor", "1", "--window", "1")
    with home() as environment:
        credentials = {"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": SECRET}
        with LittleCluster(folder / "cluster", environment | credentials) as cluster:
            first, second = cluster.add(), cluster.add()
            words = ("submit", "rescale", folder / "source", folder / "archive", *options, "--address", cluster.dashboard)
            with Running(folder / "job", cluster.environment, IARN, *words) as job:
                # An actor is held at its first shard, or on a busy machine nothing would be left for those that come.
                _, held = hold(job, first, second)
                first.end()
                (third,) = hold(job, cluster.add())
                held.resume()
                job.until(lambda: all(name in scraped(cluster) for name in METRICS))
                metrics = scraped(cluster)
                third.resume()
                status = job.ended()
            listed = run(folder / "list", cluster.environment, "jobs", "--json", "--address", cluster.dashboard)
            jobs = json.loads(listed.out)
            again = run(folder / "again", cluster.environment, "jobs", jobs[0]["job"], "--address", cluster.dashboard)
            own = {"RAY_AUTH_MODE": "disabled"}
            joining = run(folder / "a", environment | own, "verify", folder / "archive", "--address", cluster.address)
            asking = run(folder / "b", environment | own, "jobs", "--address", cluster.dashboard)
            details = folder / "details.json"
            details.write_bytes(fetched(f"{cluster.dashboard}/api/jobs/", cluster.token))
            yield Night(
                status=status,
                log=Lines(job.out),
                archive=folder / "archive",
                metrics=metrics,
                listed=jobs,
                again=again,
                strangers=[joining, asking],
                token=cluster.token,
                told=ray_logs(environment) | {str(path): path.read_bytes() for path in (details, *folder.rglob("*.txt"))},
            )


def hold(job: Running, *nodes: Running) -> list[psutil.Process]:
    """Wait for the actor of each node to have a shard at work, whichever comes first, and pause it there."""
    found: dict[Running, psutil.Process] = {}

    def at_work() -> bool:
        waited = [(node, process) for node in nodes if node not in found for process in actors(node)]
        for _ in range(LOOKS if waited else 0):  # a shard takes tenths of a second, and to find the actors as long
            for node, process in waited:
                if node not in found and has_shard(process):
                    process.suspend()
                    found[node] = process
            time.sleep(0.005)
        return len(found) == len(nodes)

    job.until(at_work)
    return [found[node] for node in nodes]


def actors(node: Running) -> list[psutil.Process]:
    """Return the actors of a node."""
    with suppress(psutil.NoSuchProcess):
        return [each for each in psutil.Process(node.pid).children(recursive=True) if name_of(each).startswith("ray::_Actor")]
    return []


def name_of(process: psutil.Process) -> str:
    """Return the name of a process, empty where it is gone."""
    with suppress(psutil.NoSuchProcess):
        return str(process.name())
    return ""


def has_shard(process: psutil.Process) -> bool:
    """Return whether an actor has a shard at work: a file of its spool is open then."""
    with suppress(OSError):
        return any(PREFIX in str(file.readlink()) for file in Path(f"/proc/{process.pid}/fd").iterdir())
    return False


def scraped(cluster: LittleCluster) -> str:
    """Return what the head shows to Prometheus."""
    return fetched(cluster.metrics, cluster.token).decode()


def test_a_job_outlives_a_node(night: Night) -> None:
    """Protects a night on machines that come and go: the node that joins is used, the shard of the one that left is repeated
    without blame, every asset has one entry, and the exit status of the job is that of the command."""
    assert night.status == 1, "one image is damaged"
    archive = Archive.open(open_store(str(night.archive)))
    keys = [entry.key for shard in archive.shards() for entry in archive.entries(shard.id)]
    assert sorted(keys) == sorted([*(f"{index:02d}.png" for index in range(SHARDS)), "damaged.png", "deep.png"])
    events = night.log.events
    ended = [event["shard"] for event in events if event["event"] == "shard"]
    assert sorted(ended) == [shard.id for shard in archive.shards()], "each is told once"
    retried = [event for event in events if event["event"] == "retry"]
    assert all("its node, or the way there, is gone" in event["reason"] for event in retried)
    up = {event["actor"] for event in events if event["event"] == "actor up"}
    assert len(up) >= 3
    assert up >= {event["actor"] for event in events if event["event"] == "shard"}
    room = [event["count"] for event in events if event["event"] == "room"]
    assert room[:2] in ([1, 2], [3, 2], []), "what left and what came are seen in either order, or at once"


def test_the_morning_is_told_what_happened(night: Night) -> None:
    """Protects the operator: every line says job, actor and node, and the archive has the whole in one report."""
    begun = night.log.event("end")
    assert begun["submission"] == night.listed[0]["job"]
    assert all({"job", "ray_job", "submission", "actor", "node"} <= e.keys() for e in night.log.events if e["event"] == "shard")
    (failure,) = [event for event in night.log.events if event["event"] == "failure"]
    assert (failure["key"], failure["shard"][-2:]) == ("damaged.png", f"{ODD:02d}")
    report = json.loads((night.archive / "report.json").read_text())
    archive = Archive.open(open_store(str(night.archive)))
    assert report["digest"] == archive.digest
    assert report["settings"]["model"] == archive.plan.model
    assert report["shards"] == {"planned": SHARDS, "done": SHARDS, "quarantined": 0}
    assert report["totals"]["entries"] == SHARDS + 2
    assert report["failures_by_reason"] == {"undecodable": 1}
    originals = [entry for s in archive.shards() for entry in archive.entries(s.id) if entry.kind is EntryKind.ORIGINAL]
    assert report["totals"]["originals"] == len(originals)
    assert sum(report["kept_by_reason"].values()) == len(originals) + report["kept_beside_lrs"]
    assert {"undecodable", "beyond-restoring"} <= report["kept_by_reason"].keys()
    assert report["this_run"]["most_actors"] in (2, 3), "three where the third is up before the loss of the first is noticed"
    assert report["ray"]["submission"] == night.listed[0]["job"]


def test_jobs_are_listed_and_followed_again(night: Night) -> None:
    """Protects whoever went home: the job is found again, with its command, its log and its exit status."""
    (job,) = night.listed
    assert job["status"] == "failed"
    assert job["command"].startswith("iarn rescale ")
    assert night.again.ended() == 1
    assert night.again.out == night.log.text


def test_who_has_no_token_is_told_to_set_it(night: Night) -> None:
    """Protects newcomers to a cluster: joining it, or asking its dashboard, without the token is one sentence at once, and no
    line of Ray's."""
    for command in night.strangers:
        assert command.ended() == 3
        (said,) = [line for line in command.err.splitlines() if not line.startswith("{")]
        assert "wants its token (" in workshop.sentence(said)
        assert "Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN" in said


def test_metrics_are_on_rays_endpoint(night: Night) -> None:
    """Protects the dashboard: every metric that a job has is on the endpoint that Ray gives Prometheus, with its labels."""
    samples = {match[1] for match in re.finditer(r"^ray_(\w+)\{", night.metrics, re.MULTILINE)}
    assert samples >= set(METRICS)
    assert samples >= shown_metrics()
    assert 'reason="undecodable"' in night.metrics
    assert 'stage="network"' in night.metrics
    value = re.findall(r'^ray_iarn_images_total\{[^}]*job="rescale"[^}]*\} ([\d.e+]+)', night.metrics, re.MULTILINE)
    assert 0 < sum(map(float, value)) <= SHARDS + 2


def test_no_secret_is_told(night: Night) -> None:
    """Protects credentials: what the nodes have in their environment is in no log, no metadata of Ray's, no archive."""
    assert len(night.told) > 20
    everywhere = night.told | {str(path): path.read_bytes() for path in night.archive.rglob("*") if path.is_file()}
    for secret in (SECRET, night.token):
        assert not [path for path, data in everywhere.items() if secret.encode() in data]
