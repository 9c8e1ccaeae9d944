"""The demo: there and back on a real Ray, the table, the picture, and the same command again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.demo import main, quick_cases
from jobs.demo_figures import Row, Summary, table
from jobs.reports import sheet
from pipeline.cluster import pool
from pipeline.decoders.decoding import decode
from pipeline.pictures.picture import label
from tests.support.pictures import photo, saved

SIZES = {"budgie.jpg": (230, 260), "other.png": (40, 33)}
MIDDLE = (12, 24)
"""Where a crop of the larger one begins."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one run of the demo said and left."""

    status: int
    out: Path
    printed: str
    said: str

    @property
    def results(self) -> dict[str, Any]:
        """The figures it wrote."""
        return dict(json.loads((self.out / "results.json").read_text()))


def run(samples: Path, out: Path, *more: str) -> Run:
    """Run the demo as `make demo` does."""
    printed, said = StringIO(), StringIO()
    with redirect_stdout(printed), redirect_stderr(said):
        status = main(["--samples", str(samples), "--out", str(out), "--scales", "2", "--device", "cpu", *more])
    return Run(status=status, out=out, printed=printed.getvalue(), said=said.getvalue())


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two photographs, one of them smaller than a crop, and a note."""
    folder = tmp_path_factory.mktemp("photographs")
    for seed, (name, size) in enumerate(SIZES.items()):
        (folder / name).write_bytes(saved(photo(*size, seed=seed), "JPEG" if name.endswith("jpg") else "PNG"))
    (folder / "LICENSE.md").write_text("free\n")
    return folder


@pytest.fixture(scope="module")
def first(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A run into an empty folder."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OMP_NUM_THREADS", "1")
        yield run(samples, tmp_path_factory.mktemp("demo") / "out")


@pytest.mark.ray
def test_the_demo_goes_there_and_back(first: Run) -> None:
    """Protects the first command a stranger gives: it ends well, and every photograph is back at its size."""
    assert first.status == 0, first.said
    for tier in ("lean", "balanced"):
        for name, size in SIZES.items():
            restored = first.out / f"x2-{tier}" / "restored" / Path(name).with_suffix(".png")
            assert decode(restored.read_bytes(), pixel_limit=10**6).pixels.shape == (*size, 3)


@pytest.mark.ray
def test_its_figures_are_those_of_the_files(first: Run, samples: Path) -> None:
    """Protects honesty: bytes are what lies on the disk, bits are of everything stored, the network brings decibels."""
    lean, balanced, bicubic = first.results["summary"]
    assert (lean["tier"], balanced["tier"], bicubic["tier"]) == ("lean", "balanced", "bicubic")
    pixels = sum(height * width for height, width in SIZES.values())
    for each in (lean, balanced):
        stored = sum(path.stat().st_size for path in (first.out / f"x2-{each['tier']}/archive/shards").iterdir())
        assert each["archive_bytes"] == stored
        assert each["bits_per_pixel"] == pytest.approx(8 * stored / pixels)
        assert each["source_bytes"] == sum((samples / name).stat().st_size for name in SIZES)
        assert each["rescale_seconds"] > 0
        assert each["restore_seconds"] > 0
    assert lean["latent_bytes"] == 0 < balanced["latent_bytes"]
    assert bicubic["psnr"] < lean["psnr"]
    assert balanced["psnr"] > 38
    assert bicubic["archive_bytes"] is None
    assert len(first.results["images"]) == 2 * len(SIZES)
    assert all(word in first.printed for word in ("x2", "lean", "balanced", "bicubic", "dB"))


@pytest.mark.ray
def test_it_tells_what_it_does(first: Run) -> None:
    """Protects patience: every step is announced, as the command that a user would give, in words also without a terminal;
    what there is to look at stands last."""
    assert first.said.count("iarn rescale") == first.said.count("iarn restore") == 2
    assert "[1/2]" in first.said
    assert "[2/2]" in first.said
    assert "2 entries (0 without an LR) in 1 of 1 shards" in first.said
    assert "{" not in first.said
    last = first.printed.splitlines()[-2:]
    assert [Path(line.rpartition(" ")[2]) for line in last] == [first.out / "before-after.png", first.out / "report.html"]
    assert (first.out / "report.html").stat().st_size > 10_000


def test_a_quick_demo_is_a_part_of_it(samples: Path, tmp_path: Path) -> None:
    """Protects the first minute: all photographs go there and back once, and few without a latent as well."""
    every, few = quick_cases(samples, tmp_path)
    assert (every.source, every.scale, every.tier) == (samples, "4", "balanced")
    assert (few.scale, few.tier) == ("4", "lean")
    assert sorted(path.name for path in few.source.iterdir()) == sorted(SIZES)


@pytest.mark.ray
def test_its_picture_shows_what_came_back(first: Run, samples: Path) -> None:
    """Protects the sheet: source and restore stand in it pixel for pixel."""
    drawn = decode((first.out / "before-after.png").read_bytes(), pixel_limit=10**7).pixels
    source = decode((samples / "budgie.jpg").read_bytes(), pixel_limit=10**6).pixels
    back = decode((first.out / "x2-balanced/restored/budgie.png").read_bytes(), pixel_limit=10**6).pixels
    assert contains(drawn, sheet.crop(source, MIDDLE))
    assert contains(drawn, sheet.crop(back, MIDDLE))


def contains(whole: np.ndarray[Any, Any], part: np.ndarray[Any, Any]) -> bool:
    """Whether ``part`` stands somewhere in ``whole``."""
    height, width = part.shape[:2]
    corners = np.argwhere((whole == part[0, 0]).all(axis=-1))
    return any((whole[top : top + height, left : left + width] == part).all() for top, left in corners.tolist())


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray does not start: what would run a shard fails."""
    monkeypatch.setattr(pool, "cluster", lambda _: nullcontext())


@pytest.mark.ray
@pytest.mark.usefixtures("no_ray")
def test_the_same_command_goes_on(first: Run, samples: Path) -> None:
    """Protects a demo that was stopped: what is done is not done again, and no seconds are made up for it."""

    def written() -> dict[Path, int]:
        """Everything that is written once; what tells of the last run, and of the source as it then was, is not."""
        told = ("report.json", "left-out.jsonl", "source-changes.jsonl")
        files = (path for path in first.out.glob("x2-*/**/*") if path.is_file() and path.name not in told)
        return {path: path.stat().st_mtime_ns for path in files}

    before = written()
    again = run(samples, first.out)
    assert again.status == 0, again.said
    assert written() == before
    assert [each["rescale_seconds"] for each in again.results["summary"]] == [None] * 3


@pytest.mark.ray
@pytest.mark.usefixtures("no_ray")
def test_another_source_is_refused_in_the_same_folder(first: Run, samples: Path) -> None:
    """Protects an earlier run: photographs of another folder are not mixed into it."""
    other = run(samples, first.out, "--only", "other")
    assert other.status == 2
    assert "begun with other settings" in other.said.splitlines()[-1]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--only", "nobody"), "nobody"),
        (("--samples", "no/such/folder"), "no/such/folder"),
        (("--scales", "0.5"), "--scale 0.5"),
        (("--scales", ""), "--scale"),
    ],
)
def test_what_makes_no_sense_is_told_in_a_sentence(samples: Path, tmp_path: Path, more: tuple[str, str], told: str) -> None:
    """Protects newcomers: a wrong word gives one sentence and exit status 2, before anything starts."""
    done = run(samples, tmp_path / "out", *more)
    assert done.status == 2
    assert done.said.startswith("demo: ")
    assert told in done.said
    assert len(done.said.splitlines()) == 1


def test_a_folder_without_photographs_is_refused(tmp_path: Path) -> None:
    """Protects newcomers: an empty folder is told as such."""
    done = run(tmp_path, tmp_path / "out")
    assert done.status == 2
    assert "holds no image" in done.said


def test_table_lines_up() -> None:
    """Protects the table: columns align whatever the numbers, and what is not there is a dash."""
    common = {"scale": "4", "images": 8, "source_bytes": 5, "psnr": 30.0, "ssim": 0.9}
    full = Summary(
        **common, tier="lean", lr_bytes=10**9, latent_bytes=0, archive_bytes=1, bits_per_pixel=2.5, rescale_seconds=1.0,
        restore_seconds=100.4,
    )  # fmt: skip
    bare = Summary(
        **common, tier="bicubic", lr_bytes=None, latent_bytes=None, archive_bytes=None, bits_per_pixel=None,
        rescale_seconds=None, restore_seconds=None,
    )  # fmt: skip
    lines = table([full, bare]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert "1.0 GB" in lines[2]
    assert "100 s" in lines[2]
    assert lines[3].count(" -") == 6
    assert "None" not in "".join(lines)


def test_a_crop_of_an_lr_is_of_the_same_place() -> None:
    """Protects the comparison: the LR's crop begins where the source's does, at its own size."""
    whole = np.arange(400 * 500 * 3, dtype=np.uint32).reshape(400, 500, 3).astype(np.uint8)
    assert (sheet.crop(whole, (40, 80)) == whole[40:232, 80:272]).all()
    assert (sheet.crop(whole, (40, 80), 4) == whole[10:58, 20:68]).all()
    assert sheet.crop(whole, (390, 490)).shape == (10, 10, 3)


def test_a_sheet_holds_its_panels_and_words() -> None:
    """Protects the sheet: panels keep their pixels, and text stands beside them, not on them."""
    panels = [sheet.Panel(pixels=photo(side, side, seed=side), caption="caption") for side in (sheet.CROP, 48)]
    drawn = sheet.draw("title", ("one", "two"), [panels, panels])
    assert all(contains(drawn, panel.pixels) for panel in panels)
    bare = sheet.draw("", ("", ""), [[sheet.Panel(pixels=panel.pixels, caption="") for panel in panels]] * 2)
    assert drawn.shape == bare.shape
    assert (drawn != bare).any()


@pytest.mark.parametrize("extension", ["png", "webp"])
def test_sheets_are_lossless(extension: str) -> None:
    """Protects what a reader sees: the picture's file has the very pixels that were drawn."""
    pixels = photo(40, 50)
    assert (decode(sheet.as_file(pixels, extension), pixel_limit=10**6).pixels == pixels).all()


def test_labels_are_written_on_a_copy() -> None:
    """Protects the pixels that are labelled: text appears where it was asked for, and the input stays."""
    blank = np.full((40, 90, 3), 255, np.uint8)
    written = label(blank, "abc", left=10, top=5, size=14)
    assert (blank == 255).all()
    rows, columns = np.nonzero((written < 128).any(axis=-1))
    assert 5 <= rows.min() <= rows.max() < 25
    assert 10 <= columns.min() <= columns.max() < 45


def test_rows_are_plain_values() -> None:
    """Protects results.json: a row has nothing but text and numbers."""
    assert {field.type for field in Row.__dataclass_fields__.values()} <= {"str", "int", "float"}
