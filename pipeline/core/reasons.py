"""Sentences of errors and notes by class: a bounded set of names for metrics and counts, told from the sentences themselves.

An archive's commits hold sentences alone, and whatever is counted from them has to be countable again on a resumed run. Every
error of the tree has a class of its own, and so has every other sentence that an entry or a failure may have as its reason.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

OTHER = "other"

FILE_KEPT = "its file is kept"
"""How the reason begins of an entry that keeps its source's file, beside its LR or without one, though its tier need not."""

_OPTIONS = (
    "AWS configuration|access|archive|argument|columns|command|destination|format|images?|object|path|quality|region|rotation"
    "|scale|size|source|store|target size|token"
)
"""What InvalidOption tells of beside options of the command line."""

REASONS = {
    # what ended the work on a shard
    "stalled": r"^It finished no image within",
    "memory": (
        r"^\w*MemoryError\b"
        r"|^(?:\w*Error: |The worker of shard .* died \().*(?:out of memory|allocate memory|low on memory|memory pressure)"
    ),
    "worker-lost": r"^The worker of shard .* died \(",
    "unforeseen": r"^\w+: .*\(at [^()]+:\d+\)|^\w*(?:Error|Exception)\b",
    # why one image is not rescaled, or not written
    "decoder-died": r"^cannot be decoded: its decoding (?:ends the process|took more than)",
    "undecodable": r"^cannot be decoded:",
    "unsupported": r"^not rescaled: .*(?:which is not decoded here|8-bit grey, RGB and palette pictures of one frame are)",
    "too-large": r"^\d+ x \d+ pixels are more than the limit of \d+",
    "size-not-reachable": r"^not rescaled from \d+ x \d+ to",
    "below-floor": r"^(?:not rescaled|its file is kept): .*to the floor of",
    "does-not-pay": r"^(?:not rescaled: |its file is kept: its LR )",
    "beyond-restoring": r"^its file is kept: .*, which no restore brings back",
    "written-otherwise": r"^written as ",
    "unwritable": r"^cannot be written as",
    "kept-whole": r"^its file is kept(?: beside its LR)?: a restore would lack",
    # what was odd about an asset: one of several notes, perhaps
    "other-file": r"(?:^|; )kept as it is: no image",
    "no-image": r"(?:^|; )(?:no image beside|row \d+ has (?:the path .* but )?no image)",
    "too-many-bytes": r"(?:^|; )its \d+ bytes are more than an entry can hold",
    "not-given": r"(?:^|; )the store lists this object and does not give it:",
    "broken-link": r"(?:^|; )the tar holds a hard link here, to .*, which is no file",
    "no-file": r"(?:^|; )the tar holds .* here, not a file;",
    "cut-short": r"(?:^|; )the tar is damaged behind it",
    "sidecar-left-out": r"(?:^|; )its sidecar .* was left out:",
    "renamed": r"(?:^|; )stored under .*: (?:the name .* is not a safe|another asset of this shard has the name)",
    # what was wrong with an object
    "store-unavailable": r" could not be reached or read \(.*\)\. The same command",
    "access-denied": r" refuses access \(.*\)\. Check",
    "credentials-missing": r": no credentials were found \(",
    "credentials-refused": r": the credentials are refused \(",
    "not-found": r" does not exist\. Check",
    "exists": r" exists already and was not overwritten\. ",
    "invalid-key": r" cannot be a key below .*: ",
    "source-changed": r" changed since the plan was made \(ETag",
    "damaged-shard": r" is damaged \(.*\)\. Assets before the damage",
    "damaged-object": r" is damaged \(.*\)\. Restore it from a copy",
    "damaged-entry": r"^The .* of .* is damaged \(",
    "damaged-latent": r"^A latent is damaged \(",
    "checksum-mismatch": r" is damaged: .* expected, .* found\. ",
    "no-image-column": r" has no column (?:of images|that holds images)",
    "unsupported-shard": r" cannot be read: ",
    "not-an-archive": r" is not an archive: it has no plan\.json\.",
    "unsupported-format": r" has format version .*; this program reads ",
    # what verifying found
    "entries-missing": r"^\d+ entries found, \d+ committed",
    "other-source": r"^its source is not the one that was rescaled",
    "floor-missed": r"^it (?:restores to|is stored with) .*, below the floor of",
    "restores-worse": r"^it restores to .* dB, .* dB are stored|^its pixels come back at",
    # what kept a job, a command or a request from being done
    "invalid-weights": r"^Weights .* cannot be used: ",
    "device-unavailable": r"^Device .* is not available \(",
    "cluster-unavailable": r"^The Ray cluster at .* cannot be joined \(|^Ray could not be started here \(",
    "token-wanted": r"^The Ray cluster at .* wants its token \(",
    "resources-unavailable": r"^The job asks for .*, the cluster has ",
    "worker-not-started": r"^A worker could not be started \(",
    "group-lost": r"^The workers of the training failed \(",
    "plan-conflict": r" was begun with other settings \(",
    "empty-source": r" holds no image, no \.tar and no \.parquet of images",
    "nothing-written": r"^No shard of .* is written yet\.",
    "nothing-selected": r"^No entry of .* matches ",
    "no-such-entry": r"^No entry of .* has the key ",
    "ambiguous-key": r" entries of the key .*, in the shards ",
    "not-kept": r" keeps no [\w' -]+: ",
    "not-read": r" was read without its .*\. Name them among the parts",
    "overloaded": r"^The service cannot take this request now \(",
    "replaced": r" was made anew since it was opened, ",
    "not-ready": r"^The entries of .* are still being listed \(",
    "out-of-time": r" could not be read or restored within \d+ s\. ",
    "invalid-option": rf"^(?:--[a-z][a-z-]*|{_OPTIONS}) .*: ",
}
"""Classes in the order in which they are tried, and how their sentences are told: by what stands around the names in them."""

_PATTERNS = {name: re.compile(pattern, re.DOTALL) for name, pattern in REASONS.items()}


def reason_class(sentence: str) -> str:
    """Return the class of a failure's or an original's reason; ``other`` where it is none of those known."""
    return next((name for name, pattern in _PATTERNS.items() if pattern.search(sentence)), OTHER)


def by_class(sentences: Iterable[str]) -> dict[str, int]:
    """Return how many sentences there are of each class, the most frequent first."""
    return dict(Counter(map(reason_class, sentences)).most_common())
