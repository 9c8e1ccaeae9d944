"""Counting: entries make a report, and reports add up."""

from __future__ import annotations

from dataclasses import fields

from pipeline.core.errors import NotFound
from pipeline.core.records import Failure, ShardReport
from pipeline.core.tally import FreshReport, Tally, fresh, summed

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
    tally.fail("s", None, NotFound("a.tar"))
    report = tally.report("s")
    assert (report.entries, report.originals, report.pixels, report.bytes_in, report.bytes_out) == (2, 1, 12, 11, 9)
    assert sum(report.kept.values()) == 1
    assert report.failures == (Failure(shard_id="s", key=None, reason=str(NotFound("a.tar"))),)


def test_examples_are_few_and_differ() -> None:
    """Protects summaries: of each class of originals three are shown, those that say different things before others, with their
    keys; they are no part of what a commit holds, and a report without them is as it was."""
    tally = Tally()
    said = [
        "it is cut off",
        "it is cut off",
        "it is cut off",
        "the file is empty",
        "it is cut off",
        "it is no PNG",
        "it is a TIFF",
    ]
    for number, words in enumerate(said):
        tally.add(original=True, pixels=0, bytes_in=1, key=f"{number}.jpg", reason=f"cannot be decoded: {words}")
    tally.add(original=True, pixels=0, bytes_in=1, key="x.jpg", reason="not rescaled: its LR takes 9 bytes, the source 8")
    shown = {kind: [each.key for each in found] for kind, found in tally.examples.items()}
    assert shown == {"undecodable": ["0.jpg", "3.jpg", "5.jpg"], "does-not-pay": ["x.jpg"]}
    report = tally.report("s")
    told = fresh(report, tally.examples)
    assert isinstance(told, FreshReport)
    assert [each.key for each in told.examples] == ["0.jpg", "3.jpg", "5.jpg", "x.jpg"]
    assert summed("s", [told]) == report
    assert fresh(report, {}) is report
