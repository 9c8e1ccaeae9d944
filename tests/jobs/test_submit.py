"""What is submitted to a cluster: the command line, what is refused, and a log that is followed through broken connections.

The whole of it on a real cluster is in test_cluster.py.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus

from jobs import submit
from jobs.submission import Submission, amounts, pairs, read_runtime_env
from jobs.submit import follow
from pipeline.cluster.errors import ClusterUnavailable, TokenWanted
from pipeline.core.errors import InvalidOption
from tests.support.in_process import refused
from tests.support.workshop import sentence

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


def test_the_command_is_what_was_typed() -> None:
    """Protects names with spaces and quotes: the shell on the head reads the words that were typed here, joins its own cluster
    and tells JSON lines."""
    submission = Submission(verb="restore", arguments=("s3://a/b", "s3://c", "--glob", "it's *.jpg"))
    assert submission.entrypoint == """iarn restore s3://a/b s3://c --glob 'it'"'"'s *.jpg' --address auto --json"""
    assert Submission(verb="verify", arguments=("a", "--json")).entrypoint == "iarn verify a --json --address auto"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"verb": "train"}, "command train: give one of rescale, restore, verify"),
        ({"arguments": ("a", "b", "--address", "auto")}, "--address given twice"),
        ({"arguments": (f"s3://key:{SECRET}@bucket/x", "b")}, "argument s3://…@bucket/x: holds what looks like a credential"),
        ({"arguments": ("AKIAIOSFODNN7EXAMPLE",)}, "argument …: holds"),
        ({"metadata": {"AWS_SECRET_ACCESS_KEY": SECRET}}, "--metadata AWS_SECRET_ACCESS_KEY: holds"),
        ({"runtime_env": {"env_vars": {"MY_TOKEN": SECRET}}}, "--runtime-env MY_TOKEN: holds"),
        ({"runtime_env": {"pip": [f"https://user:{SECRET}@host/simple"]}}, "--runtime-env https://…@host/simple: holds"),
    ],
)
def test_credentials_are_refused_and_not_repeated(values: dict[str, Any], words: str) -> None:
    """Protects credentials: Ray shows a job's command, metadata and environment to all, so none is sent, nor printed here."""
    with pytest.raises(InvalidOption) as caught:
        Submission(**{"verb": "rescale", "arguments": ("a", "b"), **values})
    assert words in str(caught.value)
    assert SECRET not in str(caught.value)


def test_what_cannot_be_meant_is_told_before_it_is_sent(tmp_path: Path) -> None:
    """Protects the night: a typo ends here, with one sentence, and not on the cluster an hour later."""
    job = ("submit", "rescale", "a", "b", "--scale", "2")
    assert "http://head:8265" in refused(2, *job, "--address", "ray://head:10001")
    assert "…@head" in refused(2, *job, "--address", f"http://user:{SECRET}@head:8265")
    assert "RAY_AUTH_TOKEN" in refused(3, *job, "--address", "http://127.0.0.1:1")
    assert "give name=value" in refused(2, *job, "--metadata", "owner")
    assert "it cannot be read" in refused(2, *job, "--runtime-env", tmp_path / "none.json")
    assert "say which job" in refused(2, "jobs", "--stop")


def test_options_are_parsed(tmp_path: Path) -> None:
    """Protects what is handed to Ray: pairs, amounts and the runtime environment are what was written."""
    assert pairs("--metadata", ["a=b=c", "d="]) == {"a": "b=c", "d": ""}
    assert amounts("--entrypoint-resource", ["big=0.5"]) == {"big": 0.5}
    with pytest.raises(InvalidOption, match="give name=number"):
        amounts("--entrypoint-resource", ["big=much"])
    path = tmp_path / "environment.json"
    path.write_text('{"env_vars": {"A": "b"}}')
    assert read_runtime_env(path) == {"env_vars": {"A": "b"}}
    assert read_runtime_env(None) == {}
    for text in ("[]", '{"env_vars": 3}', "{"):
        path.write_text(text)
        with pytest.raises(InvalidOption, match="--runtime-env"):
            read_runtime_env(path)


@dataclass
class BrokenLine:
    """A client whose connection breaks while the job runs on; ``tails`` are what each connection brings before it breaks."""

    address: str
    tails: list[str] = field(default_factory=lambda: ["one\ntw", "one\ntwo\nth", "one\ntwo\nthree\n"])
    status: JobStatus = JobStatus.RUNNING

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        assert job == "iarn-1"
        text = self.tails.pop(0)
        yield text[:3]
        yield text[3:]
        if self.tails:
            raise RuntimeError("WebSocket connection closed unexpectedly with close code 1006")
        self.status = JobStatus.FAILED

    def get_job_info(self, job: str) -> Any:
        assert job == "iarn-1"
        return SimpleNamespace(status=self.status, driver_exit_code=1, message=None)

    def get_job_logs(self, job: str) -> str:
        assert job == "iarn-1"
        return "one\ntwo\nthree\nfour\n"


def test_a_log_is_told_once_through_broken_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the reader of a long log: each line comes once, whatever breaks on the way, and the status is the command's."""
    monkeypatch.setattr(submit, "JobSubmissionClient", BrokenLine)
    monkeypatch.setattr(submit, "POLL_SECONDS", 0.0)
    written: list[str] = []
    assert follow("iarn-1", "http://head:8265", written.append) == 1
    assert "".join(written) == "one\ntwo\nthree\nfour\n"


def test_jobs_of_others_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects a shared cluster's view: `iarn jobs` lists what iarn submitted, the latest first, and shows no credential."""

    def job(name: str, start: int, **metadata: str) -> Any:
        command = "iarn verify s3://u:p@b"
        return SimpleNamespace(
            submission_id=name, status=JobStatus.RUNNING, start_time=start, end_time=None, entrypoint=command, metadata=metadata
        )

    found = [job("a", 1000, iarn="1"), job("other", 2000), job("b", 3000, iarn="1")]
    monkeypatch.setattr(submit, "JobSubmissionClient", lambda _: SimpleNamespace(list_jobs=lambda: found))
    listed = submit.jobs("http://head:8265")
    assert [each["job"] for each in listed] == ["b", "a"]
    assert listed[0]["began"] == "1970-01-01T00:00:03+00:00"
    assert "u:p" not in json.dumps(listed)


def test_a_server_that_refuses_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects from tracebacks: what the server answers is part of a sentence."""

    def refuse(_: str) -> Any:
        raise RuntimeError("Authentication failed: 401\nmore of it")

    monkeypatch.setattr(submit, "JobSubmissionClient", refuse)
    with pytest.raises(ClusterUnavailable, match=r"cannot be joined \(Authentication failed: 401\)"):
        submit.stop("iarn-1", "http://head:8265")


def test_a_dashboard_that_wants_its_token_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects from a traceback of Ray's: a token that is missing or wrong is told, with what to set."""

    def refuse(_: str) -> Any:
        raise AuthenticationError("Authentication required: Unauthorized: Missing authentication token\n\nAnd more of it")

    monkeypatch.setattr(submit, "JobSubmissionClient", refuse)
    with pytest.raises(TokenWanted) as caught:
        submit.jobs("http://head:8265")
    told = "http://head:8265 wants its token (Authentication required: Unauthorized: Missing authentication token). Set"
    assert told in sentence(str(caught.value))
