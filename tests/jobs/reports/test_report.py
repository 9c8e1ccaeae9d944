"""`iarn report`: the page says what `iarn inspect` says, stands by itself, and can be read by anyone."""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.inspect import summarise
from jobs.reports import charts
from jobs.reports.archive_report import figures_path, render, report, share, span, until
from jobs.reports.closeups import closeups
from jobs.reports.figures import Histogram, Times, figures
from jobs.requests import ReportJob
from pipeline.archives.archive import Archive
from pipeline.archives.commits import create_commit
from pipeline.core.errors import AlreadyExists, InvalidOption
from pipeline.core.records import Commit, EntryKind, ShardReport, Tier
from pipeline.reading.reader import open_archive
from pipeline.stores.store import open_store
from tests.support import workshop
from tests.support.pictures import photo, saved
from tests.support.reports import many, write_shard
from tests.support.workshop import Sample, as_tar, noise, picture, rescale

pytestmark = pytest.mark.slow

PAGE_BYTES = 5_000_000
WIDTHS = {"desktop": 1280, "phone": 360}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> workshop.Rescaled:
    """An archive of two tars whose row groups hold rescaled entries, lean ones, alpha and originals side by side."""
    folder = tmp_path_factory.mktemp("mixed")
    first = [*workshop.samples(4, folder="a/"), Sample(key="a/broken.jpg", data=b"no picture")]
    first.append(Sample(key="a/<b>&\"name'.png", data=saved(photo(40, 52, 4, 3), "PNG")))
    as_tar(folder / "source", first, "a.tar")
    flat = [Sample(key="b/flat.png", data=saved(photo(30, 30, seed=1) * 0 + 90, "PNG")), Sample(key="b/z.jpg", data=noise(1))]
    source = as_tar(folder / "source", [*workshop.samples(3, folder="b/"), *flat], "b.tar")
    return rescale(source, folder / "archive", tier=Tier.FLOOR)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """An archive of 5,000 little entries in 20 shards, whose source is gone."""
    return many(tmp_path_factory.mktemp("large"), shards=20, entries=250)


def written(archive: str, folder: Path, **options: Any) -> str:
    """Return the page of an archive."""
    report(ReportJob(archive=archive, out=folder / "report.html", device="cpu", **options))
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_figures_are_those_of_inspect(mixed: workshop.Rescaled, large: Archive) -> None:
    """Protects trust: totals are inspect's own, and what entries and footers add up to is the same to a byte."""
    for archive in (mixed.archive, large):
        found = figures(archive)
        totals = summarise(archive)
        assert found["totals"] == totals
        assert sum(tier["entries"] for tier in found["tiers"]) == totals["entries"]
        assert sum(tier["bytes_in"] for tier in found["tiers"]) == totals["bytes_in"]
        assert sum(tier["pixels"] for tier in found["tiers"]) == totals["pixels"]
        assert sum(found["parts"].values()) == totals["bytes_out"]
        kept = totals["originals"] + totals["kept_beside_lrs"]
        assert sum(row["entries"] for row in found["kept"]) == kept
        assert sum(row["entries"] for row in found["failures"]) == totals["failures"]
        assert found["psnr"]["entries"] + found["psnr"]["identical"] == totals["entries"] - totals["originals"]


@pytest.mark.slow
def test_reasons_are_told_by_class(tmp_path: Path) -> None:
    """Protects the reader of a large report: 40 entries that do not pay are one line with three of them, not 40 lines."""
    keys = [f"{number:02}.jpg" for number in range(40)]
    source = as_tar(
        tmp_path / "source", [Sample(key=key, data=picture(20, 30, "JPEG", seed=at)) for at, key in enumerate(keys)]
    )
    archive = rescale(source, tmp_path / "archive", tier=Tier.BALANCED, max_ratio=0.01).uri
    (found,) = figures(Archive.open(open_store(archive)))["kept"]
    assert (found["reason"], found["entries"]) == ("does-not-pay", 40)
    assert [example["key"] for example in found["examples"]] == keys[:3]
    assert all(example["reason"].startswith("its file is kept: its LR") for example in found["examples"])
    page = written(archive, tmp_path)
    assert page.count("its file is kept: its LR") == 3
    assert "and 37 more" in page


def test_figures_are_those_of_the_entries(mixed: workshop.Rescaled) -> None:
    """Protects the columns: bytes by part and tier, means and the worst are what reading every entry gives."""
    found, entries = figures(mixed.archive, worst=3), mixed.entries
    rescaled = [entry for entry in entries if entry.kind is EntryKind.RESCALED]
    assert {Tier.FLOOR, Tier.LEAN} == {entry.tier for entry in rescaled}, "the archive has to mix tiers in a row group"
    finite = [entry.psnr for entry in rescaled if entry.psnr is not None and entry.psnr != math.inf]
    assert found["psnr"]["mean"] == pytest.approx(sum(finite) / len(finite), abs=1e-3)
    assert found["psnr"]["least"] == pytest.approx(min(finite), abs=1e-3)
    order = sorted((entry for entry in rescaled if entry.psnr != math.inf), key=lambda entry: entry.psnr or 0)
    assert [row["key"] for row in found["worst"]] == [entry.key for entry in order[:3]]
    for part, column in (("lr", "lr"), ("latent", "latent"), ("original", "original")):
        stored = sum(len(getattr(entry, column) or b"") for entry in entries)
        assert stored <= found["parts"][part] <= stored + 60 * len(entries), part  # pages have headers
    by_tier = {tier["tier"]: tier["bytes_out"] for tier in found["tiers"]}
    for tier in (Tier.FLOOR, Tier.LEAN):
        own = [entry for entry in rescaled if entry.tier is tier]
        stored = sum(len(entry.lr or b"") + len(entry.latent or b"") + len(entry.alpha or b"") for entry in own)
        assert abs(by_tier[tier] - stored) <= 60 * len(entries), tier


def test_the_page_stands_by_itself(mixed: workshop.Rescaled, tmp_path: Path) -> None:
    """Protects opening from a disk, and against names of images that are markup: nothing is fetched, run or broken."""
    page = written(mixed.uri, tmp_path)
    assert len(page.encode()) < PAGE_BYTES
    assert "<script" not in page
    assert not re.search(r"(src|href|url)\s*[=(]\s*[\"']?(?!#|data:)", page.replace('href="#', "").replace('src="data:', ""))
    assert "<b>&\"name'" not in page
    assert "&lt;b&gt;&amp;" in page
    assert re.search(r"default-src 'none'", page)
    assert all(match[1] for match in re.finditer(r'<img[^>]* alt="([^"]*)"', page))
    assert len(re.findall("<img", page)) >= 4 * 8


def test_pictures_are_where_it_is_worst(tmp_path: Path) -> None:
    """Protects the close-ups: all four panels, of the part with the largest error, and words where no source is."""
    pixels = photo(300, 420, seed=2)
    pixels[200:260, 330:400] = photo(60, 70, seed=3)[::-1] ^ 255
    noise_part = pixels[200:260, 330:400]
    noise_part[:] = (noise_part.astype(int) + 97 * (photo(60, 70, seed=9) % 7)).astype("uint8")
    source = as_tar(tmp_path / "source", [Sample(key="one.png", data=saved(pixels, "PNG"))])
    archive = open_archive(rescale(source, tmp_path / "archive", tier=Tier.LEAN).uri, device="cpu")
    worst = figures(archive.archive)["worst"]
    (found,) = closeups(archive, worst)
    assert [panel.name for panel in found.panels] == ["before", "LR", "restored", "difference \N{MULTIPLICATION SIGN} 8"]
    assert {panel.pixels.shape for panel in found.panels} == {(192, 192, 3)}
    left, top, width, height = (value * side for value, side in zip(found.box, (420, 300, 420, 300), strict=True))
    assert left <= 330 + 16
    assert left + width >= 400 - 16
    assert top <= 200 + 16
    assert top + height >= 260 - 16
    as_tar(tmp_path / "source", [Sample(key="one.png", data=picture(300, 420, seed=8))])
    (changed,) = closeups(archive, worst)
    assert changed.note in ("Its source can no longer be read.", "Its source is not the one any more that was rescaled.")
    shutil.rmtree(tmp_path / "source")
    (gone,) = closeups(archive, worst)
    assert gone.note == "Its source can no longer be read."
    assert [panel.name for panel in gone.panels] == ["LR", "restored"]


def test_a_sample_says_so(large: Archive, tmp_path: Path) -> None:
    """Protects honesty at scale: a sample reads so many shards, always the same ones, and the page tells it."""
    found = figures(large, sample=3, worst=0)
    assert found["sample"] == {"shards": 3, "of": 20}
    assert sum(tier["entries"] for tier in found["tiers"]) == 750
    assert found["totals"]["entries"] == 5000
    assert {**found, "created": ""} == {**figures(large, sample=3, worst=0), "created": ""}
    assert figures(large, sample=20)["sample"] is None
    assert "a sample: 3 of 20 shards" in " ".join(written(large.store.uri, tmp_path, sample=3, worst=0).split())
    with pytest.raises(InvalidOption):
        ReportJob(archive="small", sample=0)
    with pytest.raises(InvalidOption):
        ReportJob(archive="small", worst=-1)


def test_json_beside_the_page(mixed: workshop.Rescaled, tmp_path: Path) -> None:
    """Protects programs: the same figures as JSON, strictly, under a name that no job's report has."""
    written(mixed.uri, tmp_path, as_json=True)
    assert figures_path(tmp_path / "report.html").name == "report.figures.json"
    text = (tmp_path / "report.figures.json").read_text(encoding="utf-8")
    found = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert {**found, "created": ""} == {**json.loads(json.dumps(figures(mixed.archive))), "created": ""}


def test_only_reports_are_replaced(mixed: workshop.Rescaled, tmp_path: Path) -> None:
    """Protects other people's files: a report takes the place of a report, and of nothing else."""
    written(mixed.uri, tmp_path, worst=0)
    written(mixed.uri, tmp_path, worst=0)
    (tmp_path / "report.html").write_text("<!doctype html><p>mine")
    with pytest.raises(AlreadyExists):
        written(mixed.uri, tmp_path, worst=0)
    assert (tmp_path / "report.html").read_text() == "<!doctype html><p>mine"


def test_archives_with_little_to_tell(tmp_path: Path) -> None:
    """Protects the odd cases: nothing done yet, only originals, everything exact; each has a page without a hole."""
    empty = workshop.begin(as_tar(tmp_path / "source", workshop.samples(2)), tmp_path / "empty")
    page = " ".join(written(empty.store.uri, tmp_path).split())
    assert "Nothing is in this archive yet." in page
    assert "1 of 1 shards is not done." in page
    originals = rescale(
        as_tar(tmp_path / "o", [Sample(key="a.jpg", data=b"none"), Sample(key="b.jpg", data=b"neither")]), tmp_path / "oo"
    )
    assert "Nothing was rescaled" in written(originals.uri, tmp_path)
    exact = rescale(as_tar(tmp_path / "e", workshop.samples(2)), tmp_path / "ee", tier=Tier.EXACT)
    page = written(exact.uri, tmp_path)
    assert "Every one comes back exactly" in page
    assert 'id="worst"' not in page


def test_damage_is_a_sentence_and_no_crash(tmp_path: Path) -> None:
    """Protects reports of archives that are not well: an entry that cannot be restored has its reason beside it."""
    archive = rescale(as_tar(tmp_path / "source", workshop.samples(2)), tmp_path / "archive")
    (shard,) = archive.archive.shards()
    rows = [replace(entry, latent=b"nonsense") for entry in archive.entries]
    for name in (f"shards/{shard.id}.parquet", f"commits/{shard.id[:6]}/{shard.id}.json"):
        open_store(archive.uri).delete(name)
    create_commit(archive.archive.store, write_shard(archive.archive, shard, rows, tmp_path))
    assert "The latent of 001.jpg is damaged" in written(archive.uri, tmp_path)


def test_quantiles_are_good_to_a_bin() -> None:
    """Protects the figures under the charts: quantiles within a bin of the exact ones, bars that add up, infinity apart."""
    values = [30 + 20 * (n / 999) ** 2 for n in range(1000)]
    histogram = Histogram(0, 120, 2400)
    for value in [*values, math.inf, math.inf]:
        histogram.add(value)
    for at in (0.01, 0.1, 0.5, 0.9):
        assert histogram.quantile(at) == pytest.approx(sorted(values)[math.ceil(at * 1000) - 1], abs=0.05)
    found = histogram.figures(3, 48)
    assert (found["entries"], found["identical"]) == (1000, 2)
    assert sum(found["bars"]) == 1000
    assert len(found["bars"]) <= 48
    assert found["low"] <= found["least"]
    assert found["low"] + found["width"] * len(found["bars"]) >= found["greatest"]
    assert Histogram(0, 1, 10).figures(3, 48) == {"entries": 0, "identical": 0}


def test_times_add_up() -> None:
    """Protects the timeline: throughput over time has all pixels, lanes never overlap, unknown times are counted."""
    times = Times()
    for begun, ended, pixels in (
        (100.0, 110.0, 10**6),
        (105.0, 125.0, 3 * 10**6),
        (110.0, 110.0, 5 * 10**5),
        (120.0, 130.0, 0),
    ):
        counts = {"entries": 1, "originals": 0, "pixels": pixels, "bytes_in": 1, "bytes_out": 1}
        shard = ShardReport(shard_id="a", **counts)
        times.add(Commit(shard_id="a", plan="", sha256="", byte_size=1, report=shard, begun=begun, ended=ended))
    times.add(Commit(shard_id="b", plan="", sha256="", byte_size=1, report=shard))
    found = times.figures(steps=10)
    assert (found["shards"], found["unknown"], found["seconds"]) == (4, 1, 30.0)
    assert sum(found["mpix_per_s_over_time"]) * 3 == pytest.approx(4.5, abs=0.01)
    lanes: dict[float, float] = {}
    for each in found["spans"]:
        assert each["begun"] >= lanes.get(each["lane"], 0)
        lanes[each["lane"]] = each["ended"]


def plain(text: str) -> str:
    """Return text with the spaces that keep a unit by its number as common ones."""
    return text.replace("\N{NO-BREAK SPACE}", " ")


def test_words_for_figures() -> None:
    """Protects readers: shares, lengths of time and axes are round and say no more than is known."""
    assert [plain(share(part, 1000)) for part in (0, 0.5, 285, 995, 1290)] == ["0 %", "< 0.1 %", "28.5 %", "100 %", "129 %"]
    assert [plain(span(seconds)) for seconds in (0.25, 59.9, 211, 7200 + 300)] == ["0.2 s", "59.9 s", "3 min 31 s", "2 h 5 min"]
    assert until("2026-01-01T10:00:00+00:00", "2026-01-01T10:05:00+00:00") == "2026-01-01 10:00 to 10:05 UTC"
    assert [tick.text for tick in charts.ticks(32.5, 48.5)] == ["35", "40", "45"]
    assert [tick.text for tick in charts.ticks(0.967, 1.0, most=4)] == ["0.97", "0.98", "0.99", "1.00"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_the_page_in_a_browser(browser: Any, mixed: workshop.Rescaled, tmp_path: Path, width: int, scheme: str) -> None:
    """Protects what people see: no error, nothing fetched, nothing wider than the screen, every picture there, text legible."""
    found = figures(mixed.archive)
    path = tmp_path / "report.html"
    path.write_text(render(found, closeups(open_archive(mixed.uri, device="cpu"), found["worst"])), encoding="utf-8")
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    fetched, complaints = [], []
    page.on("request", lambda request: fetched.append(request.url) if not request.url.startswith("data:") else None)
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(path.as_uri())
    assert fetched == [path.as_uri()]
    assert not complaints
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0 && image.alt)")
    assert page.evaluate(_LEAST_CONTRAST) >= 4.5
    page.close()


def test_the_keyboard_reaches_everything(browser: Any, large: Archive, tmp_path: Path) -> None:
    """Protects those without a mouse: Tab goes through the skip link, every section's link and every table that scrolls."""
    path = tmp_path / "report.html"
    path.write_text(render(figures(large), closeups(open_archive(large.store.uri, device="cpu"), [])), encoding="utf-8")
    page = browser.new_page(viewport={"width": 360, "height": 800})
    page.goto(path.as_uri())
    expected = page.evaluate("document.querySelectorAll('a, [tabindex]').length")
    seen = []
    for _ in range(expected):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.outerHTML.slice(0, 80)"))
    assert len(set(seen)) == expected
    assert "Skip to the figures" in seen[0]
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.querySelectorAll('h1').length") == 1
    assert page.evaluate("[...document.querySelectorAll('nav a')].every(a => document.querySelector(a.getAttribute('href')))")
    page.close()


_LEAST_CONTRAST = """() => {
  const channel = value => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const luminance = colour => { const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map(channel);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const paper = luminance(getComputedStyle(document.body).backgroundColor);
  const texts = [...document.querySelectorAll('body *')].filter(each => [...each.childNodes].some(
    node => node.nodeType === 3 && node.textContent.trim()));
  return Math.min(...texts.map(each => luminance(getComputedStyle(each).color)).map(
    ink => (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05)));
}"""
"""The least contrast of any text with the page, as WCAG has it (2.2, 1.4.3: 4.5 for text of this size)."""
