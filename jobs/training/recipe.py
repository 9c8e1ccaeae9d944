"""A training recipe from a TOML file and options, checked."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from iarn.network import NetworkConfig
from iarn.recipe import TrainingConfig
from pipeline.core.errors import InvalidOption


def read_config(path: Path | None, **changes: Any) -> TrainingConfig:
    """Read a recipe (TOML; the fields of TrainingConfig, ``network`` a table) and apply ``changes`` that are not None.

    Raises InvalidOption where the file cannot be read, has a field that does not exist, or a value of another type.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:  # ValueError: no UTF-8, or no TOML
            detail = getattr(error, "strerror", None) or str(error)
            raise InvalidOption("--config", str(path), f"it cannot be read as TOML ({detail}).") from None
    values |= {name: value for name, value in changes.items() if value is not None}
    network = values.pop("network", {})
    if not isinstance(network, dict):
        raise InvalidOption("--config", str(path), "network has to be a table, [network].")
    unknown = sorted((values.keys() - _names(TrainingConfig)) | (network.keys() - _names(NetworkConfig)))
    if unknown:
        raise InvalidOption("--config", str(path), f"a recipe has no setting {', '.join(unknown)}.")
    wrong = [*_of_other_type(values, TrainingConfig()), *_of_other_type(network, NetworkConfig())]
    if wrong:
        raise InvalidOption("--config", str(path or "(none)"), f"{'; '.join(wrong)}.")
    try:
        return TrainingConfig(**_with_tuples(values), network=NetworkConfig(**_with_tuples(network)))
    except (TypeError, ValueError) as error:
        raise InvalidOption("--config", str(path or "(none)"), str(error)) from None


def _with_tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _of_other_type(values: dict[str, Any], defaults: object) -> Iterator[str]:
    """Yield a sentence on each value whose type is not its default's; an integer may stand for a float."""
    for name, value in values.items():
        match getattr(defaults, name):
            case tuple():
                kind, wanted = (str, "a list of names") if name == "only" else (int, "a list of integers")
                fits = isinstance(value, list) and all(type(each) is kind for each in value)
            case bool():
                fits, wanted = type(value) is bool, "true or false"
            case float():
                fits, wanted = type(value) in (int, float) and math.isfinite(value), "a number"
            case _:  # by type() and not isinstance: true is an int as well
                fits, wanted = type(value) is int, "an integer"
        if not fits:
            yield f"{name} has to be {wanted}, not {value!r}"


def _names(kind: type[TrainingConfig] | type[NetworkConfig]) -> set[str]:
    return {field.name for field in fields(kind)}
