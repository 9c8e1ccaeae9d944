"""The lattice: resampling to it and back is exact, local, and the same in parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from iarn.lattice import POWERS_OF_TWO, Axis, axes_for, stride_for
from tests.support.networks import noise


@st.composite
def axes(draw: st.DrawFn) -> Axis:
    """Draw an axis; lengths near both ends of a stride's scales, where a filter is hardest to undo, are frequent."""
    stride = draw(st.sampled_from([1, 2, 3, 4, 6, 8]))
    lr = draw(st.one_of(st.sampled_from([1, 2, 3]), st.integers(1, 90)))
    points = stride * lr
    near = st.sampled_from([lr, points // 2, points // 2 + 1, points - stride, points - stride + 1, points - 1, points])
    length = draw(st.one_of(near, st.integers(lr, points)))
    return Axis(min(max(length, lr), points), lr, stride)


def dense(axis: Axis) -> tuple[np.ndarray, np.ndarray]:
    """Return U and P of an axis as matrices."""
    u = axis.interpolate(torch.eye(axis.length)[None, None], -2)
    p = axis.recover(torch.eye(axis.points)[None, None], -2)
    return u[0, 0].double().numpy(), p[0, 0].double().numpy()


@pytest.mark.slow
@given(axes())
@example(Axis(1, 1, 1))
@example(Axis(1, 1, 8))
@example(Axis(2, 2, 2))
@example(Axis(3, 2, 4))
@example(Axis(7, 4, 2))
@example(Axis(7, 3, 3))
@example(Axis(800, 401, 2))
def test_lattice_and_back_is_exact(axis: Axis) -> None:
    """Protects every restore: P U = 1, whatever the length, the LR size and the ratio between them, on either axis."""
    for dim, shape in ((-2, (1, 3, axis.length, 2)), (-1, (1, 3, 2, axis.length))):
        x = noise(*shape)
        lattice = axis.interpolate(x, dim)
        assert lattice.shape[dim] == axis.points
        torch.testing.assert_close(axis.recover(lattice, dim), x, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("length", "lr", "stride"), [(2000, 1001, 2), (8000, 4001, 2), (3000, 1001, 3), (3001, 1000, 4), (601, 599, 2)]
)
def test_long_axes_come_back_exactly(length: int, lr: int, stride: int) -> None:
    """Protects large images a hair below a stride, where P reaches hundreds of points to each side."""
    axis = Axis(length, lr, stride)
    x = torch.cat([noise(1, 1, length, 1), (torch.arange(length) % 2).float().reshape(1, 1, -1, 1)], -1)
    torch.testing.assert_close(axis.recover(axis.interpolate(x, -2), -2), x, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("length", "lr", "stride"), [(2, 2, 2), (5, 4, 2), (30, 16, 2), (41, 30, 2), (50, 20, 3), (45, 13, 4)])
def test_recovery_is_the_least_squares_inverse(length: int, lr: int, stride: int) -> None:
    """Protects restores without a latent: of all left inverses P is the one that spreads an error of the lattice least."""
    axis = Axis(length, lr, stride)
    assert not axis.aligned
    u, p = dense(axis)
    np.testing.assert_allclose(p, np.linalg.pinv(u), atol=2e-6)


@given(axes(), st.data())
def test_a_part_equals_the_cut_of_the_whole(axis: Axis, data: st.DataObject) -> None:
    """Protects tiles: a part computed from just what it says it needs is the part of the whole, both ways."""
    x = noise(1, 2, 3, axis.length)
    lattice = axis.interpolate(x, -1)

    start = data.draw(st.integers(0, axis.points - 1))
    stop = data.draw(st.integers(start + 1, axis.points))
    low, high = axis.source_range(start, stop)
    assert 0 <= low < high <= axis.length
    part = axis.interpolate(x[..., low:high], -1, origin=low, start=start, stop=stop)
    torch.testing.assert_close(part, lattice[..., start:stop], rtol=0, atol=2e-6)

    start = data.draw(st.integers(0, axis.length - 1))
    stop = data.draw(st.integers(start + 1, axis.length))
    low, high = axis.point_range(start, stop)
    assert 0 <= low < high <= axis.points
    part = axis.recover(lattice[..., low:high], -1, origin=low, start=start, stop=stop)
    torch.testing.assert_close(part, x[..., start:stop], rtol=0, atol=1e-5)


def test_a_part_needs_little_of_a_long_axis() -> None:
    """Protects bounded memory: a tile in the middle of a long axis reads only its neighbourhood, both ways."""
    axis = Axis(3000, 1200, 4)
    assert len(range(*axis.source_range(2000, 2010))) <= 16
    assert len(range(*axis.point_range(1000, 1010))) <= 150


@given(axes())
def test_flat_stays_flat(axis: Axis) -> None:
    """Protects flat areas: rows of U and of P sum to one, edges included."""
    flat = torch.full((1, 1, 1, axis.length), 0.7)
    lattice = axis.interpolate(flat, -1)
    torch.testing.assert_close(lattice, torch.full_like(lattice, 0.7), rtol=0, atol=1e-6)
    torch.testing.assert_close(axis.recover(lattice, -1), flat, rtol=0, atol=1e-5)


@given(axes().filter(lambda axis: axis.span == axis.length))
def test_a_mirrored_image_has_a_mirrored_lattice(axis: Axis) -> None:
    """Protects the position of the LR: nothing is shifted by half a sample to one side."""
    x = noise(1, 1, 1, axis.length)
    torch.testing.assert_close(axis.interpolate(x.flip(-1), -1), axis.interpolate(x, -1).flip(-1), rtol=0, atol=2e-6)


def test_the_aligned_case_repeats_the_last_line_only() -> None:
    """Protects odd images at a power of two: their samples are lattice points, and the missing ones repeat the last."""
    axis = Axis(7, 4, 2)
    x = noise(1, 1, 1, 7)
    assert axis.aligned
    assert axis.span == 8
    assert axis.scale == 2
    assert torch.equal(axis.interpolate(x, -1), torch.cat([x, x[..., -1:]], -1))


def test_autocast_does_not_coarsen_resampling() -> None:
    """Protects restores under bfloat16: resampling stays in float32, for half precision would cost more than 8 bits do."""
    axis, x = Axis(37, 15, 4), noise(1, 3, 4, 37)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        back = axis.recover(axis.interpolate(x, -1), -1)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-5)


def test_gradients_pass_through_resampling() -> None:
    """Protects training: the loss is taken behind P, and the network stands between U and P."""
    axis, x = Axis(9, 4, 4), noise(1, 1, 1, 9).requires_grad_()
    axis.recover(axis.interpolate(x, -1), -1).square().sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, 2 * x.detach(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("dim", [-2, -1])
def test_gradients_by_blocks_are_those_of_the_product(dim: int) -> None:
    """Protects effort and training: the gradient of a part of a band, cut to blocks, is that of one product."""
    axis = Axis(300, 150, 3)
    for rows, apply in (((20, 290), axis.recover), ((31, 400), axis.interpolate)):
        needed = (axis.point_range if apply == axis.recover else axis.source_range)(*rows)
        x = noise(1, 2, needed[1] - needed[0], needed[1] - needed[0]).requires_grad_()
        found = apply(x, dim, origin=needed[0], start=rows[0], stop=rows[1])
        towards = noise(*found.shape, seed=1)
        (gradient,) = torch.autograd.grad(found, x, towards)
        matrix = apply(torch.eye(len(x[0, 0])), -2, origin=needed[0], start=rows[0], stop=rows[1])
        expected = matrix.T @ towards if dim == -2 else towards @ matrix
        torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-4)


@given(st.tuples(st.integers(1, 500), st.integers(1, 500)), st.sampled_from([POWERS_OF_TWO, (1, 2, 3, 4, 6, 8, 32)]), st.data())
def test_the_stride_is_the_smallest_that_reaches(size: tuple[int, int], strides: tuple[int, ...], data: st.DataObject) -> None:
    """Protects cost: the lattice is as coarse as both scales allow, and never coarser than the image."""
    lr = tuple(data.draw(st.integers(max(1, length // 9), length)) for length in size)
    stride = stride_for(size, (lr[0], lr[1]), strides)
    assert all(stride * pixels >= length for pixels, length in zip(lr, size, strict=True))
    for less in strides[: strides.index(stride)]:
        assert any(less * pixels < length for pixels, length in zip(lr, size, strict=True))
    assert [axis.stride for axis in axes_for(size, (lr[0], lr[1]), strides)] == [stride, stride]


def test_a_scale_above_all_strides_is_refused() -> None:
    """Protects callers: a scale that no lattice is for is an error that names both sizes and the largest there is."""
    assert stride_for((30, 20), (10, 10), (1, 2, 3)) == 3
    with pytest.raises(ValueError, match=r"\(31, 20\) over LR size \(10, 10\) is a scale above 3"):
        stride_for((31, 20), (10, 10), (1, 2, 3))


@pytest.mark.parametrize(
    ("size", "lr_size"), [((4, 4), (5, 4)), ((4, 4), (4, 5)), ((4, 4), (0, 4)), ((0, 4), (0, 4)), ((4, 4), (-1, 2))]
)
def test_sizes_that_make_no_sense_are_refused(size: tuple[int, int], lr_size: tuple[int, int]) -> None:
    """Protects callers: an enlarging or empty LR is an error that names both sizes."""
    with pytest.raises(ValueError, match="does not fit") as caught:
        axes_for(size, lr_size)
    assert str(size) in str(caught.value)
    assert str(lr_size) in str(caught.value)


@pytest.mark.parametrize(("length", "lr", "stride"), [(9, 4, 2), (4, 5, 2), (0, 0, 2), (3, 0, 4)])
def test_an_axis_that_cannot_be_is_refused(length: int, lr: int, stride: int) -> None:
    """Protects the law P U = 1: a lattice coarser than the image has no left inverse."""
    with pytest.raises(ValueError, match=rf"{length} samples cannot have {lr} LR pixels of {stride}"):
        Axis(length, lr, stride)
