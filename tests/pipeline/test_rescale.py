"""The main path without Ray: what becomes of a source in an archive."""

from __future__ import annotations

import hashlib
import io
import math
from collections import Counter
from itertools import product
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, UnidentifiedImageError

from iarn import metrics
from pipeline.archives.commits import read_commit
from pipeline.archives.entries import source_bytes
from pipeline.assets import shards
from pipeline.core.errors import UnwritableImage
from pipeline.core.records import EntryKind, LrCodec, ShardKind, Tier
from pipeline.core.target import TargetSize
from pipeline.outputs.outputs import OutputKind
from pipeline.pictures import lr_codec
from pipeline.pictures.orientation import upright
from pipeline.pictures.picture import resize
from pipeline.planning.sources import find_source
from tests.support import pictures, workshop
from tests.support.workshop import SOURCES, Arrays, Sample, batch_on_the_cpu, every_source

MAGIC = {"webp": b"RIFF", "png": b"\x89PNG", "jxl": b"\xff\x0a", "avif": b"\0\0\0 ftypavif"}


def digest(data: bytes) -> str:
    """Return a SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def as_tensor(pixels: Arrays) -> torch.Tensor:
    """Return pixels (H, W, 3) as the float32 batch that the metrics take."""
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].to(torch.float32) / 255


@pytest.mark.slow
@every_source
@pytest.mark.parametrize("tier", list(Tier))
def test_every_asset_is_one_entry_in_order(tmp_path: Path, kind: str, tier: Tier) -> None:
    """Protects 'nothing is lost': names, order, sidecars and digests of a source of any form, in every tier."""
    samples = workshop.samples(6)
    result = workshop.rescale(SOURCES[kind](tmp_path / "source", samples), tmp_path / "archive", tier=tier)
    assert [entry.key for entry in result.entries] == [sample.key for sample in samples]
    assert not result.failures
    for sample, entry in zip(samples, result.entries, strict=True):
        assert (entry.kind, entry.tier, entry.reason) == (EntryKind.RESCALED, tier, None)
        assert (entry.sha256, entry.byte_size) == (digest(sample.data), len(sample.data))
        expected = dict(sample.sidecars) if kind != "parquet" else {"txt": sample.sidecars["txt"]}
        assert {name: data for name, data in entry.sidecars.items() if name != "json"} == expected
        assert entry.lr is not None
        assert entry.lr_sha256 == digest(entry.lr)
        assert entry.lr_path == str(PurePosixPath(sample.key).with_suffix(".avif" if tier.keeps_latent else ".webp"))
        assert (entry.width, entry.height) == Image.open(io.BytesIO(sample.data)).size
        assert Image.open(io.BytesIO(entry.lr)).size == (entry.lr_width, entry.lr_height)
        assert (entry.lr_width, entry.lr_height) == (math.ceil(entry.width / 2), math.ceil(entry.height / 2))
        assert (entry.latent is not None) == entry.clean == tier.keeps_latent
        assert (entry.original is not None) == (tier in (Tier.EXACT, Tier.EXACT_PIXELS))
        if tier is not Tier.EXACT_PIXELS:  # which keeps these or the pixels, whatever is smaller
            assert source_bytes(entry) == (sample.data if tier is Tier.EXACT else None)


def test_the_commit_tells_what_was_written(tmp_path: Path) -> None:
    """Protects resuming and verifying: digest, size and counts of a commit are those of the shard object."""
    samples = workshop.samples(3)
    result = workshop.rescale(workshop.as_tar(tmp_path / "source", samples), tmp_path / "archive")
    (shard,) = result.archive.shards()
    commit = read_commit(result.archive.store, shard.id, result.archive.digest)
    stored = (tmp_path / "archive/shards" / f"{shard.id}.parquet").read_bytes()
    assert (commit.sha256, commit.byte_size) == (digest(stored), len(stored))
    assert commit.report == result.reports[0]
    assert commit.report.entries == 3
    assert commit.report.bytes_in == sum(len(sample.data) for sample in samples)
    assert commit.report.pixels == sum(shown.shape[0] * shown.shape[1] for shown in (workshop.shown(s.data) for s in samples))


@pytest.mark.parametrize("codec", list(LrCodec))
def test_an_lr_is_a_picture_of_its_codec(tmp_path: Path, codec: LrCodec) -> None:
    """Protects those who use the LRs as they are: the codec asked for, grey and alpha kept, close to the image shrunk."""
    extension = "avif" if codec is LrCodec.AUTO else codec.value
    samples = [
        Sample(key="alpha.png", data=workshop.picture(24, 30, channels=4)),
        Sample(key="colour.png", data=workshop.picture(24, 30)),
        Sample(key="grey.png", data=workshop.picture(24, 30, channels=1)),
    ]
    result = workshop.rescale(workshop.as_folder(tmp_path / "source", samples), tmp_path / "archive", codec=codec)
    for sample, entry in zip(samples, result.entries, strict=True):
        assert entry.lr is not None
        assert entry.lr.startswith(MAGIC[extension])
        assert entry.lr_path == str(PurePosixPath(sample.key).with_suffix(f".{extension}"))
        pixels, alpha = lr_codec.decode_lr(entry.lr)
        source = workshop.shown(sample.data, "RGBA")
        assert (alpha is not None) == (sample.key == "alpha.png")
        assert np.abs(pixels.astype(int) - resize(source[..., :3], (12, 15))).mean() < 8
        if alpha is not None:
            off = np.abs(alpha.astype(int) - resize(source[..., 3], (12, 15)))
            assert off.mean() < 3 if codec is LrCodec.AUTO else not off.any()
        if sample.key == "grey.png":
            assert (pixels == pixels[..., :1]).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_lr_is_upright_and_carries_its_profile(tmp_path: Path, orientation: int) -> None:
    """Protects viewers: an LR needs no EXIF to stand upright, and shows its colours by the source's profile."""
    profile = pictures.swapped_profile()
    data = pictures.with_metadata(pictures.photo(24, 40), "PNG", exif=pictures.exif(orientation), icc=profile, xmp=pictures.XMP)
    source = workshop.as_folder(tmp_path / "source", [Sample(key="turned.png", data=data)])
    (entry,) = workshop.rescale(source, tmp_path / "archive", tier=Tier.LEAN).entries
    assert entry.lr is not None
    lr = Image.open(io.BytesIO(entry.lr))
    assert lr.info["icc_profile"] == profile
    assert not lr.getexif()
    expected = upright(pictures.photo(24, 40), orientation)
    assert (entry.height, entry.width, entry.orientation) == (*expected.shape[:2], orientation)
    shrunk = resize(np.ascontiguousarray(expected), (lr.height, lr.width))
    assert np.abs(np.asarray(lr.convert("RGB")).astype(int) - shrunk).mean() < 8


@pytest.mark.slow
@pytest.mark.parametrize(("tier", "batched"), [*product((Tier.LEAN, Tier.BALANCED, Tier.HIGH, Tier.FLOOR), (False, True))])
def test_stored_figures_are_those_of_the_restored_files(
    tmp_path: Path, tier: Tier, batched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects trust in an archive: PSNR and SSIM are what anyone measures who restores and compares, also past one strip, and
    also where the engine takes images of all kinds at once, as on a GPU."""
    if batched:
        batch_on_the_cpu(monkeypatch)
    samples = [
        Sample(key="colour.jpg", data=workshop.picture(60, 44, "JPEG")),
        Sample(key="grey.png", data=workshop.picture(33, 47, channels=1)),
        Sample(key="tall.png", data=workshop.picture(1100, 17, seed=3)),
        Sample(key="tiny.png", data=workshop.picture(3, 5)),
        Sample(key="void.jpg", data=b"no image"),
        Sample(key="wide.png", data=workshop.picture(21, 90, seed=4)),
    ]
    result = workshop.rescale(workshop.as_folder(tmp_path / "source", samples), tmp_path / "archive", tier=tier)
    workshop.restore(result, tmp_path / "out", format="png")
    for sample, entry in zip(samples, result.entries, strict=True):
        assert entry.key == sample.key
        if entry.kind is EntryKind.ORIGINAL:
            assert (tmp_path / "out" / sample.key).read_bytes() == sample.data
            continue
        restored = (tmp_path / "out" / sample.key).with_suffix(".png").read_bytes()
        one, other = (as_tensor(workshop.shown(data)) for data in (sample.data, restored))
        assert entry.psnr == pytest.approx(metrics.psnr(one, other), abs=1e-3)
        assert entry.psnr_y == pytest.approx(metrics.psnr(metrics.luma(one), metrics.luma(other)), abs=1e-3)
        assert entry.ssim == pytest.approx(metrics.ssim(one, other), abs=1e-4)
        assert 15 < entry.psnr < 80


def test_an_exact_entry_says_that_it_is_identical(tmp_path: Path) -> None:
    """Protects the tier's promise: what is kept beside the LR is the source's file, and its figures say so."""
    source = workshop.as_folder(tmp_path / "source", workshop.samples(1))
    (entry,) = workshop.rescale(source, tmp_path / "archive", tier=Tier.EXACT).entries
    assert (entry.psnr, entry.ssim) == (math.inf, 1.0)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (TargetSize(scale=(2.5, 1)), (9, 30)),
        (TargetSize(scale=(1, 1)), (22, 30)),
        (TargetSize(max_side=20), (15, 20)),
        (TargetSize(max_pixels=220), (12, 17)),
        (TargetSize(size=(11, 29)), (11, 29)),
    ],
    ids=str,
)
def test_the_lr_has_the_size_asked_for(tmp_path: Path, target: TargetSize, expected: tuple[int, int]) -> None:
    """Protects the user's choice of size: any scale, per axis too, a longest side, a count of pixels, a size."""
    source = workshop.as_folder(tmp_path / "source", [Sample(key="a.png", data=workshop.picture(22, 30))])
    (entry,) = workshop.rescale(source, tmp_path / "archive", target=target).entries
    assert (entry.lr_height, entry.lr_width) == expected


@pytest.mark.slow
@pytest.mark.parametrize("tier", list(Tier))
@pytest.mark.parametrize(
    ("target", "expected"),
    [(TargetSize(scale=(5.9, 5.9)), (16, 11)), (TargetSize(max_side=6), (6, 4)), (TargetSize(size=(50, 2)), (50, 2))],
    ids=str,
)
def test_any_scale_works_in_every_tier(tmp_path: Path, target: TargetSize, expected: tuple[int, int], tier: Tier) -> None:
    """Protects small pictures of large images: beyond the network's reach an LR is a clean one, restored step by step, and
    comes back as well as the tier says, with figures that are true."""
    data = workshop.picture(90, 61)
    source = workshop.as_folder(tmp_path / "source", [Sample(key="a.png", data=data)])
    result = workshop.rescale(source, tmp_path / "archive", target=target, tier=tier)
    (entry,) = result.entries
    assert (entry.kind, entry.lr_height, entry.lr_width, entry.clean) == (EntryKind.RESCALED, *expected, True)
    assert size_of(entry.lr) == expected[::-1]
    assert not workshop.failures(workshop.restore(result, tmp_path / "out", format="png"))
    back, original = (as_tensor(workshop.shown(each)) for each in ((tmp_path / "out/a.png").read_bytes(), data))
    assert entry.psnr == pytest.approx(metrics.psnr(original, back), abs=1e-3)
    floor = {Tier.LEAN: 10, Tier.EXACT: math.inf, Tier.EXACT_PIXELS: math.inf}.get(tier, 36)
    assert metrics.psnr(original, back) >= floor


@pytest.mark.parametrize("target", [TargetSize(size=(64, 64)), TargetSize(max_side=64)], ids=str)
def test_a_target_that_would_enlarge_leaves_the_picture_as_large_as_it_is(tmp_path: Path, target: TargetSize) -> None:
    """Protects small images: none is enlarged, each has an LR, and the job is a success."""
    (sample,) = workshop.samples(1)
    result = workshop.rescale(workshop.as_folder(tmp_path / "source", [sample]), tmp_path / "archive", target=target)
    (entry,) = result.entries
    assert (entry.kind, entry.sha256, entry.sidecars) == (EntryKind.RESCALED, digest(sample.data), sample.sidecars)
    assert (entry.lr_height, entry.lr_width) == (entry.height, entry.width)
    assert not result.failures
    assert result.reports[0].originals == 0


def test_a_picture_that_its_codec_cannot_hold_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the rest of a shard: a codec that fails at one LR makes that asset an original and a failure, no more."""
    encode = lr_codec.encode_lr

    def fail_at_grey(pixels: Arrays, **options: Any) -> tuple[bytes, str]:
        if options["grey"]:
            raise UnwritableImage("WEBP", "the encoder gave up")
        return encode(pixels, **options)

    monkeypatch.setattr(lr_codec, "encode_lr", fail_at_grey)
    samples = [Sample(key="a.png", data=workshop.picture(9, 9)), Sample(key="b.png", data=workshop.picture(9, 9, channels=1))]
    result = workshop.rescale(workshop.as_folder(tmp_path / "source", samples), tmp_path / "archive", tier=Tier.LEAN)
    assert [entry.kind for entry in result.entries] == [EntryKind.RESCALED, EntryKind.ORIGINAL]
    assert source_bytes(result.entries[1]) == samples[1].data
    assert [failure.key for failure in result.failures] == ["b.png"]


def test_an_lr_that_does_not_come_back_is_not_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the figures: an LR that a codec changed would make them a lie, so the source is kept instead."""
    decode = lr_codec.decode_lr
    monkeypatch.setattr(lr_codec, "decode_lr", lambda data: (decode(data)[0] ^ 1, None))
    source = workshop.as_folder(tmp_path / "source", workshop.samples(1))
    result = workshop.rescale(source, tmp_path / "archive", tier=Tier.LEAN)
    assert [entry.kind for entry in result.entries] == [EntryKind.ORIGINAL]
    assert "does not come back" in workshop.sentence(result.failures[0].reason)


# Anything -------------------------------------------------------------------------------------------------------------


@st.composite
def little_samples(draw: st.DrawFn) -> list[Sample]:
    """Draw pictures of any mode, 1 to 40 pixels a side, under names with dots, folders, blanks and letters of any script."""
    names = st.from_regex(r"([a-c]/)?[a-bλé ~%][a-b.é ~%]{0,5}", fullmatch=True)
    stems = draw(st.lists(names, min_size=1, max_size=5, unique=True))
    found = []
    for stem in stems:
        channels = draw(st.sampled_from([1, 2, 3, 4]))
        height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
        form, extension = draw(st.sampled_from([("PNG", "png"), ("TIFF", "tif"), ("PNG", "PNG")]))
        data = workshop.picture(height, width, form, channels=channels, seed=draw(st.integers(0, 9)))
        texts = st.dictionaries(
            st.sampled_from(["txt", "json", "seg.json"]), st.binary(max_size=20).map(b"no image: ".__add__), max_size=2
        )
        found.append(Sample(key=f"{stem}.{extension}", data=data, sidecars=draw(texts)))
    return found


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    samples=little_samples(),
    kind=st.sampled_from(list(ShardKind)),
    tier=st.sampled_from(list(Tier)),
    form=st.sampled_from(["source", "png", "jpeg", "webp"]),
    output=st.sampled_from([OutputKind.FILES, OutputKind.TAR]),
)
def test_any_little_source_comes_back_one_output_per_asset(
    samples: list[Sample], kind: ShardKind, tier: Tier, form: str, output: OutputKind, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Protects 'nothing is lost' whatever the names, sizes and modes: one entry and one restored picture per asset."""
    folder = tmp_path_factory.mktemp("any")
    uri = SOURCES[kind.value](folder / "source", samples)
    found = find_source(uri)
    assets = [asset for shard in found.shards for asset in shards.read_assets(found.store, shard)]
    result = workshop.rescale(uri, folder / "archive", tier=tier)
    assert [entry.key for entry in result.entries] == [asset.key for asset in assets]
    assert not workshop.failures(workshop.restore(result, folder / "out", format=form, output=output))
    files = list(workshop.written(folder / "out").items())
    if output is OutputKind.TAR:
        files = [member for _, data in files for member in workshop.members_of(data)]
    assert (
        len({name for name, _ in files})
        == len(files)
        == sum((asset.data is not None) + len(asset.sidecars) for asset in assets)
    )
    texts = sorted(data for asset in assets for data in asset.sidecars.values())
    assert not Counter(texts) - Counter(data for _, data in files)
    restored = Counter(size_of(data) for _, data in files)
    assert not Counter(size_of(asset.data) for asset in assets) - restored


def size_of(data: bytes | None) -> tuple[int, int] | None:
    """Return width and height of a picture, None for what is none."""
    try:
        return Image.open(io.BytesIO(data or b"")).size
    except UnidentifiedImageError:
        return None
