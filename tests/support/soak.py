"""A long job under faults drawn from a seed, and the account at its end: ``python -m tests.support.soak --seed 1``.

Small images in tars on a real S3 server behind a faulty proxy, rescaled by the `iarn` command on a Ray of three logical nodes.
Faults strike as the job goes on: actors killed, nodes lost and added, the driver killed, the server killed and started again,
bad network, expired credentials. Whenever the command has ended it is given again, as its user would, until it ends with 0.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import workshop
from tests.support.accounting import Account, accounted_for
from tests.support.commands import GUARD, IARN, Running
from tests.support.faulty_proxy import Fault, FaultyProxy, faulty_proxy
from tests.support.ray_nodes import Nodes, kill
from tests.support.seaweed import OVERRIDING_VARIABLES, SeaweedServer

NODES = 3
BUCKET = "soak"
NETWORK = (Fault.SLOW_DOWN, Fault.BUSY, Fault.RESET, Fault.CUT_BODY, Fault.FLIP_SENT, Fault.LOSE_ANSWER)


@dataclass(frozen=True, kw_only=True)
class Soaked:
    """What was done to a job, how often its command ran with which status (None: killed), and the account."""

    faults: list[str]
    statuses: list[int | None]
    account: Account
    seconds: float


@dataclass
class Soak:
    """One job, what it runs on, and the faults that it meets."""

    seed: int
    server: SeaweedServer
    proxy: FaultyProxy
    nodes: Nodes
    folder: Path
    most_nodes: int
    say: Callable[[str], None]
    faults: list[str] = field(default_factory=list)
    statuses: list[int | None] = field(default_factory=list)
    driver: Running | None = None
    waiting: list[tuple[int, Callable[[], None]]] = field(default_factory=list)
    """What is still to strike, each once so many shards are committed."""

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.harm = threading.Semaphore(0)
        self.expired = threading.Event()
        self.network = random.Random(self.seed + 1)
        self.proxy.choose = self._choose

    def kinds(self) -> list[Callable[[], None]]:
        """Return what can happen."""
        return [self.actor, self.actor, self.node_lost, self.node_added, self.killed, self.store, self.bad_network, self.expiry]

    def actor(self) -> None:
        """Kill an actor."""
        actors = self.nodes.actors()
        if actors:
            kill(self.chance.choice(actors))

    def node_lost(self) -> None:
        """Lose a node, but never the last."""
        if len(self.nodes) > 1:
            self.nodes.lose(self.chance.randrange(len(self.nodes)))

    def node_added(self) -> None:
        """Add a node where one was lost; else lose one, and add it."""
        if len(self.nodes) == self.most_nodes:
            self.node_lost()
        self.nodes.add()

    def killed(self) -> None:
        """Kill the driver."""
        if self.driver is not None:
            self.driver.kill()

    def store(self) -> None:
        """Kill the store, and start it again after a moment."""
        self.server.stop()
        time.sleep(self.chance.uniform(0.5, 4))
        self.server.start()

    def bad_network(self) -> None:
        """Harm about half of the requests for a while."""
        for _ in range(60):
            self.harm.release()

    def expiry(self) -> None:
        """Let the credentials expire, until the driver has ended."""
        self.expired.set()

    def _choose(self, method: str, path: str) -> Fault | None:
        if method == "PUT" and "/commits/" in path:
            end = time.monotonic() + GUARD
            while self._is_due() and time.monotonic() < end:  # or a job that is quick might be done before it strikes
                time.sleep(0.05)
        if self.expired.is_set():
            return Fault.EXPIRED
        if self.harm.acquire(blocking=False) and self.network.random() < 0.5:
            return self.network.choice(NETWORK)
        return None

    def run(self, command: tuple[object, ...], shards: int, count: int, end: float) -> None:
        """Give the command until it ends with 0, while ``count`` faults strike, one every few shards."""
        kinds = (self.chance.choice(self.kinds()) for _ in range(count))
        self.waiting = [(number * shards // (count + 1), kind) for number, kind in enumerate(kinds, start=1)]
        begun = time.monotonic()
        while not self.statuses or self.statuses[-1] != 0:
            assert time.monotonic() < end, f"out of time with {self.statuses}, {self._commits()} of {shards} shards"
            with Running(self.folder / str(len(self.statuses)), dict(os.environ), IARN, *command) as self.driver:
                while (status := self.driver.poll()) is None:
                    time.sleep(0.2)
                    assert time.monotonic() < end, f"out of time:\n{self.driver.err[-3000:]}"
                    if self._is_due():
                        _, fault = self.waiting.pop(0)
                        self.faults.append(fault.__name__)
                        self.say(f"{time.monotonic() - begun:6.1f} s  {self._commits():4d} shards  {fault.__name__}")
                        fault()
                self.say(f"{time.monotonic() - begun:6.1f} s  {self._commits():4d} shards  the command ended with {status}")
                for line in self.driver.err.splitlines():
                    if '"quarantined"' in line or line.startswith("iarn: "):
                        self.say(f"          {line[:400]}")
                assert status in (0, 1, 3, -9), self.driver.err[-3000:]
            self.statuses.append(None if status == -9 else status)
            self.expired.clear()

    def _is_due(self) -> bool:
        return bool(self.waiting) and self._commits() >= self.waiting[0][0]

    def _commits(self) -> int:
        found = self.server.client.list_objects_v2(Bucket=BUCKET, Prefix="archive/commits/")
        return len(found.get("Contents", ()))


def soak(
    seed: int,
    *,
    images: int,
    faults: int,
    minutes: float,
    per_tar: int = 50,
    nodes: int = NODES,
    say: Callable[[str], None] = lambda _: None,
) -> Soaked:
    """Run a job of ``images`` on ``nodes`` under ``faults``; check that every image is accounted for, once."""
    begun = time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="iarn-soak-")))
        server = stack.enter_context(SeaweedServer())
        proxy = stack.enter_context(faulty_proxy(server.endpoint))
        for name in OVERRIDING_VARIABLES:
            os.environ.pop(name, None)
        environment = {
            **server.environment(),
            "RAY_AUTH_MODE": "disabled",
            "RAY_memory_monitor_refresh_ms": "0",
            "RAY_worker_niceness": "0",
        }
        environment |= {"OMP_NUM_THREADS": "1", "AWS_ENDPOINT_URL": proxy.endpoint}
        cluster = stack.enter_context(Nodes(nodes, environment))
        server.client.create_bucket(Bucket=BUCKET)
        shards = -(-images // per_tar)
        for shard in range(shards):
            members = [_member(index) for index in range(shard * per_tar, min(images, (shard + 1) * per_tar))]
            server.client.put_object(Bucket=BUCKET, Key=f"source/{shard:05d}.tar", Body=workshop.tar_of(members))
        (folder / "weights").write_bytes(workshop.weights())
        source, archive = f"s3://{BUCKET}/source", f"s3://{BUCKET}/archive"
        command = ("rescale", source, archive, "--scale", "2", "--max-ratio", "inf", "--weights", folder / "weights")
        command += ("--address", cluster.address, "--cpus-per-actor", "1", "--json")
        say(f"seed {seed}: {images} images in {shards} tars, {faults} faults, set up in {time.monotonic() - begun:.0f} s")
        job = Soak(seed, server, proxy, cluster, folder, nodes, say)
        job.run(command, shards, faults, begun + 60 * minutes)
        os.environ["AWS_ENDPOINT_URL"] = server.endpoint
        account = accounted_for(source, archive, sample=0.02)
        assert account.entries == images
        assert not account.failures
        assert len(job.faults) == faults
    return Soaked(faults=job.faults, statuses=job.statuses, account=account, seconds=time.monotonic() - begun)


def _member(index: int) -> tuple[str, bytes]:
    form = ("PNG", "JPEG", "WEBP")[index % 3]
    return f"{index:06d}.{form.lower()}", workshop.picture(24 + index % 17, 30 + index % 13, form, seed=index)


def main() -> None:
    """Run it, and print what was done and the account."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--faults", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=15, help="It fails where it takes longer.")
    arguments = parser.parse_args()
    done = soak(
        arguments.seed,
        images=arguments.images,
        faults=arguments.faults,
        minutes=arguments.minutes,
        say=lambda line: print(line, flush=True),
    )
    counts = {name: done.faults.count(name) for name in sorted(set(done.faults))}
    print(f"faults: {counts}; the command ran {len(done.statuses)} times and ended with {done.statuses}")
    print(
        f"{done.account.entries} of {arguments.images} images have one entry each ({done.account.originals} originals, "
        f"{len(done.account.failures)} failures), one commit a shard, nothing over, verified, in {done.seconds:.0f} s"
    )


if __name__ == "__main__":
    sys.exit(main())
