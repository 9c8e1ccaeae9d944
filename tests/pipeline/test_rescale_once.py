"""Exactly once: attempts that died, sources that changed, shards that are done."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.core.errors import AlreadyExists, PlanConflict, SourceChanged
from pipeline.core.records import Tier
from tests.support import workshop
from tests.support.workshop import SOURCES, every_source


@pytest.mark.slow
@every_source
def test_a_shard_cut_off_before_its_commit_is_adopted(tmp_path: Path, kind: str) -> None:
    """Protects against a crash between shard and commit: the repeat takes the object over, and every entry is there once."""
    result = workshop.rescale(SOURCES[kind](tmp_path / "source", workshop.samples(3)), tmp_path / "archive")
    (shard,) = result.archive.shards()
    commit = tmp_path / f"archive/commits/000000/{shard.id}.json"
    stored = tmp_path / f"archive/shards/{shard.id}.parquet"
    before = workshop.timeless(commit.read_bytes()), stored.read_bytes(), stored.stat().st_mtime_ns
    commit.unlink()
    assert not result.archive.done()
    report = workshop.rescaler(result.archive).run(shard)
    assert (workshop.timeless(commit.read_bytes()), stored.read_bytes(), stored.stat().st_mtime_ns) == before
    assert report == result.reports[0]
    assert len(result.entries) == 3


def test_a_shard_that_is_done_is_not_written_twice(tmp_path: Path) -> None:
    """Protects exactly-once: a second worker of a finished shard changes nothing and reports what stands."""
    result = workshop.rescale(workshop.as_tar(tmp_path / "source", workshop.samples(3)), tmp_path / "archive")
    before = {path: path.read_bytes() for path in (tmp_path / "archive").rglob("*") if path.is_file()}
    assert workshop.rescaler(result.archive).run(next(result.archive.shards())) == result.reports[0]
    assert {path: path.read_bytes() for path in (tmp_path / "archive").rglob("*") if path.is_file()} == before


def test_a_foreign_object_in_a_shards_place_is_left_alone(tmp_path: Path) -> None:
    """Protects what others wrote: an object of the shard's name that is another plan's is refused, not replaced."""
    source = workshop.as_folder(tmp_path / "source", workshop.samples(2))
    other = workshop.rescale(source, tmp_path / "other", tier=Tier.LEAN)
    archive = workshop.begin(source, tmp_path / "archive")
    (shard,) = archive.shards()
    archive.store.create(f"shards/{shard.id}.parquet", (tmp_path / f"other/shards/{shard.id}.parquet").read_bytes())
    with pytest.raises(AlreadyExists) as caught:
        workshop.rescaler(archive).run(shard)
    workshop.sentence(str(caught.value))
    assert not archive.done()
    assert other.entries


@pytest.mark.slow
def test_a_worker_runs_two_shards_at_once(tmp_path: Path) -> None:
    """Protects the window of shards: side by side the same bytes come out as one after the other, and all is counted."""
    for index in range(4):
        workshop.as_tar(tmp_path / "source", workshop.samples(6, folder=f"{index}/"), name=f"{index}.tar")
    alone = workshop.rescale(str(tmp_path / "source"), tmp_path / "alone")
    archive = workshop.begin(str(tmp_path / "source"), tmp_path / "together")
    worker = workshop.rescaler(archive)
    with ThreadPoolExecutor(2) as threads:
        reports = list(threads.map(worker.run, archive.shards()))
    assert reports == alone.reports
    assert workshop.written(tmp_path / "together") == workshop.written(tmp_path / "alone")
    assert worker.progress.assets == 24
    assert worker.progress.pixels == sum(report.pixels for report in reports)


@pytest.mark.parametrize("form", ["folder", "single tar", "single image"])
def test_the_same_source_and_settings_take_up_an_archive(tmp_path: Path, form: str) -> None:
    """Protects resuming: the same command finds its archive again, a single file's too; another one is told apart."""
    uri = workshop.as_tar(tmp_path / "source", workshop.samples(2))
    if form == "single image":
        uri = f"{workshop.as_folder(tmp_path / 'images', workshop.samples(1))}/000.png"
    elif form == "single tar":
        uri += "/photos.tar"
    archive = workshop.begin(uri, tmp_path / "archive")
    assert workshop.begin(uri, tmp_path / "archive").digest == archive.digest
    assert workshop.begin(uri + "/" if form == "folder" else uri, tmp_path / "archive").digest == archive.digest
    with pytest.raises(PlanConflict, match="tier"):
        workshop.begin(uri, tmp_path / "archive", tier=Tier.LEAN)
    with pytest.raises(PlanConflict, match="source"):
        workshop.begin(str(tmp_path), tmp_path / "archive")


@every_source
def test_a_source_that_changed_commits_nothing_and_leaves_nothing_behind(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects the plan and the local disk: a changed object ends its shard with a sentence, without commit or spool."""
    archive = workshop.begin(SOURCES[kind](tmp_path / "source", workshop.samples(3)), tmp_path / "archive")
    (shard,) = archive.shards()
    changed = tmp_path / "source" / shard.objects[-1].key
    changed.write_bytes(changed.read_bytes() + b"more")
    spool = tmp_path / "spool"
    spool.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(spool))
    with pytest.raises(SourceChanged) as caught:
        workshop.rescaler(archive).run(shard)
    assert changed.name in workshop.sentence(str(caught.value))
    assert not list(spool.iterdir())
    assert not archive.done()
    assert not (tmp_path / "archive/shards").exists()


def test_a_committed_shard_is_not_done_again(tmp_path: Path) -> None:
    """Protects time: what an actor committed before it died unheard, or another job, is told from its commit, source or not."""
    archive = workshop.begin(workshop.as_tar(tmp_path / "source", workshop.samples(3)), tmp_path / "archive")
    (shard,) = archive.shards()
    first = workshop.rescaler(archive).run(shard)
    (tmp_path / "source/photos.tar").unlink()
    again = workshop.rescaler(archive)
    assert again.run(shard) == first
    assert again.run_carefully(shard) == first
    assert again.progress.assets == 0
