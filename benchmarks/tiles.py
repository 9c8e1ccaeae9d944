"""What tiles cost: an image of 12 MPix in tiles and in one piece.

    python -m benchmarks.tiles                          # 4000 x 3000, x1.5, 2, 3 and 4
    python -m benchmarks.tiles --device cuda --scales 2 4
    python -m benchmarks.tiles --points 1792 2560 4096  # other sizes of tiles, in lattice points per axis

Medians of both ways, tiled and untiled by turns, their ratio, and the PSNR of one against the other.
Needs torch and numpy alone.
"""

from __future__ import annotations

import argparse
import math
import time
from statistics import median

import numpy as np

from benchmarks.network import machine, smooth
from iarn.pretrained import shipped
from pipeline.engines.engine import Engine, choose_device
from pipeline.engines.tiles import TILE_POINTS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", type=int, nargs=2, default=[3000, 4000], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--scales", type=float, nargs="+", default=[1.5, 2, 3, 4])
    parser.add_argument("--points", type=int, nargs="+", default=[TILE_POINTS])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    device = choose_device(options.device)
    height, width = options.size
    pixels = np.ascontiguousarray(smooth(max(height, width), 0)[:height, :width])
    print(f"{machine(device)}; {width} x {height}, medians of {options.repeats}, {time.strftime('%Y-%m-%d')}\n")
    print("| scale | lattice points of a tile | downscale, s | restore, s | tiled / untiled, downscale | restore | PSNR, dB |")
    print("|---" * 7 + "|")
    whole = Engine(shipped(), device, tile_points=4 * max(height, width), batched=False)
    for scale in options.scales:
        size, lr_size = (height, width), (math.ceil(height / scale), math.ceil(width / scale))
        lr = whole.downscale(pixels, lr_size)  # also the warm-up
        image = whole.restore(lr, size)
        for points in options.points:
            tiled, seconds, close = Engine(shipped(), device, tile_points=points), [], []
            for _ in range(options.repeats):
                once = []
                for engine in (tiled, whole):
                    begun = time.perf_counter()
                    own = engine.downscale(pixels, lr_size)
                    half = time.perf_counter()
                    back = engine.restore(lr, size)
                    once += [half - begun, time.perf_counter() - half]
                    close.append(min(decibels(own, lr), decibels(back, image)))
                seconds.append(once)
            down, back, down_whole, back_whole = (median(each) for each in zip(*seconds, strict=True))
            ratios = f"{down / down_whole:.2f} | {back / back_whole:.2f}"
            print(f"| x{scale:g} | {points} | {down:.2f} | {back:.2f} | {ratios} | {min(close):.1f} |", flush=True)


def decibels(one: np.ndarray, other: np.ndarray) -> float:
    """Return the PSNR of one picture against another."""
    error = float(np.mean((one.astype(np.float32) - other) ** 2))
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


if __name__ == "__main__":
    main()
