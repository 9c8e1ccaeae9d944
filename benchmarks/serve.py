"""A service under load: many clients on loopback, a replica killed under them, every byte compared.

    python -m benchmarks.serve ARCHIVE [--clients 64] [--seconds 60] [--replicas 2] [--pause 0.5] [--kill] [--json out.json]

Starts `iarn serve`, asks it for LRs and images of mixed sizes from so many clients at once, kills a replica by its process id
in the middle, and prints what came: wrong bytes, refusals, lost requests, latencies, restored pixels a second, memory.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp
import psutil
from yarl import URL

from pipeline.reading.service import ImageRequest, Restorer
from pipeline.serving.shelf import Shelf

SIZES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("max_side=128", {"max_side": 128}),
    ("max_side=512&format=jpeg", {"max_side": 512, "form": "jpeg"}),
    ("scale=0.5&format=webp", {"scale": 0.5, "form": "webp"}),
    ("format=png", {}),
    ("size=100x70&latent=0", {"size": (70, 100), "use_latent": False}),
)
REPLICA = "ServeReplica"
TIMEOUT = 120.0


@dataclass
class Account:
    """What came of the requests."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {"lr": [], "image": [], "cached": []})
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    pixels: int = 0
    memory: dict[str, int] = field(default_factory=dict)

    def figures(self, passed: float) -> dict[str, Any]:
        """Return plain values; times in milliseconds."""
        times = {
            kind: {"count": len(found), **{f"p{share}": round(1000 * _quantile(found, share / 100), 1) for share in (50, 99)}}
            for kind, found in self.seconds.items()
            if found
        }
        return {
            "seconds": round(passed, 1),
            "requests": self.statuses.total(),
            "statuses": dict(sorted(self.statuses.items())),
            "wrong_bytes": len(self.wrong),
            "unclear_refusals": len(self.unclear),
            "lost": len(self.lost),
            "examples": [*self.wrong[:3], *self.unclear[:3], *self.lost[:3]],
            "milliseconds": times,
            "restored_mpix_per_second": round(self.pixels / passed / 1e6, 2),
            "largest_memory_mb": {name: size // 2**20 for name, size in self.memory.items()},
        }


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What the right answers are: of each path its bytes, and the pixels that it takes to restore it."""

    lrs: Mapping[str, bytes]
    images: Mapping[str, bytes]


def expected(uri: str, name: str, *, entries: int, seed: int) -> Expected:
    """Restore a sample of an archive in this process."""
    shelf, restorer = Shelf(name, uri), Restorer([uri], device="cpu")
    keys = [entry.key for entry in shelf.reader.entries(parts=()) if entry.kind == "rescaled"]
    keys = random.Random(seed).sample(keys, min(entries, len(keys)))
    lrs, images = {}, {}
    for key in keys:
        place, path = shelf.place(key), f"/archives/{name}/assets/{quote(key, safe='')}"
        lrs[f"{path}/lr"] = shelf.lr(place).data
        for query, asked in SIZES:
            images[f"{path}/image?{query}"] = restorer.restore(place, ImageRequest(**asked)).data
    shelf.close()
    return Expected(lrs=lrs, images=images)


async def load(
    base: str, right: Expected, *, clients: int, seconds: float, seed: int, lrs: float = 0.7, pause: float = 0.0
) -> Account:
    """Ask for ``seconds`` from ``clients`` at once, each on a connection of its own.

    ``lrs`` is the share of LRs, ``pause`` the mean of the seconds that a client waits before each request.
    """
    account, end = Account(), time.monotonic() + seconds
    seen: set[str] = set()

    async def client(number: int) -> None:
        choose = random.Random(f"{seed}/{number}")
        timeout = aiohttp.ClientTimeout(total=TIMEOUT)
        async with aiohttp.ClientSession(base, timeout=timeout, connector=aiohttp.TCPConnector(limit=1)) as session:
            while time.monotonic() < end:
                if pause:
                    await asyncio.sleep(choose.expovariate(1 / pause))
                of_lr = choose.random() < lrs
                answers = right.lrs if of_lr else right.images
                path = choose.choice(sorted(answers))
                kind = "lr" if of_lr else "cached" if path in seen else "image"
                await _ask(session, path, answers[path], kind, account)
                seen.add(path)

    await asyncio.gather(*(client(number) for number in range(clients)))
    return account


async def _ask(session: Any, path: str, right: bytes, kind: str, account: Account) -> None:
    began = time.monotonic()
    try:
        async with session.get(URL(path, encoded=True)) as answer:
            body, status = await answer.read(), answer.status
            clear = status == 503 and "Retry-After" in answer.headers and b'"message"' in body
    except (aiohttp.ClientError, TimeoutError) as error:
        account.lost.append(f"{path}: {type(error).__name__} {error}")
        return
    account.statuses[status] += 1
    if status == 200:
        account.seconds[kind].append(time.monotonic() - began)
        if body != right:
            account.wrong.append(f"{path}: {len(body)} bytes, {len(right)} expected")
    elif clear:
        await asyncio.sleep(0.2)
    else:
        account.unclear.append(f"{path}: {status} {body[:120]!r}")


@contextlib.contextmanager
def service(uri: str, name: str, *options: str) -> Iterator[tuple[str, psutil.Process]]:
    """Run `iarn serve`; give its address and process. It is ended as by Ctrl-C, with all that it started."""
    with tempfile.TemporaryDirectory(prefix="iarn-bench-") as folder:
        log = Path(folder) / "out"
        with log.open("wb") as out:
            command = [sys.executable, "-m", "jobs.cli", "serve", f"{name}={uri}", "--port", "0", "--device", "cpu", *options]
            process = psutil.Popen(command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            end = time.monotonic() + 240
            while not (match := re.search(r" at (http://\S+)/\s", log.read_text())):
                if process.poll() is not None or time.monotonic() > end:
                    raise SystemExit(f"the service did not start:\n{log.read_text()}")
                time.sleep(0.1)
            yield match[1], process
        finally:
            below = process.children(recursive=True)
            with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
                process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except psutil.TimeoutExpired:
                process.kill()
            for each in psutil.wait_procs(below, timeout=10)[1]:
                each.kill()


def replicas_of(process: psutil.Process) -> list[psutil.Process]:
    """Return the processes of a service's replicas."""
    found = []
    for each in process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if REPLICA in " ".join(each.cmdline()):
                found.append(each)
    return found


async def watch(process: psutil.Process, account: dict[str, int], killing: float | None) -> None:
    """Note the largest memory of the service and of a replica; kill a replica after ``killing`` seconds."""
    began, killed = time.monotonic(), killing is None
    while True:
        replicas = replicas_of(process)
        for name, group in (("server", [process]), ("replica", replicas)):
            for each in group:
                with contextlib.suppress(psutil.NoSuchProcess):
                    account[name] = max(account.get(name, 0), each.memory_info().rss)
        if not killed and time.monotonic() - began > (killing or 0) and replicas:
            os.kill(replicas[0].pid, signal.SIGKILL)
            killed = True
            account["killed"] = 2**20
        await asyncio.sleep(0.5)


async def measure(base: str, process: psutil.Process, right: Expected, asked: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of a run."""
    memory: dict[str, int] = {}
    watching = asyncio.create_task(watch(process, memory, asked.seconds / 3 if asked.kill else None))
    before, began = await _restored(base), time.monotonic()
    how = {"clients": asked.clients, "seconds": asked.seconds, "seed": asked.seed, "lrs": asked.lrs, "pause": asked.pause}
    account = await load(base, right, **how)
    passed = time.monotonic() - began
    account.pixels = await _restored(base) - before
    watching.cancel()
    killed = memory.pop("killed", 0)
    account.memory = memory
    return {**account.figures(passed), "clients": asked.clients, "pause": asked.pause, "replicas_killed": int(killed > 0)}


async def _restored(base: str) -> int:
    async with aiohttp.ClientSession() as session, session.get(f"{base}/metrics") as answer:
        match = re.search(r"^iarn_restored_pixels_total (\S+)$", await answer.text(), re.MULTILINE)
        return int(float(match[1])) if match else 0


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--entries", type=int, default=24, help="entries of the archive that are asked for")
    parser.add_argument("--lrs", type=float, default=0.7, help="share of requests that are for LRs")
    parser.add_argument("--pause", type=float, default=0.0, help="mean seconds that a client waits before each request")
    parser.add_argument("--cache-mb", type=int, default=256)
    parser.add_argument("--kill", action="store_true", help="kill a replica after a third of the time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    gc.disable()  # a pause of the client's is no latency of the service's
    right = expected(asked.archive, "load", entries=asked.entries, seed=asked.seed)
    options = ("--replicas", str(asked.replicas), "--cache-mb", str(asked.cache_mb))
    with service(asked.archive, "load", *options) as (base, process):
        assert urlsplit(base).hostname == "127.0.0.1"
        figures = asyncio.run(measure(base, process, right, asked))
    print(json.dumps(figures, indent=2))
    if asked.json is not None:
        asked.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
