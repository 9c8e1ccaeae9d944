"""What a driver sends to its actors: small, picklable, free of credentials, and known without PyTorch.

A worker and its network are loaded where a work starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.core.options import RestoreOptions
from pipeline.stores.store import Access

if TYPE_CHECKING:
    from pipeline.rescale import RescaleWorker
    from pipeline.restore import RestoreWorker
    from pipeline.verify import VerifyWorker


@dataclass(frozen=True, kw_only=True)
class RescaleWork:
    """Rescale shards of one archive.

    ``source_access`` is how the source's bucket is asked. ``halvings`` is how often tiles and windows are halved, where memory
    was too small for all of them.
    """

    archive: str
    source_access: Access = Access.SIGNED
    device: str = "auto"
    threads: int = 2
    halvings: int = 0

    def start(self) -> RescaleWorker:
        """Open the archive and load its network; raises what those raise."""
        from pipeline.rescale import RescaleWorker

        return RescaleWorker(**vars(self))


@dataclass(frozen=True, kw_only=True)
class RestoreWork:
    """Restore shards of one archive.

    ``archive_access`` is how the archive's bucket is asked. ``twins`` are keys of loose files by names that several shards
    have, where the plan was added to (outputs/twins.py). ``halvings`` is how often tiles and windows are halved, where memory
    was too small for all of them.
    """

    archive: str
    destination: str
    options: RestoreOptions
    archive_access: Access = Access.SIGNED
    device: str = "auto"
    threads: int = 2
    twins: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    halvings: int = 0

    def start(self) -> RestoreWorker:
        """Open the archive and load its network; raises what those raise."""
        from pipeline.restore import RestoreWorker

        return RestoreWorker(**vars(self))


@dataclass(frozen=True, kw_only=True)
class VerifyWork:
    """Check shards of one archive; ``sample`` is the share of entries to restore.

    ``archive_access`` and ``source_access`` are how their buckets are asked. ``halvings`` is how often tiles are halved, where
    memory was too small for them.
    """

    archive: str
    sample: float
    seed: int = 0
    archive_access: Access = Access.SIGNED
    source_access: Access = Access.SIGNED
    device: str = "auto"
    halvings: int = 0

    def start(self) -> VerifyWorker:
        """Open the archive and load its network; raises what those raise."""
        from pipeline.verify import VerifyWorker

        return VerifyWorker(**vars(self))
