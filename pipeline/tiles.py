"""Images of any size as overlapping tiles, so that memory is bounded by a tile and not by the image.

A tile is given by what it yields (LR pixels when downscaling, image pixels when restoring) and by the LR window the network
has to see for that: the halo covers the network's receptive field, so a tiled result equals the untiled one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, product

from iarn.lattice import Axis

TILE_POINTS = 1792
"""Lattice points per axis that the network sees at once, halo included; a lattice no larger is one tile.

About 1 GB at work on a CPU, with the shipped network in float32."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """One axis of a tile: ``start:stop`` of what it yields, ``first:last`` of the LR pixels the network sees."""

    start: int
    stop: int
    first: int
    last: int


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One tile; ``window`` is what the network sees, as top, bottom, left, right in LR pixels."""

    rows: Span
    columns: Span

    @property
    def window(self) -> tuple[int, int, int, int]:
        return self.rows.first, self.rows.last, self.columns.first, self.columns.last


def lr_tiles(axes: tuple[Axis, Axis], halo: int, points: int = TILE_POINTS) -> Iterator[Tile]:
    """Cut the LR into tiles for downscaling."""
    spans = []
    for axis in axes:
        cuts = _cuts(axis.lr, axis, halo, points)
        spans.append([Span(start=a, stop=b, first=max(0, a - halo), last=min(axis.lr, b + halo)) for a, b in cuts])
    return (Tile(rows=rows, columns=columns) for rows, columns in product(*spans))


def image_tiles(axes: tuple[Axis, Axis], halo: int, points: int = TILE_POINTS) -> Iterator[Tile]:
    """Cut the image into tiles for restoring."""
    spans = []
    for axis in axes:
        column = []
        for start, stop in _cuts(axis.length, axis, halo, points):
            low, high = axis.point_range(start, stop)
            first, last = low // axis.stride - halo, -(-high // axis.stride) + halo
            column.append(Span(start=start, stop=stop, first=max(0, first), last=min(axis.lr, last)))
        spans.append(column)
    return (Tile(rows=rows, columns=columns) for rows, columns in product(*spans))


def _cuts(length: int, axis: Axis, halo: int, points: int) -> list[tuple[int, int]]:
    """Cut ``length``, the axis in LR or image pixels, into near-equal parts that leave room for the halo."""
    room = points if axis.points <= points else max(points - 2 * halo * axis.stride, points // 2, axis.stride)
    count = min(length, -(-axis.points // room))
    edges = [length * i // count for i in range(count + 1)]
    return list(pairwise(edges))
