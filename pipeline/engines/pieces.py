"""Tiles of several images in one batch: of one shape, so each is filled up to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor

from iarn.encoding import Place, Window
from pipeline.core.records import Pixels, Size
from pipeline.engines.tiles import Tile
from pipeline.pictures.depth import is_deep

Asked = TypeVar("Asked", covariant=True)


@dataclass(frozen=True, kw_only=True)
class Piece(Generic[Asked]):
    """A tile of the image of a request, and the shape in LR pixels at which it is computed."""

    request: Asked
    place: Place
    tile: Tile
    shape: Size
    result: Pixels

    @property
    def deep(self) -> bool:
        """Whether what is computed has 16 bits a channel."""
        return is_deep(self.result)

    @property
    def stride(self) -> int:
        """Lattice points per LR pixel and axis."""
        return self.place.axes[0].stride


def filled_up(window: Window, least: int) -> Size:
    """Return the shape of a window that has at least ``least`` rows and columns."""
    top, bottom, left, right = window
    return max(bottom - top, least), max(right - left, least)


def framed(pictures: list[Tensor], shape: Sequence[int]) -> Tensor:
    """Make a batch of ``pictures`` (1, 3, h, w), filled up to ``shape``."""
    if len(pictures) == 1 and pictures[0].shape[-2:] == tuple(shape):
        return pictures[0]
    batch = pictures[0].new_zeros(len(pictures), *shape, 3).permute(0, 3, 1, 2)
    for place, picture in zip(batch, pictures, strict=True):
        place[:, : picture.shape[-2], : picture.shape[-1]] = picture[0]
    return batch
