"""Archives that many tests read, and none writes to."""

from __future__ import annotations

import pytest

from tests.support import workshop
from tests.support.workshop import Rescaled


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Rescaled:
    """An archive of three shards, balanced: a tar, a Parquet file and loose files."""
    folder = tmp_path_factory.mktemp("shelf")
    source = workshop.as_folder(folder / "source", workshop.samples(3, folder="loose/"))
    workshop.as_tar(folder / "source", workshop.samples(4), name="some.tar")
    workshop.as_parquet(folder / "source", workshop.samples(2), name="table.parquet")
    return workshop.rescale(source, folder / "archive")
