"""Headers of deep and rare pictures that tell more than there is: refused before memory is taken for it, or kept."""

from __future__ import annotations

import resource
import struct
from contextlib import suppress

import imagecodecs
import pytest

from pipeline.core.errors import ImageTooLarge, UndecodableImage, UnsupportedImage
from pipeline.decoders import decoding
from tests.support.pictures import decoded, jpeg2000, photo, srgb_profile
from tests.support.richer import deep, richer

LIMIT = 512_000_000
LARGE = (60_000, 60_000)
WITHIN = (22_000, 22_000)
SAMPLES = deep(photo(40, 50))
DEEP = {
    "JP2": bytes(imagecodecs.jpeg2k_encode(SAMPLES, level=0)),
    "JP2 with a profile": jpeg2000(SAMPLES, srgb_profile()),
    "codestream": bytes(imagecodecs.jpeg2k_encode(SAMPLES, level=0, codecformat="J2K")),
    "12-bit JP2": richer()["12-bit JPEG 2000"].data,
}


def in_codestream(data: bytes, width: int, height: int) -> bytes:
    """Return a JPEG 2000 whose codestream, and its one tile, tell another size (ISO/IEC 15444-1, A.5.1)."""
    at = data.index(b"\xff\x4f\xff\x51") + 8
    return data[:at] + struct.pack(">8I", width, height, 0, 0, width, height, 0, 0) + data[at + 32 :]


def in_box(data: bytes, width: int, height: int) -> bytes:
    """Return a JP2 whose header box tells another size (I.5.3.1)."""
    at = data.index(b"ihdr") + 4
    return data[:at] + struct.pack(">II", height, width) + data[at + 8 :]


@pytest.mark.parametrize("what", DEEP)
def test_the_codestream_tells_the_size_that_counts(what: str) -> None:
    """Protects memory: 60,000 x 60,000 pixels are too many, also where the box around them tells few."""
    forged = in_codestream(DEEP[what], *LARGE)
    with pytest.raises(ImageTooLarge):
        decoding.decode(forged, pixel_limit=LIMIT)
    if b"ihdr" in forged:
        with pytest.raises(ImageTooLarge):
            decoding.decode(in_box(forged, *LARGE), pixel_limit=LIMIT)


@pytest.mark.parametrize("what", DEEP)
def test_a_size_with_nothing_behind_it_takes_little(what: str) -> None:
    """Protects memory: of 484 million pixels, which are admitted, none is there, and none is made."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    forged = in_codestream(DEEP[what], *WITHIN)
    for data in (forged, in_box(forged, *WITHIN) if b"ihdr" in forged else forged):
        with pytest.raises(UndecodableImage):
            decoding.decode(data[:-400], pixel_limit=LIMIT)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000


@pytest.mark.parametrize("what", DEEP)
def test_components_without_number_are_refused(what: str) -> None:
    """Protects memory: 16,384 components would take as many times that of one."""
    data = DEEP[what]
    at = data.index(b"\xff\x4f\xff\x51") + 4
    size = struct.pack(">H", 38 + 3 * 16384) + data[at + 2 : at + 36] + struct.pack(">H", 16384) + b"\x0f\1\1" * 16384
    with pytest.raises((UndecodableImage, UnsupportedImage)):
        decoding.decode(data[:at] + size + data[at + 47 :], pixel_limit=LIMIT)


@pytest.mark.parametrize("what", DEEP)
def test_a_file_without_a_size_is_refused(what: str) -> None:
    """Protects jobs from codestreams that begin otherwise, end in their header, or tell a size below zero."""
    data = DEEP[what]
    at = data.index(b"\xff\x4f\xff\x51")
    for harmed in (data[: at + 20], data[: at + 45], data[:at] + b"\xff\x4f\xff\x52" + data[at + 4 :]):
        with pytest.raises((UndecodableImage, UnsupportedImage)):
            decoded(harmed)
    backwards = data[: at + 16] + struct.pack(">2I", 60, 60) + data[at + 24 :]
    with suppress(UndecodableImage, UnsupportedImage):
        decoded(backwards)


@pytest.mark.parametrize(("kind", "channels"), [(b"P5", 1), (b"P6", 3)])
def test_a_deep_pnm_has_the_samples_that_it_tells(kind: bytes, channels: int) -> None:
    """Protects memory from headers alone, and pictures from samples that are missing."""
    with pytest.raises(ImageTooLarge):
        decoding.decode(b"%s %d %d 65535\n" % (kind, *LARGE), pixel_limit=LIMIT)
    for size in (WITHIN, (7, 6)):
        with pytest.raises(UndecodableImage):
            decoding.decode(b"%s %d %d 65535\n" % (kind, *size) + bytes(2 * 41 * channels), pixel_limit=LIMIT)
    whole = decoded(b"%s 7 6 65535\n" % kind + bytes(2 * 42 * channels))
    assert (whole.bits, whole.pixels.shape) == (16, (6, 7, 3))
