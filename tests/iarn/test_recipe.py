"""Recipes: the rate they set, and what makes no sense is refused before the first step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from iarn.network import NetworkConfig
from iarn.recipe import TrainingConfig
from jobs.training.recipe import read_config
from pipeline.core.errors import InvalidOption
from tests.support.networks import SMALL, THIRDS


@pytest.mark.parametrize(
    "fields",
    [
        {"strides": (5,)},
        {"strides": (1, 2)},
        {"only": ("C3",)},
        {"only": ("A3",)},
        {"strides": (3, 4), "only": ("A3",)},
    ],
)
def test_strides_and_stages_that_are_not_there_are_refused(fields: dict[str, object]) -> None:
    """Protects long runs: strides that the network lacks, and steps that nothing learns from, are refused before the first."""
    with pytest.raises(ValueError, match=r"strides are some of \(2, 3, 4, 6, 8\)"):
        TrainingConfig(network=THIRDS, **fields)  # type: ignore[arg-type]


def test_the_rate_rises_stays_and_falls() -> None:
    """Protects the schedule: up over the warm-up, flat, and by a half cosine to almost nothing at the end."""
    config = TrainingConfig(steps=1000, warmup=100, decay=0.6, rate=1e-3)
    rates = [config.rate_at(step) for step in range(1000)]
    assert rates[0] == pytest.approx(1e-5)
    assert rates[99] == rates[399] == pytest.approx(1e-3)
    assert rates[700] == pytest.approx(5e-4)
    assert rates[999] < 1e-7
    assert np.all(np.diff(rates[:100]) > 0)
    assert np.all(np.diff(rates[400:]) <= 0)
    assert TrainingConfig(warmup=0, rate=1e-3).rate_at(0) == 1e-3


@pytest.mark.parametrize("fields", [{"steps": 0}, {"batch": 0}, {"lattice": 31}, {"decay": 0.0}, {"decay": 1.1}])
def test_a_recipe_that_makes_no_sense_is_refused(fields: dict[str, float]) -> None:
    """Protects long runs: a recipe that cannot work is refused before the first step."""
    with pytest.raises(ValueError, match="Training needs"):
        TrainingConfig(network=SMALL, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "fields",
    [
        {"kept": -0.1},
        {"smooth": 1.1},
        {"ema": -1.0},
        {"asymmetric": 0.6, "whole": 0.5},
        {"kept": 0.6, "clean": 0.5},
        {"rate": -1e-3},
        {"clip": 0.0},
    ],
)
def test_shares_lie_between_none_and_all(fields: dict[str, float]) -> None:
    """Protects long runs: a share below nothing or above everything, or a negative rate, is refused before the first step."""
    with pytest.raises(ValueError, match="A recipe's shares"):
        TrainingConfig(network=SMALL, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"# caf\xe9\nsteps = 5", "utf-8"),
        (b'rate = "fast"', "rate has to be a number, not 'fast'"),
        (b"lattice = 112.5", "lattice has to be an integer, not 112.5"),
        (b"batch = true", "batch has to be an integer, not True"),
        (b"ema = false", "ema has to be a number, not False"),
        (b"only = [1]", "only has to be a list of names, not"),
        (b"strides = ['3']", "strides has to be a list of integers, not"),
        (b"[network]\nclean = 1", "clean has to be true or false, not 1"),
        (b"[network]\nblocks = 3", "blocks has to be a list of integers, not 3"),
        (b"[network]\nblocks = [1, 2.5]", "blocks has to be a list of integers"),
    ],
)
def test_a_recipe_file_of_wrong_content_is_refused(tmp_path: Path, text: bytes, found: str) -> None:
    """Protects the user of a recipe from a traceback, at once or after a night: each value is of its setting's type."""
    path = tmp_path / "recipe.toml"
    path.write_bytes(text)
    with pytest.raises(InvalidOption, match=found):
        read_config(path)
    path.write_text("rate = 1\nsteps = 7\n[network]\nblocks = [1, 1]\n", encoding="utf-8")
    assert read_config(path) == TrainingConfig(rate=1.0, steps=7, network=NetworkConfig(blocks=(1, 1)))
    path.write_text("[network]\nclean = true\n", encoding="utf-8")
    assert read_config(path).network.clean
    path.write_text("strides = [3]\nonly = ['A3']\n[network]\nthirds = [2]\n", encoding="utf-8")
    assert read_config(path) == TrainingConfig(strides=(3,), only=("A3",), network=NetworkConfig(thirds=(2,)))
