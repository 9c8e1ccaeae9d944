"""Make pipeline/latents/coder.npz: how the coder of latents foretells magnitudes, and what it then expects. Needs some minutes.

    python -m benchmarks.fit_coder CROPS --out coder.npz      # CROPS: folders or tars of lossless images, never evaluated on

Details of restores at x2, x3 and x4 are quantised with steps of 5 to 22 levels; weights are fitted to their magnitudes by
non-negative least squares, each error over its forecast; counts are what then came in each context. A new model means a new
version of latents (docs/format.md).
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from iarn import pretrained
from jobs.training.evaluate import load_images
from pipeline.core.records import LrCodec, Pixels
from pipeline.decoders import decoding
from pipeline.engines.engine import Engine
from pipeline.latents import coder
from pipeline.latents.coefficients import COLOURS, to_coefficients
from pipeline.pictures import lr_codec
from pipeline.pictures.picture import size_of
from pipeline.tiers import clean_draft

STEPS = (5, 7, 9, 12, 16, 22)
ROUNDING = 0.38
ROUNDS = 4
"""Least squares again with errors weighed by the last forecasts."""

OCTAVE = 6
"""Contexts for each doubling of a forecast."""

Floats = NDArray[np.float64]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", metavar="CROPS")
    parser.add_argument("--out", type=Path, default=Path("coder.npz"))
    parser.add_argument("--limit", type=int, default=72, help="images, evenly taken")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    images = [pixels for source in options.sources for _, pixels in load_images(source)]
    chosen = images[:: max(1, len(images) // options.limit)][: options.limit]
    engine, rng = Engine(pretrained.shipped(), torch.device("cpu")), np.random.default_rng(options.seed)
    quantised = []
    for number, pixels in enumerate(chosen):
        coefficients = to_coefficients(np.subtract(pixels, restore(engine, pixels, 2 + number % 3), dtype=np.int16))
        for step in rng.choice(STEPS, 2, replace=False):
            magnitudes = np.floor(np.abs(coefficients) / step + ROUNDING)
            quantised.append(np.copysign(magnitudes, coefficients).astype(np.int16))
        print(f"{number + 1} of {len(chosen)} images", file=sys.stderr)
    model = fit(quantised)
    options.out.write_bytes(model.save())
    print(f"{options.out}: {options.out.stat().st_size} bytes, {len(model.edges) + 1} contexts", file=sys.stderr)
    return 0


def restore(engine: Engine, pixels: Pixels, scale: int) -> Pixels:
    """Return what the network restores from an image's clean LR, as the tiers with a latent store it."""
    size = size_of(pixels)
    lr_size = (-(-size[0] // scale), -(-size[1] // scale))
    lossless, _ = lr_codec.encode_lr(np.ascontiguousarray(pixels), codec=LrCodec.PNG, grey=False, alpha=None, icc=None)
    picture = decoding.decode(lossless, pixel_limit=pixels.size)
    return engine.restore(clean_draft(picture, lr_size, engine.span(size, lr_size), LrCodec.AUTO).lr, size, clean=True)


def fit(quantised: list[coder.Values]) -> coder.Model:
    """Return the model of quantised coefficients."""
    features = len(coder.FEATURES)
    samples = gather(quantised)
    forecasts = np.zeros((COLOURS, 1 + int(coder.ZONES.max()), features + 1), np.int32)
    beside = np.zeros((*forecasts.shape[:2], 2), np.int32)
    edges = context_edges()
    counts = np.zeros((len(edges) + 1, coder.LARGEST + 2), np.int64)
    for (colour, zone), parts in sorted(samples.items()):
        x, magnitudes, odd = (np.concatenate(part) for part in zip(*parts, strict=True))
        plain = np.column_stack([x[:, :features], np.ones(len(x))])
        forecasts[colour, zone] = np.rint(foretell(plain, magnitudes) * coder.FORECAST_UNIT)
        forecast = plain.astype(np.int64) @ forecasts[colour, zone]
        both = np.column_stack([forecast[odd] / coder.FORECAST_UNIT, x[odd, features]])
        beside[colour, zone] = np.rint(foretell(both, magnitudes[odd]) * 256)
        scale, weight = (int(each) for each in beside[colour, zone])
        forecast[odd] = (forecast[odd] * scale + x[odd, features].astype(np.int64) * (weight * coder.FORECAST_UNIT)) >> 8
        contexts = np.searchsorted(edges, np.minimum(forecast, coder.FORECAST_MOST), side="right")
        np.add.at(counts, (contexts, np.minimum(magnitudes, coder.LARGEST + 1)), 1)
    return coder.Model(weights=forecasts, beside=beside, edges=edges, counts=smoothed(counts))


def gather(quantised: list[coder.Values]) -> dict[tuple[int, int], list[tuple[NDArray[np.int16], ...]]]:
    """Return, by colour and zone, the features of values (and the sum beside, last), magnitudes, which are of odd blocks."""
    samples: dict[tuple[int, int], list[tuple[NDArray[np.int16], ...]]] = defaultdict(list)
    for values in quantised:
        grid = (values.shape[3], values.shape[4])
        around = coder.Around(grid)
        odd = np.add.outer(np.arange(grid[0]), np.arange(grid[1])).ravel() % 2 == 1
        for colour in range(COLOURS):
            for diagonal, zone in enumerate(coder.ZONES):
                rows, columns = coder.diagonal_of(diagonal)
                parts = [around.feature(each, colour, diagonal) for each in range(len(coder.FEATURES))]
                planes = values[colour, rows, columns].reshape(len(rows), -1)
                around.see(colour, diagonal, planes)
                parts.append(around.beside(colour, diagonal).astype(np.int16))
                x = np.column_stack([part.ravel() for part in parts])
                samples[colour, int(zone)].append((x, np.abs(planes).ravel(), np.tile(odd, len(rows))))
    return samples


def foretell(x: NDArray[np.generic], magnitudes: NDArray[np.int16]) -> Floats:
    """Return non-negative weights of the columns of ``x`` that foretell magnitudes."""
    a, y = np.minimum(x, 400).astype(np.float32), np.minimum(magnitudes, 60).astype(np.float32)
    found, importance = np.zeros(a.shape[1]), np.ones(len(a), np.float32)
    for _ in range(ROUNDS):
        weighed = a * importance[:, None]
        found = non_negative((weighed.T @ a).astype(np.float64), (weighed.T @ y).astype(np.float64))
        importance = 1 / (a @ found.astype(np.float32) + 0.05) ** 2
    return found


def non_negative(gram: Floats, target: Floats, sweeps: int = 400) -> Floats:
    """Minimise x'Gx - 2t'x over x >= 0, one coordinate after the other."""
    x = np.zeros(len(target))
    for _ in range(sweeps):
        for at, scale in enumerate(np.diag(gram)):
            x[at] = max(0.0, x[at] - (gram[at] @ x - target[at]) / (scale + 1e-9))
    return x


def context_edges() -> NDArray[np.int32]:
    """Return the least forecast of each context but the first: a sixth of an octave apart, above what next to nothing is."""
    exponents = (np.arange(-5.5 * OCTAVE, 6.1 * OCTAVE) - 0.5) / OCTAVE
    edges = np.ceil(coder.FORECAST_UNIT * (2.0**exponents - 0.02)).astype(np.int32)
    return np.unique(np.maximum(edges, 1))


def smoothed(counts: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return counts with a little of their neighbours', in 65535ths; a context hardly met is as the one below."""
    spread = counts + 0.05 * (np.roll(counts, 1, 0) + np.roll(counts, -1, 0))
    total = spread.sum(axis=1)
    scaled: NDArray[np.int32] = np.rint(spread / np.maximum(total, 1)[:, None] * 65535).astype(np.int32)
    for context in np.flatnonzero(total < 200):
        scaled[context] = scaled[max(0, context - 1)]
    return scaled


if __name__ == "__main__":
    sys.exit(main())
