"""Quantised coefficients <-> bytes, by contexts of whole numbers that are decoded already; the only importer of constriction.

Coefficients come in waves: colour by colour, diagonal by diagonal of frequencies from the lowest, and of a diagonal first the
blocks on one colour of a chessboard, then the others. A wave's magnitudes are foretold from those around them, in their
block, in the four blocks beside it and in the colours before; the logarithm of the forecast is the context. Each context
has a table of how often a value comes, from training and then from the waves before. An entropy coder writes what the tables
leave open (asymmetric numeral systems, Duda, arXiv:1311.2540).

Encoder and decoder walk the same waves; tables and contexts are whole numbers, and the library is given their quotients, which
IEEE 754 rounds alike everywhere. So bytes written on one machine decode to the same values on every other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import cache
from importlib import resources
from io import BytesIO
from itertools import pairwise
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

from pipeline.latents.coefficients import BLOCK, COLOURS

Values = NDArray[np.int16]
"""Quantised coefficients (3, 8, 8, n, m)."""

Contexts = NDArray[np.uint8]

ZONES = np.array([0, 1, 2, 3, 4, 5, 5, 6, 6, 6, 7, 7, 7, 7, 7])
"""The diagonals of a block by what weights foretell them."""

FORECAST_UNIT = 256
"""What a magnitude of 1 is in a forecast, and a weight of 1 in the model."""

LARGEST = 15
"""The largest magnitude that a table tells; above it comes an escape, and the rest by the length of its bits."""

LIMIT = 2**15 - 1
"""The largest magnitude there is."""

PRIOR_STRENGTH = 48
"""Values seen that a table from training weighs as much as."""

MODEL_KEY = "coder.npz"

_ESCAPE = 2 * LARGEST + 1
_SEEN = 1024  # what a value seen adds to its table
_LENGTHS = 15
_END = 0xA5C3  # written behind the last wave: a stream of other waves ends elsewhere
FORECAST_MOST = 2**14 - 1
_SEEN_MOST = 255  # what a magnitude counts as in forecasts at most, so that sums fit
_PAD = 2

DIAGONALS = 2 * BLOCK - 1
"""Diagonals of the frequencies of a block."""


class _Planes(Enum):
    """Which magnitudes a feature is of: the colour's own, their sums over blocks beside, the colour before, the first."""

    OWN, BESIDE, BEFORE, FIRST = range(4)


FEATURES = (
    (_Planes.OWN, ((-1, 0), (0, -1))),
    (_Planes.OWN, ((-1, -1),)),
    (_Planes.OWN, ((-2, 0), (0, -2))),
    (_Planes.BESIDE, ((-1, 0), (0, -1))),
    (_Planes.BESIDE, ((-1, -1),)),
    (_Planes.BEFORE, ((0, 0),)),
    (_Planes.FIRST, ((0, 0),)),
    (_Planes.BEFORE, ((-1, 0), (0, -1), (1, 0), (0, 1))),
)
"""What a forecast is the weighted sum of: magnitudes at frequencies (rows, columns) away."""

Take = Callable[[Contexts, "Sites"], NDArray[np.int32]]
"""Gives the values of a wave by their contexts: read from the bytes, or quantised."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """What training leaves: how magnitudes are foretold, and what is then to be expected.

    ``weights`` (colour, zone, feature), the last the bias; ``beside`` (colour, zone, 2) scales a forecast and weighs the
    neighbours of the same frequency; ``edges``: the least forecast of each context but the first; ``counts`` (context,
    magnitude), the last magnitude the escape.
    """

    weights: NDArray[np.int32]
    beside: NDArray[np.int32]
    edges: NDArray[np.int32]
    counts: NDArray[np.int32]

    def context_table(self) -> Contexts:
        """Return the context of every forecast from 0 to the largest told apart."""
        return np.searchsorted(self.edges, np.arange(FORECAST_MOST + 1), side="right").astype(np.uint8)

    def tables(self) -> NDArray[np.int64]:
        """Return (context, symbol) how often each symbol is expected, in 1024ths of a value, as many as training weighs.

        Whole numbers, whose sums are the same in any order.
        """
        sides = self.counts[:, 1 : LARGEST + 1] / 2.0
        tables = np.hstack([sides[:, ::-1], self.counts[:, :1], sides, self.counts[:, -1:]])
        share = tables / self.counts.sum(axis=1, keepdims=True)
        whole: NDArray[np.int64] = np.maximum(1, np.rint(share * (PRIOR_STRENGTH * _SEEN))).astype(np.int64)
        return whole

    def save(self) -> bytes:
        """Return the bytes of a model file."""
        file = BytesIO()
        np.savez_compressed(file, weights=self.weights, beside=self.beside, edges=self.edges, counts=self.counts)
        return file.getvalue()


@cache
def shipped() -> Model:
    """Return the model in the package, which latents are coded with."""
    data = resources.files("pipeline.latents").joinpath(MODEL_KEY).read_bytes()
    with np.load(BytesIO(data), allow_pickle=False) as arrays:
        return Model(**{name: arrays[name].astype(np.int32) for name in ("weights", "beside", "edges", "counts")})


@dataclass(frozen=True, kw_only=True)
class Sites:
    """Where a wave's values stand: a colour, frequencies (rows, columns), and the indices of blocks, row by row."""

    colour: int
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    blocks: NDArray[np.intp]

    def of(self, planes: NDArray[Any]) -> NDArray[Any]:
        """Return the wave's part of planes (3, 8, 8, n, m), flat."""
        chosen = planes[self.colour, self.rows, self.columns]
        flat: NDArray[Any] = chosen.reshape(len(self.rows), -1)[:, self.blocks].ravel()
        return flat


def diagonal_of(number: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the frequencies (rows, columns) of a diagonal of a block, 0 to 14, rows ascending."""
    rows = np.arange(max(0, number - BLOCK + 1), min(BLOCK, number + 1))
    return rows, number - rows


def walk(grid: tuple[int, int], take: Take, model: Model) -> Values:
    """Return the values that ``take`` gives for the waves of ``grid`` (n, m) blocks."""
    n, m = grid
    values = np.zeros((COLOURS, BLOCK, BLOCK, n, m), np.int16)
    around = Around(grid)
    table = model.context_table()
    odd = np.add.outer(np.arange(n), np.arange(m)).ravel() % 2 == 1
    halves = np.flatnonzero(~odd), np.flatnonzero(odd)
    for colour in range(COLOURS):
        for diagonal in range(DIAGONALS):
            rows, columns = diagonal_of(diagonal)
            forecasts = around.forecast(colour, diagonal, model.weights[colour, ZONES[diagonal]])
            scale, weight = model.beside[colour, ZONES[diagonal]]
            planes = np.zeros((len(rows), n * m), np.int16)
            for blocks in halves:
                if not len(blocks):  # there is one block alone
                    continue
                forecast = np.take(forecasts, blocks, axis=1)
                if blocks is halves[1]:
                    forecast *= scale
                    forecast += np.take(around.beside(colour, diagonal), blocks, axis=1) * (weight * FORECAST_UNIT)
                    forecast >>= 8
                contexts = np.take(table, forecast, mode="clip").ravel()
                found = take(contexts, Sites(colour=colour, rows=rows, columns=columns, blocks=blocks))
                planes[:, blocks] = found.reshape(len(rows), -1)
                around.see(colour, diagonal, planes)
            values[colour, rows, columns] = planes.reshape(-1, n, m)
    return values


class Around:
    """Magnitudes seen so far, and for each plane the sums over the four blocks beside a block.

    Planes (colour, diagonal, row of frequency) lie beside others of their diagonal, so that a feature's are a slice.
    """

    def __init__(self, grid: tuple[int, int]) -> None:
        shape = (COLOURS, DIAGONALS + 2 * _PAD, BLOCK + 2 * _PAD, *grid)
        self._seen, self._beside = np.zeros(shape, np.int16), np.zeros(shape, np.int16)

    def see(self, colour: int, diagonal: int, planes: NDArray[np.int16]) -> None:
        """Take in what is known of planes (frequencies, blocks)."""
        seen, sums = _part(self._seen, colour, diagonal), _part(self._beside, colour, diagonal)
        np.abs(planes.reshape(seen.shape), out=seen)
        np.minimum(seen, _SEEN_MOST, out=seen)
        sums[:, 0] = 0
        sums[:, 1:] = seen[:, :-1]
        sums[:, :-1] += seen[:, 1:]
        sums[:, :, 1:] += seen[:, :, :-1]
        sums[:, :, :-1] += seen[:, :, 1:]

    def beside(self, colour: int, diagonal: int) -> NDArray[np.int32]:
        """Return the sums beside, of the same frequency, (frequencies, blocks)."""
        sums = _part(self._beside, colour, diagonal)
        return sums.reshape(len(sums), -1).astype(np.int32)

    def forecast(self, colour: int, diagonal: int, weights: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return foretold magnitudes (frequencies, blocks), in units of FORECAST_UNIT, from waves that are complete."""
        total = np.full(_part(self._seen, colour, diagonal).shape, weights[-1], np.int32)
        for feature, weight in enumerate(weights[:-1]):
            if weight:
                total += np.multiply(self.feature(feature, colour, diagonal), weight, dtype=np.int32)
        return total.reshape(len(total), -1)

    def feature(self, feature: int, colour: int, diagonal: int) -> NDArray[np.int16]:
        """Return one of what forecasts are made of, (frequencies, n, m); there is none of colours before the first."""
        planes, offsets = FEATURES[feature]
        if planes in (_Planes.BEFORE, _Planes.FIRST):
            if colour == 0:
                return np.zeros_like(_part(self._seen, colour, diagonal))
            colour = 0 if planes is _Planes.FIRST else colour - 1
        source = self._beside if planes is _Planes.BESIDE else self._seen
        total, *others = (_part(source, colour, diagonal, down, across) for down, across in offsets)
        for other in others:
            total = total + other
        return total


def _part(planes: NDArray[np.int16], colour: int, diagonal: int, down: int = 0, across: int = 0) -> NDArray[np.int16]:
    """Return those of Around's planes that are so many frequencies down and across from a diagonal's, as a view."""
    first, last = max(0, diagonal - BLOCK + 1), min(BLOCK, diagonal + 1)
    return planes[colour, diagonal + down + across + _PAD, first + down + _PAD : last + down + _PAD]


class _Tables:
    """What each context expects, after what it has seen."""

    def __init__(self, model: Model) -> None:
        self._tables = model.tables()
        self._lengths = np.ones(_LENGTHS, np.int64)

    def of(self, contexts: NDArray[np.intp]) -> list[Any]:
        """Return what each of some contexts expects; all are divided at once, for there are thousands in a tile."""
        tables = self._tables[contexts]
        return [_categorical(shares) for shares in tables / tables.sum(axis=1, keepdims=True)]

    def lengths(self) -> Any:
        return _categorical(self._lengths / self._lengths.sum())

    def see(self, contexts: Contexts, symbols: NDArray[np.int32]) -> None:
        width = self._tables.shape[1]
        seen = np.bincount(contexts.astype(np.intp) * width + symbols, minlength=self._tables.size)
        self._tables += _SEEN * seen.reshape(self._tables.shape)

    def see_lengths(self, lengths: NDArray[np.int32]) -> None:
        self._lengths += np.bincount(lengths, minlength=_LENGTHS)


def _categorical(shares: NDArray[np.float64]) -> Any:
    return constriction.stream.model.Categorical(shares, perfect=False)


def _by_context(contexts: Contexts) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Return the order of a wave by its contexts, the contexts that there are, and how many values each has."""
    order = np.argsort(contexts, kind="stable")
    counts = np.bincount(contexts)
    present = np.flatnonzero(counts)
    return order, present, counts[present]


class Writer:
    """Collects the waves of one stream; what comes out is read in the order in which it went in."""

    def __init__(self, model: Model) -> None:
        self._tables = _Tables(model)
        self._steps: list[tuple[NDArray[np.int32], Any]] = []

    def put(self, contexts: Contexts, values: NDArray[np.int32]) -> None:
        """Add a wave."""
        magnitudes = np.abs(values)
        if int(magnitudes.max()) > LIMIT:
            raise ValueError(f"a value of {int(magnitudes.max())} cannot be coded, {LIMIT} is the largest; give a larger step")
        symbols = np.where(magnitudes > LARGEST, _ESCAPE, values + LARGEST).astype(np.int32)
        order, present, counts = _by_context(contexts)
        by_context = symbols[order]
        stops = np.cumsum(counts).tolist()
        runs = [by_context[start:stop] for start, stop in pairwise([0, *stops])]
        self._steps += zip(runs, self._tables.of(present), strict=True)
        self._tables.see(contexts, symbols)
        large = values[order][by_context == _ESCAPE]
        if len(large):
            self._put_rest(large)

    def _put_rest(self, values: NDArray[np.int32]) -> None:
        rest = np.abs(values) - LARGEST
        lengths = (np.frexp(rest.astype(np.float64))[1] - 1).astype(np.int32)
        self._steps.append((lengths, self._tables.lengths()))
        self._tables.see_lengths(lengths)
        for length in np.unique(lengths):
            chosen = lengths == length
            bits = (rest[chosen] - (1 << length)) * 2 + (values[chosen] < 0)
            self._steps.append((bits.astype(np.int32), constriction.stream.model.Uniform(2 << int(length))))

    def finish(self) -> bytes:
        """Return the bytes: 32-bit words, the lower byte first."""
        coder = constriction.stream.stack.AnsCoder()
        coder.encode_reverse(np.array([_END], np.int32), constriction.stream.model.Uniform(2**16))
        for symbols, model in reversed(self._steps):
            coder.encode_reverse(symbols, model)
        words: NDArray[np.uint32] = coder.get_compressed()
        return words.astype("<u4").tobytes()


class Reader:
    """Gives back the waves of one stream."""

    def __init__(self, data: bytes, model: Model) -> None:
        self._coder = constriction.stream.stack.AnsCoder(np.frombuffer(data, "<u4").astype(np.uint32))
        self._tables = _Tables(model)

    def get(self, contexts: Contexts) -> NDArray[np.int32]:
        """Return the values of the next wave, whose contexts are known."""
        order, present, counts = _by_context(contexts)
        decode = self._coder.decode
        parts = [decode(model, count) for model, count in zip(self._tables.of(present), counts.tolist(), strict=True)]
        by_context = np.concatenate(parts)
        symbols = np.empty_like(by_context)
        symbols[order] = by_context
        self._tables.see(contexts, symbols)
        values = by_context - LARGEST
        large = np.flatnonzero(by_context == _ESCAPE)
        if len(large):
            values[large] = self._get_rest(len(large))
        ordered = np.empty_like(values)
        ordered[order] = values
        return ordered

    def _get_rest(self, count: int) -> NDArray[np.int32]:
        lengths = self._coder.decode(self._tables.lengths(), count)
        self._tables.see_lengths(lengths)
        values = np.empty(count, np.int32)
        for length in np.unique(lengths):
            chosen = np.flatnonzero(lengths == length)
            bits = self._coder.decode(constriction.stream.model.Uniform(2 << int(length)), len(chosen))
            magnitudes = (bits >> 1) + (1 << length) + LARGEST
            if int(magnitudes.max()) > LIMIT:
                raise ValueError(f"a value of {int(magnitudes.max())} was found, {LIMIT} is the largest")
            values[chosen] = np.where(bits & 1, -magnitudes, magnitudes)
        return values

    def at_end(self) -> bool:
        """Whether the mark of the end comes next, and nothing after it; asked once, after the last wave."""
        return int(self._coder.decode(constriction.stream.model.Uniform(2**16))) == _END and bool(self._coder.is_empty())
