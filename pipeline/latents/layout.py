"""How the bytes of a latent are laid out: what the picture is, and where its tiles are.

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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import DamagedLatent
from pipeline.core.records import Size

LEAST_TILE, LARGEST_TILE = 256, 4096
"""Sides of tiles that are read: smaller ones cost seconds a megapixel, larger ones memory."""

Window = tuple[slice, slice]
"""Rows and columns of an image, or of a tile."""

_MAGIC = b"\x8aDTL"
_VERSIONS: dict[np.dtype[Any], int] = {np.dtype(np.uint8): 5, np.dtype(np.uint16): 6}
_SEALED_WHOLE: dict[int, np.dtype[Any]] = {3: np.dtype(np.uint8), 4: np.dtype(np.uint16)}
_DTYPES: dict[int, np.dtype[Any]] = _SEALED_WHOLE | {version: dtype for dtype, version in _VERSIONS.items()}
_HEADER, _CRC = struct.Struct(">4sBIIIH"), struct.Struct(">I")


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


@dataclass(frozen=True)
class Header:
    """What a latent begins with: the version of the coding, the picture's size, the side of a tile, the quantiser's step."""

    version: int
    size: Size
    tile: int
    step: int

    @classmethod
    def of(cls, head: bytes) -> Header:
        """Return the header of a latent by its first bytes; raises DamagedLatent."""
        if not head.startswith(_MAGIC):
            raise DamagedLatent("it does not begin as one")
        if len(head) < _HEADER.size:
            raise DamagedLatent(f"it ends after {len(head)} bytes")
        _, version, height, width, tile, step = _HEADER.unpack_from(head)
        if version not in _DTYPES:
            raise DamagedLatent(f"version {version} of its coding was found, this program reads 3 to {max(_DTYPES)}")
        if not (height and width and step and LEAST_TILE <= tile <= LARGEST_TILE):
            raise DamagedLatent(f"no tiles of {tile} pixels and a step of {step} make up {width} x {height}")
        return cls(version, (height, width), tile, step)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the picture: uint8 or uint16."""
        return _DTYPES[self.version]

    @property
    def sealed_whole(self) -> bool:
        """Whether one check sum is over all of it."""
        return self.version in _SEALED_WHOLE

    @property
    def grid(self) -> Size:
        """How many rows and columns of tiles there are."""
        return math.ceil(self.size[0] / self.tile), math.ceil(self.size[1] / self.tile)

    @property
    def index_end(self) -> int:
        """Bytes up to the end of the index, and of the check sum behind it where it has one."""
        count = math.prod(self.grid)
        return _HEADER.size + (4 * count if self.sealed_whole else 8 * count + _CRC.size)


@dataclass(frozen=True, eq=False)
class Index:
    """Where a latent's tiles begin, and where the last one ends; the CRC-32 of each where they have one."""

    starts: NDArray[np.int64]
    sums: NDArray[np.uint32] | None

    @classmethod
    def of(cls, header: Header, head: bytes, length: int) -> Index:
        """Return the index of a latent of ``length`` bytes by those up to ``header.index_end``, all where it is sealed whole.

        Raises DamagedLatent.
        """
        seal = (length if header.sealed_whole else header.index_end) - _CRC.size
        if min(len(head), seal + _CRC.size) < header.index_end or seal < header.index_end - _CRC.size:
            raise DamagedLatent(f"its {length} bytes are fewer than its index takes")
        if head[seal : seal + _CRC.size] != _CRC.pack(zlib.crc32(memoryview(head)[:seal])):
            raise DamagedLatent(f"{'it does' if header.sealed_whole else 'its index does'} not have its check sum")
        count = math.prod(header.grid)
        numbers = np.frombuffer(head, ">u4", count if header.sealed_whole else 2 * count, _HEADER.size)
        lengths, sums = (numbers, None) if header.sealed_whole else (numbers[::2], numbers[1::2].astype(np.uint32))
        starts = header.index_end + np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
        end = seal if header.sealed_whole else length
        if starts[-1] != end:
            raise DamagedLatent(f"its tiles end at {starts[-1]} bytes, {end} are there")
        if sums is not None and sums[lengths == 0].any():
            raise DamagedLatent("a tile of no bytes has a check sum")
        return cls(starts, sums)
