"""The same command again: it says which plan is done and what changed in the source, and takes in what is new if asked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.rescale import begin_archive, standing_archive
from jobs.source_changes import compare, listing_of
from pipeline.stores.store import Access
from tests.support import workshop
from tests.support.in_process import iarn, refused
from tests.support.seaweed import SeaweedServer


def options(weights: Path) -> tuple[str | Path, ...]:
    """Return the options that an archive of ``workshop.rescale`` was begun with."""
    return ("--scale", "2", "--max-ratio", "inf", "--pixel-limit", "1000000", "--weights", weights, "--json", "--actors", "1")


@pytest.mark.slow
@pytest.mark.usefixtures("actors_here")
def test_a_growing_folder_is_told_added_and_restored(tmp_path: Path, weights: Path) -> None:
    """Protects a user from "all done" with files that are nowhere: the command says which plan is done, counts and lists what
    changed, and ends with 1; with --add what is new is rescaled, and restores go on with it."""
    source, archive, out = tmp_path / "source", tmp_path / "archive", tmp_path / "out"
    workshop.as_folder(source, workshop.samples(2))
    command = ("rescale", source, archive, *options(weights))
    first = iarn(*command, "--add")
    assert first.status == 0, first.err
    assert "source_changes" not in first.event("end"), "it was listed a moment ago"
    again = iarn(*command)
    assert again.status == 0, again.err
    end = again.event("end")
    assert end["plan"].startswith("begun 20")
    assert end["plan"].endswith(f"from {source}: 1 shards")
    assert end["source_changes"] == {}
    assert iarn("restore", archive, out).status == 0
    workshop.as_tar(source, workshop.samples(3, folder="t/"), "later.tar")
    (source / "002.png").write_bytes(workshop.picture(20, 30))
    (source / "000.notes.txt").write_text("late")
    (source / "001.txt").unlink()
    told = iarn(*command)
    assert told.status == 1
    end = told.event("end")
    assert end["source_changes"] == {"new": 2, "late sidecar": 1, "gone": 1}
    assert end["source_changes_listed_in"] == f"{archive}/source-changes.jsonl"
    rows = [json.loads(line) for line in (archive / "source-changes.jsonl").read_text().splitlines()]
    assert {row["key"]: row["what"] for row in rows} == {
        "002.png": "new", "later.tar": "new", "000.notes.txt": "late sidecar", "001.txt": "gone"
    }  # fmt: skip
    report = json.loads((archive / "report.json").read_text())
    assert report["source"]["changes"] == end["source_changes"]
    assert (report["plan"]["shards"], report["plan"]["shards_added"]) == (1, 0)
    silent = iarn(*command, "--no-check-source")
    assert silent.status == 0, silent.err
    assert "--check-source" in silent.event("end")["source_not_compared"]
    added = iarn(*command, "--add")
    assert added.status == 1, "what is late and what is gone is so still"
    end = added.event("end")
    assert (end["objects_added"], end["shards_added"], end["entries"]) == (2, 2, 6)
    assert end["source_changes"] == {"late sidecar": 1, "gone": 1}
    assert end["plan"].endswith("3 shards, 2 of them added since")
    (source / "000.notes.txt").unlink()
    workshop.as_folder(source, workshop.samples(2))
    assert iarn(*command).event("end")["source_changes"] == {"changed": 6}, "they have other times"
    restored = iarn("restore", archive, out, "--actors", "1")
    assert restored.status == 0, restored.err
    assert restored.event("end")["entries"] == 6
    assert len([event for event in restored.events if event["event"] == "shard"]) == 2
    assert {"002.png", "later/t/000.png", "000.png", "001.txt"} <= workshop.written(out).keys()
    summary = json.loads(iarn("inspect", archive, "--json").out)
    assert (summary["shards"], summary["shards_done"], summary["additions"], summary["entries"]) == (3, 3, 1, 6)
    assert [json.loads(line)["shard"] for line in iarn("inspect", archive, "--shards", "--json").out.splitlines()][1:] == [
        "000000001-later",
        "000000002-002",
    ]
    verified = iarn("verify", archive, "--sample", "1", "--actors", "1")
    assert verified.status == 0, verified.err
    assert verified.event("end")["entries"] == 6


@pytest.mark.s3
def test_a_bucket_is_compared_where_asked(tmp_path: Path, s3_bucket: str, s3_server: SeaweedServer, weights: Path) -> None:
    """Protects large buckets from a listing that nobody asked for, and their users from taking silence for none: the summary
    says that nothing was compared; with --check-source it is, and the status tells."""

    def upload(name: str) -> None:
        tar = workshop.tar_of(workshop.samples(1)[0].members.items())
        s3_server.client.put_object(Bucket=s3_bucket.removeprefix("s3://"), Key=f"source/{name}.tar", Body=tar)

    upload("a")
    source, archive = f"{s3_bucket}/source", f"{s3_bucket}/archive"
    job = workshop.job(source, tmp_path / "x")
    workshop.rescale_left(begin_archive(replace(job, archive=archive)))
    command = ("rescale", source, archive, *options(weights))
    upload("b")
    plain = iarn(*command)
    assert plain.status == 0, plain.err
    assert "source_changes" not in plain.event("end")
    assert "--check-source" in plain.event("end")["source_not_compared"]
    asked = iarn(*command, "--check-source")
    assert asked.status == 1
    assert asked.event("end")["source_changes"] == {"new": 1}
    listed = s3_server.client.get_object(Bucket=s3_bucket.removeprefix("s3://"), Key="archive/source-changes.jsonl")
    assert json.loads(listed["Body"].read())["key"] == "b.tar"
    s3_server.client.delete_object(Bucket=s3_bucket.removeprefix("s3://"), Key="source/b.tar")
    again = iarn(*command, "--check-source")
    assert again.status == 0, again.err
    assert again.event("end")["source_changes"] == {}


def test_an_addition_without_a_look_is_refused(tmp_path: Path, weights: Path) -> None:
    """Protects users from options that cannot both be meant."""
    text = refused(2, "rescale", tmp_path, tmp_path / "x", *options(weights), "--add", "--no-check-source")
    assert "--no-check-source with --add" in text


def test_a_source_is_listed_again_as_it_was_first(tmp_path: Path) -> None:
    """Protects public buckets: a comparison, and what is added, asks as the first listing did."""
    job = workshop.job("s3://public/photos", tmp_path / "archive", all_files=True, source_access=Access.UNSIGNED)
    with listing_of(job, lambda *_: None) as listing:
        assert (listing.access, listing.all_files, listing.sniff) == (Access.UNSIGNED, True, None)


def test_an_archive_of_one_file_goes_on_by_its_name_after_an_addition(tmp_path: Path) -> None:
    """Protects "the same command resumes" where the source is a file: another that was added since does not make it another."""
    for number in range(2):
        workshop.as_tar(tmp_path / "t", workshop.samples(1), f"{number}.tar")
    first = workshop.job(str(tmp_path / "t/0.tar"), tmp_path / "archive")
    second = replace(first, source=str(tmp_path / "t/1.tar"), add=True)
    begin_archive(first)
    archive = standing_archive(second)
    assert archive is not None
    assert compare(second, archive)[0].plan.shard_count == 2
    for again in (first, second, replace(second, add=False)):
        assert standing_archive(again) is not None
