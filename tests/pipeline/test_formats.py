"""Whatever can be decoded has an LR, and comes back. docs/formats.md is made here."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.core.records import Entry, EntryKind, Stored, Tier
from pipeline.core.target import TargetSize
from pipeline.engines.measure import measure
from pipeline.entry_picture import lr_file
from pipeline.pictures import lr_codec
from pipeline.pictures.depth import in_8_bits
from pipeline.pictures.picture import resize
from tests.support import workshop
from tests.support.pictures import decoded, photo, saved
from tests.support.richer import LEAST_DB, Rich, richer
from tests.support.workshop import Rescaled, Sample

DOCUMENT = Path(__file__).parents[2] / "docs/formats.md"
BEGIN, END = "<!-- table -->\n", "<!-- /table -->"
RICHER = richer()
BACK = {Stored.FILE: "the file, byte for byte", Stored.LATENT: "the picture, as close as the tier says"}


def plain() -> dict[str, bytes]:
    """Return files that are 8-bit grey or RGB of one frame, by what they are, each of a photograph's size."""
    rgb, alpha = photo(132, 180), photo(132, 180, 4)
    grey = photo(132, 180, 1)
    few = Image.fromarray(rgb).quantize(64)
    return {
        **{
            f"{format} of RGB": saved(rgb, format)
            for format in ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "JPEG2000", "PPM")
        },
        **{f"{format} with alpha": saved(alpha, format) for format in ("PNG", "WEBP", "AVIF", "TIFF")},
        **{f"{format} of grey": saved(grey, format) for format in ("JPEG", "PNG", "TIFF")},
        "PNG with a palette": saved(few, "PNG"),
        "JPEG of several pictures (MPF)": saved(
            Image.fromarray(rgb), "MPO", save_all=True, append_images=[Image.fromarray(photo(60, 80))]
        ),
    }


def psnr(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Return the PSNR of two pictures in dB."""
    error = np.mean((one.astype(np.float64) - other) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


@cache
def archived(folder: Path, tier: Tier) -> Rescaled:
    """Rescale all of them by 2 in a tier."""
    files = {what: rich.data for what, rich in RICHER.items()} | plain()
    source = [Sample(key=f"{number:03d}.png", data=data) for number, data in enumerate(files.values())]
    if not (folder / "source").exists():
        workshop.as_folder(folder / "source", source)
    return workshop.rescale(str(folder / "source"), folder / tier, tier=tier, max_ratio=1.0)


def entries_of(folder: Path, tier: Tier) -> dict[str, Entry]:
    """Return their entries by what they are."""
    return dict(zip([*RICHER, *plain()], archived(folder, tier).entries, strict=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for all of this."""
    return tmp_path_factory.mktemp("formats")


@pytest.mark.parametrize("what", RICHER)
def test_the_picture_is_what_a_viewer_shows(what: str) -> None:
    """Protects whoever looks at an LR: size, colours and side up are those of what the file was made of."""
    rich: Rich = RICHER[what]
    picture = decoded(rich.data)
    assert picture.pixels.shape == rich.shown.shape
    assert psnr(in_8_bits(picture.pixels), rich.shown) >= LEAST_DB
    assert picture.format == rich.format
    assert picture.beyond is None if rich.why is None else rich.why in (picture.beyond or "")
    assert picture.bits == (16 if rich.why is None else 8)


@pytest.mark.slow
@pytest.mark.parametrize("tier", [Tier.BALANCED, Tier.EXACT, Tier.LEAN])
def test_every_file_has_one_entry_with_an_lr_and_comes_back(folder: Path, tier: Tier) -> None:
    """Protects archives of what people really have: one entry each, a picture in it, and after a restore the very file, or a
    picture of its depth as close as is promised."""
    result = archived(folder, tier)
    assert not [failure for report in result.reports for failure in report.failures]
    reports = workshop.restore(result, folder / f"back-{tier}")
    assert not [failure for report in reports for failure in report.failures]
    back = {name.partition(".")[0]: data for name, data in workshop.written(folder / f"back-{tier}").items()}
    for number, (what, entry) in enumerate(entries_of(folder, tier).items()):
        assert entry.kind is EntryKind.RESCALED, f"{what}: {entry.reason}"
        assert entry.lr is not None
        assert entry.frames == (2 if "animated" in what or "of two" in what else 1), what
        lr = lr_codec.decode_lr(entry.lr)[0]
        shown = RICHER[what].shown if what in RICHER else photo(132, 180)
        assert (entry.height, entry.width) == shown.shape[:2], what
        assert lr.shape[:2] == (-(-shown.shape[0] // 2), -(-shown.shape[1] // 2)), what
        if what in RICHER:
            assert psnr(lr, resize(shown, lr.shape[:2])) >= LEAST_DB, what
            if RICHER[what].why is not None or tier is Tier.EXACT:
                assert entry.stored is Stored.FILE, what
                assert back[f"{number:03d}"] == RICHER[what].data, what
            else:
                assert entry.stored is not Stored.FILE, f"{what}: {entry.reason}"
                picture = decoded(back[f"{number:03d}"])
                assert (picture.bits, picture.format) == (16, RICHER[what].format), what
                assert measure(decoded(RICHER[what].data).pixels, picture.pixels).psnr == pytest.approx(entry.psnr), what


def test_where_an_lr_would_not_pay_the_file_stands_alone_and_shows_one(tmp_path: Path) -> None:
    """Protects bytes, and readers all the same: a tiny file is kept without an LR, and `--lr` and readers make one of it."""
    tiny = saved(photo(6, 8, 1), "PNG")
    source = workshop.as_folder(tmp_path / "source", [Sample(key="tiny.png", data=tiny)])
    result = workshop.rescale(source, tmp_path / "archive", max_ratio=1.0)
    (entry,) = result.entries
    assert (entry.kind, entry.stored, entry.lr) == (EntryKind.ORIGINAL, Stored.FILE, None)
    assert (entry.height, entry.width, entry.format) == (6, 8, "PNG")
    data, extension = lr_file(entry, result.archive.plan.settings)
    assert lr_codec.decode_lr(data)[0].shape == (3, 4, 3)
    workshop.restore(result, tmp_path / "lrs", lr=True)
    assert workshop.written(tmp_path / "lrs") == {f"tiny.{extension}": data}


def test_a_target_no_smaller_than_the_image_enlarges_nothing(tmp_path: Path) -> None:
    """Protects small pictures among large ones: their LR is of their own size, or they are kept alone; both show one."""
    source = workshop.as_folder(tmp_path / "source", [Sample(key="a.png", data=saved(photo(60, 80), "PNG"))])
    for number, target in enumerate((TargetSize(max_side=1024), TargetSize(size=(600, 20)), TargetSize(max_pixels=10**6))):
        result = workshop.rescale(source, tmp_path / str(number), target=target)
        (entry,) = result.entries
        assert not result.reports[0].failures
        lr = lr_codec.decode_lr(lr_file(entry, result.archive.plan.settings)[0])[0]
        assert lr.shape == (60, 80, 3)


def rows(folder: Path) -> str:
    """Return the table: what a file is, its LR, and what is stored and comes back in the default tier."""
    lines = ["| a file that is | has an LR | stored beside it | comes back |", "|---|---|---|---|"]
    for what, entry in sorted(entries_of(folder, Tier.BALANCED).items(), key=lambda each: each[0].casefold()):
        lr = "yes" if entry.lr is not None else "made when asked for"
        comes = BACK[entry.stored] + (", in 16 bits" if entry.bits == 16 and entry.stored is not Stored.FILE else "")
        lines.append(f"| {what} | {lr} | {entry.stored} | {comes} |")
    return "\n".join(lines) + "\n"


@pytest.mark.slow
def test_the_table_is_what_happens(folder: Path) -> None:
    """Protects the document: its table is the one that an archive of all of them gives."""
    found = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    assert found == rows(folder), f"put this between the marks in {DOCUMENT.name}:\n{rows(folder)}"
