"""`iarn submit` and `iarn jobs`: commands as jobs of a Ray cluster, by Ray's Jobs API; the only importer of its client.

Addresses of a dashboard are taken as :func:`jobs.submission.check_dashboard` let them through.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version

import aiohttp
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from jobs.submission import Submission
from pipeline.cluster.errors import ClusterUnavailable, TokenWanted
from pipeline.cluster.room import SUBMISSION_VARIABLE, first_line, first_sentence
from pipeline.stores.base import without_secrets

MARK = "iarn"
"""The metadata by which a job is known as one of ours; its value is the version that submitted it."""
POLL_SECONDS = 1.0
STOPPED = 130
FAILED = 3

Write = Callable[[str], None]


def submit(submission: Submission, address: str) -> str:
    """Submit a job to the cluster whose dashboard is at ``address``; return its id. Raises ClusterUnavailable, TokenWanted."""
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
    try:
        client = JobSubmissionClient(address)
        logging.getLogger(JobSubmissionClient.__module__).setLevel(logging.WARNING)  # it tells of every connection
        yield client
    except AuthenticationError as error:
        raise TokenWanted(address, first_sentence(error)) from None
    except (RuntimeError, OSError, ValueError) as error:  # no server, no such job
        raise ClusterUnavailable(address, without_secrets(first_line(error))) from None


def _moment(milliseconds: int | None) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds") if milliseconds else ""
