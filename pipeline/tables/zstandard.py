"""Zstandard frames, one after the other, as a stream of what was compressed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import BinaryIO

import pyarrow as pa

from pipeline.core.errors import DamagedShard, PipelineError
from pipeline.tables.damage import BROKEN, sentence


def decompressed(file: BinaryIO, uri: str, *, size: int, piece: int) -> Iterator[bytes]:
    """Yield the first ``size`` bytes of what the frames from a file's position on hold, ``piece`` at a time.

    Memory is a piece and what the decoder needs. Raises DamagedShard where they hold less, and what ``file`` raises.
    """
    try:
        with closing(pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd")) as stream:
            while size > 0:
                data = stream.read(min(piece, size))
                if not data:
                    raise DamagedShard(uri, f"its Zstandard frames end {size} bytes early")
                size -= len(data)
                yield data
    except PipelineError:
        raise
    except BROKEN as error:
        raise DamagedShard(uri, sentence(error)) from None
