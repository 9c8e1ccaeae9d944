"""Downscale and restore on one device; the only importer of iarn's network here."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from iarn.cascade import cascade, spanned
from iarn.encoding import CLEAN_STEP, Place, budget_of
from iarn.lattice import Axis
from iarn.weights import WeightsError, read_config, unpack
from pipeline.core.errors import DeviceUnavailable, InvalidWeights, SizeNotReachable
from pipeline.core.records import Pixels, Size
from pipeline.core.target import MOST_SCALE
from pipeline.engines.effort import DESCENT_POINTS, Sought
from pipeline.engines.memory import give_back
from pipeline.engines.pieces import Piece, filled_up, framed
from pipeline.engines.tiles import TILE_POINTS, Tile, image_tiles, lr_tiles, seen_region
from pipeline.pictures.depth import peak
from pipeline.pictures.picture import size_of
from pipeline.pictures.region import Region

FRAMES = (8, 4, 2)
"""Fixed shapes are squares of these parts of the largest tile's side; a batch of them has its area."""

BATCH_PIXELS = 16_000_000
"""Pixels of images that a GPU is given at once, at most; one image alone may have more."""

Cut = Callable[[tuple[Axis, Axis], int, int], list[Tile]]


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


def compute_in_one_thread() -> None:
    """Have this process compute in one thread: a forked child would wait for ever for OpenMP's threads of its parent."""
    torch.set_num_threads(1)


def check_weights(data: bytes, uri: str) -> None:
    """Raise InvalidWeights where ``data``, read from ``uri``, is no whole weights file."""
    try:
        unpack(data)
    except WeightsError as error:
        raise InvalidWeights(uri, str(error)) from None


def span_of(weights: bytes) -> Callable[[Size, Size], Size]:
    """Return the :meth:`Engine.span` of a weights file's network, of which no tensor is read; raises InvalidWeights."""
    try:
        return partial(spanned, strides=read_config(weights).strides)
    except WeightsError as error:
        raise InvalidWeights("of the archive", str(error)) from None


@dataclass(frozen=True, kw_only=True)
class Downscale:
    """An image (H, W, 3), uint8 or uint16, and the size (height, width) that its LR shall have; that of a ``grey`` one is grey.

    ``effort`` is how many steps of descent make the LR better than the forward pass does (:mod:`iarn.effort`).
    """

    pixels: Pixels
    lr_size: Size
    grey: bool = False
    effort: int = 0


@dataclass(frozen=True, kw_only=True)
class Restore:
    """An LR (h, w, 3), and the size of the image that it stands for, which has its type: uint8 or uint16.

    A ``clean`` LR is a bicubic one; others are those of a downscale, which hide detail. Of the image a ``region`` is wanted, or
    all of it.
    """

    lr: Pixels
    size: Size
    grey: bool = False
    clean: bool = False
    region: Region | None = None


Request = TypeVar("Request", Downscale, Restore, Sought)


class Engine:
    """One network on one device. Not thread-safe: one caller at a time.

    On a CPU tiles are computed one by one, each as large as it is; on a GPU in batches of a few fixed shapes, which tiles of
    any images and sizes share. ``batched`` has a CPU do that as well, ``precision`` a GPU compute in float32, as it does for
    images of 16 bits a channel anyway.
    """

    def __init__(
        self,
        weights: bytes,
        device: torch.device,
        *,
        tile_points: int = TILE_POINTS,
        precision: torch.dtype | None = None,
        batched: bool | None = None,
        compiled: bool = False,
    ) -> None:
        """Load ``weights``, the bytes of a weights file; raises InvalidWeights."""
        try:
            self._network = unpack(weights).to(device)
        except WeightsError as error:
            raise InvalidWeights("of the archive", str(error)) from None
        gpu = device.type == "cuda"
        if gpu:  # of few shapes the fastest ways are worth finding; float32 is meant to be that
            torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = True, False
        self.device = device
        self.precision = precision or (torch.float16 if gpu else torch.float32)
        self._tile_points = tile_points
        self._frames = [max(1, tile_points // part) for part in FRAMES] if (gpu if batched is None else batched) else []
        if compiled:
            self._network.compile_blocks()

    @property
    def batch_pixels(self) -> int:
        """Pixels of the images of one call that make it fast; 0 where each image may as well come alone."""
        return BATCH_PIXELS if self._frames else 0

    @property
    def largest_scale(self) -> int:
        """The largest scale per axis of the network."""
        return self._network.config.max_scale

    def check_size(self, size: Size, lr_size: Size) -> None:
        """Raise SizeNotReachable where ``lr_size`` is no size of an LR for ``size``, both (height, width)."""
        if any(length > MOST_SCALE * lr for length, lr in zip(size, lr_size, strict=True)):
            advice = f"its scale is above {MOST_SCALE}, the largest of an LR"
            raise SizeNotReachable(size[1], size[0], lr_size[1], lr_size[0], advice)

    def reaches(self, size: Size, lr_size: Size) -> bool:
        """Return whether the network rescales ``size`` to ``lr_size``, (height, width), itself: below, LRs are clean ones."""
        return all(length <= lr * self.largest_scale for length, lr in zip(size, lr_size, strict=True))

    def axes(self, size: Size, lr_size: Size) -> tuple[Axis, Axis]:
        """Return the vertical and the horizontal axis of an image of ``size`` beside the lattice of its LR of ``lr_size``."""
        return self._network.axes(size, lr_size)

    def span(self, size: Size, lr_size: Size) -> Size:
        """Return what the pixels of an LR of ``lr_size`` span, (height, width): ``size`` and last lines that repeat."""
        return spanned(size, lr_size, self._network.config.strides)

    def downscale(self, pixels: Pixels, lr_size: Size, *, grey: bool = False, effort: int = 0) -> Pixels:
        """Return the LR (h, w, 3), uint8, of ``pixels`` (H, W, 3), uint8 or uint16; the latent is dropped.

        The LR of a ``grey`` image is grey: its three channels are equal. ``effort`` is that of :class:`Downscale`.
        """
        return self.downscale_many([Downscale(pixels=pixels, lr_size=lr_size, grey=grey, effort=effort)])[0]

    def restore(
        self, lr: Pixels, size: Size, *, grey: bool = False, clean: bool = False, region: Region | None = None
    ) -> Pixels:
        """Return the image (H, W, 3) of ``size`` that ``lr`` (h, w, 3) stands for, both uint8 or both uint16, without a latent.

        A ``clean`` LR is a bicubic one; others are those of :meth:`downscale`, which hide detail. A ``region`` of the image
        costs what the region does.
        """
        return self.restore_many([Restore(lr=lr, size=size, grey=grey, clean=clean, region=region)])[0]

    def downscale_many(self, requests: Sequence[Downscale]) -> list[Pixels]:
        """Return the LR of each request, uint8."""
        results = [np.empty((*request.lr_size, 3), np.uint8) for request in requests]
        pieces, sought = [], []
        for request, result in zip(requests, results, strict=True):
            place = Place(axes=self._network.axes(request.pixels.shape[:2], request.lr_size))
            if request.effort and place.axes[0].stride > 1:  # nothing is hidden at scale 1
                sought.append(Sought(request.pixels, result, place, self.device, effort=request.effort, grey=request.grey))
            else:
                pieces += self._pieces(request, place, lr_tiles, result)
        self._run(pieces, self._downscaled)
        for together in [sought] if self._frames else [[one] for one in sought]:
            self._seek(together)
        return results

    def restore_many(self, requests: Sequence[Restore]) -> list[Pixels]:
        """Return the image of each request; at scales that the network does not reach, step by step (iarn.cascade)."""
        found = [request.lr for request in requests]
        ways = [deque(self._way(request)) for request in requests]
        while any(ways):
            under_way = [number for number, way in enumerate(ways) if way]
            steps = [replace(ways[number].popleft(), lr=found[number]) for number in under_way]
            for number, restored in zip(under_way, self._restore_step(steps), strict=True):
                found[number] = restored
        return [
            image if request.region is None else image[request.region.window].copy()
            for request, image in zip(requests, found, strict=True)
        ]

    def regions(self, size: Size, lr_size: Size, region: Region) -> list[Region]:
        """Return what a ``region`` of an image of ``size`` comes from: a region of the LR, one of each step between, itself."""
        sizes, found = [lr_size, *cascade(size, lr_size, self.largest_scale)], [region]
        for before, step in reversed(list(pairwise(sizes))):
            axes = self._network.axes(step, before)
            found.append(seen_region(axes, self._network.halo(axes), found[-1]))
        return found[::-1]

    def _way(self, request: Restore) -> list[Restore]:
        """Return the steps to an image, whose LRs are still to come but for the first."""
        lr_size = size_of(request.lr)
        sizes = cascade(request.size, lr_size, self.largest_scale)
        if request.region is None:
            return [replace(request, size=size) for size in sizes]
        regions = self.regions(request.size, lr_size, request.region)[1:]
        return [replace(request, size=size, region=region) for size, region in zip(sizes, regions, strict=True)]

    def _restore_step(self, requests: Sequence[Restore]) -> list[Pixels]:
        """Return the images of one step, as large as they are, of which only the regions asked for are computed.

        The others are never touched, so that they take no memory.
        """
        results = [np.empty((*request.size, 3), request.lr.dtype) for request in requests]
        pieces = []
        for request, result in zip(requests, results, strict=True):
            budget = budget_of(CLEAN_STEP if request.clean else None)
            place = Place(axes=self._network.axes(request.size, request.lr.shape[:2]), budget=budget)
            pieces += self._pieces(request, place, partial(image_tiles, region=request.region), result)
        self._run(pieces, self._restored)
        return results

    @torch.no_grad()
    def _seek(self, sought: Sequence[Sought]) -> None:
        """Descend to the LRs that are sought, all in step."""
        most = min(self._tile_points, DESCENT_POINTS)
        forward = [piece for one in sought for piece in self._pieces(one, one.place, lr_tiles, one.result)]
        for batch in self._batches(forward):
            with self._autocast():
                for piece, lr in zip(batch, self._downscaled(batch), strict=True):
                    piece.request.put(piece.tile, lr)
        for one in sought:
            one.begin()
        while left := [one for one in sought if not one.over]:
            pieces = [piece for one in left for piece in self._pieces(one, one.place, image_tiles, one.result, most)]
            for batch in self._batches(pieces, most):
                self._tell(batch)
            for one in left:
                one.step()
        give_back(_most_points(one.place for one in sought))

    def _tell(self, batch: list[Piece[Sought]]) -> None:
        """Restore a batch of the LRs that are sought, and tell them what that misses, and the gradient of it."""
        lr = framed([piece.request.window(piece.tile) for piece in batch], batch[0].shape)
        last = all(piece.request.last for piece in batch)
        with torch.set_grad_enabled(not last), self._autocast():
            restored = list(self._recovered(batch, lr.requires_grad_(not last)))
        gradients = []
        for piece, x in zip(batch, restored, strict=True):
            rows, columns = piece.tile.rows, piece.tile.columns
            image = self._load(piece.request.pixels[rows.start : rows.stop, columns.start : columns.stop])[0]
            gradients.append(piece.request.missed(image, x.detach()))
        if not last:
            (gradient,) = torch.autograd.grad(restored, lr, gradients)
            for piece, part in zip(batch, gradient, strict=True):
                piece.request.add(piece.tile, part)

    def _autocast(self, *, deep: bool = False) -> torch.autocast:
        enabled = self.precision is not torch.float32 and not deep
        return torch.autocast(self.device.type, self.precision, enabled=enabled)

    def _pieces(
        self, request: Request, place: Place, cut: Cut, result: Pixels, most: int | None = None
    ) -> list[Piece[Request]]:
        """Cut an image into tiles; where shapes are fixed, into those of the shape that computes the least for it."""
        stride = place.axes[0].stride
        halo = self._network.halo(place.axes)
        tilings = []
        for points in self._frames or [most or self._tile_points]:
            least = points // stride if self._frames else 0
            tilings.append([(tile, filled_up(tile.window, least)) for tile in cut(place.axes, halo, points)])
        square = [each for each in tilings if all(height == width for _, (height, width) in each)]  # room for the halo
        tiling = min(square or tilings, key=lambda each: sum(height * width for _, (height, width) in each))
        return [
            Piece(request=request, place=replace(place, window=tile.window), tile=tile, shape=shape, result=result)
            for tile, shape in tiling
        ]

    @torch.inference_mode()
    def _run(self, pieces: Sequence[Piece[Request]], compute: Callable[[list[Piece[Request]]], Iterable[Tensor]]) -> None:
        """Compute all pieces, batch by batch; a GPU goes on with the next batch while pixels of the last are on their way."""
        way: deque[tuple[list[Piece[Request]], list[Tensor], torch.cuda.Event | None]] = deque()
        for batch in self._batches(pieces):
            with self._autocast(deep=batch[0].deep):
                computed = [self._leave(piece, x) for piece, x in zip(batch, compute(batch), strict=True)]
            way.append(
                (batch, computed, torch.cuda.current_stream(self.device).record_event() if self.device.type == "cuda" else None)
            )
            if len(way) > 1:
                _arrive(*way.popleft())
        while way:
            _arrive(*way.popleft())
        give_back(_most_points(piece.place for piece in pieces))

    def _batches(self, pieces: Iterable[Piece[Request]], most: int | None = None) -> Iterator[list[Piece[Request]]]:
        """Put pieces of one path, kind of LR, shape and depth together, up to the largest tile's points; else each alone."""
        most = most or self._tile_points
        waiting: dict[tuple[object, bool, Size, bool], list[Piece[Request]]] = {}
        for piece in pieces:
            alike = (self._network.config.path(piece.place.axes), piece.place.clean, piece.shape, piece.deep)
            batch = waiting.setdefault(alike, [])
            batch.append(piece)
            points = piece.stride**2 * piece.shape[0] * piece.shape[1]
            if not self._frames or (len(batch) + 1) * points > most**2:
                yield waiting.pop(alike)
        yield from waiting.values()

    def _downscaled(self, batch: Sequence[Piece[Downscale | Sought]]) -> Iterator[Tensor]:
        lattices = []
        for piece in batch:
            (vertical, horizontal), stride = piece.place.axes, piece.stride
            top, bottom, left, right = (edge * stride for edge in piece.tile.window)
            rows, columns = vertical.source_range(top, bottom), horizontal.source_range(left, right)
            x = self._load(piece.request.pixels[slice(*rows), slice(*columns)])
            x = vertical.interpolate(x, -2, origin=rows[0], start=top, stop=bottom)
            lattices.append(horizontal.interpolate(x, -1, origin=columns[0], start=left, stop=right))
        lattice = framed(lattices, tuple(side * batch[0].stride for side in batch[0].shape))
        y = self._network.analyse_lr(lattice, [piece.place for piece in batch])
        for piece, lr in zip(batch, y, strict=True):
            inner = [slice(span.start - span.first, span.stop - span.first) for span in (piece.tile.rows, piece.tile.columns)]
            yield lr[:, *inner]

    def _restored(self, batch: list[Piece[Restore]]) -> Iterator[Tensor]:
        lrs = []
        for piece in batch:
            top, bottom, left, right = piece.tile.window
            lrs.append(self._load(piece.request.lr[top:bottom, left:right]))
        return self._recovered(batch, framed(lrs, batch[0].shape))

    def _recovered(self, batch: list[Piece[Request]], lr: Tensor) -> Iterator[Tensor]:
        """Return what the tiles of a batch yield, (3, h, w) each, of what they see of LRs, (B, 3, h, w)."""
        lattice = self._network.synthesise(lr, None, [piece.place for piece in batch])
        for piece, x in zip(batch, lattice, strict=True):
            (vertical, horizontal), stride = piece.place.axes, piece.stride
            (top, _, left, _), rows, columns = piece.tile.window, piece.tile.rows, piece.tile.columns
            x = vertical.recover(x, -2, origin=top * stride, start=rows.start, stop=rows.stop)
            yield horizontal.recover(x, -1, origin=left * stride, start=columns.start, stop=columns.stop)

    def _load(self, pixels: Pixels) -> Tensor:
        x = torch.from_numpy(np.array(pixels))  # a copy: torch refuses arrays it may not write
        x = x.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else x
        return x.permute(2, 0, 1)[None].to(torch.float32).div_(peak(pixels))

    def _leave(self, piece: Piece[Request], x: Tensor) -> Tensor:
        """Return pixels (h, w, 3), as the result has them, in the memory of the CPU; from a GPU they are still on their way."""
        x = x.mean(dim=0, keepdim=True).expand_as(x).clone() if piece.request.grey else x
        kind, most = torch.uint16 if piece.deep else torch.uint8, peak(piece.result)
        x = x.mul_(most).round_().clamp_(0, most).to(kind).permute(1, 2, 0).contiguous()
        if self.device.type != "cuda":
            return x
        return torch.empty(x.shape, dtype=kind, pin_memory=True).copy_(x, non_blocking=True)


def _arrive(batch: Sequence[Piece[Request]], computed: list[Tensor], done: torch.cuda.Event | None) -> None:
    """Put what was computed for a batch into the results, as soon as it is there."""
    if done is not None:
        done.synchronize()
    for piece, pixels in zip(batch, computed, strict=True):
        rows, columns = piece.tile.rows, piece.tile.columns
        piece.result[rows.start : rows.stop, columns.start : columns.stop] = pixels.numpy()


def _most_points(places: Iterable[Place]) -> int:
    """Return how many points the largest lattice has."""
    return max((math.prod(axis.points for axis in place.axes) for place in places), default=0)
