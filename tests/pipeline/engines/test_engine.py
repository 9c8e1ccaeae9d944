"""The engine: tiled as untiled, the same twice, and one clear error for what cannot be."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from iarn.cascade import cascade
from iarn.encoding import Place
from iarn.metrics import luma, psnr, ssim
from iarn.network import NetworkConfig, Rescaler
from iarn.pretrained import shipped
from pipeline.core.errors import DeviceUnavailable, InvalidWeights, SizeNotReachable
from pipeline.core.records import FloorMetric, Pixels
from pipeline.engines import measure as measure_module
from pipeline.engines.engine import Downscale, Engine, Restore, check_weights, choose_device
from pipeline.engines.measure import measure, score
from tests.support.networks import SMALL, THIRDS, random_network, random_weights
from tests.support.pictures import photo

CPU = torch.device("cpu")
WEIGHTS = random_weights()


def engines(config: NetworkConfig) -> list[Engine]:
    """Return engines of one network that compute images whole, in tiles, and in batches."""
    options: tuple[dict[str, Any], ...] = ({}, {"tile_points": 176}, {"tile_points": 352, "batched": True})
    return [Engine(random_weights(config), CPU, **each) for each in options]


WHOLE, TILED, BATCHED = engines(SMALL)
BY_THREE = engines(THIRDS)
"""As on a GPU: squares of 44, 88 and 176 lattice points, in batches of 64, 16 and 4; the halo leaves 56 of 176 at x4."""

side = st.one_of(st.sampled_from([1, 2, 5]), st.integers(1, 110))
scale = st.one_of(st.sampled_from([1.0, 1.02, 1.99, 2.0, 3.0, 4.0]), st.floats(1, 4))


def picture(height: int, width: int, seed: int = 0) -> Pixels:
    """Return a picture with smooth parts beside noise, the hardest to bring back."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return np.where((np.arange(width) < width // 2)[:, None], photo(height, width, seed=seed), noise).astype(np.uint8)


def decibels(one: Pixels, other: Pixels) -> float:
    """PSNR by hand."""
    error = np.mean((one.astype(float) - other) ** 2)
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def tensor(pixels: Pixels) -> torch.Tensor:
    """Return pixels as the metrics take them."""
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


@pytest.mark.slow
@given(side, side, scale, scale, st.booleans(), st.booleans())
@example(1, 150, 1.0, 3.9, False, False)
@example(150, 1, 2.5, 2.5, True, False)
@example(149, 131, 2.0, 2.0, True, True)
@example(131, 149, 4.0, 4.0, True, False)
@example(140, 139, 1.995, 1.995, True, False)
@example(40, 120, 1.0, 2.5, False, True)
def test_tiled_equals_untiled(height: int, width: int, vertical: float, horizontal: float, symmetric: bool, grey: bool) -> None:
    """Protects large images: cutting one to tiles changes neither its LR nor its restore (60 dB asked for, one level seen)."""
    lr_size = (math.ceil(height / vertical), math.ceil(width / (vertical if symmetric else horizontal)))
    pixels = picture(height, width)
    lr = WHOLE.downscale(pixels, lr_size, grey=grey)
    restored = WHOLE.restore(lr, (height, width), grey=grey)
    assert lr.dtype == restored.dtype == np.uint8
    assert lr.shape == (*lr_size, 3)
    assert restored.shape == pixels.shape
    for subject in (TILED, BATCHED):
        assert_the_same(subject.downscale(pixels, lr_size, grey=grey), lr)
        assert_the_same(subject.restore(lr, (height, width), grey=grey), restored)


@pytest.mark.slow
@given(side, side, st.one_of(st.sampled_from([2.01, 3.0, 5.0, 6.0, 8.0]), st.floats(1, 8)))
@example(150, 149, 2.5)
@example(170, 150, 6.0)
@example(149, 163, 7.9)
def test_tiled_equals_untiled_by_three(height: int, width: int, scale: float) -> None:
    """Protects large images where stages split by three, or lead beyond x4, in the same way."""
    lr_size = (math.ceil(height / scale), math.ceil(width / scale))
    pixels = picture(height, width)
    whole, *others = BY_THREE
    lr = whole.downscale(pixels, lr_size)
    restored = whole.restore(lr, (height, width))
    for subject in others:
        assert_the_same(subject.downscale(pixels, lr_size), lr)
        assert_the_same(subject.restore(lr, (height, width)), restored)


@pytest.mark.parametrize("config", [SMALL, replace(SMALL, clean=True)], ids=["shared", "own for clean LRs"])
def test_images_of_any_size_share_batches(config: NetworkConfig) -> None:
    """Protects batches: images of several sizes, scales and uses come out of one call, in order, as by themselves."""
    sizes = [
        ((40, 60), (20, 30)),
        ((33, 7), (15, 7)),
        ((150, 90), (40, 24)),
        ((1, 1), (1, 1)),
        ((90, 91), (31, 40)),
        ((9, 5), (3, 2)),
    ]
    whole, tiled, batched = engines(config)
    images = [picture(*size, seed=number) for number, (size, _) in enumerate(sizes)]
    downscales = [
        Downscale(pixels=pixels, lr_size=lr_size, grey=number % 2 == 1)
        for number, (pixels, (_, lr_size)) in enumerate(zip(images, sizes, strict=True))
    ]
    lrs = [whole.downscale(each.pixels, each.lr_size, grey=each.grey) for each in downscales]
    restores = [
        Restore(lr=lr, size=size, grey=number % 2 == 1, clean=number % 3 == 0)
        for number, (lr, (size, _)) in enumerate(zip(lrs, sizes, strict=True))
    ]
    restored = [whole.restore(each.lr, each.size, grey=each.grey, clean=each.clean) for each in restores]
    for subject in (tiled, batched):
        for found, expected in ((subject.downscale_many(downscales), lrs), (subject.restore_many(restores), restored)):
            assert len(found) == len(expected)
            for one, other in zip(found, expected, strict=True):
                assert_the_same(one, other)
    assert batched.downscale_many([]) == []


def test_batches_have_few_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects what is compiled or captured once: whatever the sizes of images, three shapes for each number of stages."""
    shapes = set()
    analyse = Rescaler.analyse_lr

    def seen(self: Rescaler, lattice: torch.Tensor, places: Sequence[Place]) -> torch.Tensor:
        shapes.add((places[0].axes[0].stride, lattice.shape[2:]))
        return analyse(self, lattice, places)

    monkeypatch.setattr(Rescaler, "analyse_lr", seen)
    images = [picture(height, width) for height, width in ((3, 80), (28, 28), (71, 50), (56, 30), (131, 17))]
    for divisor in (2, 3):
        lr_sizes = [(-(-pixels.shape[0] // divisor), -(-pixels.shape[1] // divisor)) for pixels in images]
        BATCHED.downscale_many([Downscale(pixels=p, lr_size=size) for p, size in zip(images, lr_sizes, strict=True)])
    assert {stride for stride, _ in shapes} == {2, 4}
    assert all(height == width for _, (height, width) in shapes)
    assert len(shapes) <= 6


@pytest.mark.slow
@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_less_precision_gives_nearly_the_same(precision: torch.dtype) -> None:
    """Protects GPUs' half precision: LRs are within a level of float32's on 99.9 %, and restores as good."""
    coarse, network = Engine(shipped(), CPU, precision=precision), Engine(shipped(), CPU)
    pixels = photo(72, 96, seed=3)
    for lr_size in ((48, 64), (36, 48), (18, 24)):
        lr = network.downscale(pixels, lr_size)
        close = np.abs(coarse.downscale(pixels, lr_size).astype(int) - lr) <= 1
        assert close.mean() >= 0.999
        lost = decibels(network.restore(lr, (72, 96)), pixels) - decibels(coarse.restore(lr, (72, 96)), pixels)
        assert abs(lost) <= (0.02 if precision is torch.float16 else 0.06)


def assert_the_same(one: Pixels, other: Pixels) -> None:
    """Hold two pictures equal but for a few values that stood half-way between two levels."""
    assert one.shape == other.shape
    assert np.abs(one.astype(int) - other).max() <= 1
    places = int((one != other).any(axis=2).sum())
    assert places <= 2 + one.size // 1000
    assert decibels(one, other) >= 60 or places == 1  # one level in one place of a tiny picture is more than that


def test_an_engine_gives_what_its_network_does() -> None:
    """Protects the weights: the engine's LR and restore are those of the network by itself, rounded."""
    network = random_network()
    pixels = picture(61, 50)
    with torch.no_grad():
        y, _ = network.downscale(tensor(pixels), (25, 21))
        lr = (y[0].permute(1, 2, 0) * 255).round().clamp(0, 255).to(torch.uint8).numpy()
        x = network.restore(tensor(lr), None, (61, 50))
    image = (x[0].permute(1, 2, 0) * 255).round().clamp(0, 255).to(torch.uint8).numpy()
    assert decibels(WHOLE.downscale(pixels, (25, 21)), lr) >= 65
    assert decibels(WHOLE.restore(lr, (61, 50)), image) >= 65


@pytest.mark.slow
def test_the_same_bytes_twice() -> None:
    """Protects resuming and repeating: an engine, and another one of the same weights, give the same bytes again."""
    pixels = picture(97, 120)
    lr = TILED.downscale(pixels, (40, 50))
    again = Engine(WEIGHTS, CPU, tile_points=176)
    assert np.array_equal(TILED.downscale(pixels, (40, 50)), lr)
    assert np.array_equal(again.downscale(pixels, (40, 50)), lr)
    assert np.array_equal(again.restore(lr, (97, 120)), TILED.restore(lr, (97, 120)))


def test_pixels_are_left_as_they_are() -> None:
    """Protects the source's pixels, which the restore is measured against: also read-only and strided ones are taken."""
    pixels = picture(40, 60)[:, ::2]
    before = pixels.copy()
    pixels.setflags(write=False)
    lr = WHOLE.downscale(pixels, (20, 15))
    assert np.array_equal(pixels, before)
    assert np.array_equal(lr, WHOLE.downscale(before, (20, 15)))


@pytest.mark.parametrize("subject", [WHOLE, TILED], ids=["whole", "tiled"])
def test_grey_stays_grey(subject: Engine) -> None:
    """Protects grey images: no colour appears in LR or restore, and asking for it brings it (the weights would)."""
    plane = picture(90, 61)[..., :1].repeat(3, axis=2)
    lr = subject.downscale(plane, (36, 30), grey=True)
    restored = subject.restore(lr, (90, 61), grey=True)
    for grey in (lr, restored):
        assert (grey[..., 0] == grey[..., 1]).all()
        assert (grey[..., 0] == grey[..., 2]).all()
    assert (subject.downscale(plane, (36, 30)) != lr).any()


def test_scale_one_gives_the_same_pixels() -> None:
    """Protects images that are small already: nothing is lost at scale 1, tiled or not."""
    pixels = picture(130, 3)
    for subject in (WHOLE, TILED):
        assert np.array_equal(subject.downscale(pixels, (130, 3)), pixels)
        assert np.array_equal(subject.restore(pixels, (130, 3)), pixels)


def test_sizes_out_of_reach() -> None:
    """Protects a job from one odd asset: a scale that no LR has is an ImageError before any work, with both sizes."""
    WHOLE.check_size((512, 513), (2, 3))
    for size, lr_size in (((257, 400), (1, 400)), ((400, 257), (400, 1))):
        with pytest.raises(SizeNotReachable, match="above 256, the largest of an LR") as caught:
            WHOLE.check_size(size, lr_size)
        assert f"from {size[1]} x {size[0]} to {lr_size[1]} x {lr_size[0]}" in str(caught.value)


@pytest.mark.parametrize(("size", "lr_size"), [((97, 61), (19, 12)), ((90, 70), (3, 70)), ((120, 33), (2, 1))])
def test_beyond_the_networks_reach_an_lr_is_restored_step_by_step(size: tuple[int, int], lr_size: tuple[int, int]) -> None:
    """Protects LRs of any size: each step restores the clean LR of the next, in a batch as alone, tiled or not."""
    assert not WHOLE.reaches(size, lr_size)
    lr = picture(*lr_size)
    by_hand = lr
    for step in cascade(size, lr_size, 4):
        by_hand = WHOLE.restore(by_hand, step, clean=True)
    near = Restore(lr=picture(30, 20), size=(60, 41), clean=True)
    one, other = WHOLE.restore_many([Restore(lr=lr, size=size, clean=True), near])
    assert np.array_equal(one, by_hand)
    assert one.shape[:2] == size
    assert np.array_equal(other, WHOLE.restore_many([near])[0])
    assert np.abs(TILED.restore(lr, size, clean=True).astype(int) - one).max() <= 1


@pytest.mark.parametrize("height", [1, 7, 10, 11, 12, 40, 41, 42, 43, 73, 74, 75, 150])
@pytest.mark.parametrize("width", [1, 30])
def test_measure_in_strips_equals_the_whole(height: int, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the figures in an archive: strips give the PSNR and SSIM of the whole image, wherever their edges fall."""
    monkeypatch.setattr(measure_module, "STRIP_PIXELS", 1)
    image, restored = picture(height, width), picture(height, width, seed=1)
    found = measure(image, restored)
    assert found.psnr == pytest.approx(psnr(tensor(image), tensor(restored)), abs=1e-4)
    assert found.psnr == pytest.approx(decibels(image, restored), abs=1e-4)
    assert found.psnr_y == pytest.approx(psnr(luma(tensor(image)), luma(tensor(restored))), abs=1e-4)
    assert found.ssim == pytest.approx(ssim(tensor(image), tensor(restored)), abs=1e-5)
    for metric in FloorMetric:
        assert score(image, restored, metric) == pytest.approx(found.of(metric), abs=1e-4)


def test_equal_images_measure_as_equal() -> None:
    """Protects exact restores: infinite PSNR and an SSIM of one, without a warning."""
    found = measure(picture(20, 20), picture(20, 20))
    assert (found.psnr, found.psnr_y) == (math.inf, math.inf)
    assert found.ssim == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("wanted", ["gpu", "cuda:x", "cuda:-1", "", "auto ", "meta", "mps", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(wanted: str) -> None:
    """Protects users from a slow job: one never runs somewhere else than it was told to."""
    with pytest.raises(DeviceUnavailable) as caught:
        choose_device(wanted)
    assert caught.value.wanted == wanted
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("count", "wanted", "there"), [(0, "cuda", False), (1, "cuda", True), (1, "cuda:1", False), (2, "cuda:1", True)]
)
def test_cuda_devices_are_counted(count: int, wanted: str, there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects machines with several GPUs: an index is checked against those visible, and kept."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    if there:
        assert choose_device(wanted) == torch.device(wanted)
    else:
        with pytest.raises(DeviceUnavailable, match=f"{count} CUDA devices are visible"):
            choose_device(wanted)


@pytest.mark.parametrize(("available", "expected"), [(True, "cuda"), (False, "cpu")])
def test_auto_takes_the_best_there_is(available: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the default: a GPU where there is one, the CPU otherwise."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert choose_device("auto").type == expected
    assert choose_device("cpu").type == "cpu"


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:0],
        lambda data: b"no weights" + data,
        lambda data: data[:-9],
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    ],
    ids=["empty", "other", "truncated", "flipped"],
)
def test_bad_weights_are_refused(damage: Callable[[bytes], bytes]) -> None:
    """Protects archives: weights that are not whole are InvalidWeights, naming the file, and no engine starts."""
    with pytest.raises(InvalidWeights, match="Weights s3://bucket/model cannot be used: it"):
        check_weights(damage(WEIGHTS), "s3://bucket/model")
    with pytest.raises(InvalidWeights):
        Engine(damage(WEIGHTS), CPU)
    check_weights(WEIGHTS, "s3://bucket/model")
