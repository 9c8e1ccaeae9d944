"""Parts of one entry, asked for one after the other or all at once: what they share is read and decoded once, within bounds."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import entry_picture
from pipeline.core.errors import DamagedEntry
from pipeline.core.records import Entry, EntryKind, Tier
from pipeline.decoders import decoding
from pipeline.entry_picture import OpenEntry
from pipeline.pictures.region import Region
from pipeline.reading import service
from pipeline.reading.open_entries import OpenEntries
from pipeline.reading.requests import ImageRequest
from pipeline.reading.service import Restorer
from pipeline.serving.shelf import Shelf
from tests.support.workshop import Sample, as_tar, picture, rescale

TILES = [Region(x, y, 16, 16) for y in (0, 16, 32) for x in (0, 16, 32)]
REQUESTS = [
    *(ImageRequest(region=tile) for tile in TILES),
    *(ImageRequest(region=tile, max_side=5) for tile in TILES[::2]),
    ImageRequest(max_side=9),
    ImageRequest(),
    ImageRequest(use_latent=False),
    ImageRequest(form="jpeg", region=TILES[4]),
]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often what is dear was done since the test began."""
    counts: dict[str, int] = {}

    def count(module: Any, name: str) -> None:
        own, counts[name] = getattr(module, name), 0

        def wrapped(*arguments: Any, **named: Any) -> Any:
            counts[name] += 1
            return own(*arguments, **named)

        monkeypatch.setattr(module, name, wrapped)

    for module, name in (
        (service, "read_small"),
        (entry_picture, "decode_lr"),
        (entry_picture, "alpha_of"),
        (entry_picture, "original_pixels"),
        (decoding, "decode"),
    ):
        count(module, name)
    return counts


@pytest.mark.slow
@pytest.mark.parametrize("tier", list(Tier), ids=str)
def test_what_tiles_share_is_decoded_once(tier: Tier, tmp_path: Path, counted: dict[str, int]) -> None:
    """Protects viewers, which ask for many tiles of one entry at once, and what they get: the bytes are those of a service that
    keeps nothing."""
    source = as_tar(tmp_path / "source", [Sample(key="clear.png", data=picture(61, 64, "PNG", channels=4, seed=1))])
    uri = rescale(source, tmp_path / "archive", tier=tier).uri
    with closing(Shelf("tiles", uri)) as shelf:
        place = shelf.place("clear.png")
    plain, keeping = Restorer([uri], device="cpu", kept_bytes=0), Restorer([uri], device="cpu")
    expected = [plain.restore(place, request).data for request in REQUESTS]
    assert counted["read_small"] == len(REQUESTS)
    counted.update(dict.fromkeys(counted, 0))
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda request: keeping.restore(place, request).data, REQUESTS * 3))
    assert found == expected * 3
    assert counted["read_small"] == 1
    assert counted["decode_lr"] <= 1
    assert counted["alpha_of"] <= 2  # of the whole picture too, where its pixels are kept
    assert counted["original_pixels"] + counted["decode"] <= 1


def entry_of(size: int) -> Entry:
    """Return an entry with so many bytes."""
    return Entry(key="a", kind=EntryKind.RESCALED, tier=Tier.LEAN, byte_size=1, reason=None, sha256=None, lr=bytes(size))


def test_what_is_kept_is_bounded() -> None:
    """Protects memory: the entry used least lately goes first, one that is too large, or has grown so, stays not at all."""
    entries, read = OpenEntries(1000), list[str]()

    def use(name: str, size: int, decoded: int = 0) -> None:
        def made() -> Entry:
            read.append(name)
            return entry_of(size)

        with entries.entry(name, lambda: OpenEntry(made)) as opened:
            assert len(opened.entry.lr or b"") == size
            opened.__dict__["_lr"] = (np.zeros(decoded, np.uint8), None)

    for name in ("a", "b", "a", "c", "a", "b"):  # c takes the place of b, and then b that of c
        use(name, 400)
    assert read == ["a", "b", "c", "b"]
    use("large", 1001)
    use("large", 1001)
    use("a", 400, decoded=700)
    use("b", 400)
    use("a", 400)
    assert read[4:] == ["large", "large", "a"]
    assert entries.state.bytes <= 1000
    for number in range(100):
        use(f"large {number}", 1001)
    assert entries.state.values == 2, "names of entries that are not kept"


def test_an_error_is_not_kept() -> None:
    """Protects whoever asks again: an entry that could not be read is read anew."""
    entries, read = OpenEntries(1000), list[int]()

    def made() -> Entry:
        read.append(1)
        if len(read) == 1:
            raise DamagedEntry("a", "LR", "it is not there")
        return entry_of(4)

    with pytest.raises(DamagedEntry), entries.entry("a", lambda: OpenEntry(made)) as opened:
        assert opened.entry
    assert entries.state.values == 0
    with entries.entry("a", lambda: OpenEntry(made)) as opened:
        assert opened.entry.lr == bytes(4)
    assert (len(read), entries.state.values) == (2, 1)


def test_an_open_entry_is_read_once() -> None:
    """Protects readers: what an entry is made of is asked for at its first use and no more."""
    read = list[int]()
    opened = OpenEntry(lambda: read.append(1) or entry_of(3))  # type: ignore[func-returns-value]
    assert not read
    assert opened.entry is opened.entry
    assert opened.bytes == 3
    assert len(read) == 1
