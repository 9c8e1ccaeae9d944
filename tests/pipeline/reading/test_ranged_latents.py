"""Large latents: of one of many tiles a region reads what it touches, with the bytes of the whole."""

from __future__ import annotations

import io
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.core.errors import DamagedEntry, PipelineError
from pipeline.core.records import Tier
from pipeline.latents import latent, layout
from pipeline.pictures.region import Region
from pipeline.reading import service
from pipeline.reading.places import EntryPlace, read_entry
from pipeline.reading.requests import ImageRequest
from pipeline.reading.service import Restorer
from pipeline.serving.shelf import Shelf
from pipeline.stores.local import LocalStore
from tests.support.workshop import Sample, as_tar, rescale

CORNER = ImageRequest(region=Region(130, 140, 40, 30))
"""In one of 56 tiles, of 64 pixels a side."""


def noise(height: int, width: int) -> bytes:
    """Return a PNG that takes many bytes in a latent."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(90, 170, (height, width, 3)).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, str, EntryPlace]:
    """An archive's folder and URI, and where its one entry is, whose latent counts as large."""
    monkeypatch.setattr(latent, "TILE", 64)
    monkeypatch.setitem(latent.encode.__kwdefaults__, "tile", 64)
    monkeypatch.setattr(layout, "LEAST_TILE", 64)
    monkeypatch.setattr(service, "LARGE_LATENT", 1000)
    source = as_tar(tmp_path / "source", [Sample(key="a.png", data=noise(450, 448))])
    uri = rescale(source, tmp_path / "archive", tier=Tier.HIGH).uri
    with closing(Shelf("a", uri)) as shelf:
        return tmp_path / "archive", uri, shelf.place("a.png")


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of what was read from local stores."""
    lengths, own = list[int](), LocalStore.read

    def counted(store: LocalStore, *arguments: Any, **named: Any) -> bytes:
        data = own(store, *arguments, **named)
        lengths.append(len(data))
        return data

    monkeypatch.setattr(LocalStore, "read", counted)
    return lengths


def test_a_region_reads_its_own_tiles(
    made: tuple[Path, str, EntryPlace], read: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects stores and memory: a region has the bytes that a reader of the whole gives, for a part of its reading; a second
    one of the same tiles reads nothing, and a picture that the LR shows as well no latent."""
    _, uri, place = made
    restorers = Restorer([uri], device="cpu"), Restorer([uri], device="cpu")
    archive = restorers[0]._archives.of(place.archive, place.plan).reader.archive
    stored = len(read_entry(archive, place, ("latent",)).latent or b"")
    assert stored > 200_000
    read.clear()
    for restorer in restorers:
        restorer.restore(place, ImageRequest(max_side=20))  # opens the archive, and reads the LR
    assert sum(read) < stored
    read.clear()
    found = restorers[0].restore(place, CORNER).data
    ranged, count = sum(read), len(read)
    assert restorers[0].restore(place, CORNER).data == found
    assert len(read) == count
    monkeypatch.setattr(service, "LARGE_LATENT", 10**9)
    plain = Restorer([uri], device="cpu", kept_bytes=0)
    assert plain.restore(place, CORNER).data == found
    read.clear()
    plain.restore(place, CORNER)
    assert ranged < sum(read) - 0.7 * stored
    assert restorers[1].restore(place, ImageRequest()).data == plain.restore(place, ImageRequest()).data


def test_damage_is_told_where_it_is_touched(made: tuple[Path, str, EntryPlace]) -> None:
    """Protects viewers from wrong pixels: what is read in pieces is compared with its check sums, like what is read whole."""
    folder, uri, place = made
    (shard,) = (folder / "shards").iterdir()
    archive = Restorer([uri], device="cpu")._archives.of(place.archive, place.plan).reader.archive
    stored = read_entry(archive, place, ("latent",)).latent
    assert stored is not None
    data = bytearray(shard.read_bytes())
    start = data.index(stored)
    data[start + len(stored) - 9] ^= 4  # of the last tile
    shard.chmod(0o644)
    shard.write_bytes(data)
    restorer = Restorer([uri], device="cpu")
    assert restorer.restore(place, CORNER).data
    with pytest.raises(DamagedEntry, match=r"latent.*check sum"):
        restorer.restore(place, ImageRequest())
    data[start + 30] ^= 4  # of the index
    shard.write_bytes(data)
    with pytest.raises(DamagedEntry, match=r"latent.*check sum"):
        Restorer([uri], device="cpu").restore(place, CORNER)


def test_a_shard_that_is_replaced_is_not_mixed(made: tuple[Path, str, EntryPlace]) -> None:
    """Protects against pixels of two archives: what was opened of one version of a shard is not completed from another."""
    folder, uri, place = made
    (shard,) = (folder / "shards").iterdir()
    restorer = Restorer([uri], device="cpu")
    assert restorer.restore(place, CORNER).data
    data = shard.read_bytes()
    shard.unlink()
    shard.write_bytes(data + b"\0")
    with pytest.raises(PipelineError):
        restorer.restore(place, ImageRequest())
