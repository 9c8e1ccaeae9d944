"""A real WebDataset tar there and back, at each tier; needs ../shared beside the repository."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path

import pytest

from pipeline.outputs import OutputKind
from pipeline.records import EntryKind, Tier
from tests import workshop

TRAIN = Path(__file__).parents[2] / "shared" / "data" / "train" / "train-00.tar"

pytestmark = pytest.mark.skipif(not TRAIN.exists(), reason="../shared/data/train/train-00.tar is not there")


def contents(path: Path) -> dict[str, str]:
    """Return the SHA-256 of each member of a tar by its name, in order."""
    with tarfile.open(path) as tar:
        return {m.name: hashlib.sha256(tar.extractfile(m).read()).hexdigest() for m in tar if m.isfile()}  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def members() -> dict[str, str]:
    """The real tar's members."""
    return contents(TRAIN)


@pytest.mark.parametrize("tier", [Tier.LEAN, Tier.BALANCED, Tier.EXACT])
def test_a_real_tar_comes_back(tier: Tier, members: dict[str, str], tmp_path: Path) -> None:
    """Protects the promise on real data: one entry per asset, every name kept, and at exact the very bytes."""
    done = workshop.rescale(str(TRAIN), tmp_path / "archive", tier=tier)
    assert not done.failures
    assert [entry.key for entry in done.entries] == list(members)
    assert {entry.kind for entry in done.entries} == {EntryKind.RESCALED}
    assert all(entry.sha256 == members[entry.key] for entry in done.entries)
    reports = workshop.restore(done, tmp_path / "restored", output=OutputKind.TAR)
    assert [(report.entries, report.failures) for report in reports] == [(len(members), ())]
    restored = contents(tmp_path / "restored" / "train-00.tar")
    assert list(restored) == list(members)
    assert (restored == members) == (tier is Tier.EXACT)
