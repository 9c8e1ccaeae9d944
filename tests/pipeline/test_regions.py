"""A region of an entry is that crop of the whole restore, whatever its tier and its picture; what is small needs no network."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.errors import InvalidOption
from pipeline.core.records import Pixels, Size, Tier
from pipeline.core.target import TargetSize
from pipeline.engines.engine import Engine, choose_device
from pipeline.engines.tiles import LEAST
from pipeline.latents import latent, layout
from pipeline.pictures import codecs
from pipeline.pictures.picture import resize
from pipeline.pictures.region import Region
from pipeline.reading.reader import ArchiveReader, open_archive
from tests.support import workshop
from tests.support.pictures import decoded, exif, photo, saved
from tests.support.richer import deep
from tests.support.workshop import Rescaled, Sample, picture, sentence

SCALES = (1.0, 1.5, 2.0, 2.5, 3.7, 4.0, 6.0)
"""The last beyond the tiny network's reach: two steps."""

SAMPLES = [
    Sample(key="alpha.png", data=picture(67, 83, "PNG", channels=4, seed=1)),
    Sample(key="deep.png", data=codecs.encode_png(deep(photo(41, 90, seed=5)))),
    Sample(key="deep alpha.png", data=codecs.encode_png(deep(photo(64, 67, 4, seed=6)))),
    Sample(key="grey.png", data=saved(photo(71, 60, 1, 2), "PNG")),
    Sample(key="turned.jpg", data=saved(photo(54, 75, 3, 3), "JPEG", exif=b"Exif\0\0" + exif(6))),
    Sample(key="wide.webp", data=picture(50, 141, "WEBP", seed=4)),
]
KEYS = [sample.key for sample in SAMPLES]
ENGINE = Engine(workshop.weights(), choose_device("cpu"), tile_points=2048)

Make = Callable[[Tier, float], ArchiveReader]

share = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1))
shares = st.tuples(share, share, share, share)


def region_of(pixels: Pixels, edges: tuple[float, ...]) -> Region:
    """Return a region of a picture, of a pixel at least, between shares of its width and of its height."""
    height, width = pixels.shape[:2]
    (left, right), (top, bottom) = sorted(edges[:2]), sorted(edges[2:])
    x, y = min(int(left * width), width - 1), min(int(top * height), height - 1)
    return Region(x, y, max(1, round(right * width) - x), max(1, round(bottom * height) - y))


def crop(pixels: Pixels, region: Region) -> Pixels:
    """Return a region of pixels."""
    x, y, width, height = region
    return pixels[y : y + height, x : x + width]


def assert_same(found: Pixels, wanted: Pixels) -> None:
    """Assert that pixels are equal, but for one value of 5,000 by a level: on other processors than that where none differed,
    libraries may sum a convolution in an order that its shape decides (docs/performance.md)."""
    assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
    differences = np.abs(found.astype(int) - wanted)
    assert differences.max() <= 1
    assert np.count_nonzero(differences) <= found.size / 5000


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Makes archives of the samples, each once, whose latents have tiles of 64 pixels."""
    folder, readers = tmp_path_factory.mktemp("regions"), dict[tuple[Tier, float], ArchiveReader]()

    def make(tier: Tier, scale: float) -> ArchiveReader:
        if (tier, scale) not in readers:
            source = workshop.as_tar(folder / "source", SAMPLES)
            target = TargetSize(scale=(scale, scale))
            readers[tier, scale] = open_archive(
                workshop.rescale(source, folder / f"{tier}-{scale}", tier=tier, target=target).uri
            )
        return readers[tier, scale]

    return make


@pytest.fixture(autouse=True, scope="module")
def small_tiles() -> Any:
    """Let latents' tiles be small, so that small pictures have many of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latent, "TILE", 64)
        patch.setattr(layout, "LEAST_TILE", 64)
        patch.setitem(cast("dict[str, int]", latent.encode.__kwdefaults__), "tile", 64)
        yield


@pytest.mark.slow
@pytest.mark.parametrize("tier", list(Tier), ids=str)
@given(data=st.data(), key=st.sampled_from(KEYS), edges=shares, use_latent=st.booleans())
def test_a_region_is_that_crop_of_the_whole(
    made: Make, tier: Tier, data: st.DataObject, key: str, edges: tuple[float, ...], use_latent: bool
) -> None:
    """Protects zooming: at the original size a region has the values that the whole restore has there, alpha too."""
    entry = made(tier, data.draw(st.sampled_from(SCALES if tier in (Tier.LEAN, Tier.BALANCED) else [2.0])))[key]
    whole = entry.restore(latent=use_latent)
    region = region_of(whole, edges)
    found = entry.restore(region=region, latent=use_latent)
    assert found.dtype == whole.dtype == (np.uint16 if key.startswith("deep") else np.uint8)
    assert_same(found, crop(whole, region))


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1.0, 1.25, 2.0, 2.6, 4.0, 5.0])
def test_a_region_of_many_tiles(scale: float) -> None:
    """Protects large pictures, which are restored in tiles: a region that lies over several has the same values to the bit."""
    size = (330, 2311)
    lr = photo(math.ceil(size[0] / scale), math.ceil(size[1] / scale), seed=1)
    generator = np.random.default_rng(0)
    whole = ENGINE.restore(lr, size)
    for region in (Region.whole(size), *(region_of(whole, tuple(generator.random(4))) for _ in range(3))):
        assert_same(ENGINE.restore(lr, size, region=region), crop(whole, region))


@pytest.mark.parametrize("scale", [1.9, 2.0, 4.0, 7.0])
def test_a_region_costs_what_it_has(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the point of regions: the network sees the region and its halo, a little square at least, in each step."""
    seen: list[Size] = []
    recovered = Engine._recovered

    def watched(self: Engine, batch: Any, lr: Any) -> Any:
        seen.append(lr.shape[-2:])
        return recovered(self, batch, lr)

    monkeypatch.setattr(Engine, "_recovered", watched)
    lr = photo(300, 500)
    size = math.ceil(300 * scale), math.ceil(500 * scale)
    found = ENGINE.restore(lr, size, clean=True, region=Region(round(200 * scale), round(90 * scale), 9, 20))
    assert found.shape == (20, 9, 3)
    assert len(seen) == (2 if scale > 4 else 1)
    assert all(LEAST <= side <= LEAST + 2 * 40 for sides in seen for side in sides)  # the halo, and the reach of P


@pytest.mark.slow
@pytest.mark.parametrize("tier", [Tier.LEAN, Tier.BALANCED], ids=str)
def test_what_the_lr_shows_needs_no_network(made: Make, tier: Tier, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects thumbnails: what is no larger than its part of the LR, or a little, is that, resized; more asks the network."""
    archive, unaligned, at_one = made(tier, 4.0), made(tier, 2.5), made(tier, 1.0)["wide.webp"]
    entries = [archive[key] for key in KEYS]
    whole = [entry.restore() for entry in entries]
    plain = at_one.restore()

    def none(*_: Any) -> Any:
        raise AssertionError("the network was asked")

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "restore_many", none)
        for entry in (unaligned[key] for key in KEYS):  # no line is repeated there: at its own size it is the LR itself
            found = entry.restore(size=entry.lr_size)
            levels = 257 if found.dtype == np.uint16 else 1
            assert np.abs(found / levels - entry.lr()).max() <= (1 if levels > 1 else 0)
        for entry, pixels in zip(entries, whole, strict=True):
            levels = 257 if pixels.dtype == np.uint16 else 1
            assert entry.restore(size=entry.lr_size).dtype == pixels.dtype
            height, width = pixels.shape[:2]
            region = Region(width // 4, height // 2, width // 2, height // 3)
            for asked, part in (({"max_side": 9}, pixels), ({"region": region, "max_side": 7}, crop(pixels, region))):
                found = entry.restore(**asked)  # type: ignore[arg-type]
                assert found.shape[2] == part.shape[2]
                assert max(found.shape[:2]) == asked["max_side"]
                assert np.abs(found.astype(float) - resize(part, found.shape[:2])).mean() < 12 * levels
        with pytest.raises(AssertionError, match="the network was asked"):
            entries[0].restore(max_side=40)
        with pytest.raises(AssertionError, match="the network was asked"):
            entries[0].restore(region=(0, 0, 20, 20))
        for asked in ({"size": (51, 142)}, {"size": (49, 142)}, {"region": (3, 4, 50, 40), "size": (42, 52)}):
            with pytest.raises(AssertionError, match="the network was asked"):  # it is larger than the picture
                at_one.restore(**asked)  # type: ignore[arg-type]
    np.testing.assert_array_equal(at_one.restore(region=(3, 4, 50, 40)), crop(plain, Region(3, 4, 50, 40)))
    np.testing.assert_array_equal(at_one.restore(size=(51, 142)), resize(plain, (51, 142)))


def waves(height: int, width: int) -> Pixels:
    """Return a grey picture of waves 23 pixels long and 29 high: moved by one pixel, values are other ones by some 10."""
    rows, columns = np.sin(np.arange(height) * math.tau / 29), np.sin(np.arange(width) * math.tau / 23)
    values = np.rint(127.5 + 60 * (rows[:, None] + columns))
    return np.repeat(values[..., None], 3, axis=2).astype(np.uint8)


@pytest.mark.parametrize("tier", [Tier.LEAN, Tier.BALANCED], ids=str)
def test_the_lr_lies_where_the_picture_does(tier: Tier, tmp_path: Path) -> None:
    """Protects geometry: with lines repeated for the LR's sake a view of it is as wide as the restore, to the last column."""
    source = workshop.as_tar(tmp_path / "source", [Sample(key="waves.png", data=saved(waves(101, 201), "PNG"))])
    target = TargetSize(scale=(4.0, 4.0))
    archive = open_archive(workshop.rescale(source, tmp_path / "archive", tier=tier, target=target).uri, device="cpu")
    entry = archive["waves.png"]
    assert entry.lr_size == (26, 51)  # over 104 x 204
    tiles = [Region(x, y, 50, 50) for y in (0, 51) for x in (1, 51, 101, 151)]
    found = [entry.restore(size=entry.lr_size), *(entry.restore(region=tile, size=(12, 12)) for tile in tiles)]
    assert "_engine" not in vars(archive._here)  # no network was loaded for that
    whole = entry.restore()
    for pixels, region in zip(found, (Region.whole((101, 201)), *tiles), strict=True):
        differences = np.abs(pixels - resize(crop(whole, region), pixels.shape[:2]).astype(float))
        right, bottom = -(-pixels.shape[1] // 3), -(-pixels.shape[0] // 3)
        assert differences[:, -right:].mean() < 5, region
        assert differences[-bottom:].mean() < 5, region


NONE = [(0, 0, 0, 5), (0, 0, 5, 0), (-1, 0, 5, 5), (0, -1, 5, 5), (0, 0, -5, 5), (1, 2, 3), (1.5, 0, 2, 2), "abcd"]
BEYOND = [(0, 0, 142, 50), (0, 0, 141, 51), (141, 0, 1, 1), (0, 50, 1, 1), (10**9, 10**9, 1, 1)]


@pytest.mark.parametrize("tier", [Tier.LEAN, Tier.EXACT_PIXELS, Tier.EXACT], ids=str)
def test_what_is_no_region_is_refused(made: Make, tier: Tier) -> None:
    """Protects callers: a region that is empty, negative, no four numbers or not all in the picture is told in a sentence."""
    entry = made(tier, 2.0)["wide.webp"]
    for region in (*NONE, *BEYOND):
        for asked in ({}, {"max_side": 2}):
            with pytest.raises(InvalidOption) as caught:
                entry.restore(region=region, **asked)  # type: ignore[arg-type]
            sentence(str(caught.value))
            assert caught.value.option == "region"
            assert ("141 x 50" in str(caught.value)) == (region in BEYOND)


@pytest.mark.parametrize(
    "text", ["", "1,2,3", "1,2,3,4,5", "1;2;3;4", "1.5,0,2,2", "a,b,c,d", "0,0,0,1", "-1,0,1,1", "٣,0,1,1"]
)
def test_what_is_typed_as_a_region(text: str) -> None:
    """Protects whoever types one: four whole numbers, or the option and a sentence."""
    assert Region.parse("1,02,3,4") == (1, 2, 3, 4)
    with pytest.raises(InvalidOption) as caught:
        Region.parse(text, option="--region")
    sentence(str(caught.value))
    assert caught.value.option == "--region"


@pytest.mark.slow
@pytest.mark.parametrize("tier", list(Tier), ids=str)
def test_the_command_writes_regions(made: Make, tier: Tier, tmp_path: Path) -> None:
    """Protects one truth: `iarn restore --region` writes those pixels; a picture that is too small fails alone, told why."""
    archive = made(tier, 2.0)
    for name, asked in {"whole": {}, "small": {"max_side": 12}}.items():
        rescaled = Rescaled(archive=archive.archive, reports=[])
        reports = workshop.restore(rescaled, tmp_path / name, region=(10, 10, 55, 30), format="png", **asked)
        refused = {failure.key: failure.reason for failure in workshop.failures(reports)}
        assert set(refused) == {"grey.png", "turned.jpg"}  # 60 and 54 pixels wide
        assert all("it reaches beyond the picture" in reason for reason in refused.values())
        files = {Path(file).stem: data for file, data in workshop.written(tmp_path / name).items()}
        assert files.keys() == {Path(key).stem for key in KEYS if key not in refused}
        for key in KEYS:
            if key not in refused:
                found = decoded(files[Path(key).stem])
                pixels = found.pixels if found.alpha is None else np.dstack((found.pixels, found.alpha))
                np.testing.assert_array_equal(pixels, archive[key].restore(region=(10, 10, 55, 30), **asked))
