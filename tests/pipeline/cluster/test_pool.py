"""The pool on a real local Ray: windows, retries, quarantine, actors that die, and requests that cannot be met."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import ray
from ray._private import state as ray_state
from ray.exceptions import ActorDiedError, ActorUnavailableError, OutOfMemoryError

from pipeline.cluster import crew, pool
from pipeline.cluster.actor import fault_of, node_is_lost
from pipeline.cluster.errors import ClusterUnavailable, ResourcesUnavailable, WorkerNotStarted
from pipeline.cluster.notices import Notice, Snapshot
from pipeline.cluster.pool import PoolOptions
from pipeline.cluster.room import Request
from pipeline.core.errors import AccessDenied, DeviceUnavailable, EmptySource, InvalidOption, InvalidWeights, PipelineError
from pipeline.core.records import Failure, ShardReport, SourceShard
from tests.support.commands import GUARD, is_running
from tests.support.scripted_worker import ScriptedWork, begun, most_at_once, shard

pytestmark = pytest.mark.usefixtures("ray_cluster")

ONE = PoolOptions(actors=1, cpus_per_actor=1)


def run(folder: Path, scripts: list[str], options: PoolOptions = ONE) -> tuple[dict[str, ShardReport], dict[str, Failure]]:
    """Run a shard per script; return reports and failures by the shard's id, each shard once."""
    results = list(pool.run(ScriptedWork(folder=str(folder)), (shard(i, s) for i, s in enumerate(scripts)), options))
    reports = {result.shard_id: result for result in results if isinstance(result, ShardReport)}
    failures = {result.shard_id: result for result in results if isinstance(result, Failure)}
    assert sorted([*reports, *failures]) == [shard(index).id for index in range(len(scripts))]
    assert len(results) == len(scripts)
    return reports, failures


def gone(pids: set[int]) -> bool:
    """Return whether all processes have ended at last."""
    processes = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            processes.append(psutil.Process(pid))
    end = time.monotonic() + GUARD
    while any(is_running(process) for process in processes):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def never(*_: object, **__: object) -> None:
    """Stand for what may not be called."""
    pytest.fail("this was not to be called")


def test_every_shard_is_reported_once_and_memory_is_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the driver's memory and the actors': nobody holds more shards than windows allow, none is lost or doubled."""
    monkeypatch.setattr(crew, "LAST_WORDS_SECONDS", GUARD)
    drawn, snapshots = 0, list[Snapshot]()

    def shards() -> Iterator[SourceShard]:
        nonlocal drawn
        for index in range(40):
            drawn += 1
            yield shard(index, "crowd")

    options = PoolOptions(actors=2, cpus_per_actor=1, window=3)
    seen = []
    for result in pool.run(ScriptedWork(folder=str(tmp_path)), shards(), options, snapshots.append):
        seen.append(result.shard_id)
        assert drawn <= len(seen) + 2 * 3 + 2 * 2 + 1
    assert sorted(seen) == [shard(index).id for index in range(40)]
    assert 2 <= most_at_once(tmp_path) <= 3
    assert max(snapshot.actors for snapshot in snapshots) in (1, 2)
    assert 0 < max(snapshot.assets for snapshot in snapshots) <= 40
    assert gone(set(begun(tmp_path, "start")))


def test_the_last_shards_are_spread(tmp_path: Path) -> None:
    """Protects the end of a job: no actor takes a second shard while another that is starting has none; none is idle."""
    reports, _ = run(tmp_path, ["meet:000001", "meet:000000"], PoolOptions(actors=4, cpus_per_actor=1))
    assert len(reports) == 2
    assert len(begun(tmp_path, "start")) == 2
    assert begun(tmp_path, "000000") != begun(tmp_path, "000001")


def test_a_shard_is_tried_again_only_where_that_can_help(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects patience: an unreachable store is asked again, up to the limit; an object that is missing is not."""
    monkeypatch.setattr(crew, "RETRY_SECONDS", 0.2)
    scripts = ["ok", "unavailable:2", "unavailable:9", "missing", "unsendable", "threads"]
    reports, failures = run(tmp_path, scripts)
    assert sorted(reports) == ["000000", "000001", "000005"]
    tries = [len(begun(tmp_path, shard(index).id)) for index in range(len(scripts))]
    assert tries == [1, 3, 3, 1, 1, 1]
    assert failures["000002"].reason.endswith("The same command resumes once it can. (after 3 tries)")
    assert failures["000003"].reason == "s3://bucket/key does not exist. Check the path, the bucket and the endpoint."
    assert "pickle" in failures["000004"].reason
    assert len(begun(tmp_path, "start")) == 1, "none of these is a reason to replace an actor"
    assert reports["000005"].compared == int(os.environ.get("OMP_NUM_THREADS", 1)), "torch threads are the actor's CPUs"


def test_ended_credentials_end_the_job(tmp_path: Path) -> None:
    """Protects a night's list of failures: an object that is refused is one shard's matter, shard after shard is the job's."""
    few = ["denied"] * (crew.MOST_DENIALS - 1)
    reports, failures = run(tmp_path, [*few, "ok", *few], PoolOptions(actors=1, cpus_per_actor=1, window=1))
    assert (len(reports), len(failures)) == (1, 2 * len(few))
    with pytest.raises(AccessDenied, match="ExpiredToken"):
        run(tmp_path, [*few, "denied", "ok"], PoolOptions(actors=1, cpus_per_actor=1, window=1))


def test_an_unforeseen_error_is_recorded_and_leaves_its_actor(tmp_path: Path) -> None:
    """Protects the job from a device that will not recover: the next try has a fresh process, the others go on."""
    options = PoolOptions(actors=1, cpus_per_actor=1, attempts=2)
    reports, failures = run(tmp_path, ["ok", "ok", "sleep:0.5", "raise"], options)
    assert sorted(reports) == ["000000", "000001", "000002"]
    reason = failures["000003"].reason
    assert reason.startswith("ZeroDivisionError: no one thought of this (at scripted_worker.py:")
    assert reason.endswith("(after 2 tries)")
    pids = begun(tmp_path, "000003")
    assert len(pids) == len(set(pids)) == 2


def test_a_shard_that_kills_its_actor_takes_no_other_with_it(tmp_path: Path) -> None:
    """Protects the shards beside a deadly one: it alone is quarantined, in an actor for itself, and all others are done."""
    options = PoolOptions(actors=1, cpus_per_actor=1, attempts=2)
    reports, failures = run(tmp_path, ["hang-once", "die-beside:000000", "ok"], options)
    assert list(failures) == ["000001"]
    assert len(reports) == 2
    assert failures["000001"].reason.startswith("The worker of shard 000001 died (")
    assert failures["000001"].reason.endswith("(after 2 tries)")
    assert len(begun(tmp_path, "000001")) == 3, "a death in company is nobody's fault yet"
    assert len(begun(tmp_path, "000000")) == 2, "it was at work when its actor died, and then had one for itself"


def test_what_takes_too_much_memory_is_tried_with_less(tmp_path: Path) -> None:
    """Protects the largest images: a shard that memory was too small for is tried with half as much at once, alone, whoever
    told of it; another has all again; what no halving helps is quarantined with its reason after some tries."""
    options = PoolOptions(actors=1, cpus_per_actor=1, attempts=3)
    reports, failures = run(tmp_path, ["memory:1", "heavy:1", "memory:9", "halvings"], options)
    assert sorted(reports) == ["000000", "000001", "000003"]
    assert reports["000003"].compared == 0
    assert "CUDA out of memory" in failures["000002"].reason
    assert failures["000002"].reason.endswith("(after 3 tries)")


def test_a_lost_node_is_no_shards_fault(tmp_path: Path) -> None:
    """Protects shards from blame: what Ray says of an actor that went with its node, or that cannot be reached, is told from a
    death of its own and from one for memory; only a shard that loses node after node becomes a suspect."""
    gone = ActorDiedError(None)
    gone.error_msg = "The actor died because its node has died. Node Id: 85fa"
    killed = ActorDiedError(None)
    killed.error_msg = (
        "Worker exit detail: Worker unexpectedly exits (1) killed by SIGKILL by OOM killer due to high memory usage."
    )
    assert [node_is_lost(error) for error in (gone, ActorUnavailableError("Socket closed", None), killed)] == [
        True,
        True,
        False,
    ]
    assert not node_is_lost(OutOfMemoryError("The node was low on memory"))
    faults = [fault_of(error, shard(0)) for error in (gone, killed, OutOfMemoryError("the node runs low on memory"))]
    assert [(fault.lost, fault.died, fault.memory) for fault in faults] == [(1, 0, 0), (0, 1, 0), (0, 1, 1)]
    members = crew.Crew(ScriptedWork(folder=str(tmp_path)), ONE, Request(actors=1, cpus=1, gpus=0), print, print)
    attempt, suspects = crew._Attempt(shard(0)), []
    for _ in range(5):
        assert members._judge(crew._Member(handle=None, starting=None), attempt, faults[0]) is None
        suspects.append(attempt.alone)
    assert suspects == [False, False, True, True, True]
    assert isinstance(members._judge(crew._Member(handle=None, starting=None), attempt, faults[0]), Failure)


def test_a_cluster_that_may_grow_is_waited_for(tmp_path: Path) -> None:
    """Protects jobs on clusters that start small: what finds no room waits, says so, and asks for one more actor, not for
    one per shard; where there is room as well, a cluster can double and no more is asked for."""
    told, most = list[Notice](), [0]

    def there() -> set[str]:
        return {name for name, each in ray_state.actors().items() if each["State"] in ("PENDING_CREATION", "ALIVE")}

    def watch(snapshot: Snapshot) -> None:
        most.append(len(there() - before))
        if snapshot.room == 0 and len(most) > 4 and max(most):
            raise KeyboardInterrupt

    before = there()
    shards = [shard(index, "sleep:0.1") for index in range(40)]
    too_large = PoolOptions(cpus_per_actor=64, may_grow=True)
    with pytest.raises(KeyboardInterrupt):
        list(pool.run(ScriptedWork(folder=str(tmp_path)), shards, too_large, watch, told.append))
    assert max(most) == 1
    assert [notice.reason for notice in told if notice.event == "room"] == [
        "waiting for a node with room for an actor of 64 CPUs and 0 GPUs"
    ]
    fitting = PoolOptions(cpus_per_actor=2, may_grow=True)
    assert len(list(pool.run(ScriptedWork(folder=str(tmp_path)), shards, fitting, watch, told.append))) == 40
    assert max(most) <= 2 + 2
    assert 1 <= len(begun(tmp_path, "start")) <= 2, "the first may be done before the second has started"


def test_a_shard_alone_gives_its_store_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects what was under way when an actor died and then the store: its tries are not used up in a moment."""
    monkeypatch.setattr(crew, "RETRY_SECONDS", 3600)
    waited = 0

    def watch(_: Snapshot) -> None:
        nonlocal waited
        waited += len(begun(tmp_path, "000000")) >= 2
        if waited > 8:
            raise EmptySource("there")

    options = PoolOptions(actors=1, cpus_per_actor=1, window=1, attempts=4)
    with pytest.raises(EmptySource):
        list(pool.run(ScriptedWork(folder=str(tmp_path)), [shard(0, "die-then-unavailable")], options, watch))
    assert len(begun(tmp_path, "000000")) == 2


def test_a_killed_actor_is_replaced_and_its_shards_repeated(tmp_path: Path) -> None:
    """Protects the job from the loss of a process: kill -9 in the middle of a shard costs one repetition."""
    killed: set[int] = set()

    def kill(_: Snapshot) -> None:
        for pid in set(begun(tmp_path, "000001")) - killed if not killed else ():
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)

    work = ScriptedWork(folder=str(tmp_path))
    scripts = ["ok", "hang-once", "ok", "ok"]
    results = list(pool.run(work, (shard(i, s) for i, s in enumerate(scripts)), ONE, kill))
    assert sorted(result.shard_id for result in results if isinstance(result, ShardReport)) == [shard(i).id for i in range(4)]
    assert len(killed) == 1
    assert len(begun(tmp_path, "000001")) == 2
    assert len(begun(tmp_path, "start")) == 2


def test_an_actor_without_room_holds_no_shards(tmp_path: Path) -> None:
    """Protects jobs on a busy cluster: what another job holds is waited for, but nobody waits for an actor to come."""

    @ray.remote(num_cpus=3)
    class Other:
        def up(self) -> bool:
            return True

    other = Other.remote()
    assert ray.get(other.up.remote())
    try:
        reports, failures = run(tmp_path, ["ok"] * 6, PoolOptions(actors=4, cpus_per_actor=1))
    finally:
        ray.kill(other)
    assert len(reports) == 6
    assert not failures
    assert len(begun(tmp_path, "start")) == 1


@pytest.mark.parametrize(
    ("starting", "kind", "words", "starts"),
    [
        ("invalid", InvalidWeights, "Weights weights.safetensors cannot be used: their digest is wrong.", 1),
        ("broken", WorkerNotStarted, "RuntimeError: CUDA error: out of memory", 1),
        ("die", WorkerNotStarted, "2 in a row failed; the last: ", 2),
    ],
)
def test_what_keeps_an_actor_from_starting_arrives(
    tmp_path: Path, starting: str, kind: type[PipelineError], words: str, starts: int
) -> None:
    """Protects the user from a puzzle: the actor's own sentence ends the job; one that dies is tried again, not for ever."""
    options = PoolOptions(actors=1, cpus_per_actor=1, attempts=2)
    with pytest.raises(kind) as caught:
        list(pool.run(ScriptedWork(folder=str(tmp_path), starting=starting), [shard(0)], options))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(begun(tmp_path, "start")) == starts
    assert gone(set(begun(tmp_path, "start")))


def test_a_start_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects against a job that says nothing for ever: a process that is up has to become ready."""
    monkeypatch.setattr(crew, "START_SECONDS", 0.5)
    options = PoolOptions(actors=1, cpus_per_actor=1, attempts=1)
    with pytest.raises(WorkerNotStarted, match=r"not ready 0\.5 s after its process began"):
        list(pool.run(ScriptedWork(folder=str(tmp_path), starting="hang"), [shard(0)], options))
    assert gone(set(begun(tmp_path, "start")))


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), EmptySource("there")])
def test_nothing_is_left_behind(tmp_path: Path, fault: BaseException) -> None:
    """Protects the machine: whatever ends a job in the middle ends its actors too."""

    def watch(_: Snapshot) -> None:
        if begun(tmp_path, "000000"):
            raise fault

    with pytest.raises(type(fault)):
        list(pool.run(ScriptedWork(folder=str(tmp_path)), [shard(0, "hang-once")], ONE, watch))
    assert gone(set(begun(tmp_path, "start")))


def test_a_consumer_that_stops_ends_the_actors(tmp_path: Path) -> None:
    """Protects callers who take the first results only: closing the generator is enough."""
    results = pool.run(ScriptedWork(folder=str(tmp_path)), (shard(index) for index in range(100)), ONE)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert gone(set(begun(tmp_path, "start")))


@pytest.mark.parametrize(
    ("device", "options", "kind", "words"),
    [
        ("cpu", PoolOptions(actors=50), ResourcesUnavailable, "50 actors of 2 CPUs and 0 GPUs"),
        ("auto", PoolOptions(gpus_per_actor=1), ResourcesUnavailable, "1 actors of 2 CPUs and 1 GPUs"),
        ("auto", PoolOptions(cpus_per_actor=64), ResourcesUnavailable, "room for 0, with 4 CPUs"),
        ("cuda", PoolOptions(), DeviceUnavailable, "no node of the cluster has a GPU"),
        ("cpu", PoolOptions(gpus_per_actor=1), InvalidOption, "leave out --device cpu"),
    ],
)
def test_what_can_never_be_met_fails_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, options: PoolOptions, kind: type[PipelineError], words: str
) -> None:
    """Protects against a job that waits for ever for devices that do not exist: it ends with a sentence before any actor."""
    monkeypatch.setattr(pool, "Crew", never)  # all that waits is done by one
    with pytest.raises(kind, match=words):
        list(pool.run(ScriptedWork(folder=str(tmp_path), device=device), [shard(0)], options))
    assert not begun(tmp_path, "start")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"actors": 0}, "--actors 0"),
        ({"window": 0}, "--window 0"),
        ({"attempts": -1}, "--attempts -1"),
        ({"cpus_per_actor": float("nan")}, "--cpus-per-actor nan"),
        ({"cpus_per_actor": -1.0}, "--cpus-per-actor -1"),
        ({"gpus_per_actor": float("inf")}, "--gpus-per-actor inf"),
        ({"gpus_per_actor": 1.5}, "give a whole number, or a share of one below 1"),
    ],
)
def test_senseless_options_are_refused(values: dict[str, float], words: str) -> None:
    """Protects Ray from numbers that it would take, or refuse with a traceback."""
    with pytest.raises(InvalidOption, match=words):
        PoolOptions(**values)  # type: ignore[arg-type]


def test_a_machine_alone_does_not_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects against a wait for nodes that cannot come: only a cluster that is joined may grow."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(InvalidOption, match="--may-grow without --address"):
        list(pool.run(ScriptedWork(folder=str(tmp_path)), [shard(0)], PoolOptions(may_grow=True)))


def test_an_address_without_a_cluster_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects a typo in --address: Ray itself tries for two minutes and then ends the process."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    for address in ("nowhere", "127.0.0.1:1", "ray://127.0.0.1:1"):
        with pytest.raises(ClusterUnavailable, match=f"The Ray cluster at {address} cannot be joined"), pool.cluster(address):
            pass
        monkeypatch.setattr(ray, "init", never)  # the first is no address, which Ray says by itself
