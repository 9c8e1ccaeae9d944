"""What a job says while it runs and when it ends, on a terminal and in JSON lines."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from jobs.console import SHOWN_FAILURES, Reporter, failure_lines, size
from pipeline.pool import Snapshot
from pipeline.records import Failure, ShardReport

REPORT = ShardReport(shard_id="000000-a", entries=4, originals=1, pixels=2_000_000, bytes_in=5_000_000, bytes_out=700_000)


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


def test_a_terminal_gets_a_summary_with_the_first_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the user who comes back in the morning: how much was done, and what was not, as it was told."""
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    reporter = Reporter("rescale", 3, json_lines=False)
    with reporter.running():
        reporter.done(REPORT)
        for index in range(SHOWN_FAILURES + 2):
            reporter.done(Failure(shard_id="000001-b", key=None, reason=f"[red]reason {index}[/red]"))
    reporter.summary(archive="s3://bucket/[bold]archive")
    shown = terminal.getvalue()
    assert "4 entries (1 kept as originals) in 1 of 3 shards, 5.0 MB → 700.0 kB" in shown
    assert "000001-b: [red]reason 0[/red]" in shown
    assert f"reason {SHOWN_FAILURES}[" not in shown
    assert "… and 2 more" in shown
    assert "archive: s3://bucket/[bold]archive" in shown


def test_json_lines_are_json_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects programs that read the log: every line is a JSON object with a time and a level, without colours, also on a
    terminal when asked for."""
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    monkeypatch.setattr("jobs.console.HEARTBEAT_SECONDS", 0.0)
    reporter = Reporter("rescale", 3, json_lines=True)
    reporter.resume(REPORT)
    failure = Failure(shard_id="000001-b", key="ä\n.png", reason="cannot be decoded")
    with reporter.running():
        reporter.snapshot(Snapshot(assets=4, actors=1))
        reporter.done(ShardReport(**{**vars(REPORT), "shard_id": "000001-b", "failures": (failure,)}))
        reporter.done(Failure(shard_id="000002-c", key=None, reason="it is gone"))
    reporter.summary(archive="here")
    assert "\x1b" not in terminal.getvalue()
    events = [json.loads(line) for line in terminal.getvalue().splitlines()]
    assert [event["event"] for event in events] == ["start", "progress", "shard", "failure", "quarantined", "end"]
    assert all({"timestamp", "level"} <= event.keys() for event in events)
    assert (events[0]["shards_done"], events[-1]["entries"], events[-1]["failures"]) == (1, 8, 2)
    assert json.loads(failure_lines([failure])) == {"shard_id": "000001-b", "key": "ä\n.png", "reason": "cannot be decoded"}


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1.5e9, "1.5 GB"), (3e15, "3000.0 TB")]
)
def test_sizes_are_for_people(count: float, shown: str) -> None:
    """Protects the reader of figures: the unit a person would use, and no more than four places."""
    assert size(count) == shown
