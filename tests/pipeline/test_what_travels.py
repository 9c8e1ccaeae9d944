"""Nothing in a file is lost in silence: through a rescale and a restore each part is carried, kept with the file, or named."""

from __future__ import annotations

import json
import os
import struct
import tarfile
from dataclasses import fields
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from pipeline.archives.commits import decode_report, encode_report
from pipeline.archives.entries import source_bytes
from pipeline.core.options import OutputKind
from pipeline.core.reasons import reason_class
from pipeline.core.records import EntryKind, LrCodec, Stored, Tier
from pipeline.decoders import decoding
from pipeline.pictures import codecs, lr_codec
from tests.support import containers, pictures, workshop
from tests.support.containers import FILM, IPTC, chunk, segment
from tests.support.workshop import Rescaled, Sample

pytestmark = pytest.mark.slow

NAMED = containers.jpeg(segment(0xEB, b"JP\0\1" + bytes(20)))
CREDITS = containers.with_density(containers.jpeg(segment(0xED, IPTC), segment(0xFE, b"scan 117"), behind=FILM), 1, 300, 300)


def rescaled(folder: Path, files: dict[str, bytes], **settings: Any) -> Rescaled:
    """Rescale files into an archive."""
    source = workshop.as_folder(folder / "source", [Sample(key=key, data=data) for key, data in files.items()])
    return workshop.rescale(source, folder / "archive", **settings)


def shown(data: bytes) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return a file's pixels as a viewer that knows profiles shows them in sRGB."""
    if codecs.is_jxl(data):
        return lr_codec.decode_lr(data)[0].astype(int)
    with Image.open(BytesIO(data)) as image:
        pixels, icc = image.convert("RGB"), image.info.get("icc_profile")
    if icc is not None:
        pixels = ImageCms.profileToProfile(pixels, ImageCms.ImageCmsProfile(BytesIO(icc)), ImageCms.createProfile("sRGB"))
    return np.asarray(pixels).astype(int)


@pytest.mark.parametrize("tier", [Tier.LEAN, Tier.BALANCED, Tier.EXACT_PIXELS, Tier.EXACT])
def test_credits_and_films_travel(tmp_path: Path, tier: Tier) -> None:
    """Protects credits, comments, densities and the film of a motion photo, in every tier."""
    result = rescaled(tmp_path, {"a.jpg": CREDITS}, tier=tier)
    (entry,) = result.entries
    assert (entry.kind, entry.lost) == (EntryKind.RESCALED, ())
    assert not workshop.failures(workshop.restore(result, tmp_path / "back"))
    restored = (tmp_path / "back/a.jpg").read_bytes() if (tmp_path / "back/a.jpg").exists() else b""
    if tier is Tier.EXACT_PIXELS:  # which comes back as PNG where its pixels are what is kept
        assert restored in (b"", CREDITS)
        return
    assert IPTC in restored
    assert b"scan 117" in restored
    assert restored.endswith(FILM)
    assert restored[13:18] == CREDITS[13:18]


@pytest.mark.parametrize("tier", [tier for tier in Tier if tier is not Tier.EXACT])
def test_what_cannot_be_carried_is_kept(tmp_path: Path, tier: Tier) -> None:
    """Protects files with something that no restore could bring back: the file itself stands beside its LR, in every tier."""
    result = rescaled(tmp_path, {"a.jpg": NAMED}, tier=tier, max_ratio=1.0)
    (entry,) = result.entries
    assert (entry.kind, entry.tier, source_bytes(entry), entry.lost) == (EntryKind.RESCALED, Tier.EXACT, NAMED, ())
    assert "a restore would lack jumbf" in workshop.sentence(entry.reason or "")
    assert (entry.lr is not None, entry.latent) == (True, None)
    (report,) = result.reports
    assert (report.whole, dict(report.lost)) == (1, {})
    workshop.restore(result, tmp_path / "back")
    assert (tmp_path / "back/a.jpg").read_bytes() == NAMED
    assert not workshop.failures(workshop.verify(result))


@pytest.mark.parametrize("tier", [Tier.LEAN, Tier.BALANCED])
def test_without_keeping_it_is_named(tmp_path: Path, tier: Tier) -> None:
    """Protects whoever says --no-keep-if-lossy: what is gone is named in the entry and counted, again by the restore."""
    result = rescaled(tmp_path, {"a.jpg": NAMED, "b.jpg": CREDITS}, tier=tier, keep_if_lossy=False)
    first, second = result.entries
    assert (first.original, first.lost, second.lost) == (None, ("jumbf",), ())
    assert dict(result.reports[0].lost) == {"jumbf": 1}
    (report,) = workshop.restore(result, tmp_path / "back")
    assert (dict(report.lost), report.failures) == ({"jumbf": 1}, ())
    (report,) = workshop.restore(result, tmp_path / "web", format="webp")
    assert dict(report.lost) == {"jumbf": 1, "APP13": 1, "COM": 1, "JFIF": 1, "trailer": 1}


def test_a_format_that_falls_back_is_told(tmp_path: Path) -> None:
    """Protects whoever asked for a format: what is written as PNG instead is told entry by entry, and is no failure."""
    files = {"a.gif": containers.gif(), "b.png": workshop.picture(20, 30, channels=4), "c.png": workshop.picture(20, 30)}
    result = rescaled(tmp_path, files)
    (report,) = workshop.restore(result, tmp_path / "back")
    assert [(note.key, note.reason) for note in report.notes] == [("a.gif", "written as PNG: GIF is not written here")]
    (report,) = workshop.restore(result, tmp_path / "jpeg", format="jpeg")
    assert [note.key for note in report.notes] == ["b.png"]
    assert not report.failures


def test_what_is_not_written_as_asked_is_told(tmp_path: Path) -> None:
    """Protects whoever counts files: damaged ones stay as they are in any format, and a link in a tar is no file at all."""
    (tmp_path / "source").mkdir()
    with tarfile.open(tmp_path / "source" / "a.tar", "w") as tar:
        for name, data in (("sound.png", workshop.picture(20, 30)), ("damaged.jpg", b"no picture")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, BytesIO(data))
        info = tarfile.TarInfo("link.png")
        info.type, info.linkname = tarfile.SYMTYPE, "sound.png"
        tar.addfile(info)
    result = workshop.rescale(str(tmp_path / "source"), tmp_path / "archive")
    told = {"link.png": "written as no file: the tar holds a symbolic link here, not a file"}
    (report,) = workshop.restore(result, tmp_path / "back")
    assert {note.key: note.reason.partition(";")[0] for note in report.notes} == told
    (report,) = workshop.restore(result, tmp_path / "web", format="webp")
    told["damaged.jpg"] = "written as it is: cannot be decoded: it is in no picture format known here"
    assert {note.key: note.reason.partition(";")[0] for note in report.notes} == told
    assert workshop.written(tmp_path / "web").keys() == {"a/sound.webp", "a/damaged.jpg"}


def test_lossless_webp_comes_back_lossless(tmp_path: Path) -> None:
    """Protects WebPs that were without loss: what is restored of one is written without further loss, of a lossy one not."""
    files = {
        "lossy.webp": workshop.picture(40, 50, "WEBP", quality=80),
        "sharp.webp": workshop.picture(40, 50, "WEBP", lossless=True),
    }
    result = rescaled(tmp_path, files)
    assert [[part.name for part in entry.parts] for entry in result.entries] == [[], ["VP8L"]]
    workshop.restore(result, tmp_path / "back")
    workshop.restore(result, tmp_path / "png", format="png")
    same = {
        name: (workshop.shown((tmp_path / "back" / name).read_bytes()) == workshop.shown(data)).all()
        for name, data in ((key, (tmp_path / "png" / key.replace("webp", "png")).read_bytes()) for key in files)
    }
    assert same == {"lossy.webp": False, "sharp.webp": True}


@pytest.mark.parametrize("codec", [LrCodec.AUTO, LrCodec.WEBP, LrCodec.PNG, LrCodec.JXL])
def test_colours_in_numbers_are_in_the_lr(tmp_path: Path, codec: LrCodec) -> None:
    """Protects what LRs look like: wide and linear colours that a source tells in numbers are shown alike, in any codec."""
    wide = chunk(b"cICP", bytes((12, 13, 0, 1)))
    linear = chunk(b"gAMA", struct.pack(">I", 100_000))
    files = {
        "linear.png": containers.png(linear),
        "wide.avif": containers.avif(code_points=(12, 13)),
        "wide.png": containers.png(wide),
        "zplain.png": containers.png(),
    }
    result = rescaled(tmp_path, files, codec=codec, target=workshop.TargetSize(scale=(1, 1)))
    lrs = [shown(entry.lr or b"") for entry in result.entries]
    plain = lrs[3]
    assert [bool(np.abs(lr - plain).max() > 10) for lr in lrs] == [True, True, True, False]
    assert np.abs(lrs[1] - lrs[2]).mean() < 6  # the AVIF itself is lossy
    workshop.restore(result, tmp_path / "back")
    assert linear in (tmp_path / "back/linear.png").read_bytes()
    assert wide in (tmp_path / "back/wide.png").read_bytes()
    assert b"colrnclx\0\x0c\0\x0d" in (tmp_path / "back/wide.avif").read_bytes()
    workshop.restore(result, tmp_path / "jpeg", format="jpeg", quality=100)
    assert np.abs(shown((tmp_path / "jpeg/wide.png.jpg").read_bytes()) - lrs[2]).mean() < 12


def test_colour_that_is_no_colour_stays_grey(tmp_path: Path) -> None:
    """Protects line art and scans stored as RGB: LR and restore have equal channels, in every tier, and the file stays RGB."""
    drawing = np.repeat((np.random.default_rng(1).integers(0, 2, (40, 48, 1)) * 255).astype(np.uint8), 3, axis=2)
    for tier in (Tier.LEAN, Tier.BALANCED, Tier.EXACT_PIXELS):
        result = rescaled(tmp_path / tier, {"a.png": pictures.saved(drawing, "PNG")}, tier=tier)
        (entry,) = result.entries
        assert (entry.mode, entry.grey) == ("RGB", True)
        workshop.restore(result, tmp_path / tier / "back")
        with Image.open(tmp_path / tier / "back/a.png") as image:
            assert image.mode == "RGB"
        for data in (entry.lr or b"", (tmp_path / tier / "back/a.png").read_bytes()):
            pixels = workshop.shown(data).astype(int)
            assert np.ptp(pixels, axis=2).max() <= (2 if entry.lr_path == "a.avif" else 0)


@pytest.mark.parametrize("tier", [Tier.LEAN, Tier.BALANCED])
@pytest.mark.parametrize("surroundings", [0, 255])
def test_cutouts_have_no_halo(tmp_path: Path, tier: Tier, surroundings: int) -> None:
    """Protects cut-outs: their edges look alike over any ground, in the LR and at another size, whatever colour is hidden."""
    y, x = np.mgrid[:96, :96]
    alpha = np.clip((36 - np.hypot(y - 48, x - 48)) * 64 + 128, 0, 255).astype(np.uint8)
    pixels = np.where(alpha[..., None] > 0, np.uint8((200, 120, 40)), np.uint8(surroundings))
    result = rescaled(tmp_path, {"a.png": pictures.saved(np.dstack([pixels, alpha]), "PNG")}, tier=tier)
    workshop.restore(result, tmp_path / "back", max_side=32)
    files = {"resized": (tmp_path / "back/a.png").read_bytes()}
    if tier is Tier.BALANCED:  # the LR of this untrained network is no bicubic one
        files["lr"] = result.entries[0].lr or b""
    for name, data in files.items():
        found = workshop.shown(data, "RGBA").astype(float)
        shown_alpha = found[..., 3:] / 255
        edge = (shown_alpha[..., 0] > 0.1) & (shown_alpha[..., 0] < 0.9)
        error = np.abs((found[..., :3] - (200, 120, 40)) * shown_alpha)[edge]
        assert edge.sum() > 20
        if tier is Tier.BALANCED:
            assert error.mean() < 4, name


def test_an_archive_tells_what_is_lost(tmp_path: Path) -> None:
    """Protects summaries: a report says in JSON what it counted, and an older one that counted nothing is read."""
    result = rescaled(tmp_path, {"a.jpg": NAMED, "b.gif": containers.gif(comment=b"x")})
    (report,) = result.reports
    values = json.loads(encode_report(report))
    told = decode_report(values)
    assert (values["whole"], values["lost"], values["kept"]) == (2, {}, {"kept-whole": 2})
    assert all(getattr(told, each.name) == getattr(report, each.name) for each in fields(told))
    for name in ("whole", "lost", "notes"):
        del values[name]
    assert decode_report(values).whole == 0


def test_wrong_pixels_are_not_taken_as_good() -> None:
    """Protects against decoders: channels beyond the mode's are no colours, and the picture says that its file is more."""
    plain = decoding.decode(containers.psd(), pixel_limit=10**6)
    assert (plain.pixels.shape, plain.beyond) == ((40, 56, 3), None)
    for data in (containers.psd(channels=4), containers.psd(layers=bytes(4) + b"\0\0\0\4abcd")):
        picture = decoding.decode(data, pixel_limit=10**6)
        assert "further channels" in (picture.beyond or "")
        assert np.array_equal(picture.pixels, plain.pixels)


def test_times_and_modes_travel(tmp_path: Path) -> None:
    """Protects dates and privacy: a file comes back with its time, and readable to nobody whom the source kept out."""
    sample = Sample(key="a.png", data=workshop.picture(20, 30), sidecars={"txt": b"caption"})
    source = Path(workshop.as_folder(tmp_path / "source", [sample]))
    for name, mode in (("a.png", 0o640), ("a.txt", 0o604)):
        (source / name).chmod(mode)
        os.utime(source / name, (981_173_106, 981_173_106))
    result = workshop.rescale(str(source), tmp_path / "archive")
    workshop.restore(result, tmp_path / "back")
    for name in ("a.png", "a.txt"):
        found = (tmp_path / "back" / name).stat()
        assert (found.st_mtime, found.st_mode & 0o777) == (981_173_106, 0o600)
    workshop.restore(result, tmp_path / "tar", output=OutputKind.TAR)
    (packed,) = (tmp_path / "tar").glob("*.tar")
    with tarfile.open(packed) as tar:
        assert {(member.mtime, member.mode) for member in tar.getmembers()} == {(981_173_106, 0o600)}
    (tmp_path / "again").mkdir()
    packed.rename(tmp_path / "again/photos.tar")
    again = workshop.rescale(str(tmp_path / "again"), tmp_path / "second")
    assert [(entry.modified, entry.permissions) for entry in again.entries] == [(981_173_106, 0o600)]


def sixteen_bit_cmyk_psd() -> bytes:
    """Return a flat PSD of CMYK with 16 bits."""
    head = b"8BPS" + struct.pack(">H6xHIIHH", 1, 4, 4, 5, 16, 4)
    return head + bytes(12) + bytes(2) + bytes(4 * 4 * 5 * 2)


def bit_field_bmp() -> bytes:
    """Return a BMP of 4, 4, 4 and 4 bits."""
    info = struct.pack("<IiiHHIIiiII", 40, 2, 2, 1, 16, 3, 8, 0, 0, 0, 0)
    masks = struct.pack("<3I", 0x0F00, 0x00F0, 0x000F)
    return b"BM" + struct.pack("<IHHI", 14 + 40 + 12 + 8, 0, 0, 14 + 40 + 12) + info + masks + bytes(8)


def float_rgb_tiff() -> bytes:
    """Return a TIFF of three floating-point channels."""
    data = bytearray(pictures.tiff(4, 3, bits=32, samples=3, photometric=2, body=bytes(4 * 3 * 12)))
    at = data.index(struct.pack("<HHI", 284, 3, 1))  # the layout, which is the usual one, makes room for the sample format
    data[at : at + 12] = struct.pack("<HHII", 339, 3, 1, 3)
    return bytes(data)


@pytest.mark.parametrize(
    ("make", "words", "reason"),
    [
        (float_rgb_tiff, "floating-point", "beyond-restoring"),
        (sixteen_bit_cmyk_psd, "deep", "beyond-restoring"),
        (bit_field_bmp, "bit fields", "unsupported"),
    ],
)
def test_foreign_is_not_damaged(tmp_path: Path, make: Any, words: str, reason: str) -> None:
    """Protects the list of failures: sound files of rare kinds are kept with what they are, and fail nothing."""
    data = make()
    result = rescaled(tmp_path, {"a.jpg": data})
    (entry,) = result.entries
    assert (entry.stored, source_bytes(entry), result.failures) == (Stored.FILE, data, [])
    assert words in workshop.sentence(entry.reason or "")
    assert reason_class(entry.reason or "") == reason
    cut = rescaled(tmp_path / "cut", {"a.jpg": data[: len(data) // 2]})
    assert [reason_class(failure.reason) for failure in cut.failures] == ["undecodable"]


def test_a_picture_that_is_larger_inside_is_too_large(tmp_path: Path) -> None:
    """Protects memory, and the word for it: an icon with a huge picture inside is too large, not damaged."""
    inside = pictures.bomb(60_000, 60_000)
    icon = struct.pack("<3H", 0, 1, 1) + struct.pack("<4B2H2I", 16, 16, 0, 0, 1, 32, len(inside), 22) + inside
    result = rescaled(tmp_path, {"a.ico": icon})
    assert [reason_class(failure.reason) for failure in result.failures] == ["too-large"]
