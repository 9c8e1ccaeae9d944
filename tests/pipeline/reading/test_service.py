"""A service without HTTP and Ray: its bytes are those of `iarn restore`, its lists those of the archive, its memory bounded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.errors import ArchiveError, InvalidOption, SizeNotReachable, UndecodableImage
from pipeline.core.options import Limits
from pipeline.core.records import Entry, EntryKind, OriginalCoding, Stored, Tier
from pipeline.pictures import writing
from pipeline.pictures.region import Region
from pipeline.reading.catalogue import Filter
from pipeline.reading.errors import AmbiguousKey, NoSuchEntry, NotKept, NotReady
from pipeline.reading.reader import open_archive
from pipeline.reading.requests import FORMS, ImageRequest
from pipeline.reading.service import Restorer
from pipeline.serving.shelf import Shelf
from tests.support.commands import GUARD
from tests.support.pictures import exif, photo, saved, swapped_profile
from tests.support.workshop import (
    Rescaled,
    Sample,
    as_folder,
    as_tar,
    noise,
    picture,
    rescale,
    restore,
    samples,
    sentence,
    written,
)

ODD = [
    Sample(key="a folder/alpha.png", data=picture(26, 33, "PNG", channels=4, seed=1)),
    Sample(key="grey.png", data=saved(photo(21, 30, 1, 2), "PNG")),
    Sample(key="no image.jpg", data=b"these bytes are no picture"),
    Sample(key="profile.jpg", data=saved(photo(25, 31, 3, 5), "JPEG", icc_profile=swapped_profile())),
    Sample(key="turned.jpg", data=saved(photo(24, 35, 3, 3), "JPEG", exif=b"Exif\0\0" + exif(6))),
    Sample(key="wide.webp", data=picture(20, 41, "WEBP", seed=4), sidecars={"txt": b"a caption"}),
]


class Served:
    """An archive with all that serves it."""

    def __init__(self, rescaled: Rescaled) -> None:
        self.rescaled = rescaled
        self.shelf = Shelf("odd", rescaled.uri)
        self.shelf.catalogue.begin()
        self.restorer = Restorer([rescaled.uri], device="cpu")

    def image(self, key: str, **asked: Any) -> bytes:
        """Return the bytes of an image."""
        return self.restorer.restore(self.shelf.place(key), ImageRequest(**asked)).data


@pytest.fixture(scope="module", params=list(Tier), ids=str)
def odd(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """An archive of one tier with every kind of picture that matters to bytes."""
    folder = tmp_path_factory.mktemp("odd")
    served = Served(rescale(as_tar(folder / "source", ODD), folder / "archive", tier=request.param))
    with closing(served.shelf):
        yield served


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    """An archive of two tars that share a key, with originals among its entries."""
    folder = tmp_path_factory.mktemp("many")
    as_tar(folder / "source", [*samples(7, folder="a/"), Sample(key="a/broken.jpg", data=b"no picture")], "a.tar")
    shared = [Sample(key="a/002.webp", data=picture(20, 20, "WEBP", seed=9))]
    source = as_tar(folder / "source", shared + samples(6, folder="b/"), "b.tar")
    with closing(Shelf("many", rescale(source, folder / "archive").uri)) as shelf:
        shelf.catalogue.begin()
        yield shelf


ASKED = [
    ({}, {}),
    ({"max_side": 17}, {"max_side": 17}),
    ({"scale": 0.5}, {"scale": 2}),
    ({"scale": 1.7}, {"scale": 1 / 1.7}),
    ({"use_latent": False}, {"use_latent": False}),
    ({"use_latent": False, "max_side": 20}, {"use_latent": False, "max_side": 20}),
    ({"region": Region(3, 5, 20, 14)}, {"region": (3, 5, 20, 14)}),
    ({"region": Region(3, 5, 20, 14), "max_side": 9}, {"region": (3, 5, 20, 14), "max_side": 9}),
]


def commanded(served: Served, out: Path, **asked: Any) -> dict[str, bytes]:
    """Return what `iarn restore` writes, by the stem of the name."""
    assert restore(served.rescaled, out, **asked)
    return {Path(name).stem: data for name, data in written(out).items() if not name.endswith(".txt")}


@pytest.mark.slow
@pytest.mark.parametrize(("asked", "options"), ASKED, ids=[str(asked) for asked, _ in ASKED])
def test_an_image_is_what_the_command_writes(
    odd: Served, asked: dict[str, Any], options: dict[str, Any], tmp_path: Path
) -> None:
    """Protects one truth: in every tier and at any size, the bytes served are those that `iarn restore --format png` writes."""
    files = commanded(odd, tmp_path, format="png", **options)
    for sample in ODD:
        if sample.key != "no image.jpg":
            assert odd.image(sample.key, **asked) == files[Path(sample.key).stem], sample.key


@pytest.mark.slow
@pytest.mark.parametrize("form", [form for form in FORMS if form != "png"])
def test_an_image_is_what_the_command_writes_in_every_format(odd: Served, form: str, tmp_path: Path) -> None:
    """Protects formats: the same bytes at a quality, and PNG where the format cannot hold alpha, as the command has it."""
    files = commanded(odd, tmp_path, format=form, quality=60)
    for sample in ODD:
        if sample.key != "no image.jpg":
            assert odd.image(sample.key, form=form, quality=60) == files[Path(sample.key).stem], sample.key


@pytest.mark.slow
def test_an_exact_size_is_what_python_restores(odd: Served) -> None:
    """Protects `size`, which the command has not: its bytes are those of the archive's own reader, coded."""
    entry = open_archive(odd.rescaled.uri, device="cpu")["a folder/alpha.png"]
    mine = writing.encode(entry.picture(size=(40, 15)), format="png", quality=95)
    assert odd.image("a folder/alpha.png", size=(40, 15)) == mine


def test_stored_bytes_come_untouched(odd: Served) -> None:
    """Protects LRs and originals: the very bytes of the archive and of the source; what is not kept is said to be so."""
    sources = {sample.key: sample.data for sample in ODD}
    for entry in odd.rescaled.entries:
        place = odd.shelf.place(entry.key)
        if entry.lr is None:
            with pytest.raises(NotKept) as caught:
                odd.shelf.lr(place)
            sentence(str(caught.value))
        else:
            assert odd.shelf.lr(place).data == entry.lr
        if entry.original_coding not in (None, OriginalCoding.PIXELS):
            assert odd.shelf.original(place).data == sources[entry.key]
        else:
            with pytest.raises(NotKept) as caught:
                odd.shelf.original(place)
            sentence(str(caught.value))


def test_figures_are_those_of_the_entry(odd: Served) -> None:
    """Protects what a page shows: sizes, tiers, quality and the bytes of each part are the archive's."""
    for entry in odd.rescaled.entries:
        asset = odd.shelf.asset(odd.shelf.place(entry.key))
        assert asset["kind"] == ("original" if entry.lr is None else "lr")
        assert (asset["width"], asset["height"], asset["lr_width"]) == (entry.width, entry.height, entry.lr_width)
        assert asset["psnr"] == (None if entry.psnr == float("inf") else entry.psnr)
        for part in ("lr", "latent", "alpha", "original"):
            assert asset["bytes"][part] == (len(getattr(entry, part) or b"") or None)
        assert asset["stored_bytes"] == sum(size or 0 for size in asset["bytes"].values())
        assert (asset["lost"], entry.lost) == ([], ())
        (listed,) = odd.shelf.list(Filter(prefix=entry.key), after="", limit=5, seconds=GUARD)["assets"]
        told = {name: value for name, value in listed.items() if name not in ("bytes", "stored_bytes", "lost", "holders")}
        assert told == {name: asset[name] for name in told}


def test_an_original_that_is_no_image_says_so(odd: Served) -> None:
    """Protects callers: the image of what cannot be decoded is refused with a sentence."""
    with pytest.raises(UndecodableImage) as caught:
        odd.image("no image.jpg")
    sentence(str(caught.value))


def test_the_name_of_an_image_tells_all_that_decides_its_bytes(odd: Served) -> None:
    """Protects caches: equal requests have one digest; another entry, format, quality, size, latent or device has its own."""
    key, other = odd.shelf.place("wide.webp"), odd.shelf.place("turned.jpg")
    requests = [
        (key, ImageRequest(), "cpu"),
        (other, ImageRequest(), "cpu"),
        (key, ImageRequest(), "cuda"),
        (key, ImageRequest(form="webp"), "cpu"),
        (key, ImageRequest(quality=94), "cpu"),
        (key, ImageRequest(max_side=8), "cpu"),
        (key, ImageRequest(scale=1.0), "cpu"),
        (key, ImageRequest(size=(1, 2)), "cpu"),
        (key, ImageRequest(size=(2, 1)), "cpu"),
        (key, ImageRequest(use_latent=False), "cpu"),
    ]
    digests = [odd.shelf.image_digest(*each) for each in requests]
    assert len(set(digests)) == len(requests)
    assert digests == [odd.shelf.image_digest(*each) for each in requests]


@pytest.mark.parametrize(
    "asked",
    [
        {"max_side": 5, "scale": 0.5}, {"scale": 0.0}, {"scale": 4.1}, {"scale": float("nan")}, {"size": (0, 5)},
        {"max_side": 0}, {"quality": 0}, {"quality": 101}, {"form": "bmp"}, {"form": "source"}, {"size": (1, 1), "max_side": 1},
    ],
    ids=str,
)  # fmt: skip
def test_a_request_that_makes_no_sense_is_refused(asked: dict[str, Any]) -> None:
    """Protects engines: what cannot be meant never reaches one."""
    with pytest.raises(InvalidOption) as caught:
        ImageRequest(**asked)
    sentence(str(caught.value))


@pytest.mark.parametrize(
    ("asked", "limits"),
    [
        ({"size": (5000, 1)}, Limits(largest_side=4999)),
        ({"size": (100, 100)}, Limits(most_pixels=9999)),
        ({}, Limits(largest_side=40)),
        ({"scale": 4}, Limits(largest_side=100)),
    ],
    ids=str,
)
def test_no_image_is_larger_than_the_limits(odd: Served, asked: dict[str, Any], limits: Limits) -> None:
    """Protects memory: a size above the limits is refused before anything is restored, by the shelf and by the restorer."""
    place, request = odd.shelf.place("wide.webp"), ImageRequest(**asked)
    with pytest.raises(InvalidOption) as caught:
        odd.shelf.check(place, request, limits)
    sentence(str(caught.value))
    with pytest.raises(InvalidOption):
        Restorer([odd.rescaled.uri], device="cpu", limits=limits).restore(place, request)


@pytest.mark.parametrize(
    "asked",
    [{"size": (1, 16385)}, {"size": (4, 8)}, {"scale": 4}, {"region": Region(40, 0, 2, 2)}, {"region": Region(0, 20, 1, 1)}],
    ids=str,
)
@pytest.mark.parametrize("use_latent", [True, False])
def test_what_is_not_given_is_not_made(
    odd: Served, asked: dict[str, Any], use_latent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects replicas: a size or a region that is refused is refused by the entry's figures, in every tier, whatever is kept;
    nothing is decoded and no network asked for it."""

    def none(*_: Any, **__: Any) -> Any:
        raise AssertionError("an image was made")

    monkeypatch.setattr("pipeline.reading.service.restore_entry", none)
    limits = Limits(most_pixels=2000) if asked != {"size": (4, 8)} else Limits(largest_side=7)
    place, request = odd.shelf.place("wide.webp"), ImageRequest(**asked, use_latent=use_latent)
    with pytest.raises(InvalidOption) as caught:
        odd.shelf.check(place, request, limits)
    sentence(str(caught.value))
    monkeypatch.setattr(odd.restorer, "_limits", limits)
    with pytest.raises(InvalidOption):
        odd.restorer.restore(place, request)


def test_a_region_is_counted_by_itself(odd: Served) -> None:
    """Protects large pictures: of one above the limits a part is given, and a thumbnail, but where all would be decoded."""
    limits, place = Limits(most_pixels=300), odd.shelf.place("wide.webp")  # 820 pixels, its LR 210
    whole = odd.shelf.figures(place).stored in (Stored.PIXELS, Stored.FILE)
    restorer = Restorer([odd.rescaled.uri], device="cpu", limits=limits)
    for asked in ({"region": Region(0, 0, 17, 17)}, {"max_side": 20}, {"region": Region(1, 2, 40, 18), "max_side": 20}):
        request = ImageRequest(**asked)
        if whole:
            with pytest.raises(InvalidOption, match="restores 300 pixels at most"):
                odd.shelf.check(place, request, limits)
            continue
        odd.shelf.check(place, request, limits)
        assert restorer.restore(place, request).pixels == (289 if "max_side" not in asked else 210)
    for asked in ({"region": Region(0, 0, 21, 20)}, {"region": Region(40, 0, 2, 2)}):
        with pytest.raises(InvalidOption):
            odd.shelf.check(place, ImageRequest(**asked), limits)


def test_an_archive_has_a_limit_of_its_own(odd: Served) -> None:
    """Protects memory: more pixels than the archive let in do not come out, whatever the service would allow."""
    with pytest.raises(SizeNotReachable):
        odd.shelf.check(odd.shelf.place("wide.webp"), ImageRequest(size=(5000, 5000)), Limits())


def test_a_key_leads_to_its_entry(many: Shelf) -> None:
    """Protects lookups: a key of two shards is refused until the shard is named, an unknown one is said to be unknown."""
    with pytest.raises(AmbiguousKey) as ambiguous:
        many.place("a/002.webp")
    found = [many.figures(many.place("a/002.webp", shard)) for shard in ambiguous.value.shards]
    assert len({entry.sha256 for entry in found}) == 2
    assert many.figures(many.place("b/003.tif")).key == "b/003.tif"
    for key in ("", "a", "a/", "../a/001.jpg", "a/001.jpg\0", "\U0010ffff", "x" * 100_000):
        with pytest.raises(NoSuchEntry):
            many.place(key)


filters = st.builds(
    Filter,
    prefix=st.sampled_from(["", "a/", "b/", "a/00", "c", "\0", "a/002.webp", "%", "_"]),
    contains=st.sampled_from(["", "00", "jpg", "JPG", "/", "\0", "_", "é"]),
    kind=st.sampled_from([None, *EntryKind]),
    tier=st.sampled_from([None, *Tier]),
    psnr_min=st.none() | st.floats(30, 60),
    psnr_max=st.none() | st.floats(30, 60),
)


@given(wanted=filters, limit=st.integers(1, 20))
def test_a_list_has_what_its_filter_lets_through(many: Shelf, wanted: Filter, limit: int) -> None:
    """Protects paging: whatever the filter and length, each key that matches comes once, in order, and is counted."""

    def lets_through(entry: Entry) -> bool:
        psnr = entry.psnr
        return (
            entry.key.startswith(wanted.prefix)
            and wanted.contains in entry.key
            and wanted.kind in (None, entry.kind)
            and wanted.tier in (None, entry.tier)
            and (wanted.psnr_min is None or (psnr is not None and psnr >= wanted.psnr_min))
            and (wanted.psnr_max is None or (psnr is not None and psnr <= wanted.psnr_max))
        )

    expected = sorted({entry.record.key for entry in open_archive(many.uri).entries(parts=()) if lets_through(entry.record)})
    keys: list[str] = []
    after: str | None = ""
    while after is not None:
        page = many.list(wanted, after=after, limit=limit, seconds=GUARD)
        assert len(page["assets"]) <= limit
        assert page["total"] == len(expected)
        keys += [asset["key"] for asset in page["assets"]]
        after = page["next"]
    assert keys == expected


def test_a_list_that_is_not_there_yet_says_how_far_it_is(many: Shelf) -> None:
    """Protects the first seconds of a large archive: keys are answered at once, and the list says that it is being made."""
    with closing(Shelf("many", many.uri)) as shelf:
        assert shelf.figures(shelf.place("b/003.tif")).key == "b/003.tif"
        with pytest.raises(NotReady) as caught:
            shelf.list(Filter(), after="", limit=1, seconds=0.01)
        assert "0 of 2 shards" in sentence(str(caught.value))


def test_an_entry_is_read_by_ranges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects bandwidth: an LR of a shard full of large originals is read without them, the next one without the footer."""
    large = [Sample(key=f"{n}.bin.jpg", data=np.random.default_rng(n).bytes(2_000_000)) for n in range(4)]
    source = as_tar(tmp_path / "source", [*large, Sample(key="small.png", data=picture(30, 30)), *samples(3, folder="z/")])
    rescaled = rescale(source, tmp_path / "archive")
    size = (tmp_path / "archive" / "shards").stat().st_size
    read: list[int] = []
    with closing(Shelf("ranges", rescaled.uri)) as shelf:
        store = shelf.archive.store
        original = type(store).read

        def counting(self: Any, key: str, start: int = 0, stop: int | None = None, etag: str | None = None) -> bytes:
            data = original(self, key, start, stop, etag)
            read.append(len(data))
            return data

        monkeypatch.setattr(type(store), "read", counting)
        place = shelf.place("small.png")
        shelf.lr(place)
        first = sum(read)
        assert first < 400_000, f"{first} bytes of a shard of 8 MB, {size}"
        read.clear()
        shelf.lr(shelf.place("z/001.jpg"))
        assert sum(read) < 200_000


def test_damage_is_one_entry_s_own(tmp_path: Path) -> None:
    """Protects the others: of a shard with a flipped bit the entry that has it is refused, all else is served."""
    kept = [Sample(key=f"{n}.jpg", data=noise(n)) for n in range(3)]
    rescaled = rescale(as_tar(tmp_path / "source", [*kept, *samples(2, folder="z/")]), tmp_path / "archive")
    (path,) = (tmp_path / "archive" / "shards").glob("*.parquet")
    data = bytearray(path.read_bytes())
    data[data.index(kept[1].data) + 1000] ^= 1
    path.write_bytes(data)
    with closing(Shelf("damaged", rescaled.uri)) as shelf:
        restorer = Restorer([rescaled.uri], device="cpu")
        for call in (shelf.original, shelf.asset, lambda place: restorer.restore(place, ImageRequest())):
            with pytest.raises(ArchiveError) as caught:
                call(shelf.place("1.jpg"))
            sentence(str(caught.value))
        assert shelf.original(shelf.place("2.jpg")).data == kept[2].data
        assert restorer.restore(shelf.place("z/001.jpg"), ImageRequest()).data
        shelf.catalogue.begin()
        assert shelf.list(Filter(), after="", limit=9, seconds=GUARD)["total"] == 5


def test_a_shard_that_cannot_be_read_does_not_take_the_others_along(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Protects an archive that lost one shard: keys of the others are served, an unknown key is told of the damage."""
    as_tar(tmp_path / "source", samples(3, folder="a/"), "a.tar")
    rescaled = rescale(as_tar(tmp_path / "source", samples(3, folder="b/"), "b.tar"), tmp_path / "archive")
    path = sorted((tmp_path / "archive" / "shards").iterdir())[0]
    path.write_bytes(path.read_bytes()[:-40])
    with closing(Shelf("damaged", rescaled.uri)) as shelf:
        assert shelf.lr(shelf.place("b/001.jpg")).data
        with pytest.raises(ArchiveError) as caught:
            shelf.place("a/001.jpg")
        assert path.stem in sentence(str(caught.value))
        shelf.catalogue.begin()
        listed = shelf.list(Filter(), after="", limit=9, seconds=GUARD)
        assert (listed["total"], listed["damaged_shards"]) == (3, 1)
        assert path.stem in "".join(record.getMessage() for record in caplog.records), "an operator is told"


def test_archives_of_one_model_share_its_engine(tmp_path: Path) -> None:
    """Protects memory: two archives of the same weights have one engine between them, and each its own entries."""
    uris = [
        rescale(as_folder(tmp_path / f"source{n}", [Sample(key="x.png", data=picture(20, 22, seed=n))]), tmp_path / f"a{n}").uri
        for n in range(2)
    ]
    restorer = Restorer(uris, device="cpu")
    assert len(restorer._archives._batchers) == 1
    shelves = [Shelf(f"a{n}", uri) for n, uri in enumerate(uris)]
    images = [restorer.restore(shelf.place("x.png"), ImageRequest()).data for shelf in shelves]
    assert images[0] != images[1]
    for shelf in shelves:
        shelf.close()
