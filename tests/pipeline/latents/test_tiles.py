"""The tiles of a detail layer: the same on any number of threads, found by an index of which no damage passes, of any side."""

from __future__ import annotations

import base64
import hashlib
import struct
import threading
import zlib

import numpy as np
import pytest

from pipeline.core.errors import DamagedLatent
from pipeline.core.records import Pixels
from pipeline.latents import latent
from pipeline.latents.coefficients import FRACTION
from tests.support.pictures import photo

STEP = 15 * FRACTION

INDEX = 19
"""Where a stream's index begins: the bytes of each tile, four each."""

STORED = (
    "ikRUTAMAAAAYAAAETAAABAAKAAAAAKoAAAAuAAAXAAAAMYd9HqTxW0EIrzFs/RXMtd1xcipdqNuL+Mf3xvGpehT0Stg+GERs1nYj+oW2YxrFINn3jn9OFFw5"
    "OTNcJBWIbAAjYI/6/oLszyB0YJpjo7reAn/Z9ZQ1a2MDx8SOHsvJOlV8XAf7wBfp2FHkXhy/luleW80b2HynGpBo5pEeqLPqgKSRw1l0k3ycjPyuvoxYJ3yB"
    "s/tqm6CGPaGhgUNfZhoAAAAAABQAAAAg5IMlIQuZnAz2uq/2rG8RkmCFe+hVurPjeeGMJ16H0Kla+Bc7xJtOBqV7lg=="
)
"""A latent of :func:`pattern` with tiles of 1,024 pixels, as all were written until 2026-11-30."""


def pattern() -> Pixels:
    """Return a restore of two such tiles that is made of whole numbers alone."""
    return (np.arange(24 * 1100 * 3).reshape(24, 1100, 3) * 97 % 256).astype(np.uint8)


def noisy(height: int, width: int) -> tuple[Pixels, Pixels]:
    """Return an image and a restore that differ everywhere."""
    image = photo(height, width)
    noise = np.random.default_rng(0).integers(-20, 21, image.shape)
    return image, np.clip(image + noise, 0, 255).astype(np.uint8)


def test_any_number_of_threads_gives_the_same_bytes() -> None:
    """Protects archives: how many threads code an image's tiles, or decode them, tells nothing of the result."""
    image, restored = noisy(200, 260)
    streams = {latent.encode(image, restored, step=STEP, tile=32, threads=threads) for threads in (1, 2, 8, None)}
    assert len(streams) == 1
    stream = streams.pop()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latent, "LEAST_TILE", 32)
        found = {latent.apply(stream, restored, threads=threads).tobytes() for threads in (1, 2, 8, None)}
    assert len(found) == 1


def test_large_tiles_go_one_at_a_time() -> None:
    """Protects memory: tiles of other writers, which may have 4,096 pixels a side, are not in work in several threads."""

    def names(side: int) -> set[str]:
        return set(latent._side_by_side(lambda _: threading.current_thread().name, range(16), side, 4))

    assert names(latent.LARGEST_SHARED_TILE + 1) == {threading.current_thread().name}
    assert threading.current_thread().name not in names(latent.LARGEST_SHARED_TILE)


def test_damage_is_told_from_any_thread() -> None:
    """Protects readers: what one of the threads finds wrong with its tile is what the caller is told."""
    image, restored = noisy(100, 100)
    stream = bytearray(latent.encode(image, restored, step=STEP, tile=25))
    stream[INDEX + 4 * 16 + 6 : INDEX + 4 * 16 + 22] = bytes(16)
    stream[-4:] = struct.pack(">I", zlib.crc32(stream[:-4]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latent, "LEAST_TILE", 25)
        for threads in (1, 2, 8):
            with pytest.raises(DamagedLatent, match=r"of 25 x 25 pixels|cannot be decoded"):
                latent.apply(bytes(stream), restored, threads=threads)


@pytest.mark.slow
def test_no_damage_of_the_index_passes() -> None:
    """Protects against a writer with a fault: an index whose lengths are others is refused, though its check sum is right."""
    image, restored = noisy(64, 96)
    stream = latent.encode(image, restored, step=STEP, tile=32)
    rng, lengths = np.random.default_rng(0), np.frombuffer(stream, ">u4", 6, INDEX)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latent, "LEAST_TILE", 32)
        for _ in range(60):
            kind = rng.integers(3)
            if kind == 0:  # other lengths, of another sum
                damaged = lengths + rng.integers(0, 9, 6)
            elif kind == 1:  # bytes of one tile told to be of another
                first, second = rng.choice(6, 2, replace=False)
                moved = int(rng.integers(1, lengths[first] + 1))
                damaged = lengths.copy()
                damaged[first], damaged[second] = lengths[first] - moved, lengths[second] + moved
            else:
                damaged = rng.permutation(lengths)
            if (damaged == lengths).all():
                continue
            body = stream[:INDEX] + damaged.astype(">u4").tobytes() + stream[INDEX + 24 : -4]
            with pytest.raises(DamagedLatent):
                latent.apply(body + struct.pack(">I", zlib.crc32(body)), restored)


def test_latents_of_larger_tiles_stay_what_they_are() -> None:
    """Protects archives: a stream of before, of tiles with 1,024 pixels a side, stands for the same pixels, in a part too."""
    found = latent.apply(base64.b64decode(STORED), pattern())
    assert hashlib.sha256(found.tobytes()).hexdigest() == "3cf851d45b0e0dd5968157a9cd31f96a2188347815810bd4d9c1099b0a1b4c5f"
    window = slice(3, 19), slice(1000, 1050)  # of both tiles
    assert (latent.apply(base64.b64decode(STORED), pattern()[window], window) == found[window]).all()


def test_tiles_are_those_of_viewers() -> None:
    """Protects what a region costs: tiles have 512 pixels a side, and one of a viewer's, aligned, decodes one alone."""
    image, restored = noisy(520, 1030)
    stream = latent.encode(image, restored, step=4000)
    assert struct.unpack_from(">I", stream, 13) == (512,)
    decoded = []
    decode = latent._decode_tile
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latent, "_decode_tile", lambda payload, size: decoded.append(size) or decode(payload, size))
        latent.apply(stream, restored[:512, 512:1024], (slice(0, 512), slice(512, 1024)))
    assert decoded == [(512, 512)]
