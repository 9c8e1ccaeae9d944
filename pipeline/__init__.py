"""Archives from Python: what users import, and nothing is loaded before it is used.

pipeline.open_archive(uri)   an archive's entries by key, their LRs, and restored pictures
pipeline.ArchiveDataset      an archive's LRs as a PyTorch dataset
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.reading.dataset import ArchiveDataset
    from pipeline.reading.reader import open_archive

__all__ = ["ArchiveDataset", "open_archive"]


def __getattr__(name: str) -> Any:
    """Load what is asked for; raises AttributeError for any other name."""
    if name == "ArchiveDataset":
        return import_module("pipeline.reading.dataset").ArchiveDataset
    if name == "open_archive":
        return import_module("pipeline.reading.reader").open_archive
    raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
