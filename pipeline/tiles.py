"""Images of any size as overlapping tiles, so that memory is bounded by a tile and not by the image.

A tile is given by what it yields (LR pixels when downscaling, image pixels when restoring) and by the LR window the network
has to see for that: the halo covers the network's receptive field, so a tiled result equals the untiled one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, product

from iarn.lattice import Axis

TILE_POINTS = 2048
"""Lattice points per axis that a tile yields, at most; a smaller lattice is one tile."""


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
        cuts = _cuts(axis.lr, axis.points, points)
        spans.append([Span(start=a, stop=b, first=max(0, a - halo), last=min(axis.lr, b + halo)) for a, b in cuts])
    return (Tile(rows=rows, columns=columns) for rows, columns in product(*spans))


def image_tiles(axes: tuple[Axis, Axis], halo: int, points: int = TILE_POINTS) -> Iterator[Tile]:
    """Cut the image into tiles for restoring."""
    spans = []
    for axis in axes:
        column = []
        for start, stop in _cuts(axis.length, axis.points, points):
            low, high = axis.point_range(start, stop)
            first, last = low // axis.stride - halo, -(-high // axis.stride) + halo
            column.append(Span(start=start, stop=stop, first=max(0, first), last=min(axis.lr, last)))
        spans.append(column)
    return (Tile(rows=rows, columns=columns) for rows, columns in product(*spans))


def _cuts(length: int, lattice: int, points: int) -> list[tuple[int, int]]:
    """Cut ``length`` into near-equal parts of at most ``points`` lattice points each."""
    count = min(length, -(-lattice // points))
    edges = [length * i // count for i in range(count + 1)]
    return list(pairwise(edges))
