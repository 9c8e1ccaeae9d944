"""What an archive is not; see the tree in :mod:`pipeline.core.errors`."""

from __future__ import annotations

from pipeline.core.errors import ArchiveError, UsageError


class NothingSelected(UsageError):
    """No entry of an archive matches what was asked for."""

    def __init__(self, uri: str, selection: str) -> None:
        super().__init__(uri, selection)
        self.uri, self.selection = uri, selection

    def __str__(self) -> str:
        return f"No entry of {self.uri} matches {self.selection}. `iarn inspect {self.uri} --entries` lists what is there."


class NothingWritten(UsageError):
    """An archive was begun, and none of its shards is written."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.uri = uri

    def __str__(self) -> str:
        return f"No shard of {self.uri} is written yet. The `iarn rescale` that began it goes on with the same command."


class NotAnArchive(ArchiveError):
    """There is no plan at a URI."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.uri = uri

    def __str__(self) -> str:
        return f"{self.uri} is not an archive: it has no plan.json. Give the destination of an `iarn rescale`."


class UnsupportedFormat(ArchiveError):
    """An archive of another format version."""

    def __init__(self, uri: str, found: str, expected: str) -> None:
        super().__init__(uri, found, expected)
        self.uri, self.found, self.expected = uri, found, expected

    def __str__(self) -> str:
        return f"{self.uri} has format version {self.found}; this program reads {self.expected}. Use the release that wrote it."


class ChecksumMismatch(ArchiveError):
    """Stored bytes are not the ones that were written."""

    def __init__(self, uri: str, algorithm: str, expected: str, found: str) -> None:
        super().__init__(uri, algorithm, expected, found)
        self.uri, self.algorithm, self.expected, self.found = uri, algorithm, expected, found

    def __str__(self) -> str:
        return (
            f"{self.uri} is damaged: {self.algorithm} {self.expected[:16]}… expected, {self.found[:16]}… found. "
            "Restore it from a copy, or remove it and its commit, and repeat the command that wrote it."
        )
