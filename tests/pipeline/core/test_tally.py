"""Counting: entries make a report, and reports add up."""

from __future__ import annotations

from dataclasses import fields

from pipeline.core.records import Failure, ShardReport
from pipeline.core.tally import Tally, summed

ONE = ShardReport(
    shard_id="000000000-a",
    entries=7,
    originals=2,
    pixels=300,
    bytes_in=40,
    bytes_out=30,
    failures=(Failure(shard_id="000000000-a", key="a.png", reason="cut off"),),
    kept={"undecodable": 2},
    lost={"trailer": 1},
    whole=4,
    notes=(Failure(shard_id="000000000-a", key="b.jpg", reason="written as PNG"),),
    compared=3,
)


def test_a_sum_has_every_field_of_a_report() -> None:
    """Protects totals: whatever a report tells, the sum of two tells twice; a field that is new is not forgotten."""
    assert all(getattr(ONE, each.name) != each.default for each in fields(ONE)), "say in ONE what the new field has"
    both = summed("all", [ONE, ONE])
    assert both.shard_id == "all"
    assert both.failures == ONE.failures * 2
    assert (both.kept, both.lost) == ({"undecodable": 4}, {"trailer": 2})
    assert both.notes == ONE.notes * 2
    for each in fields(ONE):
        value = getattr(ONE, each.name)
        if isinstance(value, int):
            assert getattr(both, each.name) == 2 * value, each.name
    assert summed("none", []) == Tally().report("none")


def test_entries_make_a_report() -> None:
    """Protects a shard's report: entries, originals by class of reason, and what failed, as they were counted."""
    tally = Tally(bytes_out=9)
    tally.add(original=False, pixels=12, bytes_in=5)
    tally.add(original=True, pixels=0, bytes_in=6, reason="cannot be decoded: cut off")
    tally.fail("s", None, ValueError("gone"))
    report = tally.report("s")
    assert (report.entries, report.originals, report.pixels, report.bytes_in, report.bytes_out) == (2, 1, 12, 11, 9)
    assert sum(report.kept.values()) == 1
    assert report.failures == (Failure(shard_id="s", key=None, reason="gone"),)
