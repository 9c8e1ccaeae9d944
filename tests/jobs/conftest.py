"""What tests of commands share: weights of a small network, and an archive that is only read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import workshop


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A weights file of a small network."""
    path = tmp_path / "weights.safetensors"
    path.write_bytes(workshop.weights())
    return path


@pytest.fixture(scope="session")
def standing(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An archive of three tars of four assets, one of which is damaged; only read."""
    return workshop.three_tars(tmp_path_factory.mktemp("standing"))
