"""Training steps: they learn, they resume exactly, and what is sampled stays within the network's reach."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from iarn.lattice import axes_for, stride_for
from iarn.metrics import bicubic_lr
from iarn.network import COMPILED_GRAPHS, NetworkConfig
from iarn.training import (
    StepReport,
    Trainer,
    TrainingConfig,
    Use,
    bit_price,
    estimated_bits,
    sample_patches,
    sample_sizes,
    sample_use,
)
from jobs.training.recipe import read_config
from pipeline.core.errors import InvalidOption
from tests.support.networks import SMALL, THIRDS, noise, random_network
from tests.support.pictures import photo

TINY = TrainingConfig(network=SMALL, steps=40, batch=2, lattice=32, warmup=2, rate=2e-3)


@pytest.fixture(scope="module")
def images() -> list[Tensor]:
    """Synthetic photographs, uint8 (3, H, W)."""
    return [torch.from_numpy(photo(90, 80 + 10 * seed, seed=seed)).permute(2, 0, 1).contiguous() for seed in range(3)]


def trainer(config: TrainingConfig = TINY) -> Trainer:
    """Return a trainer on the CPU in float32."""
    return Trainer(config, torch.device("cpu"), autocast=False)


def run(subject: Trainer, images: list[Tensor], steps: int) -> list[StepReport]:
    """Do some steps."""
    return [subject.step(images) for _ in range(steps)]


def test_loss_falls(images: list[Tensor]) -> None:
    """Protects training as a whole: thirty steps of a tiny network restore better than none."""
    config = TrainingConfig(network=SMALL, steps=30, batch=4, lattice=32, warmup=2, rate=4e-3, smooth=0.0, kept=0.0, clean=0.0)
    subject = trainer(config)
    reports = run(subject, images, 30)
    assert [report.step for report in reports] == list(range(1, 31))
    assert all(math.isfinite(report.loss) and report.psnr > 10 and report.lr_psnr > 20 for report in reports)

    subject.done = 0  # the same patches and scales as in the first steps
    again = run(subject, images, 8)
    first = np.mean([report.loss for report in reports[:8]])
    assert np.mean([report.loss for report in again]) < 0.9 * first


def test_a_run_resumes_bit_by_bit(images: list[Tensor]) -> None:
    """Protects resumed runs: two steps, saved, loaded elsewhere and two more are the four steps of one run."""
    whole = trainer()
    expected = run(whole, images, 4)

    first = trainer()
    run(first, images, 2)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = trainer()
    run(second, images, 1)  # whatever it holds is replaced
    second.load_state_dict(torch.load(file, weights_only=True))
    assert second.done == 2
    assert run(second, images, 2) == expected[2:]
    for one, other in (
        (whole.network.state_dict(), second.network.state_dict()),
        (whole.average.state_dict(), second.average.state_dict()),
    ):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_two_runs_of_one_seed_are_the_same(images: list[Tensor]) -> None:
    """Protects seeds: the same one gives the same network, another one another."""
    one, other, third = trainer(), trainer(), trainer(TrainingConfig(network=SMALL, steps=40, batch=2, lattice=32, seed=1))
    reports = [run(subject, images, 2) for subject in (one, other, third)]
    assert reports[0] == reports[1]
    assert reports[0] != reports[2]


def test_every_step_draws_anew(images: list[Tensor]) -> None:
    """Protects what is learned from: a network held still meets other patches and scales at each step."""
    still = trainer(TrainingConfig(network=SMALL, steps=40, batch=2, lattice=32, rate=0.0))
    assert len({report.loss for report in run(still, images, 4)}) == 4


def test_the_average_follows_the_network(images: list[Tensor]) -> None:
    """Protects the weights that are shipped: the moving average leaves the start and stays short of the network."""
    subject = trainer()
    start = {name: tensor.clone() for name, tensor in subject.average.state_dict().items()}
    run(subject, images, 3)
    moved = [name for name, tensor in subject.average.state_dict().items() if not torch.equal(tensor, start[name])]
    assert len(moved) == len(start)
    assert not any(parameter.requires_grad for parameter in subject.average.parameters())


def test_a_step_that_is_not_finite_changes_no_weight(images: list[Tensor]) -> None:
    """Protects long runs: one bad gradient is left out instead of spoiling every weight."""
    subject = trainer()
    run(subject, images, 1)
    before = {name: tensor.clone() for name, tensor in subject.network.state_dict().items()}
    handle = next(iter(subject.network.parameters())).register_hook(lambda gradient: gradient * math.nan)
    run(subject, images, 1)
    handle.remove()
    assert all(torch.equal(tensor, before[name]) for name, tensor in subject.network.state_dict().items())


def test_autocast_stays_near_float32(images: list[Tensor]) -> None:
    """Protects training in bfloat16: the first step's loss is that of float32 within a few percent."""
    coarse = Trainer(TINY, torch.device("cpu"), autocast=True).step(images)
    assert coarse.loss == pytest.approx(trainer().step(images).loss, rel=0.05)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch looks at it, and hides the warning by its own means
def test_compiled_blocks_train_alike(images: list[Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects training on GPUs: compiled blocks give the steps that others do, in a number of graphs that stays bounded."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))  # what a compiler makes of graphs is its own
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 8)  # set back afterwards
    torch._dynamo.reset()
    subject = Trainer(replace(TINY, kept=0.3), torch.device("cpu"), autocast=False, compiled=True)
    found = run(subject, images, 12)
    expected = run(trainer(replace(TINY, kept=0.3)), images, 12)
    assert [report.loss for report in found] == pytest.approx([report.loss for report in expected], rel=1e-4)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert 3 <= graphs <= COMPILED_GRAPHS
    torch._dynamo.reset()


@given(st.integers(0, 10_000), st.sampled_from([((1,), ()), ((1, 1), ()), ((1, 1, 1), ()), ((1,), (1,)), ((1, 1, 1), (1, 1))]))
def test_sampled_sizes_are_within_reach(seed: int, stages: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    """Protects training: every scale drawn is above 1, within the network's reach, and its patch within the lattice."""
    config = TrainingConfig(network=NetworkConfig(blocks=stages[0], thirds=stages[1], width=2), lattice=112)
    size, lr_size = sample_sizes(config, torch.Generator().manual_seed(seed))
    for length, lr in zip(size, lr_size, strict=True):
        assert lr < length <= config.lattice
        assert length <= lr * config.network.max_scale
    stride = stride_for(size, lr_size, config.network.strides)
    assert config.lattice - stride < stride * max(lr_size) <= config.lattice, "the lattice is as large as was asked for"


def test_all_kinds_of_scales_are_drawn() -> None:
    """Protects the one network for every scale: small and large, equal and unequal scales all occur, in their share."""
    config = TrainingConfig(asymmetric=0.25, whole=0.0)
    drawn = [sample_sizes(config, torch.Generator().manual_seed(seed)) for seed in range(400)]
    scales = np.array([[length / lr for length, lr in zip(size, lr_size, strict=True)] for size, lr_size in drawn])
    assert 0.4 < (scales[:, 0] < 2).mean() < 0.6  # log-uniform from 1 to 4
    assert scales.min() < 1.1
    assert scales.max() > 3.8
    assert 0.15 < (np.abs(scales[:, 0] - scales[:, 1]) > 0.05).mean() < 0.35


def test_whole_scales_are_drawn_exactly() -> None:
    """Protects the scales most people ask for: a share of steps is at exactly 2, 3 and 4, where others only come near."""
    config = TrainingConfig(asymmetric=0.1, whole=0.4)
    drawn = [sample_sizes(config, torch.Generator().manual_seed(seed)) for seed in range(400)]
    exact = [size[0] // lr[0] for size, lr in drawn if size[0] == size[1] and size[0] % lr[0] == 0]
    assert 0.3 < len(exact) / len(drawn) < 0.5
    assert all(exact.count(scale) > 20 for scale in (2, 3, 4))


def test_scales_are_drawn_for_the_strides_asked_for() -> None:
    """Protects runs for new stages: each step needs one of the lattices named, in their shares, whatever its kind."""
    config = TrainingConfig(network=THIRDS, lattice=96, strides=(3, 3, 8))
    axes = [axes_for(*sample_sizes(config, torch.Generator().manual_seed(seed)), THIRDS.strides) for seed in range(400)]
    drawn = [pair[0].stride for pair in axes]
    assert set(drawn) == {3, 8}
    assert 0.6 < drawn.count(3) / len(drawn) < 0.73
    assert all(pair[0].points == pair[1].points == 96 for pair in axes)
    by_three = [(pair[0].scale, pair[1].scale) for pair in axes if pair[0].stride == 3]
    assert min(map(max, by_three)) > 2
    assert {0, 1} == {int(one < other) for one, other in by_three if one != other}, "either axis may have the larger scale"
    assert by_three.count((3.0, 3.0)) > 0.2 * len(by_three)


def test_only_the_stages_named_learn(images: list[Tensor]) -> None:
    """Protects weights that new stages are begun behind: the others stay as they are, and so does their moving average."""
    subject = trainer(replace(TINY, network=THIRDS, lattice=72, strides=(3, 6), only=("A3", "B3")))
    before = {name: tensor.clone() for name, tensor in subject.network.state_dict().items()}
    run(subject, images, 6)
    for network in (subject.network, subject.average):
        moved = {
            name[: len("thirds.0")] for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])
        }
        assert moved == {"thirds.0", "thirds.1"}


@pytest.mark.parametrize(
    "fields",
    [
        {"strides": (5,)},
        {"strides": (1, 2)},
        {"only": ("C3",)},
        {"only": ("A3",)},
        {"strides": (3, 4), "only": ("A3",)},
    ],
)
def test_strides_and_stages_that_are_not_there_are_refused(fields: dict[str, object]) -> None:
    """Protects long runs: strides that the network lacks, and steps that nothing learns from, are refused before the first."""
    with pytest.raises(ValueError, match=r"strides are some of \(2, 3, 4, 6, 8\)"):
        TrainingConfig(network=THIRDS, **fields)  # type: ignore[arg-type]


def test_every_use_has_its_share_of_steps() -> None:
    """Protects the one network for all uses: latents are kept with steps fine and coarse, clean LRs exact or rounded."""
    config = TrainingConfig(kept=0.3, clean=0.4)
    drawn = [sample_use(config, torch.Generator().manual_seed(seed)) for seed in range(600)]
    kept, clean = ([levels for use, levels in drawn if use is wanted] for wanted in (Use.KEPT, Use.CLEAN))
    assert 0.24 < len(kept) / len(drawn) < 0.36
    assert 0.34 < len(clean) / len(drawn) < 0.46
    assert 1 <= min(kept) < 2 < 32 < max(kept) <= 64
    assert set(clean) == {1.0, 2.0, 3.0, 4.0}
    assert 0.4 < clean.count(1.0) / len(clean) < 0.6
    none = TrainingConfig(kept=0.0, clean=0.0)
    assert all(sample_use(none, torch.Generator().manual_seed(seed))[0] is Use.LEAN for seed in range(50))


def test_a_kept_latent_restores_better_than_none(images: list[Tensor]) -> None:
    """Protects steps that keep the latent: it is what they restore from, and it costs bits."""
    kept = trainer(replace(TINY, kept=1.0, clean=0.0)).step(images)
    dropped = trainer(replace(TINY, kept=0.0, clean=0.0)).step(images)
    assert (kept.use, dropped.use) == (Use.KEPT, Use.LEAN)
    assert kept.psnr > dropped.psnr + 3


def test_clean_steps_learn_to_restore_from_the_bicubic_lr(images: list[Tensor]) -> None:
    """Protects the base of detail layers: the LR is the bicubic one up to its rounding, and restoring from it improves."""
    config = replace(TINY, kept=0.0, clean=1.0, steps=40, rate=4e-3, decay=0.5)
    reports = run(trainer(config), images, 40)
    assert {report.use for report in reports} == {Use.CLEAN}
    assert min(report.lr_psnr for report in reports) > 45
    assert fmean(report.loss for report in reports[-10:]) < fmean(report.loss for report in reports[:10])


def test_bits_grow_with_the_latent_and_shrink_with_the_step() -> None:
    """Protects what a kept latent pays: nothing for zeros, more for larger values, less in coarser steps, at a higher price."""
    z = torch.full((1, 9, 4, 4), 8 / 255)
    assert float(estimated_bits(torch.zeros_like(z), 4)) == 0
    assert float(estimated_bits(z, 4)) == pytest.approx(2 * math.log2(3) * z.numel(), rel=1e-5)
    assert float(estimated_bits(z, 8)) < float(estimated_bits(z, 4)) < float(estimated_bits(2 * z, 4))
    assert bit_price(8) == pytest.approx(2 * bit_price(4))


def test_workers_that_share_a_batch_draw_it_together(images: list[Tensor]) -> None:
    """Protects training on several devices: their parts, side by side, are the batch that one alone would draw."""
    config = replace(TINY, batch=6)

    def draw(part: tuple[int, int]) -> Tensor:
        return sample_patches(images, (20, 33), config, torch.Generator().manual_seed(5), part=part)

    assert torch.equal(torch.cat([draw((worker, 3)) for worker in range(3)]), draw((0, 1)))
    with pytest.raises(ValueError, match="batch of 6 cannot be shared evenly by 4 workers"):
        Trainer(config, torch.device("cpu"), autocast=False, workers=4)


def test_weights_with_fewer_blocks_can_be_grown(images: list[Tensor]) -> None:
    """Protects what was learned: a network begun from a smaller one does the same as it, until it learns more."""
    small = trainer()
    run(small, images, 3)
    grown = trainer(replace(TINY, network=replace(SMALL, blocks=(2, 3))))
    grown.start_from(small.average)
    x = images[0][None, :, :40, :40].float() / 255
    for one, other in zip(small.average.downscale(x, (17, 17)), grown.network.downscale(x, (17, 17)), strict=True):
        assert torch.equal(one, other)
    before = {name: tensor.clone() for name, tensor in grown.network.state_dict().items()}
    run(grown, images, 2)
    assert not any(torch.equal(tensor, before[name]) for name, tensor in grown.network.state_dict().items() if "last" in name)
    for other in (replace(SMALL, width=16), replace(SMALL, blocks=(1, 1)), replace(SMALL, blocks=(1,))):
        with pytest.raises(ValueError, match="only blocks and stages can be added"):
            trainer(replace(TINY, network=other)).start_from(small.average)


def test_weights_can_be_grown_by_stages() -> None:
    """Protects what was learned: stages that split otherwise, or further, leave the scales of the others as they were."""
    small = random_network(SMALL)
    grown = trainer(replace(TINY, network=THIRDS, lattice=64))
    grown.start_from(small)
    x = noise(1, 3, 40, 40)
    with torch.no_grad():
        for lr in (25, 20, 11, 10):
            torch.testing.assert_close(grown.network.downscale_lr(x, (lr, lr)), small.downscale_lr(x, (lr, lr)))
    with pytest.raises(ValueError, match="only blocks and stages can be added"):
        trainer(TINY).start_from(random_network(THIRDS))


def test_patches_are_of_their_size_and_range(images: list[Tensor]) -> None:
    """Protects what the network learns from: patches in [0, 1] at the size drawn, also when turned, different ones."""
    patches = sample_patches(images, (20, 33), TINY, torch.Generator().manual_seed(5))
    assert patches.shape == (TINY.batch, 3, 20, 33)
    assert patches.min() >= 0
    assert patches.max() <= 1
    assert not torch.equal(patches[0], patches[1])


def test_an_image_smaller_than_a_patch_is_refused(images: list[Tensor]) -> None:
    """Protects users' image folders: one that is too small is an error that names both sizes and what to do."""
    with pytest.raises(ValueError, match=r"\(10, 80\) is smaller than a patch.*20, 20.*; leave it out"):
        sample_patches([images[0][:, :10]], (20, 20), TINY, torch.Generator().manual_seed(0))


def test_a_patch_as_large_as_its_image_is_fine() -> None:
    """Protects small images: one of just the patch's size is used whole."""
    image = torch.arange(3 * 8 * 8).reshape(3, 8, 8).to(torch.uint8)
    config = TrainingConfig(network=SMALL, batch=6, smooth=0.0)
    patches = sample_patches([image], (8, 8), config, torch.Generator().manual_seed(0))
    whole = sorted((image.float() / 255).flatten().tolist())
    assert all(sorted(patch.flatten().tolist()) == whole for patch in patches)


def test_the_rate_rises_stays_and_falls() -> None:
    """Protects the schedule: up over the warm-up, flat, and by a half cosine to almost nothing at the end."""
    config = TrainingConfig(steps=1000, warmup=100, decay=0.6, rate=1e-3)
    rates = [config.rate_at(step) for step in range(1000)]
    assert rates[0] == pytest.approx(1e-5)
    assert rates[99] == rates[399] == pytest.approx(1e-3)
    assert rates[700] == pytest.approx(5e-4)
    assert rates[999] < 1e-7
    assert np.all(np.diff(rates[:100]) > 0)
    assert np.all(np.diff(rates[400:]) <= 0)
    assert TrainingConfig(warmup=0, rate=1e-3).rate_at(0) == 1e-3


@pytest.mark.parametrize("fields", [{"steps": 0}, {"batch": 0}, {"lattice": 31}, {"decay": 0.0}, {"decay": 1.1}])
def test_a_recipe_that_makes_no_sense_is_refused(fields: dict[str, float]) -> None:
    """Protects long runs: a recipe that cannot work is refused before the first step."""
    with pytest.raises(ValueError, match="Training needs"):
        TrainingConfig(network=SMALL, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "fields",
    [
        {"kept": -0.1},
        {"smooth": 1.1},
        {"ema": -1.0},
        {"asymmetric": 0.6, "whole": 0.5},
        {"kept": 0.6, "clean": 0.5},
        {"rate": -1e-3},
        {"clip": 0.0},
    ],
)
def test_shares_lie_between_none_and_all(fields: dict[str, float]) -> None:
    """Protects long runs: a share below nothing or above everything, or a negative rate, is refused before the first step."""
    with pytest.raises(ValueError, match="A recipe's shares"):
        TrainingConfig(network=SMALL, **fields)  # type: ignore[arg-type]


def test_the_lr_is_held_patch_by_patch(images: list[Tensor]) -> None:
    """Protects LRs of textured pictures: one far off costs more than many a little off by the same in sum."""
    subject = trainer(replace(TINY, kept=0.0, lr_psnr=30.0))
    x = sample_patches(images, (24, 24), TINY, torch.Generator().manual_seed(1))

    def loss(offsets: tuple[float, float]) -> float:
        shift = torch.tensor(offsets)[:, None, None, None]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(subject.network, "downscale_lr", lambda *_: reference + shift)
            patch.setattr(subject.network, "restore", lambda *_, **__: x)
            return float(subject._loss(x, reference, Use.LEAN, 1.0)[0])

    reference = bicubic_lr(x, subject.network.axes((24, 24), (12, 12)))
    equal, unequal = (0.1, 0.1), (0.0, math.sqrt(0.02))
    assert loss(unequal) > 1.3 * loss(equal)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"# caf\xe9\nsteps = 5", "utf-8"),
        (b'rate = "fast"', "rate has to be a number, not 'fast'"),
        (b"lattice = 112.5", "lattice has to be an integer, not 112.5"),
        (b"batch = true", "batch has to be an integer, not True"),
        (b"ema = false", "ema has to be a number, not False"),
        (b"only = [1]", "only has to be a list of names, not"),
        (b"strides = ['3']", "strides has to be a list of integers, not"),
        (b"[network]\nblocks = 3", "blocks has to be a list of integers, not 3"),
        (b"[network]\nblocks = [1, 2.5]", "blocks has to be a list of integers"),
    ],
)
def test_a_recipe_file_of_wrong_content_is_refused(tmp_path: Path, text: bytes, found: str) -> None:
    """Protects the user of a recipe from a traceback, at once or after a night: each value is of its setting's type."""
    path = tmp_path / "recipe.toml"
    path.write_bytes(text)
    with pytest.raises(InvalidOption, match=found):
        read_config(path)
    path.write_text("rate = 1\nsteps = 7\n[network]\nblocks = [1, 1]\n", encoding="utf-8")
    assert read_config(path) == TrainingConfig(rate=1.0, steps=7, network=NetworkConfig(blocks=(1, 1)))
    path.write_text("strides = [3]\nonly = ['A3']\n[network]\nthirds = [2]\n", encoding="utf-8")
    assert read_config(path) == TrainingConfig(strides=(3,), only=("A3",), network=NetworkConfig(thirds=(2,)))
