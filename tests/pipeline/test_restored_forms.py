"""What a restore may be asked for: formats, qualities, sizes, LRs; and how its files are named."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.archives.archive import Archive
from pipeline.archives.commits import done
from pipeline.core.records import LrCodec, Tier
from pipeline.entry_picture import renamed
from pipeline.outputs.outputs import OutputKind, named_outputs, restore_state
from pipeline.stores.store import LocalStore
from tests.support import pictures, workshop
from tests.support.workshop import Rescaled, Sample, every_output, psnr

# Forms ----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
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


@pytest.mark.slow
def test_quality_decides_the_bytes_of_lossy_formats(shelf: Rescaled, tmp_path: Path) -> None:
    """Protects --quality: less of it is smaller."""
    sizes = []
    for quality in (30, 95):
        (tmp_path / str(quality)).mkdir()
        workshop.restore(shelf, tmp_path / str(quality), format="jpeg", quality=quality, pattern="loose/*")
        sizes.append(sum(map(len, workshop.written(tmp_path / str(quality)).values())))
    assert sizes[0] < sizes[1]


EXIF = pictures.exif(6)


@pytest.fixture(scope="module", params=list(Tier), ids=str)
def turned(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Rescaled:
    """An archive of each tier of one picture with alpha, which lies on its side."""
    folder = tmp_path_factory.mktemp("turned")
    data = pictures.with_metadata(pictures.photo(30, 20, 4), "PNG", exif=EXIF, icc=None, xmp=None)
    source = workshop.as_folder(folder / "source", [Sample(key="a.png", data=data)])
    return workshop.rescale(source, folder / "archive", tier=request.param)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "expected"),
    [({"scale": 2.0}, (10, 15)), ({"scale": 0.5}, (40, 60)), ({"max_side": 12}, (8, 12)), ({"max_side": 500}, (20, 30))],
    ids=str,
)
def test_another_size_may_be_chosen(
    turned: Rescaled, tmp_path: Path, options: Mapping[str, Any], expected: tuple[int, int]
) -> None:
    """Protects --scale and --max-side: pixels and alpha come at that size, metadata with them, in the source's orientation."""
    workshop.restore(turned, tmp_path / "out", **options)
    restored = Image.open(io.BytesIO((tmp_path / "out/a.png").read_bytes()))
    assert restored.mode == "RGBA"
    assert (restored.width, restored.height) == expected
    assert restored.info["exif"].removeprefix(b"Exif\0\0") == EXIF


def test_a_size_without_bounds_is_refused_per_entry(tmp_path: Path) -> None:
    """Protects memory: a scale near zero asks for more pixels than the archive lets in, and is told so, not tried."""
    source = workshop.as_folder(tmp_path / "source", workshop.samples(1))
    result = workshop.rescale(source, tmp_path / "archive")
    (failure,) = workshop.failures(workshop.restore(result, tmp_path / "out", scale=1e-6))
    assert "--scale" in workshop.sentence(failure.reason)
    assert workshop.written(tmp_path / "out") == {}


@pytest.fixture(scope="module", params=list(LrCodec), ids=str)
def of_a_codec(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Rescaled:
    """An archive whose LRs are of each codec, with an original among its entries."""
    folder = tmp_path_factory.mktemp("codec")
    samples = [*workshop.samples(3), Sample(key="broken.png", data=b"no picture", sidecars={"txt": b"x"})]
    return workshop.rescale(workshop.as_tar(folder / "source", samples), folder / "archive", codec=request.param)


@pytest.mark.slow
@every_output
def test_lrs_come_out_untouched(of_a_codec: Rescaled, tmp_path: Path, output: OutputKind) -> None:
    """Protects those who want just the LRs: the stored bytes under the LR's name, originals and sidecars beside them."""
    workshop.restore(of_a_codec, tmp_path / "out", lr=True, output=output)
    files = workshop.written(tmp_path / "out")
    if output is OutputKind.TAR:
        files = {f"photos/{name}": data for name, data in workshop.members_of(files["photos.tar"])}
    if output is OutputKind.PARQUET:
        rows = pq.read_table(io.BytesIO(files["photos.parquet"])).to_pylist()
        files = {f"photos/{row['key']}": row["image"]["bytes"] for row in rows}
        files |= {"photos/broken.txt": b"x"}
    codec = of_a_codec.archive.plan.settings.lr_codec
    for entry in of_a_codec.entries[:3]:
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


@pytest.mark.slow
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


def test_a_format_that_is_not_written_becomes_png(tmp_path: Path) -> None:
    """Protects GIF and the like: a picture that its own format cannot hold again comes back as PNG, named so."""
    palette = Image.fromarray(pictures.photo(20, 24)).quantize(64)
    sample = Sample(key="a.gif", data=pictures.saved(palette, "GIF"))
    result = workshop.rescale(workshop.as_folder(tmp_path / "source", [sample]), tmp_path / "archive")
    workshop.restore(result, tmp_path / "out")
    assert [entry.format for entry in result.entries] == ["GIF"]
    assert list(workshop.written(tmp_path / "out")) == ["a.png"]
