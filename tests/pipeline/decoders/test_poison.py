"""Pictures that end or never leave their decoder: such a picture costs itself, and neither its shard nor the job."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import psutil
import pytest

from pipeline.archives.entries import source_bytes
from pipeline.cluster import pool
from pipeline.cluster.pool import PoolOptions
from pipeline.core.errors import DecoderDied, ImageTooLarge, InvalidOption, UndecodableImage
from pipeline.core.records import EntryKind, Failure, OriginalCoding, ShardReport, Tier
from pipeline.decoders import decoding
from pipeline.decoders.apart import DecoderApart
from tests.support import pictures, poison, workshop
from tests.support.accounting import accounted_for, planned
from tests.support.hooked_worker import DECODE_SECONDS, HookedWork
from tests.support.workshop import Sample


@pytest.fixture(params=[poison.DEADLY, poison.ENDLESS], ids=["deadly", "endless"])
def poisoned(request: pytest.FixtureRequest) -> Sample:
    """A JPEG on which a poisoned decoder dies, or stays."""
    return Sample(key="b.jpg", data=workshop.picture(60, 70, "JPEG") + request.param, sidecars={"txt": b"caption"})


@pytest.mark.usefixtures("ray_cluster")
def test_a_poison_picture_costs_itself_alone(tmp_path: Path, poisoned: Sample) -> None:
    """Protects all others, its own shard's included: it is kept byte by byte with the reason, and told; the rest is rescaled,
    and an actor that it would keep for ever is noticed."""
    first, last = workshop.samples(2)
    workshop.as_tar(tmp_path / "source", [first, poisoned, last], "0.tar")
    workshop.as_tar(tmp_path / "source", workshop.samples(3), "1.tar")
    archive = workshop.begin(str(tmp_path / "source"), tmp_path / "archive", tier=Tier.LEAN)
    deadly = poisoned.data.endswith(poison.DEADLY)
    options = PoolOptions(actors=1, cpus_per_actor=1, stall_minutes=10 if deadly else 0.2)
    work = HookedWork(archive=archive.store.uri, poisoned=True)
    results = list(pool.run(work, planned(archive), options))
    assert all(isinstance(result, ShardReport) for result in results), results
    account = accounted_for(str(tmp_path / "source"), archive.store.uri, sample=1)
    assert (account.entries, account.originals) == (6, 1)
    (failure,) = account.failures
    what = "its decoding ends the process (SIGSEGV)" if deadly else f"its decoding took more than {DECODE_SECONDS} s"
    assert workshop.sentence(failure.reason) == f"cannot be decoded: {what}"
    entry = archive.read_entry(planned(archive)[0].id, "b.jpg")
    assert (entry.kind, entry.reason, entry.original_coding) == (EntryKind.ORIGINAL, failure.reason, OriginalCoding.BYTES)
    assert source_bytes(entry) == poisoned.data
    assert dict(entry.sidecars) == poisoned.sidecars


@pytest.mark.usefixtures("ray_cluster")
def test_a_shard_that_hangs_without_end_is_quarantined(tmp_path: Path) -> None:
    """Protects the end of a job: what finishes nothing, however often it is tried, is told with the limit that it met."""
    archive = workshop.begin(workshop.as_tar(tmp_path / "source", workshop.samples(2)), tmp_path / "archive", tier=Tier.LEAN)
    (tmp_path / "pause").touch()
    work = HookedWork(archive=archive.store.uri, pause=str(tmp_path / "pause"))
    options = PoolOptions(actors=1, cpus_per_actor=1, window=1, attempts=1, stall_minutes=0.03)
    (failure,) = pool.run(work, planned(archive), options)
    assert isinstance(failure, Failure)
    assert workshop.sentence(failure.reason) == "It finished no image within 0.03 minutes."
    account = accounted_for(str(tmp_path / "source"), archive.store.uri, undone=[failure.shard_id])
    assert account.entries == 0
    (tmp_path / "pause").unlink()
    patient = PoolOptions(actors=1, cpus_per_actor=1, window=1, attempts=1)
    assert all(isinstance(result, ShardReport) for result in pool.run(work, planned(archive), patient))
    assert accounted_for(str(tmp_path / "source"), archive.store.uri).entries == 2


@pytest.mark.parametrize("minutes", [0.0, -1.0, float("nan")])
def test_a_limit_that_makes_no_sense_is_refused(minutes: float) -> None:
    """Protects jobs from a limit that no shard can keep."""
    with pytest.raises(InvalidOption, match="--stall-minutes"):
        PoolOptions(stall_minutes=minutes)


@pytest.mark.slow
def test_a_decoder_apart_is_the_decoder() -> None:
    """Protects shards that are run with care: pictures come out as they do otherwise, refused ones with the same reasons."""
    sound = workshop.picture(20, 31, channels=4, exif=pictures.exif(6))
    with DecoderApart() as decoder:
        apart, here = decoder.decode(sound, pixel_limit=1000), decoding.decode(sound, pixel_limit=1000)
        assert (apart.pixels == here.pixels).all()
        assert (apart.alpha == here.alpha).all()
        assert (apart.orientation, apart.mode, apart.format, apart.exif) == (6, here.mode, here.format, here.exif)
        with pytest.raises(UndecodableImage, match="the file is empty"):
            decoder.decode(b"", pixel_limit=1000)
        with pytest.raises(ImageTooLarge):
            decoder.decode(sound, pixel_limit=619)


@pytest.mark.slow
def test_a_decoder_apart_comes_back_and_leaves_with_its_owner() -> None:
    """Protects the machine and the next picture: a death is told once, another process takes over, none is left behind."""
    sound = workshop.picture(20, 31)
    own = psutil.Process()
    before = set(own.children())
    with DecoderApart() as decoder:
        for _ in range(2):
            assert decoder.decode(sound, pixel_limit=1000).pixels.shape == (20, 31, 3)
            (process,) = set(own.children()) - before
            os.kill(process.pid, signal.SIGKILL)
            with pytest.raises(DecoderDied, match=r"ends the process \(SIGKILL\)"):
                decoder.decode(sound, pixel_limit=1000)
        decoder.decode(sound, pixel_limit=1000)
        assert len(set(own.children()) - before) == 1
    assert set(own.children()) == before


@pytest.mark.slow
def test_a_decoder_apart_takes_turns() -> None:
    """Protects pictures from being mixed up where several threads decode at once."""
    sizes = [(8 + index, 20) for index in range(12)]
    found: dict[int, tuple[int, ...]] = {}
    with DecoderApart() as decoder:

        def decode(index: int) -> None:
            found[index] = decoder.decode(workshop.picture(*sizes[index]), pixel_limit=1000).pixels.shape[:2]

        threads = [threading.Thread(target=decode, args=(index,)) for index in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [found[index] for index in range(12)] == sizes
