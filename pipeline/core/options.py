"""What restores are asked for and may be; light to import, so that a command refuses before torch and Ray are loaded."""

from __future__ import annotations

import fnmatch
import hashlib
import json
from dataclasses import asdict, dataclass
from enum import StrEnum

from pipeline.core.errors import InvalidOption
from pipeline.core.records import Size

SOURCE_FORMAT = "source"
FORMATS = (SOURCE_FORMAT, "png", "jpeg", "webp", "avif")


class OutputKind(StrEnum):
    """What a restore writes."""

    FILES = "files"
    TAR = "tar"
    PARQUET = "parquet"


@dataclass(frozen=True, kw_only=True)
class RestoreOptions:
    """What a restore writes; with the archive it decides every byte.

    ``scale`` divides the original size, of all or of a ``region`` (x, y, width, height), ``max_side`` bounds it; at most one is
    set. ``keys`` and ``pattern`` (a glob) select entries, ``shards`` shards by id; None selects all. ``lr`` writes stored LRs.
    """

    output: OutputKind = OutputKind.FILES
    format: str = SOURCE_FORMAT
    quality: int = 95
    scale: float | None = None
    max_side: int | None = None
    region: tuple[int, int, int, int] | None = None
    lr: bool = False
    use_latent: bool = True
    keys: frozenset[str] | None = None
    pattern: str | None = None
    shards: frozenset[str] | None = None

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise InvalidOption("--format", self.format, f"give one of {', '.join(FORMATS)}.")
        if not 1 <= self.quality <= 100:
            raise InvalidOption("--quality", str(self.quality), "give 1 to 100.")
        if self.scale is not None and not 1e-9 <= self.scale <= 1e9:
            raise InvalidOption("--scale", str(self.scale), "give a number above 0; 2 is half the original size.")
        if self.max_side is not None and self.max_side < 1:
            raise InvalidOption("--max-side", str(self.max_side), "give a count of pixels from 1.")
        if self.scale is not None and self.max_side is not None:
            raise InvalidOption("--scale", str(self.scale), "give --scale or --max-side, not both.")

    @property
    def resized(self) -> bool:
        """Whether images come back at another size than the original, or a region of them."""
        return any(value is not None for value in (self.scale, self.max_side, self.region))

    @property
    def wanted(self) -> frozenset[str] | str | None:
        """Which entries of a shard are asked for, by keys or by a glob; None for all."""
        keys, pattern = self.keys, self.pattern
        if keys is not None and pattern is not None:
            return frozenset(key for key in keys if fnmatch.fnmatchcase(key, pattern))
        return keys if keys is not None else pattern

    def size_for(self, original: Size) -> Size:
        """Return the size to write for an image of ``original`` size, (height, width) both."""
        longest = max(original)
        factor = 1 / self.scale if self.scale is not None else min(1.0, (self.max_side or longest) / longest)
        return max(1, round(original[0] * factor)), max(1, round(original[1] * factor))

    def digest(self, archive: str) -> str:
        """Return what names this restore of the archive whose plan has the digest ``archive``."""
        values = {name: sorted(value) if isinstance(value, frozenset) else value for name, value in asdict(self).items()}
        values = values if self.region is not None else {name: values[name] for name in values if name != "region"}
        return hashlib.sha256(json.dumps([archive, values], sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a service gives at most of one image, in pixels."""

    largest_side: int = 16_384
    most_pixels: int = 100_000_000
