"""Sentences of errors by class: a bounded set of names for metrics and counts, told from the sentences themselves.

An archive's commits hold sentences alone, and whatever is counted from them has to be countable again on a resumed run.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

OTHER = "other"

REASONS = {
    "stalled": r"^It finished no image within",
    "undecodable": r"^cannot be decoded:",
    "unsupported": r"^not rescaled: .*8-bit grey, RGB and palette pictures of one frame are",
    "too-large": r"pixels are more than the limit of \d+",
    "size-not-reachable": r"^not rescaled from \d+ x \d+ to",
    "below-floor": r"to the floor of|below the floor of",
    "does-not-pay": r"^not rescaled: ",
    "written-otherwise": r"^written as ",
    "unwritable": r"^cannot be written as",
    "kept-whole": r"^its file is kept beside its LR",
    "other-file": r"kept as it is: no image",
    "no-image": r"no image",
    "renamed": r"^its name|renamed",
    "memory": r"out of memory|OutOfMemoryError|MemoryError|allocate memory|low on memory",
    "worker-lost": r"^The worker of shard .* died",
    "store-unavailable": r"could not be reached or read \(",
    "access-denied": r"refuses access \(",
    "not-found": r" does not exist\. ",
    "source-changed": r"changed since the plan was made",
    "exists": r"exists already and was not overwritten",
    "damaged": r" is damaged|^A latent is damaged",
    "plan-conflict": r"was begun with other settings",
}
"""Classes in the order in which they are tried, and how their sentences are told."""

_PATTERNS = {name: re.compile(pattern, re.DOTALL) for name, pattern in REASONS.items()}


def reason_class(sentence: str) -> str:
    """Return the class of a failure's or an original's reason; ``other`` where it is none of those known."""
    return next((name for name, pattern in _PATTERNS.items() if pattern.search(sentence)), OTHER)


def by_class(sentences: Iterable[str]) -> dict[str, int]:
    """Return how many sentences there are of each class, the most frequent first."""
    return dict(Counter(map(reason_class, sentences)).most_common())
