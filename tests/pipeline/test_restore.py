"""The way back without Ray: what comes out of an archive, in which form, and what never changes on the way."""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.archives.archive import Archive
from pipeline.archives.commits import done
from pipeline.core.errors import InvalidOption, NotFound
from pipeline.core.records import LrCodec, Tier
from pipeline.entry_picture import renamed
from pipeline.outputs.outputs import OutputKind, named_outputs
from pipeline.pictures.orientation import upright
from pipeline.restore import RestoreOptions, restore_state
from pipeline.stores.store import LocalStore
from tests.support import pictures, workshop
from tests.support.workshop import Arrays, Rescaled, Sample

SOURCES: Mapping[str, Callable[..., str]] = {
    "files": workshop.as_folder,
    "tar": workshop.as_tar,
    "parquet": workshop.as_parquet,
}
every_source = pytest.mark.parametrize("kind", SOURCES)
every_output = pytest.mark.parametrize("output", list(OutputKind))


def psnr(one: Arrays, other: Arrays) -> float:
    """Return the PSNR of two 8-bit arrays in dB."""
    return float(10 * np.log10(255**2 / max(np.square(one.astype(float) - other).mean(), 1e-10)))


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Rescaled:
    """An archive of three shards, balanced: a tar, a Parquet file and loose files."""
    folder = tmp_path_factory.mktemp("shelf")
    source = workshop.as_folder(folder / "source", workshop.samples(3, folder="loose/"))
    workshop.as_tar(folder / "source", workshop.samples(4), name="some.tar")
    workshop.as_parquet(folder / "source", workshop.samples(2), name="table.parquet")
    return workshop.rescale(source, folder / "archive")


@every_source
@every_output
@pytest.mark.parametrize("tier", list(Tier))
def test_everything_comes_back_in_every_form(tmp_path: Path, kind: str, output: OutputKind, tier: Tier) -> None:
    """Protects the round trip: each asset's name, picture and sidecars, from any source, to any form, in every tier."""
    samples = workshop.samples(3)
    result = workshop.rescale(SOURCES[kind](tmp_path / "source", samples), tmp_path / "archive", tier=tier)
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


def test_two_shards_restore_at_once(shelf: Rescaled, tmp_path: Path) -> None:
    """Protects the window of shards: side by side the same files are written as one after the other."""
    workshop.restore(shelf, tmp_path / "alone")
    worker = workshop.restorer(shelf, tmp_path / "together")
    with ThreadPoolExecutor(2) as threads:
        reports = list(threads.map(worker.run, named_outputs(shelf.archive.shards())))
    assert workshop.written(tmp_path / "together") == workshop.written(tmp_path / "alone")
    assert worker.progress.assets == sum(report.entries for report in reports) == 9


# Metadata -------------------------------------------------------------------------------------------------------------


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


# Forms ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "expected"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
def test_a_format_may_be_chosen(tmp_path: Path, form: str, expected: str) -> None:
    """Protects the choice of format: every file is of it and named for it; alpha, which JPEG lacks, becomes PNG."""
    samples = [Sample(key="alpha.png", data=workshop.picture(20, 20, channels=4)), *workshop.samples(3)]
    result = workshop.rescale(workshop.as_tar(tmp_path / "source", samples), tmp_path / "archive")
    workshop.restore(result, tmp_path / "out", format=form)
    pixels = {name: data for name, data in workshop.written(tmp_path / "out").items() if not name.endswith(("txt", "json"))}
    extension = {"jpeg": "jpg"}.get(form, form)
    other = "png" if form == "jpeg" else extension
    known = [f"photos/{index:03d}.{extension}" for index in range(3)]
    if form == "jpeg":
        known[1] = "photos/001.jpg"
    assert list(pixels) == [*known, f"photos/alpha.{other}"]
    found = [Image.open(io.BytesIO(pixels[name])).format for name in known]
    assert found == [expected] * 3


def test_quality_decides_the_bytes_of_lossy_formats(shelf: Rescaled, tmp_path: Path) -> None:
    """Protects --quality: less of it is smaller."""
    sizes = []
    for quality in (30, 95):
        (tmp_path / str(quality)).mkdir()
        workshop.restore(shelf, tmp_path / str(quality), format="jpeg", quality=quality, pattern="loose/*")
        sizes.append(sum(map(len, workshop.written(tmp_path / str(quality)).values())))
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"scale": 2.0}, (10, 15)), ({"scale": 0.5}, (40, 60)), ({"max_side": 12}, (8, 12)), ({"max_side": 500}, (20, 30))],
    ids=str,
)
@pytest.mark.parametrize("tier", list(Tier))
def test_another_size_may_be_chosen(tmp_path: Path, options: Mapping[str, Any], expected: tuple[int, int], tier: Tier) -> None:
    """Protects --scale and --max-side: pixels and alpha come at that size, metadata with them, in the source's orientation."""
    exif = pictures.exif(6)
    data = pictures.with_metadata(pictures.photo(30, 20, 4), "PNG", exif=exif, icc=None, xmp=None)
    source = workshop.as_folder(tmp_path / "source", [Sample(key="a.png", data=data)])
    result = workshop.rescale(source, tmp_path / "archive", tier=tier)
    workshop.restore(result, tmp_path / "out", **options)
    restored = Image.open(io.BytesIO((tmp_path / "out/a.png").read_bytes()))
    assert restored.mode == "RGBA"
    assert (restored.width, restored.height) == expected
    assert restored.info["exif"].removeprefix(b"Exif\0\0") == exif


def test_a_size_without_bounds_is_refused_per_entry(tmp_path: Path) -> None:
    """Protects memory: a scale near zero asks for more pixels than the archive lets in, and is told so, not tried."""
    source = workshop.as_folder(tmp_path / "source", workshop.samples(1))
    result = workshop.rescale(source, tmp_path / "archive")
    (failure,) = workshop.failures(workshop.restore(result, tmp_path / "out", scale=1e-6))
    assert "--scale" in workshop.sentence(failure.reason)
    assert workshop.written(tmp_path / "out") == {}


@pytest.mark.parametrize("codec", list(LrCodec))
@every_output
def test_lrs_come_out_untouched(tmp_path: Path, codec: LrCodec, output: OutputKind) -> None:
    """Protects those who want just the LRs: the stored bytes under the LR's name, originals and sidecars beside them."""
    samples = [*workshop.samples(3), Sample(key="broken.png", data=b"no picture", sidecars={"txt": b"x"})]
    result = workshop.rescale(workshop.as_tar(tmp_path / "source", samples), tmp_path / "archive", codec=codec)
    workshop.restore(result, tmp_path / "out", lr=True, output=output)
    files = workshop.written(tmp_path / "out")
    if output is OutputKind.TAR:
        files = {f"photos/{name}": data for name, data in workshop.members_of(files["photos.tar"])}
    if output is OutputKind.PARQUET:
        rows = pq.read_table(io.BytesIO(files["photos.parquet"])).to_pylist()
        files = {f"photos/{row['key']}": row["image"]["bytes"] for row in rows}
        files |= {"photos/broken.txt": b"x"}
    for entry in result.entries[:3]:
        assert files[f"photos/{entry.lr_path}"] == entry.lr
        assert entry.lr_path is not None
        assert entry.lr_path.endswith("avif" if codec is LrCodec.AUTO else codec.value)
    assert files["photos/broken.png"] == b"no picture"
    assert files["photos/broken.txt"] == b"x"


def test_lrs_need_no_network(shelf: Rescaled, tmp_path: Path) -> None:
    """Protects --lr: an archive whose model is gone still gives its LRs."""
    archive = tmp_path / "archive"
    for name, data in workshop.written(Path(shelf.uri)).items():
        (archive / name).parent.mkdir(parents=True, exist_ok=True)
        if not name.startswith("model/"):
            (archive / name).write_bytes(data)
    copy = Rescaled(archive=Archive.open(LocalStore(archive)), reports=[])
    assert not workshop.failures(workshop.restore(copy, tmp_path / "out", lr=True))
    assert len(workshop.written(tmp_path / "out")) > 9


def test_without_its_latent_an_entry_is_what_its_lr_gives(tmp_path: Path) -> None:
    """Protects --no-latent: an archive then gives what the LRs alone can, an exact one what a lean one does."""
    source = workshop.as_folder(tmp_path / "source", workshop.samples(3))
    outputs = {}
    for tier in Tier:
        result = workshop.rescale(source, tmp_path / f"archive-{tier}", tier=tier)
        workshop.restore(result, tmp_path / tier, use_latent=False, format="png")
        outputs[tier] = workshop.written(tmp_path / tier)
        if tier is Tier.BALANCED:
            workshop.restore(result, tmp_path / "with", format="png")
            assert workshop.written(tmp_path / "with") != outputs[tier]
    assert outputs[Tier.LEAN] == outputs[Tier.EXACT] == outputs[Tier.EXACT_PIXELS]
    assert outputs[Tier.BALANCED] == outputs[Tier.HIGH] == outputs[Tier.FLOOR] != outputs[Tier.LEAN]


def test_a_parquet_source_comes_back_with_its_own_columns(tmp_path: Path) -> None:
    """Protects tables: the same columns, types and values, only the bytes of the images are others."""
    samples = workshop.samples(5)
    result = workshop.rescale(workshop.as_parquet(tmp_path / "source", samples), tmp_path / "archive")
    workshop.restore(result, tmp_path / "out", output=OutputKind.PARQUET)
    before, after = (pq.read_table(tmp_path / folder / "photos.parquet") for folder in ("source", "out"))
    assert after.schema.equals(before.schema)
    assert after.drop_columns(["image"]).equals(before.drop_columns(["image"]))
    for sample, row in zip(samples, after["image"].to_pylist(), strict=True):
        assert row["path"] == sample.key
        assert psnr(workshop.shown(sample.data), workshop.shown(row["bytes"])) > 30


# Selection ------------------------------------------------------------------------------------------------------------


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


# Names ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", [OutputKind.FILES, OutputKind.TAR])
def test_assets_of_one_stem_lose_nothing(tmp_path: Path, output: OutputKind) -> None:
    """Protects a.jpg and a.png: as PNG both are there, with their sidecars."""
    samples = [
        Sample(key="a.jpg", data=workshop.picture(20, 30, "JPEG"), sidecars={"txt": b"caption"}),
        Sample(key="a.png", data=workshop.picture(24, 36)),
    ]
    result = workshop.rescale(workshop.as_folder(tmp_path / "source", samples), tmp_path / "archive")
    assert len(result.entries) == 2
    assert not workshop.failures(workshop.restore(result, tmp_path / "out", format="png", output=output))
    files = workshop.written(tmp_path / "out")
    found = files if output is OutputKind.FILES else dict(workshop.members_of(files["000000000-a.tar"]))
    own = "a.png" if output is OutputKind.FILES else "a~2.png"  # in a tar each has a stem of its own
    assert set(found) == {"a.jpg.png", own, "a.txt"}
    assert [workshop.shown(found[name]).shape[0] for name in ("a.jpg.png", own)] == [20, 24]


def test_mislabelled_files_keep_their_name_in_their_own_format(tmp_path: Path) -> None:
    """Protects names: a PNG called a.jpg comes back as the same, and as a.png where PNG was asked for."""
    sample = Sample(key="a.jpg", data=workshop.picture(20, 30))
    result = workshop.rescale(workshop.as_folder(tmp_path / "source", [sample]), tmp_path / "archive")
    workshop.restore(result, tmp_path / "own")
    workshop.restore(result, tmp_path / "png", format="png")
    assert list(workshop.written(tmp_path / "own")) == ["a.jpg"]
    assert Image.open(io.BytesIO((tmp_path / "own/a.jpg").read_bytes())).format == "PNG"
    assert list(workshop.written(tmp_path / "png")) == ["a.png"]


@pytest.mark.parametrize(
    ("key", "form", "expected"),
    [
        ("a.JPG", "jpeg", "a.JPG"),
        ("a.jfif", "JPEG", "a.jfif"),
        ("a.b.png", "jpeg", "a.b.jpg"),
        ("v1.2", "png", "v1.2.png"),
        ("00000012", "webp", "00000012.webp"),
        (".png", "jpeg", ".png.jpg"),
        ("x.gif/a.gif", "png", "x.gif/a.png"),
    ],
)
def test_names_follow_the_format(key: str, form: str, expected: str) -> None:
    """Protects names: an extension of an image is replaced where it tells another format, anything else is kept."""
    assert renamed(key, form) == expected


@pytest.mark.parametrize("output", [OutputKind.FILES, OutputKind.TAR])
def test_what_is_there_stays_and_is_one_failure(tmp_path: Path, output: OutputKind) -> None:
    """Protects destinations: another file of the name is not overwritten, is told, and the rest is written and can go on."""
    samples = workshop.samples(3)
    result = workshop.rescale(workshop.as_tar(tmp_path / "source", samples), tmp_path / "archive")
    mine = tmp_path / "out" / ("photos/001.jpg" if output is OutputKind.FILES else "photos.tar")
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    (report,) = workshop.restore(result, tmp_path / "out", output=output)
    (failure,) = report.failures
    assert failure.key == ("001.jpg" if output is OutputKind.FILES else None)
    assert mine.name in workshop.sentence(failure.reason)
    assert mine.read_bytes() == b"mine"
    files = workshop.written(tmp_path / "out")
    assert len(files) == (9 if output is OutputKind.FILES else 1)
    mine.unlink()
    (report,) = workshop.restore(result, tmp_path / "out", output=output)
    assert not report.failures
    assert mine.read_bytes() != b"mine"


def test_a_restore_with_failures_is_not_done(tmp_path: Path) -> None:
    """Protects resuming: only a shard that came back whole is marked as done, so the same command tries the others again."""
    for name in ("one.tar", "two.tar"):
        workshop.as_tar(tmp_path / "source", workshop.samples(2), name=name)
    result = workshop.rescale(str(tmp_path / "source"), tmp_path / "archive")
    (tmp_path / "out/one").mkdir(parents=True)
    (tmp_path / "out/one/000.png").write_bytes(b"mine")
    worker = workshop.restorer(result, tmp_path / "out")
    for shard in named_outputs(result.archive.shards()):
        worker.run(shard)
    state = done(restore_state(str(tmp_path / "out"), worker.digest), 2)
    assert [shard.id in state for shard in result.archive.shards()] == [False, True]
    other = workshop.restorer(result, tmp_path / "out", format="png")
    assert not done(other.state, 2)


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


def test_a_format_that_is_not_written_becomes_png(tmp_path: Path) -> None:
    """Protects GIF and the like: a picture that its own format cannot hold again comes back as PNG, named so."""
    palette = Image.fromarray(pictures.photo(20, 24)).quantize(64)
    sample = Sample(key="a.gif", data=pictures.saved(palette, "GIF"))
    result = workshop.rescale(workshop.as_folder(tmp_path / "source", [sample]), tmp_path / "archive")
    workshop.restore(result, tmp_path / "out")
    assert [entry.format for entry in result.entries] == ["GIF"]
    assert list(workshop.written(tmp_path / "out")) == ["a.png"]
