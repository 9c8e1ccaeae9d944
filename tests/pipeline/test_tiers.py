"""What an entry stores for its tier: floors are reached and measured, what does not pay is not stored, nothing is lost."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from iarn import metrics
from iarn.lattice import axes_for
from pipeline import tiers
from pipeline.archives.entries import source_bytes
from pipeline.core.errors import InvalidOption
from pipeline.core.records import EntryKind, FloorMetric, LrCodec, OriginalCoding, Pixels, Settings, Stored, Tier
from pipeline.core.target import TargetSize
from pipeline.pictures import clean_lr, lr_codec, writing
from pipeline.pictures.picture import Picture, resize
from tests.support import workshop
from tests.support.pictures import photo
from tests.support.workshop import Sample


def picture_of(pixels: Pixels) -> Picture:
    """Return pixels as a decoded picture without metadata."""
    return Picture(
        pixels=pixels, alpha=None, grey=False, orientation=1, mode="RGB", format="PNG", icc=None, exif=None, xmp=None
    )


def tensor(pixels: Pixels) -> torch.Tensor:
    """Return pixels (H, W, 3) as the float32 batch that the metrics take."""
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255


def png(pixels: Pixels) -> bytes:
    """Return a PNG of pixels."""
    return writing.encode(picture_of(pixels), format="png", quality=95)


def clean(pixels: Pixels, lr_size: tuple[int, int], codec: LrCodec) -> tiers.Draft:
    """Return the draft of a clean LR, over the span that the network would have."""
    rows, columns = axes_for((pixels.shape[0], pixels.shape[1]), lr_size)
    return tiers.clean_draft(picture_of(pixels), lr_size, (rows.span, columns.span), codec)


@given(height=st.integers(4, 60), width=st.integers(4, 60), lower=st.integers(1, 4), seed=st.integers(0, 50))
def test_a_clean_lr_is_the_bicubic_one(height: int, width: int, lower: int, seed: int) -> None:
    """Protects what the network was trained to restore from: the bicubic LR on its own grid, rounded, at odd sizes too."""
    pixels, lr_size = photo(height, width, seed=seed), (-(-height // lower), -(-width // 2))
    draft = clean(pixels, lr_size, LrCodec.PNG)
    expected = metrics.bicubic_lr(tensor(pixels), axes_for((height, width), lr_size))[0].permute(1, 2, 0).numpy() * 255
    levels = clean_lr.precision((height, width), lr_size)
    assert draft.clean
    assert np.abs(draft.lr - expected).max() <= levels / 2 + 2  # Pillow rounds and clips after each of its two passes
    assert (draft.lr % levels == 0)[draft.lr < 255].all()


@pytest.mark.parametrize(("scale", "levels"), [(1, 4), (2, 4), (3, 3), (4, 2)])
def test_a_clean_lr_is_no_finer_than_pays(scale: int, levels: int) -> None:
    """Protects bytes of LRs coded without loss, and viewers from steps that one could see: coarser at small scales."""
    assert clean_lr.precision((400, 400), (400 // scale, 400 // scale)) == levels


def test_a_clean_lr_as_avif_stays_close() -> None:
    """Protects those who use the LRs as they are: on a photograph a lossy LR is well above 38 dB against the bicubic one."""
    with Image.open(Path(__file__).parents[2] / "samples/mural.jpg") as sample:
        pixels = np.asarray(sample.convert("RGB"))[:512, :512]
    for scale in (2, 3, 4):
        lr_size = (-(-512 // scale), -(-512 // scale))
        lossy, plain = clean(pixels, lr_size, LrCodec.AUTO), clean(pixels, lr_size, LrCodec.PNG)
        assert lossy.extension == "avif"
        error = np.square(lossy.lr.astype(float) - plain.lr).mean()
        assert 10 * math.log10(255**2 / error) > 38
        assert lossy.data is not None
        assert plain.data is not None
        assert len(lossy.data) < 0.6 * len(plain.data)


@pytest.mark.parametrize(("scale", "faster"), [(2, 0), (3, 1), (4, 1)])
def test_a_small_lr_is_coded_with_more_effort(scale: int, faster: int) -> None:
    """Protects bytes where the LR's coding is a small part of the work, and the speed of rescaling at x2, where it is not."""
    pixels = photo(96, 96)
    draft = clean(pixels, (96 // scale, 96 // scale), LrCodec.AUTO)
    plain = resize(pixels, (96 // scale, 96 // scale))
    data, _ = lr_codec.encode_clean_lr(plain, alpha=None, icc=None, speed=lr_codec.AVIF_SPEED - faster)
    assert draft.data == data


@pytest.mark.slow
@pytest.mark.parametrize(
    ("metric", "floor"), [(FloorMetric.PSNR, 41.0), (FloorMetric.PSNR_Y, 43.0), (FloorMetric.SSIM, 0.985)], ids=str
)
def test_every_entry_reaches_its_floor(tmp_path: Path, metric: FloorMetric, floor: float) -> None:
    """Protects `--floor`: what is restored from the files reaches it, as anyone measures it, and verify agrees."""
    samples = [
        Sample(key="a.png", data=workshop.picture(61, 44)),
        Sample(key="b.png", data=workshop.picture(40, 52, seed=4)),
        Sample(key="grey.png", data=workshop.picture(33, 47, channels=1)),
    ]
    source = workshop.as_folder(tmp_path / "source", samples)
    result = workshop.rescale(source, tmp_path / "archive", tier=Tier.FLOOR, floor=floor, floor_metric=metric)
    workshop.restore(result, tmp_path / "out", format="png")
    for sample, entry in zip(samples, result.entries, strict=True):
        assert entry.kind is EntryKind.RESCALED
        restored = (tmp_path / "out" / sample.key).read_bytes()
        one, other = (tensor(workshop.shown(data)) for data in (sample.data, restored))
        found = {
            FloorMetric.PSNR: metrics.psnr(one, other),
            FloorMetric.PSNR_Y: metrics.psnr(metrics.luma(one), metrics.luma(other)),
            FloorMetric.SSIM: metrics.ssim(one, other),
        }
        assert found[metric] >= floor
        assert found[metric] < floor + (0.006 if metric is FloorMetric.SSIM else 1.5)
    reports = workshop.verify(result)
    assert workshop.failures(reports) == []
    assert sum(report.compared for report in reports) == len(samples)


def test_verify_tells_an_entry_below_its_floor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects verify: an entry that a faulty writer stored below the plan's floor is a fault."""
    source = workshop.as_folder(tmp_path / "source", workshop.samples(1))
    with monkeypatch.context() as patch:
        patch.setattr(tiers, "_decibels", lambda value, _: 99.0 if value < 40 else value)
        result = workshop.rescale(source, tmp_path / "archive", tier=Tier.FLOOR, floor=40.0)
    assert any("below the floor of 40" in failure.reason for failure in workshop.failures(workshop.verify(result, sample=0.0)))


def test_lean_where_lean_does(tmp_path: Path) -> None:
    """Protects bytes: an entry whose LR alone reaches the floor, and is small, has no latent, and says that it is lean."""
    source = workshop.as_folder(tmp_path / "source", [Sample(key="a.png", data=workshop.picture(12, 12))])
    (entry,) = workshop.rescale(source, tmp_path / "archive", tier=Tier.FLOOR, floor=5.0).entries
    assert (entry.tier, entry.latent, entry.clean) == (Tier.LEAN, None, False)


def test_the_smaller_entry_is_stored(tmp_path: Path) -> None:
    """Protects bytes: an LR that hides detail may reach the floor, but a clean one with its latent in fewer bytes."""
    source = workshop.as_folder(tmp_path / "source", [Sample(key="a.png", data=png(photo(160, 160)))])
    (entry,) = workshop.rescale(
        source, tmp_path / "archive", target=TargetSize(scale=(1, 1)), tier=Tier.FLOOR, floor=25.0
    ).entries
    (lean,) = workshop.rescale(source, tmp_path / "lean", target=TargetSize(scale=(1, 1)), tier=Tier.LEAN).entries
    assert lean.psnr is not None
    assert lean.psnr > 25
    assert (entry.tier, entry.clean) == (Tier.FLOOR, True)
    assert lean.lr is not None
    assert len(entry.lr or b"") + len(entry.latent or b"") < len(lean.lr)


def test_a_floor_out_of_reach_keeps_the_source(tmp_path: Path) -> None:
    """Protects the promise of a floor: what cannot reach it keeps its file, with the reason, and is no failure."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    sample = Sample(key="noise.png", data=png(noise))
    result = workshop.rescale(
        workshop.as_folder(tmp_path / "source", [sample]), tmp_path / "archive", tier=Tier.FLOOR, floor=90.0
    )
    (entry,) = result.entries
    assert (entry.stored, source_bytes(entry)) == (Stored.FILE, sample.data)
    assert "floor of 90 (psnr)" in workshop.sentence(entry.reason or "")
    assert not result.failures


def test_what_does_not_pay_is_not_stored(tmp_path: Path) -> None:
    """Protects bytes: what is larger than its source keeps the source, unless --max-ratio lets it; an exact one may be."""
    flat = np.full((64, 64, 3), 77, np.uint8)
    sample = Sample(key="flat.png", data=png(flat))
    source = workshop.as_folder(tmp_path / "source", [sample])
    kept = workshop.rescale(source, tmp_path / "kept", max_ratio=1.0)
    (entry,) = kept.entries
    assert (entry.kind, source_bytes(entry), kept.failures) == (EntryKind.ORIGINAL, sample.data, [])
    assert f"the source {len(sample.data)}" in workshop.sentence(entry.reason or "")
    for name, settings in {"any": {"max_ratio": None}, "twenty": {"max_ratio": 20.0}}.items():
        (entry,) = workshop.rescale(source, tmp_path / name, **settings).entries
        assert entry.kind is EntryKind.RESCALED
    (entry,) = workshop.rescale(source, tmp_path / "exact", tier=Tier.EXACT, max_ratio=1.0).entries
    assert entry.kind is EntryKind.RESCALED


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_exact_pixels_come_back_as_they_were(tmp_path: Path, channels: int) -> None:
    """Protects the tier's promise: every pixel, alpha too, and an LR beside them; from the LR alone with --no-latent."""
    sample = Sample(key="a.png", data=workshop.picture(37, 41, channels=channels))
    source = workshop.as_folder(tmp_path / "source", [sample])
    result = workshop.rescale(source, tmp_path / "archive", tier=Tier.EXACT_PIXELS)
    (entry,) = result.entries
    assert (entry.psnr, entry.psnr_y, entry.ssim) == (math.inf, math.inf, 1.0)
    assert entry.original_coding in (OriginalCoding.PIXELS, OriginalCoding.BYTES)
    workshop.restore(result, tmp_path / "back", format="png")
    restored = workshop.shown((tmp_path / "back/a.png").read_bytes(), "RGBA")
    assert (restored == workshop.shown(sample.data, "RGBA")).all()
    workshop.restore(result, tmp_path / "lean", format="png", use_latent=False)
    assert (workshop.shown((tmp_path / "lean/a.png").read_bytes(), "RGBA") != restored).any()
    assert not workshop.failures(workshop.verify(result))


@pytest.mark.parametrize("form", ["WEBP", "JPEG", "AVIF", "PNG", "TIFF"])
def test_exact_pixels_come_back_without_being_asked_for_as_png(tmp_path: Path, form: str) -> None:
    """Protects the tier's promise on a plain restore: a lossy source comes back in a file that loses nothing more."""
    drawing = np.kron(np.random.default_rng(3).integers(0, 2, (20, 24, 3), np.uint8) * 255, np.ones((8, 8, 1), np.uint8))
    data = writing.encode(picture_of(drawing), format=form, quality=100 if form == "WEBP" else 95)
    source = workshop.as_folder(tmp_path / "source", [Sample(key=f"a.{form.lower()}", data=data)])
    result = workshop.rescale(source, tmp_path / "archive", tier=Tier.EXACT_PIXELS)
    workshop.restore(result, tmp_path / "back")
    (restored,) = workshop.written(tmp_path / "back").values()
    assert (workshop.shown(restored) == workshop.shown(data)).all()


def test_a_jpeg_is_kept_in_fewer_bytes(tmp_path: Path) -> None:
    """Protects `exact`: a JPEG is stored smaller than it is, and the identical file comes back."""
    data = (Path(__file__).parents[2] / "samples/mural.jpg").read_bytes()
    source = workshop.as_folder(tmp_path / "source", [Sample(key="mural.jpg", data=data)])
    settings = {"tier": Tier.EXACT, "target": TargetSize(max_side=64), "pixel_limit": 100_000_000}
    result = workshop.rescale(source, tmp_path / "archive", **settings)
    (entry,) = result.entries
    assert entry.original is not None
    assert (entry.kind, entry.original_coding) == (EntryKind.RESCALED, OriginalCoding.JXL)
    assert len(entry.original) < 0.9 * len(data)
    workshop.restore(result, tmp_path / "back")
    assert (tmp_path / "back/mural.jpg").read_bytes() == data


@pytest.mark.parametrize(
    "fields",
    [
        {"tier": Tier.FLOOR},
        {"floor": 40.0},
        {"tier": Tier.FLOOR, "floor": 0.0},
        {"tier": Tier.FLOOR, "floor": 101.0},
        {"tier": Tier.FLOOR, "floor": math.nan},
        {"tier": Tier.FLOOR, "floor": 40.0, "floor_metric": FloorMetric.SSIM},
        {"floor_metric": FloorMetric.SSIM},
        {"max_ratio": 0.0},
        {"max_ratio": math.inf},
        {"max_ratio": math.nan},
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(fields: dict[str, object]) -> None:
    """Protects long jobs: a floor or a ratio that means nothing is refused with a sentence before anything is written."""
    good = Settings(target=TargetSize(scale=(2, 2)))
    with pytest.raises(InvalidOption) as caught:
        replace(good, **fields)  # type: ignore[arg-type]
    workshop.sentence(str(caught.value))
