"""The arithmetic of benchmarks/rate_distortion.py: curves, totals, ratios, what it remembers and what it says of them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from benchmarks import rate_distortion
from benchmarks.bytes_page import archives, codecs, curves, page
from benchmarks.bytes_page.archives import Stored
from benchmarks.bytes_page.bench import Bench, Target
from benchmarks.bytes_page.curves import DEFAULT, TUNED, Point
from benchmarks.bytes_page.plot import plot
from benchmarks.bytes_page.rows import Folder, Row, row
from pipeline.core.records import Entry, EntryKind, LrCodec, Pixels, Settings, Size, Tier
from pipeline.core.target import TargetSize
from pipeline.decoders.decoding import decode
from pipeline.engines.engine import Engine
from tests.support.workshop import picture


def point(size: int, psnr: float, setting: float = 0) -> Point:
    """Return a point whose PSNR-Y and SSIM follow from its PSNR."""
    return Point(setting=setting, bytes=size, psnr=psnr, psnr_y=psnr + 2, ssim=psnr / 100)


def entry(**sizes: Any) -> Stored:
    """Return an entry of an LR of 100 bytes unless told otherwise."""
    return Stored(
        **{"lr": 100, "latent": 0, "beside": 0, "original": 0, "psnr": 40.0, "psnr_y": 42.0, "ssim": 0.9, "told": 40.0, **sizes}
    )


def both_tunings(*images: list[Point]) -> dict[str, list[list[Point]]]:
    """Return those points for both tunings of AVIF."""
    return {TUNED: list(images), DEFAULT: list(images)}


def row_of(target: Target, entries: list[Stored], points: dict[str, list[list[Point]]]) -> Row:
    """Return the row of an archive at x2 whose clean LRs would take 100 bytes."""
    return row("2", target, entries, points, shards=1000, clean_lr=100)


def folder_of(*rows: Row, points: list[list[Point]] | None = None) -> Folder:
    """Return a folder of two images with those rows, all codecs with the same points."""
    images = points or [[point(100, 30), point(400, 44)]] * 2
    return Folder(name="some", images=2, pixels=800, source_bytes=800, rows=rows, curves=dict.fromkeys(codecs.CODECS, images))


def settings(tmp_path: Path) -> Bench:
    """Return a benchmark that remembers below ``tmp_path``."""
    return Bench(
        scales=["2"],
        targets=[Target(tier=Tier.LEAN)],
        floors=[40.0],
        codec=LrCodec.WEBP,
        weights=None,
        device="cpu",
        limit=None,
        out=tmp_path,
        cache=tmp_path / "cache",
        begun=0.0,
    )


def test_bytes_between_two_points_are_interpolated_in_their_logarithm() -> None:
    """Protects every ratio: half-way in dB is the geometric mean in bytes, and a point itself is hit exactly."""
    line = [point(100, 30), point(400, 40)]
    assert curves.bytes_at(line, 35) == (pytest.approx(200), True)
    assert curves.bytes_at(line, 40) == (pytest.approx(400), True)


@pytest.mark.parametrize(("wanted", "size"), [(20, 100), (50, 400)])
def test_a_quality_beyond_the_sweep_is_told(wanted: float, size: int) -> None:
    """Protects against bytes made up outside what was measured: the nearest point stands, marked as not reached."""
    assert curves.bytes_at([point(100, 30), point(400, 40)], wanted) == (pytest.approx(size), False)


def test_a_lucky_point_is_no_part_of_a_curve() -> None:
    """Protects JPEG's curve on images that were JPEG once: the spike at the source's own tables is left out."""
    line = [point(100, 30), point(300, 50), point(400, 40)]
    assert curves.rising(line) == [line[0], line[2]]
    assert curves.bytes_at(line, 35) == (pytest.approx(200), True)


def test_a_folder_has_total_bytes_and_mean_quality() -> None:
    """Protects 'the same mean PSNR': sums and means go over the images at one setting, exact ones counted as finite."""
    images = [
        [point(100, 30, setting=5), point(300, 40, setting=9)],
        [point(200, 34, setting=5), point(500, math.inf, setting=9)],
    ]
    low, high = curves.whole(images)
    assert (low.setting, low.bytes, low.psnr, low.psnr_y) == (5, 300, 32, 34)
    assert (high.bytes, high.psnr) == (800, (40 + curves.EXACT_DB) / 2)


def test_each_image_has_a_quality_of_its_own() -> None:
    """Protects 'just reaches the floor': bytes are taken image by image, and images that cannot are counted."""
    images = [[point(100, 30), point(400, 40)], [point(10, 30), point(40, 34)]]
    assert curves.each_at(images, 35) == (pytest.approx(200 + 40), 1)


def test_avif_is_taken_by_the_better_tuning_that_was_measured() -> None:
    """Protects AVIF's side: the smaller tuning counts, but never one whose sweep ends below the quality asked for."""
    strong, weak = [point(100, 30), point(400, 40)], [point(50, 30), point(60, 33)]
    points = {TUNED: [strong], DEFAULT: [weak]}
    assert curves.avif_at(points, 35) == pytest.approx(200)
    assert curves.avif_at(points, 30) == pytest.approx(50)
    assert curves.avif_at(points, 41) is None
    assert curves.avif_each_at(points, 35) == pytest.approx(200)
    assert curves.avif_each_at(points, 33) == pytest.approx(60)


def test_every_byte_of_an_entry_counts() -> None:
    """Protects honesty: LR, latent, alpha, original and metadata are all in an entry's bytes."""
    parts: dict[str, Any] = {
        name: bytes(2**place) for place, name in enumerate(("lr", "latent", "alpha", "original", "icc", "exif", "xmp"))
    }
    whole = Entry(
        key="a", kind=EntryKind.RESCALED, tier=Tier.BALANCED, reason=None, sha256=None, byte_size=1, psnr=41.0, **parts
    )
    found = archives.stored(whole, (40.0, 42.0, 0.9))
    assert found.bytes == 2 ** len(parts) - 1
    assert (found.lr, found.latent, found.psnr, found.told) == (1, 2, 40.0, 41.0)


def test_a_row_compares_totals() -> None:
    """Protects the table: ratios are of total bytes to AVIF at the mean PSNR, at the floor, and to an LR and AVIF together."""
    images = [[point(100, 30), point(400, 40)], [point(100, 30), point(400, 40)]]
    entries = [entry(latent=300, psnr=36.0, told=36.5), entry(latent=100, beside=4, psnr=34.0, told=34.0)]
    row = row_of(Target(tier=Tier.FLOOR, floor=35.0), entries, both_tunings(*images))
    assert (row.target, row.bytes, row.lr, row.latent, row.rest) == ("floor 35", 604, 200, 400, 4)
    assert (row.psnr, row.worst, row.met, row.lean, row.kept, row.told_error) == (35.0, 34.0, 1, 0, 0, 0.5)
    assert row.to_avif == pytest.approx(604 / 400)
    assert row.to_avif_each == pytest.approx(604 / 400)
    assert row.to_lr_avif == pytest.approx(604 / 500)
    assert row.to_own_lr_avif == pytest.approx(604 / 600)


def test_sources_that_are_kept_do_not_lift_the_mean() -> None:
    """Protects the comparison: an image stored as its source counts all its bytes, and no more than the floor in dB."""
    entries = [entry(lr=0, original=900, psnr=math.inf, psnr_y=math.inf, told=None), entry(psnr=38.0, told=38.0)]
    row = row_of(Target(tier=Tier.FLOOR, floor=38.0), entries, both_tunings([point(100, 30), point(400, 40)]))
    assert (row.psnr, row.bytes, row.kept, row.lean, row.met, row.told_error) == (38.0, 1000, 1, 1, 2, 0.0)


def test_what_avif_was_not_swept_for_has_no_ratio() -> None:
    """Protects against made-up ratios: a mean PSNR below the sweep is said to be not reached, in the table too."""
    row = row_of(Target(tier=Tier.LEAN), [entry(psnr=25.0)], both_tunings([point(100, 30), point(400, 40)]))
    assert (row.to_avif, row.to_avif_each, row.to_lr_avif, row.met) == (None, None, None, None)
    assert page.row_cells(folder_of(row), row)[-4:] == ["not reached", "", "not reached", ""]


def test_findings_name_wins_and_losses() -> None:
    """Protects readers: where archives are larger, where smaller, which floor is missed, and the best scale are all said."""
    points = both_tunings([point(100, 30), point(400, 40)])
    lost = row_of(Target(tier=Tier.FLOOR, floor=40.0), [entry(latent=700), entry(psnr=39.0)], points)
    won = row_of(Target(tier=Tier.BALANCED), [entry(latent=100)], points)
    text = page.findings(folder_of(lost, won))
    assert "missed at x2 floor 40 (1, worst 39.00 dB)" in text
    assert "- More bytes than AVIF at the same mean PSNR: x2 floor 40 (2." in text
    assert "- No more bytes than AVIF at the same mean PSNR: x2 balanced (0.50)." in text
    assert "Fewest bytes at a floor of 40 dB: x2, 9.000 bpp" in text


def test_an_lr_alone_is_not_compared_with_itself() -> None:
    """Protects the table: without a latent, an LR and AVIF beside that very LR would always be won."""
    row = row_of(Target(tier=Tier.LEAN), [entry()], both_tunings([point(100, 30), point(400, 40)]))
    assert (row.to_avif, row.to_lr_avif, row.to_own_lr_avif) == (pytest.approx(0.25), pytest.approx(0.2), None)


def test_a_lossless_lr_is_a_small_one() -> None:
    """Protects the other side: where the codec is open, what one would keep otherwise is coded by the better one."""
    shown = decode(picture(40, 60), pixel_limit=10_000)
    target = TargetSize(scale=(2, 2))
    sizes = {codec: archives.clean_lr_bytes(shown, Settings(target=target, lr_codec=codec)) for codec in LrCodec}
    assert sizes[LrCodec.AUTO] == min(sizes[LrCodec.WEBP], sizes[LrCodec.JXL])
    assert min(sizes.values()) > 0


@pytest.mark.slow
def test_a_section_holds_every_row_and_codec(tmp_path: Path) -> None:
    """Protects the page: both tables are complete, every line as wide as its headings, and the plot is there."""
    met = row_of(Target(tier=Tier.FLOOR, floor=38.0), [entry(latent=100)] * 2, both_tunings([point(100, 30), point(400, 44)]))
    lean = row_of(Target(tier=Tier.LEAN), [entry(psnr=33.0)] * 2, both_tunings([point(100, 30), point(400, 44)]))
    folder = folder_of(lean, met)
    text = page.section(folder, [40.0])
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(folder.rows) + 2 + len(codecs.CODECS)
    assert {line.count("|") for line in lines} == {
        len(page.ROW_HEADINGS + page.RATIO_HEADINGS) + 1,
        len(page.CODEC_HEADINGS) + 1,
    }
    assert "every image reaches every floor" in text
    plot(tmp_path / "plot.png", folder)
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_section_says_of_points_left_out() -> None:
    """Protects readers of JPEG's curve: how many images have a point that was left out is said, and none where none has."""
    spiky, plain = [point(100, 30), point(200, 50), point(400, 44)], [point(100, 30), point(200, 35), point(400, 44)]
    row = row_of(Target(tier=Tier.LEAN), [entry()] * 2, both_tunings(plain, plain))
    assert "of one quality than as larger ones: 1." in page.section(folder_of(row, points=[spiky, plain]), [40.0])
    assert "JPEG files before" not in page.section(folder_of(row), [40.0])


def test_figures_are_json_that_anything_reads() -> None:
    """Protects bytes.json: short figures, and never an Infinity that other readers refuse."""
    assert json.loads(rate_distortion.as_json({"a": [1 / 3, 12, "x"], "b": None})) == {"a": [0.333333, 12, "x"], "b": None}
    with pytest.raises(ValueError, match="JSON compliant"):
        rate_distortion.as_json({"a": math.inf})


def test_a_run_goes_on_from_what_it_remembers(tmp_path: Path) -> None:
    """Protects long runs: what was measured is not measured again, infinite figures included, and other questions are."""
    run, calls = settings(tmp_path), []

    def make() -> list[float]:
        calls.append(1)
        return [1.5, math.inf]

    assert [run.remembered(["a", 1], make) for _ in range(3)] == [[1.5, math.inf]] * 3
    assert run.remembered(["a", 2], make) == [1.5, math.inf]
    assert len(calls) == 2


class _Network:
    """Counts what it is asked for."""

    calls = 0
    largest_scale = 4

    def restore(self, pixels: Pixels, size: Size, *, clean: bool = False) -> Pixels:
        self.calls += 1
        return np.full((*size, 3), pixels[0, 0, 0] + clean, np.uint8)


def test_the_network_runs_once_for_the_same_pixels() -> None:
    """Protects the run's time and its results: equal questions share an answer, others do not, and nobody can spoil it."""
    network = _Network()
    engine = archives.Remembering(cast(Engine, network), {})
    lr = np.zeros((2, 2, 3), np.uint8)
    first = engine.restore(lr, (4, 4))
    first += 9
    assert engine.restore(lr, (4, 4)).max() == 0
    assert engine.restore(lr, (4, 4), clean=True).max() == 1
    assert engine.restore(lr + np.uint8(5), (4, 4)).max() == 5
    assert (network.calls, engine.largest_scale) == (3, 4)


def test_images_are_found_by_name_and_limited(tmp_path: Path) -> None:
    """Protects pairing: other files are passed over, the first by name are taken, two that restore to one name refused."""
    for name, form in (("b.png", "PNG"), ("a.jpg", "JPEG")):
        (tmp_path / name).write_bytes(picture(12, 16, form))
    (tmp_path / "LICENSE.md").write_text("no picture")
    assert list(rate_distortion.find_images(tmp_path, None)) == ["a.jpg", "b.png"]
    assert list(rate_distortion.find_images(tmp_path, 1)) == ["a.jpg"]
    (tmp_path / "a.png").write_bytes(picture(12, 16))
    with pytest.raises(SystemExit, match="rename one"):
        rate_distortion.find_images(tmp_path, None)


@pytest.mark.parametrize("codec", list(codecs.CODECS))
def test_a_codec_is_swept_at_each_setting(codec: str) -> None:
    """Protects the codecs' options: each setting is coded, larger files are closer, quality is of the decoded file."""
    pixels = decode(picture(32, 40), pixel_limit=10_000).pixels
    points = [Point(**cast(Any, each)) for each in codecs.sweep(codec, pixels)]
    assert [each.setting for each in points] == list(codecs.CODECS[codec][1])
    assert points[0].bytes < points[-1].bytes
    assert points[0].psnr < points[-1].psnr
    assert all(0 < each.ssim <= 1 for each in points)
