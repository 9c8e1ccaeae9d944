"""What changes under a job's feet: sources that are no longer the planned ones, other settings, other jobs at one archive."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.requests import RescaleJob
from jobs.rescale import open_archive
from pipeline.archives.archive import Archive
from pipeline.core.errors import NotFound, PipelineError, PlanConflict, SourceChanged
from pipeline.core.records import FloorMetric, LrCodec, Settings, Tier
from pipeline.core.target import TargetSize
from pipeline.stores.s3 import S3Store
from pipeline.stores.store import open_store
from tests.jobs.test_jobs import bulky
from tests.support import workshop
from tests.support.accounting import accounted_for, planned
from tests.support.faulty_proxy import Fault, FaultyProxy, faulty_proxy
from tests.support.seaweed import SeaweedServer


def change(path: Path, what: str) -> None:
    """Change a file in one way."""
    if what == "size":
        path.write_bytes(path.read_bytes() + b"\0" * 512)
    elif what == "time":
        status = path.stat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    elif what == "content":
        path.write_bytes(path.read_bytes()[:-1] + b"\1")
    else:
        path.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("what", ["size", "time", "content", "gone"])
@pytest.mark.parametrize("kind", ["tar", "files"])
def test_a_source_that_changed_is_refused_for_its_shard(tmp_path: Path, kind: str, what: str) -> None:
    """Protects the plan: a shard whose source is not the planned one any more is not done and says so, the others are, and
    with the planned one back it is done as well."""
    source = tmp_path / "source"
    if kind == "tar":
        for name in ("one.tar", "two.tar"):
            workshop.as_tar(source, workshop.samples(2), name)
        victim = source / "one.tar"
    else:
        workshop.as_folder(source, workshop.samples(3))
        workshop.as_tar(source, workshop.samples(2), "two.tar")
        victim = source / "001.txt"  # a sidecar counts as well
    archive = workshop.begin(str(source), tmp_path / "archive", tier=Tier.LEAN)
    (bad,) = [shard for shard in planned(archive) if any(info.key == victim.name for info in shard.objects)]
    data, status = victim.read_bytes(), victim.stat()
    change(victim, what)
    worker = workshop.rescaler(archive)
    for shard in planned(archive):
        if shard != bad:
            worker.run(shard)
    with pytest.raises(NotFound if what == "gone" else SourceChanged) as caught:
        worker.run(bad)
    assert victim.name in workshop.sentence(str(caught.value))
    victim.write_bytes(data)
    os.utime(victim, ns=(status.st_atime_ns, status.st_mtime_ns))
    accounted_for(str(source), archive.store.uri, undone=[bad.id])
    worker.run(bad)
    assert accounted_for(str(source), archive.store.uri).entries >= 4


@pytest.fixture
def proxy(s3_server: SeaweedServer, s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:  # noqa: ARG001
    """A proxy before the server, which stores of this test use."""
    with faulty_proxy(s3_server.endpoint) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.endpoint)
        yield running


def test_an_object_replaced_while_it_is_read_is_refused(
    tmp_path: Path, proxy: FaultyProxy, s3_bucket: str, s3_server: SeaweedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects archives from a mixture of two versions: between two ranges of one tar another is put in its place, of the same
    size; nothing is committed, and with the planned one back the shard is done."""
    monkeypatch.setattr(S3Store.open, "__defaults__", (None, 2**16))
    bucket = s3_bucket.removeprefix("s3://")
    tar = workshop.tar_of(member for index in range(3) for member in bulky(f"{index}.png", index).members.items())
    other = tar[:5000] + bytes([tar[5000] ^ 1]) + tar[5001:]
    assert len(tar) > 3 * 2**16

    def put(data: bytes) -> None:
        s3_server.client.put_object(Bucket=bucket, Key="source/a.tar", Body=data)

    put(tar)
    model = tmp_path / "weights"
    model.write_bytes(workshop.weights())
    settings = Settings(target=workshop.HALF, tier=Tier.LEAN, max_ratio=None)
    source, uri = f"{s3_bucket}/source", f"{s3_bucket}/archive"
    archive = open_archive(RescaleJob(source=source, archive=uri, settings=settings, weights=model))
    worker = workshop.rescaler(archive)
    (shard,) = planned(archive)
    seen: list[str] = []

    def choose(method: str, path: str) -> Fault | None:
        if method == "GET" and "/source/" in path:
            seen.append(path)
            if len(seen) == 2:
                put(other)
        return None

    proxy.choose = choose
    with pytest.raises(SourceChanged) as caught:
        worker.run(shard)
    assert len(seen) >= 2, "it was replaced after the first range"
    assert "a.tar changed since the plan was made" in workshop.sentence(str(caught.value))
    put(tar)
    accounted_for(source, uri, undone=[shard.id])
    worker.run(shard)
    assert accounted_for(source, uri).entries == 3


SETTINGS = Settings(target=workshop.HALF, tier=Tier.FLOOR, floor=40.0)
OTHERS = {
    "scale": {"target": TargetSize(scale=(2, 3))},
    "side": {"target": TargetSize(max_side=100)},
    "tier": {"tier": Tier.LEAN, "floor": None},
    "floor": {"floor": 41.0},
    "metric": {"floor_metric": FloorMetric.PSNR_Y},
    "ratio": {"max_ratio": 0.5},
    "codec": {"lr_codec": LrCodec.PNG},
    "limit": {"pixel_limit": 1000},
    "column": {"image_column": "photo"},
}
NAMED = {
    "scale": "target", "side": "target", "tier": "tier", "floor": "floor", "metric": "floor_metric", "ratio": "max_ratio",
    "codec": "lr_codec", "limit": "pixel_limit", "column": "image_column",
}  # fmt: skip


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    """Protects archives from two kinds of entries: every option, the source and the weights of a later command have to be
    those of the first, and the sentence names what differs, then and now."""
    source = workshop.as_folder(tmp_path / "source", workshop.samples(2))
    workshop.as_folder(tmp_path / "other", workshop.samples(2))
    for name, seed in (("weights", 1), ("heavier", 2)):
        (tmp_path / name).write_bytes(workshop.random_weights(workshop.TINY, seed=seed))
    first = RescaleJob(source=source, archive=str(tmp_path / "archive"), settings=SETTINGS, weights=tmp_path / "weights")
    archive = open_archive(first)
    before = workshop.written(tmp_path / "archive")
    assert open_archive(first).digest == archive.digest
    jobs = {NAMED[what]: replace(first, settings=replace(SETTINGS, **fields)) for what, fields in OTHERS.items()}
    jobs["source"] = replace(first, source=str(tmp_path / "other"))
    jobs["weights"] = replace(first, weights=tmp_path / "heavier")
    for name, job in jobs.items():
        with pytest.raises(PlanConflict) as caught:
            open_archive(job)
        text = workshop.sentence(str(caught.value))
        assert name.replace("_", "-").removeprefix("floor-") in text.replace("_", "-"), text
        assert ", not " in text or " not " in text
    assert workshop.written(tmp_path / "archive") == before


def test_jobs_of_different_plans_never_mix(tmp_path: Path, s3_bucket: str, s3_server: SeaweedServer) -> None:
    """Protects an archive that several jobs begin at one moment, on object storage: one plan wins, the jobs of the other are
    refused or run the winner's, and what lies there afterwards is the winner's alone."""
    for index in range(2):
        tar = workshop.tar_of(member for sample in workshop.samples(2) for member in sample.members.items())
        s3_server.client.put_object(Bucket=s3_bucket.removeprefix("s3://"), Key=f"source/{index}.tar", Body=tar)
    (tmp_path / "weights").write_bytes(workshop.weights())
    source, uri = f"{s3_bucket}/source", f"{s3_bucket}/archive"
    start = threading.Barrier(4)
    outcomes: list[str | PipelineError] = []

    def begin(scale: float) -> None:
        settings = Settings(target=TargetSize(scale=(scale, scale)), tier=Tier.LEAN, max_ratio=None)
        start.wait()
        try:
            archive = open_archive(RescaleJob(source=source, archive=uri, settings=settings, weights=tmp_path / "weights"))
            assert archive.plan.settings == settings
            worker = workshop.rescaler(archive)
            for shard in planned(archive):
                worker.run(shard)
            outcomes.append(archive.digest)
        except PipelineError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=begin, args=(scale,)) for scale in (2, 3, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    archive = Archive.open(open_store(uri))
    assert sorted(map(type, outcomes), key=str) == [PlanConflict, PlanConflict, str, str], outcomes
    assert {outcome for outcome in outcomes if isinstance(outcome, str)} == {archive.digest}
    assert len(archive.done()) == 2
    assert accounted_for(source, uri, sample=1).entries == 4
