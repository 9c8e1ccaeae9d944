"""Checking an archive without Ray: what is whole passes, and every kind of damage is named."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from pipeline import rescale, verify
from pipeline.archives.archive import Archive
from pipeline.archives.errors import ChecksumMismatch
from pipeline.assets import shards
from pipeline.core.errors import DamagedObject, InvalidWeights, StoreUnavailable
from pipeline.core.records import Entry, Pixels, Quality, Tier
from pipeline.engines.engine import Engine
from pipeline.engines.lr import LrToRestore
from pipeline.stores.store import LocalStore
from pipeline.verify import VerifyWorker
from tests.support import workshop
from tests.support.workshop import Rescaled, Sample


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an archive of two tars, one of large assets that have a row group each, and its source."""
    folder = tmp_path_factory.mktemp("whole")
    workshop.as_tar(folder / "source", workshop.samples(4), name="small.tar")
    noise = [Sample(key=f"{index}.bin.png", data=workshop.noise(index)) for index in range(4)]
    workshop.as_tar(folder / "source", noise, name="large.tar")
    workshop.rescale(str(folder / "source"), folder / "archive")
    return folder


def copied(whole: Path, tmp_path: Path) -> Rescaled:
    """Return a copy of the archive, whose source is the one of the fixture."""
    shutil.copytree(whole / "archive", tmp_path / "archive")
    return Rescaled(archive=Archive.open(LocalStore(tmp_path / "archive")), reports=[])


def flip(path: Path, position: int) -> None:
    """Turn one bit of a file."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def counted_networks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows by the key of each entry that the network restores."""
    network, ran = verify.restore_lr, list[str]()

    def counted(engine: Engine, asked: LrToRestore) -> Pixels:
        ran.append(asked.entry.key)
        return network(engine, asked)

    monkeypatch.setattr(verify, "restore_lr", counted)
    return ran


@pytest.mark.slow
@pytest.mark.parametrize("tier", list(Tier))
def test_a_whole_archive_passes(tmp_path: Path, tier: Tier) -> None:
    """Protects against false alarms: a fresh archive has no failure, and all its restores agree with its source."""
    samples = [*workshop.samples(4), Sample(key="x.png", data=b"broken"), Sample(key="y.png", data=workshop.picture(9, 9))]
    result = workshop.rescale(workshop.as_tar(tmp_path / "source", samples), tmp_path / "archive", tier=tier)
    (report,) = workshop.verify(result)
    assert not report.failures
    assert (report.entries, report.originals, report.compared) == (6, 1, 5)
    assert report.bytes_out == result.reports[0].bytes_out


def test_the_sample_is_a_share_and_at_least_one(whole: Path, tmp_path: Path) -> None:
    """Protects the cost of verifying: a small share restores one entry of a shard, none restores none."""
    result = copied(whole, tmp_path)
    for sample, compared in ((0.0, {0}), (1e-9, {1, 0}), (1.0, {4, 0})):
        assert {report.compared for report in workshop.verify(result, sample=sample)} == compared


@pytest.mark.parametrize(("tier", "restores"), [(Tier.BALANCED, 2), (Tier.EXACT_PIXELS, 0), (Tier.EXACT, 0)])
@pytest.mark.parametrize("gone", [False, True])
def test_an_entry_is_restored_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tier: Tier, restores: int, gone: bool
) -> None:
    """Protects the cost of verifying: the network runs once for an entry, and not where the picture itself is kept."""
    result = workshop.rescale(workshop.as_tar(tmp_path / "source", workshop.samples(2)), tmp_path / "archive", tier=tier)
    if gone:
        shutil.rmtree(tmp_path / "source")
    ran = counted_networks(monkeypatch)
    (report,) = workshop.verify(result)
    assert not report.failures
    assert len(ran) == len(set(ran)) == restores


def test_a_source_that_is_gone_is_no_fault(tmp_path: Path) -> None:
    """Protects old archives: they outlive their source, and are checked by their own digests then."""
    result = workshop.rescale(workshop.as_tar(tmp_path / "source", workshop.samples(2)), tmp_path / "archive")
    (tmp_path / "source/photos.tar").write_bytes(b"another file")
    assert [(report.failures, report.compared) for report in workshop.verify(result)] == [((), 0)]
    shutil.rmtree(tmp_path / "source")
    assert [(report.failures, report.compared) for report in workshop.verify(result)] == [((), 0)]


def test_damage_is_told_with_the_entries_it_took(whole: Path, tmp_path: Path) -> None:
    """Protects the repair: one flipped byte is told for its shard, with the key of the entry that is lost and no other."""
    result = copied(whole, tmp_path)
    large = next(shard for shard in result.archive.shards() if shard.name == "large.tar")
    path = tmp_path / f"archive/shards/{large.id}.parquet"
    flip(path, path.read_bytes().find(workshop.noise(2)) + 1000)
    reports = {report.shard_id: report for report in workshop.verify(result)}
    faults = reports.pop(large.id).failures
    assert [fault.key for fault in faults] == [None, "2.bin.png"]
    assert "SHA-256" in workshop.sentence(faults[0].reason)
    workshop.sentence(faults[1].reason)
    assert not workshop.failures(reports.values())


@pytest.mark.parametrize("gone", [False, True])
def test_damage_of_a_moment_later_is_told_with_its_entries(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: bool
) -> None:
    """Protects the report: damage that only the restore of the sample meets is told once for each entry that it took, whether
    the source is still there or not, and the shard's report has all else."""
    result = copied(whole, tmp_path)
    small = next(shard for shard in result.archive.shards() if shard.name == "small.tar")
    path = tmp_path / f"archive/shards/{small.id}.parquet"
    *_, last = result.archive.entries(small.id)
    takes = VerifyWorker._takes

    def damaging(self: VerifyWorker, entry: Entry, *, first: bool) -> bool:
        if entry.key == last.key:  # all were found whole, and are to be read again
            flip(path, path.read_bytes().find(last.lr or b"") + 20)
        return takes(self, entry, first=first)

    monkeypatch.setattr(VerifyWorker, "_takes", damaging)
    if gone:
        monkeypatch.setattr(shards, "read_assets", lambda *_, **__: iter(()))
    report = {each.shard_id: each for each in workshop.verify(result)}[small.id]
    keys = [fault.key for fault in report.failures]
    assert last.key in keys
    assert None not in keys
    assert len(keys) == len(set(keys))
    assert report.entries == 4


@pytest.mark.parametrize("place", [0.05, 0.5, 0.999])
def test_no_flipped_byte_goes_unnoticed(whole: Path, tmp_path: Path, place: float) -> None:
    """Protects the digests: wherever a byte of a shard changes, verify says so in sentences."""
    result = copied(whole, tmp_path)
    path = tmp_path / f"archive/shards/{tuple(result.archive.shards())[1].id}.parquet"
    flip(path, int(path.stat().st_size * place))
    reports = workshop.verify(result)
    assert not reports[0].failures
    assert reports[1].failures
    for fault in reports[1].failures:
        workshop.sentence(fault.reason)


@pytest.mark.parametrize("method", ["check_shard", "entries"])
def test_an_outage_is_no_damage(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """Protects whole archives from a store that is away for a moment: that is tried again, not reported."""
    result = copied(whole, tmp_path)

    def away(self: Archive, *_: object, **__: object) -> None:
        raise StoreUnavailable(self.store.uri, "it is away")

    monkeypatch.setattr(Archive, method, away)
    with pytest.raises(StoreUnavailable, match="it is away"):
        workshop.verify(result)


def test_a_missing_shard_is_told(whole: Path, tmp_path: Path) -> None:
    """Protects completeness: a commit without its shard object is one failure."""
    result = copied(whole, tmp_path)
    (tmp_path / f"archive/shards/{next(result.archive.shards()).id}.parquet").unlink()
    (fault,) = workshop.failures(workshop.verify(result))
    assert "does not exist" in workshop.sentence(fault.reason)


def test_a_commit_of_other_counts_is_told(whole: Path, tmp_path: Path) -> None:
    """Protects 'exactly one entry': a commit that promises more entries than there are is a failure."""
    result = copied(whole, tmp_path)
    path = tmp_path / f"archive/commits/000000/{next(result.archive.shards()).id}.json"
    commit = json.loads(path.read_bytes())
    commit["report"]["entries"] += 1
    path.write_text(json.dumps(commit))
    (fault,) = workshop.failures(workshop.verify(result))
    assert "5 committed" in fault.reason
    path.write_text("no JSON")
    with pytest.raises(DamagedObject) as caught:
        workshop.verify(result)
    workshop.sentence(str(caught.value))


def test_a_restore_below_its_figures_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the stored figures: an entry that does not restore as well as it says is a failure with both numbers."""
    with monkeypatch.context() as patch:
        patch.setattr(rescale, "measure", lambda *_, **__: Quality(psnr=59.0, psnr_y=59.0, ssim=1.0))
        source = workshop.as_folder(tmp_path / "source", workshop.samples(1))
        result = workshop.rescale(source, tmp_path / "archive")
    (fault,) = workshop.failures(workshop.verify(result))
    assert fault.key == "000.png"
    assert "59.0 dB are stored" in fault.reason


def test_a_source_of_the_same_date_but_other_bytes_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the comparison: a source file whose bytes are not the ones that were rescaled is not measured against; its entry
    is restored all the same."""
    source = workshop.as_folder(tmp_path / "source", workshop.samples(1))
    result = workshop.rescale(source, tmp_path / "archive")
    path = tmp_path / "source/000.png"
    status = path.stat()
    flip(path, 60)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    ran = counted_networks(monkeypatch)
    (report,) = workshop.verify(result)
    (fault,) = report.failures
    assert "not the one that was rescaled" in fault.reason
    assert (report.compared, ran) == (0, ["000.png"])


def test_a_missing_or_damaged_model_is_told_first(whole: Path, tmp_path: Path) -> None:
    """Protects restores to come: an archive without its own network is refused before anything is checked."""
    result = copied(whole, tmp_path)
    (model,) = (tmp_path / "archive/model").iterdir()
    flip(model, 2000)
    with pytest.raises(ChecksumMismatch) as caught:
        workshop.verify(result)
    workshop.sentence(str(caught.value))
    model.unlink()
    with pytest.raises(InvalidWeights) as missing:
        workshop.verify(result)
    workshop.sentence(str(missing.value))
