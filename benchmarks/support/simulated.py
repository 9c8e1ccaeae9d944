"""Stand-ins for scale.py: a store and a source of any number of shards made up from their numbers, and a Ray of due times."""

from __future__ import annotations

import pickle
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

from pipeline.archives import commits
from pipeline.archives.plans import FORMAT_VERSION, encode_json, plan_digest
from pipeline.archives.rollups import RollupWriter
from pipeline.cluster.actor import ActorPlace, Reading
from pipeline.core.errors import AlreadyExists, NotFound
from pipeline.core.records import Commit, Failure, ObjectInfo, ShardReport, SourceShard

IMAGES = 256
"""Images of a shard, for what is told per image."""

FAILING = 1000
"""One shard of so many has an image that fails."""

PAGE = 1000
SOURCE, ARCHIVE = "s3://simulated/source", "s3://simulated/archive"


def shard_id(index: int) -> str:
    """Return the id that planning gives the shard of this number."""
    return f"{index:09d}-{index:09d}"


def etag(index: int) -> str:
    """Return an ETag that does not compress."""
    return f"{index * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128:032x}"


def report(index: int) -> ShardReport:
    """Return what became of the shard of this number."""
    own = shard_id(index)
    fault = (Failure(shard_id=own, key=f"{index}/7.jpg", reason="cannot be decoded: it is cut off"),)
    failures = fault if index % FAILING == FAILING - 1 else ()
    counts = {"entries": IMAGES, "originals": 1, "pixels": IMAGES * 10**6, "bytes_in": IMAGES * 300_000}
    return ShardReport(shard_id=own, bytes_out=IMAGES * 90_000, failures=failures, **counts)


def commit_bytes(index: int, plan: str) -> bytes:
    """Return the commit of the shard of this number."""
    found = report(index)
    commit = Commit(shard_id=found.shard_id, plan=plan, sha256=etag(index) * 2, byte_size=found.bytes_out, report=found)
    return encode_json({"format_version": FORMAT_VERSION, **commit.to_json()})


@dataclass
class SimulatedStore:
    """An archive's store; commits are bits, and their bytes and ETags follow from their numbers."""

    shards: int
    loose: bool = False
    uri: str = ARCHIVE
    plan: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    latency: dict[str, float] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)
    done: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        self.done = bytearray(self.shards)

    def ask(self, kind: str, count: int = 1) -> None:
        """Count requests and wait for their answers."""
        self.requests[kind] += count
        if wait := self.latency.get(kind, 0.0):
            time.sleep(wait * count)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        if not prefix.startswith(commits.PREFIX):
            found = [
                ObjectInfo(key=key, size=len(data), etag="e") for key, data in self.objects.items() if key.startswith(prefix)
            ]
            self.ask("list", max(1, -(-len(found) // PAGE)))
            yield from sorted(found, key=lambda info: info.key)
            return
        self.ask("list")
        first = int(prefix.removeprefix(commits.PREFIX).strip("/") or 0) * PAGE
        for index in range(first, min(first + PAGE, self.shards)):
            if self.done[index]:
                yield ObjectInfo(key=f"{prefix}{shard_id(index)}.json", size=300, etag=etag(index))

    def stat(self, key: str) -> ObjectInfo:
        self.ask("get")
        return ObjectInfo(key=key, size=len(self._bytes(key)), etag="e")

    def exists(self, key: str) -> bool:
        self.ask("get")
        return key in self.objects

    def read(self, key: str, start: int = 0, stop: int | None = None, etag: str | None = None) -> bytes:  # noqa: ARG002
        self.ask("get")
        return self._bytes(key)[start:stop]

    def open(self, key: str, etag: str | None = None, buffer_size: int = 0) -> BinaryIO:
        raise NotImplementedError(key)

    def create(self, key: str, data: bytes | Path) -> None:
        self.ask("put")
        if key in self.objects:
            raise AlreadyExists(f"{self.uri}/{key}")
        self.replace(key, data)

    def replace(self, key: str, data: bytes | Path) -> None:
        self.objects[key] = data if isinstance(data, bytes) else data.read_bytes()
        if key == "plan.json":
            self.plan = plan_digest(self.objects[key])

    def delete(self, key: str) -> None:
        self.objects.pop(key, None)

    def _bytes(self, key: str) -> bytes:
        if key.startswith(commits.PREFIX):
            return commit_bytes(int(key.rpartition("/")[2][:9]), self.plan)
        try:
            return self.objects[key]
        except KeyError:
            raise NotFound(f"{self.uri}/{key}") from None


class SourceListing:
    """The source that an archive is made of: as many tars as it has shards, or their images as loose files."""

    uri = SOURCE

    def __init__(self, store: SimulatedStore) -> None:
        self._store = store

    def exists(self, key: str) -> bool:  # noqa: ARG002
        return False

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:  # noqa: ARG002
        loose = self._store.loose
        for index in range(self._store.shards * (IMAGES if loose else 1)):
            if index % PAGE == 0:
                self._store.ask("list")
            key = f"photos/{index // 10_000:05d}/{index:09d}.jpg" if loose else f"train/{index:09d}.tar"
            yield ObjectInfo(key=key, size=300_000 if loose else IMAGES * 300_000, etag=etag(index))


def finish_but(store: SimulatedStore, shards: int, left: int, *, rollups: bool) -> None:
    """Commit all shards but a few, spread over the plan, and roll them up as the driver that did it would have."""
    undone = {(2 * each + 1) * shards // (2 * left) for each in range(left)}
    store.done = bytearray(index not in undone for index in range(shards))
    if rollups:
        with RollupWriter(store, store.plan) as writer:
            for index in range(shards):
                if index not in undone:
                    writer.add(report(index))


@dataclass(eq=False)
class Due:
    """What a call of an actor gives: a value, once its time has come."""

    time: float
    value: Callable[[], Any]


class SimulatedRay:
    """What pool.py asks of Ray. An actor commits a shard after ``seconds``; every call is answered in this process."""

    def __init__(self, nodes: int, seconds: float, store: SimulatedStore) -> None:
        self._gpus, self._seconds, self._store = nodes, seconds, store
        self.ran = 0

    def is_initialized(self) -> bool:
        return True

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": 8.0 * self._gpus, "GPU": float(self._gpus)}}]

    def remote(self, **_: Any) -> Callable[[Any], Any]:
        made = SimpleNamespace(remote=lambda work: self._actor())  # noqa: ARG005
        return lambda _: SimpleNamespace(options=lambda **__: made)

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_job_id=lambda: "simulated", get_session_name=lambda: "simulated")

    def kill(self, handle: Any) -> None:
        pass

    def get(self, reference: Due | list[Due]) -> Any:
        return [each.value() for each in reference] if isinstance(reference, list) else reference.value()

    def wait(self, references: list[Due], *, num_returns: int = 1, timeout: float | None = None) -> Any:
        now = time.monotonic()
        ready = [each for each in references if each.time <= now]
        if not ready and timeout != 0:
            time.sleep(max(0.0, min(min(each.time for each in references) - now, timeout or 1e9)))
            now = time.monotonic()
            ready = [each for each in references if each.time <= now]
        return ready[:num_returns], references

    def _actor(self) -> Any:
        def run(call: bytes) -> Due:
            shard: SourceShard = pickle.loads(call)[0]
            return Due(time.monotonic() + self._seconds, lambda: self._commit(shard))

        def answer(value: Any) -> Any:
            return SimpleNamespace(remote=lambda: Due(0.0, lambda: value))

        place = ActorPlace(actor="simulated", node="127.0.0.1", node_id="simulated")
        return SimpleNamespace(start=answer(place), progress=answer(Reading()), run=SimpleNamespace(remote=run))

    def _commit(self, shard: SourceShard) -> ShardReport:
        index = int(shard.id[:9])
        self._store.done[index] = 1
        self.ran += 1
        return report(index)
