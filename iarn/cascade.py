"""Scales beyond a network's reach: an LR restored step by step, each step's image the clean LR of the next.

The last step has the largest scale that the network reaches and every one before it likewise, the first what is left: so the
scale that may be dear is computed where there are the fewest pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

from iarn.lattice import axes_for

Size = tuple[int, int]


def cascade(size: Size, lr_size: Size, reach: int) -> tuple[Size, ...]:
    """Return the sizes (height, width) that an LR of ``lr_size`` is restored to one after the other, ``size`` the last.

    No step is above ``reach`` per axis; where one is enough, it is the only one. Raises ValueError where the LR is empty or
    larger than the image, or the reach below 2.
    """
    if reach < 2 or any(not 1 <= lr <= length for length, lr in zip(size, lr_size, strict=True)):
        raise ValueError(f"no steps of at most x{reach} lead from LR size {lr_size} to image size {size}")
    sizes = [size]
    while any(length > reach * lr for length, lr in zip(sizes[-1], lr_size, strict=True)):
        height, width = (max(lr, -(-length // reach)) for length, lr in zip(sizes[-1], lr_size, strict=True))
        sizes.append((height, width))
    return tuple(reversed(sizes))


def spanned(size: Size, lr_size: Size, strides: Sequence[int]) -> Size:
    """Return what the pixels of an LR span of its image, (height, width): ``size``, and last lines that repeat.

    ``strides`` are the network's, rising. In every step but an axis' first, samples are lattice points, or nothing is repeated:
    so spans are whole numbers.
    """
    spans, before = lr_size, lr_size
    for step in cascade(size, lr_size, strides[-1]):
        axes = axes_for(step, before, strides)
        height, width = (span * axis.span // axis.lr for span, axis in zip(spans, axes, strict=True))
        spans, before = (height, width), step
    return spans
