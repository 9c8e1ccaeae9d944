"""The clean LR of a picture: a smaller one that hides nothing, by antialiased bicubic, as a file of its own."""

from __future__ import annotations

import math

import numpy as np

from pipeline.core.records import LrCodec, Pixels, Size
from pipeline.pictures import lr_codec
from pipeline.pictures.depth import in_8_bits
from pipeline.pictures.picture import Picture, resize, resize_with_alpha, size_of

COARSEST_PRECISION = 4
"""Levels between the values of a clean LR, at most: no value is then further than 2 levels from the bicubic one."""

LR_ERROR = 8.0
"""What those levels are at scale 1. An LR pixel stands for scale^2 pixels, so as much error costs as many times more there."""

SMALL = 6
"""An LR that has so many times fewer pixels than its picture is coded a step slower: at x3 and x4 that makes an entry 6 and 3 %
slower than at speed 6 with all tools (at x2, where it is a step faster, 10; it would be 15)."""


def encode(picture: Picture, lr_size: Size, codec: LrCodec, *, span: Size | None = None) -> tuple[bytes, str]:
    """Return the file of a picture's clean LR of ``lr_size``, (height, width), no finer than pays, and its extension.

    Its pixels are over ``span``, the picture with its last lines repeated, where that is larger.
    """
    pixels, weights = picture.pixels, picture.alpha
    height, width = size_of(pixels)
    if span is not None and span != (height, width):
        repeated = ((0, span[0] - height), (0, span[1] - width))
        pixels = np.pad(pixels, (*repeated, (0, 0)), mode="edge")
        weights = None if weights is None else np.pad(weights, repeated, mode="edge")
    lr, alpha = in_8_bits(resize_with_alpha(pixels, weights, lr_size)[0]), lr_alpha(picture, lr_size)
    if codec is LrCodec.AUTO and lr_codec.is_moderate(lr_size):
        speed = lr_codec.AVIF_SPEED - (SMALL * lr_size[0] * lr_size[1] <= height * width)
        return lr_codec.encode_clean_lr(lr, alpha=alpha, icc=picture.profile, speed=speed)
    lr = rounded(lr, precision((height, width), lr_size))
    return lr_codec.encode_lr(lr, codec=codec, grey=picture.grey, alpha=alpha, icc=picture.profile)


def lr_alpha(picture: Picture, lr_size: Size) -> Pixels | None:
    """Return the alpha (h, w) of an LR, uint8; None where the picture is opaque."""
    return None if picture.alpha is None else in_8_bits(resize(picture.alpha, lr_size))


def precision(size: Size, lr_size: Size) -> int:
    """Return how many levels the values of a clean LR that is coded without loss are apart, 1 to COARSEST_PRECISION."""
    scale = math.sqrt(size[0] * size[1] / (lr_size[0] * lr_size[1]))
    return max(1, min(COARSEST_PRECISION, round(LR_ERROR / scale)))


def rounded(lr: Pixels, levels: int) -> Pixels:
    """Return ``lr`` with every value at a multiple of ``levels``, or at 255."""
    if levels == 1:
        return lr
    table: Pixels = np.minimum(np.rint(np.arange(256) / levels) * levels, 255).astype(np.uint8)
    found: Pixels = table[lr]
    return found
