"""How the bytes of a latent are laid out: what the picture is, where its tiles are, and the tiles.

    magic  version  height  width  tile  step | bytes, CRC-32 of each tile | CRC-32 of all before it | tiles, row by row
    4s     u8       u32     u32    u32   u16  | u32, u32                   | u32                     |        (big-endian)

``version`` is 5 for pictures of 8 bits a channel and 6 for those of 16. Every byte is under a check sum that stands before the
tiles, so that some can be read without the others. In versions 3 and 4, of before, an index of lengths alone is followed by the
tiles, and one check sum of everything ends them: they are read whole.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, Protocol

import numpy as np

from pipeline.core.errors import DamagedLatent
from pipeline.core.records import Size

LEAST_TILE, LARGEST_TILE = 256, 4096
"""Sides of tiles that are read: smaller ones cost seconds a megapixel, larger ones memory."""

Window = tuple[slice, slice]
"""Rows and columns of an image, or of a tile."""

_MAGIC = b"\x8aDTL"
_VERSIONS: dict[np.dtype[Any], int] = {np.dtype(np.uint8): 5, np.dtype(np.uint16): 6}
_READ_WHOLE: dict[np.dtype[Any], int] = {np.dtype(np.uint8): 3, np.dtype(np.uint16): 4}
_DTYPES = {version: dtype for versions in (_VERSIONS, _READ_WHOLE) for dtype, version in versions.items()}
_HEADER, _CRC = struct.Struct(">4sBIIIH"), struct.Struct(">I")
_HEAD_BYTES = 4096  # header and index of 130 megapixels, so that one read does for nearly all


class Stretch(Protocol):
    """Bytes, or something that reads them when it is sliced."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> bytes: ...


def pack(dtype: np.dtype[Any], size: Size, tile: int, step: int, tiles: Sequence[bytes]) -> bytes:
    """Return the latent of a picture of ``size``, (height, width), in tiles of a side, row by row."""
    index = [number for payload in tiles for number in (len(payload), zlib.crc32(payload))]
    head = _HEADER.pack(_MAGIC, _VERSIONS[dtype], *size, tile, step) + struct.pack(f">{len(index)}I", *index)
    return b"".join((head, _CRC.pack(zlib.crc32(head)), *tiles))


def windows(size: Size, tile: int) -> Iterator[Window]:
    """Yield the tiles of an image of ``size``, row by row; those at the far edges are smaller."""
    for top in range(0, size[0], tile):
        for left in range(0, size[1], tile):
            yield slice(top, min(top + tile, size[0])), slice(left, min(left + tile, size[1]))


class Layout:
    """A latent that is opened: its ``version``, the picture's ``size`` and ``dtype``, the side of a ``tile``, the ``step``.

    Tiles go by their number. Of a stretch that is no ``bytes`` those that were read are kept; any thread may ask for them.
    Raises DamagedLatent, here and for tiles, where a byte is wrong or missing; errors of the stretch pass through.
    """

    def __init__(self, data: Stretch) -> None:
        head = data[:_HEAD_BYTES]
        if not head.startswith(_MAGIC):
            raise DamagedLatent("it does not begin as one")
        if len(head) < _HEADER.size + _CRC.size:
            raise DamagedLatent(f"it ends after {len(head)} bytes")
        _, self.version, height, width, self.tile, self.step = _HEADER.unpack_from(head)
        if self.version not in _DTYPES:
            raise DamagedLatent(f"version {self.version} of its coding was found, this program reads 3 to {max(_DTYPES)}")
        self.dtype, self.size = _DTYPES[self.version], (height, width)
        sane = LEAST_TILE <= self.tile <= LARGEST_TILE and self.step
        count = math.ceil(height / self.tile) * math.ceil(width / self.tile) if sane else 0

        whole = self.version in _READ_WHOLE.values()
        columns = 1 if whole else 2
        seal = len(data) - _CRC.size if whole else _HEADER.size + 4 * columns * count
        if len(head) < min(seal + _CRC.size, len(data)):
            head = data[: seal + _CRC.size]
        if head[seal : seal + _CRC.size] != _CRC.pack(zlib.crc32(memoryview(head)[:seal])):
            what = f"its {len(data)} bytes do" if whole else "its index does"
            raise DamagedLatent(f"{what} not have the right check sum")
        if not count or seal < _HEADER.size + 4 * columns * count:
            raise DamagedLatent(f"no tiles of {self.tile} pixels and a step of {self.step} make up {width} x {height}")
        index = struct.unpack_from(f">{columns * count}I", head, _HEADER.size)
        begin, end = (_HEADER.size + 4 * count, seal) if whole else (seal + _CRC.size, len(data))
        self._starts: list[int] = list(accumulate(index[::columns], initial=begin))
        if self._starts[-1] != end:
            raise DamagedLatent(f"its tiles end at {self._starts[-1]} bytes, {end} are there")
        self._sums = None if whole else index[1::columns]
        self._data: Stretch = head if len(head) == len(data) else data
        self._read = dict[int, bytes]()

    @property
    def held(self) -> int:
        """What is in memory of it."""
        return len(self._data) if isinstance(self._data, bytes) else sum(map(len, self._read.values()))

    def touched(self, window: Window) -> list[tuple[int, Window]]:
        """Return the tiles that a window touches and that are not empty: their numbers and where they are."""
        placed = enumerate(windows(self.size, self.tile))
        return [(number, place) for number, place in placed if self._length(number) and _touch(place, window)]

    def read(self, numbers: Iterable[int]) -> None:
        """Read tiles that are not in memory yet, at once where they lie side by side."""
        if isinstance(self._data, bytes):
            return
        runs: list[list[int]] = []
        for number in sorted(set(numbers) - self._read.keys()):
            if runs and self._starts[number] == self._starts[runs[-1][-1] + 1]:
                runs[-1].append(number)
            else:
                runs.append([number])
        for run in runs:
            first = self._starts[run[0]]
            data = self._data[first : self._starts[run[-1] + 1]]
            for number in run:
                self._read[number] = data[self._starts[number] - first : self._starts[number + 1] - first]

    def payload(self, number: int) -> bytes:
        """Return the bytes of a tile that is in memory."""
        if isinstance(self._data, bytes):
            found = self._data[self._starts[number] : self._starts[number + 1]]
        else:
            found = self._read[number]
        if self._sums is not None and zlib.crc32(found) != self._sums[number]:
            raise DamagedLatent(f"a tile of {self._length(number)} bytes does not have its check sum")
        return found

    def _length(self, number: int) -> int:
        return self._starts[number + 1] - self._starts[number]


def _touch(one: Window, other: Window) -> bool:
    return all(bool(a.start < b.stop and b.start < a.stop) for a, b in zip(one, other, strict=True))
