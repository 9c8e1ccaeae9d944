"""What a reader or a service cannot answer; see the tree in :mod:`pipeline.core.errors`."""

from __future__ import annotations

from pipeline.core.errors import PipelineError, UsageError


class NoSuchEntry(UsageError, KeyError):
    """No entry of an archive has a key."""

    def __init__(self, uri: str, key: str) -> None:
        super().__init__(uri, key)
        self.uri, self.key = uri, key

    def __str__(self) -> str:
        return f"No entry of {self.uri} has the key {self.key!r}. `iarn inspect {self.uri} --entries` lists what is there."


class AmbiguousKey(UsageError, KeyError):
    """Several shards of an archive have an entry of one key; ``shards`` are their ids."""

    def __init__(self, uri: str, key: str, shards: tuple[str, ...]) -> None:
        super().__init__(uri, key, shards)
        self.uri, self.key, self.shards = uri, key, shards

    def __str__(self) -> str:
        some = ", ".join(self.shards[:3]) + (f" and {len(self.shards) - 3} more" if len(self.shards) > 3 else "")
        return f"{self.uri} has {len(self.shards)} entries of the key {self.key!r}, in the shards {some}. Name one of them too."


class NotKept(UsageError):
    """An entry does not keep what was asked of it."""

    def __init__(self, key: str, part: str, advice: str) -> None:
        super().__init__(key, part, advice)
        self.key, self.part, self.advice = key, part, advice

    def __str__(self) -> str:
        return f"{self.key} keeps no {self.part}: {self.advice}."


class NotRead(UsageError):
    """An entry was read without parts that what was asked of it takes."""

    def __init__(self, key: str, parts: tuple[str, ...]) -> None:
        super().__init__(key, parts)
        self.key, self.parts = key, parts

    def __str__(self) -> str:
        return (
            f"{self.key} was read without its {', '.join(self.parts)}. Name them among the parts to read, or leave parts out."
        )


class ServiceError(PipelineError):
    """A service cannot answer a request now; the same request may well be answered later."""


class Overloaded(ServiceError):
    """There is no room for a request."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def __str__(self) -> str:
        return f"The service cannot take this request now ({self.detail}). Ask again in a moment."


class Replaced(ServiceError):
    """An archive is another now than the one that was opened at its URI."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.uri = uri

    def __str__(self) -> str:
        return f"{self.uri} was made anew since it was opened, and is opened again. Ask again shortly."


class NotReady(ServiceError):
    """The list of an archive's entries is still being read."""

    def __init__(self, archive: str, done: int, count: int) -> None:
        super().__init__(archive, done, count)
        self.archive, self.done, self.count = archive, done, count

    def __str__(self) -> str:
        return f"The entries of {self.archive} are still being listed ({self.done} of {self.count} shards). Ask again shortly."


class RanOutOfTime(ServiceError):
    """An entry was not read or restored in the time that a request has."""

    def __init__(self, key: str, seconds: int) -> None:
        super().__init__(key, seconds)
        self.key, self.seconds = key, seconds

    def __str__(self) -> str:
        return f"{self.key} could not be read or restored within {self.seconds} s. Ask again later; --seconds gives more."
