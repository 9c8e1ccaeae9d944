"""Sources that grow: what is added later is in the archive once, as if it had been there at first, and comes back."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.inspect import summarise
from jobs.rescale import begin_archive, standing_archive
from jobs.source_changes import Compared, compare, compare_as_asked
from pipeline.archives import additions
from pipeline.archives.archive import Archive
from pipeline.core.errors import AccessDenied, InvalidOption, NotFound, PlanConflict
from pipeline.core.records import Entry, ShardKind, SourceShard, Tier, Verification
from pipeline.outputs.outputs import OutputKind, named_outputs
from pipeline.planning.changes import CHANGES
from pipeline.planning.left_out import LEFT_OUT
from pipeline.reading.catalogue import Filter
from pipeline.reading.reader import open_archive
from pipeline.serving.shelf import Shelf
from pipeline.stores.store import LocalStore, open_store
from tests.pipeline.test_odd_files import PHOTO, PNG, SAME, source_of
from tests.support import workshop
from tests.support.accounting import accounted_for
from tests.support.commands import GUARD
from tests.support.seaweed import SeaweedServer

PIECES: dict[str, tuple[str, ...]] = {
    "cat": ("cat.png", "cat.txt"),
    "dog": ("a/dog.jpg", "a/dog.cls.json"),
    "two": ("two.jpg", "two.png"),
    "frames": ("film.1.jpg", "film.2.jpg", "film.3.jpg"),
    "tar": ("b/x.tar",),
    "table": ("c.parquet",),
    "alone": ("zebra.jpg",),
    "other": ("notes.md",),
}
"""What is added together: files of one sample come at one time."""

LEAN: dict[str, object] = {"tier": Tier.LEAN, "verify": Verification.NONE}
"""Where the pixels are not the point."""


def content(name: str) -> bytes:
    """Return the file of a name: a picture of its own, a tar or a table of two, text."""
    seed = sum(name.encode())
    extension = name.rpartition(".")[2]
    if extension in ("png", "jpg"):
        return workshop.picture(12, 16, "PNG" if extension == "png" else "JPEG", seed=seed)
    if extension == "tar":
        return workshop.tar_of(member for sample in workshop.samples(2, folder="t/") for member in sample.members.items())
    return name.encode()


def put(source: Path, pieces: Iterable[str]) -> None:
    """Add files to a source."""
    for name in (name for piece in pieces for name in PIECES[piece]):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".parquet"):
            workshop.as_parquet(source, workshop.samples(2), name)
        else:
            (source / name).write_bytes(content(name))


def entries(archive: Archive) -> list[tuple[str, Entry]]:
    """Return the entries of an archive's shards, by where they are from, in order: tars and tables by name, loose files not."""
    found = [
        ("" if shard.kind is ShardKind.FILES else shard.name, entry)
        for shard in archive.shards()
        for entry in archive.entries(shard.id)
    ]
    return sorted(found, key=lambda each: (each[0], each[1].key))


@given(st.permutations(sorted(PIECES)), st.lists(st.integers(0, len(PIECES)), min_size=1, max_size=3))
@settings(max_examples=4)
@pytest.mark.slow
def test_rounds_of_additions_are_one_rescale_of_all(
    tmp_path_factory: pytest.TempPathFactory, order: list[str], cuts: list[int]
) -> None:
    """Protects archives that grow: over any rounds, in any order, they hold entry for entry what one rescale of all does."""
    folder = tmp_path_factory.mktemp("grown")
    source = folder / "source"
    rounds = [order[start:stop] for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), len(order)], strict=True)]
    begun = False
    for pieces in rounds:
        put(source, pieces)
        if not begun and not set(pieces) - {"other"}:
            continue
        if not begun:
            workshop.rescale(str(source), folder / "archive", **LEAN)
        grown, compared = workshop.add(str(source), folder / "archive", **LEAN)
        assert not compared.changes
        assert compared.objects_added == (0 if not begun else sum(len(PIECES[piece]) for piece in pieces if piece != "other"))
        begun = True
    whole = workshop.rescale(str(source), folder / "whole", **LEAN)
    assert entries(grown.archive) == entries(whole.archive)
    assert accounted(source, grown.archive)
    assert not workshop.failures(workshop.verify(grown))
    lists = [
        (folder / name / LEFT_OUT).read_text() if (folder / name / LEFT_OUT).exists() else "" for name in ("archive", "whole")
    ]
    assert lists[0] == lists[1]


def accounted(source: Path, archive: Archive) -> bool:
    """Whether each file of a source that can be is in one shard of a plan."""
    planned = [each.key for shard in archive.shards() for each in shard.objects]
    return sorted(planned) == sorted(
        path.relative_to(source).as_posix() for path in source.rglob("*.*") if path.name != "notes.md"
    )


def test_what_is_told_and_what_is_taken_in(tmp_path: Path) -> None:
    """Protects users who trust "all done": new, gone, changed and late objects are listed with the reason; --add takes in the
    new ones alone, and after it only those are new that came since."""
    source, archive = tmp_path / "source", tmp_path / "archive"
    source_of(source, {"a.jpg": PHOTO, "b.jpg": PHOTO, "c.png": PNG, "read.me": b"x"})
    workshop.rescale(str(source), archive)
    job = workshop.job(str(source), archive)
    assert told(archive, compare(job, standing(archive))[1]) == {}
    (source / "b.jpg").unlink()
    source_of(source, {"c.png": PNG + b"behind", "c.txt": b"late", "d.png": PNG, "d.txt": b"text", "film.mp4": b"m"})
    changed = {"b.jpg": "gone", "c.png": "changed", "c.txt": "late sidecar"}
    plain = compare(job, standing(archive))[1]
    assert told(archive, plain) == changed | {"d.png": "new", "d.txt": "new"}
    assert plain.summary()["new_objects"] == "--add takes them in"
    assert left_out(archive) == {"read.me", "film.mp4"}
    grown, added = workshop.add(str(source), archive)
    assert told(archive, added) == changed
    assert (added.objects_added, added.shards_added) == (2, 1)
    assert {entry.key: dict(entry.sidecars) for entry in grown.entries} == {
        "a.jpg": {}, "b.jpg": {}, "c.png": {}, "d.png": {"txt": b"text"}
    }  # fmt: skip
    again, nothing = workshop.add(str(source), archive)
    assert (nothing.objects_added, again.archive.plan) == (0, grown.archive.plan)
    summary = summarise(again.archive)
    assert (summary["shards"], summary["shards_done"], summary["entries"], summary["additions"]) == (2, 2, 4, 1)
    source_of(source, {"b.jpg": PHOTO, "c.png": PNG})
    assert told(archive, compare(job, standing(archive))[1]).keys() == {"b.jpg", "c.png", "c.txt"}, "of other times by now"


def standing(archive: Path) -> Archive:
    return Archive.open(LocalStore(archive))


def told(archive: Path, compared: Compared) -> dict[str, str]:
    """Return what is told of each key in the list of changes, which is as long as the counts say."""
    path = archive / CHANGES
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    assert len(rows) == sum(compared.changes.values())
    assert compared.listed_in == str(path)
    return {row["key"]: row["what"] for row in rows}


def left_out(archive: Path) -> set[str]:
    if not (archive / LEFT_OUT).exists():
        return set()
    return {json.loads(line)["key"] for line in (archive / LEFT_OUT).read_text().splitlines()}


def test_all_files_take_in_what_comes_late(tmp_path: Path) -> None:
    """Protects archives that are copies of their sources: what comes beside a planned image is an entry of its own, and a
    restore has all files, at any round."""
    files = {"a.jpg": PHOTO, "b/c.png": PNG}
    source = source_of(tmp_path / "source", files)
    workshop.rescale(source, tmp_path / "archive", all_files=True)
    later = {"a.txt": b"late", "film.mp4": b"m", ".hidden": b"h", "d.jpg": PHOTO}
    source_of(tmp_path / "source", later)
    grown, compared = workshop.add(source, tmp_path / "archive", all_files=True)
    assert not compared.changes
    assert not grown.failures
    assert not workshop.failures(workshop.restore(grown, tmp_path / "out"))
    assert workshop.written(tmp_path / "out").keys() == files.keys() | later.keys()


@pytest.mark.slow
def test_an_archive_among_its_sources_does_not_add_itself(tmp_path: Path) -> None:
    """Protects `rescale photos photos/small`: its own shards and commits are never new."""
    source = source_of(tmp_path / "photos", {"a.jpg": PHOTO, "small/b.jpg": PHOTO})
    for name, all_files in (("some", False), ("all", True)):
        archive = tmp_path / "photos" / "small" / name
        workshop.rescale(source, archive, all_files=all_files)
        for _ in range(2):
            grown, compared = workshop.add(source, archive, all_files=all_files)
            assert (compared.objects_added, compared.changes, grown.archive.additions) == (0, {}, ())
        assert not [key for key in left_out(archive) if key.startswith(f"small/{name}/")]


def test_what_cannot_be_added_to(tmp_path: Path) -> None:
    """Protects against a misplaced addition: another source, other settings, a source that is gone."""
    source = source_of(tmp_path / "source", {"a/x.jpg": PHOTO, "b.tar": workshop.tar_of([("y.png", PNG)])})
    archive = tmp_path / "archive"
    grown, compared = workshop.add(source, archive)
    assert (grown.archive.plan.shard_count, compared.objects_added) == (2, 0), "where there is none one is begun"
    source_of(tmp_path / "other", {"z.jpg": PHOTO})
    for wrong in (str(tmp_path / "other"), str(tmp_path / "source" / "a"), str(tmp_path / "source" / "none.tar")):
        with pytest.raises(PlanConflict):
            workshop.add(wrong, archive)
    with pytest.raises(PlanConflict):
        workshop.add(source, archive, all_files=True)
    with pytest.raises(InvalidOption, match="no-check-source"):
        workshop.job(source, archive, add=True, check_source=False)
    (tmp_path / "source").rename(tmp_path / "away")
    with pytest.raises(NotFound):
        workshop.add(source, archive)
    gone = compare(workshop.job(source, archive), standing(archive))[1]
    assert set(told(archive, gone).values()) == {"gone"}


def test_what_cannot_be_compared_keeps_no_job_from_its_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects a resume from what lies in the source by now: a table with its images elsewhere is left out and told, and a
    folder that cannot be listed is told, unless the comparison was asked for."""
    source, archive = tmp_path / "source", tmp_path / "archive"
    source.mkdir()
    pq.write_table(pa.table({"picture": [PHOTO]}), source / "a.parquet")
    workshop.rescale(str(source), archive, image_column="picture")
    job = workshop.job(str(source), archive, image_column="picture")
    pq.write_table(pa.table({"left": [PHOTO]}), source / "b.parquet")
    assert told(archive, compare_as_asked(job, standing(archive))[1]) == {}
    assert "--image-column picture" in (archive / LEFT_OUT).read_text()

    def refuse(*_: object) -> None:
        raise AccessDenied(str(source), "Permission denied")

    monkeypatch.setattr("jobs.source_changes.find_source", refuse)
    summary = compare_as_asked(job, standing(archive))[1].summary()
    assert summary.keys() == {"source_not_compared"}
    assert "refuses access" in workshop.sentence(summary["source_not_compared"])
    for asked in ({"check_source": True}, {"add": True}):
        with pytest.raises(AccessDenied):
            compare_as_asked(replace(job, **asked), standing(archive))  # type: ignore[arg-type]


def test_files_of_a_folder_are_added_one_by_one(tmp_path: Path) -> None:
    """Protects archives that began with one file: another of its folder is added by name, and neither misses the others."""
    source = tmp_path / "source"
    for name in ("a.tar", "b.tar", "c.tar"):
        workshop.as_tar(source, workshop.samples(1, folder=name), name)
    archive = tmp_path / "archive"
    workshop.rescale(str(source / "a.tar"), archive)
    job = workshop.job(str(source / "a.tar"), archive)
    assert told(archive, compare(job, standing(archive))[1]) == {}
    grown, compared = workshop.add(str(source / "b.tar"), archive)
    assert ([shard.name for shard in grown.archive.shards()], dict(compared.changes)) == (["a.tar", "b.tar"], {})
    assert workshop.add(str(source / "b.tar"), archive)[1].objects_added == 0
    whole = compare(workshop.job(str(source), archive), standing(archive))[1]
    assert told(archive, whole) == {"c.tar": "new"}
    assert [shard.name for shard in workshop.add(str(source), archive)[0].archive.shards()] == ["a.tar", "b.tar", "c.tar"]


@pytest.mark.slow
def test_a_kill_anywhere_loses_and_doubles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects additions from kills: before each write of one, and before each of what follows; the same command goes on, and
    without --add as well once the addition is made."""
    source = tmp_path / "source"
    put(source, ["cat", "tar"])
    workshop.rescale(str(source), tmp_path / "archive")
    put(source, ["dog", "alone"])
    create, replaced, written = LocalStore.create, LocalStore.replace, 0

    def die_at(store: LocalStore, limit: int) -> None:
        nonlocal written
        written += store.uri.endswith("archive")
        if written > limit:
            raise KeyboardInterrupt

    made: list[int] = []
    for limit in range(20):
        written = 0
        with monkeypatch.context() as patch:
            patch.setattr(LocalStore, "create", lambda *given, at=limit: (die_at(given[0], at), create(*given))[1])
            patch.setattr(LocalStore, "replace", lambda *given, at=limit: (die_at(given[0], at), replaced(*given))[1])
            try:
                workshop.add(str(source), tmp_path / "archive")
            except KeyboardInterrupt:
                made.append(len(standing(tmp_path / "archive").additions))
                continue
        break
    assert made == sorted(made)
    assert set(made) == {0, 1}, "it was killed on either side"
    grown = workshop.rescale_left(workshop.begin(str(source), tmp_path / "archive"))
    assert [len(each) for each in grown.archive.additions] == [1]
    assert accounted(source, grown.archive)
    assert accounted_for(str(source), str(tmp_path / "archive")).entries == len(grown.entries) == 5


@pytest.mark.s3
def test_two_that_add_at_once_take_in_everything_once(
    tmp_path: Path, s3_bucket: str, s3_server: SeaweedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects nightly jobs that overlap, on object storage: of two that have seen different listings one comes first, the
    other adds what is left, and each object is planned once and rescaled once."""

    def upload(*names: str) -> None:
        for name in names:
            tar = workshop.tar_of(member for sample in workshop.samples(1, folder=name) for member in sample.members.items())
            s3_server.client.put_object(Bucket=s3_bucket.removeprefix("s3://"), Key=f"source/{name}.tar", Body=tar)

    upload("a")
    (tmp_path / "weights").write_bytes(workshop.weights())
    source, uri = f"{s3_bucket}/source", f"{s3_bucket}/archive"
    job = replace(workshop.job(source, tmp_path / "x", add=True), archive=uri, weights=tmp_path / "weights")
    assert standing_archive(job) is None
    workshop.rescale_left(begin_archive(job))
    upload("b", "c")
    met, seen = threading.Barrier(2), threading.local()
    make = additions.create_addition

    def together(*given: object) -> None:
        if not getattr(seen, "met", False):
            seen.met = True
            if threading.current_thread().name == "second":
                met.wait(GUARD)
                met.wait(GUARD)
            else:
                met.wait(GUARD)
                upload("d")  # which only the loser's second listing has
                make(*given)  # type: ignore[arg-type]
                met.wait(GUARD)
                return
        make(*given)  # type: ignore[arg-type]

    monkeypatch.setattr("pipeline.archives.archive.create_addition", together)
    found: dict[str, Compared] = {}

    def run() -> None:
        standing = standing_archive(job)
        assert standing is not None
        grown, found[threading.current_thread().name] = compare(job, standing)
        workshop.rescale_left(grown)

    threads = [threading.Thread(target=run, name=name) for name in ("first", "second")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: each.objects_added for name, each in found.items()} == {"first": 2, "second": 1}
    archive = Archive.open(open_store(uri))
    assert [shard.name for shard in archive.shards()] == ["a.tar", "b.tar", "c.tar", "d.tar"]
    assert accounted_for(source, uri, sample=1).entries == 4


@pytest.mark.slow
@pytest.mark.parametrize("output", list(OutputKind))
def test_a_restore_goes_on_with_what_was_added(tmp_path: Path, output: OutputKind) -> None:
    """Protects destinations that are kept up to date: the same restore writes what was added since, beside what it wrote."""
    source = tmp_path / "source"
    put(source, ["cat", "tar", "table"])
    first = workshop.rescale(str(source), tmp_path / "archive", **LEAN)
    assert not workshop.failures(workshop.restore(first, tmp_path / "out", output=output))
    before = workshop.written(tmp_path / "out")
    put(source, ["dog", "alone", "frames"])
    workshop.as_tar(source, workshop.samples(1), "c.tar")  # as the table is called
    grown, _ = workshop.add(str(source), tmp_path / "archive", **LEAN)
    worker = workshop.restorer(grown, tmp_path / "out", output=output)
    assert worker.digest == workshop.restorer(first, tmp_path / "out", output=output).digest
    assert not workshop.failures(workshop.restore(grown, tmp_path / "out", output=output))
    after = workshop.written(tmp_path / "out")
    assert before.items() <= after.items()
    assert not workshop.failures(workshop.restore(grown, tmp_path / "anew", output=output))
    assert workshop.written(tmp_path / "anew") == after
    names = [shard.name for shard in named_outputs(grown.archive.shards(), grown.archive.begun_shards)]
    assert names == ["b/x", "c", "000000002-cat", "000000003-c", "000000004-a"]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["source", "png", "webp"])
def test_a_name_that_an_entry_has_by_itself_is_given_to_no_other_later(tmp_path: Path, form: str) -> None:
    """Protects whoever looks for same.png: also where it was added after same.gif, and the other way round, names are those
    that one rescale of all would have given."""
    whole = workshop.rescale(source_of(tmp_path / "source", SAME), tmp_path / "whole", **LEAN)
    assert not workshop.failures(workshop.restore(whole, tmp_path / "expected", format=form))
    expected = workshop.written(tmp_path / "expected").keys()
    for seed in range(4):
        names = random.Random(seed).sample([name for name in SAME if name != "same.txt"], len(SAME) - 1)
        folder = tmp_path / str(seed)
        source_of(folder / "source", {name: SAME[name] for name in names[:3]})
        workshop.rescale(str(folder / "source"), folder / "archive", **LEAN)
        for part in (names[3:5], names[5:]):
            source_of(folder / "source", {name: SAME[name] for name in part})
            grown, compared = workshop.add(str(folder / "source"), folder / "archive", **LEAN)
            assert not compared.changes
        assert not workshop.failures(workshop.restore(grown, folder / "out", format=form))
        assert workshop.written(folder / "out").keys() == expected - {"same.txt"}


def test_readers_see_what_was_added(tmp_path: Path) -> None:
    """Protects Python and the service: an archive opened after an addition has its entries by key, by figures and in lists,
    and one that is open when it is refreshed."""
    source = tmp_path / "source"
    put(source, ["cat", "tar"])
    workshop.rescale(str(source), tmp_path / "archive")
    reader = open_archive(str(tmp_path / "archive"))
    assert len(reader) == 3
    put(source, ["alone"])
    grown, _ = workshop.add(str(source), tmp_path / "archive")
    assert "zebra.jpg" not in reader
    reader.refresh()
    assert len(reader) == 4
    assert reader["zebra.jpg"].record == grown.entries[-1]
    assert reader.digest == grown.archive.digest
    with closing(Shelf("small", str(tmp_path / "archive"))) as shelf:
        shelf.catalogue.begin()
        listed = shelf.list(Filter(), after="", limit=10, seconds=GUARD)
        assert listed["total"] == shelf.describe()["entries"] == 4
        assert "zebra.jpg" in [each["key"] for each in listed["assets"]]


@pytest.mark.slow
def test_a_driver_of_before_an_addition_ends_well(tmp_path: Path) -> None:
    """Protects a job under way: another may add to its archive meanwhile; both do what they know of, and each shard is done
    once."""
    source = tmp_path / "source"
    put(source, ["cat", "tar"])
    earlier = workshop.begin(str(source), tmp_path / "archive")
    worker = workshop.rescaler(earlier)
    shards: list[SourceShard] = list(earlier.shards())
    worker.run(shards[0])
    put(source, ["dog"])
    later, _ = workshop.add(str(source), tmp_path / "archive")
    worker.run(shards[1])
    assert len(later.reports) == 3
    assert [commit.shard_id for commit in later.archive.commits()] == [shard.id for shard in later.archive.shards()]
    assert asdict(worker.run(shards[1])) == asdict(later.reports[1])
    assert accounted_for(str(source), str(tmp_path / "archive")).entries == 4
