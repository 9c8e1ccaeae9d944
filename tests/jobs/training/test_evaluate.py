"""Measuring: the cost by counting what is convolved, cycles by hand, scores and tables that say what was measured."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from iarn.encoding import Place
from iarn.lattice import axes_for
from iarn.metrics import BlockErrors
from iarn.network import Cost, NetworkConfig, Rescaler
from iarn.pretrained import shipped
from jobs.cli import app
from jobs.training.evaluate import Score, cost_at, crop, evaluate, fidelity, lr_size_at, name_of, table, worst
from jobs.training.scales import parse_scales
from pipeline.core.errors import InvalidOption
from pipeline.core.records import Pixels, Size
from pipeline.engines.engine import Engine
from tests.support.networks import THIRDS, noise, random_network, random_weights
from tests.support.pictures import photo, saved

SIZES = [
    ((48, 60), (24, 30)),
    ((48, 60), (12, 15)),
    ((47, 61), (24, 31)),
    ((50, 60), (33, 40)),
    ((60, 48), (30, 12)),
    ((9, 7), (3, 3)),
    ((50, 60), (20, 25)),
    ((55, 60), (10, 12)),
]


def counted(network: Rescaler, size: Size, lr_size: Size) -> tuple[int, int]:
    """Return the multiply-accumulates of the convolutions that really run, to the LR and back."""
    axes = network.axes(size, lr_size)
    places = [Place(axes=axes)]
    totals = []
    with torch.enable_grad():  # or a CPU would compute in parts, which overlap
        lattice = noise(1, 3, axes[0].points, axes[1].points)
        for run in (
            lambda: network.analyse_lr(lattice, places),
            lambda: network.synthesise(noise(1, 3, *lr_size), None, places),
        ):
            with FlopCounterMode(display=False) as counter:
                run()
            totals.append(sum(count for name, count in counter.get_flop_counts()["Global"].items() if "conv" in str(name)))
    return totals[0] // 2, totals[1] // 2


def resampled(size: Size, lr_size: Size, strides: tuple[int, ...] = (1, 2, 4)) -> tuple[int, int]:
    """Return the multiply-accumulates of the resampling: a third way round, by the widths of what single samples depend on."""
    height, width = axes_for(size, lr_size, strides)
    taps = [(axis.source_range(0, 1)[1], axis.point_range(0, 1)[1]) if not axis.aligned else (0, 0) for axis in (height, width)]
    down = 3 * (height.points * width.length * taps[0][0] + height.points * width.points * taps[1][0])
    return down, 3 * (height.length * width.points * taps[0][1] + height.length * width.length * taps[1][1])


@pytest.mark.slow
@pytest.mark.parametrize(("size", "lr_size"), SIZES)
@pytest.mark.parametrize("config", [THIRDS, NetworkConfig(blocks=(2, 1, 1), width=5)])
def test_the_cost_is_what_runs(config: NetworkConfig, size: Size, lr_size: Size) -> None:
    """Protects the published cost: to the last position it is what a real run convolves, and the taps of the lattice."""
    network = random_network(config)
    cost = network.cost(size, lr_size)
    expected = [a + b for a, b in zip(counted(network, size, lr_size), resampled(size, lr_size, config.strides), strict=True)]
    pixels = size[0] * size[1]
    assert [round(cost.downscale * pixels), round(cost.restore * pixels)] == expected


@pytest.mark.slow
def test_taps_are_those_of_the_lattice() -> None:
    """Protects the resampling's share: six taps of Lanczos-3, and as many of P as one sample really comes back from."""
    axis = axes_for((480, 480), (300, 300))[0]
    assert axis.source_range(100, 101)[1] - axis.source_range(100, 101)[0] == 6
    impulses = torch.eye(axis.points)[None, None]
    row = axis.recover(impulses, -2)[0, 0, 240]
    start, stop = axis.point_range(240, 241)
    assert (row != 0).sum() == stop - start
    network = Rescaler(NetworkConfig(blocks=(1,), width=1))
    share = resampled((480, 480), (300, 300))[1] / 480**2
    convolved = counted(network, (480, 480), (300, 300))[1] / 480**2
    assert network.cost((480, 480), (300, 300)).restore == pytest.approx(share + convolved)
    assert share == pytest.approx(3 * (stop - start) * (600 / 480 + 1))


def test_the_cost_at_the_ends() -> None:
    """Protects the edges of the range: nothing runs at scale 1, a scale beyond the network is refused."""
    network = random_network()
    assert asdict(network.cost((30, 30), (30, 30))) == {"downscale": 0, "restore": 0}
    with pytest.raises(ValueError, match="a scale above 4"):
        network.cost((30, 30), (6, 6))
    assert cost_at(network, (2.1, 2.1)).restore > 2 * cost_at(network, (2, 2)).restore


@pytest.fixture(scope="module")
def engine() -> Engine:
    """The engine of a network with random weights."""
    return Engine(random_weights(), torch.device("cpu"))


def pictures() -> list[Pixels]:
    """Return two photographs of sides that are not multiples of 12."""
    return [photo(50, 64, seed=1), photo(61, 49, seed=2)]


def test_cycles_by_hand(engine: Engine) -> None:
    """Protects the five cycles: each round starts from the 8-bit image of the one before and is compared with the source."""
    scale = (2.0, 3.0)
    (score,) = evaluate(engine, pictures(), [scale], cycles=3)
    first, last = [], []
    for picture in pictures():
        image = crop(picture)
        size = image.shape[:2]
        now, after = image, []
        for _ in range(3):
            now = engine.restore(engine.downscale(now, lr_size_at(size, scale)), size)
            after.append(fidelity(image, now, scale)[:2])
        first.append(after[0])
        last.append(after[-1])
    assert score.cycled is not None
    assert score.cycled.rounds == 3
    assert (score.psnr_y, score.psnr_rgb) == pytest.approx(np.mean(first, axis=0))
    assert (score.cycled.psnr_y, score.cycled.psnr_rgb) == pytest.approx(np.mean(last, axis=0))
    assert score.cycled.drop_y == pytest.approx(score.psnr_y - score.cycled.psnr_y)
    assert score.cycled.drop_y != 0


def test_scores_without_cycles_are_plain(engine: Engine) -> None:
    """Protects the log of a training run, which calls with three arguments and writes what it gets as JSON."""
    scores = [asdict(score) for score in evaluate(engine, pictures(), [(2, 2), (1.5, 4)])]
    assert json.loads(json.dumps(scores)) == scores
    assert [score["scale"] for score in scores] == ["2", "1.5x4"]
    assert scores[0]["cycled"] is None
    assert scores[0]["images"] == 2
    with pytest.raises(InvalidOption, match="--cycles -1"):
        evaluate(engine, pictures(), [(2, 2)], cycles=-1)


def test_a_perfect_restore_loses_nothing(engine: Engine) -> None:
    """Protects scale 1, where every round is perfect: no drop of infinity less infinity, no block in error."""
    (score,) = evaluate(engine, [np.full((48, 48, 3), 99, np.uint8)], [(1, 1)], cycles=2)
    assert score.psnr_y == math.inf
    assert score.cycled is not None
    assert score.cycled.drop_y == score.cycled.drop_rgb == 0
    assert score.low_texture == BlockErrors(blocks=9, error=0, shift=0, pixel=0)


def test_blocks_are_of_the_whole_image(engine: Engine) -> None:
    """Protects the smooth-area check at borders, which the PSNR leaves out: every whole block of the cropped image counts."""
    flat = np.full((50, 61, 3), 200, np.uint8)
    (score,) = evaluate(engine, [flat, flat], [(4, 4)])
    assert score.low_texture.blocks == 2 * (48 // 16) * (60 // 16)
    assert score.low_texture.pixel >= score.low_texture.error >= score.low_texture.shift


def test_the_worst_is_of_all() -> None:
    """Protects the largest error: one bad image is not averaged away."""
    one = BlockErrors(blocks=3, error=1.0, shift=0.5, pixel=9.0)
    two = BlockErrors(blocks=4, error=0.5, shift=0.25, pixel=30.0)
    assert worst([one, two]) == BlockErrors(blocks=7, error=1.0, shift=0.5, pixel=30.0)


def test_scales_and_their_names() -> None:
    """Protects the tables: a scale is written as it was asked for, height before width, and the LR is rounded."""
    scales = parse_scales("1.5,2,1.5x4")
    assert [name_of(scale) for scale in scales] == ["1.5", "2", "1.5x4"]
    assert lr_size_at((100, 100), scales[2]) == (67, 25)


def test_the_table_has_every_figure() -> None:
    """Protects the table: a row says what its score holds, an image without smooth blocks none, cycles only where measured."""
    blocks = BlockErrors(blocks=0, error=0, shift=0, pixel=0)
    score = Score(scale="2", images=5, psnr_y=40.123, psnr_rgb=38, ssim=0.98765, lr_psnr=41, low_texture=blocks)
    row = table([score], [Cost(downscale=54321, restore=60000)]).splitlines()[2]
    assert row == "| x2 | 5 | 40.12 | 38.00 | 0.9877 | 41.00 | none | 54.3 k / 60.0 k |"
    heading, _, row = table([replace(score, effort=3)], [Cost(downscale=54321, restore=60000)]).splitlines()
    assert "each of 3 steps" in heading
    assert row.endswith("| 54.3 k / 60.0 k | 180.0 k |")


@pytest.mark.slow
def test_effort_is_measured() -> None:
    """Protects `iarn evaluate --effort`: figures are of LRs made with it, which restore better, and a score says so."""
    engine = Engine(shipped(), torch.device("cpu"))
    (without,), (score,) = (evaluate(engine, pictures(), [(2, 2)], effort=effort) for effort in (0, 2))
    assert (without.effort, score.effort) == (0, 2)
    assert score.psnr_rgb > without.psnr_rgb
    with pytest.raises(InvalidOption, match="--effort -1"):
        evaluate(engine, pictures(), [(2, 2)], effort=-1)


def test_the_command_has_a_table_for_each_folder(tmp_path: Path) -> None:
    """Protects `iarn evaluate A B --cycles 2`: the tables in order, the cost in each, and the same figures as JSON."""
    (tmp_path / "w.safetensors").write_bytes(random_weights())
    sources = []
    for name, picture in zip("ab", pictures(), strict=True):
        (tmp_path / name).mkdir()
        (tmp_path / name / "one.png").write_bytes(saved(picture, "PNG"))
        sources.append(tmp_path / name)
    options = ("--scales", "2", "--cycles", "2", "--weights", tmp_path / "w.safetensors", "--device", "cpu")
    command = [str(word) for word in ("evaluate", *sources, *options)]
    shown = CliRunner().invoke(app, command)
    assert shown.exit_code == 0, shown.output
    parts = shown.stdout.split("\n\n")
    assert parts[::2] == [str(source) for source in sources]
    rows = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert [row["source"] for row in rows] == [str(source) for source in sources]
    for part, row in zip(parts[1::2], rows, strict=True):
        assert f"| {row['psnr_y']:.2f} | {row['psnr_rgb']:.2f} |" in part
        assert f"{row['mac_per_source_pixel']['downscale'] / 1000:.1f} k" in part
        assert f"| {row['cycled']['drop_y']:.2f}, " in part
