"""Bicubic rescaling, which the network is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from iarn.lattice import Axis
from iarn.metrics import bicubic_lr
from jobs.training.evaluate import fidelity, lr_size_at
from pipeline.core.records import Pixels
from pipeline.pictures.picture import resize, size_of


def reference_lr(pixels: Pixels, axes: tuple[Axis, Axis]) -> Pixels:
    """Return the antialiased bicubic LR of an image (H, W, 3) along its axes, in 8 bits."""
    x = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float() / 255
    return bicubic_lr(x, axes)[0].mul(255).round().to(torch.uint8).permute(1, 2, 0).numpy()


def there_and_back(image: Pixels, scale: tuple[float, float]) -> Pixels:
    """Return an image after bicubic there and back, 8-bit in between."""
    size = size_of(image)
    return resize(resize(image, lr_size_at(size, scale)), size)


def bicubic_psnr(images: Sequence[Pixels], scale: tuple[float, float]) -> float:
    """Return the mean PSNR-Y in dB of images after bicubic there and back."""
    return float(np.mean([fidelity(image, there_and_back(image, scale), scale)[0] for image in images]))
