"""The section of docs/quality.md on what steps of effort gain, and what they cost."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from benchmarks.quality_page.bench import FIXED, Bench
from benchmarks.quality_page.scores import LR_LIMIT, worst_block
from benchmarks.support.page import bold, table
from jobs.training.evaluate import Score, cost_at, evaluate
from jobs.training.scales import parse_scales
from pipeline.core.records import LrCodec, Pixels, Size
from pipeline.engines.engine import Engine
from pipeline.pictures.lr_codec import encode_lr

SCALES = parse_scales("2,2.5,3.5,4")
EFFORTS = 0, 5, 10, 20
QUICK_EFFORTS = 0, 2


class Counting(Engine):
    """An engine that counts what its LRs cost: bytes as lossless WebP, and seconds; on a CPU the processor's own."""

    seconds, byte_size = 0.0, 0

    def downscale(self, pixels: Pixels, lr_size: Size, **options: Any) -> Pixels:
        """Return the LR, as an engine does."""
        clock = time.process_time if self.device.type == "cpu" else time.perf_counter
        begun = clock()
        lr = super().downscale(pixels, lr_size, **options)
        self.seconds += clock() - begun
        self.byte_size += len(encode_lr(lr, codec=LrCodec.WEBP, grey=False, alpha=None, icc=None)[0])
        return lr


@dataclass(frozen=True)
class Measured:
    """The score at one scale and effort, and what the LRs cost."""

    score: Score
    seconds: float
    byte_size: int


def effort_section(bench: Bench) -> str:
    """Return the scores of one set at each effort."""
    name, images = next(iter(bench.sets.items()))
    rows = []
    for scale in FIXED if bench.quick else SCALES:
        measured = [measure(bench, scale, effort) for effort in (QUICK_EFFORTS if bench.quick else EFFORTS)]
        rows += [effort_row(bench, each, measured[0]) for each in measured]
    headings = ["scale", "effort", "PSNR-Y", "gain", "PSNR-RGB", "SSIM", "LR PSNR", "worst block", "LR bytes", "MAC", "seconds"]
    return f"""## Effort

`--effort N` descends in N steps to an LR that restores better than the one of the forward pass (`iarn/effort.py`). Restoring
costs nothing more. {name}, {len(images)} images, by the same rules. *LR bytes* (lossless WebP) and *seconds* (of the processor,
for making the LRs, without codecs) are in times of those at effort 0 and the same scale; MAC are thousands of
multiply-accumulates per source pixel for making the LRs.

{table(headings, rows)}"""


def measure(bench: Bench, scale: tuple[float, float], effort: int) -> Measured:
    """Score the first set with LRs made with ``effort``."""
    name, images = next(iter(bench.sets.items()))
    engine = Counting(bench.weights, bench.engine.device)
    engine.downscale(images[0][:48, :48], (24, 24))  # what only the first one takes
    engine.seconds, engine.byte_size = 0, 0
    (score,) = evaluate(engine, images, [scale], effort=effort)
    bench.say(f"{name} x{score.scale}, effort {effort}: PSNR-Y {score.psnr_y:.2f}, LRs in {engine.seconds:.1f} s")
    return Measured(score, engine.seconds, engine.byte_size)


def effort_row(bench: Bench, measured: Measured, without: Measured) -> list[str]:
    score = measured.score
    cost = cost_at(bench.network, parse_scales(score.scale)[0])
    mac = cost.downscale
    if score.effort:
        mac += score.effort * cost.step + cost.restore  # what the last step gave is restored as well
    gain = f"{score.psnr_y - without.score.psnr_y:+.2f}" if score.effort else ""
    row = [f"x{score.scale}", f"{score.effort}", f"{score.psnr_y:.2f}", gain, f"{score.psnr_rgb:.2f}", f"{score.ssim:.4f}"]
    row += [bold(f"{score.lr_psnr:.2f}", score.lr_psnr < LR_LIMIT), worst_block(score.low_texture)]
    row += [f"{measured.byte_size / without.byte_size:.3f}", f"{mac / 1000:.0f}", f"{measured.seconds / without.seconds:.1f}"]
    return row
