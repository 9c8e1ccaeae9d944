"""Every error this project raises on purpose.

    PipelineError
    ├── UsageError                  the request itself cannot be met (exit status 2)
    │   ├── InvalidOption           one option's value
    │   ├── PlanConflict            an archive was begun with other settings
    │   ├── EmptySource             nothing to rescale at a URI
    │   ├── NothingSelected         no entry matches what was asked for
    │   ├── NothingWritten          an archive was begun, and none of its shards is written
    │   ├── NoSuchEntry             no entry has a key; a KeyError as well
    │   ├── AmbiguousKey            several shards have an entry of one key; a KeyError as well
    │   ├── NotKept                 an entry does not keep what was asked of it
    │   └── NotRead                 an entry was read without what was asked of it
    ├── StoreError                  an object could not be read or written
    │   ├── NotFound
    │   ├── AlreadyExists
    │   ├── InvalidKey
    │   ├── AccessDenied
    │   ├── CredentialsMissing      none were found where the store is used
    │   ├── CredentialsRefused      not for one object alone: they have expired, or are wrong
    │   ├── StoreUnavailable
    │   └── SourceChanged           an object is no longer the one that was planned
    ├── ShardError                  a source shard could not be read
    │   ├── DamagedShard
    │   ├── UnsupportedShard
    │   └── NoImageColumn
    ├── ImageError                  one asset cannot be rescaled; it is kept as an original, with this as its reason
    │   ├── UndecodableImage
    │   ├── DecoderDied             it ended the process that decoded it
    │   ├── UnsupportedImage
    │   ├── ImageTooLarge
    │   ├── SizeNotReachable
    │   └── UnwritableImage         a restored picture does not fit the format asked for
    ├── ArchiveError                an archive is not what it should be
    │   ├── NotAnArchive
    │   ├── UnsupportedFormat
    │   ├── ChecksumMismatch
    │   ├── DamagedObject           a plan, a commit or a shard that cannot be read
    │   ├── DamagedEntry
    │   └── DamagedLatent           a latent by itself; who knows the key turns it into DamagedEntry
    ├── EngineError
    │   ├── InvalidWeights
    │   └── DeviceUnavailable
    ├── PoolError
    │   ├── ClusterUnavailable      no Ray to run on
    │   ├── TokenWanted             a cluster is joined with its token alone
    │   ├── ResourcesUnavailable    the cluster can never give what was asked for
    │   ├── WorkerNotStarted        actors do not come up
    │   ├── WorkerLost              an actor died under its shard
    │   └── GroupLost               workers that share their gradients died too often
    └── ServiceError                a service cannot answer a request now
        ├── Overloaded              others come first, or a restore was lost
        ├── NotReady                something is still being read
        ├── Replaced                an archive is another now than the one that was opened
        └── RanOutOfTime            an entry was not read or restored in time

An error carries its fields as attributes, hands all of them to ``Exception`` so that it survives pickling, and builds its
sentence in ``__str__``: what was found, what was expected, what to do.
"""

from __future__ import annotations


class PipelineError(Exception):
    """Root of the tree."""


class UsageError(PipelineError):
    """The request itself cannot be met."""


class InvalidOption(UsageError):
    """One option's value makes no sense."""

    def __init__(self, option: str, value: str, advice: str) -> None:
        super().__init__(option, value, advice)
        self.option, self.value, self.advice = option, value, advice

    def __str__(self) -> str:
        return f"{self.option} {self.value}: {self.advice}"


class PlanConflict(UsageError):
    """A destination was begun under a plan with other settings; ``differences`` are sentences, ``more`` another one."""

    def __init__(self, uri: str, differences: tuple[str, ...], more: str = "") -> None:
        super().__init__(uri, differences, more)
        self.uri, self.differences, self.more = uri, differences, more

    def __str__(self) -> str:
        return (
            f"{self.uri} was begun with other settings ({'; '.join(self.differences)}). "
            "Repeat the first command to resume it, or give another destination." + f" {self.more}" * bool(self.more)
        )


class EmptySource(UsageError):
    """Nothing to rescale at a URI, whatever ``others`` there are; ``why`` tells of one that could have been a source."""

    def __init__(self, uri: str, others: int = 0, why: str = "") -> None:
        super().__init__(uri, others, why)
        self.uri, self.others, self.why = uri, others, why

    def __str__(self) -> str:
        others = f"; --all-files would carry its {self.others} other files" if self.others else ""
        why = f" ({self.why})" if self.why else ""
        advice = "Give a folder, a prefix or a file that does."
        return f"{self.uri} holds no image, no .tar and no .parquet of images{why}{others}. {advice}"


class StoreError(PipelineError):
    """An object could not be read or written."""


class NotFound(StoreError):
    """No object, folder or bucket at a URI."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.uri = uri

    def __str__(self) -> str:
        return f"{self.uri} does not exist. Check the path, the bucket and the endpoint."


class AlreadyExists(StoreError):
    """An object to be created is there already; it was left as it is."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.uri = uri

    def __str__(self) -> str:
        return f"{self.uri} exists already and was not overwritten. Give another destination or remove it."


class InvalidKey(StoreError):
    """A key that a store cannot hold, or that would lead out of it."""

    def __init__(self, uri: str, key: str, advice: str) -> None:
        super().__init__(uri, key, advice)
        self.uri, self.key, self.advice = uri, key, advice

    def __str__(self) -> str:
        return f"{self.key!r} cannot be a key below {self.uri}: {self.advice}."


class AccessDenied(StoreError):
    """A store refuses an operation."""

    def __init__(self, uri: str, detail: str) -> None:
        super().__init__(uri, detail)
        self.uri, self.detail = uri, detail

    def __str__(self) -> str:
        return f"{self.uri} refuses access ({self.detail}). Check the credentials and their permissions."


class CredentialsMissing(StoreError):
    """No credentials were found in the process that uses a store, and it was not to do without."""

    def __init__(self, uri: str, detail: str) -> None:
        super().__init__(uri, detail)
        self.uri, self.detail = uri, detail

    def __str__(self) -> str:
        return (
            f"{self.uri}: no credentials were found ({self.detail}). Give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "AWS_PROFILE or a role where this runs; a public bucket needs none: --source-access unsigned, or --archive-access."
        )


class CredentialsRefused(StoreError):
    """A store does not take the credentials, whatever they are used for: expired, revoked or wrong."""

    def __init__(self, uri: str, detail: str) -> None:
        super().__init__(uri, detail)
        self.uri, self.detail = uri, detail

    def __str__(self) -> str:
        return f"{self.uri}: the credentials are refused ({self.detail}). With fresh ones the same command resumes."


class StoreUnavailable(StoreError):
    """A store failed, or gave other bytes than promised, after all retries."""

    def __init__(self, uri: str, detail: str) -> None:
        super().__init__(uri, detail)
        self.uri, self.detail = uri, detail

    def __str__(self) -> str:
        return f"{self.uri} could not be reached or read ({self.detail}). The same command resumes once it can."


class SourceChanged(StoreError):
    """An object is no longer the one that was planned."""

    def __init__(self, uri: str, expected: str, found: str) -> None:
        super().__init__(uri, expected, found)
        self.uri, self.expected, self.found = uri, expected, found

    def __str__(self) -> str:
        return (
            f"{self.uri} changed since the plan was made (ETag {self.expected} expected, {self.found} found). "
            "Put the planned object back, or rescale to a new archive."
        )


class ShardError(PipelineError):
    """A source shard could not be read."""


class DamagedShard(ShardError):
    """A tar or Parquet file is broken."""

    def __init__(self, uri: str, detail: str) -> None:
        super().__init__(uri, detail)
        self.uri, self.detail = uri, detail

    def __str__(self) -> str:
        return f"{self.uri} is damaged ({self.detail}). Assets before the damage are kept; fetch the file again for the rest."


class UnsupportedShard(ShardError):
    """A source shard of a form that is not read."""

    def __init__(self, uri: str, detail: str) -> None:
        super().__init__(uri, detail)
        self.uri, self.detail = uri, detail

    def __str__(self) -> str:
        return f"{self.uri} cannot be read: {self.detail}."


class NoImageColumn(ShardError):
    """A Parquet file has no column of images, or not the one that was named."""

    def __init__(self, uri: str, wanted: str | None, columns: tuple[str, ...]) -> None:
        super().__init__(uri, wanted, columns)
        self.uri, self.wanted, self.columns = uri, wanted, columns

    def __str__(self) -> str:
        missing = f"no column of images {self.wanted!r}" if self.wanted else "no column that holds images"
        return f"{self.uri} has {missing} among {', '.join(self.columns) or 'none'}. Name it with --image-column."


class ImageError(PipelineError):
    """One asset cannot be rescaled; it is kept as an original with this as its reason."""


class UndecodableImage(ImageError):
    """The bytes are no whole picture in a format that can be read."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def __str__(self) -> str:
        return f"cannot be decoded: {self.detail}"


class DecoderDied(ImageError):
    """The picture's bytes end the process that decodes them, or keep it for ever."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def __str__(self) -> str:
        return f"cannot be decoded: {self.detail}"


class UnsupportedImage(ImageError):
    """A sound picture of a kind that no decoder here takes."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def __str__(self) -> str:
        return f"not rescaled: {self.detail}, which is not decoded here"


class ImageTooLarge(ImageError):
    """More pixels than allowed; told from the header, before anything is decoded."""

    def __init__(self, width: int, height: int, limit: int) -> None:
        super().__init__(width, height, limit)
        self.width, self.height, self.limit = width, height, limit

    def __str__(self) -> str:
        return f"{self.width} x {self.height} pixels are more than the limit of {self.limit}; raise --pixel-limit to rescale it"


class SizeNotReachable(ImageError):
    """A size would enlarge the picture, or shrink it further than can be."""

    def __init__(self, width: int, height: int, lr_width: int, lr_height: int, advice: str) -> None:
        super().__init__(width, height, lr_width, lr_height, advice)
        self.width, self.height, self.lr_width, self.lr_height = width, height, lr_width, lr_height
        self.advice = advice

    def __str__(self) -> str:
        return f"not rescaled from {self.width} x {self.height} to {self.lr_width} x {self.lr_height}: {self.advice}"


class UnwritableImage(ImageError):
    """A restored picture does not fit the file format asked for."""

    def __init__(self, format: str, detail: str) -> None:
        super().__init__(format, detail)
        self.format, self.detail = format, detail

    def __str__(self) -> str:
        return f"cannot be written as {self.format}: {self.detail}; restore it as PNG"


class ArchiveError(PipelineError):
    """An archive is not what it should be."""


class DamagedEntry(ArchiveError):
    """A part of one entry cannot be decoded."""

    def __init__(self, key: str, part: str, detail: str) -> None:
        super().__init__(key, part, detail)
        self.key, self.part, self.detail = key, part, detail

    def __str__(self) -> str:
        return f"The {self.part} of {self.key} is damaged ({self.detail}). `iarn verify` shows how much of the archive is."


class DamagedObject(ArchiveError):
    """A plan, a commit or a shard of an archive cannot be read."""

    def __init__(self, uri: str, detail: str) -> None:
        super().__init__(uri, detail)
        self.uri, self.detail = uri, detail

    def __str__(self) -> str:
        return f"{self.uri} is damaged ({self.detail}). Restore it from a copy, or rescale its source again."


class DamagedLatent(ArchiveError):
    """A latent is damaged, cut off, or none at all; raised where the key of its entry is not known."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def __str__(self) -> str:
        return f"A latent is damaged ({self.detail})."


class EngineError(PipelineError):
    """The network cannot run."""


class InvalidWeights(EngineError):
    """A weights file is missing, broken, or not what its digest says."""

    def __init__(self, uri: str, detail: str) -> None:
        super().__init__(uri, detail)
        self.uri, self.detail = uri, detail

    def __str__(self) -> str:
        return f"Weights {self.uri} cannot be used: {self.detail}."


class DeviceUnavailable(EngineError):
    """The device asked for is not there."""

    def __init__(self, wanted: str, detail: str) -> None:
        super().__init__(wanted, detail)
        self.wanted, self.detail = wanted, detail

    def __str__(self) -> str:
        return f"Device {self.wanted} is not available ({self.detail}). Give --device cpu, or start where one is."
