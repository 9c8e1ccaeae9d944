"""The sections of docs/quality.md that are tables of scores: standard sets, cycles there and back, smooth areas."""

from __future__ import annotations

from benchmarks.quality_page.bench import FIXED, Bench
from benchmarks.quality_page.drawings import smooth_pictures
from benchmarks.support.bicubic import bicubic_psnr
from benchmarks.support.page import bold, table
from iarn.metrics import BlockErrors
from jobs.training.evaluate import Score, cost_at, evaluate, worst
from jobs.training.scales import parse_scales

SCALES = parse_scales("1.5,2,2.5,3,3.5,4,1.5x4,2x3,3x1.5")
ROUNDS = 5

BLOCK_LIMIT = 6.0
"""Most 8-bit levels that a low-texture block may be off; what is beyond this or another limit is bold."""

LR_LIMIT = 38.0
"""Least PSNR of the LR, in dB."""

COST_LIMIT = 300_000
"""Most multiply-accumulates per source pixel."""

PUBLISHED = {
    "Set5": {
        "bicubic": {"1.5": 36.8, "2": 33.66, "2.5": 31.8, "3.5": 29.3, "4": 28.42},
        "IRN": {"2": 43.99, "4": 36.19},
        "AIDN": {"1.5": 50.61, "2.5": 40.77, "3.5": 37.25},
    },
    "Set14": {"bicubic": {"2": 30.24, "4": 26.00}, "IRN": {"2": 40.79, "4": 32.67}, "AIDN": {}},
    "BSD100": {"bicubic": {"2": 29.56, "4": 25.96}, "IRN": {"2": 41.32, "4": 31.64}, "AIDN": {}},
}
"""PSNR-Y as published. IRN: Xiao et al., ECCV 2020, one network a scale; AIDN: Xing et al., IEEE TIP 2023, one for all."""


def set_scores(bench: Bench, name: str) -> list[tuple[Score, float]]:
    """Return the score and the PSNR-Y of bicubic there and back, at each scale."""
    found = []
    for scale in FIXED if bench.quick else SCALES:
        (score,) = evaluate(bench.engine, bench.sets[name], [scale], cycles=ROUNDS if scale in FIXED else 0)
        found.append((score, bicubic_psnr(bench.sets[name], scale)))
        bench.say(f"{name} x{score.scale}: PSNR-Y {score.psnr_y:.2f}, LR {score.lr_psnr:.2f} dB")
    return found


def quality_section(bench: Bench, scores: dict[str, list[tuple[Score, float]]]) -> str:
    """Return a table for each set, published figures beside."""
    headings = ["scale", "bicubic", "bicubic, published", "IRN", "AIDN", "**PSNR-Y**", "against the best published"]
    headings += ["PSNR-RGB", "SSIM", "LR PSNR", "worst block", "MAC, downscale", "MAC, restore"]
    parts = []
    for name, measured in scores.items():
        rows = [quality_row(bench, PUBLISHED[name], score, ours) for score, ours in measured]
        parts.append(f"### {name}, {measured[0][0].images} images\n\n{table(headings, rows)}")
    text = f"""## Standard sets

By the rules that published figures follow: images cropped to multiples of 12, LR of round(H / s) x round(W / s) in 8 bits,
restored image in 8 bits, ceil(s) pixels cut from each border; means over the images. PSNR in dB, PSNR-Y on the limited-range
BT.601 luma; LR PSNR over RGB against the antialiased bicubic LR (bold below {LR_LIMIT:g}); asymmetric scales are height x
width. *Worst block*: see [smooth areas](#smooth-areas). MAC: thousands of multiply-accumulates per source pixel (bold above
{COST_LIMIT // 1000}), see [any scale](#any-scale-from-1-to-4).

Published, not measured again here: bicubic and IRN from Xiao et al., *Invertible Image Rescaling*, ECCV 2020, IRN being one
network for each scale with 416 k (x2) and 584 k (x4) MAC; AIDN from Xing et al., *Scale-Arbitrary Invertible Image
Downscaling*, IEEE Transactions on Image Processing 2023, one network with about 1,400 k."""
    return "\n\n".join([text, *parts])


def quality_row(bench: Bench, published: dict[str, dict[str, float]], score: Score, ours: float) -> list[str]:
    known = {method: figures.get(score.scale) for method, figures in published.items()}
    best = max((figure, method) for method, figure in known.items() if figure) if any(known.values()) else None
    gain = "" if best is None else f"{score.psnr_y - best[0]:+.2f}"
    if best and score.psnr_y < best[0]:
        gain = f"**{gain}: loses to {best[1]}**"
    cost = cost_at(bench.network, parse_scales(score.scale)[0])
    row = [f"x{score.scale}", f"{ours:.2f}", *("" if figure is None else f"{figure:.2f}" for figure in known.values())]
    row += [f"**{score.psnr_y:.2f}**", gain, f"{score.psnr_rgb:.2f}", f"{score.ssim:.4f}"]
    row += [bold(f"{score.lr_psnr:.2f}", score.lr_psnr < LR_LIMIT), worst_block(score.low_texture)]
    return row + [bold(f"{mac / 1000:.1f}", mac > COST_LIMIT) for mac in (cost.downscale, cost.restore)]


def worst_block(blocks: BlockErrors) -> str:
    return bold(f"{blocks.error:.2f}", blocks.error > BLOCK_LIMIT) if blocks.blocks else "none"


def cycles_section(scores: dict[str, list[tuple[Score, float]]]) -> str:
    """Return what rescaling and restoring again and again costs."""
    rows = []
    for name, measured in scores.items():
        for score, _ in measured:
            if score.cycled:
                y, rgb = (score.psnr_y, score.cycled.psnr_y), (score.psnr_rgb, score.cycled.psnr_rgb)
                drops = bold(f"{score.cycled.drop_y:.2f}", score.cycled.drop_y >= 1), f"{score.cycled.drop_rgb:.2f}"
                rows.append([name, f"x{score.scale}", *(f"{figure:.2f}" for figure in y), drops[0]])
                rows[-1] += [*(f"{figure:.2f}" for figure in rgb), drops[1]]
    headings = ["set", "scale", "PSNR-Y after 1", f"after {ROUNDS}", "drop", "PSNR-RGB after 1", f"after {ROUNDS}", "drop"]
    return f"""## {ROUNDS} times there and back

Each round rescales the 8-bit image that the round before restored; all are compared with the source. A drop of 1 dB or more
is bold.

{table(headings, rows)}"""


def smooth_section(bench: Bench, scores: dict[str, list[tuple[Score, float]]]) -> str:
    """Return the worst low-texture blocks of the sets and of drawn smooth pictures."""
    rows = []
    for name, measured in scores.items():
        rows += [smooth_row(name, score) for score, _ in measured if score.cycled]
    drawn = smooth_pictures()
    for name, pictures in drawn.items():
        rows += [smooth_row(f"{name} ({len(pictures)} drawn)", score) for score in evaluate(bench.engine, pictures, FIXED)]
        bench.say(f"{name} measured")
    headings = ["images", "scale", "blocks", "worst block error", "worst colour shift", "worst pixel"]
    largest = worst([score.low_texture for measured in scores.values() for score, _ in measured])
    return f"""## Smooth areas

Blocks of 16 x 16 source pixels that in every channel are within 2 levels RMS of a plane: skies, gradients, flat colours. The
*error* of a block is the mean absolute error of its worst channel in 8-bit levels (at most {BLOCK_LIMIT:g} is asked for, more
is bold), its *colour shift* the absolute value of the mean error, *pixel* the largest error anywhere in such blocks. The
borders of images count. Largest block error on the sets over every scale measured: {largest.error:.2f}.

{table(headings, rows)}"""


def smooth_row(name: str, score: Score) -> list[str]:
    blocks = score.low_texture
    return [name, f"x{score.scale}", f"{blocks.blocks}", worst_block(blocks), f"{blocks.shift:.2f}", f"{blocks.pixel:.0f}"]
