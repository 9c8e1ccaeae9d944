"""`--effort`: where it is a setting, what an archive made with it is, and that plans from before stay what they were."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from jobs.inspect import summarise
from pipeline.archives.plans import decode_plan, encode_plan
from pipeline.core.errors import DamagedObject, InvalidOption, PlanConflict
from pipeline.core.records import Pixels, Settings, Tier
from pipeline.core.target import TargetSize
from pipeline.engines.engine import Downscale, Engine
from tests.support import workshop
from tests.support.workshop import Sample

HALF = TargetSize(scale=(2, 2))


@pytest.mark.slow
@pytest.mark.parametrize("tier", [Tier.LEAN, Tier.EXACT_PIXELS, Tier.EXACT])
def test_an_archive_made_with_effort_is_one_like_any_other(tmp_path: Path, tier: Tier) -> None:
    """Protects readers: what was made with effort is verified and restored as ever, and nothing comes back worse."""
    source = workshop.as_tar(tmp_path / "source", workshop.samples(3))
    made = []
    for effort in (0, 2):
        folder = tmp_path / str(effort)
        folder.mkdir()
        made.append(workshop.rescale(source, folder / "archive", tier=tier, effort=effort))
    without, result = made
    (checked,) = workshop.verify(result)
    assert (checked.entries, checked.failures) == (3, ())
    (restored,) = workshop.restore(result, tmp_path / "restored")
    assert (restored.entries, restored.failures) == (3, ())
    assert any(one.lr != other.lr for one, other in zip(without.entries, result.entries, strict=True))
    for one, other in zip(without.entries, result.entries, strict=True):
        assert not other.clean
        if one.psnr is not None and np.isfinite(one.psnr):
            assert other.psnr is not None
            assert other.psnr >= one.psnr - 1e-9
    assert summarise(result.archive)["effort"] == 2


def test_alpha_and_grey_are_kept(tmp_path: Path) -> None:
    """Protects pictures that are not RGB: alpha comes back exactly, and a grey picture's LR and restore are grey."""
    channels = {"alpha.png": 4, "grey.png": 1}
    samples = [Sample(key=key, data=workshop.picture(31, 44, channels=count)) for key, count in channels.items()]
    source = workshop.as_folder(tmp_path / "source", samples)
    result = workshop.rescale(source, tmp_path / "archive", tier=Tier.LEAN, max_ratio=None, effort=2)
    entries, (restored, grey) = workshop.by_key(result), workshop.back(result, tmp_path / "back").values()
    alpha = workshop.shown(restored, "RGBA")[..., 3]
    assert np.array_equal(alpha, workshop.shown(samples[0].data, "RGBA")[..., 3])
    for data in (grey, entries["grey.png"].lr):
        assert data is not None
        pixels = workshop.shown(data, "RGB")
        assert (pixels == pixels[..., :1]).all()


@pytest.mark.slow
def test_the_lean_candidate_of_a_floor_is_made_with_effort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects floors: the LR that may do without a latent is the better one."""
    asked, downscale = [], Engine.downscale_many

    def seen(self: Engine, requests: Sequence[Downscale]) -> list[Pixels]:
        asked.extend(request.effort for request in requests)
        return downscale(self, requests)

    monkeypatch.setattr(Engine, "downscale_many", seen)
    source = workshop.as_tar(tmp_path / "source", workshop.samples(2))
    result = workshop.rescale(source, tmp_path / "archive", tier=Tier.FLOOR, floor=30.0, effort=1)
    assert asked == [1, 1]
    assert all((entry.psnr or 0) >= 30 for entry in result.entries)


@pytest.mark.parametrize("settings", [{"tier": Tier.BALANCED}, {"tier": Tier.HIGH}, {}])
def test_tiers_that_store_bicubic_lrs_refuse(settings: dict[str, Tier]) -> None:
    """Protects whoever gives time from waiting for nothing: where no LR hides detail no effort is taken."""
    with pytest.raises(InvalidOption, match="lean, floor, exact-pixels or exact"):
        Settings(target=HALF, effort=5, **settings)  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="--effort -1"):
        Settings(target=HALF, tier=Tier.LEAN, effort=-1)


def test_plans_from_before_stay_what_they_were() -> None:
    """Protects archives that exist: a plan without the setting is one of 0, with the same bytes, and one with it comes back."""
    for effort in (0, 5):
        plan = workshop.plan_of(Settings(target=HALF, tier=Tier.LEAN, effort=effort))
        data = encode_plan(plan)
        assert json.loads(data)["settings"].get("effort", 0) == effort
        assert ("effort" in json.loads(data)["settings"]) == (effort > 0)
        assert decode_plan(data, "plan") == plan
    for junk in (-5, 2.5, "5", None, True):
        with pytest.raises(DamagedObject):
            decode_plan(data.replace(b'"effort":5', b'"effort":' + json.dumps(junk).encode()), "plan")


def test_another_effort_is_another_archive(tmp_path: Path) -> None:
    """Protects a resumed job: half of an archive is not made with one effort and half with another."""
    source = workshop.as_tar(tmp_path / "source", workshop.samples(2))
    result = workshop.rescale(source, tmp_path / "archive", tier=Tier.LEAN, effort=1)
    for effort in (0, 2):
        with pytest.raises(PlanConflict, match=f"effort 1, not {effort}"):
            workshop.begin(source, tmp_path / "archive", tier=Tier.LEAN, effort=effort)
    again = workshop.begin(source, tmp_path / "archive", tier=Tier.LEAN, effort=1)
    assert again.digest == result.archive.digest
