"""Archives of earlier versions restore to the same bytes for ever.

``tests/data/archives`` holds one of each tier for each version of the format, as the folder's README tells; new versions add
theirs, and none is ever made again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
from PIL import Image

from pipeline import restore, verify
from pipeline.archives.archive import Archive
from pipeline.core.records import Pixels, Size
from pipeline.engines.engine import Engine, Restore
from pipeline.stores.store import open_store
from tests.support import workshop
from tests.support.workshop import Rescaled

pytestmark = pytest.mark.slow

EARLIER = Path(__file__).parents[2] / "data" / "archives"
TOLD = json.loads((EARLIER / "restored.json").read_text())
LOSSLESS = {"exact", "exact-pixels"}
MOST_DIFFERING = 1e-3


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """An archive of an earlier version, by its folder, and where it was restored to, once as PNG and once as it was."""

    name: str
    archive: Rescaled
    pixels: Path
    files: Path

    @property
    def told(self) -> dict[str, Any]:
        """What is known of its restores."""
        return dict(TOLD["tiers"][self.name])

    @property
    def is_lossless(self) -> bool:
        """Whether it restores without the network."""
        return self.name.rpartition("/")[2] in LOSSLESS


class OnceEngine(Engine):
    """Restores an LR once, however often it is asked for."""

    def restore_many(self, requests: Sequence[Restore]) -> list[Pixels]:
        """Return the image of each request."""
        return [self._restored_once(each.lr.tobytes(), each.lr.shape, each.size, each.grey, each.clean) for each in requests]

    @cache  # noqa: B019 - there is one for all tests
    def _restored_once(self, lr: bytes, shape: tuple[int, ...], size: Size, grey: bool, clean: bool) -> Pixels:
        lr_pixels = np.frombuffer(lr, np.uint8).reshape(shape)
        return super().restore_many([Restore(lr=lr_pixels, size=size, grey=grey, clean=clean)])[0]


@pytest.fixture(scope="module", autouse=True)
def one_engine() -> Iterator[None]:
    """One engine for all that restore: these archives have one network."""
    with pytest.MonkeyPatch.context() as patch:
        made = cache(OnceEngine)
        for module in (restore, verify):
            patch.setattr(module, "Engine", made)
        yield


@pytest.fixture(scope="module", params=TOLD["tiers"])
def earlier(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Earlier:
    """The archive of each tier, with the network that is kept once for all of them."""
    folder = tmp_path_factory.mktemp("earlier")
    shutil.copytree(EARLIER / request.param, folder / "archive")
    shutil.copytree(EARLIER / "model", folder / "archive" / "model")
    archive = Rescaled(archive=Archive.open(open_store(str(folder / "archive"))), reports=[])
    assert not workshop.failures(workshop.restore(archive, folder / "pixels", format="png"))
    assert not workshop.failures(workshop.restore(archive, folder / "files"))
    return Earlier(name=request.param, archive=archive, pixels=folder / "pixels", files=folder / "files")


def test_every_entry_reads_and_verifies(earlier: Earlier) -> None:
    """Protects archives that are there: every digest holds, every entry is read, and its restore is as good as it says."""
    assert len(earlier.archive.entries) == len(earlier.told["pixels"])
    assert workshop.failures(workshop.verify(earlier.archive)) == []


def test_pixels_are_the_same(earlier: Earlier) -> None:
    """Protects restores for good: every pixel is what it was; where the network computes on a processor of another kind than
    wrote these figures, single levels of few pixels may differ."""
    for name, digest in earlier.told["pixels"].items():
        with Image.open(earlier.pixels / name) as image:
            pixels = np.array(image)
        if hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest() != digest:
            reference = EARLIER / "restored" / earlier.name / Path(name).with_suffix(".webp").name
            assert reference.exists(), f"{name} has other pixels, and no network made them"
            with Image.open(reference) as image:
                before = np.array(image.convert("L") if pixels.ndim == 2 else image)
            difference = np.abs(pixels.astype(int) - before)
            assert difference.max() <= 1, f"{name} is further from what it was than a processor explains"
            assert (difference > 0).mean() < MOST_DIFFERING


def test_times_and_modes_are_the_same(earlier: Earlier) -> None:
    """Protects dates and privacy: files of a version that has them come back with the time and mode of their sources."""
    for name, (modified, mode) in earlier.told.get("stamps", {}).items():
        found = (earlier.files / name).stat()
        assert (found.st_mtime, f"{found.st_mode & 0o777:o}") == (modified, mode), name


def test_files_are_the_same(earlier: Earlier) -> None:
    """Protects names, formats and metadata: the files are the same to the byte, where the same Pillow writes them."""
    found = {name: hashlib.sha256(data).hexdigest() for name, data in workshop.written(earlier.files).items()}
    expected = earlier.told["files"]
    assert found.keys() == expected.keys()
    if earlier.name.endswith("exact"):
        assert found == expected
    elif PIL.__version__ != TOLD["pillow"]:
        pytest.skip(f"these files were written by Pillow {TOLD['pillow']}, whose encoders are not this one's")
    else:
        differing = sorted(name for name in expected if found[name] != expected[name])
        assert not differing or not earlier.is_lossless
        if differing:
            pytest.skip(f"on a processor of another kind single levels of {', '.join(differing)} differ")
