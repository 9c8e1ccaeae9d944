"""What the benchmarks that write a page of docs/ share: telling how far they are, tables, and the command they were run by."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run that writes a page below ``out``, begun at a moment of the monotonic clock."""

    out: Path
    begun: float

    def say(self, text: str) -> None:
        """Tell a person what was done and how far the run is, in minutes."""
        print(f"[{(time.monotonic() - self.begun) / 60:6.1f} min] {text}", file=sys.stderr, flush=True)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (headings, ["---"] * len(headings), *rows))


def bold(text: str, when: bool) -> str:
    """Return ``text``, in bold where it is to be noticed."""
    return f"**{text}**" if when else text


def place(path: Path, word: str) -> str:
    """Return how a page writes a path: as it is inside the current folder, by ``word`` elsewhere."""
    return word if path.is_absolute() or ".." in path.parts else str(path)
