"""Runs `iarn` in this process, where nothing heavy has to be loaded again, and holds it to one sentence where it refuses."""

from __future__ import annotations

from dataclasses import dataclass

from typer.testing import CliRunner

from jobs.cli import app
from tests.support.commands import Logged
from tests.support.workshop import sentence


@dataclass(frozen=True)
class Outcome(Logged):
    """What a command came to."""

    status: int
    out: str
    err: str


def iarn(*arguments: object) -> Outcome:
    """Run a command here; an exception that gets through it is raised."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert "Traceback" not in result.stderr
    return Outcome(result.exit_code, result.stdout, result.stderr)


def refused(status: int, *arguments: object) -> str:
    """Run a command that has to be refused with ``status``; return its one sentence."""
    outcome = iarn(*arguments)
    assert outcome.status == status, outcome.err
    assert outcome.out == ""
    return sentence(outcome.err.removesuffix("\n").removeprefix("iarn: "))
