"""Tiles: they yield everything once, see what they need, and stay small."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iarn.lattice import Axis, axes_for
from pipeline.engines.tiles import TILE_POINTS, Tile, image_tiles, lr_tiles


@st.composite
def cuts(draw: st.DrawFn) -> tuple[tuple[Axis, Axis], int, int]:
    """Draw the axes of an image, a halo and the points of a tile."""
    size = draw(st.tuples(st.integers(1, 160), st.integers(1, 160)))
    lr = tuple(draw(st.integers(-(-length // 6), length)) for length in size)
    return axes_for(size, (lr[0], lr[1]), (1, 2, 3, 4, 6)), draw(st.integers(0, 20)), draw(st.integers(1, 90))


def assert_covers(tiles: list[Tile], height: int, width: int, axes: tuple[Axis, Axis]) -> None:
    """Every place is yielded exactly once, and every window is a part of the LR."""
    times = np.zeros((height, width), int)
    for tile in tiles:
        times[tile.rows.start : tile.rows.stop, tile.columns.start : tile.columns.stop] += 1
        top, bottom, left, right = tile.window
        assert 0 <= top < bottom <= axes[0].lr
        assert 0 <= left < right <= axes[1].lr
    assert (times == 1).all()


@given(cuts())
def test_lr_tiles_cover_the_lr_once(drawn: tuple[tuple[Axis, Axis], int, int]) -> None:
    """Protects downscaling of large images: every LR pixel comes from one tile, that sees it and its halo."""
    axes, halo, points = drawn
    assert_covers(lr_tiles(axes, halo, points), axes[0].lr, axes[1].lr, axes)
    for tile in lr_tiles(axes, halo, points):
        for span, axis in ((tile.rows, axes[0]), (tile.columns, axes[1])):
            assert span.first == max(0, span.start - halo)
            assert span.last == min(axis.lr, span.stop + halo)
            roomy = points >= 4 * halo * axis.stride + 4 * axis.stride
            assert not roomy or (span.last - span.first) * axis.stride <= points


@pytest.mark.slow
@given(cuts())
def test_image_tiles_cover_the_image_once(drawn: tuple[tuple[Axis, Axis], int, int]) -> None:
    """Protects restoring of large images: every pixel comes from one tile, that sees its points and their halo."""
    axes, halo, points = drawn
    assert_covers(image_tiles(axes, halo, points), axes[0].length, axes[1].length, axes)
    for tile in image_tiles(axes, halo, points):
        for span, axis in ((tile.rows, axes[0]), (tile.columns, axes[1])):
            low, high = axis.point_range(span.start, span.stop)
            assert span.first == 0 or (span.first + halo) * axis.stride <= low
            assert span.last == axis.lr or (span.last - halo) * axis.stride >= high


def test_a_small_image_is_one_tile() -> None:
    """Protects the common case: no work is done twice for an image whose lattice fits a tile."""
    axes = axes_for((TILE_POINTS, 700), (TILE_POINTS // 2, 350))
    for tiles in (list(lr_tiles(axes, 9)), list(image_tiles(axes, 9))):
        assert len(tiles) == 1
        assert tiles[0].window == (0, TILE_POINTS // 2, 0, 350)


@pytest.mark.parametrize("points", [512, 1024, TILE_POINTS])
@pytest.mark.parametrize("scale", [1.0, 2.0, 2.6, 3.0, 4.0])
def test_windows_stay_small(scale: float, points: int) -> None:
    """Protects bounded memory and fixed shapes: what a tile sees, halo and reach of P included, is what was asked for."""
    length = 12_000
    lr = round(length / scale)
    axes = axes_for((length, length), (lr, lr), (1, 2, 3, 4))
    stride, halo = axes[0].stride, 42
    for tiles in (lr_tiles(axes, halo, points), image_tiles(axes, halo, points)):
        for tile in tiles:
            top, bottom, left, right = tile.window
            assert max(bottom - top, right - left) * stride <= points
