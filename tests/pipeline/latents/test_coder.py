"""The coder: what is written is read, near the ideal length, the same everywhere, and whatever the bytes are it ends."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from pipeline.latents import coder, contexts
from pipeline.latents.coefficients import to_coefficients, to_difference

SAMPLES = Path(__file__).parents[3] / "samples"


def laplacian(n: int, m: int, *, scale: float, seed: int) -> coder.Values:
    """Return values that fall off with frequency as those of a picture do, some blocks busier than others."""
    rng = np.random.default_rng(seed)
    frequency = np.add.outer(np.arange(8), np.arange(8))[None, :, :, None, None]
    busy = rng.gamma(1.0, 1.0, (1, 1, 1, n, m))
    drawn = rng.laplace(0, 1, (3, 8, 8, n, m)) * scale * busy * np.exp(-frequency / 4)
    return np.clip(np.rint(drawn), -coder.LIMIT, coder.LIMIT).astype(np.int16)


def write(
    values: coder.Values, seen: list[tuple[contexts.Contexts, NDArray[np.int32]]] | None = None, *, version: int = 5
) -> bytes:
    model = contexts.shipped(version)
    writer = coder.Writer(model)

    def take(found: contexts.Contexts, sites: coder.Sites) -> NDArray[np.int32]:
        wave = sites.of(values).astype(np.int32)
        writer.put(found, wave)
        if seen is not None:
            seen.append((found, wave))
        return wave

    assert (coder.walk((values.shape[3], values.shape[4]), take, model) == values).all()
    return writer.finish()


def read(data: bytes, grid: tuple[int, int], *, version: int = 5) -> tuple[coder.Values, bool]:
    model = contexts.shipped(version)
    reader = coder.Reader(data, model)
    values = coder.walk(grid, lambda found, _: reader.get(found), model)
    return values, reader.at_end()


@pytest.mark.slow
@given(
    n=st.integers(1, 6),
    m=st.integers(1, 6),
    scale=st.sampled_from([0.0, 0.3, 3.0, 300.0, 30_000.0]),
    seed=st.integers(0, 99),
    version=st.sampled_from([3, 5]),
)
def test_what_is_written_is_read(n: int, m: int, scale: float, seed: int, version: int) -> None:
    """Protects every value from nothing to the largest, on any grid, one block included; and the end is found."""
    values = laplacian(n, m, scale=scale, seed=seed)
    assert read(write(values, version=version), (n, m), version=version) == (pytest.approx(values), True)


def test_the_length_is_near_the_ideal_of_its_own_tables() -> None:
    """Protects bytes: the entropy coder adds less than 5 % to what the tables leave open."""
    values = laplacian(40, 40, scale=2.0, seed=3)
    seen: list[tuple[contexts.Contexts, NDArray[np.int32]]] = []
    data = write(values, seen)
    tables = contexts.shipped().tables()
    ideal = 0.0
    for found, wave in seen:
        symbols = np.where(np.abs(wave) > contexts.LARGEST, tables.shape[1] - 1, wave + contexts.LARGEST)
        share = tables / tables.sum(axis=1, keepdims=True)
        ideal -= float(np.log2(share[found, symbols]).sum())
        np.add.at(tables, (found, symbols), 1024)
    rest = sum(int((np.abs(wave) > contexts.LARGEST).sum()) for _, wave in seen) * 16
    assert ideal / 8 <= len(data) + 4 <= 1.05 * (ideal + rest) / 8


def test_contexts_are_worth_their_trouble() -> None:
    """Protects what contexts are for: fewer bytes than the best table for each frequency would take, on a photograph."""
    with Image.open(SAMPLES / "mural.jpg") as picture:
        image = np.asarray(picture.convert("RGB"))[200:600, 200:700].astype(np.int16)
    values = np.rint(to_coefficients(image - np.roll(image, 1, axis=1)) / 12).astype(np.int16)
    ideal = 0.0
    for plane in values.reshape(3 * 64, -1):
        counts = np.unique(plane, return_counts=True)[1]
        ideal -= float((counts * np.log2(counts / counts.sum())).sum())
    assert len(write(values)) * 8 < 0.93 * ideal


@pytest.mark.parametrize(("version", "digest"), [(3, "03093ff479389772"), (5, "e9f662892b615005")])
def test_the_bytes_of_a_picture_stay_what_they_are(version: int, digest: str) -> None:
    """Protects archives: with other bytes for the same values old latents cannot be read, and their version has to rise."""
    frequency = np.add.outer(np.arange(8), np.arange(8))[None, :, :, None, None]
    values = (np.arange(3 * 64 * 63).reshape(3, 8, 8, 9, 7) * 7919 % 241 - 120) // (1 + frequency * frequency)
    assert hashlib.sha256(write(values.astype(np.int16), version=version)).hexdigest()[:16] == digest
    pixels = to_difference(values.astype(np.int64) * 900, 70, 52)
    assert hashlib.sha256(pixels.tobytes()).hexdigest()[:16] == "a2e2a6b05310d771"


def test_decoding_a_latent_knows_no_torch() -> None:
    """Protects archives from devices and releases: what decodes a latent computes nothing by torch, on no GPU."""
    program = "import sys, pipeline.latents.latent; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_many_threads_read_the_same() -> None:
    """Protects workers, whose threads code many images side by side."""
    streams = {seed: write(laplacian(8, 8, scale=2.0, seed=seed)) for seed in range(6)}
    wrong: list[int] = []

    def check(seed: int) -> None:
        if (read(streams[seed], (8, 8))[0] != laplacian(8, 8, scale=2.0, seed=seed)).any():
            wrong.append(seed)

    threads = [threading.Thread(target=check, args=(seed,)) for seed in streams]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_values_beyond_the_largest_are_refused_on_either_side() -> None:
    """Protects readers from a writer with a fault: what no 8-bit picture has neither wraps nor leaves a table's bounds."""
    found = np.zeros(1, np.uint8)
    with pytest.raises(ValueError, match="cannot be coded"):
        coder.Writer(contexts.shipped()).put(found, np.array([coder.LIMIT + 1], np.int32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coder, "LIMIT", coder.LIMIT + 1)
        writer = coder.Writer(contexts.shipped())
        writer.put(found, np.array([coder.LIMIT], np.int32))
        data = writer.finish()
    with pytest.raises(ValueError, match="was found"):
        coder.Reader(data, contexts.shipped()).get(found)


@pytest.mark.parametrize("version", [3, 5])
def test_sums_of_the_largest_values_do_not_wrap(version: int) -> None:
    """Protects contexts of extreme pictures: where all around is as large as can be, large values are foretold."""
    seen: list[tuple[contexts.Contexts, NDArray[np.int32]]] = []
    write(np.full((3, 8, 8, 6, 6), coder.LIMIT, np.int16), seen, version=version)
    last = len(contexts.shipped(version).edges)
    assert all(found.min() > last - 10 for found, _ in seen[2:])


@pytest.mark.slow
@settings(max_examples=200)
@given(data=st.binary(max_size=400))
def test_any_bytes_end(data: bytes) -> None:
    """Protects readers: whatever the bytes are, reading ends, with values or a ValueError; damage is for the check sum."""
    try:
        values, _ = read(data, (3, 2))
    except ValueError:
        return
    assert values.shape == (3, 8, 8, 3, 2)
