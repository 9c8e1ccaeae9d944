"""Images of any size as overlapping tiles, so that memory is bounded by a tile and not by the image.

A tile is given by what it yields (LR pixels when downscaling, image pixels when restoring) and by the LR window the network
has to see for that: the halo covers the network's receptive field, so a tiled result equals the untiled one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise, product

from iarn.lattice import Axis

TILE_POINTS = 4096
"""Lattice points per axis that the network sees at once, halo included; a lattice no larger is one tile."""


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


def lr_tiles(axes: tuple[Axis, Axis], halo: int, points: int = TILE_POINTS) -> list[Tile]:
    """Cut the LR into tiles for downscaling, whose windows are no larger than ``points`` where the halo leaves room."""

    def seen(axis: Axis, start: int, stop: int) -> Span:
        return Span(start=start, stop=stop, first=max(0, start - halo), last=min(axis.lr, stop + halo))

    spans = [_spans(axis, axis.lr, points, seen) for axis in axes]
    return [Tile(rows=rows, columns=columns) for rows, columns in product(*spans)]


def image_tiles(axes: tuple[Axis, Axis], halo: int, points: int = TILE_POINTS) -> list[Tile]:
    """Cut the image into tiles for restoring, as :func:`lr_tiles` does the LR."""

    def seen(axis: Axis, start: int, stop: int) -> Span:
        low, high = axis.point_range(start, stop)
        first, last = low // axis.stride - halo, -(-high // axis.stride) + halo
        return Span(start=start, stop=stop, first=max(0, first), last=min(axis.lr, last))

    spans = [_spans(axis, axis.length, points, seen) for axis in axes]
    return [Tile(rows=rows, columns=columns) for rows, columns in product(*spans)]


def _spans(axis: Axis, length: int, points: int, seen: Callable[[Axis, int, int], Span]) -> list[Span]:
    """Cut ``length``, the axis in LR or image pixels, into the fewest near-equal parts whose windows have ``points`` at most.

    Where the halo leaves no room, parts have an eighth of that and windows are as large as they have to be.
    """
    for count in range(-(-axis.points // max(points, axis.stride)), length + 1):
        edges = [length * i // count for i in range(count + 1)]
        spans = [seen(axis, start, stop) for start, stop in pairwise(edges)]
        widest = max(span.last - span.first for span in spans) * axis.stride
        if widest <= points or axis.points <= count * max(points // 8, axis.stride):
            break
    return spans
