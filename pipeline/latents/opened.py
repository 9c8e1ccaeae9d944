"""A latent that is opened: its tiles by their numbers, read when they are touched."""

from __future__ import annotations

import threading
import zlib
from typing import Protocol

from pipeline.core.errors import DamagedLatent
from pipeline.core.records import Size
from pipeline.latents.layout import Header, Index, Window

HEAD_BYTES = 4096
"""Read at first: header and index of 130 megapixels."""

GAP_BYTES = 64 * 2**10
"""Between tiles that are read at once although what lies between them was not asked for: a request costs as much."""


class Stretch(Protocol):
    """Bytes, or something that reads them when it is sliced."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> bytes: ...


class OpenLatent:
    """A latent whose header and index are right; ``data`` may be bytes, or read by slices, when tiles stay that were read.

    Any thread may use it. Raises DamagedLatent, here and for tiles, where a byte is wrong or missing, or where the picture has
    another ``size``, (height, width), than is given; errors of the data's own pass through.
    """

    def __init__(self, data: Stretch, size: Size | None = None) -> None:
        head = data[:HEAD_BYTES]
        self.header = Header.of(head)
        if size not in (None, self.header.size):
            (height, width), (wanted_height, wanted_width) = self.header.size, size
            raise DamagedLatent(f"it is of {width} x {height} pixels, the picture has {wanted_width} x {wanted_height}")
        needed = len(data) if self.header.sealed_whole else self.header.index_end
        if len(head) < needed:
            head = data[:needed]
        self._index = Index.of(self.header, head, len(data))
        self._data: Stretch = head if len(head) == len(data) else data
        self._read, self._turn = dict[int, bytes](), threading.Lock()

    @property
    def held(self) -> int:
        """Bytes in memory of it."""
        index = self._index.starts.nbytes + (0 if self._index.sums is None else self._index.sums.nbytes)
        return index + (len(self._data) if isinstance(self._data, bytes) else sum(map(len, self._read.values())))

    def touched(self, window: Window) -> list[tuple[int, Window]]:
        """Return the tiles that a window touches and that are not empty: their numbers and where they are."""
        side, (height, width), columns = self.header.tile, self.header.size, self.header.grid[1]
        found = []
        for row in range(window[0].start // side, -(-window[0].stop // side)):
            for column in range(window[1].start // side, -(-window[1].stop // side)):
                if self._length(number := row * columns + column):
                    down = slice(row * side, min(row * side + side, height))
                    found.append((number, (down, slice(column * side, min(column * side + side, width)))))
        return found

    def fetch(self, window: Window) -> None:
        """Read the tiles that a window touches, each once, and at once those that lie side by side."""
        if isinstance(self._data, bytes):
            return
        starts = self._index.starts
        with self._turn:
            missing = [number for number, _ in self.touched(window) if number not in self._read]
            runs: list[list[int]] = []
            for number in missing:
                if runs and starts[number] - starts[runs[-1][-1] + 1] <= GAP_BYTES:
                    runs[-1].append(number)
                else:
                    runs.append([number])
            for run in runs:
                first = int(starts[run[0]])
                data = self._data[first : int(starts[run[-1] + 1])]
                for number in range(run[0], run[-1] + 1):
                    self._read[number] = self._checked(number, data[starts[number] - first : starts[number + 1] - first])

    def payload(self, number: int) -> bytes:
        """Return the bytes of a tile, which were fetched."""
        if isinstance(self._data, bytes):
            return self._checked(number, self._data[self._index.starts[number] : self._index.starts[number + 1]])
        return self._read[number]

    def _checked(self, number: int, payload: bytes) -> bytes:
        sums = self._index.sums
        if len(payload) != self._length(number) or (sums is not None and zlib.crc32(payload) != sums[number]):
            raise DamagedLatent(f"a tile of {self._length(number)} bytes does not have its check sum")
        return payload

    def _length(self, number: int) -> int:
        return int(self._index.starts[number + 1] - self._index.starts[number])
