"""A real WebDataset tar there and back, at each tier; needs ../shared beside the repository."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path

import pytest

from pipeline.core.records import EntryKind, Tier
from pipeline.outputs.outputs import OutputKind
from tests.support import workshop

TRAIN = Path(__file__).parents[4] / "shared" / "data" / "train" / "train-00.tar"

PART = 24
"""Members that the tiers which compute most have."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not TRAIN.exists(), reason="../shared/data/train/train-00.tar is not there"),
]


def contents(path: Path) -> dict[str, str]:
    """Return the SHA-256 of each member of a tar by its name, in order."""
    with tarfile.open(path) as tar:
        return {m.name: hashlib.sha256(tar.extractfile(m).read()).hexdigest() for m in tar if m.isfile()}  # type: ignore[union-attr]


def first(count: int, folder: Path) -> Path:
    """Return a tar of the first members of the real one, of its name."""
    folder.mkdir()
    with tarfile.open(TRAIN) as tar, tarfile.open(folder / TRAIN.name, "w", format=tarfile.PAX_FORMAT) as part:
        for member in [member for member in tar if member.isfile()][:count]:
            part.addfile(member, tar.extractfile(member))
    return folder / TRAIN.name


@pytest.mark.parametrize("tier", [Tier.LEAN, Tier.BALANCED, Tier.EXACT])
def test_a_real_tar_comes_back(tier: Tier, tmp_path: Path) -> None:
    """Protects the promise on real data: one entry per asset, every name, and at exact, of the whole tar, the very bytes."""
    source = TRAIN if tier is Tier.EXACT else first(PART, tmp_path / "part")
    members = contents(source)
    done = workshop.rescale(str(source), tmp_path / "archive", tier=tier)
    assert not done.failures
    assert [entry.key for entry in done.entries] == list(members)
    assert {entry.kind for entry in done.entries} == {EntryKind.RESCALED}
    assert all(entry.sha256 == members[entry.key] for entry in done.entries)
    reports = workshop.restore(done, tmp_path / "restored", output=OutputKind.TAR)
    assert [(report.entries, report.failures) for report in reports] == [(len(members), ())]
    restored = contents(tmp_path / "restored" / TRAIN.name)
    assert list(restored) == list(members)
    assert (restored == members) == (tier is Tier.EXACT)
