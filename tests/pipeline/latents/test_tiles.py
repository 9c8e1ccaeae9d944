"""The tiles of a detail layer: the same on any number of threads, found by an index of which no damage passes, of any side."""

from __future__ import annotations

import base64
import hashlib
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pipeline.core.errors import DamagedLatent
from pipeline.core.records import Pixels
from pipeline.latents import latent, layout, opened
from pipeline.latents.coefficients import FRACTION
from pipeline.latents.opened import OpenLatent
from tests.support.commands import GUARD
from tests.support.latents import INDEX, resealed, sealed, tile_lengths
from tests.support.pictures import photo

STEP = 15 * FRACTION

STORED = (
    "ikRUTAMAAAAYAAAETAAABAAKAAAAAKoAAAAuAAAXAAAAMYd9HqTxW0EIrzFs/RXMtd1xcipdqNuL+Mf3xvGpehT0Stg+GERs1nYj+oW2YxrFINn3jn9OFFw5"
    "OTNcJBWIbAAjYI/6/oLszyB0YJpjo7reAn/Z9ZQ1a2MDx8SOHsvJOlV8XAf7wBfp2FHkXhy/luleW80b2HynGpBo5pEeqLPqgKSRw1l0k3ycjPyuvoxYJ3yB"
    "s/tqm6CGPaGhgUNfZhoAAAAAABQAAAAg5IMlIQuZnAz2uq/2rG8RkmCFe+hVurPjeeGMJ16H0Kla+Bc7xJtOBqV7lg=="
)
"""A latent of :func:`pattern` with tiles of 1,024 pixels, as all were written until 2026-11-30."""

STORED_5 = (
    "ikRUTAUAAAAYAAAETAAAAgACgAAAAGb9qliAAAAAdsgeMjAAAABWX+x6PLXNSDoAAAAAAAAf38QZVyr/7ThBiDa1T/9HBSH/C/69/rtJ2AyTaHq8JiT7/wKy"
    "/P/ZF+RipX+7ctpuHZ5iWjmB1baTUmZPXmfMLKIIGVvn5nujYXZQcYGD8W3jYHygZWmZKIudRltXb5ZvAAAMAAC2XEcDZcF+ExKQXrnjqplNAC1qit/8/+vf"
    "3/vzftM720mvaaEP5xfDwGN/VHIgl8AByeaWK30APDXRUq2DL2/gYQztZkL62PU5GnLNqb9p+hsxf/b/nFq2avD/hKcKX3jCIYbeD+B9zD7losXWRwAAUAAG"
    "BwAAT/2b7awecOZH+m16ITFLk5kCAFApQ6HorJPhZ/ErsdVYCZY95nx9DJDdNSfkiovGf/nMYuuDLlLLQmxlKL3gLSnolHYdPY9/s+//xXjgTgA="
)
"""One of the same picture in three tiles of 512, of version 5."""


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
    streams = {latent.encode(image, restored, step=STEP, tile=32, threads=threads) for threads in (1, 2, 8)}
    assert len(streams) == 1
    stream = streams.pop()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "LEAST_TILE", 32)
        found = {latent.apply(stream, restored, threads=threads).tobytes() for threads in (1, 2, 8)}
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
    stream = latent.encode(image, restored, step=STEP, tile=25)
    stream = resealed(stream, 16, INDEX + 8 * 16 + 4 + 6, bytes(16))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "LEAST_TILE", 25)
        for threads in (1, 2, 8):
            with pytest.raises(DamagedLatent, match=r"of 25 x 25 pixels|cannot be decoded"):
                latent.apply(stream, restored, threads=threads)


@pytest.mark.slow
def test_no_damage_of_the_index_passes() -> None:
    """Protects against a writer with a fault: an index whose lengths are others is refused, though its check sum is right."""
    image, restored = noisy(64, 96)
    stream = latent.encode(image, restored, step=STEP, tile=32)
    rng, lengths = np.random.default_rng(0), np.array(tile_lengths(stream, 6))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "LEAST_TILE", 32)
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
            with pytest.raises(DamagedLatent):
                latent.apply(sealed(stream[:INDEX], damaged.tolist(), stream[INDEX + 8 * 6 + 4 :]), restored)


def test_latents_of_larger_tiles_stay_what_they_are() -> None:
    """Protects archives: a stream of before, of tiles with 1,024 pixels a side, stands for the same pixels, in a part too."""
    found = latent.apply(base64.b64decode(STORED), pattern())
    assert hashlib.sha256(found.tobytes()).hexdigest() == "3cf851d45b0e0dd5968157a9cd31f96a2188347815810bd4d9c1099b0a1b4c5f"
    window = slice(3, 19), slice(1000, 1050)  # of both tiles
    assert (latent.apply(base64.b64decode(STORED), pattern()[window], window) == found[window]).all()


def test_latents_of_version_5_stay_what_they_are() -> None:
    """Protects archives: what a stream stands for does not change, on any machine, in whatever way it is read."""
    for stream in (base64.b64decode(STORED_5), Sliced(base64.b64decode(STORED_5))):
        found = latent.apply(OpenLatent(stream), pattern())
        assert hashlib.sha256(found.tobytes()).hexdigest() == "932b70654f4d6a8894b70cbabc2fd417dea14e42c13d2322ed1e2978c6db7bf3"


def test_damage_of_latents_of_before_is_refused() -> None:
    """Protects archives of before: one check sum at the end is over all of such a stream."""
    stream = base64.b64decode(STORED)
    for position in range(len(stream)):
        damaged = bytearray(stream)
        damaged[position] ^= 1 << position % 8
        with pytest.raises(DamagedLatent):
            latent.apply(bytes(damaged), pattern())
        with pytest.raises(DamagedLatent):
            latent.apply(stream[:position], pattern())


class Sliced:
    """A stream that is read by slices, which are noted."""

    def __init__(self, data: bytes) -> None:
        self.data, self.asked = data, list[tuple[int, int]]()

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(len(self.data))
        self.asked.append((start, stop))
        return self.data[part]


def test_a_part_reads_its_tiles_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects viewers of large pictures: what is not touched is not read, neighbours come at once, and nothing comes twice."""
    monkeypatch.setattr(layout, "LEAST_TILE", 32)
    monkeypatch.setattr(opened, "HEAD_BYTES", 64)
    monkeypatch.setattr(opened, "GAP_BYTES", 0)
    image, restored = noisy(160, 320)  # 5 by 10 tiles
    stream = latent.encode(image, restored, step=STEP, tile=32)
    lengths = tile_lengths(stream, 50)
    starts = [INDEX + 8 * 50 + 4 + sum(lengths[:number]) for number in range(51)]
    read = Sliced(stream)
    found = OpenLatent(read)
    assert read.asked == [(0, 64), (0, starts[0])], "the index is longer than what is read at first"
    whole = latent.apply(stream, restored)
    window = slice(32, 96), slice(70, 130)  # of rows 1 and 2, columns 2 to 4
    for _ in range(2):
        assert (latent.apply(found, restored[window], window) == whole[window]).all()
    assert read.asked[2:] == [(starts[12], starts[15]), (starts[22], starts[25])]
    assert found.held == 51 * 8 + 50 * 4 + sum(stop - start for start, stop in read.asked[2:])
    assert (latent.apply(found, restored) == whole).all()
    assert sum(stop - start for start, stop in read.asked[2:]) == sum(lengths)


def test_what_lies_between_is_read_where_that_is_cheaper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects seconds: a window that lacks a column of tiles takes one request, not one for each row of them."""
    monkeypatch.setattr(layout, "LEAST_TILE", 32)
    image, restored = noisy(160, 320)
    stream = latent.encode(image, restored, step=STEP, tile=32)
    read = Sliced(stream)
    found = OpenLatent(read)
    found.fetch((slice(0, 160), slice(0, 288)))
    assert len(read.asked) == 2


def test_threads_read_a_tile_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects stores: of regions that are asked for at once, and share tiles, one reads them."""
    monkeypatch.setattr(layout, "LEAST_TILE", 32)
    image, restored = noisy(160, 320)
    read = Sliced(latent.encode(image, restored, step=STEP, tile=32))
    found, together = OpenLatent(read), threading.Barrier(8)

    def fetch(_: int) -> None:
        together.wait(GUARD)
        found.fetch((slice(0, 64), slice(0, 64)))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(fetch, range(8)))
    assert len(read.asked) == 2


def test_damage_is_refused_where_it_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects viewers: a damaged tile is told by its own check sum, whatever part is asked for, and the others can be seen."""
    monkeypatch.setattr(layout, "LEAST_TILE", 32)
    image, restored = noisy(64, 96)
    stream = latent.encode(image, restored, step=STEP, tile=32)
    whole, window = latent.apply(stream, restored), (slice(0, 64), slice(0, 64))
    damaged = stream[:-7] + bytes([stream[-7] ^ 16]) + stream[-6:]
    for data in (damaged, Sliced(damaged)):
        found = OpenLatent(data)
        assert (latent.apply(found, restored[window], window) == whole[window]).all()
        with pytest.raises(DamagedLatent, match="does not have its check sum"):
            latent.apply(found, restored)


def test_a_tile_that_was_read_wrongly_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects viewers from a fault of a moment: what does not have its check sum is not kept."""
    monkeypatch.setattr(layout, "LEAST_TILE", 32)
    image, restored = noisy(160, 320)
    stream = latent.encode(image, restored, step=STEP, tile=32)
    read = Sliced(stream)
    found = OpenLatent(read)
    for damaged in (stream[:-7] + bytes([stream[-7] ^ 16]) + stream[-6:], stream[:-3]):
        read.data = damaged
        with pytest.raises(DamagedLatent, match="does not have its check sum"):
            latent.apply(found, restored)
    read.data = stream
    assert (latent.apply(found, restored) == latent.apply(stream, restored)).all()


def test_what_a_header_claims_costs_nothing() -> None:
    """Protects memory and time: of another picture than the entry's no index is read, whatever its check sums say."""
    image, restored = noisy(64, 96)
    stream = latent.encode(image, restored, step=STEP)
    read = Sliced(sealed(stream[:5] + struct.pack(">II", 256, 2**20) + stream[13:INDEX], [0] * 2048, b""))
    with pytest.raises(DamagedLatent, match="1048576 x 256 pixels, the picture has 96 x 64"):
        OpenLatent(read, (64, 96))
    assert read.asked == [(0, opened.HEAD_BYTES)]
    with pytest.raises(DamagedLatent, match="fewer than its index takes"):
        OpenLatent(stream[:5] + b"\xff" * 8 + stream[13:])
    head = stream[:INDEX] + struct.pack(">II", 0, 1)
    with pytest.raises(DamagedLatent, match="a tile of no bytes has a check sum"):
        OpenLatent(head + struct.pack(">I", zlib.crc32(head)))


def test_latents_of_before_are_read_whole() -> None:
    """Protects archives of before from tiles whose bytes nothing would vouch for; they are read once."""
    read = Sliced(base64.b64decode(STORED))
    found = OpenLatent(read)
    whole = latent.apply(found, pattern())
    assert read.asked == [(0, len(read))]
    assert len(read) < found.held < len(read) + 100
    assert (whole == latent.apply(read.data, pattern())).all()


def test_tiles_are_those_of_viewers() -> None:
    """Protects what a region costs: tiles have 512 pixels a side, and one of a viewer's, aligned, decodes one alone."""
    image, restored = noisy(520, 1030)
    stream = latent.encode(image, restored, step=4000)
    assert struct.unpack_from(">I", stream, 13) == (512,)
    decoded = []
    decode = latent._decode_tile
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            latent, "_decode_tile", lambda payload, size, version: decoded.append(size) or decode(payload, size, version)
        )
        latent.apply(stream, restored[:512, 512:1024], (slice(0, 512), slice(512, 1024)))
    assert decoded == [(512, 512)]
