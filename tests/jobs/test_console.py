"""What a job says while it runs and when it ends, on a terminal and in JSON lines."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs import console
from jobs.console import Reporter, failure_lines, listing, size
from jobs.reports.report import write_report
from pipeline.cluster.notices import Notice, Snapshot
from pipeline.core.errors import NotFound
from pipeline.core.records import Failure, ShardReport
from pipeline.core.tally import EXAMPLES, fresh
from pipeline.stores.store import LocalStore

REPORT = ShardReport(shard_id="000000000-a", entries=4, originals=1, pixels=2_000_000, bytes_in=5_000_000, bytes_out=700_000)


class Terminal(io.StringIO):
    """Standard error that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_where_a_job_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the user of a busy cluster: a bar that does not move says why, and one that does tells speed and bytes."""
    monkeypatch.setattr("sys.stderr", Terminal())
    reporter = Reporter("rescale", 3, json_lines=False)
    with reporter.running():
        bar: Any = reporter._bar
        reporter.snapshot(Snapshot(room=1))
        assert bar.tasks[0].fields["state"] == "waiting for an actor to start"
        reporter.snapshot(Snapshot(room=0))
        assert bar.tasks[0].fields["state"] == "waiting for a node with room for an actor"
        reporter.done(REPORT)
        reporter.snapshot(Snapshot(assets=4, pixels=2_000_000, actors=1))
        assert bar.tasks[0].completed == 1
        state = bar.tasks[0].fields["state"]
        assert state.startswith("4 images")
        assert state.endswith("MPix/s  5.0 MB → 700.0 kB  0 failures")


def test_a_terminal_gets_a_summary_by_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the user who comes back in the morning: how much was done, and what was not, by class with a few of each."""
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    reporter = Reporter("rescale", 3, json_lines=False)
    pay = "not rescaled: its LR and what stands beside it take {} bytes, the source 8"
    originals = tuple(Failure(shard_id="", key=f"{size}.jpg", reason=pay.format(size)) for size in (9, 10, 11))
    report = replace(REPORT, originals=347, kept={"does-not-pay": 346, "undecodable": 1})
    broken = Failure(shard_id="000000000-a", key="[b].png", reason="cannot be decoded: it is cut off")
    reporter.done(fresh(replace(report, failures=(broken,)), {"does-not-pay": originals, "undecodable": [broken]}))
    for index in range(EXAMPLES + 2):
        reporter.done(Failure(shard_id=f"00000000{index}-b", key=None, reason=str(NotFound(f"[red]{index}[/red]"))))
    reporter.summary(archive="s3://bucket/[bold]archive")
    shown = terminal.getvalue().splitlines()
    assert shown[0].startswith("4 entries (347 without an LR) in 1 of 3 shards, 5.0 MB → 700.0 kB")
    assert shown[1:] == [
        "  346 files kept: does-not-pay",
        *(f"    000000000-a {size}.jpg: {pay.format(size)}" for size in (9, 10, 11)),
        "    … and 343 more",
        "  1 files kept: undecodable",
        "  5 failed: not-found",
        *(f"    00000000{index}-b: {NotFound(f'[red]{index}[/red]')}" for index in range(3)),
        "    … and 2 more",
        "  1 failed: undecodable",
        "    000000000-a [b].png: cannot be decoded: it is cut off",
        "archive: s3://bucket/[bold]archive",
    ]


def test_lines_say_where_and_of_which_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects whoever looks for a shard among forty nodes: lines name job, actor and node as far as they are known, failures
    the key, and what is retried the reason; where one shard ended is not told of another."""
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    reporter = Reporter("rescale", 3, json_lines=True)
    ids = {"ray_job": "02000000", "ray_session": "s", "submission": "iarn-rescale-1"}
    failure = Failure(shard_id="000000-a", key="a.png", reason="cannot be decoded: it is cut off")
    with reporter.running():
        reporter.notice(Notice(event="joined", ray=ids))
        reporter.notice(Notice(event="room", count=0, reason="waiting for a node"))
        reporter.notice(Notice(event="actor up", actor="ab", node="10.0.0.1"))
        reporter.notice(Notice(event="retry", actor="ab", node="10.0.0.1", shard="000000-a", reason="its node is gone"))
        reporter.notice(Notice(event="ended", actor="cd", node="10.0.0.2", shard="000000-a", seconds=1.5))
        reporter.done(replace(REPORT, failures=(failure,), kept={"undecodable": 1}))
        reporter.done(Failure(shard_id="000001-b", key=None, reason="it is gone"))
        reporter.snapshot(Snapshot(actors=2))
    reporter.summary()
    start, room, up, retry, ended, failed, quarantined, end = map(json.loads, terminal.getvalue().splitlines())
    assert "ray_job" not in start
    assert all(line["ray_job"] == "02000000" and line["job"] == "rescale" for line in (room, up, retry, ended, end))
    assert (room["level"], up["level"], retry["level"]) == ("warning", "info", "warning")
    assert (ended["actor"], ended["node"], ended["seconds"]) == ("cd", "10.0.0.2", 1.5)
    assert (failed["shard"], failed["key"], failed["actor"]) == ("000000-a", "a.png", "cd")
    assert "actor" not in quarantined
    assert (end["quarantined"], end["kept"]) == (1, {"undecodable": 1})
    assert end["failures_by_reason"] == {"undecodable": 1, "other": 1}
    assert (reporter.retries, reporter.most_actors, reporter.ray) == (1, 2, ids)


def test_a_report_tells_the_job_as_a_whole(tmp_path: Path) -> None:
    """Protects the morning after two nights: totals are those of all runs, rates those of the last, and a run that resumes the
    job writes the report anew."""
    store = LocalStore(tmp_path)
    for resumed in (False, True):
        reporter = Reporter("rescale", 3, json_lines=True)
        if resumed:
            reporter.resume(REPORT)
        pays = Failure(shard_id="", key="a.jpg", reason="not rescaled: it takes 9 bytes, the source 8")
        reporter.done(fresh(replace(REPORT, shard_id="000001-b", kept={"does-not-pay": 1}), {"does-not-pay": [pays]}))
        reporter.done(Failure(shard_id="000002-c", key=None, reason="it is gone"))
        write_report(store, reporter, digest="ab" * 32, settings={"scale": 2}, shards=3)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["shards"] == {"planned": 3, "done": 2, "quarantined": 1}
    assert report["totals"] == {
        "entries": 8, "originals": 2, "pixels": 4_000_000, "bytes_in": 10_000_000, "bytes_out": 1_400_000, "failures": 1
    }  # fmt: skip
    assert report["quarantined"] == ["000002-c"]
    assert report["kept_by_reason"] == {"does-not-pay": 1}
    assert report["examples"] == {
        "does-not-pay": [{"shard_id": "000001-b", "key": "a.jpg", "reason": pays.reason}],
        "other": [{"shard_id": "000002-c", "key": None, "reason": "it is gone"}],
    }
    assert report["this_run"]["shards"] == 1
    assert (report["digest"], report["settings"]) == ("ab" * 32, {"scale": 2})


def test_it_is_told_where_time_went(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects whoever pays for engines: the busy share and what verifying takes are in the summary, the log and the report."""
    stages = {"read": 1.0, "network": 5.0, "verify": 4.0, "encode": 0.0}
    for json_lines in (False, True):
        monkeypatch.setattr("sys.stderr", terminal := Terminal())
        reporter = Reporter("rescale", 1, json_lines=json_lines)
        with reporter.running():
            reporter.snapshot(Snapshot(assets=4, actors=1, room=1, stages=stages, busy_share=0.871))
        reporter.done(REPORT)
        reporter.summary()
        if json_lines:
            end = json.loads(terminal.getvalue().splitlines()[-1])
            assert (end["busy_share"], end["verify_share"], end["seconds_by_stage"]) == (0.871, 0.4, stages)
        else:
            assert "engines 87% busy; of all work read 10%, network 50%, verify 40%\n" in terminal.getvalue()
    write_report(store := LocalStore(tmp_path), reporter, digest="ab", settings={}, shards=1)
    run = json.loads(store.read("report.json"))["this_run"]
    assert (run["busy_share"], run["verify_share"]) == (0.871, 0.4)


def test_json_lines_are_json_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects programs that read the log: every line is a JSON object with a time and a level, without colours, also on a
    terminal when asked for."""
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    monkeypatch.setattr("jobs.console.HEARTBEAT_SECONDS", 0.0)
    reporter = Reporter("rescale", 3, json_lines=True)
    reporter.resume(REPORT)
    failure = Failure(shard_id="000000001-b", key="ä\n.png", reason="cannot be decoded")
    with reporter.running():
        reporter.snapshot(Snapshot(assets=4, actors=1))
        reporter.done(ShardReport(**{**vars(REPORT), "shard_id": "000000001-b", "failures": (failure,)}))
        reporter.done(Failure(shard_id="000000002-c", key=None, reason="it is gone"))
    reporter.summary(archive="here")
    assert "\x1b" not in terminal.getvalue()
    events = [json.loads(line) for line in terminal.getvalue().splitlines()]
    assert [event["event"] for event in events] == ["start", "progress", "shard", "failure", "quarantined", "end"]
    assert all({"timestamp", "level"} <= event.keys() for event in events)
    assert (events[0]["shards_done"], events[-1]["entries"], events[-1]["failures"]) == (1, 8, 2)
    assert json.loads(failure_lines([failure])) == {"shard_id": "000000001-b", "key": "ä\n.png", "reason": "cannot be decoded"}


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1.5e9, "1.5 GB"), (3e15, "3000.0 TB")]
)
def test_sizes_are_for_people(count: float, shown: str) -> None:
    """Protects the reader of figures: the unit a person would use, and no more than four places."""
    assert size(count) == shown


def test_a_long_listing_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Protects the patience of who lists millions of names: programs hear of it now and then, a short one says nothing, and
    everything is passed on."""
    with listing("rescale", "s3://b/[bold]", json_lines=True) as watch:
        assert list(watch(range(5))) == list(range(5))
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(console, "HEARTBEAT_SECONDS", -1.0)
    with listing("rescale", "s3://b/[bold]", json_lines=True) as watch:
        assert sum(1 for _ in watch(range(2500))) == 2500
    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(each["event"], each["source"], each["objects"]) for each in told] == [
        ("listing", "s3://b/[bold]", 1000),
        ("listing", "s3://b/[bold]", 2000),
    ]


def test_a_listing_is_a_line_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects people at a terminal: they see what is listed and how far it is, whatever signs are in its name."""
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    with listing("rescale", "/photos/[bold]", json_lines=False) as watch:
        assert sum(1 for _ in watch(range(1000))) == 1000
    assert "Listing /photos/[bold]" in terminal.getvalue()
