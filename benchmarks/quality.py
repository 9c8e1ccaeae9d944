"""How good the restored images are: measures everything in docs/quality.md and writes it, pictures included.

    python benchmarks/quality.py --eval FOLDER            # FOLDER holds set5, set14 and bsd100
    python benchmarks/quality.py --eval FOLDER --quick --weights run/iarn.safetensors --out build/quality

Every figure comes from this one run but those marked as published. It takes long on a CPU, says on standard error where it
is, and writes OUT/quality.md last.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
from drawings import drawings, smooth_pictures
from matplotlib.figure import Figure
from PIL import Image
from safetensors.torch import load

from iarn.lattice import axes_for
from iarn.metrics import BlockErrors, bicubic_lr
from iarn.network import Rescaler
from iarn.weights import read_metadata, unpack
from jobs.reports import sheet
from jobs.rescale import read_weights
from jobs.training.evaluate import (
    Score,
    cost_at,
    crop,
    evaluate,
    fidelity,
    load_images,
    lr_size_at,
    name_of,
    worst,
)
from jobs.training.scales import parse_scales
from pipeline.core.errors import PipelineError
from pipeline.core.records import Pixels
from pipeline.engines.engine import Engine, choose_device, measure
from pipeline.pictures.picture import resize

Scale = tuple[float, float]

SETS = {"set5": "Set5", "set14": "Set14", "bsd100": "BSD100"}
SCALES = parse_scales("1.5,2,2.5,3,3.5,4,1.5x4,2x3,3x1.5")
POINTS = parse_scales(
    "1.1,1.2,1.3,1.4,1.5,1.6,1.7,1.8,1.9,1.95,1.98,2,2.02,2.05,2.1,2.2,2.35,2.5,2.75,3,3.25,3.5,3.75,3.9,3.95,4"
)
QUICK_POINTS = parse_scales("1.2,1.5,1.9,2,2.1,3,4")
FIXED = ((2.0, 2.0), (4.0, 4.0))
ROUNDS = 5
BLOCK_LIMIT = 6.0
LR_LIMIT = 38.0
COST_LIMIT = 300_000

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

SAMPLES = {"skyline": (0, 700), "budgie": (300, 640)}
"""Photographs whose LRs are shown, and the source pixel (top, left) at which the crop begins."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What is measured, and where the results go."""

    engine: Engine
    network: Rescaler
    weights: bytes
    sets: dict[str, list[Pixels]]
    samples: Path
    out: Path
    quick: bool
    begun: float

    def say(self, text: str) -> None:
        """Tell a person what was done and how far the run is, in minutes."""
        print(f"[{(time.monotonic() - self.begun) / 60:6.1f} min] {text}", file=sys.stderr, flush=True)

    def picture(self, name: str, pixels: Pixels) -> str:
        """Write a lossless WebP and return its link from the document."""
        (self.out / "images" / f"{name}.webp").write_bytes(sheet.as_file(pixels, "webp"))
        return f"images/{name}.webp"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--eval", type=Path, required=True, metavar="FOLDER", help="holds set5, set14 and bsd100")
    parser.add_argument("--weights", type=Path, help="weights file; the shipped one unless given")
    parser.add_argument("--samples", type=Path, default=Path("samples"), help="photographs whose LRs are shown")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of quality.md and images/")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:N or auto")
    parser.add_argument("--quick", action="store_true", help="Set5 and few scales, to try this script")
    options = parser.parse_args()
    try:
        write(prepare(options), command(options))
    except PipelineError as error:
        raise SystemExit(f"quality: {error}") from None


def prepare(options: argparse.Namespace) -> Bench:
    """Read weights and images; end with a sentence where a folder is missing."""
    names = ["set5"] if options.quick else list(SETS)
    for folder in (*(options.eval / name for name in names), options.samples):
        if not folder.is_dir():
            raise SystemExit(
                f"quality: {folder} is missing; --eval names a folder of {', '.join(SETS)}, --samples one of photos."
            )
    weights = read_weights(options.weights)
    (options.out / "images").mkdir(parents=True, exist_ok=True)
    return Bench(
        engine=Engine(weights, choose_device(options.device)),
        network=unpack(weights),
        weights=weights,
        sets={SETS[name]: [crop(pixels) for _, pixels in load_images(str(options.eval / name))] for name in names},
        samples=options.samples,
        out=options.out,
        quick=options.quick,
        begun=time.monotonic(),
    )


def write(bench: Bench, made_by: str) -> None:
    """Measure everything, then write the document."""
    scores = {name: set_scores(bench, name) for name in bench.sets}
    sections = [
        heading(bench, made_by),
        quality_section(bench, scores),
        curve_section(bench),
        cycles_section(scores),
        smooth_section(bench, scores),
        drawings_section(bench),
        lr_section(bench),
    ]
    path = bench.out / "quality.md"
    path.write_text("\n\n".join(sections) + "\n", encoding="utf-8")
    bench.say(f"{path} is written.")


def command(options: argparse.Namespace) -> str:
    """Return the command of this run, places outside the current folder by words of their own."""
    words = ["python", "benchmarks/quality.py", "--eval", place(options.eval, "FOLDER")]
    if options.weights:
        words += ["--weights", place(options.weights, "WEIGHTS")]
    if options.out != Path("docs"):
        words += ["--out", place(options.out, "OUT")]
    return " ".join(shlex.quote(word) for word in (*words, *(["--quick"] if options.quick else [])))


def place(path: Path, word: str) -> str:
    return word if path.is_absolute() or ".." in path.parts else str(path)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (headings, ["---"] * len(headings), *rows))


def heading(bench: Bench, made_by: str) -> str:
    """Return the title, the command, and which weights these are."""
    metadata = read_metadata(bench.weights)
    about, config = json.loads(metadata.get("about", "{}")), json.loads(metadata["config"])
    tensors = load(bench.weights).values()
    rows = [
        ("digest of config and tensors", f"`{metadata['digest']}`"),
        ("SHA-256 of the file", f"`{hashlib.sha256(bench.weights).hexdigest()}`"),
        ("size", f"{len(bench.weights):,} bytes"),
        ("parameters", f"{sum(tensor.numel() for tensor in tensors):,}"),
        ("stored as", ", ".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors}))),
        ("steps of training", f"{about['steps']:,}" if "steps" in about else "not said in the file"),
        ("blocks per stage, width, clamp", f"{config['blocks']}, {config['width']}, {config['clamp']:g}"),
    ]
    quick = "\n**A quick run, to try the script: Set5 and few scales only.**\n" if bench.quick else ""
    versions = f"torch {torch.__version__.partition('+')[0]} on a {'CPU' if bench.engine.device.type == 'cpu' else 'GPU'}"
    return f"""# Quality

Everything on this page was measured in one run of

```sh
{made_by}
```
{quick}
with {versions}, but for the figures marked as published. `FOLDER` holds set5, set14 and bsd100 as lossless
PNG; none of them was trained on. No latent is used anywhere.

{table(("weights", ""), rows)}"""


def set_scores(bench: Bench, name: str) -> list[tuple[Score, float]]:
    """Return the score and the PSNR-Y of bicubic there and back, at each scale."""
    found = []
    for scale in FIXED if bench.quick else SCALES:
        (score,) = evaluate(bench.engine, bench.sets[name], [scale], cycles=ROUNDS if scale in FIXED else 0)
        found.append((score, bicubic_psnr(bench.sets[name], scale)))
        bench.say(f"{name} x{score.scale}: PSNR-Y {score.psnr_y:.2f}, LR {score.lr_psnr:.2f} dB")
    return found


def bicubic_psnr(images: Sequence[Pixels], scale: Scale) -> float:
    return float(np.mean([fidelity(image, bicubic(image, scale), scale)[0] for image in images]))


def bicubic(image: Pixels, scale: Scale) -> Pixels:
    """Return an image after bicubic there and back, 8-bit in between."""
    size = (image.shape[0], image.shape[1])
    return resize(resize(image, lr_size_at(size, scale)), size)


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


def bold(text: str, when: bool) -> str:
    return f"**{text}**" if when else text


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


def drawings_section(bench: Bench) -> str:
    """Return figures and pictures of text, line art and screenshots."""
    rows: list[list[str]] = []
    lines: dict[str, list[list[sheet.Panel]]] = {"quality-text": [], "quality-drawings": []}
    for name, picture in drawings().items():
        row, panels = drawing_row(bench, name, picture)
        rows.append(row)
        lines["quality-text" if "text" in name else "quality-drawings"].append(panels)
    columns = [f"{what}, x{name_of(scale)}" for scale in FIXED for what in ("bicubic", "restored")]
    title = "Crops pixel for pixel. Decibels are PSNR-Y of the whole drawings."
    links = [bench.picture(file, sheet.draw(title, ["source", *columns], own)) for file, own in lines.items()]
    bench.say("drawings measured")
    return f"""## Text, line art, screenshots

Drawn for this page. PSNR-Y in dB beside bicubic there and back (bold where bicubic is better).

{table(["drawing", *columns], rows)}

![Crops of text, after bicubic there and back, and as the network restores it]({links[0]})

![Crops of a screenshot, lines and checkerboards, after bicubic there and back, and as the network restores them]({links[1]})"""


def drawing_row(bench: Bench, name: str, picture: Pixels) -> tuple[list[str], list[sheet.Panel]]:
    """Return a drawing's row of the table and its crops."""
    row, panels = [name], [sheet.Panel(pixels=sheet.crop(picture, (0, 0)), caption=name)]
    size = (picture.shape[0], picture.shape[1])
    for scale in FIXED:
        restored = bench.engine.restore(bench.engine.downscale(picture, lr_size_at(size, scale)), size)
        both = (bicubic(picture, scale), restored)
        theirs, ours = (fidelity(picture, each, scale)[0] for each in both)
        row += [f"{theirs:.2f}", bold(f"{ours:.2f}", ours < theirs)]
        for each, figure in zip(both, (theirs, ours), strict=True):
            panels.append(sheet.Panel(pixels=sheet.crop(each, (0, 0)), caption=f"{figure:.2f} dB"))
    return row, panels


def lr_section(bench: Bench) -> str:
    """Return a picture of the network's LRs beside the bicubic ones, pixel for pixel."""
    lines = []
    for name, (top, left) in SAMPLES.items():
        with Image.open(bench.samples / f"{name}.jpg") as file:
            source = crop(np.array(file.convert("RGB")))
        panels = []
        for scale in FIXED:
            lr_size = lr_size_at(source.shape[:2], scale)
            pair = (bench.engine.downscale(source, lr_size), reference(source, lr_size))
            captions = (f"{name}, {measure(pair[1], pair[0]).psnr:.1f} dB", name)
            start = (min(round(top / scale[0]), lr_size[0] - sheet.CROP), min(round(left / scale[1]), lr_size[1] - sheet.CROP))
            panels += [sheet.Panel(pixels=sheet.crop(lr, start), caption=text) for lr, text in zip(pair, captions, strict=True)]
        lines.append(panels)
    headings = [f"{what}, x{name_of(scale)}" for scale in FIXED for what in ("LR", "bicubic LR")]
    drawn = sheet.draw("Parts of LRs pixel for pixel. Decibels are of the whole LR against the bicubic one.", headings, lines)
    bench.say("LRs drawn")
    return f"""## The LR

Parts of the LRs of two sample photographs at full size, the antialiased bicubic LR beside, to look for patterns.

![LRs of the network beside bicubic ones, x2 and x4, pixel for pixel]({bench.picture("quality-lr", drawn)})"""


def reference(source: Pixels, lr_size: tuple[int, int]) -> Pixels:
    x = torch.from_numpy(source).permute(2, 0, 1)[None].float() / 255
    lr = bicubic_lr(x, axes_for(source.shape[:2], lr_size))
    return lr[0].mul(255).round().to(torch.uint8).permute(1, 2, 0).numpy()


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


if __name__ == "__main__":
    main()
