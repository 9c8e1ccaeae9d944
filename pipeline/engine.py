"""Downscale and restore on one device; the only importer of iarn's network here."""

from __future__ import annotations

import ctypes
from contextlib import suppress

import numpy as np
import torch
from torch import Tensor

from iarn.encoding import CLEAN_STEP, budget_of
from iarn.lattice import Axis
from iarn.metrics import luma, psnr_of, ssim_map
from iarn.weights import WeightsError, read_metadata, unpack
from pipeline.errors import DeviceUnavailable, InvalidWeights, SizeNotReachable
from pipeline.records import FloorMetric, Pixels, Quality, Size
from pipeline.tiles import TILE_POINTS, image_tiles, lr_tiles

STRIP_PIXELS = 1_000_000
LEAST_STRIP_ROWS = 16
SSIM_OVERLAP = 10


def choose_device(wanted: str) -> torch.device:
    """Return the device named ``cpu``, ``cuda``, ``cuda:N``, or the best there is for ``auto``.

    Raises DeviceUnavailable where it is not there: a job never runs somewhere else than it was told to.
    """
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise DeviceUnavailable(wanted, "no such kind of device; cpu, cuda or cuda:N are") from None
    if device.type not in ("cpu", "cuda"):
        raise DeviceUnavailable(wanted, "only cpu and cuda are supported")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceUnavailable(wanted, f"{torch.cuda.device_count()} CUDA devices are visible")
    return device


def check_weights(data: bytes, uri: str) -> None:
    """Raise InvalidWeights where ``data``, read from ``uri``, is no whole weights file."""
    try:
        read_metadata(data)
        unpack(data)
    except WeightsError as error:
        raise InvalidWeights(uri, str(error)) from None


def largest_scale(data: bytes) -> int:
    """Return the largest scale per axis that the network in a weights file reaches; raises InvalidWeights."""
    try:
        return unpack(data).config.max_scale
    except WeightsError as error:
        raise InvalidWeights("file", str(error)) from None


class Engine:
    """One network on one device. Not thread-safe: one caller at a time."""

    def __init__(self, weights: bytes, device: torch.device, *, tile_points: int = TILE_POINTS) -> None:
        """Load ``weights``, the bytes of a weights file; raises InvalidWeights."""
        try:
            self._network = unpack(weights).to(device)
        except WeightsError as error:
            raise InvalidWeights("of the archive", str(error)) from None
        self.device = device
        self._tile_points = tile_points

    @property
    def largest_scale(self) -> int:
        """The largest scale per axis of the network."""
        return self._network.config.max_scale

    def check_size(self, size: Size, lr_size: Size) -> None:
        """Raise SizeNotReachable where the network cannot rescale ``size`` to ``lr_size``, both (height, width)."""
        try:
            self._network.axes(size, lr_size)
        except ValueError:
            advice = f"its scale is above {self._network.config.max_scale}, the largest of this network"
            raise SizeNotReachable(size[1], size[0], lr_size[1], lr_size[0], advice) from None

    def span(self, size: Size, lr_size: Size) -> Size:
        """Return what the pixels of an LR of ``lr_size`` span, (height, width): ``size`` and last lines that repeat."""
        rows, columns = self._network.axes(size, lr_size)
        return rows.span, columns.span

    @torch.inference_mode()
    def downscale(self, pixels: Pixels, lr_size: Size, *, grey: bool = False) -> Pixels:
        """Return the LR (h, w, 3) of ``pixels`` (H, W, 3), both uint8; the latent is dropped.

        The LR of a ``grey`` image is grey: its three channels are equal.
        """
        axes = self._network.axes(pixels.shape[:2], lr_size)
        lr = np.empty((*lr_size, 3), np.uint8)
        vertical, horizontal = axes
        stride = vertical.stride
        for tile in lr_tiles(axes, self._network.halo(stride), self._tile_points):
            top, bottom, left, right = (edge * stride for edge in tile.window)
            rows, columns = vertical.source_range(top, bottom), horizontal.source_range(left, right)
            x = self._load(pixels[slice(*rows), slice(*columns)])
            x = vertical.interpolate(x, -2, origin=rows[0], start=top, stop=bottom)
            x = horizontal.interpolate(x, -1, origin=columns[0], start=left, stop=right)
            y = self._network.analyse_lr(x, axes, window=tile.window)
            y = y[..., tile.rows.start - tile.rows.first :, tile.columns.start - tile.columns.first :]
            height, width = tile.rows.stop - tile.rows.start, tile.columns.stop - tile.columns.start
            lr[tile.rows.start : tile.rows.stop, tile.columns.start : tile.columns.stop] = _store(y[..., :height, :width], grey)
        _give_back(axes, self._tile_points)
        return lr

    @torch.inference_mode()
    def restore(self, lr: Pixels, size: Size, *, grey: bool = False, clean: bool = False) -> Pixels:
        """Return the image (H, W, 3) of ``size`` that ``lr`` (h, w, 3) stands for, both uint8, without a latent.

        A ``clean`` LR is a bicubic one; others are those of :meth:`downscale`, which hide detail.
        """
        axes = self._network.axes(size, lr.shape[:2])
        budget = budget_of(CLEAN_STEP if clean else None)
        image = np.empty((*size, 3), np.uint8)
        vertical, horizontal = axes
        stride = vertical.stride
        for tile in image_tiles(axes, self._network.halo(stride), self._tile_points):
            top, bottom, left, right = tile.window
            y = self._load(lr[top:bottom, left:right])
            lattice = self._network.synthesise(y, None, axes, budget=budget, window=tile.window)
            rows, columns = tile.rows, tile.columns
            x = vertical.recover(lattice, -2, origin=top * stride, start=rows.start, stop=rows.stop)
            x = horizontal.recover(x, -1, origin=left * stride, start=columns.start, stop=columns.stop)
            image[rows.start : rows.stop, columns.start : columns.stop] = _store(x, grey)
        _give_back(axes, self._tile_points)
        return image

    def _load(self, pixels: Pixels) -> Tensor:
        x = torch.from_numpy(np.array(pixels)).to(self.device)  # a copy: torch refuses arrays it may not write
        return x.permute(2, 0, 1)[None].to(torch.float32) / 255


def _give_back(axes: tuple[Axis, Axis], tile_points: int) -> None:
    """Return the memory of the tiles of a large image to the system; glibc would keep some 500 MB of it."""
    if max(axis.points for axis in axes) > tile_points:
        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def _store(x: Tensor, grey: bool) -> Pixels:
    x = x.mean(dim=1, keepdim=True).expand_as(x) if grey else x
    return x[0].mul(255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()


def measure(image: Pixels, restored: Pixels) -> Quality:
    """Return how close two (H, W, 3) uint8 images are. Works in strips, so that memory does not grow with the image."""
    height = len(image)
    rows = max(LEAST_STRIP_ROWS, STRIP_PIXELS // image.shape[1])
    squares, luma_squares, similarity, windows = 0.0, 0.0, 0.0, 0
    for start in range(0, max(1, height - SSIM_OVERLAP), rows):
        stop = height if start + rows + SSIM_OVERLAP >= height else start + rows + SSIM_OVERLAP
        x, y = (torch.from_numpy(np.array(i[start:stop])).permute(2, 0, 1).to(torch.float32) / 255 for i in (image, restored))
        own = x.shape[1] if stop == height else rows
        squares += _energy(x[:, :own] - y[:, :own])
        luma_squares += _energy(luma(x[:, :own]) - luma(y[:, :own]))
        similarities = ssim_map(x[None], y[None])
        similarity += float(similarities.sum(dtype=torch.float64))
        windows += similarities.numel()
        if stop == height:
            break
    return Quality(psnr=psnr_of(squares / image.size), psnr_y=psnr_of(3 * luma_squares / image.size), ssim=similarity / windows)


def score(image: Pixels, restored: Pixels, metric: FloorMetric) -> float:
    """Return the one value of :func:`measure` that ``metric`` names; the PSNRs take far less time than SSIM."""
    if metric is FloorMetric.SSIM:
        return measure(image, restored).ssim
    squares = 0.0
    rows = max(LEAST_STRIP_ROWS, STRIP_PIXELS // image.shape[1])
    for start in range(0, len(image), rows):
        x, y = (torch.from_numpy(np.array(i[start : start + rows])).permute(2, 0, 1) / 255 for i in (image, restored))
        squares += 3 * _energy(luma(x) - luma(y)) if metric is FloorMetric.PSNR_Y else _energy(x - y)
    return psnr_of(squares / image.size)


def _energy(x: Tensor) -> float:
    return float(x.square().sum(dtype=torch.float64))
