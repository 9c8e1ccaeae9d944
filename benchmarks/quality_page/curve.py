"""The section of docs/quality.md on quality and cost over the scale, with its plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from benchmarks.quality_page.bench import Bench
from benchmarks.quality_page.scores import LR_LIMIT, PUBLISHED
from benchmarks.support.bicubic import bicubic_psnr
from benchmarks.support.page import table
from jobs.training.evaluate import cost_at, evaluate
from jobs.training.scales import parse_scales

POINTS = parse_scales(
    "1.1,1.2,1.3,1.4,1.5,1.6,1.7,1.8,1.9,1.95,1.98,2,2.02,2.05,2.1,2.2,2.35,2.5,2.75,3,3.25,3.5,3.75,3.9,3.95,4"
)
QUICK_POINTS = parse_scales("1.2,1.5,1.9,2,2.1,3,4")


def curve_section(bench: Bench) -> str:
    """Return PSNR and cost over the scale, as a plot and a table."""
    name, images = next(iter(bench.sets.items()))
    rows, lines = [], []
    for scale in QUICK_POINTS if bench.quick else POINTS:
        (score,) = evaluate(bench.engine, images, [scale])
        cost = cost_at(bench.network, scale)
        line = (scale[0], score.psnr_y, bicubic_psnr(images, scale), score.lr_psnr, cost.downscale / 1000, cost.restore / 1000)
        lines.append(line)
        rows.append([f"x{score.scale}", *(f"{figure:.2f}" for figure in line[1:4]), *(f"{mac:.1f}" for mac in line[4:])])
        bench.say(f"curve x{score.scale}: {score.psnr_y:.2f} dB")
    plot(bench.out / "images" / "quality-scales.svg", name, lines)
    below, above = (cost_at(bench.network, (scale, scale)) for scale in (2, 2.02))
    headings = ["scale", "PSNR-Y", "bicubic", "LR PSNR", "MAC, downscale", "MAC, restore"]
    return f"""## Any scale from 1 to 4

![PSNR-Y, LR PSNR and cost on {name} over the scale](images/quality-scales.svg)

{name}, by the same rules. At scale 1 nothing is lost and nothing runs. MAC: thousands of multiply-accumulates per source pixel,
counted from the weights and the taps of the lattice for an image of 4800 x 4800 in one piece, each convolution at every
position that it gives. Just above x2 the lattice has twice the points per axis: downscaling at x2.02 costs
{above.downscale / below.downscale:.1f} times what it costs at x2, restoring {above.restore / below.restore:.1f} times.

{table(headings, rows)}"""


def plot(path: Path, name: str, lines: Sequence[Sequence[float]]) -> None:
    """Draw the three curves over the scale as one SVG."""
    scales, ours, bicubics, lrs, down, back = np.array(lines).T
    with matplotlib.rc_context({"svg.hashsalt": "iarn", "font.size": 9}):
        figure = Figure(figsize=(8, 8), layout="constrained")
        panels = figure.subplots(3, 1, sharex=True, height_ratios=(5, 2, 2))
        panels[0].plot(scales, ours, "o-", markersize=3, label="iarn, one network")
        panels[0].plot(scales, bicubics, "s--", markersize=3, label="bicubic there and back")
        for method, mark in (("IRN", "^"), ("AIDN", "D")):
            points = PUBLISHED[name][method]
            panels[0].plot([float(scale) for scale in points], list(points.values()), mark, label=f"{method}, published")
        panels[1].plot(scales, lrs, "o-", markersize=3, label="LR against the bicubic LR")
        panels[1].axhline(LR_LIMIT, color="grey", linestyle=":")
        panels[2].plot(scales, down, "o-", markersize=3, label="downscale")
        panels[2].plot(scales, back, "s--", markersize=3, label="restore")
        titles = (f"{name}: PSNR-Y, dB", "LR PSNR (RGB), dB", "thousand MAC\nper source pixel")
        for panel, title in zip(panels, titles, strict=True):
            panel.set_ylabel(title)
            panel.grid(alpha=0.3)
            panel.legend()
        panels[2].set_xlabel("scale per axis")
        panels[2].set_ylim(bottom=0)
        figure.savefig(path, metadata={"Date": None})
