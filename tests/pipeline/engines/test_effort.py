"""An engine's effort: restores no worse and mostly better, the same in tiles and batches, of LRs that stay pictures."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from iarn.effort import SLACK
from iarn.metrics import bicubic_lr
from iarn.pretrained import shipped
from pipeline.core.records import Pixels, Size
from pipeline.engines.engine import Downscale, Engine
from pipeline.engines.measure import measure
from tests.support.networks import THIRDS, random_weights
from tests.support.pictures import photo

CPU = torch.device("cpu")
WHOLE = Engine(shipped(), CPU)
THREES = random_weights(THIRDS)
SIZES = [
    ((48, 61), (24, 31)),
    ((50, 44), (33, 29)),
    ((55, 60), (22, 24)),
    ((64, 52), (16, 13)),
    ((40, 60), (20, 15)),
    ((49, 61), (25, 21)),
]


def picture(size: Size, seed: int = 0) -> Pixels:
    """Return a photograph with something sharp on it."""
    pixels = photo(*size, seed=seed)
    pixels[5:9, 3:40:2] = 255 - pixels[5:9, 3:40:2]
    return pixels


def lr_psnr(engine: Engine, pixels: Pixels, lr: Pixels) -> float:
    """Return the PSNR of an LR against the bicubic one."""
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    axes = engine.axes((pixels.shape[0], pixels.shape[1]), (lr.shape[0], lr.shape[1]))
    reference = bicubic_lr(x, axes).mul(255).round()[0].permute(1, 2, 0).numpy()
    return 10 * math.log10(255**2 / np.mean((reference - lr) ** 2))


@pytest.mark.slow
@pytest.mark.parametrize(("size", "lr_size"), SIZES)
def test_effort_is_never_worse_and_pays(size: Size, lr_size: Size) -> None:
    """Protects whoever waits for it: RGB and luma come back better, and the LR is hardly further from the bicubic one."""
    pixels = picture(size)
    forward = WHOLE.downscale(pixels, lr_size)
    before = measure(pixels, WHOLE.restore(forward, size))
    for effort in (1, 4):
        lr = WHOLE.downscale(pixels, lr_size, effort=effort)
        after = measure(pixels, WHOLE.restore(lr, size))
        assert after.psnr >= before.psnr - 1e-9
        assert after.psnr_y >= before.psnr_y - 1e-3  # in other weights than those of the descent
        assert lr_psnr(WHOLE, pixels, lr) >= lr_psnr(WHOLE, pixels, forward) - SLACK - 1e-6
    assert after.psnr_y > before.psnr_y + 0.1


@pytest.mark.slow
@pytest.mark.parametrize("weights", [random_weights(), THREES], ids=["by two", "by three"])
def test_a_network_that_knows_nothing_is_not_made_worse(weights: bytes) -> None:
    """Protects other weights, whose restores are poor and whose gradients are wild."""
    engine = Engine(weights, CPU)
    for size, lr_size in SIZES:
        noise = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
        before = measure(noise, engine.restore(engine.downscale(noise, lr_size), size))
        after = measure(noise, engine.restore(engine.downscale(noise, lr_size, effort=2), size))
        assert after.psnr >= before.psnr - 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("grey", [False, True])
def test_tiles_and_batches_descend_as_one_piece_does(grey: bool) -> None:
    """Protects large images and GPUs: cut to tiles, or among images of other sizes and efforts, an LR is what it is alone."""
    sizes = [((150, 131), (60, 52)), ((131, 149), (66, 75)), ((9, 5), (3, 2)), ((40, 41), (40, 41))]
    requests = [
        Downscale(pixels=picture(size, number) if size[0] > 9 else photo(*size), lr_size=lr_size, grey=grey, effort=number + 1)
        for number, (size, lr_size) in enumerate(sizes)
    ]
    whole, *others = (
        Engine(THREES, CPU, **options) for options in ({}, {"tile_points": 176}, {"tile_points": 352, "batched": True})
    )
    expected = [whole.downscale_many([request])[0] for request in requests]
    for engine in others:
        for lr, alone in zip(engine.downscale_many(requests), expected, strict=True):
            assert np.abs(lr.astype(int) - alone).max() <= 1
            assert (lr != alone).mean() <= 0.005
            assert not grey or (lr == lr[..., :1]).all()


def test_no_effort_is_the_forward_pass() -> None:
    """Protects archives that are there: an effort of 0 changes no byte, and at scale 1 none does."""
    pixels = picture((48, 60))
    requests = [Downscale(pixels=pixels, lr_size=size, effort=effort) for size, effort in (((24, 30), 0), ((48, 60), 3))]
    without, same = WHOLE.downscale_many(requests)
    assert np.array_equal(without, WHOLE.downscale(pixels, (24, 30)))
    assert np.array_equal(same, pixels)


@pytest.mark.slow
@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_less_precision_gains_too(precision: torch.dtype) -> None:
    """Protects GPUs, whose gradients are of half precision: an LR made so restores better, in float32 as well."""
    coarse = Engine(shipped(), CPU, precision=precision, batched=True, tile_points=256)
    pixels = picture((48, 60))
    before, after = (
        measure(pixels, WHOLE.restore(coarse.downscale(pixels, (24, 30), effort=effort), (48, 60))) for effort in (0, 3)
    )
    assert after.psnr_y > before.psnr_y + 0.1


@pytest.mark.slow
def test_the_same_bytes_twice_and_on_other_threads() -> None:
    """Protects resuming: an effort gives the same LR again, whatever the number of threads."""
    pixels = picture((131, 150))
    found = []
    try:
        for threads in (1, 2, 3, 1):
            torch.set_num_threads(threads)
            found.append(WHOLE.downscale(pixels, (60, 70), effort=2))
    finally:
        torch.set_num_threads(1)
    assert all(np.array_equal(lr, found[0]) for lr in found)
