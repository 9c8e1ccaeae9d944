"""Make pipeline/latents/contexts.npz: how the coder foretells magnitudes, and what it then expects. Needs some minutes.

    python -m benchmarks.fit_coder CROPS --out contexts.npz      # CROPS: folders or tars of lossless images, never evaluated on

Details of restores at x2, x3 and x4 are quantised with steps of 5 to 22 levels. Weights are those whose forecasts make the
magnitudes most likely: all share one family of distributions, told by nothing but the forecast, which is counted anew after
each step of Fisher's scoring (a single-index model). Counts are what then came in each context. A new model means a new
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
from pipeline.latents import coder, contexts
from pipeline.latents.coefficients import COLOURS, to_coefficients
from pipeline.pictures import lr_codec
from pipeline.pictures.picture import size_of
from pipeline.tiers import clean_draft

STEPS = (5, 7, 9, 12, 16, 22)
ROUNDING = 0.36
ROUNDS = 20
"""Steps of scoring, each with the curves that the one before left."""

LONGEST_STEP = 0.5
"""Of any weight at once."""

SHARE = 0.1
"""Of the values, so many are looked at."""

OCTAVE = 6
"""Contexts for each doubling of a forecast."""

FEWEST = 2000
"""Values of a context, at least, for one to be worth its time."""

LOWEST, PLACES_OF_OCTAVE, PLACES, BLUR = -6.0, 12, 12 * 11, 3
"""The line that forecasts are places on: from 2^-6 on, how fine it is, how long, and how far a place's counts count."""

EXPONENT_BIAS = 127
"""Of a float: what the logarithm of 1 is, in octaves."""

Floats = NDArray[np.float64]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", metavar="CROPS")
    parser.add_argument("--out", type=Path, default=Path("contexts.npz"))
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


def fit(quantised: list[coder.Values], *, seed: int = 1) -> contexts.Model:
    """Return the model of quantised coefficients."""
    groups = gather(quantised, np.random.default_rng(seed))
    for each in groups.values():
        each.start()
    for _ in range(ROUNDS):
        slopes, information = curves(groups)
        for each in groups.values():
            each.step(slopes, information)
    weights = np.zeros((COLOURS, 1 + int(contexts.ZONES.max()), len(contexts.FEATURES) + 1), np.int32)
    beside = np.zeros((*weights.shape[:2], 3), np.int32)
    counts = np.zeros((contexts.FORECAST_MOST + 1, contexts.LARGEST + 2), np.int64)
    for (colour, zone), each in groups.items():
        weights[colour, zone, [*contexts.USED[colour], -1]], beside[colour, zone] = each.whole()
        np.add.at(counts, (each.whole_forecasts(), each.magnitudes), 1)
    edges = context_edges(counts.sum(axis=1))
    counts = np.add.reduceat(counts, [0, *edges])
    return contexts.Model(weights=weights, beside=beside, edges=edges, counts=smoothed(counts))


class Group:
    """Values of one colour and zone: what their forecasts are made of, in octaves, and how large they are.

    A forecast is a place on a line, t = x w, of the blocks that come second a t + b beside + c; tables of magnitudes at each
    place belong to all groups (:func:`curves`).
    """

    def __init__(self, parts: list[tuple[NDArray[np.generic], ...]]) -> None:
        told, self._beside_told, magnitudes, self._second = (np.concatenate(part) for part in zip(*parts, strict=True))
        self._told = told
        self.magnitudes = np.minimum(magnitudes, contexts.LARGEST + 1).astype(np.intp)
        self._x = np.hstack([told / contexts.OCTAVE - EXPONENT_BIAS, np.ones((len(told), 1))]).astype(np.float32)
        self._beside = (self._beside_told / contexts.OCTAVE - EXPONENT_BIAS).astype(np.float32)

    def start(self) -> None:
        """Take a first guess: the mean of the logarithms, and what the mean magnitude is."""
        features = self._x.shape[1] - 1
        self._w = np.append(np.full(features, 1 / features), -LOWEST + np.log2(self.magnitudes.mean() + 1e-3))
        self._w[-1] -= float((self._x[:, :-1] @ self._w[:-1]).mean())
        self._again = np.array([1.0, 0.0, 0.0])

    def forecasts(self) -> Floats:
        """Return the places of the values, in octaves above the lowest."""
        first = self._x @ self._w
        scale, weight, bias = self._again
        return np.where(self._second, scale * first + weight * self._beside + bias, first)

    def step(self, slopes: Floats, information: Floats) -> None:
        """Take a step of Fisher's scoring, by (place, magnitude) the slope of the log of its share, and its variance."""
        at, first = places(self.forecasts()), self._x @ self._w
        inner = np.where(self._second, self._again[0], 1.0)[:, None] * self._x
        again = np.column_stack([first, self._beside, np.ones(len(first))]) * self._second[:, None]
        jacobian = np.hstack([inner, again])
        gradient = jacobian.T @ slopes[at, self.magnitudes]
        hessian = (jacobian * information[at][:, None]).T @ jacobian + 0.1 * np.eye(jacobian.shape[1])
        change = np.linalg.solve(hessian, gradient)
        change *= min(1.0, LONGEST_STEP / float(np.abs(change).max()))
        self._w += change[:-3]
        self._again += change[-3:]

    def whole(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return weights (feature, and the bias) and what the second half adds (scale, weight, bias) as whole numbers."""
        weights = np.rint(self._w[:-1] * contexts.UNIT).astype(np.int64)
        scale, weight = np.rint(self._again[:2] * contexts.UNIT).astype(np.int64)
        unit = contexts.UNIT * contexts.OCTAVE
        bias = np.rint(self._w[-1] * unit) - EXPONENT_BIAS * contexts.OCTAVE * weights.sum()
        added = np.rint(self._again[2] * unit) - EXPONENT_BIAS * contexts.OCTAVE * weight
        return np.append(weights, bias).astype(np.int64), np.array([scale, weight, added]).astype(np.int64)

    def whole_forecasts(self) -> NDArray[np.int64]:
        """Return the forecasts of the values as the coder finds them."""
        weights, (scale, weight, added) = self.whole()
        forecast = (self._told.astype(np.int64) @ weights[:-1] + weights[-1]) >> 8
        again = (forecast * scale + self._beside_told.astype(np.int64) * weight + added) >> 8
        return np.clip(np.where(self._second, again, forecast), 0, contexts.FORECAST_MOST)


def gather(quantised: list[coder.Values], rng: np.random.Generator) -> dict[tuple[int, int], Group]:
    """Return by colour and zone some of the values, with what tells them."""
    parts: dict[tuple[int, int], list[tuple[NDArray[np.generic], ...]]] = defaultdict(list)
    for values in quantised:
        grid = (values.shape[3], values.shape[4])
        around = contexts.Around(contexts.shipped(), grid)
        second = np.add.outer(np.arange(grid[0]), np.arange(grid[1])) % 2 == 1
        for colour in range(COLOURS):
            for diagonal, zone in enumerate(contexts.ZONES):
                rows, columns = contexts.diagonal_of(diagonal)
                planes = values[colour, rows, columns]
                chosen = np.flatnonzero(rng.random(planes.size) < SHARE)
                told = [np.broadcast_to(around.feature(n, colour, diagonal), planes.shape) for n in contexts.USED[colour]]
                around.see(colour, diagonal, planes.reshape(len(rows), -1))
                beside = around.beside(colour, diagonal)
                around.end(colour, diagonal)
                of_second = np.broadcast_to(second, planes.shape)
                x = np.column_stack([each.ravel()[chosen] for each in told])
                others = (each.ravel()[chosen] for each in (beside, np.abs(planes), of_second))
                parts[colour, int(zone)].append((x, *others))
    return {key: Group(parts[key]) for key in sorted(parts)}


def curves(groups: dict[tuple[int, int], Group]) -> tuple[Floats, Floats]:
    """Return, of every place, the slope of the log of each magnitude's share and their variance, from all values' counts."""
    counts = np.zeros((PLACES, contexts.LARGEST + 2))
    for each in groups.values():
        np.add.at(counts, (places(each.forecasts()), each.magnitudes), 1)
    width = 3 * BLUR
    blur = np.exp(-np.square(np.arange(-width, width + 1) / BLUR) / 2)
    blurred = np.stack([np.convolve(np.pad(each, width, "edge"), blur / blur.sum(), "valid") for each in counts.T], axis=1)
    mean = 2.0 ** (LOWEST + (np.arange(PLACES) + 0.5) / PLACES_OF_OCTAVE)[:, None]
    geometric = (mean / (1 + mean)) ** np.arange(contexts.LARGEST + 2) / (1 + mean)  # where hardly any values are
    shares = blurred + 20 * geometric
    shares /= shares.sum(axis=1, keepdims=True)
    slopes = np.gradient(np.log(shares), 1 / PLACES_OF_OCTAVE, axis=0)
    return slopes, (shares * np.square(slopes)).sum(axis=1)


def places(forecasts: Floats) -> NDArray[np.intp]:
    return np.clip(forecasts * PLACES_OF_OCTAVE, 0, PLACES - 1).astype(np.intp)


def context_edges(seen: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return the least forecast of each context but the first: a sixth of an octave apart, further where few values are."""
    edges: list[int] = []
    for edge in np.rint(np.arange(1, PLACES) * (contexts.OCTAVE / OCTAVE)).astype(int):
        below = seen[edges[-1] if edges else 0 : edge].sum()
        if min(below, seen[edge:].sum()) >= FEWEST:
            edges.append(int(edge))
    return np.array(edges, np.int32)


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
