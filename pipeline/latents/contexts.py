"""The contexts of values: how large a value will be, from those around it that are decoded already; in whole numbers.

A forecast is a weighted sum over FEATURES: sums of magnitudes in the value's block, in those around it and in the colours
before. Since version 5 of latents it is one of their logarithms, and itself one; before, of the sums of BEFORE_5 themselves.
Where on a line a forecast lies is the context, and a context has a table of what is expected.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cache
from importlib import resources
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from pipeline.latents.coefficients import BLOCK, COLOURS

Contexts = NDArray[np.uint8]

ZONES = np.array([0, 1, 2, 3, 4, 5, 5, 6, 6, 6, 7, 7, 7, 7, 7])
"""The diagonals of a block by what weights foretell them."""

DIAGONALS = 2 * BLOCK - 1
"""Diagonals of the frequencies of a block."""

UNIT = 256
"""What 1 is in weights, and what a magnitude of 1 is in a forecast before version 5."""

OCTAVE = 128
"""What a doubling is in logarithms, and in a forecast since version 5."""

FORECAST_MOST = 2**14 - 1

LARGEST = 15
"""The largest magnitude that a table tells; above it comes an escape, and the rest by the length of its bits."""

PRIOR_STRENGTH, PRIOR_STRENGTH_BEFORE_5 = 256, 48
"""Values seen that a table from training weighs as much as."""

SEEN = 1024
"""What a value seen adds to its table."""

_SEEN_MOST = 255  # what a magnitude counts as in forecasts at most, so that sums fit
_BLOCK_MOST = 2047  # and what those of a block's diagonals before add up to
_PAD = 2


class Planes(Enum):
    """Which magnitudes a feature is of.

    Those of the colour itself, of the colour before and of the first; with AROUND, summed over blocks: the four beside, and
    since version 5 the nine with weights 1 2 1, 2 4 2, 1 2 1. BLOCK is one for all frequencies: of the diagonals before.
    """

    OWN, AROUND, BEFORE, BEFORE_AROUND, FIRST, BLOCK, BLOCK_AROUND = range(7)


Feature = tuple[tuple[Planes, tuple[tuple[int, int], ...]], ...]
"""Sums of magnitudes at frequencies (rows, columns) away."""

_HERE, _CORNER, _NEXT, _FAR = ((0, 0),), ((-1, -1),), ((-1, 0), (0, -1)), ((-2, 0), (0, -2))
_SIDES = ((-1, 0), (0, -1), (1, 0), (0, 1))

BEFORE_5: tuple[Feature, ...] = (
    ((Planes.OWN, _NEXT),),
    ((Planes.OWN, _CORNER),),
    ((Planes.OWN, _FAR),),
    ((Planes.AROUND, _NEXT),),
    ((Planes.AROUND, _CORNER),),
    ((Planes.BEFORE, _HERE),),
    ((Planes.FIRST, _HERE),),
    ((Planes.BEFORE, _SIDES),),
)

FEATURES: tuple[Feature, ...] = (
    ((Planes.OWN, 2 * _NEXT + _CORNER),),
    ((Planes.OWN, (*_FAR, (-2, 1), (1, -2))),),
    ((Planes.AROUND, _NEXT),),
    ((Planes.AROUND, _CORNER),),
    ((Planes.BLOCK, _HERE),),
    ((Planes.BLOCK_AROUND, _HERE),),
    ((Planes.BEFORE, _HERE),),
    ((Planes.BEFORE, 2 * _SIDES), (Planes.BEFORE_AROUND, _HERE)),
    ((Planes.FIRST, _HERE),),
)

USED = ((0, 1, 2, 3, 4, 5), (0, 2, 4, 6, 7), (0, 2, 4, 6, 7, 8))
"""Which features the weights of each colour are not 0 for."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """What training leaves: how magnitudes are foretold, and what is then to be expected.

    ``weights`` (colour, zone, feature), the last the bias; ``beside`` (colour, zone, 3) scales a forecast, weighs the
    neighbours of the same frequency, and is added; ``edges``: the least forecast of each context but the first; ``counts``
    (context, magnitude), the last magnitude the escape. ``logarithmic``: since version 5.
    """

    weights: NDArray[np.int32]
    beside: NDArray[np.int32]
    edges: NDArray[np.int32]
    counts: NDArray[np.int32]
    logarithmic: bool = True

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
        strength = PRIOR_STRENGTH if self.logarithmic else PRIOR_STRENGTH_BEFORE_5
        whole: NDArray[np.int64] = np.maximum(1, np.rint(share * (strength * SEEN))).astype(np.int64)
        return whole

    def save(self) -> bytes:
        """Return the bytes of a model file."""
        file = BytesIO()
        np.savez_compressed(file, weights=self.weights, beside=self.beside, edges=self.edges, counts=self.counts)
        return file.getvalue()


@cache
def shipped(version: int = 5) -> Model:
    """Return the model in the package that a ``version`` of latents is coded with."""
    name = "contexts.npz" if version >= 5 else "coder.npz"
    data = resources.files("pipeline.latents").joinpath(name).read_bytes()
    with np.load(BytesIO(data), allow_pickle=False) as arrays:
        found = {name: arrays[name].astype(np.int32) for name in ("weights", "beside", "edges", "counts")}
    if version < 5:  # whose neighbours are in magnitudes, and nothing is added
        found["beside"] = np.pad(found["beside"] * [1, UNIT], ((0, 0), (0, 0), (0, 1))).astype(np.int32)
    return Model(**found, logarithmic=version >= 5)


def diagonal_of(number: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the frequencies (rows, columns) of a diagonal of a block, 0 to 14, rows ascending."""
    rows = np.arange(max(0, number - BLOCK + 1), min(BLOCK, number + 1))
    return rows, number - rows


class Around:
    """Magnitudes seen so far, and the forecasts of those that come next.

    Planes (colour, diagonal, row of frequency) lie beside others of their diagonal, so that a feature's are a slice.
    """

    def __init__(self, model: Model, grid: tuple[int, int]) -> None:
        shape = (COLOURS, DIAGONALS + 2 * _PAD, BLOCK + 2 * _PAD, *grid)
        self._model, self._features = model, FEATURES if model.logarithmic else BEFORE_5
        self._seen, self._around = np.zeros(shape, np.int16), np.zeros(shape, np.int16)
        self._block = np.zeros((1, *grid), np.int16)

    def see(self, colour: int, diagonal: int, planes: NDArray[np.int16]) -> None:
        """Take in what is known of planes (frequencies, blocks)."""
        seen = _part(self._seen, colour, diagonal)
        np.abs(planes.reshape(seen.shape), out=seen)
        np.minimum(seen, _SEEN_MOST, out=seen)

    def end(self, colour: int, diagonal: int) -> None:
        """Sum over blocks around what is known of a diagonal, which is all of it."""
        seen, around = _part(self._seen, colour, diagonal), _part(self._around, colour, diagonal)
        if not self._model.logarithmic:
            _beside(seen, around)
            return
        _blurred(seen, around)
        self._block += seen.sum(axis=0, dtype=np.int16)
        np.minimum(self._block, _BLOCK_MOST, out=self._block)
        if diagonal == DIAGONALS - 1:  # another colour comes
            self._block[:] = 0

    def forecast(self, colour: int, diagonal: int) -> NDArray[np.int32]:
        """Return what is foretold of a diagonal (frequencies, blocks) from those that have ended."""
        weights = self._model.weights[colour, ZONES[diagonal]]
        total = np.full(_part(self._seen, colour, diagonal).shape, weights[-1], np.int32)
        for feature, weight in enumerate(weights[:-1]):
            if weight:
                told = self.feature(feature, colour, diagonal)
                told *= weight
                total += told
        if self._model.logarithmic:
            total >>= 8
        return total.reshape(len(total), -1)

    def forecast_again(
        self, colour: int, diagonal: int, forecast: NDArray[np.int32], blocks: NDArray[np.intp]
    ) -> NDArray[np.int32]:
        """Return the forecast of the second half of a diagonal's ``blocks``, which knows the first; changes ``forecast``."""
        scale, weight, bias = self._model.beside[colour, ZONES[diagonal]]
        beside = self.beside(colour, diagonal)
        forecast *= scale
        beside *= weight
        forecast += np.take(beside.reshape(len(beside), -1), blocks, axis=1)
        forecast += bias
        forecast >>= 8
        return forecast

    def beside(self, colour: int, diagonal: int) -> NDArray[np.int32]:
        """Return what the four blocks beside tell of the same frequencies, (frequencies, n, m)."""
        seen = _part(self._seen, colour, diagonal)
        return self._told(_beside(seen, np.empty_like(seen)))

    def feature(self, number: int, colour: int, diagonal: int) -> NDArray[np.int32]:
        """Return what a feature tells, (frequencies, n, m) or one for all; none is of colours before the first."""
        total, *others = (
            self._of(planes, colour, diagonal, down, across)
            for planes, offsets in self._features[number]
            for down, across in offsets
        )
        for other in others:
            total = total + other
        return self._told(total)

    def _of(self, planes: Planes, colour: int, diagonal: int, down: int, across: int) -> NDArray[np.int16]:
        if planes is Planes.BLOCK:
            return self._block
        if planes is Planes.BLOCK_AROUND:
            return _blurred(self._block, np.empty_like(self._block))
        source = self._around if planes in (Planes.AROUND, Planes.BEFORE_AROUND) else self._seen
        if planes in (Planes.BEFORE, Planes.BEFORE_AROUND):
            colour -= 1
        return _part(source, 0 if planes is Planes.FIRST else colour, diagonal, down, across)

    def _told(self, sums: NDArray[np.int16]) -> NDArray[np.int32]:
        """Return sums, or their logarithms: the upper half of 1 + sum as a float of 32 bits."""
        if not self._model.logarithmic:
            return sums.astype(np.int32)
        ones = sums.astype(np.float32)
        ones += 1
        logarithms: NDArray[np.int32] = ones.view(np.int32)
        logarithms >>= 16
        return logarithms


def _part(planes: NDArray[np.int16], colour: int, diagonal: int, down: int = 0, across: int = 0) -> NDArray[np.int16]:
    """Return those of Around's planes that are so many frequencies down and across from a diagonal's, as a view."""
    first, last = max(0, diagonal - BLOCK + 1), min(BLOCK, diagonal + 1)
    return planes[colour, diagonal + down + across + _PAD, first + down + _PAD : last + down + _PAD]


def _beside(planes: NDArray[np.int16], out: NDArray[np.int16]) -> NDArray[np.int16]:
    """Sum over the four blocks beside."""
    out[:, 0] = 0
    out[:, 1:] = planes[:, :-1]
    out[:, :-1] += planes[:, 1:]
    out[:, :, 1:] += planes[:, :, :-1]
    out[:, :, :-1] += planes[:, :, 1:]
    return out


def _blurred(planes: NDArray[np.int16], out: NDArray[np.int16]) -> NDArray[np.int16]:
    """Sum over nine blocks, weights 1 2 1, 2 4 2, 1 2 1."""
    rows = planes + planes
    rows[:, 1:] += planes[:, :-1]
    rows[:, :-1] += planes[:, 1:]
    np.add(rows, rows, out=out)
    out[:, :, 1:] += rows[:, :, :-1]
    out[:, :, :-1] += rows[:, :, 1:]
    return out
