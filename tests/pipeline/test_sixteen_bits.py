"""Pictures of 16 bits a channel: an LR of 8, and a restore that has 16, by every way back."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import pipeline
from iarn.pretrained import shipped
from pipeline.core.errors import DamagedEntry
from pipeline.core.records import FloorMetric, OriginalCoding, Pixels, Stored, Tier
from pipeline.core.target import TargetSize
from pipeline.engines.engine import Engine
from pipeline.engines.measure import measure
from pipeline.engines.restoring import restore_of
from pipeline.entry_picture import finish_picture
from pipeline.pictures import codecs, lr_codec, writing
from pipeline.pictures.depth import in_8_bits
from pipeline.pictures.picture import resize
from tests.support import pictures, workshop
from tests.support.pictures import decoded, photo
from tests.support.richer import deep
from tests.support.workshop import Rescaled, Sample

HIGH = 60.0
"""A floor, in dB, that no 8 bits reach: rounding to them alone leaves 59."""


def sky(height: int, width: int) -> NDArray[np.uint16]:
    """Return a smooth gradient of three colours, each of some twenty levels of 8 bits."""
    rows, columns = np.mgrid[:height, :width]
    red, green = 20000 + 6000 * columns / width, 21000 + 5000 * columns / width + 900 * rows / height
    return np.rint(np.stack((red, green, 30000 + 4000 * columns / width), axis=-1)).astype(np.uint16)


@cache
def files() -> dict[str, bytes]:
    """Return deep files by name, of odd sizes: a gradient, a photograph in every mode, noise, one on its side."""
    photograph, alpha = deep(photo(61, 83)), deep(photo(61, 83, 4, seed=3))[..., 3:]
    grey = np.ascontiguousarray(photograph[..., 0])
    noise = np.random.default_rng(1).integers(0, 65536, (40, 51, 3)).astype(np.uint16)
    plain = decoded(codecs.encode_png(photograph))
    turned = replace(plain, orientation=6, exif=pictures.exif(6), icc=pictures.srgb_profile(), xmp=b"<x:xmpmeta/>")
    others = {
        "alpha.jp2": np.dstack((photograph, alpha)),
        "grey alpha.jp2": np.dstack((grey, alpha[..., 0])),
        "grey.pgm": grey,
        "colour.jp2": photograph,
        "colour.ppm": photograph,
        "sky.jp2": sky(65, 191),
        "sky.ppm": sky(65, 191),
    }
    formats = {"jp2": "JPEG2000", "pgm": "PPM", "ppm": "PPM"}
    return {
        **{
            key: writing.encode(decoded(codecs.encode_png(samples)), format=formats[key.partition(".")[2]], quality=1)
            for key, samples in others.items()
        },
        "alpha.png": codecs.encode_png(np.dstack((photograph, alpha))),
        "grey alpha.png": codecs.encode_png(np.dstack((grey, alpha[..., 0]))),
        "grey.png": codecs.encode_png(grey),
        "noise.png": codecs.encode_png(noise),
        "photo.png": codecs.encode_png(photograph),
        "sky.png": codecs.encode_png(sky(65, 191)),
        "sky.tif": writing.encode(decoded(codecs.encode_png(sky(65, 191))), format="TIFF", quality=1),
        "turned.png": writing.encode(turned, format="PNG", quality=1),
        "turned.tif": writing.encode(replace(turned, format="TIFF"), format="TIFF", quality=1),
    }


@cache
def archived(folder: Path, tier: Tier, floor: float | None = None) -> Rescaled:
    """Rescale all of them by 2 in a tier."""
    if not (folder / "source").exists():
        workshop.as_folder(folder / "source", [Sample(key=key, data=data) for key, data in files().items()])
    return workshop.rescale(str(folder / "source"), folder / f"{tier}-{floor}", tier=tier, floor=floor)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for all of this."""
    return tmp_path_factory.mktemp("sixteen")


def decibels(image: Pixels, other: Pixels) -> float:
    """Return the PSNR over the full range of 16 bits, computed by itself."""
    squares = float(np.mean((image.astype(np.float64) - other) ** 2))
    return float("inf") if squares == 0 else float(10 * np.log10(65535**2 / squares))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tier", "floor"),
    [(Tier.LEAN, None), (Tier.BALANCED, None), (Tier.FLOOR, 40.0), (Tier.FLOOR, HIGH), (Tier.EXACT_PIXELS, None)],
)
def test_every_tier_gives_back_16_bits(folder: Path, tier: Tier, floor: float | None) -> None:
    """Protects deep pictures: an LR of 8 bits, a file of the source's form with 16, as close as the entry says, verified."""
    result = archived(folder, tier, floor)
    assert result.failures == []
    assert workshop.failures(workshop.verify(result)) == []
    back = workshop.back(result, folder / f"back-{tier}-{floor}")
    for key, entry in workshop.by_key(result).items():
        source, found = decoded(files()[key]), decoded(back[key])
        assert entry.bits == 16, key
        assert tier is Tier.EXACT_PIXELS or entry.stored is not Stored.FILE, f"{key}: {entry.reason}"
        assert (found.bits, found.mode, found.format, found.grey) == (16, source.mode, source.format, source.grey), key
        assert (found.icc, found.exif, found.xmp) == (source.icc, source.exif, source.xmp), key
        assert (found.orientation, found.parts, found.lost) == (source.orientation, source.parts, ()), key
        assert np.array_equal(found.alpha, source.alpha) if source.alpha is not None else found.alpha is None, key
        assert decibels(source.pixels, found.pixels) == pytest.approx(entry.psnr, abs=0.001), key
        assert floor is None or decibels(source.pixels, found.pixels) >= floor, key
        assert entry.lr is not None
        lr, _ = lr_codec.decode_lr(entry.lr)
        assert lr.dtype == np.uint8
        if key.startswith("sky"):
            reduced = resize(source.pixels, lr.shape[:2])
            assert np.abs(lr.astype(int) - np.rint(reduced / 257)).mean() < 2, key


@pytest.mark.slow
def test_a_floor_above_8_bits_leaves_no_bands(folder: Path) -> None:
    """Protects smooth gradients: a restore has hundreds of values where 8 bits have twenty, and climbs with its source."""
    back = workshop.back(archived(folder, Tier.FLOOR, HIGH), folder / "smooth")
    wanted = sky(65, 191)
    for key in ("sky.png", "sky.tif", "sky.ppm", "sky.jp2"):
        found = decoded(back[key]).pixels
        for channel in range(3):
            assert len(np.unique(found[32, :, channel])) > 4 * len(np.unique(in_8_bits(wanted)[32, :, channel]))
        climbs = np.diff(found[..., 0].astype(int)[:, ::8], axis=1)
        assert climbs.min() > 0
        assert np.abs(found.astype(int) - wanted).max() < 3 * 257


def test_the_network_goes_on_between_the_levels_of_its_lr() -> None:
    """Protects smooth gradients of lean archives: from an LR of 8 bits the shipped network restores a ramp without steps."""
    engine, wanted = Engine(shipped(), torch.device("cpu")), sky(96, 192)
    lr = engine.downscale(wanted, (48, 96))
    assert lr.dtype == np.uint8
    found = engine.restore_many([restore_of(lr, (96, 192), grey=False, clean=False, bits=16)])[0]
    usual = engine.restore(lr, (96, 192))
    assert (found.dtype, usual.dtype) == (np.uint16, np.uint8)
    assert measure(wanted, found).psnr > 64
    assert measure(wanted, found).psnr > measure(in_8_bits(wanted), usual).psnr + 4
    steps = np.abs(np.diff(found[16:-16, 16:-16].astype(int), axis=1))
    assert np.percentile(steps, 99) < 100  # of 8 bits each would be of 257
    assert len(np.unique(found[48])) > 3 * len(np.unique(usual[48]))


def test_depths_share_an_engine_and_deep_ones_its_full_precision() -> None:
    """Protects batches: either depth comes from one call as by itself, and 16 bits are not computed in fewer."""
    lrs = [photo(24, 31, seed=seed) for seed in (1, 2)]
    asked = [restore_of(lr, (48, 62), grey=False, clean=True, bits=bits) for lr in lrs for bits in (8, 16)]
    plain = Engine(workshop.weights(), torch.device("cpu"))
    alone = [plain.restore_many([each])[0] for each in asked]
    coarse = Engine(workshop.weights(), torch.device("cpu"), precision=torch.bfloat16, batched=True, tile_points=64)
    for each, found, wanted in zip(asked, coarse.restore_many(asked), alone, strict=True):
        assert found.dtype == wanted.dtype == each.lr.dtype
        if found.dtype == np.uint16:
            assert np.abs(found.astype(int) - wanted).max() <= 2


@pytest.mark.slow
def test_exact_pixels_are_every_bit(folder: Path) -> None:
    """Protects lossless tiers: all 16 bits come back, whether pixels were stored or the file."""
    result = archived(folder, Tier.EXACT_PIXELS)
    back = workshop.back(result, folder / "exact")
    entries = workshop.by_key(result)
    assert OriginalCoding.PIXELS in {entry.original_coding for entry in entries.values()}
    for key, entry in entries.items():
        source, found = decoded(files()[key]), decoded(back[key])
        assert np.array_equal(source.pixels, found.pixels), key
        assert entry.psnr == float("inf")


@pytest.mark.slow
@pytest.mark.parametrize(("metric", "floor"), [(FloorMetric.PSNR_Y, 62.0), (FloorMetric.SSIM, 0.9999)])
def test_floors_of_luma_hold_in_16_bits(tmp_path: Path, metric: FloorMetric, floor: float) -> None:
    """Protects floors that are told otherwise than by PSNR: they are measured on all bits too."""
    chosen = [Sample(key=key, data=files()[key]) for key in ("alpha.png", "grey.png", "noise.png", "photo.png", "sky.png")]
    source = workshop.as_folder(tmp_path / "source", chosen)
    result = workshop.rescale(source, tmp_path / "archive", tier=Tier.FLOOR, floor=floor, floor_metric=metric)
    back = workshop.back(result, tmp_path / "back")
    assert len(back) == len(chosen)
    for key, entry in workshop.by_key(result).items():
        assert entry.stored is not Stored.FILE, f"{key}: {entry.reason}"
        assert measure(decoded(files()[key]).pixels, decoded(back[key]).pixels).of(metric) >= floor


@pytest.mark.slow
def test_readers_and_other_forms_have_what_they_can_hold(folder: Path) -> None:
    """Protects readers: arrays of the picture's depth at any size, an LR of 8 bits, files of what depth their form has."""
    result = archived(folder, Tier.BALANCED)
    archive = pipeline.open_archive(result.uri)
    entry = archive["alpha.png"]
    assert (entry.restore().dtype, entry.restore().shape) == (np.uint16, (61, 83, 4))
    assert (entry.restore(max_side=50).dtype, entry.restore(max_side=50).shape) == (np.uint16, (37, 50, 4))
    assert entry.restore(size=(80, 90)).dtype == np.uint16
    assert entry.lr().dtype == np.uint8
    assert pipeline.ArchiveDataset(result.uri)[0]["lr"].dtype == torch.uint8
    small = workshop.back(result, folder / "small", max_side=50)
    assert {decoded(data).bits for data in small.values()} == {16}
    (report,) = workshop.restore(result, folder / "webp", format="webp")
    assert report.lost["depth"] == len(files())
    assert {decoded(data).bits for data in workshop.written(folder / "webp").values()} == {8}
    whole = decoded(workshop.written(folder / "webp")["photo.webp"]).pixels
    assert np.abs(whole.astype(int) - in_8_bits(archive["photo.png"].restore())).mean() < 8


@pytest.mark.slow
def test_far_below_the_network_16_bits_are_restored_step_by_step(tmp_path: Path) -> None:
    """Protects small LRs of deep pictures: each step of the way back has 16 bits, and a floor is reached all the same."""
    source = workshop.as_folder(tmp_path / "source", [Sample(key="sky.png", data=codecs.encode_png(sky(130, 190)))])
    result = workshop.rescale(source, tmp_path / "archive", target=TargetSize(max_side=20), tier=Tier.FLOOR, floor=HIGH)
    (entry,) = result.entries
    assert (entry.lr_height, entry.lr_width, entry.stored, entry.clean) == (14, 20, Stored.LATENT, True)
    back = workshop.back(result, tmp_path / "back")
    assert decibels(sky(130, 190), decoded(back["sky.png"]).pixels) >= HIGH


def test_a_deep_file_that_does_not_pay_is_kept(tmp_path: Path) -> None:
    """Protects bytes: where LR and latent take more than the file, the file comes back, its bits with it."""
    data = codecs.encode_png(np.zeros((60, 70, 3), np.uint16))
    source = workshop.as_folder(tmp_path / "source", [Sample(key="flat.png", data=data)])
    result = workshop.rescale(source, tmp_path / "archive", max_ratio=1.0)
    assert result.entries[0].stored is Stored.FILE
    assert workshop.back(result, tmp_path / "back") == {"flat.png": data}


@pytest.mark.slow
def test_a_depth_that_is_not_the_stored_one_is_damage(folder: Path) -> None:
    """Protects against forged rows: a latent or alpha of another depth than the entry's is refused, and told by its name."""
    entry = workshop.by_key(archived(folder, Tier.BALANCED))["alpha.png"]
    restored = decoded(files()["alpha.png"]).pixels
    with pytest.raises(DamagedEntry, match="latent"):
        finish_picture(replace(entry, bits=8), in_8_bits(restored), detail=entry.latent)
    with pytest.raises(DamagedEntry, match="alpha"):
        finish_picture(replace(entry, bits=8), in_8_bits(restored), detail=None)
