"""The detail layer: it brings a restore closer, on any shape, and damage is refused, never decoded."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline import latent
from pipeline.errors import DamagedLatent
from pipeline.records import Pixels
from tests.pictures import photo

SAMPLES = sorted((Path(__file__).parent.parent / "samples").glob("*.jpg"))


def blurred(image: Pixels) -> Pixels:
    """Return an image halved and doubled by bicubic interpolation, as a stand-in for a restore."""
    height, width = image.shape[:2]
    picture = Image.fromarray(image)
    half = picture.resize((max(1, width // 2), max(1, height // 2)), Image.Resampling.BICUBIC)
    return np.asarray(half.resize((width, height), Image.Resampling.BICUBIC))


def error(image: Pixels, other: Pixels) -> float:
    return float(np.mean((image.astype(np.float64) - other) ** 2))


def resealed(stream: bytes, position: int, value: bytes) -> bytes:
    """Return a stream with other bytes and a right check sum, as only a writer with a fault makes it."""
    body = stream[:position] + value + stream[position + len(value) : -4]
    return body + struct.pack(">I", zlib.crc32(body))


@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    tile=st.sampled_from([1, 8, 33, 64, 2048]),
    seed=st.integers(0, 99),
)
def test_any_size_comes_back_no_further_from_the_image(height: int, width: int, tile: int, seed: int) -> None:
    """Protects odd sizes, one pixel wide ones, tiles that do not divide them, and the law that a latent never harms."""
    if tile == 1:
        height, width = height % 5 + 1, width % 5 + 1
    image = photo(height, width, seed=seed)
    restored = blurred(image)
    stream = latent.encode(image, restored, tile=tile)
    applied = latent.apply(stream, restored)
    assert applied.shape == image.shape
    assert applied.dtype == np.uint8
    assert error(image, applied) <= error(image, restored)
    assert stream == latent.encode(image, restored, tile=tile)


@given(spread=st.integers(0, 255), seed=st.integers(0, 99))
def test_noise_of_any_strength_is_never_made_worse(spread: int, seed: int) -> None:
    """Protects the law where a lossy coding is most likely to break it, and differences beyond eight bits."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (24, 40, 3)).astype(np.uint8)
    noise = rng.integers(-spread, spread + 1, image.shape)
    restored = np.clip(image + noise, 0, 255).astype(np.uint8)
    assert error(image, latent.apply(latent.encode(image, restored), restored)) <= error(image, restored)


def test_a_perfect_restore_needs_no_bytes() -> None:
    """Protects the size of entries whose restore is exact already."""
    image = photo(100, 130)
    stream = latent.encode(image, image, tile=64)
    assert len(stream) == 25 + 6 * 4
    assert (latent.apply(stream, image) == image).all()


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_photographs_gain_decibels(path: Path) -> None:
    """Protects what the latent is for: on real photographs the restore comes to 37 dB and more."""
    with Image.open(path) as picture:
        image = np.asarray(picture.convert("RGB"))[:500, :700]
    restored = blurred(image)
    stream = latent.encode(image, restored, tile=256)
    after = 10 * np.log10(255**2 / error(image, latent.apply(stream, restored)))
    before = 10 * np.log10(255**2 / error(image, restored))
    assert after > max(37, before + 5)
    assert len(stream) * 8 < 3 * 500 * 700


def test_every_flipped_byte_and_every_truncation_is_refused() -> None:
    """Protects against decoding damage to garbage that looks like a picture."""
    image = photo(40, 50)
    restored = blurred(image)
    stream = latent.encode(image, restored, tile=32)
    for position in range(len(stream)):
        damaged = bytearray(stream)
        damaged[position] ^= 1 << position % 8
        with pytest.raises(DamagedLatent):
            latent.apply(bytes(damaged), restored)
    for length in range(len(stream)):
        with pytest.raises(DamagedLatent):
            latent.apply(stream[:length], restored)
    with pytest.raises(DamagedLatent):
        latent.apply(stream + b"\0", restored)


def test_streams_that_are_none_are_refused() -> None:
    """Protects the sentences for other data, another version, and streams that a faulty writer sealed."""
    image = photo(40, 50)
    stream = latent.encode(image, blurred(image), tile=32)
    cases = {
        "does not begin as one": b"\xff\xd8\xff\xe0" + bytes(100),
        "version 2": resealed(stream, 4, b"\x02"),
        "no tiles of 0 pixels": resealed(stream, 13, bytes(4)),
        "no tiles of 1 pixels": resealed(stream, 13, struct.pack(">I", 1)),
        "its tiles have": resealed(stream, 21, struct.pack(">I", 1)),
        "JPEG XL": resealed(stream, 21 + 4 * 4, bytes(8)),
    }
    for sentence, data in cases.items():
        with pytest.raises(DamagedLatent, match=sentence):
            latent.apply(data, image)
    turned = resealed(latent.encode(image, blurred(image), tile=64), 5, struct.pack(">II", 50, 40))
    with pytest.raises(DamagedLatent, match="a tile is"):
        latent.apply(turned, photo(50, 40))


def test_other_shapes_are_refused() -> None:
    """Protects against adding a detail layer to a picture that it is not of."""
    image = photo(20, 30)
    stream = latent.encode(image, blurred(image))
    with pytest.raises(ValueError, match="30 x 20 pixels, the restore has 20 x 30"):
        latent.apply(stream, photo(30, 20))
    with pytest.raises(ValueError, match="both must have one shape"):
        latent.encode(image, photo(20, 31))
    for wrong in (image[..., 0], image.astype(np.float32), image[:0]):
        with pytest.raises(ValueError, match="was expected"):
            latent.encode(wrong, wrong)


def test_memory_is_a_few_tiles_beyond_the_pixels() -> None:
    """Protects images of 100 megapixels: what is allocated does not grow with the image."""
    image = np.tile(photo(128, 128), (8, 8, 1))
    restored = np.tile(blurred(photo(128, 128)), (8, 8, 1))
    tracemalloc.start()
    stream = latent.encode(image, restored, tile=64)
    _, peak_encode = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    latent.apply(stream, restored)
    _, peak_apply = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_encode < 0.2 * image.nbytes + 3 * len(stream)
    assert peak_apply < 1.2 * image.nbytes + 2 * len(stream)
