"""The benchmarks of whole jobs, of one asset and of a zoom, in a tiny form: they run, and what they count is what is there."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import record_zoom, single, whole_job, zoom
from benchmarks.region import shape_of
from pipeline.core.records import Size
from tests.support import workshop
from tests.support.commands import GUARD
from tests.support.pictures import saved

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file with a network that takes milliseconds."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    path.write_bytes(workshop.weights())
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize("source", ["tar", "folder"])
def test_a_whole_job_beside_its_network(weights: str, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the published ratio: both directions go through every image, and each stage has its seconds."""
    monkeypatch.setattr(whole_job, "BARE_SECONDS", 0.0)
    words = ["--images", "5", "--shard-images", "3", "--side", "48", "--repeat", "1", "--source", source, "--device", "cpu"]
    rows = whole_job.main([*words, "--weights", weights])
    assert [row["verb"] for row in rows] == ["rescale", "restore"]
    for row in rows:
        assert row["ratio"] > 0
        assert 0 <= row["busy_share"] <= 1  # rounded, as the next one
        assert row["seconds_by_stage"].keys() == set(whole_job.STAGES)
        assert row["cores"] >= 0
        assert row["peak_mb"] > 0


@pytest.mark.slow
def test_it_needs_no_ray() -> None:
    """Protects the benchmark on a machine that has the GPU and no Ray, and the main path in a debugger."""
    blocked = "import sys; sys.modules['ray'] = None; sys.path.insert(0, '.'); import benchmarks.whole_job, benchmarks.single"
    subprocess.run([sys.executable, "-c", blocked], cwd=ROOT, check=True, timeout=GUARD)


@pytest.mark.slow
def test_one_asset_is_read_once(weights: str, tmp_path: Path) -> None:
    """Protects the cost of one asset: less than three times its bytes are read, and no footer a second time."""
    draw = np.random.default_rng(0)
    noise = [saved(draw.integers(0, 256, (400, 400, 3), dtype=np.uint8), "PNG") for _ in range(2)]  # large entries
    samples = [workshop.Sample(key=f"{number}.png", data=data) for number, data in enumerate(noise)]
    source = workshop.as_folder(tmp_path / "source", samples)
    words = ["--stores", "local", "--megabytes", "3", "--shards", "2", "--assets", "4", "--device", "cpu", "--source", source]
    (row,) = single.main([*words, "--weights", weights])
    assert row["archive_mb"] >= 3
    assert row["entries"] > row["assets"] == 4
    assert row["footer_kb"] == 0
    assert 1 < row["read_over_entry"] <= row["most_read_over_entry"] < 3
    assert row["requests"] <= 8


@pytest.mark.slow
def test_a_zoom_is_answered_as_the_service_does(tmp_path: Path) -> None:
    """Protects the figures: requests are those of a recorded session, counted as told; one for another picture is refused."""
    words = ["--megapixels", "0.06", "--side", "64", "--tier", "lean", "--device", "cpu"]
    session = tmp_path / "session.txt"
    paths = ["full/75,50/0/default.webp", "0,0,128,128/128,128/0/default.webp", "128,0,172,128/86,64/0/default.jpg"]
    session.write_text("\n".join([record_zoom.header((200, 300)), "# how", *paths]))
    before, bare, kept = zoom.main([*words, "--session", str(session)])
    assert (before["way"], before["requests"], bare["requests"], kept["requests"]) == ("before", 1, 3, 3)
    assert bare["bytes_sent"] == kept["bytes_sent"] > 0
    assert bare["bytes_read"] > kept["bytes_read"] > 0
    assert "bytes_read" not in before
    session.write_text("\n".join([record_zoom.header((201, 300)), *paths]))
    with pytest.raises(SystemExit, match="is not for this archive"):
        zoom.main([*words, "--session", str(session)])


def test_the_recorded_zoom_is_of_the_picture_that_is_measured() -> None:
    """Protects whoever runs it as it is: the session that is there is for 50 megapixels, down to single pixels, all of it."""
    first, *lines = zoom.SESSION.read_text(encoding="ascii").splitlines()
    size = shape_of(50)
    assert first == record_zoom.header(size)
    asked = [record_zoom.understood(line, size, record_zoom.bounds_of(size)) for line in lines if not line.startswith("#")]
    assert 50 < len(asked) == len({each.canonical for each in asked}) < 150
    assert sum(each.region is not None and each.region.size == each.size for each in asked) >= 12


@pytest.mark.slow
def test_a_zoom_can_be_recorded_anew(browser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the recording: a viewer asks for tiles of every scale factor, each once, that the service understands.

    It asks for the same again, also where tiles come late.
    """
    size, blank, delays = (900, 1400), record_zoom.blank, itertools.cycle((0.3, 0.0, 0.1))
    paths = record_zoom.recorded(browser, size)
    assert len(paths) == len(set(paths))
    asked = [record_zoom.understood(path, size, record_zoom.bounds_of(size)) for path in paths]
    assert {round(each.region.width / each.size[1]) for each in asked if each.region is not None} == {1, 2}

    def late(wanted: Size) -> bytes:
        time.sleep(next(delays))
        return blank(wanted)

    monkeypatch.setattr(record_zoom, "blank", late)
    assert record_zoom.recorded(browser, size) == paths


@pytest.mark.slow
def test_a_viewer_that_is_never_done_ends_the_recording(browser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects whoever records: a viewer that waits for a tile for ever is an error, not a wait for ever."""
    monkeypatch.setattr(record_zoom, "DEADLINE", 500)
    page = browser.new_page()
    page.set_content("<script>const settled = () => new Promise(() => null)</script>")
    with pytest.raises(Exception, match="Timeout 500ms"):
        record_zoom.settled(page)
    page.close()
