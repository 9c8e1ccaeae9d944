"""Credentials are nowhere: not in plans, archives, logs, errors or Ray's own files, whether a job goes well or fails."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.core.errors import CredentialsRefused, StoreUnavailable
from pipeline.stores.base import without_secrets
from pipeline.stores.s3 import S3Store
from pipeline.stores.store import open_store
from tests.support import workshop
from tests.support.accounting import accounted_for
from tests.support.commands import ray_logs, run
from tests.support.faulty_proxy import Fault, FaultyProxy, faulty_proxy
from tests.support.in_process import iarn
from tests.support.ray_here import ray_here
from tests.support.seaweed import ACCESS_KEY, SECRET_KEY, SeaweedServer

WRONG_KEY, WRONG_SECRET, TOKEN = "IARNWRONGKEY", "wrong-secret-of-somebody", "temporary-session-token"
SECRETS = [each.encode() for each in (ACCESS_KEY, SECRET_KEY, WRONG_KEY, WRONG_SECRET, TOKEN)]


def told(where: str, data: bytes) -> list[str]:
    """Return which secrets are in some bytes, with where."""
    return [f"{secret.decode()} in {where}" for secret in SECRETS if secret in data]


@pytest.fixture
def proxy(s3_server: SeaweedServer, s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:  # noqa: ARG001
    """A proxy before the server, which stores of this test use; little patience."""
    monkeypatch.setattr(S3Store, "ATTEMPTS", 2)
    monkeypatch.setattr(S3Store, "BACKOFF", 0.01)
    with faulty_proxy(s3_server.endpoint) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.endpoint)
        yield running


@pytest.mark.ray
def test_no_secret_of_a_job_is_written_anywhere(
    tmp_path: Path, s3_bucket: str, s3_server: SeaweedServer, proxy: FaultyProxy, clean_environment: dict[str, str]
) -> None:
    """Protects whoever shares an archive or a log: jobs with wrong credentials, whose token expires in the middle, and that go
    well leave no credential in anything they write; each failing one ends with 3 and one sentence."""
    bucket = s3_bucket.removeprefix("s3://")
    for index in range(3):
        tar = workshop.tar_of(member for sample in workshop.samples(2) for member in sample.members.items())
        s3_server.client.put_object(Bucket=bucket, Key=f"source/{index}.tar", Body=tar)
    (tmp_path / "weights").write_bytes(workshop.weights())
    source, archive = f"{s3_bucket}/source", f"{s3_bucket}/archive"
    command = ("rescale", source, archive, "--scale", "2", "--max-ratio", "inf", "--weights", tmp_path / "weights", "--json")
    command += ("--attempts", "1", "--actors", "1")
    environment = {**clean_environment, "AWS_ENDPOINT_URL": proxy.endpoint}
    expired: list[str] = []

    def expire(method: str, path: str) -> Fault | None:
        if method == "PUT" and "/commits/" in path:
            expired.append(path)
        return Fault.EXPIRED if expired else None

    jobs = {
        "wrong": ({"AWS_ACCESS_KEY_ID": WRONG_KEY, "AWS_SECRET_ACCESS_KEY": WRONG_SECRET}, "InvalidAccessKeyId"),
        "expired": ({}, "ExpiredToken"),
    }
    found: list[str] = []
    for name, (settings, words) in jobs.items():
        proxy.choose = expire if name == "expired" else lambda _method, _path: None
        job = run(tmp_path / name, environment | settings, *command)
        assert job.ended() == 3, job.err
        assert job.err.splitlines()[-1].startswith("iarn: s3://")
        assert words in workshop.sentence(job.err.splitlines()[-1])
        found += told(f"what {name} said", job.out.encode() + job.err.encode())
    proxy.choose = lambda _method, _path: None
    with ray_here():
        good = iarn(*command)
    assert good.status == 0, good.err
    found += told("what the good one said", good.out.encode() + good.err.encode())
    assert accounted_for(source, archive).entries == 6
    for info in s3_server.client.list_objects_v2(Bucket=bucket)["Contents"]:
        got = s3_server.client.get_object(Bucket=bucket, Key=info["Key"])
        found += told(info["Key"], got["Body"].read() + repr(got["Metadata"]).encode() + info["Key"].encode())
    logs = ray_logs(clean_environment)
    assert len(logs) > 10, "Ray's logs are looked at"
    for path, data in logs.items():
        found += told(path, data)
    assert not found


@pytest.mark.parametrize("fault", [Fault.EXPIRED, Fault.ECHO])
def test_no_error_has_a_secret(proxy: FaultyProxy, s3_bucket: str, fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects errors as they are shown, logged and sent: also where a server's own message repeats what it was sent."""
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    proxy.choose = lambda _method, _path: fault
    store = open_store(s3_bucket)
    for use in (lambda: store.read("a"), lambda: store.create("a", b"x"), lambda: list(store.list()), lambda: store.stat("a")):
        with pytest.raises((CredentialsRefused, StoreUnavailable)) as caught:
            use()
        error = caught.value
        shown = f"{error} {error!r} {error.args} {store!r} {error.__cause__!r}".encode() + pickle.dumps(error)
        assert not told(str(error), shown)
        assert error.__suppress_context__ or error.__context__ is None


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("http://me:hunter2@host/x", "http://…@host/x"),
        ("key AKIAABCDEFGHIJKLMNOP is unknown", "key … is unknown"),
        (
            "AWS4-HMAC-SHA256 Credential=ABC/20260101/r/s3, Signature=0f",
            "AWS4-HMAC-SHA256 Credential=…/20260101/r/s3, Signature=…",
        ),
        ("GET /b/k?X-Amz-Credential=ABC%2F2026&X-Amz-Signature=0f&a=b", "GET /b/k?X-Amz-Credential=…&X-Amz-Signature=…&a=b"),
        ("x?X-Amz-Security-Token=abc%2Bd/e== is over", "x?X-Amz-Security-Token=… is over"),
        ("<AWSAccessKeyId>ABC</AWSAccessKeyId>", "<AWSAccessKeyId>…</AWSAccessKeyId>"),
        ("aws_secret_access_key = abc/def+g", "aws_secret_access_key = …"),
        ("The bucket s3://photos/2024 is slow", "The bucket s3://photos/2024 is slow"),
    ],
)
def test_texts_of_others_are_cleaned(text: str, clean: str) -> None:
    """Protects messages that repeat a request: whatever names a credential loses its value, the rest stays readable."""
    assert without_secrets(text) == clean
