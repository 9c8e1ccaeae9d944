"""Ray Data as a reader of finished archives: a shard is a Parquet file, and its LRs are pictures as they are."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import ray
from PIL import Image

from tests.support import workshop

pytestmark = [
    pytest.mark.ray,
    pytest.mark.usefixtures("ray_cluster"),
    # Ray Data's own context sets options of its own that it deprecates.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
]


def test_ray_data_shows_an_lr(tmp_path: Path) -> None:
    """Protects those who go on with Ray: `read_parquet` opens a shard without this program, and an LR is a picture."""
    samples = workshop.samples(4)
    archive = workshop.rescale(workshop.as_tar(tmp_path / "source", samples), tmp_path / "archive")
    ray.data.DataContext.get_current().enable_progress_bars = False
    found = ray.data.read_parquet(str(tmp_path / "archive" / "shards")).select_columns(["key", "lr", "width", "height"])
    rows = {row["key"]: row for row in found.take_all()}
    assert sorted(rows) == [sample.key for sample in samples]
    for entry in archive.entries:
        row = rows[entry.key]
        assert row["lr"] == {"bytes": entry.lr, "path": entry.lr_path}
        with Image.open(io.BytesIO(row["lr"]["bytes"])) as lr:
            lr.load()
            assert lr.format == "AVIF"
            assert lr.size == ((row["width"] + 1) // 2, (row["height"] + 1) // 2)
