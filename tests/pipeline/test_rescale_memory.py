"""What a worker holds at once: what is read ahead, large pictures, batches."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import rescale
from pipeline.assets import shards
from pipeline.core.records import Asset, Tier
from pipeline.decoders import decoding
from pipeline.engines.engine import Downscale, Restore
from pipeline.pictures.picture import Picture
from pipeline.works import RescaleWork
from tests.support import pictures, workshop
from tests.support.workshop import Arrays, Sample, batch_on_the_cpu


@pytest.mark.slow
@pytest.mark.parametrize("content", ["damaged", "tiny"])
def test_what_is_read_ahead_is_bounded(tmp_path: Path, content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects memory: assets without pixels, or of next to none, fill a window by their bytes and their number."""
    data = b"junk" * 5000 if content == "damaged" else workshop.picture(1, 1)
    samples = [Sample(key=f"{index:03d}.png", data=data) for index in range(120)]
    archive = workshop.begin(workshop.as_tar(tmp_path / "source", samples), tmp_path / "archive")
    worker = workshop.rescaler(archive)
    read, most = shards.read_assets, [0]

    def counted(*arguments: Any, **options: Any) -> Iterator[Asset]:
        for number, asset in enumerate(read(*arguments, **options), start=1):
            most.append(number - worker.progress.assets)
            yield asset

    monkeypatch.setattr(shards, "read_assets", counted)
    monkeypatch.setattr(rescale, "WINDOW_PIXELS", 10 * 20_000)
    assert worker.run(next(archive.shards())).entries == 120
    bound = 200_000 // (20_000 if content == "damaged" else rescale.LEAST_WEIGHT)
    assert max(most) <= 2 * bound + 4


@pytest.mark.slow
@pytest.mark.parametrize("batched", [False, True])
def test_large_pictures_go_one_at_a_time(tmp_path: Path, batched: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects memory: of pictures above the window one is under way and at most one more not yet let go of."""
    if batched:
        batch_on_the_cpu(monkeypatch, pixels=1000)
    samples = [Sample(key=f"{index}.png", data=workshop.picture(64, 64, seed=index)) for index in range(8)]
    archive = workshop.begin(workshop.as_folder(tmp_path / "source", samples), tmp_path / "archive")
    worker = workshop.rescaler(archive)
    decode, alive, lock = decoding.decode, [0], threading.Lock()

    def count(change: int) -> None:
        with lock:
            alive.append(alive[-1] + change)

    def counted(*arguments: Any, **options: Any) -> Picture:
        count(1)
        picture = decode(*arguments, **options)
        weakref.finalize(picture, count, -1)
        return picture

    monkeypatch.setattr(decoding, "decode", counted)
    monkeypatch.setattr(rescale, "WINDOW_PIXELS", 1000)
    worker.run(next(archive.shards()))
    assert len(alive) == 17
    assert max(alive) <= 2


@pytest.mark.parametrize(
    ("halvings", "way", "most"), [(0, "run", 8), (1, "run", 4), (3, "run", 1), (0, "run_carefully", 1)], ids=str
)
def test_a_batch_is_no_larger_than_it_may_be(
    tmp_path: Path, halvings: int, way: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects shards that memory was too small for, and those with pictures that never end: batches shrink with all else, and
    what is done carefully is done, and counted, one by one."""
    batch_on_the_cpu(monkeypatch, pixels=8 * 64 * 64)
    samples = [
        Sample(key=f"{index}.jpg", data=pictures.saved(np.full((64, 64, 3), index, np.uint8), "JPEG")) for index in range(8)
    ]
    archive = workshop.begin(workshop.as_folder(tmp_path / "source", samples), tmp_path / "archive", tier=Tier.LEAN)
    worker = RescaleWork(archive=archive.store.uri, device="cpu", halvings=halvings).start()
    sizes, downscale_many = list[int](), worker.engine.downscale_many

    def seen(requests: list[Downscale]) -> list[Arrays]:
        sizes.append(len(requests))
        return downscale_many(requests)

    monkeypatch.setattr(worker.engine, "downscale_many", seen)
    getattr(worker, way)(next(archive.shards()))
    assert sum(sizes) == 8
    assert max(sizes) == most


def test_of_two_restores_one_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects memory in the tier ``floor``: the restore of the LR that hides detail is measured and let go of first."""
    source = workshop.as_folder(tmp_path / "source", [Sample(key="a.png", data=workshop.picture(64, 64))])
    archive = workshop.begin(source, tmp_path / "archive", tier=Tier.FLOOR, floor=35.0)
    worker = workshop.rescaler(archive)
    made, alive, restore_many = list[weakref.ref[Arrays]](), list[int](), worker.engine.restore_many

    def counted(requests: list[Restore]) -> list[Arrays]:
        alive.append(sum(found() is not None for found in made))
        results = restore_many(requests)
        made.extend(weakref.ref(result) for result in results)
        return results

    monkeypatch.setattr(worker.engine, "restore_many", counted)
    worker.run(next(archive.shards()))
    assert alive == [0, 0]
    assert len(made) == 2
