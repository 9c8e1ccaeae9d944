"""What figures were measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def processor() -> str:
    """Return the name of the CPU."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def described(chip: str) -> str:
    """Return the name of a chip with the machine's CPUs and the versions of Python and torch."""
    import torch  # here, for a benchmark of memory may do without

    return f"{chip}, {os.cpu_count()} CPUs, Python {platform.python_version()}, torch {torch.__version__}"
