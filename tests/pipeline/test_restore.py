"""The way back without Ray: what comes out of an archive, in which form, and what never changes on the way."""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.core.errors import InvalidOption, NotFound
from pipeline.core.records import Tier
from pipeline.outputs.outputs import OutputKind, named_outputs
from pipeline.pictures.orientation import upright
from pipeline.restore import RestoreOptions
from tests.support import pictures, workshop
from tests.support.workshop import SOURCES, Rescaled, Sample, every_output, every_source, psnr


@pytest.fixture(scope="module", params=product(Tier, SOURCES), ids="-".join)
def of_every_kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tier, str, Rescaled]:
    """A tier, a kind of source, and an archive of three samples of those."""
    tier, kind = request.param
    folder = tmp_path_factory.mktemp(f"{tier}-{kind}")
    source = SOURCES[kind](folder / "source", workshop.samples(3))
    return tier, kind, workshop.rescale(source, folder / "archive", tier=tier)


@pytest.mark.slow
@every_output
def test_everything_comes_back_in_every_form(
    of_every_kind: tuple[Tier, str, Rescaled], tmp_path: Path, output: OutputKind
) -> None:
    """Protects the round trip: each asset's name, picture and sidecars, from any source, to any form, in every tier."""
    samples = workshop.samples(3)
    tier, kind, result = of_every_kind
    reports = workshop.restore(result, tmp_path / "out", output=output)
    assert not workshop.failures(reports)
    assert [report.entries for report in reports] == [3]
    files = workshop.written(tmp_path / "out")
    assert reports[0].bytes_out == sum(map(len, files.values()))
    if output is OutputKind.PARQUET:
        ((name, data),) = files.items()
        assert name == ("photos.parquet" if kind != "files" else "000000000-000.parquet")
        rows = pq.read_table(io.BytesIO(data)).to_pylist()
        found = {row["image"]["path"]: row["image"]["bytes"] for row in rows}
        texts = [row["txt"] if kind == "parquet" else {s["name"]: s["data"] for s in row["sidecars"]}["txt"] for row in rows]
        assert texts == [sample.sidecars["txt"] for sample in samples]
    else:
        found = {name.removeprefix("photos/"): data for name, data in files.items()}
        if output is OutputKind.TAR:
            ((name, data),) = files.items()
            assert name == ("photos.tar" if kind != "files" else "000000000-000.tar")
            found = dict(workshop.members_of(data))
        assert {found[f"{index:03d}.txt"] for index in range(3)} == {sample.sidecars["txt"] for sample in samples}
    for sample in samples:
        source, restored = workshop.shown(sample.data), workshop.shown(found[sample.key])
        assert Image.open(io.BytesIO(found[sample.key])).format == Image.open(io.BytesIO(sample.data)).format
        assert psnr(source, restored) > (25 if tier is Tier.LEAN else 30)
        if tier is not Tier.EXACT_PIXELS:  # whose pixels are the same, and perhaps the file
            assert (found[sample.key] == sample.data) == (tier is Tier.EXACT)


@every_source
def test_exact_gives_back_identical_files(tmp_path: Path, kind: str) -> None:
    """Protects the exact tier: odd pictures, damaged ones and all others come back with the SHA-256 that they had."""
    odd = {**pictures.unsupported(), **pictures.damaged()}
    samples = [Sample(key=f"{index:03d}.png", data=data) for index, data in enumerate(odd.values())] + [
        Sample(key="z.jpg", data=workshop.picture(20, 30, "JPEG", quality=40))
    ]
    result = workshop.rescale(
        SOURCES[kind](tmp_path / "source", samples), tmp_path / "archive", tier=Tier.EXACT, image_column=_column(kind)
    )
    workshop.restore(result, tmp_path / "out")
    found = {name.rpartition("/")[2]: data for name, data in workshop.written(tmp_path / "out").items()}
    wanted = {sample.key: hashlib.sha256(sample.data).hexdigest() for sample in samples}
    assert {key: hashlib.sha256(found[key]).hexdigest() for key in wanted} == wanted


def _column(kind: str) -> str | None:
    return "image" if kind == "parquet" else None


@pytest.mark.slow
def test_restoring_twice_gives_the_same_bytes(shelf: Rescaled, tmp_path: Path) -> None:
    """Protects reproducible restores: two of one archive are one, and each can be repeated in its place."""
    for output in OutputKind:
        folders = [tmp_path / f"{output}{index}" for index in range(2)]
        for folder in folders:
            workshop.restore(shelf, folder, output=output)
        assert workshop.written(folders[0]) == workshop.written(folders[1]) != {}
        worker = workshop.restorer(shelf, folders[0], output=output)
        for shard in named_outputs(shelf.archive.shards()):
            assert not worker.run(shard).failures
        assert workshop.written(folders[0]) == workshop.written(folders[1])


@pytest.mark.slow
def test_two_shards_restore_at_once(shelf: Rescaled, tmp_path: Path) -> None:
    """Protects the window of shards: side by side the same files are written as one after the other."""
    workshop.restore(shelf, tmp_path / "alone")
    worker = workshop.restorer(shelf, tmp_path / "together")
    with ThreadPoolExecutor(2) as threads:
        reports = list(threads.map(worker.run, named_outputs(shelf.archive.shards())))
    assert workshop.written(tmp_path / "together") == workshop.written(tmp_path / "alone")
    assert worker.progress.assets == sum(report.entries for report in reports) == 9


# Metadata -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("tier", [Tier.LEAN, Tier.BALANCED])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_profile_exif_and_xmp_come_back(tmp_path: Path, tier: Tier, orientation: int) -> None:
    """Protects metadata: ICC, EXIF in every orientation and XMP are byte for byte the source's, and pixels lie as they did."""
    forms = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}
    metadata = {"exif": pictures.exif(orientation), "icc": pictures.swapped_profile(), "xmp": pictures.XMP}
    samples = [
        Sample(key=f"{form}.{extension}", data=pictures.with_metadata(pictures.photo(24, 40), form, **metadata))
        for form, extension in forms.items()
    ]
    result = workshop.rescale(workshop.as_folder(tmp_path / "source", samples), tmp_path / "archive", tier=tier)
    workshop.restore(result, tmp_path / "own")
    workshop.restore(result, tmp_path / "png", format="png")
    for sample in samples:
        source = workshop.shown(sample.data)
        for path in (tmp_path / "own" / sample.key, (tmp_path / "png" / sample.key).with_suffix(".png")):
            restored = Image.open(io.BytesIO(path.read_bytes()))
            assert restored.info["icc_profile"] == metadata["icc"]
            assert restored.info["exif"].removeprefix(b"Exif\0\0") == metadata["exif"]
            assert restored.getexif()[0x0112] == orientation
            assert (restored.info.get("xmp") or restored.info["XML:com.adobe.xmp"].encode()) == metadata["xmp"]
            assert psnr(source, np.asarray(restored.convert("RGB"))) > 24


@pytest.mark.parametrize("tier", [Tier.LEAN, Tier.BALANCED])
def test_alpha_and_grey_come_back(tmp_path: Path, tier: Tier) -> None:
    """Protects alpha and grey: alpha is exact whatever the tier, turned pictures' too, and grey stays a grey file."""
    rgba, la = pictures.photo(25, 40, 4), pictures.photo(25, 40, 2)
    samples = [
        Sample(key="grey.jpg", data=workshop.picture(25, 40, "JPEG", channels=1)),
        Sample(key="grey.png", data=workshop.picture(25, 40, channels=1)),
        Sample(key="la.png", data=pictures.saved(la, "PNG")),
        Sample(key="rgba.png", data=pictures.with_metadata(rgba, "PNG", exif=pictures.exif(6), icc=None, xmp=None)),
    ]
    result = workshop.rescale(workshop.as_folder(tmp_path / "source", samples), tmp_path / "archive", tier=tier)
    workshop.restore(result, tmp_path / "out")
    found = {name: Image.open(io.BytesIO(data)) for name, data in workshop.written(tmp_path / "out").items()}
    assert {name: each.mode for name, each in found.items()} == {
        "grey.jpg": "L", "grey.png": "L", "la.png": "LA", "rgba.png": "RGBA",
    }  # fmt: skip
    assert (np.asarray(found["la.png"])[..., 1] == la[..., 1]).all()
    assert (np.asarray(found["rgba.png"])[..., 3] == rgba[..., 3]).all()
    entry = {entry.key: entry for entry in result.entries}["rgba.png"]
    assert (entry.height, entry.width) == upright(rgba, 6).shape[:2]


# Selection ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_keys_globs_and_shards_select(shelf: Rescaled, tmp_path: Path) -> None:
    """Protects selections: keys, a glob that crosses folders, shards, and keys and a glob together, no more and no less."""
    tar = next(shard.id for shard in shelf.archive.shards() if shard.name == "some.tar")
    loose = next(shard.id for shard in shelf.archive.shards() if shard.id == shard.name)
    cases: dict[str, tuple[dict[str, Any], set[str]]] = {
        "keys": (
            {"keys": frozenset(["x", "001.jpg", "loose/002.webp"])},
            {"some/001.jpg", "table/001.jpg", "loose/002.webp"},
        ),
        "glob": ({"pattern": "*.webp"}, {"some/002.webp", "loose/002.webp"}),
        "folder": ({"pattern": "loose/*"}, {"loose/000.png", "loose/001.jpg", "loose/002.webp"}),
        "shard": ({"shards": frozenset([tar])}, {f"some/{name}" for name in ("000.png", "001.jpg", "002.webp", "003.tif")}),
        "both": ({"keys": frozenset(["001.jpg", "000.png"]), "pattern": "*.jpg"}, {"some/001.jpg", "table/001.jpg"}),
        "none": ({"pattern": "*.gif"}, set()),
        "one of a shard": ({"shards": frozenset([loose]), "keys": frozenset(["loose/001.jpg"])}, {"loose/001.jpg"}),
    }
    for name, (options, expected) in cases.items():
        reports = workshop.restore(shelf, tmp_path / name, **options)
        images = {path for path in workshop.written(tmp_path / name) if not path.endswith((".txt", ".json"))}
        assert images == expected, name
        assert sum(report.entries for report in reports) == len(expected)


def test_nothing_selected_of_a_shard_writes_no_file(shelf: Rescaled, tmp_path: Path) -> None:
    """Protects destinations from empty tars and tables where no entry of a shard was asked for."""
    for output in (OutputKind.TAR, OutputKind.PARQUET):
        workshop.restore(shelf, tmp_path / output, output=output, pattern="loose/*")
        assert len(workshop.written(tmp_path / output)) == 1


# Faults ---------------------------------------------------------------------------------------------------------------


def test_a_missing_shard_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the local disk: a shard that cannot be opened is a sentence, and the spool is empty afterwards."""
    result = workshop.rescale(workshop.as_tar(tmp_path / "source", workshop.samples(2)), tmp_path / "archive")
    spool = tmp_path / "spool"
    spool.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(spool))
    (shard,) = result.archive.shards()
    (tmp_path / f"archive/shards/{shard.id}.parquet").unlink()
    for output in OutputKind:
        with pytest.raises(NotFound) as caught:
            workshop.restore(result, tmp_path / "out", output=output)
        workshop.sentence(str(caught.value))
    assert not list(spool.iterdir())
    assert workshop.written(tmp_path / "out") == {}


@pytest.mark.parametrize(
    "options",
    [
        {"format": "gif"},
        {"quality": 0},
        {"quality": 101},
        {"scale": 0.0},
        {"scale": -1.0},
        {"scale": float("nan")},
        {"scale": float("inf")},
        {"max_side": 0},
        {"scale": 2.0, "max_side": 5},
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(options: Mapping[str, Any]) -> None:
    """Protects the user: what cannot be meant is told with what can, before anything starts."""
    with pytest.raises(InvalidOption) as caught:
        RestoreOptions(**options)
    workshop.sentence(str(caught.value))


def test_each_option_makes_a_restore_of_its_own() -> None:
    """Protects resuming: what was restored with other options is not taken for done."""
    options: list[dict[str, Any]] = [
        {}, {"output": OutputKind.TAR}, {"format": "png"}, {"quality": 94}, {"scale": 2.0}, {"max_side": 9}, {"lr": True},
        {"use_latent": False}, {"keys": frozenset(["a"])}, {"pattern": "a"}, {"shards": frozenset(["a"])},
    ]  # fmt: skip
    digests = {RestoreOptions(**each).digest("archive") for each in options}
    assert len(digests) == len(options)
    assert RestoreOptions(keys=frozenset("abc")).digest("x") == RestoreOptions(keys=frozenset("cba")).digest("x")
