"""Bad archives and weights: damaged, forged or foreign ones are told, and cost no more than what they hold."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from jobs.rescale import read_weights
from pipeline.archives.archive import Archive
from pipeline.archives.commits import create_commit
from pipeline.archives.errors import ChecksumMismatch, NotAnArchive, UnsupportedFormat
from pipeline.core.errors import DamagedObject, InvalidWeights, PipelineError
from pipeline.core.options import RestoreOptions
from pipeline.core.records import Entry, EntryKind, OriginalCoding, ShardReport, Tier
from pipeline.outputs.outputs import OutputKind, named_outputs
from pipeline.stores.store import LocalStore
from pipeline.works import RestoreWork
from tests.support import workshop
from tests.support.workshop import Rescaled, Sample

# Archives -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def stored(tmp_path: Path) -> Rescaled:
    """An archive of two tars."""
    for name in ("one.tar", "two.tar"):
        workshop.as_tar(tmp_path / "source", workshop.samples(3), name=name)
    return workshop.rescale(str(tmp_path / "source"), tmp_path / "archive")


def refused(archive: Path, destination: Path, error: type[PipelineError]) -> str:
    """Return the sentence with which a restore does not even begin; nothing is written."""
    with pytest.raises(error) as caught:
        RestoreWork(archive=str(archive), destination=str(destination), options=RestoreOptions(), device="cpu").start()
    assert workshop.written(destination) == {}
    return workshop.sentence(str(caught.value))


def test_another_format_version_is_refused(stored: Rescaled, tmp_path: Path) -> None:
    """Protects archives of other releases: they are neither restored nor resumed, and stay as they are."""
    path = tmp_path / "archive/plan.json"
    plan = json.loads(path.read_bytes())
    plan["format_version"] = 99
    path.write_text(json.dumps(plan))
    assert "format version 99" in refused(tmp_path / "archive", tmp_path / "out", UnsupportedFormat)
    before = workshop.written(tmp_path / "archive")
    with pytest.raises(UnsupportedFormat):
        workshop.begin(str(tmp_path / "source"), tmp_path / "archive")
    assert workshop.written(tmp_path / "archive") == before
    assert stored.reports


def test_a_plan_that_is_none_is_refused(stored: Rescaled, tmp_path: Path) -> None:
    """Protects against junk: a damaged plan and a folder without one are told apart, each with what to do."""
    path = tmp_path / "archive/plan.json"
    path.write_bytes(path.read_bytes()[:100])
    assert "plan.json is damaged" in refused(tmp_path / "archive", tmp_path / "out", DamagedObject)
    path.unlink()
    assert "iarn rescale" in refused(tmp_path / "archive", tmp_path / "out", NotAnArchive)
    assert stored.reports


@pytest.mark.slow
@pytest.mark.parametrize("output", list(OutputKind))
def test_a_flipped_byte_costs_its_own_entries_alone(tmp_path: Path, output: OutputKind) -> None:
    """Protects all other entries: a damaged page takes those it holds, each named in a sentence, and the rest is restored."""
    large = [Sample(key=f"x{index}.png", data=workshop.noise(index)) for index in range(3)]
    samples = [*workshop.samples(2), *large, replace(workshop.samples(1)[0], key="y.png")]
    result = workshop.rescale(workshop.as_tar(tmp_path / "source", samples), tmp_path / "archive")
    (path,) = (tmp_path / "archive/shards").iterdir()
    data = bytearray(path.read_bytes())
    data[data.find(workshop.noise(1)) + 5] ^= 1
    path.write_bytes(data)
    (report,) = workshop.restore(result, tmp_path / "out", output=output)
    (failure,) = report.failures
    assert failure.key == "x1.png"
    assert path.name in workshop.sentence(failure.reason)
    assert report.entries == 5
    files = workshop.written(tmp_path / "out")
    if output is OutputKind.FILES:
        wanted = {sample.key for sample in samples} - {"x1.png"}
        assert {name.removeprefix("photos/") for name in files} >= wanted
    elif output is OutputKind.TAR:
        assert len(workshop.members_of(files["photos.tar"])) == 5 + 2 * 3
    else:
        assert pq.read_table(tmp_path / "out/photos.parquet").num_rows == 5


@pytest.mark.slow
@pytest.mark.parametrize("place", [0.0, 0.01, 0.2, 0.4, 0.6, 0.8, 0.95, 0.999])
def test_a_flipped_byte_anywhere_is_told_or_harmless(stored: Rescaled, tmp_path: Path, place: float) -> None:
    """Protects what is restored: wherever a shard is damaged, nothing else than before comes out; the other shard is whole."""
    workshop.restore(stored, tmp_path / "whole")
    first, second = named_outputs(stored.archive.shards())
    path = tmp_path / f"archive/shards/{first.id}.parquet"
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 0x10
    path.write_bytes(data)
    worker = workshop.restorer(stored, tmp_path / "out")
    try:
        failures = worker.run(first).failures
        sentences = [failure.reason for failure in failures]
    except PipelineError as error:
        sentences = [str(error)]
    for text in sentences:
        assert path.name in workshop.sentence(text)
    assert not worker.run(second).failures
    whole, damaged = workshop.written(tmp_path / "whole"), workshop.written(tmp_path / "out")
    assert damaged.items() <= whole.items()
    assert {name for name in whole if name.startswith("two/")} <= damaged.keys()
    assert sentences or damaged == whole


def test_a_missing_or_damaged_model_is_refused(stored: Rescaled, tmp_path: Path) -> None:
    """Protects restores: another network would give other pictures, so none begins; neither does a rescale go on."""
    (model,) = (tmp_path / "archive/model").iterdir()
    good = model.read_bytes()
    model.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert "SHA-256" in refused(tmp_path / "archive", tmp_path / "out", ChecksumMismatch)
    model.unlink()
    assert "lacks its model" in refused(tmp_path / "archive", tmp_path / "out", InvalidWeights)
    with pytest.raises(InvalidWeights):
        workshop.rescaler(stored.archive)


FORGED: Mapping[str, Mapping[str, Any]] = {
    "a size of no pixels": {"width": 0},
    "no size": {"height": None},
    "a size of a thousand million": {"width": 10**9, "height": 10**9},
    "a size below the LR's": {"width": 3, "height": 3},
    "an LR that is none": {"lr": b"nothing", "lr_sha256": None},
    "no LR": {"lr": None, "lr_sha256": None},
    "another LR": {"lr": workshop.picture(10, 16)},
    "a latent that is none": {"latent": b"nothing"},
    "an alpha that is none": {"alpha": b"nothing"},
    "an alpha of another size": {"alpha": None},
    "an original that is another": {
        "kind": EntryKind.ORIGINAL,
        "original": b"another",
        "original_coding": OriginalCoding.BYTES,
    },
    "an original of no coding": {"kind": EntryKind.ORIGINAL, "original": b"another"},
    "an original that is no JPEG XL": {"kind": EntryKind.ORIGINAL, "original": b"a", "original_coding": OriginalCoding.JXL},
    "pixels that are none": {"original": b"nothing", "original_coding": OriginalCoding.PIXELS},
}


def forge(result: Rescaled, folder: Path, entries: list[Entry]) -> Rescaled:
    """Write an archive of the same plan that holds other entries, in their own valid shard and commit."""
    shutil.copytree(result.uri, folder / "forged", ignore=shutil.ignore_patterns("shards", "commits"))
    archive = Archive.open(LocalStore(folder / "forged"))
    (shard,) = archive.shards()
    report = ShardReport(shard_id=shard.id, entries=len(entries), originals=0, pixels=0, bytes_in=0, bytes_out=0)
    with archive.writer(shard, folder) as writer:
        for entry in entries:
            writer.append(entry)
        create_commit(archive.store, writer.finish(report))
    return Rescaled(archive=archive, reports=[report])


@pytest.mark.slow
@pytest.mark.parametrize("what", FORGED)
def test_a_forged_entry_is_one_failure(tmp_path: Path, what: str) -> None:
    """Protects the entries beside one that makes no sense, though its shard is intact: it is told, they are restored."""
    samples = [Sample(key=f"{name}.png", data=workshop.picture(20, 31, channels=4)) for name in "abc"]
    result = workshop.rescale(workshop.as_tar(tmp_path / "source", samples), tmp_path / "archive")
    first, second, third = result.entries
    fields = dict(FORGED[what])
    if what == "an alpha of another size":
        small = workshop.rescale(
            workshop.as_folder(tmp_path / "small", [Sample(key="a.png", data=workshop.picture(5, 5, channels=4))]),
            tmp_path / "other",
        )
        fields["alpha"] = small.entries[0].alpha
    forged = forge(result, tmp_path, [first, replace(second, **fields), third])
    for output in OutputKind:
        (failure,) = workshop.failures(workshop.restore(forged, tmp_path / output, output=output))
        assert failure.key == "b.png"
        assert "b.png" in workshop.sentence(failure.reason)
    assert workshop.written(tmp_path / "files").keys() == {"photos/a.png", "photos/c.png"}


def test_hostile_names_in_an_archive_do_not_leave_the_destination(tmp_path: Path) -> None:
    """Protects whoever restores an archive of a stranger: keys, LR names and suffixes that lead out are led home."""
    result = workshop.rescale(workshop.as_tar(tmp_path / "source", workshop.samples(2)), tmp_path / "archive")
    first, second = result.entries
    hostile = replace(first, key="../../up.png", lr_path="/abs/../up.webp", sidecars={"../../../txt": b"x", "/json": b"y"})
    forged = forge(result, tmp_path, [hostile, second])
    destination = tmp_path / "a/b/out"
    destination.mkdir(parents=True)
    before = workshop.written(tmp_path)
    for options in ({}, {"lr": True}, {"output": OutputKind.TAR}):
        workshop.restore(forged, destination, **options)
    fresh = {name for name in workshop.written(tmp_path).keys() - before.keys() if not name.startswith("a/b/out/")}
    assert fresh == set()
    for name, _ in workshop.members_of((destination / "photos.tar").read_bytes()):
        assert not name.startswith("/")
        assert ".." not in name.split("/")


def test_a_destination_in_use_is_not_overwritten(stored: Rescaled, tmp_path: Path) -> None:
    """Protects a user's own files: an existing file of a restored name stays, and is the one failure."""
    mine = tmp_path / "out/one/000.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    (failure,) = workshop.failures(workshop.restore(stored, tmp_path / "out"))
    assert failure.key == "000.png"
    assert "not overwritten" in workshop.sentence(failure.reason)
    assert mine.read_bytes() == b"mine"
    assert len(workshop.written(tmp_path / "out")) == 18


# Weights --------------------------------------------------------------------------------------------------------------


def test_weights_that_are_not_what_they_say_begin_nothing(tmp_path: Path) -> None:
    """Protects archives from a wrong network: a flipped bit, a cut, junk and a missing file are told, and nothing is begun."""
    good = workshop.weights()
    source = workshop.as_folder(tmp_path / "source", workshop.samples(1))
    path = tmp_path / "tiny.safetensors"
    kinds = {"digest": good[:-1] + bytes([good[-1] ^ 1]), "weights file": good[: len(good) // 2], "metadata": b"junk" * 100}
    for words, data in kinds.items():
        path.write_bytes(data)
        with pytest.raises(InvalidWeights, match=words) as caught:
            workshop.begin(source, tmp_path / "archive", tier=Tier.LEAN)
        assert path.name in workshop.sentence(str(caught.value))
    path.unlink()
    with pytest.raises(InvalidWeights, match=path.name):
        read_weights(path)
    assert not (tmp_path / "archive/plan.json").exists()
