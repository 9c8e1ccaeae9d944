"""`iarn submit` and `iarn jobs`: commands as jobs of a Ray cluster, by Ray's Jobs API; the only importer of its client.

What is submitted is written down by Ray and shown to whoever reads its dashboard, so no credentials go with it: a node has its
own, by its environment or its role.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aiohttp
from ray.job_submission import JobStatus, JobSubmissionClient

from pipeline.cluster.errors import ClusterUnavailable
from pipeline.cluster.room import SUBMISSION_VARIABLE, first_line
from pipeline.core.errors import InvalidOption
from pipeline.stores.base import without_secrets

VERBS = ("rescale", "restore", "verify")
MARK = "iarn"
"""The metadata by which a job is known as one of ours; its value is the version that submitted it."""
POLL_SECONDS = 1.0
STOPPED = 130
FAILED = 3
ADVICE = "holds what looks like a credential, and Ray would show it; give it to the nodes by their environment or role."

_SECRET_NAME = re.compile(r"secret|password|passwd|token|credential|access_?key|private_?key", re.IGNORECASE)

Write = Callable[[str], None]


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


def submit(submission: Submission, address: str) -> str:
    """Submit a job to the cluster whose dashboard is at ``address``; return its id. Raises ClusterUnavailable."""
    own = f"iarn-{submission.verb}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
    environment = dict(submission.runtime_env)
    environment["env_vars"] = dict(environment.get("env_vars", {})) | {SUBMISSION_VARIABLE: own}
    with _client(address) as client:
        submitted: str = client.submit_job(
            entrypoint=submission.entrypoint,
            submission_id=own,
            runtime_env=environment,
            metadata={**submission.metadata, MARK: version("iarn"), "verb": submission.verb},
            entrypoint_num_cpus=submission.cpus,
            entrypoint_memory=submission.memory,
            entrypoint_resources=dict(submission.resources) or None,
        )
        return submitted


def follow(job: str, address: str, write: Write) -> int:
    """Hand a job's log to ``write`` as it grows, until the job ends; return its exit status (130: stopped, 3: it never ran)."""
    with _client(address) as client:
        log = _Log(write)
        while True:
            with suppress(RuntimeError, aiohttp.ClientError):  # the way there broke; the job has not, and its log starts anew
                asyncio.run(_tail(client, job, log))
            info = client.get_job_info(job)
            if info.status.is_terminal():
                break
            time.sleep(POLL_SECONDS)
        log.restart()
        log.take(client.get_job_logs(job))
    if info.status == JobStatus.SUCCEEDED:
        return 0
    if info.status == JobStatus.STOPPED:
        return STOPPED
    if info.driver_exit_code is None:
        write(f"{without_secrets(info.message or 'The job failed before it ran.')}\n")
    return info.driver_exit_code or FAILED


def stop(job: str, address: str) -> None:
    """Ask a job to stop, as Ctrl-C does. Raises ClusterUnavailable, also where there is no such job."""
    with _client(address) as client:
        client.stop_job(job)


def jobs(address: str) -> list[dict[str, str]]:
    """Return the jobs that `iarn` submitted to a cluster, the latest first."""
    with _client(address) as client:
        found = [job for job in client.list_jobs() if MARK in (job.metadata or {})]
    found.sort(key=lambda job: job.start_time or 0, reverse=True)
    return [
        {
            "job": job.submission_id or "",
            "status": str(job.status.value).lower(),
            "began": _moment(job.start_time),
            "ended": _moment(job.end_time),
            "command": without_secrets(job.entrypoint),
        }
        for job in found
    ]


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


class _Log:
    """Hands a log on, each part of it once, though it comes from its beginning again and again."""

    def __init__(self, write: Write) -> None:
        self._write, self._written, self._seen = write, 0, 0

    def restart(self) -> None:
        """Know that what comes next is the beginning."""
        self._seen = 0

    def take(self, text: str) -> None:
        """Take the part that follows."""
        fresh = text[max(0, self._written - self._seen) :]
        self._seen += len(text)
        self._written = max(self._written, self._seen)
        if fresh:
            self._write(fresh)


async def _tail(client: JobSubmissionClient, job: str, log: _Log) -> None:
    log.restart()
    async for text in client.tail_job_logs(job):
        log.take(text)


@contextmanager
def _client(address: str) -> Iterator[JobSubmissionClient]:
    _refuse_secret("--address", address)
    if not address.startswith(("http://", "https://")):
        raise InvalidOption("--address", address, "give the URL of the head's dashboard, as in http://head:8265.")
    try:
        client = JobSubmissionClient(address)
        logging.getLogger(JobSubmissionClient.__module__).setLevel(logging.WARNING)  # it tells of every connection
        yield client
    except (RuntimeError, OSError, ValueError) as error:  # no server, a refused token, no such job
        raise ClusterUnavailable(address, without_secrets(first_line(error))) from None


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


def _moment(milliseconds: int | None) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds") if milliseconds else ""
