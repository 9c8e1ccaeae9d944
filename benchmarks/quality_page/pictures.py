"""The sections of docs/quality.md that show pictures: drawings after there and back, and the LRs of photographs."""

from __future__ import annotations

import numpy as np
from PIL import Image

from benchmarks.quality_page.bench import FIXED, Bench
from benchmarks.quality_page.drawings import drawings
from benchmarks.support.bicubic import reference_lr, there_and_back
from benchmarks.support.page import bold, table
from jobs.reports import sheet
from jobs.training.evaluate import crop, fidelity, lr_size_at, name_of
from pipeline.core.records import Pixels
from pipeline.engines.measure import measure
from pipeline.pictures.picture import size_of

SAMPLES = {"skyline": (0, 700), "budgie": (300, 640)}
"""Photographs whose LRs are shown, and the source pixel (top, left) at which the crop begins."""


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
    size = size_of(picture)
    for scale in FIXED:
        restored = bench.engine.restore(bench.engine.downscale(picture, lr_size_at(size, scale)), size)
        both = (there_and_back(picture, scale), restored)
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
            pair = (bench.engine.downscale(source, lr_size), reference_lr(source, bench.engine.axes(source.shape[:2], lr_size)))
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
