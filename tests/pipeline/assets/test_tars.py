"""A tar to its assets: every member once, names kept, links and joined tars followed."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import tarfile
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.records import Asset, ShardKind
from tests.support.shards import JPEG, PNG, keys, read_damaged, read_tar, shard_of
from tests.support.workshop import tar_of


def test_tar_members_of_a_stem_are_one_asset(tmp_path: Path) -> None:
    """Protects the WebDataset convention: images and sidecars of adjacent members, keys as they are."""
    members = [
        ("a/x.seg.png", PNG),
        ("a/x.jpg", JPEG),
        ("a/x.txt", b"cap"),
        ("b/x.PNG", PNG),
        ("b/y.seg.png", PNG),
        ("b/z.jpg", b""),
    ]
    assets = read_tar(tmp_path, tar_of(members))
    assert assets == [
        Asset(key="a/x.seg.png", data=PNG),
        Asset(key="a/x.jpg", data=JPEG, sidecars={"txt": b"cap"}),
        Asset(key="b/x.PNG", data=PNG),
        Asset(key="b/y.seg.png", data=PNG),
        Asset(key="b/z.jpg", data=b""),
    ]


def test_tar_samples_without_image_keep_their_members(tmp_path: Path) -> None:
    """Protects sidecars whose image is missing or not adjacent: they are an asset of their own that says so."""
    assets = read_tar(
        tmp_path, tar_of([("x.jpg", JPEG), ("y.jpg", JPEG), ("x.txt", b"1"), ("x.json", b"{}"), ("README", b"r")])
    )
    assert keys(assets) == ["x.jpg", "y.jpg", "x.txt", "README"]
    assert assets[2].data is None
    assert assets[2].sidecars == {"txt": b"1", "json": b"{}"}
    assert "adjacent" in str(assets[2].note)
    assert assets[3].sidecars == {"": b"r"}


def test_tar_keys_are_unique(tmp_path: Path) -> None:
    """Protects all assets of one name in one tar, adjacent or not, and all their sidecars."""
    members = [
        ("a.jpg", JPEG),
        ("a.txt", b"1"),
        ("a.jpg", PNG),
        ("a.txt", b"2"),
        ("b.jpg", JPEG),
        ("a.png", PNG),
        ("a.txt", b"3"),
    ]
    assets = read_tar(tmp_path, tar_of(members))
    assert keys(assets) == ["a.jpg", "a~2.jpg", "b.jpg", "a~3.png"]
    assert [asset.sidecars.get("txt") for asset in assets] == [b"1", b"2", None, b"3"]
    assert assets[0].note is None
    assert "a.jpg" in str(assets[1].note)


@pytest.mark.parametrize(
    "name", ["../x.jpg", "/etc/x.jpg", "a/../../x.jpg", r"..\x.jpg", "C:/x.jpg", "a\x01b.jpg", "y" * 300 + ".jpg"]
)
def test_tar_names_that_are_not_safe_are_changed_and_told(tmp_path: Path, name: str) -> None:
    """Protects destinations against members with absolute, parent or otherwise unsafe names."""
    (asset,) = read_tar(tmp_path, tar_of([(name, JPEG)]))
    assert asset.data == JPEG
    assert asset.key.endswith("jpg")
    assert not asset.key.startswith("/")
    assert ".." not in asset.key.split("/")
    assert f"stored under {asset.key}" in str(asset.note)


@pytest.mark.parametrize("format_", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tar_long_and_foreign_names_are_kept(tmp_path: Path, format_: int) -> None:
    """Protects names beyond the 100 ASCII bytes of the old header, and the leading ./ of `tar -c .`, which is no name."""
    name = "Straße/" + "/".join(["folder"] * 30) + "/☀.jpg"
    assert keys(read_tar(tmp_path, tar_of([(name, JPEG), ("./b.jpg", JPEG)], format_))) == [name, "b.jpg"]


def test_tar_name_that_is_no_utf8_is_encoded(tmp_path: Path) -> None:
    """Protects tars of old systems: a Latin-1 byte in a name stays distinct and breaks nothing behind it."""
    data = tar_of([("caf\udce9.jpg", JPEG), ("caf\udce8.jpg", JPEG)], tarfile.GNU_FORMAT)
    assert keys(read_tar(tmp_path, data)) == ["caf%E9.jpg", "caf%E8.jpg"]


def test_tar_links_and_devices_are_told_and_not_followed(tmp_path: Path) -> None:
    """Protects the machine that reads: a link of a stranger's tar is reported, nothing is opened."""
    buffer = io.BytesIO()
    kinds = {
        b"1": "hard link here, to %2F/etc/passwd, which is no file before it",
        b"2": "symbolic link",
        b"3": "character device",
        b"4": "block device",
        b"6": "pipe",
        b"M": "type",
    }
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for kind in kinds:
            info = tarfile.TarInfo(f"{kind.decode()}.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        for kind in (tarfile.DIRTYPE, b"V", b"D"):  # GNU tar's label of a volume, and a folder of an incremental backup
            info = tarfile.TarInfo("folder.jpg")
            info.type = kind
            tar.addfile(info)
    assets = read_tar(tmp_path, buffer.getvalue())
    assert [asset.data for asset in assets] == [None] * len(kinds)
    assert all(what in str(asset.note) for asset, what in zip(assets, kinds.values(), strict=True))


def linked_tar(*members: tuple[str, bytes | str]) -> bytes:
    """Return a tar of files, and of hard links to where text says."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            if isinstance(data, str):
                info.type, info.linkname = tarfile.LNKTYPE, data
                tar.addfile(info)
            else:
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize("compress", [bytes, gzip.compress, lzma.compress], ids=["plain", "gz", "xz"])
def test_tar_hard_links_are_other_names_of_earlier_members(tmp_path: Path, compress: Any) -> None:
    """Protects albums without duplicates: a link has its target's bytes, also one to a link, or to a name that came twice."""
    long = "folder/" * 30 + "long.jpg"
    data = linked_tar(
        ("./a.jpg", JPEG),
        (long, PNG * 500),
        ("./album/1.jpg", "./a.jpg"),
        ("./album/1.txt", b"caption"),
        ("album/2.jpg", long),
        ("album/3.jpg", "album/1.jpg"),
        ("a.jpg", PNG),
        ("album/4.jpg", "a.jpg"),
        ("album/5.jpg", "later.jpg"),
        ("later.jpg", JPEG),
    )
    assets = read_tar(tmp_path, compress(data))
    assert [(asset.key, asset.data) for asset in assets] == [
        ("a.jpg", JPEG),
        (long, PNG * 500),
        ("album/1.jpg", JPEG),
        ("album/2.jpg", PNG * 500),
        ("album/3.jpg", JPEG),
        ("a~2.jpg", PNG),
        ("album/5.jpg", None),  # told at once, the sample before it once that is whole
        ("album/4.jpg", PNG),
        ("later.jpg", JPEG),
    ]
    assert assets[2].sidecars == {"txt": b"caption"}
    assert "to later.jpg, which is no file before it" in str(assets[6].note)


def stamped(name: str, mode: int, modified: float, *, to: str | None = None) -> tarfile.TarInfo:
    """Return the header of a JPEG, or of a hard link ``to`` one."""
    info = tarfile.TarInfo(name)
    info.mode, info.mtime = mode, modified
    if to is None:
        info.size = len(JPEG)
    else:
        info.type, info.linkname = tarfile.LNKTYPE, to
    return info


def test_tar_members_have_their_times_and_modes(tmp_path: Path) -> None:
    """Protects dates and privacy: a sample is of its image's time, and for those who may read all of it; a link's header
    tells both, or its file's does; a mode that was left out is none, and a time that no disk can hold neither."""
    headers = (
        stamped("a.jpg", 0o640, 981_173_106),
        stamped("a.seg.jpg", 0o604, 5),
        stamped("b.jpg", 0o644, 0, to="a.jpg"),
        stamped("c.jpg", 0o600, 7, to="a.jpg"),
        stamped("d.jpg", 0, 8),
        stamped("e.jpg", 0o100755, 1e15),
    )
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for header in headers:
            tar.addfile(header, io.BytesIO(JPEG))
        caption = stamped("e.txt", 0o444, 9)
        caption.size = 1
        tar.addfile(caption, io.BytesIO(b"1"))
    assets = read_tar(tmp_path, buffer.getvalue())
    assert [(asset.key, asset.modified, asset.permissions) for asset in assets] == [
        ("a.jpg", 981_173_106, 0o640),
        ("a.seg.jpg", 5, 0o604),
        ("b.jpg", 981_173_106, 0o640),
        ("c.jpg", 7, 0o600),
        ("d.jpg", 8, None),
        ("e.jpg", None, 0o444),
    ]


def test_tars_joined_by_cat_are_read_to_their_end(tmp_path: Path) -> None:
    """Protects what stands behind an end mark where a header follows, whatever the tars were padded to."""
    full = tar_of([("a.jpg", JPEG), ("a.txt", b"1")])
    short = tar_of([("b.jpg", PNG)])[: 2 * 512 + 1024]
    last = linked_tar(("c.jpg", JPEG), ("d.jpg", "a.jpg"))
    for number, data in enumerate((full + short + last, gzip.compress(full) + gzip.compress(short + last))):
        assets = read_tar(tmp_path / str(number), data)
        assert [(asset.key, asset.data) for asset in assets] == list(
            zip(("a.jpg", "b.jpg", "c.jpg", "d.jpg"), (JPEG, PNG, JPEG, JPEG), strict=True)
        )
    assets, error = read_damaged(*shard_of(tmp_path / "x", ShardKind.TAR, {"x.tar": full + random.Random(1).randbytes(2048)}))
    assert keys(assets) == ["a.jpg"]
    assert "more follows" in str(error)


def test_tar_images_whose_names_have_dots_are_assets_of_their_own(tmp_path: Path) -> None:
    """Protects screenshots and versions: no image is another's sidecar, and each has the caption that begins like it."""
    members = [
        ("s/Shot 2024-05-01 at 10.20.30.png", PNG),
        ("s/Shot 2024-05-01 at 10.20.30.txt", b"first"),
        ("s/Shot 2024-05-01 at 10.21.07.png", JPEG),
        ("s/Shot 2024-05-01 at 10.21.07.txt", b"second"),
        ("s/track 2.0 (clean).jpg", JPEG),
        ("s/track 2.0 (raw).jpg", PNG),
        ("s/track 2.json", b"{}"),
    ]
    assert read_tar(tmp_path, tar_of(members)) == [
        Asset(key=members[0][0], data=PNG, sidecars={"20.30.txt": b"first"}),
        Asset(key=members[2][0], data=JPEG, sidecars={"21.07.txt": b"second"}),
        Asset(key=members[4][0], data=JPEG, sidecars={"json": b"{}"}),
        Asset(key=members[5][0], data=PNG),
    ]


def test_tar_images_are_told_by_their_first_bytes_where_names_do_not(tmp_path: Path) -> None:
    """Protects tars of blobs: an image without an extension, or with an odd one, is no failure."""
    members = [("blobs/c0ffee", JPEG), ("blobs/x.jpg_large", PNG), ("blobs/x.txt", b"1"), ("blobs/y", b"text"), ("z.svg", PNG)]
    assets = read_tar(tmp_path, tar_of(members))
    assert [(asset.key, asset.data) for asset in assets] == [
        ("blobs/c0ffee", JPEG),
        ("blobs/x.jpg_large", PNG),
        ("blobs/y", None),
        ("z.svg", None),
    ]
    assert assets[1].sidecars == {"txt": b"1"}


def test_tar_files_of_macos_are_no_assets(tmp_path: Path) -> None:
    """Protects samples of a tar made on macOS, where a ._ file stands before every member."""
    double = b"\0\5\x16\7\0\2\0\0Mac OS X"
    members = [("._x.jpg", double), ("x.jpg", JPEG), ("._x.txt", double), ("x.txt", b"1"), (".DS_Store", b"\0")]
    assert read_tar(tmp_path, tar_of(members)) == [Asset(key="x.jpg", data=JPEG, sidecars={"txt": b"1"})]
    assert keys(read_tar(tmp_path, tar_of([("._portrait.jpg", JPEG)]))) == ["._portrait.jpg"], "it is merely called so"


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress], ids=["gz", "bz2", "xz"])
def test_compressed_tars_are_read_whatever_their_name(tmp_path: Path, compress: Any) -> None:
    """Protects .tar.gz and its like, several streams in one file included, and the good assets of one that is cut."""
    data = tar_of([(f"{number}.jpg", random.Random(number).randbytes(100_000)) for number in range(8)])
    streams = b"".join(compress(data[start : start + 99_999]) for start in range(0, len(data), 99_999))
    assert len(read_tar(tmp_path, streams)) == 8
    store, shard = shard_of(tmp_path / "cut", ShardKind.TAR, {"x.tar": streams[: len(streams) // 2]})
    assets, error = read_damaged(store, shard)
    assert 2 <= len(assets) <= 4
    assert "x.tar is damaged" in str(error)
