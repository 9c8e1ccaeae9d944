"""`--verify`: which entries of a lean archive are measured while they are written, and what everyone says of the others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.inspect import inspect, summarise
from jobs.reports.archive_report import report
from jobs.reports.figures import figures
from jobs.requests import ReportJob
from pipeline.archives.entries import drawn
from pipeline.archives.plans import decode_plan, encode_plan
from pipeline.core.errors import InvalidOption, PlanConflict
from pipeline.core.records import Entry, EntryKind, Settings, Tier, Verification
from pipeline.core.target import TargetSize
from pipeline.reading.reader import open_archive
from pipeline.rescale import VERIFIED_SHARE
from tests.support import workshop
from tests.support.workshop import Rescaled, Sample

HALF = TargetSize(scale=(2, 2))


def lean(folder: Path, verify: Verification, keys: tuple[str, ...] = ("a", "b", "c")) -> Rescaled:
    """Return a lean archive of little pictures, and one that no decoder takes."""
    samples = [Sample(key=f"{key}.png", data=workshop.picture(24, 30, seed=seed)) for seed, key in enumerate(keys)]
    source = folder / "source"
    if not source.exists():
        workshop.as_tar(source, [*samples, Sample(key="zz.png", data=b"broken")])
    archive = folder / str(verify)
    archive.mkdir()
    return workshop.rescale(str(source), archive / "archive", tier=Tier.LEAN, verify=verify)


def measured(entry: Entry) -> bool:
    """Return whether an entry has its figures; it has all or none."""
    have = {value is not None for value in (entry.psnr, entry.psnr_y, entry.ssim)}
    assert len(have) == 1
    return have == {True}


def test_only_figures_differ(tmp_path: Path) -> None:
    """Protects what a lean archive stores: without verification it is the same but for its figures, and makes no restore."""
    full, none = lean(tmp_path, Verification.FULL), lean(tmp_path, Verification.NONE)
    for one, other in zip(full.entries, none.entries, strict=True):
        assert measured(one) == (one.kind is EntryKind.RESCALED)
        assert not measured(other)
        assert (one.key, one.lr, one.sha256, one.tier, one.reason) == (
            other.key,
            other.lr,
            other.sha256,
            other.tier,
            other.reason,
        )
    assert workshop.restore(full, tmp_path / "one")[0].bytes_out == workshop.restore(none, tmp_path / "two")[0].bytes_out


def test_a_sample_is_drawn_by_key(tmp_path: Path) -> None:
    """Protects resuming and verifying: the same keys are measured each time, as many as was said, and no others."""
    share = VERIFIED_SHARE[Verification.SAMPLE]
    taken = [key for key in map(str, range(4000)) if drawn(f"{key}.png", share)]
    assert 0.7 * share < len(taken) / 4000 < 1.3 * share
    assert all(drawn(f"{key}.png", 2 * share) for key in taken)
    keys = tuple(sorted([*taken[:2], "left", "out"]))
    result = lean(tmp_path, Verification.SAMPLE, keys)
    assert {entry.key for entry in result.entries if measured(entry)} == {f"{key}.png" for key in taken[:2]}


@pytest.mark.parametrize("verify", [Verification.SAMPLE, Verification.NONE])
@pytest.mark.parametrize("tier", [tier for tier in Tier if tier is not Tier.LEAN])
def test_other_tiers_refuse(tier: Tier, verify: Verification) -> None:
    """Protects floors and latents, which a restore decides, and whoever thinks that an exact tier had a choice."""
    with pytest.raises(InvalidOption) as caught:
        Settings(target=HALF, tier=tier, floor=40 if tier is Tier.FLOOR else None, verify=verify)
    assert "--tier lean" in workshop.sentence(str(caught.value))


def test_plans_from_before_the_choice_stay_what_they_were() -> None:
    """Protects archives that exist: a plan without the setting is a full one, with the same bytes and digest, and one with
    it comes back."""
    archive_plan = Settings(target=HALF, tier=Tier.LEAN)
    for verify in Verification:
        settings = Settings(target=HALF, tier=Tier.LEAN, verify=verify)
        plan = workshop.plan_of(settings)
        data = encode_plan(plan)
        assert ("verify" in json.loads(data)["settings"]) == (verify is not Verification.FULL)
        assert decode_plan(data, "plan") == plan
        assert bool(archive_plan.differences(settings)) == (verify is not Verification.FULL)


def test_another_choice_is_another_archive(tmp_path: Path) -> None:
    """Protects a resumed job: half of an archive is not measured one way and half another."""
    result = lean(tmp_path, Verification.NONE)
    with pytest.raises(PlanConflict, match="verify none, not full"):
        workshop.begin(str(tmp_path / "source"), tmp_path / "none/archive", tier=Tier.LEAN)
    assert workshop.begin(
        str(tmp_path / "source"), tmp_path / "none/archive", tier=Tier.LEAN, verify=Verification.NONE
    ).digest == (result.archive.digest)


def test_what_was_not_measured_is_said_to_be_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Protects readers of an archive without figures: inspect, the report and the library have no number, and no crash."""
    result = lean(tmp_path, Verification.NONE)
    assert summarise(result.archive)["verify"] == "none"
    for as_json in (False, True):
        assert inspect(result.uri, None, entries=True, shards=False, as_json=as_json) == 0
    assert inspect(result.uri, "a.png", entries=False, shards=False, as_json=False) == 0
    assert capsys.readouterr().out.count("not measured") == 3
    found = figures(result.archive)
    assert (found["unmeasured"], found["psnr"]["entries"], found["worst"]) == (3, 0, [])
    assert next(tier for tier in found["tiers"] if tier["tier"] == "lean")["psnr"] is None
    report(ReportJob(archive=result.uri, out=tmp_path / "report.html", device="cpu"))
    page = (tmp_path / "report.html").read_text()
    assert "3 were not (verify: none)" in page
    assert "nothing measured" in page
    assert "nothing rescaled" not in page
    entry = open_archive(result.uri, device="cpu")["a.png"]
    assert (entry.psnr, entry.ssim) == (None, None)
    assert entry.restore().shape == (24, 30, 3)


def test_verifying_compares_what_has_figures(tmp_path: Path) -> None:
    """Protects `iarn verify`: entries without figures are restored and no fault, and damage to them is told as ever."""
    taken = next(key for key in map(str, range(4000)) if drawn(f"{key}.png", VERIFIED_SHARE[Verification.SAMPLE]))
    result = lean(tmp_path, Verification.SAMPLE, (taken, "left"))
    (checked,) = workshop.verify(result)
    assert (checked.entries, checked.compared, checked.failures) == (3, 1, ())
