"""Whole commands: what they write, list and say, and the status they end with; one of each kind with actors of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support import workshop
from tests.support.in_process import iarn
from tests.support.workshop import sentence

on_ray = pytest.mark.usefixtures("ray_cluster")

ONE = ("--actors", "1")
"""Enough for what these tests protect; each actor loads PyTorch."""


@on_ray
def test_rescale_writes_lists_and_resumes(tmp_path: Path, weights: Path) -> None:
    """Protects the main command: entries are written, what failed is listed in the log and the archive, and doing it again
    does nothing and says the same."""
    samples = workshop.samples(3)
    samples[1] = workshop.Sample(key="001.jpg", data=b"no picture")
    source = workshop.as_tar(tmp_path / "source", samples)
    command = ("rescale", source, tmp_path / "archive", "--scale", "2", "--weights", weights, "--json")
    first = iarn(*command)
    assert first.status == 1
    assert first.event("start")["shards"] == 1
    assert first.event("shard")["entries"] == 3
    assert first.event("failure")["key"] == "001.jpg"
    listed = [json.loads(line) for line in (tmp_path / "archive" / "failures.jsonl").read_text().splitlines()]
    assert [(row["shard_id"], row["key"]) for row in listed] == [("000000000-photos", "001.jpg")]
    shutil.rmtree(source)
    again = iarn(*command)
    assert again.status == 1
    assert not [event for event in again.events if event["event"] == "shard"]
    ends = [outcome.event("end") for outcome in (first, again)]
    assert [end["entries"] for end in ends] == [3, 3]
    assert ends[0]["failures_listed_in"] == ends[1]["failures_listed_in"] == f"{tmp_path}/archive/failures.jsonl"


@pytest.mark.slow
@pytest.mark.usefixtures("actors_here")
def test_a_quarantined_shard_is_status_1_until_it_is_done(tmp_path: Path, weights: Path) -> None:
    """Protects the exit status: a shard that cannot be had is listed with its reason; once it can, the list is empty."""
    source = Path(workshop.as_tar(tmp_path / "source", workshop.samples(2)))
    command = ("rescale", source, tmp_path / "archive", "--scale", "2", "--weights", weights)
    workshop.begin(str(source), tmp_path / "archive", pixel_limit=512_000_000, max_ratio=1.0)
    (source / "photos.tar").rename(tmp_path / "away")
    missing = iarn(*command)
    assert missing.status == 1
    reason = missing.event("quarantined")["reason"]
    assert "photos.tar does not exist" in reason
    assert reason in json.loads((tmp_path / "archive" / "failures.jsonl").read_text())["reason"]
    (tmp_path / "away").rename(source / "photos.tar")
    done = iarn(*command)
    assert done.status == 0, done.err
    assert (tmp_path / "archive" / "failures.jsonl").read_text() == ""


@on_ray
def test_verify_of_a_sound_archive(standing: str) -> None:
    """Protects trust in `verify`: what was just written is whole, and its restores are compared with the source."""
    outcome = iarn("verify", standing, "--sample", "1", *ONE)
    assert outcome.status == 0, outcome.err
    end = outcome.event("end")
    assert (end["entries"], end["restores_compared_with_source"], end["shards_not_done"]) == (12, 11, 0)


@pytest.mark.slow
@pytest.mark.usefixtures("actors_here")
def test_verify_finds_damage(tmp_path: Path) -> None:
    """Protects archives over years: a flipped byte, a shard that is gone and one that was never done are each told."""
    archive = Path(workshop.three_tars(tmp_path))
    shard = archive / "shards" / "000000000-a.parquet"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    (archive / "shards" / "000000001-b.parquet").unlink()
    (archive / "commits" / "000000" / "000000002-c.json").unlink()
    outcome = iarn("verify", archive, "--sample", "0", *ONE)
    assert outcome.status == 1
    failures = {event["shard"]: event["reason"] for event in outcome.events if event["event"] == "failure"}
    assert "000000000-a.parquet is damaged" in failures["000000000-a"]
    assert "000000001-b.parquet does not exist" in failures["000000001-b"]
    assert outcome.event("end")["shards_not_done"] == 1


@pytest.mark.slow
@pytest.mark.usefixtures("actors_here")
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            ["--keys", "KEYS"],
            [f"{stem}.{end}" for stem, form in (("a/a/000", "png"), ("c/c/003", "tif")) for end in (form, "txt", "cls.json")],
        ),
        (["--glob", "b/*", "--to", "tar", "--lr"], ["b.tar", "names.tsv"]),
        (["--shard", "000000002-c", "--to", "parquet", "--format", "png"], ["c.parquet", "names.tsv"]),
    ],
    ids=["keys", "glob", "shard"],
)
def test_restore_of_a_selection(tmp_path: Path, standing: str, options: list[str], expected: list[str]) -> None:
    """Protects users who want some images: keys from a file, a glob or a shard, nothing else, and a key that is not there
    is told."""
    (tmp_path / "keys.txt").write_text("a/000.png\r\n\nc/003.tif\nx/none.png\n")
    given = [str(tmp_path / "keys.txt") if option == "KEYS" else option for option in options]
    outcome = iarn("restore", standing, tmp_path / "out", *given, *ONE)
    assert outcome.status == (1 if options[0] == "--keys" else 0), outcome.err
    assert sorted(workshop.written(tmp_path / "out")) == sorted(expected)
    end = outcome.event("end")
    assert end.get("names_changed", 0) == {"--keys": 0, "--glob": 3, "--shard": 3}[options[0]]
    assert end["entries"] == (2 if options[0] == "--keys" else 4)
    assert end.get("keys_not_found") == ("1: x/none.png" if options[0] == "--keys" else None)


@pytest.mark.slow
@pytest.mark.usefixtures("actors_here")
def test_a_selection_of_nothing_is_told(tmp_path: Path, standing: str) -> None:
    """Protects against an empty folder taken for a success."""
    outcome = iarn("restore", standing, tmp_path / "out", "--glob", "none/*")
    assert outcome.status == 2
    assert "No entry of" in outcome.err.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.usefixtures("actors_here")
def test_a_start_that_fails_is_status_3(tmp_path: Path, standing: str) -> None:
    """Protects the exit status: what an actor cannot start with ends the job with the actor's own sentence."""
    copy = tmp_path / "copy"
    shutil.copytree(standing, copy)
    (model,) = (copy / "model").iterdir()
    model.unlink()
    for arguments, words in (
        (("restore", copy, tmp_path / "out"), "the archive lacks its model"),
        (("restore", standing, tmp_path / "out", "--device", "cuda"), "no node of the cluster has a GPU"),
        (("restore", standing, tmp_path / "out", "--device", "abacus"), "no such kind of device"),
        (("verify", standing, "--actors", "50"), "The job asks for 50 actors"),
        (("verify", standing, "--gpus-per-actor", "1"), "0 GPUs"),
    ):
        outcome = iarn(*arguments)
        assert outcome.status == 3, arguments
        assert words in sentence(outcome.err.splitlines()[-1])
