"""What pyarrow raises on damaged bytes, and a short sentence of it."""

from __future__ import annotations

import pyarrow as pa

BROKEN = (pa.ArrowException, OSError, ValueError, KeyError, IndexError, TypeError, OverflowError, MemoryError)
"""What pyarrow raises on a broken file: its own, OSError for Thrift, the others for values that its own types then refuse."""


def sentence(error: BaseException) -> str:
    """Return the first line of an error's text, of 300 characters at most, or the name of its class."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
