"""An archive put together by hand, and where to put its shards."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.archives.archive import Archive
from pipeline.stores.store import LocalStore
from tests.support.archives import begin


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    (tmp_path / "archive").mkdir()
    return LocalStore(tmp_path / "archive")


@pytest.fixture
def archive(store: LocalStore) -> Archive:
    return begin(store)


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    (tmp_path / "spool").mkdir()
    return tmp_path / "spool"
