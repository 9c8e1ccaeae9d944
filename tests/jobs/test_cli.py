"""The command line in this process: its surface, its sentences and statuses, and what it prints of an archive."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from jobs.cli import app
from tests.support import workshop
from tests.support.commands import Logged
from tests.support.seaweed import SECRET_KEY
from tests.support.workshop import sentence


@dataclass(frozen=True)
class Outcome(Logged):
    """What a command came to."""

    status: int
    out: str
    err: str


def iarn(*arguments: object) -> Outcome:
    """Run a command here; an exception that gets through it is raised."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert "Traceback" not in result.stderr
    return Outcome(result.exit_code, result.stdout, result.stderr)


def refused(status: int, *arguments: object) -> str:
    """Run a command that has to be refused with ``status``; return its one sentence."""
    outcome = iarn(*arguments)
    assert outcome.status == status, outcome.err
    assert outcome.out == ""
    return sentence(outcome.err.removesuffix("\n").removeprefix("iarn: "))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A weights file of a small network."""
    path = tmp_path / "weights.safetensors"
    path.write_bytes(workshop.weights())
    return path


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An archive of three tars of four assets, one of which is damaged; only read."""
    return built(tmp_path_factory.mktemp("standing"))


def built(folder: Path) -> str:
    """Return the URI of such an archive, newly made in ``folder``."""
    for part in "abc":
        samples = workshop.samples(4, folder=f"{part}/")
        if part == "b":
            samples[1] = workshop.Sample(key="b/001.jpg", data=b"no picture", sidecars={"txt": b"caption"})
        workshop.as_tar(folder / "source", samples, f"{part}.tar")
    return workshop.rescale(str(folder / "source"), folder / "archive").uri


POOL = ["--actors", "--address", "--attempts", "--cpus-per-actor", "--device", "--gpus-per-actor", "--json", "--may-grow"]
POOL += ["--stall-minutes", "--window"]

SURFACE = {
    "rescale": [
        "source",
        "archive",
        *POOL,
        *[
            "--image-column",
            "--lr-codec",
            "--max-pixels",
            "--max-side",
            "--pixel-limit",
            "--scale",
            "--size",
            "--tier",
            "--verify",
        ],
        *["--effort", "--floor", "--floor-metric", "--max-ratio", "--weights"],
    ],
    "restore": [
        "archive",
        "destination",
        *POOL,
        *["--format", "--glob", "--keys", "--latent", "--lr", "--max-side", "--no-latent", "--quality", "--scale", "--shard"],
        "--to",
    ],
    "inspect": ["archive", "key", "--entries", "--json", "--shards"],
    "report": ["archive", "--device", "--json", "--out", "--sample", "--worst"],
    "serve": [
        *["archives", "--address", "--cache-mb", "--cpus-per-replica", "--device", "--gpus-per-replica", "--host"],
        *["--largest-side", "--max-pixels", "--max-replicas", "--port", "--queue", "--replicas", "--seconds", "--token-file"],
    ],
    "verify": ["archive", *POOL, "--sample", "--seed"],
    "submit": [
        *["command", "arguments", "--address", "--detach", "--metadata", "--runtime-env"],
        *["--entrypoint-cpus", "--entrypoint-memory", "--entrypoint-resource"],
    ],
    "jobs": ["job_id", "--address", "--json", "--stop"],
    "train": [
        "sources",
        "--address",
        "--batch",
        "--compile",
        "--config",
        "--device",
        "--eval",
        "--eval-steps",
        "--from",
        "--no-compile",
        "--out",
        "--precision",
        "--save-seconds",
        "--seed",
        "--steps",
        "--workers",
    ],
    "evaluate": ["images", "--cycles", "--device", "--effort", "--json", "--scales", "--weights"],
}


def commands() -> dict[str, Any]:
    """Return the commands by name, as click's own objects."""
    group: Any = typer.main.get_command(app)
    return dict(group.commands)


def test_the_surface_is_pinned() -> None:
    """Protects users' scripts: commands, arguments and options are these, and another is added on purpose."""
    found = {
        name: [
            *(parameter.name for parameter in command.params if parameter.param_type_name == "argument"),
            *(
                flag
                for parameter in command.params
                if parameter.param_type_name == "option"
                for flag in (*parameter.opts, *parameter.secondary_opts)
            ),
        ]
        for name, command in commands().items()
    }
    assert {name: sorted(names) for name, names in found.items()} == {name: sorted(names) for name, names in SURFACE.items()}


def test_help_is_the_manual() -> None:
    """Protects `iarn --help`: every command says what it does, every option what it is for."""
    for command in commands().values():
        assert command.help
        assert all(getattr(parameter, "help", None) for parameter in command.params), command.name
    assert iarn("--help").status == 0
    assert "--max-pixels" in iarn("rescale", "-h").out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--scale", "0"], "--scale 0: give a number from 1"),
        (["--scale", "0.5"], "--scale 0.5: give a number from 1"),
        (["--scale", "nan"], "--scale nan: give a number from 1"),
        (["--scale", "3x"], "--scale 3x: give a number from 1"),
        (["--scale", "2x3x4"], "--scale 2x3x4: give a number from 1"),
        (["--scale", "4.5"], "--scale 4.5: 4 is the largest scale per axis"),
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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rescale", "a", "b", "--skale", "2"], "No such option: --skale"),
        (["reskale", "a"], "No such command 'reskale'"),
        (["rescale"], "Missing argument"),
        (["verify", "a", "--seed", "x"], "Invalid value for '--seed'"),
    ],
)
def test_an_unknown_option_or_command_is_a_usage_error(arguments: list[str], words: str) -> None:
    """Protects against a typo that becomes a default: status 2, and the word that was not understood."""
    outcome = iarn(*arguments)
    assert outcome.status == 2
    assert words in " ".join(outcome.err.replace("│", " ").split())


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
    assert "AWS_ACCESS_KEY_ID" in refused(3, "inspect", s3_bucket)


def test_inspect_tells_what_is_there(standing: str) -> None:
    """Protects the user's view of an archive: totals, shards, entries and one entry, as text and as JSON."""
    summary = json.loads(iarn("inspect", standing, "--json").out)
    assert (summary["shards"], summary["shards_done"], summary["entries"], summary["originals"]) == (3, 3, 12, 1)
    assert (summary["failures"], summary["target"], summary["tier"]) == (1, "scale 2x2", "balanced")
    assert "scale 2x2" in iarn("inspect", standing).out
    shards = [json.loads(line) for line in iarn("inspect", standing, "--shards", "--json").out.splitlines()]
    assert [row["name"] for row in shards] == ["a.tar", "b.tar", "c.tar"]
    assert "000000001-b  tar  b.tar  4 entries" in iarn("inspect", standing, "--shards").out
    entries = [json.loads(line) for line in iarn("inspect", standing, "--entries", "--json").out.splitlines()]
    assert [row["key"] for row in entries][3:6] == ["a/003.tif", "b/000.png", "b/001.jpg"]
    assert "b/001.jpg  original  10 B  cannot be decoded" in iarn("inspect", standing, "--entries").out
    entry = json.loads(iarn("inspect", standing, "c/002.webp", "--json").out)
    assert (entry["shard"], entry["source"]["width"], entry["lr"]["width"]) == ("000000002-c", 29, 15)
    assert entry["sidecars"] == {"cls.json": 12, "txt": 9}
    assert "c/002.webp" in iarn("inspect", standing, "c/002.webp").out
    assert "No entry of" in refused(2, "inspect", standing, "c/nothing.png")


def test_inspect_of_an_unfinished_archive(tmp_path: Path, standing: str) -> None:
    """Protects against a shard without its commit being taken for done: it is neither listed nor counted."""
    copy = tmp_path / "copy"
    shutil.copytree(standing, copy)
    (copy / "commits" / "000000" / "000000001-b.json").unlink()
    summary = json.loads(iarn("inspect", copy, "--json").out)
    assert (summary["shards"], summary["shards_done"], summary["entries"]) == (3, 2, 8)
    assert "000000001-b  tar  b.tar  not done" in iarn("inspect", copy, "--shards").out
    assert len(iarn("inspect", copy, "--entries").out.splitlines()) == 8
    (copy / "shards" / "000000002-c.parquet").unlink()
    outcome = iarn("inspect", copy, "--entries")
    assert outcome.status == 3
    assert "000000002-c.parquet does not exist" in outcome.err


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
class TestJobs:
    """Whole jobs on the Ray of these tests."""

    def test_rescale_writes_lists_and_resumes(self, tmp_path: Path, weights: Path) -> None:
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

    def test_a_quarantined_shard_is_status_1_until_it_is_done(self, tmp_path: Path, weights: Path) -> None:
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

    def test_verify_of_a_sound_archive(self, standing: str) -> None:
        """Protects trust in `verify`: what was just written is whole, and its restores are compared with the source."""
        outcome = iarn("verify", standing, "--sample", "1")
        assert outcome.status == 0, outcome.err
        end = outcome.event("end")
        assert (end["entries"], end["restores_compared_with_source"], end["shards_not_done"]) == (12, 11, 0)

    def test_verify_finds_damage(self, tmp_path: Path) -> None:
        """Protects archives over years: a flipped byte, a shard that is gone and one that was never done are each told."""
        archive = Path(built(tmp_path))
        shard = archive / "shards" / "000000000-a.parquet"
        data = bytearray(shard.read_bytes())
        data[len(data) // 2] ^= 1
        shard.write_bytes(data)
        (archive / "shards" / "000000001-b.parquet").unlink()
        (archive / "commits" / "000000" / "000000002-c.json").unlink()
        outcome = iarn("verify", archive, "--sample", "0")
        assert outcome.status == 1
        failures = {event["shard"]: event["reason"] for event in outcome.events if event["event"] == "failure"}
        assert "000000000-a.parquet is damaged" in failures["000000000-a"]
        assert "000000001-b.parquet does not exist" in failures["000000001-b"]
        assert outcome.event("end")["shards_not_done"] == 1

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            (
                ["--keys", "KEYS"],
                [
                    f"{stem}.{end}"
                    for stem, form in (("a/a/000", "png"), ("c/c/003", "tif"))
                    for end in (form, "txt", "cls.json")
                ],
            ),
            (["--glob", "b/*", "--to", "tar", "--lr"], ["b.tar"]),
            (["--shard", "000000002-c", "--to", "parquet", "--format", "png"], ["c.parquet"]),
        ],
        ids=["keys", "glob", "shard"],
    )
    def test_restore_of_a_selection(self, tmp_path: Path, standing: str, options: list[str], expected: list[str]) -> None:
        """Protects users who want some images: keys from a file, a glob or a shard, nothing else, and a key that is not there
        is told."""
        (tmp_path / "keys.txt").write_text("a/000.png\r\n\nc/003.tif\nx/none.png\n")
        given = [str(tmp_path / "keys.txt") if option == "KEYS" else option for option in options]
        outcome = iarn("restore", standing, tmp_path / "out", *given)
        assert outcome.status == (1 if options[0] == "--keys" else 0), outcome.err
        assert sorted(workshop.written(tmp_path / "out")) == sorted(expected)
        end = outcome.event("end")
        assert end["entries"] == (2 if options[0] == "--keys" else 4)
        assert end.get("keys_not_found") == ("1: x/none.png" if options[0] == "--keys" else None)

    def test_a_selection_of_nothing_is_told(self, tmp_path: Path, standing: str) -> None:
        """Protects against an empty folder taken for a success."""
        outcome = iarn("restore", standing, tmp_path / "out", "--glob", "none/*")
        assert outcome.status == 2
        assert "No entry of" in outcome.err.splitlines()[-1]

    def test_a_start_that_fails_is_status_3(self, tmp_path: Path, standing: str) -> None:
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


def test_evaluate_prints_figures(tmp_path: Path, weights: Path) -> None:
    """Protects `evaluate`: a table and JSON of the same figures, over the images that are large enough."""
    source = workshop.as_folder(tmp_path / "source", workshop.samples(3))
    table = iarn("evaluate", source, "--scales", "2,2x3", "--weights", weights, "--device", "cpu")
    assert table.status == 0, table.err
    assert [line.split("|")[1].strip() for line in table.out.splitlines()] == ["scale", "---", "x2", "x2x3"]
    scores = json.loads(iarn("evaluate", source, "--scales", "2", "--weights", weights, "--device", "cpu", "--json").out)
    assert scores[0]["images"] == 3
    assert 5 < scores[0]["psnr_y"] < 60
    for scales, words in (("2,,3", "give numbers from 1"), ("0.5", "give numbers from 1"), ("8", "4 is the largest scale")):
        assert words in refused(2, "evaluate", source, "--scales", scales, "--weights", weights, "--device", "cpu")
    (tmp_path / "dot").mkdir()
    (tmp_path / "dot" / "dot.png").write_bytes(workshop.picture(5, 5))
    assert "at least one of 12 x 12" in refused(2, "evaluate", tmp_path / "dot", "--weights", weights, "--device", "cpu")


@pytest.mark.parametrize(
    ("recipe", "options", "words"),
    [
        ("steps = 4\nstep = 3\n", [], "a recipe has no setting step"),
        ("steps = 'four'\n", [], "--config"),
        ("steps =", [], "it cannot be read as TOML"),
        (None, [], "it cannot be read as TOML"),
        ("", ["--steps", "0"], "needs steps and batch of at least 1"),
        ("", ["--eval-steps", "0"], "--eval-steps 0: give a number from 1"),
        ("", ["--precision", "int3"], "--precision int3: give auto, bfloat16 or float32"),
    ],
)
def test_a_senseless_training_is_refused(tmp_path: Path, recipe: str | None, options: list[str], words: str) -> None:
    """Protects a training's first minute: a recipe that means nothing is a sentence, not a run with defaults."""
    if recipe is not None:
        (tmp_path / "recipe.toml").write_text(recipe)
    arguments = ("train", tmp_path, "--out", tmp_path / "run", "--config", tmp_path / "recipe.toml", "--device", "cpu")
    assert words in refused(2, *arguments, *options)


def test_a_device_that_is_not_there_stops_training(tmp_path: Path) -> None:
    """Protects against a run that silently takes the CPU."""
    source = workshop.as_folder(tmp_path / "source", workshop.samples(1))
    assert "Device cuda:7 is not available" in refused(3, "train", source, "--out", tmp_path / "run", "--device", "cuda:7")


def test_signals_are_given_back() -> None:
    """Protects programs that call the command line: it leaves SIGTERM as it found it."""
    before: Callable[..., Any] | int | None = signal.getsignal(signal.SIGTERM)
    iarn("inspect", "/nowhere")
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_archive_has_a_folder_of_its_own(tmp_path: Path) -> None:
    """Protects sources and archives: no archive is made among the pictures it is of, and none is restored into itself."""
    source = workshop.as_folder(tmp_path / "source", workshop.samples(1))
    before = sorted(Path(source).rglob("*"))
    assert "it is the folder of the source; give one of its own" in refused(2, "rescale", source, source, "--scale", 2)
    assert sorted(Path(source).rglob("*")) == before
    archive = workshop.begin(source, tmp_path / "archive").store.uri
    assert "it is the archive itself; give a folder of its own" in refused(2, "restore", archive, archive)
