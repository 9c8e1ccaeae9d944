"""What a command was asked for, whole and checked; light to import, so that what cannot be meant is refused at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pipeline.cluster.options import PoolOptions
from pipeline.core.errors import InvalidOption
from pipeline.core.options import RestoreOptions
from pipeline.core.records import Settings
from pipeline.stores.base import Access


@dataclass(frozen=True, kw_only=True)
class RescaleJob:
    """What one ``iarn rescale`` was asked for; ``weights`` None takes those that ship with the package.

    ``source_access`` and ``archive_access``, here and below, are how their buckets are asked; no part of the plan.
    ``sniff`` says whether files whose names do not tell are looked into when the source is listed; None: local ones. ``anew``
    gives up another plan that stands in the archive, where no shard of it was written: no other job may be at work there.
    ``add`` takes in what the source has and the plan lacks; ``check_source`` lists the source of an archive that stands and
    tells what changed in it, None: where it is local.
    ``json_lines`` here and below: True for JSON lines, False for people, None by whether standard error is a terminal.
    """

    source: str
    archive: str
    settings: Settings
    weights: Path | None = None
    source_access: Access = Access.SIGNED
    device: str = "auto"
    threads: int = 2
    pool: PoolOptions = field(default_factory=PoolOptions)
    json_lines: bool | None = None
    sniff: bool | None = None
    anew: bool = False
    add: bool = False
    check_source: bool | None = None

    def __post_init__(self) -> None:
        if self.add and self.check_source is False:
            raise InvalidOption("--no-check-source", "with --add", "what is new is found by listing the source again.")


@dataclass(frozen=True, kw_only=True)
class RestoreJob:
    """What one ``iarn restore`` was asked for."""

    archive: str
    destination: str
    options: RestoreOptions
    archive_access: Access = Access.SIGNED
    device: str = "auto"
    threads: int = 2
    pool: PoolOptions = field(default_factory=PoolOptions)
    json_lines: bool | None = None


@dataclass(frozen=True, kw_only=True)
class VerifyJob:
    """What one ``iarn verify`` was asked for; ``sample`` is the share of entries to restore."""

    archive: str
    sample: float = 0.05
    seed: int = 0
    archive_access: Access = Access.SIGNED
    source_access: Access = Access.SIGNED
    device: str = "auto"
    pool: PoolOptions = field(default_factory=PoolOptions)
    json_lines: bool | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.sample <= 1:
            raise InvalidOption("--sample", str(self.sample), "give a share from 0 to 1.")


@dataclass(frozen=True, kw_only=True)
class ReportJob:
    """What one ``iarn report`` was asked for; ``sample`` bounds the shards looked at, ``worst`` the entries shown."""

    archive: str
    out: Path = Path("report.html")
    as_json: bool = False
    sample: int | None = None
    worst: int = 12
    archive_access: Access = Access.SIGNED
    source_access: Access = Access.SIGNED
    device: str = "auto"

    def __post_init__(self) -> None:
        for option, value in (("--sample", self.sample), ("--worst", self.worst)):
            if value is not None and value < (option == "--sample"):
                raise InvalidOption(option, str(value), "give a count.")
