"""The command line itself: its surface, its manual, and how fast it answers."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from jobs.cli import COMMANDS, app
from tests.support.in_process import iarn

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "ray", "pyarrow", "boto3", "botocore", "PIL", "numpy", "fastapi", "aiohttp", "jinja2"}
"""Packages that take their time to load."""

POOL = ["--actors", "--address", "--attempts", "--cpus-per-actor", "--device", "--gpus-per-actor", "--json", "--may-grow"]
POOL += ["--stall-minutes", "--window"]


SURFACE = {
    "rescale": [
        "source",
        "archive",
        *POOL,
        *["--add", "--anew", "--check-source", "--no-check-source", "--source-access"],
        *[
            "--all-files",
            "--no-sniff",
            "--sniff",
            "--image-column",
            "--lr-codec",
            "--max-pixels",
            "--max-side",
            "--pixel-limit",
            "--scale",
            "--size",
            "--tier",
            "--verify",
        ],
        *["--effort", "--floor", "--floor-metric", "--keep-if-lossy", "--max-ratio", "--no-keep-if-lossy", "--weights"],
    ],
    "restore": [
        "archive",
        "destination",
        *POOL,
        *["--format", "--glob", "--keys", "--latent", "--lr", "--max-side", "--no-latent", "--quality", "--region", "--scale"],
        *["--archive-access", "--shard", "--to"],
    ],
    "inspect": ["archive", "key", "--archive-access", "--entries", "--json", "--shards"],
    "report": ["archive", "--archive-access", "--device", "--json", "--out", "--sample", "--source-access", "--worst"],
    "serve": [
        "--access-log",
        "--archive-access",
        "--tls-cert",
        "--tls-key",
        "--trusted-proxy",
        "--workers",
        "--refresh",
        *[
            "archives",
            "--address",
            "--allow-origin",
            "--cache-mb",
            "--cpus-per-replica",
            "--device",
            "--gpus-per-replica",
            "--host",
        ],
        *[
            "--largest-side",
            "--max-pixels",
            "--max-replicas",
            "--port",
            "--public-address",
            "--queue",
            "--replicas",
            "--seconds",
        ],
        "--token-file",
    ],
    "verify": ["archive", *POOL, "--archive-access", "--sample", "--seed", "--source-access"],
    "submit": [
        *["command", "arguments", "--address", "--detach", "--metadata", "--runtime-env"],
        *["--entrypoint-cpus", "--entrypoint-memory", "--entrypoint-resource"],
    ],
    "jobs": ["job_id", "--address", "--json", "--stop"],
    "train": [
        "sources",
        "--address",
        "--batch",
        "--compile",
        "--config",
        "--device",
        "--eval",
        "--eval-steps",
        "--from",
        "--no-compile",
        "--out",
        "--precision",
        "--save-seconds",
        "--seed",
        "--steps",
        "--workers",
    ],
    "evaluate": ["images", "--cycles", "--device", "--effort", "--json", "--scales", "--weights"],
}


def commands() -> dict[str, Any]:
    """Return the commands by name, as click's own objects."""
    group: Any = typer.main.get_command(app)
    return dict(group.commands)


def test_the_surface_is_pinned() -> None:
    """Protects users' scripts: commands, arguments and options are these, and another is added on purpose."""
    found = {
        name: [
            *(parameter.name for parameter in command.params if parameter.param_type_name == "argument"),
            *(
                flag
                for parameter in command.params
                if parameter.param_type_name == "option"
                for flag in (*parameter.opts, *parameter.secondary_opts)
            ),
        ]
        for name, command in commands().items()
    }
    assert {name: sorted(names) for name, names in found.items()} == {name: sorted(names) for name, names in SURFACE.items()}


def test_help_is_the_manual() -> None:
    """Protects `iarn --help`: every command says what it does, every option what it is for."""
    for command in commands().values():
        assert command.help
        assert all(getattr(parameter, "help", None) for parameter in command.params), command.name
    assert iarn("--help").status == 0
    assert "--max-pixels" in iarn("rescale", "-h").out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rescale", "a", "b", "--skale", "2"], "No such option: --skale"),
        (["reskale", "a"], "No such command 'reskale'"),
        (["rescale"], "Missing argument"),
        (["verify", "a", "--seed", "x"], "Invalid value for '--seed'"),
    ],
)
def test_an_unknown_option_or_command_is_a_usage_error(arguments: list[str], words: str) -> None:
    """Protects against a typo that becomes a default: status 2, and the word that was not understood."""
    outcome = iarn(*arguments)
    assert outcome.status == 2
    assert words in " ".join(outcome.err.replace("│", " ").split())


def test_signals_are_given_back() -> None:
    """Protects programs that call the command line: it leaves SIGTERM as it found it."""
    before: Callable[..., Any] | int | None = signal.getsignal(signal.SIGTERM)
    iarn("inspect", "/nowhere")
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.slow
def test_help_has_panels_and_an_example_that_parses() -> None:
    """Protects readers of `iarn COMMAND --help`: options stand by subject, and the example is one the program takes."""
    for each in COMMANDS:
        words = shlex.split(each.example)
        command = commands()[words[1]]
        assert command.epilog == f"Example: {each.example}"
        command.make_context(words[1], words[2:])
        shown = " ".join(iarn(words[1], "--help").out.split())
        assert "Example: " in shown
        options = [parameter for parameter in command.params if parameter.param_type_name == "option"]
        assert not [parameter.name for parameter in options if parameter.rich_help_panel is None]
        for panel in {parameter.rich_help_panel for parameter in options}:
            assert panel in shown


MEANINGLESS = [
    ["reskale"],
    *([each.run.__name__, "--no-such-option"] for each in COMMANDS),
    ["rescale", "a", "b"],
    ["rescale", "a", "b", "--scale", "0.5"],
    ["rescale", "a", "b", "--scale", "2", "--tier", "floor"],
    ["rescale", "a", "b", "--scale", "2", "--attempts", "0"],
    ["restore", "a", "b", "--to", "zip"],
    ["restore", "a", "b", "--format", "gif"],
    ["restore", "a", "b", "--keys", "/nowhere"],
    ["restore", "a", "b", "--window", "0"],
    ["restore", "a", "b", "--region", "0,0,0,9"],
    ["restore", "a", "b", "--region", "0,0,9,9", "--lr"],
    ["inspect"],
    ["report", "a", "--sample", "0"],
    ["verify", "a", "--sample", "2"],
    ["verify", "a", "--gpus-per-actor", "1.5"],
    ["serve", "a", "b/a"],
    ["serve", "a", "--host", "0.0.0.0"],
    ["serve", "a", "--replicas", "0"],
    ["serve", "a", "--workers", "0"],
    ["serve", "a", "--tls-cert", "c"],
    ["serve", "a", "--trusted-proxy", "proxy.example"],
    ["submit", "inspect", "a"],
    ["submit", "rescale", "a", "b", "--skale", "2"],
    ["submit", "rescale", "a", "b", "--scale", "2", "--address", "ray://head:10001"],
    ["jobs", "--stop"],
    ["train", "a", "--out", "b", "--precision", "int3"],
    ["evaluate", "a", "--scales", "0.5"],
]
"""A command line of each kind that can be refused by its words alone."""

SCRIPT = """
import contextlib, io, sys
from jobs.cli import app
for words, expected in {cases!r}:
    told = io.StringIO()
    with contextlib.redirect_stderr(told), contextlib.redirect_stdout(told):
        try:
            app(words)
        except SystemExit as ended:
            assert ended.code == expected, (words, ended.code, told.getvalue())
print(*sorted({{name.partition(".")[0] for name in sys.modules}}))
"""


def test_what_words_alone_can_tell_is_told_before_anything_heavy_is_loaded(clean_environment: dict[str, str]) -> None:
    """Protects patience: the manual and the refusal of what cannot be meant wait for neither torch nor Ray."""
    cases = [(words, 2) for words in MEANINGLESS] + [(["--help"], 0)] + [([each.run.__name__, "-h"], 0) for each in COMMANDS]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(cases=cases)], cwd=ROOT, env=clean_environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert not HEAVY & set(done.stdout.split())
