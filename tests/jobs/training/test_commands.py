"""`iarn train` and `iarn evaluate` as they are typed: what they print, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support import workshop
from tests.support.in_process import iarn, refused


@pytest.mark.slow
def test_evaluate_prints_figures(tmp_path: Path, weights: Path) -> None:
    """Protects `evaluate`: a table and JSON of the same figures, over the images that are large enough."""
    source = workshop.as_folder(tmp_path / "source", workshop.samples(3))
    table = iarn("evaluate", source, "--scales", "2,2x3", "--weights", weights, "--device", "cpu")
    assert table.status == 0, table.err
    assert [line.split("|")[1].strip() for line in table.out.splitlines()] == ["scale", "---", "x2", "x2x3"]
    scores = json.loads(iarn("evaluate", source, "--scales", "2", "--weights", weights, "--device", "cpu", "--json").out)
    assert scores[0]["images"] == 3
    assert 5 < scores[0]["psnr_y"] < 60
    for scales, words in (("2,,3", "give numbers from 1"), ("0.5", "give numbers from 1"), ("8", "4 is the largest scale")):
        assert words in refused(2, "evaluate", source, "--scales", scales, "--weights", weights, "--device", "cpu")
    (tmp_path / "dot").mkdir()
    (tmp_path / "dot" / "dot.png").write_bytes(workshop.picture(5, 5))
    assert "at least one of 12 x 12" in refused(2, "evaluate", tmp_path / "dot", "--weights", weights, "--device", "cpu")


@pytest.mark.parametrize(
    ("recipe", "options", "words"),
    [
        ("steps = 4\nstep = 3\n", [], "a recipe has no setting step"),
        ("steps = 'four'\n", [], "--config"),
        ("steps =", [], "it cannot be read as TOML"),
        (None, [], "it cannot be read as TOML"),
        ("", ["--steps", "0"], "needs steps and batch of at least 1"),
        ("", ["--eval-steps", "0"], "--eval-steps 0: give a number from 1"),
        ("", ["--precision", "int3"], "--precision int3: give auto, bfloat16 or float32"),
    ],
)
def test_a_senseless_training_is_refused(tmp_path: Path, recipe: str | None, options: list[str], words: str) -> None:
    """Protects a training's first minute: a recipe that means nothing is a sentence, not a run with defaults."""
    if recipe is not None:
        (tmp_path / "recipe.toml").write_text(recipe)
    arguments = ("train", tmp_path, "--out", tmp_path / "run", "--config", tmp_path / "recipe.toml", "--device", "cpu")
    assert words in refused(2, *arguments, *options)


def test_a_device_that_is_not_there_stops_training(tmp_path: Path) -> None:
    """Protects against a run that silently takes the CPU."""
    source = workshop.as_folder(tmp_path / "source", workshop.samples(1))
    assert "Device cuda:7 is not available" in refused(3, "train", source, "--out", tmp_path / "run", "--device", "cuda:7")
