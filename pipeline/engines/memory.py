"""Memory of large images, back to the system as soon as it is free."""

from __future__ import annotations

import ctypes
from contextlib import suppress

LARGE = 1792**2


def give_back(points: int) -> None:
    """Give the system what work on an image of so many pixels, or points of its lattice, has freed, if that is much.

    glibc would keep some 500 to 700 MB of it, while the next step takes as much again.
    """
    if points > LARGE:
        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)
