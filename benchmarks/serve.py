"""A service under load: many clients on loopback, a replica and an HTTP worker killed under them, every byte compared.

    python -m benchmarks.serve ARCHIVE [--clients 64] [--seconds 60] [--replicas 2] [--workers 2] [--pause 0.5] [--kill]

Starts `iarn serve`, asks it for LRs, thumbnails, IIIF tiles and whole images from so many clients at once, kills a replica by
its process id after a third of the time and a worker, where there are several, after half, and prints what came: wrong bytes,
refusals, requests lost and repeated, latencies, restored pixels a second, memory. A client whose connection is reset asks
again, as clients do; a request is lost where that happens again and again.
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
import ssl
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

from jobs.web.iiif.documents import ImageFigures
from jobs.web.iiif.parameters import understand
from jobs.web.iiif.request import TurnedRequest
from pipeline import open_archive
from pipeline.core.options import Limits
from pipeline.reading.requests import ImageRequest
from pipeline.reading.service import Restorer
from pipeline.serving.shelf import Shelf
from pipeline.serving.stored import File

SIZES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("max_side=128", {"max_side": 128}),
    ("max_side=512&format=jpeg", {"max_side": 512, "form": "jpeg"}),
    ("scale=0.5&format=webp", {"scale": 0.5, "form": "webp"}),
    ("format=png", {}),
    ("size=100x70&latent=0", {"size": (70, 100), "use_latent": False}),
)
TILE = 128
"""Side of an IIIF tile, in pixels of the image."""
REPLICA, WORKER = "ServeReplica", "spawn_main"
ASKED_AGAIN = 3
"""How often a request is repeated whose connection was reset."""
TIMEOUT = 120.0


@dataclass
class Account:
    """What came of the requests."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {"lr": [], "tile": [], "image": [], "cached": []})
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    repeated: int = 0
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
            "repeated": self.repeated,
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
    tiles: Mapping[str, bytes] = field(default_factory=dict)


def expected(uri: str, name: str, *, entries: int, seed: int) -> Expected:
    """Restore a sample of an archive in this process."""
    shelf, restorer = Shelf(name, uri), Restorer([uri], device="cpu")
    keys = [entry.key for entry in open_archive(uri).entries(parts=()) if entry.kind == "rescaled"]
    keys = random.Random(seed).sample(keys, min(entries, len(keys)))
    lrs, images, tiles = {}, {}, {}
    for key in keys:
        place, path = shelf.place(key), f"/archives/{name}/assets/{quote(key, safe='')}"
        lr = shelf.lr(place)
        lrs[f"{path}/lr"] = lr.data if isinstance(lr, File) else b"".join(lr.pieces())
        for query, options in SIZES:
            images[f"{path}/image?{query}"] = restorer.restore(place, ImageRequest(**options)).data
        figures = ImageFigures.of(shelf.figures(place))
        assert figures is not None
        bounds, (height, width) = figures.bounds(Limits(), shelf.archive.plan.settings.pixel_limit), figures.size
        for x, y in ((0, 0), (TILE, 0), (0, TILE)):
            if x < width and y < height:
                region, size = f"{x},{y},{TILE},{TILE}", f"{min(TILE, width - x)},{min(TILE, height - y)}"
                asked = TurnedRequest.of(understand(region, size, "0", "default", "jpg", of=figures.size, bounds=bounds))
                tile = f"{region}/{size}/0/default.jpg"
                tiles[f"/iiif/3/{name}/{quote(key, safe='')}/{tile}"] = restorer.restore(place, asked).data
    shelf.close()
    return Expected(lrs=lrs, images=images, tiles=tiles)


async def load(
    base: str,
    right: Expected,
    *,
    clients: int,
    seconds: float,
    seed: int,
    lrs: float = 0.7,
    pause: float = 0.0,
    tls: ssl.SSLContext | None = None,
) -> Account:
    """Ask for ``seconds`` from ``clients`` at once, each on a connection of its own.

    ``lrs`` is the share of LRs, ``pause`` the mean of the seconds that a client waits before each request;
    ``tls`` is what clients of HTTPS trust.
    """
    account, end = Account(), time.monotonic() + seconds
    seen: set[str] = set()

    async def client(number: int) -> None:
        choose = random.Random(f"{seed}/{number}")
        timeout, connector = aiohttp.ClientTimeout(total=TIMEOUT), aiohttp.TCPConnector(limit=1, ssl=tls or True)
        async with aiohttp.ClientSession(base, timeout=timeout, connector=connector) as session:
            while time.monotonic() < end:
                if pause:
                    await asyncio.sleep(choose.expovariate(1 / pause))
                of_lr = choose.random() < lrs
                of_tile = bool(right.tiles) and not of_lr and choose.random() < 0.5
                answers = right.lrs if of_lr else right.tiles if of_tile else right.images
                path = choose.choice(sorted(answers))
                kind = "lr" if of_lr else "cached" if path in seen else "tile" if of_tile else "image"
                await _ask(session, path, answers[path], kind, account)
                seen.add(path)

    await asyncio.gather(*(client(number) for number in range(clients)))
    return account


async def _ask(session: Any, path: str, right: bytes, kind: str, account: Account) -> None:
    began = time.monotonic()
    for again in range(ASKED_AGAIN + 1):
        try:
            async with session.get(URL(path, encoded=True)) as answer:
                body, status = await answer.read(), answer.status
                clear = status == 503 and "Retry-After" in answer.headers and b'"message"' in body
            break
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
            if again == ASKED_AGAIN:
                account.lost.append(f"{path}: {type(error).__name__} {error}")
                return
            account.repeated += 1
            await asyncio.sleep(0.1)
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
    return _named(process, REPLICA)


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    """Return the processes that answer HTTP beside a service's own."""
    return _named(process, WORKER)


def _named(process: psutil.Process, words: str) -> list[psutil.Process]:
    found = []
    for each in process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if words in " ".join(each.cmdline()):
                found.append(each)
    return found


async def watch(process: psutil.Process, memory: dict[str, int], killing: Mapping[str, float], killed: list[str]) -> None:
    """Note the largest memory of each kind of process; kill one of a kind after its seconds, by ``killing``."""
    began = time.monotonic()
    while True:
        groups = {"server": [process], "worker": workers_of(process), "replica": replicas_of(process)}
        for name, group in groups.items():
            for each in group:
                with contextlib.suppress(psutil.NoSuchProcess):
                    memory[name] = max(memory.get(name, 0), each.memory_info().rss)
            if group and name not in killed and time.monotonic() - began > killing.get(name, float("inf")):
                os.kill(group[0].pid, signal.SIGKILL)
                killed.append(name)
        await asyncio.sleep(0.5)


async def measure(base: str, process: psutil.Process, right: Expected, asked: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of a run."""
    memory: dict[str, int] = {}
    killed: list[str] = []
    killing = {"replica": asked.seconds / 3, "worker": asked.seconds / 2} if asked.kill else {}
    watching = asyncio.create_task(watch(process, memory, killing, killed))
    before, began = await _restored(base), time.monotonic()
    how = {"clients": asked.clients, "seconds": asked.seconds, "seed": asked.seed, "lrs": asked.lrs, "pause": asked.pause}
    account = await load(base, right, **how)
    passed = time.monotonic() - began
    account.pixels = await _restored(base) - before
    watching.cancel()
    account.memory = memory
    how = {"clients": asked.clients, "pause": asked.pause, "workers": asked.workers, "killed": killed}
    return {**account.figures(passed), **how, "load_average": os.getloadavg()[0]}


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
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--entries", type=int, default=24, help="entries of the archive that are asked for")
    parser.add_argument("--lrs", type=float, default=0.7, help="share of requests that are for LRs")
    parser.add_argument("--pause", type=float, default=0.0, help="mean seconds that a client waits before each request")
    parser.add_argument("--cache-mb", type=int, default=256)
    parser.add_argument("--kill", action="store_true", help="kill a replica after a third of the time, a worker after half")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    gc.disable()  # a pause of the client's is no latency of the service's
    right = expected(asked.archive, "load", entries=asked.entries, seed=asked.seed)
    options = ("--replicas", str(asked.replicas), "--workers", str(asked.workers), "--cache-mb", str(asked.cache_mb))
    with service(asked.archive, "load", *options) as (base, process):
        assert urlsplit(base).hostname == "127.0.0.1"
        figures = asyncio.run(measure(base, process, right, asked))
    print(json.dumps(figures, indent=2))
    if asked.json is not None:
        asked.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
