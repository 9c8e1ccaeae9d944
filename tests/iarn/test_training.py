"""Training steps: they learn, and they resume exactly."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from functools import partial
from statistics import fmean

import numpy as np
import pytest
import torch
from torch import Tensor

from iarn.metrics import bicubic_lr, detail_bits, psnr
from iarn.network import COMPILED_GRAPHS
from iarn.recipe import TrainingConfig
from iarn.sampling import Use, sample_patches
from iarn.training import DETAIL_WEIGHT, StepReport, Trainer, bit_price, estimated_bits
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_a_kept_latent_restores_better_than_none(images: list[Tensor]) -> None:
    """Protects steps that keep the latent: it is what they restore from, and it costs bits."""
    kept = trainer(replace(TINY, kept=1.0, clean=0.0)).step(images)
    dropped = trainer(replace(TINY, kept=0.0, clean=0.0)).step(images)
    assert (kept.use, dropped.use) == (Use.KEPT, Use.LEAN)
    assert kept.psnr > dropped.psnr + 3


@pytest.mark.slow
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


def test_weights_for_clean_lrs_begin_as_the_others(images: list[Tensor]) -> None:
    """Protects what was learned: weights for clean LRs begin as the others, and learn alone."""
    shared = random_network(SMALL)
    grown = trainer(replace(TINY, network=replace(SMALL, clean=True), kept=0.0, clean=1.0))
    grown.start_from(shared)
    assert grown.network.clean is not None
    before = {name: tensor.clone() for name, tensor in grown.network.state_dict().items()}
    for name, tensor in shared.state_dict().items():
        assert torch.equal(before[name], tensor)
        assert torch.equal(before[f"clean.{name}"], tensor)
    run(grown, images, 2)
    moved = {name for name, tensor in grown.network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved
    assert all(name.startswith("clean.") for name in moved)
    again = trainer(replace(TINY, network=replace(SMALL, clean=True)))
    again.start_from(grown.network)
    assert all(torch.equal(tensor, again.network.state_dict()[name]) for name, tensor in grown.network.state_dict().items())
    with pytest.raises(ValueError, match="only blocks and stages can be added"):
        trainer(TINY).start_from(grown.network)


def test_only_the_stages_named_learn_for_clean_lrs_too(images: list[Tensor]) -> None:
    """Protects weights that new stages are begun behind, of either kind of LR."""
    network = replace(THIRDS, clean=True)
    subject = trainer(replace(TINY, network=network, lattice=72, strides=(3,), only=("A3",), kept=0.0, clean=0.5))
    before = {name: tensor.clone() for name, tensor in subject.network.state_dict().items()}
    assert {report.use for report in run(subject, images, 8)} == {Use.LEAN, Use.CLEAN}
    after = subject.network.state_dict()
    moved = {name[: name.index("thirds") + len("thirds.0")] for name in after if not torch.equal(after[name], before[name])}
    assert moved == {"thirds.0", "clean.thirds.0"}


def test_clean_lrs_come_as_files_give_them_back(images: list[Tensor]) -> None:
    """Protects the base of detail layers: what archives restore from is an LR with its codec's errors."""
    seen = []

    def code_lr(lrs: Tensor) -> Tensor:
        seen.append(lrs)
        return lrs.round(decimals=1)

    config = replace(TINY, kept=0.0, clean=1.0, coded=1.0)
    report = Trainer(config, torch.device("cpu"), autocast=False, code_lr=code_lr).step(images)
    assert (report.use, len(seen)) == (Use.CLEAN, 1)
    assert report.lr_psnr == pytest.approx(psnr(seen[0].round(decimals=1), seen[0]), abs=0.01)
    with pytest.raises(ValueError, match="coded LRs"):
        trainer(config)


def test_a_detail_step_minimises_the_bits_of_a_detail_layer(images: list[Tensor]) -> None:
    """Protects archives' bytes: clean steps of such a recipe lower what a detail layer takes, others do as before."""
    plain = replace(TINY, kept=0.0, clean=1.0)
    x = sample_patches(images, (32, 32), plain, torch.Generator().manual_seed(1))
    subject = trainer(replace(plain, detail_step=6.0))
    reference = bicubic_lr(x, subject.network.axes((32, 32), (16, 16)))
    loss, restored, _ = subject._loss(x, reference, Use.CLEAN, 1.0)
    assert loss.item() == pytest.approx(DETAIL_WEIGHT * detail_bits(restored - x, 6.0).item(), abs=1e-3)
    lean, other = (each._loss(x, reference, Use.LEAN, 1.0)[0] for each in (subject, trainer(plain)))
    assert lean.item() == other.item()


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
