"""What training draws: scales within the network's reach, uses in their shares, patches of their size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from iarn.lattice import axes_for, stride_for
from iarn.network import NetworkConfig
from iarn.recipe import TrainingConfig
from iarn.sampling import AS_CODED, Use, sample_patches, sample_sizes, sample_use
from tests.support.networks import SMALL, THIRDS
from tests.support.pictures import photo

TINY = TrainingConfig(network=SMALL, batch=2, lattice=32)


@pytest.fixture(scope="module")
def images() -> list[Tensor]:
    """Synthetic photographs, uint8 (3, H, W)."""
    return [torch.from_numpy(photo(90, 80 + 10 * seed, seed=seed)).permute(2, 0, 1).contiguous() for seed in range(3)]


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
    coded = [sample_use(replace(config, coded=0.5), torch.Generator().manual_seed(seed)) for seed in range(600)]
    clean = [levels for use, levels in coded if use is Use.CLEAN]
    assert 0.4 < clean.count(AS_CODED) / len(clean) < 0.6
    assert 0.4 < clean.count(1.0) / (len(clean) - clean.count(AS_CODED)) < 0.6
    none = TrainingConfig(kept=0.0, clean=0.0)
    assert all(sample_use(none, torch.Generator().manual_seed(seed))[0] is Use.LEAN for seed in range(50))


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
