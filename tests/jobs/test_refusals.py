"""What the commands refuse: one sentence, the right status, and nothing made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support import workshop
from tests.support.in_process import refused
from tests.support.seaweed import SECRET_KEY


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--scale", "0"], "--scale 0: give a number from 1"),
        (["--scale", "0.5"], "--scale 0.5: give a number from 1"),
        (["--scale", "nan"], "--scale nan: give a number from 1"),
        (["--scale", "3x"], "--scale 3x: give a number from 1"),
        (["--scale", "2x3x4"], "--scale 2x3x4: give a number from 1"),
        (["--scale", "256.5"], "--scale 256.5: 256 is the largest scale per axis"),
        (["--size", "640"], "--size 640: give width x height"),
        (["--max-side", "1 km"], "--max-side 1 km: give a count of pixels"),
        ([], "give one of --scale, --max-side, --max-pixels, --size"),
        (["--scale", "2", "--max-side", "9"], "give one of --scale, --max-side, --max-pixels, --size"),
        (["--scale", "2", "--pixel-limit", "0"], "--pixel-limit 0: give a count of pixels from 1"),
        (["--scale", "2", "--actors", "0"], "--actors 0: give a number from 1"),
    ],
)
def test_a_senseless_rescale_is_refused(tmp_path: Path, weights: Path, options: list[str], words: str) -> None:
    """Protects the user from a job that does what nobody meant: one sentence, status 2, and nothing is made."""
    source = workshop.as_folder(tmp_path / "source", workshop.samples(1))
    assert words in refused(2, "rescale", source, tmp_path / "archive", "--weights", weights, *options)
    assert not (tmp_path / "archive").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--scale", "0"], "--scale 0.0: give a number above 0"),
        (["--scale", "nan"], "--scale nan: give a number above 0"),
        (["--max-side", "0"], "--max-side 0: give a count of pixels"),
        (["--scale", "2", "--max-side", "9"], "give --scale or --max-side, not both"),
        (["--format", "gif"], "--format gif: give one of source, png, jpeg, webp"),
        (["--to", "zip"], "--to zip: give one of files, tar, parquet"),
        (["--quality", "101"], "--quality 101: give 1 to 100"),
        (["--shard", "nine"], "--shard nine: `iarn inspect"),
        (["--keys", "/nowhere"], "--keys /nowhere: it cannot be read"),
        (["--window", "0"], "--window 0: give a number from 1"),
    ],
)
def test_a_senseless_restore_is_refused(tmp_path: Path, standing: str, options: list[str], words: str) -> None:
    """Protects the user from a restore that does what nobody meant."""
    assert words in refused(2, "restore", standing, tmp_path / "out", *options)


def test_a_restore_of_an_archive_without_a_finished_shard_is_refused(tmp_path: Path) -> None:
    """Protects whoever restores too early: no selection is blamed, and nothing is started for it."""
    source = workshop.as_folder(tmp_path / "source", workshop.samples(1))
    archive = workshop.begin(source, tmp_path / "archive")
    assert "is written yet" in refused(2, "restore", archive.store.uri, tmp_path / "out")


def test_a_source_that_is_missing_or_empty_leaves_nothing(tmp_path: Path, weights: Path) -> None:
    """Protects against an archive of nothing: a sentence, and no folder made."""
    options = (tmp_path / "archive", "--scale", "2", "--weights", weights)
    assert "does not exist" in refused(3, "rescale", tmp_path / "nowhere", *options)
    (tmp_path / "empty").mkdir()
    assert "holds no image" in refused(2, "rescale", tmp_path / "empty", *options)
    assert "cannot be used" in refused(3, "rescale", tmp_path / "empty", *options[:3], "--weights", tmp_path / "no-weights")
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    assert "its digest is" in refused(3, "rescale", tmp_path / "empty", *options)
    assert not (tmp_path / "archive").exists()


@pytest.mark.slow
def test_a_destination_that_cannot_be_written_is_told(tmp_path: Path, weights: Path, standing: str) -> None:
    """Protects against a traceback where a disk is read-only or a file is in the way."""
    source = workshop.as_folder(tmp_path / "source", workshop.samples(1))
    (tmp_path / "file").write_text("in the way")
    for place, status, words in (("/sys/iarn", 3, "refuses access"), (tmp_path / "file", 2, "is a file")):
        assert words in refused(status, "rescale", source, place, "--scale", "2", "--weights", weights)
        assert words in refused(status, "restore", standing, place)
    assert refused(3, "train", source, "--out", tmp_path / "file" / "run")


def test_other_settings_for_an_archive_are_a_conflict(standing: str, weights: Path) -> None:
    """Protects an archive: a second command that means something else is refused and says where it differs."""
    source = Path(standing).parent / "source"
    words = refused(2, "rescale", source, standing, "--scale", "3", "--tier", "lean", "--weights", weights)
    assert "tier balanced, not lean" in words
    assert "scale 2x2, not scale 3x3" in words
    assert "source " in refused(2, "rescale", Path(standing).parent, standing, "--scale", "2", "--weights", weights)


def test_an_archive_has_a_folder_of_its_own(tmp_path: Path) -> None:
    """Protects sources and archives: no archive is made among the pictures it is of, and none is restored into itself."""
    source = workshop.as_folder(tmp_path / "source", workshop.samples(1))
    before = sorted(Path(source).rglob("*"))
    assert "it is the folder of the source; give one of its own" in refused(2, "rescale", source, source, "--scale", 2)
    assert sorted(Path(source).rglob("*")) == before
    archive = workshop.begin(source, tmp_path / "archive").store.uri
    assert "it is the archive itself; give a folder of its own" in refused(2, "restore", archive, archive)


def test_what_is_no_archive_is_told(tmp_path: Path, standing: str) -> None:
    """Protects against confusion: a folder without a plan, one of another version, one whose plan or model is broken."""
    (tmp_path / "folder").mkdir()
    for command in (["inspect"], ["verify"], ["restore"]):
        more = [tmp_path / "out"] if command == ["restore"] else []
        assert "is not an archive" in refused(3, *command, tmp_path / "folder", *more)
    copy = tmp_path / "copy"
    shutil.copytree(standing, copy)
    plan = json.loads((copy / "plan.json").read_text())
    (copy / "plan.json").write_text(json.dumps(plan | {"format_version": 9}))
    assert "has format version 9; this program reads 3" in refused(3, "inspect", copy)
    (copy / "plan.json").write_text("{")
    assert "is damaged" in refused(3, "inspect", copy)
    shutil.copy(Path(standing) / "plan.json", copy)
    (model,) = (copy / "model").iterdir()
    model.write_bytes(model.read_bytes()[:-1] + b"\0")
    assert "is damaged: SHA-256" in refused(3, "verify", copy)
    model.unlink()
    assert "lacks its model" in refused(3, "verify", copy)


@pytest.mark.s3
def test_buckets_that_are_missing_or_refuse(
    s3_bucket: str, tmp_path: Path, weights: Path, standing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects users of object storage: a missing bucket and refused credentials are one sentence, without the secret."""
    source = workshop.as_folder(tmp_path / "source", workshop.samples(1))
    options = ("--scale", "2", "--weights", weights)
    assert "does not exist" in refused(3, "rescale", "s3://no-such-bucket/a", tmp_path / "archive", *options)
    assert "does not exist" in refused(3, "rescale", source, "s3://no-such-bucket/a", *options)
    assert "holds no image" in refused(2, "rescale", f"{s3_bucket}/nothing", tmp_path / "archive", *options)
    assert "does not exist" in refused(3, "inspect", "s3://no-such-bucket/a")
    assert "is not an archive" in refused(3, "inspect", f"{s3_bucket}/nothing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY + "-wrong")
    for arguments in (("rescale", s3_bucket, tmp_path / "archive", *options), ("restore", standing, f"{s3_bucket}/out")):
        words = refused(3, *arguments)
        assert "the credentials are refused" in words
        assert SECRET_KEY not in words
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    words = refused(3, "inspect", s3_bucket)
    assert "no credentials were found" in words
    assert "--archive-access" in words
    assert "leave it out" in refused(2, "rescale", source, tmp_path / "archive", *options, "--source-access", "unsigned")
    assert "leave it out" in refused(2, "inspect", standing, "--archive-access", "requester-pays")
