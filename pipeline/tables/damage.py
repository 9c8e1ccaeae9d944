"""What pyarrow raises on damaged bytes, and a short sentence of it."""

from __future__ import annotations

import pyarrow as pa

# pyarrow raises these on a broken file: its own, OSError for Thrift, the others from values that its own types then refuse.
BROKEN = (pa.ArrowException, OSError, ValueError, KeyError, IndexError, TypeError, OverflowError, MemoryError)


def sentence(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
