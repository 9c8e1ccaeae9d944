"""Images of any size as overlapping tiles, so that memory is bounded by a tile and not by the image.

A tile is given by what it yields (LR pixels when downscaling, image pixels when restoring) and by the LR window the network
has to see for that: the halo covers the network's receptive field, so a tiled result equals the untiled one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise, product

from iarn.lattice import CPU_BLOCK_ROWS, Axis
from pipeline.pictures.region import Region

TILE_POINTS = 4096
"""Lattice points per axis that the network sees at once, halo included; a lattice no larger is one tile."""

EDGE = CPU_BLOCK_ROWS
"""Where pixels are resampled, tiles of a restore end at multiples of this, unless they are small: a CPU multiplies so many rows
of a band at once, and where they begin decides the order of sums. So in whatever tile a pixel is, its last bit is the same."""

LEAST = 128
"""LR pixels that a region is widened to per axis, where there are as many: torch computes convolutions of 20,480 inputs
and fewer in another way, whose last bits differ."""

LEAST_POINTS = 32 * EDGE
"""Lattice points per axis below which tiles are small."""


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

    return _tiles([_spans(axis, slice(0, axis.lr), axis.points, points, seen) for axis in axes])


def image_tiles(axes: tuple[Axis, Axis], halo: int, points: int = TILE_POINTS, *, region: Region | None = None) -> list[Tile]:
    """Cut the image, or a ``region`` of it and somewhat more, into tiles for restoring, as :func:`lr_tiles` does the LR."""

    def seen(axis: Axis, start: int, stop: int) -> Span:
        return _seen(axis, slice(start, stop), halo)

    spans = []
    for axis, part in zip(axes, _widened(axes, region or Region.whole((axes[0].length, axes[1].length))), strict=True):
        own = -(-axis.points * (part.stop - part.start) // axis.length)
        edge = 1 if axis.aligned or points < LEAST_POINTS else EDGE
        spans.append(_spans(axis, part, own, points, seen, edge))
    return _tiles(spans)


def seen_region(axes: tuple[Axis, Axis], halo: int, region: Region) -> Region:
    """Return the region of the LR that the tiles of a ``region`` of the image see."""
    rows, columns = (_seen(axis, part, halo) for axis, part in zip(axes, _widened(axes, region), strict=True))
    return Region(columns.first, rows.first, columns.last - columns.first, rows.last - rows.first)


def _widened(axes: tuple[Axis, Axis], region: Region) -> list[slice]:
    """Return rows and columns around a region, such that its values are those of the whole to the last bit: see EDGE, LEAST."""
    found = []
    for axis, part in zip(axes, region.window, strict=True):
        edge, least = 1 if axis.aligned else EDGE, math.ceil(LEAST * axis.scale)
        start = max(0, min(part.start, part.stop - least)) // edge * edge
        stop = -(-max(part.stop, start + least) // edge) * edge
        found.append(slice(start, min(stop, axis.length)))
    return found


def _seen(axis: Axis, part: slice, halo: int) -> Span:
    """Return the LR pixels that the network has to see for ``part`` of the image."""
    low, high = axis.point_range(part.start, part.stop)
    first, last = low // axis.stride - halo, -(-high // axis.stride) + halo
    return Span(start=part.start, stop=part.stop, first=max(0, first), last=min(axis.lr, last))


def _tiles(spans: list[list[Span]]) -> list[Tile]:
    return [Tile(rows=rows, columns=columns) for rows, columns in product(*spans)]


def _spans(axis: Axis, part: slice, own: int, points: int, seen: Callable[[Axis, int, int], Span], edge: int = 1) -> list[Span]:
    """Cut ``part`` of an axis, in LR or image pixels, into the fewest near-equal spans whose windows have ``points`` at most.

    Those of the part itself are ``own``; spans end at multiples of ``edge``. Where the halo leaves no room, they have an eighth
    of the points and windows are as large as they have to be.
    """
    length = part.stop - part.start
    for count in range(-(-own // max(points, axis.stride)), length + 1):
        edges = [part.start, *(part.start + length * i // count // edge * edge for i in range(1, count)), part.stop]
        spans = [seen(axis, start, stop) for start, stop in pairwise(edges)]
        widest = max(span.last - span.first for span in spans) * axis.stride
        if widest <= points or own <= count * max(points // 8, axis.stride):
            break
    return spans
