"""An archive as a PyTorch dataset: every rescaled entry once, in any order, in any process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from pipeline.reading.dataset import ArchiveDataset
from pipeline.reading.reader import EntryReader, open_archive
from tests.support.commands import GUARD
from tests.support.workshop import Sample, as_tar, rescale, samples


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An archive of two shards, the second with two originals."""
    folder = tmp_path_factory.mktemp("dataset")
    broken = [Sample(key=f"b/{index:03d}x.jpg", data=b"no picture") for index in (0, 2)]
    as_tar(folder / "source", samples(5, folder="a/"), "a.tar")
    as_tar(folder / "source", sorted(samples(4, folder="b/") + broken, key=lambda sample: sample.key), "b.tar")
    return rescale(str(folder / "source"), folder / "archive").uri


def square(entry: EntryReader) -> Any:
    """Return the corner of an LR and its label, as a training would."""
    label = entry.record.sidecars["cls.json"]
    return torch.from_numpy(entry.lr()[:8, :8].copy()).permute(2, 0, 1), int(label.split(b":")[1].rstrip(b"}"))


def test_every_rescaled_entry_once(uri: str) -> None:
    """Protects epochs: the rescaled entries in the archive's order, originals left out, by index from both ends."""
    dataset = ArchiveDataset(uri)
    expected = [entry for entry in open_archive(uri) if entry.kind == "rescaled"]
    assert len(dataset) == len(expected) == 9
    for index in (*range(9), 3, 8, 0, -1, -9):
        item = dataset[index]
        assert item["key"] == expected[index].key
        assert item["lr"].dtype == torch.uint8
        np.testing.assert_array_equal(item["lr"].permute(1, 2, 0).numpy(), expected[index].lr())
    for index in (9, -10):
        with pytest.raises(IndexError):
            dataset[index]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of Python 3.12 about forks, which DataLoader makes
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_read_for_themselves(uri: str, start: str) -> None:
    """Protects DataLoader: workers of another process give the same items, shuffled or not, labels with them."""
    dataset = ArchiveDataset(uri, square)
    alone = [dataset[index] for index in range(len(dataset))]  # opens files, which must not travel
    loader = DataLoader(dataset, batch_size=4, num_workers=1, multiprocessing_context=start, timeout=GUARD)
    batches = list(loader)
    assert [len(labels) for _, labels in batches] == [4, 4, 1]
    assert torch.equal(torch.cat([pixels for pixels, _ in batches]), torch.stack([pixels for pixels, _ in alone]))
    assert torch.cat([labels for _, labels in batches]).tolist() == [label for _, label in alone]


def test_few_shards_are_open(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects memory: shards are closed again, whatever the order in which they are asked for."""
    monkeypatch.setattr("pipeline.reading.dataset.OPEN_SHARDS", 1)
    dataset = ArchiveDataset(uri)
    keys = [dataset[index]["key"] for index in (0, 8, 1, 7, 0)]
    assert keys == ["a/000.png", "b/003.tif", "a/001.jpg", "b/002.webp", "a/000.png"]
    assert len(dataset._open._shards) == 1


def test_hugging_face_opens_an_archive(uri: str, tmp_path: Path) -> None:
    """Protects training by `datasets`: its Image feature decodes the column `lr` as it is, streaming or not."""
    datasets = pytest.importorskip("datasets")
    files = f"{uri}/shards/*.parquet"
    found = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True, cache_dir=str(tmp_path))
    rows = [row for row in found.select_columns(["key", "kind", "lr"]) if row["kind"] == "rescaled"]
    expected = {entry.key: entry for entry in open_archive(uri)}
    assert len(rows) == 9
    for row in rows:
        np.testing.assert_array_equal(np.asarray(row["lr"].convert("RGB")), expected[row["key"]].lr())
