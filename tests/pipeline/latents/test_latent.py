"""The detail layer: it brings a restore closer, on any shape, and damage is refused, never decoded."""

from __future__ import annotations

import math
import struct
import tracemalloc
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.core.errors import DamagedLatent
from pipeline.core.records import Pixels, Size
from pipeline.latents import latent, layout
from pipeline.latents.coefficients import FRACTION
from tests.support.latents import INDEX, resealed, sealed
from tests.support.pictures import photo

encode = partial(latent.encode, step=15 * FRACTION)


@pytest.fixture(autouse=True, scope="module")
def small_tiles() -> Iterator[None]:
    """Let tiles be small, so that small pictures have many of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "LEAST_TILE", 1)
        yield


SAMPLES = sorted((Path(__file__).parents[3] / "samples").glob("*.jpg"))


def blurred(image: Pixels) -> Pixels:
    """Return an image halved and doubled by bicubic interpolation, as a stand-in for a restore."""
    height, width = image.shape[:2]
    picture = Image.fromarray(image)
    half = picture.resize((max(1, width // 2), max(1, height // 2)), Image.Resampling.BICUBIC)
    return np.asarray(half.resize((width, height), Image.Resampling.BICUBIC))


def error(image: Pixels, other: Pixels) -> float:
    return float(np.mean((image.astype(np.float64) - other) ** 2))


@pytest.mark.slow
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    tile=st.sampled_from([1, 8, 33, 64, 1024]),
    seed=st.integers(0, 99),
)
def test_any_size_comes_back_no_further_from_the_image(height: int, width: int, tile: int, seed: int) -> None:
    """Protects odd sizes, one pixel wide ones, tiles that do not divide them, and the law that a latent never harms."""
    if tile == 1:
        height, width = height % 5 + 1, width % 5 + 1
    image = photo(height, width, seed=seed)
    restored = blurred(image)
    stream = encode(image, restored, tile=tile)
    applied = latent.apply(stream, restored)
    assert applied.shape == image.shape
    assert applied.dtype == np.uint8
    assert error(image, applied) <= error(image, restored)
    assert stream == encode(image, restored, tile=tile)


@pytest.mark.slow
@given(spread=st.integers(0, 255), seed=st.integers(0, 99))
def test_noise_of_any_strength_is_never_made_worse(spread: int, seed: int) -> None:
    """Protects the law where a lossy coding is most likely to break it, and differences beyond eight bits."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (24, 40, 3)).astype(np.uint8)
    noise = rng.integers(-spread, spread + 1, image.shape)
    restored = np.clip(image + noise, 0, 255).astype(np.uint8)
    assert error(image, latent.apply(encode(image, restored), restored)) <= error(image, restored)


@pytest.mark.slow
@given(
    tile=st.sampled_from([8, 33, 64, 1024]), edges=st.lists(st.integers(0, 70), min_size=4, max_size=4), seed=st.integers(0, 9)
)
def test_a_window_is_that_part_of_the_whole(tile: int, edges: list[int], seed: int) -> None:
    """Protects regions: applied to a part of the restore, a latent gives what it gives there on the whole."""
    (top, bottom), (left, right) = sorted(edges[:2]), sorted(edges[2:])
    image = photo(71, 75, seed=seed)
    restored = blurred(image)
    stream = encode(image, restored, tile=tile)
    window = slice(top, bottom + 1), slice(left, right + 1)
    assert (latent.apply(stream, restored[window], window) == latent.apply(stream, restored)[window]).all()


def test_a_window_decodes_the_tiles_that_it_touches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the cost of regions: tiles elsewhere are not decoded, and a window that is not in the image is refused."""
    image = np.random.default_rng(0).integers(0, 256, (100, 130, 3), np.uint8)  # no tile of it is left out
    restored = blurred(image)
    stream = encode(image, restored, tile=32)
    decoded: list[Size] = []
    decode = latent._decode_tile
    monkeypatch.setattr(
        latent, "_decode_tile", lambda payload, size, version: decoded.append(size) or decode(payload, size, version)
    )
    for window, count in {(32, 64, 64, 96): 1, (31, 64, 64, 97): 4, (99, 100, 0, 130): 5, (0, 100, 0, 130): 20}.items():
        decoded.clear()
        rows, columns = slice(*window[:2]), slice(*window[2:])
        latent.apply(stream, restored[rows, columns], (rows, columns))
        assert len(decoded) == count
    with pytest.raises(ValueError, match="130 x 100"):
        latent.apply(stream, restored[:50], (slice(51, 101), slice(0, 130)))


def test_a_perfect_restore_needs_no_bytes() -> None:
    """Protects the size of entries whose restore is exact already."""
    image = photo(100, 130)
    stream = encode(image, image, tile=64)
    assert len(stream) == 23 + 6 * 8
    assert (latent.apply(stream, image) == image).all()


@pytest.mark.slow
@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_photographs_gain_decibels(path: Path) -> None:
    """Protects what the latent is for: on real photographs the restore comes to 37 dB and more."""
    with Image.open(path) as picture:
        image = np.asarray(picture.convert("RGB"))[:500, :700]
    restored = blurred(image)
    stream = encode(image, restored, tile=256)
    after = 10 * np.log10(255**2 / error(image, latent.apply(stream, restored)))
    before = 10 * np.log10(255**2 / error(image, restored))
    assert after > max(37, before + 5)
    assert len(stream) * 8 < 3 * 500 * 700


def test_every_flipped_byte_and_every_truncation_is_refused() -> None:
    """Protects against decoding damage to garbage that looks like a picture."""
    image = photo(40, 50)
    restored = blurred(image)
    stream = encode(image, restored, tile=32)
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


@pytest.mark.slow
def test_ten_thousand_random_damages_are_refused() -> None:
    """Protects against bursts, overwritten blocks and swapped parts, which single flips do not show."""
    image = photo(40, 50)
    restored = blurred(image)
    stream = encode(image, restored, tile=32)
    rng = np.random.default_rng(0)
    for _ in range(10_000):
        damaged = bytearray(stream)
        start, length = int(rng.integers(len(stream))), int(rng.integers(1, 64))
        part = rng.bytes(min(length, len(stream) - start))
        if rng.random() < 0.3:
            damaged[start:start] = part
        else:
            damaged[start : start + len(part)] = part
        if damaged != stream:
            with pytest.raises(DamagedLatent):
                latent.apply(bytes(damaged), restored)


@pytest.mark.parametrize("floor", [34.0, 40.0, 46.0])
def test_a_floor_is_reached_by_the_coarsest_latent(floor: float) -> None:
    """Protects `--floor`: what is found reaches it, and no more than a tenth of a decibel above, and few are tried."""
    with Image.open(SAMPLES[0]) as picture:
        image = np.asarray(picture.convert("RGB"))[300:500, 300:560]
    restored = blurred(image)
    tried: list[Pixels] = []

    def decibels(result: Pixels) -> float:
        tried.append(result)
        return float(10 * np.log10(255**2 / error(image, result)))

    found = latent.encode_to_floor(image, restored, decibels, floor, usual=40.0)
    assert found is not None
    stream, result = found
    assert (latent.apply(stream, restored) == result).all()
    assert decibels(result) >= floor
    assert decibels(result) < floor + 0.1
    assert len(tried) <= 1 + latent.TRIALS + 2


def test_a_floor_out_of_reach_has_no_latent() -> None:
    """Protects what is told of a floor that no latent reaches: nothing is stored that claims it."""
    image = np.random.default_rng(1).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    found = latent.encode_to_floor(image, blurred(image), lambda result: -error(image, result), 0.1, usual=-10.0)
    assert found is None


def test_a_floor_that_the_restore_reaches_takes_no_trial() -> None:
    """Protects bytes: a restore that is close enough has a latent of no tiles."""
    image = photo(40, 50)
    restored = blurred(image)
    found = latent.encode_to_floor(image, restored, lambda _: 50.0, 1.0, usual=40.0)
    assert found is not None
    assert len(found[0]) == 23 + 8
    assert (latent.apply(found[0], restored) == restored).all()


@given(
    slope=st.floats(1, 10),  # beyond it one step to the next is half a decibel
    start=st.floats(20, 100),
    floor=st.floats(1, 99),
    usual=st.floats(0, 60),
    jitter=st.floats(0, 0.05),
)
def test_a_search_ends_at_a_step_that_reaches(slope: float, start: float, floor: float, usual: float, jitter: float) -> None:
    """Protects floors on any picture: whatever the slope, the search ends, in few trials, close above the floor."""
    tried: list[int] = []

    def decibels(step: int) -> float:
        tried.append(step)
        return start - slope * math.log2(step / FRACTION) + jitter * math.sin(step)

    found = latent.search_step(decibels, floor, usual=usual)
    trials = len(tried)
    finest, coarsest = decibels(latent.FINEST_STEP), decibels(latent.COARSEST_STEP)
    assert trials <= latent.TRIALS + 1
    if found is None:
        assert finest < floor
    else:
        assert decibels(found) >= floor
        assert decibels(found) < floor + 0.5 + 2 * jitter or coarsest >= floor - 2 * jitter


def test_streams_that_are_none_are_refused() -> None:
    """Protects the sentences for other data, another version, and streams that a faulty writer sealed."""
    image = photo(40, 50)
    stream = encode(image, blurred(image), tile=32)
    cases = {
        "does not begin as one": b"\xff\xd8\xff\xe0" + bytes(100),
        "version 1": resealed(stream, 4, 4, b"\x01"),
        "index does not have": resealed(stream, 4, 13, struct.pack(">I", 20)),
        "no tiles of 0 pixels": sealed(stream[:13] + bytes(4) + stream[17:INDEX], [], b""),
        "its tiles end": stream[:-1],
        "have the right check sum|does not have its check sum": stream[:-1] + bytes([stream[-1] ^ 1]),
        "a tile cannot be decoded|is not of 32 x 32": resealed(stream, 4, INDEX + 8 * 4 + 4 + 6, bytes(16)),
    }
    for sentence, data in cases.items():
        with pytest.raises(DamagedLatent, match=sentence):
            latent.apply(data, image)
    turned = resealed(encode(image, blurred(image), tile=64), 1, 5, struct.pack(">II", 50, 60))
    with pytest.raises(DamagedLatent, match="is not of"):
        latent.apply(turned, photo(50, 60))


@pytest.mark.parametrize(("tile", "step"), [(1, 960), (255, 960), (4097, 960), (2**32 - 1, 960), (1024, 0)])
def test_tiles_that_nobody_writes_are_refused(tile: int, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects readers from streams that a right check sum hides: hours for tiny tiles, all memory for huge ones."""
    monkeypatch.setattr(layout, "LEAST_TILE", 256)
    image = photo(40, 50)
    stream = encode(image, blurred(image))
    with pytest.raises(DamagedLatent, match="no tiles of"):
        latent.apply(sealed(stream[:13] + struct.pack(">IH", tile, step), [], b""), image)


def test_steps_that_cannot_be_coded_are_refused() -> None:
    """Protects callers: a step too fine for whole values, or none, is told."""
    image = photo(20, 30)
    for step in (0, 31, 65536):
        with pytest.raises(ValueError, match="can be coded"):
            encode(image, blurred(image), step=step)


def test_other_shapes_are_refused() -> None:
    """Protects against adding a detail layer to a picture that it is not of."""
    image = photo(20, 30)
    stream = encode(image, blurred(image))
    with pytest.raises(ValueError, match="30 x 20 pixels, the restore has 20 x 30"):
        latent.apply(stream, photo(30, 20))
    with pytest.raises(ValueError, match="both must have one shape"):
        encode(image, photo(20, 31))
    for wrong in (image[..., 0], image.astype(np.float32), image[:0]):
        with pytest.raises(ValueError, match="was expected"):
            encode(wrong, wrong)


@pytest.mark.slow
def test_memory_is_a_few_tiles_beyond_the_pixels() -> None:
    """Protects images of 100 megapixels: what is allocated beyond the pixels and the stream does not grow with the image."""
    small, large = (beyond_the_pixels(*times) for times in ((2, 2), (4, 4)))
    for before, after in zip(small, large, strict=True):
        assert after - before < 100_000


def beyond_the_pixels(rows: int, columns: int) -> tuple[float, float]:
    """Return the bytes at the peak beyond 1.3 times an image and some streams, while it is encoded and while it is applied."""
    image = np.tile(photo(128, 128), (rows, columns, 1))
    restored = np.tile(blurred(photo(128, 128)), (rows, columns, 1))
    tracemalloc.start()
    stream = encode(image, restored, tile=64)
    _, peak_encode = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    latent.apply(stream, restored)
    _, peak_apply = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak_encode - 1.3 * image.nbytes - 3 * len(stream), peak_apply - 1.3 * image.nbytes - 2 * len(stream)
