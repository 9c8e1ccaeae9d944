"""A region of a picture: as users write it, and as what numpy cuts out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from operator import index
from typing import NamedTuple

from pipeline.core.errors import InvalidOption
from pipeline.core.records import Size

_ADVICE = "give x,y,width,height in pixels of the upright picture, as in 0,0,640,480."


class Region(NamedTuple):
    """A rectangle of an upright picture, in its pixels: ``x`` from the left, ``y`` from the top, width and height."""

    x: int
    y: int
    width: int
    height: int

    @classmethod
    def of(cls, values: Iterable[int], *, option: str = "region") -> Region:
        """Return the region of four whole numbers; raises InvalidOption where they are none of any picture."""
        try:
            region = cls(*map(index, values))
        except TypeError:
            raise InvalidOption(option, str(values), _ADVICE) from None
        if min(region.x, region.y) < 0 or min(region.size) < 1:
            raise InvalidOption(option, str(region), f"x and y are from 0, width and height from 1; {_ADVICE}")
        return region

    @classmethod
    def parse(cls, text: str, *, option: str = "region") -> Region:
        """Return the region of ``x,y,width,height``; raises InvalidOption."""
        if re.fullmatch(r"-?\d{1,9}(,-?\d{1,9}){3}", text, re.ASCII) is None:
            raise InvalidOption(option, text, _ADVICE)
        return cls.of(map(int, text.split(",")), option=option)

    @classmethod
    def whole(cls, size: Size) -> Region:
        """Return all of a picture of a size."""
        return cls(0, 0, size[1], size[0])

    @property
    def size(self) -> Size:
        """Height and width."""
        return self.height, self.width

    @property
    def rows(self) -> slice:
        """From the upper edge to the lower one."""
        return slice(self.y, self.y + self.height)

    @property
    def columns(self) -> slice:
        """From the left edge to the right one."""
        return slice(self.x, self.x + self.width)

    @property
    def window(self) -> tuple[slice, slice]:
        """What cuts the region out of pixels (H, W, ...)."""
        return self.rows, self.columns

    def within(self, size: Size) -> Region:
        """Return the region itself; raises InvalidOption where a picture of ``size``, (height, width), does not hold it."""
        if self.x + self.width > size[1] or self.y + self.height > size[0]:
            raise InvalidOption("region", str(self), f"it reaches beyond the picture, which is {size[1]} x {size[0]} pixels.")
        return self

    def grown(self, margin: int, size: Size) -> Region:
        """Return the region with ``margin`` more on each side, as far as a picture of ``size`` has it."""
        left, top = max(0, self.x - margin), max(0, self.y - margin)
        right, bottom = min(size[1], self.x + self.width + margin), min(size[0], self.y + self.height + margin)
        return Region(left, top, right - left, bottom - top)

    def __str__(self) -> str:
        return f"{self.x},{self.y},{self.width},{self.height}"
