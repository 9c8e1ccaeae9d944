"""What `iarn submit` was asked for, parsed and searched for credentials; light to import.

What is submitted is written down by Ray and shown to whoever reads its dashboard, so no credentials go with it: a node has its
own, by its environment or its role.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.core.errors import InvalidOption
from pipeline.stores.base import without_secrets

VERBS = ("rescale", "restore", "verify")
ADVICE = "holds what looks like a credential, and Ray would show it; give it to the nodes by their environment or role."

_SECRET_NAME = re.compile(r"secret|password|passwd|token|credential|access_?key|private_?key", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A command to run as a job: ``verb`` and its ``arguments``, and what Ray is told beside them."""

    verb: str
    arguments: tuple[str, ...]
    runtime_env: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    cpus: float | None = None
    memory: int | None = None
    resources: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.verb not in VERBS:
            raise InvalidOption("command", self.verb, f"give one of {', '.join(VERBS)}.")
        if any(word == "--address" or word.startswith("--address=") for word in self.arguments):
            raise InvalidOption("--address", "given twice", "a submitted job uses the cluster that it is submitted to.")
        for word in self.arguments:
            _refuse_secret("argument", word)
        for name, value in self.metadata.items():
            _refuse_secret("--metadata", value, name)
        _refuse_secrets_within("--runtime-env", self.runtime_env)

    @property
    def entrypoint(self) -> str:
        """The command line that the head runs."""
        words = ["iarn", self.verb, *self.arguments, "--address", "auto"]
        return shlex.join([*words, *([] if "--json" in self.arguments else ["--json"])])


def check_dashboard(address: str) -> None:
    """Raise InvalidOption where an address is no URL of a dashboard, or holds a credential."""
    _refuse_secret("--address", address)
    if not address.startswith(("http://", "https://")):
        raise InvalidOption("--address", address, "give the URL of the head's dashboard, as in http://head:8265.")


def read_runtime_env(path: Path | None) -> dict[str, Any]:
    """Return Ray's runtime environment from a JSON file; raises InvalidOption."""
    if path is None:
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        detail = getattr(error, "strerror", None) or str(error)
        raise InvalidOption("--runtime-env", str(path), f"it cannot be read ({detail}); give a file of JSON.") from None
    if not isinstance(value, dict) or not isinstance(value.get("env_vars", {}), dict):
        raise InvalidOption("--runtime-env", str(path), "give a JSON object, as Ray's documentation of runtime_env has it.")
    return value


def pairs(option: str, words: list[str] | None) -> dict[str, str]:
    """Parse ``name=value`` words; raises InvalidOption."""
    parted = {word: word.partition("=") for word in words or ()}
    for word, (name, sign, _) in parted.items():
        if not sign or not name:
            raise InvalidOption(option, without_secrets(word), "give name=value.")
    return {name: value for name, _, value in parted.values()}


def amounts(option: str, words: list[str] | None) -> dict[str, float]:
    """Parse ``name=number`` words; raises InvalidOption."""
    try:
        return {name: float(value) for name, value in pairs(option, words).items()}
    except ValueError:
        raise InvalidOption(option, ", ".join(words or ()), "give name=number.") from None


def _refuse_secret(where: str, value: str, name: str = "") -> None:
    """Raise InvalidOption for a value that is, or a name that says it has, a credential; the value is not repeated."""
    if without_secrets(value) != value:
        raise InvalidOption(where, without_secrets(value), ADVICE)
    if _SECRET_NAME.search(name) and value:
        raise InvalidOption(where, name, ADVICE)


def _refuse_secrets_within(where: str, value: Any, name: str = "") -> None:
    if isinstance(value, Mapping):
        for key, each in value.items():
            _refuse_secrets_within(where, each, str(key))
    elif isinstance(value, list):
        for each in value:
            _refuse_secrets_within(where, each, name)
    else:
        _refuse_secret(where, str(value), name)
