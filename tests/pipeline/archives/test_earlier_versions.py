"""Archives of earlier versions restore to the same bytes for ever.

``tests/data/archives`` holds one of each tier, written by the version that the folder's README names; new versions of the
format add theirs, and none is ever made again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image

from pipeline.archives.archive import Archive
from pipeline.stores.store import open_store
from tests.support import workshop
from tests.support.workshop import Rescaled

EARLIER = Path(__file__).parents[2] / "data" / "archives"
TOLD = json.loads((EARLIER / "restored.json").read_text())
LOSSLESS = {"exact", "exact-pixels"}
MOST_DIFFERING = 1e-3

every_tier = pytest.mark.parametrize("tier", TOLD["tiers"])


@pytest.fixture
def archive(tier: str, tmp_path: Path) -> Rescaled:
    """An archive with its network, which is kept once for all of them."""
    folder = tmp_path / "archive"
    shutil.copytree(EARLIER / tier, folder)
    shutil.copytree(EARLIER / "model", folder / "model")
    return Rescaled(archive=Archive.open(open_store(str(folder))), reports=[])


@every_tier
def test_every_entry_reads_and_verifies(archive: Rescaled) -> None:
    """Protects archives that are there: every digest holds, every entry is read, and its restore is as good as it says."""
    assert len(archive.entries) == 5
    assert workshop.failures(workshop.verify(archive)) == []


@every_tier
def test_pixels_are_the_same(tier: str, archive: Rescaled, tmp_path: Path) -> None:
    """Protects restores for good: every pixel is what it was; where the network computes on a processor of another kind than
    wrote these figures, single levels of few pixels may differ."""
    assert not workshop.failures(workshop.restore(archive, tmp_path / "out", format="png"))
    for name, digest in TOLD["tiers"][tier]["pixels"].items():
        with Image.open(tmp_path / "out" / name) as image:
            pixels = np.array(image)
        if hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest() != digest:
            assert tier not in LOSSLESS, f"{name} has other pixels"
            with Image.open(EARLIER / "restored" / tier / Path(name).with_suffix(".webp").name) as image:
                before = np.array(image.convert("L") if pixels.ndim == 2 else image)
            difference = np.abs(pixels.astype(int) - before)
            assert difference.max() <= 1, f"{name} is further from what it was than a processor explains"
            assert (difference > 0).mean() < MOST_DIFFERING


@every_tier
def test_files_are_the_same(tier: str, archive: Rescaled, tmp_path: Path) -> None:
    """Protects names, formats and metadata: the files are the same to the byte, where the same Pillow writes them."""
    assert not workshop.failures(workshop.restore(archive, tmp_path / "out"))
    found = {name: hashlib.sha256(data).hexdigest() for name, data in workshop.written(tmp_path / "out").items()}
    expected = TOLD["tiers"][tier]["files"]
    assert found.keys() == expected.keys()
    if tier == "exact":
        assert found == expected
    elif PIL.__version__ != TOLD["pillow"]:
        pytest.skip(f"these files were written by Pillow {TOLD['pillow']}, whose encoders are not this one's")
    else:
        differing = sorted(name for name in expected if found[name] != expected[name])
        assert not differing or tier not in LOSSLESS
        if differing:
            pytest.skip(f"on a processor of another kind single levels of {', '.join(differing)} differ")
