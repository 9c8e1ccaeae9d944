"""The section of docs/quality.md on what steps of effort gain, and what they cost."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.quality_page.bench import FIXED, Bench
from benchmarks.quality_page.scores import LR_LIMIT, worst_block
from benchmarks.support.page import bold, table
from jobs.training.evaluate import Score, cost_at, evaluate
from jobs.training.scales import parse_scales
from pipeline.core.records import Pixels, Size
from pipeline.engines.engine import Engine

SCALES = parse_scales("2,2.5,3.5,4")
EFFORTS = 0, 5, 10, 20
QUICK_EFFORTS = 0, 2


class Timed(Engine):
    """An engine that counts the seconds that its LRs take: on a CPU those of the processor, which other work changes least."""

    seconds = 0.0

    def downscale(self, pixels: Pixels, lr_size: Size, **options: Any) -> Pixels:
        """Return the LR, as an engine does."""
        clock = time.process_time if self.device.type == "cpu" else time.perf_counter
        begun = clock()
        lr = super().downscale(pixels, lr_size, **options)
        self.seconds += clock() - begun
        return lr


def effort_section(bench: Bench) -> str:
    """Return the scores of one set at each effort."""
    name, images = next(iter(bench.sets.items()))
    engine = Timed(bench.weights, bench.engine.device)
    rows = []
    for scale in FIXED if bench.quick else SCALES:
        measured: list[tuple[Score, float]] = []
        engine.downscale(images[0], (images[0].shape[0] // 2, images[0].shape[1] // 2))  # the first one is slower
        for effort in QUICK_EFFORTS if bench.quick else EFFORTS:
            engine.seconds = 0
            (score,) = evaluate(engine, images, [scale], effort=effort)
            measured.append((score, engine.seconds))
            bench.say(f"{name} x{score.scale}, effort {effort}: PSNR-Y {score.psnr_y:.2f}, {engine.seconds:.1f} s")
        rows += [effort_row(bench, each, measured[0]) for each in measured]
    headings = ["scale", "effort", "PSNR-Y", "gain", "PSNR-RGB", "SSIM", "LR PSNR", "worst block", "MAC", "times the seconds"]
    return f"""## Effort

`--effort N` descends in N steps to an LR that restores better than the one of the forward pass (`iarn/effort.py`). Restoring
it costs nothing more. {name}, by the same rules; MAC and seconds are those of making the LRs, without codecs: thousands of
multiply-accumulates per source pixel, and processor time in times of that at effort 0 of the same scale.

{table(headings, rows)}"""


def effort_row(bench: Bench, measured: tuple[Score, float], without: tuple[Score, float]) -> list[str]:
    score, seconds = measured
    cost = cost_at(bench.network, parse_scales(score.scale)[0])
    mac = cost.downscale
    if score.effort:
        mac += score.effort * cost.step + cost.restore  # what the last step gave is restored as well
    gain = f"{score.psnr_y - without[0].psnr_y:+.2f}" if score.effort else ""
    row = [f"x{score.scale}", f"{score.effort}", f"{score.psnr_y:.2f}", gain, f"{score.psnr_rgb:.2f}", f"{score.ssim:.4f}"]
    row += [bold(f"{score.lr_psnr:.2f}", score.lr_psnr < LR_LIMIT), worst_block(score.low_texture)]
    return [*row, f"{mac / 1000:.0f}", f"{seconds / without[1]:.1f}"]
