"""Files of 16 bits a channel: read and written with every bit and all that stands beside the pixels."""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
import zlib
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.core.errors import ImageError
from pipeline.core.records import Pixels
from pipeline.pictures import writing
from pipeline.pictures.depth import in_8_bits
from pipeline.pictures.picture import Picture
from tests.support import pictures
from tests.support.pictures import decoded, photo
from tests.support.richer import deep, richer

CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"


def picture(mode: str, *, size: tuple[int, int] = (37, 53), orientation: int = 1) -> Picture:
    """Return a deep picture of a mode with a profile, EXIF and XMP."""
    samples = deep(photo(*size, 4, seed=5))
    grey = mode in ("L", "LA")
    return Picture(
        pixels=np.repeat(samples[..., :1], 3, axis=2) if grey else samples[..., :3],
        alpha=samples[..., 3] if mode.endswith("A") else None,
        grey=grey,
        orientation=orientation,
        mode=mode,
        format="PNG",
        icc=pictures.grey_profile() if grey else pictures.srgb_profile(),
        exif=pictures.exif(orientation),
        xmp=XMP,
    )


def png_samples(data: bytes) -> NDArray[np.uint16]:
    """Return the samples (H, W, C) of a PNG of 16 bits that is not interlaced (W3C PNG, 9.2): no library of ours."""
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    assert (depth, interlaced) == (16, 0)
    channels = {0: 1, 4: 2, 2: 3, 6: 4}[colour]
    packed, at = b"", 8
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        assert zlib.crc32(data[at + 4 : at + 8 + length]) == struct.unpack_from(">I", data, at + 8 + length)[0]
        packed += data[at + 8 : at + 8 + length] if kind == b"IDAT" else b""
        at += 12 + length
    step, stride = 2 * channels, 2 * channels * width
    lines, before = bytearray(zlib.decompress(packed)), bytearray(stride)
    rows = []
    for row in range(height):
        how, line = lines[row * (stride + 1)], lines[row * (stride + 1) + 1 : (row + 1) * (stride + 1)]
        for index in range(stride):
            left, corner = (line[index - step], before[index - step]) if index >= step else (0, 0)
            above, guess = before[index], left + before[index] - corner
            nearest = min((left, above, corner), key=lambda each: abs(guess - each))
            line[index] = (line[index] + (0, left, above, (left + above) // 2, nearest)[how]) % 256
        rows.append(before := line)
    return np.frombuffer(b"".join(rows), ">u2").reshape(height, width, channels).astype(np.uint16)


def tiff_samples(data: bytes) -> NDArray[np.uint16]:
    """Return the samples (H, W, C) of a TIFF, as libtiff reads them, which does not write ours."""
    samples: NDArray[np.uint16] = np.asarray(imagecodecs.tiff_decode(data, index=0))
    return samples.reshape(*samples.shape[:2], -1)


def pnm_samples(data: bytes) -> NDArray[np.uint16]:
    """Return the samples (H, W, C) of a binary PGM or PPM of 16 bits (Netpbm, pgm(5)): no library of ours."""
    kind, size, most, body = data.split(b"\n", 3)
    assert most == b"65535"
    width, height = map(int, size.split())
    return np.frombuffer(body, ">u2").reshape(height, width, {b"P5": 1, b"P6": 3}[kind]).astype(np.uint16)


def jpeg2000_samples(data: bytes) -> NDArray[np.uint16]:
    """Return the samples (H, W, C) of a JPEG 2000, as opj_decompress reads them, or where it is missing its library."""
    program = shutil.which("opj_decompress")
    if program is None:
        samples: NDArray[np.uint16] = np.asarray(imagecodecs.jpeg2k_decode(data))
        return samples.reshape(*samples.shape[:2], -1)
    with TemporaryDirectory() as folder:
        source, found = Path(folder, "a.jp2"), Path(folder, "a.tif")
        source.write_bytes(data)
        subprocess.run([program, "-i", source, "-o", found], check=True, capture_output=True)
        return tiff_samples(found.read_bytes())


JUDGES = {"PNG": png_samples, "TIFF": tiff_samples, "PPM": pnm_samples, "JPEG2000": jpeg2000_samples}
WITH_METADATA = ("PNG", "TIFF")
WRITTEN = [(format, mode) for format in JUDGES for mode in CHANNELS if format != "PPM" or mode in ("L", "RGB")]


@pytest.mark.parametrize(("format", "mode"), WRITTEN)
def test_every_bit_is_written(format: str, mode: str) -> None:
    """Protects whoever opens a restored file with another program: its samples are the picture's, in as many channels."""
    wanted = picture(mode)
    samples = JUDGES[format](writing.encode(wanted, format=format, quality=1))
    assert (samples.dtype, samples.shape) == (np.uint16, (37, 53, CHANNELS[mode]))
    assert np.array_equal(samples[..., 0], wanted.pixels[..., 0])
    assert np.array_equal(samples[..., : CHANNELS[mode] // 3 * 3], wanted.pixels[..., : CHANNELS[mode] // 3 * 3])
    if wanted.alpha is not None:
        assert np.array_equal(samples[..., -1], wanted.alpha)


@pytest.mark.parametrize(("format", "mode"), [each for each in WRITTEN if each[0] not in WITH_METADATA])
def test_what_is_written_is_read(format: str, mode: str) -> None:
    """Protects exact restores: a written file reads as the picture that it was, its alpha too, and lacks nothing."""
    wanted = replace(picture(mode), format=format, icc=None, exif=None, xmp=None)
    found = decoded(writing.encode(wanted, format=format, quality=1))
    assert (found.bits, found.mode, found.format, found.grey) == (16, mode, format, wanted.grey)
    assert (found.beyond, found.lost, found.parts) == (None, (), ())
    assert np.array_equal(found.pixels, wanted.pixels)
    assert np.array_equal(found.alpha, wanted.alpha) if wanted.alpha is not None else found.alpha is None


@pytest.mark.parametrize("format", WITH_METADATA)
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("orientation", [1, 6, 7])
def test_what_stands_beside_the_pixels_is_written_and_read(format: str, mode: str, orientation: int) -> None:
    """Protects profile, EXIF, XMP and the side that is up: a written file reads as the picture that it was, and whole."""
    wanted = replace(picture(mode, orientation=orientation), format=format)
    data = writing.encode(wanted, format=format, quality=1)
    found = decoded(data)
    assert (found.bits, found.mode, found.format, found.grey) == (16, mode, format, mode == "L")
    assert (found.icc, found.exif, found.xmp, found.orientation) == (wanted.icc, wanted.exif, wanted.xmp, orientation)
    assert (found.beyond, found.lost, found.parts) == (None, (), ())
    assert np.array_equal(found.pixels, wanted.pixels)
    assert np.array_equal(found.alpha, wanted.alpha) if wanted.alpha is not None else found.alpha is None
    with Image.open(BytesIO(data)) as image:
        image.load()
        assert image.info["icc_profile"] == wanted.icc


@pytest.mark.slow
@pytest.mark.parametrize("size", [(1, 1), (1, 70), (400, 331)])
def test_any_size_is_written(size: tuple[int, int]) -> None:
    """Protects strips: one pixel, one row, and more rows than a strip has; and restores that are to be the same each time."""
    wanted = picture("RGB", size=size)
    for format in JUDGES:
        data = writing.encode(wanted, format=format, quality=1)
        assert np.array_equal(decoded(data).pixels, wanted.pixels)
        assert writing.encode(wanted, format=format, quality=1) == data


def test_parts_are_carried_into_a_file_of_the_same_format() -> None:
    """Protects chunks and tags beside 16-bit pixels, those that hang on depth and colour type too."""
    shades = ((b"sBIT", b"\x0c\x0c\x0c"), (b"bKGD", bytes(6)), (b"pHYs", struct.pack(">IIB", 100, 100, 1)))
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep(photo(9, 8)))
    source = decoded(pictures.png(8, 9, depth=16, colour=2, rows=rows, chunks=shades))
    assert (source.bits, source.lost) == (16, ())
    back = writing.encode(source, format="PNG", quality=1)
    assert [part.name for part in decoded(back).parts] == ["sBIT", "bKGD", "pHYs"]
    assert np.array_equal(png_samples(back), source.pixels)
    tagged = Image.Exif()
    tagged[42112], tagged[270] = "<GDALMetadata/>", "a scan"
    plane = deep(photo(9, 8, 1))
    scan = decoded(pictures.saved(Image.fromarray(plane), "TIFF", exif=tagged))
    again = decoded(writing.encode(scan, format="TIFF", quality=1))
    assert [part.name for part in scan.parts if part.name == "tag-42112"] == ["tag-42112"]
    assert (again.parts, again.exif, again.lost) == (scan.parts, scan.exif, ())
    assert np.array_equal(again.pixels[..., 0], plane)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_jpeg_2000_says_which_channel_is_alpha(mode: str) -> None:
    """Protects cut-outs from viewers that take a channel for alpha only where it is called so (ISO/IEC 15444-1, I.5.3.6), as
    an 8-bit file says it."""

    def told(pixels: Pixels) -> bytes:
        data = writing.encode(replace(picture(mode), pixels=pixels, alpha=pixels[..., 0]), format="JPEG2000", quality=1)
        at = data.index(b"cdef") - 4
        return data[at : at + int.from_bytes(data[at : at + 4], "big")]

    assert told(picture(mode).pixels) == told(in_8_bits(picture(mode).pixels))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_a_channel_that_is_not_called_straight_alpha_keeps_its_file(mode: str) -> None:
    """Protects JPEG 2000 of premultiplied alpha, of alpha to one colour, and of a fourth colour or a mask: only what is called
    straight alpha of the whole picture (ISO/IEC 15444-1, I.5.3.6) is rescaled in place of its file."""
    wanted = replace(picture(mode), format="JPEG2000")
    data = writing.encode(wanted, format="JPEG2000", quality=1)
    assert decoded(data).beyond is None
    channels = CHANNELS[mode]
    straight, at = struct.pack(">HHH", channels - 1, 1, 0), data.index(b"cdef")
    others = [struct.pack(">HHH", channels - 1, kind, whose) for kind, whose in ((2, 0), (1, 1), (0, channels), (65535, 65535))]
    swapped = data.replace(struct.pack(">HHH", 0, 0, 1), struct.pack(">HHH", 0, 0, 2))
    untold, bare = data[:at] + b"free" + data[at + 4 :], data[data.index(b"jp2c") + 4 :]
    for other in (*(data.replace(straight, each) for each in others), swapped, untold, bare):
        assert other != data
        found = decoded(other)
        assert (found.beyond, found.bits) == ("it has 16 bits per channel", 8)


def test_a_deep_jpeg_2000_codestream_is_read_as_one_of_8_bits_is() -> None:
    """Protects codestreams without boxes: their samples are read, and what is written again would lack their form."""
    samples = deep(photo(24, 31, 3))
    found = decoded(bytes(imagecodecs.jpeg2k_encode(samples, level=0, codecformat="J2K")))
    shallow = decoded(pictures.saved(in_8_bits(samples), "JPEG2000", no_jp2=True))
    assert (found.bits, found.lost, found.beyond) == (16, shallow.lost, None)
    assert found.lost == ("codestream",)
    assert np.array_equal(found.pixels, samples)


def test_a_deep_jpeg_2000_keeps_the_numbers_of_its_colours() -> None:
    """Protects colours told by a profile: the numbers are the file's, and the profile travels beside them, as in 8 bits."""
    samples, profile = deep(photo(24, 31)), pictures.swapped_profile()
    found = decoded(pictures.jpeg2000(samples, profile))
    assert (found.bits, found.icc, found.lost) == (16, profile, ("colours",))
    assert np.array_equal(found.pixels, samples)


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "AVIF", "BMP", "TGA"])
def test_other_formats_have_8_bits_and_say_so(format: str) -> None:
    """Protects `--format`: what has no room for 16 bits gets the nearest 8, and lacks depth by name."""
    wanted = picture("RGB")
    found = decoded(writing.encode(wanted, format=format, quality=100))
    assert found.bits == 8
    assert "depth" in writing.lacking(wanted, format)
    if format not in ("JPEG", "AVIF"):
        assert np.array_equal(found.pixels, in_8_bits(wanted.pixels))
    assert all("depth" not in writing.lacking(wanted, each) for each in JUDGES)
    assert "depth" not in writing.lacking(replace(wanted, pixels=in_8_bits(wanted.pixels)), format)


def test_a_tiff_of_4_gib_is_refused_and_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects offsets, which have 32 bits: what they cannot reach is told, and written as PNG instead."""
    monkeypatch.setattr("pipeline.containers.tiff._MOST_BYTES", 1000)
    with pytest.raises(writing.UnwritableImage, match="4 GiB"):
        writing.encode(picture("RGB"), format="TIFF", quality=1)


def test_samples_are_read_as_they_are_stored() -> None:
    """Protects deep sources, in any layout: strips, planes and tiles, either order of bytes, white as zero, alpha."""
    for what, rich in richer().items():
        if rich.why is None:
            found = decoded(rich.data).pixels
            wanted = deep(rich.shown[..., 0])[..., None] if "grey" in what else deep(rich.shown)
            assert np.array_equal(found, np.broadcast_to(wanted, found.shape)), what
    plane: Pixels = deep(photo(20, 30, 1))
    swapped = Image.fromarray(plane.astype(">u2").view(np.uint8).view(">u2").astype(np.uint16))
    assert np.array_equal(decoded(pictures.saved(swapped, "TIFF", big_endian=True)).pixels[..., 0], plane)
    body = (65535 - plane).astype("<u2").tobytes()
    inverted = decoded(pictures.tiff(30, 20, bits=16, samples=1, photometric=0, body=body))
    assert (inverted.bits, inverted.grey) == (16, True)
    assert np.array_equal(inverted.pixels[..., 1], plane)


@pytest.mark.parametrize("format", JUDGES)
def test_damage_is_told_or_borne(format: str) -> None:
    """Protects workers from deep files that are cut off or harmed anywhere: a picture or an ImageError, never another error."""
    wanted = picture("RGB" if format == "PPM" else "RGBA")
    data, rng = writing.encode(wanted, format=format, quality=1), random.Random(1)
    for harmed in (*(data[: len(data) * part // 20] for part in range(20)), *(pictures.harmed(data, rng) for _ in range(150))):
        try:
            found = decoded(harmed)
        except ImageError:
            continue
        assert found.pixels.dtype in (np.uint8, np.uint16)
        assert found.alpha is None or found.alpha.dtype == found.pixels.dtype
