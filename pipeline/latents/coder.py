"""Quantised coefficients <-> bytes, by contexts of whole numbers that are decoded already; the only importer of constriction.

Coefficients come in waves: colour by colour, diagonal by diagonal of frequencies from the lowest, and of a diagonal first the
blocks on one colour of a chessboard, then the others. What is decoded already tells each value's context
(:mod:`~pipeline.latents.contexts`), which has a table of how often a value comes, from training and then from the waves before.
An entropy coder writes what the tables leave open (asymmetric numeral systems, Duda, arXiv:1311.2540).

Encoder and decoder walk the same waves; tables and contexts are whole numbers, and the library is given their quotients, which
IEEE 754 rounds alike everywhere. So bytes written on one machine decode to the same values on every other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

from pipeline.latents.coefficients import BLOCK, COLOURS
from pipeline.latents.contexts import DIAGONALS, LARGEST, SEEN, Around, Contexts, Model, diagonal_of

Values = NDArray[np.int16]
"""Quantised coefficients (3, 8, 8, n, m)."""

LIMIT = 2**15 - 1
"""The largest magnitude there is."""

_ESCAPE = 2 * LARGEST + 1
_LENGTHS = 15
_END = 0xA5C3  # written behind the last wave: a stream of other waves ends elsewhere

Take = Callable[[Contexts, "Sites"], NDArray[np.int32]]
"""Gives the values of a wave by their contexts: read from the bytes, or quantised."""


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


def walk(grid: tuple[int, int], take: Take, model: Model) -> Values:
    """Return the values that ``take`` gives for the waves of ``grid`` (n, m) blocks."""
    n, m = grid
    values = np.zeros((COLOURS, BLOCK, BLOCK, n, m), np.int16)
    around = Around(model, grid)
    table = model.context_table()
    odd = np.add.outer(np.arange(n), np.arange(m)).ravel() % 2 == 1
    halves = np.flatnonzero(~odd), np.flatnonzero(odd)
    for colour in range(COLOURS):
        for diagonal in range(DIAGONALS):
            rows, columns = diagonal_of(diagonal)
            forecasts = around.forecast(colour, diagonal)
            planes = np.zeros((len(rows), n * m), np.int16)
            for blocks in halves:
                if not len(blocks):  # there is one block alone
                    continue
                forecast = np.take(forecasts, blocks, axis=1)
                if blocks is halves[1]:
                    forecast = around.forecast_again(colour, diagonal, forecast, blocks)
                contexts = np.take(table, forecast, mode="clip").ravel()
                found = take(contexts, Sites(colour=colour, rows=rows, columns=columns, blocks=blocks))
                planes[:, blocks] = found.reshape(len(rows), -1)
                around.see(colour, diagonal, planes)
            around.end(colour, diagonal)
            values[colour, rows, columns] = planes.reshape(-1, n, m)
    return values


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
        self._tables += SEEN * seen.reshape(self._tables.shape)

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
