"""What each scale costs against x2, in multiply-accumulates and in seconds, both ways.

    python -m benchmarks.scales                                                 # the shipped weights, 30 scales from 1.05 to 4
    python -m benchmarks.scales --weights recipes/thirds.safetensors

Pixels to pixels in this process, after a warm-up; each scale by turns with x2, so that a busy moment falls on both, and the
median of the ratios. Needs torch and numpy alone.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from pathlib import Path

import numpy as np
import torch

import benchmarks.support.bare  # noqa: F401, before what reads weights
from benchmarks import network
from iarn.pretrained import shipped
from iarn.weights import unpack
from pipeline.engines.engine import Engine, choose_device


def main(arguments: list[str] | None = None) -> list[tuple[float, ...]]:
    """Measure as the command line asks; print and return the rows."""
    options = parser().parse_args(arguments)
    device = choose_device(options.device)
    weights = options.weights.read_bytes() if options.weights else shipped()
    engine, cost = Engine(weights, device), unpack(weights).cost
    images = network.pictures(options.side, 1)
    sizes = [(options.side, options.side), *((math.ceil(options.side / scale),) * 2 for scale in (2.0, *options.scales))]
    whole, half, *lrs = sizes
    base = cost(whole, half)
    print(
        f"{network.machine(device)}; {options.side} x {options.side}, medians of {options.repeats}, {time.strftime('%Y-%m-%d')}"
    )
    print(f"x2: {base.downscale / 1e3:.1f} and {base.restore / 1e3:.1f} k multiply-accumulates a source pixel, down and back\n")
    print("| scale | k down | k back | / x2, down | back | seconds / x2, down | back |\n" + "|---" * 7 + "|")
    rows = []
    for scale, lr in zip(options.scales, lrs, strict=True):
        own, times = cost(whole, lr), ratios(engine, images, scale, device, options.repeats)
        shares = own.downscale / base.downscale, own.restore / base.restore
        rows.append((scale, own.downscale / 1e3, own.restore / 1e3, *shares, *times))
        print("| {:.2f} | {:.1f} | {:.1f} | {:.2f} | {:.2f} | {:.2f} | {:.2f} |".format(*rows[-1]), flush=True)
    most = [max(row[column] for row in rows) for column in range(3, 7)]
    print("\nat most {:.2f} and {:.2f} times the operations of x2, {:.2f} and {:.2f} times its seconds".format(*most))
    return rows


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    found = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    found.add_argument("--weights", type=Path, help="a .safetensors file; the shipped ones unless given")
    found.add_argument("--device", default="cpu")
    found.add_argument("--scales", type=float, nargs="+", default=[round(float(each), 2) for each in np.linspace(1.05, 4, 30)])
    found.add_argument("--side", type=int, default=720, help="pixels of the image")
    found.add_argument("--repeats", type=int, default=3)
    return found


def ratios(engine: Engine, images: list[np.ndarray], scale: float, device: torch.device, repeats: int) -> tuple[float, float]:
    """Return the seconds of a scale over those of x2, down and back."""
    ways, found = [network.engine_ways(engine, images, each) for each in (2.0, scale)], ([], [])
    for turn in range(repeats + 1):
        for way, kept in enumerate(found):
            two, own = (network.seconds(each[way], device) for each in ways)
            if turn:
                kept.append(own / two)
    return statistics.median(found[0]), statistics.median(found[1])


if __name__ == "__main__":
    main()
