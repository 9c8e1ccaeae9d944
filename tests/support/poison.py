"""Pictures that end, or never leave, the process that decodes them: what a fault in a codec does, as no file at hand does it.

``install`` has the decoder of this process, and of every process that it starts, fall for them.
"""

from __future__ import annotations

import ctypes
import sys
import time
from pathlib import Path
from typing import Any

from pipeline.decoders import decoding
from pipeline.pictures.picture import Picture

DEADLY = b"this picture ends its decoder"
ENDLESS = b"this picture keeps its decoder for ever"


def install() -> None:
    """Poison this process, and those that it starts by Python's own `sitecustomize`."""
    sound = decoding.decode

    def decode(data: bytes, **options: Any) -> Picture:
        if data.endswith(DEADLY):
            ctypes.string_at(0)  # a real segmentation fault
        while data.endswith(ENDLESS):
            time.sleep(0.1)
        return sound(data, **options)

    decoding.decode = decode
    beside = str(Path(__file__).with_name("poisoned"))
    if beside not in sys.path:
        sys.path.insert(0, beside)
