"""The LR of an entry: its pixels, and what is asked of the network for them; known without PyTorch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline.core.errors import DamagedEntry, UndecodableImage
from pipeline.core.records import Entry, Pixels, Size
from pipeline.pictures import lr_codec
from pipeline.pictures.region import Region


@dataclass(frozen=True)
class LrToRestore:
    """An entry with its LR's pixels (h, w, 3), uint8, and the region that is wanted; what is restored has the entry's depth."""

    entry: Entry
    lr: Pixels
    region: Region | None = None

    @property
    def size(self) -> Size:
        """Of the whole image, (height, width)."""
        return self.entry.height or 0, self.entry.width or 0

    @property
    def pixels(self) -> int:
        """Pixels that are restored."""
        return math.prod(self.size if self.region is None else self.region.size)


def decode_lr(entry: Entry) -> tuple[Pixels, Pixels | None]:
    """Return the LR's pixels (h, w, 3) and alpha (h, w); DamagedEntry where they cannot be decoded."""
    if entry.lr is None:
        raise DamagedEntry(entry.key, "LR", "the entry has none")
    try:
        return lr_codec.decode_lr(entry.lr, size=(entry.lr_height or 0, entry.lr_width or 0))
    except UndecodableImage as error:
        raise DamagedEntry(entry.key, "LR", error.detail) from None
