"""Resampling between an image's own grid and the lattice of its LR, and the exact way back.

A lattice has ``stride`` points per LR pixel and axis, ``stride`` one of a few integers, so behind it every shape is a
multiple of the LR's, whatever the scale. Along one axis of ``length`` samples and ``points`` lattice points

    interpolate   U, points x length: Lanczos-3, half-sample symmetric edges, points >= length
    recover       P, length x points: the left inverse (U'U)^-1 U', so that P U = 1

Both are banded. U has six taps; P falls off exponentially and is cut where less than 1e-7 of its absolute weight is
left outside (20 to 40 points each side for points / length >= 1.05).

Two cases need no filter: points == length, and length rounded up to a multiple of the stride (an odd image at x2),
where the fewer than ``stride`` missing lines repeat the last one. Interpolating there would be badly conditioned: just
above points / length = 1 the norm of P grows like 1 / sqrt(points / length - 1) (10 at 801 / 800), because half-way
between its samples the fastest wave a row can hold is zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iarn.side_by_side import side_by_side

POWERS_OF_TWO = (1, 2, 4, 8, 16, 32, 64)
"""Strides of networks that split by two alone."""

LANCZOS_RADIUS = 3
DROPPED_WEIGHT = 1e-7
SOLVE_FADED = 1e-11
SOLVE_ROWS = 1024

BLOCK_ROWS, CPU_BLOCK_ROWS = 256, 64
"""Rows of a band that are multiplied as one dense matrix: many keep a GPU busy, few have few zeros beside their taps."""


@dataclass(frozen=True, eq=False)
class Band:
    """A banded matrix: row r holds ``weights[r]`` from column ``starts[r]`` on."""

    starts: NDArray[np.int64]
    weights: NDArray[np.float64]

    @property
    def rows(self) -> int:
        return len(self.starts)

    def needs(self, start: int, stop: int) -> tuple[int, int]:
        """Return the range of columns that rows ``start:stop`` read."""
        starts = self.starts[start:stop]
        return int(starts.min()), int(starts.max()) + self.weights.shape[1]

    def dense(self, start: int, stop: int) -> tuple[int, int, NDArray[np.float64]]:
        """Return rows ``start:stop`` as ``(first column, end column, matrix over those columns)``."""
        low, high = self.needs(start, stop)
        matrix = np.zeros((stop - start, high - low))
        columns = self.starts[start:stop, None] - low + np.arange(self.weights.shape[1])
        np.put_along_axis(matrix, columns, self.weights[start:stop], axis=1)
        return low, high, matrix

    def apply(self, x: Tensor, dim: int, *, origin: int = 0, start: int = 0, stop: int | None = None) -> Tensor:
        """Give rows ``start:stop`` of the product along ``dim`` (-2 or -1) with ``x``.

        ``x`` is float32; its first sample along ``dim`` is column ``origin``, and it holds all that those rows need.
        """
        stop = self.rows if stop is None else stop
        on_cpu = x.device.type == "cpu"
        rows = CPU_BLOCK_ROWS if on_cpu else BLOCK_ROWS
        blocks = [(row, min(row + rows, stop)) for row in range(start, stop, rows)]
        if not on_cpu:
            return torch.cat([self.block(x, dim, origin, *block) for block in blocks], dim)
        return cast(Tensor, _ByBlocks.apply(x, self, dim, origin, blocks))  # type: ignore[no-untyped-call]

    def block(self, x: Tensor, dim: int, origin: int, start: int, stop: int) -> Tensor:
        """Give a few rows of :meth:`apply`, as a product of their dense matrix."""
        low, high, matrix = self.dense(start, stop)
        weights = torch.from_numpy(matrix.astype(np.float32)).to(x.device)
        x = x.narrow(dim, low - origin, high - low)
        with torch.autocast(x.device.type, enabled=False):  # half precision would cost more than the LR's 8 bits do
            return x @ weights.T if dim == -1 else weights @ x


class _ByBlocks(torch.autograd.Function):
    """Rows of a band times ``x``, and the gradient, by blocks of rows.

    Each is computed by one thread: several sum one product in an order that depends on their number.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, band: Band, dim: int, origin: int, blocks: list[tuple[int, int]]) -> Tensor:
        ctx.band, ctx.dim, ctx.origin, ctx.blocks, ctx.shape = band, dim, origin, blocks, x.shape
        result = x.new_empty(_widened(x, dim, blocks[-1][1] - blocks[0][0]))

        def compute(block: tuple[int, int]) -> None:
            result.narrow(dim, block[0] - blocks[0][0], block[1] - block[0]).copy_(band.block(x, dim, origin, *block))

        side_by_side(compute, blocks)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), blocks, dim = gradients, ctx.blocks, ctx.dim
        parts: list[tuple[int, Tensor]] = [(0, gradient)] * len(blocks)

        def compute(number: int) -> None:
            start, stop = blocks[number]
            low, _, matrix = ctx.band.dense(start, stop)
            weights = torch.from_numpy(matrix.astype(np.float32))
            of_block = gradient.narrow(dim, start - blocks[0][0], stop - start)
            parts[number] = low - ctx.origin, of_block @ weights if dim == -1 else weights.T @ of_block

        side_by_side(compute, range(len(blocks)))
        result = gradient.new_zeros(ctx.shape)
        for first, part in parts:
            result.narrow(dim, first, part.shape[dim]).add_(part)
        return result, None, None, None, None


@dataclass(frozen=True)
class Axis:
    """One axis of an image beside the lattice of its LR.

    ``length`` source samples, ``lr`` LR pixels, ``stride`` lattice points per LR pixel with
    ``stride * lr >= length``.
    """

    length: int
    lr: int
    stride: int

    def __post_init__(self) -> None:
        if not 1 <= self.lr <= self.length <= self.points:
            raise ValueError(
                f"An axis of {self.length} samples cannot have {self.lr} LR pixels of {self.stride} lattice points; "
                f"give 1 to {self.length} LR pixels and a scale of at most {self.stride}."
            )

    @property
    def points(self) -> int:
        """Lattice points along the axis."""
        return self.lr * self.stride

    @property
    def aligned(self) -> bool:
        """Whether the source samples are lattice points themselves, but for repeated last lines."""
        return -(-self.length // self.stride) == self.lr

    @property
    def span(self) -> int:
        """Source samples that the lattice covers: ``length``, repeated last lines included."""
        return self.points if self.aligned else self.length

    @property
    def scale(self) -> float:
        """Source samples per LR pixel."""
        return self.span / self.lr

    def source_range(self, start: int, stop: int) -> tuple[int, int]:
        """Return the source samples that lattice points ``start:stop`` are made of."""
        if self.aligned:
            return min(start, self.length - 1), min(stop, self.length)
        return _interpolation(self.length, self.points).needs(start, stop)

    def point_range(self, start: int, stop: int) -> tuple[int, int]:
        """Return the lattice points that source samples ``start:stop`` come back from."""
        return (start, stop) if self.aligned else _recovery(self.length, self.points).needs(start, stop)

    def interpolate(self, x: Tensor, dim: int, *, origin: int = 0, start: int = 0, stop: int | None = None) -> Tensor:
        """Image → lattice points ``start:stop`` (all, unless given) along ``dim``.

        ``x`` is float32 and begins at source sample ``origin``; it must hold :meth:`source_range`.
        """
        stop = self.points if stop is None else stop
        if not self.aligned:
            return _interpolation(self.length, self.points).apply(x, dim, origin=origin, start=start, stop=stop)
        low, high = self.source_range(start, stop)
        x = x.narrow(dim, low - origin, high - low)
        missing = stop - start - (high - low)
        return torch.cat([x, x.narrow(dim, -1, 1).expand(*_widened(x, dim, missing))], dim) if missing else x

    def recover(self, x: Tensor, dim: int, *, origin: int = 0, start: int = 0, stop: int | None = None) -> Tensor:
        """Lattice → source samples ``start:stop`` (all, unless given) along ``dim``, the left inverse of :meth:`interpolate`.

        ``x`` is float32 and begins at lattice point ``origin``; it must hold :meth:`point_range`.
        """
        stop = self.length if stop is None else stop
        if not self.aligned:
            return _recovery(self.length, self.points).apply(x, dim, origin=origin, start=start, stop=stop)
        return x.narrow(dim, start - origin, stop - start)


def _widened(x: Tensor, dim: int, count: int) -> list[int]:
    """Return the shape of ``x`` with ``count`` along ``dim``."""
    shape = list(x.shape)
    shape[dim] = count
    return shape


def stride_for(size: tuple[int, int], lr_size: tuple[int, int], strides: Sequence[int] = POWERS_OF_TWO) -> int:
    """Return the lattice's stride: the smallest of the rising ``strides`` that is at least both scales.

    Sizes are (height, width). Raises ValueError where a size is empty, the LR larger than the image, or a scale above all
    strides.
    """
    for length, lr in zip(size, lr_size, strict=True):
        if not 1 <= lr <= length:
            raise ValueError(f"LR size {lr_size} does not fit in image size {size}; give 1 to {length} pixels for {length}.")
    needed = max(-(-length // lr) for length, lr in zip(size, lr_size, strict=True))
    if needed > strides[-1]:
        raise ValueError(
            f"Size {size} over LR size {lr_size} is a scale above {strides[-1]}, the largest there is a lattice for."
        )
    return next(stride for stride in strides if stride >= needed)


def axes_for(size: tuple[int, int], lr_size: tuple[int, int], strides: Sequence[int] = POWERS_OF_TWO) -> tuple[Axis, Axis]:
    """Return the vertical and the horizontal axis for an image and its LR, sizes as (height, width); raises as stride_for does.

    Pixels of the LR stand where its network has them only on the ``strides`` of that network.
    """
    stride = stride_for(size, lr_size, strides)
    return Axis(size[0], lr_size[0], stride), Axis(size[1], lr_size[1], stride)


@lru_cache(maxsize=64)
def _interpolation(length: int, points: int) -> Band:
    position = (np.arange(points) + 0.5) * length / points - 0.5
    first = np.floor(position).astype(np.int64) - LANCZOS_RADIUS + 1
    taps = first[:, None] + np.arange(2 * LANCZOS_RADIUS)
    distance = position[:, None] - taps
    kernel = np.sinc(distance) * np.sinc(distance / LANCZOS_RADIUS)
    kernel /= kernel.sum(axis=1, keepdims=True)
    width = min(2 * LANCZOS_RADIUS, length)
    starts = np.clip(first, 0, length - width)
    folded = np.mod(taps, 2 * length)
    folded = np.where(folded >= length, 2 * length - 1 - folded, folded)
    weights = np.zeros((points, width))
    np.add.at(weights, (np.arange(points)[:, None], folded - starts[:, None]), kernel)
    return Band(starts, weights)


@lru_cache(maxsize=64)
def _recovery(length: int, points: int) -> Band:
    """Solve for P row by row, in float64, from the banded Cholesky factor of U'U."""
    interpolation = _interpolation(length, points)
    factor = _cholesky(interpolation, length)
    centre = ((np.arange(length) + 0.5) * points / length).astype(np.int64)
    chunks = [slice(row, min(row + SOLVE_ROWS, length)) for row in range(0, length, SOLVE_ROWS)]
    parts = [_around(centre[chunk], interpolation, factor, chunk) for chunk in chunks]
    reach = max(part.shape[1] // 2 for part in parts)
    width = min(2 * reach + 1, points)
    starts = np.clip(centre - reach, 0, points - width)
    kept = np.zeros((length, width + 2 * reach))  # room on both sides for columns that do not exist, all zero
    for chunk, part in zip(chunks, parts, strict=True):
        own = part.shape[1] // 2
        columns = (centre - starts)[chunk, None] + np.arange(-own, own + 1) + reach
        np.put_along_axis(kept[chunk], columns, part, axis=1)
    kept = kept[:, reach : reach + width]
    return Band(starts, kept / kept.sum(axis=1, keepdims=True))


def _cholesky(interpolation: Band, length: int) -> NDArray[np.float64]:
    """Return L of U'U = L L', (length + 1, taps): row r holds L[r, r - k] at k. The last row, a unit, stands for all beyond."""
    taps = interpolation.weights.shape[1]
    gram = np.zeros((length, taps))  # U'U at [r, r - k]
    for k in range(taps):
        for i in range(k, taps):
            np.add.at(gram[:, k], interpolation.starts + i, interpolation.weights[:, i] * interpolation.weights[:, i - k])
    rows: list[list[float]] = []
    for r, row in enumerate(gram.tolist()):
        for k in range(min(taps - 1, r), 0, -1):
            other = rows[r - k]
            row[k] = (row[k] - sum(row[m] * other[m - k] for m in range(k + 1, taps))) / other[0]
        row[0] = math.sqrt(row[0] - sum(value * value for value in row[1:]))
        rows.append(row)
    return np.array([*rows, [1.0] + [0.0] * (taps - 1)])


def _inverse_rows(factor: NDArray[np.float64], own: NDArray[np.int64]) -> tuple[int, NDArray[np.float64]]:
    """Return rows ``own`` of (L L')^-1 as ``(offset of the first column from the diagonal, columns)``.

    Substitutes for all rows at once, one offset from the diagonal at a time, until what is left is below SOLVE_FADED.
    """
    beyond, taps = len(factor) - 1, factor.shape[1]
    forward: list[NDArray[np.float64]] = []
    while not _faded(forward, 0, taps):
        row = factor[np.minimum(own + len(forward), beyond)]
        right = np.full(len(own), 0.0 if forward else 1.0)
        for k in range(1, min(taps, len(forward) + 1)):
            right -= row[:, k] * forward[-k]
        forward.append(right / row[:, 0])
    solved: list[NDArray[np.float64]] = []  # from the last offset down
    offset = len(forward)
    while offset > 0 or not _faded(solved, len(forward) - 1, taps):
        offset -= 1
        at = own + offset
        right = forward[offset].copy() if offset >= 0 else np.zeros(len(own))
        for k in range(1, min(taps, len(solved) + 1)):
            right -= factor[np.clip(at + k, 0, beyond), k] * solved[-k]
        solved.append(np.where(at >= 0, right / factor[np.clip(at, 0, beyond), 0], 0.0))
    return offset, np.stack(solved[::-1], axis=1)


def _faded(columns: list[NDArray[np.float64]], peak: int, taps: int) -> bool:
    """Return whether nothing can grow any more out of the last ``taps`` of ``columns``, the largest of which is ``peak``."""
    if len(columns) <= peak + taps:
        return False
    return max(float(np.abs(column).max()) for column in columns[-taps:]) <= SOLVE_FADED * float(np.abs(columns[peak]).max())


def _around(centre: NDArray[np.int64], interpolation: Band, factor: NDArray[np.float64], chunk: slice) -> NDArray[np.float64]:
    """Return rows ``chunk`` of P = (U'U)^-1 U' around ``centre``: the fewest points that leave DROPPED_WEIGHT outside."""
    own = np.arange(chunk.start, chunk.stop)
    first, inverse = _inverse_rows(factor, own)
    points, taps = interpolation.weights.shape
    radius = math.ceil(max(-first, first + inverse.shape[1]) * points / (len(factor) - 1)) + taps
    column = centre[:, None] + np.arange(-radius, radius + 1)
    inside = (column >= 0) & (column < points)
    column = np.clip(column, 0, points - 1)
    at = interpolation.starts[column] - own[:, None] - first
    weights = np.zeros(column.shape)
    for k in range(taps):
        known = inside & (at + k >= 0) & (at + k < inverse.shape[1])
        value = np.take_along_axis(inverse, np.clip(at + k, 0, inverse.shape[1] - 1), axis=1)
        weights += np.where(known, value, 0.0) * interpolation.weights[column, k]
    paired = np.abs(weights[:, radius:])
    paired[:, 1:] += np.abs(weights[:, radius - 1 :: -1])
    outside = paired.sum(axis=1, keepdims=True) - np.cumsum(paired, axis=1)
    reach = int((outside > DROPPED_WEIGHT * paired.sum(axis=1, keepdims=True)).sum(axis=1).max())
    return weights[:, radius - reach : radius + reach + 1]
