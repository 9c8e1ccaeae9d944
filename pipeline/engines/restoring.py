"""What the network makes of entries' LRs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pipeline.core.errors import DamagedEntry, SizeNotReachable
from pipeline.core.records import Pixels, Size
from pipeline.engines.engine import Engine, Restore
from pipeline.engines.lr import LrToRestore
from pipeline.pictures.depth import in_16_bits
from pipeline.pictures.picture import size_of
from pipeline.pictures.region import Region


def restore_lr(engine: Engine, asked: LrToRestore) -> Pixels:
    """Return what the network makes of an entry's LR, at the original size; DamagedEntry where that cannot be it."""
    restored = restore_lrs(engine, [asked])[0]
    if isinstance(restored, DamagedEntry):
        raise restored
    return restored


def restore_lrs(engine: Engine, batch: Sequence[LrToRestore]) -> list[Pixels | DamagedEntry]:
    """Return what the network makes of each LR of a batch, or what is wrong with that one."""
    requests = [_request(engine, each) for each in batch]
    restored = iter(engine.restore_many([each for each in requests if isinstance(each, Restore)]))
    return [next(restored) if isinstance(each, Restore) else each for each in requests]


def _request(engine: Engine, asked: LrToRestore) -> Restore | DamagedEntry:
    entry, size, lr_size = asked.entry, asked.size, size_of(asked.lr)
    try:
        if min(size) < 1 or lr_size[0] > size[0] or lr_size[1] > size[1]:
            raise SizeNotReachable(lr_size[1], lr_size[0], size[1], size[0], "an LR is not larger than its image")
        engine.check_size(size, lr_size)
    except SizeNotReachable as error:
        return DamagedEntry(entry.key, "size", str(error))
    seen = None if asked.region is None else engine.regions(size, lr_size, asked.region)[0]
    found = restore_of(asked.lr, size, grey=bool(entry.grey), clean=bool(entry.clean), bits=entry.bits or 8, seen=seen)
    return replace(found, region=asked.region)


def restore_of(lr: Pixels, size: Size, *, grey: bool, clean: bool, bits: int, seen: Region | None = None) -> Restore:
    """Return what asks for the image of ``size``, and of 8 or 16 ``bits``, that an LR (h, w, 3), uint8, stands for.

    Where only a region of the LR is ``seen``, what is elsewhere may be anything.
    """
    return Restore(lr=in_16_bits(lr, clean=clean, region=seen) if bits == 16 else lr, size=size, grey=grey, clean=clean)
