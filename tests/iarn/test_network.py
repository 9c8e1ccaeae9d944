"""The whole network: it comes back, at any scale and size, in parts as in one piece."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from iarn.encoding import CLEAN_STEP, Place, budget_of
from iarn.lattice import axes_for
from iarn.metrics import psnr
from iarn.network import NetworkConfig, Rescaler
from tests.support.networks import THIRDS, draw, noise, random_network

NETWORK = random_network()
BY_THREE = random_network(THIRDS)
STRIDES = THIRDS.strides

side = st.one_of(st.sampled_from([1, 2, 3, 7]), st.integers(1, 70))
scale = st.one_of(st.sampled_from([1.0, 1.01, 2.0, 3.0, 4.0]), st.floats(1, 4))
far = st.one_of(st.sampled_from([1.0, 2.01, 3.0, 4.01, 6.0, 8.0]), st.floats(1, 8))


@pytest.fixture(scope="module")
def network() -> Rescaler:
    """The network that changes nothing but by its random weights."""
    return NETWORK


@given(side, side, scale, scale, st.booleans(), st.sampled_from([0.0, 0.7]))
@example(1, 1, 1.0, 1.0, True, 0.0)
@example(1, 1, 4.0, 4.0, True, 0.0)
@example(1, 50, 3.3, 3.3, True, 0.0)
@example(3, 3, 4.0, 4.0, True, 0.0)
@example(64, 48, 2.0, 2.0, True, 0.0)
@example(33, 65, 2.0, 4.0, False, 0.0)
@example(60, 45, 1.0, 2.5, False, 0.7)
def test_the_full_latent_brings_everything_back(
    height: int, width: int, vertical: float, horizontal: float, symmetric: bool, budget: float
) -> None:
    """Protects the law of the product: with the full latent and the unrounded LR an image comes back to 90 dB and more."""
    scales = (vertical, vertical if symmetric else horizontal)
    lr_size = (math.ceil(height / scales[0]), math.ceil(width / scales[1]))
    x = noise(1, 3, height, width)
    assert_comes_back(NETWORK, x, lr_size, budget)


@given(side, side, far, far, st.booleans())
@example(3, 3, 3.0, 3.0, True)
@example(50, 60, 6.0, 2.5, False)
@example(61, 47, 8.0, 8.0, True)
def test_splits_by_three_come_back(height: int, width: int, vertical: float, horizontal: float, symmetric: bool) -> None:
    """Protects the same law where stages split by three, alone or behind another one, and up to the last stage by two."""
    scales = (vertical, vertical if symmetric else horizontal)
    assert_comes_back(BY_THREE, noise(1, 3, height, width), (math.ceil(height / scales[0]), math.ceil(width / scales[1])), 0.0)


def assert_comes_back(network: Rescaler, x: torch.Tensor, lr_size: tuple[int, int], budget: float) -> None:
    """Hold an image and its restore from the full latent equal, and shapes and types what they are said to be."""
    size = (x.shape[-2], x.shape[-1])
    with torch.no_grad():
        y, z = network.downscale(x, lr_size, budget=budget)
        back = network.restore(y, z, size, budget=budget)
        assert torch.equal(network.downscale_lr(x, lr_size, budget=budget), y)
    stride = axes_for(size, lr_size, network.config.strides)[0].stride
    assert y.shape == (1, 3, *lr_size)
    assert z.shape == (1, 3 * stride**2 - 3, *lr_size)
    assert y.dtype == z.dtype == back.dtype == torch.float32
    assert back.shape == x.shape
    assert psnr(back, x) >= 90


@given(side, side, far, st.integers(0, 5))
def test_any_lr_and_latent_belong_to_an_image(lr_height: int, lr_width: int, ratio: float, seed: int) -> None:
    """Protects restoring from LRs that were never seen: restore gives an image of the size asked for, and finite."""
    size = (max(lr_height, int(lr_height * ratio)), max(lr_width, int(lr_width * ratio)))
    with torch.no_grad():
        restored = BY_THREE.restore(noise(2, 3, lr_height, lr_width, seed=seed), None, size)
    assert restored.shape == (2, 3, *size)
    assert restored.isfinite().all()


def test_the_weights_matter(network: Rescaler) -> None:
    """Protects these tests: the random weights move LR and restore well away from those of an untrained network."""
    untrained = Rescaler(network.config)
    x = noise(1, 3, 30, 30)
    with torch.no_grad():
        assert psnr(network.downscale(x, (12, 12))[0], untrained.downscale(x, (12, 12))[0]) < 50
        y, z = network.downscale(x, (12, 12))
        assert psnr(network.restore(y, z, (30, 30)), network.restore(y, None, (30, 30))) < 40


def test_no_latent_is_a_latent_of_zeros(network: Rescaler) -> None:
    """Protects the lean tier: what restores without a latent is what training restored, z = 0."""
    y = noise(1, 3, 9, 8)
    with torch.no_grad():
        assert torch.equal(network.restore(y, None, (21, 17)), network.restore(y, torch.zeros(1, 45, 9, 8), (21, 17)))


def test_scale_one_is_the_identity(network: Rescaler) -> None:
    """Protects images that are small already: at scale 1 the LR is the image, bit by bit, and there is no latent."""
    x = noise(2, 3, 7, 1)
    y, z = network.downscale(x, (7, 1))
    assert torch.equal(y, x)
    assert z.shape == (2, 0, 7, 1)
    assert torch.equal(network.restore(y, z, (7, 1)), x)
    assert torch.equal(network.restore(y, None, (7, 1)), x)


def test_an_untrained_network_is_a_plain_resize() -> None:
    """Protects the start of training: the first LR is the mean of its cell, not noise."""
    x = noise(1, 3, 16, 24)
    with torch.no_grad():
        y, _ = Rescaler(NetworkConfig(blocks=(1, 1), width=4)).downscale(x, (4, 6))
        by_three, _ = Rescaler(NetworkConfig(blocks=(1, 1), thirds=(1, 1), width=4)).downscale(noise(1, 3, 18, 24), (3, 4))
    torch.testing.assert_close(y, torch.nn.functional.avg_pool2d(x, 4))
    torch.testing.assert_close(by_three, torch.nn.functional.avg_pool2d(noise(1, 3, 18, 24), 6))


@pytest.mark.parametrize(
    ("size", "lr_size"),
    [((41, 40), (10, 40)), ((40, 41), (40, 10)), ((9, 9), (2, 9)), ((8, 8), (9, 8)), ((8, 8), (8, 9)), ((8, 8), (0, 8))],
)
def test_scales_out_of_reach_are_refused(network: Rescaler, size: tuple[int, int], lr_size: tuple[int, int]) -> None:
    """Protects callers: a scale above 4, an enlarging size and an empty one are errors that name both sizes."""
    for attempt in (
        lambda: network.downscale(noise(1, 3, *size), lr_size),
        lambda: network.restore(noise(1, 3, *lr_size), None, size),
        lambda: network.axes(size, lr_size),
    ):
        with pytest.raises(ValueError, match="size") as caught:
            attempt()
        assert str(size) in str(caught.value)
        assert str(lr_size) in str(caught.value)


def test_a_latent_of_another_size_is_refused(network: Rescaler) -> None:
    """Protects restores at a wrong size: a latent that does not fit is an error that names both shapes and the mistake."""
    y, z = network.downscale(noise(1, 3, 20, 20), (10, 10))
    with pytest.raises(ValueError, match="give the size the image was downscaled from") as caught:
        network.restore(y, z, (40, 40))
    assert "(1, 9, 10, 10)" in str(caught.value)
    assert "(1, 3, 10, 10)" in str(caught.value)
    with pytest.raises(ValueError, match="does not fit"):
        network.restore(y, z[..., :9], (20, 20))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "size", "lr_size"),
    [
        (NETWORK, (120, 120), (60, 60)),
        (NETWORK, (150, 140), (60, 55)),
        (NETWORK, (152, 152), (40, 39)),
        (NETWORK, (60, 90), (59, 40)),
        (BY_THREE, (150, 140), (60, 55)),
        (BY_THREE, (60, 75), (50, 59)),
        (BY_THREE, (200, 230), (40, 39)),
        (BY_THREE, (320, 260), (40, 39)),
    ],
)
def test_the_halo_covers_the_receptive_field(network: Rescaler, size: tuple[int, int], lr_size: tuple[int, int]) -> None:
    """Protects tiles: what lies beyond the halo changes nothing, on the way there and on the way back."""
    axes = network.axes(size, lr_size)
    stride = axes[0].stride
    halo = network.halo(axes)
    top, bottom, left, right = 3, lr_size[0] - 5, 2, lr_size[1] - 1
    lattice = noise(1, 3, axes[0].points, axes[1].points)
    y = noise(1, 3, *lr_size, seed=1)
    z = noise(1, 3 * stride**2 - 3, *lr_size, seed=2) - 0.5
    place = Place(axes=axes, window=(top, bottom, left, right))
    inner = (slice(halo, bottom - top - halo), slice(halo, right - left - halo))
    assert all(part.start < part.stop for part in inner)
    with torch.no_grad():
        whole = network.analyse(lattice, [Place(axes=axes)])
        cut = lattice[..., top * stride : bottom * stride, left * stride : right * stride]
        part = network.analyse(cut, [place])
        for one, other in zip(part, whole, strict=True):
            same = other[..., top:bottom, left:right]
            torch.testing.assert_close(one[..., *inner], same[..., *inner], rtol=1e-5, atol=2e-6)
        for latent in (None, z):
            given_part = None if latent is None else latent[..., top:bottom, left:right]
            found = network.synthesise(y[..., top:bottom, left:right], given_part, [place])
            expected = network.synthesise(y, latent, [Place(axes=axes)])[
                ..., top * stride : bottom * stride, left * stride : right * stride
            ]
            points = tuple(slice(each.start * stride, each.stop * stride) for each in inner)
            torch.testing.assert_close(found[..., *points], expected[..., *points], rtol=1e-5, atol=2e-6)


def test_the_halo_is_no_larger_than_it_need_be() -> None:
    """Protects the cost of tiles: one block at x2 reaches as far as the halo says, and nothing reaches at scale 1."""
    network = random_network(NetworkConfig(blocks=(1, 1), width=8))
    draw(network, spread=0.3)  # so that a change is not lost in float32 on its way
    assert network.halo(axes_for((80, 80), (80, 80))) == 0
    axes = axes_for((80, 80), (40, 40))
    halo = network.halo(axes)
    x = noise(1, 3, 80, 80)
    touched = x.clone()
    touched[..., 40, 40] += 10
    with torch.no_grad():
        before, after = (torch.cat(network.analyse(i, [Place(axes=axes)]), 1) for i in (x, touched))
    rows = ((after - before).abs().amax((0, 1)) > 0).any(1).nonzero().flatten()
    assert (int(rows.min()), int(rows.max())) == (20 - halo, 20 + halo)


def test_budget_and_scale_reach_the_blocks(network: Rescaler) -> None:
    """Protects weights trained later: the blocks see the budget and the scale, both ways."""
    x, y = noise(1, 3, 20, 20), noise(1, 3, 10, 10)
    with torch.no_grad():
        assert not torch.equal(network.downscale(x, (10, 10))[0], network.downscale(x, (10, 10), budget=0.5)[0])
        assert not torch.equal(network.restore(y, None, (20, 20)), network.restore(y, None, (20, 20), budget=0.5))


@pytest.mark.parametrize(
    "fields",
    [
        {"blocks": ()},
        {"blocks": (1, 0)},
        {"thirds": (0,)},
        {"blocks": (1,), "thirds": (1, 1, 1)},
        {"blocks": (1, 2), "light": 2},
        {"light": -1},
        {"width": 0},
        {"clamp": 0.0},
        {"clamp": -1.0},
    ],
)
def test_a_config_of_no_network_is_refused(fields: dict[str, object]) -> None:
    """Protects configs: one that describes no network is an error that shows it."""
    with pytest.raises(ValueError, match="describes no network"):
        NetworkConfig(**fields)  # type: ignore[arg-type]


def test_more_stages_reach_larger_scales() -> None:
    """Protects networks trained later: each stage doubles the largest scale, and the law holds there as well."""
    network = random_network(NetworkConfig(blocks=(1, 1, 1), width=4))
    assert network.config.max_scale == 8
    x = noise(1, 3, 23, 16)
    with torch.no_grad():
        y, z = network.downscale(x, (3, 2))
        assert psnr(network.restore(y, z, (23, 16)), x) >= 90


def test_strides_are_products_of_the_stages() -> None:
    """Protects archives and recipes: which lattices a config has, and the names of the stages that split each of them."""
    twos = NetworkConfig(blocks=(1, 1))
    assert twos.strides == (1, 2, 4)
    all_there = NetworkConfig(blocks=(1, 1, 1), thirds=(1, 1, 1))
    names = {1: "", 2: "A2", 3: "A3", 4: "A2 B2", 6: "A2 B3", 8: "A2 B2 C2", 12: "A2 B2 C3"}
    assert all_there.strides == tuple(names)
    assert {stride: " ".join(all_there.stages(stride)) for stride in all_there.strides} == names
    assert all_there.max_scale == 12
    network = Rescaler(all_there)
    every = {id(block) for name in ("A2", "B2", "C2", "A3", "B3", "C3") for block in network.blocks_of(name)}
    assert len(every) == 6


def test_clean_lrs_are_restored_by_weights_of_their_own() -> None:
    """Protects both kinds of LRs: each is restored by its own weights, whatever the others are."""
    network = random_network(replace(THIRDS, clean=True))
    assert network.clean is not None
    plain = Rescaler(THIRDS)
    plain.load_state_dict(network.clean.state_dict())
    y = noise(1, 3, 11, 12)
    with torch.no_grad():
        for size in ((23, 24), (33, 36), (31, 30), (40, 50)):
            clean = network.restore(y, None, size, budget=budget_of(CLEAN_STEP))
            assert torch.equal(clean, plain.restore(y, None, size, budget=budget_of(CLEAN_STEP)))
            assert not torch.equal(network.restore(y, None, size), plain.restore(y, None, size))
        x = noise(1, 3, 23, 24)
        y, z = network.downscale(x, (11, 12), budget=budget_of(CLEAN_STEP))
        back = network.restore(y, z, (23, 24), budget=budget_of(CLEAN_STEP))
        assert psnr(back, x) > 90, "a latent kept with that very step goes back by the weights it came from"
    assert network.cost((40, 50), (11, 12)) == plain.cost((40, 50), (11, 12))


def test_dense_lattices_run_fewer_blocks() -> None:
    """Protects the cost of scales just above 1, whose lattice has nearly four points per source pixel, and no other's."""
    network = random_network(replace(THIRDS, blocks=(4, 2, 1), light=2))
    paths = {
        (99, 99): (("A2", 2),),
        (67, 67): (("A2", 2),),
        (66, 66): (("A2", 4),),
        (50, 50): (("A2", 4),),
        (45, 45): (("A3", 2),),
        (26, 26): (("A2", 4), ("B2", 2)),
        (26, 70): (("A2", 2), ("B2", 2)),
    }
    axes = {lr_size: network.axes((100, 100), lr_size) for lr_size in paths}
    assert {lr_size: network.config.path(each) for lr_size, each in axes.items()} == paths
    whole = random_network(replace(network.config, light=0))
    assert 1.9 < whole.cost((100, 100), (67, 67)).restore / network.cost((100, 100), (67, 67)).restore < 2.1
    with pytest.raises(ValueError, match="cannot share a batch"):
        network.analyse_lr(noise(2, 3, 134, 134), [Place(axes=axes[67, 67]), Place(axes=axes[66, 66])])


def test_stages_are_shared_where_the_splits_before_are_the_same() -> None:
    """Protects what is learned: the first stage by two is that of x2, x4, x6 and x8, and that by three of x3 alone."""
    network = random_network(THIRDS)
    x = noise(1, 3, 48, 48)
    lr_sizes = {stride: (48 // stride, 48 // stride) for stride in STRIDES[1:]}
    with torch.no_grad():
        before = {stride: network.downscale_lr(x, lr_size) for stride, lr_size in lr_sizes.items()}
        draw(network.blocks_of("A2"), seed=5)
        changed = {
            stride for stride, lr_size in lr_sizes.items() if not torch.equal(network.downscale_lr(x, lr_size), before[stride])
        }
    assert changed == {2, 4, 6, 8}
